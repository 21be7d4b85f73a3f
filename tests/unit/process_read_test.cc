// maps, stat, memory and pagemap of real child processes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "libmosix/common/features.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/pagemap.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/syscall_site.h"
#include "tests/unit/process_child.h"

using namespace mosix;

namespace {

constexpr size_t kPage = 4096;
constexpr int kGuardInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13

/// Sets the features to switch off for one block.
struct FeaturesOff {
  explicit FeaturesOff(const char* names) { setenv("MOSIX_FEATURES_OFF", names, 1); }
  ~FeaturesOff() { unsetenv("MOSIX_FEATURES_OFF"); }
};

/// An address that the child tells as a line.
uint64_t hear_address(Child& child) { return strtoull(child.hear().c_str(), nullptr, 16); }

std::string hex(const void* address) {
  char text[24];
  snprintf(text, sizeof(text), "%lx", reinterpret_cast<uint64_t>(address));
  return text;
}

}  // namespace

TEST_CASE("features: named, in lists, all") {
  CHECK(feature_enabled("pagemap_scan"));
  FeaturesOff off("sync_wake_up,pagemap_scan");
  CHECK_FALSE(feature_enabled("pagemap_scan"));
  CHECK_FALSE(feature_enabled("sync_wake_up"));
  CHECK(feature_enabled("pagemap"));
  CHECK(feature_enabled("io_uring"));
  FeaturesOff all("all");
  CHECK_FALSE(feature_enabled("io_uring"));
}

TEST_CASE("maps: every form of a line") {
  auto maps = parse_maps(
      "00400000-00401000 r--p 00000000 fe:01 10969189                           /a b/c\\012d (deleted)\n"
      "7ffe0000-7fff0000 rw-s 00002000 00:10 5 /memfd:x\n"
      "10000-20000 ---p 00000000 00:00 0 \n"
      "7e874cee4000-7e874cee6000 r--p 00000000 00:00 0                          [vvar_vclock]\n"
      "7e874cee8000-7e874cee9000 r-xp 00000000 00:00 0                          [uprobes]\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n");
  REQUIRE(maps);
  REQUIRE(maps->size() == 6);
  const MapEntry& file = (*maps)[0];
  CHECK(file.path == "/a b/c\nd");
  CHECK(file.deleted);
  CHECK(file.protection == PROT_READ);
  CHECK(file.inode == 10969189);
  CHECK(file.device == 0xfe01);
  CHECK((*maps)[1].shared);
  CHECK((*maps)[1].offset == 0x2000);
  CHECK((*maps)[1].has_inode());
  CHECK((*maps)[2].path.empty());
  CHECK((*maps)[2].protection == PROT_NONE);
  CHECK_FALSE((*maps)[2].is_special());
  CHECK((*maps)[3].is_known_special());
  CHECK((*maps)[4].is_special());
  CHECK_FALSE((*maps)[4].is_known_special());
  CHECK((*maps)[5].end == 0xffffffffff601000);
  for (const char* bad :
       {"x", "1000-2000", "1000-2000 rw", "1000-2000 rw-p zz 0:0 0", "1000 2000 rw-p 0 0:0 0"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_maps(bad));
  }
}

TEST_CASE("maps: of this process and of one that has ended") {
  auto maps = read_maps(getpid());
  REQUIRE(maps);
  CHECK(std::any_of(maps->begin(), maps->end(), [](auto& m) { return m.path == "[stack]"; }));
  auto here = reinterpret_cast<uint64_t>(&read_maps);
  auto code = std::find_if(maps->begin(), maps->end(), [&](auto& m) { return m.contains(here); });
  REQUIRE(code != maps->end());
  CHECK(code->path == *read_exe_path(getpid()));
  CHECK(code->protection == (PROT_READ | PROT_EXEC));
  auto flags = read_map_flags(getpid());
  REQUIRE(flags);
  auto stack = std::find_if(flags->begin(), flags->end(),
                            [&](auto& f) { return f.start <= uint64_t(&maps) && uint64_t(&maps) < f.end; });
  REQUIRE(stack != flags->end());
  CHECK(stack->has("gd"));
  CHECK_FALSE(stack->has("lo"));
  Child child([] {});
  int pid = child.pid();
  child.finish();
  CHECK(read_maps(pid).error().code == ESRCH);
}

TEST_CASE("stat: a name that tries to confuse") {
  std::string line = "77 (a) R 5 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 -5 2 0 100";
  for (int i = 23; i <= 52; ++i) line += " " + std::to_string(i * 1000);
  auto stat = parse_proc_stat(line);
  REQUIRE(stat);
  CHECK(stat->pid == 77);
  CHECK(stat->comm == "a) R 5 (b");
  CHECK(stat->state == 'S');
  CHECK(stat->ppid == 1);
  CHECK(stat->nice == -5);
  CHECK(stat->start_time == 100);
  CHECK(stat->start_code == 26000);
  CHECK(stat->env_end == 51000);
  CHECK(stat->exit_code == 52000);
  CHECK_FALSE(parse_proc_stat("77 (a) R 5"));
  CHECK_FALSE(parse_proc_stat("77 a R 5"));
}

