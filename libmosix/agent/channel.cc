// Rings by hand: Debian's liburing archive needs libc, and its header lacks what makes a ring without a
// descriptor. Runs in deputy threads at home.
//
// DEFER_TASKRUN is a must: with any other ring, data arriving on the channel makes the program's own
// epoll_wait fail with EINTR. IOSQE_ASYNC and SQPOLL are never used: they would add a task to the program.
#include "libmosix/agent/channel.h"

#include <asm/unistd_64.h>
#include <linux/io_uring.h>

#include "libmosix/agent/deputy.h"
#include "libmosix/agent/raw.h"

extern "C" __attribute__((visibility("hidden"))) int64_t agent_enter(mosix::AgentSlot* slot);

namespace mosix {
namespace {

// Newer than Debian 12's headers.
constexpr uint32_t kSetupNoMmap = 1u << 14;
constexpr uint32_t kSetupRegisteredFdOnly = 1u << 15;
constexpr uint32_t kRegisterUseRegisteredRing = 1u << 31;
constexpr uint32_t kSocketSetsockopt = 3;

constexpr uint32_t kEntries = 8;
/// kTagSend: a send that nobody waits for; kTagFrames: the receive that goes on; kTagControl: what run_control() waits for.
constexpr uint64_t kTagSend = 1, kTagReceive = 2, kTagControl = 3, kTagFrames = 4;
constexpr size_t kInlineSendBytes = 8 << 10;  ///< always fits into an empty socket buffer: needs no wait
constexpr size_t kSendPieceBytes = 256 << 10;
constexpr int kENOENT = 2, kEINTR = 4, kEAGAIN = 11, kENOMEM = 12, kEBUSY = 16, kEINVAL = 22, kEPIPE = 32,
              kENOSYS = 38, kENOBUFS = 105;

constexpr int kAfInet = 2, kSockStream = 1, kSockCloexec = 02000000, kIpprotoTcp = 6, kTcpNodelay = 1;
constexpr int kMsgNosignal = 0x4000, kMsgWaitall = 0x100;
constexpr int kShutRdwr = 2;

struct InternetAddress {
  uint16_t family;
  uint16_t port;
  uint32_t address;
  uint8_t zero[8];
};

uint8_t* slot_bytes(AgentSlot* slot) { return reinterpret_cast<uint8_t*>(slot); }
uint32_t* at32(uint64_t address) { return reinterpret_cast<uint32_t*>(address); }

/// One completion of the receive that goes on. It ends when data comes while it has no buffer, the rest of a frame
/// that is larger than one; nothing is taken then.
void reap_frame(AgentSlot* slot, const io_uring_cqe& entry) {
  if ((entry.flags & IORING_CQE_F_MORE) == 0) slot->frames_pending = 0;
  if ((entry.flags & IORING_CQE_F_BUFFER) != 0) slot->buffer_given = 0;
  if (entry.res == -kENOBUFS) return;
  if (entry.res == -kEINVAL && slot->frames_pending == 0) {  // Linux before 6.0
    slot->has_buffer_ring = 0;
    return;
  }
  slot->receive_result = entry.res;
  slot->receive_done = 1;
}

/// Takes what the kernel has completed; remembers the results in the slot.
void reap(AgentSlot* slot, int64_t* control_result) {
  uint32_t head = *at32(slot->cq_head);
  uint32_t tail = load_acquire(at32(slot->cq_tail));
  for (; head != tail; ++head) {
    auto* entry = reinterpret_cast<io_uring_cqe*>(slot->cqes) + (head & slot->cq_mask);
    if (entry->user_data == kTagReceive) {
      slot->receive_result = entry->res;
      slot->receive_done = 1;
      slot->receive_pending = 0;
    } else if (entry->user_data == kTagFrames) {
      reap_frame(slot, *entry);
    } else if (entry->user_data == kTagSend) {
      if (entry->res < 0) slot->send_failed = static_cast<uint32_t>(-entry->res);
    } else if (control_result != nullptr) {
      *control_result = entry->res;
    }
  }
  store_release(at32(slot->cq_head), head);
}

io_uring_sqe* next_sqe(AgentSlot* slot) {
  uint32_t tail = *at32(slot->sq_tail);
  auto* sqe = reinterpret_cast<io_uring_sqe*>(slot->sqes_page) + (tail & slot->sq_mask);
  zero(sqe);
  return sqe;
}

void publish_sqe(AgentSlot* slot) { store_release(at32(slot->sq_tail), *at32(slot->sq_tail) + 1); }

uint32_t unsubmitted(AgentSlot* slot) { return *at32(slot->sq_tail) - load_acquire(at32(slot->sq_head)); }

/// Enters the kernel; `watch_signals` returns -EINTR when a signal waits to be sent, also if it came just now.
int64_t enter(AgentSlot* slot, uint32_t min_complete, bool watch_signals) {
  uint64_t flags = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;
  if (!watch_signals)
    return raw_syscall(__NR_io_uring_enter, slot->ring_index, unsubmitted(slot), min_complete, flags, 0, 8);
  slot->enter_number = __NR_io_uring_enter;
  slot->enter_args[0] = slot->ring_index;
  slot->enter_args[1] = unsubmitted(slot);
  slot->enter_args[2] = min_complete;
  slot->enter_args[3] = flags;
  slot->enter_args[4] = 0;
  slot->enter_args[5] = 8;
  return agent_enter(slot);
}

/// Submits the one queued operation and waits for its completion, whatever signals come. Its result.
int64_t run_control(AgentSlot* slot) {
  publish_sqe(slot);
  constexpr int64_t kNone = INT64_MIN;
  int64_t result = kNone;
  while (result == kNone) {
    int64_t entered = enter(slot, 1, false);
    reap(slot, &result);
    if (entered < 0 && entered != -kEINTR && entered != -kEAGAIN && entered != -kEBUSY && result == kNone)
      return entered;
  }
  return result;
}

void note_offsets(AgentSlot* slot, const io_uring_params& params, uint64_t ring, uint64_t sqes) {
  slot->ring_page = ring;
  slot->sqes_page = sqes;
  slot->sq_head = ring + params.sq_off.head;
  slot->sq_tail = ring + params.sq_off.tail;
  slot->sq_mask = *at32(ring + params.sq_off.ring_mask);
  slot->sq_array = ring + params.sq_off.array;
  slot->cq_head = ring + params.cq_off.head;
  slot->cq_tail = ring + params.cq_off.tail;
  slot->cq_mask = *at32(ring + params.cq_off.ring_mask);
  slot->cqes = ring + params.cq_off.cqes;
  for (uint32_t i = 0; i < params.sq_entries; ++i) at32(slot->sq_array)[i] = i;
}

constexpr uint32_t kCommonSetup = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

/// Fresh pages where rings go, in place of those of a former ring: the kernel takes a ring apart some time after
/// it has been given back, and what it cancels then it still writes into that ring's memory.
int64_t map_pages(AgentSlot* slot, uint64_t offset, uint64_t pages) {
  constexpr uint64_t kReadWrite = 3, kPrivateAnonymousFixed = 2 | 0x10 | 0x20;
  int64_t mapped = raw_syscall(__NR_mmap, address_of(slot_bytes(slot) + offset), pages * 4096, kReadWrite,
                               kPrivateAnonymousFixed, ~0ull, 0);
  return mapped < 0 ? mapped : 0;
}

/// Receives that go on from one frame to the next take their buffer from here. Without it each is made anew.
void open_buffer_ring(AgentSlot* slot, uint64_t ring, uint32_t registering) {
  slot->frames_pending = slot->buffer_given = 0;
  io_uring_buf_reg order;
  zero(&order);
  order.ring_addr = address_of(slot_bytes(slot) + kSlotBufferRing);
  order.ring_entries = 1;
  bool registered = map_pages(slot, kSlotBufferRing, 1) == 0 &&
                    raw_syscall(__NR_io_uring_register, ring, IORING_REGISTER_PBUF_RING | registering,
                                address_of(&order), 1) == 0;
  slot->has_buffer_ring = registered ? 1 : 0;
}

/// The slot's buffer, for one frame.
void give_buffer(AgentSlot* slot) {
  auto* ring = reinterpret_cast<io_uring_buf_ring*>(slot_bytes(slot) + kSlotBufferRing);
  auto* buffer = reinterpret_cast<io_uring_buf*>(ring);
  buffer->addr = address_of(slot_bytes(slot) + kSlotBuffer);
  buffer->len = kSlotBufferBytes;
  buffer->bid = 0;
  __atomic_store_n(&ring->tail, static_cast<uint16_t>(ring->tail + 1), __ATOMIC_RELEASE);
  slot->buffer_given = 1;
}

/// Linux 6.5: the ring's memory is ours, and the ring is in the task's table of registered rings only.
int64_t open_ring_without_descriptor(AgentSlot* slot) {
  if (int64_t error = map_pages(slot, kSlotSqes, 2); error < 0) return error;
  io_uring_params params;
  zero(&params);
  params.flags = kCommonSetup | kSetupNoMmap | kSetupRegisteredFdOnly;
  uint64_t ring = address_of(slot_bytes(slot) + kSlotRings);
  params.cq_off.resv2 = ring;
  params.sq_off.resv2 = address_of(slot_bytes(slot) + kSlotSqes);
  int64_t index = raw_syscall(__NR_io_uring_setup, kEntries, address_of(&params));
  if (index < 0) return index;
  slot->ring_index = static_cast<uint32_t>(index);
  note_offsets(slot, params, ring, params.sq_off.resv2);
  open_buffer_ring(slot, slot->ring_index, kRegisterUseRegisteredRing);
  int32_t files[1] = {-1};
  return raw_syscall(__NR_io_uring_register, static_cast<uint64_t>(index),
                     IORING_REGISTER_FILES | kRegisterUseRegisteredRing, address_of(files), 1);
}

void unmap_page(uint64_t page) { raw_syscall(__NR_munmap, page, 4096); }

/// One page of a ring, at one of kRingPlaces (agent.h); its address, or -errno. A forked child must not inherit it:
/// it would hold the connection open.
int64_t map_ring_page(AgentSlot* slot, int64_t fd, uint64_t offset) {
  constexpr uint64_t kReadWrite = 3, kSharedPopulateLow = 1 | 0x8000 | 0x40 /* 32BIT */, kDontFork = 10;
  auto* note = reinterpret_cast<const WindowNote*>(slot->window + kWindowNoteOffset);
  if (note->has_ring_places == 0) return -kENOSYS;
  int64_t mapped =
      raw_syscall(__NR_mmap, 0, 4096, kReadWrite, kSharedPopulateLow, static_cast<uint64_t>(fd), offset);
  if (mapped < 0) return mapped;
  auto page = static_cast<uint64_t>(mapped);
  if (page < kRingPlaces || page >= kRingEnd) {
    unmap_page(page);
    return -kENOMEM;
  }
  raw_syscall(__NR_madvise, page, 4096, kDontFork);
  return mapped;
}

/// Linux 5.18 to 6.4: a descriptor exists for some microseconds.
int64_t open_registered_ring(AgentSlot* slot) {
  io_uring_params params;
  zero(&params);
  params.flags = kCommonSetup;
  int64_t fd = raw_syscall(__NR_io_uring_setup, kEntries, address_of(&params));
  if (fd < 0) return fd;
  int64_t ring = map_ring_page(slot, fd, IORING_OFF_SQ_RING);
  int64_t sqes = ring < 0 ? ring : map_ring_page(slot, fd, IORING_OFF_SQES);
  int64_t error = sqes < 0 ? sqes : 0;
  if (error == 0) {
    int32_t files[1] = {-1};
    error = raw_syscall(__NR_io_uring_register, static_cast<uint64_t>(fd), IORING_REGISTER_FILES,
                        address_of(files), 1);
  }
  if (error == 0) {
    io_uring_rsrc_update update;
    zero(&update);
    update.offset = ~0u;
    update.data = static_cast<uint64_t>(fd);
    error = raw_syscall(__NR_io_uring_register, static_cast<uint64_t>(fd), IORING_REGISTER_RING_FDS,
                        address_of(&update), 1);
    if (error == 1) {
      slot->ring_index = update.offset;
      open_buffer_ring(slot, static_cast<uint64_t>(fd), 0);
      note_offsets(slot, params, static_cast<uint64_t>(ring), static_cast<uint64_t>(sqes));
      error = 0;
    }
  }
  raw_syscall(__NR_close, static_cast<uint64_t>(fd));
  if (error == 0) return 0;
  if (ring > 0) unmap_page(static_cast<uint64_t>(ring));
  if (sqes > 0) unmap_page(static_cast<uint64_t>(sqes));
  return error;
}

int64_t connect_in_ring(AgentSlot* slot, const InternetAddress& peer) {
  io_uring_sqe* sqe = next_sqe(slot);
  sqe->opcode = 45;  // IORING_OP_SOCKET: domain, type, protocol; file_index is the slot of the file table + 1
  sqe->fd = kAfInet;
  sqe->off = kSockStream;
  sqe->len = 0;
  sqe->file_index = 1;
  sqe->user_data = kTagControl;
  int64_t result = run_control(slot);
  if (result < 0) return result;

  sqe = next_sqe(slot);
  sqe->opcode = IORING_OP_CONNECT;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = 0;
  sqe->addr = address_of(&peer);
  sqe->off = sizeof peer;
  sqe->user_data = kTagControl;
  result = run_control(slot);
  if (result < 0) return result;

  // Linux 6.7; without it nothing is lost, for requests and replies that go out in one send never meet
  // Nagle's delay.
  int one = 1;
  sqe = next_sqe(slot);
  sqe->opcode = 46;  // IORING_OP_URING_CMD
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = 0;
  sqe->off = kSocketSetsockopt;
  sqe->addr = static_cast<uint64_t>(kIpprotoTcp) | static_cast<uint64_t>(kTcpNodelay) << 32;
  sqe->file_index = sizeof one;                                                           // optlen
  *reinterpret_cast<uint64_t*>(reinterpret_cast<uint8_t*>(sqe) + 48) = address_of(&one);  // optval
  sqe->user_data = kTagControl;
  run_control(slot);
  return 0;
}

/// No io_uring: a descriptor as high as the limit allows, close-on-exec.
int64_t connect_plain(AgentSlot* slot, const InternetAddress& peer) {
  int64_t fd = raw_syscall(__NR_socket, kAfInet, kSockStream | kSockCloexec, 0);
  if (fd < 0) return fd;
  uint64_t limit[2];
  if (raw_syscall(__NR_getrlimit, 7, address_of(limit)) == 0 && limit[0] > 3) {
    constexpr uint64_t kDupCloexec = 1030;
    uint64_t lowest = limit[0] > 4096 + 1024 ? 4096 : limit[0] / 2;
    int64_t high = raw_syscall(__NR_fcntl, static_cast<uint64_t>(fd), kDupCloexec, lowest);
    if (high >= 0) {
      raw_syscall(__NR_close, static_cast<uint64_t>(fd));
      fd = high;
    }
  }
  int64_t result;
  do result = raw_syscall(__NR_connect, static_cast<uint64_t>(fd), address_of(&peer), sizeof peer);
  while (result == -kEINTR);
  if (result < 0) {
    raw_syscall(__NR_close, static_cast<uint64_t>(fd));
    return result;
  }
  int one = 1;
  raw_syscall(__NR_setsockopt, static_cast<uint64_t>(fd), kIpprotoTcp, kTcpNodelay, address_of(&one),
              sizeof one);
  slot->socket = static_cast<int32_t>(fd);
  return 0;
}

bool mode_is(const AgentSlot* slot, RingMode mode) { return slot->ring_mode == static_cast<uint32_t>(mode); }

/// Some time after a ring has been closed, a worker of the kernel has its task take note (io_tctx_exit_cb) in the way
/// of a signal: a call that the thread is in by then would end with EINTR, and nobody has sent it anything. So the
/// thread waits for it here, in a call that tells. It is some milliseconds, for the kernel lets an RCU grace period pass
/// first; on a machine with more to do than processors 20 of them, or more.
void outlive_ring(AgentSlot* slot) {
  constexpr int64_t kLimitNs = 100'000'000;
  int64_t limit[2] = {0, kLimitNs};
  uint64_t no_signal = 0;
  uint32_t taken;
  int64_t ended;
  do {
    taken = load_acquire(&slot->signals_taken);
    ended = raw_syscall(__NR_rt_sigtimedwait, address_of(&no_signal), 0, address_of(limit), sizeof no_signal);
  } while (ended == -kEINTR && taken != load_acquire(&slot->signals_taken));
}

void close_ring(AgentSlot* slot) {
  slot->ring_ready = 0;
  io_uring_rsrc_update update;
  zero(&update);
  update.offset = slot->ring_index;
  if (mode_is(slot, RingMode::kWithoutDescriptor)) {
    raw_syscall(__NR_io_uring_register, slot->ring_index,
                IORING_UNREGISTER_RING_FDS | kRegisterUseRegisteredRing, address_of(&update), 1);
    return;
  }
  // Before 6.3 a register call needs a descriptor: another ring's serves.
  io_uring_params params;
  zero(&params);
  int64_t helper = raw_syscall(__NR_io_uring_setup, 1, address_of(&params));
  if (helper >= 0) {
    raw_syscall(__NR_io_uring_register, static_cast<uint64_t>(helper), IORING_UNREGISTER_RING_FDS,
                address_of(&update), 1);
    raw_syscall(__NR_close, static_cast<uint64_t>(helper));
  }
  unmap_page(slot->ring_page);
  unmap_page(slot->sqes_page);
}

void drop_ring(AgentSlot* slot) {
  if (slot->ring_ready == 0) return;
  close_ring(slot);
  outlive_ring(slot);
}

int64_t receive_plain(AgentSlot* slot, void* data, size_t bytes) {
  for (;;) {
    if (slot->send_failed != 0) return -static_cast<int64_t>(slot->send_failed);
    slot->enter_number = __NR_recvfrom;
    slot->enter_args[0] = static_cast<uint64_t>(slot->socket);
    slot->enter_args[1] = address_of(data);
    slot->enter_args[2] = bytes;
    slot->enter_args[3] = slot->enter_args[4] = slot->enter_args[5] = 0;
    int64_t got = agent_enter(slot);
    if (got != -kEINTR) return got;
    send_waiting_signals(slot);
  }
}

void queue_send(AgentSlot* slot, const uint8_t* data, size_t bytes, uint64_t tag) {
  io_uring_sqe* sqe = next_sqe(slot);
  sqe->opcode = IORING_OP_SEND;
  sqe->flags = IOSQE_FIXED_FILE | (tag == kTagSend ? IOSQE_CQE_SKIP_SUCCESS : 0);
  sqe->fd = 0;
  sqe->addr = address_of(data);
  sqe->len = static_cast<uint32_t>(bytes);
  sqe->msg_flags = kMsgNosignal | kMsgWaitall;
  sqe->user_data = tag;
}

/// The next receive tells of it: whoever sends has nothing better to do than to wait for the next frame.
int64_t note_send_failure(AgentSlot* slot, int64_t result) {
  slot->send_failed = static_cast<uint32_t>(-result);
  return result;
}

}  // namespace

int64_t channel_connect(AgentSlot* slot) {
  InternetAddress peer;
  zero(&peer);
  peer.family = kAfInet;
  peer.port = slot->peer_port;
  peer.address = slot->peer_address;
  slot->receive_pending = slot->receive_done = slot->send_failed = 0;
  slot->socket = -1;

  int64_t error = -kENOSYS;
  if (mode_is(slot, RingMode::kWithoutDescriptor)) {
    error = open_ring_without_descriptor(slot);
    if (error < 0) slot->ring_mode = static_cast<uint32_t>(RingMode::kRegistered);
  }
  if (mode_is(slot, RingMode::kRegistered)) {
    error = open_registered_ring(slot);
    if (error < 0) slot->ring_mode = static_cast<uint32_t>(RingMode::kPlainSocket);
  }
  if (mode_is(slot, RingMode::kPlainSocket)) return connect_plain(slot, peer);
  slot->ring_ready = 1;
  error = connect_in_ring(slot, peer);
  if (error < 0) drop_ring(slot);
  return error;
}

int64_t channel_send(AgentSlot* slot, const void* data, size_t bytes, SendWait wait) {
  auto* at = static_cast<const uint8_t*>(data);
  if (mode_is(slot, RingMode::kPlainSocket)) {
    while (bytes > 0) {
      int64_t sent = raw_syscall(__NR_sendto, static_cast<uint64_t>(slot->socket), address_of(at), bytes,
                                 kMsgNosignal, 0, 0);
      if (sent == -kEINTR) continue;
      if (sent < 0) return note_send_failure(slot, sent);
      at += sent;
      bytes -= static_cast<size_t>(sent);
    }
    return 0;
  }
  if (wait == SendWait::kNo && bytes <= kInlineSendBytes) {
    queue_send(slot, at, bytes, kTagSend);
    publish_sqe(slot);
    return 0;
  }
  // In pieces: a send that has to wait for room very many times is given to a worker of the kernel, a task that
  // the program would then have, and whose send is cut short when a tracer or a signal interrupts us.
  while (bytes > 0) {
    queue_send(slot, at, bytes < kSendPieceBytes ? bytes : kSendPieceBytes, kTagControl);
    int64_t sent = run_control(slot);
    if (sent == -kEINTR || sent == -kEAGAIN) continue;
    if (sent <= 0) return note_send_failure(slot, sent == 0 ? -kEPIPE : sent);
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return 0;
}

void channel_submit(AgentSlot* slot) {
  if (mode_is(slot, RingMode::kPlainSocket)) return;
  while (unsubmitted(slot) != 0) {
    int64_t entered = enter(slot, 0, false);
    if (entered < 0 && entered != -kEINTR && entered != -kEAGAIN && entered != -kEBUSY) return;
  }
  reap(slot, nullptr);
}

namespace {

/// Frames are made in one place: nothing that is still queued may lie there when the next one is answered.
int64_t received(AgentSlot* slot) {
  channel_submit(slot);
  slot->receive_done = 0;
  return slot->receive_result;
}

void queue_receive(AgentSlot* slot, uint64_t tag, void* data, size_t bytes) {
  io_uring_sqe* sqe = next_sqe(slot);
  sqe->opcode = IORING_OP_RECV;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
  sqe->fd = 0;
  sqe->user_data = tag;
  if (tag == kTagFrames) {
    sqe->flags |= IOSQE_BUFFER_SELECT;  // of group 0
    sqe->ioprio |= IORING_RECV_MULTISHOT;
  } else {
    sqe->addr = address_of(data);
    sqe->len = static_cast<uint32_t>(bytes);
  }
  publish_sqe(slot);
}

/// Sees to it that a receive is under way: the one that goes on, where a frame begins.
void begin_receive(AgentSlot* slot, void* data, size_t bytes) {
  if (slot->receive_pending != 0) return;
  bool frame = data == slot_bytes(slot) + kSlotBuffer && bytes == kSlotBufferBytes;
  if (!frame || slot->has_buffer_ring == 0) {
    queue_receive(slot, kTagReceive, data, bytes);
    slot->receive_pending = 1;
    return;
  }
  if (slot->buffer_given == 0) give_buffer(slot);
  if (slot->frames_pending != 0) return;
  queue_receive(slot, kTagFrames, nullptr, 0);
  slot->frames_pending = 1;
}

/// A receive that is cancelled tells of its own end, perhaps later.
void cancel_receive(AgentSlot* slot, uint64_t tag, const uint32_t* pending) {
  if (*pending == 0) return;
  io_uring_sqe* cancel = next_sqe(slot);
  cancel->opcode = IORING_OP_ASYNC_CANCEL;
  cancel->fd = -1;
  cancel->addr = tag;
  cancel->user_data = kTagControl;
  int64_t result = run_control(slot);
  int64_t entered = 0;
  while (result != -kENOENT && *pending != 0 && (entered >= 0 || entered == -kEINTR)) {
    entered = enter(slot, 1, false);
    reap(slot, nullptr);
  }
}

}  // namespace

int64_t channel_receive(AgentSlot* slot, void* data, size_t bytes) {
  if (mode_is(slot, RingMode::kPlainSocket)) return receive_plain(slot, data, bytes);
  for (;;) {
    begin_receive(slot, data, bytes);
    int64_t entered = enter(slot, 1, true);
    reap(slot, nullptr);
    if (slot->receive_done != 0) return received(slot);
    if (slot->send_failed != 0) return -static_cast<int64_t>(slot->send_failed);
    if (entered == -kEINVAL) return entered;  // the ring is gone
    // -EINTR also comes from SIGCONT and from tracers, without any handler: only the counters tell.
    if (load_acquire(&slot->signals_taken) != slot->signals_sent) send_waiting_signals(slot);
    // Each look at the ring may find what came, also that for a send: there is nothing more to wait for then.
    if (slot->receive_done != 0) return received(slot);
  }
}

void channel_close(AgentSlot* slot) {
  if (mode_is(slot, RingMode::kPlainSocket)) {
    // Closed once only: the number may be the guest's the next time.
    if (slot->socket < 0) return;
    raw_syscall(__NR_shutdown, static_cast<uint64_t>(slot->socket), kShutRdwr);
    raw_syscall(__NR_close, static_cast<uint64_t>(slot->socket));
    slot->socket = -1;
    return;
  }
  if (slot->ring_ready == 0) return;
  // Not IORING_OP_SHUTDOWN: the kernel always gives that to a worker, a task that the program would then have.
  cancel_receive(slot, kTagReceive, &slot->receive_pending);
  cancel_receive(slot, kTagFrames, &slot->frames_pending);
  io_uring_sqe* sqe = next_sqe(slot);
  sqe->opcode = IORING_OP_CLOSE;
  sqe->file_index = 1;  // the first place of the file table
  sqe->user_data = kTagControl;
  run_control(slot);
  drop_ring(slot);
}

void channel_prepare_last_close(AgentSlot* slot) {
  if (mode_is(slot, RingMode::kPlainSocket)) {
    slot->enter_number = __NR_close;
    slot->enter_args[0] = static_cast<uint64_t>(slot->socket);
    return;
  }
  // It holds on to the connection.
  cancel_receive(slot, kTagFrames, &slot->frames_pending);
  io_uring_sqe* sqe = next_sqe(slot);
  sqe->opcode = IORING_OP_CLOSE;
  sqe->file_index = 1;
  sqe->user_data = kTagControl;
  publish_sqe(slot);
  slot->enter_number = __NR_io_uring_enter;
  slot->enter_args[0] = slot->ring_index;
  slot->enter_args[1] = unsubmitted(slot);
  slot->enter_args[2] = 1;
  slot->enter_args[3] = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;
  slot->enter_args[4] = 0;
  slot->enter_args[5] = 8;
  // The kernel reads the queue in its own memory. What stayed mapped here, the place in it with it, nobody would free.
  if (!mode_is(slot, RingMode::kRegistered)) return;
  unmap_page(slot->ring_page);
  unmap_page(slot->sqes_page);
}

}  // namespace mosix
