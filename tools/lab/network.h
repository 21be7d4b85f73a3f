// The lab's wire: a bridge in a network namespace of its own (the keeper's), one veth pair a node, tc on the
// links. Written as batches for `ip` and `tc`, the words an administrator would type; two programs a node
// cost less than 10 ms.
#pragma once

#include "libmosix/common/result.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// In the keeper, inside the bridge's namespace: the bridge, and a link to each node's namespace, given by
/// the pid of its init. The node's end is called eth0, the bridge's end nodeK.
Status make_bridge(const LabSpec& spec, const std::vector<pid_t>& inits);
/// In node k's init, inside its network namespace: lo and eth0 up, address, shaping of what it sends.
Status set_up_node_links(const LabSpec& spec, int k);

/// Bits a second of "100mbit"; EINVAL with a sentence when tc would not take it.
Result<double> parse_rate(const std::string& rate);
/// Checks "10ms", "500us", "0.1s".
Status check_delay(const std::string& delay);

}  // namespace mosix::lab
