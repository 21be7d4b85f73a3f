// The custodian and the agent, against real processes and stand-ins for mosixd and the supervisor: out, calls
// by the deputies, and home again, where the process must go on as if nothing had happened and with nothing
// of ours left in it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "libmosix/agent/agent.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/proc_stat.h"
#include "tests/fakes/fake_away.h"
#include "tests/unit/process_child.h"

using namespace mosix;
using nlohmann::json;

namespace {

constexpr uint64_t kWindowsStart = 0x100000000000, kWindowsEnd = 0x510000000000;

bool has_mapping(int pid, uint64_t start, uint64_t end) {
  std::vector<MapEntry> maps = read_maps(pid).value();
  for (const MapEntry& entry : maps)
    if (entry.path != "[heap]" && entry.start < end && entry.end > start) return true;
  return false;
}

/// A static program's own heap lies there once in some twenty times.
bool has_ring_places(int pid) { return has_mapping(pid, kRingFill, kRingEnd); }
bool has_window(int pid) { return has_mapping(pid, kWindowsStart, kWindowsEnd); }

size_t descriptor_count(int pid) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
    count += entry.path().empty() ? 0 : 1;
  return count;
}

struct Counts {
  long progress = -1, signals = -1, faults = -1;
};

Counts ask(Child& child) {
  child.say("?\n");
  Counts counts;
  std::string line = child.hear();
  REQUIRE(sscanf(line.c_str(), "%ld %ld %ld", &counts.progress, &counts.signals, &counts.faults) == 3);
  return counts;
}

Child& ready(Child& child) {
  REQUIRE(child.hear() == "ready");
  return child;
}

int64_t order_move(FakeMosixd& mosixd, int pid, const std::string& to) {
  return mosixd.order({{"op", "migrate"}, {"pid", pid}, {"to", to}});
}

void move_out(FakeMosixd& mosixd, FakeSupervisor& node, int pid, bool first) {
  int64_t id = order_move(mosixd, pid, node.name());
  if (first) mosixd.serve_dial();
  node.receive_guest(pid);
  json reply = mosixd.wait_reply(id);
  INFO(reply.dump());
  REQUIRE(reply.at("ok") == true);
}

void move_home(FakeMosixd& mosixd, FakeSupervisor& node, int pid) {
  int64_t id = order_move(mosixd, pid, "home");
  node.give_back(pid);
  json reply = mosixd.wait_reply(id);
  INFO(reply.dump());
  REQUIRE(reply.at("ok") == true);
}

void wait_for_progress(Child& child, long beyond) {
  for (int i = 0; i < 2000; ++i) {
    if (ask(child).progress > beyond) return;
    usleep(2000);
  }
  FAIL("it does not go on");
}

void round_trips(const char* program, const char* life, int count, std::vector<std::string> features_off = {},
                 bool with_ring_places = false) {
  bool with_ring = features_off.empty() || with_ring_places;
  FakeMosixd mosixd(CUSTODIAN, std::move(features_off));
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({program, life});
  ready(child);
  int pid = child.pid();
  size_t descriptors = descriptor_count(pid);
  for (int i = 0; i < count; ++i) {
    INFO("trip " << i << " of " << program << " " << life);
    Counts before = ask(child);
    move_out(mosixd, node, pid, i == 0);
    CHECK(has_window(pid));
    CHECK(has_ring_places(pid) == with_ring_places);
    if (with_ring) CHECK(descriptor_count(pid) == descriptors);
    for (auto& [tid, channel] : node.guest(pid).channels) {
      CHECK(node.call(pid, tid, SYS_getppid, {}).result == getpid());
      CHECK(node.call(pid, tid, SYS_gettid, {}).result == tid);
    }
    move_home(mosixd, node, pid);
    CHECK_FALSE(has_window(pid));
    CHECK_FALSE(has_ring_places(pid));
    CHECK(descriptor_count(pid) == descriptors);
    CHECK(ask(child).faults == 0);
    if (strcmp(life, "read") != 0) wait_for_progress(child, before.progress + 3);
  }
  child.end_input();
  CHECK(child.finish() == 0);
  mosixd.wait_event("gone", pid);
  CHECK(mosixd.wait_end() == 0);
}

}  // namespace

