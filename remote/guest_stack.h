// The stack of a guest thread that stands in a call, for `mostrace -k`. Supervisor only.
#pragma once

#include <string>
#include <vector>

namespace mosix {

/// Frames from the innermost outwards, "libc.so.6(read+0x14) [0x7f...]", at most 32. Unwound by libunwind from
/// the stack pointer and instruction pointer alone, for that is what can be had of a thread in a notification:
/// a frame whose caller is found through another register (rbp in unoptimised code) ends the list.
std::vector<std::string> guest_stack(int outer_tid);

}  // namespace mosix
