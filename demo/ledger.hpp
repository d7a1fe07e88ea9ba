#pragma once
// The ledgers: what every process says it did, independent of the engine.
//
// Each life of a process appends to a file of its own, one JSON object per line, one write(2) with O_APPEND
// per line, before and after everything that counts. A kill can therefore lose only what had not been done
// yet, or tear the last line of a file that nobody continues. The verdict reads these files and nothing the
// engine counted.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <towline/result.hpp>

namespace towline::demo {

enum class What : std::uint8_t {
  kPublish,  ///< is about to publish (due time drawn, nothing sent yet)
  kAcked,    ///< the publish was acknowledged
  kRefused,  ///< the publish was rejected or its outcome is unknown: it is published again under the same
             ///< dedup id
  kAgain,    ///< the deliberate second publish was acknowledged
  kStart,    ///< a handler began
  kEffect,   ///< the handler's transaction has committed
  kFail,     ///< the handler fails now, as planned
  kVoid,     ///< the delivery belonged to somebody else meanwhile; nothing was changed
  kTrouble,  ///< something that was not planned; `text` says what
  kKilled,   ///< the coordinator killed the process named in `text`
  kSaga,     ///< the saga of an order was started, or was there already (`duplicate`)
  kStep,     ///< a part of a saga has had its effect, or had it before (`duplicate`)
  kStepFail  ///< a part of a saga fails now, as planned
};

struct Record {
  What what = What::kStart;
  std::uint32_t number = 0;  ///< of the order
  std::int64_t at_us = 0;    ///< wall clock
  std::int64_t due_us = 0;   ///< kPublish: 0 is at once
  std::uint32_t attempt = 0;
  std::uint32_t crashes = 0;
  bool redelivered = false;
  /// kAcked, kAgain: the receipt said that the dedup id was known; kSaga, kStep.
  bool duplicate = false;
  std::string message_id = {};  ///< kAcked, kAgain
  std::string customer = {};    ///< kAcked, with `sequence`
  std::uint32_t sequence = 0;
  std::int64_t payload_hash = 0;  ///< kStart
  std::string text = {};
  std::string key = {};  ///< kStep, kStepFail: of the part of the saga
};

[[nodiscard]] std::string to_line(const Record& record);
/// Errors: kInvalidArgument when the line is not a record.
[[nodiscard]] Result<Record> parse_record(std::string_view line);

/// Appends to one file. Thread-safe. A ledger that cannot be written ends the process with status 3, because
/// nothing that happens afterwards could be judged.
class Ledger {
 public:
  /// Makes the file, which must not exist.
  static Result<Ledger> create(const std::string& path);
  Ledger(Ledger&& other) noexcept;
  Ledger& operator=(Ledger&&) = delete;
  ~Ledger();
  void append(const Record& record) const;

 private:
  explicit Ledger(int fd) : fd_(fd) {}
  int fd_;
};

/// Follows all ledgers of a folder: each poll() hands over what was appended since the last one, file by
/// file.
class LedgerReader {
 public:
  using Sink = std::function<void(const std::string& source, const Record& record)>;
  explicit LedgerReader(std::string folder) : folder_(std::move(folder)) {}
  /// `source` is the name of the process life, e.g. "python-2.1". Errors: kIoError; kInvalidArgument for a
  /// whole line that is not a record, naming file and line.
  Result<void> poll(const Sink& sink);
  /// Files that end in half a line.
  [[nodiscard]] std::size_t torn_count() const;

 private:
  struct File {
    std::uint64_t offset = 0;
    std::size_t line = 0;
    std::string rest;
  };
  Result<void> follow(const std::string& source, File& file, const Sink& sink);
  std::string folder_;
  std::map<std::string, File> files_;
};

}  // namespace towline::demo
