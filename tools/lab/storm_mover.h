// The storm itself: threads that move whatever libmosix looks after on this node, at random, until they are told to
// stop. What is chosen comes from the seed; when it falls, from the machine.
// Runs inside the lab, in `mosixlab storm-inside`.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tools/tool_common.h"

namespace mosix::lab {

/// What became of a storm's orders.
struct StormFigures {
  int moves = 0;
  /// By reason; processes that ended or were under way already are left out
  std::map<std::string, int> refused;
  std::map<int, int64_t> cpu_away_ms;  ///< by pid, as last seen
  std::map<std::string, int> seen;     ///< where processes were, how often seen
  std::vector<std::string> log;        ///< one line for each order: when, which, from, to, outcome
  std::string problem;                 ///< mosixd did not answer

  int64_t total_cpu_away_ms() const;
  /// Adds another storm's.
  void add(const StormFigures& other);
};

class StormMover {
 public:
  /// `interval_ms`: between two orders, on average. Places: node2 to node`nodes`, and home.
  StormMover(uint64_t seed, int interval_ms, int nodes);
  ~StormMover() { stop(); }
  void start();
  /// Returns when no order is under way. May be called again.
  void stop();
  /// After stop().
  const StormFigures& figures() const { return figures_; }

 private:
  struct Order {
    int pid = 0;
    std::string program, from, to;
  };
  void run(uint64_t seed);
  bool choose(uint64_t random, Order& order);
  void carry_out(const Order& order);
  void note(const Order& order, const std::string& outcome);

  uint64_t seed_;
  int interval_ms_, nodes_;
  int64_t begun_ms_ = 0;
  std::atomic<bool> end_{false};
  std::vector<std::thread> threads_;
  std::mutex mutex_;  ///< guards figures_
  StormFigures figures_;
};

}  // namespace mosix::lab
