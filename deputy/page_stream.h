// Pages of a process on their way to and from an away node. Home side, in the thread of the move.
//
// Pages are gathered into one buffer by process_vm_readv (many ranges a call) and leave in one sendmsg, each
// run as a control message of its own: no copy but the one out of the process and the one into the socket.
#pragma once

#include <vector>

#include "deputy/away_node.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/pagemap.h"

namespace mosix {

class PageSender {
 public:
  PageSender(AwayNode& node, const ProcessMemory& memory) : node_(node), memory_(memory) {}
  /// Page-aligned. Pages that cannot be read (beyond the end of a file) are left out.
  Status add(uint64_t address, uint64_t bytes);
  Status flush();
  uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  static constexpr size_t kBufferBytes = 1 << 20;
  static constexpr size_t kMaxRuns = 256;
  void read_one_by_one();
  Status send_runs();

  AwayNode& node_;
  const ProcessMemory& memory_;
  std::vector<uint8_t> buffer_;
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

/// Sorted and merged.
std::vector<PageSpan> merge_spans(std::vector<PageSpan> spans);
/// What of `spans` is not in `taken`; both sorted and merged.
std::vector<PageSpan> subtract_spans(const std::vector<PageSpan>& spans, const std::vector<PageSpan>& taken);

}  // namespace mosix
