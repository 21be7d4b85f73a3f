// Threads: locks of every kind, thread-local storage, storms of short-lived threads, signals to one thread,
// and the ends that concern all: exit_group, exec, cancellation.
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "check.h"

namespace {

std::string own_path;

pid_t thread_id() { return static_cast<pid_t>(syscall(SYS_gettid)); }

void mutex_counts_right() {
  std::mutex mutex;
  long total = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        const std::lock_guard lock(mutex);
        total = total + 1;
      }
    });
  move_point();
  for (auto& thread : threads) thread.join();
  CHECK_EQ(total, 80000);
}

void conditions_wake() {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  constexpr int kRounds = 300, kThreads = 3;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return turn % kThreads == t; });
        ++turn;
        changed.notify_all();
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK_EQ(turn, kRounds * kThreads);
  std::unique_lock lock(mutex);
  const double start = check::seconds_of(CLOCK_MONOTONIC);
  CHECK(!changed.wait_for(lock, std::chrono::milliseconds(40), [] { return false; }));
  CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.040);
}

pthread_mutex_t special_mutex(int protocol, int robust) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, protocol);
  pthread_mutexattr_setrobust(&attributes, robust);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_t mutex;
  CHECK_EQ(pthread_mutex_init(&mutex, &attributes), 0);
  pthread_mutexattr_destroy(&attributes);
  return mutex;
}

void priority_inheriting_mutex() {
  // The kernel compares owner words with thread ids: these have to be the same on every node.
  pthread_mutex_t mutex = special_mutex(PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED);
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  CHECK_EQ(mutex.__data.__owner, thread_id());
  move_point();
  CHECK_EQ(pthread_mutex_lock(&mutex), EDEADLK);
  std::atomic<int> got{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        if (pthread_mutex_lock(&mutex) != 0) return;
        sched_yield();
        ++got;
        if (pthread_mutex_unlock(&mutex) != 0) return;
      }
    });
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(got.load(), 800);
  CHECK_EQ(pthread_mutex_unlock(&mutex), EPERM);
}

void robust_mutex_of_a_dead_thread() {
  static pthread_mutex_t mutex;
  mutex = special_mutex(PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST);
  std::thread([] {
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    move_point();
  }).join();
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

void other_locks() {
  pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
  pthread_barrier_t barrier;
  CHECK_EQ(pthread_barrier_init(&barrier, nullptr, 4), 0);
  sem_t semaphore;
  CHECK_EQ(sem_init(&semaphore, 0, 0), 0);
  std::atomic<int> serial{0}, sum{0};
  int shared = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) ++serial;
        pthread_rwlock_wrlock(&lock);
        ++shared;
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_rdlock(&lock);
        sum += shared > 0;
        pthread_rwlock_unlock(&lock);
        sem_post(&semaphore);
      }
    });
  for (int i = 0; i < 200; ++i) CHECK_EQ(sem_wait(&semaphore), 0);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(serial.load(), 50);
  CHECK_EQ(shared, 200);
  CHECK_EQ(sum.load(), 200);
  timespec limit{};
  clock_gettime(CLOCK_REALTIME, &limit);
  limit.tv_nsec += 20000000;
  if (limit.tv_nsec >= 1000000000) {
    limit.tv_nsec -= 1000000000;
    ++limit.tv_sec;
  }
  CHECK_FAILS(sem_timedwait(&semaphore, &limit), ETIMEDOUT);
  sem_destroy(&semaphore);
  pthread_barrier_destroy(&barrier);
}

thread_local int own_number = 5;
thread_local std::string own_text = "initial";

void storage_of_each_thread() {
  own_number = 100;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 5);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      if (own_number != 5 || own_text != "initial") ++wrong;
      own_number = t;
      own_text = std::to_string(t);
      pthread_barrier_wait(&barrier);
      pthread_barrier_wait(&barrier);
      if (own_number != t || own_text != std::to_string(t)) ++wrong;
    });
  pthread_barrier_wait(&barrier);
  move_point();
  CHECK_EQ(own_number, 100);
  pthread_barrier_wait(&barrier);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  pthread_barrier_destroy(&barrier);
}

