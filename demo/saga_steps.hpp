#pragma once
// The steps of the order saga in C++; the workers in the other languages have the same.

#include <towline/towline.hpp>

#include "ledger.hpp"
#include "roles.hpp"
#include "saga.hpp"

namespace towline::demo {

class SagaSteps {
 public:
  SagaSteps(const WorkerOptions& options, const Ledger& ledger)
      : options_(options), ledger_(ledger), world_(options.world, options.name) {}
  SagaSteps(const SagaSteps&) = delete;
  SagaSteps& operator=(const SagaSteps&) = delete;
  /// Every process has the same, whatever it is written in. Must not outlive this.
  [[nodiscard]] Saga saga();

 private:
  void run(SagaCall& call);
  void take_effect(const SagaCall& call, std::uint32_t number, const std::string& part);
  [[noreturn]] void fail(const SagaCall& call, std::uint32_t number, const char* type,
                         const char* text) const;

  const WorkerOptions& options_;
  const Ledger& ledger_;
  World world_;
};

}  // namespace towline::demo
