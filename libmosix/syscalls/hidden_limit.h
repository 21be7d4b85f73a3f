// Calls whose time limit no argument names: reading from a socket with SO_RCVTIMEO, accepting there, reading from a
// terminal that waits for VTIME. Used by the supervisor (a guest's calls) and the custodian (a process that has just
// come home), which each have their own way to ask for the settings.
#pragma once

#include <sys/time.h>

#include <cstdint>

namespace mosix {

/// A read or receive, of which only its descriptor's settings tell.
bool may_have_hidden_limit(uint64_t number);

struct HiddenLimit {
  int64_t ns = 0;      ///< 0: none
  int64_t result = 0;  ///< of the call when it has run out
};
HiddenLimit socket_limit(const timeval& option);
/// Of its termios: whether ICANON is set, and two of c_cc.
HiddenLimit terminal_limit(bool by_lines, uint8_t vmin, uint8_t vtime);

}  // namespace mosix
