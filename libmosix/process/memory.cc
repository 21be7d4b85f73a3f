#include "libmosix/process/memory.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr uint64_t kPage = 4096;

std::string place(const char* operation, int pid, uint64_t address, size_t bytes) {
  char text[96];
  snprintf(text, sizeof(text), "%s memory of %d at 0x%lx, %zu bytes", operation, pid, address, bytes);
  return text;
}

using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);

/// The call; where the first thread has ended, by another one's number, which stays in `pid`.
ssize_t of_process(Transfer call, int& pid, const iovec* local, const iovec* remote, unsigned long count) {
  ssize_t moved = call(pid, local, 1, remote, count, 0);
  if (moved >= 0 || errno != ESRCH) return moved;
  int other = living_thread(pid);
  errno = ESRCH;
  if (other == pid) return moved;
  pid = other;
  return call(pid, local, 1, remote, count, 0);
}

/// All of a range through process_vm_readv or _writev; both move at most about 2 GiB a call and stop early at
/// a fault.
Status transfer(Transfer call, const char* name, int pid, uint64_t address, void* buffer, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    size_t step = std::min<size_t>(bytes - done, 1u << 30);
    iovec local{static_cast<char*>(buffer) + done, step};
    iovec remote{reinterpret_cast<void*>(address + done), step};
    ssize_t moved = of_process(call, pid, &local, &remote, 1);
    if (moved < 0) return fail_errno(place(name, pid, address + done, bytes - done));
    if (moved == 0) return fail(EFAULT, place(name, pid, address + done, bytes - done));
    done += static_cast<size_t>(moved);
  }
  return {};
}

Status transfer_ranges(Transfer call, const char* name, int pid, std::span<const RemoteRange> ranges,
                       char* buffer) {
  while (!ranges.empty()) {
    iovec remote[IOV_MAX];
    size_t count = 0, bytes = 0;
    for (; count < ranges.size() && count < IOV_MAX && bytes < (1u << 30); ++count) {
      remote[count] = {reinterpret_cast<void*>(ranges[count].address), ranges[count].bytes};
      bytes += ranges[count].bytes;
    }
    iovec local{buffer, bytes};
    ssize_t moved = of_process(call, pid, &local, remote, count);
    if (moved < 0) return fail_errno(place(name, pid, ranges[0].address, bytes));
    // Stopped in the middle: single transfers either finish it or name the address that fails.
    if (static_cast<size_t>(moved) != bytes) {
      char* at = buffer;
      for (size_t i = 0; i < count; at += ranges[i++].bytes)
        TRY_VOID(transfer(call, name, pid, ranges[i].address, at, ranges[i].bytes));
    }
    buffer += bytes;
    ranges = ranges.subspan(count);
  }
  return {};
}

}  // namespace

Result<ProcessMemory> ProcessMemory::open(int pid) {
  std::string path = "/proc/" + std::to_string(living_thread(pid)) + "/mem";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return fail(errno == ENOENT ? ESRCH : errno, "open " + path);
  return ProcessMemory(pid, std::move(file));
}

Result<size_t> ProcessMemory::read_some(uint64_t address, void* buffer, size_t bytes) const {
  size_t done = 0;
  while (done < bytes) {
    ssize_t got = pread(file_.get(), static_cast<char*>(buffer) + done, bytes - done,
                        static_cast<off_t>(address + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EIO) break;  // nothing is mapped here
    if (got < 0) return fail_errno(place("read", pid_, address + done, bytes - done));
    if (got == 0) return fail(ESRCH, place("read", pid_, address, bytes));  // the address space is gone
    done += static_cast<size_t>(got);
  }
  return done;
}

Status ProcessMemory::read(uint64_t address, void* buffer, size_t bytes) const {
  TRY(size_t done, read_some(address, buffer, bytes));
  if (done != bytes) return fail(EIO, place("read", pid_, address + done, bytes - done));
  return {};
}

Status ProcessMemory::write(uint64_t address, const void* buffer, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    ssize_t put = pwrite(file_.get(), static_cast<const char*>(buffer) + done, bytes - done,
                         static_cast<off_t>(address + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(place("write", pid_, address + done, bytes - done));
    if (put == 0) return fail(ESRCH, place("write", pid_, address, bytes));
    done += static_cast<size_t>(put);
  }
  return {};
}

Result<std::string> ProcessMemory::read_string(uint64_t address, size_t limit) const {
  std::string text;
  while (text.size() < limit) {
    // Up to the end of the page only: what lies behind the string may be unmapped.
    size_t step = std::min<size_t>(kPage - (address + text.size()) % kPage, limit - text.size());
    size_t had = text.size();
    text.resize(had + step);
    TRY(size_t got, read_some(address + had, text.data() + had, step));
    if (got == 0) return fail(EIO, place("read string in", pid_, address, had));
    text.resize(had + got);
    if (size_t zero = text.find('\0', had); zero != std::string::npos) {
      text.resize(zero);
      return text;
    }
  }
  return fail(ENAMETOOLONG, place("read string in", pid_, address, limit));
}

Status read_memory(int pid, uint64_t address, void* buffer, size_t bytes) {
  return transfer(process_vm_readv, "read", pid, address, buffer, bytes);
}

Status write_memory(int pid, uint64_t address, const void* buffer, size_t bytes) {
  return transfer(process_vm_writev, "write", pid, address, const_cast<void*>(buffer), bytes);
}

Result<size_t> read_memory_some(int pid, uint64_t address, void* buffer, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    size_t step = std::min<size_t>(bytes - done, 1u << 30);
    iovec local{static_cast<char*>(buffer) + done, step};
    iovec remote{reinterpret_cast<void*>(address + done), step};
    ssize_t got = of_process(process_vm_readv, pid, &local, &remote, 1);
    if (got < 0 && errno == EFAULT) break;
    if (got < 0) return fail_errno(place("read", pid, address + done, bytes - done));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Status read_ranges(int pid, std::span<const RemoteRange> ranges, void* buffer) {
  return transfer_ranges(process_vm_readv, "read", pid, ranges, static_cast<char*>(buffer));
}

Status write_ranges(int pid, std::span<const RemoteRange> ranges, const void* buffer) {
  return transfer_ranges(process_vm_writev, "write", pid, ranges,
                         const_cast<char*>(static_cast<const char*>(buffer)));
}

}  // namespace mosix
