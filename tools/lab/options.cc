#include "tools/lab/options.h"

#include <getopt.h>
#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "tools/lab/network.h"

namespace mosix::lab {

const char kHelpText[] =
    R"(usage: mosixlab run  [-n N] [--rate R] [--delay D] [--cpus C] [--user] [--keep-logs DIR] [--] CMD [ARG...]
       mosixlab up   [-n N] [--name LAB] [the same options]
       mosixlab exec [--name LAB] [--cwd DIR] [--uid N] NODE [--] CMD [ARG...]
       mosixlab status [--name LAB] [--json]
       mosixlab down [--name LAB | --all]
       mosixlab cut|mend|kill [--name LAB] NODE
       mosixlab storm [--seed S] [--interval MS] [--runs N] [--limit S] [--files DIR] [--keep DIR] [--json]
                      [the options of run] [--] CMD [ARG...]

Makes a mosix cluster out of this machine: nodes node1..nodeN with network, mounts, pids, hostname and a
mosixd of their own. node1 has this machine's files and your directory; the others are elsewhere.

  run     makes a lab, runs CMD on node1, ends the lab, exits with CMD's status
  up      makes a lab that stays; exec runs a command on a node of it, down ends it
  status  shows the labs that are up
  storm   runs CMD natively, then away while all its processes are moved at random, and compares
  cut     pulls a node's network cable, mend plugs it in again, kill ends a node at once

  -n, --nodes N      number of nodes, 1 to 31 (2)
      --name LAB     name of the lab (up: "lab")
      --rate R       speed of each node's link, as in 100mbit (tc tbf)
      --delay D      added to each packet that a node sends, as in 10ms (tc netem, where the kernel has it)
      --cpus C       processors that each node may use, as in 0.25 (cgroup)
      --user         mosixd and CMD run as an ordinary user (uid 65534)
      --uid N        the same with uid N; exec: run CMD as uid N
      --cwd DIR      exec: CMD's directory (node1: yours, other nodes: /)
      --keep-logs DIR  write each node's log to DIR/NODE.log and leave it there
      --json         status, storm: as JSON
      --all          down: every lab
      --seed S       storm: of the random choices (one of its own, which is printed); each further run has one more
      --interval MS  storm: between two moves, on average (50)
      --runs N       storm: how many (1)
      --limit S      storm: seconds after which a run has failed (600)
      --files DIR    storm: what CMD finds in its folder, which is new for each run
      --keep DIR     storm: where what differed is kept (./storm-SEED), with the moves and the nodes' logs
  -h, --help, -V, --version

storm exits with 0 if every run was as natively, 1 if one was not. CMD's exit status is passed on, 128+n if signal n ended it; 125: mosixlab itself failed, 126: CMD cannot be
run, 127: CMD was not found. See mosixlab(1).
)";

