#include "cluster/control_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libmosix/common/log.h"
#include "libmosix/common/net.h"

namespace mosix {
namespace {
constexpr int kAcceptsPerTurn = 32;
}

struct ControlServer::Client {
  ControlPeer peer;
  UniqueFd fd;
  std::string in, out;
  bool busy = false;     ///< a request is at work
  bool no_more = false;  ///< nothing will be read any more: half-closed, or cut off after an error
  uint64_t lost = 0;     ///< events dropped since the last that was sent
};

ControlServer::ControlServer(Context& context, Handler handler, Closed closed)
    : context_(context), handler_(std::move(handler)), closed_(std::move(closed)) {}

ControlServer::~ControlServer() {
  stop_accepting();
  while (!clients_.empty()) close(clients_.begin()->first);
}

Status ControlServer::start(const std::string& path) {
  // Root serves every user of the machine, an ordinary user's mosixd that user alone.
  unsigned mode = geteuid() == 0 ? 0666 : 0600;
  std::string early = path + ".new";
  TRY(listener_, listen_unix(early, mode));
  fcntl(listener_.get(), F_SETFL, O_NONBLOCK);
  TRY_VOID(context_.loop->watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept_some(); }));
  if (rename(early.c_str(), path.c_str()) != 0) return fail_errno("control socket " + path);
  path_ = path;
  return {};
}

void ControlServer::stop_accepting() {
  if (!listener_) return;
  if (!path_.empty()) ::unlink(path_.c_str());
  context_.loop->forget(listener_.get());
  listener_.reset();
}

void ControlServer::accept_some() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) pause_accepting();
      return;
    }
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) continue;
    auto client = std::make_unique<Client>();
    client->peer = {next_client_++, peer.pid, peer.uid};
    client->fd = std::move(fd);
    Client& added = *client;
    uint64_t id = added.peer.client;
    Status watched =
        context_.loop->watch(added.fd.get(), EPOLLIN, [this, id](uint32_t events) { handle(id, events); });
    if (!watched) continue;
    clients_[id] = std::move(client);
    if (clients_.size() <= kMaxControlClients) continue;
    added.no_more = true;
    write(added, to_line(failure(EBUSY, fmt::format("mosixd serves {} tools already", kMaxControlClients))));
    if (clients_.count(id) != 0) close(id);
  }
}

/// Out of descriptors or memory: the listening socket stays readable, so look away for a moment.
void ControlServer::pause_accepting() {
  log_error("control socket: accept: " + std::string(strerror(errno)) + ", trying again shortly");
  context_.loop->change(listener_.get(), 0);
  context_.loop->after(200, [this] {
    if (listener_) context_.loop->change(listener_.get(), EPOLLIN);
  });
}

void ControlServer::handle(uint64_t id, uint32_t events) {
  auto at = clients_.find(id);
  if (at == clients_.end()) return;
  Client& client = *at->second;
  if ((events & EPOLLOUT) != 0) flush(client);
  // A tool that sent an order and left is read to the end first: the order was given.
  if ((events & EPOLLIN) != 0 && !read_some(client)) return close(id);
  if ((events & EPOLLIN) == 0 && (events & (EPOLLHUP | EPOLLERR)) != 0) return close(id);
  if (clients_.count(id) != 0) serve_next(id);
}

/// False: the connection is of no more use.
bool ControlServer::read_some(Client& client) {
  if (client.no_more) return true;
  char bytes[16384];
  ssize_t got = recv(client.fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) {
    // A tool that has sent its requests and closed that half still wants its answers; one that waits for
    // nothing has gone.
    client.no_more = true;
    watch_for(client);
    return client.busy || !client.out.empty() || client.in.find('\n') != std::string::npos;
  }
  client.in.append(bytes, static_cast<size_t>(got));
  if (client.in.size() > kMaxRequestBytes && client.in.find('\n') > kMaxRequestBytes) {
    client.no_more = true;
    client.in.clear();
    write(client,
          to_line(failure(EMSGSIZE, fmt::format("a request is longer than {} bytes", kMaxRequestBytes))));
  }
  watch_for(client);
  return true;
}

void ControlServer::serve_next(uint64_t id) {
  for (;;) {
    auto at = clients_.find(id);
    if (at == clients_.end()) return;
    Client& client = *at->second;
    size_t end = client.in.find('\n');
    if (client.busy || end == std::string::npos) {
      if (client.no_more && !client.busy && client.out.empty()) close(id);
      return;
    }
    std::string line = client.in.substr(0, end);
    client.in.erase(0, end + 1);
    watch_for(client);
    if (line.empty()) continue;
    client.busy = true;
    Json request = parse_object(line);
    ControlPeer peer = client.peer;
    if (request.is_null())
      answered(id, failure(EINVAL, "the request is not a JSON object on one line"));
    else
      handler_(peer, request, [this, id](const Json& reply) { answered(id, reply); });
  }
}

void ControlServer::answered(uint64_t id, const Json& reply) {
  auto at = clients_.find(id);
  if (at == clients_.end()) return;
  at->second->busy = false;
  write(*at->second, to_line(reply));
  // What waits behind it is served from the loop, not from inside whoever answered.
  context_.loop->post([this, id] { serve_next(id); });
}

void ControlServer::stream(uint64_t id, const Json& event) {
  auto at = clients_.find(id);
  if (at == clients_.end()) return;
  Client& client = *at->second;
  if (client.out.size() > kMaxUnreadBytes) {
    ++client.lost;
    return;
  }
  if (client.lost > 0)
    write(client, to_line(Json{{"event", "lost"}, {"count", std::exchange(client.lost, 0)}}));
  write(client, to_line(event));
}

void ControlServer::write(Client& client, const std::string& line) {
  client.out += line;
  client.out += '\n';
  flush(client);
}

void ControlServer::flush(Client& client) {
  size_t sent = 0;
  while (sent < client.out.size()) {
    ssize_t n = send(client.fd.get(), client.out.data() + sent, client.out.size() - sent,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // full, or gone, which epoll tells
    sent += static_cast<size_t>(n);
  }
  client.out.erase(0, sent);
  watch_for(client);
}

void ControlServer::watch_for(Client& client) {
  bool room = client.in.size() <= kMaxRequestBytes;
  uint32_t events = client.out.empty() ? 0U : static_cast<uint32_t>(EPOLLOUT);
  if (room && !client.no_more) events |= EPOLLIN;
  context_.loop->change(client.fd.get(), events);
}

void ControlServer::close(uint64_t id) {
  auto at = clients_.find(id);
  if (at == clients_.end()) return;
  context_.loop->forget(at->second->fd.get());
  clients_.erase(at);
  closed_(id);
}

}  // namespace mosix
