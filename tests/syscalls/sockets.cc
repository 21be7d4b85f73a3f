// Unix and TCP sockets: addresses, options, messages, descriptors on their way to another process.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"

using check::Fenced;
using check::Scratch;

namespace {

struct Pair {
  int a = -1, b = -1;
  explicit Pair(int type = SOCK_STREAM) {
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
    a = ends[0];
    b = ends[1];
  }
  ~Pair() {
    if (a >= 0) close(a);
    if (b >= 0) close(b);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
};

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

/// A listening TCP socket on loopback and its port.
int listener(int* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  sockaddr_in address = loopback(0);
  CHECK_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  CHECK_EQ(listen(fd, 8), 0);
  socklen_t length = sizeof address;
  CHECK_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  CHECK_EQ(length, static_cast<socklen_t>(sizeof address));
  *port = ntohs(address.sin_port);
  return fd;
}

int connected_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(port);
  CHECK_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

void pair_carries_bytes() {
  Pair pair;
  CHECK_EQ(send(pair.a, "stream", 6, 0), 6);
  char buffer[16] = {};
  CHECK_EQ(recv(pair.b, buffer, 3, MSG_PEEK), 3);
  CHECK_EQ(recv(pair.b, buffer, sizeof buffer, 0), 6);
  CHECK_EQ(std::string(buffer), "stream");
  CHECK_FAILS(recv(pair.b, buffer, 1, MSG_DONTWAIT), EAGAIN);
  CHECK_EQ(shutdown(pair.a, SHUT_WR), 0);
  CHECK_EQ(recv(pair.b, buffer, 1, 0), 0);
  close(pair.b);
  pair.b = -1;
  CHECK_FAILS(send(pair.a, "x", 1, MSG_NOSIGNAL), EPIPE);
}

void messages_keep_their_borders() {
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    Pair pair(type);
    CHECK_EQ(send(pair.a, "first", 5, 0), 5);
    CHECK_EQ(send(pair.a, "second", 6, 0), 6);
    char buffer[16] = {};
    CHECK_EQ(recv(pair.b, buffer, 2, MSG_TRUNC), 5);
    CHECK_EQ(std::string(buffer, 2), "fi");
    CHECK_EQ(recv(pair.b, buffer, sizeof buffer, 0), 6);
    CHECK_EQ(std::string(buffer, 6), "second");
  }
}

void send_fd(int socket, int fd, const char* text) {
  iovec part{const_cast<char*>(text), strlen(text)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  CHECK_EQ(sendmsg(socket, &message, 0), static_cast<ssize_t>(strlen(text)));
}

int receive_fd(int socket, std::string* text) {
  char buffer[64];
  iovec part{buffer, sizeof buffer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int)) + 64] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  CHECK(got > 0);
  *text = std::string(buffer, static_cast<size_t>(got));
  CHECK_EQ(message.msg_flags & MSG_CTRUNC, 0);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  CHECK(header != nullptr);
  CHECK_EQ(header->cmsg_type, static_cast<int>(SCM_RIGHTS));
  CHECK_EQ(header->cmsg_len, CMSG_LEN(sizeof(int)));
  CHECK(CMSG_NXTHDR(&message, header) == nullptr);
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  return fd;
}

void descriptors_travel() {
  Scratch scratch;
  Pair pair;
  const int file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK_EQ(write(file, "content", 7), 7);
  send_fd(pair.a, file, "take this");
  move_point();
  std::string text;
  const int got = receive_fd(pair.b, &text);
  CHECK_EQ(text, "take this");
  CHECK(got != file);
  char buffer[16] = {};
  CHECK_EQ(pread(got, buffer, sizeof buffer, 0), 7);
  CHECK_EQ(lseek(got, 0, SEEK_CUR), 7);  // one open file, two descriptors
  CHECK_EQ(lseek(file, 1, SEEK_SET), 1);
  CHECK_EQ(lseek(got, 0, SEEK_CUR), 1);
  close(got);
  close(file);
  // From a child to its parent: a pipe that only the child had.
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    send_fd(pair.a, ends[0], "pipe");
    _exit(write(ends[1], "from the child", 14) == 14 ? 0 : 2);
  }
  const int end = receive_fd(pair.b, &text);
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(read(end, buffer, 14), 14);
  CHECK_EQ(std::string(buffer, 14), "from the child");
  CHECK_EQ(read(end, buffer, 1), 0);
  close(end);
}

