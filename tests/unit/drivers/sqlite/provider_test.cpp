// The memory driver is the executable specification: whatever a user does, both must answer the same. Random
// sequences of calls are made on both, and everything that comes back is compared.

#include <random>
#include <sstream>

#include "world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

constexpr Duration kLease = 10s;

/// One provider, and what the sequence made with it.
struct Side {
  spi::Provider provider;
  std::vector<std::unique_ptr<spi::Subscription>> subscriptions;
  /// By subscription: what it was handed and has not settled, also where it was lost since.
  std::vector<std::vector<spi::Delivery>> held;
  std::ostringstream log;
};

class Twins {
 public:
  explicit Twins(std::uint64_t seed) : random_(seed) {
    spi::DriverOptions options;
    options.clock = clock_;
    options.threads = false;
    sides_[0].provider = open_memory(options).value();
    options.location = folder_.file("twin.db");
    options.parameters = {{"synchronous", "normal"}};
    sides_[1].provider = open_sqlite(options).value();
    for (const char* topic : {"a", "b"}) {
      spi::Topology topology;
      topology.topic = topic;
      topology.partition_count = 4;
      for (Side& side : sides_)
        EXPECT_TRUE(side.provider.transport->declare(topology).ok());
    }
    // Groups that come later would see what the other groups have left, and that may differ.
    for (const char* group : {"g", "h"})
      join(group);
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      step();
      ASSERT_EQ(sides_[0].log.str(), sides_[1].log.str()) << "after step " << i << "\n" << history_.str();
      history_ << sides_[0].log.str();
      for (Side& side : sides_)
        side.log.str({});
    }
  }

 private:
  std::uint64_t pick(std::uint64_t count) { return random_() % count; }

  template <typename Call>
  void both(Call&& call) {
    for (Side& side : sides_)
      call(side);
  }

  void join(const std::string& group) {
    spi::SubscribeOptions options = member(group);
    options.lease = kLease;
    // Group h is ordered.
    if (group == "h") options.order = spi::OrderMode::kKeyOrdered;
    if (group == "h" && pick(4) == 0) options.partitions = {static_cast<std::uint32_t>(pick(4))};
    history_ << "join " << group << " " << static_cast<int>(options.order) << " named "
             << (options.partitions.empty() ? -1 : static_cast<int>(options.partitions[0])) << "\n";
    both([&](Side& side) {
      side.subscriptions.push_back(side.provider.transport->subscribe(options).value());
      side.held.emplace_back();
    });
  }

  spi::Envelope envelope() {
    spi::Envelope e;
    e.id = make_id(++last_);
    e.topic = pick(3) == 0 ? "b" : "a";
    e.partition = static_cast<std::uint32_t>(pick(4));
    e.priority = pick(5) == 0 ? 3 : 0;
    e.published_at = clock_->now();
    e.payload.assign(pick(40), 'p');
    if (pick(6) == 0) e.group = pick(2) == 0 ? "g" : "h";
    if (pick(6) == 0) {
      e.dedup_id = "d" + std::to_string(pick(4));
      e.dedup_until = clock_->now() + 5s;
    }
    return e;
  }

  void publish() {
    std::vector<spi::Envelope> envelopes;
    for (std::uint64_t i = pick(6); i-- > 0;)
      envelopes.push_back(envelope());
    for (const auto& e : envelopes) {
      history_ << "publish " << number_of(e.id) << " " << e.topic << " " << int{e.priority} << " " << e.group
               << " p" << e.partition << " " << e.dedup_id << " " << e.payload.size() << "\n";
    }
    both([&](Side& side) {
      std::vector<spi::Envelope> copy = envelopes;
      for (const auto& answer : side.provider.transport->publish(copy, clock_->monotonic()).value()) {
        side.log << "answer " << answer.duplicate << number_of(answer.original) << "\n";
      }
    });
  }

  void receive(std::size_t index) {
    spi::ReceiveRequest request;
    request.count_max = pick(5);
    request.payload_bytes_max = 0;
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < sides_[0].held[index].size(); ++i) {
      if (pick(3) != 0) chosen.push_back(i);
    }
    const spi::Verb verb = pick(4) == 0 ? spi::Verb::kRelease : spi::Verb::kAck;
    const bool in_unit = pick(3) == 0;
    const std::uint64_t retry = ++last_;
    history_ << "receive " << index << " count " << request.count_max << " bytes "
             << request.payload_bytes_max << " settles " << chosen.size() << " verb "
             << static_cast<int>(verb) << " unit " << in_unit << "\n";
    both([&](Side& side) {
      std::vector<spi::Settlement> settlements;
      std::vector<spi::Unit> units;
      std::vector<spi::Delivery> kept;
      for (std::size_t i = 0; i < side.held[index].size(); ++i) {
        const bool settles = std::find(chosen.begin(), chosen.end(), i) != chosen.end();
        const spi::Delivery& delivery = side.held[index][i];
        if (!settles) {
          kept.push_back(delivery);
        } else if (in_unit) {
          spi::ScheduleRecord record;
          record.id = make_id(retry * 1000 + i);
          record.envelope = *delivery.envelope;
          record.envelope.group = "g";
          record.due_at = clock_->now() + 2s;
          units.push_back({{spi::PutSchedule{record}, spi::Settle{{delivery.token, spi::Verb::kAck}}}});
        } else {
          settlements.push_back({delivery.token, verb});
        }
      }
      request.settlements = settlements;
      request.units = units;
      side.held[index] = std::move(kept);
      const spi::Received received = side.subscriptions[index]->receive(request).value();
      for (const std::uint32_t lost : received.lost)
        side.log << "lost " << lost << "\n";
      for (const auto& unit : received.units)
        side.log << "unit " << static_cast<int>(code_of(unit)) << "\n";
      for (const spi::Delivery& d : received.deliveries) {
        side.log << "got " << number_of(d.envelope->id) << " crashes " << d.crashes << " again "
                 << d.redelivered << " fenced " << (d.epoch > 0) << " group " << d.envelope->group << " "
                 << d.envelope->topic << " p" << d.envelope->partition << "\n";
        side.held[index].push_back(d);
      }
    });
  }

  void schedule() {
    const std::uint64_t what = pick(4);
    const std::uint64_t number = what == 0 ? ++last_ : 1 + pick(last_ + 1);
    if (what == 0) scheduled_.push_back(number);
    const MessageId id =
        scheduled_.empty() || what == 0 ? make_id(number) : make_id(scheduled_[pick(scheduled_.size())]);
    spi::ScheduleRecord record;
    record.id = id;
    record.envelope = envelope();
    record.envelope.id = id;
    record.due_at = clock_->now() + Duration(static_cast<std::int64_t>(pick(8'000'000)));
    if (pick(4) == 0) record.skip_if_late_by = 1s;
    spi::Unit unit;
    if (what <= 1) unit.writes.emplace_back(spi::PutSchedule{record});
    // Without a version it is a cancellation, which the file passes over for a while before it removes it.
    if (what == 2) unit.writes.emplace_back(spi::EraseSchedule{id, 1 + pick(2)});
    if (what == 3) unit.writes.emplace_back(spi::MoveSchedule{id, pick(3), record.due_at});
    history_ << "schedule op " << what << " id " << number_of(id) << " skip "
             << record.skip_if_late_by.count() << " due " << to_us(record.due_at) << "\n";
    both([&](Side& side) {
      side.log << "schedule "
               << static_cast<int>(code_of(side.provider.store->commit({&unit, 1}).value().at(0)))
               << " fired " << side.provider.store->has_fired(id).value();
      if (const auto found = side.provider.store->find_schedule(id).value()) {
        side.log << " due " << to_us(found->due_at) << " version " << found->version << " "
                 << found->envelope.topic;
      }
      side.log << "\n";
    });
  }

  void promote() {
    spi::DueRequest request;
    request.count_max = 1 + pick(5);
    history_ << "promote " << request.count_max << "\n";
    request.lease = 3s;
    both([&](Side& side) {
      const spi::DueBatch batch = side.provider.store->promote_due(request).value();
      side.log << "promoted " << batch.promoted_count;
      for (const Duration late : batch.lateness)
        side.log << " late " << late.count();
      for (const auto& r : batch.records)
        side.log << " record " << number_of(r.id) << " " << r.version;
      if (batch.next_due_at) side.log << " next " << to_us(*batch.next_due_at);
      side.log << "\n";
    });
  }

  void park() {
    spi::KeyBlock block;
    block.group = "h";
    block.topic = "a";
    block.partition = static_cast<std::uint32_t>(pick(2));
    block.key = pick(2) == 0 ? "" : "k";
    block.head = make_id(7);
    block.since = clock_->now();
    block.held = pick(3) == 0;
    spi::ScheduleRecord record;
    record.id = make_id(++last_);
    record.envelope = envelope();
    record.envelope.dedup_id.clear();
    record.envelope.group = "h";
    record.envelope.topic = "a";
    record.envelope.partition = block.partition;
    record.envelope.key = "k";
    record.parked = true;
    record.order_key = block.key;
    spi::Unit unit;
    switch (pick(3)) {
      case 0:
        unit.writes.emplace_back(spi::PutKeyBlock{block});
        break;
      case 1:
        unit.writes.emplace_back(spi::PutSchedule{record});
        break;
      default:
        unit.writes.emplace_back(spi::UnparkNext{"h", "a", block.key, block.partition, clock_->now()});
        break;
    }
    both([&](Side& side) {
      side.log << "park " << static_cast<int>(code_of(side.provider.store->commit({&unit, 1}).value().at(0)))
               << "\n";
      for (const auto& b : side.provider.store->list_key_blocks("h", "a", std::nullopt).value()) {
        side.log << "block " << b.partition << " '" << b.key << "' " << number_of(b.head) << " " << b.held
                 << " " << b.parked_count << "\n";
      }
    });
  }

  void list() {
    spi::ScheduleQuery query;
    query.parked = pick(2) == 0;
    if (pick(2) == 0) query.topic = "a";
    if (pick(2) == 0) query.group = "h";
    query.count_max = 2;
    both([&](Side& side) {
      query.cursor.clear();
      do {
        const auto page = side.provider.store->list_schedule(query).value();
        for (const auto& r : page.items) {
          side.log << "listed " << number_of(r.id) << " " << to_us(r.due_at) << " " << r.order_key << "\n";
        }
        query.cursor = page.cursor;
      } while (!query.cursor.empty());
      const spi::StoreStatistics statistics = side.provider.store->statistics().value();
      side.log << "counts " << statistics.scheduled << " " << statistics.parked << "\n";
    });
  }

  void statistics() {
    both([&](Side& side) {
      for (const auto& one : side.provider.transport->statistics().value()) {
        side.log << one.topic << "/" << one.group << " waiting " << one.waiting << " in flight "
                 << one.in_flight << " members " << one.member_count << "\n";
      }
    });
  }

  void drop(std::size_t index, bool close) {
    history_ << "drop " << index << " " << close << "\n";
    both([&](Side& side) {
      if (close) {
        EXPECT_TRUE(side.subscriptions[index]->close().ok());
      }
      side.subscriptions.erase(side.subscriptions.begin() + static_cast<std::ptrdiff_t>(index));
      side.held.erase(side.held.begin() + static_cast<std::ptrdiff_t>(index));
    });
  }

  void step() {
    const std::size_t count = sides_[0].subscriptions.size();
    const std::uint64_t what = pick(100);
    history_ << "step " << what << " with " << count << " at " << to_us(clock_->now()) % 1'000'000'000
             << "\n";
    if (what < 20) return publish();
    if (what < 55 && count > 0) return receive(pick(count));
    if (what < 65) return schedule();
    if (what < 73) return promote();
    if (what < 78) return park();
    if (what < 81) return list();
    if (what < 85) return statistics();
    if (what < 90) return clock_->advance(Duration(static_cast<std::int64_t>(pick(6'000'000))));
    if (what < 93 && count < 6) return join(pick(2) == 0 ? "g" : "h");
    if (what < 95 && count > 2) return drop(pick(count), pick(2) == 0);
    if (what < 98 && count > 0) {
      const std::size_t index = pick(count);
      history_ << "renew " << index << "\n";
      both([&](Side& side) {
        for (const auto lease : side.subscriptions[index]->renew().value())
          side.log << "lost lease" << (lease > 0) << "\n";
      });
      return;
    }
    spi::SweepRequest request;
    request.now = clock_->now();
    both([&](Side& side) { (void)side.provider.store->sweep(request).value(); });
  }

  std::mt19937_64 random_;
  std::ostringstream history_;
  support::TempDir folder_;
  std::shared_ptr<VirtualClock> clock_ = std::make_shared<VirtualClock>();
  Side sides_[2];
  std::uint64_t last_ = 100;
  std::vector<std::uint64_t> scheduled_;
};

TEST(SqliteTwin, AnswersEverySequenceOfCallsAsTheMemoryDriverDoes) {
  std::uint64_t first = 1;
  std::uint64_t last = 12;
  if (const char* seed = std::getenv("TOWLINE_TWIN_SEED")) first = last = std::strtoull(seed, nullptr, 10);
  if (const char* count = std::getenv("TOWLINE_TWIN_COUNT")) last = std::strtoull(count, nullptr, 10);
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Twins(seed).run(150);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
