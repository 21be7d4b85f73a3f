// Memory that processes share: anonymous and of /dev/zero, from the mapping alone to calls and ends of processes in it
// (for locks in it: sharing_locks.cc). Whoever has it sees at once what another writes, whether that one runs, waits,
// is stopped or has ended, and wherever all of them are meanwhile. So each check moves at the instants at which a copy
// would show: when one process has touched pages that another has not, when somebody waits, when one has left.
//
// Processes wait for each other at pipes (Gate) where the memory is the subject, at words where waking is.
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/uio.h>

#include <vector>

#include "check.h"
#include "sharing_tools.h"
#include "signal_tools.h"

using check::Scratch;

extern char** environ;

namespace {

std::string own_path;

// ---- what the checks are made of

sigjmp_buf jump;
volatile sig_atomic_t fault;
void* fault_address;

void note_fault(int number, siginfo_t* info, void*) {
  fault = number;
  fault_address = info->si_addr;
  siglongjmp(jump, 1);
}

/// The signal that touching a byte gives, or 0. A write leaves what is there.
int touched(char* at, bool write) {
  const Handler segv(SIGSEGV, note_fault), bus(SIGBUS, note_fault);
  fault = 0;
  if (sigsetjmp(jump, 1) == 0) {
    volatile char* byte = at;
    const char value = *byte;
    if (write) *byte = value;
  } else {
    CHECK(fault_address == at);
  }
  return fault;
}
int read_at(char* at) { return touched(at, false); }
int write_at(char* at) { return touched(at, true); }

/// Fills so many pages with numbers that begin with `first`, or checks that they hold them.
void number_pages(char* memory, size_t pages, int first) {
  for (size_t i = 0; i < pages; ++i)
    memory[i * kPage] = memory[i * kPage + kPage - 1] = static_cast<char>(first + static_cast<int>(i));
}
void check_numbers(const char* memory, size_t pages, int first) {
  for (size_t i = 0; i < pages; ++i) {
    const int number = static_cast<char>(first + static_cast<int>(i));
    CHECK_EQ(+memory[i * kPage], number);
    CHECK_EQ(+memory[i * kPage + kPage - 1], number);
    CHECK_EQ(+memory[i * kPage + kPage / 2], 0);
  }
}

// ---- one process

void zero_and_kept() {
  constexpr size_t kBytes = 3 << 20;
  char* memory = mapped(kBytes);
  for (size_t i = 0; i < kBytes; i += 511) CHECK_EQ(memory[i], 0);
  number_pages(memory, kBytes / kPage, 1);
  // More than one at a time: they do not run together, and each has what is its own.
  char* several[5];
  for (int i = 0; i < 5; ++i) several[i] = mapped(static_cast<size_t>(i + 1) * kPage);
  for (int i = 0; i < 5; ++i) number_pages(several[i], static_cast<size_t>(i + 1), 10 * i);
  move_point();
  check_numbers(memory, kBytes / kPage, 1);
  CHECK_EQ(munmap(several[2], 3 * kPage), 0);
  char* later = mapped(2 * kPage);
  check_numbers(later, 1, 0);
  number_pages(later, 2, 99);
  move_point();
  CHECK_EQ(msync(memory, kBytes, MS_SYNC), 0);
  check_numbers(memory, kBytes / kPage, 1);
  check_numbers(later, 2, 99);
  for (int i : {0, 1, 3, 4}) {
    check_numbers(several[i], static_cast<size_t>(i + 1), 10 * i);
    CHECK_EQ(munmap(several[i], static_cast<size_t>(i + 1) * kPage), 0);
  }
  CHECK_EQ(munmap(later, 2 * kPage), 0);
  CHECK_EQ(munmap(memory, kBytes), 0);
}

void protection() {
  char* memory = mapped(4 * kPage);
  number_pages(memory, 4, 1);
  CHECK_EQ(mprotect(memory + kPage, kPage, PROT_READ), 0);
  CHECK_EQ(mprotect(memory + 2 * kPage, kPage, PROT_NONE), 0);
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ(write_at(memory), 0);
    CHECK_EQ(read_at(memory + kPage), 0);
    CHECK_EQ(write_at(memory + kPage), SIGSEGV);
    CHECK_EQ(read_at(memory + 2 * kPage), SIGSEGV);
    CHECK_EQ(write_at(memory + 3 * kPage), 0);
    check_numbers(memory, 2, 1);
    move_point();
  }
  CHECK_EQ(mprotect(memory, 4 * kPage, PROT_READ | PROT_WRITE), 0);
  check_numbers(memory, 4, 1);
  CHECK_EQ(mprotect(memory, 4 * kPage, PROT_NONE), 0);
  move_point();  // nobody can read any of it
  CHECK_EQ(read_at(memory + kPage), SIGSEGV);
  CHECK_EQ(mprotect(memory, 4 * kPage, PROT_READ), 0);
  check_numbers(memory, 4, 1);
  move_point();
  CHECK_EQ(write_at(memory), SIGSEGV);
  CHECK_EQ(mprotect(memory, 4 * kPage, PROT_READ | PROT_WRITE), 0);
  number_pages(memory, 4, 5);
  check_numbers(memory, 4, 5);
  munmap(memory, 4 * kPage);
  // Born without access.
  char* closed = mapped(2 * kPage, MAP_SHARED, PROT_NONE);
  char* readable = mapped(2 * kPage, MAP_SHARED, PROT_READ);
  move_point();
  CHECK_EQ(read_at(closed), SIGSEGV);
  CHECK_EQ(read_at(readable), 0);
  CHECK_EQ(write_at(readable), SIGSEGV);
  for (char* one : {closed, readable}) {
    CHECK_EQ(mprotect(one, 2 * kPage, PROT_READ | PROT_WRITE), 0);
    CHECK_EQ(one[kPage], 0);
    number_pages(one, 2, 3);
    move_point();
    check_numbers(one, 2, 3);
    munmap(one, 2 * kPage);
  }
}

