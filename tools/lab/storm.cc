#include "tools/lab/storm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>

#include "tools/lab/folder_state.h"
#include "tools/lab/job.h"
#include "tools/lab/process.h"
#include "tools/lab/storm_mover.h"

namespace mosix::lab {
namespace {

namespace fs = std::filesystem;

constexpr int kQuietLimitMs = 10'000;
constexpr size_t kMostLinesShown = 5;

void say(const std::string& text) { fmt::print(stderr, "storm: {}\n", printable(text)); }

/// What can be seen of one run.
struct Outcome {
  int wait_status = 0;
  std::string out, err;
  FolderState files;
  double seconds = 0;
  bool timed_out = false;
};

std::string status_text(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return fmt::format("ended by signal {}{}", WTERMSIG(wait_status),
                       WCOREDUMP(wait_status) ? " with a core" : "");
  return fmt::format("exit status {}", WEXITSTATUS(wait_status));
}

/// The first line in which two texts differ, for a person.
std::string first_difference(const std::string& expected, const std::string& got) {
  auto [a, b] = std::mismatch(expected.begin(), expected.end(), got.begin(), got.end());
  auto line = 1 + std::count(expected.begin(), a, '\n');
  auto line_at = [](const std::string& text, size_t at) {
    size_t begin = at == 0 ? 0 : text.rfind('\n', at - 1) + 1;
    return text.substr(begin, std::min<size_t>(text.find('\n', at) - begin, 120));
  };
  return fmt::format("line {}: natively \"{}\", here \"{}\"", line,
                     line_at(expected, static_cast<size_t>(a - expected.begin())),
                     line_at(got, static_cast<size_t>(b - got.begin())));
}

/// What two runs of the program on Linux alone already differ in is not compared.
struct Unstable {
  bool out = false, err = false, status = false;
  std::set<std::string> files;

