#include "libmosix/syscalls/partial_transfer.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

namespace mosix {
namespace {

constexpr uint64_t kMostBytes = 0x7ffff000;  ///< MAX_RW_COUNT: more than that no call moves

struct Pieces {
  std::vector<iovec> list;
  uint64_t bytes = 0;
};

Pieces vector_of(uint64_t address, uint64_t count, GuestMemory& memory) {
  Pieces pieces;
  if (count == 0 || count > IOV_MAX) return pieces;
  pieces.list.resize(count);
  if (!memory.read(address, pieces.list.data(), count * sizeof(iovec))) return {};
  for (const iovec& piece : pieces.list) pieces.bytes += piece.iov_len;
  if (pieces.bytes > kMostBytes) return {};
  return pieces;
}

Pieces buffer_of(uint64_t address, uint64_t bytes) {
  if (bytes == 0) return {};
  bytes = std::min(bytes, kMostBytes);
  return {{{reinterpret_cast<void*>(address), bytes}}, bytes};
}

Pieces pieces_of_message(uint64_t address, GuestMemory& memory) {
  msghdr header{};
  if (!memory.read(address, &header, sizeof header)) return {};
  return vector_of(reinterpret_cast<uint64_t>(header.msg_iov), header.msg_iovlen, memory);
}

Pieces pieces_of(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  switch (number) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_sendto:
      return buffer_of(args[1], args[2]);
    case SYS_writev:
    case SYS_pwritev:
      return vector_of(args[1], args[2], memory);
    case SYS_sendmsg:
      return pieces_of_message(args[1], memory);
    default:
      return {};
  }
}

/// What a receive with MSG_WAITALL fills. None for one with room for control messages: descriptors may come with the
/// rest.
Pieces pieces_to_fill(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  if (number != SYS_recvfrom && number != SYS_recvmsg) return {};
  constexpr uint64_t kNotForAll = MSG_PEEK | MSG_OOB | MSG_DONTWAIT | MSG_ERRQUEUE;
  uint64_t flags = receive_flags(number, args);
  if ((flags & MSG_WAITALL) == 0 || (flags & kNotForAll) != 0) return {};
  if (number == SYS_recvfrom) return buffer_of(args[1], args[2]);
  msghdr header{};
  if (!memory.read(args[1], &header, sizeof header) || header.msg_controllen != 0) return {};
  return pieces_of_message(args[1], memory);
}

}  // namespace

uint64_t bytes_to_give(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  return pieces_of(number, args, memory).bytes;
}

uint64_t receive_flags(uint64_t number, const std::array<uint64_t, 6>& args) {
  return args[number == SYS_recvfrom ? 3 : 2];
}

uint64_t bytes_to_receive(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  return pieces_to_fill(number, args, memory).bytes;
}

std::vector<iovec> rest_of_receive(uint64_t number, const std::array<uint64_t, 6>& args, uint64_t done,
                                   uint64_t most, GuestMemory& memory) {
  std::vector<iovec> rest;
  for (iovec piece : pieces_to_fill(number, args, memory).list) {
    uint64_t passed = std::min<uint64_t>(done, piece.iov_len);
    done -= passed;
    uint64_t bytes = std::min<uint64_t>(piece.iov_len - passed, most);
    most -= bytes;
    if (bytes != 0) rest.push_back({static_cast<char*>(piece.iov_base) + passed, bytes});
  }
  return rest;
}

Result<RestOfCall> rest_of_call(uint64_t number, const std::array<uint64_t, 6>& args, uint64_t done,
                                uint64_t most, GuestMemory& memory) {
  RestOfCall rest;
  uint64_t skip = done;
  for (const iovec& piece : pieces_of(number, args, memory).list) {
    uint64_t passed = std::min<uint64_t>(skip, piece.iov_len);
    skip -= passed;
    uint64_t bytes = std::min<uint64_t>(piece.iov_len - passed, most - rest.data.size());
    if (bytes == 0) continue;
    size_t had = rest.data.size();
    rest.data.resize(had + bytes);
    uint64_t from = reinterpret_cast<uint64_t>(piece.iov_base) + passed;
    size_t got = memory.read_some(from, rest.data.data() + had, bytes);
    rest.data.resize(had + got);
    if (got < bytes) break;
  }
  if (rest.data.empty()) return fail(EFAULT, "the rest of call " + std::to_string(number));
  rest.args = {args[0], 0, rest.data.size(), 0, 0, 0};
  switch (number) {
    case SYS_sendto:
    case SYS_sendmsg:
      // Names and control messages have gone with the first part; only streams break off.
      rest.number = SYS_sendto;
      rest.args[3] = args[number == SYS_sendto ? 3 : 2];
      break;
    case SYS_pwrite64:
    case SYS_pwritev:
      rest.number = SYS_pwrite64;
      rest.args[3] = args[3] + done;
      break;
    default:
      rest.number = SYS_write;
  }
  return rest;
}

}  // namespace mosix
