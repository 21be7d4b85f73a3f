// The map of the cluster in openMosix's own syntax: who belongs to it, under which number, at which
// address. Read once at the start of mosixd (and again at SIGHUP), in its main thread; a value afterwards.
//
//   # number   address or name   count
//   1          192.168.0.1       5        nodes 1 to 5 at 192.168.0.1 to 192.168.0.5
//   6          mail              1
//   6          10.0.0.6          ALIAS    another address of node 6
//
// A range counts the last byte up. openMosix took 256 lines at most and resolved names when reading; we
// bound lines and nodes too, but a name that does not resolve now is only an error where its address is
// needed to count, because one machine that left the name service must not stop the whole cluster.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

inline constexpr int kMaxNodeId = 65535;
/// Lines with an entry: openMosix's 256 were for kernel memory; 4,096 lines are still read in milliseconds.
inline constexpr size_t kMaxMapLines = 4096;

struct MapNode {
  int id = 0;
  std::string name;              ///< as written in the map, else learned, else "nodeID"
  bool name_is_written = false;  ///< the map itself gives the name
  std::string address;           ///< dotted; empty while a written name does not resolve
  std::vector<std::string> aliases;
  /// What to dial: the address, or the name where none is known yet.
  const std::string& dial_name() const { return address.empty() ? name : address; }
};

class ClusterMap {
 public:
  /// Turns a host name into a dotted address; injected so that tests need no name service.
  using Resolver = std::function<Result<std::string>(const std::string&)>;

  /// Errors begin with "FILE:LINE:" and end with what to write instead.
  static Result<ClusterMap> parse(std::string_view text, const std::string& file, const Resolver& resolve);
  static Result<ClusterMap> load(const std::string& file, const Resolver& resolve);

  const std::vector<MapNode>& nodes() const { return nodes_; }
  const std::string& file() const { return file_; }

  const MapNode* by_id(int id) const;
  /// By primary or alias address.
  const MapNode* by_address(std::string_view address) const;
  /// As a user writes it: a name, a name without its domain where only one node has it, a number, an address.
  const MapNode* find(std::string_view text) const;

  /// A node has told its own name (kPong). Ignored where the map gives one or another node has it.
  void learn_name(int id, const std::string& name);
  /// Names for an error message, "node1, node2, node3 and 13 more".
  std::string names() const;

 private:
  MapNode* entry(int id);
  std::string file_;
  std::vector<MapNode> nodes_;  ///< by number
};

/// The first map file that is there: `configured`, or etc_dir()/mosix.map, /etc/openmosix.map,
/// /etc/mosix.map, /etc/hpc.map. ENOENT names them all and shows how to write one.
Result<std::string> find_map_file(const std::string& configured);

/// Dotted address of a host by the system's name service. May block: mosixd calls it at its start only.
Result<std::string> resolve_host(const std::string& name);
/// Whether `text` is four numbers of 0 to 255.
bool is_dotted(const std::string& text);
/// IPv4 addresses of this machine, loopback last.
std::vector<std::string> own_addresses();

/// Which node of the map this machine is. `node_id` 0: found by `listen` (where it is one address), by the
/// machine's addresses, or by its host name. The error says which were tried and what to write.
Result<MapNode> own_node(const ClusterMap& map, int node_id, const std::string& listen,
                         const std::vector<std::string>& addresses, const std::string& host_name);

}  // namespace mosix
