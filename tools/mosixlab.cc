// mosixlab: a mosix cluster on one machine, for the first try, the tests and the benchmarks alike. This file
// is the front end; tools/lab/lab_spec.h says which processes a lab has.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "libmosix/common/net.h"
#include "libmosix/common/paths.h"
#include "tools/lab/job.h"
#include "tools/lab/keeper.h"
#include "tools/lab/node_root.h"
#include "tools/lab/options.h"
#include "tools/lab/process.h"
#include "tools/lab/state.h"
#include "tools/lab/storm.h"

namespace mosix::lab {
namespace {

void say(const std::string& text) { dprintf(2, "mosixlab: %s\n", text.c_str()); }

Result<std::string> find_daemon() {
  const char* given = getenv("MOSIX_LAB_MOSIXD");  // for the tests of mosixlab itself
  std::string path = given != nullptr ? given : find_component("mosixd");
  if (path.empty()) return fail(0, "no mosixd found; build it, or set MOSIX_LIBEXEC to the build folder");
  if (access(path.c_str(), X_OK) != 0) return fail_errno(path);
  return std::filesystem::absolute(path).string();
}

/// What the command line cannot know: paths, privileges.
Status complete(Options& options) {
  LabSpec& spec = options.spec;
  spec.ephemeral = options.verb == Verb::kRun || options.verb == Verb::kStorm;
  spec.name = options.lab;
  if (spec.name.empty()) spec.name = spec.ephemeral ? "run-" + std::to_string(getpid()) : "lab";
  TRY(spec.daemon, find_daemon());
  if (!spec.log_dir.empty()) TRY_VOID(make_folders(spec.log_dir));
  spec.user_namespace = geteuid() != 0;
  if (spec.user_namespace && spec.uid != 0)
    return fail(0,
                "--user and --uid need root: an ordinary user's lab has one uid only, his own, shown as 0");
  if (spec.user_namespace && spec.cpus > 0)
    return fail(0, "--cpus needs root: cgroups belong to the machine");
  return {};
}

/// The front end's view of a lab that it makes: starts the keeper, hears it, ends it.
class Front {
 public:
  explicit Front(Signals& signals) : signals_(signals) {}

  Status make(LabSpec& spec) {
    sweep_dead_labs();
    TRY(UniqueFd lock, claim_lab(spec));
    state_dir_ = spec.state_dir;
    TRY(keeper_, start_keeper(spec, std::move(lock)));
    return {};
  }

  /// True when all nodes are ready. A signal meanwhile ends the attempt; it is kept for the end.
  bool await_ready() {
    while (keeper_.socket && !ready_ && !interrupted_) wait_once();
    return ready_ && !interrupted_;
  }

  void stay() {
    send_link(keeper_.socket.get(), "stay");
    keeper_.socket.reset();
  }

  /// Ends the lab and returns when nothing is left of it. A second Ctrl-C hurries.
  void end() {
    if (keeper_.socket) send_link(keeper_.socket.get(), "down");
    while (keeper_.socket) wait_once();
    if (keeper_.pid > 0) waitpid(keeper_.pid, nullptr, 0);
    if (done_ || state_dir_.empty()) return;
    Status removed = remove_lab_files(state_dir_);
    say("the lab's keeper was killed" + (removed ? std::string() : "; " + removed.error().message()));
    failed_ = true;
  }

  int interrupted_by() const { return interrupted_; }
  bool failed() const { return failed_; }

 private:
  void wait_once() {
    pollfd entries[] = {{signals_.fd(), POLLIN, 0}, {keeper_.socket.get(), POLLIN, 0}};
    poll(entries, 2, -1);
    for (int signal; (signal = signals_.take()) != 0;) heard_signal(signal);
    if (entries[1].revents != 0) hear_keeper();
  }

