// The deputy: the loop in which the original process's own threads carry out their guests' calls.
//
// Runs at home, in every thread of a process whose guest is away, on the stack of the thread's slot. Knows
// no system call by name: a CALL frame says which arguments point into its scratch bytes and what is to be
// sent back (libmosix/common/frame.h). What is special about fork, exit and death is only that this thread
// itself is concerned.
#include "libmosix/agent/deputy.h"

#include <asm/unistd_64.h>

#include "libmosix/agent/channel.h"
#include "libmosix/agent/raw.h"

#pragma GCC visibility push(hidden)  // without it each address below would come from a GOT
extern "C" int64_t agent_call(mosix::AgentSlot* slot);
extern "C" int64_t agent_clone(uint64_t flags, uint64_t stack_top, uint64_t child_slot);
extern "C" [[noreturn]] void agent_exit(mosix::AgentSlot* slot, uint64_t number, uint64_t status);
extern "C" void agent_restorer();
extern "C" void agent_trap();
extern "C" const char agent_call_check[], agent_call_syscall[], agent_call_abort[];
extern "C" const char agent_enter_check[], agent_enter_syscall[], agent_enter_abort[];
extern "C" void agent_on_signal(int signal, mosix::Siginfo* info, uint64_t* context);
#pragma GCC visibility pop