TEST_CASE("fifty round trips: blocked in read") { round_trips(TARGET, "read", 50); }
TEST_CASE("fifty round trips: a sleeping thread") { round_trips(TARGET, "sleep", 50); }
TEST_CASE("fifty round trips: a polling thread") { round_trips(TARGET, "poll", 50); }
TEST_CASE("fifty round trips: five threads with a mutex") { round_trips(TARGET, "threads", 50); }
TEST_CASE("twenty round trips: static") { round_trips(TARGET_STATIC, "threads", 20); }
TEST_CASE("ten round trips: rings with a descriptor") {
  round_trips(TARGET, "threads", 10, {"ring_without_fd"}, true);
}
TEST_CASE("ten round trips: no io_uring") { round_trips(TARGET, "threads", 10, {"io_uring"}); }
TEST_CASE("ten round trips: all new features off") { round_trips(TARGET, "threads", 10, {"all"}); }

TEST_CASE("python goes out and home") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({"/bin/sh", "-c",
               "p=/usr/bin/python3; [ -x $p ] || p=python3; exec $p -uc 'import "
               "sys\nprint(\"ready\")\nn=0\nfor line in sys.stdin:\n"
               "  n+=sum(i*i for i in range(1000)); print(n, 0, 0)'"});
  ready(child);
  for (int i = 1; i <= 20; ++i) {
    move_out(mosixd, node, child.pid(), i == 1);
    move_home(mosixd, node, child.pid());
    CHECK(ask(child).progress == i * 332833500L);
  }
  child.end_input();
  CHECK(child.finish() == 0);
}

