// Connections to away nodes. mosixd dials and proves (users never see the key) and hands the connection over;
// one for each node and family. Part of Custodian.
#include "deputy/custodian.h"
#include "deputy/move_out.h"
#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

/// mosixd's own limit for connecting and proving, and some room for its answer.
constexpr auto kDialLimit = std::chrono::milliseconds(2 * kConnectTimeoutMs + 2000);

}  // namespace

Result<std::shared_ptr<AwayNode>> Custodian::node_named(const std::string& name, const std::string& program) {
  {
    // Only one of several that want the same node dials it.
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kDialLimit, [&] { return !dialing_.count(name); });
    auto at = nodes_.find(name);
    if (at != nodes_.end() && at->second->alive()) return at->second;
    dialing_[name] = true;
  }
  Result<UniqueFd> connection = dial(name, program);
  Result<std::shared_ptr<AwayNode>> node = fail(0, "");
  if (connection)
    node = AwayNode::start(name, std::move(*connection), *this);
  else
    node = fail(std::move(connection.error()));
  if (node) send_traces(**node);
  std::lock_guard lock(mutex_);
  dialing_.erase(name);
  if (node) nodes_[name] = *node;
  changed_.notify_all();
  return node;
}

Result<UniqueFd> Custodian::dial(const std::string& name, const std::string& program) {
  int64_t id;
  {
    std::lock_guard lock(mutex_);
    id = next_dial_++;
    dials_[id];
  }
  link_.dial(id, name, options_.family, program);
  std::unique_lock lock(mutex_);
  bool told = changed_.wait_for(lock, kDialLimit, [&] { return dials_[id].done; });
  Result<UniqueFd> result = std::move(dials_[id].result);
  dials_.erase(id);
  if (!told) return fail(ETIMEDOUT, "mosixd did not open a connection to " + name);
  return result;
}

void Custodian::dialed(LinkOrder order) {
  std::lock_guard lock(mutex_);
  auto at = dials_.find(order.id);
  if (at == dials_.end()) return;  // nobody waits any more; the connection closes
  if (order.ok && order.connection)
    at->second.result = std::move(order.connection);
  else
    at->second.result = fail(order.code, order.error.empty() ? "the connection was not opened" : order.error);
  at->second.done = true;
  changed_.notify_all();
}

void Custodian::lost(const std::shared_ptr<AwayNode>& node) {
  files_.lost(node);
  std::vector<Record> orphans;
  {
    std::lock_guard lock(mutex_);
    auto at = nodes_.find(node->name());
    if (at != nodes_.end() && at->second == node) nodes_.erase(at);
    for (auto& [pid, record] : records_)
      if (record->place().node == node) orphans.push_back(record);
  }
  if (!orphans.empty())
    log_error(node->name() + " is gone with " + std::to_string(orphans.size()) + " processes");
  // A busy one is looked at when its operation ends.
  for (const Record& record : orphans)
    if (claim(record, node->name() + " is gone"))
      in_thread([this, record, name = node->name()] { lose_process(record, name); });
}

/// Home's memory still holds the state in which it left if its guest has made no call since: then it goes on
/// from there. Otherwise it ends, as if its machine had lost power.
void Custodian::lose_process(const Record& record, const std::string& node_name) {
  Status restored = restore_at_home(*record);
  MoveLine line{node_name, "home", node_name + " is gone", restored.has_value()};
  {
    std::lock_guard lock(mutex_);
    record->reason = line.reason;
  }
  if (restored) {
    log_info("process " + std::to_string(record->pid) + " goes on at home: it had made no call on " +
             node_name);
  } else {
    log_debug("process " + std::to_string(record->pid) + ": " + restored.error().message());
    record->set_place({});
    kill_process(record, node_name + " is gone");
  }
  unclaim(record);
  announce(record, &line);
  settle(record);
}

}  // namespace mosix
