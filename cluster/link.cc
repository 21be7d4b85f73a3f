#include "cluster/link.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "libmosix/common/log.h"
#include "libmosix/common/net.h"

namespace mosix {
namespace {
/// Messages taken at a time, so that a talkative process does not keep the loop from the others.
constexpr int kMessagesPerTurn = 64;
constexpr int kNoLimit = 1 << 20;
}  // namespace

Link::Link(EventLoop& loop, UniqueFd socket, OnMessage on_message, OnClosed on_closed)
    : loop_(loop),
      socket_(std::move(socket)),
      on_message_(std::move(on_message)),
      on_closed_(std::move(on_closed)) {
  Status watched = loop_.watch(socket_.get(), EPOLLIN, [this](uint32_t events) { handle(events); });
  if (!watched) log_error("link: " + watched.error().message());
}

Link::~Link() {
  if (socket_) loop_.forget(socket_.get());
}

Status Link::send(const Json& message, UniqueFd fd) {
  if (!socket_) return fail(EPIPE, "link");
  std::string text = to_line(message);
  if (text.size() > kMaxLinkBytes) return fail(EMSGSIZE, "link message");
  if (backlog_.empty()) {
    Status sent = send_link(socket_.get(), text, fd.get());
    if (sent) return {};
    if (sent.error().code != EAGAIN) return sent;
  }
  if (backlog_.size() >= kMaxLinkBacklog) return fail(ENOBUFS, "link: the process does not read its orders");
  backlog_.push_back({std::move(text), std::move(fd)});
  loop_.change(socket_.get(), EPOLLIN | EPOLLOUT);
  return {};
}

void Link::drain() { read_some(kNoLimit); }

void Link::handle(uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some(kMessagesPerTurn);
}

void Link::read_some(int limit) {
  for (int i = 0; i < limit && socket_; ++i) {
    Result<LinkMessage> message = receive_link(socket_.get());
    if (!message) {
      if (message.error().code != EAGAIN) close_and_tell();
      return;
    }
    Json object = parse_object(message->text);
    if (object.is_null())
      log_error("link: a message is not a JSON object; ignored");
    else
      on_message_(object);
  }
}

void Link::flush() {
  while (socket_ && !backlog_.empty()) {
    Status sent = send_link(socket_.get(), backlog_.front().text, backlog_.front().fd.get());
    if (!sent) {
      if (sent.error().code != EAGAIN) close_and_tell();
      return;
    }
    backlog_.pop_front();
  }
  if (socket_) loop_.change(socket_.get(), EPOLLIN);
}

void Link::close_and_tell() {
  loop_.forget(socket_.get());
  socket_.reset();
  backlog_.clear();
  on_closed_();
}

Result<LinkPair> make_link_pair() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return fail_errno("socketpair");
  LinkPair link{UniqueFd(pair[0]), UniqueFd(pair[1])};
  // The flag belongs to the open file, and each end is one of its own: the other end still blocks.
  fcntl(link.ours.get(), F_SETFL, O_NONBLOCK);
  return link;
}

}  // namespace mosix
