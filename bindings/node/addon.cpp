// What the addon exports. Loaded once per environment: in the main thread and in every worker.

#include "binding.hpp"

namespace towline::node {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData);
  exports.Set("setErrorFactory", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                info.Env().GetInstanceData<AddonData>()->make_error =
                    Napi::Persistent(info[0].As<Napi::Function>());
              }));
  // For a test of every code of the table: (number, message, native code).
  exports.Set("raise", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                const auto code = static_cast<ErrorCode>(whole_from(info[0], "number", 0, 0xffff));
                const auto native_code = static_cast<int>(whole_from(info[2], "native code", 0, 0xffff));
                raise(info.Env(), {code, text_from(info[1], "message"), native_code});
              }));
  define_port(env, exports);
  define_handles(env, exports);
  define_sagas(env, exports);
  return exports;
}

}  // namespace
}  // namespace towline::node

namespace {
Napi::Object start(Napi::Env env, Napi::Object exports) { return towline::node::init(env, exports); }
}  // namespace

NODE_API_MODULE(towline, start)
