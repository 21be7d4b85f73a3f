// Calls through the forwarder's whole path, with a deputy in this process, against Linux itself: each case
// makes the call by plan_call, frame, execution, parse_reply and deliver_outs, and expects what the native
// call gives, in result and in memory.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/call_plan.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/net.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <string>

#include "libmosix/common/unique_fd.h"
#include "tests/fakes/guest_memories.h"
#include "tests/fakes/local_deputy.h"

using namespace mosix;
using fakes::OwnMemory;

namespace {

using Arguments = std::array<uint64_t, 6>;

template <class T>
uint64_t word(T value) {
  if constexpr (std::is_null_pointer_v<T>) {
    return 0;
  } else if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<uint64_t>(value);
  } else {
    return static_cast<uint64_t>(value);
  }
}

template <class... T>
Arguments arguments(T... values) {
  Arguments args{};
  size_t at = 0;
  ((args[at++] = word(values)), ...);
  return args;
}

/// The result as the kernel returns it, or -EOVERFLOW where the plan says that the call comes home.
int64_t forward(long number, const Arguments& args, OwnMemory& memory) {
  auto plan = plan_call(syscall_row(static_cast<uint64_t>(number), args), args, memory);
  if (!plan) return -plan.error().code;
  const auto frame = plan->frame_body();
  fakes::CallFrame apart;
  CHECK(fakes::take_apart(frame, apart) == "");
  const auto bytes = fakes::execute(frame);
  const auto reply = parse_reply(*plan, bytes.data(), bytes.size());
  REQUIRE(reply);
  if (!deliver_outs(*plan, *reply, memory)) return -EFAULT;
  return reply->result;
}

template <class... T>
int64_t forward(long number, T... values) {
  OwnMemory memory;
  return forward(number, arguments(values...), memory);
}

/// What Linux says to the same call.
template <class... T>
int64_t native(long number, T... values) {
  const int64_t result = syscall(number, values...);
  return result == -1 ? -errno : result;
}

/// Two pages, the second of which nobody can read.
class Brink {
 public:
  Brink() {
    pages_ =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(pages_ + 4096, 4096, PROT_NONE);
  }
  ~Brink() { munmap(pages_, 8192); }
  Brink(const Brink&) = delete;
  Brink& operator=(const Brink&) = delete;
  /// So many bytes before the end of what can be read.
  char* before_end(size_t bytes) const { return pages_ + 4096 - bytes; }
  char* beyond() const { return pages_ + 4096; }

 private:
  char* pages_;
};

struct Pipe {
  UniqueFd reader, writer;
  Pipe() {
    int fds[2];
    REQUIRE(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
    reader = UniqueFd(fds[0]);
    writer = UniqueFd(fds[1]);
  }
};

struct SocketPair {
  UniqueFd a, b;
  explicit SocketPair(int type) {
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    a = UniqueFd(fds[0]);
    b = UniqueFd(fds[1]);
  }
};

UniqueFd memory_file() { return UniqueFd(memfd_create("call_plan_test", MFD_CLOEXEC)); }

}  // namespace

TEST_CASE("reads and writes carry bytes and nothing else") {
  Pipe pipe;
  CHECK(forward(SYS_write, pipe.writer.get(), "hello", 5) == 5);
  std::string buffer(16, '#');
  CHECK(forward(SYS_read, pipe.reader.get(), buffer.data(), 16) == 5);
  CHECK(buffer == "hello###########");
  CHECK(forward(SYS_read, pipe.reader.get(), buffer.data(), 16) == -EAGAIN);
  CHECK(buffer == "hello###########");
  CHECK(forward(SYS_write, pipe.writer.get(), "hello", 0) == 0);
  CHECK(forward(SYS_write, pipe.writer.get(), nullptr, 0) == 0);
}

