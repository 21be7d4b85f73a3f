// The parent that `mosrun --report` leaves behind. At home the kernel counts only what the deputies do: the
// time that a program computes away is in no rusage of its parent, and cannot be put there. mosixd knows it
// process by process, so it is asked while they run, at last once a second, and once more at the end.

#include "tools/mosrun_report.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>

#include "libmosix/common/unique_fd.h"
#include "tools/process_tree.h"
#include "tools/tool_common.h"

namespace mosix {
namespace {

/// The first question comes soon, for programs that end soon; then twice as long each time.
constexpr int kFirstSampleMs = 20;
constexpr int kSampleMs = 1000;
constexpr int kSampleLimitMs = 2000;

volatile sig_atomic_t forward_to = 0;

void forward(int signal) {
  if (forward_to > 0) kill(forward_to, signal);
}

constexpr int kForwarded[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};

/// Holds back what is to be forwarded until there is a child to forward it to; returns the mask before.
sigset_t hold_signals() {
  sigset_t held, before;
  sigemptyset(&held);
  for (int signal : kForwarded) sigaddset(&held, signal);
  sigprocmask(SIG_BLOCK, &held, &before);
  return before;
}

/// As time(1): the terminal's signals are the program's business; what is sent to us alone is passed on.
void share_signals(pid_t child) {
  forward_to = child;
  for (int signal : {SIGINT, SIGQUIT}) std::signal(signal, SIG_IGN);
  for (int signal : kForwarded) std::signal(signal, forward);
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

/// Away time of a process tree, by process: the most that was ever heard.
class AwayTime {
 public:
  explicit AwayTime(pid_t root) : root_(root) {}

  void sample() {
    auto reply = ask_daemon({{"op", "processes"}}, kSampleLimitMs);
    if (!reply) return;
    for (const Json& process : field_array(*reply, "processes")) {
      if (!process.is_object() || field_flag(process, "foreign")) continue;
      auto pid = static_cast<pid_t>(field_integer(process, "pid"));
      if (cpu_ms_.count(pid) == 0 && !descends_from(pid, root_)) continue;
      cpu_ms_[pid] = std::max(cpu_ms_[pid], field_number(process, "cpu_away_ms"));
      if (pid == root_) note(process);
    }
  }
  /// The root is a zombie by now; mosixd may still know its last figures.
  void last_sample() {
    sample();
    auto reply = ask_daemon({{"op", "why"}, {"pid", root_}}, kSampleLimitMs);
    if (!reply) return;
    cpu_ms_[root_] = std::max(cpu_ms_[root_], field_number(*reply, "cpu_away_ms"));
    note(*reply);
  }
  double total_s() const {
    double sum = 0;
    for (const auto& [pid, ms] : cpu_ms_) sum += ms / 1000;
    return sum;
  }
  std::string story() const {
    std::string text = moves_ == 1 ? "1 move" : fmt::format("{} moves", moves_);
    if (!where_.empty()) text += ", last " + (where_ == "home" ? std::string("at home") : "on " + where_);
    if (!reason_.empty()) text += " (" + reason_ + ")";
    return text;
  }

 private:
  void note(const Json& process) {
    moves_ = std::max(moves_, field_integer(process, "moves"));
    where_ = printable(field_text(process, "where", where_));
    reason_ = printable(field_text(process, "reason", reason_));
  }

  pid_t root_;
  std::map<pid_t, double> cpu_ms_;
  int64_t moves_ = 0;
  std::string where_;
  std::string reason_;
};

/// Returns when the child has ended; it is not reaped yet, so that its number still means it.
void watch(pid_t child, AwayTime& away) {
  UniqueFd handle(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  pollfd item{handle.get(), POLLIN, 0};
  for (int wait_ms = kFirstSampleMs;; wait_ms = std::min(2 * wait_ms, kSampleMs)) {
    int ready = handle ? poll(&item, 1, wait_ms) : 1;
    if (ready > 0) break;
    if (ready == 0) away.sample();
  }
  siginfo_t ended;
  while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR) continue;
  away.last_sample();
}

}  // namespace

int run_with_report(const std::function<int()>& program) {
  auto begin = std::chrono::steady_clock::now();
  sigset_t mask = hold_signals();
  pid_t child = fork();
  if (child < 0) {
    fmt::print(stderr, "mosrun: fork: {}\n", strerror(errno));
    return 125;
  }
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    _exit(program());
  }
  share_signals(child);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  AwayTime away(child);
  watch(child, away);
  int status = 0;
  rusage home{};
  while (wait4(child, &status, 0, &home) < 0 && errno == EINTR) continue;
  std::chrono::duration<double> real = std::chrono::steady_clock::now() - begin;
  fmt::print(stderr, "real {:.2f}s\nhome {:.2f}s (user {:.2f}s, system {:.2f}s)\naway {:.2f}s ({})\n",
             real.count(), seconds(home.ru_utime) + seconds(home.ru_stime), seconds(home.ru_utime),
             seconds(home.ru_stime), away.total_s(), away.story());
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace mosix
