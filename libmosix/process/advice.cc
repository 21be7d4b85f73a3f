#include "libmosix/process/advice.h"

#include <sys/mman.h>

#include <algorithm>

namespace mosix {
namespace {

struct Kind {
  std::string_view flag;  ///< in VmFlags
  uint32_t bit;
  int give, take_back;  ///< MADV_*
};

constexpr Kind kKinds[] = {
    {"dc", kAdviceDontFork, MADV_DONTFORK, MADV_DOFORK},
    {"wf", kAdviceWipeOnFork, MADV_WIPEONFORK, MADV_KEEPONFORK},
    {"dd", kAdviceDontDump, MADV_DONTDUMP, MADV_DODUMP},
    {"mg", kAdviceMergeable, MADV_MERGEABLE, MADV_UNMERGEABLE},
};

/// Of these a mapping has one or none, and what takes the place of one removes the other.
constexpr Kind kAccess[] = {{"sr", kAdviceSequential, MADV_SEQUENTIAL, MADV_NORMAL},
                            {"rr", kAdviceRandom, MADV_RANDOM, MADV_NORMAL}};
/// Here nothing leads back to none: the one that is nearest to it then.
constexpr Kind kHuge[] = {{"hg", kAdviceHuge, MADV_HUGEPAGE, MADV_NOHUGEPAGE},
                          {"nh", kAdviceNoHuge, MADV_NOHUGEPAGE, MADV_HUGEPAGE}};

void add_one_of(const Kind (&kinds)[2], const AdviceStep& range, uint32_t from, uint32_t to,
                std::vector<AdviceStep>& steps) {
  uint32_t both = kinds[0].bit | kinds[1].bit;
  if ((from & both) == (to & both)) return;
  for (const Kind& kind : kinds) {
    bool given = (to & kind.bit) != 0;
    bool taken = (to & both) == 0 && (from & kind.bit) != 0;
    if (given || taken) steps.push_back({range.start, range.end, given ? kind.give : kind.take_back});
  }
}

}  // namespace

uint32_t advice_of(const MapFlags& flags) {
  uint32_t advice = 0;
  if (flags.has("lo")) advice |= kLocked;
  if (flags.has("lf")) advice |= kLockedOnFault;
  auto look = [&](const auto& kinds) {
    for (const Kind& kind : kinds)
      if (flags.has(kind.flag)) advice |= kind.bit;
  };
  look(kKinds);
  look(kAccess);
  look(kHuge);
  return advice;
}

Status note_advice(int pid, std::vector<Area>& areas) {
  TRY(std::vector<MapFlags> ranges, read_map_flags(pid));
  auto range = ranges.begin();
  for (Area& area : areas) {
    if (area.kind == AreaKind::kVdso) continue;
    range = std::find_if(range, ranges.end(), [&](const MapFlags& one) { return one.end > area.start; });
    if (range == ranges.end()) break;
    if (range->start <= area.start) area.advice = advice_of(*range);
    // The kernel itself uses one for memory that can only be executed, and will again.
    if (range->key != 0 && range->start < area.end && area.protection != PROT_EXEC)
      return fail(ENOTSUP, "it uses protection keys (pkey_mprotect)");
  }
  return {};
}

void add_advice_steps(uint64_t start, uint64_t end, uint32_t from, uint32_t to,
                      std::vector<AdviceStep>& steps) {
  AdviceStep range{start, end, 0};
  for (const Kind& kind : kKinds)
    if ((from & kind.bit) != (to & kind.bit))
      steps.push_back({start, end, (to & kind.bit) != 0 ? kind.give : kind.take_back});
  add_one_of(kAccess, range, from, to, steps);
  add_one_of(kHuge, range, from, to, steps);
}

namespace {

/// Calls act(start, end, advice now, area) for each piece of an area that lies in one mapping.
template <class Act>
void for_each_piece(const std::vector<Area>& areas, const std::vector<MapFlags>& now, Act act) {
  auto first = now.begin();
  for (const Area& area : areas) {
    if (area.kind == AreaKind::kVdso) continue;
    while (first != now.end() && first->end <= area.start) ++first;
    for (auto range = first; range != now.end() && range->start < area.end; ++range)
      act(std::max(range->start, area.start), std::min(range->end, area.end), advice_of(*range), area);
  }
}

}  // namespace

std::vector<AdviceStep> plan_advice(const std::vector<Area>& areas, const std::vector<MapFlags>& now) {
  std::vector<AdviceStep> steps;
  for_each_piece(areas, now, [&](uint64_t start, uint64_t end, uint32_t advice, const Area& area) {
    add_advice_steps(start, end, advice, area.advice, steps);
  });
  return steps;
}

std::vector<LockStep> plan_locks(const std::vector<Area>& areas, const std::vector<MapFlags>& now) {
  constexpr uint32_t kBits = kLocked | kLockedOnFault;
  std::vector<LockStep> unlock, lock;
  for_each_piece(areas, now, [&](uint64_t start, uint64_t end, uint32_t advice, const Area& area) {
    uint32_t wanted = area.advice & kBits;
    if (wanted == (advice & kBits)) return;
    (wanted == 0 ? unlock : lock).push_back({start, end, wanted});
  });
  unlock.insert(unlock.end(), lock.begin(), lock.end());
  return unlock;
}

}  // namespace mosix
