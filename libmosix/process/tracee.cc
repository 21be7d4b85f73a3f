#include "libmosix/process/tracee.h"

#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>

#include "libmosix/process/memory.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

uint64_t bit_of(int signal) { return 1ull << (signal - 1); }

/// Of what the kernel raises for an instruction, and takes before all other signals.
bool is_fault(const siginfo_t& info) {
  constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS};
  return info.si_code > 0 &&
         std::find(std::begin(kFaults), std::end(kFaults), info.si_signo) != std::end(kFaults);
}

constexpr int kGetRseqConfiguration = 0x420f;  // PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13
constexpr int kSyscallStop = SIGTRAP | 0x80;   // as PTRACE_O_TRACESYSGOOD marks it
constexpr int kDyingPolls = 200;

// __WNOTHREAD: a wait in the wrong thread fails instead of taking away a stop that another thread waits for.
constexpr int kWaitFlags = __WALL | __WNOTHREAD;

int64_t now_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/// Where a blocked waitpid would miss something, it is asked again and again. A stop usually comes within
/// microseconds, so the first rounds only give up the processor.
void pause_between_polls(int round) {
  if (round < 100) {
    sched_yield();
    return;
  }
  timespec pause{0, round < 300 ? 50'000 : 500'000};
  nanosleep(&pause, nullptr);
}

/// waitpid has no time limit of its own. Asking again and again costs whole time slices where processors are
/// busy, so it blocks, and a timer of this thread interrupts it: with a signal that means nothing else here,
/// and again every few milliseconds, in case the first one comes just before the call blocks.
class WaitLimit {
 public:
  WaitLimit() {
    static const bool handled = [] {
      struct sigaction action {};
      action.sa_handler = [](int) {};
      return sigaction(SIGRTMAX - 3, &action, nullptr) == 0;
    }();
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMAX - 3;
    event._sigev_un._tid = static_cast<int>(syscall(SYS_gettid));
    sigset_t blocked;
    usable_ = handled && pthread_sigmask(SIG_SETMASK, nullptr, &blocked) == 0 &&
              sigismember(&blocked, SIGRTMAX - 3) == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  }
  WaitLimit(const WaitLimit&) = delete;
  WaitLimit& operator=(const WaitLimit&) = delete;
  ~WaitLimit() {
    if (usable_) timer_delete(timer_);
  }
  /// False: there is no timer to be had.
  bool start(int64_t us) {
    constexpr long kAgainNs = 5'000'000;
    us = us > 0 ? us : 1;
    itimerspec when{{0, kAgainNs}, {us / 1000000, us % 1000000 * 1000}};
    return usable_ && timer_settime(timer_, 0, &when, nullptr) == 0;
  }
  void stop() {
    itimerspec never{};
    timer_settime(timer_, 0, &never, nullptr);
  }

 private:
  timer_t timer_{};
  bool usable_ = false;
};

/// ptrace(2) through syscall(2): glibc's wrapper hides results of PEEK requests that we do not use, and its
/// enum argument does not know all requests.
long ptrace_call(int request, int tid, uint64_t address, uint64_t data) {
  return syscall(SYS_ptrace, request, tid, address, data);
}

template <class T>
uint64_t pointer(T* object) {
  return reinterpret_cast<uint64_t>(object);
}

tl::unexpected<Error> fail_ptrace(const char* operation, int tid) {
  return fail_errno(std::string(operation) + " thread " + std::to_string(tid));
}

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), "0x%lx", value);
  return text;
}

}  // namespace

