#pragma once
// What the modes of fault_child share. The program is started by the experiments as
//   fault_child <mode> <url> <folder of ledgers> <name of this life> [option=value ...]
// prints "ready" when it has begun, and ends with 0 when it did what it was told, and with 3 when a call
// failed that must not.

#include <cstdint>
#include <map>
#include <string>

#include <towline/towline.hpp>

#include "faults/notes.hpp"

namespace towline::faults {

struct Orders {
  std::string mode;
  std::string url;
  std::string folder;
  std::string name;
  std::map<std::string, std::string> options;

  [[nodiscard]] std::string text(const std::string& option, std::string otherwise) const {
    const auto found = options.find(option);
    return found == options.end() ? std::move(otherwise) : found->second;
  }
  [[nodiscard]] std::int64_t number(const std::string& option, std::int64_t otherwise) const {
    const auto found = options.find(option);
    return found == options.end() ? otherwise : std::stoll(found->second);
  }
};

inline constexpr const char* kTopic = "orders";
inline constexpr const char* kGroup = "group";

void say(const std::string& line);
/// With lease_ms and what else the orders say. Throws Exception.
[[nodiscard]] Engine open_engine(const Orders& orders);
/// A member of `group` with short waits, no breaker and the options of the orders.
[[nodiscard]] ConsumerOptions member_options(const Orders& orders);
/// Until somebody sends SIGTERM, which was blocked before any thread began.
void wait_for_term();
/// Publishes one message and notes "invoke" and then "acked", "rejected" or "unknown".
Receipt publish_noted(Engine& engine, Notebook& notes, const Item& item, Message message = {},
                      std::size_t bytes_min = 0);

int run_worker(const Orders& orders);
int run_publisher(const Orders& orders);
int run_script(const Orders& orders);
int run_mixed_publisher(const Orders& orders);
int run_redrive(const Orders& orders);
int run_full_disk(const Orders& orders);
int run_stuck(const Orders& orders);
int run_slow_consumer(const Orders& orders);
int run_appender(const Orders& orders);
int run_follower(const Orders& orders);
int run_relay(const Orders& orders);
int run_sagas(const Orders& orders);
int run_sql_writer(const Orders& orders);
int run_engine(const Orders& orders);
int run_talker(const Orders& orders);
int run_service(const Orders& orders);
int run_client(const Orders& orders);
int run_racers(const Orders& orders);
int run_booker(const Orders& orders);

}  // namespace towline::faults
