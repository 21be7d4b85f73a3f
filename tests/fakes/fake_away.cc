#include "tests/fakes/fake_away.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "libmosix/common/limits.h"
#include "libmosix/common/membership.h"
#include "libmosix/common/net.h"
#include "libmosix/process/pagemap.h"

namespace mosix {
namespace {

constexpr int kPatienceMs = 20'000;

template <class T>
T must(Result<T> result) {
  if (!result) FAIL(result.error().message());
  return std::move(*result);
}
void must(Status status) {
  if (!status) FAIL(status.error().message());
}

UniqueFd accept_one(int listener) {
  pollfd ready{listener, POLLIN, 0};
  REQUIRE(poll(&ready, 1, kPatienceMs) == 1);
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(fd.get() >= 0);
  int one = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  set_receive_timeout(fd.get(), kPatienceMs);
  return fd;
}

struct ReceivedFrame {
  FrameHeader header{};
  std::vector<uint8_t> body;
};

ReceivedFrame receive_frame(int channel) {
  ReceivedFrame frame;
  must(receive_exactly(channel, &frame.header, sizeof frame.header));
  frame.body.resize(frame.header.length);
  if (!frame.body.empty()) must(receive_exactly(channel, frame.body.data(), frame.body.size()));
  return frame;
}

}  // namespace

// --- the supervisor -----------------------------------------------------------------------------------

FakeSupervisor::FakeSupervisor(std::string name) : name_(std::move(name)) {
  listener_ = must(listen_tcp("127.0.0.1", 0));
  theirs_ = must(dial_tcp("127.0.0.1", local_port(listener_.get()), 5000));
  control_ = accept_one(listener_.get());
}

UniqueFd FakeSupervisor::take_connection() { return std::move(theirs_); }

void FakeSupervisor::break_connection() { control_.reset(); }

void FakeSupervisor::send_bytes(ControlType type, const Bytes& body) {
  must(send_control(control_.get(), static_cast<uint16_t>(type), body));
}

ControlMessage FakeSupervisor::expect(ControlType type) {
  ControlMessage message = must(receive_control(control_.get()));
  REQUIRE(message.type == static_cast<uint16_t>(type));
  return message;
}

ControlMessage FakeSupervisor::expect_after_pages(ControlType type) {
  for (;;) {
    ControlMessage message = must(receive_control(control_.get()));
    if (message.type == static_cast<uint16_t>(ControlType::kPages)) continue;
    REQUIRE(message.type == static_cast<uint16_t>(type));
    return message;
  }
}

ThreadState& FakeSupervisor::thread(int pid, int tid) {
  for (ThreadState& thread : guests_.at(pid).state.threads)
    if (thread.tid == tid) return thread;
  FAIL("no such thread");
  abort();
}

void FakeSupervisor::receive_guest(int pid, std::optional<ControlType> stop_before) {
  auto reserve = expect_as<Reserve>(ControlType::kReserve);
  REQUIRE(reserve.pid == pid);
  FakeGuest& guest = guests_[pid];
  guest = FakeGuest{};
  guest.epoch = reserve.epoch;
  fill_random(guest.token, sizeof guest.token);
  if (stop_before == ControlType::kReserved) return;
  send(ControlType::kReserved, reserved(pid));
  guest.state = expect_as<ProcessState>(ControlType::kImageState);
  CHECK(guest.state.pid == pid);
  CHECK(guest.state.actions.size() == 64);
  CHECK(guest.state.mm.size() == 11);
  if (stop_before == ControlType::kNeed) return;
  FileNeed need{pid, {}};
  for (uint32_t i = 0; i < guest.state.areas.size(); ++i)
    if (!knows_files_ && guest.state.areas[i].kind == AreaKind::kFile) need.areas.push_back(i);
  send(ControlType::kNeed, need);
  for (;;) {
    ControlMessage message = must(receive_control(control_.get()));
    if (message.type == static_cast<uint16_t>(ControlType::kImageEnd)) break;
    bool file = message.type == static_cast<uint16_t>(ControlType::kFilePages);
    REQUIRE((file || message.type == static_cast<uint16_t>(ControlType::kPages)));
    auto run = must(decode_message<PageRun>(message.body));
    auto& pages = file ? guest.file_pages : guest.pages;
    for (size_t at = 0; at < run.data.size(); at += kPageBytes)
      pages[run.address + at].assign(run.data.begin() + static_cast<long>(at),
                                     run.data.begin() + static_cast<long>(at + kPageBytes));
  }
  if (stop_before == ControlType::kReady) return;
  send(ControlType::kReady, ProcessRef{pid, guest.epoch});
  auto go = expect_as<ProcessRef>(ControlType::kGo);
  CHECK(go.epoch == guest.epoch);
  meet_deputies(guest);
  if (stop_before == ControlType::kRunning) return;
  send(ControlType::kRunning, ProcessRef{pid, guest.epoch});
}

Reserved FakeSupervisor::reserved(int pid) {
  Reserved reserved{pid, static_cast<uint16_t>(local_port(listener_.get())), {}};
  memcpy(reserved.token, guests_.at(pid).token, sizeof reserved.token);
  return reserved;
}

FakeGuest& FakeSupervisor::adopt(const FakeGuest& other, uint32_t epoch) {
  FakeGuest& guest = guests_[other.state.pid];
  guest.state = other.state;
  guest.pages = other.pages;
  guest.epoch = epoch;
  fill_random(guest.token, sizeof guest.token);
  return guest;
}

void FakeSupervisor::accept_channels(FakeGuest& guest, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    UniqueFd channel = accept_one(listener_.get());
    ReceivedFrame hello = receive_frame(channel.get());
    REQUIRE(hello.header.type == static_cast<uint16_t>(FrameType::kHello));
    HelloBody body{};
    REQUIRE(hello.body.size() == sizeof body);
    memcpy(&body, hello.body.data(), sizeof body);
    CHECK(memcmp(body.token, guest.token, sizeof body.token) == 0);
    CHECK(body.pid == guest.state.pid);
    send_frame(channel.get(), FrameType::kWelcome, 0, thread(body.pid, body.tid).signals_acked, nullptr, 0);
    guest.channels[body.tid] = std::move(channel);
  }
}

