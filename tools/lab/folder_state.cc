#include "tools/lab/folder_state.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "libmosix/common/unique_fd.h"

namespace mosix::lab {
namespace {

std::string hex(const unsigned char* bytes, unsigned count) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

Result<std::string> digest_of(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return fail_errno("open " + path);
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1)
    return fail(ENOMEM, "SHA-256");
  std::string buffer(1 << 16, '\0');
  for (;;) {
    ssize_t got = read(file.get(), buffer.data(), buffer.size());
    if (got < 0) return fail_errno("read " + path);
    if (got == 0) break;
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(got));
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  EVP_DigestFinal_ex(context.get(), digest, &count);
  return hex(digest, count);
}

Result<std::string> line_for(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return fail_errno("look at " + path);
  char head[32];
  snprintf(head, sizeof head, "%o", info.st_mode);
  std::string line = head;
  if (S_ISREG(info.st_mode)) {
    TRY(std::string digest, digest_of(path));
    return line + " " + std::to_string(info.st_size) + " bytes " + digest;
  }
  if (!S_ISLNK(info.st_mode)) return line;
  std::error_code problem;
  return line + " -> " + std::filesystem::read_symlink(path, problem).string();
}

}  // namespace

Result<FolderState> folder_state(const std::string& folder) {
  FolderState state;
  std::error_code problem;
  std::filesystem::recursive_directory_iterator at(folder, problem), end;
  for (; !problem && at != end; at.increment(problem)) {
    TRY(state[std::filesystem::relative(at->path(), folder).string()], line_for(at->path()));
  }
  if (problem) return fail(problem.value(), "list " + folder);
  return state;
}

}  // namespace mosix::lab
