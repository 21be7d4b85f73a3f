#include "cluster/node_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>

#include "cluster/away_side.h"
#include "libmosix/common/log.h"
#include "libmosix/common/net.h"

namespace mosix {
namespace {

/// Bytes of a peer's greeting in membership.h; what a socket must hold before a thread looks at it.
constexpr int kGreetingBytes = 48;
/// Lines about strangers in ten seconds; a port scanner shall not fill the log.
constexpr int kStrangerLines = 10;
constexpr int kAcceptsPerTurn = 32;

void set_low_water(int fd, int bytes) { setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes); }

/// In a worker: membership first, then the one request.
Result<ControlMessage> prove_and_read(int fd, const Secret& key, std::atomic<bool>& proven) {
  TRY([[maybe_unused]] Secret session, prove_as_server(fd, key, kHandshakeLimitMs));
  proven = true;
  set_receive_timeout(fd, kHandshakeLimitMs);
  TRY(ControlMessage request, receive_control(fd));
  set_receive_timeout(fd, 0);
  return request;
}

}  // namespace

struct NodeServer::Pending {
  UniqueFd fd;
  std::string peer;
  PendingList::iterator place;
  EventLoop::TimerId deadline = 0;
  bool proving = false;
  int64_t began_ms = 0;             ///< of the proof
  std::atomic<bool> proven{false};  ///< set by the worker: a member, whose request is being read
  bool late = false;                ///< cut off while a worker had it
};

NodeServer::NodeServer(Context& context, AwaySide& away) : context_(context), away_(away) {}
NodeServer::~NodeServer() { stop(); }

Status NodeServer::start() {
  TRY(listener_, listen_tcp(context_.settings.listen, context_.settings.port));
  fcntl(listener_.get(), F_SETFL, O_NONBLOCK);
  return context_.loop->watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_some(); });
}

void NodeServer::stop() {
  context_.loop->cancel(relief_);
  if (listener_) context_.loop->forget(listener_.get());
  listener_.reset();
  while (!pending_.empty()) {
    std::shared_ptr<Pending> pending = pending_.front();
    shutdown(pending->fd.get(), SHUT_RDWR);
    drop(pending);
  }
}

void NodeServer::accept_some() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) pause_accepting();
      return;
    }
    make_room();
    int one = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    end_when_silent(fd.get());
    set_low_water(fd.get(), kGreetingBytes);
    auto pending = std::make_shared<Pending>();
    pending->peer = peer_address(fd.get());
    pending->fd = std::move(fd);
    pending->place = pending_.insert(pending_.end(), pending);
    pending->deadline = context_.loop->after(kHandshakeLimitMs, [this, pending] {
      pending->deadline = 0;
      pending->late = true;
      // A worker that has it finds its reads ended, and hands it back; nobody else closes a descriptor in
      // use.
      shutdown(pending->fd.get(), SHUT_RDWR);
      if (pending->proving) return;
      log_stranger(pending->peer, "said nothing");
      drop(pending);
    });
    Status watched =
        context_.loop->watch(pending->fd.get(), EPOLLIN, [this, pending](uint32_t) { greeted(pending); });
    if (!watched) drop(pending);
  }
}

/// Out of descriptors or memory: the listening socket stays readable, so look away for a moment.
void NodeServer::pause_accepting() {
  log_error("accept: " + std::string(strerror(errno)) + ", trying again shortly");
  context_.loop->change(listener_.get(), 0);
  context_.loop->after(200, [this] {
    if (listener_) context_.loop->change(listener_.get(), EPOLLIN);
  });
}

void NodeServer::make_room() {
  if (pending_.size() < kMaxPendingConnections) return;
  for (const std::shared_ptr<Pending>& oldest : pending_) {
    if (oldest->proving) continue;
    log_stranger(oldest->peer, "said nothing, and others wait");
    drop(std::shared_ptr<Pending>(oldest));
    return;
  }
}

void NodeServer::greeted(const std::shared_ptr<Pending>& pending) {
  context_.loop->forget(pending->fd.get());
  set_low_water(pending->fd.get(), 1);
  if (proofs_.size() < kMaxProofs) return begin_proof(pending);
  ready_.push_back(pending);
  relieve();
}

