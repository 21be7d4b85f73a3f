// The dialling half of mosixd: asks another node's mosixd about itself, or opens a family's connection to
// it. Blocking, with limits; runs in worker threads on copies. The answering half is node_server.h.
#pragma once

#include <string>

#include "libmosix/common/membership.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// Where to go, copied from the map.
struct Target {
  int id = 0;
  std::string name;
  std::string host;  ///< address or name to dial
  int port = 0;
};

struct PingAnswer {
  NodeInfo info;
  int rtt_us = 0;  ///< of the request alone, after the proof of membership
};
Result<PingAnswer> ping_node(const Target& target, const Secret& key, int limit_ms);

struct OpenedFamily {
  UniqueFd connection;  ///< a supervisor reads at its other end
  NodeInfo info;        ///< of the node that accepted
  std::string address;  ///< that was reached
};
/// EBUSY: full; EPERM: root's processes are not let in; EACCES: another key; ECONNREFUSED: no mosixd there.
/// The error's `what` is the whole sentence, with node, address and cure; its code is for programs.
Result<OpenedFamily> open_family(const Target& target, const Secret& key, const GuestOpen& request,
                                 int limit_ms);

}  // namespace mosix
