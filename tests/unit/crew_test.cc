// How many workers serve a listener: one more than wait for home, and a single one for a thread that calls and calls.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "remote/crew.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <chrono>
#include <thread>

using namespace mosix;

namespace {

constexpr int kOne = 100, kOther = 101;
constexpr bool kBlocks = true;

/// Two workers wait; they take calls of one thread by turns, up to the one after which a worker is parked.
void make_streak(Crew& crew) {
  constexpr int kLongStreak = 64;
  for (int i = 0; i < kLongStreak; ++i) {
    CHECK(!crew.took(kOne, !kBlocks));
    if (i + 1 < kLongStreak) CHECK(crew.done(false) == Crew::Next::kWait);
  }
}

int any_descriptor() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace

TEST_CASE("whoever takes a call makes sure that another one waits, and who is left over from a burst ends") {
  Crew crew(any_descriptor());
  CHECK(crew.took(kOne, kBlocks));
  CHECK(crew.took(kOther, kBlocks));
  CHECK(crew.took(kOther + 1, !kBlocks));
  CHECK(crew.done(false) == Crew::Next::kWait);
  CHECK(crew.done(false) == Crew::Next::kEnd);
  CHECK(crew.done(false) == Crew::Next::kEnd);
  CHECK(!crew.took(kOne, kBlocks));  // one of the two that wait is left
}

TEST_CASE("nobody is started for a worker who is on his way back") {
  Crew crew(any_descriptor());
  CHECK(crew.took(kOne, !kBlocks));
  for (int i = 0; i < 10; ++i) {
    crew.returns();
    CHECK(!crew.took(kOne, !kBlocks));  // the next call came before he was back
    CHECK(crew.done(true) == Crew::Next::kWait);
  }
}

TEST_CASE(
    "in a streak one worker is parked, and called by a call that may block, another thread, or a call that "
    "lasts") {
  for (int reason = 0; reason < 4; ++reason) {
    CAPTURE(reason);
    Crew crew(any_descriptor());
    CHECK(crew.took(kOne, kBlocks));
    CHECK(crew.done(false) == Crew::Next::kWait);
    make_streak(crew);
    // Two wait or work: this one serves, the other one waits; from now on the one who is done is parked.
    Crew::Next parked = Crew::Next::kEnd;
    std::thread other([&] { parked = crew.done(false); });
    while (crew.parked() == 0) std::this_thread::yield();
    // The one who waits takes the next call of the streak, and nobody waits.
    CHECK(!crew.took(kOne, !kBlocks));
    if (reason == 0) CHECK(!crew.takes_longer());
    if (reason == 1 || reason == 2) {
      CHECK(crew.done(false) == Crew::Next::kWait);
      CHECK(!crew.took(reason == 1 ? kOne : kOther, reason == 1));
    }
    // In the last case he looks for himself: the call has been under way since he looked before.
    other.join();
    CHECK(parked == Crew::Next::kWait);
  }
}

TEST_CASE("who is parked ends when nothing more is called") {
  Crew crew(any_descriptor());
  CHECK(crew.took(kOne, kBlocks));
  CHECK(crew.done(false) == Crew::Next::kWait);
  make_streak(crew);
  CHECK(crew.done(false) == Crew::Next::kEnd);
}
