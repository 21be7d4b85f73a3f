#include "deputy/layout.h"

#include <sys/mman.h>

#include <algorithm>

#include "deputy/areas.h"
#include "libmosix/agent/agent.h"
#include "libmosix/process/pagemap.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {
namespace {

constexpr uint64_t kUserEnd = 0x7ffffffff000;

/// Not the guest's: the window and, where `ring_places`, what lies there for rings.
bool touches_ours(uint64_t start, uint64_t end, uint64_t window, bool ring_places) {
  return (start < window + kWindowBytes && end > window) ||
         (ring_places && start < kRingEnd && end > kRingFill);
}

Status check_areas(const std::vector<Area>& areas, uint64_t window, bool ring_places) {
  uint64_t last = 0;
  for (const Area& area : areas) {
    bool aligned = area.start % kPageBytes == 0 && area.end % kPageBytes == 0;
    bool ordered = area.start >= last && area.start < area.end && area.end <= kUserEnd;
    bool in_window = touches_ours(area.start, area.end, window, ring_places);
    bool sound = area.protection <= (PROT_READ | PROT_WRITE | PROT_EXEC);
    if (!aligned || !ordered || in_window || !sound) return fail(EBADMSG, "the guest's areas make no sense");
    last = area.end;
  }
  return {};
}

std::vector<MapEntry> own_entries(const std::vector<MapEntry>& home, uint64_t window, bool ring_places) {
  std::vector<MapEntry> own;
  for (const MapEntry& entry : home) {
    bool ours = touches_ours(entry.start, entry.end, window, ring_places);
    if (!ours && entry.path != "[vsyscall]") own.push_back(entry);
  }
  return own;
}

std::vector<uint64_t> boundaries(const std::vector<MapEntry>& home, const std::vector<Area>& away) {
  std::vector<uint64_t> cuts;
  for (const MapEntry& entry : home) cuts.push_back(entry.start), cuts.push_back(entry.end);
  for (const Area& area : away) cuts.push_back(area.start), cuts.push_back(area.end);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

/// The element of an ascending list that covers `address`, moving `at` forward; null if none does.
template <class T>
const T* covering(const std::vector<T>& list, size_t& at, uint64_t address) {
  while (at < list.size() && list[at].end <= address) ++at;
  return at < list.size() && list[at].start <= address ? &list[at] : nullptr;
}

/// Does a fresh look at home's mapping give what a page that was never written held away?
bool same_backing(const MapEntry& home, const Area& area) {
  if (area.kind == AreaKind::kShared || area.kind == AreaKind::kBound || is_shared_anonymous(home))
    return false;
  bool home_has_file = home.has_inode() && home.path != "/dev/zero";
  if (area.kind != AreaKind::kFile) return !home_has_file;
  return home_has_file && home.inode == area.file.inode && home.device == area.file.device &&
         home.offset - home.start == area.offset - area.start;
}

class Planner {
 public:
  Status compare(uint64_t start, uint64_t end, const MapEntry* home, const Area* area, uint32_t index) {
    bool home_vdso = home != nullptr && is_vdso_part(*home);
    bool away_vdso = area != nullptr && area->kind == AreaKind::kVdso;
    if (home_vdso != away_vdso) return fail(EXDEV, "the guest's vdso lies elsewhere than home's");
    if (home_vdso || (home == nullptr && area == nullptr)) return {};
    if (area == nullptr) {
      step(LayoutStep::Kind::kUnmap, start, end, 0);
    } else if (home == nullptr || !same_backing(*home, *area)) {
      bool stack = area->kind == AreaKind::kStack;
      if (area->kind == AreaKind::kShared || area->kind == AreaKind::kBound)
        return map_shared(start, end, *area, index), Status();
      step(stack ? LayoutStep::Kind::kMapStack : LayoutStep::Kind::kMapAnonymous, start, end,
           area->protection);
      if (area->kind == AreaKind::kFile) want_whole(index);
    } else if (home->protection != area->protection) {
      step(LayoutStep::Kind::kProtect, start, end, area->protection);
    }
    return {};
  }

  LayoutPlan take() { return std::move(plan_); }

 private:
  void step(LayoutStep::Kind kind, uint64_t start, uint64_t end, uint32_t protection) {
    if (!plan_.steps.empty()) {
      LayoutStep& last = plan_.steps.back();
      if (last.kind == kind && last.end == start && last.protection == protection) {
        last.end = end;
        return;
      }
    }
    plan_.steps.push_back({kind, start, end, protection, 0});
  }
  void map_shared(uint64_t start, uint64_t end, const Area& area, uint32_t index) {
    plan_.steps.push_back({LayoutStep::Kind::kMapShared, start, end, area.protection, index});
  }
  void want_whole(uint32_t index) {
    if (plan_.whole_areas.empty() || plan_.whole_areas.back() != index) plan_.whole_areas.push_back(index);
  }
  LayoutPlan plan_;
};

}  // namespace

Result<LayoutPlan> plan_layout(const std::vector<MapEntry>& home, uint64_t window, bool ring_places,
                               const std::vector<Area>& away) {
  TRY_VOID(check_areas(away, window, ring_places));
  std::vector<MapEntry> own = own_entries(home, window, ring_places);
  std::vector<uint64_t> cuts = boundaries(own, away);
  Planner planner;
  size_t home_at = 0, away_at = 0;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const MapEntry* entry = covering(own, home_at, cuts[i]);
    const Area* area = covering(away, away_at, cuts[i]);
    TRY_VOID(planner.compare(cuts[i], cuts[i + 1], entry, area, static_cast<uint32_t>(away_at)));
  }
  return planner.take();
}

}  // namespace mosix
