// Engine::open: from the text of a URL to a provider, with every option checked before anything is opened.

#include <fstream>

#include <gtest/gtest.h>

#include <towline/towline.hpp>

#include "support/temp_dir.hpp"

namespace towline {
namespace {

using namespace std::chrono_literals;

Error refusal(const std::string& url, EngineOptions options = {}) {
  const auto opened = Engine::open(url, std::move(options));
  EXPECT_FALSE(opened.ok()) << url;
  return opened.ok() ? Error{} : opened.error();
}

TEST(Registry, OpensWhatTheSchemeNamesAndSaysWhatItHasOtherwise) {
  EXPECT_TRUE(Engine::open("memory:").ok());
  EXPECT_TRUE(Engine::open("memory:shared").ok());
  const Error unknown = refusal("redis://h");
  EXPECT_EQ(unknown.code, ErrorCode::kInvalidUrl);
  EXPECT_NE(unknown.message.find("'redis'"), std::string::npos) << unknown.message;
  EXPECT_NE(unknown.message.find("memory:"), std::string::npos) << unknown.message;
  EXPECT_NE(unknown.message.find("sqlite:"), std::string::npos) << unknown.message;
  EXPECT_EQ(refusal("").code, ErrorCode::kInvalidUrl);
}

TEST(Registry, EnginesOfOneNameShareTheirStoreAndThoseWithoutDoNot) {
  Engine one = Engine::open("memory:registry").value();
  Engine two = Engine::open("memory:registry").value();
  Engine alone = Engine::open("memory:").value();
  ASSERT_TRUE(one.publish({.topic = "t", .payload = "p", .delay = 1h}).acked());
  EXPECT_EQ(two.statistics().value().scheduled_now, 1U);
  EXPECT_EQ(alone.statistics().value().scheduled_now, 0U);
}

TEST(Registry, UrlParametersAreEngineOptionsOrTheDriversOwn) {
  Engine engine = Engine::open("memory:?payload_bytes_max=3&bytes_max=1000000").value();
  EXPECT_TRUE(engine.publish({.topic = "t", .payload = "abc"}).acked());
  EXPECT_EQ(engine.publish({.topic = "t", .payload = "abcd"}).error.code, ErrorCode::kPayloadTooLarge);
  EngineOptions options;
  options.payload_bytes_max = 100;
  Engine both = Engine::open("memory:?payload_bytes_max=3", options).value();
  EXPECT_FALSE(both.publish({.topic = "t", .payload = "abcd"}).acked()) << "what the URL says comes last";
}

TEST(Registry, AMisspeltParameterNamesTheNearestOption) {
  const Error error = refusal("memory:?lease_sm=5000");
  EXPECT_EQ(error.code, ErrorCode::kInvalidConfig);
  EXPECT_NE(error.message.find("lease_sm"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find("lease_ms"), std::string::npos) << error.message;
}

TEST(Registry, AParameterReachesOptionsWithinOptions) {
  EXPECT_TRUE(Engine::open("memory:?alert.depth_count=5").ok());
  const Error whole = refusal("memory:?alert=5");
  EXPECT_EQ(whole.code, ErrorCode::kInvalidConfig);
  EXPECT_NE(whole.message.find("'alert.age_ms'"), std::string::npos) << whole.message;
}

TEST(Registry, OfAParameterWithABadValueNoOtherNameIsSuggested) {
  const Error error = refusal("sqlite:never-made.db?synchronous=off");
  EXPECT_EQ(error.message, "synchronous must be 'full' or 'normal'");
}

TEST(Registry, OptionsAreCheckedBeforeAFileIsTouched) {
  const support::TempDir folder;
  const std::string file = folder.file("a.db");
  EngineOptions options;
  options.lease = 1ms;
  EXPECT_EQ(refusal("sqlite:" + file, options).code, ErrorCode::kInvalidConfig);
  options = {};
  options.name = "a b";
  EXPECT_EQ(refusal("sqlite:" + file, options).code, ErrorCode::kInvalidName);
  EXPECT_EQ(refusal("sqlite:" + file + "?lease_ms=soon").code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(refusal("sqlite:" + file + "?nonsense=1").code, ErrorCode::kInvalidConfig);
  EXPECT_FALSE(std::ifstream(file).good()) << "the file was made";
}

TEST(Registry, ADurabilityThatTheProviderCannotGiveIsRefusedAndNamed) {
  const support::TempDir folder;
  EngineOptions options;
  options.durability = Durability::kProcess;
  EXPECT_EQ(refusal("memory:", options).code, ErrorCode::kDurabilityUnavailable);
  EXPECT_TRUE(Engine::open("sqlite:" + folder.file("a.db"), options).ok());
  options.durability = Durability::kHost;
  EXPECT_EQ(refusal("memory:", options).code, ErrorCode::kDurabilityUnavailable);
  EXPECT_TRUE(Engine::open("sqlite:" + folder.file("a.db"), options).ok());
  const Error error = refusal("sqlite:" + folder.file("b.db") + "?synchronous=normal", options);
  EXPECT_EQ(error.code, ErrorCode::kDurabilityUnavailable);
  EXPECT_NE(error.message.find("synchronous"), std::string::npos) << error.message;
}

TEST(Registry, TheLastHandleClosesTheEngine) {
  Consumer consumer;
  {
    Engine engine = Engine::open("memory:").value();
    const Engine copy = engine;
    consumer = engine.consume("t", {.group = "g"}, [](Delivery&) {}).value();
    { const Engine moved = std::move(engine); }
    EXPECT_TRUE(consumer.pause().ok()) << "a copy is left";
    EXPECT_TRUE(consumer.resume().ok());
  }
  const auto after = consumer.pause();
  ASSERT_FALSE(after.ok());
  EXPECT_EQ(after.error().code, ErrorCode::kClosed);
}

TEST(Registry, ASeedReplaysTheIdsOfARun) {
  const auto ids_of_a_run = [] {
    EngineOptions options;
    options.seed = 7;
    options.clock = std::make_shared<VirtualClock>();
    Engine engine = Engine::open("memory:", options).value();
    std::vector<MessageId> ids;
    for (int i = 0; i < 10; ++i)
      ids.push_back(engine.publish({.topic = "t", .payload = "p"}).value());
    return ids;
  };
  EXPECT_EQ(ids_of_a_run(), ids_of_a_run());
}

}  // namespace
}  // namespace towline
