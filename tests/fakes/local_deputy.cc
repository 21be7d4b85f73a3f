#include "tests/fakes/local_deputy.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mosix::fakes {
namespace {

template <class T>
bool take(const std::vector<uint8_t>& bytes, size_t& at, T* to, size_t count) {
  if (count > (bytes.size() - at) / sizeof(T)) return false;
  if (count != 0) memcpy(to, bytes.data() + at, count * sizeof(T));
  at += count * sizeof(T);
  return true;
}

template <class T>
T value_at(const uint8_t* scratch, uint32_t offset) {
  T value;
  memcpy(&value, scratch + offset, sizeof(value));
  return value;
}

void append(std::vector<uint8_t>& bytes, const void* data, size_t size) {
  bytes.insert(bytes.end(), static_cast<const uint8_t*>(data), static_cast<const uint8_t*>(data) + size);
}

void pad(std::vector<uint8_t>& bytes) { bytes.resize((bytes.size() + 7) / 8 * 8); }

std::string check_region(const CallBody& body, const OutRegion& out) {
  if (out.max_bytes == 0) return "an empty region";
  if (uint64_t{out.offset} + out.max_bytes > body.scratch_bytes) return "a region beyond scratch";
  const auto rule = static_cast<OutRule>(out.rule);
  if (rule < OutRule::kFixed || rule > OutRule::kSpread) return "an unknown rule";
  if (rule == OutRule::kResult && out.param == 0) return "a result in units of nothing";
  const uint64_t length_bytes = rule == OutRule::kLength32 ? 4 : rule == OutRule::kLength64 ? 8 : 0;
  if (length_bytes != 0 && out.param + length_bytes > body.scratch_bytes) return "a length beyond scratch";
  return {};
}

}  // namespace

std::string take_apart(const std::vector<uint8_t>& bytes, CallFrame& frame) {
  size_t at = 0;
  if (bytes.size() % 8 != 0) return "not a multiple of 8";
  if (!take(bytes, at, &frame.body, 1)) return "shorter than its head";
  const CallBody& body = frame.body;
  if (body.reloc_count > kMaxRelocs || body.out_count > kMaxOutRegions) return "too many relocs or regions";
  if (body.scratch_bytes > kMaxScratchBytes || body.scratch_bytes % 16 != 0) return "crooked scratch size";
  if (body.in_bytes > body.scratch_bytes) return "more in bytes than scratch";
  if (body.arg_relocs >= 1u << 6) return "relocs of arguments that are not there";
  frame.relocs.resize(body.reloc_count);
  frame.outs.resize(body.out_count);
  frame.in.resize(body.in_bytes);
  if (!take(bytes, at, frame.relocs.data(), frame.relocs.size()) ||
      !take(bytes, at, frame.outs.data(), frame.outs.size()) ||
      !take(bytes, at, frame.in.data(), frame.in.size()))
    return "cut off";
  if (bytes.size() - at >= 8) return "bytes left over";
  for (int i = 0; i < 6; ++i)
    if ((body.arg_relocs >> i & 1) != 0 && body.args[i] >= body.scratch_bytes)
      return "an argument beyond scratch";
  for (const Reloc& reloc : frame.relocs) {
    if (uint64_t{reloc.at} + 8 > body.in_bytes || reloc.target >= body.scratch_bytes)
      return "a reloc beyond scratch";
  }
  uint64_t end = 0;
  for (const OutRegion& out : frame.outs) {
    if (std::string error = check_region(body, out); !error.empty()) return error;
    if (out.offset < end) return "regions that overlap or do not ascend";
    end = uint64_t{out.offset} + out.max_bytes;
  }
  return {};
}

Scratch::Scratch(const CallFrame& frame) : mapped_bytes_((frame.body.scratch_bytes + 8191) / 4096 * 4096) {
  void* memory = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  data_ = static_cast<uint8_t*>(memory);
  if (!frame.in.empty()) memcpy(data_, frame.in.data(), frame.in.size());
  for (const Reloc& reloc : frame.relocs) {
    const uint64_t address = reinterpret_cast<uint64_t>(data_) + reloc.target;
    memcpy(data_ + reloc.at, &address, sizeof(address));
  }
}

Scratch::~Scratch() { munmap(data_, mapped_bytes_); }

uint64_t Scratch::argument(const CallFrame& frame, int index) const {
  const bool is_offset = (frame.body.arg_relocs >> index & 1) != 0;
  return frame.body.args[index] + (is_offset ? reinterpret_cast<uint64_t>(data_) : 0);
}

std::vector<uint32_t> out_lengths(const CallFrame& frame, const uint8_t* scratch, int64_t result) {
  const bool failed = result < 0 && result >= -4095;
  uint64_t to_spread = failed ? 0 : static_cast<uint64_t>(result);
  std::vector<uint32_t> lengths;
  for (const OutRegion& out : frame.outs) {
    uint64_t length = 0;
    switch (static_cast<OutRule>(out.rule)) {
      case OutRule::kFixed:
        length = failed ? 0 : out.max_bytes;
        break;
      case OutRule::kAlways:
        length = out.max_bytes;
        break;
      case OutRule::kResult: {
        const auto units = failed ? 0 : std::min<uint64_t>(static_cast<uint64_t>(result), out.max_bytes);
        length = units * out.param;
        break;
      }
      case OutRule::kLength32:
        length = failed ? 0 : value_at<uint32_t>(scratch, out.param);
        break;
      case OutRule::kLength64:
        length = failed ? 0 : value_at<uint64_t>(scratch, out.param);
        break;
      case OutRule::kSpread:
        length = std::min<uint64_t>(to_spread, out.max_bytes);
        to_spread -= length;
        break;
    }
    lengths.push_back(static_cast<uint32_t>(std::min<uint64_t>(length, out.max_bytes)));
  }
  return lengths;
}

std::vector<uint8_t> reply_bytes(const CallFrame& frame, const uint8_t* scratch, int64_t result,
                                 const std::vector<Siginfo>& signals) {
  const std::vector<uint32_t> lengths = out_lengths(frame, scratch, result);
  const bool nothing =
      std::all_of(lengths.begin(), lengths.end(), [](uint32_t length) { return length == 0; });
  ReplyBody head{};
  head.result = result;
  head.out_count = static_cast<uint16_t>(nothing ? 0 : lengths.size());
  head.signal_count = static_cast<uint16_t>(signals.size());
  std::vector<uint8_t> bytes;
  append(bytes, &head, sizeof(head));
  append(bytes, lengths.data(), head.out_count * sizeof(uint32_t));
  pad(bytes);
  for (size_t i = 0; i < head.out_count; ++i) append(bytes, scratch + frame.outs[i].offset, lengths[i]);
  pad(bytes);
  append(bytes, signals.data(), signals.size() * sizeof(Siginfo));
  return bytes;
}

std::vector<uint8_t> execute(const std::vector<uint8_t>& frame_body) {
  CallFrame frame;
  if (!take_apart(frame_body, frame).empty()) return {};
  Scratch scratch(frame);
  const auto argument = [&](int index) { return scratch.argument(frame, index); };
  int64_t result = syscall(frame.body.number, argument(0), argument(1), argument(2), argument(3), argument(4),
                           argument(5));
  if (result == -1) result = -errno;
  return reply_bytes(frame, scratch.data(), result);
}

}  // namespace mosix::fakes
