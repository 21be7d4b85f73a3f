#include "libmosix/common/log.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace mosix {
namespace {
std::string g_who = "mosix";
bool g_debug = false;
}  // namespace

void log_init(std::string_view who) {
  g_who = who;
  const char* debug = getenv("MOSIX_DEBUG");
  g_debug = debug != nullptr && *debug != '\0' && *debug != '0';
}

bool log_debug_enabled() { return g_debug; }

void log_line(LogLevel level, std::string_view text) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  localtime_r(&now.tv_sec, &parts);
  char head[40];
  size_t n = strftime(head, sizeof head, "%H:%M:%S", &parts);
  snprintf(head + n, sizeof head - n, ".%03ld ", now.tv_nsec / 1000000);
  std::string line = head + g_who + ": ";
  if (level == LogLevel::kError) line += "error: ";
  line.append(text);
  line.push_back('\n');
  // One write, so that lines of several processes in one file never mix. A log that cannot be written
  // has nowhere to be reported.
  [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace mosix
