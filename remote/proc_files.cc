#include "remote/proc_files.h"

#include <cstdlib>
#include <limits>
#include <string_view>

namespace mosix {
namespace {

bool takes_number(std::string_view& text, int* number) {
  size_t end = text.find_first_not_of("0123456789");
  if (end == 0 || end == std::string_view::npos || end > 9 || text[end] != '/') return false;
  *number = atoi(std::string(text.substr(0, end)).c_str());
  text.remove_prefix(end + 1);
  return true;
}

}  // namespace

void ProcFiles::add(int pid, uint64_t number) {
  std::lock_guard lock(mutex_);
  numbers_[{pid, number}].reset();
}

bool ProcFiles::has(int pid, uint64_t number) {
  std::lock_guard lock(mutex_);
  return numbers_.contains({pid, number});
}

std::vector<int32_t> ProcFiles::of(int pid) {
  std::lock_guard lock(mutex_);
  std::vector<int32_t> numbers;
  for (auto at = numbers_.lower_bound({pid, 0}); at != numbers_.end() && at->first.first == pid; ++at)
    numbers.push_back(static_cast<int32_t>(at->first.second));
  return numbers;
}

void ProcFiles::closed(int pid, uint64_t first, uint64_t last) {
  std::lock_guard lock(mutex_);
  numbers_.erase(numbers_.lower_bound({pid, first}), numbers_.upper_bound({pid, last}));
}

bool ProcFiles::inherit(int parent, int child) {
  std::vector<int32_t> numbers = of(parent);
  for (int32_t number : numbers) add(child, static_cast<uint64_t>(number));
  return !numbers.empty();
}

void ProcFiles::forget_process(int pid) { closed(pid, 0, std::numeric_limits<uint64_t>::max()); }

std::optional<std::string> ProcFiles::text(int pid, uint64_t number) {
  std::lock_guard lock(mutex_);
  auto at = numbers_.find({pid, number});
  return at == numbers_.end() ? std::nullopt : at->second;
}

void ProcFiles::keep_text(int pid, uint64_t number, std::string text) {
  std::lock_guard lock(mutex_);
  if (auto at = numbers_.find({pid, number}); at != numbers_.end()) at->second = std::move(text);
}

std::optional<ProcPath> parse_proc_path(const std::string& path) {
  constexpr std::string_view kRoot = "/proc/", kTask = "task/";
  std::string_view rest = path;
  ProcPath found;
  if (!rest.starts_with(kRoot)) return std::nullopt;
  rest.remove_prefix(kRoot.size());
  if (!takes_number(rest, &found.pid)) return std::nullopt;
  if (rest.starts_with(kTask)) {
    rest.remove_prefix(kTask.size());
    if (!takes_number(rest, &found.tid)) return std::nullopt;
  }
  if (rest.empty() || rest.find('/') != std::string_view::npos) return std::nullopt;
  found.name = rest;
  return found;
}

}  // namespace mosix
