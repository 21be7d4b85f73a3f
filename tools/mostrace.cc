// mostrace: strace for the calls of processes that are away, as supervisors report them through mosixd.
//
// Nothing is attached to the process: each event is made where the call was answered, so a traced guest is
// not stopped and may itself be traced at home. A command is started through mosrun; the watch is asked for
// before it execs, so that its first call away is seen. Options are parsed by getopt_long up to the first
// other word, as strace does it.

#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <set>

#include "libmosix/common/paths.h"
#include "tools/process_tree.h"
#include "tools/tool_common.h"
#include "tools/trace_filter.h"
#include "tools/trace_output.h"

namespace mosix {
namespace {

constexpr char kHelp[] = R"(Usage: mostrace [OPTION]... -p PID
       mostrace [OPTION]... [-r NODE] COMMAND [ARGUMENT]...
Shows the system calls of a process that is away, and where each was answered.

  -p, --attach=PID   a process that runs
  -r NODE            start COMMAND on this node (mosrun -r)
  -f                 children too; without it only the process itself
  -e EXPRESSION      only these calls, strace's way: [trace=][!]SET of names and
                     classes (file, process, network, signal, desc, memory, ipc);
                     also answered=SET (here, home, cache, posted, split,
                     brought_home) and status=successful|failed
  -c                 count instead: calls, errors, times, and who answered
  -t, -tt, -ttt      the time of day, with microseconds, since 1970
  -T                 what it was made of: here, and the way home and back
  -k                 the program's stack at each call
  -o FILE            write there instead of standard error
  --json             one JSON object a line
  --help             print this text
  --version          print the version

Exit status: the command's own (128+n if signal n ended it); with -p: 0 done,
1 failed, 2 wrong command line, 3 no mosixd runs here, 4 no such process,
5 it belongs to another user, 7 mosixd broke off.
)";

/// After a command has ended, events of its last calls may still be on their way: until this long nothing
/// came.
constexpr int kDrainMs = 200;

struct Options {
  int pid = 0;
  std::string node;
  bool follow = false;
  bool count = false;
  std::string file;
  TraceStyle style;
  TraceFilter filter;
  std::vector<std::string> command;
  bool help = false, version = false;
};

using Parsed = Answer<Options>;

tl::unexpected<Failure> wrong(std::string text) { return tl::unexpected(usage_failure(std::move(text))); }

/// One option; empty text if it is right.
std::string take_option(Options& options, int letter, const char* value) {
  switch (letter) {
    case 'p':
      options.pid = parse_pid(value);
      return options.pid == 0 ? fmt::format("not a process number: {}", value) : "";
    case 'r':
      options.node = value;
      return "";
    case 'f':
      options.follow = true;
      return "";
    case 'c':
      options.count = true;
      return "";
    case 't':
      options.style.times = std::min(options.style.times + 1, 3);
      return "";
    case 'T':
      options.style.parts = true;
      return "";
    case 'k':
      options.style.stacks = true;
      return "";
    case 'o':
      options.file = value;
      return "";
    case 'J':
      options.style.json = true;
      return "";
    case 'H':
      options.help = true;
      return "";
    case 'V':
      options.version = true;
      return "";
    case 'e': {
      Status added = options.filter.add(value);
      return added ? "" : added.error().what;
    }
    default:
      return "unknown option, or one without its argument";
  }
}

Parsed parse(int argc, char** argv) {
  static const option long_options[] = {
      {"attach", required_argument, nullptr, 'p'}, {"follow-forks", no_argument, nullptr, 'f'},
      {"summary-only", no_argument, nullptr, 'c'}, {"output", required_argument, nullptr, 'o'},
      {"stack-traces", no_argument, nullptr, 'k'}, {"trace", required_argument, nullptr, 'e'},
      {"json", no_argument, nullptr, 'J'},         {"help", no_argument, nullptr, 'H'},
      {"version", no_argument, nullptr, 'V'},      {},
  };
  Options options;
  for (int letter; (letter = getopt_long(argc, argv, "+p:r:fce:tTko:V", long_options, nullptr)) != -1;)
    if (std::string problem = take_option(options, letter, optarg); !problem.empty()) return wrong(problem);
  options.command.assign(argv + optind, argv + argc);
  if (options.help || options.version) return options;
  if (options.pid != 0 && !options.command.empty()) return wrong("either -p PID or a command, not both");
  if (options.pid == 0 && options.command.empty()) return wrong("needs -p PID or a command");
  if (options.pid != 0 && !options.node.empty())
    return wrong("-r is for a command; use migrate for a process");
  return options;
}

/// Where the trace goes. Standard error, like strace, unless -o names a file.
class Output {
 public:
  static Result<Output> open(const std::string& file) {
    Output output;
    if (file.empty()) return output;
    output.file_ = {fopen(file.c_str(), "we"),
                    [](FILE* stream) { return stream == nullptr ? 0 : fclose(stream); }};
    if (output.file_ == nullptr) return fail_errno(file);
    return output;
  }
  void write(const std::string& text) {
    FILE* stream = file_ ? file_.get() : stderr;
    if (fwrite(text.data(), 1, text.size(), stream) != text.size()) failed_ = true;
  }
  /// False if something could not be written, with errno.
  bool finish() { return fflush(file_ ? file_.get() : stderr) == 0 && !failed_; }

