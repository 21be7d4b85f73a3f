// One traced thread, and a whole process stopped by us. Used by the custodian at home and by the supervisor
// away.
//
// The kernel's rules that shape this: a tracer is a THREAD, so every call on a Tracee comes from the thread
// that seized it (others get ESRCH); a tracee can be asked anything only while it is in a ptrace stop; a
// tracee that is not stopped cannot be detached, only the end of the tracer thread frees it. We always SEIZE,
// never ATTACH: no SIGSTOP is sent, group stops are visible, and nothing that the program can see changes
// except TracerPid.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

enum class StopKind {
  kInterrupt,  ///< PTRACE_EVENT_STOP with SIGTRAP: our interrupt, the end of a group stop, or a new
               ///< auto-seized child
  kGroupStop,  ///< PTRACE_EVENT_STOP with a stop signal: the process is stopped by job control
  kSignal,   ///< signal-delivery stop: `signal` and `siginfo`; resume(signal) delivers it, resume(0) drops it
  kSyscall,  ///< entry to or exit from a system call (only after resume_to_syscall)
  kExec,     ///< PTRACE_EVENT_EXEC: message is the former tid
  kFork,     ///< PTRACE_EVENT_FORK, _VFORK or _CLONE: message is the new pid; `event` says which
  kVforkDone,
  kExiting,  ///< PTRACE_EVENT_EXIT: message is the wait status to come
  kSeccomp,
  kExited,  ///< gone by itself; `exit_status`; the Tracee is detached
  kKilled,  ///< gone by `signal`; the Tracee is detached
};

struct StopInfo {
  StopKind kind = StopKind::kInterrupt;
  int tid = 0;
  int signal = 0;        ///< kSignal, kGroupStop, kKilled
  int event = 0;         ///< PTRACE_EVENT_* or 0
  uint64_t message = 0;  ///< PTRACE_GETEVENTMSG where the kind says so
  int exit_status = 0;   ///< kExited
  int wait_status = 0;   ///< as waitpid gave it
  siginfo_t siginfo{};   ///< kSignal
  bool gone() const { return kind == StopKind::kExited || kind == StopKind::kKilled; }
  /// For error messages: "signal 11 at 0x0", "group stop".
  std::string text() const;
};

/// PTRACE_GET_RSEQ_CONFIGURATION; address 0 when the thread has registered none.
struct RseqConfiguration {
  uint64_t address = 0;
  uint32_t bytes = 0;
  uint32_t signature = 0;
  uint32_t flags = 0;
  uint32_t reserved = 0;
};

/// What wait_any found.
struct RawStop {
  int tid = 0;
  int wait_status = 0;
};
/// The next stop or end of any tracee (or child) of the calling thread, for a loop that serves many: look the
/// Tracee up and let it accept the status. Nothing: none now (not blocking). ECHILD: there is nobody to wait
/// for.
Result<std::optional<RawStop>> wait_any(bool block);

/// Owner of one ptrace attachment. Move-only. The destructor detaches, delivering the signal that the last
/// stop may have announced; a thread that is not stopped then is interrupted first and waited for at most one
/// second. A thread other than the leader that executes a program goes on as the leader: if
/// PTRACE_O_TRACEEXEC is set, wait_stop finds that stop and tid() changes. The Tracees of the other threads
/// of that process: forget() them.
class Tracee {
 public:
  /// PTRACE_SEIZE; the thread keeps running. `options`: PTRACE_O_*; TRACESYSGOOD is always added.
  /// EPERM: somebody else traces it, or it is not ours, or it is a zombie. ESRCH: gone.
  static Result<Tracee> seize(int tid, unsigned long options = 0);
  /// Takes over a child that the kernel attached by itself (PTRACE_O_TRACECLONE and so on); wait_stop next.
  static Tracee adopt(int tid, unsigned long options = 0);

  Tracee(Tracee&& other) noexcept;
  Tracee& operator=(Tracee&& other) noexcept;
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;
  ~Tracee();

  int tid() const { return tid_; }
  bool attached() const { return attached_; }
  bool stopped() const { return stopped_; }
  const StopInfo& last_stop() const { return last_stop_; }

  Status interrupt();
  /// Waits for the next stop or the end. timeout_ms < 0: for ever; else ETIMEDOUT.
  Result<StopInfo> wait_stop(int timeout_ms = -1);
  /// What is there already, or nothing.
  Result<std::optional<StopInfo>> poll_stop();
  /// After interrupt(): until the thread stands in an interrupt or group stop with no fault of its own pending, or is
  /// gone. Signals that are being delivered, and a fault that the interrupt has overtaken, go to the program first.
  Result<StopInfo> settle(int timeout_ms);
  /// Books a wait status that wait_any took for this tracee.
  StopInfo accept(int wait_status);

  Status resume(int signal = 0);             ///< PTRACE_CONT
  Status step(int signal = 0);               ///< PTRACE_SINGLESTEP
  Status resume_to_syscall(int signal = 0);  ///< PTRACE_SYSCALL
  Status listen();                           ///< PTRACE_LISTEN: stay in the group stop, but hear of its end
  Status detach(int signal = 0);
  /// Gives the attachment up without detaching (the caller knows that the thread is gone or another owner has
  /// it).
  void forget();

  Status set_options(unsigned long options);

