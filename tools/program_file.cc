#include "tools/program_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>

namespace mosix {
namespace {

/// 0 if exec would take the file, else the errno it would give.
int exec_problem(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return errno;
  if (S_ISDIR(info.st_mode) || !S_ISREG(info.st_mode)) return EACCES;
  return faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

}  // namespace

Result<std::string> find_program(const std::string& command) {
  if (command.empty()) return fail(ENOENT, "``");
  if (command.find('/') != std::string::npos) {
    if (int problem = exec_problem(command)) return fail(problem, command);
    return command;
  }
  const char* setting = getenv("PATH");
  std::string path = setting == nullptr ? "/bin:/usr/bin" : setting;
  int problem = ENOENT;
  for (size_t start = 0; start <= path.size();) {
    size_t end = std::min(path.find(':', start), path.size());
    std::string folder = path.substr(start, end - start);
    std::string candidate = (folder.empty() ? "." : folder) + "/" + command;
    int code = exec_problem(candidate);
    if (code == 0) return candidate;
    if (code == EACCES) problem = EACCES;  // remembered, as execvp does, while the search goes on
    start = end + 1;
  }
  return fail(problem, command);
}

std::string identity_change(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return "";
  if ((info.st_mode & S_ISUID) != 0) return "set-user-id";
  if ((info.st_mode & S_ISGID) != 0 && (info.st_mode & S_IXGRP) != 0) return "set-group-id";
  if (getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) return "file capabilities";
  return "";
}

}  // namespace mosix