namespace mosix {
namespace {

constexpr int64_t kEPIPE = 32, kEBADMSG = 74, kENOMEM = 12, kEINVAL = 22;
constexpr uint64_t kReadWrite = 3, kPrivateAnonymousFixed = 2 | 0x10 | 0x20;
constexpr uint64_t kSigSetmask = 2;

uint8_t* slot_bytes(AgentSlot* slot) { return reinterpret_cast<uint8_t*>(slot); }

Siginfo* queued_signal(AgentSlot* slot, uint32_t number) {
  return reinterpret_cast<Siginfo*>(slot_bytes(slot) + kSlotSignals) + (number % kSignalQueue);
}

void fill_header(AgentSlot* slot, FrameHeader* header, FrameType type, uint32_t sequence, size_t body_bytes) {
  zero(header);
  header->length = static_cast<uint32_t>(body_bytes);
  header->type = static_cast<uint16_t>(type);
  header->epoch = slot->epoch;
  header->sequence = sequence;
}

/// A frame in memory, with the room behind it that its call may use.
struct Frame {
  FrameHeader* header;
  uint8_t* body;
  uint8_t* room;  ///< first byte behind the frame
  uint64_t room_bytes;
};

/// The slot's large area, mapped for this one call.
uint8_t* map_large_area(AgentSlot* slot) {
  uint64_t address = large_area_address(slot->window, static_cast<int>(slot->index));
  int64_t mapped = raw_syscall(__NR_mmap, address, kLargeAreaBytes, kReadWrite,
                               kPrivateAnonymousFixed | 0x4000 /* NORESERVE */, ~0ull, 0);
  return mapped == static_cast<int64_t>(address) ? reinterpret_cast<uint8_t*>(address) : nullptr;
}

void unmap_large_area(AgentSlot* slot) {
  raw_syscall(__NR_munmap, large_area_address(slot->window, static_cast<int>(slot->index)), kLargeAreaBytes);
}

/// One whole frame of at most `capacity` bytes if that is less than the buffer has. False when the connection
/// has ended; slot->error says how.
bool receive_frame(AgentSlot* slot, Frame* frame, uint64_t capacity = kSlotBufferBytes) {
  uint8_t* buffer = slot_bytes(slot) + kSlotBuffer;
  uint64_t have = 0;
  for (;;) {
    auto* header = reinterpret_cast<FrameHeader*>(buffer);
    if (have >= sizeof(FrameHeader)) {
      uint64_t need = sizeof(FrameHeader) + header->length;
      if (header->length > kLargeAreaBytes - sizeof(FrameHeader) || header->key_epoch != 0) {
        slot->error = kEBADMSG;
        return false;
      }
      if (need > capacity) {
        uint8_t* large = map_large_area(slot);
        if (large == nullptr) {
          slot->error = kENOMEM;
          return false;
        }
        copy_bytes(large, buffer, have);
        buffer = large;
        capacity = kLargeAreaBytes;
        continue;
      }
      if (have >= need) {
        frame->header = header;
        frame->body = buffer + sizeof(FrameHeader);
        frame->room = buffer + need;
        frame->room_bytes = capacity - need;
        return have == need;  // nothing may follow before we have answered
      }
    }
    // A known length is received exactly; otherwise whatever comes, for a frame is usually one packet.
    uint64_t want = capacity - have;
    int64_t got = channel_receive(slot, buffer + have, want);
    if (got <= 0) {
      slot->error = got == 0 ? kEPIPE : static_cast<int32_t>(-got);
      return false;
    }
    have += static_cast<uint64_t>(got);
  }
}

/// Sends head and, if any, the regions behind it. Regions are compacted to lie in one piece first.
void send_reply(AgentSlot* slot, uint32_t sequence, int64_t result, Verdict verdict, const OutRegion* outs,
                uint32_t* lengths, uint32_t out_count, uint8_t* scratch, uint32_t moved_bytes = 0) {
  uint8_t* head = slot_bytes(slot) + kSlotReply;
  auto* header = reinterpret_cast<FrameHeader*>(head);
  auto* body = reinterpret_cast<ReplyBody*>(head + sizeof(FrameHeader));
  uint32_t first = slot->signals_sent + 1;
  uint32_t last = load_acquire(&slot->signals_taken);
  uint32_t signals = last - (first - 1);
  if (signals > kMaxSignalsPerReply) signals = kMaxSignalsPerReply;

  zero(body);
  body->result = result;
  body->verdict = static_cast<uint32_t>(verdict);
  body->out_count = static_cast<uint16_t>(out_count);
  body->signal_count = static_cast<uint16_t>(signals);
  body->first_signal = first;
  body->moved_bytes = moved_bytes;
  uint64_t head_bytes = sizeof(FrameHeader) + sizeof(ReplyBody);
  copy_bytes(head + head_bytes, lengths, out_count * sizeof(uint32_t));
  head_bytes += out_count * sizeof(uint32_t);
  while (head_bytes % 8 != 0) head[head_bytes++] = 0;

  uint64_t data_bytes = 0;
  uint8_t* data = out_count > 0 ? scratch + outs[0].offset : nullptr;
  for (uint32_t i = 0; i < out_count; ++i) {
    move_down(data + data_bytes, scratch + outs[i].offset, lengths[i]);
    data_bytes += lengths[i];
  }
  // Padded to 8; the bytes behind the last region are scratch or room behind it, ours to overwrite.
  if (data_bytes % 8 != 0) {
    zero_bytes(data + data_bytes, 8 - data_bytes % 8);
    data_bytes += 8 - data_bytes % 8;
  }
  uint64_t signal_bytes = signals * sizeof(Siginfo);
  fill_header(slot, header, FrameType::kReply, sequence,
              head_bytes - sizeof(FrameHeader) + data_bytes + signal_bytes);

  // One send where the head can be put in front of the data, or everything fits behind the head.
  constexpr uint64_t kReplyRoom = kSlotBuffer - kSlotReply;
  uint8_t* message = head;
  uint64_t message_bytes = head_bytes;
  if (head_bytes + data_bytes + signal_bytes <= kReplyRoom) {
    copy_bytes(head + head_bytes, data, data_bytes);
    message_bytes += data_bytes;
    for (uint32_t i = 0; i < signals; ++i, message_bytes += sizeof(Siginfo))
      copy_bytes(head + message_bytes, queued_signal(slot, first + i), sizeof(Siginfo));
    channel_send(slot, message, message_bytes);
  } else {
    channel_send(slot, head, head_bytes, SendWait::kYes);
    if (data_bytes > 0) channel_send(slot, data, data_bytes, SendWait::kYes);
    for (uint32_t i = 0; i < signals; ++i)
      channel_send(slot, queued_signal(slot, first + i), sizeof(Siginfo), SendWait::kYes);
  }
  slot->signals_sent = first + signals - 1;
}

void send_plain_reply(AgentSlot* slot, uint32_t sequence, int64_t result, Verdict verdict) {
  send_reply(slot, sequence, result, verdict, nullptr, nullptr, 0, nullptr);
}

uint64_t load64(const uint8_t* at) {
  uint64_t value;
  copy_bytes(&value, at, sizeof value);
  return value;
}
uint32_t load32(const uint8_t* at) {
  uint32_t value;
  copy_bytes(&value, at, sizeof value);
  return value;
}

uint64_t minimum(uint64_t a, uint64_t b) { return a < b ? a : b; }

/// How many bytes of each out region go back.
void measure_outs(const OutRegion* outs, uint32_t count, int64_t result, const uint8_t* scratch,
                  uint32_t scratch_bytes, uint32_t* lengths) {
  bool failed = result < 0;
  uint64_t spread_left = failed ? 0 : static_cast<uint64_t>(result);
  for (uint32_t i = 0; i < count; ++i) {
    const OutRegion& out = outs[i];
    uint64_t length = 0;
    switch (static_cast<OutRule>(out.rule)) {
      case OutRule::kFixed:
        length = failed ? 0 : out.max_bytes;
        break;
      case OutRule::kAlways:
        length = out.max_bytes;
        break;
      case OutRule::kResult:
        length = failed ? 0 : minimum(static_cast<uint64_t>(result) * out.param, out.max_bytes);
        break;
      case OutRule::kLength32:
        if (!failed && out.param + 4 <= scratch_bytes)
          length = minimum(load32(scratch + out.param), out.max_bytes);
        break;
      case OutRule::kLength64:
        if (!failed && out.param + 8 <= scratch_bytes)
          length = minimum(load64(scratch + out.param), out.max_bytes);
        break;
      case OutRule::kSpread:
        length = minimum(spread_left, out.max_bytes);
        spread_left -= length;
        break;
    }
    lengths[i] = static_cast<uint32_t>(length);
  }
}

bool outs_are_sound(const OutRegion* outs, uint32_t count, uint32_t scratch_bytes) {
  uint32_t end = 0;
  for (uint32_t i = 0; i < count; ++i) {
    // Ascending and apart, so that they can be moved together in front.
    if (outs[i].offset < end || outs[i].max_bytes > scratch_bytes ||
        outs[i].offset > scratch_bytes - outs[i].max_bytes)
      return false;
    end = outs[i].offset + outs[i].max_bytes;
  }
  return true;
}

bool relocate(uint8_t* scratch, uint32_t scratch_bytes, const Reloc* relocs, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (scratch_bytes < 8 || relocs[i].at > scratch_bytes - 8 || relocs[i].target > scratch_bytes)
      return false;
    uint64_t pointer = address_of(scratch + relocs[i].target);
    copy_bytes(scratch + relocs[i].at, &pointer, sizeof pointer);
  }
  return true;
}

/// What is read there of the guest's memory is not what home's kernel says.
bool opened_in_proc(uint64_t number, int64_t result) {
  if (result < 0 || (number != __NR_open && number != __NR_openat && number != __NR_openat2)) return false;
  constexpr uint64_t kProcMagic = 0x9fa0;
  uint64_t facts[15];  // struct statfs
  return raw_syscall(__NR_fstatfs, static_cast<uint64_t>(result), address_of(facts)) == 0 &&
         facts[0] == kProcMagic;
}

/// False: the frame makes no sense, and neither will what follows.
bool carry_out_call(AgentSlot* slot, const Frame& frame) {
  const FrameHeader header = *frame.header;
  if (header.length < sizeof(CallBody)) return false;
  const CallBody call = *reinterpret_cast<const CallBody*>(frame.body);
  uint64_t tables = static_cast<uint64_t>(call.reloc_count) * sizeof(Reloc) +
                    static_cast<uint64_t>(call.out_count) * sizeof(OutRegion);
  if (call.reloc_count > kMaxRelocs || call.out_count > kMaxOutRegions ||
      call.scratch_bytes > kMaxScratchBytes || call.in_bytes > call.scratch_bytes ||
      (sizeof(CallBody) + tables + call.in_bytes + 7) / 8 * 8 != header.length)
    return false;
  auto* relocs = reinterpret_cast<const Reloc*>(frame.body + sizeof(CallBody));
  auto* outs = reinterpret_cast<const OutRegion*>(relocs + call.reloc_count);
  uint8_t* in = frame.body + sizeof(CallBody) + tables;
  if (!outs_are_sound(outs, call.out_count, call.scratch_bytes)) return false;

  // Scratch begins where the in part already is (rounded up to 16), and goes on behind the frame. Transfers of
  // whole sectors begin at a page, for files opened with O_DIRECT.
  constexpr uint64_t kSectorBytes = 512;
  bool sectors =
      call.scratch_bytes >= kSectorBytes && (call.in_bytes == 0 || call.in_bytes % kSectorBytes == 0);
  uint64_t alignment = sectors ? 4096 : 16;
  auto* scratch = reinterpret_cast<uint8_t*>((address_of(in) + alignment - 1) & ~(alignment - 1));
  bool large = false;
  if (scratch + call.scratch_bytes + 8 > frame.room + frame.room_bytes) {
    scratch = map_large_area(slot);
    if (scratch == nullptr) return false;
    large = true;
    copy_bytes(scratch, in, call.in_bytes);
  } else if (scratch != in) {
    move_up(scratch, in, call.in_bytes);
  }
  for (uint32_t i = 0; i < call.out_count; ++i) {
    auto rule = static_cast<OutRule>(outs[i].rule);
    if (rule != OutRule::kFixed && rule != OutRule::kAlways) continue;
    uint32_t begin = outs[i].offset < call.in_bytes ? call.in_bytes : outs[i].offset;
    uint32_t end = outs[i].offset + outs[i].max_bytes;
    if (end > begin) zero_bytes(scratch + begin, end - begin);
  }
  if (!relocate(scratch, call.scratch_bytes, relocs, call.reloc_count)) return false;

  slot->call_number = call.number;
  for (int i = 0; i < 6; ++i)
    slot->call_args[i] = (call.arg_relocs >> i & 1) != 0 ? address_of(scratch) + call.args[i] : call.args[i];
  slot->signals_acked = header.signals_acked;
  slot->verdict = static_cast<uint32_t>(Verdict::kDone);
  store_release(&slot->current_sequence, header.sequence);
  int64_t result = agent_call(slot);
  store_release(&slot->current_sequence, 0xffffffffu);

  auto verdict = static_cast<Verdict>(slot->verdict);
  bool broken_off = verdict == Verdict::kDone && result > 0 &&
                    static_cast<uint64_t>(result) < call.wanted_bytes &&
                    load_acquire(&slot->signals_taken) == header.signals_acked;
  if (verdict == Verdict::kRestart) {
    send_plain_reply(slot, header.sequence, result, verdict);
  } else if (broken_off) {
    constexpr int64_t kRestartSys = -512;
    send_reply(slot, header.sequence, kRestartSys, Verdict::kRestart, nullptr, nullptr, 0, nullptr,
               static_cast<uint32_t>(result));
  } else {
    uint32_t lengths[kMaxOutRegions];
    measure_outs(outs, call.out_count, result, scratch, call.scratch_bytes, lengths);
    send_reply(slot, header.sequence, result, verdict, outs, lengths, call.out_count, scratch,
               opened_in_proc(call.number, result) ? 1 : 0);
  }
  if (large) unmap_large_area(slot);
  return true;
}

/// fork and clone at home: the child is a deputy from its first instruction, on a slot prepared here.
bool carry_out_clone(AgentSlot* slot, const Frame& frame) {
  if (frame.header->length < sizeof(CloneBody)) return false;
  uint32_t sequence = frame.header->sequence;
  const CloneBody order = *reinterpret_cast<const CloneBody*>(frame.body);
  slot->signals_acked = frame.header->signals_acked;
  if (order.slot < 0 || order.slot >= kSlotCount) return false;
  if (load_acquire(&slot->signals_taken) != slot->signals_acked) {
    send_plain_reply(slot, sequence, -513, Verdict::kRestart);
    return true;
  }
  uint64_t address = slot_address(slot->window, order.slot);
  int64_t mapped =
      raw_syscall(__NR_mmap, address, kSlotMappedBytes, kReadWrite, kPrivateAnonymousFixed, ~0ull, 0);
  if (mapped < 0) {
    send_plain_reply(slot, sequence, mapped, Verdict::kDone);
    return true;
  }
  auto* child = reinterpret_cast<AgentSlot*>(address);
  child->window = slot->window;
  child->index = static_cast<uint32_t>(order.slot);
  child->peer_address = slot->peer_address;
  child->peer_port = slot->peer_port;
  child->epoch = order.child_epoch;
  child->ring_mode = slot->ring_mode;
  copy_bytes(child->token, order.token, sizeof child->token);
  child->current_sequence = 0xffffffffu;
  int64_t result = agent_clone(order.flags, address + kSlotStackTop, address);
  send_plain_reply(slot, sequence, result, Verdict::kDone);
  return true;
}

/// The guest runs elsewhere and has its memory there; home's copy of it only costs, here and at each fork.
bool release_memory(AgentSlot* slot, const Frame& frame) {
  constexpr uint64_t kDontNeed = 4, kDontNeedLocked = 24;
  auto* ranges = reinterpret_cast<const ReleaseRange*>(frame.body);
  for (uint32_t i = 0; i < frame.header->length / sizeof(ReleaseRange); ++i)
    if (raw_syscall(__NR_madvise, ranges[i].address, ranges[i].bytes, kDontNeedLocked) ==
        -kEINVAL)  // Linux before 5.18
      raw_syscall(__NR_madvise, ranges[i].address, ranges[i].bytes, kDontNeed);
  send_plain_reply(slot, frame.header->sequence, 0, Verdict::kDone);
  return true;
}

struct KernelSigaction {
  uint64_t handler, flags;
  uint64_t restorer, mask;
};

/// The guest died of a signal: so do we, with the status that the parent must see.
[[noreturn]] void die_of(AgentSlot* slot, int32_t signal) {
  channel_close(slot);
  KernelSigaction action = {0, 0x04000000, address_of(reinterpret_cast<const uint8_t*>(&agent_restorer)), 0};
  raw_syscall(__NR_rt_sigaction, static_cast<uint64_t>(signal), address_of(&action), 0, 8);
  uint64_t unblock = 1ull << (signal - 1);
  uint64_t pid = static_cast<uint64_t>(raw_syscall(__NR_getpid));
  raw_syscall(__NR_tgkill, pid, static_cast<uint64_t>(raw_syscall(__NR_gettid)),
              static_cast<uint64_t>(signal));
  raw_syscall(__NR_rt_sigprocmask, 1, address_of(&unblock), 0, 8);
  for (;;) raw_syscall(__NR_exit_group, static_cast<uint64_t>(128 + signal));
}

[[noreturn]] void leave(AgentSlot* slot, const ExitBody& order) {
  uint64_t everything = ~0ull;
  raw_syscall(__NR_rt_sigprocmask, kSigSetmask, address_of(&everything), 0, 8);
  channel_prepare_last_close(slot);
  agent_exit(slot, order.whole_group != 0 ? __NR_exit_group : __NR_exit, static_cast<uint64_t>(order.status));
}

/// It has begun, or could not: its tracer, who holds job control off so long, takes note.
void tell_tracer(AgentSlot* slot) {
  if (slot->traps_first == 0) return;
  slot->traps_first = 0;
  agent_trap();
}

/// No channel (any more). The custodian decides: back to home memory if nothing has happened away, or the
/// end. Without a custodian, the end after the grace time: the guest is lost with its node.
[[noreturn]] void wait_for_custodian(AgentSlot* slot, AgentState why) {
  constexpr int64_t kGraceSeconds = 15;
  store_release(&slot->state, static_cast<uint32_t>(why));
  tell_tracer(slot);
  int64_t wait[2] = {kGraceSeconds, 0};
  // Not nanosleep: interrupted, it would overwrite the thread's restart block, which is the guest's. ppoll has none,
  // and counts what is left down in place.
  while (raw_syscall(__NR_ppoll, 0, 0, address_of(wait), 0, 8) != 0) {
  }
  for (;;) raw_syscall(__NR_kill, static_cast<uint64_t>(raw_syscall(__NR_getpid)), 9);
}

bool greet(AgentSlot* slot) {
  uint8_t* message = slot_bytes(slot) + kSlotReply;
  auto* hello = reinterpret_cast<HelloBody*>(message + sizeof(FrameHeader));
  fill_header(slot, reinterpret_cast<FrameHeader*>(message), FrameType::kHello, 0, sizeof *hello);
  copy_bytes(hello->token, slot->token, sizeof hello->token);
  hello->pid = static_cast<int32_t>(slot->pid);
  hello->tid = static_cast<int32_t>(slot->tid);
  // Signals wait for the welcome: it says which the guest has.
  slot->signals_sent = slot->signals_taken;
  channel_send(slot, message, sizeof(FrameHeader) + sizeof *hello);
  // The first call may follow the welcome at once: no byte more than the welcome is taken.
  Frame frame;
  if (!receive_frame(slot, &frame, sizeof(FrameHeader))) return false;
  if (frame.header->type != static_cast<uint16_t>(FrameType::kWelcome)) {
    slot->error = kEBADMSG;
    return false;
  }
  slot->signals_acked = slot->signals_sent = frame.header->signals_acked;
  return true;
}

/// True while the deputy shall go on.
bool serve_frame(AgentSlot* slot, const Frame& frame) {
  // Once the away side has caught up, a full queue opens again.
  if (slot->full_mask_set != 0 && slot->signals_taken - frame.header->signals_acked < kSignalQueue / 2) {
    slot->full_mask_set = 0;
    raw_syscall(__NR_rt_sigprocmask, kSigSetmask, address_of(&slot->saved_mask), 0, 8);
  }
  store_release(&slot->state, static_cast<uint32_t>(AgentState::kWorking));
  auto type = static_cast<FrameType>(frame.header->type);
  if (type == FrameType::kHear) {
    send_plain_reply(slot, frame.header->sequence, 0, Verdict::kDone);
    if (slot->traps_first != 0) channel_submit(slot);
    tell_tracer(slot);
    return true;
  }
  slot->calls_accepted = slot->calls_accepted + 1;
  if (type == FrameType::kCall) return carry_out_call(slot, frame);
  if (type == FrameType::kClone) return carry_out_clone(slot, frame);
  if (type == FrameType::kRelease) return release_memory(slot, frame);
  if (frame.header->length >= sizeof(ExitBody)) {
    const ExitBody order = *reinterpret_cast<const ExitBody*>(frame.body);
    if (type == FrameType::kExit) leave(slot, order);
    if (type == FrameType::kDie && order.status > 0 && order.status <= 64) die_of(slot, order.status);
  }
  slot->error = kEBADMSG;
  return false;
}

}  // namespace

