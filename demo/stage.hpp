#pragma once
// Before and after a run: the folder and the database it takes place in, and the evidence it leaves behind.

#include "common.hpp"
#include "verdict.hpp"

#include <string>
#include <vector>

namespace towline::demo {

/// The files of one run. What was made for this run is removed at the end unless it is kept.
class Stage {
 public:
  /// `database` empty: a fresh temporary folder. Else this file, which must not exist, and beside it a folder
  /// for the ledgers; both are kept. Errors: kInvalidArgument, kIoError.
  static Result<Stage> make(const std::string& database);
  Stage(Stage&& other) noexcept;
  Stage& operator=(Stage&&) = delete;
  ~Stage();

  [[nodiscard]] const Place& place() const { return place_; }
  void keep() { keep_ = true; }
  [[nodiscard]] bool kept() const { return keep_; }
  /// Makes the store, the topic and the table of effects.
  [[nodiscard]] Result<void> prepare_database() const;

 private:
  Stage(Place place, bool keep) : place_(std::move(place)), keep_(keep) {}
  Place place_;
  bool keep_;
};

/// Every pending dead letter of the topic, page by page.
[[nodiscard]] Result<std::vector<ListedDeadLetter>> list_dead_letters(Engine& engine);

/// Reads ledgers, table and listing of a run that is over. The caller adds the kills. `torn`: ledgers that
/// end in half a line.
[[nodiscard]] Result<Evidence> gather_evidence(const Plan& plan, const Place& place, Engine& engine,
                                               std::size_t& torn);

}  // namespace towline::demo
