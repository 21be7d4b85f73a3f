// Stopping, driving and letting go of real processes, dynamic and static: whatever we do to them, they must
// notice nothing, and no signal may be lost.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <elf.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "libmosix/process/memory.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/syscall_site.h"
#include "libmosix/process/tracee.h"
#include "tests/unit/process_child.h"

using namespace mosix;

namespace {

const char* const kTargets[] = {PROCESS_TARGET, PROCESS_TARGET_STATIC};

char state_of(int pid) {
  auto stat = read_proc_stat(pid);
  return stat ? stat->state : '?';
}

/// Until /proc shows that state; ten seconds at most.
bool reaches_state(int pid, char state) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (state_of(pid) != state && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return state_of(pid) == state;
}

bool equal(const user_regs_struct& a, const user_regs_struct& b) { return memcmp(&a, &b, sizeof(a)) == 0; }

/// Sends queued signals with the values 1, 2, ... to a process from a thread of its own until told to stop.
class SignalSender {
 public:
  explicit SignalSender(int pid)
      : thread_([this, pid] {
          while (!stop_) {
            sigval value{};
            value.sival_int = static_cast<int>(sent_ + 1);
            if (sigqueue(pid, SIGRTMIN + 1, value) == 0) ++sent_;
            if (sent_ % 8 == 0) std::this_thread::yield();
          }
        }) {}
  ~SignalSender() { stop(); }
  long stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return sent_;
  }
  long sent() const { return sent_; }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<long> sent_{0};
  std::thread thread_;
};

/// Asks the target until it has handled all of them (delivery takes a moment); the sum shows that each came
/// once.
void check_all_arrived(Child& child, long sent) {
  std::string expected = std::to_string(sent) + " " + std::to_string(sent * (sent + 1) / 2), got;
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  do {
    child.say("?\n");
    got = child.hear();
  } while (got != expected && std::chrono::steady_clock::now() < deadline);
  CHECK(got == expected);
}

/// Maps room for code of ours in the tracee, and puts it there.
uint64_t place_code(Tracee& tracee, int pid, uint64_t site, std::initializer_list<unsigned char> code) {
  auto page = tracee.inject_syscall(site, SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                    MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0);
  REQUIRE(*page > 0);
  auto at = static_cast<uint64_t>(*page);
  REQUIRE(write_memory(pid, at, std::data(code), code.size()));
  return at;
}

constexpr long kSignalsWanted = 300;

}  // namespace

TEST_CASE("one thread: seized, looked at, let go") {
  Child child({PROCESS_TARGET, "signals"});
  child.hear();
  auto tracee = Tracee::seize(child.pid());
  REQUIRE(tracee);
  CHECK(read_status_fields(child.pid())->tracer_pid == getpid());
  CHECK_FALSE(*tracee->poll_stop());
  CHECK(tracee->wait_stop(20).error().code == ETIMEDOUT);
  CHECK(tracee->registers().error().code == ESRCH);  // it runs
  REQUIRE(tracee->interrupt());
  auto stop = tracee->wait_stop();
  REQUIRE(stop);
  CHECK(stop->kind == StopKind::kInterrupt);

  auto registers = tracee->registers();
  REQUIRE(registers);
  CHECK(registers->orig_rax == SYS_read);
  CHECK(static_cast<long>(registers->rax) == -512);  // -ERESTARTSYS
  auto xstate = tracee->xstate();
  REQUIRE(xstate);
  CHECK(xstate->size() >= 576);
  (*xstate)[160 + 15 * 16] = std::byte{0x5a};  // xmm15, which read() does not touch
  CHECK(tracee->set_xstate(*xstate));
  CHECK((*tracee->xstate())[160 + 15 * 16] == std::byte{0x5a});
  CHECK(*tracee->signal_mask() == 0);
  CHECK(tracee->set_signal_mask(1ull << (SIGUSR1 - 1)));
  CHECK(*tracee->signal_mask() == 1ull << (SIGUSR1 - 1));
  auto rseq = tracee->rseq_configuration();
  REQUIRE(rseq);
  CHECK(rseq->address != 0);
  CHECK(rseq->signature == 0x53053053);
  CHECK(tracee->robust_list()->second == 24);

  // Pending signals can be seen without taking them.
  kill(child.pid(), SIGUSR1);
  auto pending = tracee->peek_signals(true);
  REQUIRE(pending);
  REQUIRE(pending->size() == 1);
  CHECK((*pending)[0].si_signo == SIGUSR1);
  CHECK((*pending)[0].si_pid == getpid());
  CHECK(tracee->peek_signals(false)->empty());

  REQUIRE(tracee->detach());
  CHECK(read_status_fields(child.pid())->tracer_pid == 0);
  child.say("?\n");
  CHECK(child.hear() == "0 0");  // the read that we interrupted went on
  child.end_input();
  CHECK(child.finish() == 0);
}

