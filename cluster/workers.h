// Short-lived threads for what blocks: handshakes, dialling, pings, name look-ups. Their number is bounded;
// each works on copies and ends within the limits of its sockets. Called from the loop's thread.
#pragma once

#include <functional>
#include <memory>

namespace mosix {

/// Peers answer in milliseconds or time out within seconds: more than this many waiting at once means that
/// something is wrong with the network, and a refusal is the better answer.
inline constexpr int kMaxWorkers = 192;

class Workers {
 public:
  Workers();
  ~Workers();  ///< does not wait; running threads keep what they share alive

  /// False when too many run already or no thread can be had; `job` has then not run.
  bool start(std::function<void()> job);
  /// Waits until none runs, at most `limit_ms`; whether that is so.
  bool wait_idle(int limit_ms);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace mosix
