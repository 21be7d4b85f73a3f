// The guest's filter, judged twice: by an interpreter, over every number and many arguments, against a model
// written here; and by the kernel, in a child that really lives under it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/filter.h"

#include <doctest/doctest.h>
#include <linux/audit.h>
#include <linux/mman.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "libmosix/agent/agent.h"
#include "libmosix/syscalls/table.h"
#include "tests/fakes/bpf.h"

using namespace mosix;

namespace {

using Arguments = std::array<uint64_t, 6>;

constexpr uint64_t kGiB = uint64_t{1} << 30;
/// Where no sanitizer has its shadow or a guard (the thread sanitizer has both nearly everywhere below), and
/// below all places at which the kernel begins to map.
constexpr uint64_t kWindow = 0x1fa40 * kGiB;
static_assert(kWindow % kWindowBytes == 0 && kWindowBytes == 64 * kGiB);

const std::vector<sock_filter>& filter() {
  static const auto program = build_guest_filter(kWindow, kWindowBytes);
  REQUIRE(program);
  return *program;
}

/// For a home whose rings need places below 4 GiB.
const std::vector<sock_filter>& filter_of_low_addresses() {
  static const auto program = build_guest_filter(kWindow, kWindowBytes, true);
  REQUIRE(program);
  return *program;
}

fakes::Judgement judge(int64_t number, const Arguments& args, uint32_t arch = AUDIT_ARCH_X86_64) {
  seccomp_data data{};
  data.nr = static_cast<int>(number);
  data.arch = arch;
  std::copy(args.begin(), args.end(), data.args);
  return fakes::run_filter(filter(), data);
}

bool passes(int64_t number, const Arguments& args = {}) {
  const uint32_t action = judge(number, args).action;
  CHECK((action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_USER_NOTIF));
  return action == SECCOMP_RET_ALLOW;
}

// ---- the model ------------------------------------------------------------------------------------------

bool clear_of_window(uint64_t address, uint64_t length) {
  return length < 4 * kGiB && (address < kWindow - 4 * kGiB || address >= kWindow + kWindowBytes);
}

bool model_passes_memory(long number, const Arguments& a) {
  const bool clear = clear_of_window(a[0], a[1]);
  switch (number) {
    case SYS_mmap: {
      const uint64_t harmless = MAP_NORESERVE | MAP_STACK | MAP_POPULATE | MAP_NONBLOCK | MAP_32BIT |
                                MAP_DENYWRITE | MAP_EXECUTABLE;
      return a[2] <= 7 && (a[3] & ~harmless) == (MAP_PRIVATE | MAP_ANONYMOUS) && (a[0] == 0 || clear);
    }
    case SYS_munmap:
      return clear;
    case SYS_mprotect:
      return clear && a[2] <= 7;
    case SYS_mremap:
      if (!clear || a[2] >= 4 * kGiB) return false;
      if (a[3] == (MREMAP_MAYMOVE | MREMAP_FIXED)) return clear_of_window(a[4], a[2]);
      return a[3] == 0 || a[3] == MREMAP_MAYMOVE;
    default:
      return clear && (a[2] <= 4 || a[2] == MADV_FREE || a[2] == MADV_HUGEPAGE || a[2] == MADV_NOHUGEPAGE ||
                       a[2] == MADV_COLD || a[2] == MADV_PAGEOUT);
  }
}

constexpr long kMemoryCalls[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise};

/// Values at which a comparison of 64 bits by halves goes wrong if it does.
uint64_t interesting(std::mt19937_64& random) {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        2,
                                        3,
                                        4,
                                        7,
                                        8,
                                        4096,
                                        kWindow - 4 * kGiB,
                                        kWindow,
                                        kWindow + 4 * kGiB,
                                        kWindow + kWindowBytes,
                                        4 * kGiB,
                                        uint64_t{1} << 47,
                                        MAP_PRIVATE | MAP_ANONYMOUS,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                                        MAP_SHARED | MAP_ANONYMOUS,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED};
  const uint64_t edge = kEdges[random() % std::size(kEdges)];
  switch (random() % 8) {
    case 0:
      return random();
    case 1:
      return edge + random() % 3 - 1;
    case 2:
      return edge ^ (uint64_t{1} << random() % 64);
    case 3:
      return random() % 32;
    case 4:
      return edge << 32 | (random() & 0xffff'ffff);
    default:
      return edge;
  }
}

}  // namespace