TEST_CASE("deputies carry out calls") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({TARGET, "read"});
  ready(child);
  int pid = child.pid();
  move_out(mosixd, node, pid, true);

  SUBCASE("write") {
    CHECK(node.call(pid, pid, SYS_write, {1, 0, 6}, 0b10, "hello\n").result == 6);
    CHECK(child.hear() == "hello");
    CHECK(node.call(pid, pid, SYS_write, {99, 0, 6}, 0b10, "hello\n").result == -EBADF);
  }
  SUBCASE("read, large") {
    int64_t fd = node.call(pid, pid, SYS_openat, {static_cast<uint64_t>(-100), 0, 0}, 0b10,
                           std::string("/dev/zero") + '\0')
                     .result;
    REQUIRE(fd > 2);
    FakeReply reply =
        node.call(pid, pid, SYS_read, {static_cast<uint64_t>(fd), 0, 20 << 20}, 0b10, "", 20 << 20);
    CHECK(reply.result == 20 << 20);
    CHECK(reply.data.size() == 20 << 20);
    reply = node.call(pid, pid, SYS_read, {static_cast<uint64_t>(fd), 0, 100'001}, 0b10, "", 100'001);
    CHECK(reply.data.size() == 100'001);
    CHECK(node.call(pid, pid, SYS_close, {static_cast<uint64_t>(fd)}).result == 0);
  }
  SUBCASE("a blocking read that is aborted, then made again") {
    for (int i = 0; i < 50; ++i) {
      uint32_t sequence = node.start_call(pid, pid, SYS_read, {0, 0, 64}, 0b10, "", 64);
      node.send(ControlType::kAbort, AbortOrder{pid, pid, sequence});
      FakeReply reply = node.wait_reply(pid, pid);
      CHECK(reply.verdict == Verdict::kRestart);
      CHECK((reply.result == -512 || reply.result == -513));
    }
    node.start_call(pid, pid, SYS_read, {0, 0, 64}, 0b10, "", 64);
    child.say("abc\n");
    FakeReply reply = node.wait_reply(pid, pid);
    CHECK(reply.result == 4);
    CHECK(std::string(reply.data.begin(), reply.data.end()) == "abc\n");
  }
  SUBCASE("a sleep that is aborted goes on with what is left") {
    timespec hour{3600, 0};
    std::string in(reinterpret_cast<char*>(&hour), sizeof hour);
    uint32_t sequence = node.start_call(pid, pid, SYS_nanosleep, {0, 0}, 0b01, in);
    usleep(10'000);  // not needed for the outcome: either way it is to be made again
    node.send(ControlType::kAbort, AbortOrder{pid, pid, sequence});
    FakeReply reply = node.wait_reply(pid, pid);
    CHECK(reply.verdict == Verdict::kRestart);
    CHECK((reply.result == -516 || reply.result == -513));
  }
  SUBCASE("an abort that comes too late does nothing") {
    FakeReply reply = node.call(pid, pid, SYS_getppid, {});
    node.send(ControlType::kAbort, AbortOrder{pid, pid, 1});
    for (int i = 0; i < 20; ++i) CHECK(node.call(pid, pid, SYS_getppid, {}).result == getpid());
  }
  SUBCASE("a signal interrupts a read, as its action says") {
    node.start_call(pid, pid, SYS_read, {0, 0, 64}, 0b10, "", 64);
    usleep(10'000);
    kill(pid, SIGUSR2);  // no SA_RESTART
    FakeReply reply = node.wait_reply(pid, pid);
    CHECK(reply.signals.size() == 1);
    CHECK(((reply.verdict == Verdict::kDone && reply.result == -EINTR) ||
           (reply.verdict == Verdict::kRestart && reply.result == -513)));
    node.acknowledge_signals(pid, pid, 1);
    node.start_call(pid, pid, SYS_read, {0, 0, 64}, 0b10, "", 64);
    usleep(10'000);
    kill(pid, SIGUSR1);  // SA_RESTART
    reply = node.wait_reply(pid, pid);
    CHECK(reply.verdict == Verdict::kRestart);
    CHECK(reply.signals.size() == 1);
    node.acknowledge_signals(pid, pid, 2);
  }
  SUBCASE(
      "a signal that comes while the guest computes is told at once, and goes on at home if nobody took it") {
    kill(pid, SIGUSR1);
    Siginfo info = node.wait_signal(pid, pid);
    int signal;
    memcpy(&signal, info.bytes, sizeof signal);
    CHECK(signal == SIGUSR1);
    // The guest has not been given it: a call must not be executed.
    CHECK(node.call(pid, pid, SYS_getppid, {}).verdict == Verdict::kRestart);
    move_home(mosixd, node, pid);
    CHECK(ask(child).signals == 1);
    move_out(mosixd, node, pid, false);
  }
  SUBCASE("fork, and the end of the child") {
    for (int i = 0; i < 10; ++i) {
      auto forked = static_cast<int>(node.fork(pid, pid, 1 + i));
      REQUIRE(forked > 0);
      json born = mosixd.wait_event("process", forked);
      CHECK(born.at("where") == "node2");
      CHECK(node.call(forked, forked, SYS_getppid, {}).result == pid);
      if (i % 2 == 1) {
        move_home(mosixd, node, forked);  // blocked in the same read as its parent
        CHECK_FALSE(has_window(forked));
        kill(forked, SIGKILL);
      } else {
        node.exit(forked, forked, 5, true);
        CHECK(node.expect_as<ProcessRef>(ControlType::kForget).pid == forked);
        node.forget(forked);
      }
      mosixd.wait_event("gone", forked);
      FakeReply reply = node.call(pid, pid, SYS_wait4, {static_cast<uint64_t>(forked), 0, 0, 0}, 0b10, "", 4);
      CHECK(reply.result == forked);
    }
  }
  SUBCASE("a child that is to be moved before its birth is told") {
    auto forked = static_cast<int>(node.fork_untold(pid, pid, 1));
    REQUIRE(forked > 0);
    int64_t asked = order_move(mosixd, forked, "node2");  // where it is, which nobody here knows yet
    CHECK_FALSE(mosixd.wait_reply(asked).at("ok").get<bool>());
    node.tell_birth(pid, forked, 1);
    while (mosixd.wait_event("process", forked).at("where") != "node2") continue;
    CHECK(node.call(forked, forked, SYS_getppid, {}).result == pid);
    move_home(mosixd, node, forked);
    kill(forked, SIGKILL);
    mosixd.wait_event("gone", forked);
    CHECK(node.call(pid, pid, SYS_wait4, {static_cast<uint64_t>(forked), 0, 0, 0}, 0b10, "", 4).result ==
          forked);
  }
  SUBCASE("exec at home") {
    node.send(ControlType::kExecAsk, ExecAsk{pid, pid, -100, 0, "/nonexistent"});
    CHECK(node.expect_as<ExecAnswer>(ControlType::kSeized).allowed == 1);
    CHECK(node.call(pid, pid, SYS_execve, {0, 0, 0}, 0b1, std::string("/nonexistent") + '\0').result ==
          -ENOENT);
    node.send(ControlType::kExecFailed, ThreadRef{pid, pid});
    node.send(ControlType::kExecAsk, ExecAsk{pid, pid, -100, 0, "/bin/cat"});
    CHECK(node.expect_as<ExecAnswer>(ControlType::kSeized).allowed == 1);
    node.start_call(pid, pid, SYS_execve, {0, 0, 0}, 0b1, std::string("/bin/cat") + '\0');
    CHECK(node.expect_as<ProcessRef>(ControlType::kExeced).pid == pid);
    node.forget(pid);
    child.say("still here\n");
    CHECK(child.hear() == "still here");
    CHECK_FALSE(has_window(pid));
    child.end_input();
    CHECK(child.finish() == 0);
    return;
  }
  SUBCASE("exec of a set-user-id program comes home first") {
    node.send(ControlType::kExecAsk, ExecAsk{pid, pid, -100, 0, "/usr/bin/passwd"});
    auto answer = node.expect_as<ExecAnswer>(ControlType::kSeized);
    CHECK(answer.allowed == (access("/usr/bin/passwd", F_OK) == 0 ? 0 : 1));
  }
  SUBCASE("stop and continue are told") {
    kill(pid, SIGSTOP);
    CHECK(node.expect_as<HoldOrder>(ControlType::kHold).stopped == 1);
    kill(pid, SIGCONT);
    CHECK(node.expect_as<HoldOrder>(ControlType::kHold).stopped == 0);
  }
  move_home(mosixd, node, pid);
  CHECK_FALSE(has_window(pid));
  child.say("?\n");
  std::string line = child.hear();
  CHECK(line.find(" 0") != std::string::npos);
  child.end_input();
  CHECK(child.finish() == 0);
}

TEST_CASE("a node that knows no file gets every mapped file, as memory has it") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  node.know_no_files();
  Child child({TARGET, "read"});
  ready(child);
  int pid = child.pid();
  ProcessMemory memory = ProcessMemory::open(pid).value();
  int64_t id = order_move(mosixd, pid, "node2");
  mosixd.serve_dial();
  node.receive_guest(pid);
  CHECK(mosixd.wait_reply(id).at("ok") == true);
  size_t compared = 0;
  for (const Area& area : node.guest(pid).state.areas) {
    if (area.kind != AreaKind::kFile) continue;
    for (uint64_t at = area.start; at < area.end; at += 4096) {
      if (node.guest(pid).pages.count(at) != 0) continue;  // written since it was mapped
      Bytes here(4096);
      if (!memory.read(at, here.data(), here.size())) continue;
      REQUIRE(node.guest(pid).file_pages.count(at) == 1);
      CHECK(node.guest(pid).file_pages[at] == here);
      ++compared;
    }
  }
  CHECK(compared > 100);
  move_home(mosixd, node, pid);
  CHECK(ask(child).faults == 0);
}

TEST_CASE("a move that fails leaves the process as it was") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({TARGET, "threads"});
  ready(child);
  int pid = child.pid();
  bool first = true;
  for (ControlType stage :
       {ControlType::kReserved, ControlType::kNeed, ControlType::kReady, ControlType::kRunning}) {
    INFO("before message " << static_cast<int>(stage));
    Counts before = ask(child);
    int64_t id = order_move(mosixd, pid, "node2");
    if (first) mosixd.serve_dial();
    first = false;
    node.receive_guest(pid, stage);
    if (stage == ControlType::kNeed) {
      // What it sends next is only known after the answer.
      node.send(ControlType::kFailed, Refusal{pid, ENOMEM, "no room"});
    } else {
      node.send(stage == ControlType::kReserved ? ControlType::kRefuse : ControlType::kFailed,
                Refusal{pid, ENOMEM, "no room"});
    }
    // Pages need not wait for kNeed: they may be on their way when the refusal comes.
    if (stage == ControlType::kNeed)
      node.expect_after_pages(ControlType::kForget);
    else
      node.expect(ControlType::kForget);
    json reply = mosixd.wait_reply(id);
    CHECK(reply.at("ok") == false);
    CHECK(reply.at("error").get<std::string>().find("no room") != std::string::npos);
    CHECK_FALSE(has_window(pid));
    wait_for_progress(child, before.progress + 3);
    CHECK(ask(child).faults == 0);
  }
}

TEST_CASE("a move that fails leaves a write in its middle as it was") {
  for (ControlType stage : {ControlType::kNeed, ControlType::kReady, ControlType::kRunning}) {
    INFO("before message " << static_cast<int>(stage));
    FakeMosixd mosixd(CUSTODIAN);
    FakeSupervisor node("node2");
    mosixd.add_node(node);
    Child child({TARGET, "write"});
    ready(child);
    int pid = child.pid();
    auto waits_for_room = [pid] {
      Result<std::string> call = read_proc_file(pid, "syscall");
      Result<ProcStat> stat = read_proc_stat(pid);
      return call && call->rfind("1 ", 0) == 0 && stat && stat->state == 'S';
    };
    child.say("x\n");
    for (int i = 0; i < 5000 && !waits_for_room(); ++i) usleep(1000);
    CHECK(waits_for_room());
    int64_t id = order_move(mosixd, pid, "node2");
    mosixd.serve_dial();
    node.receive_guest(pid, stage);
    node.send(ControlType::kFailed, Refusal{pid, ENOMEM, "no room"});
    node.expect_after_pages(ControlType::kForget);
    CHECK(mosixd.wait_reply(id).at("ok") == false);
    // The custodian may end meanwhile: it has nobody to look after.
    CHECK_EQ(child.hear().size(), (1 << 20) - 1);
    CHECK_EQ(child.hear(), std::to_string(1 << 20));
    child.end_input();
    CHECK(child.finish() == 0);
  }
}

TEST_CASE("killed in the middle of a move") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({TARGET, "threads"});
  ready(child);
  int pid = child.pid();
  int64_t id = order_move(mosixd, pid, "node2");
  mosixd.serve_dial();
  node.receive_guest(pid, ControlType::kReady);
  kill(pid, SIGKILL);  // stopped, in the hands of the custodian, which waits for the node
  int status = child.finish();
  CHECK(WIFSIGNALED(status));
  CHECK(mosixd.wait_reply(id).at("ok") == false);
  mosixd.wait_event("gone", pid);
  CHECK(mosixd.wait_end() == 0);
}

TEST_CASE("the node is lost") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  Child child({TARGET, "threads"});
  ready(child);
  int pid = child.pid();
  SUBCASE("before the guest has made a call: it goes on at home") {
    Counts before = ask(child);
    move_out(mosixd, node, pid, true);
    node.guest(pid).channels.clear();
    node.break_connection();
    wait_for_progress(child, before.progress + 3);
    CHECK(ask(child).faults == 0);
    CHECK_FALSE(has_window(pid));
  }
  SUBCASE("after a call: it ends") {
    move_out(mosixd, node, pid, true);
    CHECK(node.call(pid, pid, SYS_getppid, {}).result == getpid());
    node.break_connection();
    mosixd.wait_event("gone", pid);
    int status = child.finish();
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);
  }
}

