// Both texts are walked word by word. Where they part, the last '#' takes one word more and the walk goes on
// behind it. An earlier '#' need never be tried again: the last one can take whatever that one could leave.

#include "base/topic_match.hpp"

#include <cstddef>
#include <vector>

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

/// A trailing '>' is a '*' and a '#'.
std::vector<std::string_view> words_of(std::string_view pattern) {
  std::vector<std::string_view> all;
  for (Words words(pattern); !words.at_end(); words.skip()) {
    const bool rest = words.word() == ">" && words.is_last();
    if (rest) all.emplace_back("*");
    all.push_back(rest ? std::string_view("#") : words.word());
  }
  return all;
}

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

bool patterns_overlap(std::string_view a, std::string_view b) {
  const std::vector<std::string_view> first = words_of(a);
  const std::vector<std::string_view> second = words_of(b);
  // Row i, column j: whether what is left of them from there on overlaps. Filled from the ends.
  std::vector<bool> below(second.size() + 1), row(second.size() + 1);
  for (std::size_t i = first.size() + 1; i-- > 0; below = row) {
    for (std::size_t j = second.size() + 1; j-- > 0;) {
      const bool a_ends = i == first.size();
      const bool b_ends = j == second.size();
      const bool a_any = !a_ends && first[i] == "#";
      const bool b_any = !b_ends && second[j] == "#";
      // A '#' is no word, or takes what the other has there.
      bool holds = a_ends && b_ends;
      if (a_any) holds = holds || below[j] || (!b_ends && row[j + 1]);
      if (b_any) holds = holds || row[j + 1] || (!a_ends && below[j]);
      if (!a_ends && !b_ends && !a_any && !b_any) {
        const bool same = first[i] == second[j] || first[i] == "*" || second[j] == "*";
        holds = same && below[j + 1];
      }
      row[j] = holds;
    }
  }
  return row[0];
}

}  // namespace towline::base
