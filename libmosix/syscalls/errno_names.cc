// libc knows the names of errors and signals; the restart codes are the kernel's secret, seen where a call
// was interrupted and not yet answered (include/linux/errno.h there).
#include "libmosix/syscalls/errno_names.h"

#include <array>
#include <cstring>
#include <string_view>

namespace mosix {
namespace {

struct RestartCode {
  int code;
  std::string_view name;
  std::string_view text;
};

constexpr std::array kRestartCodes = {
    RestartCode{512, "ERESTARTSYS", "To be restarted if SA_RESTART is set"},
    RestartCode{513, "ERESTARTNOINTR", "To be restarted"},
    RestartCode{514, "ERESTARTNOHAND", "To be restarted if no handler"},
    RestartCode{515, "ENOIOCTLCMD", "No ioctl command"},
    RestartCode{516, "ERESTART_RESTARTBLOCK", "Interrupted by signal"},
};

const RestartCode* restart_code(int code) {
  for (const RestartCode& one : kRestartCodes)
    if (one.code == code) return &one;
  return nullptr;
}

constexpr int kFirstRealTime = 32;  ///< the kernel's; libc keeps the first two for itself
constexpr int kLastSignal = 64;

}  // namespace

std::string errno_name(int code) {
  if (const RestartCode* restart = restart_code(code)) return std::string(restart->name);
  const char* name = strerrorname_np(code);
  return name != nullptr ? name : "errno " + std::to_string(code);
}

std::string errno_text(int code) {
  if (const RestartCode* restart = restart_code(code)) return std::string(restart->text);
  const char* text = strerrordesc_np(code);
  return text != nullptr ? text : "Unknown error " + std::to_string(code);
}

std::string signal_name(int number) {
  const char* name = number < kFirstRealTime ? sigabbrev_np(number) : nullptr;
  if (name != nullptr) return std::string("SIG") + name;
  if (number >= kFirstRealTime && number <= kLastSignal)
    return "SIGRT_" + std::to_string(number - kFirstRealTime);
  return "signal " + std::to_string(number);
}

}  // namespace mosix
