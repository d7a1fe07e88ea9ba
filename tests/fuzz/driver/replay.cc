// Runs a fuzz target without a fuzzer: first every file of the folders named on the command line, then
// --count inputs that are a pure function of their number (random bytes, and mutations of the corpus). The
// same inputs every time, so a failure is reproduced by running it again; the number or the file is printed
// before anything can crash it.
#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" void __sanitizer_set_death_callback(void (*callback)());
#endif
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kSizeMax = 4096;

// What is running now, for the message when the target aborts.
const char* g_current = "";
char g_buffer[512];

void report_current() {
  std::fprintf(stderr, "fuzz replay: failed on %s\n", g_current);
}

void on_signal(int) {
  report_current();
  std::_Exit(1);
}

// A sanitizer prints its own report first; without one, the signal is all there is.
void watch_failures() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  __sanitizer_set_death_callback(report_current);
#else
  std::signal(SIGSEGV, on_signal);
#endif
  std::signal(SIGABRT, on_signal);
}

// SplitMix64: small, seedable with any number, the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : static_cast<std::size_t>(next() % bound); }

 private:
  std::uint64_t state_;
};

Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

void mutate(Bytes& bytes, Random& random) {
  for (std::size_t edits = 1 + random.below(4); edits > 0; --edits) {
    const std::size_t at = random.below(bytes.size());
    switch (random.below(5)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<std::uint8_t>(random.next());
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << random.below(8)));
        break;
      case 2:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                     static_cast<std::uint8_t>(random.next()));
        break;
      case 3:
        bytes.resize(at);
        break;
      default: {
        const Bytes copy(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end());
        bytes.insert(bytes.end(), copy.begin(), copy.end());
      }
    }
  }
  if (bytes.size() > kSizeMax) bytes.resize(kSizeMax);
}

Bytes make_input(std::uint64_t number, const std::vector<Bytes>& corpus) {
  Random random(number);
  if (!corpus.empty() && number % 4 != 0) {
    Bytes bytes = corpus[random.below(corpus.size())];
    mutate(bytes, random);
    return bytes;
  }
  // Short inputs first in kind: most parsers decide within a few bytes.
  Bytes bytes(random.below(random.below(4) == 0 ? kSizeMax : 64));
  const bool text = random.below(2) == 0;
  for (auto& byte : bytes) {
    byte = static_cast<std::uint8_t>(text ? ' ' + random.below(95) : random.next());
  }
  return bytes;
}

void run(const Bytes& bytes) {
  // A copy of the exact size on the heap, so that the address sanitizer sees a read past the end.
  const std::size_t size = bytes.size();
  auto* data = static_cast<std::uint8_t*>(std::malloc(size == 0 ? 1 : size));
  if (size != 0) std::memcpy(data, bytes.data(), size);
  LLVMFuzzerTestOneInput(data, size);
  std::free(data);
}

}  // namespace

int main(int argc, char** argv) {
  watch_failures();
  std::set_terminate([] {
    report_current();
    std::_Exit(1);
  });
  std::uint64_t count = 4000;
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--count") == 0 && i + 1 < argc) {
      count = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry.path());
    } else if (std::filesystem::exists(argv[i])) {
      files.emplace_back(argv[i]);
    }
  }
  std::sort(files.begin(), files.end());
  g_current = g_buffer;
  std::vector<Bytes> corpus;
  for (const auto& file : files) {
    std::snprintf(g_buffer, sizeof g_buffer, "file %s", file.c_str());
    corpus.push_back(read_bytes(file));
    run(corpus.back());
  }
  for (std::uint64_t number = 0; number < count; ++number) {
    std::snprintf(g_buffer, sizeof g_buffer, "made-up input %llu", static_cast<unsigned long long>(number));
    run(make_input(number, corpus));
  }
  std::printf("fuzz replay: %zu corpus files and %llu made-up inputs, no failure\n", corpus.size(),
              static_cast<unsigned long long>(count));
  return 0;
}