TEST_CASE("calls injected into a blocked call change nothing") {
  for (std::string target : kTargets) {
    CAPTURE(target);
    Child child({target, "signals"});
    child.hear();
    auto site = find_vdso_syscall(child.pid());
    REQUIRE(site);
    auto tracee = Tracee::seize(child.pid());
    REQUIRE(tracee);
    REQUIRE(tracee->interrupt());
    REQUIRE(tracee->wait_stop());
    auto before = tracee->registers();
    CHECK(*tracee->inject_syscall(*site, SYS_getppid) == getpid());
    CHECK(*tracee->inject_syscall(*site, SYS_close, 12345) == -EBADF);
    {
      auto injector = CallInjector::begin(*tracee, *site);
      REQUIRE(injector);
      auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < 200; ++i) REQUIRE(*injector->call(SYS_getpid) == child.pid());
      auto took = std::chrono::steady_clock::now() - start;
      double call_us = std::chrono::duration<double, std::micro>(took).count() / 200;
      MESSAGE("one injected call: " << call_us << " us");
      auto address =
          injector->call(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0);
      REQUIRE(address);
      REQUIRE(*address > 0);
      REQUIRE(write_memory(child.pid(), static_cast<uint64_t>(*address), "x", 1));
      REQUIRE(*injector->call(SYS_munmap, static_cast<uint64_t>(*address), 8192) == 0);
      REQUIRE(injector->finish());
    }
    CHECK(tracee->last_stop().kind == StopKind::kInterrupt);
    CHECK(equal(*before, *tracee->registers()));
    CHECK(*tracee->signal_mask() == 0);
    REQUIRE(tracee->detach());
    child.say("?\n");
    CHECK(child.hear() == "0 0");
    child.end_input();
    CHECK(child.finish() == 0);
  }
}

TEST_CASE("a sleep that we use and let go again sleeps to its end") {
  Child child({PROCESS_TARGET, "nap"});
  child.hear();
  auto site = find_vdso_syscall(child.pid());
  for (int i = 0; i < 5; ++i) {
    REQUIRE(reaches_state(child.pid(), 'S'));
    auto process = stop_quietly(child.pid());
    REQUIRE(process);
    auto registers = process->threads[0].registers();
    if (i == 0) CHECK(static_cast<long>(registers->rax) == -516);  // -ERESTART_RESTARTBLOCK
    CHECK(*process->threads[0].inject_syscall(*site, SYS_getppid) == getpid());
    REQUIRE(process->detach_all());
  }
  CHECK(child.hear() == "0 0 1");
  CHECK(child.finish() == 0);
}

TEST_CASE("signals that arrive while a process is stopped, used and resumed all arrive, once") {
  for (std::string target : kTargets) {
    for (std::string life : {"signals", "threads"}) {
      CAPTURE(target);
      CAPTURE(life);
      Child child({target, life});
      child.hear();
      auto site = find_vdso_syscall(child.pid());
      SignalSender sender(child.pid());
      int rounds = 0;
      for (; rounds < 40 || sender.sent() < kSignalsWanted; ++rounds) {
        auto process = stop_quietly(child.pid());
        REQUIRE(process);
        CHECK(process->threads.size() == (life == "threads" ? 5 : 1));
        CHECK(process->threads[0].tid() == child.pid());
        CHECK(process->stop_signal == 0);
        for (Tracee& tracee : process->threads)
          REQUIRE(*tracee.inject_syscall(*site, SYS_gettid) == tracee.tid());
        REQUIRE(process->detach_all());
      }
      check_all_arrived(child, sender.stop());
    }
  }
}

