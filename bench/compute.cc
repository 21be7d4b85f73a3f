// compute MILLIONS: milliseconds for a fixed amount of work that is registers, memory within the caches, and
// floating point; no system calls on the way.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "bench/clock.h"

int main(int argc, char** argv) {
  const long millions = argc > 1 ? atol(argv[1]) : 100;
  std::vector<uint32_t> table(1 << 15);
  uint64_t state = 88172645463325252ull;
  double sum = 0;
  const double start = bench::now_ns();
  for (long i = 0; i < millions * 1000000; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    table[state & 0x7fff] += static_cast<uint32_t>(i);
    if ((i & 15) == 0) sum += static_cast<double>(table[(state >> 20) & 0x7fff]) * 1.0000001;
  }
  const double milliseconds = (bench::now_ns() - start) / 1e6;
  printf("%.3f\n", milliseconds);
  return sum == 42 ? 1 : 0;  // the sum is used
}
