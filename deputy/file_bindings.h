// Files that processes away have mapped shared and writable. Such a file is bound to the node where its mappings are:
// its contents are there, in memory that those processes share, and what home's kernel has of it is old.
//
// A write lease proves that nobody else has the file open, and makes anybody who opens it wait (fcntl(2), F_SETLEASE);
// then it is recalled: whoever maps it comes home, and before that what has changed away is written here. So nobody sees
// old contents. The lease is the custodian's, on a copy of the process's own descriptor; the copy is kept for as long as
// any process maps the file, for a process that has closed its own has no other way to name it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "deputy/away_node.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

class FileBindings {
 public:
  struct Bound {
    SharedKey key;
    uint64_t size = 0, number = 0;
    std::vector<BoundDescriptor> descriptors;
  };

  /// The file behind descriptor `number` of process `pid`, which is on `node` and about to map it. `there`: the processes
  /// of the family that are on that node; nobody else may have the file in any way. `away`: those that are on any; what
  /// their deputies have mapped is of before they moved. Looks through all processes. EBUSY: it cannot be bound.
  Result<Bound> bind(const std::shared_ptr<AwayNode>& node, int pid, int number, const std::set<int>& there,
                     const std::set<int>& away);

  /// A shared mapping of a file that could be bound, if nobody had it but those who move.
  bool may_be_bound(const MapEntry& entry);
  bool is_bound(const SharedKey& key);
  /// All that these mappings need, for a group of processes that stand still and go to `node`. What another of the group
  /// has bound already is no obstacle. On failure nothing is bound that was not.
  Result<std::vector<Bound>> bind_mapped(const std::shared_ptr<AwayNode>& node,
                                         const std::vector<MapEntry>& maps, const std::set<int>& group);

  /// What has changed away. EPERM: the file is not bound to that node, or not by that binding.
  Status write(const std::shared_ptr<AwayNode>& node, const FileWrite& change);
  /// All contents, to a node that is about to have the mappings.
  Status send_contents(const std::shared_ptr<AwayNode>& node, const SharedKey& key);
  /// Home has all of it, or says here why not; it may move on, or (`release`) nobody there needs it any more.
  Status settled(const std::shared_ptr<AwayNode>& node, const FileSettle& told);
  /// Those that are about to leave with a member of this group.
  std::vector<SharedKey> leaving(const std::shared_ptr<AwayNode>& node, const std::set<int>& group);
  /// They do not.
  void stay(const std::shared_ptr<AwayNode>& node, const std::set<int>& group);
  void moved(const SharedKey& key, const std::shared_ptr<AwayNode>& node);
  /// Those who map it are at home, or have never left.
  void release(const SharedKey& key);
  void lost(const std::shared_ptr<AwayNode>& node);

  /// Its descriptor, for those who map it at home; it stays ours. EPERM: it is not bound to that node.
  Result<int> descriptor(const std::shared_ptr<AwayNode>& node, const SharedKey& key);

  /// Somebody waits for these; their nodes are to be told, again until they are released.
  struct Recall {
    std::shared_ptr<AwayNode> node;
    SharedKey key;
  };
  std::vector<Recall> recalls();
  /// Some file is bound to a node that is alive: what it has must not be lost.
  bool any_away();
  /// Closes what no process maps any more. Looks through all processes if there is anything.
  void close_unmapped();

 private:
  struct File {
    UniqueFd fd;
    std::shared_ptr<AwayNode> node;  ///< null: its mappings are at home
    uint64_t number = 0;             ///< of the binding
    int leaves_with = 0;             ///< a process that is being moved, and has written home what it had
    std::optional<Error> failure;    ///< of a write
  };
  Result<Bound> bind_locked(const std::shared_ptr<AwayNode>& node, UniqueFd fd, const std::set<int>& users);
  Result<File*> find_locked(const std::shared_ptr<AwayNode>& node, const SharedKey& key);
  Result<File*> find_locked(const std::shared_ptr<AwayNode>& node, const SharedKey& key, uint64_t number);
  void release_locked(File& file);

  std::mutex mutex_;
  std::map<SharedKey, File> files_;
  uint64_t last_number_ = 0;
};

}  // namespace mosix
