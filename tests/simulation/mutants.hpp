#pragma once
// Mutants: known wrong designs, as decorators that sit above or below the faults. A simulator that lets one
// of them live is blind, and then its silence about the engine says nothing. No product code knows of them.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include <towline/spi/driver.hpp>

#include "simulation/faults.hpp"

namespace towline::simulation {

enum class Mutant : std::uint8_t { kNone };

struct MutantState {};

}  // namespace towline::simulation
