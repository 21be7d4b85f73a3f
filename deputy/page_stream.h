// Pages of a process on their way to and from an away node. Home side, in the thread of the move.
//
// Pages are gathered into one buffer by process_vm_readv (many ranges a call) and leave in one sendmsg, each
// run as a control message of its own: no copy but the one out of the process and the one into the socket.
#pragma once

#include <vector>

#include "deputy/away_node.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/page_sink.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/pagemap.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

class PageSender {
 public:
  /// `buffer` may be made beforehand, so that its own pages are there when the process stands still.
  PageSender(AwayNode& node, const ProcessMemory& memory, std::vector<uint8_t>& buffer)
      : node_(node), memory_(memory), buffer_(buffer) {}
  /// Page-aligned. Pages that cannot be read (beyond the end of a file) are left out.
  Status add(uint64_t address, uint64_t bytes);
  Status flush();
  uint64_t bytes_sent() const { return bytes_sent_; }
  /// Small enough to be sent out of the cache that it was read into.
  static constexpr size_t kBufferBytes = 256 << 10;

 private:
  static constexpr size_t kMaxRuns = 256;
  void read_one_by_one();
  Status send_runs();

  AwayNode& node_;
  const ProcessMemory& memory_;
  std::vector<uint8_t>& buffer_;
  std::vector<RemoteRange> runs_;
  size_t used_ = 0;
  uint64_t bytes_sent_ = 0;
};

/// What a file holds where `area` maps it: for a node that has not seen this file yet. The file is found by
/// the process's own path; ESTALE if another lies there now, or it cannot be read.
Result<uint64_t> send_file_pages(AwayNode& node, int pid, const Area& area);

/// One kPages message taken apart without a copy.
struct ReceivedPages {
  uint64_t address = 0;
  const uint8_t* data = nullptr;
  uint64_t bytes = 0;
};
Result<ReceivedPages> parse_pages(const Bytes& body);

/// The pages of a guest that comes home, put into the process that was its deputy.
class HomeSink : public PageSink {
 public:
  /// `areas` of the guest, sorted; `shared`: those of them that it shares.
  HomeSink(ProcessMemory memory, std::vector<Area> areas, SharedRanges shared)
      : memory_(std::move(memory)), areas_(std::move(areas)), shared_(std::move(shared)) {}
  /// What has come, sorted and merged. Once the image has ended.
  std::vector<PageSpan> received() const;

 private:
  Status put(uint64_t address, const uint8_t* data, size_t bytes) override;
  bool belongs_to_guest(uint64_t start, uint64_t end) const;

  ProcessMemory memory_;
  std::vector<Area> areas_;
  SharedRanges shared_;
  std::vector<PageSpan> received_;
};

}  // namespace mosix
