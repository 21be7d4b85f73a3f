// The part of the guest's filter that judges memory calls, and the agent's on its channels, by their arguments. Private to filter.cc.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

namespace mosix {

/// Whether a call is one that memory_rules() decides.
bool is_memory_call(int number);

/// A program that allows the agent's calls on its channels, allows or notifies memory calls, and runs into what follows it for all others. The window's
/// bounds are multiples of 4 GiB, and it does not begin at 0.
std::vector<sock_filter> memory_rules(uint64_t window_begin, uint64_t window_end, bool judge_low_addresses);

}  // namespace mosix
