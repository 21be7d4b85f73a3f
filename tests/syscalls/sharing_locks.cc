// Words in memory that processes share, and the locks that are made of them. Who sleeps on a word is woken by any other
// process that has it, whatever either's address of it; who waits for a robust lock, by the end of its owner too. That
// holds wherever all of them are, and if one has moved since it fell asleep or took the lock. So the checks move while
// somebody sleeps, while somebody holds what others want, and in the middle of long series of turns, none of which may
// be missed. Whatever else such memory is for: sharing.cc.
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>

#include <thread>
#include <vector>

#include "check.h"
#include "sharing_tools.h"

namespace {

// ---- who sleeps on a word

void words_wake_other_processes() {
  Shared<Word> word;
  constexpr int kRounds = 300;
  const pid_t child = child_of([&] {
    for (int round = 0; round < kRounds; ++round) {
      await(*word, 2 * round + 1);
      if (round == 100 || round == 200) move_point();
      announce(*word, 2 * round + 2);
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    if (round == 50 || round == 150 || round == 250) move_point();
    if (round == 270) move_point_of(child);
    announce(*word, 2 * round + 1);
    await(*word, 2 * round + 2);
  }
  ends_well(child);
}

/// A word is where it is in the memory, not at its address.
void words_have_several_addresses() {
  char* memory = mapped(2 * kPage);
  auto& word = *reinterpret_cast<Word*>(memory + kPage + 64);
  const pid_t child = child_of([&] {
    char* elsewhere = static_cast<char*>(mremap(memory, 0, 2 * kPage, MREMAP_MAYMOVE));
    CHECK(elsewhere != MAP_FAILED);
    CHECK_EQ(munmap(memory, 2 * kPage), 0);
    auto& same = *reinterpret_cast<Word*>(elsewhere + kPage + 64);
    for (int round = 0; round < 50; ++round) {
      await(same, 2 * round + 1);
      if (round == 20) move_point();
      announce(same, 2 * round + 2);
    }
  });
  for (int round = 0; round < 50; ++round) {
    if (round == 10 || round == 30) move_point();
    announce(word, 2 * round + 1);
    await(word, 2 * round + 2);
  }
  ends_well(child);
  munmap(memory, 2 * kPage);
}

void all_who_wait_are_woken() {
  struct Together {
    Word word, woken;
  };
  Shared<Together> together;
  constexpr int kWaiters = 4;
  Gate begun;
  std::vector<pid_t> children;
  for (int i = 0; i < kWaiters; ++i)
    children.push_back(child_of([&] {
      begun.open();
      await(together->word, 1);
      ++together->woken;
      await(together->word, 2);
    }));
  for (int i = 0; i < kWaiters; ++i) begun.pass();
  move_point();
  move_point_of(children[2]);
  CHECK_EQ(together->woken.load(), 0);
  announce(together->word, 1);
  while (together->woken.load() < kWaiters) sched_yield();
  move_point();
  announce(together->word, 2);
  for (pid_t child : children) ends_well(child);
}

void waits_with_a_limit() {
  Shared<Word> word;
  *word = 5;
  CHECK_FAILS(futex(*word, FUTEX_WAIT, 4), EAGAIN);
  const timespec short_time{0, 30'000'000};
  const double start = check::seconds_of(CLOCK_MONOTONIC);
  CHECK_FAILS(futex(*word, FUTEX_WAIT, 5, &short_time), ETIMEDOUT);
  CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.030);
  CHECK_EQ(futex(*word, FUTEX_WAKE, 1), 0);
  // A limit that is far away, and one that is a time and not a duration.
  Gate begun;
  auto waits_until_six = [&](int operation, const timespec& limit) {
    begun.open();
    while (word->load() == 5)
      if (futex(*word, operation, 5, &limit) != 0) CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(word->load(), 6);
  };
  const pid_t relative = child_of([&] { waits_until_six(FUTEX_WAIT, timespec{1000, 0}); });
  const pid_t absolute = child_of([&] {
    timespec limit{};
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += 1000;
    waits_until_six(FUTEX_WAIT_BITSET, limit);
  });
  begun.pass();
  begun.pass();
  move_point();
  move_point_of(relative);
  announce(*word, 6);
  ends_well(relative);
  ends_well(absolute);
}

// ---- locks that are made of such words

void make_mutex(pthread_mutex_t& mutex, int protocol = PTHREAD_PRIO_NONE,
                int robust = PTHREAD_MUTEX_STALLED) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  CHECK_EQ(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_mutexattr_setprotocol(&attributes, protocol), 0);
  CHECK_EQ(pthread_mutexattr_setrobust(&attributes, robust), 0);
  CHECK_EQ(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK), 0);
  CHECK_EQ(pthread_mutex_init(&mutex, &attributes), 0);
  pthread_mutexattr_destroy(&attributes);
}

void make_condition(pthread_cond_t& condition) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  CHECK_EQ(pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_cond_init(&condition, &attributes), 0);
  pthread_condattr_destroy(&attributes);
}