/// What the mappings show of the memory, and in which order, is another thing than the memory.
void holes_and_other_places() {
  char* memory = mapped(8 * kPage);
  number_pages(memory, 8, 1);
  CHECK_EQ(munmap(memory + 3 * kPage, 2 * kPage), 0);
  CHECK_EQ(read_at(memory + 3 * kPage), SIGSEGV);
  move_point();
  CHECK_EQ(read_at(memory + 4 * kPage), SIGSEGV);
  check_numbers(memory, 3, 1);
  check_numbers(memory + 5 * kPage, 3, 6);
  // Its two first pages change places, by way of a third place.
  char* room = mapped(4 * kPage, MAP_PRIVATE);
  auto put = [](char* from, char* to) {
    CHECK(mremap(from, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  };
  put(memory, room + kPage);
  put(memory + kPage, memory);
  put(room + kPage, memory + kPage);
  for (int i = 0; i < 2; ++i) {
    check_numbers(memory, 1, 2);
    check_numbers(memory + kPage, 1, 1);
    check_numbers(memory + 2 * kPage, 1, 3);
    CHECK_EQ(read_at(room + kPage), SIGSEGV);
    CHECK_EQ(write_at(room + 2 * kPage), 0);
    move_point();
  }
  munmap(room, 4 * kPage);
  // Private memory of its own in the hole.
  CHECK(mmap(memory + 3 * kPage, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == memory + 3 * kPage);
  memory[3 * kPage] = 'p';
  move_point();
  CHECK_EQ(memory[3 * kPage], 'p');
  CHECK_EQ(read_at(memory + 4 * kPage), SIGSEGV);
  check_numbers(memory + 5 * kPage, 3, 6);
  munmap(memory, 8 * kPage);
}

/// A mapping grows and shrinks. The memory does not: it is as large as it was made, and behind that is nothing.
void growth_of_a_mapping() {
  char* memory = mapped(4 * kPage);
  number_pages(memory, 4, 1);
  char* larger = static_cast<char*>(mremap(memory, 4 * kPage, 300 * kPage, MREMAP_MAYMOVE));
  CHECK(larger != MAP_FAILED);
  for (int i = 0; i < 2; ++i) {
    check_numbers(larger, 4, 1);
    CHECK_EQ(read_at(larger + 4 * kPage), SIGBUS);
    CHECK_EQ(write_at(larger + 299 * kPage), SIGBUS);
    move_point();
  }
  CHECK(mremap(larger, 300 * kPage, 2 * kPage, 0) == larger);
  CHECK_EQ(read_at(larger + 2 * kPage), SIGSEGV);
  move_point();
  check_numbers(larger, 2, 1);
  munmap(larger, 2 * kPage);
}

void two_views_of_the_same() {
  char* memory = mapped(4 * kPage);
  number_pages(memory, 4, 1);
  // Of a shared mapping an old size of zero makes a second one.
  char* second = static_cast<char*>(mremap(memory, 0, 4 * kPage, MREMAP_MAYMOVE));
  CHECK(second != MAP_FAILED);
  CHECK(second != memory);
  check_numbers(second, 4, 1);
  for (int i = 0; i < 3; ++i) {
    number_pages(memory, 2, 10 * i);
    number_pages(second + 2 * kPage, 2, 20 * i);
    check_numbers(second, 2, 10 * i);
    check_numbers(memory + 2 * kPage, 2, 20 * i);
    move_point();
    check_numbers(second, 2, 10 * i);
    check_numbers(memory + 2 * kPage, 2, 20 * i);
    second[kPage / 4] = static_cast<char>('a' + i);
    CHECK_EQ(memory[kPage / 4], 'a' + i);
  }
  // One shows only a part of it, and may only read.
  char* part = static_cast<char*>(mremap(memory + 2 * kPage, 0, 2 * kPage, MREMAP_MAYMOVE));
  CHECK(part != MAP_FAILED);
  CHECK_EQ(mprotect(part, 2 * kPage, PROT_READ), 0);
  CHECK_EQ(munmap(memory, 3 * kPage), 0);
  move_point();
  second[3 * kPage + 7] = 's';
  CHECK_EQ(part[kPage + 7], 's');
  CHECK_EQ(memory[3 * kPage + 7], 's');
  CHECK_EQ(write_at(part), SIGSEGV);
  CHECK_EQ(write_at(second), 0);
  munmap(memory + 3 * kPage, kPage);
  munmap(second, 4 * kPage);
  move_point();
  CHECK_EQ(part[kPage + 7], 's');  // the last one that shows it keeps it
  munmap(part, 2 * kPage);
}

/// As compilers at run time have it: one view to write code, one to run it, and nothing else that leads there.
void code_in_two_views() {
  const int fd = memfd_create("code", MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 16 * kPage), 0);
  void* written = mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  void* run = mmap(nullptr, 16 * kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  CHECK(written != MAP_FAILED);
  CHECK(run != MAP_FAILED);
  close(fd);
  for (unsigned char page = 0; page < 16; page += 5) {
    const unsigned char code[] = {0xb8, page, 1, 0, 0, 0xc3};  // mov eax, 256 + page; ret
    char* at = static_cast<char*>(written) + page * kPage;
    auto* function = reinterpret_cast<int (*)()>(static_cast<char*>(run) + page * kPage);
    memcpy(at, code, sizeof code);
    CHECK_EQ(function(), 256 + page);
    move_point();
    CHECK_EQ(function(), 256 + page);
    at[2] = 2;
    CHECK_EQ(function(), 512 + page);
  }
  munmap(written, 16 * kPage);
  munmap(run, 16 * kPage);
}

/// A file in memory that parent and child have mapped, and that has neither name nor descriptor any more.
void file_without_a_name() {
  const std::string name = "/mosix-check-" + std::to_string(getpid());
  const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 3 * kPage), 0);
  char* memory = static_cast<char*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  CHECK(memory != MAP_FAILED);
  number_pages(memory, 2, 1);
  CHECK_EQ(shm_unlink(name.c_str()), 0);
  Gate to_child, to_parent;
  const pid_t child = child_of([&] {
    close(fd);
    to_child.pass();
    check_numbers(memory, 2, 3);
    move_point();
    number_pages(memory, 2, 7);
    memory[3 * kPage - 1] = 'c';
    to_parent.open();
  });
  close(fd);
  number_pages(memory, 2, 3);
  move_point();
  to_child.open();
  to_parent.pass();
  check_numbers(memory, 2, 7);
  move_point();
  ends_well(child);
  check_numbers(memory, 2, 7);
  CHECK_EQ(memory[3 * kPage - 1], 'c');
  munmap(memory, 3 * kPage);
}

/// It is mapped by a name that it has lost, and has another one still: whoever opens it by that sees what is stored.
void file_with_another_name() {
  const std::string first = "/dev/shm/mosix-check-" + std::to_string(getpid()), second = first + "-too";
  int fd = open(first.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, kPage), 0);
  char* memory = static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  CHECK(memory != MAP_FAILED);
  close(fd);
  CHECK_EQ(link(first.c_str(), second.c_str()), 0);
  CHECK_EQ(unlink(first.c_str()), 0);
  for (char letter = 'a'; letter < 'e'; ++letter) {
    move_point();
    memory[0] = letter;
    fd = open(second.c_str(), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    char got = 0;
    CHECK_EQ(pread(fd, &got, 1, 0), 1);
    CHECK_EQ(got, letter);
    const char capital = static_cast<char>(letter - 'a' + 'A');
    CHECK_EQ(pwrite(fd, &capital, 1, 0), 1);
    CHECK_EQ(memory[0], capital);
    close(fd);
  }
  CHECK_EQ(unlink(second.c_str()), 0);
  munmap(memory, kPage);
}

void given_back() {
  char* memory = mapped(32 * kPage);
  char* second = static_cast<char*>(mremap(memory, 0, 32 * kPage, MREMAP_MAYMOVE));
  CHECK(second != MAP_FAILED);
  number_pages(memory, 32, 1);
  // The mapping forgets; the memory does not.
  CHECK_EQ(madvise(memory, 32 * kPage, MADV_DONTNEED), 0);
  check_numbers(memory, 8, 1);
  move_point();
  check_numbers(memory, 32, 1);
  CHECK_EQ(madvise(second, 32 * kPage, MADV_DONTNEED), 0);
  CHECK_EQ(madvise(memory, 32 * kPage, MADV_DONTNEED), 0);
  move_point();  // not touched since, by neither
  check_numbers(second, 32, 1);
  // The memory itself forgets, for all that show it.
  CHECK_EQ(madvise(memory + 4 * kPage, 8 * kPage, MADV_REMOVE), 0);
  for (size_t i = 4; i < 8; ++i) CHECK_EQ(second[i * kPage], 0);
  move_point();
  for (size_t i = 4; i < 12; ++i) {
    CHECK_EQ(memory[i * kPage], 0);
    CHECK_EQ(second[i * kPage + kPage - 1], 0);
  }
  check_numbers(memory, 4, 1);
  check_numbers(second + 12 * kPage, 20, 13);
  CHECK_EQ(madvise(second + 12 * kPage, 20 * kPage, MADV_REMOVE), 0);
  ends_well(child_of([&] {
    for (size_t i = 12; i < 32; ++i) CHECK_EQ(memory[i * kPage], 0);
    memory[20 * kPage] = 'c';
    CHECK_EQ(madvise(memory, 2 * kPage, MADV_REMOVE), 0);
  }));
  CHECK_EQ(second[20 * kPage], 'c');
  CHECK_EQ(memory[kPage], 0);
  CHECK_EQ(memory[2 * kPage], 3);
  // These are for private memory.
  CHECK_FAILS(madvise(memory, kPage, MADV_FREE), EINVAL);
  CHECK_FAILS(madvise(memory, kPage, MADV_WIPEONFORK), EINVAL);
  munmap(memory, 32 * kPage);
  munmap(second, 32 * kPage);
}

/// Most of it is nowhere: neither in memory, nor on the way to another node.
void large_and_sparse() {
  constexpr size_t kBytes = 1 << 30;
  char* memory = mapped(kBytes, MAP_SHARED | MAP_NORESERVE);
  constexpr size_t kPlaces[] = {0, (kBytes >> 1) + 5 * kPage, kBytes - kPage};
  for (size_t place : kPlaces) number_pages(memory + place, 1, static_cast<int>(place >> 20));
  move_point();
  for (size_t place : kPlaces) check_numbers(memory + place, 1, static_cast<int>(place >> 20));
  CHECK_EQ(memory[kBytes >> 2], 0);
  CHECK_EQ(memory[(kBytes >> 1) + 4 * kPage], 0);
  memory[(kBytes >> 2) + 1] = 'x';
  move_point();
  CHECK_EQ(memory[(kBytes >> 2) + 1], 'x');
  CHECK_EQ(memory[kBytes - 1], static_cast<char>((kBytes - kPage) >> 20));
  munmap(memory, kBytes);
}

// ---- relatives

void relatives_see_each_other() {
  // Private memory in the middle of it stays private.
  char* memory = mapped(9 * kPage);
  char* own = memory + 4 * kPage;
  CHECK(mmap(own, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == own);
  *own = 'p';
  memory[0] = 'p';
  Gate to_child, to_parent;
  const pid_t child = child_of([&] {
    CHECK_EQ(memory[0], 'p');
    memory[0] = memory[kPage] = *own = 'c';
    to_parent.open();
    to_child.pass();
    CHECK_EQ(memory[2 * kPage], 'P');
    move_point();
    CHECK_EQ(memory[2 * kPage], 'P');
    CHECK_EQ(memory[5 * kPage], 'P');
    CHECK_EQ(*own, 'c');
    memory[3 * kPage] = memory[8 * kPage] = 'C';
    to_parent.open();
    to_child.pass();
  });
  to_parent.pass();
  CHECK_EQ(memory[0], 'c');
  move_point();
  CHECK_EQ(memory[kPage], 'c');
  CHECK_EQ(*own, 'p');
  memory[2 * kPage] = memory[5 * kPage] = 'P';
  to_child.open();
  to_parent.pass();
  CHECK_EQ(memory[3 * kPage], 'C');
  to_child.open();
  ends_well(child);
  CHECK_EQ(memory[8 * kPage], 'C');
  CHECK_EQ(*own, 'p');
  munmap(memory, 9 * kPage);
}

/// One touches the even pages and the other the odd ones, of memory that neither touches in full.
void each_touches_another_part() {
  constexpr size_t kPages = 200;
  char* memory = mapped(kPages * kPage);
  Gate to_child, to_parent;
  auto touch = [&](size_t parity, int first) {
    for (size_t i = parity; i < kPages; i += 2)
      number_pages(memory + i * kPage, 1, first + static_cast<int>(i));
  };
  const pid_t child = child_of([&] {
    touch(1, 1);
    to_parent.open();
    to_child.pass();
    check_numbers(memory, kPages, 1);
    touch(0, 50);
    move_point();
    to_parent.open();
    to_child.pass();
    check_numbers(memory, kPages, 50);
  });
  touch(0, 1);
  to_parent.pass();
  move_point();
  to_child.open();
  to_parent.pass();
  touch(1, 50);
  move_point_of(child);
  to_child.open();
  ends_well(child);
  move_point();
  check_numbers(memory, kPages, 50);
  munmap(memory, kPages * kPage);
}

/// Who has written it is gone, and nobody else has touched it.
void what_the_dead_have_written() {
  constexpr size_t kPages = 100;
  char* memory = mapped(3 * kPages * kPage);
  ends_well(child_of([&] { number_pages(memory, kPages, 1); }));
  move_point();
  check_numbers(memory, kPages, 1);
  // Killed.
  Gate written;
  const pid_t killed = child_of([&] {
    number_pages(memory + kPages * kPage, kPages, 2);
    move_point();
    written.open();
    for (;;) pause();
  });
  written.pass();
  CHECK_EQ(kill(killed, SIGKILL), 0);
  CHECK_EQ(WTERMSIG(status_of(killed)), SIGKILL);
  check_numbers(memory + kPages * kPage, kPages, 2);
  // Dead, and not buried yet.
  const pid_t zombie = child_of([&] { number_pages(memory + 2 * kPages * kPage, kPages, 3); });
  siginfo_t info{};
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT), 0);
  move_point();
  check_numbers(memory + 2 * kPages * kPage, kPages, 3);
  ends_well(zombie);
  munmap(memory, 3 * kPages * kPage);
}

