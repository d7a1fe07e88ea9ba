// What a forked child learns of itself. The child may do next to nothing, so it answers with its exit code.

#include "base/forks.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace towline::base {
namespace {

/// The exit code of a child that runs `f`.
template <typename F>
int in_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int state = 0;
  EXPECT_EQ(::waitpid(child, &state, 0), child);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

bool is_open(int file) { return ::fcntl(file, F_GETFD) != -1 || errno != EBADF; }

TEST(Forks, AChildIsOfAnotherGenerationAndItsParentIsNot) {
  const std::uint64_t before = fork_generation();
  EXPECT_EQ(in_child([&] { return fork_generation() != before ? 0 : 1; }), 0);
  EXPECT_EQ(fork_generation(), before);
}

TEST(Forks, AGrandchildIsOfItsOwnGeneration) {
  const std::uint64_t before = fork_generation();
  const auto differs = [&] {
    const std::uint64_t mine = fork_generation();
    return in_child([&] { return fork_generation() != mine && fork_generation() != before ? 0 : 1; });
  };
  EXPECT_EQ(in_child(differs), 0);
}

TEST(Forks, ADescriptorThatIsNotForChildrenIsClosedThereAndOpenHere) {
  const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int other = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  ASSERT_GE(other, 0);
  close_in_child(file);
  EXPECT_EQ(in_child([&] { return (is_open(file) ? 1 : 0) + (is_open(other) ? 0 : 2); }), 0);
  EXPECT_TRUE(is_open(file));
  forget_in_child(file);
  EXPECT_EQ(in_child([&] { return is_open(file) ? 0 : 1; }), 0) << "it was forgotten";
  ::close(file);
  ::close(other);
}

TEST(Forks, OfAnyNumberOfDescriptorsNoneIsLeftOpenInAChild) {
  std::vector<int> files;
  for (int i = 0; i < 700; ++i) {
    files.push_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_GE(files.back(), 0);
    close_in_child(files.back());
  }
  EXPECT_EQ(in_child([&] { return std::none_of(files.begin(), files.end(), is_open) ? 0 : 1; }), 0);
  for (const int file : files) {
    forget_in_child(file);
    EXPECT_EQ(::close(file), 0) << "it was open here all the time";
  }
  const int other = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(in_child([&] { return is_open(other) ? 0 : 1; }), 0) << "all were forgotten";
  ::close(other);
}

TEST(Forks, ForgettingWhatWasNeverNotedChangesNothing) {
  forget_in_child(123'456);
  EXPECT_EQ(in_child([] { return 0; }), 0);
}

}  // namespace
}  // namespace towline::base