std::string StopInfo::text() const {
  switch (kind) {
    case StopKind::kInterrupt:
      return "interrupted";
    case StopKind::kGroupStop:
      return "stopped by signal " + std::to_string(signal);
    case StopKind::kSignal:
      return "signal " + std::to_string(signal) + " (code " + std::to_string(siginfo.si_code) + ", address " +
             hex(pointer(siginfo.si_addr)) + ")";
    case StopKind::kSyscall:
      return "at a system call";
    case StopKind::kExec:
      return "executes a program";
    case StopKind::kFork:
      return "made process " + std::to_string(message);
    case StopKind::kVforkDone:
      return "vfork done";
    case StopKind::kExiting:
      return "about to exit";
    case StopKind::kSeccomp:
      return "seccomp stop";
    case StopKind::kExited:
      return "exited with status " + std::to_string(exit_status);
    case StopKind::kKilled:
      return "killed by signal " + std::to_string(signal);
  }
  return "?";
}

Result<std::optional<RawStop>> wait_any(bool block) {
  for (;;) {
    int status = 0;
    int tid = waitpid(-1, &status, kWaitFlags | (block ? 0 : WNOHANG));
    if (tid > 0) return RawStop{tid, status};
    if (tid == 0) return std::optional<RawStop>();
    if (errno != EINTR) return fail_errno("wait for tracees");
  }
}

// --- attachment ------------------------------------------------------------------------------------

Tracee::Tracee(int tid, int tgid, unsigned long options)
    : tid_(tid), tgid_(tgid), options_(options), attached_(true) {}

Tracee::Tracee(Tracee&& other) noexcept
    : tid_(other.tid_),
      tgid_(other.tgid_),
      options_(other.options_),
      attached_(std::exchange(other.attached_, false)),
      stopped_(std::exchange(other.stopped_, false)),
      last_stop_(other.last_stop_),
      mask_before_trap_(other.mask_before_trap_) {}

Tracee& Tracee::operator=(Tracee&& other) noexcept {
  if (this == &other) return *this;
  this->~Tracee();
  return *new (this) Tracee(std::move(other));
}

Tracee::~Tracee() {
  if (!attached_) return;
  if (!stopped_ && (!interrupt() || !wait_stop(1000))) return;
  bool pending = last_stop_.kind == StopKind::kSignal && last_stop_.signal != SIGTRAP;
  if (attached_) (void)detach(pending ? last_stop_.signal : 0);
}

Result<Tracee> Tracee::seize(int tid, unsigned long options) {
  options |= PTRACE_O_TRACESYSGOOD;
  if (ptrace_call(PTRACE_SEIZE, tid, 0, options) != 0) return fail_ptrace("seize", tid);
  return adopt(tid, options);
}

Tracee Tracee::adopt(int tid, unsigned long options) {
  Result<ProcStatus> status = read_status_fields(tid);
  return Tracee(tid, status ? status->tgid : tid, options | PTRACE_O_TRACESYSGOOD);
}

Status Tracee::request(int request, int signal, const char* name) {
  if (ptrace_call(request, tid_, 0, static_cast<uint64_t>(signal)) != 0) {
    int code = errno;
    if (code == ESRCH) stopped_ = false;  // killed under our hands: its end is what comes next
    return fail(code, std::string(name) + " thread " + std::to_string(tid_));
  }
  stopped_ = false;
  return {};
}

Status Tracee::resume(int signal) { return request(PTRACE_CONT, signal, "resume"); }
Status Tracee::step(int signal) { return request(PTRACE_SINGLESTEP, signal, "step"); }
Status Tracee::resume_to_syscall(int signal) { return request(PTRACE_SYSCALL, signal, "resume"); }
Status Tracee::listen() { return request(PTRACE_LISTEN, 0, "listen to"); }

Status Tracee::interrupt() {
  if (ptrace_call(PTRACE_INTERRUPT, tid_, 0, 0) != 0) return fail_ptrace("interrupt", tid_);
  return {};
}