/// What the oldest and the youngest have in common need not be what the one between them has with either.
void generations() {
  char* all = mapped(2 * kPage);
  char* given_up = mapped(2 * kPage);
  Gate to_oldest, to_middle, to_youngest;
  const pid_t middle = child_of([&] {
    char* of_two = mapped(2 * kPage);
    number_pages(of_two, 2, 30);
    const pid_t youngest = child_of([&] {
      check_numbers(of_two, 2, 30);
      number_pages(all, 2, 10);
      CHECK_EQ(munmap(of_two + kPage, kPage), 0);
      to_middle.open();
      to_youngest.pass();
      move_point();
      CHECK_EQ(of_two[1], 'm');
      CHECK_EQ(given_up[1], 'o');
      given_up[2] = 'y';
      all[1] = 'y';
    });
    CHECK_EQ(munmap(given_up, 2 * kPage), 0);
    to_middle.pass();
    check_numbers(all, 2, 10);
    check_numbers(of_two, 2, 30);
    of_two[1] = 'm';
    move_point();
    to_oldest.open();
    ends_well(youngest);
    CHECK_EQ(all[1], 'y');
    CHECK_EQ(of_two[kPage], 31);
  });
  to_oldest.pass();
  check_numbers(all, 2, 10);
  given_up[1] = 'o';
  move_point();
  to_youngest.open();
  ends_well(middle);
  CHECK_EQ(all[1], 'y');
  CHECK_EQ(given_up[2], 'y');
  munmap(all, 2 * kPage);
  munmap(given_up, 2 * kPage);
}

