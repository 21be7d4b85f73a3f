#include "tools/lab/node.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "libmosix/common/net.h"
#include "tools/lab/cpu_limit.h"
#include "tools/lab/network.h"
#include "tools/lab/node_root.h"
#include "tools/lab/process.h"

extern char** environ;

namespace mosix::lab {
namespace {

constexpr int kNodeNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC;

std::string wait_status_text(int status) {
  if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
  return "exited " + std::to_string(WEXITSTATUS(status));
}

/// The caller's time zone as a fixed offset, so that the logs of all nodes tell the same time although an
/// away node's /etc/localtime is elsewhere.
std::string fixed_time_zone() {
  time_t now = time(nullptr);
  tm local{};
  localtime_r(&now, &local);
  long minutes = local.tm_gmtoff / 60;
  char text[48];
  snprintf(text, sizeof text, "TZ=<lab>%c%02ld:%02ld", minutes >= 0 ? '-' : '+', labs(minutes) / 60,
           labs(minutes) % 60);
  return text;
}

/// mosixd's environment: nothing of the caller's but what turns features, sanitizers and languages.
std::vector<std::string> daemon_environment(const LabSpec& spec, int k) {
  std::vector<std::string> environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                          "HOME=/", std::string("MOSIX_RUN_DIR=") + kNodeRunDir};
  bool away_tree = k != 1 && !program_tree(spec.daemon).empty();
  environment.push_back(fixed_time_zone());
  if (away_tree) environment.push_back(std::string("MOSIX_LIBEXEC=") + kAwayTree);
  for (char** entry = environ; *entry != nullptr; entry++) {
    std::string text = *entry, name = text.substr(0, text.find('='));
    bool ours = name.rfind("MOSIX_", 0) == 0 && name != "MOSIX_RUN_DIR" && name != "MOSIX_ETC_DIR";
    if (name == "MOSIX_LIBEXEC" && away_tree) ours = false;
    bool sanitizer = name.size() > 12 && name.compare(name.size() - 12, 12, "SAN_OPTIONS") == 0;
    sanitizer = sanitizer || (name.size() > 11 && name.compare(name.size() - 11, 11, "SAN_OPTIONS") == 0);
    if (ours || sanitizer || name == "LANG" || name == "LC_ALL") environment.push_back(text);
  }
  return environment;
}

/// The init of one node, from its first instruction to its last.
class NodeInit {
 public:
  NodeInit(const LabSpec& spec, int k, UniqueFd link, int log)
      : spec_(spec), k_(k), link_(std::move(link)), log_(log) {}

  [[noreturn]] void run(const std::string& key, const std::string& cpu_group) {
    Status status = build(key, cpu_group);
    if (status) status = start_daemon();
    if (status) status = await_ready();
    if (status) {
      send_link(link_.get(), "ready");
      serve();
    } else {
      send_link(link_.get(), "failed " + node_name(k_) + ": " + status.error().message());
    }
    _exit(status ? 0 : 1);
  }

 private:
  Status build(const std::string& key, const std::string& cpu_group) {
    TRY_VOID(catch_signals());
    TRY_VOID(join_cpu_group(cpu_group));
    std::string name = node_name(k_);
    if (sethostname(name.c_str(), name.size()) != 0) return fail_errno("sethostname");
    TRY_VOID(enter_node_root(spec_, k_, key));
    TRY_VOID(receive_link(link_.get()).map([](const LinkMessage&) {}));  // "go"
    TRY_VOID(set_up_node_links(spec_, k_));
    // The next process, mosixd, gets this number plus one; nodes are told apart by the pids they show.
    return write_existing("/proc/sys/kernel/ns_last_pid", std::to_string(k_ * kPidsPerNode - 1));
  }

