// What is left of calls that were broken off in the middle.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/partial_transfer.h"

#include <doctest/doctest.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <string>

#include "tests/fakes/guest_memories.h"

using namespace mosix;
using Args = std::array<uint64_t, 6>;

namespace {

constexpr uint64_t kMost = 1 << 20;

uint64_t address(const void* what) { return reinterpret_cast<uint64_t>(what); }

struct Scattered {
  std::string first = "abc", empty, second = "defgh", third = "ij";
  iovec pieces[4] = {{first.data(), first.size()},
                     {empty.data(), 0},
                     {second.data(), second.size()},
                     {third.data(), third.size()}};
  msghdr message{};
  Scattered() {
    message.msg_iov = pieces;
    message.msg_iovlen = 4;
  }
};

std::string text_of(const std::vector<uint8_t>& data) { return {data.begin(), data.end()}; }
std::string text_of(const std::vector<iovec>& pieces) {
  std::string text;
  for (const iovec& piece : pieces)
    text += std::string(static_cast<char*>(piece.iov_base), piece.iov_len) + "|";
  return text;
}

}  // namespace

TEST_CASE("calls that give bytes away say how many, all others none") {
  fakes::OwnMemory memory;
  Scattered all;
  char buffer[10];
  CHECK(bytes_to_give(SYS_write, {1, address(buffer), 10}, memory) == 10);
  CHECK(bytes_to_give(SYS_sendto, {1, address(buffer), 10}, memory) == 10);
  CHECK(bytes_to_give(SYS_writev, {1, address(all.pieces), 4}, memory) == 10);
  CHECK(bytes_to_give(SYS_sendmsg, {1, address(&all.message)}, memory) == 10);
  CHECK(bytes_to_give(SYS_read, {1, address(buffer), 10}, memory) == 0);
  CHECK(bytes_to_give(SYS_recvfrom, {1, address(buffer), 10, MSG_WAITALL}, memory) == 0);
  CHECK(bytes_to_give(SYS_writev, {1, address(all.pieces), IOV_MAX + 1}, memory) == 0);
  CHECK(bytes_to_give(SYS_writev, {1, 16, 4}, memory) == 0);
}

TEST_CASE("the rest of a write begins behind what has been given, across pieces") {
  fakes::OwnMemory memory;
  Scattered all;
  const std::string whole = "abcdefghij";
  for (uint64_t done = 1; done < whole.size(); ++done) {
    Result<RestOfCall> rest = rest_of_call(SYS_writev, {1, address(all.pieces), 4}, done, kMost, memory);
    REQUIRE(rest);
    CHECK(rest->number == SYS_write);
    CHECK(text_of(rest->data) == whole.substr(done));
    CHECK(rest->args[2] == whole.size() - done);
  }
  Result<RestOfCall> cut = rest_of_call(SYS_sendmsg, {1, address(&all.message), MSG_NOSIGNAL}, 2, 4, memory);
  REQUIRE(cut);
  CHECK(text_of(cut->data) == "cdef");
  CHECK(cut->number == SYS_sendto);
  CHECK(cut->args[3] == MSG_NOSIGNAL);
  Result<RestOfCall> placed = rest_of_call(SYS_pwritev, {1, address(all.pieces), 4, 1000}, 4, kMost, memory);
  REQUIRE(placed);
  CHECK(placed->number == SYS_pwrite64);
  CHECK(placed->args[3] == 1004);
  CHECK_FALSE(rest_of_call(SYS_writev, {1, address(all.pieces), 4}, whole.size(), kMost, memory));
  CHECK_FALSE(rest_of_call(SYS_write, {1, 16, 10}, 3, kMost, memory));
}

TEST_CASE("only a receive that may wait for all of its bytes is one to go on with") {
  fakes::OwnMemory memory;
  Scattered all;
  char buffer[10];
  auto waits = [&](uint64_t flags) {
    return bytes_to_receive(SYS_recvfrom, {1, address(buffer), 10, flags, 0, 0}, memory);
  };
  CHECK(waits(MSG_WAITALL) == 10);
  CHECK(waits(MSG_WAITALL | MSG_NOSIGNAL) == 10);
  CHECK(waits(0) == 0);
  for (uint64_t other : {MSG_PEEK, MSG_DONTWAIT, MSG_OOB, MSG_ERRQUEUE})
    CHECK(waits(MSG_WAITALL | other) == 0);
  CHECK(bytes_to_receive(SYS_recvmsg, {1, address(&all.message), MSG_WAITALL}, memory) == 10);
  CHECK(bytes_to_receive(SYS_recvmsg, {1, address(&all.message), 0}, memory) == 0);
  CHECK(bytes_to_receive(SYS_read, {1, address(buffer), 10, MSG_WAITALL}, memory) == 0);
  CHECK(bytes_to_receive(SYS_recvmsg, {1, 16, MSG_WAITALL}, memory) == 0);
  all.message.msg_control = buffer;  // descriptors may come with the rest
  all.message.msg_controllen = sizeof buffer;
  CHECK(bytes_to_receive(SYS_recvmsg, {1, address(&all.message), MSG_WAITALL}, memory) == 0);
}

TEST_CASE("the rest of a receive goes behind what has come, across pieces") {
  fakes::OwnMemory memory;
  Scattered all;
  const Args message{1, address(&all.message), MSG_WAITALL};
  CHECK(text_of(rest_of_receive(SYS_recvmsg, message, 0, kMost, memory)) == "abc|defgh|ij|");
  CHECK(text_of(rest_of_receive(SYS_recvmsg, message, 2, kMost, memory)) == "c|defgh|ij|");
  CHECK(text_of(rest_of_receive(SYS_recvmsg, message, 3, kMost, memory)) == "defgh|ij|");
  CHECK(text_of(rest_of_receive(SYS_recvmsg, message, 4, 5, memory)) == "efgh|i|");
  CHECK(text_of(rest_of_receive(SYS_recvmsg, message, 10, kMost, memory)).empty());
  const Args plain{1, address(all.second.data()), 5, MSG_WAITALL};
  CHECK(text_of(rest_of_receive(SYS_recvfrom, plain, 1, 3, memory)) == "efg|");
}
