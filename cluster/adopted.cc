#include "cluster/adopted.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "libmosix/common/log.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr int kDatagramsPerTurn = 64;
constexpr size_t kLongestDatagram = 512;

}  // namespace

AdoptedTable::~AdoptedTable() { stop(); }

Status AdoptedTable::start(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(ENAMETOOLONG, "socket path " + path);
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_) return fail_errno("socket");
  int one = 1;
  setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
  ::unlink(path.c_str());
  if (::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), 0666) != 0)
    return fail_errno("listen on " + path);
  path_ = path;
  return context_.loop->watch(socket_.get(), EPOLLIN, [this](uint32_t) { receive_some(); });
}

void AdoptedTable::stop() {
  while (!entries_.empty()) forget(entries_.begin()->first);
  if (!socket_) return;
  context_.loop->forget(socket_.get());
  socket_.reset();
  ::unlink(path_.c_str());
}

void AdoptedTable::receive_some() {
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    char text[kLongestDatagram];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
    iovec part{text, sizeof text};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    if (head == nullptr || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_CREDENTIALS) continue;
    ucred sender;
    memcpy(&sender, CMSG_DATA(head), sizeof sender);
    Json said = parse_object(std::string_view(text, static_cast<size_t>(got)));
    if (sender.pid > 0) adopt(sender.pid, sender.uid, said);
  }
}

void AdoptedTable::adopt(int pid, uint32_t uid, const Json& said) {
  bool locked = flag_field(said, "locked");
  if (auto known = entries_.find(pid); known != entries_.end()) {  // it has exec'd
    known->second.locked = locked;
    known->second.uid = uid;
    return;
  }
  size_t of_user = static_cast<size_t>(std::count_if(
      entries_.begin(), entries_.end(), [uid](const auto& entry) { return entry.second.uid == uid; }));
  if (entries_.size() >= kMaxAdopted || of_user >= kMaxAdoptedPerUser) return;
  Entry entry;
  entry.uid = uid;
  entry.locked = locked;
  entry.since_ms = steady_ms();
  entry.pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!entry.pidfd) return;  // has ended already
  Status watched = context_.loop->watch(entry.pidfd.get(), EPOLLIN, [this, pid](uint32_t) { forget(pid); });
  if (!watched) return;
  entries_[pid] = std::move(entry);
}

void AdoptedTable::forget(int pid) {
  auto at = entries_.find(pid);
  if (at == entries_.end()) return;
  context_.loop->forget(at->second.pidfd.get());
  entries_.erase(at);
}

Json AdoptedTable::row(int pid, const Entry& entry) const {
  return Json{{"pid", pid},
              {"program", read_comm(pid, pid).value_or("")},
              {"uid", entry.uid},
              {"home", context_.own_name},
              {"where", "home"},
              {"moves", 0},
              {"reason", entry.locked ? "locked to its home" : ""},
              {"cpu_away_ms", 0},
              {"calls", 0},
              {"calls_per_s", 0},
              {"since_s", (steady_ms() - entry.since_ms) / 1000}};
}

}  // namespace mosix