TEST_CASE("bad pointers are judged by home's kernel, after the descriptor") {
  Brink brink;
  Pipe pipe;
  CHECK(forward(SYS_write, -1, brink.beyond(), 5) == -EBADF);
  CHECK(forward(SYS_write, pipe.writer.get(), brink.beyond(), 5) == -EFAULT);
  CHECK(forward(SYS_write, pipe.writer.get(), nullptr, 5) == -EFAULT);
  CHECK(forward(SYS_write, pipe.writer.get(), 8, 5) == -EFAULT);
  CHECK(forward(SYS_write, pipe.writer.get(), -1L, 5) == -EFAULT);
  CHECK(forward(SYS_read, -1, brink.beyond(), 5) == -EBADF);
  REQUIRE(write(pipe.writer.get(), "x", 1) == 1);
  CHECK(forward(SYS_read, pipe.reader.get(), nullptr, 1) == -EFAULT);
  CHECK(forward(SYS_read, pipe.reader.get(), brink.beyond(), 1) == -EFAULT);
  CHECK(forward(SYS_connect, -1, brink.beyond(), 16) == -EBADF);
  CHECK(forward(SYS_write, pipe.writer.get(), "hello", -1L) == -EFAULT);
}

TEST_CASE("a write up to an unmapped page transfers what the file takes") {
  Brink brink;
  Pipe pipe;
  SocketPair stream(SOCK_STREAM), datagrams(SOCK_DGRAM);
  const UniqueFd file = memory_file();
  memset(brink.before_end(3), 'a', 3);
  for (int fd : {pipe.writer.get(), stream.a.get(), datagrams.a.get(), file.get()})
    CHECK(forward(SYS_write, fd, brink.before_end(3), 100) ==
          native(SYS_write, fd, brink.before_end(3), 100));
  CHECK(forward(SYS_pwrite64, file.get(), brink.before_end(3), 100, 7) ==
        native(SYS_pwrite64, file.get(), brink.before_end(3), 100, 7));
}

TEST_CASE("paths: across pages, too long, unterminated") {
  Brink brink;
  const std::string path = "/proc/self/stat";
  memcpy(brink.before_end(path.size() + 1), path.c_str(), path.size() + 1);
  UniqueFd fd(static_cast<int>(forward(SYS_openat, AT_FDCWD, brink.before_end(path.size() + 1), O_RDONLY)));
  CHECK(fd.get() >= 0);
  memset(brink.before_end(8), '/', 8);
  CHECK(forward(SYS_openat, AT_FDCWD, brink.before_end(8), O_RDONLY) == -EFAULT);
  CHECK(forward(SYS_openat, AT_FDCWD, nullptr, O_RDONLY) == -EFAULT);
  CHECK(forward(SYS_openat, AT_FDCWD, "", O_RDONLY) == -ENOENT);
  const std::string most(4094, '/'), too_long(4096, '/'), giant(100000, '/');
  CHECK(forward(SYS_access, most.c_str(), F_OK) == access(most.c_str(), F_OK));
  CHECK(forward(SYS_access, too_long.c_str(), F_OK) == -ENAMETOOLONG);
  CHECK(forward(SYS_access, giant.c_str(), F_OK) == -ENAMETOOLONG);
  const std::string exact = std::string(4090, '/') + "./././";  // 4096 with its zero would not fit, 4095 does
  CHECK(forward(SYS_access, exact.c_str() + 1, F_OK) == 0);
}

TEST_CASE("structures arrive whole, also at the edge of a page") {
  Brink brink;
  struct stat native {};
  REQUIRE(stat("/etc/passwd", &native) == 0);
  auto* forwarded = reinterpret_cast<struct stat*>(brink.before_end(sizeof(struct stat)));
  CHECK(forward(SYS_stat, "/etc/passwd", forwarded) == 0);
  CHECK(memcmp(forwarded, &native, sizeof(native)) == 0);
  memset(forwarded, '#', sizeof(native));
  CHECK(forward(SYS_stat, "/no/such", forwarded) == -ENOENT);
  CHECK(reinterpret_cast<char*>(forwarded)[0] == '#');
  CHECK(forward(SYS_stat, "/etc/passwd", brink.beyond()) == -EFAULT);
}

