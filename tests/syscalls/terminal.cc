// Terminals: line discipline, sizes, controlling terminal and job control, on pseudo terminals of the
// program's own. The parent plays the person at the keyboard, a child in a session of its own the program.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "check.h"

namespace {

/// Both ends of a fresh pseudo terminal.
struct Terminal {
  int master = -1, slave = -1;
  std::string name;
  Terminal() {
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(master >= 0);
    CHECK_EQ(grantpt(master), 0);
    CHECK_EQ(unlockpt(master), 0);
    char text[64];
    CHECK_EQ(ptsname_r(master, text, sizeof text), 0);
    name = text;
    slave = open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(slave >= 0);
  }
  ~Terminal() {
    if (master >= 0) close(master);
    if (slave >= 0) close(slave);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const char* keys) const {
    CHECK_EQ(write(master, keys, strlen(keys)), static_cast<ssize_t>(strlen(keys)));
  }
  /// Reads from the screen until `text` has appeared.
  std::string wait_for(const std::string& text) const {
    std::string seen;
    char byte;
    while (seen.find(text) == std::string::npos) {
      const ssize_t got = read(master, &byte, 1);
      if (got != 1) check::differs(__FILE__, __LINE__, "the screen ended before \"" + text + "\": " + seen);
      seen += byte;
    }
    return seen;
  }
};

/// A child whose controlling terminal is this one, its input, output and errors on it.
template <class Body>
pid_t in_session(Terminal& terminal, Body body) {
  fflush(stdout);
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    if (setsid() < 0 || ioctl(terminal.slave, TIOCSCTTY, 0) != 0) _exit(120);
    for (int fd = 0; fd < 3; ++fd) dup2(terminal.slave, fd);
    close(terminal.master);
    terminal.master = -1;
    _exit(body());
  }
  return pid;
}

int status_of(pid_t pid, int options = 0) {
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, options), pid);
  return status;
}

bool say(const char* text) { return write(1, text, strlen(text)) == static_cast<ssize_t>(strlen(text)); }

void settings() {
  Terminal terminal;
  CHECK(isatty(terminal.slave));
  char name[64] = {};
  CHECK_EQ(ttyname_r(terminal.slave, name, sizeof name), 0);
  CHECK_EQ(std::string(name), terminal.name);
  termios now{};
  CHECK_EQ(tcgetattr(terminal.slave, &now), 0);
  CHECK(now.c_lflag & ICANON);
  CHECK(now.c_lflag & ECHO);
  termios raw = now;
  cfmakeraw(&raw);
  raw.c_cc[VMIN] = 3;
  CHECK_EQ(cfsetspeed(&raw, B115200), 0);
  CHECK_EQ(tcsetattr(terminal.slave, TCSAFLUSH, &raw), 0);
  move_point();
  termios back{};
  CHECK_EQ(tcgetattr(terminal.slave, &back), 0);
  CHECK_EQ(back.c_lflag, raw.c_lflag);
  CHECK_EQ(static_cast<int>(back.c_cc[VMIN]), 3);
  CHECK_EQ(tcsetattr(terminal.slave, TCSANOW, &now), 0);
  CHECK_EQ(tcflush(terminal.slave, TCIOFLUSH), 0);
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  CHECK_FAILS(tcgetattr(ends[0], &now), ENOTTY);
  CHECK(!isatty(ends[0]));
  close(ends[0]);
  close(ends[1]);
}

void lines_are_edited() {
  Terminal terminal;
  terminal.type("abX\177c\n");  // erased by backspace
  char buffer[64] = {};
  CHECK_EQ(read(terminal.slave, buffer, sizeof buffer), 4);
  CHECK_EQ(std::string(buffer), "abc\n");
  terminal.type("gone\025kept\n");  // Ctrl-U
  CHECK_EQ(read(terminal.slave, buffer, sizeof buffer), 5);
  terminal.type("\004");  // Ctrl-D: end of file
  CHECK_EQ(read(terminal.slave, buffer, sizeof buffer), 0);
  CHECK_EQ(write(terminal.slave, "out\n", 4), 4);
  const std::string screen = terminal.wait_for("out\r\n");
  CHECK(screen.find("kept") != std::string::npos);
  int waiting = -1;
  terminal.type("x\n");
  pollfd watch{terminal.slave, POLLIN, 0};
  CHECK_EQ(poll(&watch, 1, -1), 1);
  CHECK_EQ(ioctl(terminal.slave, FIONREAD, &waiting), 0);
  CHECK_EQ(waiting, 2);
}