void storm_of_short_threads() {
  std::atomic<int> ran{0};
  for (int round = 0; round < 30; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 10; ++t) threads.emplace_back([&] { ++ran; });
    for (auto& thread : threads) thread.join();
  }
  CHECK_EQ(ran.load(), 300);
  // Detached ones leave by themselves; their number in /proc goes back to one.
  static std::atomic<int> detached{0};
  detached = 0;
  for (int t = 0; t < 50; ++t) std::thread([] { ++detached; }).detach();
  while (detached.load() < 50) sched_yield();
  for (;;) {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line) && line.rfind("Threads:", 0) != 0) {
    }
    if (line == "Threads:\t1") break;
    sched_yield();
  }
}

void ids_are_kept() {
  std::mutex mutex;
  std::set<pid_t> seen;
  std::atomic<int> wrong{0};
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 5);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      const pid_t before = thread_id();
      {
        const std::lock_guard lock(mutex);
        seen.insert(before);
      }
      pthread_barrier_wait(&barrier);
      pthread_barrier_wait(&barrier);
      if (thread_id() != before || getpid() == before) ++wrong;
    });
  pthread_barrier_wait(&barrier);
  CHECK_EQ(seen.size(), 4u);
  move_point();
  for (pid_t id : seen) CHECK_EQ(syscall(SYS_tgkill, getpid(), id, 0), 0);
  pthread_barrier_wait(&barrier);
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  pthread_barrier_destroy(&barrier);
}

std::atomic<pid_t> who_handled{0};

void signals_to_one_thread() {
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { who_handled = thread_id(); };
  action.sa_flags = SA_RESTART;
  CHECK_EQ(sigaction(SIGUSR1, &action, &before), 0);
  int line[2];
  CHECK_EQ(pipe(line), 0);
  std::atomic<pid_t> reader_id{0};
  std::atomic<bool> compute{true};
  std::thread reader([&] {
    reader_id = thread_id();
    char byte;
    CHECK_EQ(read(line[0], &byte, 1), 1);
  });
  std::atomic<pid_t> worker_id{0};
  std::thread worker([&] {
    worker_id = thread_id();
    while (compute) {
    }
  });
  while (reader_id == 0 || worker_id == 0) sched_yield();
  for (int i = 0; i < 20; ++i) {
    who_handled = 0;
    CHECK_EQ(pthread_kill(i & 1 ? reader.native_handle() : worker.native_handle(), SIGUSR1), 0);
    while (who_handled == 0) sched_yield();
    CHECK_EQ(who_handled.load(), i & 1 ? reader_id.load() : worker_id.load());
    if (i == 10) move_point();
  }
  compute = false;
  CHECK_EQ(write(line[1], "x", 1), 1);
  reader.join();
  worker.join();
  // A signal to the process goes to the one thread that does not block it.
  sigset_t usr1, mask;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &mask);
  std::atomic<pid_t> open_id{0};
  std::atomic<bool> go_on{true};
  std::thread open_thread([&] {
    pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
    open_id = thread_id();
    while (go_on) sched_yield();
  });
  while (open_id == 0) sched_yield();
  who_handled = 0;
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  while (who_handled == 0) sched_yield();
  CHECK_EQ(who_handled.load(), open_id.load());
  go_on = false;
  open_thread.join();
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  sigaction(SIGUSR1, &before, nullptr);
  close(line[0]);
  close(line[1]);
}

void threads_block_apart() {
  // Four threads wait in calls of their own while a fifth computes and a sixth writes to each in turn.
  constexpr int kReaders = 4;
  int lines[kReaders][2];
  std::atomic<int> received{0};
  std::vector<std::thread> readers;
  for (auto& line : lines) CHECK_EQ(pipe(line), 0);
  for (int t = 0; t < kReaders; ++t)
    readers.emplace_back([&, t] {
      char byte;
      while (read(lines[t][0], &byte, 1) == 1) ++received;
    });
  for (int i = 0; i < 100; ++i) {
    for (auto& line : lines) CHECK_EQ(write(line[1], "x", 1), 1);
    if (i == 50) move_point();
  }
  for (auto& line : lines) close(line[1]);
  for (auto& reader : readers) reader.join();
  CHECK_EQ(received.load(), 100 * kReaders);
  for (auto& line : lines) close(line[0]);
}

