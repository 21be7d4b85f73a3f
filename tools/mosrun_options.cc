#include "tools/mosrun_options.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace mosix {
namespace {

/// Switches that may stand together behind one dash. r and j take the rest of the word, or the next one.
constexpr std::string_view kSwitches = "bhFLlk";

Status set_node(RunOptions& options, const std::string& node) {
  if (node.empty()) return fail(0, "-r needs the name, number or address of a node");
  options.where = RunOptions::Where::kNode;
  options.node = node;
  return {};
}

Status set_list(RunOptions& options, const std::string& text) {
  options.where = RunOptions::Where::kBest;
  options.list.clear();
  for (size_t start = 0; start <= text.size();) {
    size_t end = std::min(text.find(',', start), text.size());
    if (end == start)
      return fail(0, "-j needs nodes with commas between them, as in 1-3,node5: `" + text + "`");
    options.list.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return {};
}

void set_switch(RunOptions& options, char letter) {
  switch (letter) {
    case 'b':
      options.where = RunOptions::Where::kBest;
      break;
    case 'h':
      options.where = RunOptions::Where::kHome;
      break;
    case 'F':
      options.tolerant = true;
      break;
    case 'L':
      options.lock = RunOptions::Lock::kLock;
      break;
    case 'l':
      options.lock = RunOptions::Lock::kUnlock;
      break;
    case 'k':
      options.lock = RunOptions::Lock::kKeep;
      break;
  }
}

Status set_long(RunOptions& options, const std::string& word) {
  if (word == "--require")
    options.require = true;
  else if (word == "--report")
    options.report = true;
  else if (word == "--help")
    options.help = true;
  else if (word == "--version")
    options.version = true;
  else
    return fail(0, "unknown option " + word);
  return {};
}

bool all_switches(std::string_view letters) {
  return letters.find_first_not_of(kSwitches) == std::string_view::npos;
}

/// -N and -NODE: what begins with a digit, or is no cluster of switches and longer than a letter.
bool is_node_word(std::string_view rest) {
  bool digit = rest[0] >= '0' && rest[0] <= '9';
  return digit || (rest.size() > 1 && !all_switches(rest));
}

/// A range of node numbers "2-5"; false if the text is something else.
bool number_range(std::string_view text, int64_t& first, int64_t& last) {
  const char* end = text.data() + text.size();
  auto begin = std::from_chars(text.data(), end, first);
  if (begin.ec != std::errc{}) return false;
  last = first;
  if (begin.ptr == end) return true;
  if (*begin.ptr != '-') return false;
  auto finish = std::from_chars(begin.ptr + 1, end, last);
  return finish.ec == std::errc{} && finish.ptr == end;
}

Status check(const RunOptions& options) {
  if (options.help || options.version) return {};
  if (options.require && !options.wants_away())
    return fail(0, "--require needs a place: -r NODE, -b or -j LIST");
  if (options.require && options.tolerant) return fail(0, "--require and -F contradict each other");
  if (options.command.empty()) return fail(0, "no command given");
  return {};
}

}  // namespace

Result<RunOptions> parse_run_options(const std::vector<std::string>& words) {
  RunOptions options;
  size_t i = 0;
  for (; i < words.size() && words[i].size() > 1 && words[i][0] == '-'; ++i) {
    const std::string& word = words[i];
    std::string rest = word.substr(1);
    if (word == "--") {
      ++i;
      break;
    }
    if (rest[0] == '-') {
      TRY_VOID(set_long(options, word));
    } else if (rest[0] == 'r' || rest[0] == 'j') {
      bool attached = rest.size() > 1;
      if (!attached && i + 1 == words.size()) return fail(0, word + " needs an argument");
      const std::string& argument = attached ? rest.erase(0, 1) : words[++i];
      TRY_VOID(word[1] == 'r' ? set_node(options, argument) : set_list(options, argument));
    } else if (is_node_word(rest)) {
      TRY_VOID(set_node(options, rest));
    } else if (all_switches(rest)) {
      for (char letter : rest) set_switch(options, letter);
    } else {
      return fail(0, "unknown option " + word);
    }
  }
  options.command.assign(words.begin() + static_cast<ptrdiff_t>(i), words.end());
  TRY_VOID(check(options));
  return options;
}

bool is_listed(const std::vector<std::string>& list, const std::string& name, const std::string& address,
               int64_t id) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) {
    int64_t first = 0, last = 0;
    if (number_range(entry, first, last)) return first <= id && id <= last;
    return entry == name || entry == address;
  });
}

const char kRunHelp[] = R"(Usage: mosrun [OPTION]... [--] COMMAND [ARGUMENT]...
Runs an unmodified program so that it can live on any node of the cluster.

Where it starts:
  -r NODE       on this node, by name, number or address; holds for its children
  -N, -NODE     the same: -2, -node2, -10.0.0.2
  -b            on the best node: the lowest load for each processor
  -j LIST       on the best one of these: names, numbers, ranges (1-3,node5)
  -h            at home; it can still be moved later
When none of these nodes can be had, mosrun fails with 125 and the reason, but:
  -F            says so, and runs the program at home
A program that turns out to have to stay at home runs there, with a line that says so, but:
  --require     fails with 125 and the reason rather than run at home unseen
Automatic moves, of the program and its children:
  -L            lock: they move only when told to
  -l            unlock
  -k            keep the lock of whoever starts it, which is the default
Other:
  --report      at the end, print times here and away on standard error
  --help        print this text
  --version     print the version

Exit status: the program's own (128+n if a signal ended it under --report);
125 if mosrun fails, 126 if COMMAND cannot be run, 127 if it is not found.
)";

}  // namespace mosix
