// What the agent has instead of a libc: raw system calls and byte copies.
//
// The agent's laws (each is checked by pack_agent.py or by construction):
//  - no libc, no allocation, no exceptions, no thread-locals: it runs in a stranger's process, on threads
//    whose libc state belongs to the guest and may be in the middle of anything;
//  - no vector or floating-point registers: they are the guest's, and nobody saves them for us;
//  - only the stack and the slot of the thread it runs on, so it is async-signal-safe throughout;
//  - no data section, no relocation: one image for every address.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mosix {

inline int64_t raw_syscall(uint64_t number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0,
                           uint64_t e = 0, uint64_t f = 0) {
  int64_t result;
  register uint64_t r10 asm("r10") = d;
  register uint64_t r8 asm("r8") = e;
  register uint64_t r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

template <class T>
uint64_t address_of(T* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

inline void copy_bytes(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/// For regions that may overlap with `to` below `from`: a forward copy is right.
inline void move_down(void* to, const void* from, size_t bytes) { copy_bytes(to, from, bytes); }

/// For regions that may overlap with `to` above `from`.
inline void move_up(void* to, const void* from, size_t bytes) {
  auto* t = static_cast<uint8_t*>(to) + bytes;
  auto* f = static_cast<const uint8_t*>(from) + bytes;
  for (; bytes >= 8; bytes -= 8) {
    t -= 8, f -= 8;
    uint64_t word;
    __builtin_memcpy(&word, f, 8);
    __builtin_memcpy(t, &word, 8);
  }
  while (bytes-- > 0) *--t = *--f;
}

inline void zero_bytes(void* to, size_t bytes) {
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(0) : "memory");
}

/// For structs, which are small: a string instruction takes longer to begin than these stores take.
template <class T>
inline void zero(T* object) {
  static_assert(sizeof(T) % sizeof(uint64_t) == 0 && alignof(T) >= alignof(uint32_t));
  auto* words = reinterpret_cast<uint64_t*>(object);
#pragma GCC unroll 16
  for (size_t i = 0; i < sizeof(T) / sizeof(uint64_t); ++i) {
    words[i] = 0;
    asm volatile("" : : : "memory");  // keeps it from becoming a call of memset
  }
}

inline uint32_t load_acquire(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
inline void store_release(uint32_t* p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

}  // namespace mosix