 private:
  std::shared_ptr<FILE> file_;
  bool failed_ = false;
};

/// The command, started through mosrun, held before its exec until go() is called.
class Command {
 public:
  static Result<Command> start(const Options& options, const sigset_t& signals) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return fail_errno("pipe");
    Command command;
    UniqueFd gate(ends[0]);
    command.gate_.reset(ends[1]);
    command.pid_ = fork();
    if (command.pid_ < 0) return fail_errno("fork");
    if (command.pid_ == 0) {
      command.gate_.reset();
      sigprocmask(SIG_UNBLOCK, &signals, nullptr);
      become_mosrun(options, gate.get());
    }
    return command;
  }
  void go() {
    if (::write(gate_.get(), "g", 1) == 1) gate_.reset();
  }
  int pid() const { return pid_; }
  void end() { kill(pid_, SIGKILL); }
  /// Waits for its end; the exit status as a shell has it.
  int status() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  [[noreturn]] static void become_mosrun(const Options& options, int gate) {
    char byte;
    if (read(gate, &byte, 1) != 1) _exit(125);  // mostrace has given up
    std::string mosrun = find_component("mosrun");
    std::vector<std::string> words{mosrun.empty() ? "mosrun" : mosrun};
    if (!options.node.empty()) words.insert(words.end(), {"-r", options.node});
    words.push_back("--");
    words.insert(words.end(), options.command.begin(), options.command.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    fmt::print(stderr, "mostrace: {}: {}\n", words[0], strerror(errno));
    _exit(127);
  }

  int pid_ = 0;
  UniqueFd gate_;
};

/// Follows the stream of one process, or of it and what descends from it.
class Tracer {
 public:
  Tracer(const Options& options, Output& output, int root) : options_(options), output_(output), root_(root) {
    wanted_.insert(root);
  }

  void handle(const std::string& line) {
    Json event = Json::parse(line, nullptr, false);
    if (!event.is_object()) return;
    std::string kind = field_text(event, "event", "trace");
    if (kind == "gone") return;  // ends are heard from the processes themselves: events may follow this one
    if (kind == "lost") return note_lost(event);
    if (kind != "trace" || !is_wanted(static_cast<int>(field_integer(event, "pid")))) return;
    note_children(event);
    if (!options_.filter.shows(event)) return;
    if (options_.count)
      summary_.add(event);
    else
      output_.write(trace_line(event, options_.style));
  }

  /// The root has ended. True if nobody else is left whose calls could come.
  bool is_last() {
    wanted_.erase(root_);
    std::erase_if(wanted_, [](int pid) { return kill(pid, 0) != 0 && errno == ESRCH; });
    return wanted_.empty();
  }

  void finish() {
    if (!options_.count) return;
    output_.write(options_.style.json ? json_text(summary_.json(), 2) + "\n" : summary_.text());
  }

 private:
  bool is_wanted(int pid) {
    if (wanted_.count(pid) != 0) return true;
    if (!options_.follow || others_.count(pid) != 0) return false;
    bool ours = descends_from(pid, root_);
    (ours ? wanted_ : others_).insert(pid);
    return ours;
  }
  /// A child is known from its parent's call, before anything of it could be lost by a change of parents.
  void note_children(const Json& event) {
    if (!options_.follow) return;
    std::string name = call_name(event);
    int64_t result = field_integer(event, "result");
    if (result > 0 && (name == "fork" || name == "vfork" || name == "clone" || name == "clone3"))
      wanted_.insert(static_cast<int>(result));
  }
  void note_lost(const Json& event) {
    fmt::print(stderr, "mostrace: {} calls were too many to be shown\n", field_integer(event, "count"));
  }

