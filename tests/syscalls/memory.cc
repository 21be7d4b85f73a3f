// Memory: mappings of every kind, growth, protection, what fork shares and what it copies, and faults.
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <atomic>
#include <fstream>
#include <vector>

#include "check.h"

using check::Scratch;

namespace {

constexpr size_t kPage = 4096;

char* anonymous(size_t bytes, int protection = PROT_READ | PROT_WRITE, int flags = MAP_PRIVATE) {
  void* at = mmap(nullptr, bytes, protection, flags | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return static_cast<char*>(at);
}

sigjmp_buf jump;
void* fault_address;

/// Whether a byte can be read (or written); the address of the fault is checked on the way.
bool can_touch(char* at, bool write) {
  struct sigaction action {
  }, segv{}, bus{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    fault_address = info->si_addr;
    siglongjmp(jump, 1);
  };
  CHECK_EQ(sigaction(SIGSEGV, &action, &segv), 0);
  CHECK_EQ(sigaction(SIGBUS, &action, &bus), 0);
  bool touched = false;
  if (sigsetjmp(jump, 1) == 0) {
    volatile char* byte = at;
    if (write)
      *byte = 1;
    else
      (void)*byte;
    touched = true;
  } else {
    CHECK(fault_address == at);
  }
  sigaction(SIGSEGV, &segv, nullptr);
  sigaction(SIGBUS, &bus, nullptr);
  return touched;
}

void anonymous_is_zero_and_stays() {
  constexpr size_t kBytes = 5 << 20;
  char* memory = anonymous(kBytes);
  for (size_t i = 0; i < kBytes; i += 511) CHECK_EQ(memory[i], 0);
  for (size_t i = 0; i < kBytes; i += kPage) memory[i] = static_cast<char>(i >> 12);
  move_point();
  for (size_t i = 0; i < kBytes; i += kPage) CHECK_EQ(memory[i], static_cast<char>(i >> 12));
  CHECK_EQ(munmap(memory + kPage, kPage), 0);
  CHECK(can_touch(memory, true));
  CHECK(!can_touch(memory + kPage, false));
  CHECK(can_touch(memory + 2 * kPage, true));
  CHECK_EQ(munmap(memory, kBytes), 0);
  CHECK_FAILS(syscall(SYS_munmap, memory + 1, kPage), EINVAL);
  CHECK_FAILS(syscall(SYS_mmap, 0L, 0L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L), EINVAL);
}

void fixed_places() {
  char* memory = anonymous(4 * kPage);
  memset(memory, 7, 4 * kPage);
  CHECK(mmap(memory + kPage, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        memory + kPage);
  CHECK_EQ(memory[kPage], 0);
  CHECK_EQ(memory[2 * kPage], 7);
  CHECK_FAILS(reinterpret_cast<long>(
                  mmap(memory, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)),
              EEXIST);
  CHECK_EQ(munmap(memory, 4 * kPage), 0);
  CHECK(mmap(memory, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == memory);
  CHECK_EQ(munmap(memory, kPage), 0);
}

void files_in_memory() {
  Scratch scratch;
  const int fd = open("file", O_RDWR | O_CREAT, 0600);
  std::vector<char> data(3 * kPage + 100);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>('a' + i % 26);
  CHECK_EQ(write(fd, data.data(), data.size()), static_cast<ssize_t>(data.size()));
  char* copy = static_cast<char*>(mmap(nullptr, 5 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  CHECK(copy != MAP_FAILED);
  CHECK_EQ(memcmp(copy, data.data(), data.size()), 0);
  CHECK_EQ(copy[data.size()], 0);
  CHECK(!can_touch(copy + 4 * kPage, false));  // a whole page behind the end of the file
  move_point();
  copy[10] = '!';
  char byte = 0;
  CHECK_EQ(pread(fd, &byte, 1, 10), 1);
  CHECK_EQ(byte, data[10]);
  CHECK_EQ(memcmp(copy + kPage, data.data() + kPage, kPage), 0);
  char* second = static_cast<char*>(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, kPage));
  CHECK(second != MAP_FAILED);
  close(fd);
  CHECK_EQ(memcmp(second, data.data() + kPage, kPage), 0);
  CHECK_EQ(copy[10], '!');
  CHECK_EQ(munmap(copy, 5 * kPage), 0);
  CHECK_EQ(munmap(second, kPage), 0);
  CHECK_FAILS(reinterpret_cast<long>(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, 999, 0)), EBADF);
}

void shared_file_mapping() {
  Scratch scratch;
  const int fd = open("file", O_RDWR | O_CREAT, 0600);
  CHECK_EQ(ftruncate(fd, 2 * kPage), 0);
  char* memory = static_cast<char*>(mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  CHECK(memory != MAP_FAILED);
  memcpy(memory + 100, "written through memory", 22);
  char text[32] = {};
  CHECK_EQ(pread(fd, text, 22, 100), 22);
  CHECK_EQ(std::string(text), "written through memory");
  move_point();
  CHECK_EQ(pwrite(fd, "written through file", 20, kPage), 20);
  CHECK_EQ(std::string(memory + kPage), "written through file");
  CHECK_EQ(msync(memory, 2 * kPage, MS_SYNC), 0);
  CHECK_EQ(check::in_child([&] {
             memory[0] = 'c';
             return 0;
           }),
           0);
  CHECK_EQ(memory[0], 'c');
  CHECK_EQ(munmap(memory, 2 * kPage), 0);
  close(fd);
}

void remapping() {
  char* memory = anonymous(4 * kPage);
  for (int i = 0; i < 4; ++i) memory[static_cast<size_t>(i) * kPage] = static_cast<char>(i + 1);
  char* larger = static_cast<char*>(mremap(memory, 4 * kPage, 300 * kPage, MREMAP_MAYMOVE));
  CHECK(larger != MAP_FAILED);
  for (int i = 0; i < 4; ++i) CHECK_EQ(larger[static_cast<size_t>(i) * kPage], i + 1);
  CHECK_EQ(larger[299 * kPage], 0);
  move_point();
  CHECK(mremap(larger, 300 * kPage, 2 * kPage, 0) == larger);
  CHECK(!can_touch(larger + 2 * kPage, false));
  char* room = anonymous(8 * kPage);
  CHECK(mremap(larger, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room + 4 * kPage) ==
        room + 4 * kPage);
  CHECK_EQ(room[4 * kPage], 1);
  CHECK_EQ(room[5 * kPage], 2);
  CHECK(!can_touch(larger, false));
  CHECK_EQ(munmap(room, 8 * kPage), 0);
}

void protection() {
  char* memory = anonymous(3 * kPage);
  memset(memory, 5, 3 * kPage);
  CHECK_EQ(mprotect(memory + kPage, kPage, PROT_READ), 0);
  CHECK(can_touch(memory + kPage, false));
  CHECK(!can_touch(memory + kPage, true));
  CHECK_EQ(mprotect(memory + kPage, kPage, PROT_NONE), 0);
  move_point();
  CHECK(!can_touch(memory + kPage, false));
  CHECK(can_touch(memory + 2 * kPage, true));
  CHECK_EQ(mprotect(memory + kPage, kPage, PROT_READ | PROT_WRITE), 0);
  CHECK_EQ(memory[kPage], 5);  // what was there outlives the time without access
  CHECK_EQ(munmap(memory, 3 * kPage), 0);
  CHECK_FAILS(mprotect(memory, kPage, PROT_READ), ENOMEM);
}

void code_made_at_run_time() {
  // mov eax, N; ret
  char* code = anonymous(kPage);
  const unsigned char bytes[] = {0xb8, 41, 0, 0, 0, 0xc3};
  memcpy(code, bytes, sizeof bytes);
  CHECK_EQ(mprotect(code, kPage, PROT_READ | PROT_EXEC), 0);
  auto function = reinterpret_cast<int (*)()>(code);
  CHECK_EQ(function(), 41);
  move_point();
  CHECK_EQ(function(), 41);
  CHECK_EQ(mprotect(code, kPage, PROT_READ | PROT_WRITE), 0);
  code[1] = 42;
  CHECK_EQ(mprotect(code, kPage, PROT_READ | PROT_EXEC), 0);
  CHECK_EQ(function(), 42);
  CHECK_EQ(munmap(code, kPage), 0);
}

/// There are no mappings of pipes and sockets.
void what_cannot_be_mapped() {
  int line[2];
  CHECK_EQ(pipe2(line, O_CLOEXEC), 0);
  const int one = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  for (const int fd : {line[0], line[1], one})
    for (const int kind : {MAP_PRIVATE, MAP_SHARED}) {
      const int protection = fd == line[1] ? PROT_WRITE : PROT_READ;
      CHECK(mmap(nullptr, kPage, protection, kind, fd, 0) == MAP_FAILED);
      CHECK(errno == ENODEV || (fd == line[1] && errno == EACCES));
    }
  close(line[0]);
  close(line[1]);
  close(one);
}

/// A page of a shared mapping shows another one of the same.
void pages_in_another_order() {
  char* memory =
      static_cast<char*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  CHECK(memory != MAP_FAILED);
  for (size_t page = 0; page < 3; ++page) memory[page * kPage] = static_cast<char>('a' + page);
  CHECK_EQ(remap_file_pages(memory, kPage, 0, 2, 0), 0);
  CHECK_EQ(memory[0], 'c');
  move_point();
  memory[2 * kPage] = 'C';
  CHECK_EQ(memory[0], 'C');
  CHECK_EQ(memory[kPage], 'b');
  CHECK_FAILS(remap_file_pages(memory, kPage, PROT_READ, 2, 0), EINVAL);
  munmap(memory, 3 * kPage);
}

/// Whether there are any is the machine's affair: the same wherever it is asked.
void huge_pages_if_there_are_any() {
  constexpr size_t kHuge = 2 << 20;
  for (const int kind : {MAP_PRIVATE, MAP_SHARED}) {
    void* before = mmap(nullptr, kHuge, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    const int error = errno;
    move_point();
    void* after = mmap(nullptr, kHuge, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (before == MAP_FAILED) {
      CHECK_EQ(error, ENOMEM);
      CHECK(after == MAP_FAILED);
      CHECK_EQ(errno, ENOMEM);
    }
    for (void* at : {before, after}) {
      if (at == MAP_FAILED) continue;
      static_cast<char*>(at)[kHuge - 1] = 'h';
      CHECK_EQ(munmap(at, kHuge), 0);
    }
  }
  // Of a size that no machine has.
  CHECK(mmap(nullptr, kHuge, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (13 << 26), -1, 0) ==
        MAP_FAILED);
  CHECK_EQ(errno, EINVAL);
}

void given_back_pages_are_zero() {
  char* memory = anonymous(64 * kPage);
  memset(memory, 9, 64 * kPage);
  CHECK_EQ(madvise(memory + kPage, 10 * kPage, MADV_DONTNEED), 0);
  CHECK_EQ(memory[kPage], 0);
  CHECK_EQ(memory[0], 9);
  CHECK_EQ(memory[11 * kPage], 9);
  CHECK_EQ(madvise(memory + 20 * kPage, 10 * kPage, MADV_DONTNEED), 0);
  move_point();  // these have not been touched since
  for (size_t i = 20; i < 30; ++i) CHECK_EQ(memory[i * kPage], 0);
  CHECK_EQ(memory[30 * kPage], 9);
  CHECK_EQ(madvise(memory, 64 * kPage, MADV_WILLNEED), 0);
  CHECK_FAILS(madvise(memory + 1, kPage, MADV_DONTNEED), EINVAL);
  CHECK_FAILS(madvise(memory, kPage, 9999), EINVAL);
  CHECK_EQ(munmap(memory, 64 * kPage), 0);
  // A private file mapping goes back to what the file has.
  Scratch scratch;
  const int fd = open("file", O_RDWR | O_CREAT, 0600);
  CHECK_EQ(write(fd, "original", 8), 8);
  char* file = static_cast<char*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  CHECK(file != MAP_FAILED);
  memcpy(file, "changed!", 8);
  CHECK_EQ(madvise(file, kPage, MADV_DONTNEED), 0);
  CHECK_EQ(std::string(file, 8), "original");
  munmap(file, kPage);
  close(fd);
}

void the_heap_grows_and_shrinks() {
  char* start = static_cast<char*>(sbrk(0));
  CHECK(start != reinterpret_cast<char*>(-1));
  CHECK(sbrk(1 << 20) == start);
  memset(start, 3, 1 << 20);
  move_point();
  CHECK(sbrk(0) == start + (1 << 20));
  CHECK_EQ(start[(1 << 20) - 1], 3);
  CHECK(sbrk(1 << 20) == start + (1 << 20));
  CHECK_EQ(start[(2 << 20) - 1], 0);
  CHECK_EQ(brk(start), 0);
  CHECK(sbrk(0) == start);
}

__attribute__((noinline)) size_t descend(size_t depth) {
  volatile char frame[1000];
  frame[0] = static_cast<char>(depth);
  frame[999] = 1;
  return depth == 0 ? 0 : descend(depth - 1) + static_cast<size_t>(frame[999]);
}

/// The kernel's idea of the break has to come along, up and down.
void break_that_moves_between_nodes() {
  constexpr long kStep = 8 << 20;
  char* start = static_cast<char*>(sbrk(0));
  for (int round = 0; round < 5; ++round) {
    CHECK(sbrk(kStep) == start);
    memset(start, 7, kStep);
    move_point();
    CHECK_EQ(start[kStep - 1], 7);
    CHECK_EQ(brk(start), 0);
    move_point();
    CHECK(sbrk(kStep) == start);
    CHECK_EQ(start[kStep - 1], 0);
    memset(start, 8, kStep);
    CHECK_EQ(brk(start), 0);
  }
}

void the_stack_grows() {
  CHECK_EQ(descend(100), 100u);
  move_point();
  CHECK_EQ(descend(4000), 4000u);  // about 4 MB, more than there was before the move
}

void a_stack_without_end_is_a_fault() {
  const int status = check::in_child([] {
    stack_t stack{};
    stack.ss_size = 65536;
    stack.ss_sp = anonymous(stack.ss_size);
    sigaltstack(&stack, nullptr);
    struct sigaction action {};
    action.sa_flags = SA_ONSTACK;
    action.sa_handler = [](int) { _exit(44); };
    sigaction(SIGSEGV, &action, nullptr);
    const rlimit small{1 << 20, 1 << 20};
    setrlimit(RLIMIT_STACK, &small);
    return descend(10000000) == 0 ? 1 : 2;
  });
  CHECK_EQ(WEXITSTATUS(status), 44);
}

void fork_copies_private_and_shares_shared() {
  char* private_memory = anonymous(kPage);
  char* shared = anonymous(kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  private_memory[0] = shared[0] = 1;
  CHECK_EQ(check::in_child([&] {
             if (private_memory[0] != 1 || shared[0] != 1) return 1;
             private_memory[0] = shared[0] = 2;
             return 0;
           }),
           0);
  CHECK_EQ(private_memory[0], 1);
  CHECK_EQ(shared[0], 2);
  // Parent and child talk through shared memory while both run.
  auto* turn = reinterpret_cast<std::atomic<int>*>(shared + 64);
  turn->store(0);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 100; ++i) {
      while (turn->load() != 2 * i + 1) sched_yield();
      turn->store(2 * i + 2);
    }
    _exit(0);
  }
  for (int i = 0; i < 100; ++i) {
    turn->store(2 * i + 1);
    while (turn->load() != 2 * i + 2) sched_yield();
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  munmap(private_memory, kPage);
  munmap(shared, kPage);
}

void fork_options() {
  char* memory = anonymous(4 * kPage);
  for (size_t i = 0; i < 4; ++i) memory[i * kPage] = 1;
  // Whether the pages of a child are: missing, wiped, there.
  auto in_child = [&] {
    return WEXITSTATUS(check::in_child([&] {
      int seen = 0;
      for (size_t i = 0; i < 4; ++i) {
        const bool there = can_touch(memory + i * kPage, false);
        seen = 3 * seen + (!there ? 0 : memory[i * kPage] == 0 ? 1 : 2);
      }
      return seen;
    }));
  };
  auto four = [](int a, int b, int c, int d) { return ((a * 3 + b) * 3 + c) * 3 + d; };
  CHECK_EQ(madvise(memory, kPage, MADV_DONTFORK), 0);
  CHECK_EQ(madvise(memory + kPage, 2 * kPage, MADV_WIPEONFORK), 0);
  move_point();
  CHECK_EQ(in_child(), four(0, 1, 1, 2));
  move_point();
  CHECK_EQ(madvise(memory, kPage, MADV_DOFORK), 0);
  CHECK_EQ(madvise(memory + kPage, kPage, MADV_KEEPONFORK), 0);
  CHECK_EQ(madvise(memory + 3 * kPage, kPage, MADV_DONTFORK), 0);
  move_point();
  CHECK_EQ(in_child(), four(2, 2, 1, 0));
  move_point();
  CHECK_EQ(in_child(), four(2, 2, 1, 0));
  for (size_t i = 0; i < 4; ++i) CHECK_EQ(memory[i * kPage], 1);
  munmap(memory, 4 * kPage);
}

// The library's functions of these names do nothing under sanitizers.
long lock(char* at, size_t bytes) { return syscall(SYS_mlock, at, bytes); }
long lock2(char* at, size_t bytes, unsigned flags) { return syscall(SYS_mlock2, at, bytes, flags); }
long unlock(char* at, size_t bytes) { return syscall(SYS_munlock, at, bytes); }
long unlock_all() { return syscall(SYS_munlockall); }

/// Locked is what MADV_DONTNEED refuses.
bool is_locked(char* page) {
  if (madvise(page, kPage, MADV_DONTNEED) == 0) return false;
  CHECK_EQ(errno, EINVAL);
  return true;
}

int resident_pages(char* memory, size_t pages) {
  unsigned char resident[16] = {};
  CHECK_EQ(mincore(memory, pages * kPage, resident), 0);
  int count = 0;
  for (size_t i = 0; i < pages; ++i) count += resident[i] & 1;
  return count;
}

void locked_memory() {
  char* memory = anonymous(8 * kPage);
  memory[0] = 'a';
  CHECK_EQ(lock(memory, 3 * kPage), 0);
  CHECK_EQ(resident_pages(memory, 3), 3);
  CHECK_EQ(lock2(memory + 4 * kPage, 2 * kPage, MLOCK_ONFAULT), 0);
  CHECK_EQ(resident_pages(memory + 4 * kPage, 2), 0);
  move_point();
  CHECK(is_locked(memory) && is_locked(memory + 2 * kPage) && is_locked(memory + 5 * kPage));
  CHECK_EQ(resident_pages(memory, 3), 3);
  CHECK(!is_locked(memory + 3 * kPage) && !is_locked(memory + 6 * kPage));
  CHECK_EQ(memory[0], 'a');
  memory[4 * kPage] = 'b';
  CHECK_EQ(unlock(memory + kPage, kPage), 0);
  CHECK_EQ(check::in_child([&] { return is_locked(memory) ? 1 : 0; }), 0);
  move_point();
  CHECK(is_locked(memory) && !is_locked(memory + kPage) && is_locked(memory + 2 * kPage));
  CHECK(is_locked(memory + 4 * kPage));
  CHECK_EQ(memory[4 * kPage], 'b');
  CHECK_EQ(unlock_all(), 0);
  move_point();
  CHECK(!is_locked(memory) && !is_locked(memory + 4 * kPage));
  munmap(memory + 7 * kPage, kPage);
  CHECK_FAILS(lock(memory + 6 * kPage, 2 * kPage), ENOMEM);  // as far as there is something
  CHECK(is_locked(memory + 6 * kPage));
  CHECK_FAILS(lock2(memory, kPage, 2), EINVAL);
  munmap(memory, 7 * kPage);
  char* born_locked = static_cast<char*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
  CHECK(born_locked != MAP_FAILED);
  move_point();
  CHECK(is_locked(born_locked));
  munmap(born_locked, kPage);
}

/// Where the processor has them. Without a key pkey_mprotect is mprotect, everywhere.
void protection_keys() {
  char* memory = anonymous(2 * kPage);
  memory[0] = 'k';
  CHECK_EQ(pkey_mprotect(memory, kPage, PROT_READ, -1), 0);
  move_point();
  CHECK_EQ(memory[0], 'k');
  const int status = check::in_child([memory] {
    signal(SIGSEGV, [](int) { _exit(7); });
    *static_cast<volatile char*>(memory) = 'x';
    return 1;
  });
  CHECK_EQ(WEXITSTATUS(status), 7);
  const int key = pkey_alloc(0, 0);
  CHECK_FAILS(pkey_alloc(1, 0), EINVAL);
  move_point();
  if (key < 0) {
    CHECK_FAILS(pkey_mprotect(memory, kPage, PROT_READ | PROT_WRITE, 1), EINVAL);
    CHECK_FAILS(pkey_free(1), EINVAL);
  } else {
    CHECK_EQ(pkey_mprotect(memory, kPage, PROT_READ | PROT_WRITE, key), 0);
    move_point();
    memory[0] = 'l';
    CHECK_EQ(pkey_mprotect(memory, kPage, PROT_READ | PROT_WRITE, 0), 0);
    CHECK_EQ(pkey_free(key), 0);
  }
  move_point();
  munmap(memory, 2 * kPage);
}

/// Memory like any other, as far as the descriptor permits it.
void zero_device() {
  const int both = open("/dev/zero", O_RDWR), only_read = open("/dev/zero", O_RDONLY);
  CHECK(both >= 0);
  CHECK(only_read >= 0);
  for (int fd : {both, only_read}) {
    char* memory =
        static_cast<char*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, kPage));
    CHECK(memory != MAP_FAILED);
    for (size_t i = 0; i < 3 * kPage; i += kPage) CHECK_EQ(memory[i], 0);
    memory[kPage] = 'z';
    move_point();
    CHECK_EQ(memory[kPage], 'z');
    CHECK_EQ(memory[2 * kPage], 0);
    CHECK_EQ(munmap(memory, 3 * kPage), 0);
  }
  CHECK(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, only_read, 0) == MAP_FAILED);
  CHECK_EQ(errno, EACCES);
  close(only_read);
  char* place = anonymous(2 * kPage);
  place[0] = place[kPage] = 'p';
  CHECK(mmap(place, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, both, 0) == place);
  close(both);
  CHECK_EQ(place[0], 0);
  CHECK_EQ(place[kPage], 'p');
  munmap(place, 2 * kPage);
}

/// The limit holds for who may not lock as much as he likes.
void locking_has_its_limit() {
  const int status = check::in_child([] {
    // CAP_IPC_LOCK, in case we have it.
    __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct all[2]{};
    if (syscall(SYS_capget, &head, all) != 0) return 1;
    all[0].effective &= ~(1u << CAP_IPC_LOCK);
    if (syscall(SYS_capset, &head, all) != 0) return 2;
    rlimit limit{};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 3;
    limit.rlim_cur = 4 * kPage;
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 4;
    move_point();
    char* memory = anonymous(16 * kPage);
    if (lock(memory, 4 * kPage) != 0) return 5;
    if (lock(memory + 8 * kPage, kPage) == 0 || errno != ENOMEM) return 6;
    move_point();
    if (!is_locked(memory) || is_locked(memory + 8 * kPage)) return 7;
    if (lock(memory + 8 * kPage, kPage) == 0 || errno != ENOMEM) return 8;
    if (unlock(memory, kPage) != 0 || lock(memory + 8 * kPage, kPage) != 0) return 9;
    limit.rlim_cur = 0;
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 10;
    if (lock(memory + 9 * kPage, kPage) == 0 || errno != EPERM) return 11;
    return 0;
  });
  CHECK_EQ(status, 0);
}

#if defined(__has_feature)
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
    HAS_FEATURE(thread_sanitizer)
constexpr int kWhenTouched = MCL_ONFAULT;  // a sanitizer has terabytes of its own
#else
constexpr int kWhenTouched = 0;
#endif

/// What is yet to be mapped, too.
void all_memory_locked() {
  const int status = check::in_child([] {
    rlimit all{RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MEMLOCK, &all);
    char* before = anonymous(kPage);
    // Of whoever may not lock that much only the refusal can be seen.
    if (syscall(SYS_mlockall, MCL_CURRENT | MCL_FUTURE | kWhenTouched) != 0)
      return errno == ENOMEM || errno == EPERM ? 0 : 1;
    move_point();
    char* after = anonymous(kPage);
    if (!is_locked(before) || !is_locked(after)) return 2;
    if (unlock_all() != 0) return 3;
    move_point();
    char* free = anonymous(kPage);
    return is_locked(before) || is_locked(after) || is_locked(free) ? 4 : 0;
  });
  CHECK_EQ(status, 0);
}

void system_v_segments() {
  const int id = shmget(IPC_PRIVATE, 2 * kPage, IPC_CREAT | 0600);
  CHECK(id >= 0);
  char* memory = static_cast<char*>(shmat(id, nullptr, 0));
  CHECK(memory != reinterpret_cast<char*>(-1));
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
  CHECK_EQ(check::in_child([&] {
             strcpy(memory, "from the child");
             return 0;
           }),
           0);
  CHECK_EQ(std::string(memory), "from the child");
  move_point();
  CHECK_EQ(std::string(memory), "from the child");
  CHECK_EQ(shmdt(memory), 0);
}

void what_the_kernel_says() {
  char* memory = anonymous(4 * kPage);
  memory[kPage] = 1;
  unsigned char resident[4] = {};
  CHECK_EQ(mincore(memory, 4 * kPage, resident), 0);
  CHECK_EQ(resident[1] & 1, 1);
  CHECK_EQ(mlock(memory, kPage), 0);
  CHECK_EQ(munlock(memory, kPage), 0);
  // Our own memory through the kernel.
  char out[8] = {};
  memcpy(memory, "inside!", 8);
  iovec local{out, 8}, remote{memory, 8};
  CHECK_EQ(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), 8);
  CHECK_EQ(std::string(out), "inside!");
  const int fd = open("/proc/self/mem", O_RDONLY);
  CHECK(fd >= 0);
  CHECK_EQ(pread(fd, out, 3, static_cast<off_t>(reinterpret_cast<uintptr_t>(memory + 2))), 3);
  CHECK_EQ(std::string(out, 3), "sid");
  close(fd);
  CHECK(sbrk(kPage) != reinterpret_cast<void*>(-1));
  std::ifstream maps("/proc/self/maps");
  std::string line;
  bool stack = false, heap = false, own = false;
  char path[4096] = {};
  CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  while (std::getline(maps, line)) {
    stack = stack || line.find("[stack]") != std::string::npos;
    heap = heap || line.find("[heap]") != std::string::npos;
    own = own || line.find(path) != std::string::npos;
  }
  CHECK(stack);
  CHECK(heap);
  CHECK(own);
  munmap(memory, 4 * kPage);
}

void much_memory() {
  constexpr size_t kBytes = 40 << 20;
  char* memory = anonymous(kBytes);
  auto* words = reinterpret_cast<uint64_t*>(memory);
  for (size_t i = 0; i < kBytes / 8; ++i) words[i] = i * 0x9e3779b97f4a7c15ull;
  move_point();
  for (size_t i = 0; i < kBytes / 8; i += 2) words[i] += 1;
  move_point();
  for (size_t i = 0; i < kBytes / 8; ++i)
    CHECK_EQ(words[i], i * 0x9e3779b97f4a7c15ull + (i % 2 == 0 ? 1 : 0));
  munmap(memory, kBytes);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"anonymous-is-zero-and-stays", anonymous_is_zero_and_stays},
                     {"fixed-places", fixed_places},
                     {"files-in-memory", files_in_memory},
                     {"remapping", remapping},
                     {"protection", protection},
                     {"code-made-at-run-time", code_made_at_run_time},
                     {"what-cannot-be-mapped", what_cannot_be_mapped},
                     {"pages-in-another-order", pages_in_another_order},
                     {"huge-pages-if-there-are-any", huge_pages_if_there_are_any},
                     {"given-back-pages-are-zero", given_back_pages_are_zero},
                     {"the-heap-grows-and-shrinks", the_heap_grows_and_shrinks},
                     {"break-that-moves-between-nodes", break_that_moves_between_nodes},
                     {"the-stack-grows", the_stack_grows},
                     {"a-stack-without-end-is-a-fault", a_stack_without_end_is_a_fault},
                     {"fork-options", fork_options},
                     {"what-the-kernel-says", what_the_kernel_says},
                     {"much-memory", much_memory},
                     // Last, for while memory is shared a program may have to stay where it is.
                     {"shared-file-mapping", shared_file_mapping},
                     {"fork-copies-private-and-shares-shared", fork_copies_private_and_shares_shared},
                     {"locked-memory", locked_memory},
                     {"protection-keys", protection_keys},
                     {"zero-device", zero_device},
                     {"locking-has-its-limit", locking_has_its_limit},
                     {"all-memory-locked", all_memory_locked},
                     {"system-v-segments", system_v_segments}});
}
