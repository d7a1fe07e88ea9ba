// Opening: which locations are shared, for how long, and which parameters are refused.

#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

Result<spi::Provider> open(std::string location,
                           std::vector<std::pair<std::string, std::string>> parameters = {}) {
  spi::DriverOptions options;
  options.location = std::move(location);
  options.parameters = std::move(parameters);
  options.clock = system_clock();
  return open_memory(options);
}

TEST(MemoryOpen, EnginesThatNameOneLocationShareIt) {
  World a("shared by two");
  World b("shared by two");
  World c("another");
  auto subscription = b.subscribe();
  a.publish(1, 1);
  EXPECT_EQ(b.take(*subscription), range(1, 1));
  EXPECT_TRUE(c.transport().statistics().value().empty());
}

TEST(MemoryOpen, TheEmptyNameIsPrivate) {
  World a;
  World b;
  a.publish(1, 1);
  auto subscription = b.subscribe();
  EXPECT_TRUE(b.take(*subscription).empty());
}

TEST(MemoryOpen, ALocationIsForgottenWithTheLastThatKeepsIt) {
  std::unique_ptr<spi::Subscription> kept;
  {
    World a("short-lived");
    a.publish(1, 1);
    kept = a.subscribe();
  }
  {
    World b("short-lived");
    EXPECT_EQ(b.transport().statistics().value().size(), 1U) << "a subscription keeps it too";
  }
  kept.reset();
  World c("short-lived");
  EXPECT_TRUE(c.transport().statistics().value().empty());
}

TEST(MemoryOpen, RefusesParametersItDoesNotUnderstand) {
  EXPECT_EQ(code_of(open("", {{"byte_max", "1"}})), ErrorCode::kInvalidConfig);
  for (const char* bad : {"", "x", "1e9", "-1", "65535", "99999999999999999999", "1048576 "}) {
    EXPECT_EQ(code_of(open("", {{"bytes_max", bad}})), ErrorCode::kInvalidConfig) << bad;
  }
  EXPECT_TRUE(open("", {{"bytes_max", "65536"}}).ok());
  spi::DriverOptions no_clock;
  EXPECT_EQ(code_of(open_memory(no_clock)), ErrorCode::kInvalidArgument);
}

TEST(MemoryOpen, OneLocationHasOneBound) {
  const auto first = open("bounded", {{"bytes_max", "100000"}});
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(open("bounded").ok());
  EXPECT_TRUE(open("bounded", {{"bytes_max", "100000"}}).ok());
  EXPECT_EQ(code_of(open("bounded", {{"bytes_max", "200000"}})), ErrorCode::kInvalidConfig);
}

TEST(MemoryOpen, SaysWhatItCanDo) {
  const World world;
  const spi::Capabilities has = world.transport().capabilities();
  EXPECT_TRUE(has.is_store && has.deduplicates && has.assigns_partitions && has.fences);
  EXPECT_FALSE(has.durable || has.shared || has.runs_sql);
}

TEST(MemoryProvider, HandlerTransactionsAreUnsupported) {
  World world;
  EXPECT_EQ(code_of(world.store().transact([](spi::SqlSession&) { return Result<void>{}; }, {}, nullptr)),
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace towline::drivers::memory::testing
