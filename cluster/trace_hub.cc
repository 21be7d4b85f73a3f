#include "cluster/trace_hub.h"

#include "libmosix/common/log.h"

namespace mosix {

bool TraceHub::Subscription::covers(const Family& family, int pid) const {
  if (request.uid != 0 && request.uid != family.uid) return false;
  return request.pid == 0 || request.pid == pid || (request.follow && families.count(family.name) != 0);
}

void TraceHub::subscribe(uint64_t client, const TraceRequest& request, Sink sink) {
  unsubscribe(client);
  subscriptions_[client] = Subscription{request, std::move(sink), {}};
  for (auto& [name, family] : families_.all())
    for (const auto& [pid, process] : family.processes)
      if (process.announced) process_seen(family, pid);
}

void TraceHub::unsubscribe(uint64_t client) {
  auto at = subscriptions_.find(client);
  if (at == subscriptions_.end()) return;
  Subscription ended = std::move(at->second);
  subscriptions_.erase(at);
  for (const std::string& name : ended.families) {
    Family* family = families_.by_name(name);
    if (family != nullptr && !still_wanted(name, ended.ordered_pid())) tell(*family, ended, false);
  }
}

bool TraceHub::still_wanted(const std::string& family, int ordered_pid) const {
  for (const auto& [client, other] : subscriptions_)
    if (other.ordered_pid() == ordered_pid && other.families.count(family) != 0) return true;
  return false;
}

void TraceHub::tell(Family& family, const Subscription& subscription, bool on) {
  Json order{{"op", "trace"},
             {"pid", subscription.ordered_pid()},
             {"on", on},
             {"stacks", subscription.request.stacks}};
  Status sent = family.link->send(order);
  if (!sent) log_error("custodian of " + family.name + ": " + sent.error().message());
}

void TraceHub::process_seen(Family& family, int pid) {
  if (family.closing) return;
  for (auto& [client, subscription] : subscriptions_)
    if (subscription.covers(family, pid) && subscription.families.insert(family.name).second)
      tell(family, subscription, true);
}

void TraceHub::deliver(const Family& family, const Json& event) {
  int pid = static_cast<int>(number_field(event, "pid"));
  for (auto& [client, subscription] : subscriptions_)
    if (subscription.families.count(family.name) != 0 && subscription.covers(family, pid))
      subscription.sink(event);
}

void TraceHub::process_gone(const Family& family, int pid) {
  deliver(family, Json{{"event", "gone"}, {"pid", pid}});
}

void TraceHub::family_gone(const std::string& name) {
  for (auto& [client, subscription] : subscriptions_) subscription.families.erase(name);
}

}  // namespace mosix
