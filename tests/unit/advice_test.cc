// What madvise has been told: read from the kernel, and led from one state to another.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/process/advice.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace mosix;

namespace {

constexpr size_t kPage = 4096;

/// Pages with inaccessible ones around, so that they are a mapping of their own.
class Pages {
 public:
  explicit Pages(size_t count) : bytes_((count + 2) * kPage) {
    room_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(room_ != MAP_FAILED);
    REQUIRE(mprotect(room_ + kPage, count * kPage, PROT_READ | PROT_WRITE) == 0);
  }
  ~Pages() { munmap(room_, bytes_); }
  uint64_t address(size_t page) const { return reinterpret_cast<uint64_t>(room_ + (page + 1) * kPage); }
  void advise(size_t page, size_t count, int advice) {
    REQUIRE(madvise(room_ + (page + 1) * kPage, count * kPage, advice) == 0);
  }
  Area area(size_t page, size_t count, uint32_t advice = 0) const {
    Area area;
    area.start = address(page);
    area.end = address(page + count);
    area.advice = advice;
    return area;
  }

 private:
  size_t bytes_;
  char* room_ = nullptr;
};

std::vector<Area> noted(std::vector<Area> areas) {
  REQUIRE(note_advice(getpid(), areas));
  return areas;
}

void carry_out(const std::vector<AdviceStep>& steps) {
  for (const AdviceStep& step : steps)
    REQUIRE(madvise(reinterpret_cast<void*>(step.start), step.end - step.start, step.advice) == 0);
}

}  // namespace

TEST_CASE("what was advised is read from the kernel") {
  Pages pages(5);
  pages.advise(0, 1, MADV_DONTFORK);
  pages.advise(1, 1, MADV_WIPEONFORK);
  pages.advise(2, 1, MADV_DONTDUMP);
  pages.advise(3, 1, MADV_RANDOM);
  auto areas =
      noted({pages.area(0, 1), pages.area(1, 1), pages.area(2, 1), pages.area(3, 1), pages.area(4, 1)});
  CHECK(areas[0].advice == kAdviceDontFork);
  CHECK(areas[1].advice == kAdviceWipeOnFork);
  CHECK(areas[2].advice == kAdviceDontDump);
  CHECK(areas[3].advice == kAdviceRandom);
  CHECK(areas[4].advice == 0);
}

TEST_CASE("each step leads where it should, there and back") {
  constexpr uint32_t kAll[] = {0,
                               kAdviceDontFork,
                               kAdviceDontFork | kAdviceDontDump,
                               kAdviceWipeOnFork,
                               kAdviceWipeOnFork | kAdviceSequential,
                               kAdviceRandom,
                               kAdviceSequential | kAdviceDontDump};
  Pages pages(2);
  for (uint32_t from : kAll)
    for (uint32_t to : kAll) {
      CAPTURE(from);
      CAPTURE(to);
      for (uint32_t wanted : {from, to}) {
        auto now = read_map_flags(getpid());
        REQUIRE(now);
        carry_out(plan_advice({pages.area(0, 2, wanted)}, *now));
        CHECK(noted({pages.area(0, 2)})[0].advice == wanted);
      }
    }
}

TEST_CASE("a mapping that is in pieces, and areas that are pieces of it") {
  Pages pages(4);
  pages.advise(1, 2, MADV_DONTFORK);
  auto now = read_map_flags(getpid());
  REQUIRE(now);
  CHECK(plan_advice({pages.area(0, 4)}, *now) ==
        std::vector<AdviceStep>{{pages.address(1), pages.address(3), MADV_DOFORK}});
  CHECK(plan_advice({pages.area(0, 2, kAdviceDontFork), pages.area(2, 2)}, *now) ==
        std::vector<AdviceStep>{{pages.address(0), pages.address(1), MADV_DONTFORK},
                                {pages.address(2), pages.address(3), MADV_DOFORK}});
  // Nothing is said of what is as it should be, nor of what is not there.
  CHECK(plan_advice({pages.area(0, 1), pages.area(1, 2, kAdviceDontFork), pages.area(3, 1)}, *now).empty());
  CHECK(plan_advice({pages.area(0, 4)}, {}).empty());
}

TEST_CASE("huge pages: one, the other, none") {
  std::vector<AdviceStep> steps;
  add_advice_steps(0, kPage, 0, kAdviceHuge, steps);
  add_advice_steps(0, kPage, kAdviceHuge, kAdviceNoHuge, steps);
  add_advice_steps(0, kPage, kAdviceHuge, 0, steps);
  add_advice_steps(0, kPage, kAdviceNoHuge, kAdviceNoHuge, steps);
  CHECK(steps == std::vector<AdviceStep>{
                     {0, kPage, MADV_HUGEPAGE}, {0, kPage, MADV_NOHUGEPAGE}, {0, kPage, MADV_NOHUGEPAGE}});
}

TEST_CASE("what is locked is read, locked and unlocked, what frees room first") {
  Pages pages(4);
  REQUIRE(syscall(SYS_mlock, pages.address(0), 2 * kPage) == 0);  // mlock(3) does nothing under sanitizers
  REQUIRE(syscall(SYS_mlock2, pages.address(2), kPage, MLOCK_ONFAULT) == 0);
  auto areas = noted({pages.area(0, 2), pages.area(2, 1), pages.area(3, 1)});
  CHECK(areas[0].advice == kLocked);
  CHECK(areas[1].advice == (kLocked | kLockedOnFault));
  CHECK(areas[2].advice == 0);
  auto now = read_map_flags(getpid());
  REQUIRE(now);
  CHECK(plan_locks(areas, *now).empty());
  CHECK(plan_locks({pages.area(0, 1, kLocked | kLockedOnFault), pages.area(1, 1), pages.area(2, 1),
                    pages.area(3, 1, kLocked)},
                   *now) ==
        std::vector<LockStep>{{pages.address(1), pages.address(2), 0},
                              {pages.address(2), pages.address(3), 0},
                              {pages.address(0), pages.address(1), kLocked | kLockedOnFault},
                              {pages.address(3), pages.address(4), kLocked}});
  // Advice is another matter.
  CHECK(plan_advice({pages.area(0, 4)}, *now).empty());
}
