// The queue against a naive model: a list of messages with their state for every group. Random sequences of
// publishing, receiving, settling, renewing, closing, dying and the passing of time; after every step each
// message must be where the model has it. For unordered groups the model says exactly what a receive hands
// out; for ordered groups it says what must hold: one owner per partition, and the order within it.

#include <map>
#include <optional>
#include <random>
#include <set>

#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

constexpr std::uint32_t kPartitionCount = 5;
constexpr Duration kLease = 30s;

enum class State : std::uint8_t { kFresh, kReturned, kHeld, kDone };

/// One message as one group sees it.
struct Seen {
  State state = State::kFresh;
  bool suspect = false;
  std::uint32_t crashes = 0;
  std::size_t holder = 0;
  spi::Token token;
  MonotonicTime lease_until{};
};

struct Message {
  std::uint64_t number = 0;
  std::uint8_t priority = 0;
  std::uint32_t partition = 0;
  std::string group;
};

struct Member {
  std::string group;
  bool ordered = false;
  std::unique_ptr<spi::Subscription> subscription;
  bool holds_suspect = false;
  std::size_t held_count = 0;
  std::size_t lost_count = 0;
  std::vector<spi::Delivery> deliveries;
  /// Settled or lost: a settlement of these must be refused.
  std::vector<spi::Delivery> stale;
};

class Model {
 public:
  explicit Model(std::uint64_t seed) : random_(seed) {
    spi::Topology topology;
    topology.topic = "t";
    topology.partition_count = kPartitionCount;
    EXPECT_TRUE(world_.transport().declare(topology).ok());
    groups_["plain"];
    groups_["strict"];
    for (const char* group : {"plain", "strict"})
      join(group);
    base_bytes_ = world_.bytes();
  }

  void run(int step_count) {
    for (int i = 0; i < step_count && !::testing::Test::HasFailure(); ++i) {
      step();
      check();
    }
    if (!::testing::Test::HasFailure()) drain();
  }

 private:
  std::size_t pick(std::size_t count) { return static_cast<std::size_t>(random_() % count); }
  bool chance(unsigned percent) { return pick(100) < percent; }

  void step() {
    switch (pick(10)) {
      case 0:
      case 1:
        publish();
        break;
      case 2:
      case 3:
      case 4:
        receive(members_[pick(members_.size())]);
        break;
      case 5:
      case 6:
        settle(members_[pick(members_.size())]);
        break;
      case 7:
        pass_time(Duration(static_cast<std::int64_t>(random_() % 12'000'000)));
        break;
      case 8:
        renew(members_[pick(members_.size())]);
        break;
      case 9:
        change_members();
        break;
    }
  }

  void publish() {
    std::vector<spi::Envelope> batch;
    const std::size_t count = 1 + pick(6);
    const bool mixed = chance(30);
    for (std::size_t i = 0; i < count; ++i) {
      Message message;
      message.number = messages_.size() + 1;
      message.priority = mixed && chance(30) ? 7 : 0;
      message.partition = static_cast<std::uint32_t>(pick(kPartitionCount));
      if (mixed && chance(30)) message.group = chance(50) ? "plain" : "strict";
      spi::Envelope envelope = world_.envelope(message.number);
      envelope.priority = message.priority;
      envelope.partition = message.partition;
      envelope.group = message.group;
      batch.push_back(std::move(envelope));
      for (auto& [name, seen] : groups_) {
        if (message.group.empty() || message.group == name) seen[message.number];
      }
      messages_.push_back(message);
    }
    world_.publish(std::move(batch));
  }

  void join(const std::string& group) {
    Member member;
    member.group = group;
    member.ordered = group == "strict";
    spi::SubscribeOptions options = member.ordered ? ordered(group) : drivers::testing::member(group);
    if (group == "strict" && members_.size() >= 2 && chance(20)) {
      options.partitions = {static_cast<std::uint32_t>(pick(kPartitionCount))};
    }
    options.lease = kLease;
    member.subscription = world_.subscribe(options);
    members_.push_back(std::move(member));
  }

  /// What the model expects a receive of an unordered group to hand out.
  std::vector<std::uint64_t> predict(const Member& member, std::size_t count) {
    std::vector<std::uint64_t> expected;
    if (member.holds_suspect) return expected;
    for (const std::uint8_t priority : {7, 0}) {
      for (const State state : {State::kReturned, State::kFresh}) {
        for (const auto& [number, seen] : groups_[member.group]) {
          if (seen.state != state || messages_[number - 1].priority != priority) continue;
          if (seen.suspect && (member.held_count > 0 || !expected.empty())) return expected;
          if (seen.suspect) return {number};
          if (expected.size() == count) return expected;
          expected.push_back(number);
        }
      }
    }
    return expected;
  }

