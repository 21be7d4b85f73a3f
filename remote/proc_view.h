// What files of /proc/PID say of a process that is away, as home's kernel would say it if its memory were there: texts of
// this node's kernel and of home's (proc(5)), put together. Supervisor only; no state, no system calls.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "libmosix/process/maps.h"

namespace mosix {

/// A mapping as home would show it, named as its file is there; nothing: it is ours, and not to be seen.
using HomeMapping = std::function<std::optional<MapEntry>(MapEntry)>;

/// One line of maps, with its newline.
std::string maps_line(const MapEntry& entry);
std::string maps_text(std::string_view here, const HomeMapping& at_home);
std::string smaps_text(std::string_view here, const HomeMapping& at_home);
/// smaps_rollup, summed up from smaps_text().
std::string rollup_text(std::string_view smaps);

/// Sizes of mappings of ours that count here and are none of the process's.
struct OwnSizes {
  uint64_t total = 0;     ///< bytes
  uint64_t writable = 0;  ///< bytes, private and writable
};
OwnSizes own_sizes(std::string_view maps_here, const HomeMapping& at_home);

/// status: memory, and what counts for the thread that runs here, from here; all else from home.
std::string status_text(std::string_view home, std::string_view here, const OwnSizes& own);
std::string statm_text(std::string_view here, const OwnSizes& own);
/// stat: faults and memory from here; times are home's and `user_ns`, `system_ns` (of children: `children_*`) on top.
struct StatTimes {
  uint64_t user_ns = 0, system_ns = 0, children_user_ns = 0, children_system_ns = 0;
};
std::string stat_text(std::string_view home, std::string_view here, const OwnSizes& own,
                      const StatTimes& times);

}  // namespace mosix
