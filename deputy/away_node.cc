#include "deputy/away_node.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <thread>

#include "libmosix/common/net.h"

namespace mosix {

Result<std::shared_ptr<AwayNode>> AwayNode::start(std::string name, UniqueFd connection, Listener& listener) {
  sockaddr_in peer{};
  socklen_t size = sizeof peer;
  if (getpeername(connection.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0)
    return fail_errno("address of " + name);
  if (peer.sin_family != AF_INET) return fail(EAFNOSUPPORT, "address of " + name + " is not IPv4");
  auto node =
      std::make_shared<AwayNode>(std::move(name), std::move(connection), peer.sin_addr.s_addr, listener);
  std::thread([node] { node->read_until_lost(); }).detach();
  return node;
}

Status AwayNode::send_bytes(ControlType type, const Bytes& body) {
  if (!alive_) return fail(EPIPE, name_ + " is gone");
  std::lock_guard lock(send_mutex_);
  return named(send_control(connection_.get(), static_cast<uint16_t>(type), body));
}

Status AwayNode::send_framed(iovec* parts, int count) {
  if (!alive_) return fail(EPIPE, name_ + " is gone");
  std::lock_guard lock(send_mutex_);
  return named(send_fully(connection_.get(), parts, count));
}

/// A connection that takes nothing any more is a node that has gone, and the user wants to know which.
Status AwayNode::named(Status sent) const {
  if (!sent) sent.error().what = name_ + " is gone";
  return sent;
}

std::shared_ptr<Mailbox> AwayNode::open_mailbox(int pid) {
  auto box = std::make_shared<Mailbox>(name_);
  std::lock_guard lock(boxes_mutex_);
  if (!alive_) box->close(Error{EPIPE, name_ + " is gone"});
  boxes_[pid] = box;
  return box;
}

void AwayNode::close_mailbox(int pid, const std::shared_ptr<Mailbox>& box) {
  box->close(Error{ECANCELED, "the operation has ended"});  // frees the reader, should it wait
  std::lock_guard lock(boxes_mutex_);
  auto at = boxes_.find(pid);
  if (at != boxes_.end() && at->second == box) boxes_.erase(at);
}

void AwayNode::fail_mailbox(int pid, Error why) {
  std::lock_guard lock(boxes_mutex_);
  auto at = boxes_.find(pid);
  if (at != boxes_.end()) at->second->close(std::move(why));
}

bool AwayNode::goes_to_mailbox(ControlType type) const {
  switch (type) {
    case ControlType::kReserved:
    case ControlType::kReady:
    case ControlType::kRunning:
    case ControlType::kFailed:
    case ControlType::kRefuse:
    case ControlType::kImageState:
    case ControlType::kPages:
    case ControlType::kImageEnd:
    case ControlType::kNeed:
    case ControlType::kFrozen:
      return true;
    default:
      return false;
  }
}

/// Every such message begins with the pid. One that nobody waits for is late and of no use any more.
void AwayNode::post(ControlMessage message) {
  int32_t pid = 0;
  Decoder decoder(message.body.data(), message.body.size());
  decoder(pid);
  if (!decoder.ok()) return;
  std::shared_ptr<Mailbox> box;
  {
    std::lock_guard lock(boxes_mutex_);
    auto at = boxes_.find(pid);
    if (at != boxes_.end()) box = at->second;
  }
  if (box) box->post(std::move(message));
}

std::shared_ptr<PageSink> AwayNode::sink_of(int pid) {
  std::lock_guard lock(boxes_mutex_);
  auto at = boxes_.find(pid);
  return at == boxes_.end() ? nullptr : at->second->sink();
}

void AwayNode::read_until_lost() {
  Bytes pages;
  auto sinks = [this](int pid) { return sink_of(pid); };
  for (;;) {
    Result<ControlMessage> message = receive_control(connection_.get(), sinks, pages);
    if (!message) return end(std::move(message.error()));
    if (goes_to_mailbox(static_cast<ControlType>(message->type)))
      post(std::move(*message));
    else
      listener_.heard(shared_from_this(), std::move(*message));
  }
}

void AwayNode::end(Error why) {
  {
    std::lock_guard lock(boxes_mutex_);
    alive_ = false;
    why.what = name_ + " is gone";
    for (auto& [pid, box] : boxes_) box->close(why);
  }
  // Wakes senders that wait for room; the descriptor itself stays until the last of them has left.
  ::shutdown(connection_.get(), SHUT_RDWR);
  listener_.lost(shared_from_this());
}

}  // namespace mosix