Status Tracee::detach(int signal) {
  Status detached = request(PTRACE_DETACH, signal, "detach");
  if (detached || detached.error().code != ESRCH || !attached_) {
    if (detached) attached_ = false;
    return detached;
  }
  // It was killed while it stood. Until its tracer has waited for it, its parent does not hear of its death.
  for (int round = 0; round < kDyingPolls && attached_; ++round) {
    Result<std::optional<StopInfo>> stop = poll_stop();
    if (!stop) attached_ = false;
    pause_between_polls(round);
  }
  attached_ = false;
  return {};
}

void Tracee::forget() { attached_ = stopped_ = false; }

Status Tracee::set_options(unsigned long options) {
  options |= PTRACE_O_TRACESYSGOOD;
  if (ptrace_call(PTRACE_SETOPTIONS, tid_, 0, options) != 0) return fail_ptrace("set trace options of", tid_);
  options_ = options;
  return {};
}

// --- waiting ---------------------------------------------------------------------------------------

/// A wait status, or nothing yet. ECHILD is "gone": the thread ended as part of somebody's execve.
Result<std::optional<int>> Tracee::look(bool block, int64_t until_us) {
  for (;;) {
    int status = 0;
    int got = waitpid(tid_, &status, kWaitFlags | (block ? 0 : WNOHANG));
    if (got == tid_) return status;
    if (got == 0) break;
    if (errno == EINTR && until_us != 0 && now_us() >= until_us) return std::optional<int>();
    if (errno == EINTR) continue;
    if (errno != ECHILD || tid_ == tgid_ || !(options_ & PTRACE_O_TRACEEXEC)) {
      int code = errno;
      if (code == ECHILD) attached_ = stopped_ = false;
      return fail(code == ECHILD ? ESRCH : code, "wait for thread " + std::to_string(tid_));
    }
    break;
  }
  if (tid_ == tgid_ || !(options_ & PTRACE_O_TRACEEXEC)) return std::optional<int>();
  // After its execve this thread bears the leader's number. Look without taking: other stops there are the
  // leader's.
  siginfo_t info{};
  constexpr int kExecStatus = SIGTRAP | (PTRACE_EVENT_EXEC << 8);
  if (waitid(P_PID, static_cast<id_t>(tgid_), &info, WSTOPPED | WEXITED | WNOWAIT | WNOHANG | kWaitFlags) !=
          0 ||
      info.si_pid != tgid_ || info.si_code != CLD_TRAPPED || info.si_status != kExecStatus)
    return std::optional<int>();
  tid_ = tgid_;
  return look(false);
}

StopInfo Tracee::accept(int wait_status) {
  StopInfo stop;
  stop.tid = tid_;
  stop.wait_status = wait_status;
  if (WIFEXITED(wait_status) || WIFSIGNALED(wait_status)) {
    attached_ = stopped_ = false;
    stop.kind = WIFEXITED(wait_status) ? StopKind::kExited : StopKind::kKilled;
    (WIFEXITED(wait_status) ? stop.exit_status : stop.signal) =
        WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status);
    return last_stop_ = stop;
  }
  stopped_ = true;
  stop.signal = WSTOPSIG(wait_status);
  stop.event = wait_status >> 16;
  switch (stop.event) {
    case 0:
      stop.kind = stop.signal == kSyscallStop ? StopKind::kSyscall : StopKind::kSignal;
      break;
    case PTRACE_EVENT_STOP:
      stop.kind = stop.signal == SIGTRAP ? StopKind::kInterrupt : StopKind::kGroupStop;
      break;
    case PTRACE_EVENT_EXEC:
      stop.kind = StopKind::kExec;
      break;
    case PTRACE_EVENT_VFORK_DONE:
      stop.kind = StopKind::kVforkDone;
      break;
    case PTRACE_EVENT_EXIT:
      stop.kind = StopKind::kExiting;
      break;
    case PTRACE_EVENT_SECCOMP:
      stop.kind = StopKind::kSeccomp;
      break;
    default:
      stop.kind = StopKind::kFork;
      break;
  }
  if (stop.kind != StopKind::kSignal && stop.kind != StopKind::kGroupStop) stop.signal = 0;
  // Both can fail only because SIGKILL has come in between; the next wait then tells of the end.
  if (stop.event != 0 && stop.event != PTRACE_EVENT_STOP)
    ptrace_call(PTRACE_GETEVENTMSG, tid_, 0, pointer(&stop.message));
  if (stop.kind == StopKind::kSignal) ptrace_call(PTRACE_GETSIGINFO, tid_, 0, pointer(&stop.siginfo));
  return last_stop_ = stop;
}