  void receive(Member& member) {
    const std::size_t count = 1 + pick(8);
    member.lost_count = 0;
    const bool plain = member.group == "plain";
    const std::vector<std::uint64_t> expected = plain ? predict(member, count) : std::vector<std::uint64_t>{};
    std::vector<spi::Delivery> got = world_.receive(*member.subscription, count);
    if (plain) {
      ASSERT_EQ(numbers_of(got), expected);
    }
    ASSERT_LE(got.size(), count);
    for (spi::Delivery& delivery : got)
      take(member, delivery, got.size());
  }

  void take(Member& member, spi::Delivery& delivery, std::size_t together) {
    const std::uint64_t number = number_of(delivery.envelope->id);
    auto& group = groups_[member.group];
    Seen& seen = group.at(number);
    const bool waiting = seen.state == State::kFresh || seen.state == State::kReturned;
    ASSERT_TRUE(waiting) << "message " << number << " is held or settled";
    ASSERT_EQ(delivery.redelivered, seen.state == State::kReturned);
    ASSERT_EQ(delivery.crashes, seen.crashes);
    ASSERT_FALSE(member.holds_suspect);
    if (seen.suspect) {
      ASSERT_TRUE(together == 1 && member.held_count == 0) << "a suspect is alone";
    }
    if (member.group == "strict") check_order(member, number);
    seen.state = State::kHeld;
    seen.holder = index_of(member);
    seen.token = delivery.token;
    seen.lease_until = world_.clock->monotonic() + kLease;
    ++member.held_count;
    if (seen.suspect) member.holds_suspect = true;
    member.deliveries.push_back(std::move(delivery));
  }

  void check_order(const Member& member, std::uint64_t number) {
    const Message& message = messages_[number - 1];
    for (const auto& [other, seen] : groups_["strict"]) {
      const Message& that = messages_[other - 1];
      if (that.partition != message.partition) continue;
      if (seen.state == State::kHeld) {
        ASSERT_EQ(seen.holder, index_of(member)) << "two owners of one partition";
      }
      if (other < number && that.priority == message.priority) {
        ASSERT_NE(seen.state, State::kFresh) << other << " was passed over by " << number;
        ASSERT_NE(seen.state, State::kReturned) << other << " was passed over by " << number;
      }
    }
  }

  /// Dead members keep their place in the list, so that an index names one for ever.
  std::size_t index_of(const Member& member) const {
    const auto it = ids_.find(member.subscription.get());
    if (it != ids_.end()) return it->second;
    return ids_.emplace(member.subscription.get(), ++index_last_).first->second;
  }

  void settle(Member& member) {
    member.lost_count = 0;
    if (!member.stale.empty() && chance(20)) {
      const spi::Delivery& old = member.stale[pick(member.stale.size())];
      ASSERT_EQ(world_.settle(*member.subscription, old, spi::Verb::kRelease).size(), 1U);
      return;
    }
    std::shuffle(member.deliveries.begin(), member.deliveries.end(), random_);
    if (chance(50)) {
      std::sort(member.deliveries.begin(), member.deliveries.end(), [](const auto& a, const auto& b) {
        return std::pair(b.token.lease, b.token.index) < std::pair(a.token.lease, a.token.index);
      });
    }
    std::vector<spi::Settlement> settlements;
    for (std::size_t n = pick(member.deliveries.size() + 1); n > 0; --n) {
      const spi::Verb verb = chance(75) ? spi::Verb::kAck : spi::Verb::kRelease;
      settlements.push_back({member.deliveries.back().token, verb});
      Seen& seen = groups_[member.group].at(number_of(member.deliveries.back().envelope->id));
      seen.state = verb == spi::Verb::kAck ? State::kDone : State::kReturned;
      --member.held_count;
      if (seen.suspect) member.holds_suspect = false;
      member.stale.push_back(std::move(member.deliveries.back()));
      member.deliveries.pop_back();
    }
    spi::ReceiveRequest request;
    request.settlements = settlements;
    ASSERT_TRUE(member.subscription->receive(request).value().lost.empty());
  }

  void renew(Member& member) {
    member.lost_count = 0;
    ASSERT_TRUE(member.subscription->renew().ok());
    for (auto& [number, seen] : groups_[member.group]) {
      const bool own = seen.state == State::kHeld && seen.holder == index_of(member);
      if (own) seen.lease_until = world_.clock->monotonic() + kLease;
    }
  }

