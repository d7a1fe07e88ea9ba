// A topic is made by whoever first publishes to it, perhaps while the groups that want it have no process
// running. So the groups leave their patterns in the file (`interest`), and the maker attaches them in the
// same transaction: nothing can be published to a topic and removed again before a group that had asked for
// it has a cursor there.

#include "drivers/sqlite/topics.hpp"

#include <string>
#include <utility>

#include "base/topic_match.hpp"
#include "drivers/sqlite/publish.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr std::uint8_t kPriorityMax = 9;

constexpr const char* kDataVersion = "PRAGMA data_version";
constexpr const char* kSchemaVersion = "PRAGMA user_version";
constexpr const char* kTopicsAfter =
    "SELECT id, name, kind, partition_count, retention_us FROM topic WHERE id > ?1 ORDER BY id";
constexpr const char* kLogsAfter = "SELECT id, topic_id, priority FROM log WHERE id > ?1 ORDER BY id";
constexpr const char* kLog = "SELECT trimmed_seq, body_seq, swept_seq FROM log WHERE id = ?1";
constexpr const char* kLastMessage =
    "SELECT seq + coalesce(count, 1) - 1 FROM message WHERE seq > ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1";
constexpr const char* kInsertTopic =
    "INSERT INTO topic(name, kind, partition_count, retention_us, created_us) VALUES(?1, ?2, ?3, ?4, ?5)";
constexpr const char* kInsertLog =
    "INSERT INTO log(topic_id, priority, trimmed_seq, body_seq, swept_seq) VALUES(?1, ?2, 0, 0, 0)";
constexpr const char* kLogStart =
    "UPDATE log SET trimmed_seq = ?2, body_seq = ?2, swept_seq = ?2 WHERE id = ?1";
constexpr const char* kGroupsOfTopic = "SELECT group_id FROM grp_topic WHERE topic_id = ?1";
constexpr const char* kInsertCursor = "INSERT OR IGNORE INTO cursor VALUES(?1, ?2, ?3)";
constexpr const char* kInsertPartitionCursors =
    "INSERT OR IGNORE INTO partition_cursor SELECT ?1, group_id, partition, ?2 FROM ownership WHERE topic_id "
    "= ?3";
constexpr const char* kInterests = "SELECT group_id, pattern FROM interest";
constexpr const char* kGroupByName = "SELECT id FROM grp WHERE name = ?1";
constexpr const char* kGroupById = "SELECT name FROM grp WHERE id = ?1";
constexpr const char* kInsertGroup = "INSERT INTO grp(name) VALUES(?1)";
constexpr const char* kGroupTopic = "SELECT partitioned FROM grp_topic WHERE topic_id = ?1 AND group_id = ?2";
constexpr const char* kInsertGroupTopic = "INSERT INTO grp_topic VALUES(?1, ?2, 0)";
constexpr const char* kOwnerships =
    "SELECT partition, member_id, epoch, revoking FROM ownership WHERE topic_id = ?1 AND group_id = ?2";
constexpr const char* kCursor = "SELECT read_seq FROM cursor WHERE log_id = ?1 AND group_id = ?2";
constexpr const char* kPartitionCursors =
    "SELECT partition, read_seq FROM partition_cursor WHERE log_id = ?1 AND group_id = ?2";
constexpr const char* kAddressedBefore =
    "INSERT OR IGNORE INTO redelivery SELECT ?1, m.seq, coalesce(m.partition, b.partition), 0, 0, 0 FROM "
    "message m"
    " LEFT JOIN body b ON b.body_id = m.body_id"
    " WHERE m.seq > ?2 AND m.seq <= ?3 AND coalesce(m.group_id, b.group_id) = ?1";

TopicState& add_topic(Catalog& catalog, std::int64_t id, std::string_view name, spi::TopicKind kind,
                      std::uint32_t partition_count, Duration retention) {
  auto made = std::make_unique<TopicState>();
  TopicState& topic = *made;
  topic.id = id;
  topic.name = name;
  topic.kind = kind;
  topic.partition_count = partition_count;
  topic.retention = retention;
  catalog.topics[id] = std::move(made);
  catalog.topics_by_name[topic.name] = &topic;
  ++catalog.shape;
  return topic;
}

