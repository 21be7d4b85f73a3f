// What a supervisor says to the operation that is moving one process: filled by the reader of the control
// connection, emptied by the operation's thread. Bounded, so that pages arrive no faster than they are
// written: the reader waits, and with it the connection.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "libmosix/common/messages.h"
#include "libmosix/common/page_sink.h"

namespace mosix {

/// Messages that wait take at most this, plus one message.
inline constexpr size_t kMailboxBytes = 4 << 20;

class Mailbox {
 public:
  /// `node`: who fills it, for what people are told of its silence.
  explicit Mailbox(std::string node = "the node") : node_(std::move(node)) {}
  /// From the reader's thread; waits while it is full. After close() messages are dropped.
  void post(ControlMessage message);
  /// ETIMEDOUT, or what close() was given once it is empty.
  Result<ControlMessage> take(int timeout_ms);
  void close(Error why);
  /// From now on pages go to `sink` and are not posted; null ends that.
  void put_pages_into(std::shared_ptr<PageSink> sink);
  std::shared_ptr<PageSink> sink();

 private:
  const std::string node_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ControlMessage> messages_;
  size_t bytes_ = 0;
  std::optional<Error> closed_;
  std::shared_ptr<PageSink> sink_;
};

/// The next message, which must be of this type. kFailed and kRefuse become the error they carry.
Result<ControlMessage> expect_message(Mailbox& box, ControlType type, int timeout_ms);

/// The same of a message that has come.
Status is_message(const ControlMessage& message, ControlType type);

template <class M>
Result<M> expect(Mailbox& box, ControlType type, int timeout_ms) {
  TRY(ControlMessage message, expect_message(box, type, timeout_ms));
  return decode_message<M>(message.body);
}

}  // namespace mosix
