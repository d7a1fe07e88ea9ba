#pragma once
// Appending messages, and reading them back.

#include <optional>
#include <span>
#include <vector>

#include "drivers/sqlite/runs.hpp"
#include "drivers/sqlite/tx.hpp"

namespace towline::drivers::sqlite {

/// Answers as Transport::publish does.
[[nodiscard]] std::vector<spi::PublishAnswer> publish(Tx& tx, std::span<const spi::Envelope> envelopes);
/// Appends one envelope that was checked. What comes from another envelope of the same log stays in order.
void append(Tx& tx, const spi::Envelope& envelope);
/// Appends a message that is stored in `body` and stays there.
void append_body(Tx& tx, LogState& log, std::int64_t body_id);

/// The columns of `message` and of `body` that make an envelope, in the order that read_envelope() expects.
#define TOWLINE_ENVELOPE_COLUMNS(id) \
  "partition, group_id, " id         \
  ", key, published_us, expires_us, attempt, crashes, redrives, heads_key, extras, payload"

/// Fills everything but topic, priority and group from the columns from `first` on. False: the row is
/// damaged.
[[nodiscard]] bool read_envelope(const Query& row, int first, spi::Envelope& envelope);
/// Binds the same columns, from parameter `first` on.
void bind_envelope(Query& query, int first, const spi::Envelope& envelope,
                   std::optional<std::int64_t> group_id, std::string_view extras);

/// The messages of a log, wherever their content is: in a row of their own, in a run, or in `body`. Reads in
/// order of seq.
class MessageReader {
 public:
  /// Messages with after < seq <= last, of those that were not trimmed.
  MessageReader(Connection& sql, const LogState& log, Seq after, Seq last);
  /// False at the end.
  bool next();
  [[nodiscard]] Seq seq() const noexcept { return seq_; }
  /// 0: for every group.
  [[nodiscard]] std::int64_t group_id();
  [[nodiscard]] std::uint32_t partition();
  [[nodiscard]] MessageId id();
  [[nodiscard]] std::int64_t published_us();
  [[nodiscard]] std::size_t payload_size();
  /// False: damaged.
  [[nodiscard]] bool read(Tx& tx, spi::Envelope& envelope);

 private:
  /// The row that holds the content: of `message`, or of `body`.
  struct Content {
    const Query* row;
    int first;
  };
  Content content();
  [[nodiscard]] bool in_run() const noexcept { return run_left_ > 0; }
  bool next_row();

  Connection& sql_;
  const LogState& log_;
  const Seq after_;
  const Seq last_;
  Query rows_;
  Seq seq_ = 0;
  std::int64_t run_left_ = 0;  ///< messages of the run from this one on; 0: a row of its own
  RunReader run_;
  RunReader::Message message_;
  std::optional<Query> body_;
  bool body_found_ = false;
};

}  // namespace towline::drivers::sqlite