void raw_input_and_its_time_limit() {
  Terminal terminal;
  termios raw{};
  CHECK_EQ(tcgetattr(terminal.slave, &raw), 0);
  cfmakeraw(&raw);
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 1;
  CHECK_EQ(tcsetattr(terminal.slave, TCSANOW, &raw), 0);
  char byte = 0;
  const double start = check::seconds_of(CLOCK_MONOTONIC);
  CHECK_EQ(read(terminal.slave, &byte, 1), 0);
  CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.08);
  terminal.type("\003");
  CHECK_EQ(read(terminal.slave, &byte, 1), 1);
  CHECK_EQ(static_cast<int>(byte), 3);
}

void size_and_its_signal() {
  Terminal terminal;
  winsize size{40, 100, 0, 0};
  CHECK_EQ(ioctl(terminal.slave, TIOCSWINSZ, &size), 0);
  winsize back{};
  CHECK_EQ(ioctl(terminal.master, TIOCGWINSZ, &back), 0);
  CHECK_EQ(back.ws_row, 40);
  const pid_t child = in_session(terminal, []() -> int {
    sigset_t winch, before;
    sigemptyset(&winch);
    sigaddset(&winch, SIGWINCH);
    sigprocmask(SIG_BLOCK, &winch, &before);
    if (!say("ready\n")) return 1;
    int number = 0;
    if (sigwait(&winch, &number) != 0) return 2;
    winsize now{};
    if (ioctl(0, TIOCGWINSZ, &now) != 0) return 3;
    return now.ws_row == 50 && now.ws_col == 132 ? 0 : 4;
  });
  terminal.wait_for("ready");
  size = {50, 132, 0, 0};
  CHECK_EQ(ioctl(terminal.master, TIOCSWINSZ, &size), 0);
  CHECK_EQ(status_of(child), 0);
}

void controlling_terminal() {
  Terminal terminal;
  const pid_t child = in_session(terminal, [&]() -> int {
    const int tty = open("/dev/tty", O_RDWR);
    if (tty < 0 || !isatty(tty)) return 1;
    if (tcgetsid(0) != getpid() || tcgetpgrp(0) != getpid()) return 2;
    char name[64] = {};
    if (ttyname_r(0, name, sizeof name) != 0 || terminal.name != name) return 3;
    move_point();
    if (write(tty, "by its other name\n", 18) != 18) return 4;
    return 0;
  });
  terminal.wait_for("by its other name");
  CHECK_EQ(status_of(child), 0);
}

void keys_that_interrupt() {
  Terminal terminal;
  // A program that blocks, and one that computes, both end by Ctrl-C and Ctrl-\.
  struct Case {
    const char* key;
    bool computes;
    int number;
  };
  for (const Case& one : {Case{"\003", false, SIGINT}, {"\003", true, SIGINT}, {"\034", false, SIGQUIT}}) {
    const pid_t child = in_session(terminal, [&]() -> int {
      for (int number : {SIGINT, SIGQUIT}) signal(number, SIG_DFL);
      if (!say("ready\n")) return 1;
      while (one.computes) asm volatile("");
      char byte;
      (void)!read(0, &byte, 1);
      return 2;
    });
    terminal.wait_for("ready");
    terminal.type(one.key);
    const int status = status_of(child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), one.number);
  }
}

