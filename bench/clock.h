// Time for the programs of this folder, and the middle of many measurements: on a busy machine the mean says
// more about the others than about us.
#pragma once

#include <time.h>

#include <algorithm>
#include <vector>

namespace bench {

inline double now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace bench
