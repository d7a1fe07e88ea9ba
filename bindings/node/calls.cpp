// The calls of an engine: each converts its arguments and hands the work to a thread of the port. The first
// argument is the number under which the answer comes.

#include "binding.hpp"

namespace towline::node {
namespace {

using Info = const Napi::CallbackInfo&;

void publish_with_retry(Port& port, Info info) {
  run(port, info[0],
      [message = message_from(info[1]), retry = options_from<RetryOptions>(info[2]),
       timeout = optional_duration_from(info[3], "timeoutMs")](Engine& engine) -> Result<Receipt> {
        return engine.publish_with_retry(message, retry, timeout);
      });
}

void cancel(Port& port, Info info) {
  run(port, info[0], [id = id_from(info[1])](Engine& engine) { return engine.cancel(id); });
}

void cancel_batch(Port& port, Info info) {
  run(port, info[0], [ids = ids_from(info[1])](Engine& engine) { return engine.cancel_batch(ids); });
}

void reschedule(Port& port, Info info) {
  run(port, info[0], [id = id_from(info[1]), due_at = time_from(info[2], "dueAt")](Engine& engine) {
    return engine.reschedule(id, due_at);
  });
}

void pending(Port& port, Info info) {
  run(port, info[0],
      [topic = text_from(info[1], "topic"), count_max = whole_from(info[2], "countMax", 0, 1'000'000),
       cursor = text_from(info[3], "cursor")](Engine& engine) {
        return engine.pending(topic, static_cast<std::size_t>(count_max), cursor);
      });
}

void declare_topic(Port& port, Info info) {
  run(port, info[0],
      [topic = text_from(info[1], "topic"), options = options_from<TopicOptions>(info[2])](Engine& engine) {
        return engine.declare_topic(topic, options);
      });
}

void backlog(Port& port, Info info) {
  run(port, info[0], [](Engine& engine) { return engine.backlog(); });
}

void blocked_keys(Port& port, Info info) {
  run(port, info[0],
      [group = text_from(info[1], "group"), topic = text_from(info[2], "topic")](Engine& engine) {
        return engine.blocked_keys(group, topic);
      });
}

void release_key(Port& port, Info info) {
  run(port, info[0],
      [group = text_from(info[1], "group"), topic = text_from(info[2], "topic"),
       key = text_from(info[3], "key")](Engine& engine) { return engine.release_key(group, topic, key); });
}

void dead_letters(Port& port, Info info) {
  run(port, info[0], [query = query_from(info[1])](Engine& engine) { return engine.dead_letters(query); });
}

void find_dead_letter(Port& port, Info info) {
  run(port, info[0], [id = id_from(info[1])](Engine& engine) { return engine.find_dead_letter(id); });
}

void dead_letter_groups(Port& port, Info info) {
  run(port, info[0],
      [query = query_from(info[1])](Engine& engine) { return engine.dead_letter_groups(query); });
}

void redrive(Port& port, Info info) {
  run(port, info[0], [id = id_from(info[1]), options = redrive_from(info[2])](Engine& engine) {
    return engine.redrive(id, options);
  });
}

void redrive_all(Port& port, Info info) {
  run(port, info[0], [query = query_from(info[1]), options = redrive_from(info[2])](Engine& engine) {
    return engine.redrive_all(query, options);
  });
}

void discard_dead_letter(Port& port, Info info) {
  run(port, info[0], [id = id_from(info[1])](Engine& engine) { return engine.discard_dead_letter(id); });
}

void begin(Port& port, Info info) {
  run(port, info[0],
      [key = text_from(info[1], "key"), options = options_from<IdempotencyOptions>(info[2])](Engine& engine) {
        return engine.begin(key, options);
      });
}

void complete(Port& port, Info info) {
  run(port, info[0],
      [token = token_from(info[1]), result = bytes_from(info[2], "result"),
       content_type = text_from(info[3], "contentType"), options = options_from<IdempotencyOptions>(info[4])](
          Engine& engine) { return engine.complete(token, result, options, content_type); });
}

void fail(Port& port, Info info) {
  run(port, info[0], [token = token_from(info[1])](Engine& engine) { return engine.fail(token); });
}

void statistics(Port& port, Info info) {
  run(port, info[0], [](Engine& engine) { return engine.statistics(); });
}

void health(Port& port, Info info) {
  run(port, info[0], [](Engine& engine) { return Result<Health>(engine.health()); });
}

void findings(Port& port, Info info) {
  run(port, info[0], [](Engine& engine) { return Result<std::vector<std::string>>(engine.findings()); });
}

void settle_down(Port& port, Info info) {
  run(port, info[0], [timeout = duration_from(info[1], "timeoutMs")](Engine& engine) {
    return engine.settle_down(timeout);
  });
}

void close(Port& port, Info info) {
  run(
      port, info[0],
      [timeout = optional_duration_from(info[1], "timeoutMs")](Engine& engine) {
        return engine.close(timeout);
      },
      true);
}

void consume(Port& port, Info info) {
  run(port, info[0],
      [&port, consumer_id = whole_from(info[1], "consumer", 0, INT64_MAX / 1024),
       patterns = texts_from(info[2], "topics"), options = options_from<ConsumerOptions>(info[3]),
       in_batches = info[4].ToBoolean().Value()](Engine&) {
        return port.consume(static_cast<std::uint64_t>(consumer_id), patterns, options, in_batches);
      });
}

/// Settles a delivery, and is answered when that is durable.
void settle_durably(Port& port, Info info) {
  run(port, info[0], [delivery = delivery_in(info, 1), outcome = outcome_from(info[3])](Engine&) mutable {
    return delivery.settle(std::move(outcome), true);
  });
}

void drain_consumer(Port& port, Info info) {
  run(port, info[0],
      [consumer = held<PortConsumer>(info[1]),
       timeout = duration_from(info[2], "timeoutMs")](Engine&) mutable { return consumer.drain(timeout); });
}

void close_consumer(Port& port, Info info) {
  run(
      port, info[0],
      [consumer = held<PortConsumer>(info[1]), timeout = optional_duration_from(info[2], "timeoutMs")](
          Engine&) mutable { return consumer.close(timeout); },
      true);
}

}  // namespace

std::vector<Call> calls() {
  std::vector<Call> all = {{"publishWithRetry", publish_with_retry},
                           {"cancel", cancel},
                           {"cancelBatch", cancel_batch},
                           {"reschedule", reschedule},
                           {"pending", pending},
                           {"declareTopic", declare_topic},
                           {"backlog", backlog},
                           {"blockedKeys", blocked_keys},
                           {"releaseKey", release_key},
                           {"deadLetters", dead_letters},
                           {"findDeadLetter", find_dead_letter},
                           {"deadLetterGroups", dead_letter_groups},
                           {"redrive", redrive},
                           {"redriveAll", redrive_all},
                           {"discardDeadLetter", discard_dead_letter},
                           {"begin", begin},
                           {"complete", complete},
                           {"fail", fail},
                           {"statistics", statistics},
                           {"health", health},
                           {"findings", findings},
                           {"settleDown", settle_down},
                           {"close", close},
                           {"consume", consume},
                           {"settleDurably", settle_durably},
                           {"drainConsumer", drain_consumer},
                           {"closeConsumer", close_consumer}};
  for (const std::vector<Call>& more : {event_calls(), conversation_calls(), saga_calls()})
    all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace towline::node
