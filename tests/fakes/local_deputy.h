// A deputy in the test's own process: interprets a CALL frame as frame.h has it, makes the call for real, and
// answers with a REPLY. What a test sees through plan_call, this, parse_reply and deliver_outs must be what
// it sees by making the call itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libmosix/common/frame.h"

namespace mosix::fakes {

struct CallFrame {
  CallBody body{};
  std::vector<Reloc> relocs;
  std::vector<OutRegion> outs;
  std::vector<uint8_t> in;
};

/// Takes a frame apart. What a real deputy would refuse is an error, in words; nothing if all is well.
std::string take_apart(const std::vector<uint8_t>& bytes, CallFrame& frame);

/// Scratch as the deputy lays it out: zeroed, in part filled, pointers set to addresses within it.
class Scratch {
 public:
  explicit Scratch(const CallFrame& frame);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  uint8_t* data() const { return data_; }
  /// The call's arguments, pointers into scratch among them.
  uint64_t argument(const CallFrame& frame, int index) const;

 private:
  uint8_t* data_;
  size_t mapped_bytes_;
};

/// How many bytes each region has after a call with this result.
std::vector<uint32_t> out_lengths(const CallFrame& frame, const uint8_t* scratch, int64_t result);

/// A REPLY body without signals.
std::vector<uint8_t> reply_bytes(const CallFrame& frame, const uint8_t* scratch, int64_t result,
                                 const std::vector<Siginfo>& signals = {});

/// Makes the call in this process.
std::vector<uint8_t> execute(const std::vector<uint8_t>& frame_body);

}  // namespace mosix::fakes