LogState& add_log(Catalog& catalog, std::int64_t id, TopicState& topic, std::uint8_t priority) {
  auto made = std::make_unique<LogState>();
  LogState& log = *made;
  log.id = id;
  log.topic = &topic;
  log.priority = priority;
  log.last = log.trimmed = log.swept = log.body_last = log.fired.gathered = log_begin(id);
  topic.logs[priority] = &log;
  catalog.logs[id] = std::move(made);
  ++catalog.shape;
  return log;
}

GroupState& add_group(Catalog& catalog, std::int64_t id, std::string_view name) {
  auto made = std::make_unique<GroupState>();
  GroupState& group = *made;
  group.id = id;
  group.name = name;
  catalog.groups[id] = std::move(made);
  catalog.groups_by_name[group.name] = &group;
  return group;
}

/// Topics and logs never change and never go, so only the new ones are read.
void load_shape(Tx& tx) {
  Catalog& catalog = tx.catalog;
  const std::uint64_t before = catalog.shape;
  const std::int64_t topic_last = catalog.topics.empty() ? 0 : catalog.topics.rbegin()->first;
  Query topics(tx.sql, kTopicsAfter, topic_last);
  while (topics.row()) {
    add_topic(catalog, topics.integer(0), topics.text(1), base::topic_kind_of(topics.text(2)), topics.u32(3),
              Duration(topics.integer(4)));
  }
  const std::int64_t log_last = catalog.logs.empty() ? 0 : catalog.logs.rbegin()->first;
  Query logs(tx.sql, kLogsAfter, log_last);
  while (logs.row()) {
    const auto topic = catalog.topics.find(logs.integer(1));
    const auto priority = static_cast<std::uint8_t>(logs.integer(2));
    if (topic == catalog.topics.end() || priority > kPriorityMax) continue;
    add_log(catalog, logs.integer(0), *topic->second, priority);
  }
  if (catalog.shape != before) tx.shape_changed = true;
}

/// The last position that a group starting like this does not get.
Seq start_in(Tx& tx, LogState& log, const spi::StartPosition& start) {
  using Kind = spi::StartPosition::Kind;
  fresh(tx, log);
  if (log.topic->kind == spi::TopicKind::kBus || start.kind == Kind::kLatest) return log.last;
  if (start.kind == Kind::kEarliest) return log.trimmed;
  // Ids grow with time, so where the id itself is not kept in this log the first greater one comes after it.
  Seq greater = log.last;
  MessageReader message(tx.sql, log, log.trimmed, log.last);
  while (message.next()) {
    if (message.group_id() != 0) continue;
    if (start.kind == Kind::kAtTime && message.published_us() >= to_us(start.at)) return message.seq() - 1;
    if (start.kind != Kind::kAfterId) continue;
    const MessageId id = message.id();
    if (id == start.after_id) return message.seq();
    if (id > start.after_id && greater == log.last) greater = message.seq() - 1;
  }
  return greater;
}

}  // namespace

void refresh(Tx& tx) {
  const auto version = select_integer(tx.sql, kDataVersion);
  if (!version || *version == tx.catalog.data_version) return;
  tx.catalog.data_version = *version;
  ++tx.catalog.generation;
  tx.catalog.schema_version = select_integer(tx.sql, kSchemaVersion).value_or(0);
  load_shape(tx);
}

void rebuild(Tx& tx) {
  Catalog& catalog = tx.catalog;
  catalog.topics_by_name.clear();
  catalog.groups_by_name.clear();
  for (auto& [id, session] : catalog.sessions) {
    session->topics.clear();
    session->shape = 0;
  }
  catalog.logs.clear();
  catalog.topics.clear();
  // Groups that sessions point to stay where they are: a session exists only after its group was committed.
  std::erase_if(catalog.groups, [&](const auto& entry) {
    return std::none_of(catalog.sessions.begin(), catalog.sessions.end(),
                        [&](const auto& session) { return session.second->group == entry.second.get(); });
  });
  for (auto& [id, group] : catalog.groups) {
    catalog.groups_by_name[group->name] = group.get();
    group->topics.clear();
    group->generation = kNoGeneration;
  }
  ++catalog.generation;
  ++catalog.shape;
  catalog.data_version = -1;
  catalog.next_end = MonotonicTime::min();
  catalog.scanned_generation = kNoGeneration;
  refresh(tx);
  tx.shape_changed = true;
}

TopicState* find_topic(Catalog& catalog, std::string_view name) {
  const auto it = catalog.topics_by_name.find(name);
  return it == catalog.topics_by_name.end() ? nullptr : it->second;
}

