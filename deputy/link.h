// The link to mosixd (descriptor 3): orders in, replies and events out, one JSON object a message. JSON is
// known in link.cc only. Receiving is the main loop's; anybody may send. If mosixd goes away, sending becomes
// silent and guests go on: they do not need it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "deputy/move_out.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

struct LinkOrder {
  std::string op;
  int64_t id = 0;
  int pid = 0;
  std::string node;  ///< watch_exec, dialed
  std::string to;    ///< migrate: a node's name or "home"
  bool require = false;
  bool hold = false;    ///< watch_exec: later execs and children go there too
  bool placed = false;  ///< migrate: asked for by the library of a -r tree
  bool on = false, stacks = false;
  bool ok = false;
  int code = 0;
  std::string error;
  UniqueFd connection;  ///< dialed
};

/// One line of a process's history.
struct MoveLine {
  std::string from, to, reason;
  bool ok = false;
  bool brought = false;  ///< home, because its node could not do something
};

struct ProcessNews {
  int pid = 0;
  std::string program, where, reason;
  uint32_t moves = 0;
  uint64_t calls = 0, cpu_away_us = 0;
  int parent = 0;  ///< of one that was forked away: it may have ended before anybody at home could look
};

class Link {
 public:
  explicit Link(UniqueFd socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }
  bool alive() const { return alive_; }

  /// EPIPE: mosixd is gone. EBADMSG: not an order.
  Result<LinkOrder> receive();

  void reply_ok(int64_t id, int pid);
  void reply_moved(int64_t id, int pid, const std::string& from, const std::string& to,
                   const MoveReport& report);
  void reply_failed(int64_t id, const Error& error);
  void dial(int64_t id, const std::string& node, const std::string& family, const std::string& program);
  void process(const ProcessNews& news, const MoveLine* line);
  void gone(int pid);
  void trace(const TraceEvent& event);

 private:
  void send(const std::string& text);
  UniqueFd socket_;
  std::atomic<bool> alive_{true};
  std::mutex mutex_;
};

}  // namespace mosix
