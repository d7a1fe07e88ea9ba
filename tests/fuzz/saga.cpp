// The log of a saga: in whatever order its entries come, each is taken or refused as a whole; what was taken
// comes to the same state again; and a saga whose calls succeed from there on comes to an end.

#include "fuzz/input.hpp"
#include "saga/record.hpp"
#include "saga/state.hpp"

namespace {

using namespace towline;
using namespace towline::saga;

/// Each step publishes events of its own, and listens to the beginning or to what another one publishes.
Shape flow_from(fuzz::Input& input, int steps) {
  Shape shape;
  shape.begins_with = "begin";
  std::vector<Step>& stage = shape.stages.emplace_back();
  for (int i = 0; i < steps; ++i) {
    Step& step = stage.emplace_back();
    step.name = "s" + std::to_string(i);
    step.compensates = false;
    const int heard = input.byte() % (2 * steps + 1);
    step.listen_to = heard == 2 * steps ? "begin" : "e" + std::to_string(heard);
    step.on_success = "e" + std::to_string(2 * i);
    step.is_awaited = input.byte() % 3 == 0;
    if (step.is_awaited || input.byte() % 2 == 0) step.on_failure = "e" + std::to_string(2 * i + 1);
  }
  return shape;
}

Shape shape_from(fuzz::Input& input) {
  const int first = input.byte();
  if (first >= 128) return flow_from(input, 1 + first % 6);
  Shape shape;
  const int stages = 1 + first % 4;
  int number = 0;
  for (int s = 0; s < stages; ++s) {
    std::vector<Step>& stage = shape.stages.emplace_back();
    const int steps = 1 + input.byte() % 3;
    for (int i = 0; i < steps; ++i)
      stage.push_back({"s" + std::to_string(number++)});
    if (steps == 1 && shape.pivot.empty() && input.byte() % 4 == 0) shape.pivot = stage.front().name;
  }
  return shape;
}

Entry entry_from(fuzz::Input& input, const Shape& shape) {
  Entry entry;
  entry.mark = static_cast<Mark>(input.byte() % kMarkCount);
  const std::size_t step = input.byte() % (shape.step_count() + 2);
  if (step > 0) entry.step = "s" + std::to_string(step - 1);
  entry.attempt = input.byte() % 4U;
  if (input.byte() % 2 == 0) entry.due_at = from_us(input.byte());
  if (input.byte() % 2 == 0) entry.output = "output";
  if (input.byte() % 4 == 0) entry.context = "context";
  if (shape.is_flow()) entry.event = "e" + std::to_string(input.byte() % (2 * shape.step_count()));
  return entry;
}

/// Everything that begins succeeds.
void play_to_its_end(State state) {
  for (std::size_t round = 0; !is_final(state.status()); ++round) {
    fuzz::require(round < 1'000, "a saga whose calls succeed comes to an end");
    for (const Call& call : state.running())
      fuzz::require(state.apply(state.succeeded(call, {}, {})).ok(), "what runs can succeed");
    for (const Call& call : state.unwanted())
      fuzz::require(state.apply(state.failed(call, std::nullopt, "no")).ok(), "what is unwanted can fail");
    for (const Call& call : state.ready(TimePoint::max()))
      fuzz::require(state.apply(state.begin(call)).ok(), "what is ready can begin");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const Shape shape = shape_from(input);
  if (!check_shape(shape)) return 0;
  const auto read = shape_of(to_text(shape));
  fuzz::require(read.ok() && fingerprint_of(*read) == fingerprint_of(shape), "a shape comes back as it was");
  State state(shape);
  std::vector<Entry> log;
  const auto offer = [&](Entry entry) {
    const SagaStatus before = state.status();
    const std::size_t count = state.entry_count();
    if (state.apply(entry)) {
      const auto back = from_event(to_event(entry));
      fuzz::require(back.ok(), "an entry comes back from the store");
      log.push_back(*back);
    } else {
      fuzz::require(state.status() == before && state.entry_count() == count,
                    "a refused entry changes nothing");
    }
  };
  Entry begun;
  begun.mark = Mark::kBegun;
  if (input.byte() % 8 != 0) offer(begun);
  while (!input.rest().empty() && log.size() < 200) {
    // Now and then what would really come next, or the walk would not come far.
    const auto ready = state.ready(TimePoint::max());
    const auto running = state.running();
    const std::uint8_t choice = input.byte() % 4;
    if (choice == 0 && !ready.empty()) {
      offer(state.begin(ready[input.byte() % ready.size()]));
    } else if (choice == 1 && !running.empty()) {
      const Call& call = running[input.byte() % running.size()];
      const bool again = input.byte() % 2 == 0;
      offer(input.byte() % 3 == 0
                ? state.succeeded(call, {}, {})
                : state.failed(call, again ? std::optional(TimePoint{}) : std::nullopt, "no"));
    } else {
      offer(entry_from(input, shape));
    }
  }
  const auto again = State::replay(shape, log);
  fuzz::require(again.ok(), "what was taken is taken again");
  fuzz::require(again->status() == state.status() && again->context() == state.context() &&
                    again->running().size() == state.running().size(),
                "the same log comes to the same state");
  if (!log.empty()) play_to_its_end(state);
  RecordedEvent event;
  event.type = name_of(static_cast<Mark>(input.byte() % kMarkCount));
  event.payload = std::string(input.rest());
  event.headers = {{"output", input.line()}, {"context", input.line()}, {"attempt", input.line()}};
  const auto entry = from_event(event);
  fuzz::require(entry.ok() || entry.error().code == ErrorCode::kCorruptStore, "no log is a corrupt store");
  return 0;
}
