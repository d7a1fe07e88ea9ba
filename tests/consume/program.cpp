// What a first program does: publish one message and handle it, on the engine of the URL it is given. All
// three ways of finding the library build this same file.
#include <towline/towline.hpp>

#include <chrono>
#include <cstdio>
#include <future>
#include <string>

int main(int argc, char** argv) {
  const std::string url = argc > 1 ? argv[1] : "memory:";
  auto engine = towline::Engine::open(url);
  if (!engine) {
    std::fprintf(stderr, "open %s: %s\n", url.c_str(), engine.error().to_string().c_str());
    return 1;
  }

  std::promise<std::string> handled;
  auto consumer = engine->consume("orders", {.group = "billing"}, [&](towline::Delivery& delivery) {
    handled.set_value(std::string(delivery.payload()));
  });
  if (!consumer) {
    std::fprintf(stderr, "consume: %s\n", consumer.error().to_string().c_str());
    return 1;
  }

  const auto receipt = engine->publish({.topic = "orders", .payload = "order 1", .key = "customer 9"});
  if (receipt.outcome != towline::PublishOutcome::kAcked) {
    std::fprintf(stderr, "publish: not acknowledged\n");
    return 1;
  }
  auto result = handled.get_future();
  if (result.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
    std::fprintf(stderr, "nothing was handled within 30 s\n");
    return 1;
  }
  const std::string payload = result.get();
  const auto stuck = engine->close();
  std::printf("handled %s\n", payload.c_str());
  return payload == "order 1" && stuck && *stuck == 0 ? 0 : 1;
}
