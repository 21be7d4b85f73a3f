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
  bool tolerant = false;          ///< -F: even a node that does not exist is only a warning
  bool locked = false;            ///< -L: no automatic moves
  bool unlocked = false;          ///< -l: automatic moves, even if an inherited lock says otherwise
  bool keep_lock = false;         ///< -k: children have the same lock
  bool report = false;
  bool help = false;
  bool version = false;
  std::vector<std::string> command;

  bool wants_away() const { return where == Where::kNode || where == Where::kBest; }
};

/// The error says what is wrong with the command line, for a person.
Result<RunOptions> parse_run_options(const std::vector<std::string>& words);

/// True if `name`, `id` or `address` of a node stands in the list.
bool is_listed(const std::vector<std::string>& list, const std::string& name, const std::string& address,
               int64_t id);

extern const char kRunHelp[];

}  // namespace mosix
