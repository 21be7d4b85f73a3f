#include "deputy/page_stream.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "libmosix/common/limits.h"

namespace mosix {
namespace {

/// A control header and what comes before the bytes of a PageRun, as wire.h would encode them.
struct [[gnu::packed]] RunHead {
  uint32_t length;
  uint16_t type;
  uint16_t key_epoch;
  uint64_t nonce;
  int32_t pid;
  uint64_t address;
  uint32_t count;
};
static_assert(sizeof(RunHead) == 32);
constexpr uint32_t kRunPrefix = 16;  // pid, address, count

RunHead head_of(int pid, const RemoteRange& run) {
  auto bytes = static_cast<uint32_t>(run.bytes);
  return {kRunPrefix + bytes, static_cast<uint16_t>(ControlType::kPages), 0, 0, pid, run.address, bytes};
}

}  // namespace

Status PageSender::add(uint64_t address, uint64_t bytes) {
  while (bytes > 0) {
    if (buffer_.empty()) buffer_.resize(kBufferBytes);
    if (used_ == kBufferBytes || runs_.size() == kMaxRuns) TRY_VOID(flush());
    uint64_t part = std::min<uint64_t>(bytes, kBufferBytes - used_);
    bool goes_on = !runs_.empty() && runs_.back().address + runs_.back().bytes == address;
    if (goes_on)
      runs_.back().bytes += part;
    else
      runs_.push_back({address, part});
    used_ += part;
    address += part;
    bytes -= part;
  }
  return {};
}

Status PageSender::flush() {
  if (runs_.empty()) return {};
  // process_vm_readv keeps to the protection; what it cannot read may still be readable for a tracer.
  if (!read_ranges(memory_.pid(), runs_, buffer_.data())) read_one_by_one();
  Status sent = send_runs();
  runs_.clear();
  used_ = 0;
  return sent;
}

void PageSender::read_one_by_one() {
  std::vector<RemoteRange> readable;
  size_t to = 0;
  for (const RemoteRange& run : runs_) {
    for (uint64_t at = 0; at < run.bytes; at += kPageBytes) {
      // Pages move together in front; a page is read to where it will be sent from.
      if (!memory_.read(run.address + at, buffer_.data() + to, kPageBytes)) continue;
      to += kPageBytes;
      bool goes_on = !readable.empty() && readable.back().address + readable.back().bytes == run.address + at;
      if (goes_on)
        readable.back().bytes += kPageBytes;
      else
        readable.push_back({run.address + at, kPageBytes});
    }
  }
  runs_ = std::move(readable);
}

Status PageSender::send_runs() {
  // Reading page by page may have split the runs: as many messages as there are, some at a time.
  const uint8_t* data = buffer_.data();
  for (size_t first = 0; first < runs_.size(); first += kMaxRuns) {
    size_t count = std::min(kMaxRuns, runs_.size() - first);
    std::array<RunHead, kMaxRuns> heads;
    std::array<iovec, 2 * kMaxRuns> parts;
    for (size_t i = 0; i < count; ++i) {
      const RemoteRange& run = runs_[first + i];
      heads[i] = head_of(memory_.pid(), run);
      parts[2 * i] = {&heads[i], sizeof(RunHead)};
      parts[2 * i + 1] = {const_cast<uint8_t*>(data), run.bytes};
      data += run.bytes;
      bytes_sent_ += run.bytes;
    }
    TRY_VOID(node_.send_framed(parts.data(), static_cast<int>(2 * count)));
  }
  return {};
}

Result<ReceivedPages> parse_pages(const Bytes& body) {
  Decoder decoder(body.data(), body.size());
  int32_t pid = 0;
  uint32_t count = 0;
  ReceivedPages pages;
  decoder(pid), decoder(pages.address), decoder(count);
  bool sound = decoder.ok() && count == body.size() - kRunPrefix && count <= kPageRunBytes && count > 0 &&
               count % kPageBytes == 0 && pages.address % kPageBytes == 0;
  if (!sound) return fail(EBADMSG, "pages are garbled");
  pages.data = body.data() + kRunPrefix;
  pages.bytes = count;
  return pages;
}

std::vector<PageSpan> merge_spans(std::vector<PageSpan> spans) {
  std::sort(spans.begin(), spans.end(),
            [](const PageSpan& a, const PageSpan& b) { return a.address < b.address; });
  std::vector<PageSpan> merged;
  for (const PageSpan& span : spans) {
    if (merged.empty() || span.address > merged.back().address + merged.back().bytes()) {
      merged.push_back(span);
      continue;
    }
    uint64_t end = std::max(merged.back().address + merged.back().bytes(), span.address + span.bytes());
    merged.back().pages = (end - merged.back().address) / kPageBytes;
  }
  return merged;
}

std::vector<PageSpan> subtract_spans(const std::vector<PageSpan>& spans, const std::vector<PageSpan>& taken) {
  std::vector<PageSpan> left;
  auto next = taken.begin();
  for (const PageSpan& span : spans) {
    uint64_t at = span.address, end = span.address + span.bytes();
    while (next != taken.end() && next->address + next->bytes() <= at) ++next;
    for (auto cut = next; cut != taken.end() && cut->address < end && at < end; ++cut) {
      if (cut->address > at) left.push_back({at, (cut->address - at) / kPageBytes});
      at = std::max(at, cut->address + cut->bytes());
    }
    if (at < end) left.push_back({at, (end - at) / kPageBytes});
  }
  return left;
}

}  // namespace mosix
