// Files that are mapped to be written and shared: of a file system, of shm_open, of memfd_create. What one stores in
// such a mapping is in the file at once: for its own descriptors, for whoever opens the file by its name, for other
// mappings of it, whether the descriptor is still open, and whether the one that stored goes on, has executed another
// program or is gone. And what is written to the file is at once in each mapping. Each check says what it has seen.
//
// Processes wait for each other at pipes (Gate), at semaphores or for the end of a child, never for a time. The checks
// may be named by their numbers too: ./shared_files 3 5
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <set>
#include <vector>

#include "check.h"
#include "sharing_tools.h"
#include "signal_tools.h"

using check::Scratch;

extern char** environ;

namespace {

std::string own_path;

// ---- what the checks are made of

/// Prints what has been seen; once, also where the checks are made again and again.
void say(const std::string& what) {
  static std::set<std::string> said;
  if (said.insert(std::string(check::current) + ": " + what).second) printf("  %s\n", what.c_str());
}

constexpr int kReadWrite = PROT_READ | PROT_WRITE;

char* map_of(int fd, size_t pages, int protection = kReadWrite, int flags = MAP_SHARED, size_t first = 0,
             void* at = nullptr) {
  void* memory = mmap(at, pages * kPage, protection, flags, fd, static_cast<off_t>(first * kPage));
  CHECK(memory != MAP_FAILED);
  CHECK(at == nullptr || memory == at);
  return static_cast<char*>(memory);
}

void unmap(char* memory, size_t pages) { CHECK_EQ(munmap(memory, pages * kPage), 0); }

/// A new file of so many pages, which begin with "page 0", "page 1" and so on, and are zero behind that.
int new_file(const char* name, size_t pages, int flags = 0) {
  const int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, static_cast<off_t>(pages * kPage)), 0);
  for (size_t i = 0; i < pages && (flags & O_APPEND) == 0; ++i) {
    const std::string text = "page " + std::to_string(i);
    CHECK_EQ(pwrite(fd, text.data(), text.size(), static_cast<off_t>(i * kPage)),
             static_cast<ssize_t>(text.size()));
  }
  return fd;
}

/// Such a file, mapped, and its descriptor closed.
char* map_of_new_file(const char* name, size_t pages) {
  const int fd = new_file(name, pages);
  char* memory = map_of(fd, pages);
  CHECK_EQ(close(fd), 0);
  return memory;
}

int opened(const char* name, int flags = O_RDWR) {
  const int fd = open(name, flags | O_CLOEXEC);
  CHECK(fd >= 0);
  return fd;
}

/// All that can be read from here on.
std::string rest_of(int fd) {
  std::string all;
  char buffer[4096];
  ssize_t got;
  while ((got = read(fd, buffer, sizeof buffer)) > 0) all.append(buffer, static_cast<size_t>(got));
  CHECK_EQ(got, 0);
  return all;
}

/// What somebody reads who opens the file now.
std::string contents(const char* name) {
  const int fd = opened(name, O_RDONLY);
  const std::string all = rest_of(fd);
  close(fd);
  return all;
}

/// The text that begins at `at`, up to the first zero: in a mapping, in what has been read, and in a file.
std::string text(const char* at) { return at; }
std::string text(const std::string& all, size_t at) { return all.substr(at).c_str(); }
std::string text_in(int fd, size_t at) {
  char buffer[64] = {};
  CHECK(pread(fd, buffer, sizeof buffer - 1, static_cast<off_t>(at)) >= 0);
  return buffer;
}

void store(char* at, const char* what) { strcpy(at, what); }

off_t size_of(int fd) {
  struct stat status {};
  CHECK_EQ(fstat(fd, &status), 0);
  return status.st_size;
}

// ---- forbidden touches

sigjmp_buf jump;
volatile sig_atomic_t fault, fault_code;
void* volatile fault_address;

void note_fault(int number, siginfo_t* info, void*) {
  fault = number;
  fault_code = info->si_code;
  fault_address = info->si_addr;
  siglongjmp(jump, 1);
}

/// What the last touch has led to. The signal has to name just the byte.
std::string fault_at(const char* at) {
  if (fault == 0) return "nothing";
  CHECK(fault_address == at);
  if (fault == SIGBUS && fault_code == BUS_ADRERR) return "SIGBUS, BUS_ADRERR";
  if (fault == SIGSEGV && fault_code == SEGV_MAPERR) return "SIGSEGV, SEGV_MAPERR";
  if (fault == SIGSEGV && fault_code == SEGV_ACCERR) return "SIGSEGV, SEGV_ACCERR";
  return "signal " + std::to_string(fault) + " with code " + std::to_string(fault_code);
}

std::string load_gives(char* at) {
  const Handler segv(SIGSEGV, note_fault), bus(SIGBUS, note_fault);
  fault = 0;
  if (sigsetjmp(jump, 1) == 0) (void)*const_cast<volatile char*>(at);
  return fault_at(at);
}

std::string store_gives(char* at, char value = 's') {
  const Handler segv(SIGSEGV, note_fault), bus(SIGBUS, note_fault);
  fault = 0;
  if (sigsetjmp(jump, 1) == 0) *const_cast<volatile char*>(at) = value;
  return fault_at(at);
}

// ---- names under /dev/shm

std::string own_name(const char* what) { return "/mosix-check-" + std::to_string(getpid()) + "-" + what; }

/// A name for shm_open, which is gone with the one that made it.
class ShmName {
 public:
  explicit ShmName(const char* what) : name_(own_name(what)) { shm_unlink(name_.c_str()); }
  ~ShmName() { shm_unlink(name_.c_str()); }
  ShmName(const ShmName&) = delete;
  ShmName& operator=(const ShmName&) = delete;
  int open(int flags) const {
    const int fd = shm_open(name_.c_str(), flags, 0600);
    CHECK(fd >= 0);
    return fd;
  }
  const char* name() const { return name_.c_str(); }

