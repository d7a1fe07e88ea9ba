#pragma once
// The part of the verdict that is about sagas.

#include "verdict.hpp"

namespace towline::demo {

/// Judges every saga of the plan. Adds findings and figures to the verdict. `killed`: names of process lives.
void judge_sagas(const Evidence& evidence, const std::set<std::string>& killed, Verdict& verdict);

}  // namespace towline::demo