/// One child gives its view of it up, one changes what it may do with it, one never had it. That is theirs alone.
void views_differ() {
  char* memory = mapped(4 * kPage);
  number_pages(memory, 4, 1);
  char* not_for_children = mapped(kPage);
  CHECK_EQ(madvise(not_for_children, kPage, MADV_DONTFORK), 0);
  *not_for_children = 'n';
  Gate ready, unmapped_may, reading_may;
  const pid_t unmapped = child_of([&] {
    CHECK_EQ(read_at(not_for_children), SIGSEGV);
    CHECK_EQ(munmap(memory, 4 * kPage), 0);
    ready.open();
    unmapped_may.pass();
    CHECK_EQ(read_at(memory + kPage), SIGSEGV);
    CHECK(mmap(memory, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          memory);
    CHECK_EQ(memory[0], 0);
    number_pages(memory, 2, 77);
    move_point();
    check_numbers(memory, 2, 77);
  });
  const pid_t reading = child_of([&] {
    CHECK_EQ(mprotect(memory, 2 * kPage, PROT_READ), 0);
    CHECK_EQ(mprotect(memory + 2 * kPage, kPage, PROT_NONE), 0);
    ready.open();
    reading_may.pass();
    CHECK_EQ(write_at(memory), SIGSEGV);
    CHECK_EQ(read_at(memory + 2 * kPage), SIGSEGV);
    check_numbers(memory, 2, 50);
    check_numbers(memory + 3 * kPage, 1, 53);
    move_point();
    CHECK_EQ(mprotect(memory + 2 * kPage, kPage, PROT_READ), 0);
    check_numbers(memory, 4, 50);
    CHECK_EQ(write_at(memory + kPage), SIGSEGV);
  });
  ready.pass();
  ready.pass();
  move_point();
  number_pages(memory, 4, 50);
  unmapped_may.open();
  ends_well(unmapped);
  check_numbers(memory, 4, 50);
  reading_may.open();
  ends_well(reading);
  CHECK_EQ(write_at(memory + 2 * kPage), 0);
  CHECK_EQ(*not_for_children, 'n');
  munmap(memory, 4 * kPage);
  munmap(not_for_children, kPage);
}

void before_and_after_a_move() {
  char* memory = mapped(4 * kPage);
  Gate early_may, late_may, done;
  const pid_t early = child_of([&] {
    early_may.pass();
    CHECK_EQ(memory[0], 'p');
    CHECK_EQ(memory[kPage], 'l');
    memory[2 * kPage] = 'e';
    move_point();
    done.open();
  });
  memory[0] = 'p';
  move_point();
  const pid_t late = child_of([&] {
    CHECK_EQ(memory[0], 'p');
    memory[kPage] = 'l';
    done.open();
    late_may.pass();
    CHECK_EQ(memory[2 * kPage], 'e');
    move_point();
    memory[3 * kPage] = 'l';
  });
  done.pass();
  move_point_of(late);
  early_may.open();
  done.pass();
  CHECK_EQ(memory[2 * kPage], 'e');
  late_may.open();
  ends_well(early);
  ends_well(late);
  CHECK_EQ(memory[3 * kPage], 'l');
  munmap(memory, 4 * kPage);
}

/// Two who have it from a parent that is gone, and nobody else.
void orphans_go_on() {
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  constexpr int kRounds = 40;
  const pid_t parent = child_of([&] {
    struct Together {
      Word turn;
      int sum;
    };
    auto* together = reinterpret_cast<Together*>(mapped(sizeof(Together)));
    together->sum = 1000;
    int life[2];
    CHECK_EQ(pipe(life), 0);
    for (int who : {0, 1})
      child_of([&] {
        close(life[1]);
        char byte;
        CHECK_EQ(read(life[0], &byte, 1), 0);
        for (int round = 0; round < kRounds; ++round) {
          await(together->turn, 2 * round + who);
          CHECK_EQ(together->sum, 1000 + 2 * round + who);
          ++together->sum;
          if (round == 10 + 10 * who) move_point();
          announce(together->turn, 2 * round + who + 1);
        }
      });
    _exit(0);
  });
  ends_well(parent);
  for (int i = 0; i < 2; ++i) {
    int status = -1;
    CHECK(wait(&status) > 0);
    CHECK_EQ(status, 0);
  }
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

void one_of_them_is_stopped() {
  Shared<Word> word;
  char* memory = mapped(kPage);
  const pid_t child = child_of([&] {
    await(*word, 1);
    CHECK_EQ(memory[0], 'p');
    memory[1] = 'c';
    announce(*word, 2);
    await(*word, 3);
  });
  CHECK_EQ(kill(child, SIGSTOP), 0);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status));
  memory[0] = 'p';
  move_point();
  announce(*word, 1);
  move_point();
  CHECK_EQ(word->load(), 1);
  CHECK_EQ(memory[1], 0);
  CHECK_EQ(kill(child, SIGCONT), 0);
  await(*word, 2);
  CHECK_EQ(memory[1], 'c');
  announce(*word, 3);
  ends_well(child);
  munmap(memory, kPage);
}

