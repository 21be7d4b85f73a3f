// Probes of what a custodian does to a live process at home, and a supervisor to a remote: seize it, read and
// write its memory, borrow its descriptors, give it another's memory layout and vDSO.

#include <asm/prctl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "tools/check_probe.h"

namespace mosix {
namespace {

#ifndef ARCH_MAP_VDSO_64
#define ARCH_MAP_VDSO_64 0x2003
#endif

std::string yama_cure() {
  std::string scope = first_line("/proc/sys/kernel/yama/ptrace_scope");
  if (scope == "3")
    return "kernel.yama.ptrace_scope is 3, for good: set another value in /etc/sysctl.d and reboot";
  if (scope == "1" || scope == "2")
    return fmt::format("kernel.yama.ptrace_scope is {}: sysctl kernel.yama.ptrace_scope={}", scope,
                       scope == "2" ? 1 : 0);
  return "in a container, allow ptrace (docker run --cap-add SYS_PTRACE)";
}

std::string newer_kernel() { return "a newer kernel, or one built with CONFIG_CHECKPOINT_RESTORE"; }

/// Seizes and stops the process; it is let go when the probe's process ends.
ProbeResult seize(pid_t pid) {
  if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return lacks("PTRACE_SEIZE");
  if (ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) return lacks("PTRACE_INTERRUPT");
  int status = 0;
  if (waitpid(pid, &status, __WALL) != pid) return lacks("wait for the stop");
  return status >> 16 == PTRACE_EVENT_STOP ? works() : lacks_because("stopped in another way than asked for");
}

ProbeResult probe_ptrace() { return towards_sibling(true, seize); }
ProbeResult probe_ptrace_any() { return towards_sibling(false, seize); }

ProbeResult probe_rseq() {
  return towards_sibling(true, [](pid_t pid) {
    if (ProbeResult seized = seize(pid); !seized.ok) return seized;
    struct {
      uint64_t address;
      uint32_t size, signature, flags, pad;
    } configuration{};
    constexpr int kGetRseqConfiguration = 0x420f;
    long got = ptrace(static_cast<__ptrace_request>(kGetRseqConfiguration), pid, sizeof configuration,
                      &configuration);
    return got > 0 ? works() : lacks("PTRACE_GET_RSEQ_CONFIGURATION");
  });
}

ProbeResult probe_process_vm() {
  static char here[16];  // the sibling was forked from us: the same address is its own copy
  strcpy(here, "before");
  return towards_sibling(true, [](pid_t pid) {
    char copy[sizeof here] = "after";
    iovec mine{copy, sizeof copy}, theirs{here, sizeof here};
    if (process_vm_writev(pid, &mine, 1, &theirs, 1, 0) != sizeof here) return lacks("process_vm_writev");
    strcpy(copy, "");
    if (process_vm_readv(pid, &mine, 1, &theirs, 1, 0) != sizeof here) return lacks("process_vm_readv");
    return strcmp(copy, "after") == 0 ? works() : lacks_because("what was written is not what is read");
  });
}

ProbeResult probe_pidfd_getfd() {
  int known = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (known < 0) return lacks("open /dev/null");
  return towards_sibling(true, [known](pid_t pid) {
    long handle = syscall(SYS_pidfd_open, pid, 0);
    if (handle < 0) return lacks("pidfd_open");
    long got = syscall(SYS_pidfd_getfd, handle, known, 0);
    return got >= 0 ? works() : lacks("pidfd_getfd");
  });
}

/// Numbers of /proc/self/stat from field 3 (the state) on; index with the number in proc(5) minus 3.
std::vector<uint64_t> own_stat() {
  std::string line = first_line("/proc/self/stat");
  std::istringstream rest(line.substr(line.rfind(')') + 4));
  std::vector<uint64_t> fields{0};
  for (std::string word; rest >> word;) fields.push_back(strtoull(word.c_str(), nullptr, 10));
  return fields;
}

ProbeResult probe_mm_map() {
  std::vector<uint64_t> stat = own_stat();
  if (stat.size() < 49) return lacks_because("/proc/self/stat is too short");
  auto field = [&](size_t number) { return stat[number - 3]; };
  prctl_mm_map map{};
  map.start_code = field(26), map.end_code = field(27), map.start_stack = field(28);
  map.start_data = field(45), map.end_data = field(46), map.start_brk = field(47);
  map.arg_start = field(48), map.arg_end = field(49), map.env_start = field(50), map.env_end = field(51);
  map.brk = reinterpret_cast<uint64_t>(sbrk(0));
  map.exe_fd = static_cast<uint32_t>(-1);
  return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) == 0 ? works() : lacks("PR_SET_MM_MAP");
}

/// Removes vDSO and data pages and asks for them where they were. From then on this process must not read
/// a clock through libc; it only reports and exits.
ProbeResult probe_map_vdso() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  uint64_t first = 0;
  std::vector<std::pair<uint64_t, uint64_t>> areas;
  while (std::getline(maps, line)) {
    uint64_t start = 0, end = 0;
    bool special = line.find("[vvar") != std::string::npos || line.find("[vdso]") != std::string::npos;
    if (!special || sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &start, &end) != 2) continue;
    if (first == 0) first = start;
    areas.emplace_back(start, end);
  }
  if (areas.empty()) return lacks_because("this process has no vDSO (kernel started with vdso=0?)");
  for (auto [start, end] : areas) syscall(SYS_munmap, start, end - start);
  long mapped = syscall(SYS_arch_prctl, ARCH_MAP_VDSO_64, first);
  if (mapped <= 0) return lacks("ARCH_MAP_VDSO_64");
  return works();
}

const Probe kProbes[] = {
    {"ptrace of an adopted process", true, "no process can be moved", yama_cure, probe_ptrace},
    {"ptrace of any own process", false,
     "only what was started with mosrun or under libmosix.so can be moved", yama_cure, probe_ptrace_any},
    {"ptrace: rseq configuration", true, "programs of glibc 2.35 and newer cannot be moved",
     [] { return std::string("Linux 5.13 or newer, with CONFIG_RSEQ"); }, probe_rseq},
    {"process_vm_readv, process_vm_writev", true, "memory of a process cannot be copied",
     [] { return std::string("a kernel with CONFIG_CROSS_MEMORY_ATTACH; ") + yama_cure(); },
     probe_process_vm},
    {"pidfd_getfd", true, "the supervisor cannot take a guest's notification descriptor",
     [] { return std::string("Linux 5.6 or newer; in a container, a seccomp profile that allows it"); },
     probe_pidfd_getfd},
    {"PR_SET_MM_MAP", true, "heap and argument area of a guest cannot be put in place", newer_kernel,
     probe_mm_map},
    {"ARCH_MAP_VDSO_64", true, "a guest would call into a vDSO that is not there", newer_kernel,
     probe_map_vdso},
};

}  // namespace

std::span<const Probe> process_probes() { return kProbes; }

}  // namespace mosix
