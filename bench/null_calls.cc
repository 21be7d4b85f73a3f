// null_calls COUNT: nanoseconds of one getppid, the middle of batches. Natively that is the price of entering
// the kernel; away it is one forwarded call without data.
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/clock.h"

int main(int argc, char** argv) {
  const int count = argc > 1 ? atoi(argv[1]) : 1000;
  const int batch = std::max(1, count / 20);
  std::vector<double> each;
  for (int done = -batch; done < count; done += batch) {  // the first batch warms up
    const double start = bench::now_ns();
    for (int i = 0; i < batch; ++i) syscall(SYS_getppid);
    if (done >= 0) each.push_back((bench::now_ns() - start) / batch);
  }
  printf("%.1f\n", bench::median(each));
  return 0;
}