// ---- calls whose data lies in it

char pattern(size_t at) { return static_cast<char>(at * 31 >> 3); }

void fill(char* memory, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) memory[i] = pattern(i);
}

/// Whoever executes the call elsewhere has none of its pages.
void calls_take_and_give() {
  Scratch scratch;
  constexpr ssize_t kBytes = 65536;
  char* memory = mapped(4 * kBytes);
  // The bytes are from somebody who is gone.
  ends_well(child_of([&] { fill(memory, kBytes); }));
  const int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK_EQ(write(fd, memory, kBytes), kBytes);
  move_point();
  // Into pages that nobody has touched; a relative sees what the call has put there.
  char* back = memory + kBytes;
  CHECK_EQ(pread(fd, back, kBytes, 0), kBytes);
  ends_well(child_of([&] {
    for (size_t i = 0; i < kBytes; ++i) CHECK_EQ(back[i], pattern(i));
    CHECK_EQ(pread(fd, memory + 2 * kBytes, kBytes, 0), kBytes);
  }));
  CHECK_EQ(memcmp(memory + 2 * kBytes, memory, kBytes), 0);
  move_point();
  // In pieces, and the description of the pieces is there too.
  char* rest = memory + 3 * kBytes;
  auto* pieces = reinterpret_cast<iovec*>(rest);
  pieces[0] = {rest + kPage - 10, 20};
  pieces[1] = {rest + 9 * kPage + 1, 5000};
  pieces[2] = {rest + 5 * kPage, 100};
  CHECK_EQ(preadv(fd, pieces, 3, 0), 5120);
  CHECK_EQ(memcmp(rest + kPage - 10, memory, 20), 0);
  CHECK_EQ(memcmp(rest + 9 * kPage + 1, memory + 20, 5000), 0);
  CHECK_EQ(memcmp(rest + 5 * kPage, memory + 5020, 100), 0);
  CHECK_EQ(pwritev(fd, pieces, 3, kBytes), 5120);
  CHECK_EQ(pread(fd, rest + 12 * kPage, 5120, kBytes), 5120);
  CHECK_EQ(memcmp(rest + 12 * kPage, memory, 5120), 0);
  // Names and structures.
  char* name = rest + 2 * kPage - 5;  // its zero is the last byte of a page
  strcpy(name, "file");
  auto* about = reinterpret_cast<struct stat*>(rest + 3 * kPage - 24);
  CHECK_EQ(stat(name, about), 0);
  CHECK_EQ(about->st_size, kBytes + 5120);
  // What the program may not do, the kernel does not do for it.
  CHECK_EQ(mprotect(memory, kPage, PROT_READ), 0);
  CHECK_FAILS(pread(fd, memory, 16, 100), EFAULT);
  CHECK_EQ(pwrite(fd, memory, 16, 0), 16);
  CHECK_EQ(mprotect(memory, kPage, PROT_NONE), 0);
  CHECK_FAILS(pwrite(fd, memory, 16, 0), EFAULT);
  CHECK_EQ(mprotect(memory, kPage, PROT_READ | PROT_WRITE), 0);
  CHECK_EQ(memory[15], pattern(15));
  close(fd);
  munmap(memory, 4 * kBytes);
}