TEST_CASE("from one node to another") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor here("node2"), there("node3");
  mosixd.add_node(here);
  mosixd.add_node(there);
  Child child({TARGET, "threads"});
  ready(child);
  int pid = child.pid();
  move_out(mosixd, here, pid, true);
  CHECK(here.call(pid, pid, SYS_getppid, {}).result == getpid());

  int64_t id = order_move(mosixd, pid, "node3");
  mosixd.serve_dial();
  auto reserve = there.expect_as<Reserve>(ControlType::kReserve);
  bool fails = false;
  SUBCASE("goes") {}
  SUBCASE("fails, and stays") { fails = true; }
  FakeGuest& arrived = there.adopt(here.guest(pid), reserve.epoch);
  Reserved reserved = there.reserved(pid);
  there.send(ControlType::kReserved, reserved);
  auto order = here.expect_as<MoveOrder>(ControlType::kMoveTo);
  CHECK(order.port == reserved.port);
  there.send(ControlType::kReady, ProcessRef{pid, reserve.epoch});
  CHECK(there.expect_as<ProcessRef>(ControlType::kGo).pid == pid);
  there.meet_deputies(arrived);
  if (fails) {
    there.send(ControlType::kFailed, Refusal{pid, EIO, "broken"});
    there.expect(ControlType::kForget);
    CHECK(here.expect_as<ResumeOrder>(ControlType::kResume).fresh_channels == 1);
    here.meet_deputies(here.guest(pid));
    CHECK(mosixd.wait_reply(id).at("ok") == false);
    CHECK(here.call(pid, pid, SYS_getppid, {}).result == getpid());
    move_home(mosixd, here, pid);
  } else {
    there.send(ControlType::kRunning, ProcessRef{pid, reserve.epoch});
    here.expect(ControlType::kForget);
    CHECK(mosixd.wait_reply(id).at("ok") == true);
    CHECK(there.call(pid, pid, SYS_getppid, {}).result == getpid());
    move_home(mosixd, there, pid);
  }
  Counts counts = ask(child);
  CHECK(counts.faults == 0);
  wait_for_progress(child, counts.progress);
}

