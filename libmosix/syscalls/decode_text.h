// The decoder's common words, private to decode*.cc.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libmosix/syscalls/decode.h"

namespace mosix {

/// Bytes between quotes, C escapes, no more than `limit` of them; "..." behind if `is_cut` or more there
/// were.
std::string quoted(const void* data, size_t bytes, size_t limit, bool is_cut = false);

/// "NULL" or "0x7f00...".
std::string address_text(uint64_t address);

/// A number as a person would have written it: what looks like a negative int is one.
std::string number_text(uint64_t value);

/// `{a=1, b=2}`, field by field.
class Fields {
 public:
  Fields& add(std::string_view name, std::string_view text) {
    text_ += text_.size() == 1 ? "" : ", ";
    text_ += name;
    text_ += '=';
    text_ += text;
    return *this;
  }
  std::string finish() { return text_ + "}"; }

 private:
  std::string text_ = "{";
};

/// `[a, b, ...]`, item by item, cut at a limit.
class Items {
 public:
  explicit Items(size_t limit) : limit_(limit) {}
  /// Whether one more is to be shown; past the limit it puts the dots.
  bool has_room() {
    if (count_ < limit_) return true;
    if (!std::exchange(is_cut_, true)) text_ += ", ...";
    return false;
  }
  void add(std::string_view text) {
    text_ += count_++ == 0 ? "" : ", ";
    text_ += text;
  }
  std::string finish() const { return text_ + "]"; }

 private:
  std::string text_ = "[";
  size_t limit_;
  size_t count_ = 0;
  bool is_cut_ = false;
};

/// Bytes of a structure in the guest, copied. `bytes` may be less than the structure has.
struct StructView {
  const uint8_t* data;
  size_t bytes;
  const DecodeOptions& options;
  GuestMemory& memory;  ///< for structures that point on

  /// The value at an offset; zero beyond what is there.
  template <class T>
  T at(size_t offset) const {
    T value{};
    if (offset <= bytes && bytes - offset >= sizeof(T)) memcpy(&value, data + offset, sizeof(T));
    return value;
  }
  template <class T>
  T as() const {
    return at<T>(0);
  }
};

/// A structure by the name that rows use for it; bytes in quotes if it has none.
std::string format_struct(std::string_view decode, const StructView& view);
/// Whether format_struct knows the name.
bool is_struct_name(std::string_view decode);

/// decode_flags.cc: whether format_flags knows the name.
bool is_flags_name(std::string_view decode);

/// decode_structs.cc, for arrays in other structures.
std::string sockaddr_text(const uint8_t* data, size_t bytes);
/// Control data of a message.
std::string control_text(const uint8_t* data, size_t bytes, const DecodeOptions& options);

}  // namespace mosix