Result<StopInfo> Tracee::wait_stop(int timeout_ms) {
  if (!attached_) return fail(ESRCH, "wait for thread " + std::to_string(tid_) + ", which is not traced");
  // A blocked waitpid(tid) would not be woken by the exec stop of a thread that has changed its number.
  bool may_change_number = tid_ != tgid_ && (options_ & PTRACE_O_TRACEEXEC) != 0;
  bool block = timeout_ms < 0 && !may_change_number;
  int64_t deadline = now_us() + int64_t{timeout_ms} * 1000;
  if (timeout_ms > 0 && !may_change_number) {
    TRY(std::optional<int> status, look(false));
    thread_local WaitLimit limit;
    if (!status && limit.start(int64_t{timeout_ms} * 1000)) {
      Result<std::optional<int>> waited = look(true, deadline);
      limit.stop();
      TRY(status, std::move(waited));
    }
    if (status) return accept(*status);
  }
  for (int round = 0;; ++round) {
    TRY(std::optional<int> status, look(block));
    if (status) return accept(*status);
    if (timeout_ms >= 0 && now_us() >= deadline)
      return fail(ETIMEDOUT, "thread " + std::to_string(tid_) + " does not stop");
    pause_between_polls(round);
  }
}

Result<std::optional<StopInfo>> Tracee::poll_stop() {
  if (!attached_) return fail(ESRCH, "wait for thread " + std::to_string(tid_) + ", which is not traced");
  TRY(std::optional<int> status, look(false));
  if (!status) return std::optional<StopInfo>();
  return std::optional<StopInfo>(accept(*status));
}

Result<StopInfo> Tracee::settle(int timeout_ms) {
  int64_t deadline = now_us() + int64_t{timeout_ms} * 1000;
  for (;;) {
    auto left_ms = static_cast<int>(std::max<int64_t>((deadline - now_us()) / 1000, 0));
    TRY(StopInfo stop, wait_stop(left_ms));
    if (stop.gone() || stop.kind == StopKind::kGroupStop) return stop;
    if (stop.kind == StopKind::kInterrupt) {
      TRY(bool fault, has_pending_fault());
      if (!fault) return stop;
      // Resumed, it stops with that, before its next instruction.
    } else {
      // Any stop takes an interrupt that was asked for back.
      TRY_VOID(interrupt());
    }
    Status resumed = resume(stop.kind == StopKind::kSignal ? stop.signal : 0);
    if (!resumed && resumed.error().code != ESRCH) return fail(std::move(resumed.error()));
  }
}

// --- state -----------------------------------------------------------------------------------------

Result<user_regs_struct> Tracee::registers() const {
  user_regs_struct registers{};
  iovec piece{&registers, sizeof(registers)};
  if (ptrace_call(PTRACE_GETREGSET, tid_, NT_PRSTATUS, pointer(&piece)) != 0)
    return fail_ptrace("read registers of", tid_);
  if (piece.iov_len != sizeof(registers))
    return fail(ENOEXEC, "thread " + std::to_string(tid_) + " is not 64-bit");
  return registers;
}

Status Tracee::set_registers(const user_regs_struct& registers) {
  iovec piece{const_cast<user_regs_struct*>(&registers), sizeof(registers)};
  if (ptrace_call(PTRACE_SETREGSET, tid_, NT_PRSTATUS, pointer(&piece)) != 0)
    return fail_ptrace("set registers of", tid_);
  return {};
}

