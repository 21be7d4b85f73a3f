// Members of a group that move: they wait for one another, and one that fails takes the others back.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "deputy/move_group.h"

#include "deputy/processes.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

using namespace mosix;

static FileBindings files;

TEST_CASE("one alone waits for nobody") {
  MoveGroup group({10}, files);
  CHECK(group.alone());
  CHECK_EQ(group.number(), 0);
  CHECK(group.meet());
  CHECK(group.meet());
}

TEST_CASE("one alone that shares memory with others is told") {
  MoveGroup group({10}, files);
  group.note_sharers({10, 11, 12});
  Status met = group.meet();
  REQUIRE_FALSE(met);
  CHECK_EQ(met.error().code, EAGAIN);
  CHECK_EQ(group.missing(), std::set<int>{11, 12});
}

TEST_CASE("nobody goes on before all are there") {
  constexpr int kMembers = 5, kRounds = 200;
  std::set<int> pids;
  for (int i = 0; i < kMembers; ++i) pids.insert(i);
  MoveGroup group(pids, files);
  CHECK_NE(group.number(), 0);
  std::atomic<int> arrived{0}, early{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kMembers; ++i)
    threads.emplace_back([&] {
      for (int round = 1; round <= kRounds; ++round) {
        ++arrived;
        if (!group.meet() || arrived < round * kMembers) ++early;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(early, 0);
}

TEST_CASE("one that gives up takes back those that wait and those that come later") {
  MoveGroup group({1, 2, 3}, files);
  Status first, third;
  std::thread waits([&] { first = group.meet(); });
  std::thread fails([&] { group.give_up(2, Error{EBUSY, "it is traced"}); });
  fails.join();
  third = group.meet();
  waits.join();
  for (const Status& met : {first, third}) {
    REQUIRE_FALSE(met);
    CHECK_EQ(met.error().code, EBUSY);
    CHECK_NE(met.error().message().find("process 2, of which: it is traced"), std::string::npos);
  }
}

TEST_CASE("what passes is tried again") {
  for (int code : {ESRCH, ECANCELED, EAGAIN}) {
    MoveGroup group({1, 2}, files);
    group.give_up(2, Error{code, "gone"});
    Status met = group.meet();
    REQUIRE_FALSE(met);
    CHECK_EQ(met.error().code, EAGAIN);
  }
}

TEST_CASE("a failure after all were there takes nobody back") {
  for (int i = 0; i < 2000; ++i) {
    MoveGroup group({1, 2, 3}, files);
    Status first, second;
    std::thread one([&] { first = group.meet(); });
    std::thread two([&] { second = group.meet(); });
    CHECK(group.meet());
    group.give_up(3, Error{EIO, "broken"});
    one.join();
    two.join();
    REQUIRE(first);
    REQUIRE(second);
  }
}

TEST_CASE("one that has nothing to do is not waited for, before the others come or after") {
  for (bool before : {true, false}) {
    MoveGroup group({1, 2}, files);
    Status met;
    if (before) group.leave(2);
    std::thread waits([&] { met = group.meet(); });
    if (!before) group.leave(2);
    waits.join();
    CHECK(met);
    CHECK(group.meet());
  }
}

TEST_CASE("a fork at home is found by the memory that it shares") {
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE_NE(memory, MAP_FAILED);
  int hold[2];
  REQUIRE_EQ(pipe(hold), 0);
  pid_t child = fork();
  if (child == 0) {
    char byte;
    close(hold[1]);
    _exit(static_cast<int>(read(hold[0], &byte, 1)));
  }
  Result<std::vector<MapEntry>> maps = read_maps(getpid());
  REQUIRE(maps);
  std::vector<int> sharers = sharers_at_home(getpid(), shared_memory_in(*maps));
  CHECK_EQ(sharers, std::vector<int>{child});
  CHECK(sharers_at_home(getpid(), {}).empty());
  close(hold[1]);
  CHECK_EQ(waitpid(child, nullptr, 0), child);
}
