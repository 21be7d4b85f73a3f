// mosixd, one on every node: membership, control socket, starting of custodians and supervisors. It carries
// no forwarded call itself, so it may end and start again while guests run. mosixd(8) is its manual.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "cluster/daemon.h"
#include "libmosix/common/log.h"
#include "libmosix/common/paths.h"

namespace {

using namespace mosix;

constexpr int kStatusFailed = 1;  ///< configuration or start failed; the reason is on standard error
constexpr int kStatusUsage = 2;

struct Options {
  bool foreground = false, check = false;
  std::string settings_file;
};

int print_configuration(const Context& context) {
  const Settings& settings = context.settings;
  fmt::print("settings  {}\n", settings.file.empty() ? "none, all defaults" : settings.file);
  fmt::print("map       {}, {} nodes: {}\n", context.map.file(), context.map.nodes().size(),
             context.map.names());
  fmt::print("this node {}, number {}\n", context.own_name, context.own_id);
  fmt::print("key       {}\n", settings.key_file);
  fmt::print("listens   {}:{}\n", settings.listen, settings.port);
  fmt::print("guests    at most {}, of root {}\n", settings.max_guests,
             settings.allow_root_guests ? "too" : "none");
  return 0;
}

/// Goes on in a child without a terminal; the parent returns once the child is ready, with its status.
void into_background() {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return;
  pid_t child = fork();
  if (child < 0) return;
  if (child > 0) {
    close(ready[1]);
    char ok = 0;
    bool started = read(ready[0], &ok, 1) == 1;
    int status = 0;
    if (!started) waitpid(child, &status, 0);
    _exit(started ? 0 : kStatusFailed);
  }
  close(ready[0]);
  setsid();
  setenv("MOSIXD_READY_FD", std::to_string(ready[1]).c_str(), 1);
}

/// Tells the waiting parent that all is well, and moves on to the log file.
void report_ready() {
  const char* text = getenv("MOSIXD_READY_FD");
  if (text == nullptr) return;
  int fd = atoi(text);
  unsetenv("MOSIXD_READY_FD");
  int log = open((run_dir() + "/mosixd.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) dup2(null, 0), dup2(null, 1);
  if (log >= 0) dup2(log, 2);
  if (chdir("/") != 0) log_error("chdir /");
  [[maybe_unused]] ssize_t written = write(fd, "1", 1);
  close(fd);
}

int serve(const Options& options) {
  log_init("mosixd");
  Result<std::shared_ptr<EventLoop>> loop = EventLoop::create();
  if (!loop) return log_error(loop.error().message()), kStatusFailed;
  Context context;
  context.loop = *loop;
  Status loaded = load_configuration(context, options.settings_file);
  if (!loaded) return log_error(loaded.error().message()), kStatusFailed;
  if (options.check) return print_configuration(context);
  if (context.settings.debug) setenv("MOSIX_DEBUG", "1", 1);
  log_init("mosixd[" + context.own_name + "]");
  bool in_time;
  {
    Daemon daemon(context);
    Status started = daemon.start();
    if (!started) return log_error("cannot start: " + started.error().message()), kStatusFailed;
    report_ready();
    in_time = daemon.serve();
  }
  // Workers end within their time limits; nothing they could still say matters.
  if (!context.workers.wait_idle(kHandshakeLimitMs)) _exit(in_time ? 0 : kStatusFailed);
  return in_time ? 0 : kStatusFailed;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"mosixd: lets processes of this machine run on other nodes, and theirs here", "mosixd"};
  app.add_flag("--foreground,-f", options.foreground, "stay in the foreground and log to standard error");
  app.add_option("--config,-c", options.settings_file, "settings file instead of /etc/mosix/mosix.toml");
  app.add_flag("--check-config", options.check, "read settings, map and key, say what they mean, and end");
  app.set_version_flag("--version", "mosixd " MOSIX_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kStatusUsage;
  }
  if (!options.foreground && !options.check) into_background();
  return serve(options);
}
