// The command line of mosixlab.
#pragma once

#include <string>
#include <vector>

#include "libmosix/common/result.h"
#include "tools/lab/lab_spec.h"
#include "tools/lab/storm.h"

namespace mosix::lab {

enum class Verb {
  kHelp,
  kVersion,
  kRun,
  kUp,
  kExec,
  kStatus,
  kDown,
  kCut,
  kMend,
  kKill,
  kStorm,
  kStormInside
};

struct Options {
  Verb verb = Verb::kHelp;
  LabSpec spec;      ///< run, up
  std::string lab;   ///< --name of the others
  std::string node;  ///< exec, cut, mend, kill
  std::string cwd;   ///< exec --cwd
  long uid = -1;     ///< exec --uid, -1: the lab's
  bool json = false, all = false;
  std::vector<std::string> command;
  StormOptions storm;  ///< storm; its command is above
  bool seed_given = false;
};

/// An error is one line for the user.
Result<Options> parse_options(int argc, char** argv);
extern const char kHelpText[];

}  // namespace mosix::lab
