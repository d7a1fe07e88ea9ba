// Error classes: the defaults, the order of the rules, and how names are compared.

#include "policy/classify.hpp"

#include <chrono>
#include <stdexcept>

#include <gtest/gtest.h>

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

FailureClass class_of(const std::string& type, const ClassifyOptions& options = {}) {
  return classify({type, "message", ""}, std::nullopt, options).failure_class;
}

// With these options only what some rule knows is transient.
ClassifyOptions strict() {
  ClassifyOptions options;
  options.otherwise = FailureClass::kPermanent;
  return options;
}

TEST(Classify, TriesUnknownErrorsAgain) {
  EXPECT_EQ(class_of("ValueError"), FailureClass::kTransient);
  EXPECT_EQ(class_of(""), FailureClass::kTransient);
}

TEST(Classify, KnowsTransientErrorsByPartsOfTheirNames) {
  for (const char* type :
       {"TransientError", "ConnectionResetError", "NetworkError", "ServiceUnavailable", "HandlerTimeout",
        "asyncio.TimeoutError", "java.net.ConnectException.ConnectionRefused", "connection_lost",
        "ERR_UNAVAILABLE", "ERR_TIMEOUT", "RequestTimedOut", "shop::NetworkDown"}) {
    EXPECT_EQ(class_of(type, strict()), FailureClass::kTransient) << type;
  }
  for (const char* type : {"ValueError", "Time out", "Connect", "Net"}) {
    EXPECT_EQ(class_of(type, strict()), FailureClass::kPermanent) << type;
  }
}

TEST(Classify, DoesNotTakeCancellationAndOpenCircuitsForFailures) {
  for (const char* type :
       {"ERR_CANCELLED", "ERR_CIRCUIT_OPEN", "asyncio.exceptions.CancelledError", "AbortError", "CircuitOpen",
        "System.OperationCanceledException", "towline::Cancelled"}) {
    EXPECT_EQ(class_of(type), FailureClass::kNotAFailure) << type;
  }
}

TEST(Classify, TakesAWordInsideANameForNothing) {
  // A cancelled order is a matter of the business; handing it back for ever would be wrong.
  for (const char* type : {"OrderCancelled", "shop.CancelledOrderError", "CircuitOpenTooLong", "cancelled"}) {
    EXPECT_EQ(class_of(type), FailureClass::kTransient) << type;
  }
}

TEST(Classify, SendsCorruptEnvelopesToDecode) {
  EXPECT_EQ(class_of("ERR_CORRUPT_ENVELOPE"), FailureClass::kDecode);
}

TEST(Classify, ComparesListedNamesExactlyOrByTheLastPart) {
  EXPECT_TRUE(names_type("BadOrder", "BadOrder"));
  EXPECT_TRUE(names_type("BadOrder", "shop.errors.BadOrder"));
  EXPECT_TRUE(names_type("BadOrder", "shop::BadOrder"));
  EXPECT_TRUE(names_type("shop.BadOrder", "shop.BadOrder"));
  EXPECT_FALSE(names_type("shop.BadOrder", "BadOrder"));
  EXPECT_FALSE(names_type("shop.BadOrder", "other.shop.BadOrder"));
  EXPECT_FALSE(names_type("BadOrder", "VeryBadOrder"));
  EXPECT_FALSE(names_type("BadOrder", "badorder"));
  EXPECT_FALSE(names_type("", ""));
  EXPECT_FALSE(names_type("", "shop."));
}

TEST(Classify, LetsListsOverrideTheBuiltInNames) {
  ClassifyOptions options;
  options.permanent_types = {"ConnectionRefused"};
  options.transient_types = {"CancelledError"};
  EXPECT_EQ(class_of("ConnectionRefused", options), FailureClass::kPermanent);
  EXPECT_EQ(class_of("ConnectionReset", options), FailureClass::kTransient);
  EXPECT_EQ(class_of("CancelledError", options), FailureClass::kTransient);
}

TEST(Classify, PrefersExactNamesToPatternsAndPermanentToTransient) {
  ClassifyOptions options = strict();
  options.permanent_types = {"A"};
  options.transient_types = {"A", "BadGateway"};
  options.permanent_patterns = {"Bad", "Timeout"};
  options.transient_patterns = {"BadLuck"};
  EXPECT_EQ(class_of("A", options), FailureClass::kPermanent);
  EXPECT_EQ(class_of("BadGateway", options), FailureClass::kTransient);
  EXPECT_EQ(class_of("BadRequest", options), FailureClass::kPermanent);
  EXPECT_EQ(class_of("BadLuck", options), FailureClass::kPermanent);
  EXPECT_EQ(class_of("SomeTimeout", options), FailureClass::kPermanent);
}

TEST(Classify, MatchesPatternsInAnyCaseAndIgnoresEmptyOnes) {
  ClassifyOptions options = strict();
  options.transient_patterns = {"", "busy"};
  EXPECT_EQ(class_of("DatabaseBusyError", options), FailureClass::kTransient);
  EXPECT_EQ(class_of("Other", options), FailureClass::kPermanent);
  options.permanent_patterns = {""};
  EXPECT_EQ(class_of("DatabaseBusyError", options), FailureClass::kTransient);
}

TEST(Classify, AsksThePredicateFirst) {
  ClassifyOptions options;
  options.permanent_types = {"A"};
  options.predicate = [](const ErrorInfo& error) -> std::optional<FailureClass> {
    if (error.message == "message") return FailureClass::kDecode;
    return std::nullopt;
  };
  EXPECT_EQ(class_of("A", options), FailureClass::kDecode);
  EXPECT_EQ(classify({"A", "other", ""}, std::nullopt, options).failure_class, FailureClass::kPermanent);
}

TEST(Classify, GoesOnWithTheListsWhenThePredicateThrows) {
  ClassifyOptions options;
  options.permanent_types = {"A"};
  options.predicate = [](const ErrorInfo&) -> std::optional<FailureClass> {
    throw std::runtime_error("bug");
  };
  EXPECT_EQ(class_of("A", options), FailureClass::kPermanent);
}

TEST(Classify, TakesAWaitThatCameWithTheErrorForThrottling) {
  ClassifyOptions options;
  options.permanent_types = {"A"};
  const Classification found = classify({"A", "", ""}, 5s, options);
  EXPECT_EQ(found.failure_class, FailureClass::kThrottled);
  EXPECT_EQ(found.retry_after, Duration(5s));
  EXPECT_EQ(classify({"A", "", ""}, -5s, options).retry_after, Duration(0));
}

TEST(Classify, LetsThePredicateChooseThrottlingWithOrWithoutAWait) {
  ClassifyOptions options;
  options.predicate = [](const ErrorInfo&) { return FailureClass::kThrottled; };
  EXPECT_EQ(classify({}, 5s, options).retry_after, Duration(5s));
  EXPECT_EQ(classify({}, std::nullopt, options).retry_after, std::nullopt);
  EXPECT_EQ(classify({}, std::nullopt, options).failure_class, FailureClass::kThrottled);
}

TEST(Classify, DropsTheWaitWhenThePredicateSaysItIsNotThrottling) {
  ClassifyOptions options;
  options.predicate = [](const ErrorInfo&) { return FailureClass::kPermanent; };
  EXPECT_EQ(classify({}, 5s, options).retry_after, std::nullopt);
}

}  // namespace
}  // namespace towline::policy
