#include "cluster/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "libmosix/common/log.h"
#include "libmosix/common/net.h"
#include "libmosix/common/paths.h"

namespace mosix {
namespace {

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, HOST_NAME_MAX);
  return name;
}

/// Two descriptors a family and one an adopted process: the usual soft limit of 1,024 is for programs that
/// still use select().
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/// Names of `features` that settings or environment switch off, for custodians and supervisors.
void export_features(const Settings& settings) {
  const char* already = getenv("MOSIX_FEATURES_OFF");
  std::string off = features_off_value(settings, already == nullptr ? "" : already);
  if (!off.empty()) setenv("MOSIX_FEATURES_OFF", off.c_str(), 1);
}

/// "192.168.0.1:7230", or the port alone where every address is listened on.
std::string listening_place(const Settings& settings) {
  if (settings.listen == "0.0.0.0") return fmt::format("port {}", settings.port);
  return fmt::format("{}:{}", settings.listen, settings.port);
}

}  // namespace

Status load_configuration(Context& context, const std::string& settings_file) {
  TRY(context.settings, load_settings(settings_file));
  TRY(std::string map_file, find_map_file(context.settings.map_file));
  TRY(context.map, ClusterMap::load(map_file, resolve_host));
  TRY(MapNode own,
      own_node(context.map, context.settings.node_id, context.settings.listen, own_addresses(), host_name()));
  context.own_id = own.id;
  context.own_name = own.name;
  if (!own.name_is_written) context.own_name = host_name();
  if (!context.settings.node_name.empty()) context.own_name = context.settings.node_name;
  context.map.learn_name(own.id, context.own_name);
  TRY(context.key, load_cluster_key(context.settings.key_file));
  if (geteuid() == 0 && !context.settings.guest_user.empty())
    TRY_VOID(identity_of_user(context.settings.guest_user));
  return {};
}

Daemon::Daemon(Context& context)
    : context_(context),
      away_(context),
      home_(context),
      adopted_(context),
      ops_(context, home_, away_, adopted_),
      control_(
          context,
          [this](const ControlPeer& peer, const Json& request, Reply reply) {
            ops_.handle(peer, request, std::move(reply));
          },
          [this](uint64_t client) { ops_.client_closed(client); }),
      nodes_(context, away_) {
  ops_.stream_to(control_);
}

Daemon::~Daemon() = default;

Status Daemon::start() {
  raise_descriptor_limit();
  export_features(context_.settings);
  signal(SIGPIPE, SIG_IGN);
  TRY_VOID(take_run_dir());
  TRY_VOID(watch_signals());
  TRY_VOID(nodes_.start());
  TRY_VOID(adopted_.start(run_dir() + "/adopt.sock"));
  context_.started_ms = steady_ms();
  TRY_VOID(control_.start(control_socket_path()));
  log_info(fmt::format(
      "{} is node {} of {} ({}), listens on {}, runs as uid {}{}", context_.own_name, context_.own_id,
      context_.map.nodes().size(), context_.map.file(), listening_place(context_.settings), geteuid(),
      getenv("MOSIX_FEATURES_OFF") == nullptr ? ""
                                              : fmt::format(", without {}", getenv("MOSIX_FEATURES_OFF"))));
  notify_manager("READY=1");
  return {};
}

/// The directory, and a lock in it that says that this mosixd, and no other, serves it.
Status Daemon::take_run_dir() {
  std::string dir = run_dir();
  if (mkdir(dir.c_str(), geteuid() == 0 ? 0755 : 0700) != 0 && errno != EEXIST)
    return fail_errno("run directory " + dir);
  struct stat info {};
  if (lstat(dir.c_str(), &info) != 0) return fail_errno("run directory " + dir);
  // /tmp/mosix-UID could have been made by somebody else, who would then own our sockets.
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid())
    return fail(EPERM, "run directory " + dir + " belongs to somebody else; remove it or set MOSIX_RUN_DIR");
  // Children with another identity must find the same place.
  setenv("MOSIX_RUN_DIR", dir.c_str(), 1);
  std::string path = dir + "/mosixd.pid";
  lock_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!lock_) return fail_errno("lock " + path);
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(EADDRINUSE, "another mosixd serves " + dir + " (its pid is in mosixd.pid); end it first");
  std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(lock_.get(), 0) != 0 || pwrite(lock_.get(), pid.data(), pid.size(), 0) < 0)
    return fail_errno("lock " + path);
  return {};
}

Status Daemon::watch_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, number);
  // Worker threads inherit the mask, so the signals come to the descriptor only.
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno("signalfd");
  return context_.loop->watch(signals_.get(), EPOLLIN, [this](uint32_t) { on_signal(); });
}

void Daemon::on_signal() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGCHLD) reap();
    if (info.ssi_signo == SIGHUP) reload_map();
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) begin_end();
  }
}

void Daemon::reap() {
  int status;
  for (;;) {
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    if (!home_.child_ended(pid, status)) away_.child_ended(pid, status);
  }
}

/// A wrong map changes nothing: a running cluster is worth more than a slip of the pen.
void Daemon::reload_map() {
  Result<ClusterMap> fresh = ClusterMap::load(context_.map.file(), resolve_host);
  if (!fresh) return log_error("map not read again: " + fresh.error().message());
  if (fresh->by_id(context_.own_id) == nullptr)
    return log_error(fmt::format("map not read again: {} has no node {}, which is this one", fresh->file(),
                                 context_.own_id));
  for (const MapNode& node : context_.map.nodes()) fresh->learn_name(node.id, node.name);
  context_.map = std::move(*fresh);
  log_info(fmt::format("map read again, {} nodes: {}", context_.map.nodes().size(), context_.map.names()));
}

void Daemon::begin_end() {
  if (context_.ending) {
    log_error("told to end once more: not waiting any longer");
    in_time_ = false;
    return context_.loop->stop();
  }
  context_.ending = true;
  log_info(fmt::format("ending: {} guests go home, {} own processes come home", away_.guest_count(),
                       home_.away_count()));
  notify_manager("STOPPING=1");
  control_.stop_accepting();
  nodes_.stop();
  context_.loop->after(kEndLimitMs, [this] {
    log_error(fmt::format("not everybody was home after {} s: {} guests, {} own processes away",
                          kEndLimitMs / 1000, away_.guest_count(), home_.away_count()));
    in_time_ = false;
    context_.loop->stop();
  });
  away_.expel([this] {
    guests_gone_ = true;
    end_if_done();
  });
  home_.all_home([this] {
    own_home_ = true;
    end_if_done();
  });
}

void Daemon::end_if_done() {
  if (guests_gone_ && own_home_) context_.loop->stop();
}

bool Daemon::serve() {
  context_.loop->run();
  control_.stop_accepting();
  nodes_.stop();
  adopted_.stop();
  log_info("ended");
  return in_time_;
}

void notify_manager(const std::string& state) {
  const char* path = getenv("NOTIFY_SOCKET");
  if (path == nullptr || (*path != '/' && *path != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  size_t length = strlen(path);
  if (length >= sizeof address.sun_path) return;
  memcpy(address.sun_path, path, length);
  if (*path == '@') address.sun_path[0] = '\0';  // abstract
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  socklen_t size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  // A manager that does not listen is no reason not to serve.
  [[maybe_unused]] ssize_t sent =
      sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), size);
}

}  // namespace mosix
