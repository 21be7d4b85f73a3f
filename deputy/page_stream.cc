#include "deputy/page_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "libmosix/common/limits.h"
#include "libmosix/process/proc_stat.h"

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

RunHead head_of(ControlType type, int pid, const RemoteRange& run) {
  auto bytes = static_cast<uint32_t>(run.bytes);
  return {kRunPrefix + bytes, static_cast<uint16_t>(type), 0, 0, pid, run.address, bytes};
}

Result<UniqueFd> open_mapped_file(int pid, const Area& area) {
  std::string path = "/proc/" + std::to_string(living_thread(pid)) + "/root" + area.path;
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat64 facts {};
  bool same = file && fstat64(file.get(), &facts) == 0 && facts.st_ino == area.file.inode &&
              static_cast<uint64_t>(facts.st_size) == area.file.size;
  if (!same) return fail(ESTALE, "read " + area.path);
  return file;
}

}  // namespace

Status PageSender::add(uint64_t address, uint64_t bytes) {
  while (bytes > 0) {
    if (buffer_.size() < kBufferBytes) buffer_.resize(kBufferBytes);
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
      heads[i] = head_of(ControlType::kPages, memory_.pid(), run);
      parts[2 * i] = {&heads[i], sizeof(RunHead)};
      parts[2 * i + 1] = {const_cast<uint8_t*>(data), run.bytes};
      data += run.bytes;
      bytes_sent_ += run.bytes;
    }
    TRY_VOID(node_.send_framed(parts.data(), static_cast<int>(2 * count)));
  }
  return {};
}

Result<uint64_t> send_file_pages(AwayNode& node, int pid, const Area& area) {
  TRY(UniqueFd file, open_mapped_file(pid, area));
  std::vector<uint8_t> buffer(std::min<uint64_t>(kPageRunBytes, area.end - area.start));
  uint64_t sent = 0;
  for (uint64_t at = area.start; at < area.end;) {
    size_t want = std::min<uint64_t>(buffer.size(), area.end - at);
    ssize_t got =
        pread64(file.get(), buffer.data(), want, static_cast<off64_t>(area.offset + (at - area.start)));
    if (got < 0) return fail_errno("read " + area.path);
    if (got == 0) break;
    // The rest of the last page is zeroes, as in memory.
    RemoteRange run{at, (static_cast<size_t>(got) + kPageBytes - 1) / kPageBytes * kPageBytes};
    std::fill(buffer.begin() + got, buffer.begin() + static_cast<long>(run.bytes), 0);
    RunHead head = head_of(ControlType::kFilePages, pid, run);
    iovec parts[2] = {{&head, sizeof head}, {buffer.data(), run.bytes}};
    TRY_VOID(node.send_framed(parts, 2));
    sent += run.bytes;
    at += run.bytes;
  }
  return sent;
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

bool HomeSink::belongs_to_guest(uint64_t start, uint64_t end) const {
  auto at = std::upper_bound(areas_.begin(), areas_.end(), start,
                             [](uint64_t address, const Area& area) { return address < area.end; });
  for (; at != areas_.end() && start < end; ++at) {
    if (at->start > start || at->kind == AreaKind::kVdso) return false;
    start = at->end;
  }
  return start >= end;
}

Status HomeSink::put(uint64_t address, const uint8_t* data, size_t bytes) {
  if (!belongs_to_guest(address, address + bytes))
    return fail(EBADMSG, "pages outside of the guest's memory");
  while (bytes > 0) {
    bool is_shared = false;
    size_t part = shared_.part(address, bytes, &is_shared);
    TRY_VOID(is_shared ? shared_.put(address, data, part) : memory_.write(address, data, part));
    received_.push_back({address, part / kPageBytes});
    address += part, data += part, bytes -= part;
  }
  return {};
}

std::vector<PageSpan> HomeSink::received() const { return merge_spans(received_); }

}  // namespace mosix