void stop_from_the_keyboard() {
  Terminal terminal;
  // A shell in little: its child stops by Ctrl-Z, is put in the foreground again and goes on.
  const pid_t shell = in_session(terminal, []() -> int {
    signal(SIGTTOU, SIG_IGN);
    signal(SIGTSTP, SIG_IGN);
    int gate[2];
    if (pipe(gate) != 0) return 1;
    const pid_t job = fork();
    if (job == 0) {
      setpgid(0, 0);
      close(gate[1]);
      char byte;
      (void)!read(gate[0], &byte, 1);
      signal(SIGTSTP, SIG_DFL);
      signal(SIGTTOU, SIG_DFL);
      if (!say("job runs\n")) _exit(1);
      char line[16];
      const ssize_t got = read(0, line, sizeof line);
      _exit(got == 5 ? 42 : 3);
    }
    setpgid(job, job);
    if (tcsetpgrp(0, job) != 0) return 2;
    close(gate[0]);
    close(gate[1]);
    int status = 0;
    if (waitpid(job, &status, WUNTRACED) != job || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTSTP)
      return 3;
    if (tcsetpgrp(0, getpgrp()) != 0) return 4;
    if (!say("job stopped\n")) return 5;
    if (tcsetpgrp(0, job) != 0 || kill(-job, SIGCONT) != 0) return 6;
    if (waitpid(job, &status, 0) != job) return 7;
    tcsetpgrp(0, getpgrp());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 8;
  });
  terminal.wait_for("job runs");
  terminal.type("\032");
  terminal.wait_for("job stopped");
  terminal.type("more\n");
  CHECK_EQ(WEXITSTATUS(status_of(shell)), 42);
}

void background_jobs_are_held_back() {
  Terminal terminal;
  const pid_t shell = in_session(terminal, []() -> int {
    signal(SIGTTOU, SIG_IGN);
    const pid_t reader = fork();
    if (reader == 0) {
      setpgid(0, 0);
      char byte;
      (void)!read(0, &byte, 1);
      _exit(1);
    }
    setpgid(reader, reader);
    int status = 0;
    if (waitpid(reader, &status, WUNTRACED) != reader) return 1;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTTIN) return 2;
    kill(-reader, SIGKILL);
    if (waitpid(reader, &status, 0) != reader) return 3;
    termios now{};
    if (tcgetattr(0, &now) != 0) return 4;
    now.c_lflag |= TOSTOP;
    if (tcsetattr(0, TCSANOW, &now) != 0) return 5;
    const pid_t writer = fork();
    if (writer == 0) {
      setpgid(0, 0);
      signal(SIGTTOU, SIG_DFL);
      say("never seen\n");
      _exit(1);
    }
    setpgid(writer, writer);
    if (waitpid(writer, &status, WUNTRACED) != writer) return 6;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTTOU) return 7;
    kill(-writer, SIGKILL);
    return waitpid(writer, &status, 0) == writer ? 0 : 8;
  });
  CHECK_EQ(status_of(shell), 0);
}

void hanging_up() {
  Terminal terminal;
  const pid_t child = in_session(terminal, []() -> int {
    signal(SIGHUP, SIG_DFL);
    if (!say("ready\n")) return 1;
    for (;;) pause();
  });
  terminal.wait_for("ready");
  close(terminal.slave);
  terminal.slave = -1;
  close(terminal.master);
  terminal.master = -1;
  const int status = status_of(child);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGHUP);
}

void a_shell_runs_in_it() {
  Terminal terminal;
  const pid_t child = in_session(terminal, []() -> int {
    setenv("PS1", "prompt> ", 1);
    setenv("TERM", "dumb", 1);
    unsetenv("ENV");
    execl("/bin/sh", "sh", "-i", static_cast<char*>(nullptr));
    return 126;
  });
  terminal.wait_for("prompt> ");
  terminal.type("echo $((6 * 7))-answer\n");
  terminal.wait_for("42-answer");
  terminal.wait_for("prompt> ");
  terminal.type("stty size; exit 9\n");
  CHECK_EQ(WEXITSTATUS(status_of(child)), 9);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"settings", settings},
                     {"lines-are-edited", lines_are_edited},
                     {"raw-input-and-its-time-limit", raw_input_and_its_time_limit},
                     {"size-and-its-signal", size_and_its_signal},
                     {"controlling-terminal", controlling_terminal},
                     {"keys-that-interrupt", keys_that_interrupt},
                     {"stop-from-the-keyboard", stop_from_the_keyboard},
                     {"background-jobs-are-held-back", background_jobs_are_held_back},
                     {"hanging-up", hanging_up},
                     {"a-shell-runs-in-it", a_shell_runs_in_it}});
}
