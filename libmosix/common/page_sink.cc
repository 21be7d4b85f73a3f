#include "libmosix/common/page_sink.h"

#include <algorithm>

#include "libmosix/common/limits.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/net.h"

namespace mosix {
namespace {

constexpr uint32_t kPrefixBytes = 16;  // of a PageRun: pid, address, count
constexpr uint64_t kPageBytes = 4096;
/// Stays in a processor's own cache between the socket and the process.
constexpr size_t kPieceBytes = 256 << 10;

Status inside_message(Status received) {
  if (received || received.error().code != EPIPE) return received;
  return fail(EBADMSG, "control message cut off");
}

}  // namespace

void PageSink::take(uint64_t address, const uint8_t* data, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (!status_) return;
  status_ = put(address, data, bytes);
  bytes_taken_ += bytes;
}

Status PageSink::status() {
  std::lock_guard lock(mutex_);
  return status_;
}

uint64_t PageSink::bytes_taken() {
  std::lock_guard lock(mutex_);
  return bytes_taken_;
}

Result<ControlMessage> receive_control(int fd, const SinkFinder& sink_of, Bytes& buffer) {
  for (;;) {
    TRY(ControlHeader header, receive_control_header(fd));
    if (header.type != static_cast<uint16_t>(ControlType::kPages) || header.length <= kPrefixBytes)
      return receive_control_body(fd, header, {});
    Bytes prefix(kPrefixBytes);
    TRY_VOID(inside_message(receive_exactly(fd, prefix.data(), prefix.size())));
    int32_t pid = 0;
    uint64_t address = 0;
    uint32_t count = 0;
    Decoder decoder(prefix.data(), prefix.size());
    decoder(pid), decoder(address), decoder(count);
    bool sound = count == header.length - kPrefixBytes && count <= kPageRunBytes && count % kPageBytes == 0 &&
                 address % kPageBytes == 0;
    std::shared_ptr<PageSink> sink = sound ? sink_of(pid) : nullptr;
    if (sink == nullptr) return receive_control_body(fd, header, std::move(prefix));
    if (buffer.empty()) buffer.resize(kPieceBytes);
    for (uint32_t at = 0; at < count;) {
      auto part = static_cast<uint32_t>(std::min<size_t>(count - at, kPieceBytes));
      TRY_VOID(inside_message(receive_exactly(fd, buffer.data(), part)));
      sink->take(address + at, buffer.data(), part);
      at += part;
    }
  }
}

}  // namespace mosix