/// Calls that wait, with their buffers in it, while all that have it move.
void calls_that_wait() {
  constexpr size_t kBytes = 65536, kLong = 1 << 20;
  char* memory = mapped(kBytes + kLong);
  char* long_part = memory + kBytes;
  int line[2];
  CHECK_EQ(pipe(line), 0);
  Gate begun, has_read;
  const pid_t reader = child_of([&] {
    begun.open();
    for (size_t at = 0; at < kBytes;) {
      const ssize_t got = read(line[0], memory + at, kBytes - at);
      CHECK(got > 0);
      at += static_cast<size_t>(got);
    }
    has_read.open();
    fill(long_part, kLong);
    CHECK_EQ(write(line[1], long_part, kLong), static_cast<ssize_t>(kLong));
  });
  begun.pass();
  move_point();
  move_point_of(reader);
  std::vector<char> data(kBytes);
  fill(data.data(), kBytes);
  CHECK_EQ(write(line[1], data.data(), 1000), 1000);
  move_point();
  CHECK_EQ(write(line[1], data.data() + 1000, kBytes - 1000), static_cast<ssize_t>(kBytes) - 1000);
  has_read.pass();
  for (size_t i = 0; i < kBytes; ++i) CHECK_EQ(memory[i], pattern(i));
  move_point();
  // Now the child stands in a write that is much longer than what a pipe holds, and what it gives goes to memory.
  char* taken = mapped(kLong);
  for (size_t at = 0, moved = 0; at < kLong;) {
    const ssize_t got = read(line[0], taken + at, kLong - at);
    CHECK(got > 0);
    at += static_cast<size_t>(got);
    if (at > kLong / 4 * (moved + 1) && moved < 3) {
      ++moved;
      if (moved == 2)
        move_point_of(reader);
      else
        move_point();
    }
  }
  ends_well(reader);
  CHECK_EQ(memcmp(taken, long_part, kLong), 0);
  for (size_t i = 0; i < kLong; ++i) CHECK_EQ(taken[i], pattern(i));
  close(line[0]);
  close(line[1]);
  munmap(taken, kLong);
  munmap(memory, kBytes + kLong);
}

