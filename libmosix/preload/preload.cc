// libmosix.so: adoption of a process at home, and nothing more.
//
// Loaded by LD_PRELOAD into every program of a tree that `mosrun` started. The constructor runs in the
// program's first thread before main; the fork handler in the only thread of a fresh child. What it does:
//   1. stays out of the way where it must: MOSIX_OFF is set, the process is under seccomp (it stays home
//      anyway), or the process is away already (the call kQueryAway, which Linux does not have, answers 1);
//   2. permits a tracer: under Yama a custodian, which is no ancestor of the program, may not seize it
//      otherwise. PR_SET_PTRACER survives exec but not fork, hence the fork handler;
//   3. tells mosixd with one datagram that the process exists. Lost datagrams cost nothing but a row in
//   mosps;
//   4. in a `mosrun -r` tree (MOSIX_NODE), a process that started at home asks to be moved to that node and
//      waits for the answer, at most kPlaceLimitMs. It goes on wherever it then is.
// It leaves no descriptor, thread, timer or mapping behind, and prints nothing, ever.
//
// Laws: no call into libc, so that errno, locks, malloc and stdio of the program are untouched; raw system
// calls only; each result may be a failure and is then ignored. The few undefined symbols are weak, so that
// the library is quiet under any libc: musl resolves libc.so.6 to itself and has `environ`.
//
// libc.so.6 stays a dependency although nothing of it is needed to link: it orders the constructors, so that
// `environ` is set when ours runs.

#include <linux/time_types.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "libmosix/common/query.h"

extern "C" {
extern char** environ __attribute__((weak));
/// glibc's registration (pthread_atfork is a static stub around it); absent elsewhere.
int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(), void* dso) __attribute__((weak));
/// Other C libraries export the function itself.
int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) __attribute__((weak));
}

namespace {

constexpr int kPlaceLimitMs = 10'000;
constexpr char kSystemRunDir[] = "/run/mosix";
/// The user's own mosixd first, then the one that serves the whole machine.
constexpr bool kBothPlaces[] = {false, true};

long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

long address(const void* pointer) { return reinterpret_cast<long>(pointer); }

/// Text in a fixed buffer; what does not fit sets `overflow`, and the text is then not used.
template <size_t kBytes>
struct Text {
  char bytes[kBytes];
  size_t size = 0;
  bool overflow = false;

  void put(char c) {
    if (size + 1 < kBytes)
      bytes[size++] = c;
    else
      overflow = true;
    bytes[size] = 0;
  }
  Text& operator<<(const char* text) {
    for (; *text != 0; ++text) put(*text);
    return *this;
  }
  Text& operator<<(unsigned long value) {
    char digits[24];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + value % 10);
    while ((value /= 10) != 0);
    while (count > 0) put(digits[--count]);
    return *this;
  }
};

/// As getenv, "" when it is not there.
const char* setting(const char* name) {
  char** variables = &environ == nullptr ? nullptr : environ;
  for (; variables != nullptr && *variables != nullptr; ++variables) {
    const char* entry = *variables;
    size_t i = 0;
    while (name[i] != 0 && entry[i] == name[i]) ++i;
    if (name[i] == 0 && entry[i] == '=') return entry + i + 1;
  }
  return "";
}

/// As mosix::run_dir(), which tools and daemons use.
void put_run_dir(Text<sizeof(sockaddr_un::sun_path)>& path) {
  const char* given = setting("MOSIX_RUN_DIR");
  const char* session = setting("XDG_RUNTIME_DIR");
  unsigned long uid = static_cast<unsigned long>(call(SYS_geteuid));
  if (*given != 0)
    path << given;
  else if (uid == 0)
    path << kSystemRunDir;
  else if (*session != 0)
    path << session << "/mosix";
  else
    path << "/tmp/mosix-" << uid;
}

/// The address of a socket of mosixd: the user's own (false) or the one that serves the whole machine.
/// False if the path is too long or there is no second one.
bool socket_address(sockaddr_un& where, const char* name, bool system_wide) {
  Text<sizeof where.sun_path> path;
  if (!system_wide)
    put_run_dir(path);
  else if (*setting("MOSIX_RUN_DIR") == 0 && call(SYS_geteuid) != 0)
    path << kSystemRunDir;
  else
    return false;
  path << "/" << name;
  where.sun_family = AF_UNIX;
  for (size_t i = 0; i <= path.size; ++i) where.sun_path[i] = path.bytes[i];
  return !path.overflow;
}

/// MOSIX_LOCK is "1" for a whole tree, or the pid of the one process that is locked.
bool is_locked() {
  Text<24> pid;
  pid << static_cast<unsigned long>(call(SYS_getpid));
  const char* lock = setting("MOSIX_LOCK");
  size_t same = 0;
  while (lock[same] != 0 && lock[same] == pid.bytes[same]) ++same;
  return (lock[0] == '1' && lock[1] == 0) || (same > 0 && lock[same] == pid.bytes[same]);
}