  const Options& options_;
  Output& output_;
  int root_;
  std::set<int> wanted_, others_;
  TraceSummary summary_;
};

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&set, signal);
  return set;
}

enum class Ended { kByItself, kSignal, kBroken };

/// The loop: events, the end of the traced process, a signal. Signals of the terminal reach a command by
/// themselves, so only with -p do they end the trace; what is sent to mostrace alone goes on to the command.
Ended follow(ControlClient& daemon, Tracer& tracer, Command* command, int process, int signals) {
  bool process_ended = process < 0;
  for (;;) {
    // Events that came in one piece with an earlier line wait in the buffer, where poll does not see them.
    while (daemon.has_buffered_line()) tracer.handle(*daemon.next_line(0));
    pollfd items[3] = {
        {daemon.fd(), POLLIN, 0}, {signals, POLLIN, 0}, {process_ended ? -1 : process, POLLIN, 0}};
    int ready = poll(items, 3, process_ended ? kDrainMs : -1);
    if (ready < 0 && errno != EINTR) return Ended::kBroken;
    if (ready == 0 && tracer.is_last()) return Ended::kByItself;
    if (ready <= 0) continue;
    if (items[0].revents != 0) {
      auto line = daemon.next_line(0);
      if (line)
        tracer.handle(*line);
      else if (line.error().error.code != ETIMEDOUT && line.error().error.code != EINTR)
        return Ended::kBroken;
    }
    if (items[1].revents != 0) {
      signalfd_siginfo info{};
      if (read(signals, &info, sizeof info) != sizeof info) continue;
      if (command == nullptr) return Ended::kSignal;
      if (info.ssi_code <= 0) kill(command->pid(), static_cast<int>(info.ssi_signo));
    }
    if (items[2].revents != 0) process_ended = true;
  }
}

Answer<ControlClient> subscribe(const Options& options, int pid) {
  auto daemon = ControlClient::connect();
  if (!daemon) return daemon;
  auto reply = daemon->ask({{"op", "trace"},
                            {"pid", pid},
                            {"on", true},
                            {"follow", options.follow},
                            {"stacks", options.style.stacks}},
                           kAskLimitMs);
  if (!reply) return tl::unexpected(reply.error());
  return daemon;
}

int trace(const Options& options) {
  sigset_t signals = ending_signals();
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));
  auto output = Output::open(options.file);
  if (!output) return report_failure("mostrace", {kExitNotDone, {0, output.error().message()}});
  std::optional<Command> command;
  if (options.pid == 0) {
    auto started = Command::start(options, signals);
    if (!started) return report_failure("mostrace", {kExitNotDone, {0, started.error().message()}});
    command = std::move(*started);
  }
  int root = command ? command->pid() : options.pid;
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, root, 0)));
  auto daemon = subscribe(options, root);
  if (!daemon) {
    if (command) command->end(), command->status();
    return report_failure("mostrace", daemon.error());
  }
  if (command) command->go();
  Tracer tracer(options, *output, root);
  Ended ended = follow(*daemon, tracer, command ? &*command : nullptr, process.get(), signal_fd.get());
  if (ended == Ended::kBroken) fmt::print(stderr, "mostrace: mosixd broke off: the trace ends here\n");
  int status = command ? command->status() : ended == Ended::kBroken ? kExitBadReply : kExitDone;
  tracer.finish();
  if (!output->finish())
    return report_failure("mostrace", {kExitNotDone, {0, "the trace could not be written"}});
  return status;
}

int run(int argc, char** argv) {
  opterr = 0;
  Parsed options = parse(argc, argv);
  if (!options) {
    int code = report_failure("mostrace", options.error());
    fmt::print(stderr, "Try `mostrace --help`.\n");
    return code;
  }
  if (options->help || options->version) {
    fmt::print("{}", options->help ? std::string(kHelp) : version_text("mostrace") + "\n");
    return kExitDone;
  }
  return trace(*options);
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) { return mosix::run(argc, argv); }
