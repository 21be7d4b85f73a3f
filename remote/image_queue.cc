#include "remote/image_queue.h"

#include "libmosix/common/limits.h"
#include "libmosix/common/net.h"

namespace mosix {
namespace {
constexpr size_t kMaxQueuedBytes = 2 * kPageRunBytes;
}

void Supervisor::ImageQueue::push(ControlMessage message) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return closed_ || queued_bytes_ <= kMaxQueuedBytes; });
  if (closed_) return;
  queued_bytes_ += message.body.size();
  messages_.push_back(std::move(message));
  changed_.notify_all();
}

Result<ControlMessage> Supervisor::ImageQueue::pop(int limit_ms) {
  std::unique_lock lock(mutex_);
  auto ready = [&] { return closed_ || !messages_.empty(); };
  if (limit_ms < 0)
    changed_.wait(lock, ready);
  else if (!changed_.wait_for(lock, std::chrono::milliseconds(limit_ms), ready))
    return fail(ETIMEDOUT, "no word from home");
  if (messages_.empty()) return fail(ECONNRESET, "the connection to home has ended");
  ControlMessage message = std::move(messages_.front());
  messages_.pop_front();
  queued_bytes_ -= message.body.size();
  changed_.notify_all();
  return message;
}

void Supervisor::ImageQueue::give_socket(UniqueFd fd) {
  std::lock_guard lock(mutex_);
  socket_ = std::move(fd);
  changed_.notify_all();
}

Result<bool> Supervisor::ImageQueue::wait_for_image(int limit_ms) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::milliseconds(limit_ms),
                         [&] { return closed_ || socket_ || !messages_.empty(); }))
    return fail(ETIMEDOUT, "no image came");
  if (closed_) return fail(ECONNRESET, "the connection to home has ended");
  return static_cast<bool>(socket_);
}

UniqueFd Supervisor::ImageQueue::take_socket() {
  std::lock_guard lock(mutex_);
  return std::move(socket_);
}

void Supervisor::ImageQueue::put_pages_into(std::shared_ptr<PageSink> sink) {
  std::lock_guard lock(mutex_);
  sink_ = std::move(sink);
}

std::shared_ptr<PageSink> Supervisor::ImageQueue::sink() {
  std::lock_guard lock(mutex_);
  return closed_ ? nullptr : sink_;
}

void Supervisor::ImageQueue::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

Status write_page_message(int fd, ControlType type, const PageRun& head, const void* data, size_t bytes) {
  Encoder prefix;
  prefix(head.pid), prefix(head.address), prefix(static_cast<uint32_t>(bytes));
  Bytes prefix_bytes = prefix.take();
  ControlHeader header{.length = static_cast<uint32_t>(prefix_bytes.size() + bytes),
                       .type = static_cast<uint16_t>(type)};
  Bytes header_bytes = encode_message(header);
  iovec parts[3] = {{header_bytes.data(), header_bytes.size()},
                    {prefix_bytes.data(), prefix_bytes.size()},
                    {const_cast<void*>(data), bytes}};
  return send_fully(fd, parts, 3);
}

Status Supervisor::QueueConnection::send_pages(ControlType type, const PageRun& head, const void* data,
                                               size_t bytes) {
  std::lock_guard lock(supervisor_.control_mutex_);
  return write_page_message(supervisor_.options_.control_fd, type, head, data, bytes);
}

/// Pages that go to the sink are no messages, but they are a sign of life.
Result<ControlMessage> Supervisor::QueueConnection::receive() {
  for (uint64_t taken = 0;;) {
    Result<ControlMessage> message = queue_->pop(kStageTimeoutMs);
    if (message || message.error().code != ETIMEDOUT) return message;
    std::shared_ptr<PageSink> sink = queue_->sink();
    if (sink == nullptr || sink->bytes_taken() == taken) return message;
    taken = sink->bytes_taken();
  }
}

Status Supervisor::SocketConnection::send(ControlType type, const Bytes& body) {
  return mosix::send_control(fd_.get(), static_cast<uint16_t>(type), body);
}

Status Supervisor::SocketConnection::send_pages(ControlType type, const PageRun& head, const void* data,
                                                size_t bytes) {
  return write_page_message(fd_.get(), type, head, data, bytes);
}

std::shared_ptr<Supervisor::ImageQueue> Supervisor::open_queue(int pid) {
  auto queue = std::make_shared<ImageQueue>();
  std::unique_lock lock(registry_mutex_);
  image_queues_[pid] = queue;
  return queue;
}

void Supervisor::close_queue(int pid, const std::shared_ptr<ImageQueue>& queue) {
  // The reader of the control connection may be waiting for room in it.
  queue->close();
  std::unique_lock lock(registry_mutex_);
  auto found = image_queues_.find(pid);
  if (found != image_queues_.end() && found->second == queue) image_queues_.erase(found);
}

std::shared_ptr<PageSink> Supervisor::sink_of(int pid) {
  std::shared_lock lock(registry_mutex_);
  auto found = image_queues_.find(pid);
  return found == image_queues_.end() ? nullptr : found->second->sink();
}

bool Supervisor::queue_message(int pid, ControlMessage& message) {
  std::shared_ptr<ImageQueue> queue;
  {
    std::shared_lock lock(registry_mutex_);
    auto found = image_queues_.find(pid);
    if (found == image_queues_.end()) return false;
    queue = found->second;
  }
  queue->push(std::move(message));
  return true;
}

}  // namespace mosix