  Status catch_signals() {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    signals_.reset(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    return signals_ ? Status() : fail_errno("signalfd");
  }

  Status start_daemon() {
    watch_.reset(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (inotify_add_watch(watch_.get(), kNodeRunDir, IN_CREATE | IN_MOVED_TO | IN_ATTRIB) < 0)
      return fail_errno(std::string("inotify ") + kNodeRunDir);
    daemon_ = fork();
    if (daemon_ < 0) return fail_errno("fork");
    if (daemon_ == 0) become_daemon();
    return {};
  }

  [[noreturn]] void become_daemon() {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    setsid();
    dup2(log_, 1);
    dup2(log_, 2);
    std::string path = daemon_in_node(spec_, k_);
    std::vector<std::string> environment = daemon_environment(spec_, k_);
    std::vector<char*> pointers;
    for (std::string& entry : environment) pointers.push_back(entry.data());
    pointers.push_back(nullptr);
    char foreground[] = "--foreground";
    char* argv[] = {path.data(), foreground, nullptr};
    Status dropped = drop_to(spec_.uid, spec_.gid);
    if (dropped) execve(path.c_str(), argv, pointers.data());
    std::string why = dropped ? "exec " + path + ": " + strerror(errno) : dropped.error().message();
    dprintf(2, "mosixlab: %s\n", why.c_str());
    _exit(126);
  }

  /// Ready is when the control socket answers. The socket's file appears (inotify) a moment before mosixd
  /// listens on it, hence the short second tries.
  Status await_ready() {
    int64_t deadline = now_ms() + kReadyLimitMs;
    bool there = false;
    while (now_ms() < deadline) {
      if (there && dial_unix(std::string(kNodeRunDir) + "/mosixd.sock")) return {};
      pollfd entries[] = {{signals_.get(), POLLIN, 0}, {watch_.get(), POLLIN, 0}, {link_.get(), POLLIN, 0}};
      int64_t left = deadline - now_ms();
      poll(entries, 3, static_cast<int>(there ? std::min<int64_t>(left, 2) : left));
      reap();
      if (daemon_ == 0) return fail(0, "mosixd " + daemon_state_ + " before it was ready");
      if (entries[2].revents != 0) return fail(0, "told to stop before mosixd was ready");
      drain(watch_.get());
      there = access((std::string(kNodeRunDir) + "/mosixd.sock").c_str(), F_OK) == 0;
    }
    return fail(0, "mosixd had no control socket after " + std::to_string(kReadyLimitMs / 1000) + " s");
  }

  void serve() {
    for (;;) {
      pollfd entries[] = {{signals_.get(), POLLIN, 0}, {link_.get(), POLLIN, 0}};
      poll(entries, 2, -1);
      bool ran = daemon_ != 0;
      reap();
      if (ran && daemon_ == 0) send_link(link_.get(), "daemon " + daemon_state_);
      if (entries[1].revents == 0) continue;
      Result<LinkMessage> order = receive_link(link_.get());
      if (order && order->text == "stop") stop_daemon();
      return;
    }
  }

  /// SIGTERM, then patience: mosixd sends guests home first.
  void stop_daemon() {
    if (daemon_ == 0) return;
    kill(daemon_, SIGTERM);
    for (int64_t deadline = now_ms() + kStopLimitMs; daemon_ != 0 && now_ms() < deadline; reap()) {
      pollfd entry{signals_.get(), POLLIN, 0};
      poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, deadline - now_ms())));
    }
    if (daemon_ == 0) return;
    kill(daemon_, SIGKILL);
    send_link(link_.get(), "note " + node_name(k_) + ": mosixd did not end within " +
                               std::to_string(kStopLimitMs / 1000) + " s of SIGTERM and was killed");
  }

  void reap() {
    drain(signals_.get());
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != daemon_) continue;
      daemon_ = 0;
      daemon_state_ = wait_status_text(status);
    }
  }

  static void drain(int fd) {
    char buffer[4096];
    while (read(fd, buffer, sizeof buffer) > 0) {
    }
  }

  const LabSpec& spec_;
  int k_;
  UniqueFd link_;
  int log_;
  UniqueFd signals_, watch_;
  pid_t daemon_ = 0;  ///< 0 when it has ended
  std::string daemon_state_;
};

}  // namespace

Result<Node> start_node(const LabSpec& spec, int k, const std::string& key, const std::string& cpu_group) {
  UniqueFd log(open(node_log(spec, k).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644));
  if (!log) return fail_errno("create " + node_log(spec, k));
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return fail_errno("socketpair");
  Node node;
  node.link.reset(pair[0]);
  UniqueFd far(pair[1]);
  node.init =
      static_cast<pid_t>(syscall(SYS_clone, kNodeNamespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (node.init < 0) return fail_errno("make namespaces for " + node_name(k));
  if (node.init == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, ("lab-" + node_name(k)).c_str());
    close_all_except({far.get(), log.get()});
    NodeInit(spec, k, std::move(far), log.get()).run(key, cpu_group);
  }
  TRY(node.pidfd, open_pidfd(node.init));
  return node;
}

}  // namespace mosix::lab
