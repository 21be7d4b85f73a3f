#include "libmosix/process/maps.h"

#include <sys/sysmacros.h>

#include <charconv>
#include <cstdlib>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr std::string_view kDeletedSuffix = " (deleted)";

/// Takes a number and, if it stands there, the one separator behind it.
bool take_number(std::string_view& text, uint64_t& value, int base, char separator) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.empty()) return true;
  if (text.front() != separator) return false;
  text.remove_prefix(1);
  return true;
}

/// The kernel writes a newline in a path as \012 and leaves everything else as it is.
std::string unescape(std::string_view path) {
  std::string plain;
  while (!path.empty()) {
    if (path.starts_with("\\012")) {
      plain += '\n';
      path.remove_prefix(4);
    } else {
      plain += path.front();
      path.remove_prefix(1);
    }
  }
  return plain;
}

bool parse_line(std::string_view line, MapEntry& entry) {
  uint64_t major_number = 0, minor_number = 0;
  if (!take_number(line, entry.start, 16, '-') || !take_number(line, entry.end, 16, ' ')) return false;
  if (line.size() < 5) return false;
  entry.protection = (line[0] == 'r' ? PROT_READ : 0u) | (line[1] == 'w' ? PROT_WRITE : 0u) |
                     (line[2] == 'x' ? PROT_EXEC : 0u);
  entry.shared = line[3] == 's';
  line.remove_prefix(5);
  if (!take_number(line, entry.offset, 16, ' ') || !take_number(line, major_number, 16, ':') ||
      !take_number(line, minor_number, 16, ' ') || !take_number(line, entry.inode, 10, ' '))
    return false;
  entry.device = makedev(static_cast<unsigned>(major_number), static_cast<unsigned>(minor_number));
  size_t path_start = line.find_first_not_of(' ');
  if (path_start == std::string_view::npos) return true;
  line.remove_prefix(path_start);
  if (entry.inode != 0 && line.ends_with(kDeletedSuffix)) {
    entry.deleted = true;
    line.remove_suffix(kDeletedSuffix.size());
  }
  entry.path = unescape(line);
  return true;
}

}  // namespace

bool MapEntry::is_special() const {
  if (inode != 0 || !path.starts_with('[')) return false;
  return path != "[heap]" && path != "[stack]" && !path.starts_with("[anon:") &&
         !path.starts_with("[anon_shmem:");
}

bool MapEntry::is_known_special() const {
  return is_special() &&
         (path == "[vdso]" || path == "[vvar]" || path == "[vvar_vclock]" || path == "[vsyscall]");
}

Result<std::vector<MapEntry>> parse_maps(std::string_view text) {
  std::vector<MapEntry> maps;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    MapEntry entry;
    if (!parse_line(line, entry)) return fail(EBADMSG, "maps line \"" + std::string(line) + "\"");
    maps.push_back(std::move(entry));
  }
  return maps;
}

Result<std::vector<MapEntry>> read_maps(int pid) {
  TRY(std::string text, read_memory_file(pid, "maps"));
  return parse_maps(text);
}

bool MapFlags::has(std::string_view flag) const {
  for (size_t i = 0; i + 2 <= flags.size(); i += 3)
    if (std::string_view(flags).substr(i, 2) == flag) return true;
  return false;
}

Result<std::vector<MapFlags>> read_map_flags(int pid) {
  TRY(std::string text, read_memory_file(pid, "smaps"));
  std::vector<MapFlags> all;
  MapFlags current;
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    // A head line starts with a lower-case hexadecimal address, every other line with a capital letter.
    MapEntry entry;
    if (line.starts_with("ProtectionKey:")) {
      current.key = static_cast<uint32_t>(strtoul(std::string(line.substr(14)).c_str(), nullptr, 10));
    } else if (line.starts_with("VmFlags: ")) {
      current.flags = line.substr(9);
      all.push_back(current);
    } else if (!line.empty() && (line[0] < 'A' || line[0] > 'Z') && parse_line(line, entry)) {
      current = {entry.start, entry.end, "", 0};
    }
  }
  return all;
}

}  // namespace mosix
