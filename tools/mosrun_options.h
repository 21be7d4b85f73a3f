// The command line of mosrun. Parsed by hand: openMosix and MOSIX have `-N`, `-NODE` and `-r NODE` beside
// clusters of one-letter switches, and everything from the first other word on belongs to the program.
#pragma once

#include <string>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

struct RunOptions {
  enum class Where {
    kAnywhere,  ///< nothing was asked for: starts at home, adopted
    kHome,      ///< -h
    kNode,      ///< -r NODE, -N, -NODE: `node`
    kBest,      ///< -b, and -j LIST: of `list`, or of all nodes if it is empty
  };
  Where where = Where::kAnywhere;
  std::string node;
  std::vector<std::string> list;  ///< names, numbers, addresses and number ranges "2-5"
  bool require = false;           ///< --require: fail rather than run at home unseen
  bool tolerant = false;          ///< -F: at home if the node that was asked for cannot be had
  enum class Lock {
    kKeep,    ///< -k, and without any of them: as whoever started us
    kLock,    ///< -L: no automatic moves, of the program and its children
    kUnlock,  ///< -l
  };
  Lock lock = Lock::kKeep;
  bool report = false;
  bool help = false;
  bool version = false;
  std::vector<std::string> command;

  /// A node was asked for by name, or one of a list: that it cannot be had is a failure.
  bool wants_this_node() const { return where == Where::kNode || (where == Where::kBest && !list.empty()); }
  bool wants_away() const { return where == Where::kNode || where == Where::kBest; }
};

/// The error says what is wrong with the command line, for a person.
Result<RunOptions> parse_run_options(const std::vector<std::string>& words);

/// True if `name`, `id` or `address` of a node stands in the list.
bool is_listed(const std::vector<std::string>& list, const std::string& name, const std::string& address,
               int64_t id);

extern const char kRunHelp[];

}  // namespace mosix
