#include "cluster/node_poll.h"

#include <algorithm>
#include <mutex>
#include <optional>

namespace mosix {

struct NodePoll::Round {
  std::vector<Target> targets;
  NodeInfo own;
  int own_id = 0;
  EventLoop::TimerId limit = 0;
  std::mutex lock;  ///< guards what follows, shared with the workers
  size_t next = 0;
  size_t unanswered = 0;
  std::vector<std::optional<Result<PingAnswer>>> answers;
};

void NodePoll::ask(const NodeInfo& own, Reply reply) {
  waiting_.push_back(std::move(reply));
  if (round_) return;
  auto round = std::make_shared<Round>();
  round_ = round;
  round->own = own;
  round->own_id = context_.own_id;
  for (const MapNode& node : context_.map.nodes())
    if (node.id != context_.own_id) round->targets.push_back(context_.target_of(node));
  round->unanswered = round->targets.size();
  round->answers.resize(round->targets.size());
  round->limit = context_.loop->after(kPollLimitMs, [this, round] { finish(round); });
  auto work = [this, round, key = context_.key, loop = context_.loop] {
    for (;;) {
      size_t index;
      {
        std::lock_guard hold(round->lock);
        if (round->next == round->targets.size()) return;
        index = round->next++;
      }
      Result<PingAnswer> answer = ping_node(round->targets[index], key, kPollLimitMs);
      bool last;
      {
        std::lock_guard hold(round->lock);
        round->answers[index] = std::move(answer);
        last = --round->unanswered == 0;
      }
      if (last) loop->post([this, round] { finish(round); });
    }
  };
  size_t threads = std::min(kPollThreads, round->targets.size());
  for (size_t i = 0; i < threads; ++i)
    if (!context_.workers.start(work)) break;
  if (round->targets.empty()) finish(round);
}

void NodePoll::finish(const std::shared_ptr<Round>& round) {
  if (round_ != round) return;
  context_.loop->cancel(round->limit);
  round_.reset();
  Json nodes = Json::array();
  {
    std::lock_guard hold(round->lock);
    round->next = round->targets.size();  // what was not begun is not begun any more
    for (size_t i = 0; i < round->targets.size(); ++i)
      if (const auto& answer = round->answers[i]; answer && *answer)
        context_.map.learn_name(round->targets[i].id, (*answer)->info.name);
    size_t index = 0;
    for (const MapNode& node : context_.map.nodes())
      nodes.push_back(row(node, *round, node.id == round->own_id ? round->targets.size() : index++));
  }
  Json answer{{"ok", true}, {"nodes", nodes}};
  for (Reply& reply : std::exchange(waiting_, {})) reply(answer);
}

/// `index` beyond the targets: this node itself.
Json NodePoll::row(const MapNode& node, const Round& round, size_t index) const {
  Json row{{"name", node.name}, {"id", node.id}, {"address", node.dial_name()}, {"up", false}};
  bool self = index == round.targets.size();
  if (!self && !round.answers[index]) {
    row["error"] = node.name + " did not answer within a second";
    row["code"] = ETIMEDOUT;
    return row;
  }
  if (!self && !*round.answers[index]) {
    row["error"] = round.answers[index]->error().what;
    row["code"] = round.answers[index]->error().code;
    return row;
  }
  const NodeInfo& info = self ? round.own : (*round.answers[index])->info;
  constexpr uint64_t kMegabyte = 1 << 20;
  if (self) row["name"] = context_.own_name;
  row["up"] = true;
  row["self"] = self;
  row["load"] = info.load_milli / 1000.0;
  row["cpus"] = info.cpus;
  row["memory_mb"] = info.memory_bytes / kMegabyte;
  row["free_mb"] = info.free_bytes / kMegabyte;
  row["guests"] = info.guests;
  row["max_guests"] = info.max_guests;
  row["kernel"] = info.kernel;
  row["rtt_us"] = self ? 0 : (*round.answers[index])->rtt_us;
  row["error"] = "";
  return row;
}

}  // namespace mosix
