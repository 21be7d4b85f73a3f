// What the supervisor knows of its guests: processes, threads, channels. Away side only.
//
// Threads of the supervisor that touch these: one accept thread, notification workers (one for each call in
// flight and one waiting), one channel watcher, one reader of the control connection, one thread for each
// freeze. Lock order: Guest::mutex, then GuestThread::tracer_mutex, then GuestThread::mutex, then a writer's.
#pragma once

#include <sys/user.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libmosix/agent/agent.h"
#include "libmosix/common/frame.h"
#include "libmosix/common/limits.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"
#include "libmosix/process/vdso.h"
#include "libmosix/syscalls/call_plan.h"
#include "remote/direct_path.h"

namespace mosix {

struct Guest;

/// A signal that home's kernel delivered to the deputy thread and that its guest thread has yet to get.
struct WaitingSignal {
  uint32_t number = 0;
  Siginfo info{};
  bool parked = false;  ///< was found blocked in the guest; looked at again when its mask changes
};

inline std::array<uint64_t, 6> arguments_in(const user_regs_struct& registers) {
  return {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9};
}

/// A sleep of a guest thread, whose deadline and whose pointer for the rest home's kernel keeps in the restart block of
/// the deputy thread. It goes on by restart_syscall, which has the arguments of the sleep.
struct SleepAtHome {
  uint64_t number = 0;  ///< of the call; restart_syscall: not known, it began at home; 0: there was none
  std::array<uint64_t, 6> args{};
  int64_t end_ns = 0;  ///< by home's clock, for the rest that is told; 0: not known

  bool is(uint64_t call, const std::array<uint64_t, 6>& its_args) const;
  uint64_t rest_address() const;  ///< 0: nobody is told
};

/// A call that a move has interrupted, and that its thread makes again as its next step. To the program it has begun
/// already: a handler that comes before the kernel here has seen it ends it, or restarts it, as it would in its middle.
struct BegunCall {
  uint64_t number = 0;  ///< that it is made again with, which may be restart_syscall
  std::array<uint64_t, 6> args{};
  uint64_t instruction_end = 0;
  int64_t code = 0;  ///< the kernel's restart code; 0: there is none
};

/// One thread of a guest with its channel. The channel has one owner at a time, who alone reads it: the worker of
/// a call (in_call), the watcher (watcher_busy), the thread itself (in a direct
/// call), or the mover, once none of them has it. Others may shut it.
struct GuestThread {
  std::shared_ptr<Guest> guest;
  int tid = 0;                 ///< at home, and inside the sandbox
  int outer_tid = 0;           ///< as this node numbers it
  int slot = 0;                ///< of the agent at home
  UniqueFd channel;            ///< another takes its place under `mutex`, and by the owner only
  std::vector<uint8_t> inbox;  ///< received and not yet looked at; belongs to the channel's owner
  uint64_t cpu_before_ns = 0;  ///< processor time spent on other away nodes
  bool leaving = false;        ///< it is ending by itself; guarded by Guest::mutex
  /// Once it may call its deputy itself (direct_calls.cc). Stays as long as the thread.
  std::atomic<DirectPath*> direct{nullptr};
  std::unique_ptr<DirectPath> direct_owner;

  /// Held by whoever has the thread under ptrace.
  std::mutex tracer_mutex;
  /// The thread makes calls for the supervisor: its notifications are let through.
  std::atomic<bool> led{false};

  std::mutex mutex;  ///< guards what follows
  std::condition_variable changed;
  bool in_call = false;        ///< a worker owns the channel
  bool lends_channel = false;  ///< ... and does not need it: whoever makes himself watcher_busy may have it
  bool exchanging = false;     ///< ... and waits for the reply to `in_flight`
  bool watched = false;        ///< the channel watcher would hear of something on the channel
  /// Out of its call, and on the list of those to be watched if they stay out of calls
  bool resting = false;
  uint32_t calls = 0, calls_seen = 0;
  int looks = 0;  ///< at the same direct call
  /// The channel watcher owns the channel, or the worker of a sibling's call (hear_siblings)
  bool watcher_busy = false;
  /// Set by others while `exchanging`: a signal may be waiting at home that came behind the reply
  bool hear_first = false;
  uint32_t sequence = 0;   ///< of the last call that a worker has sent
  uint32_t in_flight = 0;  ///< of the call whose reply is waited for, while `exchanging`
  /// Number of the last signal that came over the channel; all are in our hands
  uint32_t signals_received = 0;
  std::vector<WaitingSignal> waiting;
  bool answered_restart = false;  ///< the last call that a worker answered was answered by a restart code
  bool interrupted = false;       ///< somebody has interrupted it by ptrace: restart codes may be answered
  /// Of a call with a time limit that is under way or made again, by home's clock. Of one whose limit no argument
  /// names: when it began (hidden_limits.cc).
  int64_t deadline_ns = 0;
  uint64_t deadline_call = 0;  ///< its number
  uint64_t moved_bytes =
      0;  ///< by a call that was broken off (partial_transfer.h), and goes on when it is made again
  std::atomic<uint64_t> home_ns{0};  ///< of the call that is traced: frames sent until replies received
  SleepAtHome sleep;                 ///< the last one
  BegunCall begun;
  /// Written under `mutex`, so that nobody who waits misses it; read by anybody.
  std::atomic<bool> ended{false};