// ---- another way to it, and ways out of it

/// Each mapping of /dev/zero is memory of its own; relatives share it.
void of_dev_zero() {
  const int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  auto map = [&] {
    void* at = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    return static_cast<char*>(at);
  };
  char *first = map(), *other = map();
  first[1] = 'f';
  move_point();
  char* third = map();
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(first[1], 'f');
  CHECK_EQ(other[1], 0);
  CHECK_EQ(third[1], 0);
  number_pages(other, 3, 5);
  Gate to_child, to_parent;
  const pid_t child = child_of([&] {
    check_numbers(other, 3, 5);
    number_pages(third, 3, 7);
    first[1] = 'c';
    to_parent.open();
    to_child.pass();
    CHECK_EQ(first[2], 'p');
    move_point();
    first[kPage] = 'c';
  });
  to_parent.pass();
  move_point();
  check_numbers(third, 3, 7);
  CHECK_EQ(first[1], 'c');
  first[2] = 'p';
  to_child.open();
  ends_well(child);
  CHECK_EQ(first[kPage], 'c');
  check_numbers(other, 3, 5);
  for (char* one : {first, other, third}) munmap(one, 3 * kPage);
}

/// The program that has been executed by a check: it begins anew, with memory and relatives of its own.
int after_exec() {
  Shared<Word> word;
  const pid_t child = child_of([&] {
    move_point();
    announce(*word, 1);
  });
  await(*word, 1);
  move_point();
  ends_well(child);
  return word->load() == 1 ? 0 : 1;
}

void exec_leaves() {
  Shared<Word> word;
  Gate to_true, to_own;
  const pid_t is_true = child_of([&] {
    ++*word;
    to_true.pass();
    execl("/bin/true", "true", static_cast<char*>(nullptr));
    _exit(126);
  });
  const pid_t is_own = child_of([&] {
    ++*word;
    to_own.pass();
    execl(own_path.c_str(), "x", "--child", static_cast<char*>(nullptr));
    _exit(126);
  });
  const pid_t stays = child_of([&] {
    await(*word, 10);
    move_point();
    announce(*word, 11);
    await(*word, 12);
  });
  move_point();
  to_true.open();
  ends_well(is_true);
  move_point();
  to_own.open();
  move_point();
  ends_well(is_own);
  CHECK_EQ(word->load(), 2);
  announce(*word, 10);
  await(*word, 11);
  // One that is a program of its own nearly from its beginning.
  char name[] = "true";
  char* words[] = {name, nullptr};
  pid_t spawned = 0;
  CHECK_EQ(posix_spawn(&spawned, "/bin/true", nullptr, nullptr, words, environ), 0);
  move_point();
  ends_well(spawned);
  CHECK_EQ(word->load(), 11);
  announce(*word, 12);
  ends_well(stays);
}

