#include "remote/pending_call.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libmosix/common/log.h"
#include "libmosix/process/memory.h"

namespace mosix {
namespace {

/// The kernel takes the listener's lock interruptibly for each of these: a signal that comes to this thread
/// just then (tracers' time limits are signals) must not lose the answer.
int notify_ioctl(int listener, unsigned long request, void* argument) {
  int result;
  do result = ioctl(listener, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

PendingCall::PendingCall(int listener, const seccomp_notif& notification)
    : listener_(listener),
      id_(notification.id),
      outer_tid_(static_cast<int>(notification.pid)),
      architecture_(notification.data.arch),
      number_(static_cast<uint32_t>(notification.data.nr)),
      instruction_end_(notification.data.instruction_pointer),
      code_to_begin_(mosix::code_to_begin(number_)) {
  for (size_t i = 0; i < args_.size(); ++i) args_[i] = notification.data.args[i];
}

PendingCall::~PendingCall() {
  if (answered_) return;
  log_error("call " + std::to_string(number_) + " of thread " + std::to_string(outer_tid_) +
            " was forgotten; answered ENOSYS");
  answer(-ENOSYS);
}

void PendingCall::answer(int64_t result) {
  if (answered_) return;
  answered_ = true;
  result_ = result;
  seccomp_notif_resp response{};
  response.id = id_;
  if (result < 0 && result >= -4095)
    response.error = static_cast<int32_t>(result);
  else
    response.val = result;
  send(response);
}

void PendingCall::send(seccomp_notif_resp& response) {
  // ENOENT: the thread was killed meanwhile, and with it its question.
  if (notify_ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &response) != 0 && errno != ENOENT)
    log_error("answer to call " + std::to_string(number_) + " of thread " + std::to_string(outer_tid_) +
              ": " + strerror(errno));
}

void PendingCall::let_run_here() {
  if (answered_) return;
  answered_ = true;
  result_known_ = false;
  ran_here_ = true;
  seccomp_notif_resp response{};
  response.id = id_;
  response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  send(response);
}

bool PendingCall::valid() const {
  uint64_t id = id_;
  return notify_ioctl(listener_, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

Status PendingCall::give_descriptor(int fd, int number) {
  seccomp_notif_addfd gift{};
  gift.id = id_;
  gift.flags = SECCOMP_ADDFD_FLAG_SETFD;
  gift.srcfd = static_cast<uint32_t>(fd);
  gift.newfd = static_cast<uint32_t>(number);
  gift.newfd_flags = O_CLOEXEC;
  if (notify_ioctl(listener_, SECCOMP_IOCTL_NOTIF_ADDFD, &gift) < 0)
    return fail_errno("give descriptor " + std::to_string(number) + " to the guest");
  return {};
}

Status NotifiedMemory::read(uint64_t address, void* data, size_t bytes) {
  return read_memory(pid_, address, data, bytes);
}
Status NotifiedMemory::write(uint64_t address, const void* data, size_t bytes) {
  return write_memory(pid_, address, data, bytes);
}
size_t NotifiedMemory::read_some(uint64_t address, void* data, size_t bytes) {
  return read_memory_some(pid_, address, data, bytes).value_or(0);
}

}  // namespace mosix
