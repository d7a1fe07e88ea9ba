#pragma once
// Small ops made of a function.

#include <utility>

#include "drivers/sqlite/writer.hpp"

namespace towline::drivers::sqlite {

/// Writes by calling `apply(Tx&, const Error* full)`, which returns what the op results in.
template <typename T, typename Apply>
class WriteOp final : public Op {
 public:
  WriteOp(Moment moment, Apply apply) : Op(moment), apply_(std::move(apply)) {}
  void apply(Tx& tx) override { result.emplace(apply_(tx, full)); }
  void undo(Tx&) override { result.reset(); }
  std::optional<T> result;

 private:
  Apply apply_;
};

template <typename T, typename Apply>
[[nodiscard]] WriteOp<T, Apply> write_op(Moment moment, Apply apply) {
  return {moment, std::move(apply)};
}

}  // namespace towline::drivers::sqlite
