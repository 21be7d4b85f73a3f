#include "deputy/resumed_call.h"

#include <limits.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <cstring>

#include "libmosix/process/syscall_site.h"

namespace mosix {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kCodeBytes = 128;  ///< data begins behind

/// Machine code, put together by hand: there is so little of it.
class Code {
 public:
  void add(std::initializer_list<uint8_t> bytes) { bytes_.insert(bytes_.end(), bytes); }
  void add32(uint64_t value) { add_value(static_cast<uint32_t>(value)); }
  void add64(uint64_t value) { add_value(value); }
  size_t size() const { return bytes_.size(); }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  template <class T>
  void add_value(T value) {
    auto* first = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), first, first + sizeof value);
  }
  std::vector<uint8_t> bytes_;
};

/// The result is in rcx: the registers that were ours, flags, and on to `next`.
void add_return(Code& code, const user_regs_struct& original, uint64_t next) {
  code.add({0x44, 0x89, 0xd8});  // mov %r11d,%eax: the flags as they were
  code.add({0x88, 0xc4});        // mov %al,%ah
  code.add({0x9e});              // sahf
  code.add({0x48, 0x89, 0xc8});  // mov %rcx,%rax
  code.add({0x48, 0xbf});        // movabs rdi
  code.add64(original.rdi);
  code.add({0x48, 0xbe});  // movabs rsi
  code.add64(original.rsi);
  code.add({0x48, 0xba});  // movabs rdx
  code.add64(original.rdx);
  code.add({0x49, 0xba});  // movabs r10
  code.add64(original.r10);
  code.add({0x49, 0xb8});  // movabs r8
  code.add64(original.r8);
  code.add({0x48, 0xb9});  // movabs rcx
  code.add64(next);
  code.add({0xff, 0xe1});  // jmp *%rcx
}

/// From the syscall instruction on. Natively the call changes rax, rcx and r11 alone; nothing is put on the stack,
/// whose red zone may be in use.
std::vector<uint8_t> code_for(const user_regs_struct& original, uint64_t done) {
  Code code;
  code.add({0x0f, 0x05});  // syscall
  if (done != 0) {
    code.add({0x48, 0x8d, 0x88});  // lea done(%rax),%rcx
    code.add32(done);
    code.add({0x48, 0x85, 0xc0});  // test %rax,%rax
    code.add({0x79, 0x05});        // jns over the next one
    code.add({0xb9});              // mov $done,%ecx: what went wrong, the next call meets
    code.add32(done);
  } else {
    code.add({0x48, 0x89, 0xc1});  // mov %rax,%rcx
  }
  add_return(code, original, original.rip);
  return code.take();
}

Result<std::vector<iovec>> rest_of_vector(uint64_t address, uint64_t count, uint64_t done,
                                          const ProcessMemory& memory) {
  if (count > IOV_MAX) return fail(EINVAL, "the vector of a call");
  std::vector<iovec> pieces(count);
  TRY_VOID(memory.read(address, pieces.data(), count * sizeof(iovec)));
  while (!pieces.empty() && pieces.front().iov_len <= done) {
    done -= pieces.front().iov_len;
    pieces.erase(pieces.begin());
  }
  if (pieces.empty()) return fail(EINVAL, "the vector of a call has changed");
  pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + done;
  pieces.front().iov_len -= done;
  return pieces;
}

template <class T>
uint64_t append(std::vector<uint8_t>& bytes, uint64_t at, const T* items, size_t count) {
  uint64_t address = at + bytes.size();
  auto* first = reinterpret_cast<const uint8_t*>(items);
  bytes.insert(bytes.end(), first, first + count * sizeof(T));
  return address;
}

}  // namespace

uint64_t resumed_call_bytes(const user_regs_struct& registers) {
  bool vectors = registers.orig_rax == SYS_writev || registers.orig_rax == SYS_pwritev ||
                 registers.orig_rax == SYS_sendmsg || registers.orig_rax == SYS_recvmsg;
  return vectors ? kPage + IOV_MAX * sizeof(iovec) : kPage;
}

