// The agent's place in a process: the window, its slots, and the entry points of the image. Shared by the
// agent itself (freestanding), the custodian and the supervisor, which look at slots from outside.
//
// The window is 64 GiB of address space, aligned to its size, mapped only where used: the code, then one
// slot for each thread. A slot is found from the stack pointer alone (slots are aligned to their size and the
// agent only ever runs on the stack inside its slot), so the agent needs no thread-local storage of the
// guest's libc and no register of its own.
#pragma once

#include <stdint.h>

#include "libmosix/common/frame.h"

namespace mosix {

inline constexpr uint64_t kWindowBytes = 64ull << 30;
inline constexpr uint64_t kAgentCodeBytes = 64 << 10;
inline constexpr uint64_t kSlotsOffset = 1ull << 20;
inline constexpr uint64_t kSlotBytes = 512 << 10;
inline constexpr int kSlotCount = 1024;

// Inside a slot.
inline constexpr uint64_t kSlotSqes = 0x1000;     ///< one page: submission queue entries
inline constexpr uint64_t kSlotRings = 0x2000;    ///< one page: submission and completion ring
inline constexpr uint64_t kSlotSignals = 0x3000;  ///< one page: kSignalQueue records of 128 bytes
/// One page: from where the kernel takes the buffer for the next frame (io_uring's buffer ring, of one entry).
inline constexpr uint64_t kSlotBufferRing = 0x4000;
/// 236 KiB. A thread that goes on after a while with many signals waiting gets the frames of all their handlers at
/// once, one upon the other, before the first of them runs: 62 signals, 3.6 KiB each with AVX-512. Untouched pages
/// cost nothing.
inline constexpr uint64_t kSlotStack = 0x5000;
inline constexpr uint64_t kSlotStackTop = 0x40000;
inline constexpr uint64_t kSlotReply = 0x40000;   ///< 16 KiB: head of the reply that is being sent
inline constexpr uint64_t kSlotBuffer = 0x44000;  ///< frames are received here
inline constexpr uint64_t kSlotBufferBytes = 0x20000;
inline constexpr uint64_t kSlotMappedBytes = kSlotBuffer + kSlotBufferBytes;
static_assert(kSlotMappedBytes <= kSlotBytes);

/// Calls that carry more than a slot's buffer: an area of its own for each slot, mapped for that call.
inline constexpr uint64_t kLargeAreasOffset = 4ull << 30;
inline constexpr uint64_t kLargeAreaBytes = 48ull << 20;

/// Direct calls of a guest (direct.cc). Which of its threads may make them, and where each has its area: by tid.
inline constexpr uint64_t kDirectDirectory = 640ull << 20;
/// Index: tid modulo that; of two that meet, one goes without
inline constexpr uint32_t kDirectEntries = 1024;
struct DirectEntry {
  uint32_t tid;
  uint32_t slot;
};
/// Behind them one word: while only one thread runs in this memory, the slot of that thread + 1. It need not ask who it
/// is then. 0: by tid.
inline constexpr uint64_t kDirectSole = kDirectDirectory + kDirectEntries * sizeof(DirectEntry);
inline constexpr uint64_t kDirectDirectoryBytes = kDirectSole + 4096 - kDirectDirectory;

/// An area for each slot: one page that the supervisor sees too (DirectHead, frames), then the stack.
inline constexpr uint64_t kDirectAreas = 768ull << 20;
inline constexpr uint64_t kDirectAreaStride = 64 << 10;
inline constexpr uint64_t kDirectAreaBytes = 0x3000;
inline constexpr uint64_t kDirectFrame = 0x100;  ///< the CALL frame
inline constexpr uint64_t kDirectInbox = 0x200;  ///< what comes back
inline constexpr uint64_t kDirectInboxBytes = 0x1000 - kDirectInbox;

/// The agent's calls on a channel name this above the channel's number, where the kernel does not look and the filter
/// does: no call of the program's is taken for one of them.
inline constexpr uint64_t kDirectMark = 0x6d6f7378ull << 32;

enum DirectState : uint32_t {
  kDirectInCall = 1,  ///< set and cleared by the guest: it has the channel
  kDirectBusy = 2,    ///< the worker of the thread's last trapped call has not let go of the channel yet
  kDirectClosed = 4,  ///< the supervisor has the channel, or wants no direct calls
  kDirectWanted = 8,  ///< somebody waits (by futex, on `state`) for the end of kDirectInCall
};

/// Read and written by guest and supervisor, which trusts nothing in it. The first two and `numbers` are known to the
/// assembly by offset.
struct DirectHead {
  uint32_t state;        // 0: DirectState bits
  uint32_t handed_over;  // 4: the reply to `sequence` is the supervisor's to wait for; the thread traps next
  uint32_t sequence;
  uint32_t signals_acked;
  uint32_t calls;       ///< begun
  uint32_t received;    ///< bytes in the inbox when it was handed over
  uint64_t numbers[8];  // 24: bit set of the calls that may go directly: those that carry nothing but numbers
  uint32_t channel;     ///< its number in the guest's own table
};
static_assert(sizeof(DirectHead) <= kDirectFrame);
/// Sequences of direct calls; a supervisor's begin at 1 and never come that far.
inline constexpr uint32_t kDirectSequences = 0x80000000u;

/// Rings of kernels before 6.5 are memory of the kernel, and mapped where it likes: an address of the caller's own is
/// refused (since 6.1.41 also by older kernels' updates). It can be led, though: with MAP_32BIT it takes the lowest
/// free place from somewhere in [kRingFill, kRingPlaces) on, so with that filled, one of kRingPlaces. No such mapping
/// of the guest's can be there while it is away: the range is reserved on the away node too.
inline constexpr uint64_t kRingFill = 0x40000000;
inline constexpr uint64_t kRingPlaces = 0x42000000;
inline constexpr uint64_t kRingEnd = kRingPlaces + kSlotCount * 2 * 4096;  ///< two pages for each thread

/// Behind the code: what holds for the whole window. A child of the process gets it with its copy of the memory.
struct WindowNote {
  uint64_t has_ring_places;  ///< 1: [kRingFill, kRingEnd) is ours in this process
};
inline constexpr uint64_t kWindowNoteOffset = kAgentCodeBytes - sizeof(WindowNote);

inline constexpr uint32_t kSignalQueue = 32;
static_assert(kSignalQueue <= kMaxSignalsPerReply);  // what one call lets through comes with its reply

enum class AgentState : uint32_t {
  kStarting = 0,
  kIdle = 1,     ///< waiting for a frame
  kWorking = 2,  ///< carrying out a call
  kFailed = 3,   ///< could not connect; `error` says why; waits for the custodian
  kLost = 4,     ///< the connection ended unasked; waits for the custodian, then ends the process
  kEnded = 5,    ///< teardown is complete
};

enum class RingMode : uint32_t {
  kWithoutDescriptor = 0,  ///< Linux 6.5: NO_MMAP, REGISTERED_FD_ONLY
  kRegistered = 1,   ///< Linux 5.18: a descriptor for some microseconds, and kRingPlaces for its mappings
  kPlainSocket = 2,  ///< no io_uring: a high descriptor, close-on-exec
};

/// Head of a slot. The first fields are known to the assembly stubs by offset.
struct AgentSlot {
  uint32_t abort_sequence;    // 0: set from outside: the call with this sequence must not go on
  uint32_t current_sequence;  // 4
  uint32_t signals_taken;     // 8: number of the last signal that the handler took in this thread
  uint32_t signals_acked;     // 12: number of the last one that the guest thread has been given
  uint32_t signals_sent;      // 16: number of the last one that was sent to the away side
  uint32_t verdict;           // 20: Verdict of the call
  uint64_t call_number;       // 24
  uint64_t call_args[6];      // 32
  uint64_t enter_number;      // 80
  uint64_t enter_args[6];     // 88