  Result<user_regs_struct> registers() const;
  Status set_registers(const user_regs_struct& registers);
  /// NT_X86_XSTATE: the xsave image in standard form.
  Result<std::vector<std::byte>> xstate() const;
  Status set_xstate(const std::vector<std::byte>& image);
  /// The blocked signals, bit (signal - 1). In sigsuspend and its like: the mask to come back to.
  Result<uint64_t> signal_mask() const;
  Status set_signal_mask(uint64_t mask);
  Result<siginfo_t> siginfo() const;
  Status set_siginfo(const siginfo_t& info);
  /// Signals waiting for this thread (or, shared, for its process), without taking them.
  Result<std::vector<siginfo_t>> peek_signals(bool shared) const;
  /// The program has just faulted (or met int3), and has not been told yet.
  Result<bool> has_pending_fault() const;
  Result<RseqConfiguration> rseq_configuration() const;
  /// get_robust_list: head address and length.
  Result<std::pair<uint64_t, uint64_t>> robust_list() const;
  /// If the thread stands inside a restartable sequence, moves it to that sequence's abort address, as a
  /// preemption would have. Must come before its instruction pointer is moved by us: the kernel drops the
  /// sequence as soon as it sees the thread elsewhere, and it would then go on half way.
  Status abort_rseq_section();

  /// Makes one system call in the stopped thread from the `syscall` instruction at `site` and restores
  /// registers and signal mask. Result: what the kernel returned, errors as -errno. See CallInjector for
  /// several.
  Result<long> inject_syscall(uint64_t site, long number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0,
                              uint64_t a3 = 0, uint64_t a4 = 0, uint64_t a5 = 0);
  /// Sets `registers` (orig_rax is forced to -1) and runs until an int3 is executed. Signals are blocked
  /// meanwhile (all but SIGTRAP) and stay pending; the mask is restored at the end, the registers are left as
  /// the code left them. EFAULT-like errors: the code raised another synchronous signal; the thread stands
  /// there, stopped. The kernel sets an ignored SIGTRAP to default when int3 raises it: the caller, who knows
  /// the actions, restores it.
  Result<user_regs_struct> run_to_trap(const user_regs_struct& registers);
  /// The two halves of that, so that several threads can run at a time. Nothing else may be done with the thread
  /// between them.
  Status start_to_trap(const user_regs_struct& registers);
  Result<user_regs_struct> finish_to_trap();

 private:
  friend class CallInjector;
  Tracee(int tid, int tgid, unsigned long options);
  Status request(int request, int signal, const char* name);
  /// `until_us`: a blocking look that is interrupted then has seen nothing.
  Result<std::optional<int>> look(bool block, int64_t until_us = 0);
  int tid_ = 0;
  int tgid_ = 0;
  unsigned long options_ = 0;
  bool attached_ = false;
  bool stopped_ = false;
  StopInfo last_stop_{};
  uint64_t mask_before_trap_ = 0;
};

/// Several system calls in one stopped thread, with its registers and mask put back at the end. All signals
/// are blocked meanwhile, so none of the program's handlers can run on our registers; those that come stay
/// pending. Uses syscall-entry and -exit stops, not single steps: a step ends in a forced SIGTRAP, and
/// forcing resets the action of a blocked or ignored SIGTRAP, which the program would notice.
class CallInjector {
 public:
  /// The tracee must be stopped and outlive this.
  static Result<CallInjector> begin(Tracee& tracee, uint64_t site);
  CallInjector(CallInjector&& other) noexcept;
  CallInjector& operator=(CallInjector&&) = delete;
  ~CallInjector();  ///< finish(), its error dropped

  Result<long> call(long number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0, uint64_t a3 = 0,
                    uint64_t a4 = 0, uint64_t a5 = 0);
  /// Restores, and leaves the thread in an interrupt stop inside the kernel's signal code, so that a call
  /// that was interrupted (rax = -ERESTART*) is restarted by the kernel when the thread is resumed, as it
  /// would have been.
  Status finish();
  /// The registers that finish() will restore; may be changed.
  user_regs_struct& saved_registers() { return saved_registers_; }

 private:
  CallInjector(Tracee& tracee, uint64_t site) : tracee_(&tracee), site_(site) {}
  Status run_to_syscall_stop();
  Status settle();
  Status restore();
  Tracee* tracee_;
  uint64_t site_;
  user_regs_struct saved_registers_{};
  uint64_t saved_mask_ = 0;
  std::vector<int> held_signals_;
  bool dirty_ = false;  ///< at least one call was made
};

/// A process whose threads all stand in an interrupt or group stop of ours.
struct StoppedProcess {
  int pid = 0;
  std::vector<Tracee> threads;  ///< the leader first, unless it has ended
  bool leader_ended = false;    ///< the leader thread is a zombie and cannot be traced; the others live
  int stop_signal = 0;  ///< job control had (or has meanwhile) stopped the process by this signal; 0: it ran
  StoppedProcess() = default;
  StoppedProcess(StoppedProcess&&) noexcept = default;
  StoppedProcess& operator=(StoppedProcess&&) noexcept = default;
  ~StoppedProcess();  ///< detach_all()
  Tracee* find(int tid);
  /// Lets all go on, the leader last. Signals are not touched.
  Status detach_all();
};

/// Seizes and interrupts every thread of `pid` until no new one appears. Signals that were on their way are
/// delivered (nothing is lost), threads that end meanwhile are forgotten. ESRCH: the process has ended.
/// EPERM: it is traced or not ours. ETIMEDOUT: a thread does not stop, as in the middle of vfork or in an
/// unanswered notification; then the calling THREAD must end before long, for only that frees a thread which
/// is seized and does not stop (see above).
Result<StoppedProcess> stop_quietly(int pid, int timeout_ms = 2000, unsigned long options = 0);

}  // namespace mosix