  /// A signal waits that may be deliverable. `mutex` must be held.
  bool has_signal() const {
    for (const WaitingSignal& signal : waiting)
      if (!signal.parked) return true;
    return false;
  }
};

/// One process that lives here. What stands before `mutex` is set before others can find it, and stays.
struct Guest {
  int pid = 0;  ///< at home, and inside the sandbox
  int outer_pid = 0;
  UniqueFd pidfd;
  uint64_t window = 0;
  CodeRange vdso;
  uint64_t ring_base = 0, ring_bytes = 0;  ///< what home needs for its rings, reserved here
  uint32_t epoch = 0;
  uint8_t token[16] = {};
  std::string program;
  int listener = -1;                   ///< of the seccomp filter that its root process installed
  uint64_t cpu_before_ns[2] = {0, 0};  ///< user and system time spent on other away nodes

  std::mutex mutex;  ///< guards what follows
  std::condition_variable changed;
  std::map<int, std::shared_ptr<GuestThread>> threads;  ///< by tid
  std::set<int> slots;
  std::set<uint64_t> rest_pages;  ///< into which home's kernel can write, too
  std::atomic<uint32_t> moves_begun{0};
  std::atomic<bool> freezing{false};  ///< a move has begun: no new call, fork or exec
  std::atomic<bool> dropped{false};   ///< somebody is taking it out of the registry
  std::atomic<bool> gone{false};      ///< ... and it is out: whoever waits for its end need not any more
  std::atomic<bool> held{false};      ///< home is stopped by job control, as it has last said
  bool being_held = false;            ///< a thread of ours keeps those still that compute
  std::atomic<bool> ended{false};     ///< gone, or being killed by us: its death is no news
  std::atomic<bool> left{false};      ///< home has said that it is not here any more
  /// Memory that home still keeps, released once the move has proved itself
  std::vector<ReleaseRange> at_home;
  int busy = 0;  ///< forks and execs under way, which a freeze waits for

  std::atomic<bool> traced{false};  ///< by mostrace
  std::atomic<bool> trace_stacks{false};
  std::atomic<uint64_t> forwarded_calls{0};
  std::atomic<uint64_t> local_answers{0};
  /// On earlier visits, here or elsewhere; what its children spent goes on in `children`
  CpuFigures cpu_before;
  std::optional<CpuFigures> cpu_at_end;  ///< once it is reaped (mutex)
  CpuFigures children;                   ///< of children waited for while away; only those two fields (mutex)
  std::map<int, CpuFigures> ended_children;  ///< whose end home has yet to tell the guest, by pid (mutex)
  int parent_pid = 0;                        ///< for those that were forked here
  bool shares_memory = false;                ///< began by vfork
  std::atomic<bool> no_direct{false};        ///< this kernel may send it signals of its own
  std::atomic<bool> has_bound_descriptor{
      false};  ///< it may have: its calls have to be looked at (bound_files.h)
  std::atomic<bool> has_proc_descriptor{false};  ///< the same of what leads into /proc (proc_files.h)
  std::atomic<int> first_channel{-1};            ///< in its own table, if a thread has a direct path
  std::mutex batch_mutex;                        ///< of those who run a Batch while its other threads run

  std::shared_ptr<GuestThread> thread(int tid) {
    std::lock_guard lock(mutex);
    auto found = threads.find(tid);
    return found == threads.end() ? nullptr : found->second;
  }

  /// Any of these addresses is the agent's, here or at home, and no mapping of the guest's may be there.
  bool is_ours(uint64_t start, uint64_t bytes) const {
    return (start < window + kWindowBytes && start + bytes > window) ||
           (start < ring_base + ring_bytes && start + bytes > ring_base);
  }
};

/// Where the agent's code lies in it.
inline CodeRange agent_code(const Guest& guest) { return {guest.window, guest.window + kAgentCodeBytes}; }

}  // namespace mosix
