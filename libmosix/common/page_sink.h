// The pages of an image on their way in. The thread that reads a control connection puts them where they belong
// while they arrive, through one small buffer; the thread of the move only waits for the end of the image. A queue
// of messages between the two costs a page fault for every page of a fresh message, and a wake-up of the other
// processor for every message, which together took longer than everything else.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "libmosix/common/wire.h"

namespace mosix {

/// Where pages of one process go. Its owner asks for status() when the image has ended; any thread may call.
class PageSink {
 public:
  virtual ~PageSink() = default;
  /// A part of a PAGES message. After an error the rest is dropped.
  void take(uint64_t address, const uint8_t* data, size_t bytes);
  /// The first error.
  Status status();
  uint64_t bytes_taken();

 private:
  virtual Status put(uint64_t address, const uint8_t* data, size_t bytes) = 0;
  std::mutex mutex_;
  Status status_;
  uint64_t bytes_taken_ = 0;
};

/// The sink of a process, or null.
using SinkFinder = std::function<std::shared_ptr<PageSink>(int pid)>;

/// As receive_control(fd), but sound PAGES messages of processes that have a sink go there and are not returned.
/// `buffer` belongs to the reader, who keeps it from call to call: it grows to 256 KiB.
Result<ControlMessage> receive_control(int fd, const SinkFinder& sink_of, Bytes& buffer);

}  // namespace mosix
