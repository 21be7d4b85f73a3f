// Connections of deputies: accepting them, and listening to those whose guest threads are not in a call.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <utility>

#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "libmosix/common/net.h"
#include "remote/image_queue.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int kHelloLimitMs = 5000;
constexpr int kMostLooks = 3;  ///< at a direct call, before it is taken for one that lasts
constexpr int kRestTag = -1;   ///< in place of a thread's number

std::string token_text(const uint8_t (&token)[16]) {
  return std::string(reinterpret_cast<const char*>(token), sizeof token);
}

}  // namespace

Status Supervisor::start_listening() {
  // On the address that home reached us at: deputies come the same way.
  TRY(listen_fd_, listen_tcp(local_address(options_.control_fd), 0));
  epoll_fd_.reset(epoll_create1(EPOLL_CLOEXEC));
  rest_fd_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_fd_ || !rest_fd_) return fail_errno("epoll_create1");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = kRestTag;
  epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, rest_fd_.get(), &event);
  std::thread([this] { accept_channels(); }).detach();
  std::thread([this] { watch_channels(); }).detach();
  return {};
}

void Supervisor::accept_channels() {
  for (;;) {
    int fd = accept4(listen_fd_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE) continue;
      return;
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    // The hello is in the first packet as a rule; a stranger who says nothing holds up nobody but himself.
    std::thread([this, fd] { welcome_connection(UniqueFd(fd)); }).detach();
  }
}

void Supervisor::welcome_connection(UniqueFd fd) {
  struct __attribute__((packed)) {
    FrameHeader header;
    HelloBody body;
  } hello{};
  set_receive_timeout(fd.get(), kHelloLimitMs);
  if (!receive_exactly(fd.get(), &hello, sizeof hello)) return;
  set_receive_timeout(fd.get(), 0);
  uint8_t token[16];
  memcpy(token, hello.body.token, sizeof token);
  std::lock_guard lock(hello_mutex_);
  if (hello.header.length != sizeof hello.body || !expected_tokens_.contains(token_text(token))) {
    log_info("a connection without a valid token was refused");
    return;
  }
  if (hello.header.type == static_cast<uint16_t>(FrameType::kImage)) {
    std::shared_lock registry(registry_mutex_);
    const int pid = hello.body.pid;  // a copy: the struct is packed
    auto queue = image_queues_.find(pid);
    end_when_silent(fd.get());  // its sender may vanish in the middle of it
    if (queue != image_queues_.end()) queue->second->give_socket(std::move(fd));
    return;
  }
  if (hello.header.type != static_cast<uint16_t>(FrameType::kHello)) return;
  hellos_.emplace(token_text(token), Hello{.tid = hello.body.tid, .fd = std::move(fd)});
  hello_changed_.notify_all();
}

void Supervisor::expect_hello(const uint8_t (&token)[16]) {
  std::lock_guard lock(hello_mutex_);
  expected_tokens_.insert(token_text(token));
}

void Supervisor::forget_hello(const uint8_t (&token)[16]) {
  std::lock_guard lock(hello_mutex_);
  expected_tokens_.erase(token_text(token));
  hellos_.erase(token_text(token));
}

Result<UniqueFd> Supervisor::wait_for_hello(const uint8_t (&token)[16], int tid, uint32_t signals_acked,
                                            int limit_ms) {
  UniqueFd fd;
  {
    std::unique_lock lock(hello_mutex_);
    auto found = hellos_.end();
    auto look = [&] {
      auto [first, last] = hellos_.equal_range(token_text(token));
      for (found = first; found != last; ++found)
        if (found->second.tid == tid) return true;
      found = hellos_.end();
      return false;
    };
    if (!hello_changed_.wait_for(lock, std::chrono::milliseconds(limit_ms), look))
      return fail(ETIMEDOUT, "deputy thread " + std::to_string(tid) + " did not connect");
    fd = std::move(found->second.fd);
    hellos_.erase(found);
  }
  FrameHeader welcome{};
  welcome.type = static_cast<uint16_t>(FrameType::kWelcome);
  welcome.signals_acked = signals_acked;
  TRY_VOID(send_fully(fd.get(), &welcome, sizeof welcome));
  return fd;
}

void Supervisor::watch(GuestThread& thread) {
  thread.watched = true;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
  event.data.fd = thread.outer_tid;
  if (epoll_ctl(epoll_fd_.get(), EPOLL_CTL_MOD, thread.channel.get(), &event) != 0 && errno == ENOENT)
    epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, thread.channel.get(), &event);
}

void Supervisor::unwatch(GuestThread& thread) {
  if (!std::exchange(thread.watched, false)) return;
  epoll_event event{};
  event.data.fd = thread.outer_tid;
  epoll_ctl(epoll_fd_.get(), EPOLL_CTL_MOD, thread.channel.get(), &event);
}

