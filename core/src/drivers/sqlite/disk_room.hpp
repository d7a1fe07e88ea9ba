#pragma once
// Room for what must never be refused. Settling, retries and dead letters take the place of what they stand
// for, yet they need pages before they give others back; so publishing stops while there is still room
// (kStorageFull), and when others have filled the disk all the same, a file that was kept for this is given
// up.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <towline/result.hpp>

namespace towline::drivers::sqlite {

/// Under leadership, except open().
class DiskRoom {
 public:
  /// What the store has free in pages that it will use before it grows.
  using FreeInside = std::function<std::uint64_t()>;

  /// `bytes` 0: looks at nothing and keeps nothing.
  DiskRoom(std::string store_path, std::uint64_t bytes);

  /// Makes the reserve where it is missing and fits; false: there is none.
  bool keep(std::uint64_t inside_bytes = 0);
  /// Set while less than the reserve is free, beside `growth_bytes` that the main file may grow by to take in
  /// what the log holds: with what growing is refused, until it is looked at again. `free_inside` is asked
  /// now and then, for a reserve that is missing.
  [[nodiscard]] const Error* full(std::chrono::steady_clock::time_point now, std::uint64_t growth_bytes = 0,
                                  const FreeInside& free_inside = {});
  [[nodiscard]] bool is_full() const noexcept { return full_.has_value(); }
  /// The disk refused a write. Gives up the reserve and counts as full until there is room again; without a
  /// reserve, for the next full() only.
  void give_up();

 private:
  [[nodiscard]] std::uint64_t free_bytes() const noexcept;

  const std::string directory_;
  const std::string path_;
  const std::uint64_t bytes_;
  bool missing_ = false;   ///< made as soon as it fits
  bool given_up_ = false;  ///< and until then nothing is published
  std::optional<Error> full_;
  std::chrono::steady_clock::time_point next_look_{};
};

}  // namespace towline::drivers::sqlite