void send_waiting_signals(AgentSlot* slot) {
  // A reply that is still queued lies where the frames are made.
  channel_submit(slot);
  uint8_t* message = slot_bytes(slot) + kSlotReply;
  uint8_t* end = message;
  // One send: the queue has few places.
  while (slot->signals_sent != load_acquire(&slot->signals_taken) &&
         end + 512 <= slot_bytes(slot) + kSlotBuffer) {
    uint32_t number = slot->signals_sent + 1;
    fill_header(slot, reinterpret_cast<FrameHeader*>(end), FrameType::kSignal, number, sizeof(Siginfo));
    copy_bytes(end + sizeof(FrameHeader), queued_signal(slot, number), sizeof(Siginfo));
    end += sizeof(FrameHeader) + sizeof(Siginfo);
    slot->signals_sent = number;
  }
  channel_send(slot, message, static_cast<size_t>(end - message));
}

}  // namespace mosix

using namespace mosix;

extern "C" __attribute__((visibility("hidden"))) void agent_deputy_main(AgentSlot* slot) {
  store_release(&slot->state, static_cast<uint32_t>(AgentState::kStarting));
  slot->tid = static_cast<uint32_t>(raw_syscall(__NR_gettid));
  slot->pid = static_cast<uint32_t>(raw_syscall(__NR_getpid));
  slot->calls_accepted = 0;
  int64_t connected = channel_connect(slot);
  if (connected < 0) {
    slot->error = static_cast<int32_t>(-connected);
    wait_for_custodian(slot, AgentState::kFailed);
  }
  if (!greet(slot)) wait_for_custodian(slot, AgentState::kFailed);
  for (;;) {
    store_release(&slot->state, static_cast<uint32_t>(AgentState::kIdle));
    Frame frame;
    uint32_t sequence = 0;
    bool served = receive_frame(slot, &frame);
    if (served) {
      sequence = frame.header->sequence;  // the call may overwrite the frame
      served = serve_frame(slot, frame);
    }
    if (!served) {
      channel_close(slot);
      wait_for_custodian(slot, AgentState::kLost);
    }
    store_release(&slot->answered, sequence);
  }
}

