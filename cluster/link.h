// mosixd's end of the link to a custodian or supervisor: a SOCK_SEQPACKET pair with one JSON object a
// message. Never blocks the loop: what the other end does not take yet waits here, within a bound; a
// process that does not read 1,024 messages has hung, and its link is closed.
#pragma once

#include <deque>
#include <functional>
#include <string>

#include "cluster/event_loop.h"
#include "cluster/json.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

inline constexpr size_t kMaxLinkBacklog = 1024;

class Link {
 public:
  /// `on_message` and `on_closed` run in the loop's thread. Neither may destroy the link; on_closed comes
  /// once.
  using OnMessage = std::function<void(const Json& message)>;
  using OnClosed = std::function<void()>;
  Link(EventLoop& loop, UniqueFd socket, OnMessage on_message, OnClosed on_closed);
  ~Link();
  Link(const Link&) = delete;

  /// Sends or queues; `fd` travels with the message. EPIPE: the other end is gone. EMSGSIZE: too long.
  Status send(const Json& message, UniqueFd fd = {});
  /// Reads what has arrived, now: the last words of a process that has ended.
  void drain();
  bool closed() const { return !socket_; }

 private:
  void handle(uint32_t events);
  void read_some(int limit);
  void flush();
  void close_and_tell();

  EventLoop& loop_;
  UniqueFd socket_;
  OnMessage on_message_;
  OnClosed on_closed_;
  struct Waiting {
    std::string text;
    UniqueFd fd;
  };
  std::deque<Waiting> backlog_;
};

/// A pair for a new custodian or supervisor: `ours` does not block.
struct LinkPair {
  UniqueFd ours, theirs;
};
Result<LinkPair> make_link_pair();

}  // namespace mosix
