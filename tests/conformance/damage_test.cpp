// Bytes that are not what was written: damaged messages in the store, envelopes of other versions, and files
// that are no stores.

#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/envelope.hpp"
#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Damage);

TEST_P(Damage, Conf43_AMessageThatDoesNotDecodeIsADeadLetterAndTheConsumerGoesOn) {
  TOWLINE_NEEDS(row().damage_message != nullptr);
  Engine engine = open();
  make_group(engine, "orders");
  for (const char* payload : {"damaged", "fine", "too"}) {
    ASSERT_TRUE(
        engine.publish({.topic = "orders", .payload = payload, .headers = {{"tenant", "blue"}}}).acked());
  }
  row().damage_message(url(), "orders");
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(2));
  ASSERT_TRUE(eventually([&] { return dead_letters(engine).size() == 1; }));
  EXPECT_EQ(seen.times(), (std::map<std::string, int>{{"fine", 1}, {"too", 1}}));
  const DeadLetter entry = dead_letters(engine)[0];
  EXPECT_EQ(entry.reason, DeadLetterReason::kDecode);
  EXPECT_EQ(entry.group, "group");
  EXPECT_FALSE(entry.payload.empty()) << "the raw bytes are kept";
  // The other two are settled by the commit that follows their handlers.
  EXPECT_TRUE(eventually([&] { return in_flight(engine) == 0; })) << in_flight(engine);
  EXPECT_TRUE(engine.health().ok);
}

spi::Envelope full_envelope() {
  spi::Envelope envelope;
  envelope.id = MessageId{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
  envelope.topic = "orders.created";
  envelope.partition = 17;
  envelope.key = "customer-9";
  envelope.group = "billing";
  envelope.headers = {{"tenant", "blue"}, {"empty", ""}};
  envelope.content_type = "application/json";
  envelope.payload = std::string("{\"n\":1}\0\xff", 9);
  envelope.priority = 4;
  envelope.published_at = from_us(1'750'000'000'000'000);
  envelope.attempt = 3;
  envelope.crashes = 1;
  envelope.redrives = 2;
  envelope.history = {{from_us(1), 1, "Broken", "once"}, {from_us(2), 2, "Broken", "twice"}};
  return envelope;
}

void expect_corrupt(const std::string& bytes, const std::string& what) {
  // An exact copy on the heap, so that a sanitizer sees every read past its end.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  const auto decoded = codec::decode(std::string_view(copy.data(), copy.size()));
  ASSERT_FALSE(decoded.ok()) << what;
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorruptEnvelope) << what << ": " << decoded.error().to_string();
}

TEST(Envelope, Bad25_ADamagedEnvelopeIsRefusedWhateverTheDamage) {
  const std::string good = codec::encode(full_envelope());
  ASSERT_TRUE(codec::decode(good).ok());
  for (std::size_t length = 0; length < good.size(); ++length) {
    expect_corrupt(good.substr(0, length), "cut to " + std::to_string(length));
  }
  expect_corrupt(good + "x", "longer");
  expect_corrupt(good + good, "twice");
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      expect_corrupt(changed, "bit " + std::to_string(bit) + " of byte " + std::to_string(i));
    }
  }
  for (std::size_t i = 0; i + 10 < good.size(); ++i) {
    std::string changed = good;
    // The largest numbers that a length field can hold, in either way of writing them.
    changed.replace(i, 5, "\xff\xff\xff\xff\x0f");
    expect_corrupt(changed, "length at " + std::to_string(i));
    changed.replace(i, 10, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    expect_corrupt(changed, "long length at " + std::to_string(i));
  }
}

TEST(Envelope, Bad25_ANewerVersionIsNamed) {
  std::string good = codec::encode(full_envelope());
  bool named = false;
  for (std::size_t i = 0; i < 8; ++i) {
    std::string changed = good;
    changed[i] = 99;
    const auto decoded = codec::decode(changed);
    ASSERT_FALSE(decoded.ok());
    named = named || decoded.error().message.find("99") != std::string::npos;
  }
  EXPECT_TRUE(named) << "no error names version 99";
}

