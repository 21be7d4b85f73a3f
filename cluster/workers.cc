#include "cluster/workers.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace mosix {

struct Workers::Shared {
  std::mutex lock;
  std::condition_variable ended;
  int running = 0;
};

namespace {

/// getaddrinfo's modules are the deepest that runs in a worker; sanitizers multiply it.
constexpr size_t kWorkerStackBytes = 1 << 20;

struct Start {
  std::function<void()> job;
  std::function<void()> done;
};

void* worker_main(void* argument) {
  std::unique_ptr<Start> start(static_cast<Start*>(argument));
  start->job();
  start->job = nullptr;  // what it captured is gone before the thread counts as ended
  start->done();
  return nullptr;
}

}  // namespace

Workers::Workers() : shared_(std::make_shared<Shared>()) {}
Workers::~Workers() = default;

bool Workers::start(std::function<void()> job) {
  {
    std::lock_guard hold(shared_->lock);
    if (shared_->running >= kMaxWorkers) return false;
    ++shared_->running;
  }
  auto ended = [shared = shared_] {
    std::lock_guard hold(shared->lock);
    --shared->running;
    shared->ended.notify_all();
  };
  auto start = std::make_unique<Start>(Start{std::move(job), ended});
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kWorkerStackBytes);
  pthread_t thread;
  int rc = pthread_create(&thread, &attributes, worker_main, start.get());
  pthread_attr_destroy(&attributes);
  if (rc != 0) {
    ended();
    return false;
  }
  [[maybe_unused]] Start* given = start.release();
  return true;
}

bool Workers::wait_idle(int limit_ms) {
  std::unique_lock hold(shared_->lock);
  return shared_->ended.wait_for(hold, std::chrono::milliseconds(limit_ms),
                                 [this] { return shared_->running == 0; });
}

}  // namespace mosix