// ---- all at once

void nothing_is_lost() {
  constexpr int kProcesses = 5, kTimes = 10000;
  struct Together {
    Word begin, total;
    volatile int own[kProcesses];  ///< of one each, side by side
  };
  Shared<Together> together;
  auto add = [&](int who) {
    for (int i = 0; i < kTimes; ++i) {
      if (i == kTimes / 2) move_point();
      ++together->total;
      together->own[who] = together->own[who] + 1;
    }
  };
  std::vector<pid_t> children;
  for (int who = 1; who < kProcesses; ++who)
    children.push_back(child_of([&] {
      await(together->begin, 1);
      add(who);
    }));
  announce(together->begin, 1);
  add(0);
  for (pid_t child : children) ends_well(child);
  CHECK_EQ(together->total.load(), kProcesses * kTimes);
  for (int own : together->own) CHECK_EQ(own, kTimes);
}

/// Calls that cannot be made away, by one while others sleep or compute; and what they leave behind, a segment of
/// System V, cannot be away at all as long as it is there.
void calls_that_need_home() {
  struct Together {
    Word turn, computed, enough;
    int value;
  };
  Shared<Together> together;
  const pid_t sleeper = child_of([&] {
    for (int i = 0; i < 3; ++i) {
      await(together->turn, 2 * i + 1);
      CHECK_EQ(together->value, 100 + i);
      together->value = 200 + i;
      // Nothing changes by it, but the identity of a process is changed at home.
      if (i == 1) CHECK_EQ(setresuid(getuid(), geteuid(), static_cast<uid_t>(-1)), 0);
      announce(together->turn, 2 * i + 2);
    }
  });
  const pid_t computing = child_of([&] {
    while (together->enough.load() == 0) ++together->computed;
  });
  auto has_computed = [&] {
    const int before = together->computed.load();
    while (together->computed.load() == before) sched_yield();
  };
  auto let_the_other = [&](int i) {
    together->value = 100 + i;
    announce(together->turn, 2 * i + 1);
    await(together->turn, 2 * i + 2);
    CHECK_EQ(together->value, 200 + i);
    has_computed();
  };
  move_point();
  const int id = shmget(IPC_PRIVATE, 2 * kPage, IPC_CREAT | 0600);
  CHECK(id >= 0);
  char* segment = static_cast<char*>(shmat(id, nullptr, 0));
  CHECK(segment != reinterpret_cast<char*>(-1));
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
  strcpy(segment, "in the segment");
  let_the_other(0);
  move_point();
  move_point_of(sleeper);
  let_the_other(1);
  CHECK_EQ(std::string(segment), "in the segment");
  CHECK_EQ(shmdt(segment), 0);
  move_point();
  CHECK_EQ(setresuid(static_cast<uid_t>(-1), static_cast<uid_t>(-1), static_cast<uid_t>(-1)), 0);
  move_point_of(computing);
  let_the_other(2);
  ends_well(sleeper);
  together->enough = 1;
  ends_well(computing);
  CHECK_EQ(together->value, 202);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "--child") == 0) return after_exec();
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) return 2;
  own_path = path;
  return check::run(argc, argv,
                    {{"zero-and-kept", zero_and_kept},
                     {"protection", protection},
                     {"holes-and-other-places", holes_and_other_places},
                     {"growth-of-a-mapping", growth_of_a_mapping},
                     {"two-views-of-the-same", two_views_of_the_same},
                     {"code-in-two-views", code_in_two_views},
                     {"file-without-a-name", file_without_a_name},
                     {"file-with-another-name", file_with_another_name},
                     {"given-back", given_back},
                     {"large-and-sparse", large_and_sparse},
                     {"relatives-see-each-other", relatives_see_each_other},
                     {"each-touches-another-part", each_touches_another_part},
                     {"what-the-dead-have-written", what_the_dead_have_written},
                     {"generations", generations},
                     {"views-differ", views_differ},
                     {"before-and-after-a-move", before_and_after_a_move},
                     {"orphans-go-on", orphans_go_on},
                     {"one-of-them-is-stopped", one_of_them_is_stopped},
                     {"calls-take-and-give", calls_take_and_give},
                     {"calls-that-wait", calls_that_wait},
                     {"of-dev-zero", of_dev_zero},
                     {"exec-leaves", exec_leaves},
                     {"nothing-is-lost", nothing_is_lost},
                     {"calls-that-need-home", calls_that_need_home}});
}
