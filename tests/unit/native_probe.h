// How syscall_native_test.cc asks the kernel about a row: Probe makes a call natively with room to spare,
// then twice with buffers of exactly the row's sizes that end at an unmapped page and are filled in two ways,
// and compares. In one process and thread; doctest's assertions inside.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "libmosix/syscalls/table.h"

namespace mosix::native {

constexpr size_t kRoomBytes = 64 << 10;
constexpr size_t kPage = 4096;

/// An argument of a probe: a number, or memory with this beginning and room behind it.
struct Input {
  uint64_t number = 0;
  bool is_memory = false;
  std::vector<uint8_t> begin;

  template <class T>
  requires std::is_integral_v<T> || std::is_enum_v<T> Input(T value) : number(static_cast<uint64_t>(value)) {}
  Input(const char* text) : is_memory(true), begin(text, text + strlen(text) + 1) {}
  explicit Input(std::vector<uint8_t> bytes) : is_memory(true), begin(std::move(bytes)) {}
};

inline Input room() { return Input(std::vector<uint8_t>{}); }
template <class T>
Input holding(const T& value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  return Input(std::vector<uint8_t>(bytes, bytes + sizeof(value)));
}
template <class T>
Input holding_all(const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return Input(std::vector<uint8_t>(bytes, bytes + values.size() * sizeof(T)));
}

/// Memory of exactly so many bytes, with nothing behind it.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes), mapped_((bytes + kPage - 1) / kPage * kPage + 2 * kPage) {
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base_ != MAP_FAILED);
    mprotect(base_ + mapped_ - kPage, kPage, PROT_NONE);
  }
  Guarded(Guarded&& other) noexcept : bytes_(other.bytes_), mapped_(other.mapped_), base_(other.base_) {
    other.base_ = nullptr;
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() {
    if (base_ != nullptr) munmap(base_, mapped_);
  }
  uint8_t* data() { return base_ + mapped_ - kPage - bytes_; }
  size_t size() const { return bytes_; }

 private:
  size_t bytes_;
  size_t mapped_;
  uint8_t* base_;
};

struct Options {
  std::function<void()> before;  ///< what makes the call possible once more
  bool fails = false;            ///< an error is expected, other than EFAULT
  bool reads_less = false;       ///< the kernel may read less of an in buffer than its row says
  bool has_gaps = false;         ///< padding between records, which the kernel leaves alone
};

class Probe {
 public:
  Probe(uint64_t number, std::vector<Input> inputs, Options options)
      : number_(number), inputs_(std::move(inputs)), options_(std::move(options)), row_(&find_row()) {}

  void check() {
    INFO("call " << row_->name << ", first numbers " << numbers());
    REQUIRE((row_->where == Where::kHome || row_->where == Where::kSplit));
    const int64_t native = run_with_room();
    if (native == -ENOSYS || native == -EPERM) {
      MESSAGE("skipped: this kernel or user cannot make the call");
      return;
    }
    REQUIRE_MESSAGE((native >= 0) != options_.fails, "native result " << native);
    const int64_t result = run_guarded(0x55, std::nullopt);
    CHECK_MESSAGE((result >= 0 ? result >= 0 && native >= 0 : result == native),
                  "result " << result << ", native " << native);
    std::vector<std::vector<uint8_t>> first = contents();
    const int64_t again = run_guarded(0xAA, std::nullopt);
    CHECK((again >= 0) == (native >= 0));
    for (size_t i = 0; i < inputs_.size(); ++i) check_written(i, result, again, first[i]);
    if (native >= 0 && !options_.reads_less) check_reads_all();
  }

 private:
  uint64_t number_;
  std::vector<Input> inputs_;
  Options options_;
  const SyscallRow* row_;
  std::vector<std::optional<Guarded>> memory_;

  std::string numbers() const {
    std::string text;
    for (const Input& input : inputs_) text += (input.is_memory ? "..." : std::to_string(input.number)) + " ";
    return text;
  }

  const SyscallRow& find_row() const {
    std::array<uint64_t, 6> args{};
    for (size_t i = 0; i < inputs_.size(); ++i) args[i] = inputs_[i].number;
    return syscall_row(number_, args);
  }

  int64_t call(const std::array<uint64_t, 6>& args) const {
    if (options_.before) options_.before();
    const long result =
        syscall(static_cast<long>(number_), args[0], args[1], args[2], args[3], args[4], args[5]);
    return result == -1 ? -errno : result;
  }

  int64_t run_with_room() {
    std::vector<std::vector<uint8_t>> rooms(inputs_.size());
    std::array<uint64_t, 6> args{};
    for (size_t i = 0; i < inputs_.size(); ++i) {
      args[i] = inputs_[i].number;
      if (!inputs_[i].is_memory) continue;
      rooms[i] = inputs_[i].begin;
      rooms[i].resize(inputs_[i].begin.size() + kRoomBytes);
      args[i] = reinterpret_cast<uint64_t>(rooms[i].data());
    }
    return call(args);
  }

  uint32_t length_behind(size_t index) const {
    uint32_t length = 0;
    memcpy(&length, inputs_[index].begin.data(), sizeof(length));
    return length;
  }

