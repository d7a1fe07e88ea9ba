// A batch goes to the ends of its logs. What follows each other in one log is gathered into runs (runs.hpp);
// a message that stands alone gets a row that people can read. Either way each row lands behind the one
// before it, which is the fastest thing the b-tree does.

#include "drivers/sqlite/publish.hpp"

#include <algorithm>
#include <utility>

#include "base/ids.hpp"
#include "codec/extras.hpp"
#include "drivers/sqlite/dedup.hpp"
#include "drivers/sqlite/topics.hpp"

namespace towline::drivers::sqlite {
namespace {

constexpr const char* kInsertMessage = "INSERT INTO message(seq, " TOWLINE_ENVELOPE_COLUMNS(
    "id") ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
constexpr const char* kInsertBodyMessage = "INSERT INTO message(seq, body_id) VALUES(?1, ?2)";
constexpr const char* kInsertRun =
    "INSERT INTO message(seq, count, published_us, payload) VALUES(?1, ?2, ?3, ?4)";
/// From the row on that has the first of them, which may begin before it.
constexpr const char* kSelectMessages =
    "SELECT seq, body_id, " TOWLINE_ENVELOPE_COLUMNS("id") ", count FROM message"
    " WHERE seq <= ?2 AND seq >= coalesce((SELECT seq FROM message WHERE seq <= ?1 + 1 AND seq > ?3"
    " ORDER BY seq DESC LIMIT 1), ?1 + 1) ORDER BY seq";
constexpr const char* kSelectBody =
    "SELECT " TOWLINE_ENVELOPE_COLUMNS("coalesce(message_id, record_id)") " FROM body WHERE body_id = ?1";
constexpr int kPayloadOffset = 11;
constexpr int kCountColumn = 14;
/// With kRunCountMax the bounds of a run: a message that comes back alone is found by reading its run.
constexpr std::size_t kRunBytesMax = 64 << 10;

std::optional<std::int64_t> us_unless_never(TimePoint time) {
  return time == kNever ? std::nullopt : std::optional(to_us(time));
}

/// What nearly all rows would have is NULL, which takes no room at a row's end.
std::optional<std::int64_t> unless(std::int64_t usual, std::int64_t value) {
  return value == usual ? std::nullopt : std::optional(value);
}

/// NULL: the id says it.
TimePoint published_at(const Query& row, int first) {
  return row.is_null(first + 4) ? base::time_of(row.id(first + 2)) : from_us(row.integer(first + 4));
}

/// Writes to one log after another; looks topic and log up only when they change.
class Appender {
 public:
  explicit Appender(Tx& tx) : tx_(tx), insert_(tx.sql, kInsertMessage), insert_run_(tx.sql, kInsertRun) {}

  /// The envelope must live until flush().
  void add(const spi::Envelope& envelope) {
    if (log_ == nullptr || log_->priority != envelope.priority || log_->topic->name != envelope.topic) {
      flush();
      log_ = &log_of(tx_, topic_of(tx_, envelope.topic), envelope.priority);
      tx_.note_appended(*log_);
    }
    if (!fits_run(envelope)) {
      flush();
      ++log_->last;
      insert_alone(envelope);
      return;
    }
    const bool full = count_ == kRunCountMax || run_.size() + envelope.payload.size() > kRunBytesMax;
    if (count_ > 0 && full) flush();
    ++log_->last;
    if (count_ == 0) {
      first_ = &envelope;
    } else {
      if (count_ == 1) put(*first_);
      put(envelope);
    }
    ++count_;
  }

  void flush() {
    if (count_ == 1) {
      insert_alone(*first_);
    } else if (count_ > 1) {
      insert_run_.bind(log_->last - count_ + 1, count_, to_us(first_->published_at), Blob{run_});
      insert_run_.run();
      run_.clear();
    }
    count_ = 0;
  }

 private:
  /// A schedule may hold a partition from before its topic was declared with fewer.
  [[nodiscard]] std::uint32_t partition_for(const spi::Envelope& envelope) const noexcept {
    return envelope.partition % log_->topic->partition_count;
  }
  void put(const spi::Envelope& envelope) {
    append_to_run(run_, envelope, partition_for(envelope), to_us(first_->published_at));
  }
  void insert_alone(const spi::Envelope& envelope) {
    std::optional<std::int64_t> group_id;
    if (!envelope.group.empty()) group_id = group_of(tx_, envelope.group).id;
    const std::string extras = codec::encode_extras(envelope);
    insert_.set(1, log_->last);
    bind_envelope(insert_, 2, envelope, group_id, extras);
    insert_.set(2, partition_for(envelope));
    insert_.run();
  }

