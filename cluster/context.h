// What all parts of mosixd share: who this node is, the map, the loop. Made by main, lives to the end.
// The loop's thread only; worker threads get copies.
#pragma once

#include <memory>
#include <string>

#include "cluster/event_loop.h"
#include "cluster/json.h"
#include "cluster/map.h"
#include "cluster/peers.h"
#include "cluster/settings.h"
#include "cluster/workers.h"
#include "libmosix/common/membership.h"

namespace mosix {

struct Context {
  std::shared_ptr<EventLoop> loop;  ///< shared with worker threads that still run when mosixd ends
  Workers workers;
  Settings settings;
  ClusterMap map;
  Secret key{};
  int own_id = 0;
  std::string own_name;
  int64_t started_ms = 0;
  bool ending = false;  ///< SIGTERM has come: no new guest, no new order

  Target target_of(const MapNode& node) const {
    return {node.id, node.name, node.dial_name(), settings.port};
  }
  /// The error reply for a node that the map does not have.
  Json no_such_node(const std::string& wanted) const {
    if (wanted.empty()) return failure(EINVAL, "no node is named in the request");
    return failure(ENOENT, "no node " + wanted + " in " + map.file() + "; there are " + map.names());
  }
};

}  // namespace mosix
