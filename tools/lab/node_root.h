// What a node sees of the file system. Runs in the node's init, in its own mount namespace.
//
// node1 is the home node: the machine's own root, so that programs, build tree and the caller's directory are
// there, with /run, /proc, /etc/mosix and the names in /etc its own. Every other node is really elsewhere: a
// fresh tmpfs with the machine's /usr read-only, an /etc, /tmp, /home, /dev of its own and nothing else, so
// that a call which is answered there instead of at home is seen at once.
//
// Both kinds of root are the root of their mount namespace (pivot_root, not chroot): the kernel refuses user
// namespaces to a chrooted process, and supervisors make one for each guest. /proc is mounted plainly, with
// nothing on top: a nested namespace may mount its own only where one is fully visible already.
#pragma once

#include <string>

#include "libmosix/common/result.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// Builds node k's root and enters it. `key` is the text of the cluster key that all nodes share.
Status enter_node_root(const LabSpec& spec, int k, const std::string& key);

/// The folder of this machine that holds mosixd and its companions ("" when they lie in /usr): away nodes
/// have it at kAwayTree, read-only.
std::string program_tree(const std::string& daemon);
/// mosixd's path as node k sees it.
std::string daemon_in_node(const LabSpec& spec, int k);

}  // namespace mosix::lab
