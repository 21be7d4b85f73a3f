// mosixd as home of processes: gives orders to custodians, starts one where a family has none, dials other
// nodes for them (they never see the cluster key), keeps what they report. Loop's thread; dialling in
// workers.
//
// A process belongs to the family of its nearest managed ancestor, else to a new one. A custodian ends by
// itself when its family has nobody left, which may happen while an order is on its way: an order that finds
// its custodian ended cleanly has not been read, and is given once more to a new one.
#pragma once

#include <functional>
#include <string>

#include "cluster/accounts.h"
#include "cluster/context.h"
#include "cluster/families.h"
#include "cluster/homecomings.h"
#include "cluster/process_facts.h"
#include "cluster/trace_hub.h"

namespace mosix {

/// The longest an order may take: a move of tens of gigabytes over a slow link. The custodian has limits
/// of its own for each stage; this one is for a custodian that has hung.
inline constexpr int kOrderLimitMs = 600'000;

class HomeSide {
 public:
  explicit HomeSide(Context& context) : context_(context), traces_(families_) {}

  /// Watch `pid`, take it to `node` at its exec (mosrun). Answered when watching and node are ready.
  void run(const Json& request, uint32_t asker, Reply reply);
  /// Move a running process to a node or "home": `migrate`, and `place` of the preloaded library.
  void migrate(const Json& request, uint32_t asker, Reply reply);

  Json rows(uint32_t asker) const;
  /// Where a process is and why, with its history if `with_history`; null if it is not managed.
  Json row(const ProcessFacts& facts, bool with_history);
  bool manages(int pid) const;
  int away_count() const;

  TraceHub& traces() { return traces_; }
  Accounts& accounts() { return accounts_; }
  /// Of this user's processes, since mosixd began; for root of everybody's.
  Homecomings homecomings(uint32_t uid) const;

  /// Brings every process home; `done` when each custodian has answered or ended.
  void all_home(std::function<void()> done);
  /// A child of mosixd has ended; false if it is not a custodian.
  bool child_ended(int pid, int status);

 private:
  void give(Order order, const ProcessFacts& facts);
  Status send(Family& family, Order order);
  Family* family_of(const ProcessFacts& facts);
  Result<Family*> start_family(const ProcessFacts& facts);

  void heard(const std::string& family_name, const Json& event);
  void heard_reply(Family& family, const Json& event);
  void heard_process(Family& family, const Json& event);
  void heard_gone(Family& family, int pid);
  void dial(Family& family, const Json& event);
  void tell_dialed(const std::string& family_name, int64_t id, const std::string& node,
                   Result<OpenedFamily> opened);
  void link_closed(const std::string& family_name);
  void drop(const std::string& family_name, bool cleanly, const std::string& how);

  Context& context_;
  FamilyRegister families_;
  TraceHub traces_;
  Accounts accounts_;
  std::map<uint32_t, Homecomings> homecomings_;  ///< by uid
  uint64_t next_order_ = 1;
  uint64_t next_family_ = 1;
};

}  // namespace mosix