TEST_CASE("run to a trap: our code runs, signals wait, faults are told") {
  Child child({PROCESS_TARGET, "signals"});
  child.hear();
  auto site = find_vdso_syscall(child.pid());
  auto process = stop_quietly(child.pid());
  REQUIRE(process);
  Tracee& tracee = process->threads[0];
  auto before = tracee.registers();
  // lea 5(%rdi),%eax; int3; mov 0,%eax
  uint64_t code_at =
      place_code(tracee, child.pid(), *site, {0x8d, 0x47, 0x05, 0xcc, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0});
  SignalSender sender(child.pid());
  user_regs_struct registers = *before;
  for (int i = 0; i < 300 || sender.sent() < kSignalsWanted; ++i) {
    registers.rip = code_at;
    registers.rdi = static_cast<uint64_t>(i);
    auto after = tracee.run_to_trap(registers);
    REQUIRE(after);
    REQUIRE(after->rax == static_cast<uint64_t>(i) + 5);
    REQUIRE(after->rip == code_at + 4);
  }
  registers.rip = code_at + 4;
  auto faulted = tracee.run_to_trap(registers);
  REQUIRE_FALSE(faulted);
  CHECK(faulted.error().code == EFAULT);
  CHECK(faulted.error().what.find("signal 11") != std::string::npos);
  CHECK(*tracee.signal_mask() == 0);
  // The fault must not reach the program: dropped here, as a custodian would that rolls back.
  REQUIRE(tracee.interrupt());
  REQUIRE(tracee.set_registers(*before));
  REQUIRE(tracee.resume(0));
  REQUIRE(tracee.wait_stop()->kind == StopKind::kInterrupt);
  REQUIRE(process->detach_all());
  check_all_arrived(child, sender.stop());
}

TEST_CASE("a program that faults just as it is stopped and used gets each fault once") {
  for (std::string target : kTargets) {
    CAPTURE(target);
    Child child({target, "fault"});
    child.hear();
    auto site = find_vdso_syscall(child.pid());
    uint64_t code_at = 0;
    for (int i = 0; i < 3000; ++i) {
      auto process = stop_quietly(child.pid());
      REQUIRE_MESSAGE(process, process.error().message());
      for (Tracee& tracee : process->threads) {
        // lea 5(%rdi),%eax; int3
        if (code_at == 0) code_at = place_code(tracee, child.pid(), *site, {0x8d, 0x47, 0x05, 0xcc});
        auto before = tracee.registers();
        REQUIRE(before);
        CHECK_FALSE(*tracee.has_pending_fault());
        user_regs_struct registers = *before;
        registers.rip = code_at;
        registers.rdi = static_cast<uint64_t>(i);
        auto after = tracee.run_to_trap(registers);
        REQUIRE_MESSAGE(after, after.error().message());
        REQUIRE(after->rax == static_cast<uint64_t>(i) + 5);
        REQUIRE(tracee.set_registers(*before));
      }
      REQUIRE(process->detach_all());
    }
    child.say("?\n");
    CHECK(child.hear() == "right");
  }
}

