// The answering half of mosixd towards other nodes: its TCP port. A connection goes through three states:
//   silent    accepted, nothing but a place in a table and in epoll; becomes the next when a whole greeting
//             has arrived (SO_RCVLOWAT), so a stranger who connects and says nothing costs no thread;
//   proving   a worker thread proves membership and reads the one request, with time limits;
//   answered  back in the loop: a ping gets its answer, a family's connection goes to its supervisor.
// The whole way has one deadline, and the table a bound: when it is full, the oldest silent one goes, so
// that a flood of strangers delays a member by one connection and no more. The same holds for strangers who
// greet and then say nothing: when all places for proofs are taken, the oldest is cut off once it has had a
// quarter of a second, since a member's takes milliseconds.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "cluster/context.h"
#include "libmosix/common/wire.h"

namespace mosix {

class AwaySide;

inline constexpr size_t kMaxPendingConnections = 256;
/// Proofs at a time, a thread each: half of kMaxWorkers, the other half dials.
inline constexpr size_t kMaxProofs = 96;
/// What a proof has before it may be cut off in favour of one that waits.
inline constexpr int kProofGraceMs = 250;
/// From accept to request. Members need two round trips; a node at the other end of the world a second.
inline constexpr int kHandshakeLimitMs = 5000;

class NodeServer {
 public:
  NodeServer(Context& context, AwaySide& away);
  ~NodeServer();
  Status start();
  /// No new connection from now on.
  void stop();

 private:
  struct Pending;
  using PendingList = std::list<std::shared_ptr<Pending>>;

  void accept_some();
  void make_room();
  void greeted(const std::shared_ptr<Pending>& pending);
  void begin_proof(const std::shared_ptr<Pending>& pending);
  void relieve();
  void finish(const std::shared_ptr<Pending>& pending, Result<ControlMessage> request);
  void answer(Pending& pending, const ControlMessage& request);
  void drop(const std::shared_ptr<Pending>& pending);
  void log_stranger(const std::string& peer, const std::string& why);
  void pause_accepting();

  Context& context_;
  AwaySide& away_;
  UniqueFd listener_;
  PendingList pending_;                         ///< oldest first
  std::list<std::shared_ptr<Pending>> proofs_;  ///< with a worker, oldest first
  std::list<std::shared_ptr<Pending>> ready_;   ///< greeted, waiting for a worker
  EventLoop::TimerId relief_ = 0;               ///< 0: not set
  int64_t log_window_ms_ = 0;
  int logged_in_window_ = 0, unlogged_ = 0;
};

}  // namespace mosix
