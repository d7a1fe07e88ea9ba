// The modes of the outbox: who writes rows of its own and messages with plain SQLite, and who relays them.
// All are killed at any moment and started again.

#include <chrono>
#include <stdexcept>

#include <signal.h>

#include "faults/child.hpp"
#include "faults/outbox.hpp"
#include "faults/sqlite_probe.hpp"

namespace towline::faults {

/// Each order and its message in a transaction of its own, some of them rolled back. Goes on behind the last
/// order that its predecessor committed: the table is all that counts.
int run_sql_writer(const Orders& orders) {
  const std::string path = orders.url.substr(orders.url.find(':') + 1);
  const std::int64_t from = orders.number("from", 0);
  const std::int64_t to = orders.number("to", 0);
  SqliteSession sql(path);
  const std::string last = sql.run("SELECT max(number) FROM orders WHERE number BETWEEN " +
                                   std::to_string(from) + " AND " + std::to_string(to));
  say("ready");
  for (std::int64_t number = last.empty() ? from : std::stoll(last) + 1; number < to; ++number) {
    const std::string text = std::to_string(number);
    sql.run("BEGIN IMMEDIATE");
    sql.run("INSERT INTO orders VALUES(" + text + ")");
    sql.run("INSERT INTO towline_outbox_v1(topic, key, payload) VALUES('orders', '" +
            orders.text("key", "k") + "', '" + text + "')");
    sql.run(is_rolled_back(number) ? "ROLLBACK" : "COMMIT");
  }
  wait_for_term();
  return 0;
}

/// An engine that has nothing else to do.
int run_engine(const Orders& orders) {
  Engine engine = open_engine(orders);
  say("ready");
  wait_for_term();
  return engine.close(std::chrono::seconds(5)).value() == 0 ? 0 : 3;
}

}  // namespace towline::faults
