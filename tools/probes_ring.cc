// Probes of the channel that needs no descriptor: io_uring, step by step up to a socket that lives in a ring
// which itself lives in no descriptor table; and of the locked memory that rings are charged to.

#include <fmt/format.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "tools/check_probe.h"

namespace mosix {
namespace {

// Newer than Debian 12's headers, Linux 6.3 and 6.5.
constexpr unsigned kSetupNoMmap = 1u << 14;
constexpr unsigned kSetupRegisteredFdOnly = 1u << 15;
constexpr unsigned kRegisterUseRegisteredRing = 1u << 31;

constexpr unsigned kDeferred = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
constexpr size_t kPage = 4096;
constexpr uint64_t kBytesPerRing = 2 * kPage;
/// 256 threads away at once before channels fall back to descriptors.
constexpr uint64_t kUsefulRings = 256;

std::string io_uring_cure() {
  std::string setting = first_line("/proc/sys/kernel/io_uring_disabled");
  if (setting == "1" || setting == "2")
    return fmt::format("kernel.io_uring_disabled is {}: sysctl kernel.io_uring_disabled=0", setting);
  return "a kernel with CONFIG_IO_URING; in a container, a seccomp profile that allows it";
}

ProbeResult set_up(io_uring& ring, unsigned flags, const char* name) {
  int code = io_uring_queue_init(8, &ring, flags);
  if (code == 0) return works();
  errno = -code;
  return lacks(name);
}

ProbeResult probe_setup() {
  io_uring ring{};
  return set_up(ring, 0, "io_uring_setup");
}

ProbeResult probe_deferred() {
  io_uring ring{};
  return set_up(ring, kDeferred, "io_uring_setup with DEFER_TASKRUN");
}

ProbeResult probe_socket() {
  io_uring ring{};
  if (ProbeResult made = set_up(ring, 0, "io_uring_setup"); !made.ok) return made;
  int code = io_uring_register_files_sparse(&ring, 1);
  if (code != 0) return errno = -code, lacks("register a sparse file table");
  io_uring_prep_socket_direct(io_uring_get_sqe(&ring), AF_INET, SOCK_STREAM, 0, 0, 0);
  io_uring_cqe* done = nullptr;
  code = io_uring_submit_and_wait(&ring, 1);
  if (code < 0 || io_uring_peek_cqe(&ring, &done) != 0) return errno = -code, lacks("io_uring_enter");
  return done->res == 0 ? works() : (errno = -done->res, lacks("socket into the ring"));
}

/// A ring without mapping and descriptor, by raw calls: index of the ring, or -1 with errno.
struct BareRing {
  long index = -1;
  char* queue = nullptr;
  io_uring_sqe* entries = nullptr;
  io_uring_params parameters{};

  bool make() {
    void* memory = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    queue = static_cast<char*>(memory);
    entries = reinterpret_cast<io_uring_sqe*>(queue + kPage);
    parameters.flags = kDeferred | kSetupNoMmap | kSetupRegisteredFdOnly;
    // The kernel's names for these, user_addr, are younger than the headers; they take the place of resv2.
    parameters.cq_off.resv2 = reinterpret_cast<uint64_t>(queue);
    parameters.sq_off.resv2 = reinterpret_cast<uint64_t>(entries);
    index = syscall(SYS_io_uring_setup, 8, &parameters);
    return index >= 0;
  }
  uint32_t& at(uint32_t offset) { return *reinterpret_cast<uint32_t*>(queue + offset); }
  /// Submits the first entry and returns its result.
  int run_first_entry() {
    at(parameters.sq_off.array) = 0;
    std::atomic_ref(at(parameters.sq_off.tail)).store(1, std::memory_order_release);
    long entered = syscall(SYS_io_uring_enter, index, 1, 1,
                           IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING, nullptr, 0);
    if (entered < 0) return -errno;
    auto* done = reinterpret_cast<io_uring_cqe*>(queue + parameters.cq_off.cqes);
    bool complete = std::atomic_ref(at(parameters.cq_off.tail)).load(std::memory_order_acquire) == 1;
    return complete ? done->res : -EBUSY;
  }
};

ProbeResult probe_bare_ring() {
  BareRing ring;
  if (!ring.make()) return lacks("io_uring_setup with NO_MMAP and REGISTERED_FD_ONLY");
  int no_file = -1;
  if (syscall(SYS_io_uring_register, ring.index, IORING_REGISTER_FILES | kRegisterUseRegisteredRing, &no_file,
              1) != 0)
    return lacks("register a file table by the ring's index");
  io_uring_prep_socket_direct(ring.entries, AF_INET, SOCK_STREAM, 0, 0, 0);
  int result = ring.run_first_entry();
  return result == 0 ? works() : (errno = -result, lacks("socket into the ring"));
}

ProbeResult probe_memlock() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  if (geteuid() == 0 || limit.rlim_cur == RLIM_INFINITY) return works("no limit");
  std::string figure = fmt::format("{} rings of all processes of a user ({} KiB)",
                                   limit.rlim_cur / kBytesPerRing, limit.rlim_cur / 1024);
  return limit.rlim_cur / kBytesPerRing >= kUsefulRings ? works(figure) : lacks_because("only " + figure);
}

constexpr char kFallback[] = "channels at home use a descriptor with a high number, hidden from the program";

const Probe kProbes[] = {
    {"io_uring", false, kFallback, io_uring_cure, probe_setup},
    {"io_uring: DEFER_TASKRUN", false, kFallback, [] { return "Linux 6.1 or newer; " + io_uring_cure(); },
     probe_deferred},
    {"io_uring: socket in the ring", false, kFallback,
     [] { return "Linux 5.19 or newer; " + io_uring_cure(); }, probe_socket},
    {"io_uring: no mapping, no descriptor", false,
     "a ring's descriptor is visible for some 20 us when it is made",
     [] { return "Linux 6.5 or newer; " + io_uring_cure(); }, probe_bare_ring},
    {"locked memory for rings", false, "further threads that are away use a hidden descriptor each",
     [] {
       return std::string(
           "a higher RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, /etc/security/limits.conf): 8 MiB");
     },
     probe_memlock},
};

}  // namespace

std::span<const Probe> ring_probes() { return kProbes; }

}  // namespace mosix