  Tx& tx_;
  Query insert_;
  Query insert_run_;
  LogState* log_ = nullptr;
  /// What waits to be written: so many of the last positions of the log.
  std::int64_t count_ = 0;
  const spi::Envelope* first_ = nullptr;
  std::string run_;
};

}  // namespace

void bind_envelope(Query& query, int first, const spi::Envelope& envelope,
                   std::optional<std::int64_t> group_id, std::string_view extras) {
  query.set(first, envelope.partition);
  query.set(first + 1, group_id);
  query.set(first + 2, envelope.id);
  query.set(first + 3, envelope.key);
  query.set(first + 4, to_us(envelope.published_at));
  query.set(first + 5, us_unless_never(envelope.expires_at));
  query.set(first + 6, unless(1, envelope.attempt));
  query.set(first + 7, unless(0, envelope.crashes));
  query.set(first + 8, unless(0, envelope.redrives));
  query.set(first + 9, unless(0, envelope.heads_key ? 1 : 0));
  if (extras.empty()) {
    query.set(first + 10, nullptr);
  } else {
    query.set(first + 10, Blob{extras});
  }
  query.set(first + 11, Blob{envelope.payload});
}

bool read_envelope(const Query& row, int first, spi::Envelope& envelope) {
  envelope.partition = row.u32(first);
  envelope.id = row.id(first + 2);
  if (!row.is_null(first + 3)) envelope.key.emplace(row.text(first + 3));
  envelope.published_at = published_at(row, first);
  if (!row.is_null(first + 5)) envelope.expires_at = from_us(row.integer(first + 5));
  envelope.attempt = row.is_null(first + 6) ? 1 : row.u32(first + 6);
  envelope.crashes = row.u32(first + 7);
  envelope.redrives = row.u32(first + 8);
  envelope.heads_key = row.integer(first + 9) != 0;
  envelope.payload = row.blob(first + kPayloadOffset);
  return row.is_null(first + 10) || codec::decode_extras(row.blob(first + 10), envelope).ok();
}

std::vector<spi::PublishAnswer> publish(Tx& tx, std::span<const spi::Envelope> envelopes) {
  std::vector<spi::PublishAnswer> answers;
  Appender appender(tx);
  std::uint32_t partition_count = 0;
  for (std::size_t i = 0; i < envelopes.size(); ++i) {
    const spi::Envelope& envelope = envelopes[i];
    if (i == 0 || envelope.topic != envelopes[i - 1].topic) {
      partition_count = partition_count_of(tx.catalog, envelope.topic);
    }
    if (auto bad = check_envelope(envelope, partition_count); !bad) {
      answers.resize(envelopes.size());
      answers[i].rejected = std::move(bad).error();
      continue;
    }
    if (deduplicates(envelope)) {
      if (const auto holder = hold_dedup(tx, envelope)) {
        answers.resize(envelopes.size());
        answers[i].duplicate = true;
        answers[i].original = *holder;
        continue;
      }
    }
    appender.add(envelope);
  }
  appender.flush();
  return answers;
}

void append(Tx& tx, const spi::Envelope& envelope) {
  Appender appender(tx);
  appender.add(envelope);
  appender.flush();
}

void append_body(Tx& tx, LogState& log, std::int64_t body_id) {
  execute(tx.sql, kInsertBodyMessage, ++log.last, body_id);
  log.body_last = log.last;
  log.trimmed_dirty = true;
  tx.note_written(log);
  tx.note_appended(log);
}

MessageReader::MessageReader(Connection& sql, const LogState& log, Seq after, Seq last)
    : sql_(sql),
      log_(log),
      after_(std::max(after, log.trimmed)),
      last_(last),
      rows_(sql, kSelectMessages, after_, last, log_begin(log.id)) {}

bool MessageReader::next() {
  if (run_left_ > 1) {
    if (seq_ == last_) return false;
    --run_left_;
    ++seq_;
    message_ = run_.next();
    return true;
  }
  // The first row may be one that ends before what is wanted.
  while (next_row()) {
    if (seq_ > after_) return seq_ <= last_;
  }
  return false;
}

bool MessageReader::next_row() {
  body_.reset();
  run_left_ = 0;
  if (!rows_.row()) return false;
  seq_ = rows_.integer(0);
  if (rows_.is_null(kCountColumn)) return true;
  run_left_ = rows_.integer(kCountColumn);
  run_ = RunReader(rows_.blob(2 + kPayloadOffset), rows_.integer(2 + 4));
  while (seq_ <= after_ && run_left_ > 0) {
    run_.skip();
    ++seq_;
    --run_left_;
  }
  if (run_left_ == 0) {
    seq_ = after_;
    return true;
  }
  message_ = run_.next();
  return true;
}

MessageReader::Content MessageReader::content() {
  if (rows_.is_null(1)) return {&rows_, 2};
  if (!body_) {
    body_.emplace(sql_, kSelectBody, rows_.integer(1));
    body_found_ = body_->row();
  }
  return {&*body_, 0};
}

std::int64_t MessageReader::group_id() {
  if (in_run()) return 0;
  const Content at = content();
  return at.row->is_null(at.first + 1) ? 0 : at.row->integer(at.first + 1);
}

std::uint32_t MessageReader::partition() {
  std::uint32_t partition = message_.partition;
  if (!in_run()) {
    const Content at = content();
    partition = at.row->u32(at.first);
  }
  return partition % log_.topic->partition_count;
}

MessageId MessageReader::id() {
  if (in_run()) return id_of(message_);
  const Content at = content();
  return at.row->id(at.first + 2);
}

std::int64_t MessageReader::published_us() {
  if (in_run()) return message_.published_us;
  const Content at = content();
  return to_us(published_at(*at.row, at.first));
}

std::size_t MessageReader::payload_size() {
  if (in_run()) return message_.payload.size();
  const Content at = content();
  return at.row->blob(at.first + kPayloadOffset).size();
}

bool MessageReader::read(Tx& tx, spi::Envelope& envelope) {
  envelope.topic = log_.topic->name;
  envelope.priority = log_.priority;
  bool whole = false;
  if (in_run()) {
    whole = to_envelope(message_, envelope);
  } else {
    const Content at = content();
    whole = read_envelope(*at.row, at.first, envelope) && (at.row == &rows_ || body_found_);
    if (!at.row->is_null(at.first + 1)) envelope.group = group_by_id(tx, at.row->integer(at.first + 1)).name;
  }
  envelope.partition %= log_.topic->partition_count;
  return whole;
}

}  // namespace towline::drivers::sqlite
