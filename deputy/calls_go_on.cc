#include "deputy/calls_go_on.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "deputy/capture.h"
#include "deputy/record.h"
#include "libmosix/process/descriptor.h"
#include "libmosix/syscalls/hidden_limit.h"

namespace mosix {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr uint64_t kNoCall = ~0ull;  // in orig_rax

bool receives(uint64_t number) { return number == SYS_recvfrom || number == SYS_recvmsg; }

int64_t left_until(int64_t deadline_ns) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::max<int64_t>(deadline_ns - now.tv_sec * kSecond - now.tv_nsec, 0);
}

}  // namespace

Result<user_regs_struct> CallsGoOn::registers_for(const ThreadState& thread) {
  user_regs_struct registers = registers_of(thread);
  mend_interrupted_call(registers, thread.sleep_call);
  if (thread.sleep_call != 0) {
    go_on_sleeping(registers, thread);
    return registers;
  }
  if (thread.moved_bytes != 0 && receives(registers.orig_rax) && !is_stream(registers)) {
    // A message, which came whole.
    registers.rax = thread.moved_bytes;
    registers.orig_rax = kNoCall;
    return registers;
  }
  if (thread.moved_bytes != 0)
    TRY_VOID(go_on(registers, thread, thread.moved_bytes, [&](uint64_t at) {
      return rest_of_transfer(registers, thread.moved_bytes, at, memory_);
    }));
  if (thread.deadline_ns != 0) TRY_VOID(go_on_waiting(registers, thread));
  return registers;
}

bool CallsGoOn::is_stream(const user_regs_struct& registers) const {
  UniqueFd copy = copy_of_fd(registers);
  int type = 0;
  socklen_t bytes = sizeof type;
  return copy && getsockopt(copy.get(), SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_STREAM;
}

UniqueFd CallsGoOn::copy_of_fd(const user_regs_struct& registers) const {
  return take_descriptor(record_.pid, record_.pidfd, static_cast<int>(registers.rdi)).value_or(UniqueFd());
}

template <class MakeCall>
Status CallsGoOn::go_on(user_regs_struct& registers, const ThreadState& thread, uint64_t done,
                        MakeCall make_call) {
  Batch batch(place_);
  batch.add(SYS_mmap, 0, resumed_call_bytes(registers), resumed_call_protection(registers),
            MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0);
  TRY(user_regs_struct before, worker_.registers());
  Status ran = batch.run(worker_, memory_);
  TRY_VOID(worker_.set_registers(before));
  TRY_VOID(std::move(ran));
  if (batch.first_error() != 0) return fail(batch.first_error(), "map room for the rest of a call");
  auto at = static_cast<uint64_t>(batch.result(0));
  TRY(ResumedCall rest, make_call(at));
  TRY_VOID(memory_.write(at, rest.bytes.data(), rest.bytes.size()));
  // Without room on its stack it makes its call as it stands.
  if (!rest.data.empty() && !memory_.write(rest.data_at, rest.data.data(), rest.data.size())) return {};
  calls_.own.push_back({at, registers, done, thread.deadline_ns, rest.registers.orig_rax});
  registers = rest.registers;
  return {};
}

Status CallsGoOn::go_on_waiting(user_regs_struct& registers, const ThreadState& thread) {
  if (may_have_hidden_limit(registers.orig_rax)) return go_on_reading(registers, thread);
  int64_t left = left_until(thread.deadline_ns);
  if (waits_with_own_limit(registers.orig_rax))
    return go_on(registers, thread, 0,
                 [&](uint64_t at) -> Result<ResumedCall> { return rest_of_wait(registers, left, at); });
  bool timeval = false;
  uint64_t address = limit_address(registers, &timeval);
  int64_t pair[2] = {left / kSecond, left % kSecond / (timeval ? 1000 : 1)};
  // A limit that the program cannot write stays whole, as it does natively.
  if (address != 0) (void)write_memory(record_.pid, address, pair, sizeof pair);
  return {};
}

/// The kernel goes on with it by itself. If a handler comes first, the program reads what was told before the move:
/// less is left by now.
void CallsGoOn::go_on_sleeping(const user_regs_struct& registers, const ThreadState& thread) {
  calls_.sleeps.push_back(registers);
  calls_.sleeps.back().orig_rax = thread.sleep_call;
  uint64_t address = rest_address(thread.sleep_call, registers);
  if (address == 0 || thread.deadline_ns == 0) return;
  int64_t left = left_until(thread.deadline_ns);
  int64_t pair[2] = {left / kSecond, left % kSecond};
  // What cannot be written the kernel answers itself.
  (void)write_memory(record_.pid, address, pair, sizeof pair);
}

/// What travelled is when it began.
Status CallsGoOn::go_on_reading(user_regs_struct& registers, const ThreadState& thread) {
  UniqueFd copy = copy_of_fd(registers);
  timeval time{};
  socklen_t bytes = sizeof time;
  struct termios settings {};
  HiddenLimit limit;
  if (copy && getsockopt(copy.get(), SOL_SOCKET, SO_RCVTIMEO, &time, &bytes) == 0) {
    limit = socket_limit(time);
  } else if (copy && tcgetattr(copy.get(), &settings) == 0) {
    limit = terminal_limit((settings.c_lflag & ICANON) != 0, settings.c_cc[VMIN], settings.c_cc[VTIME]);
  }
  if (limit.ns == 0) return {};
  int64_t left = left_until(thread.deadline_ns + limit.ns);
  return go_on(registers, thread, 0, [&](uint64_t at) -> Result<ResumedCall> {
    return rest_of_read(registers, left, limit.result, at);
  });
}

}  // namespace mosix