void FakeSupervisor::meet_deputies(FakeGuest& guest) {
  accept_channels(guest, guest.state.threads.size());
  for (ThreadState& thread : guest.state.threads)
    send_frame(guest.channels.at(thread.tid).get(), FrameType::kHear, ++sequence_, thread.signals_acked,
               nullptr, 0);
  for (ThreadState& thread : guest.state.threads) CHECK(wait_reply(guest.state.pid, thread.tid).result == 0);
}

void FakeSupervisor::send_pages_home(FakeGuest& guest) {
  Bytes run;
  uint64_t start = 0;
  auto flush = [&] {
    if (!run.empty()) send(ControlType::kPages, PageRun{guest.state.pid, start, run});
    run.clear();
  };
  for (auto& [address, page] : guest.pages) {
    if (address != start + run.size() || run.size() >= kPageRunBytes) flush();
    if (run.empty()) start = address;
    run.insert(run.end(), page.begin(), page.end());
  }
  flush();
}

void FakeSupervisor::give_back(int pid) {
  auto order = expect_as<MoveOrder>(ControlType::kBringHome);
  REQUIRE(order.pid == pid);
  FakeGuest& guest = guests_.at(pid);
  CHECK(order.epoch > guest.epoch);
  guest.state.epoch = order.epoch;
  send(ControlType::kImageState, guest.state);
  auto need = expect_as<FileNeed>(ControlType::kNeed);
  CHECK(need.areas.empty());
  send_pages_home(guest);
  send(ControlType::kImageEnd, ProcessRef{pid, order.epoch});
  auto done = expect_as<ProcessRef>(ControlType::kForget);
  CHECK(done.pid == pid);
  forget(pid);
}