void cancellation() {
  int line[2];
  CHECK_EQ(pipe(line), 0);
  static std::atomic<bool> cleaned{false};
  cleaned = false;
  pthread_t thread;
  CHECK_EQ(pthread_create(
               &thread, nullptr,
               [](void* argument) -> void* {
                 pthread_cleanup_push([](void*) { cleaned = true; }, nullptr);
                 char byte;
                 (void)!read(*static_cast<int*>(argument), &byte, 1);
                 pthread_cleanup_pop(0);
                 return nullptr;
               },
               &line[0]),
           0);
  CHECK_EQ(pthread_cancel(thread), 0);
  void* result = nullptr;
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
  close(line[0]);
  close(line[1]);
}

void exit_from_another_thread() {
  for (int i = 0; i < 5; ++i) {
    const int status = check::in_child([i]() -> int {
      std::thread([] {
        for (;;) pause();
      }).detach();
      std::thread([] {
        for (;;) {
        }
      }).detach();
      std::thread([i] { _exit(40 + i); }).detach();
      for (;;) pause();
    });
    CHECK_EQ(WEXITSTATUS(status), 40 + i);
  }
}

void wait_for_end_of_leader() {
  for (;;) {
    std::ifstream stat("/proc/self/task/" + std::to_string(getpid()) + "/stat");
    std::string text;
    std::getline(stat, text);
    if (text.find(") Z") != std::string::npos) return;
    sched_yield();
  }
}

void leader_ends_first() {
  const int status = check::in_child([]() -> int {
    std::thread([] {
      // The process lives on until its last thread ends.
      wait_for_end_of_leader();
      _exit(23);
    }).detach();
    pthread_exit(nullptr);
  });
  CHECK_EQ(WEXITSTATUS(status), 23);
}

/// What a process can do when its first thread has ended: all that it could before.
int life_without_leader() {
  static std::atomic<int> handled{0};
  wait_for_end_of_leader();
  if (thread_id() == getpid()) return 1;
  std::vector<int> numbers(100'000);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int>(i);
  signal(SIGUSR1, [](int) { ++handled; });
  int line[2];
  if (pipe2(line, O_CLOEXEC) != 0) return 2;
  for (int round = 1; round <= 5; ++round) {
    move_point();
    int64_t sum = 0;
    for (int& number : numbers) sum += ++number;
    if (sum != 100'000ll * 99'999 / 2 + 100'000ll * round) return 3;
    int told = 0;
    std::thread([&] {
      told = write(line[1], &round, sizeof round) == sizeof round ? thread_id() : 0;
    }).join();
    int heard = 0;
    if (told <= 0 || told == getpid()) return 4;
    if (read(line[0], &heard, sizeof heard) != sizeof heard || heard != round) return 5;
    if (kill(getpid(), SIGUSR1) != 0) return 6;
    while (handled < round) sched_yield();  // another thread may have it
    const pid_t child = fork();
    if (child == 0) _exit(thread_id() == getpid() ? 60 + round : 1);
    int status = 0;
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 60 + round) return 7;
  }
  return 24;
}

void goes_on_without_leader() {
  for (bool another : {false, true}) {
    const int status = check::in_child([another]() -> int {
      std::thread([] { _exit(life_without_leader()); }).detach();
      if (another)
        std::thread([] {
          for (;;) pause();
        }).detach();
      syscall(SYS_exit, 9);
      return 1;
    });
    CHECK_EQ(WEXITSTATUS(status), 24);
  }
}

void exec_without_leader() {
  const int status = check::in_child([]() -> int {
    std::thread([] {
      wait_for_end_of_leader();
      move_point();
      execl(own_path.c_str(), "x", "--child", std::to_string(getpid()).c_str(), static_cast<char*>(nullptr));
      _exit(126);
    }).detach();
    syscall(SYS_exit, 9);
    return 1;
  });
  CHECK_EQ(WEXITSTATUS(status), 12);
}

/// No thread ends the process: it is over when all have left, each by itself and all of them at once.
void all_leave_at_once() {
  constexpr int kThreads = 4;
  for (int i = 0; i < 20; ++i) {
    const int status = check::in_child([]() -> int {
      static std::atomic<int> here{0};
      auto leave = [] {
        ++here;
        while (here < kThreads) sched_yield();
        syscall(SYS_exit, 9);
      };
      for (int t = 1; t < kThreads; ++t) std::thread(leave).detach();
      leave();
      return 1;
    });
    CHECK_EQ(status, 9 << 8);
  }
}

void exec_from_another_thread() {
  const int status = check::in_child([]() -> int {
    std::thread([] {
      for (;;) pause();
    }).detach();
    std::thread([] {
      execl(own_path.c_str(), "x", "--child", std::to_string(getpid()).c_str(), static_cast<char*>(nullptr));
      _exit(126);
    }).detach();
    for (;;) pause();
  });
  CHECK_EQ(WEXITSTATUS(status), 12);
}

void fork_from_a_thread() {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) sched_yield();
  });
  int status = -1;
  std::thread([&] { status = check::in_child([] { return thread_id() == getpid() ? 5 : 6; }); }).join();
  stop = true;
  busy.join();
  CHECK_EQ(WEXITSTATUS(status), 5);
}