/// A thread that has just left a call usually makes the next one soon; telling epoll of it each time would cost
/// two calls for each of its own. So it is watched only when it has stayed away for a moment. A signal that could
/// not be given when it was heard of (it came behind a reply, or somebody had the thread under ptrace) waits there
/// too, for the thread may never make another call. GuestThread::mutex must be held.
void Supervisor::rest(const std::shared_ptr<GuestThread>& thread) {
  ++thread->calls;
  DirectPath* direct = thread->direct;
  const Guest& guest = *thread->guest;
  bool may_go_directly = direct != nullptr && !guest.freezing && !guest.traced && !guest.no_direct &&
                         !guest.has_bound_descriptor && !guest.has_proc_descriptor && !thread->ended &&
                         !thread->watched && !thread->has_signal() && thread->inbox.empty();
  if (may_go_directly) direct->open(thread->signals_received);
  if (std::exchange(thread->resting, true)) return;
  std::lock_guard lock(rest_mutex_);
  at_rest_.push_back(thread);
  if (at_rest_.size() == 1) eventfd_write(rest_fd_.get(), 1);
}

void Supervisor::watch_those_at_rest() {
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(rest_mutex_);
    threads.swap(at_rest_);
  }
  std::erase_if(threads, [this](const std::shared_ptr<GuestThread>& thread) {
    {
      std::unique_lock lock(thread->mutex);
      DirectPath* direct = thread->direct;
      uint32_t calls = thread->calls + (direct != nullptr ? direct->calls() : 0);
      bool same = calls == std::exchange(thread->calls_seen, calls);
      // In a call that lasts: whoever serves it brings the thread back here.
      if (thread->in_call && same) {
        thread->resting = false;
        return true;
      }
      bool quiet = !thread->in_call && !thread->watcher_busy && same && !thread->guest->freezing;
      if (!quiet) thread->looks = 0;
      if (!quiet && !thread->ended) return false;
      if (!thread->ended && direct != nullptr && !direct->close_if_idle()) {
        // In a direct call that lasts: others know better how to wait.
        bool lasts = direct->in_call() && ++thread->looks >= kMostLooks;
        std::unique_lock tracing(thread->tracer_mutex, std::defer_lock);
        lock.unlock();
        if (lasts && tracing.try_lock()) kick_direct(*thread);
        return false;
      }
      if (thread->ended || !thread->has_signal()) {
        thread->resting = false;
        if (!thread->ended) watch(*thread);
        return true;
      }
      thread->watcher_busy = true;
    }
    deliver_to_computing(*thread);
    std::lock_guard lock(thread->mutex);
    thread->watcher_busy = false;
    thread->changed.notify_all();
    return false;
  });
  std::lock_guard lock(rest_mutex_);
  at_rest_.insert(at_rest_.end(), threads.begin(), threads.end());
}

void Supervisor::watch_channels() {
  constexpr int kRestMs = 2;
  int turns = 0;
  for (;;) {
    int limit_ms;
    {
      std::lock_guard lock(rest_mutex_);
      limit_ms = at_rest_.empty() ? -1 : kRestMs;
    }
    epoll_event events[16];
    int n = epoll_wait(epoll_fd_.get(), events, 16, limit_ms);
    if (n < 0 && errno != EINTR) return;
    uint64_t wakes;
    for (int i = 0; i < n; ++i) {
      if (events[i].data.fd == kRestTag)
        eventfd_read(rest_fd_.get(), &wakes);
      else if (std::shared_ptr<GuestThread> thread = find_thread(events[i].data.fd))
        serve_idle_channel(thread);
    }
    // After a pause, for whoever comes straight back into a call is not worth the trouble; but other guests'
    // traffic must not put it off for ever.
    constexpr int kMostTurns = 32;
    if (n > 0 && ++turns < kMostTurns) continue;
    turns = 0;
    watch_those_at_rest();
  }
}

void Supervisor::serve_idle_channel(const std::shared_ptr<GuestThread>& thread) {
  {
    std::lock_guard lock(thread->mutex);
    // A freeze takes the channel's state along as it is; what is unread, home offers again.
    if (thread->in_call || thread->watcher_busy || thread->ended || thread->guest->freezing) return;
    // One shot. Whoever has unwatched it meanwhile has also read what there was.
    if (!std::exchange(thread->watched, false)) return;
    if (DirectPath* direct = thread->direct; direct != nullptr && !direct->close_if_idle())
      return rest(thread);
    thread->watcher_busy = true;
  }
  std::shared_ptr<Guest> guest = thread->guest;
  Result<Frame> frame = receive_frame(thread->channel.get(), thread->inbox);
  Status noted = frame ? note_signal_frame(*thread, *frame) : Status(fail(frame.error()));
  if (noted) noted = drain_inbox(*thread);
  if (noted) deliver_to_computing(*thread);
  {
    std::lock_guard lock(thread->mutex);
    thread->watcher_busy = false;
    thread->changed.notify_all();
    if (noted && !thread->ended) thread->has_signal() ? rest(thread) : watch(*thread);
  }
  if (noted || guest->freezing || guest->ended) return;
  if (noted.error().code != EPIPE)
    log_error("channel of guest " + std::to_string(guest->pid) + ": " + noted.error().message());
  // The deputy has ended, and the guest with it.
  drop_guest(guest);
}

}  // namespace mosix
