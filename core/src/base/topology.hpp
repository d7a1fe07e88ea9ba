#pragma once
// Whether a topic that is declared once more is the topic that exists. Every driver that keeps topologies
// itself asks here, so that all of them name the same differences in the same words.

#include <towline/result.hpp>
#include <towline/spi/transport.hpp>

namespace towline::base {

/// kTopologyMismatch that lists each setting that differs, as it is and as it was asked for. A topic keeps
/// the settings that it was made with.
[[nodiscard]] Result<void> check_same_topology(const spi::Topology& existing, const spi::Topology& wanted);

}  // namespace towline::base
