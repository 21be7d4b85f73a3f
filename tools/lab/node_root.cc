#include "tools/lab/node_root.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "tools/lab/process.h"

namespace mosix::lab {
namespace fs = std::filesystem;
namespace {

Status mount_new(const char* type, const std::string& where, unsigned long flags = 0,
                 const char* options = nullptr) {
  if (mount(type, where.c_str(), type, flags, options) == 0) return {};
  return fail_errno(std::string("mount ") + type + " on " + where);
}

/// Shows `source` (a folder with all that is mounted below it, or one file) at `where`.
Status bind_mount(const std::string& source, const std::string& where, bool read_only) {
  if (mount(source.c_str(), where.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return fail_errno("bind " + source + " at " + where);
  if (!read_only) return {};
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (syscall(SYS_mount_setattr, AT_FDCWD, where.c_str(), AT_RECURSIVE, &attributes, sizeof attributes) != 0)
    return fail_errno("make " + where + " read-only");
  return {};
}

Status give_to(const std::string& path, const LabSpec& spec) {
  if (spec.uid == 0 || chown(path.c_str(), spec.uid, spec.gid) == 0) return {};
  return fail_errno("chown " + path);
}

/// mosix.map in openMosix's syntax (id, name, count), the key, the settings.
Status write_settings(const std::string& folder, const LabSpec& spec, int k, const std::string& key) {
  std::string map = "# id  address  count\n";
  for (int i = 1; i <= spec.node_count; i++) map += std::to_string(i) + "  " + node_name(i) + "  1\n";
  TRY_VOID(write_file(folder + "/mosix.map", map));
  TRY_VOID(write_file(folder + "/cluster.key", key, 0600));
  TRY_VOID(give_to(folder + "/cluster.key", spec));
  std::string settings =
      "# made by mosixlab\nnode_name = \"" + node_name(k) + "\"\nnode_id = " + std::to_string(k) + "\n";
  settings += "map_file = \"/etc/mosix/mosix.map\"\nkey_file = \"/etc/mosix/cluster.key\"\n";
  // Tests are run by root as often as not, and this machine is both sides of the trust.
  return write_file(folder + "/mosix.toml", settings + "allow_root_guests = true\n");
}

std::string hosts_file(const LabSpec& spec) {
  std::string text = "127.0.0.1 localhost\n";
  for (int i = 1; i <= spec.node_count; i++) text += node_address(i) + " " + node_name(i) + "\n";
  return text;
}

Status make_run_folder(const std::string& run, const LabSpec& spec) {
  TRY_VOID(make_folders(run + "/lock", 01777));
  TRY_VOID(make_folders(run + "/user"));
  TRY_VOID(make_folders(run + "/mosix"));
  return give_to(run + "/mosix", spec);
}

/// Lets node1 write in /etc while the machine's stays as it is. Where the kernel refuses an overlay here, an
/// /etc/mosix that exists on the machine will do: it is covered.
Status make_etc_private() {
  TRY_VOID(make_folders("/run/.etc/upper"));
  TRY_VOID(make_folders("/run/.etc/work"));
  std::string options = "lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work";
  Status overlay = mount_new("overlay", "/etc", 0, options.c_str());
  if (!overlay) overlay = mount_new("overlay", "/etc", 0, (options + ",userxattr").c_str());
  if (overlay || fs::is_directory("/etc/mosix")) return {};
  return fail(overlay.error().code, "cannot give node1 an /etc of its own (" + overlay.error().what +
                                        "); an empty folder /etc/mosix on this machine would do instead");
}

Status build_home_root(const LabSpec& spec, int k, const std::string& key) {
  TRY_VOID(mount_new("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  TRY_VOID(mount_new("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"));
  TRY_VOID(make_run_folder("/run", spec));
  TRY_VOID(make_etc_private());
  TRY_VOID(make_folders("/etc/mosix"));
  TRY_VOID(mount_new("tmpfs", "/etc/mosix", MS_NOSUID | MS_NODEV, "mode=755"));
  TRY_VOID(write_settings("/etc/mosix", spec, k, key));
  TRY_VOID(write_file("/run/.hosts", hosts_file(spec)));
  TRY_VOID(write_file("/run/.hostname", node_name(k) + "\n"));
  if (fs::exists("/etc/hosts")) TRY_VOID(bind_mount("/run/.hosts", "/etc/hosts", false));
  if (fs::exists("/etc/hostname")) TRY_VOID(bind_mount("/run/.hostname", "/etc/hostname", false));
  return {};
}

Status add_device_nodes(const std::string& root) {
  std::string dev = root + "/dev";
  TRY_VOID(mount_new("tmpfs", dev, MS_NOSUID | MS_NOEXEC, "mode=755,size=64k"));
  for (const char* name : {"null", "zero", "full", "random", "urandom", "tty", "userfaultfd"}) {
    std::string here = std::string("/dev/") + name;
    if (!fs::exists(here)) continue;
    TRY_VOID(write_file(dev + "/" + name, ""));
    TRY_VOID(bind_mount(here, dev + "/" + name, false));
  }
  for (const char* folder : {"/pts", "/shm"}) TRY_VOID(make_folders(dev + folder));
  TRY_VOID(mount_new("devpts", dev + "/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"));
  TRY_VOID(mount_new("tmpfs", dev + "/shm", MS_NOSUID | MS_NODEV, "mode=1777"));
  std::error_code ignored;
  fs::create_symlink("pts/ptmx", dev + "/ptmx", ignored);
  fs::create_symlink("/proc/self/fd", dev + "/fd", ignored);
  fs::create_symlink("/proc/self/fd/0", dev + "/stdin", ignored);
  fs::create_symlink("/proc/self/fd/1", dev + "/stdout", ignored);
  fs::create_symlink("/proc/self/fd/2", dev + "/stderr", ignored);
  return {};
}

/// The machine's programs and libraries, and nothing else of it.
Status add_programs(const std::string& root, const LabSpec& spec) {
  std::error_code ignored;
  for (const char* name : {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    if (fs::is_symlink(name)) {
      fs::create_symlink(fs::read_symlink(name, ignored), root + name, ignored);
    } else if (fs::is_directory(name)) {
      TRY_VOID(make_folders(root + name));
      TRY_VOID(bind_mount(name, root + name, true));
    }
  }
  std::string tree = program_tree(spec.daemon);
  if (tree.empty()) return {};
  TRY_VOID(make_folders(root + kAwayTree));
  return bind_mount(tree, root + kAwayTree, true);
}

/// An /etc that differs from the machine's in everything a program is likely to print.
Status write_away_etc(const std::string& etc, const LabSpec& spec, int k, const std::string& key) {
  std::string name = node_name(k), uid = std::to_string(spec.uid), gid = std::to_string(spec.gid);
  std::string users = "root:x:0:0:root of " + name + ":/root:/bin/sh\nnobody:x:65534:65534:nobody of " +
                      name + ":/nonexistent:/usr/sbin/nologin\n";
  std::string groups = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
  if (spec.uid != 0 && spec.uid != 65534) {
    users += name + "user:x:" + uid + ":" + gid + ":user of " + name + ":/tmp:/bin/sh\n";
    groups += name + "group:x:" + gid + ":\n";
  }
  TRY_VOID(make_folders(etc + "/mosix"));
  TRY_VOID(write_settings(etc + "/mosix", spec, k, key));
  TRY_VOID(write_file(etc + "/passwd", users));
  TRY_VOID(write_file(etc + "/group", groups));
  TRY_VOID(write_file(etc + "/hosts", hosts_file(spec)));
  TRY_VOID(write_file(etc + "/hostname", name + "\n"));
  TRY_VOID(write_file(etc + "/motd", "This is " + name + ", an away node made by mosixlab.\n"));
  TRY_VOID(write_file(etc + "/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"));
  TRY_VOID(write_file(etc + "/os-release", "NAME=\"" + name + "\"\nID=mosixlab\n"));
  std::error_code ignored;
  // Half a day from most homes: a local time that is read here is wrong in the log.
  fs::create_symlink("/usr/share/zoneinfo/Pacific/Kiritimati", etc + "/localtime", ignored);
  fs::create_symlink("../proc/self/mounts", etc + "/mtab", ignored);
  if (Result<std::string> cache = read_file("/etc/ld.so.cache"))
    TRY_VOID(write_file(etc + "/ld.so.cache", *cache));
  if (!fs::is_directory("/etc/alternatives")) return {};
  TRY_VOID(make_folders(etc + "/alternatives"));
  return bind_mount("/etc/alternatives", etc + "/alternatives", true);
}

Status build_away_root(const LabSpec& spec, int k, const std::string& key) {
  std::string root = spec.state_dir + "/root";
  TRY_VOID(mount_new("tmpfs", root, MS_NODEV, "mode=755"));
  for (const char* folder : {"/dev", "/proc", "/sys", "/etc", "/home", "/opt", "/run", "/srv", "/var/log"})
    TRY_VOID(make_folders(root + folder));
  TRY_VOID(make_folders(root + "/root", 0700));
  for (const char* folder : {"/tmp", "/var/tmp"}) TRY_VOID(make_folders(root + folder, 01777));
  std::error_code ignored;
  fs::create_symlink("/run", root + "/var/run", ignored);
  TRY_VOID(make_run_folder(root + "/run", spec));
  TRY_VOID(add_programs(root, spec));
  TRY_VOID(write_away_etc(root + "/etc", spec, k, key));
  TRY_VOID(add_device_nodes(root));
  TRY_VOID(mount_new("proc", root + "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  TRY_VOID(mount_new("sysfs", root + "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY));
  if (chdir(root.c_str()) != 0) return fail_errno("chdir " + root);
  // pivot_root(".", "."): the old root ends up on top of the new one, and is taken off.
  if (syscall(SYS_pivot_root, ".", ".") != 0) return fail_errno("pivot_root " + root);
  if (umount2(".", MNT_DETACH) != 0) return fail_errno("umount the old root");
  return {};
}

}  // namespace

Status enter_node_root(const LabSpec& spec, int k, const std::string& key) {
  umask(022);
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_errno("make mounts private");
  TRY_VOID(k == 1 ? build_home_root(spec, k, key) : build_away_root(spec, k, key));
  return chdir("/") == 0 ? Status() : fail_errno("chdir /");
}

std::string program_tree(const std::string& daemon) {
  if (daemon.rfind("/usr/", 0) == 0) return "";
  static const std::set<std::string> kInner = {"cluster", "sbin", "bin", "mosix", "libexec", "lib"};
  fs::path folder = fs::path(daemon).parent_path();
  while (kInner.count(folder.filename()) != 0) folder = folder.parent_path();
  return folder == "/" ? fs::path(daemon).parent_path() : folder;
}

std::string daemon_in_node(const LabSpec& spec, int k) {
  std::string tree = program_tree(spec.daemon);
  if (k == 1 || tree.empty()) return spec.daemon;
  return kAwayTree + spec.daemon.substr(tree.size());
}

}  // namespace mosix::lab
