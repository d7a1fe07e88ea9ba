// The mode of sagas: who runs their steps. It is killed at any moment and started again.

#include <chrono>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "faults/child.hpp"

namespace towline::faults {
namespace {

using namespace std::chrono_literals;

/// What the outside world does under a key: once, whoever asks again. True: it was this call.
bool take_effect(const std::string& folder, std::string key) {
  for (char& c : key)
    c = c == '/' ? '~' : c;
  const int file = ::open((folder + "/" + key).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (file >= 0) ::close(file);
  return file >= 0;
}

}  // namespace

/// Five steps; of the sagas whose number ends with a 3 the fourth fails for good.
int run_sagas(const Orders& orders) {
  Notebook notes(orders.folder, orders.name);
  Engine engine = open_engine(orders);
  const std::string world = orders.text("world", "");
  const auto effect = [&](SagaCall& call) {
    const std::int64_t number = std::stoll(call.id());
    const bool first = take_effect(world, call.key());
    notes.note(first ? "effect" : "again", number, call.key());
  };
  const auto may_fail = [&](SagaCall& call) {
    effect(call);
    if (call.id().ends_with('3')) throw HandlerError("Never", "no");
  };
  SagaStepOptions options;
  options.retry.max_attempts = options.compensation_retry.max_attempts = 1000;
  options.classify.permanent_types = {"Never"};
  SagaOptions together;
  together.concurrency = orders.number("concurrency", 8);
  Saga saga("order", 1, together);
  for (const char* step : {"a", "b", "c"})
    saga.step(step, effect, effect, options);
  saga.step("d", may_fail, effect, options).step("e", effect, effect, options);
  SagaRunner runner = engine.sagas().run(saga).value();
  say("ready");
  wait_for_term();
  return engine.close(5s).value() == 0 ? 0 : 3;
}

}  // namespace towline::faults
