// How the thread that rebuilds or has frozen a process hears of it: messages about that process from the control
// connection, bounded, and perhaps a connection from another supervisor that brings the image.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "libmosix/common/page_sink.h"
#include "remote/supervisor.h"

namespace mosix {

struct Supervisor::ImageQueue {
  /// Waits while more than kMaxQueuedBytes are queued, so that memory here stays small however fast home sends.
  void push(ControlMessage message);
  /// ETIMEDOUT after `limit_ms`; ECONNRESET when the control connection has ended.
  Result<ControlMessage> pop(int limit_ms);
  void give_socket(UniqueFd fd);
  /// Waits for the first message or for a socket; true if there is a socket.
  Result<bool> wait_for_image(int limit_ms);
  UniqueFd take_socket();
  void put_pages_into(std::shared_ptr<PageSink> sink);
  std::shared_ptr<PageSink> sink();
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ControlMessage> messages_;
  size_t queued_bytes_ = 0;
  UniqueFd socket_;
  std::shared_ptr<PageSink> sink_;
  bool closed_ = false;
};

/// An image over the control connection.
class Supervisor::QueueConnection : public ImageConnection {
 public:
  QueueConnection(Supervisor& supervisor, std::shared_ptr<ImageQueue> queue)
      : supervisor_(supervisor), queue_(std::move(queue)) {}
  Status send(ControlType type, const Bytes& body) override { return supervisor_.send_control(type, body); }
  Status send_pages(ControlType type, const PageRun& head, const void* data, size_t bytes) override;
  Result<ControlMessage> receive() override;
  void put_pages_into(std::shared_ptr<PageSink> sink) override { queue_->put_pages_into(std::move(sink)); }

 private:
  Supervisor& supervisor_;
  std::shared_ptr<ImageQueue> queue_;
};

/// An image between two supervisors.
class Supervisor::SocketConnection : public ImageConnection {
 public:
  explicit SocketConnection(UniqueFd fd) : fd_(std::move(fd)) {}
  Status send(ControlType type, const Bytes& body) override;
  Status send_pages(ControlType type, const PageRun& head, const void* data, size_t bytes) override;
  Result<ControlMessage> receive() override {
    return receive_control(
        fd_.get(), [this](int) { return sink_; }, buffer_);
  }
  void put_pages_into(std::shared_ptr<PageSink> sink) override { sink_ = std::move(sink); }

 private:
  UniqueFd fd_;
  std::shared_ptr<PageSink> sink_;
  Bytes buffer_;
};

/// One page message written straight from the pages' buffer.
Status write_page_message(int fd, ControlType type, const PageRun& head, const void* data, size_t bytes);

}  // namespace mosix