extern "C" __attribute__((visibility("hidden"))) void agent_teardown(AgentSlot* slot) {
  channel_close(slot);
  store_release(&slot->state, static_cast<uint32_t>(AgentState::kEnded));
}

/// Home's handler for every signal that the guest handles: keeps what happened for the away side. The guest's
/// own flags and mask are installed with it, so home's kernel decides as it would have: whether the call at
/// hand fails with EINTR or is restarted (then we find the thread standing on its syscall instruction), and
/// what is blocked from now on. That mask stays in force until the guest's handler returns.
extern "C" void agent_on_signal(int signal, Siginfo* info, uint64_t* context) {
  constexpr int kSigill = 4, kSigtrap = 5, kSigbus = 7, kSigfpe = 8, kSigsegv = 11;
  constexpr int kRip = 5 + 16, kMask = 37;  // in 64-bit words of ucontext; the mask follows 23 + fp + 8 words
  uint64_t here = address_of(__builtin_frame_address(0));
  auto* slot = reinterpret_cast<AgentSlot*>(here & ~(kSlotBytes - 1));
  bool is_fault =
      signal == kSigsegv || signal == kSigbus || signal == kSigfpe || signal == kSigill || signal == kSigtrap;
  int32_t code;
  copy_bytes(&code, info->bytes + 8, sizeof code);
  if (is_fault && code > 0 && code != 0x80) {
    // A fault of the agent itself. It must not look like the guest's: end as if killed.
    slot->error = -signal;
    raw_syscall(__NR_kill, static_cast<uint64_t>(raw_syscall(__NR_getpid)), 9);
  }

  uint64_t mask_now = 0;
  raw_syscall(__NR_rt_sigprocmask, 0, 0, address_of(&mask_now), 8);
  uint32_t taken = slot->signals_taken;
  if (taken - slot->signals_acked >= kSignalQueue) {
    // No room: back to the kernel's own queue, and nothing more until the guest has caught up.
    if (slot->full_mask_set == 0) {
      slot->full_mask_set = 1;
      slot->saved_mask = context[kMask];
    }
    context[kMask] = ~0ull;
    raw_syscall(__NR_rt_tgsigqueueinfo, slot->pid, slot->tid, static_cast<uint64_t>(signal),
                address_of(info));
    return;
  }
  copy_bytes(queued_signal(slot, taken + 1), info, sizeof *info);
  context[kMask] = mask_now;
  store_release(&slot->signals_taken, taken + 1);

  uint64_t rip = context[kRip];
  if (rip >= address_of(agent_call_check) && rip <= address_of(agent_call_syscall))
    context[kRip] = address_of(agent_call_abort);
  else if (rip >= address_of(agent_enter_check) && rip <= address_of(agent_enter_syscall))
    context[kRip] = address_of(agent_enter_abort);
}