  void heard_signal(int signal) {
    if (signal != SIGINT && signal != SIGTERM && signal != SIGHUP && signal != SIGQUIT) return;
    if (interrupted_ != 0) send_link(keeper_.socket.get(), "kill");
    interrupted_ = signal;
  }

  void hear_keeper() {
    Result<LinkMessage> message = receive_link(keeper_.socket.get());
    if (!message) {
      keeper_.socket.reset();
      return;
    }
    const std::string& text = message->text;
    if (text == "ready") ready_ = true;
    if (text == "done") done_ = true;
    if (text.rfind("note ", 0) == 0) say(text.substr(5));
    if (text.rfind("failed ", 0) != 0) return;
    failed_ = true;
    if (interrupted_ == 0) say(text.substr(7));
  }

  Signals& signals_;
  Keeper keeper_;
  std::string state_dir_;
  bool ready_ = false, done_ = false, failed_ = false;
  int interrupted_ = 0;
};

const NodeState* find_node(const LabState& lab, const std::string& name) {
  for (const NodeState& node : lab.nodes)
    if (node.name == name || (name == std::to_string(&node - lab.nodes.data() + 1))) return &node;
  return nullptr;
}

Result<const NodeState*> need_node(const LabState& lab, const std::string& name) {
  const NodeState* node = find_node(lab, name);
  if (node == nullptr)
    return fail(0, "lab " + lab.spec.name + " has no node " + name + ", only node1 to node" +
                       std::to_string(lab.nodes.size()));
  if (node->daemon == "gone") return fail(0, node->name + " of lab " + lab.spec.name + " was killed");
  return node;
}

std::string working_directory() {
  std::error_code ignored;
  return std::filesystem::current_path(ignored).string();
}

/// The command finds the tools that lie beside mosixlab (node1) or in the tree of ours (other nodes).
std::string path_with(const std::string& folder) {
  std::string path =
      getenv("PATH") == nullptr ? "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" : getenv("PATH");
  return (":" + path + ":").find(":" + folder + ":") == std::string::npos ? path + ":" + folder : path;
}

JobSpec make_job(const LabState& lab, const NodeState& node, const std::vector<std::string>& command) {
  JobSpec job;
  job.init = node.init;
  job.cpu_group = node.cpu_group;
  job.user_namespace = lab.spec.user_namespace;
  job.uid = lab.spec.uid;
  job.gid = lab.spec.gid;
  job.argv = command;
  job.environment = {{"MOSIXLAB", lab.spec.name}, {"MOSIX_RUN_DIR", kNodeRunDir}, {"MOSIX_ETC_DIR", ""}};
  if (node.name == "node1") {
    job.cwd = working_directory();
    std::error_code ignored;
    std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", ignored);
    job.environment.push_back({"PATH", path_with(self.parent_path())});
    return job;
  }
  job.cwd = "/";
  for (const char* name : {"PWD", "OLDPWD"}) job.environment.push_back({name, ""});
  job.environment.push_back({"HOME", "/root"});
  if (program_tree(lab.spec.daemon).empty()) return job;
  job.environment.push_back({"MOSIX_LIBEXEC", kAwayTree});
  job.environment.push_back({"PATH", path_with(std::string(kAwayTree) + "/tools")});
  return job;
}

void become_user(JobSpec& job, uid_t uid, gid_t gid) {
  job.uid = uid;
  job.gid = gid;
  if (uid != 0) job.environment.push_back({"HOME", "/tmp"});
}

int run(Options& options, Signals& signals) {
  Front front(signals);
  if (Status made = front.make(options.spec); !made) {
    say(made.error().message());
    front.end();
    return kExitOwn;
  }
  int status = kExitOwn;
  if (front.await_ready()) {
    Result<LabState> lab = find_lab(options.spec.name);
    Result<int> ended = lab ? Result<int>(0) : Result<int>(fail(lab.error()));
    if (lab) {
      JobSpec job = make_job(*lab, lab->nodes[0], options.command);
      become_user(job, options.spec.uid, options.spec.gid);
      ended = run_job(job, signals);
    }
    if (!ended) say(ended.error().message());
    status = ended.value_or(kExitOwn);
  }
  front.end();
  if (front.interrupted_by() != 0 && status == kExitOwn) {
    signals.die_by(front.interrupted_by());
    return 128 + front.interrupted_by();
  }
  return status;
}

/// A program named by its way from here is found from the folder that each run has for itself, too.
std::vector<std::string> from_anywhere(std::vector<std::string> command) {
  if (command[0].find('/') != std::string::npos) command[0] = std::filesystem::absolute(command[0]);
  return command;
}

/// On node1 it is `mosixlab storm-inside` that does the work.
int storm(Options& options, Signals& signals) {
  StormOptions& storm = options.storm;
  if (!options.seed_given) {
    std::random_device random;
    storm.seed = random() % 1'000'000;
  }
  bool ours = storm.keep.empty();
  if (ours) storm.keep = std::filesystem::absolute("storm-" + std::to_string(storm.seed));
  bool logs = options.spec.log_dir.empty();
  if (logs) options.spec.log_dir = storm.keep + "/nodes";
  if (Status made = make_folders(options.spec.log_dir); !made) {
    say(made.error().message());
    return kExitOwn;
  }
  if (!options.json)
    printf("storm with seed %llu: %d runs, a move every %d ms on average, %d nodes\n",
           static_cast<unsigned long long>(storm.seed), storm.runs, storm.interval_ms,
           options.spec.node_count);
  fflush(stdout);
  std::error_code ignored;
  std::vector<std::string> inside = {std::filesystem::read_symlink("/proc/self/exe", ignored),
                                     "storm-inside",
                                     "--nodes",
                                     std::to_string(options.spec.node_count),
                                     "--seed",
                                     std::to_string(storm.seed),
                                     "--interval",
                                     std::to_string(storm.interval_ms),
                                     "--runs",
                                     std::to_string(storm.runs),
                                     "--limit",
                                     std::to_string(storm.limit_s),
                                     "--keep",
                                     storm.keep};
  if (!storm.files.empty()) inside.insert(inside.end(), {"--files", storm.files});
  if (options.json) inside.push_back("--json");
  inside.push_back("--");
  std::vector<std::string> command = from_anywhere(std::move(options.command));
  inside.insert(inside.end(), command.begin(), command.end());
  options.command = std::move(inside);
  int status = run(options, signals);
  if (status != kStormDiffers && logs) std::filesystem::remove_all(options.spec.log_dir, ignored);
  if (status != kStormDiffers && ours) std::filesystem::remove(storm.keep, ignored);
  return status;
}

int storm_inside(Options& options) {
  StormOptions& storm = options.storm;
  storm.nodes = options.spec.node_count;
  storm.json = options.json;
  storm.command = std::move(options.command);
  return run_storm(storm);
}

int up(Options& options, Signals& signals) {
  Front front(signals);
  if (Status made = front.make(options.spec); !made) {
    say(made.error().message());
    return kExitOwn;
  }
  if (!front.await_ready()) {
    front.end();
    if (front.interrupted_by() != 0) signals.die_by(front.interrupted_by());
    return kExitOwn;
  }
  front.stay();
  printf("lab %s is up: node1 to node%d (%s to %s)\n", options.spec.name.c_str(), options.spec.node_count,
         node_address(1).c_str(), node_address(options.spec.node_count).c_str());
  return 0;
}

Result<int> exec(const Options& options, Signals& signals) {
  TRY(LabState lab, find_lab(options.lab));
  TRY(const NodeState* node, need_node(lab, options.node));
  JobSpec job = make_job(lab, *node, options.command);
  bool other = options.uid >= 0;
  become_user(job, other ? options.spec.uid : lab.spec.uid, other ? options.spec.gid : lab.spec.gid);
  if (!options.cwd.empty()) job.cwd = options.cwd;
  return run_job(job, signals);
}

Result<int> status(const Options& options) {
  sweep_dead_labs();
  std::vector<LabState> labs = all_labs();
  if (!options.lab.empty()) {
    TRY(LabState one, find_lab(options.lab));
    labs = {std::move(one)};
  }
  fputs((options.json ? labs_as_json(labs) : labs_as_table(labs)).c_str(), stdout);
  return 0;
}

Status end_lab(const LabState& lab) {
  TRY(UniqueFd keeper, open_pidfd(lab.keeper));
  kill(lab.keeper, SIGTERM);
  // The keeper gives its mosixds kStopLimitMs and then needs a moment; it is never asked to hurry.
  if (wait_pidfd(keeper.get(), kStopLimitMs + 10000)) return {};
  return fail(ETIMEDOUT, "end lab " + lab.spec.name);
}

Result<int> down(const Options& options) {
  sweep_dead_labs();
  std::vector<LabState> labs;
  if (options.all) {
    labs = all_labs();
  } else {
    TRY(LabState one, find_lab(options.lab));
    labs.push_back(std::move(one));
  }
  for (const LabState& lab : labs) TRY_VOID(end_lab(lab));
  return 0;
}

/// The cable is the bridge's end of the link, in the keeper's network namespace.
Result<int> set_cable(const Options& options, const char* direction) {
  TRY(LabState lab, find_lab(options.lab));
  TRY(const NodeState* node, need_node(lab, options.node));
  TRY(UniqueFd keeper, open_pidfd(lab.keeper));
  int namespaces = CLONE_NEWNET | (lab.spec.user_namespace ? CLONE_NEWUSER : 0);
  if (setns(keeper.get(), namespaces) != 0) return fail_errno("enter the lab's network");
  TRY_VOID(run_program({"ip", "link", "set", node->name, direction}, ""));
  return 0;
}

Result<int> kill_node(const Options& options) {
  TRY(LabState lab, find_lab(options.lab));
  TRY(const NodeState* node, need_node(lab, options.node));
  TRY(UniqueFd init, open_pidfd(node->init));
  if (kill(node->init, SIGKILL) != 0) return fail_errno("kill " + node->name);
  if (!wait_pidfd(init.get(), 5000)) return fail(ETIMEDOUT, "kill " + node->name);
  return 0;
}

/// `signals` is there for the verbs that have a job or a lab in the making.
Result<int> carry_out(Options& options, std::optional<Signals>& signals) {
  switch (options.verb) {
    case Verb::kHelp:
      fputs(kHelpText, stdout);
      return 0;
    case Verb::kVersion:
      puts("mosixlab " MOSIX_VERSION);
      return 0;
    case Verb::kRun:
      TRY_VOID(complete(options));
      return run(options, signals.emplace());
    case Verb::kStorm:
      TRY_VOID(complete(options));
      return storm(options, signals.emplace());
    case Verb::kStormInside:
      return storm_inside(options);
    case Verb::kUp:
      TRY_VOID(complete(options));
      return up(options, signals.emplace());
    case Verb::kExec:
      return exec(options, signals.emplace());
    case Verb::kStatus:
      return status(options);
    case Verb::kDown:
      return down(options);
    case Verb::kCut:
      return set_cable(options, "down");
    case Verb::kMend:
      return set_cable(options, "up");
    case Verb::kKill:
      return kill_node(options);
  }
  return kExitOwn;
}

}  // namespace
}  // namespace mosix::lab

int main(int argc, char** argv) {
  using namespace mosix::lab;
  mosix::Result<Options> options = parse_options(argc, argv);
  if (!options) {
    if (options.error().what != "see mosixlab --help") say(options.error().message());
    return kExitOwn;
  }
  std::optional<Signals> signals;
  mosix::Result<int> status = carry_out(*options, signals);
  if (!status) say(status.error().message());
  return status.value_or(kExitOwn);
}