void FakeSupervisor::send_frame(int channel, FrameType type, uint32_t sequence, uint32_t acked,
                                const void* body, size_t bytes) {
  FrameHeader header{};
  header.length = static_cast<uint32_t>(bytes);
  header.type = static_cast<uint16_t>(type);
  header.sequence = sequence;
  header.signals_acked = acked;
  std::vector<uint8_t> frame(sizeof header + bytes);
  memcpy(frame.data(), &header, sizeof header);
  if (bytes > 0) memcpy(frame.data() + sizeof header, body, bytes);
  must(send_fully(channel, frame.data(), frame.size()));
}

uint32_t FakeSupervisor::start_call(int pid, int tid, uint32_t number, std::vector<uint64_t> args,
                                    uint32_t relocs, const std::string& in, uint32_t out_bytes) {
  CallBody call{};
  call.number = number;
  call.arg_relocs = relocs;
  for (size_t i = 0; i < args.size(); ++i) call.args[i] = args[i];
  call.out_count = out_bytes > 0 ? 1 : 0;
  call.in_bytes = static_cast<uint32_t>(in.size());
  call.scratch_bytes = (std::max<uint32_t>(call.in_bytes, out_bytes) + 15) / 16 * 16;
  OutRegion out{0, out_bytes, static_cast<uint16_t>(OutRule::kResult), 0, 1};
  std::vector<uint8_t> body(sizeof call);
  memcpy(body.data(), &call, sizeof call);
  auto append = [&](const void* data, size_t bytes) {
    auto* first = static_cast<const uint8_t*>(data);
    body.insert(body.end(), first, first + bytes);
  };
  if (out_bytes > 0) append(&out, sizeof out);
  append(in.data(), in.size());
  body.resize((body.size() + 7) / 8 * 8);
  send_frame(guests_.at(pid).channels.at(tid).get(), FrameType::kCall, ++sequence_,
             thread(pid, tid).signals_acked, body.data(), body.size());
  return sequence_;
}

FakeReply FakeSupervisor::wait_reply(int pid, int tid) {
  ReceivedFrame frame = receive_frame(guests_.at(pid).channels.at(tid).get());
  REQUIRE(frame.header.type == static_cast<uint16_t>(FrameType::kReply));
  ReplyBody body{};
  REQUIRE(frame.body.size() >= sizeof body);
  memcpy(&body, frame.body.data(), sizeof body);
  FakeReply reply{body.result, static_cast<Verdict>(body.verdict), {}, {}};
  size_t at = sizeof body + (body.out_count * 4 + 7) / 8 * 8;
  if (body.out_count == 1) {
    uint32_t length;
    memcpy(&length, frame.body.data() + sizeof body, 4);
    REQUIRE(at + length <= frame.body.size());
    reply.data.assign(frame.body.data() + at, frame.body.data() + at + length);
    at += (length + 7) / 8 * 8;
  }
  for (int i = 0; i < body.signal_count; ++i, at += sizeof(Siginfo)) {
    REQUIRE(at + sizeof(Siginfo) <= frame.body.size());
    memcpy(&reply.signals.emplace_back(), frame.body.data() + at, sizeof(Siginfo));
  }
  CHECK(at == frame.body.size());
  return reply;
}

FakeReply FakeSupervisor::call(int pid, int tid, uint32_t number, std::vector<uint64_t> args, uint32_t relocs,
                               const std::string& in, uint32_t out_bytes) {
  start_call(pid, tid, number, std::move(args), relocs, in, out_bytes);
  return wait_reply(pid, tid);
}

Siginfo FakeSupervisor::wait_signal(int pid, int tid) {
  ReceivedFrame frame = receive_frame(guests_.at(pid).channels.at(tid).get());
  REQUIRE(frame.header.type == static_cast<uint16_t>(FrameType::kSignal));
  REQUIRE(frame.body.size() == sizeof(Siginfo));
  Siginfo info;
  memcpy(&info, frame.body.data(), sizeof info);
  return info;
}

void FakeSupervisor::acknowledge_signals(int pid, int tid, uint32_t number) {
  thread(pid, tid).signals_acked = number;
}

