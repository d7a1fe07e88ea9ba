// towline_demo: the command line. Without a subcommand it is the coordinator; `run-publisher` and
// `run-worker` are what it starts itself as, and not meant for people.

#include <exception>
#include <iostream>

#include <CLI/CLI.hpp>

#include "coordinator.hpp"
#include "roles.hpp"
#include "self_test.hpp"

namespace {

using namespace towline::demo;

#ifndef TOWLINE_DEMO_SAMPLE
#define TOWLINE_DEMO_SAMPLE "demo/orders.jsonl"
#endif

void add_coordinator_options(CLI::App& app, CoordinatorOptions& options) {
  options.sample = TOWLINE_DEMO_SAMPLE;
  app.add_option("--input", options.input, "Orders to publish as they are, JSON Lines; - is standard input")
      ->type_name("FILE");
  app.add_option("--count", options.count,
                 "How many orders (default 10000 of the sample, or all of the input)")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--seed", options.seed, "Decides who fails, waits and is killed when")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--db", options.database, "The SQLite file to use; it must not exist, and is kept")
      ->type_name("FILE");
  app.add_flag("--keep", options.keep, "Keep database and ledgers");
  app.add_option("--publishers", options.publishers, "Publisher processes")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--workers", options.workers, "Worker processes, dealt to the languages in turn")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  app.add_option("--languages", options.languages,
                 "What the workers are written in: cpp, python, node (default: all that this build has)")
      ->delimiter(',')
      ->type_name("LIST");
  app.add_option("--concurrency", options.concurrency, "Handlers at once per worker")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--work-ms", options.work_ms, "How long a handler works, about")
      ->check(CLI::Range(0, 10'000))
      ->capture_default_str();
  app.add_option("--worker-kills", options.worker_kills, "How often a worker is killed")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option("--publisher-kills", options.publisher_kills, "How often a publisher is killed")
      ->check(CLI::Range(0, 1))
      ->capture_default_str();
  app.add_option("--rate", options.rate_per_second,
                 "Orders published per second in all (default: from the count)")
      ->check(CLI::Range(0.1, 1e6));
  app.add_option("--deadline-s", options.deadline_s,
                 "Give up after this many seconds (default: from the plan)")
      ->check(CLI::Range(1.0, 86400.0));
}

void add_worker_options(CLI::App& app, WorkerOptions& options) {
  app.add_option("--store", options.store)->required();
  app.add_option("--ledger", options.ledger)->required();
  app.add_option("--world", options.world)->required();
  app.add_option("--name", options.name)->required();
  app.add_option("--topic", options.topic)->required();
  app.add_option("--group", options.group)->required();
  app.add_option("--lease-ms", options.lease_ms)->required();
  app.add_option("--concurrency", options.concurrency)->required();
  app.add_option("--attempts", options.attempts)->required();
  app.add_option("--retry-ms", options.retry_ms)->required();
  app.add_option("--retry-max-ms", options.retry_max_ms)->required();
  app.add_option("--work-ms", options.work_ms)->required();
  app.add_option("--seed", options.seed)->required();
}

int run(int argc, char** argv) {
  CLI::App app(
      "Orders go through failures and kill -9 on one SQLite file; the verdict says what became of them.");
  CoordinatorOptions coordinator;
  add_coordinator_options(app, coordinator);
  bool self_test = false;
  app.add_flag("--self-test", self_test, "Plant breaches and see that the verdict names each of them");

  PublisherOptions publisher;
  CLI::App* as_publisher = app.add_subcommand("run-publisher")->group("");
  as_publisher->add_option("--database", publisher.place.database)->required();
  as_publisher->add_option("--folder", publisher.place.folder)->required();
  as_publisher->add_option("--name", publisher.name)->required();
  as_publisher->add_option("--index", publisher.index)->required();
  as_publisher->add_option("--rate", publisher.rate_per_second)->required();

  WorkerOptions worker;
  CLI::App* as_worker = app.add_subcommand("run-worker")->group("");
  add_worker_options(*as_worker, worker);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitPass : kExitUsage;
  }
  if (as_publisher->parsed()) return run_publisher(publisher);
  if (as_worker->parsed()) return run_worker(worker);
  return self_test ? run_self_test() : run_coordinator(coordinator);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "towline_demo: " << error.what() << '\n';
    return kExitBreach;
  }
}
