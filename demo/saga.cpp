// The world is written by rename's sibling link(2): a whole file appears under a name that nobody has, or
// nothing does.

#include "saga.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace towline::demo {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

/// Drafts are no effects.
constexpr char kDraft = '.';

Error io_error(const std::string& path, const char* verb) {
  return {ErrorCode::kIoError, fmt::format("{}: cannot {}: {}", path, verb, std::strerror(errno)), errno};
}

Result<SagaEffect> read_effect(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  try {
    const Json object = Json::parse(in);
    return SagaEffect{object.at("order"), object.at("part"), object.at("key"), object.at("worker"),
                      object.at("at_us")};
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kInvalidArgument, path.string() + ": " + error.what()};
  }
}

}  // namespace

std::string SagaFate::context(std::uint32_t number) const {
  return Json{{"order", number},
              {"refused_at", refused_at},
              {"refused_late", refused_late},
              {"fails_once", fails_once}}
      .dump();
}

std::vector<std::string> SagaFate::expected() const {
  std::vector<std::string> parts;
  if (!wanted) return parts;
  const auto refused = std::find(kSagaSteps.begin(), kSagaSteps.end(), refused_at);
  for (auto step = kSagaSteps.begin(); step != refused; ++step)
    parts.push_back(fmt::format("{}/execute", *step));
  if (refused == kSagaSteps.end()) return parts;
  if (refused_late) parts.push_back(refused_at + "/execute");
  // Nobody knows how far the one that failed has come, so it is the first to be undone.
  for (auto step = std::next(refused); step != kSagaSteps.begin();)
    parts.push_back(fmt::format("{}/compensate", *--step));
  return parts;
}

std::string saga_key(std::uint32_t number, std::string_view part) {
  return fmt::format("{}/{}/{}", kSagaType, number, part);
}

Result<bool> World::take_effect(const SagaEffect& effect) {
  const std::string draft = fmt::format("{}/{}{}-{}", folder_, kDraft, worker_, drafts_++);
  std::string path = effect.key;
  std::replace(path.begin(), path.end(), '/', '~');
  path = folder_ + "/" + path;
  std::ofstream out(draft, std::ios::binary);
  out << Json{{"order", effect.number},
              {"part", effect.part},
              {"key", effect.key},
              {"worker", worker_},
              {"at_us", effect.at_us}}
             .dump();
  out.close();
  if (!out) return io_error(draft, "be written");
  const bool is_new = ::link(draft.c_str(), path.c_str()) == 0;
  if (!is_new && errno != EEXIST) return io_error(path, "be created");
  if (::unlink(draft.c_str()) != 0) return io_error(draft, "be removed");
  return is_new;
}

Result<std::vector<SagaEffect>> World::read(const std::string& folder) {
  std::vector<SagaEffect> effects;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
    if (at->path().filename().string().front() == kDraft) continue;
    auto effect = read_effect(at->path());
    if (!effect.ok()) return effect.error();
    effects.push_back(std::move(*effect));
  }
  if (code) return Error{ErrorCode::kIoError, folder + ": cannot be listed: " + code.message(), code.value()};
  std::sort(effects.begin(), effects.end(),
            [](const SagaEffect& a, const SagaEffect& b) { return a.at_us < b.at_us; });
  return effects;
}

}  // namespace towline::demo