TopicState& topic_of(Tx& tx, std::string_view name, const spi::Topology& settings) {
  if (TopicState* known = find_topic(tx.catalog, name)) return *known;
  execute(tx.sql, kInsertTopic, name, base::name_of(settings.kind), settings.partition_count,
          settings.retention.count(), to_us(tx.now.wall));
  TopicState& topic = add_topic(tx.catalog, sqlite3_last_insert_rowid(tx.sql.raw()), name, settings.kind,
                                settings.partition_count, settings.retention);
  tx.shape_changed = true;
  std::vector<std::int64_t> interested;
  {
    Query interests(tx.sql, kInterests);
    while (interests.row()) {
      if (base::pattern_matches(interests.text(1), name)) interested.push_back(interests.integer(0));
    }
  }
  for (const std::int64_t id : interested)
    attach_group(tx, group_by_id(tx, id), topic, {});
  for (auto& [id, session] : tx.catalog.sessions) {
    const bool wants = session->group != nullptr && !session->dropped && session->options.matches(name);
    if (wants) attach_group(tx, *session->group, topic, {});
  }
  return topic;
}

LogState& fresh(Tx& tx, LogState& log) {
  if (log.generation == tx.catalog.generation) return log;
  Query row(tx.sql, kLog, log.id);
  if (row.row()) {
    log.trimmed = row.integer(0);
    log.body_last = row.integer(1);
    // Another process has swept: what was gathered here is gone.
    if (const Seq swept = row.integer(2); swept != log.swept) {
      log.swept = swept;
      log.fired = {};
      log.fired.gathered = swept;
    }
  }
  const auto last = select_integer(tx.sql, kLastMessage, log_begin(log.id), log_end(log.id));
  // Positions are never used again, also when the last message was removed.
  log.last = std::max(last.value_or(0), log.trimmed);
  log.generation = tx.catalog.generation;
  return log;
}

LogState& log_of(Tx& tx, TopicState& topic, std::uint8_t priority) {
  if (LogState* known = topic.logs[priority]) return fresh(tx, *known);
  execute(tx.sql, kInsertLog, topic.id, priority);
  const std::int64_t id = sqlite3_last_insert_rowid(tx.sql.raw());
  execute(tx.sql, kLogStart, id, log_begin(id));
  LogState& log = add_log(tx.catalog, id, topic, priority);
  log.generation = tx.catalog.generation;
  tx.shape_changed = true;
  std::vector<std::int64_t> groups;
  {
    Query attached(tx.sql, kGroupsOfTopic, topic.id);
    while (attached.row())
      groups.push_back(attached.integer(0));
  }
  for (const std::int64_t group : groups)
    execute(tx.sql, kInsertCursor, id, group, log_begin(id));
  execute(tx.sql, kInsertPartitionCursors, id, log_begin(id), topic.id);
  return log;
}

GroupState* find_group(Tx& tx, std::string_view name) {
  if (const auto it = tx.catalog.groups_by_name.find(name); it != tx.catalog.groups_by_name.end())
    return it->second;
  const auto id = select_integer(tx.sql, kGroupByName, name);
  return id ? &add_group(tx.catalog, *id, name) : nullptr;
}

GroupState& group_of(Tx& tx, std::string_view name) {
  if (GroupState* known = find_group(tx, name)) return *known;
  execute(tx.sql, kInsertGroup, name);
  return add_group(tx.catalog, sqlite3_last_insert_rowid(tx.sql.raw()), name);
}

GroupState& group_by_id(Tx& tx, std::int64_t id) {
  if (const auto it = tx.catalog.groups.find(id); it != tx.catalog.groups.end()) return *it->second;
  Query row(tx.sql, kGroupById, id);
  return add_group(tx.catalog, id, row.row() ? row.text(0) : std::string_view());
}

namespace {

/// `partitioned` never goes back to false, and a group is never detached.
void load_group_topic(Tx& tx, GroupTopic& at) {
  if (at.generation == tx.catalog.generation) return;
  if (!at.partitioned) {
    at.partitioned = select_integer(tx.sql, kGroupTopic, at.topic->id, at.group->id).value_or(0) != 0;
  }
  if (at.partitioned) {
    at.partitions.assign(at.topic->partition_count, {});
    Query rows(tx.sql, kOwnerships, at.topic->id, at.group->id);
    while (rows.row()) {
      const auto partition = static_cast<std::size_t>(rows.integer(0));
      if (partition >= at.partitions.size()) continue;
      at.partitions[partition] = {rows.integer(1), static_cast<std::uint64_t>(rows.integer(2)),
                                  rows.integer(3) != 0};
    }
  }
  at.generation = tx.catalog.generation;
}

}  // namespace

