// FLT-12, FLT-16 and FLT-17: a full disk, handlers that never return, and a consumer ten times slower than
// its publisher. Each runs in a process of its own (child_limits.cpp), whose ledger is judged here.

#include <algorithm>

#include "faults/experiment.hpp"

namespace towline::faults {
namespace {

class Limits : public Experiment {
 protected:
  [[nodiscard]] const Note* find(std::string_view what) {
    for (const Note& note : history().notes()) {
      if (note.what == what) return &note;
    }
    return nullptr;
  }
  [[nodiscard]] std::int64_t number_of(std::string_view what) {
    const Note* note = find(what);
    EXPECT_NE(note, nullptr) << "the run did not come as far as \"" << what << "\"";
    return note == nullptr ? -1 : note->number;
  }
  void expect_none(std::string_view what) {
    for (const Note& note : history().notes()) {
      if (note.what == what) ADD_FAILURE() << what << ": " << note.number << " " << note.text;
    }
  }

  void judge_full_disk(const std::string& id) {
    history().read();
    for (const char* what :
         {"never_full", "not_refused", "not_settled", "not_recovered", "not_paused", "not_closed"})
      expect_none(what);
    std::int64_t refused_max_ms = 0;
    std::int64_t recovered_max_ms = 0;
    for (const Note& note : history().notes()) {
      if (note.what == "refused") refused_max_ms = std::max(refused_max_ms, note.number);
      if (note.what == "recovered")
        recovered_max_ms = std::max<std::int64_t>(recovered_max_ms, std::stoll(note.text));
    }
    EXPECT_GT(history().count("refused"), 0U);
    EXPECT_GT(history().count("recovered"), 0U);
    EXPECT_LT(refused_max_ms, 10'000) << "a refusal came after its deadline";
    const Note* integrity = find("integrity");
    ASSERT_NE(integrity, nullptr);
    EXPECT_EQ(integrity->text, "ok");
    Expectation expected;
    const Judgement judged = judge(history().notes(), expected);
    print(id, judged.to_string() + ",\"rounds\":" + std::to_string(history().count("full")) +
                  ",\"refused_ms_max\":" + std::to_string(refused_max_ms) +
                  ",\"recovered_ms_max\":" + std::to_string(recovered_max_ms));
    expect_clean(judged);
  }
};

TEST_F(Limits, Flt12_AFullFileSystemRefusesPublishesAndGoesOnSettling) {
  TOWLINE_EXPERIMENT("FLT-12");
  TOWLINE_EXPERIMENT("FLT-12.tmpfs");
  ChildProcess child(support::sibling_program("fault_child"),
                     {"full_disk", url(), ledgers(), "full", "mount=1", "store=" + stores(), "bytes=50331648",
                      "rounds=" + std::to_string(sized(2, 5))});
  const auto line = child.read_line(20s);
  ASSERT_TRUE(line.has_value());
  if (line->starts_with("no small file system"))
    GTEST_SKIP() << *line << " (a limit within the process stands in for it: FLT-12.quota)";
  const auto status = child.wait(sized(60s, 300s));
  EXPECT_TRUE(status && status->clean());
  judge_full_disk("FLT-12 disk_full tmpfs");
}

TEST_F(Limits, Flt12_AFullQuotaRefusesPublishesAndGoesOnSettling) {
  TOWLINE_EXPERIMENT("FLT-12");
  TOWLINE_EXPERIMENT("FLT-12.quota");
  ChildProcess child = start(
      "full_disk", "full", {"store=" + stores(), "bytes=50331648", "rounds=" + std::to_string(sized(2, 5))});
  const auto status = child.wait(sized(60s, 300s));
  EXPECT_TRUE(status && status->clean());
  judge_full_disk("FLT-12 disk_full quota");
}

TEST_F(Limits, Flt16_HandlersThatNeverReturnDoNotHoldUpTheOthers) {
  TOWLINE_EXPERIMENT("FLT-16");
  const int count = sized(600, 10'000);
  // Every stuck handler keeps its thread, so there must be more threads than those.
  ChildProcess child = start("stuck", "stuck",
                             {"count=" + std::to_string(count), "attempts_max=1", "handler_timeout_ms=300",
                              "concurrency=" + std::to_string(count / 50 + 32)});
  const auto status = child.wait(sized(60s, 300s));
  EXPECT_TRUE(status && status->clean());
  history().read();
  expect_none("not_all");
  expect_none("stuck_wrong");
  const std::int64_t stuck = number_of("stuck");
  print("FLT-16 stuck",
        "\"n\":" + std::to_string(count) + ",\"baseline_per_s\":" + std::to_string(number_of("baseline")) +
            ",\"others_per_s\":" + std::to_string(number_of("others")) +
            ",\"stuck\":" + std::to_string(stuck) + ",\"close_ms\":" + std::to_string(number_of("close")));
  EXPECT_EQ(stuck, count / 50);
  // A small run takes a twentieth of a second, and says little about rates.
  EXPECT_GE(number_of("others") * 10, number_of("baseline") * sized(3, 8));
  EXPECT_LE(number_of("close"), 2500);
  ASSERT_NE(find("close"), nullptr);
  EXPECT_EQ(find("close")->text, std::to_string(count / 50)) << "close() must tell how many are stuck";
}

TEST_F(Limits, Flt17_ABacklogGrowsOnTheDiskAndNotInMemory) {
  TOWLINE_EXPERIMENT("FLT-17");
  const int seconds = sized(4, 60);
  ChildProcess child =
      start("slow", "slow",
            {"seconds=" + std::to_string(seconds), "per_second=4000", "concurrency=1", "prefetch=100"});
  const auto status = child.wait(sized(60s, 300s));
  EXPECT_TRUE(status && status->clean());
  history().read();
  expect_none("not_all");
  const Note* resident = find("resident");
  ASSERT_NE(resident, nullptr);
  const std::int64_t before = resident->number;
  const std::int64_t most = std::stoll(resident->text);
  const Note* rate = find("rate");
  ASSERT_NE(rate, nullptr);
  print("FLT-17 slow_consumer",
        "\"published_per_s\":" + std::to_string(rate->number) + ",\"handled_meanwhile\":" + rate->text +
            ",\"handled\":" + std::to_string(number_of("all")) + ",\"distinct\":" +
            std::to_string(number_of("distinct")) + ",\"resident_mib\":" + std::to_string(before >> 20) +
            ",\"resident_max_mib\":" + std::to_string(most >> 20));
  // What the consumer may hold is a hundred messages; 32 MiB is SQLite's page cache growing to its bound.
  EXPECT_LE(most, before + (std::int64_t{33} << 20));
  EXPECT_EQ(number_of("all"), number_of("distinct")) << "a message was handled twice or not at all";
}

}  // namespace
}  // namespace towline::faults
