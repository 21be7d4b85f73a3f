// One node: its init, which is pid 1 of the node's pid namespace, child of the keeper. It builds the node
// around itself, starts mosixd, says when it is ready, reaps what the node leaves, and stops mosixd in order.
// When it ends, for whatever reason, the kernel ends every process of the node with it.
#pragma once

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// What the keeper holds of a node. `link` is a SOCK_SEQPACKET pair of text messages (send_link()).
/// Keeper to init: "go" (eth0 is there), "stop". Init to keeper: "ready", "failed WHY", "daemon STATE",
/// "note TEXT".
struct Node {
  pid_t init = 0;
  UniqueFd pidfd;
  UniqueFd link;
};

/// Starts node k's init in new namespaces; returns in the keeper only.
Result<Node> start_node(const LabSpec& spec, int k, const std::string& key, const std::string& cpu_group);

}  // namespace mosix::lab
