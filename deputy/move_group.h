// Processes that share memory move as one: each by a thread of its own, and together where it matters. All of them
// stand still before anything of the memory is read, and none goes on at its new place before all can. One that fails
// takes the others back with it.
//
// Who belongs to a group is found out by trying. Whoever has frozen a process, here or away, says who else has mappings
// of its shared memory; if somebody is missing, the move is called off and tried again with all of them. A fork cannot
// slip through: a parent that stands still has no fork under way, and its children are seen.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "deputy/file_bindings.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

class MoveGroup {
 public:
  /// Of one alone, with whom nothing waits for anybody, or of several.
  MoveGroup(std::set<int> pids, FileBindings& files);

  bool alone() const { return pids_.size() == 1; }
  const std::set<int>& pids() const { return pids_; }
  /// Names it on the nodes; 0: alone.
  uint64_t number() const { return number_; }

  /// Waits until every member is here. EAGAIN: somebody is missing from the group, or one of them has failed for a reason
  /// that passes (it has ended, say); otherwise its error.
  Status meet();
  /// A member that has nothing to do, or is done.
  void leave(int pid);
  /// A member's move has failed: so have the others'.
  void give_up(int pid, const Error& why);

  /// Who shares memory with a member.
  void note_sharers(const std::vector<int>& pids);
  /// Those of them that are no members.
  std::set<int> missing() const;

  FileBindings& files() { return files_; }
  SharedClaims& claims() { return claims_; }
  const std::shared_ptr<SharedPool>& pool() const { return pool_; }

 private:
  void end_round();

  const std::set<int> pids_;
  const uint64_t number_;
  FileBindings& files_;
  SharedClaims claims_;
  std::shared_ptr<SharedPool> pool_ = std::make_shared<SharedPool>();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> members_;
  std::set<int> missing_;
  size_t arrived_ = 0;
  uint64_t round_ = 0;
  std::optional<Error> failure_;
};

}  // namespace mosix
