// Calls as text, in strace's manner: `openat(AT_FDCWD, "/etc/motd", O_RDONLY|O_CLOEXEC) = 3`. Computed from
// the table: a row names kinds, directions and sizes, and the `decode` name of an argument picks a flag set
// (decode_flags.cc) or a structure (decode_structs.cc). Runs in the supervisor, which can read the guest, and
// in tests. Total: whatever the guest's memory holds, the answer is text; what cannot be read is an address.
//
// Arguments that the call fills are only worth printing after it, so the text has two halves:
//
//   CallText text(row, args, memory);       // before: reads what the call reads
//   send(text.begin());                     // "read(3, "
//   ... the call runs ...
//   send(text.finish(result, memory));      // "\"hello\\n\", 4096) = 6"
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "libmosix/syscalls/errno_names.h"
#include "libmosix/syscalls/guest_memory.h"
#include "libmosix/syscalls/table.h"

namespace mosix {

struct DecodeOptions {
  size_t string_bytes = 32;  ///< longer strings and buffers end in "..."
  size_t array_items = 16;   ///< longer arrays end in "..."
};

class CallText {
 public:
  CallText(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory,
           const DecodeOptions& options = {});

  /// The call's name and its arguments up to the first one that the call itself fills.
  const std::string& begin() const { return begin_; }

  /// The rest: remaining arguments, ")", " = " and the result, and what changed of arguments that were shown
  /// before: ` = 1 (fds=[{fd=3, events=POLLIN, revents=POLLIN}])`. Reads the guest, so to be called after the
  /// out regions have been delivered. `result` is what the kernel returned: -4095 to -1 is an error.
  std::string finish(int64_t result, GuestMemory& memory) const;

  /// The call's name and all arguments as they are before the call, without the closing bracket.
  std::string before() const;

  /// All arguments after the call, without name and result: `3, "hello\\n", 4096`.
  std::string arguments(int64_t result, GuestMemory& memory) const;

 private:
  /// How an argument's text comes about.
  enum class Shown : uint8_t {
    kBefore,  ///< known before the call
    kAfter,   ///< filled by the call
    kBoth,    ///< known before, and changed by the call
  };
  Shown how_shown(const Arg& arg, uint64_t value) const;
  std::string after(size_t index, int64_t result, GuestMemory& memory) const;
  std::string changes(int64_t result, GuestMemory& memory) const;

  const SyscallRow* row_;
  std::array<uint64_t, 6> args_;
  DecodeOptions options_;
  std::array<std::string, 6> before_;
  std::array<Shown, 6> shown_{};
  std::array<uint32_t, 6> capacities_{};  ///< of buffers whose length stands behind a pointer
  size_t count_ = 0;
  size_t begun_ = 0;  ///< arguments that begin_ holds
  std::string begin_;
};

/// The whole call before it is made; what it will fill is shown as an address.
std::string format_call(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory,
                        const DecodeOptions& options = {});

/// "3", "0x7f0012340000", "-1 ENOENT (No such file or directory)", "? ERESTARTSYS (To be restarted ...)".
/// `result` is what the kernel returned: -4095 to -1 is an error.
std::string format_result(const SyscallRow& row, int64_t result);

/// A flag set or enumeration by the name that rows use for it; hexadecimal or decimal where it has none.
std::string format_flags(std::string_view decode, uint64_t value);

/// Whether `name` is known to the decoder as flag set or structure: every `decode` of the table must be.
bool is_known_decode(std::string_view name);

}  // namespace mosix
