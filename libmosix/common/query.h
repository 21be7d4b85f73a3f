// System call numbers that Linux does not have (ENOSYS), and a supervisor answers: how a program learns that it is away.
#pragma once

namespace mosix {

/// 1: this process is away from home, and ours already. Asked by libmosix.so and mosrun at their start.
inline constexpr long kQueryAway = 0x0d4f5358;
/// The address of agent_direct (libmosix/agent/stubs.S), by which this thread may call home without a trap from now on; a
/// move ends that, and the address holds nothing at home. ENOSYS: it may not (at home, switched off, or timers of CPU time
/// run).
inline constexpr long kQueryDirect = 0x0d4f5359;

}  // namespace mosix
