// Getting a deputy out of a call that its guest thread no longer wants: a signal is to be delivered away, or
// the guest is being frozen. By ptrace alone; no signal number is taken from the program.
//
// The interrupt makes home's kernel leave the call with a restart code. That code goes to the away side
// instead of being acted upon here: its kernel then does what a native thread would have done, once it has
// run the handler. A deputy that has not yet entered the call, or stands on its `syscall` instruction
// because of a restart, is led to the agent's abort label.
#pragma once

#include "deputy/record.h"
#include "libmosix/common/messages.h"

namespace mosix {

/// In a thread that may end afterwards: a thread that does not stop (the middle of a vfork) can only be let
/// go that way. Success too if the call had ended by itself.
Status abort_call(ProcessRecord& record, const AbortOrder& order);

}  // namespace mosix
