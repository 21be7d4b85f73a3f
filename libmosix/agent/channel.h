// The deputy thread's end of its channel: a TCP connection that is in no descriptor table (io_uring ring
// without a descriptor, direct socket), or, where the kernel lacks that, the nearest thing to it.
#pragma once

#include <stddef.h>

#include "libmosix/agent/agent.h"

namespace mosix {

/// Connects the slot's channel to slot->peer; picks the best RingMode from slot->ring_mode on. 0 or -errno.
int64_t channel_connect(AgentSlot* slot);

enum class SendWait {
  kNo,  ///< small ones leave at the latest with the next channel_receive, and must stay as they are until then
  kYes,  ///< all of it is in the socket's buffer on return: for whatever follows another part of its frame
};

/// Sends one contiguous message or part of one; large ones are waited for. 0 or -errno, of which the next
/// channel_receive tells too.
int64_t channel_send(AgentSlot* slot, const void* data, size_t bytes, SendWait wait = SendWait::kNo);

/// Hands over what channel_send has queued: its bytes may be overwritten then (a small send is complete once it
/// is submitted).
void channel_submit(AgentSlot* slot);

/// At least one byte into the buffer, waiting as long as it takes; while waiting, tells the away side of
/// signals that arrive. Bytes, 0 at the end of the connection, or -errno.
int64_t channel_receive(AgentSlot* slot, void* data, size_t bytes);

/// Shuts the connection at once (the kernel's own close comes tens of milliseconds after exit or exec) and
/// gives ring and socket back.
void channel_close(AgentSlot* slot);

/// Puts the call that closes the connection into slot->enter_number and enter_args, for agent_exit to make; the
/// ring goes with the thread.
void channel_prepare_last_close(AgentSlot* slot);

}  // namespace mosix
