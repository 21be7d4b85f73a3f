// The agent's window in a process at home: where it can lie, how it gets there and how it goes. The caller
// has the process stopped and traces it.
#pragma once

#include <cstdint>
#include <vector>

#include "deputy/batch.h"
#include "libmosix/process/maps.h"

namespace mosix {

/// The range from which windows are taken: above what a non-PIE program and its heap reach, below the places
/// of PIE programs (0x55..., 0x56...), libraries and stacks (0x7...), and clear of the sanitizers' shadows.
inline constexpr uint64_t kWindowsStart = 0x100000000000;
inline constexpr uint64_t kWindowsEnd = 0x500000000000;
inline constexpr uint64_t kWindowClearance = 1ull << 30;

/// An aligned window with nothing in it or near it. `random` picks among the free ones.
Result<uint64_t> choose_window(const std::vector<MapEntry>& maps, uint64_t random);
bool window_is_free(const std::vector<MapEntry>& maps, uint64_t window);

/// Whether this kernel's rings have to be mapped, at places of their own (agent.h): before Linux 6.5, and where
/// `ring_without_fd` or `io_uring` is switched off, as if. Tried once.
bool rings_need_places();
/// Whether a process with these mappings has room for them.
bool ring_places_are_free(const std::vector<MapEntry>& maps);
/// Whether a process is a deputy, wherever its window is.
bool has_agent(const std::vector<MapEntry>& maps, const ProcessMemory& memory);
/// Whether install_agent has reserved them in this process.
Result<bool> has_ring_places(const ProcessMemory& memory, uint64_t window);

/// Maps the code and the slots of [0, slots) and fills the code in; `ring_places`: reserves those too, if the process
/// may have so much address space. `worker` is any stopped thread.
Status install_agent(Tracee& worker, const ProcessMemory& memory, uint64_t syscall_site, uint64_t window,
                     int slots, bool ring_places);
/// Unmaps all of it. No thread of the process may be inside any more.
Status remove_agent(Tracee& worker, const ProcessMemory& memory, uint64_t syscall_site, uint64_t window);

}  // namespace mosix