TEST_CASE("a fault that is blocked stays pending while code runs to its trap") {
  Child child([] {
    sigset_t blocked;
    sigemptyset(&blocked);
    for (int signal : {SIGILL, SIGSEGV}) {
      sigaddset(&blocked, signal);
      sigprocmask(SIG_BLOCK, &blocked, nullptr);
      siginfo_t info{};
      info.si_signo = signal;
      info.si_code = 2;
      info.si_addr = reinterpret_cast<void*>(0x1234);
      syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal, &info);
    }
    [[maybe_unused]] ssize_t told = write(STDOUT_FILENO, "ready\n", 6);
    for (;;) pause();
  });
  child.hear();
  auto site = find_vdso_syscall(child.pid());
  auto process = stop_quietly(child.pid());
  REQUIRE(process);
  Tracee& tracee = process->threads[0];
  CHECK_FALSE(*tracee.has_pending_fault());
  auto before = tracee.registers();
  user_regs_struct registers = *before;
  registers.rip = place_code(tracee, child.pid(), *site, {0xb8, 7, 0, 0, 0, 0xcc});  // mov $7,%eax; int3
  auto after = tracee.run_to_trap(registers);
  REQUIRE_MESSAGE(after, after.error().message());
  CHECK(after->rax == 7);
  auto pending = tracee.peek_signals(false);
  REQUIRE(pending);
  REQUIRE(pending->size() == 2);
  for (const siginfo_t& info : *pending) {
    CHECK(info.si_code == 2);
    CHECK(info.si_addr == reinterpret_cast<void*>(0x1234));
  }
}

TEST_CASE("threads that come and go: at the end all stand, and none is missing") {
  for (std::string target : kTargets) {
    CAPTURE(target);
    Child child({target, "churn"});
    child.hear();
    for (int i = 0; i < 60; ++i) {
      auto process = stop_quietly(child.pid());
      REQUIRE_MESSAGE(process, process.error().message());
      auto tids = list_threads(child.pid());
      REQUIRE(tids);
      std::vector<int> held;
      for (Tracee& tracee : process->threads) {
        CHECK(tracee.stopped());
        CHECK(read_thread_stat(child.pid(), tracee.tid())->state == 't');
        held.push_back(tracee.tid());
      }
      std::sort(held.begin(), held.end());
      CHECK(*tids == held);
      CHECK(held.size() >= 4);
      REQUIRE(process->detach_all());
    }
    child.say("?\n");
    CHECK(child.hear() == "0 0");
  }
}

TEST_CASE("a leader that has ended before its process") {
  Child child({PROCESS_TARGET, "leader"});
  child.hear();
  REQUIRE(reaches_state(child.pid(), 'Z'));
  auto process = stop_quietly(child.pid());
  REQUIRE(process);
  CHECK(process->leader_ended);
  REQUIRE(process->threads.size() == 1);
  REQUIRE(process->detach_all());
  child.say("?\n");
  CHECK(child.hear() == "0 0");
  child.end_input();
  CHECK(child.finish() == 0);
}

TEST_CASE("job control: a stopped process stays stopped, however much we use it") {
  Child child({PROCESS_TARGET, "threads", "2"});
  child.hear();
  auto site = find_vdso_syscall(child.pid());
  kill(child.pid(), SIGSTOP);
  REQUIRE(reaches_state(child.pid(), 'T'));
  auto process = stop_quietly(child.pid());
  REQUIRE(process);
  CHECK(process->stop_signal == SIGSTOP);
  for (Tracee& tracee : process->threads) CHECK(*tracee.inject_syscall(*site, SYS_gettid) == tracee.tid());
  REQUIRE(process->detach_all());
  CHECK(reaches_state(child.pid(), 'T'));
  kill(child.pid(), SIGCONT);
  child.say("?\n");
  CHECK(child.hear() == "0 0");

  SUBCASE("SIGSTOP that arrives in the middle of our calls takes effect when we are done") {
    auto running = stop_quietly(child.pid());
    REQUIRE(running);
    CHECK(running->stop_signal == 0);
    kill(child.pid(), SIGSTOP);
    for (Tracee& tracee : running->threads)
      for (int i = 0; i < 3; ++i) CHECK(*tracee.inject_syscall(*site, SYS_gettid) == tracee.tid());
    REQUIRE(running->detach_all());
    CHECK(reaches_state(child.pid(), 'T'));
    kill(child.pid(), SIGCONT);
    child.say("?\n");
    CHECK(child.hear() == "0 0");
  }
}

