// Calls whose arguments the table alone cannot tell: how long they are, or what they point to, stands somewhere else. In the
// supervisor; what is not answered here brings its process home.
#include <signal.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include <algorithm>

#include "remote/home_files.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr size_t kCookieBytes = 32;       // NOTIFY_COOKIE_LEN, linux/mqueue.h
constexpr uint64_t kNoAddress = 1 << 16;  // what is less is a number in any case
constexpr uint32_t kGivenOut = 0xffff;  // commands beyond are nobody's, or magic numbers that the table knows

}  // namespace

/// False: it has to be made at home.
bool Supervisor::answer_unplanned(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  if (&row != &syscall_row(static_cast<uint64_t>(row.number)))
    return false;  // a command with a row of its own
  switch (row.number) {
    case SYS_semctl:
      if (auto command = static_cast<uint32_t>(call.args()[2]); command == GETALL || command == SETALL)
        return all_semaphores(thread, call, command == SETALL);
      return try_unknown_command(thread, call, row);
    case SYS_shmctl:
    case SYS_msgctl:
    case SYS_keyctl:
    case SYS_kcmp:
    case SYS_fcntl:
    case SYS_prctl:
      return try_unknown_command(thread, call, row);
    default:
      return false;
  }
}

/// A command that the table does not know is one that no kernel knows, most likely. Home is asked: as the call is, if there
/// are only numbers in it, and with pointers that lead nowhere if no Linux will give out such a command. One that a younger
/// Linux than the table may know is not tried with others than its own.
bool Supervisor::try_unknown_command(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  std::array<uint64_t, 6> args = call.args();
  bool as_it_is = true;
  for (size_t i = 0; i < args.size(); ++i) {
    bool number = row.args[i].kind != ArgKind::kHex || static_cast<int>(i) == command_argument(row.number);
    if (number || args[i] < kNoAddress) continue;
    args[i] = kBadPointer;
    as_it_is = false;
  }
  auto command = static_cast<uint32_t>(args[static_cast<size_t>(command_argument(row.number))]);
  if (!as_it_is && command <= kGivenOut) return false;
  CallReply reply;
  CallPlan plan = plain_plan(static_cast<uint32_t>(row.number), args);
  if (!ask_for_call(thread, call, plan, kErestartnointr, &reply)) return true;
  bool refused = reply.result == -EINVAL || reply.result == -EOPNOTSUPP || reply.result == -ENOSYS;
  if (!refused && (!as_it_is || reply.result == -EFAULT)) return false;
  answer_and_deliver(thread, call, Answer::value(reply.result));
  return true;
}

/// GETALL and SETALL: the set knows how many they are.
bool Supervisor::all_semaphores(GuestThread& thread, PendingCall& call, bool set) {
  const auto& args = call.args();
  CallPlan ask = buffer_plan(SYS_semctl, {args[0], 0, IPC_STAT, 0, 0, 0}, -1, nullptr, 0, 3, sizeof(semid_ds),
                             OutRule::kFixed, 0);
  CallReply reply;
  if (!ask_for_call(thread, call, ask, kErestartnointr, &reply)) return true;
  semid_ds facts{};
  if (!take_out(reply, &facts)) {
    if (set || reply.result >= 0) return false;  // it may be allowed to write and not to read
    answer_and_deliver(thread, call, Answer::value(reply.result));
    return true;
  }
  std::vector<uint16_t> values(std::min<uint64_t>(facts.sem_nsems, kMaxScratchBytes / sizeof(uint16_t) / 2));
  auto bytes = static_cast<uint32_t>(values.size() * sizeof(uint16_t));
  NotifiedMemory memory(thread.outer_tid);
  if (values.size() != facts.sem_nsems || (set && !memory.read(args[3], values.data(), bytes))) return false;
  CallPlan plan = set ? buffer_plan(SYS_semctl, args, 3, values.data(), bytes, -1, 0, OutRule::kFixed, 0)
                      : buffer_plan(SYS_semctl, args, -1, nullptr, 0, 3, bytes, OutRule::kFixed, 0);
  if (!set) plan.destinations[0].address = args[3];
  while (!finish_call(thread, call, plan, exchange(thread, plan))) {
  }
  return true;
}

/// mq_notify by a thread: the C library's, which waits at a socket for the cookie that is given here.
bool Supervisor::notify_by_thread(GuestThread& thread, PendingCall& call) {
  const auto& args = call.args();
  NotifiedMemory memory(thread.outer_tid);
  struct {
    sigevent event;
    uint8_t cookie[kCookieBytes];
  } sent{};
  if (call.number() != SYS_mq_notify || args[1] == 0 ||
      !memory.read(args[1], &sent.event, sizeof sent.event) || sent.event.sigev_notify != SIGEV_THREAD)
    return false;
  if (!memory.read(reinterpret_cast<uint64_t>(sent.event.sigev_value.sival_ptr), sent.cookie, kCookieBytes)) {
    call.answer(-EFAULT);
    return true;
  }
  if (!call.valid()) {
    call.abandon();
    return true;
  }
  CallPlan plan = buffer_plan(SYS_mq_notify, args, 1, &sent, sizeof sent, -1, 0, OutRule::kFixed, 0);
  plan.relocs.push_back({.at = offsetof(sigevent, sigev_value), .target = sizeof sent.event});
  plan.body.reloc_count = 1;
  while (!finish_call(thread, call, plan, exchange(thread, plan))) {
  }
  return true;
}

}  // namespace mosix
