#pragma once
// One name for failures that have one cause, so that 40,000 dead letters are listed as three problems. The
// fingerprint is XXH3_64 of the error type and, where there is a stack, its innermost five frames, else the
// message; with everything taken out that differs from one occurrence to the next: numbers, addresses, UUIDs,
// long hex, quoted strings, folders of files.
//
//     "order 8123 of 'anna' at 0x7f12 not found"   ->   "order # of # at # not found"
//
// Stacks are understood in the forms of Python (innermost last), JavaScript and gdb-like traces (innermost
// first); of others the first lines count. Stable over time and machines: it is stored and compared between
// versions.

#include <string>
#include <string_view>

#include <towline/types.hpp>

namespace towline::policy {

/// 16 lower-case hex digits. Looks at no more than the first 4 KiB of the message and the last 64 KiB of the
/// stack.
[[nodiscard]] std::string fingerprint(const ErrorInfo& error);

/// The message with its changing parts as '#' and its blanks as single spaces. What fingerprint() hashes;
/// shown by tools.
[[nodiscard]] std::string normalize_message(std::string_view message);

}  // namespace towline::policy
