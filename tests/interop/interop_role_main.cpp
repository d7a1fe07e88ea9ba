// One role of the interop test in C++; role.py and role.mjs are the same in their languages. Prints one line
// of JSON with what it saw.
//
//   interop_role publish|fail|mend|handle|append|follow|begin|reply|end URL

#include <future>
#include <iostream>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include <towline/towline.hpp>

namespace {

using nlohmann::json;
using namespace std::chrono_literals;

json seen_of(const towline::Delivery& delivery) {
  json headers = json::object();
  for (const auto& [name, value] : delivery.headers())
    headers[name] = value;
  return {{"id", delivery.id().to_string()},
          {"payload", delivery.payload()},
          {"content_type", delivery.content_type()},
          {"key", delivery.key().value_or("")},
          {"partition", delivery.partition()},
          {"headers", headers},
          {"correlation_id", delivery.correlation_id()},
          {"attempt", delivery.attempt()},
          {"redrives", delivery.redrives()}};
}

json publish(towline::Engine& engine) {
  towline::Message message;
  message.topic = "orders";
  message.payload = R"({"n":1,"s":"ün"})";
  message.content_type = "application/json";
  message.key = "customer-9";
  message.headers = {{"a", "ü"}};
  message.correlation_id = "c-1";
  return {{"id", engine.publish(std::move(message)).value().to_string()}};
}

/// Handles one message, and fails it when `fails`.
json consume(towline::Engine& engine, bool fails) {
  std::promise<json> handled;
  towline::ConsumerOptions options;
  options.group = "billing";
  options.order = towline::Order::kKeyOrdered;
  options.retry.max_attempts = 1;
  auto consumer = engine
                      .consume("orders", options,
                               [&](towline::Delivery& delivery) {
                                 handled.set_value(seen_of(delivery));
                                 if (fails) throw towline::HandlerError("BadOrder", "no amount");
                               })
                      .value();
  json seen = handled.get_future().get();
  consumer.drain(20s).value();
  return seen;
}

json mend(towline::Engine& engine) {
  const auto page = engine.dead_letters({.topic = "orders", .error_type = "BadOrder"}).value();
  const towline::DeadLetter& entry = page.items.at(0);
  json headers = json::object();
  for (const auto& [name, value] : entry.headers)
    headers[name] = value;
  engine.redrive(entry.id, {.payload = R"({"n":2})"}).value();
  return {{"id", entry.message_id.to_string()},
          {"count", page.items.size()},
          {"payload", entry.payload},
          {"content_type", entry.content_type},
          {"headers", headers},
          {"error", entry.error_message},
          {"attempt", entry.attempt},
          {"fingerprint", entry.fingerprint.size()}};
}

json append(towline::Engine& engine) {
  towline::NewEvent placed{"order.placed", R"({"n":1,"s":"ün"})", "application/json", {{"a", "ü"}}};
  const auto appended =
      engine.event_store().append("order-7", {placed, {"order.noted", "ün", "text/plain; charset=utf-8"}}, 0);
  return {{"first", appended.value().first_version}, {"last", appended.value().last_version}};
}

/// The next event of a subscription that all languages share.
json follow(towline::Engine& engine) {
  towline::EventSubscription subscription =
      engine.event_store().subscribe({.name = "reader", .stream = "order-7"}).value();
  const auto events = subscription.receive(1, 20s).value();
  const towline::RecordedEvent& event = events.at(0);
  subscription.checkpoint(event.version).value();
  json headers = json::object();
  for (const auto& [name, value] : event.headers)
    headers[name] = value;
  return {{"version", event.version},
          {"type", event.type},
          {"payload", event.payload},
          {"content_type", event.content_type},
          {"headers", headers}};
}

/// A saga that all languages run; its step "charge" is a command.
towline::Saga order() {
  const auto text = [](const std::string& value) { return json(value).dump(); };
  towline::SagaStepOptions options;
  options.changes_nothing = true;
  towline::SagaStepOptions command = options;
  command.command = "payments";
  towline::Saga saga("order");
  saga.step(
          "reserve",
          [text](towline::SagaCall& call) {
            json context = json::parse(call.context());
            context["reserved"] = call.key();
            call.set_context(context.dump()).value();
            call.set_output(text("shelf 7")).value();
          },
          options)
      .step("charge", {}, command)
      .step(
          "ship",
          [](towline::SagaCall& call) {
            const json both = {json::parse(call.output_of("reserve").value()),
                               json::parse(call.output_of("charge").value())};
            call.set_output(both.dump()).value();
          },
          options);
  return saga;
}

json begin(towline::Engine& engine) {
  towline::Sagas sagas = engine.sagas();
  const auto started = sagas.start(order(), "o-1", R"({"n":1,"s":"ün"})").value();
  const auto runner = sagas.run(order()).value();
  for (;;) {
    const towline::SagaInfo info = sagas.find("order", "o-1").value().value();
    if (info.step == "charge") {
      return {{"is_new", started.is_new},
              {"status", towline::name_of(info.status)},
              {"step", info.step},
              {"fingerprint", info.fingerprint}};
    }
    std::this_thread::sleep_for(5ms);  // sleeps: between two looks
  }
}

json reply(towline::Engine& engine) {
  std::promise<json> handled;
  const auto consumer = engine.consume("payments", {.group = "bank"}, [&](towline::Delivery& delivery) {
    const json receipt = {{"receipt", "ün"}};
    engine.publish(towline::Sagas::reply(delivery, receipt.dump()).value()).value();
    handled.set_value({{"key", delivery.key().value_or("")}, {"payload", delivery.payload()}});
  });
  json seen = handled.get_future().get();
  towline::Consumer(consumer.value()).drain(20s).value();
  return seen;
}

json end(towline::Engine& engine) {
  towline::Sagas sagas = engine.sagas();
  const auto runner = sagas.run(order()).value();
  const auto result = sagas.result("order", "o-1", 20s).value();
  json done = json::array();
  for (const towline::SagaEntry& entry : sagas.timeline("order", "o-1").value()) {
    if (entry.mark != towline::SagaMark::kDone) continue;
    done.push_back({entry.step, json::parse(entry.output.value())});
  }
  return {{"status", towline::name_of(result.saga.status)},
          {"context", json::parse(result.context)},
          {"done", done}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string role = argv[1];
  auto engine = towline::Engine::open(argv[2]).value();
  json seen;
  if (role == "publish") seen = publish(engine);
  if (role == "fail" || role == "handle") seen = consume(engine, role == "fail");
  if (role == "mend") seen = mend(engine);
  if (role == "append") seen = append(engine);
  if (role == "follow") seen = follow(engine);
  if (role == "begin") seen = begin(engine);
  if (role == "reply") seen = reply(engine);
  if (role == "end") seen = end(engine);
  engine.close().value();
  std::cout << seen.dump() << "\n";
  return seen.is_null() ? 2 : 0;
}