TEST_CASE("what the table names here passes, nothing else does") {
  Arguments odd;
  odd.fill(0xdead'beef'dead'beef);
  for (int number = 0; number < 1024; ++number) {
    const bool is_memory =
        std::find(std::begin(kMemoryCalls), std::end(kMemoryCalls), number) != std::end(kMemoryCalls);
    if (is_memory) continue;
    CAPTURE(number);
    CHECK(passes(number, odd) == (syscall_row(static_cast<uint64_t>(number)).where == Where::kHere));
  }
}

TEST_CASE(
    "the agent's own calls on a channel pass by their mark, on whatever descriptor, and no other call does") {
  for (uint64_t descriptor : {0u, 3u, 65535u}) {
    CHECK(passes(SYS_sendto, {kDirectMark | descriptor}));
    CHECK(passes(SYS_recvfrom, {kDirectMark | descriptor}));
    for (int64_t number = 0; number < 512; ++number) {
      const bool on_channel = number == SYS_sendto || number == SYS_recvfrom;
      const SyscallRow& row = syscall_row(static_cast<uint64_t>(number));
      if (on_channel || row.where == Where::kHere) continue;
      if (std::find(std::begin(kMemoryCalls), std::end(kMemoryCalls), number) != std::end(kMemoryCalls))
        continue;
      CAPTURE(number);
      CHECK(passes(number, {kDirectMark | descriptor}) == passes(number, {descriptor}));
    }
  }
  for (uint64_t bit = 32; bit < 64; ++bit) CHECK(!passes(SYS_sendto, {(kDirectMark ^ (1ull << bit)) | 3}));
  CHECK(!passes(SYS_sendto, {3, kDirectMark, kDirectMark, kDirectMark, kDirectMark, kDirectMark}));
  CHECK(judge(SYS_sendto, {kDirectMark}, AUDIT_ARCH_I386).action == SECCOMP_RET_USER_NOTIF);
}

TEST_CASE("birth, exec and death never pass, whatever the table says") {
  for (long number : {SYS_clone,
                      SYS_clone3,
                      SYS_fork,
                      SYS_vfork,
                      SYS_execve,
                      SYS_execveat,
                      SYS_exit,
                      SYS_exit_group,
                      SYS_ptrace,
                      SYS_io_uring_setup,
                      SYS_bpf,
                      SYS_socket,
                      SYS_openat,
                      SYS_read,
                      SYS_write,
                      SYS_sendto,
                      SYS_kill,
                      SYS_seccomp,
                      SYS_process_vm_writev,
                      SYS_unshare}) {
    CAPTURE(number);
    CHECK(!passes(number));
  }
}

TEST_CASE("foreign architectures, x32 and numbers that nobody has are notified") {
  for (int64_t number = 0; number < 600; ++number) {
    CHECK(judge(number, {}, AUDIT_ARCH_I386).action == SECCOMP_RET_USER_NOTIF);
    CHECK(judge(number, {}, AUDIT_ARCH_AARCH64).action == SECCOMP_RET_USER_NOTIF);
    CHECK(!passes(number | 0x40000000));
    CHECK(!passes(-1 - number));
    CHECK(!passes(number + 1000000));
  }
  CHECK(!passes(0x7fffffff));
}

TEST_CASE("commands pass by themselves, also with rubbish above their 32 bits") {
  int here = 0;
  for (const SyscallRow& row : syscall_table()) {
    if (row.where == Where::kHere) continue;
    for (const CommandRow& command : command_table(row.number)) {
      Arguments args{};
      args[0] = command.command | 0x1234'5678'0000'0000;
      const bool chosen = &syscall_row(static_cast<uint64_t>(row.number), args) == &command.row;
      if (!chosen) continue;
      CAPTURE(row.name);
      CAPTURE(command.command_name);
      CHECK(passes(row.number, args) == (command.row.where == Where::kHere));
      here += command.row.where == Where::kHere;
    }
  }
  CHECK(here > 0);
  CHECK(!passes(SYS_prctl, {0x7fff'0000}));
  CHECK(!passes(SYS_prctl, {PR_SET_NAME}) == (syscall_row(SYS_prctl, {PR_SET_NAME}).where != Where::kHere));
}

TEST_CASE("memory calls pass exactly where the model lets them") {
  std::mt19937_64 random(20240607);
  int passed = 0;
  for (int i = 0; i < 400000; ++i) {
    const long number = kMemoryCalls[random() % std::size(kMemoryCalls)];
    Arguments args;
    for (uint64_t& arg : args) arg = interesting(random);
    const bool expected = model_passes_memory(number, args);
    passed += expected;
    if (passes(number, args) == expected) continue;
    CAPTURE(number);
    for (uint64_t arg : args) INFO(arg);
    FAIL("filter and model differ");
  }
  CHECK(passed > 4000);  // the model does let calls pass
}

TEST_CASE("the window's edges") {
  const uint64_t end = kWindow + kWindowBytes;
  CHECK(passes(SYS_munmap, {0x1000, 4096}));
  CHECK(passes(SYS_munmap, {end, 4096}));
  CHECK(!passes(SYS_munmap, {end - 4096, 4096}));
  CHECK(!passes(SYS_munmap, {kWindow, 4096}));
  CHECK(!passes(SYS_munmap, {kWindow - 4096, 8192}));
  CHECK(!passes(SYS_munmap, {kWindow - 4 * kGiB, 4096}));  // not provable from the high words: notified
  CHECK(passes(SYS_munmap, {kWindow - 4 * kGiB - 4096, 4 * kGiB - 1}));
  CHECK(!passes(SYS_munmap, {0, 4 * kGiB}));
  CHECK(!passes(SYS_munmap, {0, UINT64_MAX}));
  CHECK(passes(SYS_mmap, {0, 1024 * kGiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE}));
  CHECK(!passes(SYS_mmap, {kWindow + 4096, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE, 3}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE}));
  CHECK(!passes(SYS_mmap, {0, 4096, PROT_READ | PROT_GROWSDOWN, MAP_PRIVATE | MAP_ANONYMOUS}));
  CHECK(passes(SYS_mremap, {0x10000, 4096, 8192, MREMAP_MAYMOVE, kWindow}));
  CHECK(!passes(SYS_mremap, {0x10000, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, kWindow}));
  CHECK(passes(SYS_mremap, {0x10000, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, 0x100000}));
  CHECK(!passes(SYS_mremap, {0x10000, 4096, 8192, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0}));
  CHECK(!passes(SYS_madvise, {0x10000, 4096, MADV_DONTFORK}));
  CHECK(!passes(SYS_madvise, {0x10000, 4096, MADV_DOFORK}));
  CHECK(!passes(SYS_madvise, {0x10000, 4096, MADV_MERGEABLE}));
  CHECK(!passes(SYS_madvise, {0x10000, 4096, MADV_REMOVE}));
}

TEST_CASE("addresses below 4 GiB are judged where home needs some of them") {
  auto passes_low = [](int64_t number, const Arguments& args) {
    seccomp_data data{};
    data.nr = static_cast<int>(number);
    data.arch = AUDIT_ARCH_X86_64;
    std::copy(args.begin(), args.end(), data.args);
    return fakes::run_filter(filter_of_low_addresses(), data).action == SECCOMP_RET_ALLOW;
  };
  constexpr uint64_t kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
  CHECK(!passes_low(SYS_munmap, {0x1000, 4096}));
  CHECK(!passes_low(SYS_munmap, {4 * kGiB - 4096, 8192}));
  CHECK(passes_low(SYS_munmap, {4 * kGiB, 4096}));
  CHECK(!passes_low(SYS_mprotect, {0x40000000, 4096, PROT_READ}));
  CHECK(!passes_low(SYS_madvise, {0x40000000, 4096, MADV_DONTNEED}));
  CHECK(!passes_low(SYS_mmap, {0x40000000, 4096, PROT_READ, kPrivate}));
  CHECK(passes_low(SYS_mmap, {0, 4096, PROT_READ, kPrivate}));
  CHECK(passes_low(SYS_mmap, {0, 4096, PROT_READ, kPrivate | MAP_32BIT}));
  CHECK(!passes_low(SYS_mremap, {8 * kGiB, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, 0x40000000}));
  CHECK(passes_low(SYS_mremap, {8 * kGiB, 4096, 8192, MREMAP_MAYMOVE, 0}));
  CHECK(!passes_low(SYS_munmap, {kWindow, 4096}));
  CHECK(passes_low(SYS_munmap, {kWindow + kWindowBytes, 4096}));
}

TEST_CASE("the program is one that the kernel takes, and short on its way") {
  CHECK(filter().size() <= BPF_MAXINSNS);
  int longest = 0;
  for (int number = 0; number < 512; ++number) longest = std::max(longest, judge(number, {}).steps);
  MESSAGE(filter().size() << " instructions, at most " << longest << " executed for a call");
  CHECK(longest < 64);
}

TEST_CASE("crooked windows are refused") {
  CHECK(!build_guest_filter(4096, kWindowBytes));
  CHECK(!build_guest_filter(0, kWindowBytes));
  CHECK(!build_guest_filter(kWindow, 4096));
  CHECK(!build_guest_filter(kWindow, 0));
  CHECK(!build_guest_filter(-kWindowBytes, 2 * kWindowBytes));
}

namespace {

/// What the child saw; in memory that it shares with the test.
struct Observed {
  bool window_mapped, installed, getpid_passed, futex_passed, read_notified, openat_notified, clone_notified,
      x32_notified, i386_notified, anonymous_passed, file_map_notified, fixed_notified, outside_unmap_passed,
      window_unmap_notified, window_protect_notified, window_remap_notified, dontneed_passed,
      dontfork_notified, window_stands;
  int notifications;
};

constexpr int kMark = EDOTDOT;  ///< the listener's answer; no call here fails with it by itself

/// Serves the child's other thread, which alone is under the filter: exit_group may go on, all else is
/// marked.
void serve(const std::atomic<int>& listener, Observed& observed) {
  while (listener < 0) sched_yield();
  for (;;) {
    seccomp_notif request{};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0) continue;
    seccomp_notif_resp answer{};
    answer.id = request.id;
    const bool ends = request.data.arch == AUDIT_ARCH_X86_64 && request.data.nr == SYS_exit_group;
    if (ends) {
      answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    } else {
      answer.error = -kMark;
      ++observed.notifications;
    }
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  }
}

bool was_marked(long result) { return result == -1 && errno == kMark; }

long raw_i386_getpid() {
  long result = 20;  // getpid's number there
  asm volatile("int $0x80" : "+a"(result)::"memory", "r8", "r9", "r10", "r11");
  return result;
}

void live_under_filter(Observed& observed) {
  // By number, like what follows: a sanitizer's own mmap and munmap know nothing of an address without
  // shadow.
  auto* window = reinterpret_cast<void*>(
      syscall(SYS_mmap, kWindow, kWindowBytes, PROT_NONE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0));
  observed.window_mapped = window == reinterpret_cast<void*>(kWindow);
  if (!observed.window_mapped) _exit(1);  // now: under the filter even this call would wait for an answer
  char* page =
      static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::atomic<int> listener = -1;
  std::thread(serve, std::cref(listener), std::ref(observed)).detach();
  sock_fprog program{static_cast<unsigned short>(filter().size()), const_cast<sock_filter*>(filter().data())};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const pid_t pid = getpid();
  const long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  observed.installed = fd >= 0;
  if (fd < 0) _exit(1);
  listener = static_cast<int>(fd);

  observed.getpid_passed = syscall(SYS_getpid) == pid;
  int word = 0;
  observed.futex_passed = syscall(SYS_futex, &word, 1 /* FUTEX_WAKE */, 1, nullptr, nullptr, 0) == 0;
  observed.read_notified = was_marked(syscall(SYS_read, -1, page, 1));
  observed.openat_notified = was_marked(syscall(SYS_openat, -100, "/", 0));
  observed.clone_notified = was_marked(syscall(SYS_clone, 17, 0, 0, 0, 0));
  observed.x32_notified = was_marked(syscall(SYS_getpid | 0x40000000));
  const long i386 = raw_i386_getpid();
  observed.i386_notified = i386 == -kMark || i386 == -38;  // a kernel without it says ENOSYS by itself
  observed.anonymous_passed =
      syscall(SYS_mmap, nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != -1;
  observed.file_map_notified = was_marked(syscall(SYS_mmap, nullptr, 4096, PROT_READ, MAP_PRIVATE, 0, 0));
  observed.fixed_notified =
      was_marked(syscall(SYS_mmap, page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
  page[0] = 'x';
  observed.dontneed_passed = syscall(SYS_madvise, page, 4096, MADV_DONTNEED) == 0 && page[0] == 0;
  observed.dontfork_notified = was_marked(syscall(SYS_madvise, page, 4096, MADV_DONTFORK));
  observed.outside_unmap_passed = syscall(SYS_munmap, page, 4096) == 0;
  observed.window_unmap_notified = was_marked(syscall(SYS_munmap, window, 4096));
  observed.window_protect_notified =
      was_marked(syscall(SYS_mprotect, static_cast<char*>(window) + kWindowBytes - 4096, 4096, PROT_READ));
  observed.window_remap_notified =
      was_marked(syscall(SYS_mremap, page + 4096, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, window));
  unsigned char resident;
  observed.window_stands = syscall(SYS_mincore, window, 4096, &resident) == 0;
  syscall(SYS_exit_group, 0);
}

}  // namespace

TEST_CASE("a process under the filter") {
  auto* observed = static_cast<Observed*>(
      mmap(nullptr, sizeof(Observed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  filter();
  const pid_t child = fork();
  if (child == 0) live_under_filter(*observed);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(observed->window_mapped);
  CHECK(observed->installed);
  CHECK(observed->getpid_passed);
  CHECK(observed->futex_passed);
  CHECK(observed->read_notified);
  CHECK(observed->openat_notified);
  CHECK(observed->clone_notified);
  CHECK(observed->x32_notified);
  CHECK(observed->i386_notified);
  CHECK(observed->anonymous_passed);
  CHECK(observed->file_map_notified);
  CHECK(observed->fixed_notified);
  CHECK(observed->dontneed_passed);
  CHECK(observed->dontfork_notified);
  CHECK(observed->outside_unmap_passed);
  CHECK(observed->window_unmap_notified);
  CHECK(observed->window_protect_notified);
  CHECK(observed->window_remap_notified);
  CHECK(observed->window_stands);
  CHECK(observed->notifications >= 10);
  munmap(observed, sizeof(Observed));
}
