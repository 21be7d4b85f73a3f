#include "libmosix/process/syscall_site.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"

namespace mosix {

Result<uint64_t> find_syscall_instruction(int pid, uint64_t start, uint64_t end) {
  constexpr std::string_view kInstruction = "\x0f\x05";
  constexpr uint64_t kStep = 1 << 16;
  TRY(ProcessMemory memory, ProcessMemory::open(pid));
  std::string block;
  // Blocks overlap by one byte: the instruction may lie across their border.
  for (uint64_t at = start; at + kInstruction.size() <= end; at += kStep) {
    block.resize(std::min(kStep + 1, end - at));
    TRY(size_t got, memory.read_some(at, block.data(), block.size()));
    block.resize(got);
    if (size_t found = block.find(kInstruction); found != std::string::npos) return at + found;
  }
  return fail(ENOENT, "no syscall instruction in process " + std::to_string(pid));
}

Result<uint64_t> find_vdso_syscall(int pid) {
  TRY(std::vector<MapEntry> maps, read_maps(pid));
  for (const MapEntry& map : maps)
    if (map.path == "[vdso]") return find_syscall_instruction(pid, map.start, map.end);
  return fail(ENOENT, "no vDSO in process " + std::to_string(pid));
}

}  // namespace mosix
