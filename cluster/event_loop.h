// The one thread in which mosixd decides anything: an epoll loop with timers and a door for other threads.
// All state of mosixd is touched from here only, so none of it has a lock. What must block (handshakes,
// dialling, names) runs in a worker thread on copies and comes back through post().
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

int64_t steady_ms();
/// Seconds since 1970, for people and histories.
double wall_seconds();

class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;
  using Action = std::function<void()>;

  static Result<std::shared_ptr<EventLoop>> create();

  /// The loop borrows `fd`; forget() it before closing. A handler may forget and watch any descriptor,
  /// its own included: events already fetched for a forgotten one are dropped.
  Status watch(int fd, uint32_t events, Handler handler);
  void change(int fd, uint32_t events);
  void forget(int fd);

  using TimerId = uint64_t;
  TimerId after(int delay_ms, Action action);
  void cancel(TimerId id);

  /// Runs `action` in the loop's thread, soon. The only member that other threads may call.
  void post(Action action);

  void run();
  void stop() { stopped_ = true; }

 private:
  EventLoop() = default;
  void run_posted();
  void run_due_timers();
  int wait_limit_ms() const;

  UniqueFd epoll_, door_;
  /// Events carry a serial number, not the descriptor: its number may already mean another file.
  struct Watch {
    int fd;
    Handler handler;
  };
  std::unordered_map<uint64_t, std::shared_ptr<Watch>> watches_;
  std::unordered_map<int, uint64_t> serial_of_fd_;
  uint64_t next_serial_ = 1;
  std::map<std::pair<int64_t, TimerId>, Action> timers_;
  std::unordered_map<TimerId, int64_t> due_of_timer_;
  TimerId next_timer_ = 1;
  std::mutex posted_lock_;  ///< guards posted_ alone
  std::vector<Action> posted_;
  bool stopped_ = false;
};

}  // namespace mosix
