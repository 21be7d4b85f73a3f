// null_calls COUNT [direct]: nanoseconds of one getppid, the middle of batches. Natively that is the price of entering
// the kernel; away it is one forwarded call without data. `direct`: made by way of the agent, without a trap; it fails if
// more than one in a hundred was not.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/clock.h"
#include "libmosix/common/direct_call.h"
#include "libmosix/common/query.h"

int main(int argc, char** argv) {
  const int count = argc > 1 ? atoi(argv[1]) : 1000;
  const int batch = std::max(1, count / 20);
  const bool direct = argc > 2 && strcmp(argv[2], "direct") == 0;
  const long entry = direct ? syscall(mosix::kQueryDirect) : 0;
  if (entry < 0) {
    fputs("null_calls: no direct calls here\n", stderr);
    return 1;
  }
  int trapped = 0;
  std::vector<double> each;
  for (int done = -batch; done < count; done += batch) {  // the first batch warms up
    const double start = bench::now_ns();
    for (int i = 0; i < batch; ++i) {
      if (direct && mosix::direct_call(entry, SYS_getppid).made) continue;
      syscall(SYS_getppid);
      ++trapped;
    }
    if (done >= 0) each.push_back((bench::now_ns() - start) / batch);
  }
  printf("%.1f\n", bench::median(each));
  if (direct && trapped > count / 100) {
    fprintf(stderr, "null_calls: %d of %d calls trapped\n", trapped, count);
    return 1;
  }
  return 0;
}