TEST_CASE("death of a stopped process reaches its parent as it was") {
  // The target is a child of our child: its parent is not its tracer.
  Child parent([] {
    int target = fork();
    if (target == 0) {
      execl(PROCESS_TARGET, PROCESS_TARGET, "threads", "3", nullptr);
      _exit(127);
    }
    int status = 0;
    waitpid(target, &status, 0);
    say_and_wait(WIFSIGNALED(status) ? "killed by " + std::to_string(WTERMSIG(status)) : "exited");
  });
  CHECK(parent.hear() == "ready");
  int target = list_children(parent.pid())->front();
  auto process = stop_quietly(target);
  REQUIRE(process);
  kill(target, SIGKILL);
  SUBCASE("we let go") { (void)process->detach_all(); }
  SUBCASE("we were waiting") {
    // The leader's end is told last.
    for (auto it = process->threads.rbegin(); it != process->threads.rend(); ++it) {
      auto stop = it->wait_stop(5000);
      REQUIRE(stop);
      CHECK(stop->kind == StopKind::kKilled);
      CHECK(stop->signal == SIGKILL);
      CHECK_FALSE(it->attached());
    }
  }
  CHECK(parent.hear() == "killed by 9");
}

TEST_CASE("who cannot be stopped: the dead, the traced, the parent in vfork") {
  Child ended([] {});
  int ended_pid = ended.pid();
  SUBCASE("ended and reaped") {
    ended.finish();
    CHECK(stop_quietly(ended_pid).error().code == ESRCH);
  }
  SUBCASE("ended, not reaped") {
    REQUIRE(reaches_state(ended_pid, 'Z'));
    CHECK(stop_quietly(ended_pid).error().code == ESRCH);
  }
  SUBCASE("traced by somebody else") {
    Child target({PROCESS_TARGET, "signals"});
    target.hear();
    Child tracer([pid = target.pid()] {
      ptrace(PTRACE_SEIZE, pid, 0, 0);
      say_and_wait("ready");
    });
    tracer.hear();
    CHECK(stop_quietly(target.pid()).error().code == EPERM);
    CHECK(read_status_fields(target.pid())->tracer_pid == tracer.pid());
  }
  SUBCASE("in the middle of vfork") {
    if (kThreadSanitizer) {
      MESSAGE("skipped: the thread sanitizer makes a fork of vfork");
      return;
    }
    Child parent([] {
      if (vfork() == 0) {
        if (write(1, "ready\n", 6) < 0) _exit(3);
        for (;;) pause();
      }
    });
    parent.hear();
    auto children = list_children(parent.pid());
    REQUIRE(children->size() == 1);
    int code = 0;
    std::thread([&] { code = stop_quietly(parent.pid(), 100).error().code; }).join();
    CHECK(code == ETIMEDOUT);
    CHECK(read_status_fields(parent.pid())->tracer_pid == 0);  // the end of the thread has freed it
    kill(children->front(), SIGKILL);
    CHECK(parent.finish() == 0);
  }
}