 private:
  std::string name_;
};

/// A semaphore that has a name, until that is unlinked.
class NamedSemaphore {
 public:
  NamedSemaphore(const char* what, unsigned value) : name_(own_name(what)) {
    sem_unlink(name_.c_str());
    it_ = sem_open(name_.c_str(), O_CREAT | O_EXCL, 0600, value);
    CHECK(it_ != SEM_FAILED);
  }
  ~NamedSemaphore() {
    CHECK_EQ(sem_close(it_), 0);
    sem_unlink(name_.c_str());
  }
  NamedSemaphore(const NamedSemaphore&) = delete;
  NamedSemaphore& operator=(const NamedSemaphore&) = delete;
  void post() const { CHECK_EQ(sem_post(it_), 0); }
  void wait() const { CHECK_EQ(sem_wait(it_), 0); }
  int value() const {
    int value = -1;
    CHECK_EQ(sem_getvalue(it_, &value), 0);
    return value;
  }
  /// In a child: gives up what it has from its parent, and opens it as one that only knows the name.
  void reopen() {
    CHECK_EQ(sem_close(it_), 0);
    it_ = sem_open(name_.c_str(), 0);
    CHECK(it_ != SEM_FAILED);
  }
  void unlink() const { CHECK_EQ(sem_unlink(name_.c_str()), 0); }
  sem_t* get() const { return it_; }
  const char* name() const { return name_.c_str(); }

 private:
  std::string name_;
  sem_t* it_;
};

// ---- 1: semaphores that have names

void posted_and_waited_for(const NamedSemaphore& to_child, const NamedSemaphore& to_parent) {
  constexpr int kRounds = 50;
  const pid_t child = child_of([&] {
    for (int i = 0; i < kRounds; ++i) {
      to_child.wait();
      if (i == 30) move_point();
      to_parent.post();
    }
    for (int i = 0; i < 3; ++i) to_parent.post();
  });
  for (int i = 0; i < kRounds; ++i) {
    if (i == 20) move_point();
    to_child.post();
    to_parent.wait();
  }
  ends_well(child);
  CHECK_EQ(to_child.value(), 0);
  CHECK_EQ(to_parent.value(), 3);
  for (int i = 0; i < 3; ++i) CHECK_EQ(sem_trywait(to_parent.get()), 0);
  CHECK_FAILS(sem_trywait(to_parent.get()), EAGAIN);
  say("a child and its parent took 50 turns; the child has left 3 in the semaphore");
}

/// Whoever opens it anew has the same semaphore, at another place.
void answers_as_stranger(sem_t* to_child, sem_t* to_parent) {
  CHECK_EQ(sem_wait(to_child), 0);
  move_point();
  CHECK_EQ(sem_post(to_parent), 0);
  CHECK_EQ(sem_wait(to_child), 0);
  CHECK_EQ(sem_post(to_parent), 0);
}

/// The program that has been executed by the check and knows nothing but two names.
int second_opener(const char* to_child, const char* to_parent) {
  check::current = "second-opener";
  sem_t *in = sem_open(to_child, 0), *out = sem_open(to_parent, 0);
  CHECK(in != SEM_FAILED);
  CHECK(out != SEM_FAILED);
  answers_as_stranger(in, out);
  CHECK_EQ(sem_close(in), 0);
  CHECK_EQ(sem_close(out), 0);
  return 0;
}

void opened_by_others(NamedSemaphore& to_child, NamedSemaphore& to_parent) {
  const pid_t child = child_of([&] {
    // The C library knows that it has it already.
    sem_t* again = sem_open(to_child.name(), 0);
    CHECK(again == to_child.get());
    CHECK_EQ(sem_close(again), 0);
    to_child.reopen();
    to_parent.reopen();
    answers_as_stranger(to_child.get(), to_parent.get());
  });
  const pid_t program = child_of([&] {
    execl(own_path.c_str(), "x", "--second-opener", to_child.name(), to_parent.name(),
          static_cast<char*>(nullptr));
    _exit(126);
  });
  for (int i = 0; i < 4; ++i) {
    to_child.post();
    to_parent.wait();
  }
  ends_well(child);
  ends_well(program);
  CHECK_EQ(to_child.value(), 0);
  CHECK_EQ(to_parent.value(), 0);
  say("a child and another program opened it by its name, and it is the same");
}

void without_its_name(const NamedSemaphore& semaphore) {
  CHECK(sem_open(semaphore.name(), O_CREAT | O_EXCL, 0600, 0) == SEM_FAILED);
  CHECK_EQ(errno, EEXIST);
  semaphore.unlink();
  CHECK(sem_open(semaphore.name(), 0) == SEM_FAILED);
  CHECK_EQ(errno, ENOENT);
  CHECK_FAILS(sem_unlink(semaphore.name()), ENOENT);
  ends_well(child_of([&] { semaphore.post(); }));
  semaphore.wait();
  say("without its name nobody can open it, and it still works");
}