Result<std::vector<std::byte>> Tracee::xstate() const {
  std::vector<std::byte> image(32 << 10);  // AVX-512 takes 2.6 KiB, AMX 11 KiB
  iovec piece{image.data(), image.size()};
  if (ptrace_call(PTRACE_GETREGSET, tid_, NT_X86_XSTATE, pointer(&piece)) != 0)
    return fail_ptrace("read extended registers of", tid_);
  if (piece.iov_len == image.size())
    return fail(E2BIG, "extended registers of thread " + std::to_string(tid_));
  image.resize(piece.iov_len);
  return image;
}

Status Tracee::set_xstate(const std::vector<std::byte>& image) {
  iovec piece{const_cast<std::byte*>(image.data()), image.size()};
  if (ptrace_call(PTRACE_SETREGSET, tid_, NT_X86_XSTATE, pointer(&piece)) != 0)
    return fail_ptrace("set extended registers of", tid_);
  return {};
}

Result<uint64_t> Tracee::signal_mask() const {
  uint64_t mask = 0;
  if (ptrace_call(PTRACE_GETSIGMASK, tid_, sizeof(mask), pointer(&mask)) != 0)
    return fail_ptrace("read signal mask of", tid_);
  return mask;
}

Status Tracee::set_signal_mask(uint64_t mask) {
  if (ptrace_call(PTRACE_SETSIGMASK, tid_, sizeof(mask), pointer(&mask)) != 0)
    return fail_ptrace("set signal mask of", tid_);
  return {};
}

Result<siginfo_t> Tracee::siginfo() const {
  siginfo_t info{};
  if (ptrace_call(PTRACE_GETSIGINFO, tid_, 0, pointer(&info)) != 0)
    return fail_ptrace("read signal of", tid_);
  return info;
}

Status Tracee::set_siginfo(const siginfo_t& info) {
  if (ptrace_call(PTRACE_SETSIGINFO, tid_, 0, pointer(&info)) != 0) return fail_ptrace("set signal of", tid_);
  return {};
}

Result<bool> Tracee::has_pending_fault() const {
  TRY(std::vector<siginfo_t> pending, peek_signals(false));
  if (pending.empty()) return false;
  TRY(uint64_t mask, signal_mask());
  return std::any_of(pending.begin(), pending.end(), [mask](const siginfo_t& info) {
    return is_fault(info) && (mask & bit_of(info.si_signo)) == 0;
  });
}

Result<std::vector<siginfo_t>> Tracee::peek_signals(bool shared) const {
  std::vector<siginfo_t> signals;
  for (;;) {
    siginfo_t block[16];
    static_assert(PTRACE_PEEKSIGINFO_SHARED == 1);
    __ptrace_peeksiginfo_args which{signals.size(), shared ? 1u : 0u, 16};
    long count = ptrace_call(PTRACE_PEEKSIGINFO, tid_, pointer(&which), pointer(block));
    if (count < 0) return fail_ptrace("read pending signals of", tid_);
    if (count == 0) return signals;
    signals.insert(signals.end(), block, block + count);
  }
}

Result<RseqConfiguration> Tracee::rseq_configuration() const {
  RseqConfiguration configuration;
  if (ptrace_call(kGetRseqConfiguration, tid_, sizeof(configuration), pointer(&configuration)) < 0)
    return fail_ptrace("read rseq configuration of", tid_);
  return configuration;
}

Result<std::pair<uint64_t, uint64_t>> Tracee::robust_list() const {
  uint64_t head = 0, bytes = 0;
  if (syscall(SYS_get_robust_list, tid_, &head, &bytes) != 0) return fail_ptrace("read robust list of", tid_);
  return std::pair(head, bytes);
}