  /// What the row says about argument `index`, before the call.
  size_t bytes_before(size_t index) const {
    const Arg& arg = row_->args[index];
    const ArgSize& size = arg.size;
    if (arg.kind == ArgKind::kString) {
      const size_t text = inputs_[index].begin.size();
      return size.kind == SizeKind::kConst ? std::min<size_t>(text, size.bytes) : text;
    }
    REQUIRE_MESSAGE(arg.kind == ArgKind::kBuffer, "probes know strings and buffers only");
    switch (size.kind) {
      case SizeKind::kConst:
        return size.bytes;
      case SizeKind::kArg:
      case SizeKind::kArgResult:
        return size.head + inputs_[size.arg].number * size.bytes;
      case SizeKind::kLengthAt:
        return length_behind(size.arg);
      case SizeKind::kFdSet:
        return (inputs_[size.arg].number + 63) / 64 * 8;
      default:
        return 0;
    }
  }

  /// Runs with memory of the row's sizes; the in buffer `shortened` lacks its last byte.
  int64_t run_guarded(uint8_t fill, std::optional<size_t> shortened) {
    memory_.clear();
    memory_.resize(inputs_.size());
    std::array<uint64_t, 6> args{};
    for (size_t i = 0; i < inputs_.size(); ++i) {
      args[i] = inputs_[i].number;
      if (!inputs_[i].is_memory) continue;
      const size_t bytes = bytes_before(i) - (shortened == i ? 1 : 0);
      memory_[i].emplace(bytes);
      if (row_->args[i].direction == Direction::kOut) {
        memset(memory_[i]->data(), fill, bytes);
      } else {
        std::copy_n(inputs_[i].begin.begin(), std::min(bytes, inputs_[i].begin.size()), memory_[i]->data());
      }
      args[i] = reinterpret_cast<uint64_t>(memory_[i]->data());
    }
    return call(args);
  }

  std::vector<std::vector<uint8_t>> contents() {
    std::vector<std::vector<uint8_t>> all(inputs_.size());
    for (size_t i = 0; i < inputs_.size(); ++i)
      if (memory_[i]) all[i].assign(memory_[i]->data(), memory_[i]->data() + memory_[i]->size());
    return all;
  }

  /// How much of an out buffer the row says to be filled.
  size_t bytes_after(size_t index, int64_t result) {
    const ArgSize& size = row_->args[index].size;
    const size_t room = memory_[index]->size();
    if (result < 0) return 0;
    if (size.kind == SizeKind::kArgResult)
      return std::min(room, size.head + static_cast<size_t>(result) * size.bytes);
    if (size.kind == SizeKind::kLengthAt) {
      uint32_t length = 0;
      memcpy(&length, memory_[size.arg]->data(), sizeof(length));
      return std::min<size_t>(room, length);
    }
    return room;
  }

  void check_written(size_t index, int64_t result, int64_t again, const std::vector<uint8_t>& first) {
    const Arg& arg = row_->args[index];
    if (!memory_[index] || arg.kind != ArgKind::kBuffer) return;
    INFO("argument " << arg.name);
    const uint8_t* second = memory_[index]->data();
    if (arg.direction == Direction::kOut) {
      const size_t filled = bytes_after(index, std::min(result, again));
      const size_t most = bytes_after(index, std::max(result, again));
      size_t left_alone = 0;
      size_t beyond = 0;
      for (size_t i = 0; i < first.size(); ++i) {
        const bool is_unwritten = first[i] == 0x55 && second[i] == 0xAA;
        left_alone += i < filled && is_unwritten;
        beyond += i >= most && !is_unwritten;
      }
      CHECK_MESSAGE((left_alone == 0 || options_.has_gaps),
                    "bytes of " << filled << " that the kernel did not fill");
      CHECK_MESSAGE(beyond == 0, "bytes that the kernel filled although they are behind " << most);
    } else if (arg.direction == Direction::kIn || (result < 0 && !arg.out_on_error)) {
      const auto& begin = inputs_[index].begin;
      bool is_same = true;
      for (size_t i = 0; i < first.size(); ++i) is_same &= second[i] == (i < begin.size() ? begin[i] : 0);
      CHECK_MESSAGE(is_same, "the kernel wrote what the row calls an in buffer, or unchanged by an error");
    }
  }

  void check_reads_all() {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Arg& arg = row_->args[i];
      if (!inputs_[i].is_memory || arg.kind != ArgKind::kBuffer || arg.direction != Direction::kIn) continue;
      if (bytes_before(i) == 0) continue;
      const int64_t result = run_guarded(0x55, i);
      const bool is_cut =
          (row_->effects & kMayBePartial) != 0 && result == static_cast<int64_t>(bytes_before(i)) - 1;
      CHECK_MESSAGE((result == -EFAULT || is_cut),
                    "the kernel does not read all of " << arg.name << ", result " << result);
    }
  }
};

inline void check(uint64_t number, std::vector<Input> inputs, Options options = {}) {
  Probe(number, std::move(inputs), std::move(options)).check();
}

}  // namespace mosix::native
