#include "remote/proc_view.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "libmosix/process/pagemap.h"

namespace mosix {
namespace {

/// Calls `act` with each line, without its newline.
template <class Act>
void each_line(std::string_view text, Act act) {
  while (!text.empty()) {
    size_t end = text.find('\n');
    act(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

std::optional<MapEntry> parse_line(std::string_view line) {
  Result<std::vector<MapEntry>> entries = parse_maps(std::string(line) + "\n");
  if (!entries || entries->size() != 1) return std::nullopt;
  return entries->front();
}

/// "7f00-7f01 rw-p ...": in smaps, what is not such a line says something of the last one.
bool is_head(std::string_view line) {
  size_t end = line.find_first_not_of("0123456789abcdef");
  return end != std::string_view::npos && end > 0 && line[end] == '-';
}

std::string_view name_of(std::string_view line) { return line.substr(0, line.find(':')); }

uint64_t number_in(std::string_view line) {
  size_t at = line.find_first_of("0123456789");
  return at == std::string_view::npos ? 0 : strtoull(std::string(line.substr(at)).c_str(), nullptr, 10);
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    size_t end = text.find_first_of(" \n");
    if (end != 0) words.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return words;
}

uint64_t less(uint64_t value, uint64_t part) { return value - std::min(value, part); }

/// Of status, what is true where the process runs.
bool is_told_here(std::string_view name) {
  return name.starts_with("Vm") || name.starts_with("Rss") || name == "HugetlbPages" ||
         name.ends_with("ctxt_switches");
}

}  // namespace

std::string maps_line(const MapEntry& entry) {
  char head[128];
  snprintf(head, sizeof head, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu ", entry.start, entry.end,
           (entry.protection & PROT_READ) != 0 ? 'r' : '-', (entry.protection & PROT_WRITE) != 0 ? 'w' : '-',
           (entry.protection & PROT_EXEC) != 0 ? 'x' : '-', entry.shared ? 's' : 'p', entry.offset,
           major(entry.device), minor(entry.device), entry.inode);
  std::string line = head;
  if (!entry.path.empty()) {
    constexpr size_t kNameAt = 73;
    line.resize(std::max(line.size(), kNameAt - 1), ' ');
    line += ' ';
    for (char letter : entry.path) line += letter == '\n' ? std::string("\\012") : std::string(1, letter);
    if (entry.deleted) line += " (deleted)";
  }
  return line + '\n';
}

std::string maps_text(std::string_view here, const HomeMapping& at_home) {
  std::string text;
  each_line(here, [&](std::string_view line) {
    std::optional<MapEntry> entry = parse_line(line);
    if (entry) entry = at_home(std::move(*entry));
    if (entry) text += maps_line(*entry);
  });
  return text;
}

std::string smaps_text(std::string_view here, const HomeMapping& at_home) {
  std::string text;
  bool shown = false;
  each_line(here, [&](std::string_view line) {
    if (!is_head(line)) {
      if (shown) text.append(line).append("\n");
      return;
    }
    std::optional<MapEntry> entry = parse_line(line);
    if (entry) entry = at_home(std::move(*entry));
    shown = entry.has_value();
    if (shown) text += maps_line(*entry);
  });
  return text;
}

std::string rollup_text(std::string_view smaps) {
  std::vector<std::pair<std::string, uint64_t>> sums;
  MapEntry all;
  all.path = "[rollup]";
  each_line(smaps, [&](std::string_view line) {
    if (is_head(line)) {
      std::optional<MapEntry> entry = parse_line(line);
      if (!entry) return;
      if (all.end == 0) all.start = entry->start;
      if (entry->path != "[vsyscall]") all.end = entry->end;
      return;
    }
    std::string name(name_of(line));
    bool summed = line.ends_with(" kB") && name != "Size" && !name.ends_with("PageSize");
    if (!summed) return;
    auto at = std::find_if(sums.begin(), sums.end(), [&](auto& sum) { return sum.first == name; });
    if (at == sums.end()) at = sums.insert(sums.end(), {name, 0});
    at->second += number_in(line);
  });
  std::string text = maps_line(all);
  for (auto& [name, kib] : sums) {
    char line[64];
    snprintf(line, sizeof line, "%-16s%8lu kB\n", (name + ":").c_str(), kib);
    text += line;
  }
  return text;
}

OwnSizes own_sizes(std::string_view maps_here, const HomeMapping& at_home) {
  OwnSizes own;
  each_line(maps_here, [&](std::string_view line) {
    std::optional<MapEntry> entry = parse_line(line);
    if (!entry || at_home(*entry)) return;
    own.total += entry->bytes();
    if (!entry->shared && (entry->protection & PROT_WRITE) != 0) own.writable += entry->bytes();
  });
  return own;
}

std::string status_text(std::string_view home, std::string_view here, const OwnSizes& own) {
  std::map<std::string, std::string, std::less<>> told;
  each_line(here, [&](std::string_view line) {
    if (is_told_here(name_of(line))) told[std::string(name_of(line))] = line;
  });
  for (auto [name, bytes] :
       {std::pair{"VmPeak", own.total}, {"VmSize", own.total}, {"VmData", own.writable}}) {
    auto at = told.find(name);
    if (at == told.end()) continue;
    char line[64];
    snprintf(line, sizeof line, "%s:\t%8lu kB", name, less(number_in(at->second), bytes >> 10));
    at->second = line;
  }
  std::string text;
  each_line(home, [&](std::string_view line) {
    auto at = told.find(name_of(line));
    text.append(at == told.end() ? line : std::string_view(at->second)).append("\n");
  });
  return text;
}

std::string statm_text(std::string_view here, const OwnSizes& own) {
  std::vector<std::string> words = words_of(here);
  if (words.size() != 7) return std::string(here);
  auto take = [&](size_t field, uint64_t bytes) {
    words[field] = std::to_string(less(strtoull(words[field].c_str(), nullptr, 10), bytes / kPageBytes));
  };
  take(0, own.total);
  take(5, own.writable);
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text + "\n";
}

std::string stat_text(std::string_view home, std::string_view here, const OwnSizes& own,
                      const StatTimes& times) {
  // The name is whatever the program chose: fields are counted from the last parenthesis on. Numbers of proc(5).
  size_t home_at = home.rfind(')'), here_at = here.rfind(')');
  if (home_at == std::string_view::npos || here_at == std::string_view::npos) return std::string(home);
  std::vector<std::string> words = words_of(home.substr(home_at + 1)),
                           local = words_of(here.substr(here_at + 1));
  constexpr size_t kFirst = 3, kLeast = 39;
  if (words.size() < kLeast || local.size() < kLeast) return std::string(home);
  auto number = [&](const std::vector<std::string>& from, size_t field) {
    return strtoull(from[field - kFirst].c_str(), nullptr, 10);
  };
  auto set = [&](size_t field, uint64_t value) { words[field - kFirst] = std::to_string(value); };
  uint64_t tick = 1'000'000'000u / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  const std::array<std::pair<size_t, uint64_t>, 4> added = {{{14, times.user_ns},
                                                             {15, times.system_ns},
                                                             {16, times.children_user_ns},
                                                             {17, times.children_system_ns}}};
  for (auto [field, ns] : added) set(field, number(words, field) + ns / tick);
  for (size_t field : {10, 12}) set(field, number(words, field) + number(local, field));
  set(23, less(number(local, 23), own.total));
  set(24, number(local, 24));
  std::string text(home.substr(0, home_at + 1));
  for (const std::string& word : words) text += " " + word;
  return text + "\n";
}

}  // namespace mosix