void names_and_stacks() {
  CHECK_EQ(pthread_setname_np(pthread_self(), "main-thread"), 0);
  std::thread([] {
    pthread_setname_np(pthread_self(), "worker-thread");
    move_point();
    char name[16] = {};
    CHECK_EQ(pthread_getname_np(pthread_self(), name, sizeof name), 0);
    CHECK_EQ(std::string(name), "worker-thread");
  }).join();
  char name[16] = {};
  CHECK_EQ(prctl(PR_GET_NAME, name), 0);
  CHECK_EQ(std::string(name), "main-thread");
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 16 << 20);
  pthread_t thread;
  CHECK_EQ(pthread_create(
               &thread, &attributes,
               [](void*) -> void* {
                 volatile char deep[8 << 20];
                 for (size_t i = 0; i < sizeof deep; i += 4096) deep[i] = static_cast<char>(i >> 12);
                 size_t sum = 0;
                 for (size_t i = 0; i < sizeof deep; i += 4096) sum += static_cast<unsigned char>(deep[i]);
                 return reinterpret_cast<void*>(sum);
               },
               nullptr),
           0);
  void* sum = nullptr;
  CHECK_EQ(pthread_join(thread, &sum), 0);
  CHECK_EQ(reinterpret_cast<size_t>(sum), 2048u / 256 * (255 * 256 / 2));
  pthread_attr_destroy(&attributes);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && strcmp(argv[1], "--child") == 0)
    return getpid() == atoi(argv[2]) && thread_id() == getpid() ? 12 : 13;
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) return 2;
  own_path = path;
  return check::run(argc, argv,
                    {{"mutex-counts-right", mutex_counts_right},
                     {"conditions-wake", conditions_wake},
                     {"priority-inheriting-mutex", priority_inheriting_mutex},
                     {"robust-mutex-of-a-dead-thread", robust_mutex_of_a_dead_thread},
                     {"other-locks", other_locks},
                     {"storage-of-each-thread", storage_of_each_thread},
                     {"storm-of-short-threads", storm_of_short_threads},
                     {"ids-are-kept", ids_are_kept},
                     {"signals-to-one-thread", signals_to_one_thread},
                     {"threads-block-apart", threads_block_apart},
                     {"cancellation", cancellation},
                     {"exit-from-another-thread", exit_from_another_thread},
                     {"leader-ends-first", leader_ends_first},
                     {"goes-on-without-leader", goes_on_without_leader},
                     {"exec-without-leader", exec_without_leader},
                     {"all-leave-at-once", all_leave_at_once},
                     {"exec-from-another-thread", exec_from_another_thread},
                     {"fork-from-a-thread", fork_from_a_thread},
                     {"names-and-stacks", names_and_stacks}});
}
