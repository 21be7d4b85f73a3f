// Who watches which calls: `mostrace` subscribes over the control socket, custodians send trace events, and
// this stands between them. A subscription may come before its process is managed; the custodian is then
// told as soon as there is one. Loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "cluster/families.h"

namespace mosix {

struct TraceRequest {
  int pid = 0;          ///< 0: all processes of the user
  uint32_t uid = 0;     ///< who asks; root sees all
  bool follow = false;  ///< with a pid: its whole family
  bool stacks = false;
};

class TraceHub {
 public:
  using Sink = std::function<void(const Json& event)>;

  explicit TraceHub(FamilyRegister& families) : families_(families) {}

  /// `client` names the subscriber; a second subscription of the same client replaces the first.
  void subscribe(uint64_t client, const TraceRequest& request, Sink sink);
  void unsubscribe(uint64_t client);

  /// A family has this process now: tell its custodian, where somebody waits for it.
  void process_seen(Family& family, int pid);
  void deliver(const Family& family, const Json& event);
  void process_gone(const Family& family, int pid);
  void family_gone(const std::string& name);

 private:
  struct Subscription {
    TraceRequest request;
    Sink sink;
    std::set<std::string> families;  ///< whose custodians have been told
    int ordered_pid() const { return request.follow ? 0 : request.pid; }
    bool covers(const Family& family, int pid) const;
  };
  void tell(Family& family, const Subscription& subscription, bool on);
  bool still_wanted(const std::string& family, int ordered_pid) const;

  FamilyRegister& families_;
  std::map<uint64_t, Subscription> subscriptions_;
};

}  // namespace mosix
