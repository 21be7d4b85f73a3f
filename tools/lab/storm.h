// mosixlab storm: runs a program natively, then again and again away while all of its processes are moved at random
// instants to random nodes and home, and compares what can be seen of it: output, errors, exit status, the files that
// it leaves, and that nothing is left behind on any node. This is the part that runs on node1; the front end makes the
// lab and starts it there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mosix::lab {

inline constexpr int kStormNodes = 3;

struct StormOptions {
  uint64_t seed = 0;     ///< of the first storm; each of the next has one more
  int interval_ms = 50;  ///< between two orders to move, on average
  int runs = 1;
  int limit_s = 600;  ///< for one run
  int nodes = kStormNodes;
  std::string files;  ///< folder whose contents the program finds in its own; "" for none
  std::string keep;   ///< where what differed is kept
  bool json = false;
  std::vector<std::string> command;
};

/// Exit statuses of mosixlab storm, besides 125 to 127.
inline constexpr int kStormSame = 0, kStormDiffers = 1;

/// Returns the exit status.
int run_storm(const StormOptions& options);

}  // namespace mosix::lab
