// Sleeps. Home's kernel keeps the deadline of one that is interrupted, and the pointer by which the program is told
// what is left, in the restart block of the deputy thread: wherever the guest goes meanwhile, home included, its
// restart_syscall goes on with that. So home gets the guest's own pointer, into home's copy of its memory, and not one
// into scratch, which a process at home does not have.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>

#include "libmosix/process/maps.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int64_t kNsPerSecond = 1'000'000'000;

size_t rest_index(uint64_t number) { return number == SYS_nanosleep ? 1 : 3; }

/// Home's memory as a call of the deputy's own, on itself, reads it.
CallPlan plan_reading(int pid, uint64_t address, uint32_t bytes) {
  constexpr uint32_t kData = 32;
  uint64_t ranges[4] = {0, bytes, address, bytes};  // iovec here (its pointer is a reloc), iovec there
  CallPlan plan = buffer_plan(SYS_process_vm_readv, {static_cast<uint64_t>(pid), 0, 1, 16, 1, 0}, 1, ranges,
                              sizeof ranges, -1, 0, OutRule::kFixed, 0);
  plan.body.arg_relocs |= 1u << 3;
  plan.relocs.push_back({.at = 0, .target = kData});
  plan.body.reloc_count = 1;
  plan.outs.push_back({.offset = kData,
                       .max_bytes = bytes,
                       .rule = static_cast<uint16_t>(OutRule::kResult),
                       .reserved = 0,
                       .param = 1});
  plan.destinations.push_back({.max_bytes = bytes});
  plan.body.out_count = 1;
  plan.body.scratch_bytes = (kData + bytes + 15) & ~15u;
  return plan;
}

const MapEntry* writable_at(const std::vector<MapEntry>& maps, uint64_t address) {
  for (const MapEntry& entry : maps)
    if (entry.contains(address)) return (entry.protection & PROT_WRITE) != 0 ? &entry : nullptr;
  return nullptr;
}

}  // namespace

bool SleepAtHome::is(uint64_t call, const std::array<uint64_t, 6>& its_args) const {
  return number != 0 && (call == number || call == SYS_restart_syscall) && its_args == args;
}

uint64_t SleepAtHome::rest_address() const {
  return number == SYS_nanosleep || number == SYS_clock_nanosleep ? args[rest_index(number)] : 0;
}

bool Supervisor::is_sleep(uint64_t number, const std::array<uint64_t, 6>& args) {
  return number == SYS_nanosleep || (number == SYS_clock_nanosleep && (args[1] & TIMER_ABSTIME) == 0);
}

/// The guest may have got the memory for the rest while it was away. The reply of the last call that it took: 0 if
/// home's kernel can write there.
Result<CallReply> Supervisor::make_room_for_rest(GuestThread& thread, uint64_t address) {
  // Writes as the program does, so home's stack grows by it. Nobody looks at what is written: since this call home's
  // copy of the memory is given up.
  CallPlan touch = plain_plan(SYS_clock_gettime, {CLOCK_MONOTONIC, address});
  TRY(CallReply touched, exchange(thread, touch));
  if (touched.verdict != Verdict::kDone || touched.result != -EFAULT) return touched;
  TRY(std::vector<MapEntry> maps, read_maps(thread.guest->outer_pid));
  const MapEntry* entry = writable_at(maps, address);
  if (entry == nullptr || entry->path == "[stack]") return touched;
  CallPlan room = plain_plan(SYS_brk, {entry->end});
  if (entry->path != "[heap]") {
    uint64_t first = address & ~(kPage - 1), end = (address + sizeof(timespec) + kPage - 1) & ~(kPage - 1);
    room = plain_plan(SYS_mmap, {first, end - first, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0});
  }
  TRY(CallReply made, exchange(thread, room));
  if (made.verdict != Verdict::kDone || made.result < 0) return made;
  return exchange(thread, touch);
}

void Supervisor::sleep_at_home(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  std::array<uint64_t, 6> args = call.args();
  uint64_t rest = std::exchange(args[rest_index(call.number())], 0);
  uint64_t first = rest & ~(kPage - 1), last = (rest + sizeof(timespec) - 1) & ~(kPage - 1);
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, args, memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  bool has_room = false;
  if (rest != 0) {
    std::lock_guard lock(guest.mutex);
    has_room = guest.rest_pages.contains(first) && guest.rest_pages.contains(last);
  }
  if (rest != 0 && !has_room && !guest.is_ours(rest, sizeof(timespec))) {
    Result<std::vector<MapEntry>> maps = read_maps(guest.outer_pid);
    // A pointer that the program cannot write through is no pointer at home either: EFAULT, if it comes to that.
    has_room = maps && writable_at(*maps, rest) != nullptr &&
               writable_at(*maps, rest + sizeof(timespec) - 1) != nullptr;
    for (bool made = !has_room; !made;) {
      Result<CallReply> reply = make_room_for_rest(thread, rest);
      made = reply && reply->verdict == Verdict::kDone;
      if (made && reply->result < 0) return bring_home(thread, call, "a sleep whose rest home cannot tell");
      if (!made && finish_call(thread, call, *plan, reply)) return;
    }
    std::lock_guard lock(guest.mutex);
    if (has_room) guest.rest_pages.insert({first, last});
  }
  if (has_room) plan->body.args[rest_index(call.number())] = rest;
  {
    std::lock_guard lock(thread.mutex);
    thread.sleep = {.number = call.number(), .args = call.args(), .end_ns = 0};
  }
  go_on_sleeping(thread, call, std::move(*plan));
}

