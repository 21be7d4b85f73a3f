// Execs of managed processes, which happen at home: the deputy executes, the remote is dropped, and the new
// image is taken to its node before its first instruction, or stays. Part of Custodian.
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "deputy/custodian.h"
#include "deputy/move_out.h"
#include "libmosix/common/log.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/syscall_site.h"

namespace mosix {
namespace {

constexpr uint64_t kRequireStatus = 125;  ///< of mosrun too, when it cannot place a program

/// One line to the process's own stderr, over a copy of its descriptor: the offset of a file stays shared.
void tell_program_user(int pidfd, const std::string& sentence) {
  UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, STDERR_FILENO, 0)));
  if (!copy) return;
  std::string line = "mosix: " + sentence + "\n";
  (void)!write(copy.get(), line.data(), line.size());
}

/// The same for a 32-bit program, which our injector does not serve: exit(status) by `int $0x80` in the place of its
/// first instruction, which will never run.
bool exit_32_bit(Tracee& thread, uint64_t status) {
  user_regs_struct registers{};
  if (ptrace(PTRACE_GETREGS, thread.tid(), nullptr, &registers) != 0) return false;
  constexpr long kInt80 = 0x80cd, kExit = 1;
  if (ptrace(PTRACE_POKETEXT, thread.tid(), registers.rip, kInt80) != 0) return false;
  registers.rax = kExit;
  registers.rbx = status;
  registers.orig_rax = ~0ull;
  return ptrace(PTRACE_SETREGS, thread.tid(), nullptr, &registers) == 0;
}

/// Ends a process that stands before the first instruction of its program.
bool exit_before_it_begins(int pid, Tracee& thread, uint64_t status) {
  if (Result<user_regs_struct> registers = thread.registers();
      !registers && registers.error().code == ENOEXEC)
    return exit_32_bit(thread, status);
  Result<uint64_t> site = find_vdso_syscall(pid);
  if (site) (void)thread.inject_syscall(*site, SYS_exit_group, status);
  return site.has_value();
}

}  // namespace

/// mosrun asks for its own next exec to be watched: the node is known to be willing before it answers.
void Custodian::watch_exec(LinkOrder order) {
  Result<Record> found = find_or_create(order.pid);
  if (!found) return link_.reply_failed(order.id, found.error());
  Record record = *found;
  in_thread([this, record, id = order.id, target = order.node, hold = order.hold, require = order.require] {
    Result<std::shared_ptr<AwayNode>> node = node_named(target, program_of(record));
    HeldProcess hands(*record);
    auto watch = std::make_shared<ExecWatch>(hands);
    Status begun = node ? watch->begin(record->pid) : Status(fail(node.error()));
    if (!begun) {
      link_.reply_failed(id, begun.error());
      return drop_if_unmanaged(record);
    }
    {
      std::lock_guard lock(mutex_);
      record->hold_node = hold ? target : "";
      record->require = require;
      watches_[record->pid] = watch;
    }
    link_.reply_ok(id, record->pid);
    auto outcome = watch->wait();
    {
      std::lock_guard lock(mutex_);
      watches_.erase(record->pid);
    }
    if (outcome && *outcome == ExecWatch::Outcome::kExeced)
      place_new_image(record, hands, target, Asker::kMosrun);
    hands.release();
    drop_if_unmanaged(record);
  });
}

/// A guest that is away is about to exec.
void Custodian::exec_asked(const std::shared_ptr<AwayNode>& node, const ExecAsk& ask) {
  Record record = find(ask.pid);
  ExecAnswer answer{ask.pid, ask.tid, 0, ""};
  std::shared_ptr<ExecWatch> standing;
  if (record) {
    std::lock_guard lock(mutex_);
    if (auto at = watches_.find(ask.pid); at != watches_.end()) standing = at->second;
  }
  if (record) record->cpu_away.note_exec(ask);
  answer.reason = record ? why_exec_stays(ask) : "its home does not know it";
  if (!answer.reason.empty()) {
    (void)node->send(ControlType::kSeized, answer);
    return;
  }
  if (standing && standing->attempt_again()) {
    answer.allowed = 1;
    (void)node->send(ControlType::kSeized, answer);
    return;
  }
  in_thread([this, record, node, ask] { follow_exec(record, node, ask); });
}

void Custodian::exec_failed(int pid) {
  std::lock_guard lock(mutex_);
  if (auto at = watches_.find(pid); at != watches_.end()) at->second->tell_failed();
}

void Custodian::follow_exec(const Record& record, const std::shared_ptr<AwayNode>& node, const ExecAsk& ask) {
  HeldProcess hands(*record);
  auto watch = std::make_shared<ExecWatch>(hands);
  Status begun = watch->begin(record->pid);
  ExecAnswer answer{ask.pid, ask.tid, static_cast<uint8_t>(begun.has_value()),
                    begun ? "" : begun.error().message()};
  if (begun) {
    std::lock_guard lock(mutex_);
    watches_[record->pid] = watch;
  }
  (void)node->send(ControlType::kSeized, answer);
  if (!begun) return;
  auto outcome = watch->wait();
  std::string target;
  {
    std::lock_guard lock(mutex_);
    auto at = watches_.find(record->pid);
    if (at != watches_.end() && at->second == watch) watches_.erase(at);
    target = record->hold_node;
  }
  if (!outcome || *outcome != ExecWatch::Outcome::kExeced) return;
  (void)node->send(ControlType::kExeced, ProcessRef{record->pid, record->place().epoch});
  record->since_home = {};
  record->set_place({});
  // A move that was under way finds its guest gone.
  node->fail_mailbox(record->pid, Error{ECANCELED, "it has executed another program, at home"});
  place_new_image(record, hands, target, Asker::kTree);
}

/// The process stands before the first instruction of a program, at home, in our hands.
void Custodian::place_new_image(const Record& record, HeldProcess& hands, const std::string& target,
                                Asker asker) {
  {
    std::lock_guard lock(mutex_);
    if (Result<ProcStat> stat = read_proc_stat(record->pid)) record->program = stat->comm;
    record->reason = "it has executed " + record->program;
  }
  if (target.empty() || !claim(record, "it is being moved to " + target)) {
    hands.release();
    announce(record);
    return drop_if_unmanaged(record);
  }
  Result<std::shared_ptr<AwayNode>> node = node_named(target, program_of(record));
  MoveGroup alone({record->pid}, files_);  // a new image shares nothing
  Result<MoveReport> moved = node ? move_out(*record, *node, next_epoch(record), hands, alone)
                                  : Result<MoveReport>(fail(node.error()));
  if (!moved) stay_with_reason(record, hands, target, moved.error(), asker);
  hands.release();
  finish_move(record, "home", target, moved, {"placed there by mosrun"});
  settle(record);
}

/// Whoever typed mosrun is told. What a program of the tree executes stays quietly: a line of ours in its output
/// would be seen by programs that read it. `mosctl why` has the reason.
void Custodian::stay_with_reason(const Record& record, HeldProcess& hands, const std::string& target,
                                 const Error& error, Asker asker) {
  if (!hands.held()) return;
  std::string program = program_of(record);
  if (!record->require) {
    if (asker == Asker::kMosrun)
      tell_program_user(record->pidfd.get(),
                        program + " runs at home, not on " + target + ": " + error.message());
    return;
  }
  tell_program_user(record->pidfd.get(), program + " cannot run on " + target + ": " + error.message());
  if (!exit_before_it_begins(record->pid, hands.worker(), kRequireStatus))
    kill_process(record, "it must run on " + target);
}

}  // namespace mosix
