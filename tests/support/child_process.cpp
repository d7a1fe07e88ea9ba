// Starts, reads, signals and reaps child processes.

#include "support/child_process.hpp"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/eventually.hpp"

extern char** environ;

namespace towline::support {
namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

ChildProcess::ChildProcess(const std::filesystem::path& program, const std::vector<std::string>& arguments) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) fail(errno, "pipe2");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  std::vector<char*> argv;
  std::string name = program.string();
  argv.push_back(name.data());
  std::vector<std::string> copies = arguments;
  for (std::string& copy : copies)
    argv.push_back(copy.data());
  argv.push_back(nullptr);
  const int error = ::posix_spawn(&pid_, name.c_str(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  output_ = pipe[0];
  if (error != 0) {
    pid_ = -1;
    ::close(output_);
    fail(error, name);
  }
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      output_(std::exchange(other.output_, -1)),
      buffer_(std::move(other.buffer_)),
      status_(std::exchange(other.status_, std::nullopt)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  dispose();
  pid_ = std::exchange(other.pid_, -1);
  output_ = std::exchange(other.output_, -1);
  buffer_ = std::move(other.buffer_);
  status_ = std::exchange(other.status_, std::nullopt);
  return *this;
}

ChildProcess::~ChildProcess() { dispose(); }

void ChildProcess::dispose() noexcept {
  if (running()) kill();
  if (output_ >= 0) ::close(output_);
  output_ = -1;
}

std::optional<std::string> ChildProcess::read_line(Duration within) {
  const Stopwatch watch;
  within *= slack();
  for (;;) {
    if (const auto end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(within - watch.elapsed());
    if (left.count() <= 0) return std::nullopt;
    pollfd ready{output_, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(left.count())) <= 0) continue;
    char bytes[4096];
    const ssize_t count = ::read(output_, bytes, sizeof bytes);
    if (count > 0) {
      buffer_.append(bytes, static_cast<std::size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return std::nullopt;
    }
  }
}

std::optional<ExitStatus> ChildProcess::wait(Duration within) {
  if (pid_ <= 0) return status_;
  (void)eventually(
      [this] {
        if (status_) return true;
        int state = 0;
        if (::waitpid(pid_, &state, WNOHANG) != pid_) return false;
        status_ =
            ExitStatus{WIFEXITED(state) ? WEXITSTATUS(state) : -1, WIFSIGNALED(state) ? WTERMSIG(state) : 0};
        return true;
      },
      within);
  return status_;
}

void ChildProcess::send(int signal) const {
  if (running()) ::kill(pid_, signal);
}

ExitStatus ChildProcess::kill() {
  send(SIGKILL);
  int state = 0;
  while (!status_) {
    if (::waitpid(pid_, &state, 0) == pid_) {
      status_ =
          ExitStatus{WIFEXITED(state) ? WEXITSTATUS(state) : -1, WIFSIGNALED(state) ? WTERMSIG(state) : 0};
    } else if (errno != EINTR) {
      status_ = ExitStatus{};
    }
  }
  return *status_;
}

std::filesystem::path sibling_program(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

void die_with_parent() { ::prctl(PR_SET_PDEATHSIG, SIGKILL); }

}  // namespace towline::support
