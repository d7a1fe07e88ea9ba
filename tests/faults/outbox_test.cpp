// FLT-25: those who write orders and messages in transactions of their own, with plain SQLite, and those who
// relay them are killed at any moment. Every order that was committed has one message, no other has any, and
// the messages of a writer come in the order of its transactions.

#include "faults/outbox.hpp"

#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "faults/child.hpp"
#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

constexpr std::int64_t kWriterSpan = 1'000'000;
constexpr std::size_t kWriters = 2;

class OutboxKills : public Experiment {
 protected:
  /// The orders that were committed, by the table alone.
  [[nodiscard]] std::set<std::int64_t> stored() {
    std::set<std::int64_t> numbers;
    for (const std::string& row : ask_sqlite(database(), "SELECT number FROM orders"))
      numbers.insert(std::stoll(row));
    return numbers;
  }
  [[nodiscard]] bool is_through(std::int64_t each) {
    const std::string count = ask_sqlite(database(), "SELECT count(*) FROM orders").at(0);
    return std::stoll(count) == static_cast<std::int64_t>(kWriters) * each * 4 / 5;
  }
  std::int64_t kill_until_through(Crew& writers, Crew& engines, std::int64_t each,
                                  std::int64_t kills_wanted) {
    std::int64_t kills = 0;
    const Stopwatch watch;
    for (bool through = false; !through || kills < kills_wanted; through = is_through(each)) {
      if (watch.elapsed() > sized(120s, 1500s)) {
        ADD_FAILURE() << "the writers do not come to their end";
        return kills;
      }
      if (kills < kills_wanted) {
        Crew& crew = through || draw(2) == 0 ? engines : writers;
        const std::size_t seat = draw(crew.size());
        kill(crew.child_of(seat), crew.name_of(seat));
        crew.start_again(seat);
        ++kills;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + draw(40)));  // sleeps: until the next kill
    }
    return kills;
  }
  /// What was published, in the order in which it is handed out.
  [[nodiscard]] std::vector<std::int64_t> published(Engine& engine, std::size_t count) {
    std::vector<std::int64_t> numbers;
    std::mutex mutex;
    ConsumerOptions options = member_options({});
    options.order = Order::kKeyOrdered;
    Consumer consumer = engine
                            .consume("orders", options,
                                     [&](Delivery& delivery) {
                                       const std::lock_guard lock(mutex);
                                       numbers.push_back(std::stoll(std::string(delivery.payload())));
                                     })
                            .value();
    const auto all = [&] {
      const std::lock_guard lock(mutex);
      return numbers.size() >= count;
    };
    EXPECT_TRUE(eventually(all, 30s)) << numbers.size() << " of " << count;
    EXPECT_TRUE(engine.settle_down(20s).ok());
    (void)consumer.close().value();
    return numbers;
  }
};

TEST_F(OutboxKills, Flt25_EveryCommittedOrderHasOneMessageAndNoOtherHasAny) {
  TOWLINE_EXPERIMENT("FLT-25");
  const auto each = sized<std::int64_t>(1'000, 20'000);
  const auto kills_wanted = sized<std::int64_t>(40, 300);
  ASSERT_TRUE(open().close().ok());
  (void)ask_sqlite(database(), "CREATE TABLE orders(number INTEGER PRIMARY KEY)");
  Crew writers(kWriters, "writer", [&](const std::string& name) {
    const std::int64_t writer = std::stoll(name.substr(name.find('-') + 1));
    return start("write_sql", name,
                 {"from=" + std::to_string(writer * kWriterSpan),
                  "to=" + std::to_string(writer * kWriterSpan + each), "key=k" + std::to_string(writer)});
  });
  Crew engines(2, "engine", [&](const std::string& name) { return start("engine", name, {"lease_ms=300"}); });
  const std::int64_t kills = kill_until_through(writers, engines, each, kills_wanted);
  writers.stop();
  engines.stop();

  EXPECT_EQ(integrity_of(database()), "ok");
  const std::set<std::int64_t> orders = stored();
  Engine engine = open();
  const std::vector<std::int64_t> numbers = published(engine, orders.size());
  std::set<std::int64_t> once;
  std::map<std::int64_t, std::int64_t> last;
  for (const std::int64_t number : numbers) {
    EXPECT_TRUE(orders.contains(number)) << number << " was rolled back, or never written";
    EXPECT_FALSE(is_rolled_back(number)) << number;
    EXPECT_TRUE(once.insert(number).second) << number << " was published twice";
    const auto [at, first] = last.try_emplace(number / kWriterSpan, -1);
    EXPECT_GT(number, at->second) << "the order of its key";
    at->second = number;
  }
  EXPECT_EQ(once.size(), orders.size()) << "lost";
  EXPECT_EQ(ask_sqlite(database(), "SELECT count(*) FROM towline_outbox_v1").at(0), "0");
  EXPECT_TRUE(held_by(engine).dead_letters.empty());
  print("FLT-25", "\"orders\":" + std::to_string(orders.size()) + ",\"kills\":" + std::to_string(kills) +
                      ",\"lost\":0,\"doubled\":0");
}

}  // namespace
}  // namespace towline::faults