int64_t FakeSupervisor::fork_untold(int pid, int tid, int slot) {
  FakeGuest child;
  CloneBody order{};
  order.flags = SIGCHLD;
  order.slot = slot;
  order.child_epoch = guests_.at(pid).epoch;
  fill_random(child.token, sizeof child.token);
  memcpy(order.token, child.token, sizeof order.token);
  send_frame(guests_.at(pid).channels.at(tid).get(), FrameType::kClone, ++sequence_,
             thread(pid, tid).signals_acked, &order, sizeof order);
  FakeReply reply = wait_reply(pid, tid);
  if (reply.result <= 0) return reply.result;
  int child_pid = static_cast<int>(reply.result);
  child.epoch = order.child_epoch;
  child.state = guests_.at(pid).state;
  child.pages = guests_.at(pid).pages;
  child.state.pid = child_pid;
  ThreadState only = thread(pid, tid);
  only.tid = child_pid;
  only.slot = slot;
  only.signals_acked = 0;
  child.state.threads = {only};
  guests_[child_pid] = std::move(child);
  accept_channels(guests_.at(child_pid), 1);
  return child_pid;
}

void FakeSupervisor::exit(int pid, int tid, int status, bool whole_group) {
  ExitBody order{status, whole_group ? 1u : 0u};
  send_frame(guests_.at(pid).channels.at(tid).get(), FrameType::kExit, ++sequence_,
             thread(pid, tid).signals_acked, &order, sizeof order);
}

// --- mosixd -------------------------------------------------------------------------------------------

FakeMosixd::FakeMosixd(const std::string& custodian_path, std::vector<std::string> features_off) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  link_.reset(pair[0]);
  UniqueFd theirs(pair[1]);
  timeval limit{kPatienceMs / 1000, 0};
  setsockopt(link_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::string off;
  for (const std::string& feature : features_off) off += (off.empty() ? "" : ",") + feature;
  if (!off.empty()) setenv("MOSIX_FEATURES_OFF", off.c_str(), 1);
  if (theirs.get() == 3)
    fcntl(3, F_SETFD, 0);
  else
    dup2(theirs.get(), 3);
  execl(custodian_path.c_str(), "mosix-custodian", "--family", "test", "--node", "node1", nullptr);
  _exit(127);
}

FakeMosixd::~FakeMosixd() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

int64_t FakeMosixd::order(nlohmann::json order) {
  order["id"] = next_id_;
  must(send_link(link_.get(), order.dump()));
  return next_id_++;
}

nlohmann::json FakeMosixd::receive() {
  LinkMessage message = must(receive_link(link_.get()));
  return nlohmann::json::parse(message.text);
}

bool FakeMosixd::answer_dial(const nlohmann::json& event) {
  if (event.at("event") != "dial") return false;
  auto node = nodes_.find(event.at("node").get<std::string>());
  nlohmann::json answer{{"op", "dialed"}, {"id", event.at("id")}, {"node", event.at("node")}};
  UniqueFd connection;
  if (node != nodes_.end()) connection = node->second->take_connection();
  answer["ok"] = static_cast<bool>(connection);
  if (!connection) answer["error"] = "no such node", answer["code"] = ENOENT;
  must(send_link(link_.get(), answer.dump(), connection.get()));
  return true;
}

void FakeMosixd::serve_dial() {
  for (;;) {
    nlohmann::json event = receive();
    if (answer_dial(event)) return;
    kept_.push_back(std::move(event));
  }
}

nlohmann::json FakeMosixd::wait_event(const std::string& kind, int64_t id_or_pid) {
  const char* key = kind == "reply" ? "id" : "pid";
  auto fits = [&](const nlohmann::json& event) {
    return event.at("event") == kind && event.at(key) == id_or_pid;
  };
  for (auto at = kept_.begin(); at != kept_.end(); ++at)
    if (fits(*at)) {
      nlohmann::json event = std::move(*at);
      kept_.erase(at);
      return event;
    }
  for (;;) {
    nlohmann::json event = receive();
    if (answer_dial(event)) continue;
    if (fits(event)) return event;
    kept_.push_back(std::move(event));
  }
}

int FakeMosixd::wait_end() {
  int status = 0;
  REQUIRE(waitpid(pid_, &status, 0) == pid_);
  pid_ = -1;
  return status;
}

}  // namespace mosix
