// Processor time of children. A parent learns what a child has used when it waits for it: the kernel adds the
// child's time to its own account and fills the rusage of that call. At home the kernel knows only what the deputy
// used. What the guest used is added here, so that `time` in a shell that is away tells the truth.
//
// Of a child that ended on this node we have the figures before home can tell the parent of its end. Of any other
// (it moved on, went home, was forked before the parent came here) the custodian has them, and is asked.
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <chrono>

#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr auto kAnswerLimit = std::chrono::seconds(3);

/// What a wait call has reported.
struct WaitReport {
  int pid = 0;
  bool ended = false;  ///< and was not stopped or continued
  bool reaped = false;
};

std::vector<uint8_t>* region_at(const CallPlan& plan, CallReply& reply, uint64_t address) {
  if (address == 0) return nullptr;
  for (size_t i = 0; i < plan.destinations.size() && i < reply.outs.size(); ++i)
    if (plan.destinations[i].address == address) return &reply.outs[i];
  return nullptr;
}

template <class T>
bool read_value(const std::vector<uint8_t>* region, size_t offset, T& value) {
  if (region == nullptr || region->size() < offset + sizeof value) return false;
  memcpy(&value, region->data() + offset, sizeof value);
  return true;
}

WaitReport of_wait4(const PendingCall& call, const CallPlan& plan, CallReply& reply) {
  WaitReport report{.pid = static_cast<int>(reply.result), .ended = false, .reaped = true};
  int status = 0;
  if (read_value(region_at(plan, reply, call.args()[1]), 0, status))
    report.ended = WIFEXITED(status) || WIFSIGNALED(status);
  else
    report.ended = (call.args()[2] & (WUNTRACED | WCONTINUED)) == 0;
  return report;
}

WaitReport of_waitid(const PendingCall& call, const CallPlan& plan, CallReply& reply) {
  WaitReport report{.pid = 0, .ended = false, .reaped = (call.args()[3] & WNOWAIT) == 0};
  siginfo_t info{};
  constexpr size_t kFields = offsetof(siginfo_t, si_status) + sizeof info.si_status;
  std::vector<uint8_t>* region = region_at(plan, reply, call.args()[2]);
  if (region != nullptr && region->size() >= kFields) {
    memcpy(&info, region->data(), kFields);
    report.pid = info.si_pid;
    report.ended = info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  } else if (call.args()[0] == P_PID && (call.args()[3] & (WSTOPPED | WCONTINUED | WNOHANG)) == 0) {
    report.pid = static_cast<int>(call.args()[1]);
    report.ended = true;
  }
  return report;
}

void add_time(std::vector<uint8_t>& rusage_bytes, size_t offset, uint64_t ns) {
  timeval value;
  if (rusage_bytes.size() < offset + sizeof value) return;
  memcpy(&value, rusage_bytes.data() + offset, sizeof value);
  uint64_t total_us = static_cast<uint64_t>(value.tv_usec) + ns / 1000;
  value.tv_sec += static_cast<time_t>(total_us / 1'000'000);
  value.tv_usec = static_cast<suseconds_t>(total_us % 1'000'000);
  memcpy(rusage_bytes.data() + offset, &value, sizeof value);
}

}  // namespace

void raise_peak(std::vector<uint8_t>& rusage_bytes, uint64_t peak_kib) {
  long known;
  if (rusage_bytes.size() < offsetof(rusage, ru_maxrss) + sizeof known) return;
  memcpy(&known, rusage_bytes.data() + offsetof(rusage, ru_maxrss), sizeof known);
  known = std::max(known, static_cast<long>(peak_kib));
  memcpy(rusage_bytes.data() + offsetof(rusage, ru_maxrss), &known, sizeof known);
}

void Supervisor::keep_for_parent(Guest& guest) {
  std::shared_ptr<Guest> parent = guest.parent_pid == 0 ? nullptr : find_guest(guest.parent_pid);
  if (parent == nullptr) return;
  CpuFigures figures = cpu_figures(guest);
  std::lock_guard lock(parent->mutex);
  parent->ended_children[guest.pid] = figures;
}

void Supervisor::wait_for_child(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  bool is_waitid = row.number == SYS_waitid;
  for (;;) {
    Result<CallReply> reply = exchange(thread, *plan);
    if (reply && reply->verdict == Verdict::kDone && reply->result >= 0) {
      WaitReport report = is_waitid ? of_waitid(call, *plan, *reply) : of_wait4(call, *plan, *reply);
      if (report.pid > 0) {
        CpuFigures used = child_times(guest, report.pid, report.ended, report.reaped);
        if (std::vector<uint8_t>* rusage_bytes = region_at(*plan, *reply, call.args()[is_waitid ? 4 : 3])) {
          add_time(*rusage_bytes, offsetof(rusage, ru_utime), used.user_ns + used.children_user_ns);
          add_time(*rusage_bytes, offsetof(rusage, ru_stime), used.system_ns + used.children_system_ns);
          raise_peak(*rusage_bytes, std::max(used.peak_kib, used.children_peak_kib));
        }
      }
    }
    if (finish_call(thread, call, *plan, reply)) return;
  }
}

/// What a child of the guest has used, and, if it has just been reaped, to the guest's account with it.
CpuFigures Supervisor::child_times(Guest& parent, int pid, bool ended, bool reaped) {
  std::optional<CpuFigures> figures;
  {
    std::lock_guard lock(parent.mutex);
    auto kept = parent.ended_children.find(pid);
    if (kept != parent.ended_children.end()) {
      figures = kept->second;
      if (reaped) parent.ended_children.erase(kept);
    }
  }
  if (!figures && !ended) return {};
  if (!figures) figures = ask_child_times(pid);
  if (reaped) {
    std::lock_guard lock(parent.mutex);
    parent.children.add_child(*figures);
  }
  return *figures;
}

CpuFigures Supervisor::ask_child_times(int pid) {
  {
    std::unique_lock lock(registry_mutex_);
    child_times_[pid].reset();
  }
  CpuReading question{.pid = pid, .cpu = {}};
  bool asked = send_control(ControlType::kCpuAsk, encode_message(question)).has_value();
  std::unique_lock lock(registry_mutex_);
  if (asked) registry_changed_.wait_for(lock, kAnswerLimit, [&] { return child_times_[pid].has_value(); });
  CpuFigures figures = child_times_[pid].value_or(CpuFigures{});
  if (asked && !child_times_[pid])
    log_error("home does not say what child " + std::to_string(pid) + " has used");
  child_times_.erase(pid);
  return figures;
}

}  // namespace mosix
