#include "libmosix/syscalls/hidden_limit.h"

#include <errno.h>
#include <sys/syscall.h>

namespace mosix {

bool may_have_hidden_limit(uint64_t number) {
  return number == SYS_read || number == SYS_readv || number == SYS_recvfrom || number == SYS_recvmsg ||
         number == SYS_accept || number == SYS_accept4;
}

HiddenLimit socket_limit(const timeval& option) {
  constexpr int64_t kNsPerSecond = 1'000'000'000, kNsPerUs = 1000;
  constexpr int64_t kLongestSeconds = 1'000'000'000;  // more is as good as none, and overflows
  if (option.tv_sec < 0 || option.tv_sec >= kLongestSeconds) return {};
  return {option.tv_sec * kNsPerSecond + option.tv_usec * kNsPerUs, -EAGAIN};
}

HiddenLimit terminal_limit(bool by_lines, uint8_t vmin, uint8_t vtime) {
  constexpr int64_t kNsPerTenth = 100'000'000;
  if (by_lines || vmin != 0) return {};
  return {vtime * kNsPerTenth, 0};
}

}  // namespace mosix