GroupTopic* find_group_topic(Tx& tx, GroupState& group, TopicState& topic) {
  const auto known = group.topics.find(topic.id);
  if (known != group.topics.end()) {
    load_group_topic(tx, *known->second);
    return known->second.get();
  }
  if (!select_integer(tx.sql, kGroupTopic, topic.id, group.id)) return nullptr;
  auto& made = group.topics[topic.id];
  made = std::make_unique<GroupTopic>();
  made->group = &group;
  made->topic = &topic;
  load_group_topic(tx, *made);
  return made.get();
}

GroupTopic& attach_group(Tx& tx, GroupState& group, TopicState& topic, const spi::StartPosition& start) {
  if (GroupTopic* known = find_group_topic(tx, group, topic)) return *known;
  execute(tx.sql, kInsertGroupTopic, topic.id, group.id);
  for (LogState* log : topic.logs) {
    if (log == nullptr) continue;
    const Seq from = start_in(tx, *log, start);
    execute(tx.sql, kInsertCursor, log->id, group.id, from);
    // What was addressed to this group is not passed over, wherever it starts.
    if (from > log->trimmed && topic.kind == spi::TopicKind::kQueue) {
      if (execute(tx.sql, kAddressedBefore, group.id, log->trimmed, from) && tx.sql.changes() > 0) {
        group.returned = true;
      }
    }
  }
  auto& made = group.topics[topic.id];
  made = std::make_unique<GroupTopic>();
  made->group = &group;
  made->topic = &topic;
  made->generation = tx.catalog.generation;
  return *made;
}

namespace {

/// What this process has read of a partition that it kept all the time is more than what the file says of it.
void load_partition_cursors(Tx& tx, const GroupTopic& at, Reader& reader) {
  const std::vector<Seq> before = std::move(reader.partition_read);
  const std::vector<std::uint64_t> epochs = std::move(reader.partition_epoch);
  reader.partition_written.assign(at.partitions.size(), reader.read);
  Query rows(tx.sql, kPartitionCursors, reader.log->id, at.group->id);
  while (rows.row()) {
    const auto partition = static_cast<std::size_t>(rows.integer(0));
    if (partition < reader.partition_written.size()) reader.partition_written[partition] = rows.integer(1);
  }
  reader.partition_read = reader.partition_written;
  reader.partition_epoch.assign(at.partitions.size(), 0);
  for (std::size_t p = 0; p < at.partitions.size(); ++p) {
    const Ownership& one = at.partitions[p];
    reader.partition_epoch[p] = one.epoch;
    const bool kept =
        p < epochs.size() && epochs[p] == one.epoch && tx.catalog.sessions.contains(one.member_id);
    if (kept) reader.partition_read[p] = std::max(reader.partition_read[p], before[p]);
  }
}

}  // namespace

Reader& reader_of(Tx& tx, GroupTopic& at, LogState& log) {
  Reader& reader = at.readers[log.priority];
  if (reader.generation == tx.catalog.generation && reader.log == &log) return reader;
  reader.log = &log;
  reader.read = select_integer(tx.sql, kCursor, log.id, at.group->id).value_or(log_begin(log.id));
  if (at.partitioned) load_partition_cursors(tx, at, reader);
  reader.generation = tx.catalog.generation;
  return reader;
}

Result<void> declare_topic(Tx& tx, const spi::Topology& topology) {
  const TopicState* known = find_topic(tx.catalog, topology.topic);
  if (known == nullptr) {
    topic_of(tx, topology.topic, topology);
    return {};
  }
  spi::Topology existing = topology;
  existing.kind = known->kind;
  existing.partition_count = known->partition_count;
  existing.retention = known->retention;
  return base::check_same_topology(existing, topology);
}

std::uint32_t partition_count_of(Catalog& catalog, std::string_view topic) {
  const TopicState* known = find_topic(catalog, topic);
  return known != nullptr ? known->partition_count : spi::Topology{}.partition_count;
}

}  // namespace towline::drivers::sqlite