void make_barrier(pthread_barrier_t& barrier, unsigned count) {
  pthread_barrierattr_t attributes;
  pthread_barrierattr_init(&attributes);
  CHECK_EQ(pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_barrier_init(&barrier, &attributes, count), 0);
  pthread_barrierattr_destroy(&attributes);
}

/// Two processes put numbers onto a small pile, a third takes them off.
void mutex_and_condition() {
  constexpr int kEach = 300, kRoom = 4;
  struct Pile {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int items[kRoom];
    int count;
  };
  Shared<Pile> pile;
  make_mutex(pile->mutex);
  make_condition(pile->changed);
  std::vector<pid_t> producers;
  for (int who : {0, 1})
    producers.push_back(child_of([&] {
      for (int i = 0; i < kEach; ++i) {
        CHECK_EQ(pthread_mutex_lock(&pile->mutex), 0);
        while (pile->count == kRoom) CHECK_EQ(pthread_cond_wait(&pile->changed, &pile->mutex), 0);
        if (i == 100 + 100 * who) move_point();  // it holds the mutex
        pile->items[pile->count++] = i;
        CHECK_EQ(pthread_cond_broadcast(&pile->changed), 0);
        CHECK_EQ(pthread_mutex_unlock(&pile->mutex), 0);
      }
    }));
  int sum = 0;
  for (int i = 0; i < 2 * kEach; ++i) {
    if (i == 150 || i == 450) move_point();
    CHECK_EQ(pthread_mutex_lock(&pile->mutex), 0);
    while (pile->count == 0) CHECK_EQ(pthread_cond_wait(&pile->changed, &pile->mutex), 0);
    sum += pile->items[--pile->count];
    CHECK_EQ(pthread_cond_broadcast(&pile->changed), 0);
    CHECK_EQ(pthread_mutex_unlock(&pile->mutex), 0);
  }
  for (pid_t producer : producers) ends_well(producer);
  CHECK_EQ(sum, kEach * (kEach - 1));
  CHECK_EQ(pile->count, 0);
}