TEST_CASE("results measure what comes back") {
  char native[256], forwarded[256];
  memset(native, '#', sizeof(native));
  memset(forwarded, '#', sizeof(forwarded));
  CHECK(forward(SYS_readlink, "/proc/self/exe", forwarded, 200) == readlink("/proc/self/exe", native, 200));
  CHECK(memcmp(native, forwarded, sizeof(native)) == 0);
  CHECK(forward(SYS_getcwd, forwarded, 256) == syscall(SYS_getcwd, native, 256));
  CHECK(memcmp(native, forwarded, sizeof(native)) == 0);
  CHECK(forward(SYS_getcwd, forwarded, 1) == -ERANGE);
  CHECK(forward(SYS_getgroups, 0, nullptr) == syscall(SYS_getgroups, 0, nullptr));
  CHECK(forward(SYS_getgroups, -1, forwarded) == -EINVAL);
}

TEST_CASE("writev gathers, entry by entry, as the kernel would") {
  Brink brink;
  Pipe pipe;
  memset(brink.before_end(4), 'z', 4);
  char buffer[64];
  iovec good[] = {{const_cast<char*>("ab"), 2}, {nullptr, 0}, {const_cast<char*>("cde"), 3}};
  CHECK(forward(SYS_writev, pipe.writer.get(), good, 3) == 5);
  CHECK(read(pipe.reader.get(), buffer, sizeof(buffer)) == 5);
  CHECK(memcmp(buffer, "abcde", 5) == 0);
  CHECK(forward(SYS_writev, pipe.writer.get(), good, 0) == 0);
  CHECK(forward(SYS_writev, pipe.writer.get(), good, -1L) == -EINVAL);
  CHECK(forward(SYS_writev, pipe.writer.get(), brink.before_end(8), 1) == -EFAULT);
  CHECK(forward(SYS_writev, -1, brink.beyond(), 1) == -EBADF);

  iovec half[] = {{const_cast<char*>("ab"), 2}, {brink.before_end(4), 10}, {const_cast<char*>("q"), 1}};
  const UniqueFd file = memory_file();
  for (int fd : {pipe.writer.get(), file.get()})
    CHECK(forward(SYS_writev, fd, half, 3) == native(SYS_writev, fd, half, 3));

  iovec negative[] = {{const_cast<char*>("ab"), 2}, {buffer, static_cast<size_t>(-5)}};
  CHECK(forward(SYS_writev, pipe.writer.get(), negative, 2) == -EINVAL);
  std::vector<iovec> many(1025, iovec{const_cast<char*>("x"), 1});
  CHECK(forward(SYS_writev, pipe.writer.get(), many.data(), 1025) == -EINVAL);
  CHECK(forward(SYS_writev, pipe.writer.get(), many.data(), 1024) == 1024);
}

TEST_CASE("readv spreads the result and leaves the rest alone") {
  Pipe pipe;
  REQUIRE(write(pipe.writer.get(), "abcdefgh", 8) == 8);
  std::string one(3, '#'), two(0, '#'), three(4, '#'), four(4, '#');
  iovec pieces[] = {{one.data(), 3}, {nullptr, 0}, {three.data(), 4}, {four.data(), 4}};
  CHECK(forward(SYS_readv, pipe.reader.get(), pieces, 4) == 8);
  CHECK(one + three + four == "abcdefgh###");
  std::vector<iovec> many(1024);
  std::string bytes(1024, '#');
  for (size_t i = 0; i < many.size(); ++i) many[i] = {&bytes[i], 1};
  REQUIRE(write(pipe.writer.get(), "0123456789", 10) == 10);
  CHECK(forward(SYS_readv, pipe.reader.get(), many.data(), 1024) == 10);
  CHECK(bytes.substr(0, 12) == "0123456789##");
}

