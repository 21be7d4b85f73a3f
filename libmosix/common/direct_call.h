// One system call by way of the agent, without a trap: for programs that know of it (kQueryDirect), which are our tests
// and figures.
#pragma once

#include <stdint.h>

namespace mosix {

struct DirectResult {
  int64_t result;  ///< as the kernel returns it, errors as -errno
  bool made;       ///< false: the call is the caller's own to make, in the ordinary way
};

/// `entry`: what kQueryDirect has answered.
inline DirectResult direct_call(int64_t entry, int64_t number, uint64_t a = 0, uint64_t b = 0,
                                uint64_t c = 0) {
  int64_t result;
  uint64_t refused;
  register uint64_t r10 asm("r10") = 0;
  register uint64_t r8 asm("r8") = 0;
  register uint64_t r9 asm("r9") = 0;
  // The stack pointer goes below the red zone, for the call writes there.
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"
      "call *%[entry]\n\t"
      "leaq 128(%%rsp), %%rsp"
      : "=a"(result), "=&c"(refused)
      : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9), [entry] "b"(entry)
      : "r11", "memory", "cc");
  return {result, refused == 0};
}

}  // namespace mosix
