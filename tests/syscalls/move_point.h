// A place where a test harness may move this process, between two checks. Natively it does nothing. When
// MOSIX_TEST_MOVE_FD names a descriptor (a socket pair to tests/run_matrix.py), it says which process asks
// and waits until the harness has moved it and says so. The program itself never knows to where.
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/// The descriptor of the harness, or -1. A check that closes or counts descriptors leaves it alone.
inline int move_point_fd() {
  static const int fd = getenv("MOSIX_TEST_MOVE_FD") ? atoi(getenv("MOSIX_TEST_MOVE_FD")) : -1;
  return fd;
}

/// Another process is moved while this one waits.
inline void move_point_of(pid_t pid) {
  const int fd = move_point_fd();
  if (fd < 0) return;
  char text[32];
  const int length = snprintf(text, sizeof text, "%d\n", static_cast<int>(pid));
  if (write(fd, text, static_cast<size_t>(length)) != length) return;
  char answer = 0;
  while (read(fd, &answer, 1) < 0 && errno == EINTR) {
  }
}

inline void move_point() { move_point_of(getpid()); }