void Supervisor::restart(GuestThread& thread, PendingCall& call) {
  bool at_home;
  {
    std::lock_guard lock(thread.mutex);
    at_home = thread.sleep.is(call.number(), call.args());
  }
  // Otherwise the block is this kernel's, of a call that runs here (futex).
  if (!at_home) return call.let_run_here();
  go_on_sleeping(thread, call, plain_plan(SYS_restart_syscall, {}));
}

void Supervisor::go_on_sleeping(GuestThread& thread, PendingCall& call, CallPlan plan) {
  for (;;) {
    Result<CallReply> reply = exchange(thread, plan);
    bool interrupted =
        reply && reply->result == (reply->verdict == Verdict::kDone ? -EINTR : kErestartRestartblock);
    if (interrupted) reply = fetch_rest(thread, std::move(*reply));
    if (finish_call(thread, call, plan, reply)) return;
    if (!interrupted) continue;
    // From now on a handler ends it, also if home has not gone on with it yet.
    plan = plain_plan(SYS_restart_syscall, {});
    call.set_code_to_begin(kErestartRestartblock);
  }
}

/// Home's kernel has interrupted a sleep, with `reply`, and has written into home's memory what is left.
Result<CallReply> Supervisor::fetch_rest(GuestThread& thread, CallReply reply) {
  uint64_t address;
  {
    std::lock_guard lock(thread.mutex);
    address = thread.sleep.rest_address();
  }
  if (address == 0) return reply;
  TRY(CallReply told, exchange_to_end(thread, plan_reading(thread.guest->pid, address, sizeof(timespec))));
  timespec left{};
  bool whole = told.result == sizeof left && told.outs.size() == 1 && told.outs[0].size() == sizeof left;
  if (whole) memcpy(&left, told.outs[0].data(), sizeof left);
  if (!whole || !NotifiedMemory(thread.outer_tid).write(address, &left, sizeof left)) {
    if (reply.verdict == Verdict::kDone) reply.result = -EFAULT;
    return reply;
  }
  int64_t end = home_clock_ns() + left.tv_sec * kNsPerSecond + left.tv_nsec;
  std::lock_guard lock(thread.mutex);
  thread.sleep.end_ns = end;
  return reply;
}

/// A handler ends the sleep of a thread that stands outside of it, because it has been moved: less is left by now than
/// home has told last. If nothing is left, it has ended by itself.
void Supervisor::age_rest(GuestThread& thread, Tracee& tracee) {
  Result<user_regs_struct> registers = tracee.registers();
  if (!registers || static_cast<int64_t>(registers->rax) != kErestartRestartblock) return;
  uint64_t address;
  int64_t end;
  {
    std::lock_guard lock(thread.mutex);
    if (!thread.sleep.is(registers->orig_rax, arguments_in(*registers))) return;
    address = thread.sleep.rest_address();
    end = thread.sleep.end_ns;
  }
  if (address == 0 || end == 0) return;
  int64_t left = end - home_clock_ns();
  timespec rest{left / kNsPerSecond, left % kNsPerSecond};
  if (left > 0) {
    [[maybe_unused]] Status written = NotifiedMemory(thread.outer_tid).write(address, &rest, sizeof rest);
    return;
  }
  registers->rax = 0;
  registers->orig_rax = ~0ull;
  tracee.set_registers(*registers);
}

/// Of a frozen thread that stands before a restart by block: whose block it is.
void Supervisor::capture_restart(GuestThread& thread, user_regs_struct& registers, ThreadState& state) {
  if (static_cast<int64_t>(registers.rax) != kErestartRestartblock) return;
  std::lock_guard lock(thread.mutex);
  if (thread.sleep.is(registers.orig_rax, arguments_in(registers))) {
    state.sleep_call = thread.sleep.number;
    state.deadline_ns = thread.sleep.end_ns;
    return;
  }
  // A wait with a deadline inside this kernel cannot be carried as such; the call is made again with the arguments it
  // had. Absolute deadlines (what pthread_cond_timedwait uses) lose nothing by that.
  registers.orig_rax = SYS_futex;
  registers.rax = static_cast<uint64_t>(kErestartnohand);
}

}  // namespace mosix