/// One datagram, wherever a mosixd listens; nobody there is no error.
void announce(bool forked) {
  Text<160> message;
  message << "{\"event\":\"adopt\",\"pid\":" << static_cast<unsigned long>(call(SYS_getpid))
          << ",\"forked\":" << (forked ? "true" : "false")
          << ",\"locked\":" << (is_locked() ? "true" : "false") << "}";
  long fd = call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  for (bool system_wide : kBothPlaces) {
    sockaddr_un where;
    if (!socket_address(where, "adopt.sock", system_wide)) continue;
    if (call(SYS_sendto, fd, address(message.bytes), static_cast<long>(message.size),
             MSG_DONTWAIT | MSG_NOSIGNAL, address(&where), sizeof where) >= 0)
      break;
  }
  call(SYS_close, fd);
}

int64_t now_ms() {
  __kernel_timespec now{};
  call(SYS_clock_gettime, 1 /* CLOCK_MONOTONIC */, address(&now));
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

/// Waits until the descriptor can be read; false when the limit has passed or the wait is impossible.
bool wait_readable(long fd, int64_t deadline_ms) {
  for (;;) {
    int64_t left_ms = deadline_ms - now_ms();
    if (left_ms <= 0) return false;
    pollfd item{static_cast<int>(fd), POLLIN, 0};
    __kernel_timespec left{left_ms / 1000, left_ms % 1000 * 1'000'000};
    long ready = call(SYS_ppoll, address(&item), 1, address(&left), 0, 0);
    if (ready > 0) return true;
    if (ready != -4 /* EINTR */) return false;
  }
}

long connect_control() {
  for (bool system_wide : kBothPlaces) {
    sockaddr_un where;
    if (!socket_address(where, "mosixd.sock", system_wide)) continue;
    long fd = call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    if (call(SYS_connect, fd, address(&where), sizeof where) == 0) return fd;
    call(SYS_close, fd);
  }
  return -1;
}

/// A node's name as mosrun put it there: anything else would need quoting, and is not asked for.
bool is_plain_name(const char* name) {
  if (*name == 0) return false;
  for (; *name != 0; ++name) {
    char c = *name;
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                 c == '-' || c == '_' || c == ':';
    if (!plain) return false;
  }
  return true;
}

/// Asks to be moved to `node`. The process is frozen, moved and thawed while it waits for the reply line.
void place(const char* node) {
  if (!is_plain_name(node)) return;
  Text<320> order;
  order << "{\"op\":\"place\",\"pid\":" << static_cast<unsigned long>(call(SYS_getpid)) << ",\"node\":\""
        << node << "\"}\n";
  if (order.overflow) return;
  long fd = connect_control();
  if (fd < 0) return;
  int64_t deadline_ms = now_ms() + kPlaceLimitMs;
  bool waiting = call(SYS_sendto, fd, address(order.bytes), static_cast<long>(order.size), MSG_NOSIGNAL, 0,
                      0) == static_cast<long>(order.size);
  while (waiting && wait_readable(fd, deadline_ms)) {
    char reply[256];
    long got = call(SYS_recvfrom, fd, address(reply), sizeof reply, MSG_DONTWAIT, 0, 0);
    if (got == -4 /* EINTR */ || got == -11 /* EAGAIN */) continue;
    waiting = got > 0;
    for (long i = 0; i < got; ++i)
      if (reply[i] == '\n') waiting = false;
  }
  call(SYS_close, fd);
}

/// True when there is anything for us to do in this process.
bool is_ours_to_adopt() {
  if (*setting("MOSIX_OFF") != 0) return false;
  // Asked first: under a foreign filter the query could be answered by a kill.
  if (call(SYS_prctl, PR_GET_SECCOMP) != 0) return false;
  return call(mosix::kQueryAway) != 1;
}

void adopt(bool forked) {
  call(SYS_prctl, PR_SET_PTRACER, static_cast<long>(PR_SET_PTRACER_ANY));
  announce(forked);
}

void in_forked_child() {
  if (is_ours_to_adopt()) adopt(true);
}

__attribute__((constructor)) void on_load() {
  if (*setting("MOSIX_OFF") != 0) return;
  // Registered wherever the process is: it may come home and fork there.
  if (__register_atfork != nullptr)
    __register_atfork(nullptr, nullptr, in_forked_child, nullptr);
  else if (pthread_atfork != nullptr)
    pthread_atfork(nullptr, nullptr, in_forked_child);
  if (!is_ours_to_adopt()) return;
  adopt(false);
  if (*setting("MOSIX_NODE") != 0) place(setting("MOSIX_NODE"));
}

}  // namespace
