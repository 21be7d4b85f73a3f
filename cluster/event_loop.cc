#include "cluster/event_loop.h"

#include <sys/eventfd.h>
#include <time.h>

#include <algorithm>

namespace mosix {

int64_t steady_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

double wall_seconds() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec / 1000000) / 1000.0;
}

Result<std::shared_ptr<EventLoop>> EventLoop::create() {
  std::shared_ptr<EventLoop> loop(new EventLoop);
  loop->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return fail_errno("epoll_create1");
  loop->door_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->door_) return fail_errno("eventfd");
  EventLoop* self = loop.get();
  TRY_VOID(loop->watch(loop->door_.get(), EPOLLIN, [self](uint32_t) { self->run_posted(); }));
  return loop;
}

Status EventLoop::watch(int fd, uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = next_serial_;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("epoll_ctl");
  watches_[next_serial_] = std::make_shared<Watch>(Watch{fd, std::move(handler)});
  serial_of_fd_[fd] = next_serial_++;
  return {};
}

void EventLoop::change(int fd, uint32_t events) {
  auto at = serial_of_fd_.find(fd);
  if (at == serial_of_fd_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = at->second;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::forget(int fd) {
  auto at = serial_of_fd_.find(fd);
  if (at == serial_of_fd_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watches_.erase(at->second);
  serial_of_fd_.erase(at);
}

EventLoop::TimerId EventLoop::after(int delay_ms, Action action) {
  TimerId id = next_timer_++;
  int64_t due = steady_ms() + delay_ms;
  timers_.emplace(std::pair(due, id), std::move(action));
  due_of_timer_[id] = due;
  return id;
}

void EventLoop::cancel(TimerId id) {
  auto at = due_of_timer_.find(id);
  if (at == due_of_timer_.end()) return;
  timers_.erase({at->second, id});
  due_of_timer_.erase(at);
}

void EventLoop::post(Action action) {
  {
    std::lock_guard hold(posted_lock_);
    posted_.push_back(std::move(action));
  }
  uint64_t one = 1;
  // Full means that the loop has a wake-up pending anyway.
  [[maybe_unused]] ssize_t written = ::write(door_.get(), &one, sizeof one);
}

void EventLoop::run_posted() {
  uint64_t count;
  [[maybe_unused]] ssize_t got = ::read(door_.get(), &count, sizeof count);
  std::vector<Action> actions;
  {
    std::lock_guard hold(posted_lock_);
    actions.swap(posted_);
  }
  for (Action& action : actions) action();
}

void EventLoop::run_due_timers() {
  int64_t now = steady_ms();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto first = timers_.begin();
    Action action = std::move(first->second);
    due_of_timer_.erase(first->first.second);
    timers_.erase(first);
    action();
  }
}

int EventLoop::wait_limit_ms() const {
  if (timers_.empty()) return -1;
  return static_cast<int>(std::clamp<int64_t>(timers_.begin()->first.first - steady_ms(), 0, 3600'000));
}

void EventLoop::run() {
  epoll_event events[64];
  while (!stopped_) {
    int count = epoll_wait(epoll_.get(), events, 64, wait_limit_ms());
    for (int i = 0; i < count && !stopped_; ++i) {
      const uint64_t serial = events[i].data.u64;  // a copy: the kernel's struct is packed
      auto at = watches_.find(serial);
      if (at == watches_.end()) continue;
      std::shared_ptr<Watch> kept = at->second;  // the handler may forget itself
      kept->handler(events[i].events);
    }
    run_due_timers();
  }
}

}  // namespace mosix