namespace {

enum Long {
  kName = 256,
  kRate,
  kDelay,
  kCpus,
  kUser,
  kUid,
  kCwd,
  kKeepLogs,
  kJson,
  kAll,
  kSeed,
  kInterval,
  kRuns,
  kLimit,
  kFiles,
  kKeep
};

constexpr option kLongOptions[] = {{"nodes", required_argument, nullptr, 'n'},
                                   {"name", required_argument, nullptr, kName},
                                   {"rate", required_argument, nullptr, kRate},
                                   {"delay", required_argument, nullptr, kDelay},
                                   {"cpus", required_argument, nullptr, kCpus},
                                   {"user", no_argument, nullptr, kUser},
                                   {"uid", required_argument, nullptr, kUid},
                                   {"cwd", required_argument, nullptr, kCwd},
                                   {"keep-logs", required_argument, nullptr, kKeepLogs},
                                   {"json", no_argument, nullptr, kJson},
                                   {"all", no_argument, nullptr, kAll},
                                   {"seed", required_argument, nullptr, kSeed},
                                   {"interval", required_argument, nullptr, kInterval},
                                   {"runs", required_argument, nullptr, kRuns},
                                   {"limit", required_argument, nullptr, kLimit},
                                   {"files", required_argument, nullptr, kFiles},
                                   {"keep", required_argument, nullptr, kKeep},
                                   {"help", no_argument, nullptr, 'h'},
                                   {"version", no_argument, nullptr, 'V'},
                                   {nullptr, 0, nullptr, 0}};

Result<double> parse_number(const std::string& option, const std::string& text, double low, double high) {
  char* end = nullptr;
  double value = strtod(text.c_str(), &end);
  if (!text.empty() && *end == 0 && value >= low && value <= high) return value;
  return fail(0, option + " " + text + ": expected a number");
}

Status check_name(const std::string& name) {
  bool good = !name.empty() && name.size() <= 40 && name[0] != '.' && name[0] != '-';
  for (char c : name)
    good = good && (isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.');
  return good ? Status() : fail(0, "--name " + name + ": letters, digits, - and _ only, at most 40");
}

void use_uid(LabSpec& spec, uid_t uid) {
  spec.uid = uid;
  const passwd* entry = getpwuid(uid);
  spec.gid = entry == nullptr ? static_cast<gid_t>(uid) : entry->pw_gid;
}

Status take_storm_option(StormOptions& storm, int letter, const std::string& value) {
  constexpr double kMostSeconds = 1e6;
  switch (letter) {
    case kSeed: {
      // Exactly representable: it is printed and given again.
      TRY(double seed, parse_number("--seed", value, 0, 9e15));
      storm.seed = static_cast<uint64_t>(seed);
      return {};
    }
    case kInterval: {
      TRY(double interval, parse_number("--interval", value, 1, kMostSeconds));
      storm.interval_ms = static_cast<int>(interval);
      return {};
    }
    case kRuns: {
      TRY(double runs, parse_number("--runs", value, 1, kMostSeconds));
      storm.runs = static_cast<int>(runs);
      return {};
    }
    case kLimit: {
      TRY(double limit, parse_number("--limit", value, 1, kMostSeconds));
      storm.limit_s = static_cast<int>(limit);
      return {};
    }
    case kFiles:
      storm.files = std::filesystem::absolute(value);
      if (!std::filesystem::is_directory(storm.files)) return fail(0, "--files " + value + ": not a folder");
      return {};
    default:
      storm.keep = std::filesystem::absolute(value);
      return {};
  }
}

/// One option into `options`. Which verbs take it is not checked for each: an option that does not concern
/// a verb is refused by allowed_options().
Status take_option(Options& options, int letter) {
  LabSpec& spec = options.spec;
  std::string value = optarg == nullptr ? "" : optarg;
  switch (letter) {
    case 'n': {
      TRY(double count, parse_number("--nodes", value, 1, kMaxNodes));
      spec.node_count = static_cast<int>(count);
      return {};
    }
    case kName:
      options.lab = value;
      return check_name(value);
    case kRate:
      spec.rate = value;
      return parse_rate(value).map([](double) {});
    case kDelay:
      spec.delay = value;
      return check_delay(value);
    case kCpus: {
      TRY(spec.cpus, parse_number("--cpus", value, 0.001, 1024));
      return {};
    }
    case kUser:
      use_uid(spec, 65534);
      return {};
    case kUid: {
      TRY(double uid, parse_number("--uid", value, 0, 4294967294.0));
      options.uid = static_cast<long>(uid);
      use_uid(spec, static_cast<uid_t>(uid));
      return {};
    }
    case kCwd:
      options.cwd = value;
      return {};
    case kKeepLogs:
      spec.log_dir = std::filesystem::absolute(value);
      return {};
    case kJson:
      options.json = true;
      return {};
    case kAll:
      options.all = true;
      return {};
    case kSeed:
      options.seed_given = true;
      [[fallthrough]];
    case kInterval:
    case kRuns:
    case kLimit:
    case kFiles:
    case kKeep:
      return take_storm_option(options.storm, letter, value);
    default:
      return fail(0, "see mosixlab --help");
  }
}

const std::map<std::string, std::pair<Verb, std::vector<int>>>& verbs() {
  static const std::vector<int> kMaking = {'n', kName, kRate, kDelay, kCpus, kUser, kUid, kKeepLogs};
  static const std::map<std::string, std::pair<Verb, std::vector<int>>> kVerbs = {
      {"run", {Verb::kRun, kMaking}},
      {"storm",
       {Verb::kStorm,
        {'n', kRate, kDelay, kCpus, kUser, kUid, kKeepLogs, kJson, kSeed, kInterval, kRuns, kLimit, kFiles,
         kKeep}}},
      {"storm-inside", {Verb::kStormInside, {'n', kJson, kSeed, kInterval, kRuns, kLimit, kFiles, kKeep}}},
      {"up", {Verb::kUp, kMaking}},
      {"exec", {Verb::kExec, {kName, kCwd, kUid}}},
      {"status", {Verb::kStatus, {kName, kJson}}},
      {"down", {Verb::kDown, {kName, kAll}}},
      {"cut", {Verb::kCut, {kName}}},
      {"mend", {Verb::kMend, {kName}}},
      {"kill", {Verb::kKill, {kName}}}};
  return kVerbs;
}

bool takes_node(Verb verb) {
  return verb == Verb::kExec || verb == Verb::kCut || verb == Verb::kMend || verb == Verb::kKill;
}

Status take_words(Options& options, int argc, char** argv) {
  if (takes_node(options.verb)) {
    if (optind == argc) return fail(0, "which node? As in `mosixlab exec node1 -- date`");
    options.node = argv[optind++];
  }
  bool storm = options.verb == Verb::kStorm || options.verb == Verb::kStormInside;
  bool takes_command = options.verb == Verb::kRun || options.verb == Verb::kExec || storm;
  if (takes_command && optind < argc && std::string(argv[optind]) == "--") optind++;
  options.command.assign(argv + optind, argv + argc);
  if (takes_command && options.command.empty()) return fail(0, "no command given");
  if (!takes_command && !options.command.empty()) return fail(0, "unexpected word " + options.command[0]);
  return {};
}

}  // namespace

Result<Options> parse_options(int argc, char** argv) {
  Options options;
  std::string word = argc < 2 ? "" : argv[1];
  if (word == "--help" || word == "-h" || word == "help") return options;
  if (word == "--version" || word == "-V") {
    options.verb = Verb::kVersion;
    return options;
  }
  auto verb = verbs().find(word);
  if (verb == verbs().end())
    return fail(0, (word.empty() ? "what to do?" : "unknown command " + word) + " See mosixlab --help");
  options.verb = verb->second.first;
  if (options.verb == Verb::kStorm) options.spec.node_count = kStormNodes;
  optind = 2;
  // "+": options end at the first other word, which begins the command.
  for (int letter; (letter = getopt_long(argc, argv, "+n:hV", kLongOptions, nullptr)) != -1;) {
    if (letter == 'h' || letter == 'V') {
      options.verb = letter == 'h' ? Verb::kHelp : Verb::kVersion;
      return options;
    }
    bool known = letter == '?';
    for (int one : verb->second.second) known = known || one == letter;
    if (!known) return fail(0, "mosixlab " + word + " does not take this option; see mosixlab --help");
    TRY_VOID(take_option(options, letter));
  }
  TRY_VOID(take_words(options, argc, argv));
  return options;
}

}  // namespace mosix::lab
