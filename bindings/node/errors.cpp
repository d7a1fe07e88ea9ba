// Errors cross the boundary by their number; the classes are the package's own (node/src/errors.ts, from the
// table).

#include "binding.hpp"

namespace towline::node {

Napi::Value error_of(Napi::Env env, const Error& error) {
  const auto* data = env.GetInstanceData<AddonData>();
  if (data == nullptr || data->make_error.IsEmpty()) return Napi::Error::New(env, error.message).Value();
  return data->make_error.Call({Napi::Number::New(env, static_cast<double>(error.code)),
                                text(env, error.message),
                                Napi::Number::New(env, static_cast<double>(error.native_code))});
}

void raise(Napi::Env env, const Error& error) { throw Napi::Error(env, error_of(env, error)); }

void raise_wrong(const Napi::Value& value, std::string_view name, std::string_view wanted) {
  const char* kind = "an object";
  switch (value.Type()) {
    case napi_undefined:
      kind = "undefined";
      break;
    case napi_null:
      kind = "null";
      break;
    case napi_boolean:
      kind = "a boolean";
      break;
    case napi_number:
      kind = "a number";
      break;
    case napi_string:
      kind = "a string";
      break;
    case napi_symbol:
      kind = "a symbol";
      break;
    case napi_function:
      kind = "a function";
      break;
    case napi_bigint:
      kind = "a bigint";
      break;
    default:
      break;
  }
  std::string message(name);
  message.append(" is ").append(kind);
  if (value.IsNumber()) message.append(" (").append(value.ToString().Utf8Value()).append(")");
  message.append(", but must be ").append(wanted);
  raise(value.Env(), {ErrorCode::kInvalidArgument, message});
}

}  // namespace towline::node
