#include "deputy/window.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "libmosix/agent/agent_image.h"

namespace mosix {
namespace {

constexpr uint64_t kMapFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

Status map_by(CallInjector& injector, uint64_t address, uint64_t bytes) {
  TRY(long mapped, injector.call(SYS_mmap, address, bytes, PROT_READ | PROT_WRITE, kMapFlags, ~0ull, 0));
  if (mapped != static_cast<long>(address))
    return fail(mapped < 0 ? static_cast<int>(-mapped) : EEXIST, "map the agent");
  return {};
}

/// Code and the first slot; from then on batches can do the rest.
Status map_first(Tracee& worker, const ProcessMemory& memory, uint64_t site, uint64_t window) {
  TRY(CallInjector injector, CallInjector::begin(worker, site));
  TRY_VOID(map_by(injector, window, kAgentCodeBytes));
  TRY_VOID(memory.write(window, kAgentImage.bytes, kAgentImage.size));
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

Status install_agent(Tracee& worker, const ProcessMemory& memory, uint64_t syscall_site, uint64_t window,
                     int slots) {
  TRY(user_regs_struct before, worker.registers());
  TRY_VOID(map_first(worker, memory, syscall_site, window));
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

Status remove_agent(Tracee& worker, uint64_t syscall_site, uint64_t window) {
  TRY(long unmapped, worker.inject_syscall(syscall_site, SYS_munmap, window, kWindowBytes));
  if (unmapped != 0) return fail(static_cast<int>(-unmapped), "unmap the agent");
  return {};
}

}  // namespace mosix
