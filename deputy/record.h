// What the custodian knows of one process of its family.
//
// Lock order: Custodian's registry mutex (guards the fields marked so), never held while anything waits; then
// the place's own. The tracer mutex is apart from both: held by the one thread that has threads of the
// process under ptrace (the kernel allows one tracer at a time, and a move, an abort and an exec watch can
// meet).
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "deputy/away_node.h"
#include "deputy/capture.h"
#include "deputy/resumed_call.h"
#include "deputy/tracer_right.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// Where a guest is. Home: no node and no window.
struct Place {
  std::shared_ptr<AwayNode> node;
  uint64_t window = 0;              ///< of the agent in the process at home
  uint32_t epoch = 0;               ///< of the move that brought it there
  std::shared_ptr<Capture> origin;  ///< home's memory still holds this state, until the guest has made a call
};

/// What a child takes over from its parent.
struct Inheritance {
  Place place, before;    ///< now, and until the last move
  std::string hold_node;  ///< as in ProcessRecord
  bool require = false;

  /// Where the parent is, or else was until the last move, if that is this node: what the node has said before the
  /// move may be heard after it, for other nodes have connections of their own. No node: neither.
  Place place_at(const std::shared_ptr<AwayNode>& node) const {
    return place.node == node ? place : before.node == node ? before : Place{};
  }
  /// With a guest's end, its node has said all of its children; but not what another node has still to say.
  bool is_settled_by(const std::shared_ptr<AwayNode>& node, uint32_t epoch) const {
    return place.node == node && place.epoch == epoch && (!before.node || before.node == node);
  }
};

/// Processor time that a process has spent away, as last heard. It only grows: reports may overtake one another.
class CpuAccount {
 public:
  void note(const CpuFigures& heard) {
    std::lock_guard lock(mutex_);
    if (heard.total_ns() >= figures_.total_ns()) figures_ = heard;
  }
  /// At the end of a visit: of each thread by itself, too.
  void note(const ProcessState& state) {
    note(state.cpu);
    std::lock_guard lock(mutex_);
    threads_.clear();
    for (const ThreadState& thread : state.threads) threads_[thread.tid] = thread.cpu_ns;
  }
  void note_exec(const ExecAsk& ask) {
    note(ask.cpu);
    std::lock_guard lock(mutex_);
    threads_ = {{ask.pid, ask.thread_cpu_ns}};
  }
  /// Where the next visit goes on counting.
  void go_on(ProcessState& state) const {
    std::lock_guard lock(mutex_);
    state.cpu = figures_;
    for (ThreadState& thread : state.threads) {
      auto at = threads_.find(thread.tid);
      thread.cpu_ns = at == threads_.end() ? 0 : at->second;
    }
  }
  CpuFigures figures() const {
    std::lock_guard lock(mutex_);
    return figures_;
  }

 private:
  mutable std::mutex mutex_;
  CpuFigures figures_;
  std::map<int, uint64_t> threads_;  ///< by tid
};

struct ProcessRecord {
  explicit ProcessRecord(int number) : pid(number) {}

  const int pid;
  UniqueFd pidfd;
  // The main loop's look at job control.
  UniqueFd stat;            ///< /proc/PID/stat
  bool stopped = false;     ///< as last told to the supervisor
  uint32_t told_epoch = 0;  ///< ... of this move's node
  TracerRight tracer;
  CpuAccount cpu_away;
  CallsSinceHome since_home;  ///< of whoever has claimed the process

  // Registry mutex.
  std::string program;
  uint32_t epoch = 0;  ///< of the last move, tried or done
  std::string busy;    ///< operation under way, for the refusal of a second one
  /// The operation has not begun: it waits for those that share memory with the process, or has been taken along by the
  /// operation of one of them.
  enum class Gathering { kNo, kWaits, kTaken } gathering = Gathering::kNo;
  uint32_t untold = 0;  ///< operations that are over and not yet announced
  /// Whoever holds it drops it, should it have ended meanwhile.
  bool held() const { return !busy.empty() || untold > 0; }
  bool ended = false;
  int64_t ended_ms = 0;  ///< when: its node has the last word on what it used, for a while
  uint32_t moves = 0;
  double returns = 0;  ///< how often it has been sent back after a call at home, fading with time
  int64_t returned_ms = 0;
  uint32_t orders = 0;    ///< to move it, by whoever may give them
  std::string reason;     ///< why it is where it is
  std::string hold_node;  ///< -r: where its exec'd images and children go
  bool require = false;
  uint64_t calls = 0;

  Place place() const {
    std::lock_guard lock(place_mutex_);
    return place_;
  }
  void set_place(Place place) {
    std::lock_guard lock(place_mutex_);
    before_ = std::move(place_);
    before_.origin.reset();
    place_ = std::move(place);
  }
  /// Under the registry mutex.
  Inheritance inheritance() const {
    std::lock_guard lock(place_mutex_);
    Inheritance left{place_, before_, hold_node, require};
    left.place.origin.reset();
    return left;
  }
  void drop_origin() {
    std::lock_guard lock(place_mutex_);
    place_.origin.reset();
  }
  std::string where() const {
    Place place = this->place();
    return place.node ? place.node->name() : "home";
  }

 private:
  mutable std::mutex place_mutex_;
  Place place_, before_;
};

}  // namespace mosix
