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
  define_port(env, exports);
  define_delivery(env, exports);
  return exports;
}

}  // namespace
}  // namespace towline::node

namespace {
Napi::Object start(Napi::Env env, Napi::Object exports) { return towline::node::init(env, exports); }
}  // namespace

NODE_API_MODULE(towline, start)
