// /proc/self: what it says of memory, times and arguments is true of this process, wherever it is: mappings as they were
// made, sizes as they were taken, bytes as they were written, and nothing that the process does not have.
#include <dirent.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <map>
#include <thread>
#include <vector>

#include "check.h"

using check::Scratch;

namespace {

constexpr size_t kPage = 4096;

/// Read by calls alone: a library that takes memory for it would change what is read.
std::string whole(int fd, size_t piece = 1 << 16) {
  static char buffer[1 << 20];
  size_t used = 0;
  for (;;) {
    const ssize_t got = read(fd, buffer + used, std::min(piece, sizeof buffer - used));
    CHECK(got >= 0);
    if (got == 0) return std::string(buffer, used);
    used += static_cast<size_t>(got);
  }
}

std::string whole(const std::string& name) {
  const int fd = open(("/proc/self/" + name).c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  std::string text = whole(fd);
  close(fd);
  return text;
}

struct Line {
  uintptr_t start = 0, end = 0;
  char flags[5] = {};
  unsigned long offset = 0, inode = 0;
  unsigned major = 0, minor = 0;
  std::string name;
};

std::vector<Line> lines_of(const std::string& text) {
  std::vector<Line> lines;
  std::istringstream in(text);
  for (std::string row; std::getline(in, row);) {
    Line line;
    int name_at = 0;
    CHECK(sscanf(row.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &line.start, &line.end, line.flags,
                 &line.offset, &line.major, &line.minor, &line.inode, &name_at) == 7);
    line.name = row.substr(static_cast<size_t>(name_at));
    if (!line.name.empty()) CHECK_EQ(name_at, 73);
    CHECK(lines.empty() || lines.back().end <= line.start);
    lines.push_back(line);
  }
  return lines;
}

const Line* line_at(const std::vector<Line>& lines, const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const Line& line : lines)
    if (line.start <= at && at < line.end) return &line;
  return nullptr;
}

std::string flags_at(const void* address) {
  const std::vector<Line> lines = lines_of(whole("maps"));
  const Line* line = line_at(lines, address);
  return line == nullptr ? "none" : line->flags;
}

char* mapped(size_t bytes, int protection = PROT_READ | PROT_WRITE, int flags = MAP_PRIVATE) {
  void* at = mmap(nullptr, bytes, protection, flags | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return static_cast<char*>(at);
}

/// Addresses of mappings that do not join their neighbours.
char* apart(size_t bytes, int protection = PROT_READ | PROT_WRITE) {
  char* at = mapped(bytes + 2 * kPage, PROT_NONE);
  CHECK_EQ(mprotect(at + kPage, bytes, protection), 0);
  return at + kPage;
}

void mappings_are_shown() {
  char* plain = mapped(3 * kPage);
  char* code = mapped(kPage, PROT_READ | PROT_EXEC);
  char* shared = mapped(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  move_point();
  char* later = mapped(kPage, PROT_NONE);
  for (int round = 0; round < 2; ++round) {
    CHECK_EQ(flags_at(plain), "rw-p");
    CHECK_EQ(flags_at(plain + 3 * kPage - 1), "rw-p");
    CHECK_EQ(flags_at(code), "r-xp");
    CHECK_EQ(flags_at(shared), "rw-s");
    CHECK_EQ(flags_at(later), "---p");
    move_point();
  }
  CHECK_EQ(mprotect(plain + kPage, kPage, PROT_READ), 0);
  CHECK_EQ(munmap(later, kPage), 0);
  CHECK_EQ(flags_at(plain), "rw-p");
  CHECK_EQ(flags_at(plain + kPage), "r--p");
  munmap(plain, 3 * kPage);
  munmap(code, kPage);
  munmap(shared, 2 * kPage);
}

void files_have_their_names() {
  Scratch scratch;
  const int fd = open("mapped", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 5 * kPage), 0);
  struct stat facts {};
  CHECK_EQ(fstat(fd, &facts), 0);
  void* at = mmap(nullptr, 2 * kPage, PROT_READ, MAP_PRIVATE, fd, 2 * kPage);
  CHECK(at != MAP_FAILED);
  close(fd);
  for (int round = 0; round < 3; ++round) {
    const std::vector<Line> lines = lines_of(whole("maps"));
    const Line* line = line_at(lines, at);
    CHECK(line != nullptr);
    CHECK_EQ(std::string(line->flags), "r--p");
    CHECK_EQ(line->offset, 2 * kPage);
    CHECK_EQ(line->inode, facts.st_ino);
    char real[4096];
    CHECK(realpath("mapped", real) != nullptr);
    CHECK_EQ(line->name, std::string(real));
    move_point();
  }
  munmap(at, 2 * kPage);
}

/// All that is shown is there, and can be asked for.
void nothing_else_is_shown() {
  for (int round = 0; round < 3; ++round) {
    for (const Line& line : lines_of(whole("maps"))) {
      if (line.name == "[vsyscall]") continue;
      unsigned char resident;
      CHECK_EQ(mincore(reinterpret_cast<void*>(line.start), kPage, &resident), 0);
      CHECK_EQ(mincore(reinterpret_cast<void*>(line.end - kPage), kPage, &resident), 0);
    }
    move_point();
  }
}

void heap_and_stack() {
  char* before = static_cast<char*>(sbrk(0));
  CHECK(sbrk(40 * kPage) != reinterpret_cast<void*>(-1));
  for (int round = 0; round < 3; ++round) {
    const std::vector<Line> lines = lines_of(whole("maps"));
    const Line* heap = line_at(lines, before + kPage);
    CHECK(heap != nullptr);
    CHECK_EQ(heap->name, "[heap]");
    CHECK_EQ(heap->end, (reinterpret_cast<uintptr_t>(sbrk(0)) + kPage - 1) & ~(kPage - 1));
    const Line* stack = line_at(lines, &round);
    CHECK(stack != nullptr);
    CHECK_EQ(stack->name, "[stack]");
    move_point();
  }
  CHECK(sbrk(-40 * static_cast<intptr_t>(kPage)) != reinterpret_cast<void*>(-1));
}

/// "Rss:     40 kB" behind the line of a mapping in smaps, or in status: the number, or -1.
long field(const std::string& text, const std::string& name, size_t from = 0) {
  const size_t at = text.find("\n" + name + ":", from);
  return at == std::string::npos ? -1 : atol(text.c_str() + at + name.size() + 2);
}

void pages_are_counted() {
  char* memory = apart(64 * kPage);
  for (size_t page = 0; page < 10; ++page) memory[page * kPage] = 'x';
  for (int round = 0; round < 3; ++round) {
    const std::string smaps = "\n" + whole("smaps");
    char head[32];
    snprintf(head, sizeof head, "\n%08lx-", reinterpret_cast<uintptr_t>(memory));
    const size_t at = smaps.find(head);
    CHECK(at != std::string::npos);
    CHECK_EQ(field(smaps, "Size", at + 1), 256);
    CHECK_EQ(field(smaps, "Rss", at + 1), 40);
    CHECK_EQ(field(smaps, "Anonymous", at + 1), 40);
    const std::string rollup = whole("smaps_rollup");
    CHECK(rollup.find("[rollup]") != std::string::npos);
    CHECK(field(rollup, "Rss") >= 40);
    move_point();
  }
  munmap(memory - kPage, 66 * kPage);
}

struct Sizes {
  long status_kib, data_kib, statm_pages, stat_bytes, resident_kib, stat_resident;
};

Sizes sizes() {
  Sizes now{};
  const std::string status = whole("status");
  now.status_kib = field(status, "VmSize");
  now.data_kib = field(status, "VmData");
  now.resident_kib = field(status, "VmRSS");
  now.statm_pages = atol(whole("statm").c_str());
  const std::string stat = whole("stat");
  CHECK(sscanf(stat.c_str() + stat.rfind(')') + 2,
               "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %ld %ld",
               &now.stat_bytes, &now.stat_resident) == 2);
  return now;
}

void sizes_grow_with_memory() {
  constexpr long kMany = 64 << 20;
  sizes();
  const Sizes before = sizes();
  CHECK_EQ(before.status_kib, before.statm_pages * 4);
  CHECK_EQ(before.status_kib * 1024, before.stat_bytes);
  char* memory = mapped(kMany);
  for (long at = 0; at < kMany / 4; at += kPage) memory[at] = 'x';
  Sizes after = sizes();
  CHECK_EQ(after.status_kib - before.status_kib, kMany >> 10);
  CHECK_EQ(after.data_kib - before.data_kib, kMany >> 10);
  CHECK_EQ(after.statm_pages - before.statm_pages, kMany / static_cast<long>(kPage));
  CHECK_EQ(after.stat_bytes - before.stat_bytes, kMany);
  move_point();
  after = sizes();
  // What is not the program's own (pages of files) differs from place to place.
  CHECK(after.resident_kib > kMany >> 12);
  CHECK(after.resident_kib < (kMany >> 12) + 20'000);
  CHECK(after.stat_resident > kMany / 4 / static_cast<long>(kPage));
  munmap(memory, kMany);
  CHECK(sizes().resident_kib < kMany >> 12);
}

void memory_is_a_file() {
  char* memory = mapped(2 * kPage);
  strcpy(memory, "written directly");
  const int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  const auto at = reinterpret_cast<off_t>(memory);
  for (int round = 0; round < 3; ++round) {
    memory[0] = static_cast<char>('a' + round);
    char got[17] = {};
    CHECK_EQ(pread(fd, got, 16, at), 16);
    CHECK_EQ(std::string(got), std::string(1, static_cast<char>('a' + round)) + "ritten directly");
    CHECK_EQ(pwrite(fd, "X", 1, at + 8), 1);
    CHECK_EQ(memory[8], 'X');
    memory[8] = 'd';
    CHECK_EQ(lseek(fd, at + 2, SEEK_SET), at + 2);
    CHECK_EQ(read(fd, got, 3), 3);
    CHECK_EQ(std::string(got, 3), "itt");
    CHECK_EQ(read(fd, got, 3), 3);
    CHECK_EQ(std::string(got, 3), "en ");
    move_point();
  }
  // Also where the process itself may not write, and not where nothing is.
  CHECK_EQ(mprotect(memory, kPage, PROT_READ), 0);
  CHECK_EQ(pwrite(fd, "R", 1, at), 1);
  CHECK_EQ(memory[0], 'R');
  CHECK_EQ(munmap(memory + kPage, kPage), 0);
  char byte;
  CHECK_FAILS(pread(fd, &byte, 1, 8), EIO);
  close(fd);
  munmap(memory, kPage);
}

void pages_in_the_table() {
  char* memory = mapped(4 * kPage);
  memory[kPage] = 'x';
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  for (int round = 0; round < 2; ++round) {
    uint64_t entries[4] = {};
    CHECK_EQ(pread(fd, entries, sizeof entries,
                   static_cast<off_t>(reinterpret_cast<uintptr_t>(memory) / kPage * 8)),
             static_cast<ssize_t>(sizeof entries));
    CHECK_EQ(entries[1] >> 63, 1u);
    CHECK_EQ(entries[2] >> 62, 0u);
    move_point();
  }
  close(fd);
  munmap(memory, 4 * kPage);
}

bool parts_make_the_whole(int fd) {
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  const std::string at_once = whole(fd);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  if (whole(fd, 100) != at_once) return false;
  CHECK_EQ(lseek(fd, 10, SEEK_SET), 10);
  const int other = dup(fd);
  CHECK(other >= 0);
  char part[21] = {}, rest[21] = {}, place[21] = {};
  CHECK_EQ(read(other, part, 20), 20);
  CHECK_EQ(read(fd, rest, 20), 20);
  CHECK_EQ(pread(other, place, 20, 30), 20);
  close(other);
  return std::string(part) + rest == at_once.substr(10, 40) && place == at_once.substr(30, 20);
}

/// A descriptor that stays open, read in parts, again, and by its duplicates.
void read_in_parts() {
  const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  for (int round = 0; round < 3; ++round) {
    // The same memory may be shown as more or fewer mappings after a move, which may come at any time.
    bool alike = false;
    for (int attempt = 0; attempt < 20 && !alike; ++attempt) alike = parts_make_the_whole(fd);
    CHECK(alike);
    // It shows what is there now.
    char* fresh = apart(kPage, PROT_READ);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    const std::vector<Line> lines = lines_of(whole(fd));
    CHECK(line_at(lines, fresh) != nullptr);
    CHECK_EQ(std::string(line_at(lines, fresh)->flags), "r--p");
    munmap(fresh - kPage, 3 * kPage);
    move_point();
  }
  close(fd);
}

char* first_argument;

void arguments_can_be_written() {
  const std::string before = first_argument;
  memset(first_argument, 'p', before.size());
  for (int round = 0; round < 3; ++round) {
    CHECK_EQ(std::string(whole("cmdline").c_str()), std::string(before.size(), 'p'));
    move_point();
  }
  memcpy(first_argument, before.data(), before.size());
  CHECK_EQ(std::string(whole("cmdline").c_str()), before);
  CHECK(("\0" + whole("environ")).find("PATH=") != std::string::npos);
}

long ticks(const std::string& file) {
  const std::string stat = whole(file);
  long user = 0, system = 0;
  CHECK(sscanf(stat.c_str() + stat.rfind(')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld",
               &user, &system) == 2);
  return user + system;
}

void compute() {
  static volatile long sum;
  for (long i = 0; i < 3'000'000; ++i) sum = sum + i;
}

/// Waits for it by computing: it never ends if nothing is counted.
void time_is_counted() {
  const long before = ticks("stat");
  long of_the_first = 0;
  std::thread([&] {
    const std::string own = "task/" + std::to_string(syscall(SYS_gettid)) + "/stat";
    const std::string first = "task/" + std::to_string(getpid()) + "/stat";
    of_the_first = ticks(first);
    for (const long until : {5, 10}) {
      while (ticks(own) < until) compute();
      move_point();
    }
    of_the_first = ticks(first) - of_the_first;
  }).join();
  CHECK(of_the_first <= 5);  // which has waited
  while (ticks("stat") - before < 10) compute();
}

void status_tells_of_the_process() {
  const std::string own = std::to_string(getpid());
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, nullptr), 0);
  signal(SIGUSR1, [](int) {});
  for (int round = 0; round < 3; ++round) {
    const std::string status = whole("status");
    CHECK_EQ(field(status, "Pid"), getpid());
    CHECK_EQ(field(status, "PPid"), getppid());
    CHECK_EQ(field(status, "Threads"), 1);
    CHECK_EQ(field(status, "TracerPid"), 0);
    const auto set = [&](const char* name) {
      const size_t at = status.find("\n" + std::string(name) + ":\t");
      return strtoull(status.c_str() + at + strlen(name) + 3, nullptr, 16);
    };
    CHECK_EQ(set("SigBlk"), 1ull << (SIGUSR2 - 1));
    CHECK_EQ(set("SigCgt") >> (SIGUSR1 - 1) & 1, 1u);
    move_point();
  }
  CHECK_EQ(sigprocmask(SIG_UNBLOCK, &blocked, nullptr), 0);
  signal(SIGUSR1, SIG_DFL);
  int tasks = 0;
  DIR* listing = opendir("/proc/self/task");
  CHECK(listing != nullptr);
  while (const dirent* entry = readdir(listing)) tasks += entry->d_name[0] != '.';
  closedir(listing);
  CHECK_EQ(tasks, 1);
}

}  // namespace

int main(int argc, char** argv) {
  first_argument = argv[0];
  return check::run(argc, argv,
                    {{"mappings-are-shown", mappings_are_shown},
                     {"files-have-their-names", files_have_their_names},
                     {"nothing-else-is-shown", nothing_else_is_shown},
                     {"heap-and-stack", heap_and_stack},
                     {"pages-are-counted", pages_are_counted},
                     {"sizes-grow-with-memory", sizes_grow_with_memory},
                     {"memory-is-a-file", memory_is_a_file},
                     {"pages-in-the-table", pages_in_the_table},
                     {"read-in-parts", read_in_parts},
                     {"arguments-can-be-written", arguments_can_be_written},
                     {"time-is-counted", time_is_counted},
                     {"status-tells-of-the-process", status_tells_of_the_process}});
}