  void change_members() {
    const std::size_t index = pick(members_.size());
    Member& member = members_[index];
    if (members_.size() < 3 || (members_.size() < 8 && chance(50))) {
      join(chance(50) ? "plain" : "strict");
      return;
    }
    if (chance(60)) {
      ASSERT_TRUE(member.subscription->close().ok());
      for (const spi::Delivery& delivery : member.deliveries) {
        groups_[member.group].at(number_of(delivery.envelope->id)).state = State::kReturned;
      }
    } else {
      dead_.push_back({index_of(member), member.group, member.held_count, member.lost_count});
    }
    ids_.erase(member.subscription.get());
    members_.erase(members_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  void pass_time(Duration by) {
    world_.clock->advance(by);
    (void)world_.transport().statistics();
    for (Member& member : members_) {
      expire(index_of(member), member.group, member.held_count, member.lost_count);
      std::erase_if(member.deliveries, [&](spi::Delivery& delivery) {
        const Seen& seen = groups_[member.group].at(number_of(delivery.envelope->id));
        if (seen.state == State::kHeld && seen.token == delivery.token) return false;
        if (seen.suspect) member.holds_suspect = false;
        member.stale.push_back(delivery);
        return true;
      });
      member.holds_suspect = false;
      for (const spi::Delivery& delivery : member.deliveries) {
        if (groups_[member.group].at(number_of(delivery.envelope->id)).suspect) member.holds_suspect = true;
      }
    }
    for (Dead& dead : dead_)
      expire(dead.index, dead.group, dead.held_count, dead.lost_count);
  }

  void expire(std::size_t index, const std::string& group, std::size_t& held_count, std::size_t& lost_count) {
    std::vector<Seen*> ended;
    for (auto& [number, seen] : groups_[group]) {
      const bool own = seen.state == State::kHeld && seen.holder == index;
      if (own && seen.lease_until <= world_.clock->monotonic()) ended.push_back(&seen);
    }
    const bool charged = held_count + lost_count == 1;
    for (Seen* seen : ended) {
      seen->state = State::kReturned;
      seen->suspect = true;
      if (charged) ++seen->crashes;
      --held_count;
      ++lost_count;
    }
  }

  /// Every message must be where the model has it.
  void check() {
    const auto places = inspect(world_.transport()).value();
    std::map<std::string, spi::GroupStatistics> counted;
    for (const Message& message : messages_) {
      std::vector<Place> expected;
      for (const auto& [name, seen] : groups_) {
        const auto it = seen.find(message.number);
        if (it == seen.end() || it->second.state == State::kDone) continue;
        const bool held = it->second.state == State::kHeld;
        expected.push_back({held ? PlaceKind::kInFlight : PlaceKind::kWaiting, "t", name});
        held ? ++counted[name].in_flight : ++counted[name].waiting;
      }
      std::sort(expected.begin(), expected.end());
      const auto it = places.find(make_id(message.number));
      ASSERT_EQ(it == places.end() ? std::vector<Place>{} : it->second, expected)
          << "message " << message.number;
    }
    for (const auto& [name, seen] : groups_) {
      ASSERT_EQ(world_.group(name).waiting, counted[name].waiting) << name;
      ASSERT_EQ(world_.group(name).in_flight, counted[name].in_flight) << name;
    }
  }

  /// Whatever happened: what is left reaches the members there are, or those that join afterwards.
  void drain() {
    const bool close_all = chance(50);
    for (Member& member : members_) {
      if (close_all) {
        ASSERT_TRUE(member.subscription->close().ok());
      } else {
        ASSERT_TRUE(world_.settle(*member.subscription, member.deliveries, spi::Verb::kRelease).empty());
      }
      for (const spi::Delivery& delivery : member.deliveries) {
        groups_[member.group].at(number_of(delivery.envelope->id)).state = State::kReturned;
      }
      member.deliveries.clear();
      member.held_count = 0;
    }
    if (close_all) members_.clear();
    for (const char* group : {"plain", "strict"}) {
      Member last;
      last.group = group;
      last.subscription =
          world_.subscribe(std::string_view(group) == "strict" ? ordered(group) : member(group));
      members_.push_back(std::move(last));
    }
    pass_time(10 * kLease);
    check();
    for (bool more = true; more;) {
      more = false;
      for (Member& member : members_) {
        std::vector<spi::Delivery> got = world_.receive(*member.subscription, 1 + pick(20));
        if (!got.empty()) more = true;
        ASSERT_TRUE(world_.settle(*member.subscription, got).empty());
        for (const spi::Delivery& delivery : got) {
          Seen& seen = groups_[member.group].at(number_of(delivery.envelope->id));
          ASSERT_TRUE(seen.state == State::kFresh || seen.state == State::kReturned);
          seen.state = State::kDone;
        }
      }
    }
    for (const auto& [name, group] : groups_) {
      for (const auto& [number, seen] : group)
        ASSERT_EQ(seen.state, State::kDone) << number << " of " << name;
    }
    ASSERT_EQ(world_.bytes(), base_bytes_) << "everything was settled, so everything is gone";
  }

  struct Dead {
    std::size_t index;
    std::string group;
    std::size_t held_count;
    std::size_t lost_count;
  };

  std::mt19937_64 random_;
  World world_;
  std::vector<Message> messages_;
  std::map<std::string, std::map<std::uint64_t, Seen>> groups_;
  std::vector<Member> members_;
  std::vector<Dead> dead_;
  mutable std::map<const spi::Subscription*, std::size_t> ids_;
  mutable std::size_t index_last_ = 0;
  std::uint64_t base_bytes_ = 0;
};

TEST(MemoryQueueModel, EveryMessageIsWhereTheModelHasIt) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model(seed).run(300);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace towline::drivers::memory::testing