TEST_CASE("a thread that executes a program while it is traced becomes the leader") {
  Child child([] {
    std::thread([] {
      char go;
      std::string tid = std::to_string(syscall(SYS_gettid)) + "\n";
      if (write(1, tid.data(), tid.size()) != static_cast<ssize_t>(tid.size()) || read(0, &go, 1) != 1)
        _exit(3);
      execl(PROCESS_TARGET, PROCESS_TARGET, "signals", nullptr);
      _exit(127);
    }).detach();
    for (;;) pause();
  });
  int tid = std::stoi(child.hear());
  CHECK(list_threads(child.pid())->size() == kThreadsOfChild + 1);
  auto tracee = Tracee::seize(tid, PTRACE_O_TRACEEXEC);
  REQUIRE(tracee);
  child.say("!");
  auto stop = tracee->wait_stop(10'000);
  REQUIRE(stop);
  CHECK(stop->kind == StopKind::kExec);
  CHECK(static_cast<int>(stop->message) == tid);
  CHECK(tracee->tid() == child.pid());
  REQUIRE(tracee->detach());
  CHECK(child.hear() == "ready");
}

TEST_CASE("forks and ends through wait_any") {
  Child child([] {
    char go;
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1) _exit(3);
    int pid = fork();
    if (pid == 0) _exit(5);
    int status = 0;
    waitpid(pid, &status, 0);
    _exit(WEXITSTATUS(status) + 1);
  });
  child.hear();
  auto parent = Tracee::seize(child.pid(), PTRACE_O_TRACEFORK);
  REQUIRE(parent);
  CHECK_FALSE(*wait_any(false));
  child.say("!");
  std::optional<Tracee> forked;
  int child_status = -1, parent_status = -1;
  while (parent_status < 0) {
    auto raw = wait_any(true);
    REQUIRE(raw);
    REQUIRE(*raw);
    bool is_parent = (*raw)->tid == child.pid();
    if (!is_parent && !forked) forked = Tracee::adopt((*raw)->tid);
    Tracee& tracee = is_parent ? *parent : *forked;
    StopInfo stop = tracee.accept((*raw)->wait_status);
    if (stop.kind == StopKind::kFork) CHECK(stop.event == PTRACE_EVENT_FORK);
    if (stop.kind == StopKind::kExited) (is_parent ? parent_status : child_status) = stop.exit_status;
    if (!stop.gone()) REQUIRE(tracee.resume(stop.kind == StopKind::kSignal ? stop.signal : 0));
  }
  CHECK(child_status == 5);
  CHECK(parent_status == 6);
}

TEST_CASE("a restartable sequence is aborted before its thread is moved") {
  Child child({PROCESS_TARGET, "threads", "1"});
  child.hear();
  auto process = stop_quietly(child.pid());
  REQUIRE(process);
  Tracee& worker = process->threads[1];
  auto before = worker.registers();
  auto rseq = worker.rseq_configuration();
  REQUIRE(rseq->address != 0);
  struct {
    uint32_t version, flags;
    uint64_t start, bytes, abort;
  } section{0, 0, before->rip - 2, 8, 0x1234567};
  uint64_t section_at = before->rsp - 4096;  // below the red zone
  REQUIRE(write_memory(child.pid(), section_at, &section, sizeof(section)));
  REQUIRE(write_memory(child.pid(), rseq->address + 8, &section_at, 8));
  REQUIRE(worker.abort_rseq_section());
  CHECK(worker.registers()->rip == 0x1234567);
  uint64_t left = 1;
  REQUIRE(read_memory(child.pid(), rseq->address + 8, &left, 8));
  CHECK(left == 0);
  // Outside a sequence nothing happens.
  REQUIRE(worker.set_registers(*before));
  section.start = before->rip + 1;
  REQUIRE(write_memory(child.pid(), section_at, &section, sizeof(section)));
  REQUIRE(write_memory(child.pid(), rseq->address + 8, &section_at, 8));
  REQUIRE(worker.abort_rseq_section());
  CHECK(equal(*before, *worker.registers()));
}

TEST_CASE("the destructor lets go, also of a running thread, and hands on a signal") {
  Child child({PROCESS_TARGET, "signals"});
  child.hear();
  { REQUIRE(Tracee::seize(child.pid())); }
  CHECK(read_status_fields(child.pid())->tracer_pid == 0);
  {
    auto tracee = Tracee::seize(child.pid());
    REQUIRE(tracee);
    sigval value{};
    value.sival_int = 42;
    REQUIRE(sigqueue(child.pid(), SIGRTMIN + 1, value) == 0);
    REQUIRE(tracee->wait_stop()->kind == StopKind::kSignal);
    CHECK(tracee->last_stop().siginfo.si_value.sival_int == 42);
    // Calls are refused here: resuming from this stop would lose the signal.
    CHECK(tracee->inject_syscall(0x1000, SYS_getpid).error().code == EINVAL);
  }
  child.say("?\n");
  CHECK(child.hear() == "1 42");
}
