// What a lab is, as the command line describes it: the one value that front end, keeper and nodes share.
//
// A lab has three kinds of process. The *front end* is the command that the user started; it owns terminal
// and exit status. The *keeper* is the guard outside the lab: it makes bridge, nodes and cgroups, and takes
// them away when it is told to, or when the front end's end of their socket closes, however it died. A
// *node's init* is pid 1 of one node and starts its mosixd. Nothing of a lab is pinned anywhere: its
// namespaces live as long as the inits do, and an init dies with its keeper. What can outlive a SIGKILL of
// front end and keeper at once are empty folders, and the next mosixlab sweeps those.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace mosix::lab {

/// Nodes are numbered from 1. Pids of node k start at 1000 * k, and must stay below the smallest pid_max.
inline constexpr int kMaxNodes = 31;
inline constexpr int kPidsPerNode = 1000;
/// How long a mosixd may take until its control socket answers, and to end after SIGTERM.
inline constexpr int kReadyLimitMs = 10000;
inline constexpr int kStopLimitMs = 5000;

struct LabSpec {
  std::string name;
  int node_count = 2;
  std::string rate;   ///< tc's notation ("100mbit"), empty: not shaped
  std::string delay;  ///< tc's notation ("10ms"), empty: none
  double cpus = 0;    ///< share of processors of each node, 0: not limited
  uid_t uid = 0;      ///< of each mosixd, and of commands unless they say otherwise
  gid_t gid = 0;
  bool user_namespace = false;  ///< made by an ordinary user: all of it inside a user namespace
  bool ephemeral = false;       ///< ends with its front end (`run`); else stays until `down`
  std::string log_dir;          ///< where nodeK.log is written
  std::string state_dir;        ///< lab's own folder, removed at the end
  std::string daemon;           ///< full path of mosixd on this machine
};

inline std::string node_name(int k) { return "node" + std::to_string(k); }
inline std::string node_address(int k) { return "10.77.0." + std::to_string(k); }
inline std::string node_log(const LabSpec& spec, int k) { return spec.log_dir + "/" + node_name(k) + ".log"; }

/// Folder and variable names inside a node.
inline constexpr const char* kNodeRunDir = "/run/mosix";
inline constexpr const char* kAwayTree = "/opt/mosix";  ///< where away nodes see the programs of ours

}  // namespace mosix::lab