void credentials_travel() {
  Pair pair;
  const int on = 1;
  CHECK_EQ(setsockopt(pair.b, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
  CHECK_EQ(send(pair.a, "x", 1, 0), 1);
  char byte;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  memset(control, 'c', sizeof control);
  CHECK_EQ(recvmsg(pair.b, &message, 0), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  CHECK(header != nullptr);
  CHECK_EQ(header->cmsg_type, static_cast<int>(SCM_CREDENTIALS));
  for (size_t i = CMSG_LEN(sizeof(ucred)); i < sizeof control; ++i) CHECK_EQ(control[i], 'c');
  ucred who{};
  memcpy(&who, CMSG_DATA(header), sizeof who);
  CHECK_EQ(who.pid, getpid());
  CHECK_EQ(who.uid, getuid());
  ucred peer{};
  socklen_t length = sizeof peer;
  CHECK_EQ(getsockopt(pair.a, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
  CHECK_EQ(peer.pid, getpid());
}

void message_parts() {
  Pair pair(SOCK_DGRAM);
  char one[] = "abc", two[] = "defgh";
  iovec out[] = {{one, 3}, {two, 5}};
  msghdr message{};
  message.msg_iov = out;
  message.msg_iovlen = 2;
  CHECK_EQ(sendmsg(pair.a, &message, 0), 8);
  CHECK_EQ(sendmsg(pair.a, &message, 0), 8);
  Fenced fence;
  char tail[2];
  iovec in[] = {{fence.at(4), 4}, {tail, 2}};
  msghdr got{};
  got.msg_iov = in;
  got.msg_iovlen = 2;
  CHECK_EQ(recvmsg(pair.b, &got, 0), 6);
  CHECK_EQ(got.msg_flags & MSG_TRUNC, static_cast<int>(MSG_TRUNC));
  CHECK_EQ(std::string(fence.at(4), 4) + std::string(tail, 2), "abcdef");
  mmsghdr many[2]{};
  char first[16], second[16];
  iovec p1{first, 16}, p2{second, 16};
  many[0].msg_hdr.msg_iov = &p1;
  many[0].msg_hdr.msg_iovlen = 1;
  many[1].msg_hdr.msg_iov = &p2;
  many[1].msg_hdr.msg_iovlen = 1;
  CHECK_EQ(recvmmsg(pair.b, many, 2, MSG_DONTWAIT, nullptr), 1);
  CHECK_EQ(many[0].msg_len, 8u);
  mmsghdr sends[2]{};
  sends[0].msg_hdr.msg_iov = out;
  sends[0].msg_hdr.msg_iovlen = 1;
  sends[1].msg_hdr.msg_iov = out + 1;
  sends[1].msg_hdr.msg_iovlen = 1;
  CHECK_EQ(sendmmsg(pair.a, sends, 2, 0), 2);
  CHECK_EQ(sends[1].msg_len, 5u);
  CHECK_EQ(recvmmsg(pair.b, many, 2, 0, nullptr), 2);
  CHECK_EQ(std::string(second, many[1].msg_len), "defgh");
}

void unix_names() {
  Scratch scratch;
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  strcpy(name.sun_path, "socket");
  const socklen_t length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen("socket") + 1);
  CHECK_EQ(bind(server, reinterpret_cast<sockaddr*>(&name), length), 0);
  CHECK_EQ(listen(server, 1), 0);
  struct stat status {};
  CHECK_EQ(stat("socket", &status), 0);
  CHECK(S_ISSOCK(status.st_mode));
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&name), length), 0);
  sockaddr_un peer{};
  socklen_t peer_length = sizeof peer;
  const int accepted = accept4(server, reinterpret_cast<sockaddr*>(&peer), &peer_length, SOCK_CLOEXEC);
  CHECK(accepted >= 0);
  CHECK_EQ(peer_length, static_cast<socklen_t>(sizeof(sa_family_t)));
  peer_length = sizeof peer;
  CHECK_EQ(getpeername(client, reinterpret_cast<sockaddr*>(&peer), &peer_length), 0);
  CHECK_EQ(std::string(peer.sun_path), "socket");
  // A short buffer gets the beginning and the true length.
  peer_length = 4;
  memset(&peer, 0x55, sizeof peer);
  CHECK_EQ(getpeername(client, reinterpret_cast<sockaddr*>(&peer), &peer_length), 0);
  CHECK_EQ(peer_length, length);
  CHECK_EQ(std::string(peer.sun_path, 4), "soUU");
  for (int fd : {server, client, accepted}) close(fd);
  // Abstract names are Linux's own.
  const int hidden = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un automatic{};
  automatic.sun_family = AF_UNIX;
  CHECK_EQ(bind(hidden, reinterpret_cast<sockaddr*>(&automatic), sizeof(sa_family_t)), 0);
  peer_length = sizeof automatic;
  CHECK_EQ(getsockname(hidden, reinterpret_cast<sockaddr*>(&automatic), &peer_length), 0);
  CHECK_EQ(automatic.sun_path[0], '\0');
  CHECK_EQ(peer_length, static_cast<socklen_t>(sizeof(sa_family_t) + 6));
  close(hidden);
}

void tcp_connection() {
  int port = 0;
  const int server = listener(&port);
  const int client = connected_to(port);
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  const int accepted = accept(server, reinterpret_cast<sockaddr*>(&peer), &length);
  CHECK(accepted >= 0);
  CHECK_EQ(peer.sin_family, AF_INET);
  CHECK_EQ(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK);
  sockaddr_in own{};
  length = sizeof own;
  CHECK_EQ(getsockname(client, reinterpret_cast<sockaddr*>(&own), &length), 0);
  CHECK_EQ(own.sin_port, peer.sin_port);
  move_point();
  CHECK_EQ(write(client, "request", 7), 7);
  char buffer[16] = {};
  CHECK_EQ(recv(accepted, buffer, 7, MSG_WAITALL), 7);
  CHECK_EQ(std::string(buffer), "request");
  CHECK_EQ(shutdown(client, SHUT_WR), 0);
  CHECK_EQ(read(accepted, buffer, 1), 0);
  CHECK_EQ(send(accepted, "answer", 6, 0), 6);
  CHECK_EQ(recv(client, buffer, sizeof buffer, 0), 6);
  int waiting = -1;
  CHECK_EQ(ioctl(client, FIONREAD, &waiting), 0);
  CHECK_EQ(waiting, 0);
  for (int fd : {server, client, accepted}) close(fd);
  const int nobody = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in closed = loopback(port);
  CHECK_FAILS(connect(nobody, reinterpret_cast<const sockaddr*>(&closed), sizeof closed), ECONNREFUSED);
  close(nobody);
}

void tcp_bulk_between_threads() {
  int port = 0;
  const int server = listener(&port);
  constexpr size_t kBytes = 4 << 20;
  std::atomic<size_t> received{0};
  std::thread reader([&] {
    const int fd = accept(server, nullptr, nullptr);
    std::vector<char> buffer(50000);
    size_t at = 0;
    for (ssize_t got; (got = recv(fd, buffer.data(), buffer.size(), 0)) > 0;)
      for (ssize_t i = 0; i < got; ++i, ++at)
        if (buffer[static_cast<size_t>(i)] != static_cast<char>(at * 7)) return;
    received = at;
    close(fd);
  });
  const int client = connected_to(port);
  std::vector<char> data(kBytes);
  for (size_t i = 0; i < kBytes; ++i) data[i] = static_cast<char>(i * 7);
  for (size_t sent = 0; sent < kBytes;) {
    const ssize_t now = send(client, data.data() + sent, kBytes - sent, 0);
    CHECK(now > 0);
    sent += static_cast<size_t>(now);
  }
  close(client);
  reader.join();
  CHECK_EQ(received.load(), kBytes);
  close(server);
}

void connect_without_waiting() {
  int port = 0;
  const int server = listener(&port);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const sockaddr_in address = loopback(port);
  const int result = connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  CHECK(result == 0 || errno == EINPROGRESS);
  pollfd watch{client, POLLOUT, 0};
  CHECK_EQ(poll(&watch, 1, -1), 1);
  int error = -1;
  socklen_t length = sizeof error;
  CHECK_EQ(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  CHECK_EQ(error, 0);
  CHECK_EQ(fcntl(server, F_SETFL, O_NONBLOCK), 0);
  const int accepted = accept(server, nullptr, nullptr);
  CHECK(accepted >= 0);
  CHECK_FAILS(accept(server, nullptr, nullptr), EAGAIN);
  for (int fd : {server, client, accepted}) close(fd);
}

void options() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  int value = 0;
  socklen_t length = sizeof value;
  for (auto [level, option] :
       {std::pair{SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_KEEPALIVE}, {int{IPPROTO_TCP}, TCP_NODELAY}}) {
    CHECK_EQ(setsockopt(fd, level, option, &on, sizeof on), 0);
    length = sizeof value;
    CHECK_EQ(getsockopt(fd, level, option, &value, &length), 0);
    CHECK_EQ(value, 1);
  }
  length = sizeof value;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length), 0);
  CHECK_EQ(value, SOCK_STREAM);
  const timeval limit{0, 40000};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  timeval back{};
  length = sizeof back;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &back, &length), 0);
  CHECK_EQ(back.tv_usec, 40000);
  const linger wait{1, 2};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, sizeof wait), 0);
  linger got{};
  length = sizeof got;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_LINGER, &got, &length), 0);
  CHECK_EQ(got.l_linger, 2);
  // One byte of room: the length says how much was given.
  char small = 0;
  length = 1;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_TYPE, &small, &length), 0);
  CHECK_EQ(length, 1u);
  CHECK_FAILS(setsockopt(fd, SOL_SOCKET, 9999, &on, sizeof on), ENOPROTOOPT);
  tcp_info info{};
  length = sizeof info;
  CHECK_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  CHECK_EQ(static_cast<int>(info.tcpi_state), static_cast<int>(TCP_CLOSE));
  close(fd);
  CHECK_FAILS(socket(AF_INET, 77, 0), EINVAL);
  CHECK_FAILS(setsockopt(0x7fff, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), EBADF);
}

