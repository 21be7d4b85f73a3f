// The register of the home side: which custodian owns which process, what it was last heard to do, and what
// happened to it. Data and look-ups only; home_side.h acts on it. Loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cluster/json.h"
#include "cluster/link.h"

namespace mosix {

/// Moves and events kept for `why`, for each family: a day of a process that moves every quarter of an hour.
inline constexpr size_t kHistoryPerFamily = 100;

/// What a request of a tool waits for.
using Reply = std::function<void(Json)>;

struct ManagedProcess {
  int pid = 0;
  uint64_t start_time = 0;  ///< with the pid, names the process
  bool announced = false;   ///< its custodian has spoken of it; before that an order only claims it
  std::string program;
  std::string where = "home";
  std::string reason;
  int64_t moves = 0;
  int64_t cpu_away_us = 0;
  int64_t calls = 0;
  double calls_per_s = 0;
  int64_t rate_since_ms = 0;  ///< start of the interval that calls_per_s is measured over
  int64_t rate_base = 0;      ///< calls at that time
  int64_t since_ms = 0;

  void count_calls(int64_t total, int64_t now_ms);
};

/// One entry of a family's history: a move that was made or failed, or why a process stays.
struct HistoryEntry {
  double time = 0;
  int pid = 0;
  std::string from, to, reason;
  bool ok = false;
};

/// An order on its way to a custodian and back.
struct Order {
  Json message;  ///< as sent, without its number
  int pid = 0;
  bool sent_again = false;
  EventLoop::TimerId limit = 0;
  Reply reply;
};

struct Family {
  std::string name;
  uint32_t uid = 0;
  int custodian_pid = 0;
  bool closing = false;  ///< its link has ended: no new order
  std::unique_ptr<Link> link;
  std::map<int, ManagedProcess> processes;
  std::map<uint64_t, Order> orders;  ///< by number
  std::deque<HistoryEntry> history;

  void remember(HistoryEntry entry);
  /// Takes in a "process" event, whose fields are all optional but the pid.
  ManagedProcess& update(const Json& event, uint64_t start_time, int64_t now_ms, double wall_time);
  /// Newest first.
  Json history_of(int pid) const;
  int away_count() const;
};

class FamilyRegister {
 public:
  Family& add(std::string name, uint32_t uid);
  void remove(const std::string& name);
  Family* by_name(const std::string& name);
  Family* by_custodian(int pid);
  /// The family that holds this very process: same pid, same start time.
  Family* holding(int pid, uint64_t start_time);
  std::map<std::string, Family>& all() { return families_; }
  const std::map<std::string, Family>& all() const { return families_; }

 private:
  std::map<std::string, Family> families_;
};

}  // namespace mosix
