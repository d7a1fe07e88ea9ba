// Messages that are addressed to one group are not for ephemeral subscribers.

#include "drivers/sqlite/ephemeral.hpp"

#include <algorithm>
#include <chrono>
#include <memory>

#include "drivers/sqlite/members.hpp"
#include "drivers/sqlite/publish.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::size_t kBlockCount = 128;
constexpr const char* kEphemeralMembers =
    "SELECT id, patterns, lease_until_us FROM member WHERE group_id = 0";

/// False: the budget is used up.
bool read_log(Tx& tx, Session& session, LogState& log, std::size_t count_max, std::size_t& bytes_left,
              std::vector<spi::Delivery>& out) {
  fresh(tx, log);
  const auto [it, made] = session.positions.try_emplace(log.id, log_begin(log.id));
  Seq& position = it->second;
  std::shared_ptr<std::vector<spi::Envelope>> block;
  MessageReader message(tx.sql, log, position, log.last);
  for (;;) {
    if (out.size() >= count_max) return false;
    if (!message.next()) break;
    if (message.group_id() == 0) {
      const std::size_t size = message.payload_size();
      if (!out.empty() && size > bytes_left) return false;
      bytes_left -= std::min(bytes_left, size);
      if (block == nullptr || block->size() == kBlockCount) {
        block = std::make_shared<std::vector<spi::Envelope>>();
        block->reserve(kBlockCount);
      }
      spi::Envelope& envelope = block->emplace_back();
      spi::Delivery& delivery = out.emplace_back();
      if (!message.read(tx, envelope)) delivery.undecodable = envelope.payload;
      delivery.envelope = std::shared_ptr<const spi::Envelope>(block, &envelope);
      delivery.crashes = envelope.crashes;
    }
    position = message.seq();
  }
  if (tx.sql.ok()) position = std::max(position, log.last);
  return true;
}

}  // namespace

void read_ephemeral(Tx& tx, Session& session, std::size_t count_max, std::size_t payload_bytes_max,
                    std::vector<spi::Delivery>& out) {
  if (session.shape != tx.catalog.shape) {
    session.topics.clear();
    for (auto& [id, topic] : tx.catalog.topics) {
      if (session.options.matches(topic->name)) session.topics.push_back(topic.get());
    }
    session.shape = tx.catalog.shape;
  }
  std::size_t bytes_left = payload_bytes_max == 0 ? SIZE_MAX : payload_bytes_max;
  const std::size_t size = session.topics.size();
  const std::size_t turn = session.turn;
  for (std::size_t k = 0; k < size; ++k) {
    const std::size_t index = (turn + k) % size;
    const std::size_t before = out.size();
    bool room = true;
    auto& logs = session.topics[index]->logs;
    for (auto log = logs.rbegin(); log != logs.rend() && room; ++log) {
      if (*log != nullptr) room = read_log(tx, session, **log, count_max, bytes_left, out);
    }
    if (out.size() > before) session.turn = index + 1;
    if (!room) return;
  }
}

bool has_ephemeral_readers(Tx& tx, const TopicState& topic) {
  Query rows(tx.sql, kEphemeralMembers);
  while (rows.row()) {
    const auto own = tx.catalog.sessions.find(rows.integer(0));
    const bool live =
        own != tx.catalog.sessions.end() ? own->second->live : rows.integer(2) > to_us(tx.now.wall);
    if (live && asks_for(rows.text(1), topic.name)) return true;
  }
  return false;
}

Seq ephemeral_low(Tx& tx, const LogState& log) {
  Seq low = log.last;
  Query rows(tx.sql, kEphemeralMembers);
  while (rows.row()) {
    const auto own = tx.catalog.sessions.find(rows.integer(0));
    if (own == tx.catalog.sessions.end()) {
      const bool live = rows.integer(2) > to_us(tx.now.wall);
      if (live && asks_for(rows.text(1), log.topic->name)) return log_begin(log.id);
      continue;
    }
    const Session& session = *own->second;
    if (!session.live || session.dropped || !session.options.matches(log.topic->name)) continue;
    const auto position = session.positions.find(log.id);
    low = std::min(low, position == session.positions.end() ? log_begin(log.id) : position->second);
  }
  return low;
}

}  // namespace towline::drivers::sqlite