/// Files that Engine::open must refuse and leave as they are. For stores that are one file.
class StoreFile : public ::testing::Test {
 protected:
  [[nodiscard]] std::string path(const std::string& name) const { return folder_.file(name); }

  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  static std::string read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  /// Refused with one of `codes` and a message that names the file.
  void expect_refused(const std::string& path, const std::vector<ErrorCode>& codes,
                      const std::string& word = {}) {
    const auto engine = Engine::open("sqlite:" + path);
    ASSERT_FALSE(engine.ok()) << path;
    const Error& error = engine.error();
    EXPECT_NE(std::find(codes.begin(), codes.end(), error.code), codes.end()) << error.to_string();
    const std::string name = path.substr(path.rfind('/') + 1);
    EXPECT_NE(error.message.find(name), std::string::npos) << "does not name the file: " << error.message;
    EXPECT_NE(error.message.find(word), std::string::npos) << "no '" << word << "' in " << error.message;
  }
  void expect_refused_and_untouched(const std::string& path, const std::vector<ErrorCode>& codes) {
    const std::string before = read(path);
    expect_refused(path, codes);
    EXPECT_TRUE(read(path) == before) << path << " was changed";
    std::size_t files = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
      files += file.path().string().starts_with(path) ? 1 : 0;
    }
    EXPECT_EQ(files, 1U) << "something was left beside " << path;
  }

  support::TempDir folder_;
};

TEST_F(StoreFile, Bad22_PathsThatAreNotFiles) {
  ASSERT_EQ(::mkdir(path("folder").c_str(), 0700), 0);
  expect_refused(path("folder"), {ErrorCode::kNotAStore, ErrorCode::kInvalidUrl}, "directory");
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  expect_refused(path("fifo"), {ErrorCode::kNotAStore, ErrorCode::kInvalidUrl});
  ASSERT_EQ(::symlink(path("loop").c_str(), path("loop").c_str()), 0);
  expect_refused(path("loop"), {ErrorCode::kNotAStore, ErrorCode::kInvalidUrl, ErrorCode::kIoError});
  expect_refused(path("no/such/folder/a.db"),
                 {ErrorCode::kNotAStore, ErrorCode::kInvalidUrl, ErrorCode::kIoError});
  const auto device = Engine::open("sqlite:/dev/null");
  EXPECT_FALSE(device.ok());
}

TEST_F(StoreFile, Bad22_FilesThatAreNotStores) {
  write(path("text.db"),
        "this is a text and no database, and long enough to have a header of a hundred bytes or more ....");
  expect_refused_and_untouched(path("text.db"), {ErrorCode::kNotAStore});
  write(path("short.db"), "x");
  expect_refused_and_untouched(path("short.db"), {ErrorCode::kNotAStore});
}

TEST_F(StoreFile, Bad22_AStoreOfANewerVersionAndOfAnotherProgram) {
  { ASSERT_TRUE(Engine::open("sqlite:" + path("own.db")).value().close().ok()); }
  const std::string good = read(path("own.db"));
  ASSERT_GT(good.size(), 100U);
  // The header of the file: user_version at 60, application_id at 68, big-endian.
  std::string newer = good;
  newer.replace(60, 4, std::string("\x7f\0\0\0", 4));
  write(path("newer.db"), newer);
  expect_refused_and_untouched(path("newer.db"), {ErrorCode::kSchemaTooNew});
  std::string foreign = good;
  foreign.replace(68, 4, "GPKG");
  write(path("foreign.db"), foreign);
  expect_refused_and_untouched(path("foreign.db"), {ErrorCode::kNotAStore});
  write(path("again.db"), good);
  EXPECT_OK(Engine::open("sqlite:" + path("again.db")));
}

/// Without the rights of the superuser while it lives, because to that one no file is read-only.
class PlainUser {
 public:
  PlainUser() : before_(::geteuid()) {
    if (before_ == 0) {
      EXPECT_EQ(::seteuid(65534), 0);
    }
  }
  ~PlainUser() { EXPECT_EQ(::seteuid(before_), 0); }
  PlainUser(const PlainUser&) = delete;
  PlainUser& operator=(const PlainUser&) = delete;

 private:
  uid_t before_;
};

TEST_F(StoreFile, Bad22_AFileThatMayNotBeWritten) {
  ASSERT_TRUE(Engine::open("sqlite:" + path("own.db")).value().close().ok());
  ASSERT_EQ(::chmod(path("own.db").c_str(), 0444), 0);
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
  const PlainUser plain;
  expect_refused(path("own.db"), {ErrorCode::kIoError, ErrorCode::kNotAStore}, "read");
}

TEST_F(StoreFile, Bad22_AStoreIsReadableByItsOwnerOnly) {
  const mode_t before = ::umask(0);
  {
    ASSERT_TRUE(
        Engine::open("sqlite:" + path("own.db")).value().publish({.topic = "t", .payload = "p"}).acked());
  }
  ::umask(before);
  for (const auto& file :
       std::filesystem::directory_iterator(std::filesystem::path(path("own.db")).parent_path())) {
    struct stat status {};
    ASSERT_EQ(::stat(file.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U) << file.path();
  }
}

}  // namespace
}  // namespace towline::conformance
