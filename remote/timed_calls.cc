// Calls that wait at most for a time: poll, select and their like. The limit is a moment, from the first time that
// the guest makes the call: one that is made again, because its thread has moved, waits for what is left.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>

#include "libmosix/common/log.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000, kNsPerMs = 1'000'000, kNsPerUs = 1000;
constexpr int64_t kLongestSeconds = 1'000'000'000;  ///< about thirty years: no limit worth keeping

enum class LimitForm { kMilliseconds, kTimespec, kTimeval };
struct LimitPlace {
  LimitForm form;
  size_t argument;
};

std::optional<LimitPlace> limit_place(uint64_t number) {
  switch (number) {
    case SYS_poll:
      return LimitPlace{LimitForm::kMilliseconds, 2};
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return LimitPlace{LimitForm::kMilliseconds, 3};
    case SYS_ppoll:
    case SYS_rt_sigtimedwait:
      return LimitPlace{LimitForm::kTimespec, 2};
    case SYS_epoll_pwait2:
    case SYS_semtimedop:
      return LimitPlace{LimitForm::kTimespec, 3};
    case SYS_pselect6:
      return LimitPlace{LimitForm::kTimespec, 4};
    case SYS_select:
      return LimitPlace{LimitForm::kTimeval, 4};
    default:
      return std::nullopt;
  }
}

/// Nothing for "without limit" and for what the kernel will not take.
std::optional<int64_t> limit_ns(LimitPlace place, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  uint64_t value = args[place.argument];
  if (place.form == LimitForm::kMilliseconds) {
    auto ms = static_cast<int32_t>(value);
    return ms < 0 ? std::nullopt : std::optional(ms * kNsPerMs);
  }
  int64_t pair[2];  // timespec or timeval
  if (value == 0 || !memory.read(value, pair, sizeof pair)) return std::nullopt;
  int64_t unit = place.form == LimitForm::kTimespec ? 1 : kNsPerUs;
  if (pair[0] < 0 || pair[0] > kLongestSeconds || pair[1] < 0 || pair[1] >= kNsPerSecond) return std::nullopt;
  return pair[0] * kNsPerSecond + pair[1] * unit;
}

/// The guest's memory, with another time limit in it.
class MemoryWithLimit : public GuestMemory {
 public:
  MemoryWithLimit(GuestMemory& memory, uint64_t address, int64_t seconds, int64_t fraction)
      : memory_(memory), address_(address), pair_{seconds, fraction} {}
  Status read(uint64_t address, void* data, size_t bytes) override {
    TRY_VOID(memory_.read(address, data, bytes));
    put_limit(address, data, bytes);
    return {};
  }
  Status write(uint64_t address, const void* data, size_t bytes) override {
    return memory_.write(address, data, bytes);
  }
  size_t read_some(uint64_t address, void* data, size_t bytes) override {
    size_t got = memory_.read_some(address, data, bytes);
    put_limit(address, data, got);
    return got;
  }

 private:
  void put_limit(uint64_t address, void* data, size_t bytes) {
    if (address_ >= address && address_ + sizeof pair_ <= address + bytes)
      memcpy(static_cast<uint8_t*>(data) + (address_ - address), pair_, sizeof pair_);
  }
  GuestMemory& memory_;
  uint64_t address_;
  int64_t pair_[2];
};

}  // namespace

int64_t Supervisor::home_clock_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  std::lock_guard lock(clock_mutex_);
  return now.tv_sec * kNsPerSecond + now.tv_nsec + monotonic_offset_ns_.value_or(0);
}

Result<CallPlan> Supervisor::plan_timed(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  std::optional<LimitPlace> place = limit_place(call.number());
  if (!place) return plan_call(row, call.args(), memory);
  int64_t deadline;
  bool begun_before;
  {
    std::lock_guard lock(thread.mutex);
    deadline = thread.deadline_ns;
    begun_before = deadline != 0 && thread.deadline_call == call.number();
  }
  if (!begun_before) {
    std::optional<int64_t> limit = limit_ns(*place, call.args(), memory);
    deadline = limit ? home_clock_ns() + *limit : 0;
    std::lock_guard lock(thread.mutex);
    thread.deadline_ns = deadline;
    thread.deadline_call = call.number();
    return plan_call(row, call.args(), memory);
  }
  int64_t left = std::max<int64_t>(deadline - home_clock_ns(), 0);
  std::array<uint64_t, 6> args = call.args();
  if (place->form == LimitForm::kMilliseconds) {
    args[place->argument] = static_cast<uint64_t>((left + kNsPerMs - 1) / kNsPerMs);
    return plan_call(row, args, memory);
  }
  int64_t unit = place->form == LimitForm::kTimespec ? 1 : kNsPerUs;
  MemoryWithLimit limited(memory, args[place->argument], left / kNsPerSecond, left % kNsPerSecond / unit);
  TRY(CallPlan plan, plan_call(row, args, limited));
  // What comes back is another limit than the guest's memory holds, also where it is the one that went.
  for (OutDestination& destination : plan.destinations)
    if (destination.address == args[place->argument]) destination.unit_bytes = 0;
  return plan;
}

int64_t Supervisor::code_to_wait(uint64_t number, const std::array<uint64_t, 6>& args, int outer_tid,
                                 int64_t code) {
  if (code != kErestartnointr) return code;
  switch (number) {
    case SYS_pause:
    case SYS_rt_sigsuspend:
      return kErestartnohand;
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
      break;
    default:
      return code;
  }
  NotifiedMemory memory(outer_tid);
  std::optional<int64_t> limit = limit_ns(*limit_place(number), args, memory);
  return limit && *limit == 0 ? code : kErestartnohand;  // one that only looks is never interrupted
}

void Supervisor::end_deadline(GuestThread& thread, const PendingCall& call) {
  bool again = call.result() <= kErestartsys && call.result() >= kErestartRestartblock;
  std::lock_guard lock(thread.mutex);
  if (!again || thread.deadline_call != call.number()) thread.deadline_ns = 0;
}

void Supervisor::forward_timed(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  for (;;) {
    Result<CallPlan> plan = plan_timed(thread, call, row);
    if (!plan)
      return bring_home(thread, call, std::string(row.name) + " carries too much", Afterwards::kMayReturn);
    if (plan->body.in_bytes > 0 && !call.valid()) return call.abandon();
    Result<CallReply> reply = exchange(thread, *plan);
    // Made again with the time that is left, not by a restart block, which only home's kernel could go on with.
    if (reply && reply->verdict == Verdict::kRestart && reply->result == kErestartRestartblock)
      reply->result = kErestartnohand;
    if (finish_call(thread, call, *plan, reply)) return end_deadline(thread, call);
  }
}

bool Supervisor::has_time_limit(uint64_t number) { return limit_place(number).has_value(); }

}  // namespace mosix
