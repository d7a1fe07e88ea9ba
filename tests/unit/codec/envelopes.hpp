#pragma once
// Envelopes for the tests of the codec: the two documented ones, made-up ones, and all of an envelope as
// text, because spi::Envelope has no equality of its own.

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <rapidcheck.h>

#include <towline/spi/envelope.hpp>

namespace towline::codec {

inline spi::Envelope small_envelope() {
  spi::Envelope envelope;
  envelope.id = *MessageId::parse("01890a5d-ac96-774b-bcce-b302099a8057");
  envelope.topic = "orders";
  envelope.published_at = from_us(1'700'000'000'000'000);
  envelope.payload = "hi";
  return envelope;
}

inline spi::Envelope full_envelope() {
  spi::Envelope envelope = small_envelope();
  envelope.partition = 42;
  envelope.key = "c-9";
  envelope.group = "billing";
  envelope.expires_at = from_us(1'700'000'060'000'000);
  envelope.priority = 5;
  envelope.attempt = 3;
  envelope.crashes = 1;
  envelope.redrives = 2;
  envelope.heads_key = true;
  envelope.headers = {{"region", "eu"}, {"empty", ""}};
  envelope.content_type = "text/plain";
  envelope.correlation_id = "co";
  envelope.causation_id = "ca";
  envelope.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  envelope.dedup_id = "d-1";
  envelope.dedup_until = from_us(1'700'086'400'000'000);
  envelope.dedup_mode = DedupMode::kWhileUnfinished;
  envelope.first_failed_at = from_us(1'700'000'001'000'000);
  envelope.retry_delay = Duration(2'000'000);
  envelope.history = {{from_us(1'700'000'001'000'000), 1, "Timeout", "slow"}};
  return envelope;
}

// Every field, with lengths before texts, so that different envelopes never look alike.
inline std::string describe(const spi::Envelope& e) {
  std::ostringstream out;
  const auto text = [&](const std::string& value) { out << value.size() << ':' << value << '|'; };
  text(e.id.to_string());
  text(e.topic);
  out << e.partition << '|' << e.key.has_value() << '|';
  text(e.key.value_or(""));
  text(e.group);
  for (const auto& [name, value] : e.headers) {
    text(name);
    text(value);
  }
  out << "headers|";
  text(e.content_type);
  text(e.payload);
  out << int{e.priority} << '|' << to_us(e.published_at) << '|' << to_us(e.expires_at) << '|';
  text(e.correlation_id);
  text(e.causation_id);
  text(e.traceparent);
  text(e.dedup_id);
  out << to_us(e.dedup_until) << '|' << static_cast<int>(e.dedup_mode) << '|' << e.attempt << '|'
      << e.retry_delay.count() << '|' << e.crashes << '|' << e.redrives << '|' << e.heads_key << '|';
  for (const spi::Failure& failure : e.history) {
    out << to_us(failure.at) << '|' << failure.attempt << '|';
    text(failure.error_type);
    text(failure.error_message);
  }
  out << "history|" << e.first_failed_at.has_value() << '|' << to_us(e.first_failed_at.value_or(TimePoint{}));
  return out.str();
}

// Any value in any field, with fields at their defaults often enough.
inline spi::Envelope any_envelope() {
  const auto coin = [] { return *rc::gen::arbitrary<bool>(); };
  const auto any_text = [&] { return coin() ? std::string() : *rc::gen::arbitrary<std::string>(); };
  const auto any_number = [] {
    return *rc::gen::oneOf(rc::gen::arbitrary<std::uint32_t>(),
                           rc::gen::element<std::uint32_t>(0, 1, 127, 128, UINT32_MAX));
  };
  const auto any_time = [] {
    return *rc::gen::oneOf(rc::gen::arbitrary<std::int64_t>(),
                           rc::gen::element<std::int64_t>(0, -1, INT64_MAX, INT64_MIN));
  };
  spi::Envelope envelope;
  for (auto& byte : envelope.id.bytes)
    byte = *rc::gen::arbitrary<std::uint8_t>();
  envelope.topic = any_text();
  envelope.partition = any_number();
  if (coin()) envelope.key = any_text();
  envelope.group = any_text();
  envelope.payload = any_text();
  if (coin()) envelope.priority = *rc::gen::arbitrary<std::uint8_t>();
  envelope.published_at = from_us(any_time());
  if (coin()) envelope.expires_at = from_us(any_time());
  if (coin()) {
    envelope.attempt = any_number();
    envelope.crashes = any_number();
    envelope.redrives = any_number();
  }
  envelope.heads_key = coin();
  if (coin()) return envelope;
  envelope.headers = *rc::gen::arbitrary<Headers>();
  envelope.content_type = any_text();
  envelope.correlation_id = any_text();
  envelope.causation_id = any_text();
  envelope.traceparent = any_text();
  envelope.dedup_id = any_text();
  if (coin()) envelope.dedup_until = from_us(any_time());
  if (coin()) envelope.dedup_mode = DedupMode::kWhileUnfinished;
  if (coin()) envelope.retry_delay = Duration(any_time());
  if (coin()) envelope.first_failed_at = from_us(any_time());
  const int failure_count = *rc::gen::inRange(0, 4);
  for (int i = 0; i < failure_count; ++i) {
    envelope.history.push_back({from_us(any_time()), any_number(), any_text(), any_text()});
  }
  return envelope;
}

}  // namespace towline::codec