/// Cuts off as many old proofs as there are connections that wait for a worker. The worker of such a proof
/// finds its connection ended, and finish() goes on with the next.
void NodeServer::relieve() {
  auto is_late = [](const std::shared_ptr<Pending>& proof) { return proof->late; };
  size_t coming = static_cast<size_t>(std::count_if(proofs_.begin(), proofs_.end(), is_late));
  for (const std::shared_ptr<Pending>& proof : proofs_) {
    if (coming >= ready_.size()) return;
    if (proof->late || proof->proven) continue;
    int64_t left_ms = proof->began_ms + kProofGraceMs - steady_ms();
    if (left_ms > 0) {
      if (relief_ != 0) return;
      relief_ = context_.loop->after(static_cast<int>(left_ms), [this] {
        relief_ = 0;
        relieve();
      });
      return;
    }
    proof->late = true;
    shutdown(proof->fd.get(), SHUT_RDWR);
    ++coming;
  }
}

void NodeServer::begin_proof(const std::shared_ptr<Pending>& pending) {
  pending->proving = true;
  pending->began_ms = steady_ms();
  proofs_.push_back(pending);
  bool started = context_.workers.start([this, pending, key = context_.key, loop = context_.loop] {
    auto request =
        std::make_shared<Result<ControlMessage>>(prove_and_read(pending->fd.get(), key, pending->proven));
    loop->post([this, pending, request] { finish(pending, std::move(*request)); });
  });
  if (started) return;
  proofs_.remove(pending);
  log_stranger(pending->peer, "turned away: too many handshakes at once");
  drop(pending);
}

void NodeServer::finish(const std::shared_ptr<Pending>& pending, Result<ControlMessage> request) {
  proofs_.remove(pending);
  if (!ready_.empty()) {
    std::shared_ptr<Pending> next = ready_.front();
    ready_.pop_front();
    begin_proof(next);
    relieve();
  }
  if (pending->place == pending_.end()) return;  // dropped meanwhile, mosixd is ending
  if (!request)
    log_stranger(pending->peer, pending->late ? "took too long to prove itself" : request.error().message());
  else
    answer(*pending, *request);
  drop(pending);
}

void NodeServer::answer(Pending& pending, const ControlMessage& request) {
  switch (static_cast<ControlType>(request.type)) {
    case ControlType::kPing: {
      // The first message on a fresh connection: the socket's buffer holds it, so this does not block.
      Status sent = send_control(pending.fd.get(), static_cast<uint16_t>(ControlType::kPong),
                                 encode_message(away_.node_info()));
      if (!sent) log_debug("pong to " + pending.peer + ": " + sent.error().message());
      return;
    }
    case ControlType::kGuestOpen: {
      Result<GuestOpen> open = decode_message<GuestOpen>(request.body);
      if (!open) return log_stranger(pending.peer, "asks to open a family: " + open.error().message());
      return away_.open(std::move(pending.fd), *open, pending.peer);
    }
    default:
      log_stranger(pending.peer, fmt::format("sends message {} where a request belongs", request.type));
  }
}

void NodeServer::drop(const std::shared_ptr<Pending>& pending) {
  if (pending->place == pending_.end()) return;
  if (pending->fd) context_.loop->forget(pending->fd.get());
  ready_.remove(pending);
  if (pending->deadline != 0) context_.loop->cancel(pending->deadline);
  std::shared_ptr<Pending> kept = pending;
  pending_.erase(kept->place);
  kept->place = pending_.end();
}

void NodeServer::log_stranger(const std::string& peer, const std::string& why) {
  int64_t now = steady_ms();
  if (now - log_window_ms_ > 10'000) {
    if (unlogged_ > 0) log_info(fmt::format("{} more connections refused", unlogged_));
    log_window_ms_ = now;
    logged_in_window_ = unlogged_ = 0;
  }
  if (++logged_in_window_ > kStrangerLines)
    ++unlogged_;
  else
    log_info(fmt::format("connection from {} refused: {}", peer, why));
}

}  // namespace mosix