TEST_CASE("stat, status, auxv, links of a child") {
  Child child([] {
    prctl(PR_SET_NAME, "na) me");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_SETMASK, &set, nullptr);
    say_and_wait("ready");
  });
  child.hear();
  auto stat = read_proc_stat(child.pid());
  REQUIRE(stat);
  CHECK(stat->comm == "na) me");
  CHECK(stat->ppid == getpid());
  CHECK(stat->pgrp == getpgrp());
  CHECK(stat->session == getsid(0));
  auto stack_here = reinterpret_cast<uint64_t>(&stat);
  CHECK(stat->start_stack > stack_here);
  CHECK(stat->start_code <= reinterpret_cast<uint64_t>(&read_proc_stat));
  CHECK(stat->end_code > reinterpret_cast<uint64_t>(&read_proc_stat));
  CHECK(stat->start_brk != 0);
  CHECK(stat->arg_end > stat->arg_start);
  auto status = read_status_fields(child.pid());
  REQUIRE(status);
  CHECK(status->uid[0] == getuid());
  CHECK(status->gid[1] == getegid());
  CHECK(status->tgid == child.pid());
  CHECK(status->ns_pid.front() == child.pid());
  CHECK(status->threads == kThreadsOfChild);
  CHECK(status->sig_blocked == 1ull << (SIGUSR2 - 1));
  CHECK(status->no_new_privs);
  CHECK(status->tracer_pid == 0);
  CHECK(status->seccomp == 0);
  CHECK(*read_comm(child.pid(), child.pid()) == "na) me");
  auto threads = list_threads(child.pid());
  REQUIRE(threads);
  CHECK(threads->size() == kThreadsOfChild);
  CHECK(threads->front() == child.pid());
  auto children = list_children(getpid());
  REQUIRE(children);
  CHECK(std::count(children->begin(), children->end(), child.pid()) == 1);
  auto auxv = read_auxv(child.pid());
  REQUIRE(auxv);
  CHECK(std::count(auxv->begin(), auxv->end(), std::pair<uint64_t, uint64_t>(AT_PAGESZ, 4096)) == 1);
  CHECK(*same_namespace(getpid(), child.pid(), "pid"));
  CHECK_FALSE(same_namespace(getpid(), child.pid(), "nothing"));
}

