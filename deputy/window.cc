#include "deputy/window.h"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "libmosix/agent/agent_image.h"
#include "libmosix/common/features.h"

namespace mosix {
namespace {

constexpr uint64_t kMapFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

Status map_by(CallInjector& injector, uint64_t address, uint64_t bytes) {
  TRY(long mapped, injector.call(SYS_mmap, address, bytes, PROT_READ | PROT_WRITE, kMapFlags, ~0ull, 0));
  if (mapped != static_cast<long>(address))
    return fail(mapped < 0 ? static_cast<int>(-mapped) : EEXIST, "map the agent");
  return {};
}

/// Shared, so that the kernel merges it with no mapping of the guest's.
Result<bool> reserve_ring_places(CallInjector& injector) {
  constexpr uint64_t kFlags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
  TRY(long mapped, injector.call(SYS_mmap, kRingFill, kRingPlaces - kRingFill, PROT_NONE, kFlags, ~0ull, 0));
  return mapped == static_cast<long>(kRingFill);
}

/// A ring in memory of ours, as Linux 6.5 has them. EINVAL is the answer of a kernel that knows none.
bool kernel_wants_mappings() {
  constexpr unsigned kNoMmap = 1u << 14;  // younger than the headers
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_R_DISABLED | kNoMmap;
  void* memory = mmap(nullptr, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  parameters.cq_off.resv2 = reinterpret_cast<uint64_t>(memory);
  parameters.sq_off.resv2 = reinterpret_cast<uint64_t>(memory) + 4096;
  long ring = syscall(SYS_io_uring_setup, 8, &parameters);
  bool unknown = ring < 0 && errno == EINVAL;
  if (ring >= 0) close(static_cast<int>(ring));
  munmap(memory, 2 * 4096);
  return unknown;
}

/// Code and the first slot; from then on batches can do the rest.
Status map_first(Tracee& worker, const ProcessMemory& memory, uint64_t site, uint64_t window,
                 bool ring_places) {
  TRY(CallInjector injector, CallInjector::begin(worker, site));
  TRY_VOID(map_by(injector, window, kAgentCodeBytes));
  if (kAgentImage.size > kWindowNoteOffset) return fail(EFBIG, "the agent");
  TRY_VOID(memory.write(window, kAgentImage.bytes, kAgentImage.size));
  WindowNote note{};
  if (ring_places) {
    TRY(bool reserved, reserve_ring_places(injector));
    note.has_ring_places = reserved ? 1 : 0;
  }
  TRY_VOID(memory.write_value(window + kWindowNoteOffset, note));
  TRY(long closed, injector.call(SYS_mprotect, window, kAgentCodeBytes, PROT_READ | PROT_EXEC));
  if (closed != 0) return fail(static_cast<int>(-closed), "make the agent executable");
  TRY_VOID(map_by(injector, slot_address(window, 0), kSlotMappedBytes));
  return injector.finish();
}

}  // namespace

bool window_is_free(const std::vector<MapEntry>& maps, uint64_t window) {
  return std::none_of(maps.begin(), maps.end(), [window](const MapEntry& entry) {
    return entry.start < window + kWindowBytes + kWindowClearance && entry.end + kWindowClearance > window;
  });
}

Result<uint64_t> choose_window(const std::vector<MapEntry>& maps, uint64_t random) {
  constexpr uint64_t kPlaces = (kWindowsEnd - kWindowsStart) / kWindowBytes;
  for (uint64_t i = 0; i < kPlaces; ++i) {
    uint64_t window = kWindowsStart + (random + i) % kPlaces * kWindowBytes;
    if (window_is_free(maps, window)) return window;
  }
  return fail(ENOMEM, "no 64 GiB of free address space between 16 and 80 TiB");
}

bool rings_need_places() {
  if (!feature_enabled("io_uring")) return false;
  static const bool wanted = kernel_wants_mappings();
  return wanted || !feature_enabled("ring_without_fd");
}

bool ring_places_are_free(const std::vector<MapEntry>& maps) {
  return std::none_of(maps.begin(), maps.end(),
                      [](const MapEntry& entry) { return entry.start < kRingEnd && entry.end > kRingFill; });
}

bool has_agent(const std::vector<MapEntry>& maps, const ProcessMemory& memory) {
  for (const MapEntry& code : maps) {
    if (code.start % kWindowBytes != 0) continue;
    for (const MapEntry& entry : maps) {
      uint64_t first = slot_address(code.start, 0);
      if (entry.start < first || entry.start > slot_address(code.start, kSlotCount - 1) ||
          (entry.start - first) % kSlotBytes != 0)
        continue;
      Result<AgentSlot> slot = memory.read_value<AgentSlot>(entry.start);
      if (slot && slot->window == code.start) return true;
    }
  }
  return false;
}

Result<bool> has_ring_places(const ProcessMemory& memory, uint64_t window) {
  TRY(WindowNote note, memory.read_value<WindowNote>(window + kWindowNoteOffset));
  return note.has_ring_places != 0;
}

Status install_agent(Tracee& worker, const ProcessMemory& memory, uint64_t syscall_site, uint64_t window,
                     int slots, bool ring_places) {
  TRY(user_regs_struct before, worker.registers());
  TRY_VOID(map_first(worker, memory, syscall_site, window, ring_places));
  for (int next = 1; next < slots;) {
    Batch batch({window, 0});
    for (; next < slots && batch.size() < Batch::kMaxCalls; ++next)
      batch.add(SYS_mmap, slot_address(window, next), kSlotMappedBytes, PROT_READ | PROT_WRITE, kMapFlags,
                ~0ull, 0);
    TRY_VOID(batch.run(worker, memory));
    TRY_VOID(worker.set_registers(before));
    if (batch.first_error() != 0) return fail(batch.first_error(), "map the agent's slots");
  }
  return {};
}

Status remove_agent(Tracee& worker, const ProcessMemory& memory, uint64_t syscall_site, uint64_t window) {
  TRY(bool ring_places, has_ring_places(memory, window));
  TRY(long unmapped, worker.inject_syscall(syscall_site, SYS_munmap, window, kWindowBytes));
  if (unmapped != 0) return fail(static_cast<int>(-unmapped), "unmap the agent");
  if (!ring_places) return {};
  TRY(unmapped, worker.inject_syscall(syscall_site, SYS_munmap, kRingFill, kRingEnd - kRingFill));
  if (unmapped != 0) return fail(static_cast<int>(-unmapped), "unmap the places of rings");
  return {};
}

}  // namespace mosix
