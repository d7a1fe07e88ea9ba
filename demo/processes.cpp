// fork and exec. Between the two only calls that are safe after fork in a process with threads.

#include "processes.hpp"

#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace towline::demo {
namespace {

Ending ending_of(int status) {
  if (WIFSIGNALED(status)) return {true, WTERMSIG(status)};
  return {false, WEXITSTATUS(status)};
}

/// The child's side; never returns.
[[noreturn]] void become(char* const* arguments, int log, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(126);  // the parent died before the line above
  ::setpgid(0, 0);                          // Ctrl-C is the coordinator's to handle
  const int null = ::open("/dev/null", O_RDONLY);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(log, 1) < 0 || ::dup2(log, 2) < 0) ::_exit(126);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::execvp(arguments[0], arguments);
  ::_exit(127);
}

}  // namespace

std::string Ending::to_string() const {
  return by_signal ? fmt::format("ended by signal {} ({})", code, ::strsignal(code))
                   : fmt::format("ended with status {}", code);
}

Result<Child> Child::start(std::vector<std::string> command, const std::string& log) {
  std::vector<char*> pointers;
  for (auto& word : command)
    pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0)
    return Error{ErrorCode::kIoError, fmt::format("{}: cannot be opened: {}", log, std::strerror(errno)),
                 errno};
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become(pointers.data(), fd, parent);
  const int failed = errno;
  ::close(fd);
  if (pid < 0)
    return Error{ErrorCode::kIoError, fmt::format("a process cannot be started: {}", std::strerror(failed)),
                 failed};
  return Child(pid);
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

Child::~Child() {
  if (pid_ == 0) return;
  send(SIGKILL);
  wait();
}

std::optional<Ending> Child::poll() {
  int status = 0;
  if (pid_ == 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = 0;
  return ending_of(status);
}

Ending Child::wait() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  return ending_of(status);
}

void Child::send(int signal) const {
  if (pid_ > 0) ::kill(pid_, signal);
}

bool Child::stop() const {
  send(SIGSTOP);
  siginfo_t info{};
  // Its end stays to be told by poll().
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WEXITED | WNOWAIT) < 0 &&
         errno == EINTR) {
  }
  return info.si_code == CLD_STOPPED;
}

std::string last_lines(const std::string& path, std::size_t count_max) {
  std::ifstream in(path);
  std::deque<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > count_max) lines.pop_front();
  }
  std::string text;
  for (const auto& line : lines)
    text += "    " + line + "\n";
  return text;
}

}  // namespace towline::demo
