// Texts of /proc/PID put together from two kernels'.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "remote/proc_view.h"

#include <doctest/doctest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libmosix/process/proc_stat.h"
#include "remote/proc_files.h"

using namespace mosix;

namespace {

/// Ours lies at 10000; a memfd stands for a file.
std::optional<MapEntry> at_home(MapEntry entry) {
  if (entry.start >= 0x10000 && entry.start < 0x20000) return std::nullopt;
  if (entry.inode == 77) {
    entry.device = makedev(8, 1);
    entry.inode = 1234;
    entry.path = "/lib/a file\nwith lines";
    entry.deleted = false;
  }
  return entry;
}

constexpr char kMapsHere[] =
    "00001000-00003000 r-xp 00002000 00:05 77                                 /memfd:mosix:file (deleted)\n"
    "00010000-00014000 rw-p 00000000 00:00 0 \n"
    "00014000-00018000 rw-s 00000000 00:01 5                                  /dev/zero (deleted)\n"
    "7ffd1000-7ffd3000 rw-p 00000000 00:00 0                                  [stack]\n";

}  // namespace

TEST_CASE("a line of maps is as the kernel writes it") {
  Result<std::string> text = read_proc_file(getpid(), "maps");
  REQUIRE(text);
  Result<std::vector<MapEntry>> maps = parse_maps(*text);
  REQUIRE(maps);
  std::string mine;
  for (const MapEntry& entry : *maps) mine += maps_line(entry);
  CHECK_EQ(mine, *text);
}

TEST_CASE("maps: what is ours is left out, what stands for a file has its name") {
  CHECK_EQ(
      maps_text(kMapsHere, at_home),
      "00001000-00003000 r-xp 00002000 08:01 1234                               /lib/a file\\012with lines\n"
      "7ffd1000-7ffd3000 rw-p 00000000 00:00 0                                  [stack]\n");
  OwnSizes own = own_sizes(kMapsHere, at_home);
  CHECK_EQ(own.total, 0x8000);
  CHECK_EQ(own.writable, 0x4000);
  CHECK_EQ(maps_text("", at_home), "");
  CHECK_EQ(maps_text("no mapping\n", at_home), "");
}

TEST_CASE("smaps and its sum") {
  std::string here =
      "00001000-00003000 r-xp 00002000 00:05 77 /memfd:mosix:file (deleted)\n"
      "Size:                  8 kB\nKernelPageSize:        4 kB\nRss:                   4 kB\n"
      "THPeligible:           0\nVmFlags: rd ex mr mw me \n"
      "00010000-00014000 rw-p 00000000 00:00 0 \n"
      "Size:                 16 kB\nRss:                  16 kB\nVmFlags: rd wr \n"
      "7ffd1000-7ffd3000 rw-p 00000000 00:00 0 [stack]\n"
      "Size:                  8 kB\nRss:                   8 kB\nVmFlags: rd wr gd \n";
  std::string text = smaps_text(here, at_home);
  CHECK(text.find("00010000") == std::string::npos);
  CHECK(text.find("16 kB") == std::string::npos);
  CHECK(text.find("VmFlags: rd ex mr mw me \n7ffd1000") != std::string::npos);
  std::string sum = rollup_text(text);
  CHECK_EQ(sum,
           "00001000-7ffd3000 ---p 00000000 00:00 0                                  [rollup]\n"
           "Rss:                  12 kB\n");
}

TEST_CASE("status: memory from here, all else from home") {
  std::string home =
      "Name:\tx: y\nPid:\t5\nVmSize:\t    1000 kB\nVmRSS:\t      10 kB\nVmNew:\t       1 "
      "kB\nSigBlk:\t0000000000000800\n"
      "voluntary_ctxt_switches:\t1\n";
  std::string here =
      "Name:\tstub\nPid:\t99\nVmSize:\t     500 kB\nVmRSS:\t     400 kB\nSigBlk:\t0000000000000000\n"
      "voluntary_ctxt_switches:\t17\n";
  CHECK_EQ(status_text(home, here, {.total = 100 << 10, .writable = 0}),
           "Name:\tx: y\nPid:\t5\nVmSize:\t     400 kB\nVmRSS:\t     400 kB\nVmNew:\t       1 kB\n"
           "SigBlk:\t0000000000000800\nvoluntary_ctxt_switches:\t17\n");
  CHECK_EQ(status_text(home, "", {}), home);
}

TEST_CASE("statm") {
  CHECK_EQ(statm_text("100 50 20 5 0 60 0\n", {.total = 10 * 4096, .writable = 3 * 4096}),
           "90 50 20 5 0 57 0\n");
  CHECK_EQ(statm_text("garbage\n", {.total = 4096, .writable = 0}), "garbage\n");
}

TEST_CASE("stat: the name may hold anything, times are added") {
  Result<std::string> own = read_proc_file(getpid(), "stat");
  REQUIRE(own);
  std::string rest = own->substr(own->rfind(')'));
  std::string home = "7 (a) b ( c" + rest;
  Result<ProcStat> before = parse_proc_stat(home);
  REQUIRE(before);
  std::string text = stat_text(
      home, *own, {.total = 4096, .writable = 0},
      {.user_ns = 1'000'000'000, .system_ns = 20'000'000, .children_user_ns = 0, .children_system_ns = 0});
  Result<ProcStat> stat = parse_proc_stat(text);
  REQUIRE(stat);
  CHECK_EQ(stat->pid, 7);
  CHECK_EQ(stat->comm, "a) b ( c");
  CHECK_EQ(stat->utime, before->utime + 100);
  CHECK_EQ(stat->stime, before->stime + 2);
  CHECK_EQ(stat->start_stack, before->start_stack);
  CHECK_EQ(stat_text("nothing", *own, {}, {}), "nothing");
}

TEST_CASE("paths of /proc") {
  std::optional<ProcPath> of_process = parse_proc_path("/proc/12/smaps");
  REQUIRE(of_process);
  CHECK_EQ(of_process->pid, 12);
  CHECK_EQ(of_process->tid, 0);
  CHECK_EQ(of_process->name, "smaps");
  std::optional<ProcPath> of_thread = parse_proc_path("/proc/12/task/13/stat");
  REQUIRE(of_thread);
  CHECK_EQ(of_thread->tid, 13);
  CHECK_EQ(of_thread->name, "stat");
  for (const char* other : {"", "/proc/", "/proc/12", "/proc/self/maps", "/proc/meminfo", "/proc/12/fd/3",
                            "/proc/12/task/13", "/proc/1234567890123/maps", "/tmp/proc/12/maps"})
    CHECK_FALSE(parse_proc_path(other));
}

TEST_CASE("which descriptors lead there") {
  ProcFiles files;
  files.add(5, 3);
  files.add(5, 9);
  files.add(6, 3);
  CHECK(files.has(5, 9));
  files.keep_text(5, 9, "text");
  CHECK_EQ(files.text(5, 9).value_or(""), "text");
  files.add(5, 9);  // opened anew
  CHECK_FALSE(files.text(5, 9));
  CHECK(files.inherit(5, 7));
  CHECK_FALSE(files.inherit(8, 9));
  files.closed(5, 4, 100);
  CHECK_EQ(files.of(5), std::vector<int32_t>{3});
  CHECK_EQ(files.of(7), std::vector<int32_t>{3, 9});
  files.forget_process(7);
  CHECK(files.of(7).empty());
  CHECK(files.has(6, 3));
}
