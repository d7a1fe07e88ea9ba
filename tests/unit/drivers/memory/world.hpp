#pragma once
// A World in memory, with a view of the places where its messages are.

#include "drivers/memory/inspect.hpp"
#include "unit/drivers/world.hpp"

namespace towline::drivers::memory::testing {

using namespace drivers::testing;

class World : public drivers::testing::World {
 public:
  explicit World(std::string location = {}, bool threads = false, Parameters parameters = {}) {
    provider = open_memory(options(std::move(location), threads, std::move(parameters))).value();
  }

  [[nodiscard]] std::uint64_t bytes() const { return store().statistics().value().bytes; }
  [[nodiscard]] std::vector<Place> places(std::uint64_t number) const {
    const auto all = inspect(transport()).value();
    const auto it = all.find(make_id(number));
    return it == all.end() ? std::vector<Place>{} : it->second;
  }
};

}  // namespace towline::drivers::memory::testing
