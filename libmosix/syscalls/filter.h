// The seccomp filter under which every guest runs on an away node, computed from the table: what the table
// names *here* passes, everything else stops at the supervisor's listener. Built in the supervisor with
// libseccomp and exported as BPF, because libseccomp 2.5.4 cannot install it with WAIT_KILLABLE_RECV; the
// agent installs it in the restored process, last of all (TSYNC, NEW_LISTENER).
//
// A filter sees numbers, not memory. So memory calls pass only where their numbers alone prove that they are
// private, anonymous and clear of the agent's window; the rest is notified and judged by the supervisor. The agent's own
// calls on channels pass by a mark that no program's call bears (agent.h, kDirectMark).
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

/// The program to install, in the kernel's own form. `window_base` and `window_bytes` are where the agent
/// lies, multiples of 4 GiB; no memory call that could touch it passes. The default action, that for foreign
/// architectures, for x32 numbers and for unknown numbers is USER_NOTIF.
/// `judge_low_addresses`: none passes below 4 GiB either, where home needs some of those (agent.h, kRingPlaces).
/// Errors: EINVAL for a crooked window, or what libseccomp said.
Result<std::vector<sock_filter>> build_guest_filter(uint64_t window_base, uint64_t window_bytes,
                                                    bool judge_low_addresses = false);

}  // namespace mosix
