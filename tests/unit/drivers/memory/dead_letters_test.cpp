// What dead letters cost in memory.

#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

TEST(MemoryDeadLetters, RemovedEntriesGiveTheirBytesBack) {
  World world;
  const auto put = [&](std::uint64_t number) {
    DeadLetter letter;
    letter.id = make_id(number);
    letter.message_id = make_id(100'000 + number);
    letter.topic = "t";
    letter.group = "g";
    letter.error_message = "failed at " + std::to_string(number);
    letter.payload = "payload " + std::to_string(number);
    ASSERT_TRUE(world.write(spi::PutDeadLetter{letter}).ok());
  };
  const std::uint64_t empty = world.bytes();
  for (std::uint64_t n = 1; n <= 3; ++n)
    put(n);
  EXPECT_GT(world.bytes(), empty);
  put(2);
  for (std::uint64_t n = 1; n <= 3; ++n)
    ASSERT_TRUE(world.write(spi::EraseDeadLetter{make_id(n)}).ok());
  EXPECT_EQ(world.bytes(), empty);
}

}  // namespace
}  // namespace towline::drivers::memory::testing