  uint64_t window;
  uint32_t index;         ///< of this slot
  uint32_t peer_address;  ///< IPv4, network order
  uint16_t peer_port;     ///< network order
  uint16_t reserved0;
  uint32_t epoch;
  uint8_t token[16];
  uint32_t ring_mode;  ///< RingMode asked for; changed to what was possible
  int32_t error;       ///< errno of the last failure
  uint32_t state;      ///< AgentState
  /// CALL, CLONE, EXIT frames accepted on this connection; 0 means nothing has happened
  uint32_t calls_accepted;
  int32_t socket;          ///< kPlainSocket: the descriptor
  uint32_t full_mask_set;  ///< the signal queue was full: everything is blocked, saved_mask is the true one
  uint64_t saved_mask;
  uint32_t ring_index;
  uint32_t ring_ready;
  uint32_t sq_mask, cq_mask;
  uint64_t sq_head, sq_tail, sq_array, cq_head, cq_tail, cqes;  ///< addresses inside the ring page
  uint64_t ring_page, sqes_page;
  uint32_t has_buffer_ring;
  uint32_t frames_pending;  ///< a receive is under way that goes on from frame to frame
  uint32_t buffer_given;    ///< ... and has a buffer
  uint32_t receive_pending;
  uint32_t send_failed;
  int32_t receive_result;
  uint32_t receive_done;
  uint32_t tid;
  uint32_t pid;
  uint32_t answered;     ///< sequence of the last frame that was carried out
  uint32_t traps_first;  ///< 1: traps to its tracer, once, when the guest may begin or there is no channel
};

/// One call of a batch run by agent_entry_batch: executed in order, all of them.
struct BatchCall {
  uint64_t number;
  uint64_t args[6];
  int64_t result;
};
inline constexpr uint32_t kMaxBatchCalls = kSlotBufferBytes / sizeof(BatchCall) / 2;

inline constexpr uint64_t slot_address(uint64_t window, int slot) {
  return window + kSlotsOffset + static_cast<uint64_t>(slot) * kSlotBytes;
}
inline constexpr uint64_t large_area_address(uint64_t window, int slot) {
  return window + kLargeAreasOffset + static_cast<uint64_t>(slot) * kLargeAreaBytes;
}
static_assert(kSlotsOffset + kSlotCount * kSlotBytes <= kDirectDirectory);
static_assert(kDirectDirectory + kDirectDirectoryBytes <= kDirectAreas);
static_assert(kDirectAreas + kSlotCount * kDirectAreaStride <= kLargeAreasOffset);
static_assert(kLargeAreasOffset + kSlotCount * kLargeAreaBytes <= kWindowBytes);
static_assert(kMaxScratchBytes + (1 << 20) <= kLargeAreaBytes);

}  // namespace mosix