TEST_CASE("mosrun's exec is taken to its node before the first instruction") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  // Says its line, waits for ours, becomes the program.
  Child child({"/bin/sh", "-c", "echo waiting; read line; exec " TARGET " read"});
  REQUIRE(child.hear() == "waiting");
  int pid = child.pid();
  bool require = false;
  bool refuse = false;
  SUBCASE("and runs there") {}
  SUBCASE("and runs at home if that fails") { refuse = true; }
  SUBCASE("and ends if it must not run at home") { refuse = require = true; }
  int64_t id = mosixd.order(
      {{"op", "watch_exec"}, {"pid", pid}, {"node", "node2"}, {"require", require}, {"hold", true}});
  mosixd.serve_dial();
  CHECK(mosixd.wait_reply(id).at("ok") == true);
  child.say("go\n");
  if (refuse) {
    node.receive_guest(pid, ControlType::kReserved);
    node.send(ControlType::kRefuse, Refusal{pid, EPERM, "full"});
  } else {
    node.receive_guest(pid);
    CHECK(node.guest(pid).state.threads.size() == 1);
    mosixd.wait_event("process", pid);
    CHECK(node.call(pid, pid, SYS_getppid, {}).result == getpid());
    move_home(mosixd, node, pid);
  }
  if (require) {
    int status = child.finish();
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 125);
    return;
  }
  ready(child);
  CHECK(ask(child).faults == 0);
  child.end_input();
  CHECK(child.finish() == 0);
}

TEST_CASE("what cannot be moved is told") {
  FakeMosixd mosixd(CUSTODIAN);
  FakeSupervisor node("node2");
  mosixd.add_node(node);
  auto refused = [&](int pid, bool dials) {
    int64_t id = order_move(mosixd, pid, "node2");
    if (dials) mosixd.serve_dial();
    json reply = mosixd.wait_reply(id);
    CHECK(reply.at("ok") == false);
    return reply.at("error").get<std::string>();
  };
  Child child({TARGET, "read"});
  ready(child);
  kill(child.pid(), SIGSTOP);
  siginfo_t info;
  REQUIRE(waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED) == 0);
  CHECK(refused(child.pid(), true).find("stopped") != std::string::npos);
  CHECK(refused(2, false).find("kernel") != std::string::npos);
  CHECK(refused(4'000'000, false).find("no process") != std::string::npos);
}
