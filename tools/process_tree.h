// Who descends from whom, as /proc tells it at home, where the pids of away processes are their own.
#pragma once

#include <sys/types.h>

#include <cstdio>

namespace mosix {

/// The parent of a process, 0 if it is gone.
inline pid_t parent_of(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE* status = fopen(path, "re");
  if (status == nullptr) return 0;
  char line[256];
  int parent = 0;
  while (fgets(line, sizeof line, status) != nullptr)
    if (sscanf(line, "PPid: %d", &parent) == 1) break;
  fclose(status);
  return parent;
}

/// True for `ancestor` itself and everything below it that still has its parents.
inline bool descends_from(pid_t pid, pid_t ancestor) {
  constexpr int kMaxDepth = 1000;  // a loop is impossible, a pid that is reused on the way is not
  for (int depth = 0; pid > 1 && depth < kMaxDepth; ++depth) {
    if (pid == ancestor) return true;
    pid = parent_of(pid);
  }
  return false;
}

}  // namespace mosix