Status Tracee::abort_rseq_section() {
  struct Section {  // struct rseq_cs
    uint32_t version;
    uint32_t flags;
    uint64_t start;
    uint64_t bytes;
    uint64_t abort;
  } section{};
  constexpr uint64_t kSectionPointer = 8;  // offset of rseq_cs in struct rseq
  TRY(RseqConfiguration configuration, rseq_configuration());
  if (configuration.address == 0) return {};
  uint64_t section_address = 0;
  TRY_VOID(
      read_memory(tid_, configuration.address + kSectionPointer, &section_address, sizeof(section_address)));
  if (section_address == 0) return {};
  // The pointer may be old (it is cleared late and lazily), then what it points to may even be unmapped.
  if (!read_memory(tid_, section_address, &section, sizeof(section))) return {};
  TRY(user_regs_struct registers, registers());
  if (registers.rip - section.start >= section.bytes) return {};
  registers.rip = section.abort;
  TRY_VOID(set_registers(registers));
  uint64_t none = 0;
  return write_memory(tid_, configuration.address + kSectionPointer, &none, sizeof(none));
}

// --- code of ours in the stopped thread ------------------------------------------------------------

namespace {

constexpr uint64_t kAllSignals = ~0ull;
constexpr uint64_t kTrapSignal = 1ull << (SIGTRAP - 1);

/// Signals that no mask holds back and that came while our code ran: given again to the process, behind our
/// back.
void send_again(int tgid, int tid, std::vector<int>& held) {
  for (int signal : held) {
    if (signal == SIGSTOP)
      kill(tgid, signal);  // stops the process, whichever thread takes it
    else
      syscall(SYS_tgkill, tgid, tid, signal);
  }
  held.clear();
}

}  // namespace

Result<long> Tracee::inject_syscall(uint64_t site, long number, uint64_t a0, uint64_t a1, uint64_t a2,
                                    uint64_t a3, uint64_t a4, uint64_t a5) {
  TRY(CallInjector injector, CallInjector::begin(*this, site));
  Result<long> result = injector.call(number, a0, a1, a2, a3, a4, a5);
  TRY_VOID(injector.finish());
  return result;
}

Result<user_regs_struct> Tracee::run_to_trap(const user_regs_struct& registers) {
  TRY_VOID(start_to_trap(registers));
  return finish_to_trap();
}

Status Tracee::start_to_trap(const user_regs_struct& registers) {
  TRY_VOID(abort_rseq_section());
  TRY(mask_before_trap_, signal_mask());
  TRY_VOID(set_signal_mask(kAllSignals & ~kTrapSignal));
  user_regs_struct start = registers;
  start.orig_rax = ~0ull;  // else the kernel would take our rax for the result of the call it interrupted
  TRY_VOID(set_registers(start));
  return resume();
}

Result<user_regs_struct> Tracee::finish_to_trap() {
  std::vector<int> held;
  for (;;) {
    TRY(StopInfo stop, wait_stop());
    if (stop.gone()) return fail(ESRCH, "thread " + std::to_string(tid_) + " " + stop.text());
    bool signal = stop.kind == StopKind::kSignal;
    bool ours = signal && stop.signal == SIGTRAP && stop.siginfo.si_code > 0;
    if (ours) break;
    if (signal && is_fault(stop.siginfo)) {
      // Linux takes the oldest of all faults when any of them may be taken, also one that is blocked (no such signal is
      // ours: a fault of our code would have unblocked it). Given back, it goes to the end of the queue.
      TRY(uint64_t mask, signal_mask());
      if ((mask & bit_of(stop.signal)) != 0) {
        TRY_VOID(resume(stop.signal));
        continue;
      }
      (void)set_signal_mask(mask_before_trap_);
      Result<user_regs_struct> at = this->registers();
      return fail(EFAULT, "thread " + std::to_string(tid_) + " got " + stop.text() + " at instruction " +
                              hex(at ? at->rip : 0));
    }
    if (signal) held.push_back(stop.signal);
    TRY_VOID(resume());
  }
  TRY_VOID(set_signal_mask(mask_before_trap_));
  send_again(tgid_, tid_, held);
  return this->registers();
}

