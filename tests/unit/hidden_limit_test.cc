// What descriptors' settings say of a time limit, and what the kernel makes of the same settings.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/hidden_limit.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <utility>

#include "libmosix/common/unique_fd.h"

using namespace mosix;

TEST_CASE("reads and accepts may have one, writes and waits with a limit of their own do not") {
  for (long number : {SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_accept, SYS_accept4}) {
    CHECK(may_have_hidden_limit(static_cast<uint64_t>(number)));
  }
  for (long number : {SYS_write, SYS_sendto, SYS_recvmmsg, SYS_pread64, SYS_poll}) {
    CHECK_FALSE(may_have_hidden_limit(static_cast<uint64_t>(number)));
  }
}

TEST_CASE("a socket's limit is what was set, as the kernel tells it") {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  UniqueFd one(pair[0]), other(pair[1]);
  // In whole ticks, whatever the kernel's are; as good as none, where it holds more than can be counted.
  const std::pair<timeval, int64_t> cases[] = {
      {{0, 0}, 0}, {{2, 500'000}, 2'500'000'000}, {{60, 0}, 60'000'000'000}, {{2'000'000'000'000, 0}, 0}};
  for (const auto& [set, ns] : cases) {
    REQUIRE(setsockopt(one.get(), SOL_SOCKET, SO_RCVTIMEO, &set, sizeof set) == 0);
    timeval told{};
    socklen_t bytes = sizeof told;
    REQUIRE(getsockopt(one.get(), SOL_SOCKET, SO_RCVTIMEO, &told, &bytes) == 0);
    CHECK(socket_limit(told).ns == ns);
  }
  timeval fifth{0, 200'000};
  CHECK(socket_limit(fifth).ns == 200'000'000);
  CHECK(socket_limit(fifth).result == -EAGAIN);
}

TEST_CASE("no option that the kernel can tell overflows") {
  CHECK(socket_limit({LONG_MAX, 999'999}).ns == 0);
  CHECK(socket_limit({LONG_MIN, 0}).ns == 0);
  CHECK(socket_limit({0, 0}).ns == 0);
}

TEST_CASE("a terminal has one if it waits neither for a line nor for a character") {
  CHECK(terminal_limit(false, 0, 5).ns == 500'000'000);
  CHECK(terminal_limit(false, 0, 5).result == 0);
  CHECK(terminal_limit(false, 0, 0).ns == 0);
  CHECK(terminal_limit(false, 1, 5).ns == 0);
  CHECK(terminal_limit(true, 0, 5).ns == 0);
  CHECK(terminal_limit(false, 0, 255).ns == 25'500'000'000);
}
