// `mosctl nodes`: asks every node of the map about itself, all at the same time, and answers after one
// second at the latest with what has come. One round at a time: who asks while one runs gets its result, so
// that many impatient tools cost the network no more than one. Loop's thread; the asking in workers.
#pragma once

#include <memory>
#include <vector>

#include "cluster/context.h"
#include "cluster/families.h"

namespace mosix {

inline constexpr int kPollLimitMs = 1000;
/// Threads of a round; a map of more nodes is worked through by these.
inline constexpr size_t kPollThreads = 64;

class NodePoll {
 public:
  explicit NodePoll(Context& context) : context_(context) {}
  /// Replies {"ok":true,"nodes":[...]}. `own` describes this node, which is not asked over the network.
  void ask(const NodeInfo& own, Reply reply);

 private:
  struct Round;
  void finish(const std::shared_ptr<Round>& round);
  Json row(const MapNode& node, const Round& round, size_t index) const;

  Context& context_;
  std::shared_ptr<Round> round_;
  std::vector<Reply> waiting_;
};

}  // namespace mosix