Result<CallInjector> CallInjector::begin(Tracee& tracee, uint64_t site) {
  const StopInfo& stop = tracee.last_stop();
  bool delivering = stop.kind == StopKind::kSignal && stop.signal != SIGTRAP;
  if (!tracee.stopped() || stop.kind == StopKind::kSyscall || delivering)
    return fail(EINVAL, "thread " + std::to_string(tracee.tid()) +
                            " is not in a stop that calls can be made from: " + stop.text());
  CallInjector injector(tracee, site);
  TRY_VOID(tracee.abort_rseq_section());
  TRY(injector.saved_registers_, tracee.registers());
  TRY(injector.saved_mask_, tracee.signal_mask());
  return injector;
}

CallInjector::CallInjector(CallInjector&& other) noexcept
    : tracee_(std::exchange(other.tracee_, nullptr)),
      site_(other.site_),
      saved_registers_(other.saved_registers_),
      saved_mask_(other.saved_mask_),
      held_signals_(std::move(other.held_signals_)),
      dirty_(std::exchange(other.dirty_, false)) {}

CallInjector::~CallInjector() {
  if (tracee_ != nullptr) (void)finish();
}

Status CallInjector::run_to_syscall_stop() {
  for (;;) {
    TRY_VOID(tracee_->resume_to_syscall());
    TRY(StopInfo stop, tracee_->wait_stop());
    if (stop.kind == StopKind::kSyscall) return {};
    if (stop.gone()) return fail(ESRCH, "thread " + std::to_string(tracee_->tid()) + " " + stop.text());
    if (stop.kind == StopKind::kSignal) held_signals_.push_back(stop.signal);
  }
}

Result<long> CallInjector::call(long number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                                uint64_t a5) {
  if (!dirty_) TRY_VOID(tracee_->set_signal_mask(kAllSignals));
  dirty_ = true;
  user_regs_struct r = saved_registers_;
  r.rip = site_;
  r.orig_rax = ~0ull;
  r.rax = static_cast<unsigned long long>(number);
  r.rdi = a0, r.rsi = a1, r.rdx = a2, r.r10 = a3, r.r8 = a4, r.r9 = a5;
  TRY_VOID(tracee_->set_registers(r));
  TRY_VOID(run_to_syscall_stop());  // entry
  TRY_VOID(run_to_syscall_stop());  // exit
  TRY(r, tracee_->registers());
  return static_cast<long>(r.rax);
}

Status CallInjector::restore() {
  TRY_VOID(tracee_->set_registers(saved_registers_));
  return tracee_->set_signal_mask(saved_mask_);
}

/// The thread stands at the exit of our last call. Resumed from here with rax = -ERESTART* and no signal
/// pending, it would show that number to the program: only the kernel's signal code turns it into a restart.
/// The interrupt leads it there; it is looked at before any signal is, and no instruction of the program runs
/// in between.
Status CallInjector::settle() {
  TRY_VOID(tracee_->set_registers(saved_registers_));
  for (;;) {
    TRY_VOID(tracee_->interrupt());
    TRY_VOID(tracee_->resume());
    TRY(StopInfo stop, tracee_->wait_stop());
    if (stop.gone()) return fail(ESRCH, "thread " + std::to_string(tracee_->tid()) + " " + stop.text());
    if (stop.kind == StopKind::kInterrupt || stop.kind == StopKind::kGroupStop) return {};
    if (stop.kind == StopKind::kSignal) held_signals_.push_back(stop.signal);
  }
}

Status CallInjector::finish() {
  if (tracee_ == nullptr) return {};
  Status done = dirty_ ? settle() : Status();
  if (done) done = restore();
  send_again(tracee_->tgid_, tracee_->tid_, held_signals_);
  tracee_ = nullptr;
  return done;
}

}  // namespace mosix
