#pragma once
// The independent ledgers of the fault experiments: what every process says it did, and nothing the engine
// counted. Each life of a process appends to a file of its own, a line with one write(2) before and after
// everything that counts, so a kill loses only what was not done yet.
//
// A line: time (CLOCK_MONOTONIC, comparable between the processes of a machine, in microseconds), what, group
// ("-": none), number of the message, attempt, 1 if redelivered, and free text.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/ledger.hpp"

namespace towline::faults {

struct Note {
  std::int64_t at_us = 0;
  std::string what;
  std::string group = "-";
  std::int64_t number = 0;
  std::uint32_t attempt = 0;
  bool redelivered = false;
  std::string text = {};
  std::string source = {};  ///< the process life that wrote it
};

[[nodiscard]] std::int64_t monotonic_us();
[[nodiscard]] std::string to_line(const Note& note);
/// Throws std::runtime_error when the line is none.
[[nodiscard]] Note parse_note(const std::string& line);

/// Writes the ledger of one process life. Thread-safe.
class Notebook {
 public:
  Notebook(const std::string& folder, const std::string& source)
      : ledger_(folder + "/" + source + ".notes") {}
  void note(std::string_view what, std::int64_t number = 0, std::string_view text = {});
  void note(const Note& note) { ledger_.append(to_line(note)); }

 private:
  support::Ledger ledger_;
};

/// Follows the ledgers of a folder.
class History {
 public:
  explicit History(std::string folder) : folder_(std::move(folder)) {}
  /// Reads what was appended since the last time.
  void read();
  /// Of each source in its order; sources in any order.
  [[nodiscard]] const std::vector<Note>& notes() const noexcept { return notes_; }
  [[nodiscard]] std::size_t count(std::string_view what) const;
  /// Handlings that this source has begun and not ended.
  [[nodiscard]] std::size_t open_count(const std::string& source) const;

 private:
  struct File {
    std::size_t offset = 0;
    std::string rest;
  };
  std::string folder_;
  std::map<std::string, File> files_;
  std::vector<Note> notes_;
  std::map<std::string, std::size_t, std::less<>> counts_;
  std::map<std::string, std::int64_t> open_;
};

/// What a message says about itself: "number key sequence kind", then padding.
struct Item {
  std::int64_t number = 0;
  std::string key = "-";  ///< "-": none
  std::int64_t sequence = 0;
  std::string kind = "ok";
};
[[nodiscard]] std::string to_payload(const Item& item, std::size_t bytes_min = 0);
/// Throws std::runtime_error when the payload is none, or its padding was changed.
[[nodiscard]] Item parse_item(std::string_view payload);

}  // namespace towline::faults
