// Files, directories, links, attributes: what open, read, write and their relatives do.
#include <dirent.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include <algorithm>
#include <vector>

#include "check.h"

using check::Fenced;
using check::Scratch;

namespace {

int create(const char* name, const char* text, int flags = 0) {
  const int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0644);
  CHECK(fd >= 0);
  CHECK_EQ(write(fd, text, strlen(text)), static_cast<ssize_t>(strlen(text)));
  return fd;
}

std::string contents(const char* name) {
  const int fd = open(name, O_RDONLY);
  CHECK(fd >= 0);
  std::string all;
  char buffer[4096];
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;)
    all.append(buffer, static_cast<size_t>(got));
  close(fd);
  return all;
}

void open_flags() {
  Scratch scratch;
  CHECK_FAILS(open("absent", O_RDONLY), ENOENT);
  const int fd = open("new", O_WRONLY | O_CREAT | O_EXCL, 0600);
  CHECK(fd >= 0);
  CHECK_FAILS(open("new", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
  char byte = 0;
  CHECK_FAILS(read(fd, &byte, 1), EBADF);
  CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  CHECK_EQ(close(fd), 0);
  CHECK_FAILS(close(fd), EBADF);
  CHECK_FAILS(open("new/below", O_RDONLY), ENOTDIR);
  CHECK_FAILS(open(".", O_WRONLY), EISDIR);
  CHECK_FAILS(open("new", O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_EQ(symlink("new", "link"), 0);
  CHECK_FAILS(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK_FAILS(syscall(SYS_open, 8L, O_RDONLY), EFAULT);
  const std::string too_long(PATH_MAX + 1, 'x');
  CHECK_FAILS(open(too_long.c_str(), O_RDONLY), ENAMETOOLONG);
  const int path_only = open("new", O_PATH | O_CLOEXEC);
  CHECK(path_only >= 0);
  CHECK_FAILS(read(path_only, &byte, 1), EBADF);
  CHECK_EQ(fcntl(path_only, F_GETFD), FD_CLOEXEC);
  close(path_only);
  const int unnamed = open(".", O_TMPFILE | O_RDWR, 0600);
  if (unnamed >= 0) close(unnamed);
}

void read_and_write() {
  Scratch scratch;
  const int fd = create("file", "0123456789");
  CHECK_EQ(lseek(fd, 2, SEEK_SET), 2);
  char buffer[16] = {};
  CHECK_EQ(read(fd, buffer, 3), 3);
  CHECK_EQ(std::string(buffer), "234");
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
  CHECK_EQ(read(fd, buffer, sizeof buffer), 5);
  CHECK_EQ(read(fd, buffer, sizeof buffer), 0);
  CHECK_EQ(read(fd, buffer, 0), 0);
  CHECK_EQ(lseek(fd, -1, SEEK_END), 9);
  CHECK_FAILS(lseek(fd, -100, SEEK_CUR), EINVAL);
  CHECK_EQ(lseek(fd, 4096, SEEK_SET), 4096);
  CHECK_EQ(write(fd, "end", 3), 3);
  struct stat status {};
  CHECK_EQ(fstat(fd, &status), 0);
  CHECK_EQ(status.st_size, 4099);
  CHECK_EQ(contents("file").substr(8, 4), std::string("89\0\0", 4));
  CHECK_FAILS(syscall(SYS_write, fd, 8L, 4L), EFAULT);
  CHECK_FAILS(syscall(SYS_read, fd, buffer, -1L), EFAULT);
  close(fd);
}

void buffers_at_the_edge_of_memory() {
  Scratch scratch;
  Fenced fence;
  const int fd = create("file", "0123456789");
  CHECK_EQ(pread(fd, fence.at(10), 10, 0), 10);
  CHECK_EQ(std::string(fence.at(10), 10), "0123456789");
  CHECK_EQ(pwrite(fd, fence.at(4), 4, 100), 4);
  CHECK_EQ(contents("file").substr(100), "6789");
  // A path may end with the last byte that can be read.
  memcpy(fence.at(5), "file", 5);
  CHECK_EQ(access(fence.at(5), F_OK), 0);
  memcpy(fence.at(4), "file", 4);
  CHECK_FAILS(syscall(SYS_access, fence.at(4), F_OK), EFAULT);
  // A read that reaches beyond mapped memory delivers what fits, from a pipe, or fails: never more.
  CHECK_FAILS(syscall(SYS_pread64, fd, fence.forbidden(), 10L, 0L), EFAULT);
  CHECK_EQ(pread(fd, fence.at(2), 2, 3), 2);
  CHECK_EQ(std::string(fence.at(2), 2), "34");
  struct stat* status = reinterpret_cast<struct stat*>(fence.at(sizeof(struct stat)));
  CHECK_EQ(fstat(fd, status), 0);
  CHECK_EQ(status->st_size, 104);
  CHECK_FAILS(syscall(SYS_fstat, fd, fence.forbidden()), EFAULT);
  close(fd);
}

void positioned_and_vectored() {
  Scratch scratch;
  const int fd = create("file", "abcdefghij");
  char buffer[8] = {};
  CHECK_EQ(lseek(fd, 7, SEEK_SET), 7);
  CHECK_EQ(pread(fd, buffer, 3, 4), 3);
  CHECK_EQ(std::string(buffer), "efg");
  CHECK_EQ(pwrite(fd, "XY", 2, 0), 2);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
  char one[3] = {}, two[5] = {};
  iovec parts[] = {{one, 2}, {nullptr, 0}, {two, 4}};
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(readv(fd, parts, 3), 6);
  CHECK_EQ(std::string(one), "XY");
  CHECK_EQ(std::string(two), "cdef");
  CHECK_EQ(preadv(fd, parts, 3, 8), 2);
  CHECK_EQ(std::string(one), "ij");
  CHECK_EQ(std::string(two), "cdef");
  char left[] = "123", right[] = "45678";
  iovec out[] = {{left, 3}, {right, 5}};
  CHECK_EQ(pwritev(fd, out, 2, 2), 8);
  CHECK_EQ(contents("file"), "XY12345678");
  CHECK_EQ(writev(fd, out, 1), 3);
  CHECK_FAILS(syscall(SYS_readv, fd, parts, -1L), EINVAL);
  CHECK_FAILS(syscall(SYS_readv, fd, parts, IOV_MAX + 1L), EINVAL);
  CHECK_FAILS(syscall(SYS_readv, fd, 16L, 1L), EFAULT);
  std::vector<char> cells(IOV_MAX);
  std::vector<iovec> many;
  for (char& cell : cells) many.push_back({&cell, 1});
  CHECK_EQ(preadv(fd, many.data(), IOV_MAX, 0), 10);
  CHECK_EQ(std::string(cells.data(), 10), "XY12341238");
  close(fd);
}

void large_transfers() {
  Scratch scratch;
  std::vector<unsigned char> data(9 << 20), back(9 << 20);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(i * 2654435761u >> 13);
  const int fd = create("file", "");
  CHECK_EQ(write(fd, data.data(), data.size()), static_cast<ssize_t>(data.size()));
  CHECK_EQ(pread(fd, back.data(), back.size(), 0), static_cast<ssize_t>(back.size()));
  CHECK(data == back);
  iovec halves[] = {{back.data() + (5 << 20), 4 << 20}, {back.data(), 5 << 20}};
  CHECK_EQ(preadv(fd, halves, 2, 0), static_cast<ssize_t>(back.size()));
  CHECK(memcmp(back.data() + (5 << 20), data.data(), 4 << 20) == 0);
  CHECK(memcmp(back.data(), data.data() + (4 << 20), 5 << 20) == 0);
  close(fd);
}

void append_and_truncate() {
  Scratch scratch;
  const int fd = create("file", "start", O_APPEND);
  const int other = open("file", O_WRONLY | O_APPEND);
  CHECK(other >= 0);
  CHECK_EQ(write(other, "+two", 4), 4);
  CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
  CHECK_EQ(write(fd, "+three", 6), 6);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 15);
  CHECK_EQ(contents("file"), "start+two+three");
  CHECK_EQ(ftruncate(fd, 5), 0);
  CHECK_EQ(write(other, "!", 1), 1);
  CHECK_EQ(contents("file"), "start!");
  CHECK_EQ(truncate("file", 8), 0);
  CHECK_EQ(contents("file"), std::string("start!\0\0", 8));
  CHECK_FAILS(truncate("absent", 0), ENOENT);
  CHECK_FAILS(ftruncate(fd, -1), EINVAL);
  CHECK_EQ(fallocate(fd, 0, 0, 100), 0);
  struct stat status {};
  CHECK_EQ(fstat(fd, &status), 0);
  CHECK_EQ(status.st_size, 100);
  close(fd);
  close(other);
}

void duplicates_share_the_offset() {
  Scratch scratch;
  const int fd = create("file", "0123456789");
  const int copy = dup(fd);
  CHECK(copy > fd);
  CHECK_EQ(lseek(fd, 4, SEEK_SET), 4);
  CHECK_EQ(lseek(copy, 0, SEEK_CUR), 4);
  CHECK_EQ(dup2(fd, 77), 77);
  CHECK_EQ(lseek(77, 0, SEEK_CUR), 4);
  CHECK_EQ(dup2(fd, fd), fd);
  CHECK_FAILS(dup2(999, 77), EBADF);
  CHECK_FAILS(dup3(fd, fd, 0), EINVAL);
  CHECK_EQ(dup3(fd, 78, O_CLOEXEC), 78);
  CHECK_EQ(fcntl(78, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(77, F_GETFD), 0);
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, 100);
  CHECK_EQ(high, 100);
  // A child moves the offset of its parent, a second open does not.
  CHECK_EQ(check::in_child([&] { return lseek(fd, 9, SEEK_SET) == 9 ? 0 : 1; }), 0);
  CHECK_EQ(lseek(high, 0, SEEK_CUR), 9);
  const int apart = open("file", O_RDONLY);
  CHECK_EQ(lseek(apart, 0, SEEK_CUR), 0);
  for (int each : {fd, copy, 77, 78, high, apart}) CHECK_EQ(close(each), 0);
}

void lowest_descriptor_is_taken() {
  const int a = open("/dev/null", O_RDONLY), b = open("/dev/null", O_RDONLY), c = open("/dev/null", O_RDONLY);
  CHECK(a < b);
  CHECK(b < c);
  close(a);
  CHECK_EQ(open("/dev/zero", O_RDONLY), a);
  close(b);
  CHECK_EQ(dup(c), b);
  close(a);
  close(b);
  close(c);
}

std::vector<std::string> own_descriptors() {
  std::vector<std::string> names;
  DIR* directory = opendir("/proc/self/fd");
  CHECK(directory != nullptr);
  const std::string itself = std::to_string(dirfd(directory));
  while (dirent* entry = readdir(directory))
    if (entry->d_name[0] != '.' && entry->d_name != itself) names.push_back(entry->d_name);
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

void descriptor_list_shows_only_own() {
  const auto before = own_descriptors();
  for (const auto& name : before) {
    const int number = atoi(name.c_str());
    CHECK(fcntl(number, F_GETFD) >= 0);
  }
  const int fd = open("/dev/null", O_RDONLY);
  auto during = own_descriptors();
  CHECK_EQ(during.size(), before.size() + 1);
  CHECK(std::find(during.begin(), during.end(), std::to_string(fd)) != during.end());
  close(fd);
  CHECK(own_descriptors() == before);
}

void rename_and_link() {
  Scratch scratch;
  close(create("a", "A"));
  close(create("b", "B"));
  CHECK_EQ(link("a", "hard"), 0);
  struct stat one {
  }, two{};
  CHECK_EQ(stat("a", &one), 0);
  CHECK_EQ(stat("hard", &two), 0);
  CHECK_EQ(one.st_ino, two.st_ino);
  CHECK_EQ(one.st_nlink, 2u);
  CHECK_FAILS(link("a", "b"), EEXIST);
  CHECK_EQ(rename("a", "b"), 0);
  CHECK_EQ(contents("b"), "A");
  CHECK_FAILS(access("a", F_OK), ENOENT);
  CHECK_EQ(mkdir("dir", 0755), 0);
  CHECK_FAILS(rename("b", "dir"), EISDIR);
  CHECK_EQ(rename("b", "dir/b"), 0);
  CHECK_FAILS(rmdir("dir"), ENOTEMPTY);
  CHECK_FAILS(unlink("dir"), EISDIR);
  CHECK_EQ(symlink("dir/b", "soft"), 0);
  char target[64] = {};
  CHECK_EQ(readlink("soft", target, sizeof target), 5);
  CHECK_EQ(std::string(target), "dir/b");
  CHECK_EQ(readlink("soft", target, 2), 2);
  CHECK_FAILS(readlink("dir", target, sizeof target), EINVAL);
  CHECK_EQ(lstat("soft", &one), 0);
  CHECK(S_ISLNK(one.st_mode));
  close(create("x", "X"));
  close(create("y", "Y"));
  CHECK_EQ(renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_EXCHANGE), 0);
  CHECK_EQ(contents("x") + contents("y"), "YX");
  CHECK_FAILS(renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_NOREPLACE), EEXIST);
  // An unlinked file lives as long as it is open.
  const int fd = create("short-lived", "still here");
  CHECK_EQ(unlink("short-lived"), 0);
  char buffer[16] = {};
  CHECK_EQ(pread(fd, buffer, sizeof buffer, 0), 10);
  CHECK_EQ(fstat(fd, &one), 0);
  CHECK_EQ(one.st_nlink, 0u);
  close(fd);
}

void relative_to_directories() {
  Scratch scratch;
  CHECK_EQ(mkdir("d", 0755), 0);
  const int directory = open("d", O_RDONLY | O_DIRECTORY);
  const int fd = openat(directory, "inside", O_WRONLY | O_CREAT, 0644);
  CHECK(fd >= 0);
  CHECK_EQ(write(fd, "1", 1), 1);
  close(fd);
  CHECK_EQ(contents("d/inside"), "1");
  CHECK_EQ(mkdirat(directory, "sub", 0700), 0);
  CHECK_EQ(linkat(directory, "inside", AT_FDCWD, "outside", 0), 0);
  CHECK_EQ(unlinkat(directory, "inside", 0), 0);
  CHECK_EQ(unlinkat(directory, "sub", AT_REMOVEDIR), 0);
  CHECK_EQ(faccessat(AT_FDCWD, "outside", R_OK, 0), 0);
  CHECK_EQ(fchdir(directory), 0);
  CHECK_EQ(access("../outside", F_OK), 0);
  char here[PATH_MAX];
  CHECK(getcwd(here, sizeof here) != nullptr);
  CHECK_EQ(std::string(here), scratch.path() + "/d");
  CHECK_FAILS(syscall(SYS_getcwd, here, 2), ERANGE);
  CHECK_FAILS(chdir("../outside"), ENOTDIR);
  CHECK_EQ(chdir(".."), 0);
  close(directory);
}

void stat_family() {
  Scratch scratch;
  const int fd = create("file", "12345");
  CHECK_EQ(chmod("file", 0640), 0);
  struct stat by_name {
  }, by_fd{}, at{};
  CHECK_EQ(stat("file", &by_name), 0);
  CHECK_EQ(fstat(fd, &by_fd), 0);
  CHECK_EQ(fstatat(AT_FDCWD, "file", &at, 0), 0);
  CHECK_EQ(by_name.st_ino, by_fd.st_ino);
  CHECK_EQ(at.st_dev, by_fd.st_dev);
  CHECK_EQ(by_fd.st_mode & 07777, 0640u);
  CHECK_EQ(by_fd.st_size, 5);
  CHECK_EQ(by_fd.st_uid, geteuid());
  struct statx extended {};
  CHECK_EQ(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &extended), 0);
  CHECK_EQ(extended.stx_ino, by_fd.st_ino);
  CHECK_EQ(extended.stx_size, 5u);
  CHECK_EQ(fchmod(fd, 0600), 0);
  CHECK_EQ(fstatat(fd, "", &at, AT_EMPTY_PATH), 0);
  CHECK_EQ(at.st_mode & 07777, 0600u);
  const timespec times[] = {{1000000000, 123456789}, {1100000000, 987654321}};
  CHECK_EQ(utimensat(AT_FDCWD, "file", times, 0), 0);
  CHECK_EQ(stat("file", &at), 0);
  CHECK_EQ(at.st_mtim.tv_sec, 1100000000);
  CHECK_EQ(at.st_atim.tv_sec, 1000000000);
  struct statfs system {};
  CHECK_EQ(fstatfs(fd, &system), 0);
  CHECK(system.f_bsize > 0);
  struct statvfs portable {};
  CHECK_EQ(statvfs(".", &portable), 0);
  CHECK_FAILS(stat("absent", &at), ENOENT);
  CHECK_EQ(access("file", R_OK | W_OK), 0);
  close(fd);
}

void directory_listing() {
  Scratch scratch;
  std::vector<std::string> expected;
  for (int i = 0; i < 500; ++i) {
    const std::string name = "entry-with-a-rather-long-name-" + std::to_string(i);
    close(create(name.c_str(), ""));
    expected.push_back(name);
  }
  std::sort(expected.begin(), expected.end());
  DIR* directory = opendir(".");
  CHECK(directory != nullptr);
  std::vector<std::string> seen;
  int steps = 0;
  while (dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') seen.push_back(entry->d_name);
    if (++steps == 250) move_point();
  }
  std::sort(seen.begin(), seen.end());
  CHECK(seen == expected);
  rewinddir(directory);
  CHECK(readdir(directory) != nullptr);
  const long position = telldir(directory);
  const std::string next = readdir(directory)->d_name;
  seekdir(directory, position);
  CHECK_EQ(std::string(readdir(directory)->d_name), next);
  closedir(directory);
  char tiny[8];
  const int fd = open(".", O_RDONLY | O_DIRECTORY);
  CHECK_FAILS(syscall(SYS_getdents64, fd, tiny, sizeof tiny), EINVAL);
  close(fd);
  const int file = open(expected[0].c_str(), O_RDONLY);
  CHECK_FAILS(syscall(SYS_getdents64, file, tiny, sizeof tiny), ENOTDIR);
  close(file);
}

void extended_attributes() {
  Scratch scratch;
  const int fd = create("file", "");
  if (fsetxattr(fd, "user.colour", "blue", 4, 0) != 0) {
    CHECK_EQ(errno, EOPNOTSUPP);  // the file system has none; that this is said is the check
    close(fd);
    return;
  }
  char value[16] = {};
  CHECK_EQ(getxattr("file", "user.colour", value, sizeof value), 4);
  CHECK_EQ(std::string(value), "blue");
  CHECK_EQ(getxattr("file", "user.colour", nullptr, 0), 4);
  CHECK_FAILS(getxattr("file", "user.colour", value, 2), ERANGE);
  CHECK_FAILS(getxattr("file", "user.absent", value, sizeof value), ENODATA);
  CHECK_FAILS(setxattr("file", "user.colour", "red", 3, XATTR_CREATE), EEXIST);
  char names[256];
  const ssize_t length = flistxattr(fd, names, sizeof names);
  CHECK(length > 0);
  CHECK(std::string(names, static_cast<size_t>(length)).find("user.colour") != std::string::npos);
  CHECK_EQ(removexattr("file", "user.colour"), 0);
  CHECK_FAILS(fgetxattr(fd, "user.colour", value, sizeof value), ENODATA);
  close(fd);
}

void locks() {
  Scratch scratch;
  const int fd = create("file", "0123456789");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = 2;
  lock.l_len = 3;
  CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
  const pid_t self = getpid();
  CHECK_EQ(check::in_child([&] {
             struct flock query {};
             query.l_type = F_WRLCK;
             query.l_len = 10;
             if (fcntl(fd, F_GETLK, &query) != 0) return 1;
             if (query.l_type != F_WRLCK || query.l_start != 2 || query.l_len != 3) return 2;
             if (query.l_pid != self) return 3;
             query.l_type = F_WRLCK;
             query.l_start = 0;
             query.l_len = 10;
             if (fcntl(fd, F_SETLK, &query) == 0 || (errno != EAGAIN && errno != EACCES)) return 4;
             query.l_start = 6;
             query.l_len = 2;
             return fcntl(fd, F_SETLK, &query) == 0 ? 0 : 5;
           }),
           0);
  CHECK_EQ(flock(fd, LOCK_EX), 0);
  const int other = open("file", O_RDWR);
  CHECK_FAILS(flock(other, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_EQ(flock(fd, LOCK_UN), 0);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
  close(fd);
  close(other);
}

/// A name for a file that is no path. Its length stands inside it.
void handles_of_files() {
  Scratch scratch;
  const int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(write(fd, "by its handle", 13), 13);
  alignas(file_handle) char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  memset(room, 'h', sizeof room);
  auto* handle = reinterpret_cast<file_handle*>(room);
  int mount = -1;
  handle->handle_bytes = 0;
  CHECK_EQ(name_to_handle_at(AT_FDCWD, "file", handle, &mount, 0), -1);
  CHECK(errno == EOVERFLOW || errno == EOPNOTSUPP);
  if (errno == EOPNOTSUPP) return;
  const unsigned bytes = handle->handle_bytes;
  CHECK(bytes > 0 && bytes <= MAX_HANDLE_SZ);
  move_point();
  CHECK_EQ(name_to_handle_at(AT_FDCWD, "file", handle, &mount, 0), 0);
  CHECK_EQ(handle->handle_bytes, bytes);
  CHECK(mount >= 0);
  for (size_t at = sizeof(file_handle) + bytes; at < sizeof room; ++at) CHECK_EQ(room[at], 'h');
  // Only root may use it.
  const int folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int again = open_by_handle_at(folder, handle, O_RDONLY | O_CLOEXEC);
  if (again < 0) CHECK(errno == EPERM || errno == ESTALE || errno == EOPNOTSUPP);
  if (again >= 0) {
    char text[14] = {};
    CHECK_EQ(read(again, text, sizeof text), 13);
    CHECK_EQ(std::string(text), "by its handle");
    close(again);
  }
  handle->handle_bytes = MAX_HANDLE_SZ + 1;
  CHECK_FAILS(name_to_handle_at(AT_FDCWD, "file", handle, &mount, 0), EINVAL);
  close(folder);
  close(fd);
}

/// Where the parts of a file are: as many as there is room for.
void extents_of_a_file() {
  Scratch scratch;
  const int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  const std::string block(4096, 'x');
  CHECK_EQ(pwrite(fd, block.data(), block.size(), 0), 4096);
  CHECK_EQ(pwrite(fd, block.data(), block.size(), 1 << 20), 4096);
  alignas(fiemap) char room[sizeof(fiemap) + 8 * sizeof(fiemap_extent)];
  memset(room, 'e', sizeof room);
  auto* map = reinterpret_cast<fiemap*>(room);
  memset(map, 0, sizeof *map);
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_flags = FIEMAP_FLAG_SYNC;
  if (ioctl(fd, FS_IOC_FIEMAP, map) != 0) {
    CHECK_EQ(errno, EOPNOTSUPP);
  } else {
    CHECK_EQ(map->fm_mapped_extents, 2u);
    move_point();
    map->fm_extent_count = 1;
    CHECK_EQ(ioctl(fd, FS_IOC_FIEMAP, map), 0);
    CHECK_EQ(map->fm_mapped_extents, 1u);
    for (size_t at = sizeof(fiemap) + sizeof(fiemap_extent); at < sizeof room; ++at) CHECK_EQ(room[at], 'e');
    map->fm_extent_count = 8;
    CHECK_EQ(ioctl(fd, FS_IOC_FIEMAP, map), 0);
    CHECK_EQ(map->fm_mapped_extents, 2u);
    CHECK_EQ(map->fm_extents[0].fe_logical, 0u);
    CHECK_EQ(map->fm_extents[1].fe_logical, 1u << 20);
    CHECK((map->fm_extents[1].fe_flags & FIEMAP_EXTENT_LAST) != 0);
  }
  close(fd);
}

void copies_inside_the_kernel() {
  Scratch scratch;
  const int from = create("from", "the quick brown fox"), to = create("to", "");
  off_t offset = 4;
  CHECK_EQ(sendfile(to, from, &offset, 5), 5);
  CHECK_EQ(offset, 9);
  off64_t in = 10, out = 5;
  const ssize_t copied = copy_file_range(from, &in, to, &out, 5, 0);
  if (copied < 0) {
    CHECK(errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS);
    CHECK_EQ(pwrite(to, "brown", 5, 5), 5);
  } else {
    CHECK_EQ(copied, 5);
    CHECK_EQ(in, 15);
  }
  CHECK_EQ(contents("to"), "quickbrown");
  int pipe_ends[2];
  CHECK_EQ(pipe(pipe_ends), 0);
  off64_t start = 16;
  CHECK_EQ(splice(from, &start, pipe_ends[1], nullptr, 3, 0), 3);
  CHECK_EQ(splice(pipe_ends[0], nullptr, to, nullptr, 3, 0), 3);
  CHECK_EQ(contents("to").size(), 10u);
  for (int fd : {from, to, pipe_ends[0], pipe_ends[1]}) close(fd);
}

void special_files() {
  char buffer[64];
  memset(buffer, 1, sizeof buffer);
  const int zero = open("/dev/zero", O_RDONLY);
  CHECK_EQ(read(zero, buffer, sizeof buffer), static_cast<ssize_t>(sizeof buffer));
  CHECK(std::all_of(buffer, buffer + sizeof buffer, [](char c) { return c == 0; }));
  close(zero);
  const int full = open("/dev/full", O_WRONLY);
  CHECK_FAILS(write(full, buffer, 1), ENOSPC);
  close(full);
  const int null = open("/dev/null", O_RDWR);
  CHECK_EQ(write(null, buffer, sizeof buffer), static_cast<ssize_t>(sizeof buffer));
  CHECK_EQ(read(null, buffer, sizeof buffer), 0);
  close(null);
  const int memory = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(memory >= 0);
  CHECK_EQ(write(memory, "abc", 3), 3);
  CHECK_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE), 0);
  CHECK_FAILS(write(memory, "d", 1), EPERM);
  CHECK_EQ(fcntl(memory, F_GET_SEALS), F_SEAL_WRITE);
  close(memory);
}

void umask_and_modes() {
  Scratch scratch;
  const mode_t before = umask(027);
  close(open("file", O_WRONLY | O_CREAT, 0666));
  struct stat status {};
  CHECK_EQ(stat("file", &status), 0);
  CHECK_EQ(status.st_mode & 0777, 0640u);
  CHECK_EQ(mkdir("dir", 0777), 0);
  CHECK_EQ(stat("dir", &status), 0);
  CHECK_EQ(status.st_mode & 0777, 0750u);
  CHECK_EQ(umask(before), 027u);
  CHECK_EQ(mkfifo("fifo", 0600), 0);
  CHECK_EQ(stat("fifo", &status), 0);
  CHECK(S_ISFIFO(status.st_mode));
}

void standard_streams() {
  Scratch scratch;
  FILE* file = fopen("text", "w+");
  CHECK(file != nullptr);
  for (int i = 0; i < 1000; ++i) CHECK(fprintf(file, "line %d\n", i) > 0);
  move_point();
  rewind(file);
  char line[64];
  int count = 0;
  while (fgets(line, sizeof line, file)) {
    CHECK_EQ(std::string(line), "line " + std::to_string(count) + "\n");
    ++count;
  }
  CHECK_EQ(count, 1000);
  fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"open-flags", open_flags},
                     {"read-and-write", read_and_write},
                     {"buffers-at-the-edge-of-memory", buffers_at_the_edge_of_memory},
                     {"positioned-and-vectored", positioned_and_vectored},
                     {"large-transfers", large_transfers},
                     {"append-and-truncate", append_and_truncate},
                     {"duplicates-share-the-offset", duplicates_share_the_offset},
                     {"lowest-descriptor-is-taken", lowest_descriptor_is_taken},
                     {"descriptor-list-shows-only-own", descriptor_list_shows_only_own},
                     {"rename-and-link", rename_and_link},
                     {"relative-to-directories", relative_to_directories},
                     {"stat-family", stat_family},
                     {"directory-listing", directory_listing},
                     {"extended-attributes", extended_attributes},
                     {"locks", locks},
                     {"handles-of-files", handles_of_files},
                     {"extents-of-a-file", extents_of_a_file},
                     {"copies-inside-the-kernel", copies_inside_the_kernel},
                     {"special-files", special_files},
                     {"umask-and-modes", umask_and_modes},
                     {"standard-streams", standard_streams}});
}
