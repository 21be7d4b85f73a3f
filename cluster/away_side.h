// mosixd as host of other nodes' processes: lets families in or refuses them, starts a supervisor for each,
// keeps the list of guests. Loop's thread. A supervisor outlives mosixd: it only loses its link.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cluster/context.h"
#include "cluster/json.h"
#include "cluster/link.h"
#include "libmosix/common/messages.h"

namespace mosix {

class AwaySide {
 public:
  explicit AwaySide(Context& context) : context_(context) {}

  /// A proven member asks to bring a family. Answers kAccept (body: NodeInfo) and hands the connection to a
  /// new supervisor, or kRefuse with the reason.
  void open(UniqueFd connection, const GuestOpen& request, const std::string& peer);
  /// This node as kPong and kAccept tell it.
  NodeInfo node_info() const;

  size_t guest_count() const;
  /// Rows of `mosps` for guests here.
  Json rows() const;
  /// Row of one guest, null if there is none of that number.
  Json row(int pid) const;

  /// Sends all guests home; `done` once the last supervisor has ended.
  void expel(std::function<void()> done);
  size_t supervisor_count() const { return supervisors_.size(); }
  /// A child of mosixd has ended; false if it is not a supervisor.
  bool child_ended(int pid, int status);

 private:
  struct Guest {
    uint32_t uid = 0;
    std::string program, home;
    int64_t since_ms = 0;
  };
  struct Supervisor {
    std::string family, home, peer;
    uint32_t uid = 0;
    int64_t since_ms = 0;
    std::unique_ptr<Link> link;
    std::map<int, Guest> guests;
    size_t coming = 0;  ///< let in, and not here yet
    /// One whose first guest is still on its way counts as one, or a burst would overrun the bound.
    size_t count() const { return std::max<size_t>(1, guests.size() + coming); }
  };

  std::optional<Refusal> reason_to_refuse(const GuestOpen& request) const;
  Status start_supervisor(UniqueFd connection, const std::string& path, const GuestOpen& request,
                          const std::string& peer);
  void heard(int supervisor_pid, const Json& event);
  void let_in(Supervisor& supervisor, int64_t question);
  std::string full() const;
  void link_closed(int supervisor_pid);
  void remove(int supervisor_pid, const std::string& how);
  Json row_of(int pid, const Guest& guest) const;

  Context& context_;
  std::map<int, Supervisor> supervisors_;  ///< by pid of the supervisor
  std::function<void()> when_empty_;
};

}  // namespace mosix