uint64_t resumed_call_protection(const user_regs_struct& registers) {
  return PROT_READ | PROT_EXEC | (registers.orig_rax == SYS_recvmsg ? PROT_WRITE : 0);
}

Result<ResumedCall> rest_of_transfer(const user_regs_struct& registers, uint64_t done, uint64_t at,
                                     const ProcessMemory& memory) {
  constexpr uint64_t kMostBytes = 0x7ffff000;  // MAX_RW_COUNT
  if (done > kMostBytes) return fail(EBADMSG, "no call moves so much");
  if (done == 0) return fail(EINVAL, "nothing is moved yet");
  ResumedCall rest{{}, registers};
  rest.bytes = code_for(registers, done);
  rest.bytes.resize(kCodeBytes);
  rest.registers.rip = at + kSyscallInstructionBytes;
  switch (registers.orig_rax) {
    case SYS_write:
    case SYS_sendto:
    case SYS_recvfrom:
    case SYS_pwrite64:
      rest.registers.rsi += done;
      rest.registers.rdx -= done;
      if (registers.orig_rax == SYS_pwrite64) rest.registers.r10 += done;
      return rest;
    case SYS_writev:
    case SYS_pwritev: {
      TRY(std::vector<iovec> pieces, rest_of_vector(registers.rsi, registers.rdx, done, memory));
      rest.registers.rsi = append(rest.bytes, at, pieces.data(), pieces.size());
      rest.registers.rdx = pieces.size();
      if (registers.orig_rax == SYS_pwritev) rest.registers.r10 += done;
      return rest;
    }
    case SYS_sendmsg:
    case SYS_recvmsg: {
      // Names and control messages have gone, or come, with the first part.
      msghdr header{};
      TRY_VOID(memory.read(registers.rsi, &header, sizeof header));
      TRY(std::vector<iovec> pieces,
          rest_of_vector(reinterpret_cast<uint64_t>(header.msg_iov), header.msg_iovlen, done, memory));
      msghdr own{};
      own.msg_iov = reinterpret_cast<iovec*>(append(rest.bytes, at, pieces.data(), pieces.size()));
      own.msg_iovlen = pieces.size();
      rest.registers.rsi = append(rest.bytes, at, &own, 1);
      return rest;
    }
    default:
      return fail(EBADMSG, "call " + std::to_string(registers.orig_rax) + " is not one that is broken off");
  }
}

ResumedCall rest_of_read(const user_regs_struct& registers, int64_t left_ns, int64_t out_of_time,
                         uint64_t at) {
  constexpr int64_t kNsPerSecond = 1'000'000'000, kRestartNoHand = -514;
  constexpr uint64_t kRedZone = 128;
  constexpr uint8_t kResultBytes = 7;
  const std::initializer_list<uint8_t> result_to_rcx = {0x48, 0x89, 0xc1};  // mov %rax,%rcx
  Code code, answer, again;
  answer.add(result_to_rcx);
  add_return(answer, registers, registers.rip);
  again.add({0xb8});  // mov $number,%eax
  again.add32(registers.orig_rax);
  again.add(result_to_rcx);
  add_return(again, registers, registers.rip - kSyscallInstructionBytes);
  code.add({0x0f, 0x05});        // syscall
  code.add({0x48, 0x85, 0xc0});  // test %rax,%rax
  code.add({0x0f, 0x8f});        // jg to the program's own call: there is something to read
  code.add32(4 + kResultBytes + answer.size());
  code.add({0x74, 0x02});  // je over the next one: out of time
  // Interrupted: with EINTR in rax where that is the call's answer; else the call is made again, and is the kernel's.
  code.add({0xeb, static_cast<uint8_t>(kResultBytes + (out_of_time < 0 ? 0 : answer.size()))});
  code.add({0x48, 0xc7, 0xc0});  // mov $result,%rax
  code.add32(static_cast<uint64_t>(out_of_time));
  ResumedCall rest{code.take(), registers};
  for (Code* part : {&answer, &again}) {
    std::vector<uint8_t> bytes = part->take();
    rest.bytes.insert(rest.bytes.end(), bytes.begin(), bytes.end());
  }
  // The kernel writes to both, and the mapping is not writable.
  struct {
    pollfd entry;
    timespec left;
  } data{};
  left_ns = std::max<int64_t>(left_ns, 0);
  data.entry = {static_cast<int>(registers.rdi), POLLIN, 0};
  data.left = {left_ns / kNsPerSecond, left_ns % kNsPerSecond};
  rest.data_at = (registers.rsp - kRedZone - sizeof data) & ~uint64_t{15};
  auto* first = reinterpret_cast<const uint8_t*>(&data);
  rest.data.assign(first, first + sizeof data);
  rest.registers.rdi = rest.data_at;
  rest.registers.rsi = 1;
  rest.registers.rdx = rest.data_at + sizeof data.entry;
  rest.registers.r10 = 0;
  rest.registers.r8 = 0;
  rest.registers.orig_rax = SYS_ppoll;
  rest.registers.rax = static_cast<uint64_t>(kRestartNoHand);
  rest.registers.rip = at + kSyscallInstructionBytes;
  return rest;
}