TEST_CASE("memory: with and without respect for protection") {
  static char* page;
  page = static_cast<char*>(
      mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  strcpy(page, "first");
  strcpy(page + kPage, "second");
  strcpy(page + 2 * kPage - 4, "tail");  // its zero would lie in the third page
  REQUIRE(munmap(page + 2 * kPage, kPage) == 0);
  REQUIRE(mprotect(page, kPage, PROT_READ) == 0);
  Child child([] { say_and_wait("ready"); });
  child.hear();
  auto memory = ProcessMemory::open(child.pid());
  REQUIRE(memory);
  auto at = reinterpret_cast<uint64_t>(page);
  CHECK(*memory->read_string(at) == "first");
  CHECK(memory->read_string(at + 2 * kPage - 4).error().code == EIO);
  CHECK(memory->read_string(at, 3).error().code == ENAMETOOLONG);
  CHECK(memory->write(at, "FIRST", 5));
  CHECK(*memory->read_string(at) == "FIRST");
  CHECK(std::string(page) == "first");  // private: ours has not changed
  CHECK(write_memory(child.pid(), at, "x", 1).error().code == EFAULT);
  CHECK(write_memory(child.pid(), at + kPage, "SECOND", 6));
  char text[3 * kPage];
  CHECK(read_memory(child.pid(), at, text, 2 * kPage));
  CHECK(std::string(text + kPage) == "SECOND");
  CHECK(*memory->read_some(at, text, sizeof(text)) == 2 * kPage);
  CHECK(*read_memory_some(child.pid(), at, text, sizeof(text)) == 2 * kPage);
  CHECK(memory->read(at, text, sizeof(text)).error().code == EIO);
  CHECK(read_memory(child.pid(), at, text, sizeof(text)).error().code == EFAULT);
  CHECK(*memory->read_value<uint16_t>(at) == uint16_t('F' | 'I' << 8));
  std::vector<RemoteRange> ranges{{at, 5}, {at + kPage, 6}};
  CHECK(read_ranges(child.pid(), ranges, text));
  CHECK(std::string(text, 11) == "FIRSTSECOND");
  ranges.push_back({at + 2 * kPage, 1});
  CHECK(read_ranges(child.pid(), ranges, text).error().code == EFAULT);
  kill(child.pid(), SIGKILL);
  child.finish();
  CHECK(memory->read(at, text, 1).error().code == ESRCH);
  munmap(page, 2 * kPage);
}

TEST_CASE("ranges: more than one call takes") {
  std::vector<char> source(3000 * 8);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<char>(i * 7);
  std::vector<RemoteRange> ranges;
  for (size_t i = 0; i < 3000; ++i) ranges.push_back({reinterpret_cast<uint64_t>(&source[i * 8]), 4});
  std::vector<char> got(3000 * 4);
  REQUIRE(read_ranges(getpid(), ranges, got.data()));
  for (size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == source[i / 4 * 8 + i % 4]);
  std::fill(got.begin(), got.end(), 'x');
  REQUIRE(write_ranges(getpid(), ranges, got.data()));
  CHECK(source[0] == 'x');
  CHECK(source[4] == 28);
  CHECK(source[2999 * 8 + 3] == 'x');
}

TEST_CASE("pagemap: own pages, whatever way they are looked for") {
  char name[] = "/tmp/mosix-pagemap-XXXXXX";
  int file = mkstemp(name);
  REQUIRE(file >= 0);
  unlink(name);
  std::string content(16 * kPage, 'f');
  REQUIRE(write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  constexpr size_t kSparse = 4ull << 30;
  Child child([file] {
    auto* sparse = static_cast<char*>(
        mmap(nullptr, kSparse, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    madvise(sparse, kSparse, MADV_NOHUGEPAGE);
    for (size_t at : {size_t{0}, kPage, size_t{1} << 30, kSparse - kPage}) sparse[at] = 1;
    auto* text =
        static_cast<volatile char*>(mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
    (void)text[2 * kPage];
    text[5 * kPage] = 'x';
    auto* shared = static_cast<volatile char*>(
        mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    shared[kPage] = 1;
    auto* many = static_cast<volatile char*>(
        mmap(nullptr, 6000 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    madvise(const_cast<char*>(many), 6000 * kPage, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 6000; i += 2) many[i * kPage] = 1;
    auto* guarded = static_cast<volatile char*>(
        mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    guarded[kPage] = 1;
    madvise(const_cast<char*>(guarded) + 2 * kPage, kPage, kGuardInstall);
    std::string line;
    for (const volatile void* place :
         {static_cast<const volatile void*>(sparse), static_cast<const volatile void*>(text),
          static_cast<const volatile void*>(shared), static_cast<const volatile void*>(many),
          static_cast<const volatile void*>(guarded)})
      line += hex(const_cast<const void*>(place)) + "\n";
    line.pop_back();
    say_and_wait(line);
  });
  close(file);
  uint64_t sparse = hear_address(child), text = hear_address(child), shared = hear_address(child),
           many = hear_address(child), guarded = hear_address(child);
  for (std::string off : {"", "pagemap_scan"}) {
    CAPTURE(off);
    FeaturesOff features(off.c_str());
    auto start = std::chrono::steady_clock::now();
    auto found = private_pages(child.pid(), sparse, sparse + kSparse);
    auto took = std::chrono::steady_clock::now() - start;
    REQUIRE(found);
    MESSAGE("4 GiB with 4 pages, without \""
            << off << "\": " << std::chrono::duration<double, std::milli>(took).count() << " ms");
    CHECK(*found ==
          std::vector<PageSpan>{{sparse, 2}, {sparse + (1ull << 30), 1}, {sparse + kSparse - kPage, 1}});
    CHECK(*private_pages(child.pid(), text, text + 16 * kPage) ==
          std::vector<PageSpan>{{text + 5 * kPage, 1}});
    CHECK(private_pages(child.pid(), shared, shared + 4 * kPage)->empty());
    CHECK(*populated_pages(child.pid(), shared, shared + 4 * kPage) ==
          std::vector<PageSpan>{{shared + kPage, 1}});
    auto alternating = private_pages(child.pid(), many, many + 6000 * kPage);
    REQUIRE(alternating);
    REQUIRE(alternating->size() == 3000);
    for (size_t i = 0; i < 3000; ++i) REQUIRE((*alternating)[i] == PageSpan{many + 2 * i * kPage, 1});
    CHECK(*private_pages(child.pid(), guarded, guarded + 4 * kPage) ==
          std::vector<PageSpan>{{guarded + kPage, 1}});
    // Bounds inside a page mean the whole page; an empty range is empty.
    CHECK(*private_pages(child.pid(), sparse + 100, sparse + 200) == std::vector<PageSpan>{{sparse, 1}});
    CHECK(private_pages(child.pid(), sparse, sparse)->empty());
  }
}

TEST_CASE("syscall site: in the vDSO, across a block border, nowhere") {
  Child child([] { say_and_wait("ready"); });
  child.hear();
  auto site = find_vdso_syscall(child.pid());
  REQUIRE(site);
  uint16_t instruction = 0;
  REQUIRE(read_memory(child.pid(), *site, &instruction, 2));
  CHECK(instruction == 0x050f);
  std::vector<unsigned char> text(200'000, 0x0f);
  auto start = reinterpret_cast<uint64_t>(text.data());
  CHECK(find_syscall_instruction(getpid(), start, start + text.size()).error().code == ENOENT);
  text[65536] = 0x05;
  CHECK(*find_syscall_instruction(getpid(), start, start + text.size()) == start + 65535);
  CHECK(find_syscall_instruction(getpid(), start, start + 65536).error().code == ENOENT);
}
