#pragma once
// `towline_demo --self-test`: does the verdict see what it must see? Breaches are planted, one at a time,
// into the evidence of a clean run, and each must be named with the right order; the reader of orders gets
// lines it must refuse.

namespace towline::demo {

/// Prints one line per case. Returns 0 when every breach was named, 1 otherwise.
int run_self_test();

}  // namespace towline::demo
