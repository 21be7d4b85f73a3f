#include "libmosix/common/paths.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace mosix {
namespace {
std::string from_environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}
}  // namespace

std::string run_dir() {
  if (std::string dir = from_environment("MOSIX_RUN_DIR"); !dir.empty()) return dir;
  if (geteuid() == 0) return "/run/mosix";
  if (std::string dir = from_environment("XDG_RUNTIME_DIR"); !dir.empty()) return dir + "/mosix";
  return "/tmp/mosix-" + std::to_string(geteuid());
}

std::string control_socket_path() { return run_dir() + "/mosixd.sock"; }

std::string etc_dir() {
  std::string dir = from_environment("MOSIX_ETC_DIR");
  return dir.empty() ? "/etc/mosix" : dir;
}

std::string find_component(const std::string& name) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  fs::path here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::string libexec = from_environment("MOSIX_LIBEXEC");
  for (const fs::path& dir :
       {here, here / "../libexec/mosix", here / "../lib/mosix", here / "../deputy", here / "../remote",
        here / "sandbox", here / "../remote/sandbox", here / "../../remote/sandbox", here / "../cluster",
        here / "../tools", here / "../libmosix/preload", fs::path(libexec) / "deputy",
        fs::path(libexec) / "remote", fs::path(libexec) / "remote/sandbox", fs::path(libexec) / "cluster",
        fs::path(libexec) / "tools", fs::path(libexec) / "libmosix/preload", fs::path("/usr/libexec/mosix"),
        fs::path("/usr/lib/mosix")}) {
    if (dir.is_relative()) continue;  // no MOSIX_LIBEXEC: the current folder is not ours to search
    fs::path candidate = dir / name;
    if (fs::exists(candidate, ignored)) return fs::weakly_canonical(candidate, ignored).string();
  }
  return "";
}

}  // namespace mosix
