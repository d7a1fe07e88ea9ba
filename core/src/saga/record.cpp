// Entries as events; see the header.

#include "saga/record.hpp"

#include <charconv>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/text.hpp"

namespace towline::saga {
namespace {

Error corrupt(const std::string& what) {
  return {ErrorCode::kCorruptStore, "the log of a saga is damaged: " + what};
}

template <typename Number>
bool read_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string stream_of(std::string_view type, std::string_view id) {
  return std::string(type).append("/").append(id);
}

RecordedEvent to_event(const Entry& entry) {
  RecordedEvent event;
  event.type = name_of(entry.mark);
  event.recorded_at = entry.at;
  const auto add = [&event](const char* name, std::string value) {
    event.headers.emplace_back(name, std::move(value));
  };
  if (!entry.step.empty()) add("step", entry.step);
  if (entry.attempt > 0) add("attempt", std::to_string(entry.attempt));
  if (entry.due_at) add("due_us", std::to_string(to_us(*entry.due_at)));
  if (!entry.error.empty()) add("error", entry.error);
  if (!entry.event.empty()) add("event", entry.event);
  if (entry.output) {
    add("output", std::to_string(entry.output->size()));
    event.payload = *entry.output;
  }
  if (entry.context) {
    add("context", std::to_string(entry.context->size()));
    event.payload += *entry.context;
  }
  return event;
}

Result<Entry> from_event(const RecordedEvent& event) {
  const auto mark = mark_of(event.type);
  if (!mark) return corrupt("no mark is named '" + base::escape(event.type, 64) + "'");
  Entry entry;
  entry.mark = *mark;
  entry.at = event.recorded_at;
  std::size_t taken = 0;
  const auto take = [&](std::string_view size) -> std::optional<Bytes> {
    std::size_t count = 0;
    if (!read_number(size, count) || count > event.payload.size() - taken) return std::nullopt;
    return event.payload.substr(std::exchange(taken, taken + count), count);
  };
  for (const auto& [name, value] : event.headers) {
    bool ok = true;
    std::int64_t due = 0;
    if (name == "step") {
      entry.step = value;
    } else if (name == "attempt") {
      ok = read_number(value, entry.attempt);
    } else if (name == "due_us") {
      ok = read_number(value, due);
      entry.due_at = from_us(due);
    } else if (name == "error") {
      entry.error = value;
    } else if (name == "event") {
      entry.event = value;
    } else if (name == "output") {
      ok = (entry.output = take(value)).has_value();
    } else if (name == "context") {
      ok = (entry.context = take(value)).has_value();
    }
    if (!ok) return corrupt("header '" + name + "' is '" + base::escape(value, 64) + "'");
  }
  if (taken != event.payload.size()) return corrupt("a payload has bytes that belong to nothing");
  return entry;
}

std::string to_text(const Shape& shape) {
  auto stages = nlohmann::json::array();
  for (const std::vector<Step>& stage : shape.stages) {
    auto& steps = stages.emplace_back(nlohmann::json::array());
    for (const Step& step : stage) {
      auto& added = steps.emplace_back(nlohmann::json{
          {"name", step.name}, {"compensates", step.compensates}, {"changes_nothing", step.changes_nothing}});
      if (!shape.is_flow()) continue;
      added["listen_to"] = step.listen_to;
      added["on_success"] = step.on_success;
      added["on_failure"] = step.on_failure;
      added["is_awaited"] = step.is_awaited;
    }
  }
  nlohmann::json json{{"stages", std::move(stages)}, {"pivot", shape.pivot}};
  if (shape.is_flow()) json["begins_with"] = shape.begins_with;
  return json.dump();
}

Result<Shape> shape_of(std::string_view text) {
  Shape shape;
  try {
    const auto json = nlohmann::json::parse(text);
    shape.pivot = json.at("pivot").get<std::string>();
    if (json.contains("begins_with")) shape.begins_with = json["begins_with"].get<std::string>();
    for (const auto& stage : json.at("stages")) {
      std::vector<Step>& steps = shape.stages.emplace_back();
      for (const auto& step : stage) {
        Step& read = steps.emplace_back();
        read.name = step.at("name").get<std::string>();
        read.compensates = step.at("compensates").get<bool>();
        read.changes_nothing = step.at("changes_nothing").get<bool>();
        if (!shape.is_flow()) continue;
        read.listen_to = step.at("listen_to").get<std::string>();
        read.on_success = step.at("on_success").get<std::string>();
        read.on_failure = step.at("on_failure").get<std::string>();
        read.is_awaited = step.at("is_awaited").get<bool>();
      }
    }
  } catch (const nlohmann::json::exception& error) {
    return corrupt(std::string("its definition cannot be read: ") + error.what());
  }
  if (auto bad = check_shape(shape); !bad) return corrupt(bad.error().message);
  return shape;
}

}  // namespace towline::saga