/// As Python makes the locks of its processes: the name is gone before anybody but relatives could use it.
void lock_as_python_makes_it() {
  constexpr int kChildren = 3, kTimes = 500;
  NamedSemaphore lock("lock", 1);
  lock.unlink();
  ShmName name("counter");
  const int fd = name.open(O_RDWR | O_CREAT | O_EXCL);
  CHECK_EQ(shm_unlink(name.name()), 0);
  CHECK_EQ(ftruncate(fd, kPage), 0);
  char* memory = map_of(fd, 1);
  CHECK_EQ(close(fd), 0);
  volatile int& counter = *reinterpret_cast<int*>(memory);
  std::vector<pid_t> children;
  for (int who = 0; who < kChildren; ++who)
    children.push_back(child_of([&] {
      for (int i = 0; i < kTimes; ++i) {
        lock.wait();
        const int before = counter;
        if (i % 8 == 0) sched_yield();
        if (i == 100 * (who + 1)) move_point();
        counter = before + 1;
        lock.post();
      }
    }));
  move_point();
  for (pid_t child : children) ends_well(child);
  CHECK_EQ(+counter, kChildren * kTimes);
  CHECK_EQ(lock.value(), 1);
  unmap(memory, 1);
  say("3 children counted to 1500 with one of them as lock");
}

void named_semaphores() {
  {
    NamedSemaphore to_child("to-child", 0), to_parent("to-parent", 0);
    posted_and_waited_for(to_child, to_parent);
    opened_by_others(to_child, to_parent);
    without_its_name(to_child);
  }
  lock_as_python_makes_it();
}

// ---- 2: shm_open

void shared_memory_objects() {
  ShmName name("object");
  const int fd = name.open(O_RDWR | O_CREAT | O_EXCL);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(ftruncate(fd, 3 * kPage), 0);
  char* memory = map_of(fd, 3);
  CHECK_EQ(close(fd), 0);
  store(memory, "of the parent");
  Gate to_child, to_parent;
  const pid_t child = child_of([&] {
    CHECK_EQ(text(memory), "of the parent");
    store(memory + kPage, "of the child");
    to_parent.open();
    to_child.pass();
    move_point();
    CHECK_EQ(text(memory), "changed");
    store(memory + 2 * kPage, "of the child, at its end");
  });
  to_parent.pass();
  CHECK_EQ(text(memory + kPage), "of the child");
  move_point();
  store(memory, "changed");
  to_child.open();
  ends_well(child);
  CHECK_EQ(text(memory + 2 * kPage), "of the child, at its end");
  say("parent and child see each other's stores");
  unmap(memory, 3);
  const int again = name.open(O_RDONLY);
  const std::string all = rest_of(again);
  close(again);
  CHECK_EQ(all.size(), 3 * kPage);
  CHECK_EQ(text(all, 0), "changed");
  CHECK_EQ(text(all, kPage), "of the child");
  say("opened again when nobody has it mapped: \"" + text(all, 2 * kPage) + "\"");
  CHECK_EQ(shm_unlink(name.name()), 0);
  CHECK_FAILS(shm_open(name.name(), O_RDWR, 0), ENOENT);
}

// ---- 3: a descriptor beside the mapping

void stores_and_writes(int fd, char* memory) {
  CHECK_EQ(text(memory), "page 0");
  CHECK_EQ(text(memory + kPage), "page 1");
  store(memory, "stored");
  CHECK_EQ(text_in(fd, 0), "stored");
  CHECK_EQ(pwrite(fd, "written", 7, kPage), 7);
  CHECK_EQ(text(memory + kPage), "written");
  move_point();
  CHECK_EQ(text_in(fd, 0), "stored");
  CHECK_EQ(text(memory + kPage), "written");
  // A call may take from the mapping what it puts into the file, and the other way.
  CHECK_EQ(pwrite(fd, memory, 6, 100), 6);
  CHECK_EQ(text(memory + 100), "stored");
  CHECK_EQ(pread(fd, memory + 200, 7, kPage), 7);
  CHECK_EQ(text_in(fd, 200), "written");
  say("pread sees what was stored, a load what was written");
}

/// The mapping is of four pages all the time.
void grows_and_shrinks(int fd, char* memory) {
  CHECK_EQ(load_gives(memory + 2 * kPage), "SIGBUS, BUS_ADRERR");
  CHECK_EQ(ftruncate(fd, 4 * kPage), 0);
  for (size_t i = 2 * kPage; i < 4 * kPage; ++i) CHECK_EQ(+memory[i], 0);
  store(memory + 3 * kPage, "in the new part");
  CHECK_EQ(text_in(fd, 3 * kPage), "in the new part");
  say("larger: the new part is zero, and can be stored to");
  move_point();
  CHECK_EQ(ftruncate(fd, kPage + 3), 0);
  CHECK_EQ(text(memory + kPage), "wri");
  CHECK_EQ(load_gives(memory + 2 * kPage - 1), "nothing");
  CHECK_EQ(load_gives(memory + 2 * kPage), "SIGBUS, BUS_ADRERR");
  CHECK_EQ(store_gives(memory + 3 * kPage + 5), "SIGBUS, BUS_ADRERR");
  CHECK_EQ(load_gives(memory + 4 * kPage - 1), "SIGBUS, BUS_ADRERR");
  say("smaller: behind the last page each touch gives SIGBUS, BUS_ADRERR");
  CHECK_EQ(ftruncate(fd, 4 * kPage), 0);
  CHECK_EQ(text(memory + 3 * kPage), "");
  CHECK_EQ(text(memory + kPage), "wri");
  store(memory + 3 * kPage, "new again");
  CHECK_EQ(text_in(fd, 3 * kPage), "new again");
  say("and larger again: what was there before is gone");
}

void file_and_its_mapping() {
  Scratch scratch;
  const int fd = new_file("file", 2);
  char* memory = map_of(fd, 4);
  stores_and_writes(fd, memory);
  grows_and_shrinks(fd, memory);
  store(memory, "for the disk");
  CHECK_EQ(msync(memory, 4 * kPage, MS_SYNC), 0);
  CHECK_EQ(msync(memory, 4 * kPage, MS_ASYNC), 0);
  CHECK_EQ(msync(memory + kPage, kPage, MS_SYNC | MS_INVALIDATE), 0);
  CHECK_EQ(fdatasync(fd), 0);
  CHECK_EQ(text(contents("file"), 0), "for the disk");
  say("msync is content");
  unmap(memory, 4);
  close(fd);
}

