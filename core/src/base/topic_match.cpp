// Both texts are walked word by word. Where they part, the last '#' takes one word more and the walk goes on
// behind it. An earlier '#' need never be tried again: the last one can take whatever that one could leave.

#include "base/topic_match.hpp"

#include <cstddef>

namespace towline::base {
namespace {

/// The words of a text from a place on. Behind the last word it is at the end.
class Words {
 public:
  explicit Words(std::string_view text) noexcept : text_(text) {}
  [[nodiscard]] bool at_end() const noexcept { return begin_ > text_.size(); }
  [[nodiscard]] std::string_view word() const noexcept { return text_.substr(begin_, end() - begin_); }
  [[nodiscard]] bool is_last() const noexcept { return end() == text_.size(); }
  void skip() noexcept { begin_ = end() + 1; }

 private:
  [[nodiscard]] std::size_t end() const noexcept {
    const std::size_t dot = text_.find('.', begin_);
    return dot == std::string_view::npos ? text_.size() : dot;
  }

  std::string_view text_;
  std::size_t begin_ = 0;
};

}  // namespace

bool pattern_matches(std::string_view pattern, std::string_view topic) noexcept {
  Words wanted(pattern);
  Words left(topic);
  bool has_any = false;
  Words behind_any = wanted;
  Words tried_from = left;
  while (!left.at_end()) {
    if (!wanted.at_end() && wanted.word() == "#") {
      wanted.skip();
      has_any = true;
      behind_any = wanted;
      tried_from = left;
    } else if (!wanted.at_end() && wanted.word() == ">" && wanted.is_last()) {
      return true;
    } else if (!wanted.at_end() && (wanted.word() == "*" || wanted.word() == left.word())) {
      wanted.skip();
      left.skip();
    } else if (has_any) {
      tried_from.skip();
      left = tried_from;
      wanted = behind_any;
    } else {
      return false;
    }
  }
  while (!wanted.at_end() && wanted.word() == "#")
    wanted.skip();
  return wanted.at_end();
}

}  // namespace towline::base