  std::string text() const {
    std::string all;
    auto add = [&](bool set, const std::string& what) {
      if (set) all += (all.empty() ? "" : ", ") + what;
    };
    add(status, "exit status");
    add(out, "output");
    add(err, "errors");
    for (const std::string& file : files) add(true, "file " + file);
    return all;
  }
};

Unstable differences_of(const Outcome& a, const Outcome& b) {
  Unstable unstable{
      .out = a.out != b.out, .err = a.err != b.err, .status = a.wait_status != b.wait_status, .files = {}};
  for (const Outcome* one : {&a, &b})
    for (const auto& [path, line] : one->files) {
      auto in_a = a.files.find(path), in_b = b.files.find(path);
      if (in_a == a.files.end() || in_b == b.files.end() || in_a->second != in_b->second)
        unstable.files.insert(path);
    }
  return unstable;
}

std::vector<std::string> complaints(const Outcome& native, const Outcome& got, const Unstable& unstable) {
  std::vector<std::string> found;
  if (got.timed_out) found.push_back(fmt::format("no end within {:.0f} s", got.seconds));
  Unstable differs = differences_of(native, got);
  if (differs.status && !unstable.status && !got.timed_out)
    found.push_back(status_text(got.wait_status) + ", natively " + status_text(native.wait_status));
  if (differs.out && !unstable.out)
    found.push_back("output differs, " + first_difference(native.out, got.out));
  if (differs.err && !unstable.err)
    found.push_back("errors differ, " + first_difference(native.err, got.err));
  size_t files = 0;
  for (const std::string& path : differs.files) {
    if (unstable.files.contains(path) || ++files > kMostLinesShown) continue;
    auto line = [&](const FolderState& state) {
      auto at = state.find(path);
      return at == state.end() ? std::string("not there") : at->second;
    };
    found.push_back(fmt::format("file {}: natively {}, here {}", path, line(native.files), line(got.files)));
  }
  if (files > kMostLinesShown) found.push_back(fmt::format("{} more files differ", files - kMostLinesShown));
  return found;
}

/// Kills what a run has left; orphans come to us, because we are a subreaper.
void end_descendants() {
  for (int round = 0; round < 100; ++round) {
    std::vector<pid_t> children;
    std::error_code problem;
    for (const auto& task : fs::directory_iterator("/proc/self/task", problem)) {
      std::string list = read_file(task.path().string() + "/children").value_or("");
      for (char *at = list.data(), *end = nullptr; long pid = strtol(at, &end, 10); at = end)
        children.push_back(static_cast<pid_t>(pid));
    }
    if (children.empty()) return;
    for (pid_t child : children) kill(child, SIGKILL);
    for (pid_t child : children) waitpid(child, nullptr, 0);
  }
}

/// What is left on any node once a program has ended; "" is nothing.
std::string left_behind() {
  for (int64_t until = now_ms() + kQuietLimitMs;;) {
    Answer<Json> own = ask_daemon({{"op", "processes"}}, kAskLimitMs);
    Answer<Json> nodes = ask_daemon({{"op", "nodes"}}, kAskLimitMs);
    if (!own || !nodes) return "mosixd does not answer: " + (own ? nodes : own).error().error.message();
    int64_t processes = 0, guests = 0;
    for (const Json& process : field_array(*own, "processes"))
      processes += field_flag(process, "foreign") ? 0 : 1;
    for (const Json& node : field_array(*nodes, "nodes"))
      guests += field_flag(node, "up") ? field_integer(node, "guests") : 0;
    if (processes == 0 && guests == 0) return "";
    if (now_ms() > until)
      return fmt::format("{} processes are still looked after at home, {} guests remain", processes, guests);
    usleep(20'000);
  }
}

class Storm {
 public:
  explicit Storm(const StormOptions& options) : options_(options) {}
  ~Storm() {
    std::error_code ignored;
    if (!base_.empty()) fs::remove_all(base_, ignored);
  }

  int run() {
    if (Status ready = prepare(); !ready) return own_failure(ready.error());
    Result<Outcome> native = run_once({}, nullptr);
    Result<Outcome> again = native ? run_once({}, nullptr) : Result<Outcome>(fail(native.error()));
    if (!again) {
      own_failure(again.error());
      return native ? kExitOwn : again.error().code == ENOENT ? kExitNotFound : kExitCannotRun;
    }
    if (native->timed_out || again->timed_out)
      return own_failure({ETIMEDOUT, "the program does not end natively; --limit is " +
                                         std::to_string(options_.limit_s) + " s"});
    unstable_ = differences_of(*native, *again);
    if (std::string text = unstable_.text(); !text.empty())
      say("from one native run to the next these differ, and are not compared: " + text);
    for (int i = 0; i < options_.runs; ++i)
      if (Status done = one_storm(*native, i); !done) return own_failure(done.error());
    return report(*native);
  }

 private:
  Status prepare() {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    std::string pattern = fs::temp_directory_path().string() + "/mosix-storm-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) return fail_errno("make a folder " + pattern);
    base_ = pattern;
    return {};
  }

  static int own_failure(const Error& error) {
    say(error.message());
    return kExitOwn;
  }

  /// In a fresh folder that has the same name every time, so that what the program prints of it is the same.
  Result<Outcome> run_once(std::vector<std::string> wrapper, StormMover* mover) {
    std::string work = base_ + "/work";
    std::error_code problem;
    fs::remove_all(work, problem);
    fs::create_directory(work, problem);
    if (!problem && !options_.files.empty())
      fs::copy(options_.files, work, fs::copy_options::recursive | fs::copy_options::copy_symlinks, problem);
    if (problem) return fail(problem.value(), "prepare " + work);
    std::vector<std::string> words = std::move(wrapper);
    words.insert(words.end(), options_.command.begin(), options_.command.end());
    int64_t begun = now_ms();
    TRY(pid_t child, start(words, work));
    if (mover != nullptr) mover->start();
    Outcome outcome;
    outcome.timed_out = !wait_for(child, &outcome.wait_status);
    outcome.seconds = static_cast<double>(now_ms() - begun) / 1000;
    if (mover != nullptr) mover->stop();
    end_descendants();
    TRY(outcome.out, read_file(base_ + "/out"));
    TRY(outcome.err, read_file(base_ + "/err"));
    TRY(outcome.files, folder_state(work));
    return outcome;
  }

  Result<pid_t> start(const std::vector<std::string>& words, const std::string& work) {
    UniqueFd in(open("/dev/null", O_RDONLY | O_CLOEXEC));
    UniqueFd out(open((base_ + "/out").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
    UniqueFd err(open((base_ + "/err").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
    if (!in || !out || !err) return fail_errno("open the files for output");
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    int failure[2];
    if (pipe2(failure, O_CLOEXEC) != 0) return fail_errno("make a pipe");
    UniqueFd told(failure[0]), tells(failure[1]);
    pid_t child = fork();
    if (child < 0) return fail_errno("fork");
    if (child == 0) {
      setsid();
      signal(SIGPIPE, SIG_DFL);
      if (chdir(work.c_str()) == 0 && dup2(in.get(), 0) == 0 && dup2(out.get(), 1) == 1 &&
          dup2(err.get(), 2) == 2)
        execvp(argv[0], argv.data());
      int code = errno;
      (void)!write(tells.get(), &code, sizeof code);
      _exit(kExitOwn);
    }
    tells.reset();
    int code = 0;
    if (read(told.get(), &code, sizeof code) != sizeof code) return child;
    waitpid(child, nullptr, 0);
    return fail(code, "run " + words[0]);
  }

  /// False if it had to be killed.
  bool wait_for(pid_t child, int* wait_status) const {
    Result<UniqueFd> pidfd = open_pidfd(child);
    bool ended = pidfd && wait_pidfd(pidfd->get(), options_.limit_s * 1000);
    if (!ended) kill(-child, SIGKILL);
    waitpid(child, wait_status, 0);
    return ended;
  }

  Status one_storm(const Outcome& native, int index) {
    uint64_t seed = options_.seed + static_cast<uint64_t>(index);
    StormMover mover(seed, options_.interval_ms, options_.nodes);
    TRY(Outcome got, run_once(how_to_begin(seed), &mover));
    const StormFigures& figures = mover.figures();
    std::vector<std::string> found = complaints(native, got, unstable_);
    if (!figures.problem.empty()) found.push_back("mosixd: " + figures.problem);
    if (std::string left = left_behind(); !left.empty()) found.push_back(left);
    all_.add(figures);
    seconds_ += got.seconds;
    std::string line = fmt::format(
        "{} of {}, seed {}: {:.2f} s (natively {:.2f}), {} moves, {} ms of CPU away", index + 1,
        options_.runs, seed, got.seconds, native.seconds, figures.moves, figures.total_cpu_away_ms());
    if (found.empty()) {
      if (!options_.json) fmt::print("same      {}\n", line);
      fflush(stdout);
      return {};
    }
    ++different_;
    TRY_VOID(keep(seed, native, got, figures, found));
    if (!options_.json) {
      fmt::print("DIFFERENT {}\n", line);
      for (const std::string& one : found) fmt::print("          {}\n", printable(one));
      fmt::print("          kept in {}\n          again: mosixlab storm --seed {} --interval {} -- ...\n",
                 folder_for(seed), seed, options_.interval_ms);
    }
    fflush(stdout);
    return {};
  }

  /// At home, or on a node, where what the program executes begins as well.
  std::vector<std::string> how_to_begin(uint64_t seed) const {
    if (seed % 2 == 0 || options_.nodes < 2) return {"mosrun", "-h"};
    return {"mosrun", "-r",
            node_name(2 + static_cast<int>(seed / 2 % static_cast<uint64_t>(options_.nodes - 1)))};
  }

  std::string folder_for(uint64_t seed) const { return options_.keep + "/" + std::to_string(seed); }

  Status keep(uint64_t seed, const Outcome& native, const Outcome& got, const StormFigures& figures,
              const std::vector<std::string>& found) const {
    std::string folder = folder_for(seed);
    TRY_VOID(make_folders(folder));
    auto lines = [](const std::vector<std::string>& list) {
      std::string text;
      for (const std::string& line : list) text += line + "\n";
      return text;
    };
    auto files = [](const FolderState& state) {
      std::string text;
      for (const auto& [path, line] : state) text += path + ": " + line + "\n";
      return text;
    };
    TRY_VOID(write_file(folder + "/why", lines(found)));
    TRY_VOID(write_file(folder + "/moves", lines(figures.log)));
    TRY_VOID(write_file(folder + "/native.out", native.out));
    TRY_VOID(write_file(folder + "/native.err", native.err));
    TRY_VOID(write_file(folder + "/native.files", files(native.files)));
    TRY_VOID(write_file(folder + "/out", got.out));
    TRY_VOID(write_file(folder + "/err", got.err));
    return write_file(folder + "/files", files(got.files));
  }

  int report(const Outcome& native) const {
    int status = different_ == 0 ? kStormSame : kStormDiffers;
    if (options_.json) {
      Json seen = all_.seen, refused = all_.refused;
      fmt::print("{}\n", json_text({{"runs", options_.runs},
                                    {"different", different_},
                                    {"seed", options_.seed},
                                    {"moves", all_.moves},
                                    {"cpu_away_ms", all_.total_cpu_away_ms()},
                                    {"native_s", native.seconds},
                                    {"mean_s", options_.runs > 0 ? seconds_ / options_.runs : 0},
                                    {"seen", seen},
                                    {"refused", refused},
                                    {"not_compared", unstable_.text()}}));
      return status;
    }
    for (const auto& [reason, count] : all_.refused)
      fmt::print("refused {} times: {}\n", count, printable(reason));
    fmt::print("{} runs, {} different; {} moves, {} ms of CPU away; seeds {} to {}\n", options_.runs,
               different_, all_.moves, all_.total_cpu_away_ms(), options_.seed,
               options_.seed + static_cast<uint64_t>(std::max(options_.runs - 1, 0)));
    return status;
  }

  const StormOptions& options_;
  std::string base_;
  Unstable unstable_;
  StormFigures all_;
  double seconds_ = 0;
  int different_ = 0;
};

}  // namespace

int run_storm(const StormOptions& options) { return Storm(options).run(); }

}  // namespace mosix::lab
