// The parent that `mosrun --report` leaves behind. At home the kernel counts only what the deputies do: the
// time that a program computes away is in no rusage of its parent, and cannot be put there. mosixd adds it up
// for the whole tree: an account is opened before the program runs, and asked for when it has ended.

#include "tools/mosrun_report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <optional>

#include "libmosix/common/unique_fd.h"
#include "tools/tool_common.h"

namespace mosix {
namespace {

constexpr int kAccountLimitMs = 10'000;

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

int failed(const char* what) {
  fmt::print(stderr, "mosrun: {}: {}\n", what, strerror(errno));
  return 125;
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

/// mosixd's account of the tree of one process, over a connection that lasts as long.
class Account {
 public:
  explicit Account(pid_t root) {
    auto daemon = ControlClient::connect();
    if (!daemon) return;
    daemon_.emplace(std::move(*daemon));
    if (!daemon_->ask({{"op", "account"}, {"pid", root}}, kAccountLimitMs)) daemon_.reset();
  }

  /// "1.50s (2 moves, last on node2)", once the program has ended; in a second line what has brought it home.
  std::string story() {
    if (!daemon_) return "0.00s (0 moves)";
    auto sum = daemon_->ask({{"op", "account"}, {"end", true}}, kAccountLimitMs);
    if (!sum) return "unknown (mosixd has ended or was started again meanwhile)";
    int64_t moves = field_integer(*sum, "moves");
    std::string text = moves == 1 ? "1 move" : fmt::format("{} moves", moves);
    std::string where = printable(field_text(*sum, "where")), reason = printable(field_text(*sum, "reason"));
    if (!where.empty()) text += ", last " + (where == "home" ? std::string("at home") : "on " + where);
    if (!reason.empty()) text += " (" + reason + ")";
    // A node that went away without a word knew more.
    const char* at_least = field_flag(*sum, "complete") ? "" : "at least ";
    std::string brought = homecomings_text(*sum);
    if (!brought.empty()) brought = "\nbrought " + brought;
    return fmt::format("{}{:.2f}s ({}){}", at_least, field_number(*sum, "cpu_away_us") / 1e6, text, brought);
  }

 private:
  std::optional<ControlClient> daemon_;
};

/// Returns when the child has ended; it is not reaped yet, so that its number still means it.
void wait_for_end(pid_t child) {
  siginfo_t ended;
  while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR) continue;
}

}  // namespace

int run_with_report(const std::function<int()>& program) {
  auto begin = std::chrono::steady_clock::now();
  sigset_t mask = hold_signals();
  int gate[2];
  if (pipe2(gate, O_CLOEXEC) != 0) return failed("pipe");
  UniqueFd gate_end(gate[0]), gate_key(gate[1]);
  pid_t child = fork();
  if (child < 0) return failed("fork");
  if (child == 0) {
    gate_key.reset();
    char nothing;
    while (read(gate_end.get(), &nothing, 1) < 0 && errno == EINTR) continue;
    gate_end.reset();
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    _exit(program());
  }
  Account account(child);
  gate_key.reset();  // the account is open, and the program may begin
  share_signals(child);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  wait_for_end(child);
  std::string away = account.story();
  int status = 0;
  rusage home{};
  while (wait4(child, &status, 0, &home) < 0 && errno == EINTR) continue;
  std::chrono::duration<double> real = std::chrono::steady_clock::now() - begin;
  fmt::print(stderr, "real {:.2f}s\nhome {:.2f}s (user {:.2f}s, system {:.2f}s)\naway {}\n", real.count(),
             seconds(home.ru_utime) + seconds(home.ru_stime), seconds(home.ru_utime), seconds(home.ru_stime),
             away);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace mosix
