// One trapped call of a guest thread. An owner: it is answered exactly once; if every path forgot, the
// destructor answers ENOSYS and says so in the log, for a guest that waits for ever is worse than a wrong errno.
#pragma once

#include <asm/unistd_64.h>
#include <linux/seccomp.h>

#include <array>
#include <cstdint>
#include <functional>

#include "libmosix/syscalls/guest_memory.h"

namespace mosix {

// Newer than Debian 12's headers.
inline constexpr uint64_t kSyncWakeUp = 1;
#define MOSIX_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)

/// Restart codes of the kernel, as answers to a notification: they never reach user space as long as the thread
/// has a signal or a tracer's interrupt pending, which is the caller's promise.
inline constexpr int64_t kErestartsys = -512, kErestartnointr = -513, kErestartnohand = -514,
                         kErestartRestartblock = -516;

/// For a call that has not begun: a handler runs first, and then it is made. restart_syscall goes on with one that has
/// begun: a handler ends it. For others see BegunCall.
constexpr int64_t code_to_begin(uint64_t number) {
  return number == __NR_restart_syscall ? kErestartRestartblock : kErestartnointr;
}

class PendingCall {
 public:
  PendingCall(int listener, const seccomp_notif& notification);
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;
  ~PendingCall();

  uint64_t number() const { return number_; }
  const std::array<uint64_t, 6>& args() const { return args_; }
  uint64_t instruction_end() const {
    return instruction_end_;
  }  ///< address behind the system call instruction
  /// Restarts it as long as home has not executed anything of it.
  int64_t code_to_begin() const { return code_to_begin_; }
  void set_code_to_begin(int64_t code) { code_to_begin_ = code; }
  int outer_tid() const { return outer_tid_; }
  uint32_t architecture() const { return architecture_; }

  /// A result as the kernel returns it: -4095 to -1 is an error.
  void answer(int64_t result);
  /// "Run it on this node": the thread makes the call natively here.
  void let_run_here();
  /// The thread is being killed: nobody waits for an answer.
  void abandon() { answered_ = true; }
  bool answered() const { return answered_; }
  /// The worker has given the thread's channel away before the answer: it is no longer its own afterwards.
  void note_channel_given_up() { channel_given_up_ = true; }
  bool channel_given_up() const { return channel_given_up_; }
  /// The answer is all that is left to be done once the exchange that is under way has brought its result.
  void note_last_exchange() { last_exchange_ = true; }
  bool is_last_exchange() const { return last_exchange_; }
  /// From here on the worker waits for nobody any more.
  void note_return() {
    returned_ = true;
    on_return_();
  }
  bool returned() const { return returned_; }
  /// The worker may have to wait for the thread, or for somebody else than home.
  void note_wait() { on_wait_(); }
  void on_return(std::function<void()> action) { on_return_ = std::move(action); }
  void on_wait(std::function<void()> action) { on_wait_ = std::move(action); }
  /// What it was answered with, for the tracer.
  int64_t result() const { return result_; }
  void note_result(int64_t result) { result_ = result, result_known_ = true; }
  /// False when the guest's own kernel answers and nobody has noted what it will say.
  bool result_known() const { return result_known_; }
  /// The guest's own kernel fills what the call fills, perhaps after this has been asked.
  bool ran_here() const { return ran_here_; }
  /// False once the thread has been killed.
  bool valid() const;
  /// Puts a copy of `fd` into the guest's own table at exactly `number`.
  Status give_descriptor(int fd, int number);

 private:
  void send(seccomp_notif_resp& response);

  int listener_;
  uint64_t id_;
  int outer_tid_;
  uint32_t architecture_;
  uint64_t number_;
  std::array<uint64_t, 6> args_;
  uint64_t instruction_end_;
  int64_t code_to_begin_;
  bool answered_ = false;
  int64_t result_ = 0;
  bool result_known_ = true;
  bool ran_here_ = false;
  bool channel_given_up_ = false;
  bool last_exchange_ = false;
  bool returned_ = false;
  std::function<void()> on_return_ = [] {};
  std::function<void()> on_wait_ = [] {};
};

/// Memory of a stopped guest thread, by process_vm_readv and writev; needs no descriptor.
class NotifiedMemory : public GuestMemory {
 public:
  explicit NotifiedMemory(int outer_pid) : pid_(outer_pid) {}
  Status read(uint64_t address, void* data, size_t bytes) override;
  Status write(uint64_t address, const void* data, size_t bytes) override;
  size_t read_some(uint64_t address, void* data, size_t bytes) override;

 private:
  int pid_;
};

}  // namespace mosix