bool waits_with_own_limit(uint64_t number) {
  return number == SYS_poll || number == SYS_epoll_wait || number == SYS_epoll_pwait ||
         number == SYS_epoll_pwait2 || number == SYS_rt_sigtimedwait || number == SYS_semtimedop;
}

ResumedCall rest_of_wait(const user_regs_struct& registers, int64_t left_ns, uint64_t at) {
  constexpr int64_t kNsPerMs = 1'000'000, kNsPerSecond = 1'000'000'000;
  ResumedCall rest{code_for(registers, 0), registers};
  left_ns = std::max<int64_t>(left_ns, 0);
  auto limit = static_cast<uint64_t>((left_ns + kNsPerMs - 1) / kNsPerMs);
  bool in_memory = registers.orig_rax == SYS_epoll_pwait2 || registers.orig_rax == SYS_rt_sigtimedwait ||
                   registers.orig_rax == SYS_semtimedop;
  if (in_memory) {
    int64_t pair[2] = {left_ns / kNsPerSecond, left_ns % kNsPerSecond};
    rest.bytes.resize(kCodeBytes);
    limit = append(rest.bytes, at, pair, 2);
  }
  bool third = registers.orig_rax == SYS_poll || registers.orig_rax == SYS_rt_sigtimedwait;
  (third ? rest.registers.rdx : rest.registers.r10) = limit;
  rest.registers.rip = at + kSyscallInstructionBytes;
  return rest;
}

uint64_t limit_address(const user_regs_struct& registers, bool* timeval) {
  *timeval = registers.orig_rax == SYS_select;
  if (registers.orig_rax == SYS_ppoll) return registers.rdx;
  if (registers.orig_rax == SYS_select || registers.orig_rax == SYS_pselect6) return registers.r8;
  return 0;
}

bool CallAtHome::contains(const user_regs_struct& registers) const {
  return registers.rip == at + kSyscallInstructionBytes;
}

bool same_call(const user_regs_struct& a, const user_regs_struct& b) {
  return a.rip == b.rip && a.rsp == b.rsp && a.rdi == b.rdi && a.rsi == b.rsi && a.rdx == b.rdx &&
         a.r10 == b.r10 && a.r8 == b.r8 && a.r9 == b.r9;
}

const CallAtHome* own_call_of(const std::vector<CallAtHome>& calls, user_regs_struct& registers) {
  for (const CallAtHome& call : calls) {
    if (!call.contains(registers) || registers.orig_rax != call.number) continue;
    if (call.number != call.original.orig_rax) {
      constexpr int64_t kRestartSys = -512;
      registers.orig_rax = call.original.orig_rax;
      registers.rax = static_cast<uint64_t>(kRestartSys);
      registers.rdi = call.original.rdi;
      registers.r8 = call.original.r8;
    }
    registers.rip = call.original.rip;
    registers.rsi = call.original.rsi;
    registers.rdx = call.original.rdx;
    registers.r10 = call.original.r10;
    return &call;
  }
  return nullptr;
}

}  // namespace mosix