void robust_mutex(int protocol) {
  struct Together {
    pthread_mutex_t mutex;
    int value;
  };
  Shared<Together> together;
  pthread_mutex_t* mutex = &together->mutex;
  make_mutex(*mutex, protocol, PTHREAD_MUTEX_ROBUST);
  // Its owner ends by itself, and nobody waits yet.
  ends_well(child_of([&] {
    CHECK_EQ(pthread_mutex_lock(mutex), 0);
    together->value = 1;
    move_point();
  }));
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  CHECK_EQ(together->value, 1);
  move_point();
  CHECK_EQ(pthread_mutex_consistent(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  // Its owner is killed while another waits for it; that one does not mend what it protects.
  Gate held, waiting;
  const pid_t owner = child_of([&] {
    CHECK_EQ(pthread_mutex_lock(mutex), 0);
    held.open();
    for (;;) pause();
  });
  held.pass();
  const pid_t waiter = child_of([&] {
    CHECK_EQ(pthread_mutex_trylock(mutex), EBUSY);
    waiting.open();
    CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
    move_point();
    CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  });
  waiting.pass();
  move_point();
  CHECK_EQ(pthread_mutex_trylock(mutex), EBUSY);
  CHECK_EQ(kill(owner, SIGKILL), 0);
  CHECK_EQ(WTERMSIG(status_of(owner)), SIGKILL);
  ends_well(waiter);
  CHECK_EQ(pthread_mutex_lock(mutex), ENOTRECOVERABLE);
}

void robust_mutexes() { robust_mutex(PTHREAD_PRIO_NONE); }
void robust_mutexes_with_priorities() { robust_mutex(PTHREAD_PRIO_INHERIT); }

/// The kernel compares the owner in its word with thread ids, of other processes too.
void priority_inheriting_mutex() {
  constexpr int kChildren = 3, kTimes = 200;
  struct Together {
    pthread_mutex_t mutex;
    int total;
  };
  Shared<Together> together;
  pthread_mutex_t* mutex = &together->mutex;
  make_mutex(*mutex, PTHREAD_PRIO_INHERIT);
  CHECK_EQ(pthread_mutex_lock(mutex), 0);
  CHECK_EQ(mutex->__data.__owner, getpid());
  Gate begun;
  std::vector<pid_t> children;
  for (int who = 0; who < kChildren; ++who)
    children.push_back(child_of([&] {
      CHECK_EQ(pthread_mutex_trylock(mutex), EBUSY);
      CHECK_EQ(pthread_mutex_unlock(mutex), EPERM);
      begun.open();
      for (int i = 0; i < kTimes; ++i) {
        CHECK_EQ(pthread_mutex_lock(mutex), 0);
        CHECK_EQ(mutex->__data.__owner, getpid());
        const int before = together->total;
        if (i % 8 == 0) sched_yield();
        if (i == 50 * (who + 1)) move_point();
        together->total = before + 1;
        CHECK_EQ(pthread_mutex_unlock(mutex), 0);
      }
    }));
  for (int i = 0; i < kChildren; ++i) begun.pass();
  move_point();  // all of them wait for us
  CHECK_EQ(together->total, 0);
  CHECK_EQ(pthread_mutex_lock(mutex), EDEADLK);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  for (pid_t child : children) ends_well(child);
  CHECK_EQ(together->total, kChildren * kTimes);
}

void semaphores() {
  struct Together {
    sem_t to_child, to_parent;
    int value;
  };
  Shared<Together> together;
  CHECK_EQ(sem_init(&together->to_child, 1, 0), 0);
  CHECK_EQ(sem_init(&together->to_parent, 1, 0), 0);
  constexpr int kRounds = 100;
  const pid_t child = child_of([&] {
    for (int i = 0; i < kRounds; ++i) {
      CHECK_EQ(sem_wait(&together->to_child), 0);
      CHECK_EQ(together->value, 2 * i + 1);
      if (i == 60) move_point();
      together->value = 2 * i + 2;
      CHECK_EQ(sem_post(&together->to_parent), 0);
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    CHECK_EQ(together->value, 2 * i);
    if (i == 30 || i == 90) move_point();
    together->value = 2 * i + 1;
    CHECK_EQ(sem_post(&together->to_child), 0);
    CHECK_EQ(sem_wait(&together->to_parent), 0);
  }
  ends_well(child);
  timespec limit{};
  clock_gettime(CLOCK_REALTIME, &limit);
  CHECK_FAILS(sem_timedwait(&together->to_parent, &limit), ETIMEDOUT);
  CHECK_EQ(sem_post(&together->to_parent), 0);
  ends_well(child_of([&] { CHECK_EQ(sem_trywait(&together->to_parent), 0); }));
  CHECK_FAILS(sem_trywait(&together->to_parent), EAGAIN);
}

void barrier_and_rwlock() {
  constexpr int kProcesses = 4, kRounds = 40;
  struct Together {
    pthread_barrier_t barrier;
    pthread_rwlock_t lock;
    Word serial;
    int written;
  };
  Shared<Together> together;
  make_barrier(together->barrier, kProcesses);
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  CHECK_EQ(pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), 0);
  CHECK_EQ(pthread_rwlock_init(&together->lock, &attributes), 0);
  auto meet = [&] {
    const int result = pthread_barrier_wait(&together->barrier);
    if (result == PTHREAD_BARRIER_SERIAL_THREAD)
      ++together->serial;
    else
      CHECK_EQ(result, 0);
  };
  auto work = [&](int who) {
    for (int round = 0; round < kRounds; ++round) {
      meet();
      CHECK_EQ(pthread_rwlock_wrlock(&together->lock), 0);
      ++together->written;
      if (round == 10 * who) move_point();
      CHECK_EQ(pthread_rwlock_unlock(&together->lock), 0);
      meet();
      // All have written, and nobody writes before all have looked.
      CHECK_EQ(pthread_rwlock_rdlock(&together->lock), 0);
      CHECK_EQ(together->written, kProcesses * (round + 1));
      CHECK_EQ(pthread_rwlock_unlock(&together->lock), 0);
    }
  };
  std::vector<pid_t> children;
  for (int who = 1; who < kProcesses; ++who) children.push_back(child_of([&] { work(who); }));
  work(0);
  for (pid_t child : children) ends_well(child);
  CHECK_EQ(together->serial.load(), 2 * kRounds);
}

/// Threads of two processes at the same locks.
void threads_of_both() {
  constexpr int kThreads = 3, kTimes = 500;
  struct Together {
    pthread_barrier_t barrier;
    pthread_mutex_t mutex;
    int total;
  };
  Shared<Together> together;
  make_barrier(together->barrier, 2 * kThreads);
  make_mutex(together->mutex);
  auto work = [&] {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&] {
        pthread_barrier_wait(&together->barrier);
        for (int i = 0; i < kTimes; ++i) {
          CHECK_EQ(pthread_mutex_lock(&together->mutex), 0);
          together->total = together->total + 1;
          CHECK_EQ(pthread_mutex_unlock(&together->mutex), 0);
        }
        pthread_barrier_wait(&together->barrier);
      });
    move_point();
    for (auto& thread : threads) thread.join();
    CHECK_EQ(together->total, 2 * kThreads * kTimes);
  };
  const pid_t child = child_of(work);
  work();
  ends_well(child);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"words-wake-other-processes", words_wake_other_processes},
                     {"words-have-several-addresses", words_have_several_addresses},
                     {"all-who-wait-are-woken", all_who_wait_are_woken},
                     {"waits-with-a-limit", waits_with_a_limit},
                     {"mutex-and-condition", mutex_and_condition},
                     {"robust-mutexes", robust_mutexes},
                     {"robust-mutexes-with-priorities", robust_mutexes_with_priorities},
                     {"priority-inheriting-mutex", priority_inheriting_mutex},
                     {"semaphores", semaphores},
                     {"barrier-and-rwlock", barrier_and_rwlock},
                     {"threads-of-both", threads_of_both}});
}
