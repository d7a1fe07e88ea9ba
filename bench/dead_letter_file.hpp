#pragma once
// Makes dead letters, for the scenarios that need many.

#include <cstddef>

#include <towline/towline.hpp>

namespace towline::bench {

/// Publishes `count` messages to `topic_count` topics and fails each for good. Returns how many a second.
double make_dead_letters(Engine& engine, std::size_t count, int topic_count);

}  // namespace towline::bench