// ---- 4: a program that reads the file

/// What `/bin/cat NAME` prints.
std::string printed_by_cat(const char* name) {
  int line[2];
  CHECK_EQ(pipe2(line, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
  CHECK_EQ(posix_spawn_file_actions_adddup2(&actions, line[1], STDOUT_FILENO), 0);
  std::string program = "cat", argument = name;
  char* words[] = {program.data(), argument.data(), nullptr};
  pid_t cat = 0;
  CHECK_EQ(posix_spawn(&cat, "/bin/cat", &actions, nullptr, words, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(line[1]);
  const std::string printed = rest_of(line[0]);
  close(line[0]);
  ends_well(cat);
  return printed;
}

void read_by_a_program() {
  Scratch scratch;
  constexpr size_t kPages = 40;
  char* memory = map_of_new_file("file", kPages);
  for (int round = 0; round < 2; ++round) {
    const std::string mark = "round " + std::to_string(round);
    for (size_t i = 0; i < kPages; i += 3) store(memory + i * kPage, mark.c_str());
    const std::string printed = printed_by_cat("file");
    CHECK_EQ(printed.size(), kPages * kPage);
    CHECK(memcmp(printed.data(), memory, printed.size()) == 0);
    for (size_t i = 0; i < kPages; ++i)
      CHECK_EQ(text(printed, i * kPage), i % 3 == 0 ? mark : "page " + std::to_string(i));
    move_point();
  }
  say("cat prints what has been stored, twice");
  unmap(memory, kPages);
}

// ---- 5: who has stored is gone

char* map_and_store(const char* name, size_t pages) {
  const int fd = opened(name);
  char* memory = map_of(fd, pages);
  CHECK_EQ(close(fd), 0);
  move_point();
  for (size_t i = 0; i < pages; ++i) store(memory + i * kPage, (std::to_string(i) + " of a child").c_str());
  return memory;
}

void check_stores(const char* name, size_t pages) {
  const std::string all = contents(name);
  CHECK_EQ(all.size(), pages * kPage);
  for (size_t i = 0; i < pages; ++i) CHECK_EQ(text(all, i * kPage), std::to_string(i) + " of a child");
}

void who_stored_is_gone() {
  Scratch scratch;
  constexpr size_t kPages = 20;
  for (const char* name : {"left", "killed", "executed"}) close(new_file(name, kPages));
  ends_well(child_of([&] { map_and_store("left", kPages); }));
  check_stores("left", kPages);
  say("stores of one that has ended are in the file");
  Gate stored;
  const pid_t killed = child_of([&] {
    map_and_store("killed", kPages);
    stored.open();
    for (;;) pause();
  });
  stored.pass();
  CHECK_EQ(kill(killed, SIGKILL), 0);
  CHECK_EQ(WTERMSIG(status_of(killed)), SIGKILL);
  check_stores("killed", kPages);
  say("stores of one that was killed are in the file");
  ends_well(child_of([&] {
    map_and_store("executed", kPages);
    execl("/bin/true", "true", static_cast<char*>(nullptr));
    _exit(126);
  }));
  check_stores("executed", kPages);
  say("stores of one that executed another program are in the file");
}

// ---- 6: several mappings, and what they allow

void two_shared_views(char* memory, char* readable) {
  store(memory, "by the other");
  CHECK_EQ(text(readable), "by the other");
  CHECK_EQ(store_gives(readable), "SIGSEGV, SEGV_ACCERR");
  move_point();
  CHECK_EQ(text(readable), "by the other");
  store(memory + kPage, "later");
  CHECK_EQ(text(readable + kPage), "later");
  say("the mapping that may only be read shows what is stored in the other");
}

/// POSIX leaves it open whether a private mapping sees what changes in the file; on Linux each page does, until it
/// has been written itself.
void private_view(int fd, char* memory) {
  char* own = map_of(fd, 3, kReadWrite, MAP_PRIVATE);
  CHECK_EQ(text(own), "by the other");
  store(memory, "before");
  CHECK_EQ(text(own), "before");
  own[100] = 'o';
  store(memory, "after");
  CHECK_EQ(text(own), "before");
  CHECK_EQ(+memory[100], 0);
  move_point();
  CHECK_EQ(text(own), "before");
  store(memory + kPage, "another page");
  CHECK_EQ(text(own + kPage), "another page");
  CHECK_EQ(text_in(fd, 0), "after");
  unmap(own, 3);
  say("the private mapping sees stores until it has been written itself");
}

void changed_protection(int fd, char* memory) {
  CHECK_EQ(mprotect(memory + kPage, kPage, PROT_READ), 0);
  CHECK_EQ(store_gives(memory + kPage + 17), "SIGSEGV, SEGV_ACCERR");
  CHECK_EQ(store_gives(memory + 2 * kPage, 'P'), "nothing");
  move_point();
  CHECK_EQ(store_gives(memory + 2 * kPage - 1), "SIGSEGV, SEGV_ACCERR");
  CHECK_EQ(mprotect(memory, 3 * kPage, PROT_NONE), 0);
  CHECK_EQ(load_gives(memory), "SIGSEGV, SEGV_ACCERR");
  CHECK_EQ(pwrite(fd, "meanwhile", 10, kPage), 10);
  CHECK_EQ(mprotect(memory, 3 * kPage, kReadWrite), 0);
  CHECK_EQ(text(memory + kPage), "meanwhile");
  CHECK_EQ(store_gives(memory + kPage, 'M'), "nothing");
  CHECK_EQ(text_in(fd, kPage), "Meanwhile");
  CHECK_EQ(text_in(fd, 2 * kPage), "Page 2");
  say("a store to what may only be read gives SIGSEGV, SEGV_ACCERR, until it may be written again");
}

void made_writable_later(int fd) {
  char* later = map_of(fd, 3, PROT_READ);
  CHECK_EQ(store_gives(later), "SIGSEGV, SEGV_ACCERR");
  CHECK_EQ(mprotect(later, 3 * kPage, kReadWrite), 0);
  store(later, "made writable");
  CHECK_EQ(text_in(fd, 0), "made writable");
  unmap(later, 3);
  const int reading = opened("file", O_RDONLY);
  CHECK(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, reading, 0) == MAP_FAILED);
  CHECK_EQ(errno, EACCES);
  char* never = map_of(reading, 3, PROT_READ);
  move_point();
  CHECK_FAILS(mprotect(never, 3 * kPage, kReadWrite), EACCES);
  CHECK_EQ(text(never), "made writable");
  CHECK_EQ(store_gives(never), "SIGSEGV, SEGV_ACCERR");
  // The file keeps what is stored here to itself.
  char* own = map_of(reading, 1, kReadWrite, MAP_PRIVATE);
  store(own, "private");
  CHECK_EQ(text(never), "made writable");
  unmap(own, 1);
  unmap(never, 3);
  close(reading);
  const int writing = opened("file", O_WRONLY);
  CHECK(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, writing, 0) == MAP_FAILED);
  CHECK_EQ(errno, EACCES);
  close(writing);
  say("made writable later: with O_RDWR yes, with O_RDONLY EACCES");
}

void views_and_protection() {
  Scratch scratch;
  const int fd = new_file("file", 3);
  char* memory = map_of(fd, 3);
  char* readable = map_of(fd, 3, PROT_READ);
  two_shared_views(memory, readable);
  private_view(fd, memory);
  changed_protection(fd, memory);
  made_writable_later(fd);
  CHECK_EQ(text(readable), "made writable");
  unmap(memory, 3);
  unmap(readable, 3);
  close(fd);
}

// ---- 7: parts of a mapping

void hole_in_the_middle() {
  char* memory = map_of_new_file("five", 5);
  for (size_t i = 0; i < 5; ++i) store(memory + i * kPage, "before");
  CHECK_EQ(munmap(memory + 2 * kPage, kPage), 0);
  CHECK_EQ(load_gives(memory + 2 * kPage), "SIGSEGV, SEGV_MAPERR");
  move_point();
  for (size_t i : {0, 1, 3, 4}) store(memory + i * kPage, "after");
  const std::string all = contents("five");
  for (size_t i = 0; i < 5; ++i) CHECK_EQ(text(all, i * kPage), i == 2 ? "before" : "after");
  unmap(memory, 2);
  unmap(memory + 3 * kPage, 2);
  say("the part that was unmapped has left its stores in the file");
}

void grown_in_the_file() {
  const int fd = new_file("eight", 8);
  char* memory = map_of(fd, 2);
  CHECK_EQ(close(fd), 0);
  store(memory + kPage, "before");
  char* larger = static_cast<char*>(mremap(memory, 2 * kPage, 6 * kPage, MREMAP_MAYMOVE));
  CHECK(larger != MAP_FAILED);
  CHECK_EQ(text(larger + kPage), "before");
  CHECK_EQ(text(larger + 5 * kPage), "page 5");
  move_point();
  store(larger + 5 * kPage, "after");
  const std::string all = contents("eight");
  CHECK_EQ(text(all, kPage), "before");
  CHECK_EQ(text(all, 5 * kPage), "after");
  CHECK_EQ(text(all, 6 * kPage), "page 6");
  unmap(larger, 6);
  say("a mapping that has grown shows more of the file");
}

void another_in_its_place() {
  const int fd = opened("eight");
  char* memory = map_of(fd, 4);
  char* third = memory + 2 * kPage;
  store(third, "before");
  map_of(-1, 1, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0, third);
  CHECK_EQ(text(third), "");
  store(third, "not of the file");
  store(third + kPage, "beside it");
  move_point();
  CHECK_EQ(text_in(fd, 2 * kPage), "before");
  CHECK_EQ(text_in(fd, 3 * kPage), "beside it");
  CHECK_EQ(text(third), "not of the file");
  // Now another part of the file.
  map_of(fd, 1, kReadWrite, MAP_SHARED | MAP_FIXED, 7, third);
  CHECK_EQ(text(third), "page 7");
  store(third, "the last");
  CHECK_EQ(text_in(fd, 7 * kPage), "the last");
  CHECK_EQ(text_in(fd, 2 * kPage), "before");
  unmap(memory, 4);
  close(fd);
  say("where another is put in its place, stores go there");
}

void parts_of_a_mapping() {
  Scratch scratch;
  hole_in_the_middle();
  grown_in_the_file();
  another_in_its_place();
}

// ---- 8: files without a name

void shared_with_a_child(int fd, char* memory) {
  store(memory, "of the parent");
  ends_well(child_of([&] {
    CHECK_EQ(text(memory), "of the parent");
    move_point();
    store(memory + kPage, "of the child");
    CHECK_EQ(pwrite(fd, "written", 7, 2 * kPage), 7);
  }));
  CHECK_EQ(text(memory + kPage), "of the child");
  CHECK_EQ(text_in(fd, kPage), "of the child");
  CHECK_EQ(text(memory + 2 * kPage), "written");
  say("the parent sees and reads what its child has stored");
}

void opened_again(int fd, char* memory) {
  const int again = opened(("/proc/self/fd/" + std::to_string(fd)).c_str());
  CHECK_EQ(size_of(again), static_cast<off_t>(3 * kPage));
  CHECK_EQ(text_in(again, kPage), "of the child");
  move_point();
  store(memory, "stored after that");
  CHECK_EQ(text_in(again, 0), "stored after that");
  char* other = map_of(again, 3);
  close(again);
  store(other + kPage, "in the other mapping");
  CHECK_EQ(text(memory + kPage), "in the other mapping");
  unmap(other, 3);
  say("opened again by /proc/self/fd it is the same");
}

void sealed(int fd, char* memory) {
  CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
  CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
  CHECK_FAILS(ftruncate(fd, kPage), EPERM);
  CHECK_FAILS(ftruncate(fd, 4 * kPage), EPERM);
  CHECK_FAILS(pwrite(fd, "x", 1, 3 * kPage), EPERM);
  // As long as somebody may store to it.
  CHECK_FAILS(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
  move_point();
  store(memory, "into the sealed one");
  CHECK_EQ(text_in(fd, 0), "into the sealed one");
  CHECK_EQ(size_of(fd), static_cast<off_t>(3 * kPage));
  say("sealed against another size it can still be stored to");
}

void files_without_a_name() {
  const int fd = memfd_create("mosix-check", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 3 * kPage), 0);
  char* memory = map_of(fd, 3);
  shared_with_a_child(fd, memory);
  opened_again(fd, memory);
  sealed(fd, memory);
  unmap(memory, 3);
  CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  CHECK_FAILS(pwrite(fd, "x", 1, 0), EPERM);
  CHECK_EQ(text_in(fd, 0), "into the sealed one");
  close(fd);
}

// ---- 9: other descriptors of the same

void send_descriptor(int socket, int fd) {
  char byte = 'd';
  iovec piece{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  CHECK_EQ(sendmsg(socket, &message, 0), 1);
}

int received_descriptor(int socket) {
  char byte = 0;
  iovec piece{&byte, 1};
  int fd = -1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  CHECK(header != nullptr);
  CHECK_EQ(header->cmsg_type, static_cast<int>(SCM_RIGHTS));
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  CHECK(fd >= 0);
  return fd;
}

void duplicated() {
  const int fd = new_file("file", 2);
  char* memory = map_of(fd, 2);
  const int other = dup(fd);
  CHECK(other >= 0);
  CHECK_EQ(close(fd), 0);
  store(memory, "for the duplicate");
  move_point();
  CHECK_EQ(text(rest_of(other), 0), "for the duplicate");
  CHECK_EQ(pwrite(other, "by the duplicate", 16, kPage), 16);
  CHECK_EQ(text(memory + kPage), "by the duplicate");
  close(other);
  unmap(memory, 2);
  say("a duplicate reads what was stored, and the mapping shows what it writes");
}

/// Who has unmapped it and moves writes to it by its descriptor: nothing that was stored before comes after that.
void unmapped_before_a_move() {
  const int fd = new_file("unmapped", 2);
  for (int round = 0; round < 4; ++round) {
    char* memory = map_of(fd, 2);
    store(memory, "stored");
    unmap(memory, 2);
    move_point();
    CHECK_EQ(pwrite(fd, "written", 8, 0), 8);
    // Long enough for whoever tidies up once a second.
    const timespec pause{1, 300'000'000};
    CHECK_EQ(nanosleep(&pause, nullptr), 0);
    CHECK_EQ(text_in(fd, 0), "written");
  }
  close(fd);
  say("what is written after it is unmapped stays");
}

/// The child is there before the file is: all that it has of it is what it is sent.
void sent_to_a_child() {
  int line[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line), 0);
  Gate to_child, to_parent;
  const pid_t child = child_of([&] {
    const int fd = received_descriptor(line[1]);
    CHECK_EQ(text_in(fd, 0), "stored before it was sent");
    CHECK_EQ(pwrite(fd, "written by the child", 20, kPage), 20);
    to_parent.open();
    to_child.pass();
    move_point();
    CHECK_EQ(text_in(fd, 0), "stored after it was sent");
    char* memory = map_of(fd, 2);
    close(fd);
    store(memory + kPage, "stored by the child");
  });
  const int fd = new_file("sent", 2);
  char* memory = map_of(fd, 2);
  store(memory, "stored before it was sent");
  send_descriptor(line[0], fd);
  CHECK_EQ(close(fd), 0);
  to_parent.pass();
  CHECK_EQ(text(memory + kPage), "written by the child");
  move_point();
  store(memory, "stored after it was sent");
  to_child.open();
  ends_well(child);
  CHECK_EQ(text(memory + kPage), "stored by the child");
  close(line[0]);
  close(line[1]);
  unmap(memory, 2);
  say("so does one that was sent to a child");
}

void other_descriptors() {
  Scratch scratch;
  duplicated();
  unmapped_before_a_move();
  sent_to_a_child();
}

// ---- 10: locks in a file

struct Table {
  pthread_mutex_t mutex, robust;
  pthread_cond_t changed;
  int turn, value;
};
static_assert(sizeof(Table) <= kPage);

Table* table_in(const char* name) {
  const int fd = opened(name);
  char* memory = map_of(fd, 1);
  CHECK_EQ(close(fd), 0);
  return reinterpret_cast<Table*>(memory);
}

void make_mutex(pthread_mutex_t& mutex, int robust) {
  pthread_mutexattr_t attributes;
  CHECK_EQ(pthread_mutexattr_init(&attributes), 0);
  CHECK_EQ(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_mutexattr_setrobust(&attributes, robust), 0);
  CHECK_EQ(pthread_mutex_init(&mutex, &attributes), 0);
  pthread_mutexattr_destroy(&attributes);
}

void make_condition(pthread_cond_t& condition) {
  pthread_condattr_t attributes;
  CHECK_EQ(pthread_condattr_init(&attributes), 0);
  CHECK_EQ(pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_cond_init(&condition, &attributes), 0);
  pthread_condattr_destroy(&attributes);
}

/// Adds one whenever it is its turn: that of one is even, that of the other odd.
void take_turns(Table& table, int who, int turns) {
  for (int i = 0; i < turns; ++i) {
    CHECK_EQ(pthread_mutex_lock(&table.mutex), 0);
    while (table.turn % 2 != who) CHECK_EQ(pthread_cond_wait(&table.changed, &table.mutex), 0);
    CHECK_EQ(table.turn, 2 * i + who);
    if (i == 40 + 40 * who) move_point();  // it holds the mutex
    ++table.turn;
    CHECK_EQ(pthread_cond_signal(&table.changed), 0);
    CHECK_EQ(pthread_mutex_unlock(&table.mutex), 0);
    if (i == 60 + 60 * who) move_point();
  }
}

void ping_pong(Table& table) {
  constexpr int kTurns = 200;
  // One child has it from its parent, the other maps it for itself.
  for (bool own : {false, true}) {
    table.turn = 0;
    const pid_t child = child_of([&] { take_turns(own ? *table_in("locks") : table, 1, kTurns); });
    take_turns(table, 0, kTurns);
    ends_well(child);
    CHECK_EQ(table.turn, 2 * kTurns);
  }
  say("200 turns with a mutex and a condition, and 200 with one that maps the file itself");
}

void holder_ends(Table& table) {
  pthread_mutex_t* mutex = &table.robust;
  ends_well(child_of([&] {
    CHECK_EQ(pthread_mutex_lock(mutex), 0);
    table.value = 7;
    move_point();
  }));
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  CHECK_EQ(table.value, 7);
  CHECK_EQ(pthread_mutex_consistent(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  CHECK_EQ(pthread_mutex_lock(mutex), 0);
  // And if it is killed while another waits, which has the mutex at another place.
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  Gate held, waiting;
  const pid_t holder = child_of([&] {
    CHECK_EQ(pthread_mutex_lock(mutex), 0);
    held.open();
    for (;;) pause();
  });
  held.pass();
  const pid_t waiter = child_of([&] {
    pthread_mutex_t* same = &table_in("locks")->robust;
    CHECK_EQ(pthread_mutex_trylock(same), EBUSY);
    waiting.open();
    CHECK_EQ(pthread_mutex_lock(same), EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(same), 0);
    CHECK_EQ(pthread_mutex_unlock(same), 0);
  });
  waiting.pass();
  CHECK_EQ(kill(holder, SIGKILL), 0);
  CHECK_EQ(WTERMSIG(status_of(holder)), SIGKILL);
  ends_well(waiter);
  CHECK_EQ(pthread_mutex_lock(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  say("who holds the robust mutex ends or is killed: EOWNERDEAD");
}

void locks_in_a_file() {
  Scratch scratch;
  close(new_file("locks", 1));
  Table* table = table_in("locks");
  memset(static_cast<void*>(table), 0, sizeof *table);
  make_mutex(table->mutex, PTHREAD_MUTEX_STALLED);
  make_mutex(table->robust, PTHREAD_MUTEX_ROBUST);
  make_condition(table->changed);
  ping_pong(*table);
  holder_ends(*table);
  unmap(reinterpret_cast<char*>(table), 1);
}

// ---- 11: a descriptor that appends

void appending() {
  Scratch scratch;
  const int fd = new_file("file", 1, O_APPEND);
  char* memory = map_of(fd, 2);
  store(memory, "stored");
  CHECK_EQ(text(contents("file"), 0), "stored");
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(write(fd, "appended", 8), 8);
  // On Linux even a write that says where it goes.
  CHECK_EQ(pwrite(fd, ", and more", 10, 0), 10);
  move_point();
  CHECK_EQ(text(memory), "stored");
  CHECK_EQ(text(memory + kPage), "appended, and more");
  store(memory + kPage, "APPENDED");
  memory[kPage + 8] = '.';
  const std::string all = contents("file");
  CHECK_EQ(all.size(), kPage + 18);
  CHECK_EQ(text(all, 0), "stored");
  say("stores stay where they are, writes go to the end: \"" + text(all, kPage) + "\"");
  unmap(memory, 2);
  close(fd);
}

// ---- 12: an end that is no end of a page

/// The rest of the last page is memory, and no file. A file system on a disk clears it whenever it writes the page
/// back: only in shared memory it may be expected to last, and there too only as long as the size remains.
void end_within_a_page(int fd, bool lasts) {
  constexpr size_t kSize = kPage + 100;
  CHECK_EQ(ftruncate(fd, kSize), 0);
  char* memory = map_of(fd, 2);
  char* end = memory + kSize;
  for (char* at = end; at < memory + 2 * kPage; ++at) CHECK_EQ(+*at, 0);
  store(end - 4, "last");
  strcpy(end, "behind");
  CHECK_EQ(text(end), "behind");
  if (lasts) {
    move_point();
    char* other = map_of(fd, 2);
    CHECK_EQ(text(other + kSize), "behind");
    ends_well(child_of([&] { store(end, "behind, by a child"); }));
    CHECK_EQ(text(other + kSize), "behind, by a child");
    unmap(other, 2);
  }
  CHECK_EQ(size_of(fd), static_cast<off_t>(kSize));
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  const std::string all = rest_of(fd);
  CHECK_EQ(all.size(), kSize);
  CHECK_EQ(text(all, kSize - 4), "last");
  unmap(memory, 2);
  CHECK_EQ(size_of(fd), static_cast<off_t>(kSize));
}

void behind_the_end() {
  Scratch scratch;
  const int fd = new_file("file", 1);
  end_within_a_page(fd, false);
  close(fd);
  say("what is stored behind the end of a file is in memory, not in the file");
  ShmName name("end");
  const int object = name.open(O_RDWR | O_CREAT | O_EXCL);
  end_within_a_page(object, true);
  close(object);
  say("in shared memory all that map it see it");
}

// ---- 13: what the mapping does not change

void descriptor_as_before(int fd) {
  CHECK_EQ(size_of(fd), static_cast<off_t>(3 * kPage));
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
  CHECK_EQ(lseek(fd, -5, SEEK_END), static_cast<off_t>(3 * kPage - 5));
  CHECK_EQ(lseek(fd, kPage, SEEK_SET), static_cast<off_t>(kPage));
  char buffer[7] = {};
  CHECK_EQ(read(fd, buffer, 6), 6);
  CHECK_EQ(std::string(buffer), "page 1");
  move_point();
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), static_cast<off_t>(kPage + 6));
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(fd, F_SETFD, 0), 0);
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_EQ(fcntl(fd, F_SETFL, O_APPEND), 0);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
  CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
  say("size, place and flags are those of any descriptor");
}

/// What another process is told that wants the whole file for itself.
int flock_by_another() {
  return check::in_child([] {
    const int own = opened("file");
    return flock(own, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  });
}

void locked_as_a_whole(int fd) {
  CHECK_EQ(flock(fd, LOCK_SH), 0);
  CHECK_EQ(WEXITSTATUS(flock_by_another()), EWOULDBLOCK);
  move_point();
  CHECK_EQ(flock(fd, LOCK_EX), 0);
  CHECK_EQ(WEXITSTATUS(flock_by_another()), EWOULDBLOCK);
  CHECK_EQ(flock(fd, LOCK_UN), 0);
  CHECK_EQ(flock_by_another(), 0);
  say("flock keeps others away");
}

void locked_in_part(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 10;
  lock.l_len = 10;
  CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
  move_point();
  const pid_t owner = getpid();
  auto another = [&](bool held) {
    ends_well(child_of([&] {
      struct flock wanted = lock;
      CHECK_EQ(fcntl(fd, F_GETLK, &wanted), 0);
      CHECK_EQ(wanted.l_type, held ? F_WRLCK : F_UNLCK);
      if (held) {
        CHECK_EQ(wanted.l_pid, owner);
        CHECK_EQ(wanted.l_start, 10);
        CHECK_EQ(wanted.l_len, 10);
      }
      wanted = lock;
      CHECK_EQ(fcntl(fd, F_SETLK, &wanted), held ? -1 : 0);
      if (held) CHECK_EQ(errno, EAGAIN);
      wanted.l_start = 20;
      CHECK_EQ(fcntl(fd, F_SETLK, &wanted), 0);
    }));
  };
  another(true);
  lock.l_type = F_UNLCK;
  CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
  lock.l_type = F_WRLCK;
  another(false);
  say("and fcntl from a part");
}

void msync_of_what_is_not_there(char* memory) {
  CHECK_FAILS(msync(memory + 1, kPage, MS_SYNC), EINVAL);
  CHECK_FAILS(msync(memory, kPage, MS_SYNC | MS_ASYNC), EINVAL);
  CHECK_EQ(munmap(memory + kPage, kPage), 0);
  CHECK_FAILS(msync(memory + kPage, kPage, MS_SYNC), ENOMEM);
  CHECK_FAILS(msync(memory, 3 * kPage, MS_SYNC), ENOMEM);
  CHECK_FAILS(msync(memory, 3 * kPage, MS_ASYNC), ENOMEM);
  CHECK_EQ(msync(memory, kPage, MS_SYNC), 0);
  say("msync of what is not mapped gives ENOMEM");
}

void what_does_not_change() {
  Scratch scratch;
  const int fd = new_file("file", 3);
  char* memory = map_of(fd, 3);
  descriptor_as_before(fd);
  locked_as_a_whole(fd);
  locked_in_part(fd);
  msync_of_what_is_not_there(memory);
  close(fd);
  unmap(memory, 1);
  unmap(memory + 2 * kPage, 1);
}

const std::initializer_list<check::Check> kChecks = {{"named-semaphores", named_semaphores},
                                                     {"shared-memory-objects", shared_memory_objects},
                                                     {"file-and-its-mapping", file_and_its_mapping},
                                                     {"read-by-a-program", read_by_a_program},
                                                     {"who-stored-is-gone", who_stored_is_gone},
                                                     {"views-and-protection", views_and_protection},
                                                     {"parts-of-a-mapping", parts_of_a_mapping},
                                                     {"files-without-a-name", files_without_a_name},
                                                     {"other-descriptors", other_descriptors},
                                                     {"locks-in-a-file", locks_in_a_file},
                                                     {"appending", appending},
                                                     {"behind-the-end", behind_the_end},
                                                     {"what-does-not-change", what_does_not_change}};

/// The name of the check that has this number, or the word as it is.
std::string name_of(const char* word) {
  const size_t number = strtoul(word, nullptr, 10);
  return number >= 1 && number <= kChecks.size() ? kChecks.begin()[number - 1].name : word;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "--second-opener") == 0) return second_opener(argv[2], argv[3]);
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) return 2;
  own_path = path;
  std::vector<std::string> names(argv, argv + argc);
  std::vector<char*> words;
  for (std::string& name : names) words.push_back((name = name_of(name.c_str())).data());
  return check::run(argc, words.data(), kChecks);
}
