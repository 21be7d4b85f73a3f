// Turning the threads of a captured process into deputies, and deputies back into its own threads. Home
// side, in the thread of the move; the process stands still and has the agent in it.
#pragma once

#include <vector>

#include "deputy/capture.h"

namespace mosix {

/// Where a deputy connects to, and what it shows there.
struct DeputyPeer {
  uint32_t address = 0;  ///< network order
  uint16_t port = 0;     ///< network order
  uint8_t token[16] = {};
  uint32_t epoch = 0;
};

/// Makes the kernel forget every address of the guest that it would write to (restartable sequences, robust
/// list, tid address, alternate stack: all of it memory that will be stale) and puts the agent's handler
/// where the guest has handlers.
Status quiet_process(StoppedProcess& process, const ProcessMemory& memory, const ProcessState& state);

/// Fresh slots for a first move; after this each thread begins as a deputy when it is let go.
Status prepare_deputies(StoppedProcess& process, const ProcessMemory& memory, const ProcessState& state,
                        const DeputyPeer& peer);

/// For deputies that are to leave one node for another: the peers they have now, in the order of the threads.
Result<std::vector<DeputyPeer>> peers_of(StoppedProcess& process, const ProcessMemory& memory,
                                         uint64_t window);
/// Ends their channels and sets them to connect to `peers` (one for each thread) when they are let go.
Status redirect_deputies(StoppedProcess& process, const ProcessMemory& memory, uint64_t window,
                         const std::vector<DeputyPeer>& peers);

/// The reverse of all: actions, alternate stacks, robust lists, tid addresses, restartable sequences as
/// `state` says; signals that deputies took and the guest has not been given wait in the kernel again; the
/// agent and its window are gone; registers are those given. The threads still stand.
Status make_native(StoppedProcess& process, const ProcessMemory& memory, uint64_t syscall_site,
                   const ProcessState& state, const std::vector<user_regs_struct>& registers);

/// While the threads have only answered questions yet: the agent goes, the registers come back.
Status take_agent_out(StoppedProcess& process, const ProcessMemory& memory, uint64_t syscall_site,
                      const Capture& capture);

/// CALL, CLONE and EXIT frames that deputies have accepted since they connected. 0: nothing has happened.
Result<uint64_t> calls_accepted(int pid, uint64_t window);

}  // namespace mosix
