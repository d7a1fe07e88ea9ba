// Writing and following ledgers.

#include "ledger.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

namespace towline::demo {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 13> kNames = {"publish", "acked", "refused",  "again",   "start",
                                                     "effect",  "fail",  "void",     "trouble", "killed",
                                                     "saga",    "step",  "step_fail"};
constexpr std::string_view kSuffix = ".jsonl";

Error io_error(const std::string& path, const char* verb) {
  return {ErrorCode::kIoError, fmt::format("{}: cannot {}: {}", path, verb, std::strerror(errno)), errno};
}

template <typename T>
void read_if(const Json& object, const char* name, T& value) {
  const auto found = object.find(name);
  if (found != object.end()) found->get_to(value);
}

}  // namespace

std::string to_line(const Record& r) {
  Json object = {
      {"what", kNames.at(static_cast<std::size_t>(r.what))}, {"order", r.number}, {"at_us", r.at_us}};
  if (r.due_us != 0) object["due_us"] = r.due_us;
  if (r.attempt != 0) object["attempt"] = r.attempt;
  if (r.crashes != 0) object["crashes"] = r.crashes;
  if (r.redelivered) object["redelivered"] = true;
  if (r.duplicate) object["duplicate"] = true;
  if (!r.message_id.empty()) object["message_id"] = r.message_id;
  if (!r.customer.empty()) object["customer"] = r.customer;
  if (r.what == What::kAcked) object["sequence"] = r.sequence;
  if (r.payload_hash != 0) object["payload_hash"] = r.payload_hash;
  if (!r.text.empty()) object["text"] = r.text;
  if (!r.key.empty()) object["key"] = r.key;
  return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Record> parse_record(std::string_view line) {
  try {
    const Json object = Json::parse(line);
    const auto name = object.at("what").get<std::string>();
    std::size_t what = 0;
    while (what < kNames.size() && kNames[what] != name)
      ++what;
    if (what == kNames.size())
      return Error{ErrorCode::kInvalidArgument, "unknown kind of record \"" + name + "\""};
    Record r;
    r.what = static_cast<What>(what);
    object.at("order").get_to(r.number);
    object.at("at_us").get_to(r.at_us);
    read_if(object, "due_us", r.due_us);
    read_if(object, "attempt", r.attempt);
    read_if(object, "crashes", r.crashes);
    read_if(object, "redelivered", r.redelivered);
    read_if(object, "duplicate", r.duplicate);
    read_if(object, "message_id", r.message_id);
    read_if(object, "customer", r.customer);
    read_if(object, "sequence", r.sequence);
    read_if(object, "payload_hash", r.payload_hash);
    read_if(object, "text", r.text);
    read_if(object, "key", r.key);
    return r;
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kInvalidArgument, error.what()};
  }
}

Result<Ledger> Ledger::create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return io_error(path, "be created");
  return Ledger(fd);
}

Ledger::Ledger(Ledger&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Ledger::~Ledger() {
  if (fd_ >= 0) ::close(fd_);
}

void Ledger::append(const Record& record) const {
  const std::string line = to_line(record);
  ssize_t written = 0;
  do {
    written = ::write(fd_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;
  std::fprintf(stderr, "the ledger cannot be written: %s\n", written < 0 ? std::strerror(errno) : "no space");
  ::_exit(3);
}

Result<void> LedgerReader::poll(const Sink& sink) {
  std::error_code code;
  for (std::filesystem::directory_iterator at(folder_, code), end; !code && at != end; at.increment(code)) {
    if (at->path().extension() == kSuffix) files_.try_emplace(at->path().stem().string());
  }
  if (code)
    return Error{ErrorCode::kIoError, folder_ + ": cannot be listed: " + code.message(), code.value()};
  for (auto& [source, file] : files_) {
    auto result = follow(source, file, sink);
    if (!result.ok()) return result;
  }
  return {};
}

Result<void> LedgerReader::follow(const std::string& source, File& file, const Sink& sink) {
  const std::string path = folder_ + "/" + source + std::string(kSuffix);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error(path, "be opened");
  std::array<char, 65536> buffer;
  ssize_t count = 0;
  while ((count = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(file.offset))) > 0) {
    file.offset += static_cast<std::uint64_t>(count);
    file.rest.append(buffer.data(), static_cast<std::size_t>(count));
  }
  const int failed = count < 0 ? errno : 0;
  ::close(fd);
  if (failed != 0) {
    errno = failed;
    return io_error(path, "be read");
  }
  std::size_t begin = 0;
  for (auto end = file.rest.find('\n'); end != std::string::npos; end = file.rest.find('\n', begin)) {
    ++file.line;
    const auto record = parse_record(std::string_view(file.rest).substr(begin, end - begin));
    if (!record.ok()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}:{}: {}", path, file.line, record.error().message)};
    }
    sink(source, *record);
    begin = end + 1;
  }
  file.rest.erase(0, begin);
  return {};
}

std::size_t LedgerReader::torn_count() const {
  std::size_t count = 0;
  for (const auto& [source, file] : files_)
    count += file.rest.empty() ? 0 : 1;
  return count;
}

}  // namespace towline::demo
