#include "tools/lab/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "libmosix/common/membership.h"
#include "libmosix/common/net.h"
#include "tools/lab/cpu_limit.h"
#include "tools/lab/network.h"
#include "tools/lab/node.h"
#include "tools/lab/process.h"
#include "tools/lab/state.h"

namespace mosix::lab {
namespace {

/// An ordinary user is root in a namespace of his own; nothing else maps.
Status enter_user_namespace() {
  uid_t uid = getuid();
  gid_t gid = getgid();
  if (unshare(CLONE_NEWUSER) != 0)
    return fail(errno, "an ordinary user cannot make user namespaces here; run mosixlab as root");
  TRY_VOID(write_existing("/proc/self/setgroups", "deny"));
  TRY_VOID(write_existing("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1"));
  return write_existing("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
}

class LabKeeper {
 public:
  LabKeeper(const LabSpec& spec, UniqueFd front) : front_(std::move(front)) {
    state_.spec = spec;
    state_.keeper = getpid();
  }

  /// From nothing to nothing. Returns the keeper's exit status.
  int run() {
    Status up = set_up();
    if (up) up = await_ready();
    if (up) {
      send_link(front_.get(), "ready");
      Ending ending = serve();
      if (ending == Ending::kInOrder) stop_daemons();
    }
    end_nodes();
    Status cleaned = remove_lab_files(state_.spec.state_dir);
    if (!cleaned) send_link(front_.get(), "note " + cleaned.error().message());
    if (!up) send_link(front_.get(), "failed " + up.error().message());
    send_link(front_.get(), "done");
    return up ? 0 : 1;
  }

 private:
  enum class Ending { kInOrder, kAtOnce };

  Status set_up() {
    const LabSpec& spec = state_.spec;
    TRY_VOID(catch_signals());
    if (spec.user_namespace) TRY_VOID(enter_user_namespace());
    if (unshare(CLONE_NEWNET) != 0) return fail_errno("make a network namespace");
    TRY(std::string key, generate_cluster_key());
    std::vector<pid_t> inits;
    for (int k = 1; k <= spec.node_count; k++) {
      NodeState& entry = state_.nodes.emplace_back();
      entry.name = node_name(k);
      entry.address = node_address(k);
      entry.log = node_log(spec, k);
      if (spec.cpus > 0) {
        TRY(entry.cpu_group, make_cpu_group(spec, k));
      }
      // Before the first process is in the group: a group that the file does not name is never swept.
      TRY_VOID(save_state(state_));
      TRY(Node node, start_node(spec, k, key, entry.cpu_group));
      entry.init = node.init;
      inits.push_back(node.init);
      nodes_.push_back(std::move(node));
    }
    Status bridge = make_bridge(spec, inits);
    if (!bridge) return fail(first_failure().value_or(bridge.error()));
    for (Node& node : nodes_) send_link(node.link.get(), "go");
    return {};
  }

  Status catch_signals() {
    sigset_t mask;
    sigemptyset(&mask);
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&mask, signal);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    signals_.reset(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    return signals_ ? Status() : fail_errno("signalfd");
  }

  /// Waits for something of anybody, at most `limit_ms` (-1: for ever). Slots: signals, front, nodes.
  std::vector<pollfd> wait_for_any(int limit_ms) {
    std::vector<pollfd> entries = {{signals_.get(), POLLIN, 0}, {front_.get(), POLLIN, 0}};
    for (const Node& node : nodes_) entries.push_back({node.link.get(), POLLIN, 0});
    poll(entries.data(), entries.size(), limit_ms);
    return entries;
  }

  bool told_to_end() {
    signalfd_siginfo info{};
    bool told = false;
    while (read(signals_.get(), &info, sizeof info) == sizeof info) told |= info.ssi_signo != SIGCHLD;
    return told;
  }

  /// A node that failed early takes its namespace away from under `ip`; its own words say more.
  std::optional<Error> first_failure() {
    for (const Node& node : nodes_) {
      pollfd entry{node.link.get(), POLLIN, 0};
      if (poll(&entry, 1, 0) != 1) continue;
      Result<LinkMessage> message = receive_link(node.link.get());
      if (message && message->text.rfind("failed ", 0) == 0) return Error{0, message->text.substr(7)};
    }
    return std::nullopt;
  }

  Status await_ready() {
    // Each init has its own limit for mosixd; this one is for the inits.
    int64_t deadline = now_ms() + kReadyLimitMs + 5000;
    size_t ready = 0;
    while (ready < nodes_.size()) {
      if (now_ms() > deadline) return fail(0, "the nodes were not up in time");
      std::vector<pollfd> entries = wait_for_any(static_cast<int>(deadline - now_ms()));
      if (told_to_end()) return fail(EINTR, "starting the lab");
      if (entries[1].revents != 0) return fail(EINTR, "starting the lab");
      for (size_t i = 0; i < nodes_.size(); i++) {
        if (entries[i + 2].revents == 0) continue;
        Result<LinkMessage> message = receive_link(nodes_[i].link.get());
        if (!message) return fail(0, state_.nodes[i].name + ": its init ended");
        if (message->text.rfind("failed ", 0) == 0)
          return fail(0, message->text.substr(7) + last_words(state_.nodes[i]));
        ready++;
        state_.nodes[i].daemon = "up";
      }
    }
    return save_state(state_);
  }

  static std::string last_words(const NodeState& node) {
    std::string tail = file_tail(node.log, 10);
    return tail.empty() ? "" : "; the last lines of its log:" + tail;
  }

  Ending serve() {
    for (;;) {
      std::vector<pollfd> entries = wait_for_any(-1);
      if (told_to_end()) return Ending::kInOrder;
      for (size_t i = 0; i < nodes_.size(); i++)
        if (entries[i + 2].revents != 0) hear_node(i);
      if (entries[1].revents == 0) continue;
      Result<LinkMessage> order = receive_link(front_.get());
      if (order && order->text == "down") return Ending::kInOrder;
      if (!order || order->text != "stay") return Ending::kAtOnce;
      front_.reset();  // a negative descriptor is skipped by poll
    }
  }

  void hear_node(size_t i) {
    Result<LinkMessage> message = receive_link(nodes_[i].link.get());
    NodeState& entry = state_.nodes[i];
    if (!message) {
      nodes_[i].link.reset();
      entry.daemon = "gone";
    } else if (message->text.rfind("daemon ", 0) == 0) {
      entry.daemon = message->text.substr(7);
      // SIGTERM, SIGKILL and an orderly end may be somebody's wish; these never are.
      for (int crash : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGSYS})
        if (entry.daemon == "killed by signal " + std::to_string(crash))
          note(entry.name + ": mosixd was " + entry.daemon + last_words(entry));
    } else if (message->text.rfind("note ", 0) == 0) {
      note(message->text.substr(5));
    }
    (void)save_state(state_);
  }

  void note(const std::string& text) {
    if (front_) send_link(front_.get(), "note " + text);
  }

  /// All nodes at the same time: each sends its guests home while the homes still stand.
  void stop_daemons() {
    for (Node& node : nodes_)
      if (node.link) send_link(node.link.get(), "stop");
    for (int64_t deadline = now_ms() + kStopLimitMs + 1000; now_ms() < deadline;) {
      bool any = std::any_of(nodes_.begin(), nodes_.end(), [](const Node& node) { return bool(node.link); });
      if (!any) return;
      std::vector<pollfd> entries = wait_for_any(static_cast<int>(deadline - now_ms()));
      told_to_end();
      for (size_t i = 0; i < nodes_.size(); i++)
        if (entries[i + 2].revents != 0) hear_node(i);
      if (entries[1].revents == 0) continue;
      Result<LinkMessage> order = receive_link(front_.get());
      if (!order || order->text == "kill") return;
    }
  }

  /// Killing pid 1 of a pid namespace kills the namespace; it is gone when its init has been waited for. A
  /// command's front end that is stopped may keep a zombie in there, which must not keep us.
  void end_nodes() {
    for (Node& node : nodes_) kill(node.init, SIGKILL);
    for (Node& node : nodes_)
      if (wait_pidfd(node.pidfd.get(), 3000)) waitpid(node.init, nullptr, 0);
  }

  LabState state_;
  UniqueFd front_, signals_;
  std::vector<Node> nodes_;
};

}  // namespace

Result<Keeper> start_keeper(const LabSpec& spec, UniqueFd lock) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return fail_errno("socketpair");
  Keeper keeper;
  keeper.socket.reset(pair[0]);
  UniqueFd far(pair[1]);
  keeper.pid = fork();
  if (keeper.pid < 0) return fail_errno("fork");
  if (keeper.pid > 0) return keeper;
  setsid();
  prctl(PR_SET_NAME, "lab-keeper");
  detach_stdio();
  close_all_except({far.get(), lock.get()});
  if (chdir("/") != 0) _exit(1);
  _exit(LabKeeper(spec, std::move(far)).run());
}

}  // namespace mosix::lab
