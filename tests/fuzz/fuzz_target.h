// What a fuzz target provides, to libFuzzer (clang) or to random_main.cc (every compiler).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace mosix::fuzz {

using Input = std::vector<uint8_t>;

/// Inputs that are right, to begin from.
std::vector<Input> seeds();

/// A promise that holds for every input.
inline void must(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "broken promise: %s\n", what);
  abort();
}

/// Takes an input apart from its front; zeroes beyond its end.
class Source {
 public:
  Source(const uint8_t* data, size_t size) : at_(data), left_(size) {}
  uint64_t number(size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && left_ > 0; ++i, --left_) value |= uint64_t{*at_++} << (8 * i);
    return value;
  }
  Input rest() { return Input(at_, at_ + left_); }
  size_t left() const { return left_; }

 private:
  const uint8_t* at_;
  size_t left_;
};

/// The other way round.
inline void put(Input& input, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) input.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

}  // namespace mosix::fuzz
