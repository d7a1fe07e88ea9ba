#pragma once
// Result<T>: a value or an Error, which the caller must look at.
//
// Inside the engine and in the SPI no function throws: it returns a Result. At the public edge `.value()`
// turns an Error into an Exception for callers who prefer that. Dropping a Result is a compile error under
// -Werror.

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <towline/error_codes.hpp>

namespace towline {

/// What went wrong, and what to do about it. A plain value: copy it, keep it, print it. Never holds a secret.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  /// One line for a person: which field, which value, which bound, what to do next.
  std::string message;
  /// The provider's own code (SQLite result code, errno), 0 when there is none.
  std::int64_t native_code = 0;

  /// "ERR_...": the contract that never changes; the same in every language.
  [[nodiscard]] std::string_view wire_code() const noexcept { return towline::wire_code(code); }
  /// Whether the same call may succeed later without a change by the caller.
  [[nodiscard]] bool retryable() const noexcept { return towline::is_retryable(code); }
  /// "ERR_...: message"
  [[nodiscard]] std::string to_string() const { return std::string(wire_code()) + ": " + message; }
};

/// Thrown by Result::value(). what() is Error::to_string().
class Exception : public std::exception {
 public:
  explicit Exception(Error error) : error_(std::move(error)), text_(error_.to_string()) {}
  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }
  [[nodiscard]] const Error& error() const noexcept { return error_; }
  [[nodiscard]] ErrorCode code() const noexcept { return error_.code; }

 private:
  Error error_;
  std::string text_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit on purpose

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  /// The error. Only when !ok().
  [[nodiscard]] const Error& error() const& { return *std::get_if<1>(&state_); }
  [[nodiscard]] Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

  /// The value, or throws Exception.
  T& value() & {
    require();
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    require();
    return *std::get_if<0>(&state_);
  }
  T value() && {  // by value: `for (const auto& x : call().value())` must have something to walk over
    require();
    return std::move(*std::get_if<0>(&state_));
  }
  [[nodiscard]] T value_or(T other) && {
    return ok() ? std::move(*std::get_if<0>(&state_)) : std::move(other);
  }

  /// The value without a check. Only when ok().
  T& operator*() & noexcept { return *std::get_if<0>(&state_); }
  const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
  T&& operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
  T* operator->() noexcept { return std::get_if<0>(&state_); }
  const T* operator->() const noexcept { return std::get_if<0>(&state_); }

 private:
  void require() const {
    if (!ok()) throw Exception(*std::get_if<1>(&state_));
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  [[nodiscard]] bool ok() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] const Error& error() const& { return *error_; }
  [[nodiscard]] Error&& error() && { return std::move(*error_); }
  void value() const {
    if (error_) throw Exception(*error_);
  }

 private:
  std::optional<Error> error_;
};

}  // namespace towline
