// A stopped process as a value: registers and kernel state of its threads, its actions, its mappings. Home
// side, in the thread that traces the process.
//
// Registers are carried raw: a thread that was interrupted inside a system call has its number in orig_rax
// and the kernel's restart code in rax, and whoever gives them back while the thread is in an interrupt stop
// has its kernel make the restart (or the EINTR) as if nothing had happened. What cannot be carried that way
// is mended by mend_interrupted_call.
#pragma once

#include <map>
#include <vector>

#include "deputy/batch.h"
#include "deputy/resumed_call.h"
#include "libmosix/common/messages.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

struct Capture {
  ProcessState state;
  std::vector<user_regs_struct>
      home_registers;                  ///< as they must be to go on here; in the order of state.threads
  std::vector<bool> whole_areas;       ///< all readable pages travel: file contents nobody else can know
  std::map<SharedKey, FileKey> bound;  ///< files whose contents go along, as Area::file names them
};

/// Before the agent is in: what ptrace alone can tell. Threads get the slots 0, 1, ... in order.
/// `calls`: those that the process may be in since it came home.
Status capture_threads(StoppedProcess& process, const ProcessMemory& memory, const CallsSinceHome& calls,
                       Capture& capture);
/// With the agent in: what only a thread itself can ask for. Leaves each thread with its home registers.
Status capture_kernel_state(StoppedProcess& process, const ProcessMemory& memory, uint64_t window,
                            Capture& capture);
/// Mappings, command line ranges, limits, clocks.
Status capture_process(const ProcessMemory& memory, const std::vector<MapEntry>& maps, uint64_t window,
                       Capture& capture);

/// The program must not see that its call was interrupted by us: EINTR that no handler caused becomes a restart.
/// `block_call` has a restart block in home's kernel: a sleep goes on with it, on the way out and on the way back; any
/// other is restarted as a whole, as is (0) one whose block another kernel had.
void mend_interrupted_call(user_regs_struct& registers, uint64_t block_call);
/// Where an interrupted sleep tells what is left of it; 0: nowhere, or no sleep.
uint64_t rest_address(uint64_t number, const user_regs_struct& registers);

user_regs_struct registers_of(const ThreadState& thread);
Bytes bytes_of(const user_regs_struct& registers);

}  // namespace mosix
