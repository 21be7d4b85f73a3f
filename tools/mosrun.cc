// mosrun [OPTION]... COMMAND: starts a program adopted, and where it was asked to.
//
// mosrun becomes the program: it sets the environment, asks mosixd to watch its own pid, and execs. The
// custodian sees that exec and takes the new image away at its first instruction, so that static programs
// and cleared environments are placed too; pid, parent, terminal and exit status are the program's own by
// construction. Only --report keeps a mosrun around, as the parent that waits.
//
// What goes wrong before the exec ends in one line on standard error and, as in openMosix and MOSIX, in failure if
// a node was asked for, unless -F was given: then in the program running at home. Exit codes are env(1)'s: 125,
// 126, 127.

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>

#include "libmosix/common/paths.h"
#include "libmosix/common/query.h"
#include "tools/mosrun_options.h"
#include "tools/mosrun_report.h"
#include "tools/program_file.h"
#include "tools/tool_common.h"

namespace mosix {
namespace {

constexpr int kExitFailed = 125;
constexpr int kExitCannotRun = 126;
constexpr int kExitNotFound = 127;

void say(const std::string& text) { fmt::print(stderr, "mosrun: {}\n", printable(text)); }

bool names_libmosix(const std::string& preload) {
  size_t start = 0;
  while (start < preload.size()) {
    size_t end = std::min(preload.find_first_of(": ", start), preload.size());
    if (std::string entry = preload.substr(start, end - start); entry.ends_with("/libmosix.so")) return true;
    start = end + 1;
  }
  return false;
}

/// LD_PRELOAD with our library in front, kept as it is where it is there already. $LIB lets each dynamic
/// loader find the library of its own word size (libmosix/preload/link_tree.sh).
void set_preload() {
  const char* old = getenv("LD_PRELOAD");
  if (old != nullptr && names_libmosix(old)) return;
  std::string library = find_component("libmosix.so");
  if (library.empty() || library.find_first_of(": ") != std::string::npos)
    return say("libmosix.so is not found beside mosrun: children that start at home are not adopted");
  std::string folder = library.substr(0, library.rfind('/'));
  if (access((folder + "/lib64/libmosix.so").c_str(), F_OK) == 0) library = folder + "/$LIB/libmosix.so";
  setenv("LD_PRELOAD", (old == nullptr || *old == 0 ? library : library + ":" + old).c_str(), 1);
}

/// True if this process shall be locked. MOSIX_LOCK tells the preloaded library, and with it mosixd, here and
/// in the children.
bool settle_lock(const RunOptions& options) {
  using Lock = RunOptions::Lock;
  const char* inherited = getenv("MOSIX_LOCK");
  bool was_locked = inherited != nullptr && strcmp(inherited, "1") == 0;
  bool locked = options.lock == Lock::kLock || (options.lock == Lock::kKeep && was_locked);
  if (locked)
    setenv("MOSIX_LOCK", "1", 1);
  else
    unsetenv("MOSIX_LOCK");
  return locked;
}

/// The node with the lowest load for each processor once one more process runs there; home wins a tie.
std::optional<std::string> best_node(const Json& reply, const RunOptions& options, const std::string& home) {
  std::optional<std::string> best;
  double lowest = 0;
  for (const Json& node : field_array(reply, "nodes")) {
    if (!node.is_object() || !field_flag(node, "up")) continue;
    std::string name = field_text(node, "name");
    if (name.empty()) continue;
    if (!options.list.empty() &&
        !is_listed(options.list, name, field_text(node, "address"), field_integer(node, "id", -1)))
      continue;
    double cost = (field_number(node, "load") + 1) / std::max(field_number(node, "cpus", 1), 1.0);
    if (best && (cost > lowest || (cost == lowest && name != home))) continue;
    best = name;
    lowest = cost;
  }
  return best;
}

/// Turns -b and -j into a node's name; "home" when home is the best.
Answer<std::string> choose_node(ControlClient& daemon, const RunOptions& options) {
  if (options.where == RunOptions::Where::kNode) return options.node;
  auto status = daemon.ask({{"op", "status"}}, kAskLimitMs);
  if (!status) return tl::unexpected(status.error());
  auto nodes = daemon.ask({{"op", "nodes"}}, kAskLimitMs);
  if (!nodes) return tl::unexpected(nodes.error());
  std::string home = field_text(*status, "node");
  auto best = best_node(*nodes, options, home);
  if (!best) return tl::unexpected(Failure{kExitNotDone, Error{EHOSTUNREACH, "none of the nodes is up"}});
  return *best == home ? std::string("home") : *best;
}

/// In a tree that lives away, mosrun itself does too. The program's place is decided at home, from a
/// process that is there: a watch is set on a native exec.
Status come_home(ControlClient& daemon) {
  if (syscall(mosix::kQueryAway) != 1) return {};
  auto reply = daemon.ask({{"op", "migrate"}, {"pid", getpid()}, {"to", "home"}}, kMoveLimitMs);
  if (!reply) return fail(std::move(reply.error().error));
  return {};
}

/// Arranges that this process is taken to its place at its exec. Returns the node, "" for home.
Answer<std::string> arrange(const RunOptions& options, bool locked) {
  auto daemon = ControlClient::connect();
  if (!daemon) return tl::unexpected(daemon.error());
  if (auto home = come_home(*daemon); !home) return tl::unexpected(Failure{kExitNotDone, home.error()});
  // Under Yama the custodian, which is no ancestor of ours, may seize us by our leave only.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  if (!options.wants_away()) return "";
  auto node = choose_node(*daemon, options);
  if (!node || *node == "home") return node ? "" : node;
  Json request{
      {"op", "run"}, {"pid", getpid()}, {"node", *node}, {"require", options.require}, {"hold", true}};
  if (locked) request["locked"] = true;
  auto reply = daemon->ask(request, kAskLimitMs);
  if (!reply) return tl::unexpected(reply.error());
  return field_text(*reply, "node", *node);
}

/// What a program can be told beforehand that it cannot leave home; empty otherwise.
std::string reason_to_stay(const std::string& path) {
  std::string change = identity_change(path);
  return change.empty() ? "" : fmt::format("{} changes its identity when it starts ({})", path, change);
}

/// Sets the scene for the exec. False if the program must not run: what was required cannot be had.
bool prepare(const RunOptions& options, const std::string& path) {
  set_preload();
  bool locked = settle_lock(options);
  unsetenv("MOSIX_NODE");
  if (std::string reason = reason_to_stay(path); !reason.empty() && options.wants_away()) {
    say(reason + (options.require ? "" : "; it runs at home"));
    return !options.require;
  }
  auto node = arrange(options, locked);
  if (node) {
    if (!node->empty()) setenv("MOSIX_NODE", node->c_str(), 1);
    return true;
  }
  const Failure& failure = node.error();
  bool fatal = options.require || (options.wants_this_node() && !options.tolerant);
  std::string text = failure.exit == kExitBadReply ? failure.error.message() : failure.error.what;
  say(fatal ? text : text + "; the program runs at home");
  return !fatal;
}

int exec_failure(const std::string& what, int code) {
  say(fmt::format("{}: {}", what, strerror(code)));
  return code == ENOENT ? kExitNotFound : kExitCannotRun;
}

/// Becomes the program. A file without a known header is a shell script, as for execvp.
int exec_program(const std::string& path, const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  if (errno != ENOEXEC) return exec_failure(path, errno);
  argv[0] = const_cast<char*>(path.c_str());
  argv.insert(argv.begin(), const_cast<char*>("sh"));
  execv("/bin/sh", argv.data());
  return exec_failure("/bin/sh", errno);
}

int start(const RunOptions& options, const std::string& path) {
  if (!prepare(options, path)) return kExitFailed;
  return exec_program(path, options.command);
}

int run(int argc, char** argv) {
  auto options = parse_run_options({argv + 1, argv + argc});
  if (!options) {
    say(options.error().message());
    fmt::print(stderr, "Try `mosrun --help`.\n");
    return kExitFailed;
  }
  if (options->help || options->version) {
    fmt::print("{}", options->help ? std::string(kRunHelp) : version_text("mosrun") + "\n");
    return 0;
  }
  auto path = find_program(options->command[0]);
  if (!path) return exec_failure(path.error().what, path.error().code);
  auto started = [&] { return start(*options, *path); };
  return options->report ? run_with_report(started) : started();
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) { return mosix::run(argc, argv); }
