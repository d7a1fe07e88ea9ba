#pragma once
// What records are made of on their way to JavaScript.

#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "binding.hpp"

namespace towline::node {

/// An object that is filled field by field.
class Record {
 public:
  explicit Record(Napi::Env env) : env_(env), object_(Napi::Object::New(env)) {}
  Record& put(const char* name, const Napi::Value& value) {
    object_.Set(name, value);
    return *this;
  }
  Record& put(const char* name, std::string_view value) { return put(name, Napi::Value(text(env_, value))); }
  Record& put(const char* name, const std::string& value) { return put(name, std::string_view(value)); }
  Record& put(const char* name, const char* value) { return put(name, std::string_view(value)); }
  template <typename T>
  requires std::is_arithmetic_v<T> Record& put(const char* name, T value) {
    if constexpr (std::is_same_v<T, bool>) {
      return put(name, Napi::Value(Napi::Boolean::New(env_, value)));
    } else {
      return put(name, Napi::Value(Napi::Number::New(env_, static_cast<double>(value))));
    }
  }
  Record& put(const char* name, TimePoint value) {
    return put(name, Napi::Value(Napi::Date::New(env_, static_cast<double>(to_us(value)) / 1e3)));
  }
  Record& put(const char* name, const std::optional<std::string>& value) {
    return value ? put(name, std::string_view(*value)) : put(name, Napi::Value(env_.Null()));
  }
  [[nodiscard]] Napi::Object take() const { return object_; }

 private:
  Napi::Env env_;
  Napi::Object object_;
};

template <typename Items, typename Convert>
[[nodiscard]] Napi::Array list(Napi::Env env, const Items& items, Convert convert) {
  auto out = Napi::Array::New(env, std::size(items));
  std::uint32_t i = 0;
  for (const auto& item : items)
    out.Set(i++, convert(item));
  return out;
}

[[nodiscard]] inline Napi::Value buffer(Napi::Env env, std::string_view bytes) {
  return Napi::Buffer<char>::Copy(env, bytes.data(), bytes.size());
}

}  // namespace towline::node