TEST_CASE("O_DIRECT buffers keep their alignment") {
  auto* page =
      static_cast<char*>(mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  OwnMemory memory;
  iovec pieces[] = {{page + 4096, 512}, {page + 8192, 4096}, {page + 512, 512}};
  const auto args = arguments(0, pieces, 3);
  for (long number : {SYS_readv, SYS_writev}) {
    const auto plan = plan_call(syscall_row(static_cast<uint64_t>(number)), args, memory);
    REQUIRE(plan);
    std::vector<uint32_t> targets;
    for (const Reloc& reloc : plan->relocs) targets.push_back(reloc.target);
    REQUIRE(targets.size() == 3);
    CHECK(targets[0] % 4096 == 0);
    CHECK(targets[1] % 4096 == 0);
    CHECK(targets[2] % 512 == 0);
    CHECK(plan->body.in_bytes % 512 == 0);  // by which a deputy knows
  }
  munmap(page, 16384);
}

TEST_CASE("sendmsg and recvmsg carry names, data and descriptors, and leave the program's pointers") {
  SocketPair sockets(SOCK_DGRAM);
  UniqueFd file = memory_file();
  iovec out[] = {{const_cast<char*>("abc"), 3}, {const_cast<char*>("defg"), 4}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = out;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = file.get();
  memcpy(CMSG_DATA(head), &fd, sizeof(fd));
  CHECK(forward(SYS_sendmsg, sockets.a.get(), &message, 0) == 7);

  char first[4], second[16], received_control[256];
  memset(second, '#', sizeof(second));
  iovec in[] = {{first, sizeof(first)}, {second, sizeof(second)}};
  sockaddr_storage name;
  msghdr received{};
  received.msg_iov = in;
  received.msg_iovlen = 2;
  received.msg_name = &name;
  received.msg_namelen = sizeof(name);
  received.msg_control = received_control;
  received.msg_controllen = sizeof(received_control);
  received.msg_flags = 12345;
  CHECK(forward(SYS_recvmsg, sockets.b.get(), &received, MSG_CMSG_CLOEXEC) == 7);
  CHECK(std::string(first, 4) == "abcd");
  CHECK(std::string(second, 4) == "efg#");
  CHECK(received.msg_iov == in);
  CHECK(received.msg_iovlen == 2);
  CHECK(received.msg_name == &name);
  CHECK(received.msg_control == received_control);
  CHECK(received.msg_namelen == 0);  // a socket pair has no names
  CHECK(received.msg_controllen == CMSG_SPACE(sizeof(int)));
  CHECK(received.msg_flags == MSG_CMSG_CLOEXEC);
  cmsghdr* passed = CMSG_FIRSTHDR(&received);
  REQUIRE(passed != nullptr);
  int passed_fd;
  memcpy(&passed_fd, CMSG_DATA(passed), sizeof(passed_fd));
  CHECK(fcntl(passed_fd, F_GETFD) == FD_CLOEXEC);
  close(passed_fd);

  CHECK(forward(SYS_recvmsg, sockets.b.get(), &received, 0) == -EAGAIN);
  CHECK(forward(SYS_sendmsg, sockets.a.get(), nullptr, 0) == -EFAULT);
  CHECK(forward(SYS_sendmsg, -1, 16, 0) == -EBADF);
  message.msg_iovlen = 1025;
  CHECK(forward(SYS_sendmsg, sockets.a.get(), &message, 0) == -EMSGSIZE);
  message.msg_iovlen = 2;
  message.msg_namelen = static_cast<socklen_t>(-1);
  CHECK(forward(SYS_sendmsg, sockets.a.get(), &message, 0) == -EINVAL);
  message.msg_namelen = 0;
  message.msg_controllen = size_t{1} << 40;
  CHECK(forward(SYS_sendmsg, sockets.a.get(), &message, 0) == -ENOBUFS);
}

TEST_CASE("socket addresses: truncated, with their true length, and in names") {
  UniqueFd server(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(forward(SYS_bind, server.get(), &any, sizeof(any)) == 0);
  CHECK(forward(SYS_bind, server.get(), &any, -1) == -EINVAL);
  CHECK(forward(SYS_bind, server.get(), &any, 1 << 20) == -EINVAL);
  sockaddr_in native{}, forwarded{};
  socklen_t native_length = 6, forwarded_length = 6;
  REQUIRE(getsockname(server.get(), reinterpret_cast<sockaddr*>(&native), &native_length) == 0);
  CHECK(forward(SYS_getsockname, server.get(), &forwarded, &forwarded_length) == 0);
  CHECK(forwarded_length == native_length);
  CHECK(forwarded_length == sizeof(sockaddr_in));
  CHECK(memcmp(&native, &forwarded, sizeof(native)) == 0);
  socklen_t uninitialised = 0x7ffd1234;  // programs that forgot to set it get away with it
  CHECK(forward(SYS_getsockname, server.get(), &forwarded, &uninitialised) == 0);
  CHECK(uninitialised == sizeof(sockaddr_in));
  socklen_t negative = static_cast<socklen_t>(-4);
  CHECK(forward(SYS_getsockname, server.get(), &forwarded, &negative) == -EINVAL);
  CHECK(forward(SYS_getsockname, server.get(), &forwarded, nullptr) == -EFAULT);

  UniqueFd client(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  CHECK(forward(SYS_sendto, client.get(), "ping", 4, 0, &forwarded, sizeof(forwarded)) == 4);
  sockaddr_in from{};
  socklen_t from_length = sizeof(from);
  char buffer[8];
  CHECK(forward(SYS_recvfrom, server.get(), buffer, 8, MSG_PEEK, &from, &from_length) == 4);
  CHECK(from_length == sizeof(from));
  CHECK(from.sin_family == AF_INET);
  CHECK(forward(SYS_recvfrom, server.get(), buffer, 2, MSG_PEEK | MSG_TRUNC, nullptr, 0x123456789) == 4);
  CHECK(forward(SYS_recvfrom, server.get(), buffer, 8, 0, nullptr, nullptr) == 4);
  int value = 0;
  socklen_t value_length = sizeof(value);
  CHECK(forward(SYS_getsockopt, server.get(), SOL_SOCKET, SO_TYPE, &value, &value_length) == 0);
  CHECK(value == SOCK_DGRAM);
}

TEST_CASE("recvmmsg and sendmmsg: messages beyond the result stay as they were") {
  SocketPair sockets(SOCK_DGRAM);
  iovec pieces[] = {
      {const_cast<char*>("one"), 3}, {const_cast<char*>("two"), 3}, {const_cast<char*>("more"), 4}};
  mmsghdr out[2]{};
  out[0].msg_hdr.msg_iov = pieces;
  out[0].msg_hdr.msg_iovlen = 1;
  out[1].msg_hdr.msg_iov = pieces + 1;
  out[1].msg_hdr.msg_iovlen = 2;
  CHECK(forward(SYS_sendmmsg, sockets.a.get(), out, 2, 0) == 2);
  CHECK(out[0].msg_len == 3);
  CHECK(out[1].msg_len == 7);

  char data[4][4], name[128];
  memset(data, '#', sizeof(data));
  memset(name, '#', sizeof(name));
  iovec in[4];
  for (int i = 0; i < 4; ++i) in[i] = {data[i], 4};
  mmsghdr received[3]{};
  for (auto& entry : received) {
    entry.msg_len = 77;
    entry.msg_hdr.msg_flags = 99;
  }
  received[0].msg_hdr.msg_iov = in;
  received[0].msg_hdr.msg_iovlen = 1;
  received[1].msg_hdr.msg_iov = in + 1;
  received[1].msg_hdr.msg_iovlen = 2;
  received[2].msg_hdr.msg_iov = in + 3;
  received[2].msg_hdr.msg_iovlen = 1;
  received[2].msg_hdr.msg_name = name;
  received[2].msg_hdr.msg_namelen = sizeof(name);
  CHECK(forward(SYS_recvmmsg, sockets.b.get(), received, 3, 0, nullptr) == 2);
  CHECK(std::string(data[0], 12) == "one#twomore#");
  CHECK(received[0].msg_len == 3);
  CHECK(received[1].msg_len == 7);
  CHECK(received[1].msg_hdr.msg_iov == in + 1);
  CHECK(received[1].msg_hdr.msg_flags == 0);
  CHECK(received[2].msg_len == 77);
  CHECK(received[2].msg_hdr.msg_flags == 99);
  CHECK(received[2].msg_hdr.msg_namelen == sizeof(name));
  CHECK(name[0] == '#');
  CHECK(forward(SYS_recvmmsg, sockets.b.get(), received, 3, 0, nullptr) == -EAGAIN);
}

TEST_CASE("poll returns revents only, select only the words that changed") {
  Pipe pipe;
  REQUIRE(write(pipe.writer.get(), "x", 1) == 1);
  pollfd fds[] = {{pipe.reader.get(), POLLIN, 0}, {-1, POLLIN, 99}, {9999, POLLIN, 0}};
  OwnMemory memory;
  CHECK(forward(SYS_poll, arguments(fds, 3, 0), memory) == 2);
  CHECK(fds[0].revents == POLLIN);
  CHECK(fds[1].revents == 0);
  CHECK(fds[2].revents == POLLNVAL);
  CHECK(forward(SYS_poll, fds, -1, 0) == -EINVAL);
  CHECK(forward(SYS_poll, nullptr, 0, 0) == 0);

  // Programs pass the size of the table as the count and a set for 64.
  Brink brink;
  auto* set = reinterpret_cast<uint64_t*>(brink.before_end(8));
  *set = uint64_t{1} << pipe.reader.get();
  timeval timeout{0, 0};
  CHECK(forward(SYS_select, 64, set, nullptr, nullptr, &timeout) == 1);
  CHECK(*set == uint64_t{1} << pipe.reader.get());
  *set = uint64_t{1} << pipe.writer.get();
  CHECK(forward(SYS_select, 64, set, nullptr, nullptr, &timeout) == 0);
  CHECK(*set == 0);
  CHECK(forward(SYS_select, -1, set, nullptr, nullptr, &timeout) == -EINVAL);
  CHECK(forward(SYS_select, 64, brink.beyond(), nullptr, nullptr, &timeout) == -EFAULT);
}

TEST_CASE("select forgives a timeout in read-only memory, as Linux does") {
  auto* page =
      static_cast<timeval*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  *page = {0, 1000};
  mprotect(page, 4096, PROT_READ);
  CHECK(syscall(SYS_select, 0, nullptr, nullptr, nullptr, page) == 0);
  CHECK(forward(SYS_select, 0, nullptr, nullptr, nullptr, page) == 0);
  munmap(page, 4096);
}

TEST_CASE("pselect6 takes its mask from a structure in a structure") {
  Pipe pipe;
  uint64_t set = uint64_t{1} << pipe.reader.get(), mask = 0;
  struct {
    const void* mask;
    size_t bytes;
  } pack{&mask, 8};
  timespec timeout{0, 1000000};
  CHECK(forward(SYS_pselect6, 64, &set, nullptr, nullptr, &timeout, &pack) == 0);
  CHECK(timeout.tv_nsec == 0);
  pack.bytes = 7;
  CHECK(forward(SYS_pselect6, 64, &set, nullptr, nullptr, &timeout, &pack) == -EINVAL);
  pack = {reinterpret_cast<void*>(uint64_t{1} << 60), 8};
  CHECK(forward(SYS_pselect6, 64, &set, nullptr, nullptr, &timeout, &pack) == -EFAULT);
  pack = {nullptr, 8};
  CHECK(forward(SYS_pselect6, 64, &set, nullptr, nullptr, &timeout, &pack) == 0);
}

TEST_CASE("epoll returns whole events, and counts out of range are home's to refuse") {
  Pipe pipe;
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{EPOLLIN, {.u64 = 0x1122334455667788}};
  CHECK(forward(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_ADD, pipe.reader.get(), &event) == 0);
  REQUIRE(write(pipe.writer.get(), "x", 1) == 1);
  epoll_event ready[4];
  memset(ready, '#', sizeof(ready));
  CHECK(forward(SYS_epoll_wait, epoll.get(), ready, 4, 0) == 1);
  CHECK(uint64_t{ready[0].data.u64} == 0x1122334455667788);
  CHECK(reinterpret_cast<char*>(&ready[1])[0] == '#');
  CHECK(forward(SYS_epoll_wait, epoll.get(), ready, 0, 0) == -EINVAL);
  CHECK(forward(SYS_epoll_wait, epoll.get(), ready, uint32_t(-1), 0) == -EINVAL);
  CHECK(forward(SYS_epoll_wait, epoll.get(), ready, -1L, 0) == -EINVAL);
}

TEST_CASE("what a call leaves alone is not written") {
  timespec request{0, 1000}, rest{77, 88};
  OwnMemory memory;
  CHECK(forward(SYS_nanosleep, arguments(&request, &rest), memory) == 0);
  CHECK(rest.tv_sec == 77);
  CHECK(memory.writes == 0);
  request.tv_nsec = 2000000000;
  CHECK(forward(SYS_nanosleep, arguments(&request, &rest), memory) == -EINVAL);
  CHECK(memory.writes == 0);

  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  int status = 4711;
  CHECK(forward(SYS_wait4, arguments(child, &status, WNOHANG, nullptr), memory) == 0);
  CHECK(status == 4711);
  kill(child, SIGKILL);
  CHECK(forward(SYS_wait4, arguments(child, &status, 0, nullptr), memory) == child);
  CHECK(WTERMSIG(status) == SIGKILL);
}

TEST_CASE("System V messages have a head that the size does not count") {
  const int queue = msgget(IPC_PRIVATE, 0600);
  REQUIRE(queue >= 0);
  struct {
    long type;
    char text[16];
  } message{5, "hello"}, received{};
  memset(received.text, '#', sizeof(received.text));
  CHECK(forward(SYS_msgsnd, queue, &message, 5, 0) == 0);
  CHECK(forward(SYS_msgrcv, queue, &received, 16, 0, IPC_NOWAIT) == 5);
  CHECK(received.type == 5);
  CHECK(std::string(received.text, 8) == "hello###");
  CHECK(forward(SYS_msgrcv, queue, &received, 16, 0, IPC_NOWAIT) == -ENOMSG);
  CHECK(forward(SYS_msgsnd, queue, &message, -1L, 0) == -EINVAL);
  msgctl(queue, IPC_RMID, nullptr);
}

TEST_CASE("transfers beyond a frame are cut where that is legal, and come home where it is not") {
  UniqueFd file = memory_file();
  const size_t size = 40u << 20;
  auto* data =
      static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memset(data, 'x', size);
  const int64_t written = forward(SYS_write, file.get(), data, size);
  CHECK(written > (31 << 20));
  CHECK(written < (32 << 20));
  const int64_t read_back = forward(SYS_pread64, file.get(), data, size, 0);
  CHECK(read_back == written);
  iovec pieces[] = {{data, 20u << 20}, {data, 20u << 20}};
  CHECK(forward(SYS_pwritev, file.get(), pieces, 2, 0, 0) > (31 << 20));
  CHECK(forward(SYS_preadv, file.get(), pieces, 2, 0, 0) > (31 << 20));
  CHECK(forward(SYS_setsockopt, file.get(), SOL_SOCKET, 9999, data, size) == -kCannotCarry);
  CHECK(forward(SYS_fsetxattr, file.get(), "user.x", data, size_t{1} << 40, 0) == -E2BIG);
  munmap(data, size);
}

TEST_CASE("only forwarded rows are forwarded") {
  OwnMemory memory;
  for (const SyscallRow& row : syscall_table()) {
    if (row.where == Where::kHome || row.where == Where::kSplit) continue;
    const auto plan = plan_call(row, {}, memory);
    CHECK(!plan);
    if (!plan) CHECK(plan.error().code == kCannotCarry);
  }
  CHECK(!plan_call(syscall_row(100000), {}, memory));
  CHECK(!plan_call(syscall_row(SYS_clone), arguments(0, 0, &memory), memory));
}

TEST_CASE("exec carries twenty thousand arguments") {
  std::vector<std::string> words{"/bin/sh", "-c", "echo $# $1 ${20000}", "sh"};
  for (int i = 1; i <= 20000; ++i) words.push_back("argument-" + std::to_string(i));
  std::vector<char*> argv, envp{nullptr};
  for (std::string& text : words) argv.push_back(text.data());
  argv.push_back(nullptr);
  OwnMemory memory;
  const auto args = arguments("/bin/sh", argv.data(), envp.data());
  const auto plan = plan_call(syscall_row(SYS_execve), args, memory);
  REQUIRE(plan);
  const auto frame = plan->frame_body();
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(fds[1], 1);
    close(fds[0]);
    fakes::execute(frame);
    _exit(99);
  }
  close(fds[1]);
  char output[128]{};
  CHECK(read(fds[0], output, sizeof(output) - 1) > 0);
  CHECK(std::string(output) == "20000 argument-1 argument-20000\n");
  int status;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  close(fds[0]);
}

TEST_CASE("exec's errors are home's") {
  Brink brink;
  char* argv[] = {const_cast<char*>("x"), nullptr};
  char* bad_word[] = {brink.beyond(), nullptr};
  CHECK(forward(SYS_execve, "/no/such/program", argv, argv) == -ENOENT);
  CHECK(forward(SYS_execve, "/bin/true", bad_word, argv) == -EFAULT);
  CHECK(forward(SYS_execve, "/bin/true", brink.beyond(), argv) == -EFAULT);
  std::string giant(200000, 'x');
  char* long_word[] = {giant.data(), nullptr};
  CHECK(forward(SYS_execve, "/bin/true", long_word, argv) == -E2BIG);
  std::vector<char*> many(100001, argv[0]);
  many.back() = nullptr;
  CHECK(forward(SYS_execve, "/bin/true", many.data(), argv) == -kCannotCarry);
}

TEST_CASE("a reply that does not fit its plan is garbled") {
  OwnMemory memory;
  char buffer[64];
  const auto plan = plan_call(syscall_row(SYS_read), arguments(0, buffer, 64), memory);
  REQUIRE(plan);
  fakes::CallFrame frame;
  REQUIRE(fakes::take_apart(plan->frame_body(), frame) == "");
  fakes::Scratch scratch(frame);
  const auto good = fakes::reply_bytes(frame, scratch.data(), 61, std::vector<Siginfo>(2));
  const auto code = [&](const std::vector<uint8_t>& bytes) {
    const auto reply = parse_reply(*plan, bytes.data(), bytes.size());
    return reply ? 0 : reply.error().code;
  };
  CHECK(code(good) == 0);
  for (size_t length = 0; length < good.size(); ++length) {
    // Exactly as long as it is, so that a sanitizer sees any step beyond.
    CHECK(code(std::vector<uint8_t>(good.begin(), good.begin() + static_cast<long>(length))) == EBADMSG);
  }
  auto longer = good;
  longer.push_back(0);
  CHECK(code(longer) == EBADMSG);
  const auto changed = [&](size_t at, uint8_t value) {
    auto bytes = good;
    bytes[at] = value;
    return code(bytes);
  };
  CHECK(changed(offsetof(ReplyBody, verdict), 7) == EBADMSG);
  CHECK(changed(offsetof(ReplyBody, out_count), 2) == EBADMSG);
  CHECK(changed(offsetof(ReplyBody, signal_count), 1) == EBADMSG);
  CHECK(changed(offsetof(ReplyBody, signal_count), 200) == EBADMSG);
  CHECK(changed(sizeof(ReplyBody), 65) == EBADMSG);
  CHECK(changed(sizeof(ReplyBody) + 3, 1) == EBADMSG);
}

TEST_CASE("signals come with their number and in order") {
  OwnMemory memory;
  const auto plan = plan_call(syscall_row(SYS_getppid), {}, memory);
  REQUIRE(plan);
  fakes::CallFrame frame;
  REQUIRE(fakes::take_apart(plan->frame_body(), frame) == "");
  fakes::Scratch scratch(frame);
  std::vector<Siginfo> signals(3);
  for (uint8_t i = 0; i < 3; ++i) signals[i].bytes[0] = static_cast<uint8_t>(10 + i);
  auto bytes = fakes::reply_bytes(frame, scratch.data(), -513, signals);
  bytes[offsetof(ReplyBody, verdict)] = 1;
  bytes[offsetof(ReplyBody, first_signal)] = 42;
  const auto reply = parse_reply(*plan, bytes.data(), bytes.size());
  REQUIRE(reply);
  CHECK(reply->verdict == Verdict::kRestart);
  CHECK(reply->result == -513);
  CHECK(reply->first_signal == 42);
  REQUIRE(reply->signals.size() == 3);
  CHECK(reply->signals[2].bytes[0] == 12);
}