void receive_time_limit() {
  Pair pair;
  const timeval limit{0, 40000};
  CHECK_EQ(setsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  char byte;
  const double start = check::seconds_of(CLOCK_MONOTONIC);
  CHECK_FAILS(recv(pair.a, &byte, 1, 0), EAGAIN);
  // The limit is counted in ticks of the kernel, of which the first has begun: of 4 ms each as a rule, of 10 at most.
  CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.029);
}

constexpr size_t kPiece = 1000, kPieces = 5, kAll = kPiece * kPieces;

std::string numbered(size_t bytes) {
  std::string text(bytes, ' ');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 7 + i / 256);
  return text;
}

/// Gives so many pieces, each only when the one before it has been taken, and moves in between.
void send_pieces(const Pair& pair, size_t pieces) {
  const std::string text = numbered(kAll);
  for (size_t i = 0; i < pieces; ++i) {
    CHECK_EQ(write(pair.b, text.data() + i * kPiece, kPiece), static_cast<ssize_t>(kPiece));
    int left = 1;
    while (left != 0) {
      CHECK_EQ(ioctl(pair.a, FIONREAD, &left), 0);
      usleep(1000);
    }
    move_point();
  }
}

void receive_waits_for_all() {
  {
    Pair pair;
    std::thread sender([&] { send_pieces(pair, kPieces); });
    std::string got(kAll, '?');
    CHECK_EQ(recv(pair.a, got.data(), kAll, MSG_WAITALL), static_cast<ssize_t>(kAll));
    sender.join();
    CHECK(got == numbered(kAll));
  }
  Pair pair;
  std::thread sender([&] { send_pieces(pair, kPieces); });
  std::string first(kPiece / 2, '?'), second(kPiece * 2, '?'),
      third(kAll - first.size() - second.size(), '?');
  iovec pieces[] = {
      {first.data(), first.size()}, {second.data(), second.size()}, {third.data(), third.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 3;
  CHECK_EQ(recvmsg(pair.a, &message, MSG_WAITALL), static_cast<ssize_t>(kAll));
  sender.join();
  CHECK_EQ(message.msg_flags & ~MSG_EOR, 0);
  CHECK(first + second + third == numbered(kAll));
}

void receive_waits_for_all_that_comes() {
  {
    Pair pair;
    std::thread sender([&] {
      send_pieces(pair, 2);
      shutdown(pair.b, SHUT_WR);
    });
    std::string got(kAll, '?');
    CHECK_EQ(recv(pair.a, got.data(), kAll, MSG_WAITALL), static_cast<ssize_t>(2 * kPiece));
    sender.join();
    CHECK(got.substr(0, 2 * kPiece) == numbered(2 * kPiece));
  }
  {
    // A handler ends it, whatever its flags.
    Pair pair;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
    const pthread_t receiver = pthread_self();
    std::thread sender([&] {
      send_pieces(pair, 2);
      pthread_kill(receiver, SIGUSR1);
    });
    std::string got(kAll, '?');
    CHECK_EQ(recv(pair.a, got.data(), kAll, MSG_WAITALL), static_cast<ssize_t>(2 * kPiece));
    sender.join();
    signal(SIGUSR1, SIG_DFL);
  }
  {
    Pair pair;
    const timeval limit{0, 400000};
    CHECK_EQ(setsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    const double start = check::seconds_of(CLOCK_MONOTONIC);
    std::thread sender([&] {
      send_pieces(pair, 1);
      for (int place = 0; place < 3; ++place) move_point();
    });
    std::string got(kAll, '?');
    const ssize_t bytes = recv(pair.a, got.data(), kAll, MSG_WAITALL);
    // Whoever is slow to begin sees the limit pass before the piece comes.
    CHECK(bytes == static_cast<ssize_t>(kPiece) || (bytes == -1 && errno == EAGAIN));
    CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.389);
    if (bytes == -1) CHECK_EQ(recv(pair.a, got.data(), kPiece, MSG_WAITALL), static_cast<ssize_t>(kPiece));
    sender.join();
  }
  int messages[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, messages), 0);
  std::thread sender([&] {
    move_point();
    CHECK_EQ(send(messages[1], "short", 5, 0), 5);
    CHECK_EQ(send(messages[1], "next", 4, 0), 4);
  });
  char buffer[100];
  CHECK_EQ(recv(messages[0], buffer, sizeof buffer, MSG_WAITALL), 5);
  CHECK_EQ(recv(messages[0], buffer, sizeof buffer, MSG_WAITALL), 4);
  sender.join();
  close(messages[0]);
  close(messages[1]);
}

void udp_addresses() {
  const int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in name_a = loopback(0), name_b = loopback(0);
  CHECK_EQ(bind(a, reinterpret_cast<sockaddr*>(&name_a), sizeof name_a), 0);
  CHECK_EQ(bind(b, reinterpret_cast<sockaddr*>(&name_b), sizeof name_b), 0);
  socklen_t length = sizeof name_a;
  CHECK_EQ(getsockname(a, reinterpret_cast<sockaddr*>(&name_a), &length), 0);
  CHECK_EQ(getsockname(b, reinterpret_cast<sockaddr*>(&name_b), &length), 0);
  CHECK_EQ(sendto(a, "datagram", 8, 0, reinterpret_cast<sockaddr*>(&name_b), sizeof name_b), 8);
  char buffer[32] = {};
  sockaddr_in from{};
  length = sizeof from;
  CHECK_EQ(recvfrom(b, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length), 8);
  CHECK_EQ(length, static_cast<socklen_t>(sizeof from));
  CHECK_EQ(from.sin_port, name_a.sin_port);
  CHECK_EQ(connect(b, reinterpret_cast<sockaddr*>(&name_a), sizeof name_a), 0);
  CHECK_EQ(send(b, "back", 4, 0), 4);
  CHECK_EQ(recvfrom(a, buffer, sizeof buffer, 0, nullptr, nullptr), 4);
  CHECK_FAILS(recv(a, buffer, sizeof buffer, MSG_DONTWAIT), EAGAIN);
  close(a);
  close(b);
}

void ipv6_loopback() {
  const int fd = socket(AF_INET6, SOCK_STREAM, 0);
  if (fd < 0) {
    CHECK_EQ(errno, EAFNOSUPPORT);
    return;
  }
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    socklen_t length = sizeof address;
    CHECK_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
    CHECK_EQ(length, static_cast<socklen_t>(sizeof address));
    CHECK(address.sin6_port != 0);
  } else {
    CHECK_EQ(errno, EADDRNOTAVAIL);
  }
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"pair-carries-bytes", pair_carries_bytes},
                     {"messages-keep-their-borders", messages_keep_their_borders},
                     {"descriptors-travel", descriptors_travel},
                     {"credentials-travel", credentials_travel},
                     {"message-parts", message_parts},
                     {"unix-names", unix_names},
                     {"tcp-connection", tcp_connection},
                     {"tcp-bulk-between-threads", tcp_bulk_between_threads},
                     {"connect-without-waiting", connect_without_waiting},
                     {"options", options},
                     {"receive-time-limit", receive_time_limit},
                     {"receive-waits-for-all", receive_waits_for_all},
                     {"receive-waits-for-all-that-comes", receive_waits_for_all_that_comes},
                     {"udp-addresses", udp_addresses},
                     {"ipv6-loopback", ipv6_loopback}});
}
