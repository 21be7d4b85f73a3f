// Stopping a whole process. The set of its threads changes while we look: threads that still run make new
// ones and end, so we list, seize and wait until two listings in a row have nobody new while all that we know
// stand still.
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <string>

#include "libmosix/process/proc_stat.h"
#include "libmosix/process/tracee.h"

namespace mosix {
namespace {

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/// A leader that has called pthread_exit stays listed as a zombie until the other threads have ended.
bool has_ended(int pid, int tid) {
  Result<ProcStat> stat = read_thread_stat(pid, tid);
  return !stat || stat->state == 'Z' || stat->state == 'X';
}

enum class Outcome { kSeized, kEnded };

Result<Outcome> seize_into(StoppedProcess& process, int tid) {
  Result<Tracee> tracee = Tracee::seize(tid);
  if (!tracee) {
    if (tracee.error().code == ESRCH || has_ended(process.pid, tid)) {
      if (tid == process.pid) process.leader_ended = true;
      return Outcome::kEnded;
    }
    return fail(std::move(tracee.error()));
  }
  // ESRCH: it ended since; waiting for it tells.
  if (Status interrupted = tracee->interrupt(); !interrupted && interrupted.error().code != ESRCH)
    return fail(std::move(interrupted.error()));
  process.threads.push_back(std::move(*tracee));
  return Outcome::kSeized;
}

Status settle(StoppedProcess& process, Tracee& tracee, int64_t deadline_ms) {
  TRY(StopInfo stop, tracee.settle(static_cast<int>(std::max<int64_t>(deadline_ms - now_ms(), 0))));
  if (stop.kind == StopKind::kGroupStop) process.stop_signal = stop.signal;
  return {};
}

}  // namespace

StoppedProcess::~StoppedProcess() { (void)detach_all(); }

Tracee* StoppedProcess::find(int tid) {
  for (Tracee& tracee : threads)
    if (tracee.tid() == tid) return &tracee;
  return nullptr;
}

Status StoppedProcess::detach_all() {
  Status first_failure;
  // If the process has been killed, the leader's end is told only after all others have been waited for.
  while (!threads.empty()) {
    Tracee& last = threads.back();
    if (last.attached() && last.stopped()) {
      Status detached = last.detach();
      if (!detached && first_failure) first_failure = std::move(detached);
    }
    threads.pop_back();
  }
  return first_failure;
}

Result<StoppedProcess> stop_quietly(int pid, int timeout_ms, unsigned long options) {
  StoppedProcess process;
  process.pid = pid;
  int64_t deadline = now_ms() + timeout_ms;
  for (int quiet_rounds = 0; quiet_rounds < 2;) {
    TRY(std::vector<int> tids, list_threads(pid));
    bool changed = false;
    for (int tid : tids) {
      if (process.find(tid) != nullptr || (tid == pid && process.leader_ended)) continue;
      TRY(Outcome outcome, seize_into(process, tid));
      changed |= outcome == Outcome::kSeized;
    }
    for (Tracee& tracee : process.threads)
      if (!tracee.stopped()) TRY_VOID(settle(process, tracee, deadline));
    changed |= std::erase_if(process.threads, [](const Tracee& tracee) { return !tracee.attached(); }) != 0;
    quiet_rounds = changed ? 0 : quiet_rounds + 1;
  }
  if (process.threads.empty()) return fail(ESRCH, "process " + std::to_string(pid) + " has ended");
  std::sort(process.threads.begin(), process.threads.end(), [pid](const Tracee& a, const Tracee& b) {
    return std::pair(a.tid() != pid, a.tid()) < std::pair(b.tid() != pid, b.tid());
  });
  if (options != 0)
    for (Tracee& tracee : process.threads) TRY_VOID(tracee.set_options(options));
  return process;
}

}  // namespace mosix
