#include "remote/supervisor.h"

#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "libmosix/common/net.h"
#include "libmosix/process/proc_stat.h"
#include "remote/image_queue.h"

namespace mosix {
namespace {

/// mosixd answers at once. One that hangs does not keep a program from forking.
constexpr auto kLetInLimit = std::chrono::seconds(2);

/// A message about one process begins with its pid.
int message_pid(const ControlMessage& message) {
  int32_t pid = 0;
  Decoder decoder(message.body.data(), message.body.size());
  decoder(pid);
  return decoder.ok() ? pid : 0;
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {}

int Supervisor::run() {
  // Many threads that do little: one arena, and what is freed goes back.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, 256 << 10);
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  wake_fd_.reset(eventfd(0, EFD_CLOEXEC));
  if (Status listening = start_listening(); !listening) {
    log_error(listening.error().message());
    return 1;
  }
  std::thread([this] { read_control(); }).detach();
  for (;;) {
    int sandbox_events;
    bool lost;
    {
      std::lock_guard lock(sandbox_mutex_);
      sandbox_events = sandbox_ ? sandbox_->event_fd() : -1;
    }
    {
      std::lock_guard lock(control_mutex_);
      lost = control_lost_;
    }
    if (lost) break;
    pollfd sources[3] = {
        {options_.link_fd, POLLIN, 0}, {sandbox_events, POLLIN, 0}, {wake_fd_.get(), POLLIN, 0}};
    int n = poll(sources, 3, 1000);
    uint64_t wakes;
    if (n > 0 && sources[2].revents != 0) [[maybe_unused]]
      ssize_t ignored = read(wake_fd_.get(), &wakes, sizeof wakes);
    if (n > 0 && sources[0].revents != 0) serve_link();
    if (n > 0 && sources[1].revents != 0) watch_sandbox();
    tick();
  }
  // Home is gone, or needs us no more: what is left of the guests ends with the sandbox.
  {
    std::unique_lock lock(registry_mutex_);
    for (auto& [pid, queue] : image_queues_) queue->close();
    for (auto& [pid, guest] : guests_)
      log_info("guest " + std::to_string(pid) + " ended with its home connection");
  }
  // Threads are blocked on channels and notifications; they end with the process.
  _exit(0);
}

void Supervisor::read_control() {
  Bytes pages;
  auto sinks = [this](int pid) { return sink_of(pid); };
  for (;;) {
    Result<ControlMessage> message = receive_control(options_.control_fd, sinks, pages);
    if (!message) {
      if (message.error().code != EPIPE) log_error("control connection: " + message.error().message());
      std::lock_guard lock(control_mutex_);
      control_lost_ = true;
      eventfd_write(wake_fd_.get(), 1);
      return;
    }
    serve_control(std::move(*message));
  }
}

void Supervisor::serve_control(ControlMessage message) {
  auto type = static_cast<ControlType>(message.type);
  int pid = message_pid(message);
  // One decoder for all: a message that does not decode is dropped with a line in the log.
  auto decoded = [&]<class M>(auto&& act, M*) {
    Result<M> value = decode_message<M>(message.body);
    if (value)
      act(*value);
    else
      log_error("control message " + std::to_string(message.type) + ": " + value.error().message());
  };
  switch (type) {
    case ControlType::kReserve:
      // The queue is there before the next message is read: none of this process's can miss it.
      return decoded(
          [&](const Reserve& order) {
            if (order.monotonic_ns != 0) note_home_clocks({0, order.monotonic_ns, order.boottime_ns});
            auto queue = open_queue(order.pid);
            std::thread([this, order, queue] { build_guest(order, queue); }).detach();
          },
          static_cast<Reserve*>(nullptr));
    case ControlType::kClockTell:
      return decoded([&](const ClockReading& told) { note_home_clocks(told); },
                     static_cast<ClockReading*>(nullptr));
    case ControlType::kBringHome:
    case ControlType::kMoveTo:
      return decoded(
          [&](const MoveOrder& order) {
            bool home = type == ControlType::kBringHome;
            auto queue = open_queue(order.pid);
            std::thread([this, order, home, queue] { move_guest(order, home, queue); }).detach();
          },
          static_cast<MoveOrder*>(nullptr));
    case ControlType::kExeced:
    case ControlType::kForget: {
      std::shared_ptr<Guest> guest = find_guest(pid);
      if (guest != nullptr) {
        std::lock_guard lock(guest->mutex);
        guest->left = true;
        guest->changed.notify_all();
      }
      // A process that is being built or is frozen is dropped by the thread that has it under ptrace; if that one
      // has just stopped listening, `left` tells it.
      if (queue_message(pid, message) || guest == nullptr) return;
      kill_guest(*guest);
      if (type == ControlType::kForget) keep_for_parent(*guest);
      drop_guest(guest);
      return;
    }
    case ControlType::kHold:
      return decoded([&](const HoldOrder& order) { note_hold(order); }, static_cast<HoldOrder*>(nullptr));
    case ControlType::kSeized:
      return decoded(
          [&](const ExecAnswer& answer) {
            std::unique_lock lock(registry_mutex_);
            exec_answers_[answer.pid] = answer;
            registry_changed_.notify_all();
          },
          static_cast<ExecAnswer*>(nullptr));
    case ControlType::kCpuTell:
      return decoded(
          [&](const CpuReading& told) {
            std::unique_lock lock(registry_mutex_);
            auto asked = child_times_.find(told.pid);
            if (asked != child_times_.end()) asked->second = told.cpu;
            registry_changed_.notify_all();
          },
          static_cast<CpuReading*>(nullptr));
    case ControlType::kFileTold:
      return decoded(
          [&](const FileTold& told) {
            std::unique_lock lock(registry_mutex_);
            auto asked = file_answers_.find(told.question);
            if (asked == file_answers_.end()) return give_back({told.device, told.inode}, told.binding);
            asked->second = told;
            registry_changed_.notify_all();
          },
          static_cast<FileTold*>(nullptr));
    case ControlType::kFileContents:
      return decoded(
          [&](const FileWrite& part) {
            Result<BoundPin> file = bound_.open({part.device, part.inode}, part.size, part.binding);
            Status put = file ? (*file)->put(part.offset, part.data) : Status(fail(file.error()));
            if (!put) log_error(put.error().message());
          },
          static_cast<FileWrite*>(nullptr));
    case ControlType::kFileRecall:
      return decoded(
          [&](const FileRef& file) {
            std::thread([this, key = SharedKey{file.device, file.inode}] { recall_file(key); }).detach();
          },
          static_cast<FileRef*>(nullptr));
    case ControlType::kTraceOn:
      return decoded(
          [&](const TraceOrder& order) {
            std::shared_lock lock(registry_mutex_);
            for (auto& [number, guest] : guests_)
              if (order.pid == 0 || order.pid == number) {
                guest->traced = order.on != 0;
                guest->trace_stacks = order.stacks != 0;
                std::lock_guard threads(guest->mutex);
                for (auto& [tid, thread] : guest->threads)
                  if (DirectPath* direct = thread->direct) direct->close();
              }
          },
          static_cast<TraceOrder*>(nullptr));
    default:
      if (!queue_message(pid, message))
        log_debug("control message " + std::to_string(message.type) + " for process " + std::to_string(pid) +
                  ", which is not being moved");
  }
}

Status Supervisor::send_control(ControlType type, const Bytes& body) {
  std::lock_guard lock(control_mutex_);
  if (control_lost_) return fail(EPIPE, "the connection to home has ended");
  return mosix::send_control(options_.control_fd, static_cast<uint16_t>(type), body);
}

void Supervisor::send_failed(int pid, const Error& error) {
  Refusal refusal{.pid = pid, .code = error.code, .reason = options_.node_name + ": " + error.message()};
  send_control(ControlType::kFailed, encode_message(refusal));
}

void Supervisor::serve_link() {
  Result<LinkMessage> message = receive_link(options_.link_fd);
  if (!message) {
    // mosixd has ended or restarts; guests do not notice. Nothing more to hear on this descriptor.
    // Nobody may write to the number when it is somebody else's.
    {
      std::lock_guard link(link_mutex_);
      if (options_.link_fd >= 0) ::close(options_.link_fd);
      options_.link_fd = -1;
    }
    std::unique_lock lock(registry_mutex_);
    link_lost_ = true;
    registry_changed_.notify_all();
    return;
  }
  auto order = nlohmann::json::parse(message->text, nullptr, false);
  if (!order.is_object()) return;
  if (order.value("op", "") == "let_in") {
    std::unique_lock lock(registry_mutex_);
    auto question = let_in_.find(order.value("id", int64_t{0}));
    if (question != let_in_.end())
      question->second = order.value("ok", false) ? "" : order.value("error", std::string("full"));
    registry_changed_.notify_all();
    return;
  }
  if (order.value("op", "") != "expel") return;
  std::shared_lock lock(registry_mutex_);
  for (auto& [pid, guest] : guests_) {
    WantHome want{.pid = pid, .reason = options_.node_name + " sends its guests home"};
    send_control(ControlType::kWantHome, encode_message(want));
  }
}

void Supervisor::watch_sandbox() {
  for (;;) {
    Result<std::optional<ReapedGuest>> event = sandbox_->take_event();
    if (!event) {
      log_error("sandbox: " + event.error().message());
      _exit(1);
    }
    if (!*event) return;
    guest_died(**event);
  }
}

void Supervisor::guest_died(const ReapedGuest& reaped) {
  int pid = reaped.inner_pid, wait_status = reaped.wait_status;
  std::shared_ptr<Guest> guest = find_guest(pid);
  if (guest != nullptr) {
    std::lock_guard lock(guest->mutex);
    CpuFigures figures = guest->children;
    figures.user_ns = guest->cpu_before.user_ns + reaped.user_ns;
    figures.system_ns = guest->cpu_before.system_ns + reaped.system_ns;
    figures.peak_kib = std::max(guest->cpu_before.peak_kib, reaped.peak_kib);
    guest->cpu_at_end = figures;
  }
  {
    std::unique_lock lock(registry_mutex_);
    reaped_.insert(pid);
    registry_changed_.notify_all();
  }
  if (guest == nullptr || guest->ended) return;
  keep_for_parent(*guest);
  // It died of a fault of its own, or of a signal that only this kernel knew. Its deputy dies the same death,
  // told over the channel of a thread that is not in a call: the one that faulted is among them.
  int signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : SIGKILL;
  log_info("guest " + std::to_string(pid) + " died of signal " + std::to_string(signal));
  ExitBody order{.status = signal, .whole_group = 1};
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(guest->mutex);
    for (auto& [tid, thread] : guest->threads) threads.push_back(thread);
  }
  for (auto& thread : threads) {
    std::lock_guard lock(thread->mutex);
    DirectPath* direct = thread->direct;
    bool waits = thread->exchanging || (direct != nullptr && (direct->in_call() || direct->handed_over()));
    if (waits || !thread->channel) continue;
    if (send_frame(thread->channel.get(), FrameType::kDie, *guest, 0, 0, &order, sizeof order)) break;
  }
  drop_guest(guest);
}

std::shared_ptr<Guest> Supervisor::find_guest(int pid) {
  std::shared_lock lock(registry_mutex_);
  auto found = guests_.find(pid);
  return found == guests_.end() ? nullptr : found->second;
}

std::shared_ptr<GuestThread> Supervisor::find_thread(int outer_tid) {
  std::shared_lock lock(registry_mutex_);
  auto found = outer_threads_.find(outer_tid);
  return found == outer_threads_.end() ? nullptr : found->second;
}

void Supervisor::add_thread(const std::shared_ptr<GuestThread>& thread) {
  std::unique_lock lock(registry_mutex_);
  outer_threads_[thread->outer_tid] = thread;
}

void Supervisor::drop_thread(const std::shared_ptr<GuestThread>& thread) {
  std::unique_lock lock(registry_mutex_);
  auto found = outer_threads_.find(thread->outer_tid);
  if (found != outer_threads_.end() && found->second == thread) outer_threads_.erase(found);
}

void Supervisor::kill_guest(Guest& guest) {
  guest.ended = true;
  syscall(SYS_pidfd_send_signal, guest.pidfd.get(), SIGKILL, nullptr, 0);
  // Dead is when its descriptor is readable; reaped is when pid 1 says so.
  pollfd dead{guest.pidfd.get(), POLLIN, 0};
  poll(&dead, 1, 2000);
  std::unique_lock lock(registry_mutex_);
  registry_changed_.wait_for(lock, std::chrono::seconds(2),
                             [&] { return guest.gone || reaped_.contains(guest.pid); });
}

void Supervisor::drop_guest(const std::shared_ptr<Guest>& guest) {
  if (guest->dropped.exchange(true)) return;  // somebody else is at it
  kill_guest(*guest);
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(guest->mutex);
    for (auto& [tid, thread] : guest->threads) threads.push_back(thread);
    guest->threads.clear();
    guest->changed.notify_all();
  }
  for (auto& thread : threads) {
    drop_thread(thread);
    std::lock_guard lock(thread->mutex);
    thread->ended = true;
    // A worker may be waiting for a reply that will not come.
    if (thread->channel) shutdown(thread->channel.get(), SHUT_RDWR);
    thread->changed.notify_all();
  }
  forget_hello(guest->token);
  note_guest(*guest, "gone");
  tell_figures(*guest);
  ProcessRef gone{.pid = guest->pid, .epoch = guest->epoch};
  send_control(ControlType::kGone, encode_message(gone));
  // Only now may the same pid come again.
  std::unique_lock lock(registry_mutex_);
  reaped_.erase(guest->pid);
  guest->gone = true;
  auto found = guests_.find(guest->pid);
  if (found != guests_.end() && found->second == guest) guests_.erase(found);
  registry_changed_.notify_all();
  lock.unlock();
  bound_.forget_process(guest->pid);
  proc_files_.forget_process(guest->pid);
  release_unmapped_soon();
}

Status Supervisor::let_in() {
  int64_t number;
  {
    std::unique_lock lock(registry_mutex_);
    if (link_lost_) return {};  // nobody counts; mosixd is being restarted
    number = next_question_++;
    let_in_[number].reset();
  }
  nlohmann::json question = {{"event", "coming"}, {"id", number}};
  tell_mosixd(question);
  std::unique_lock lock(registry_mutex_);
  registry_changed_.wait_for(lock, kLetInLimit, [&] { return link_lost_ || let_in_[number].has_value(); });
  std::string refusal = let_in_[number].value_or("");
  let_in_.erase(number);
  if (!refusal.empty()) return fail(0, refusal);
  return {};
}

/// Names are whatever bytes programs chose.
void Supervisor::tell_mosixd(const nlohmann::json& message) {
  std::lock_guard lock(link_mutex_);
  if (options_.link_fd < 0) return;
  send_link(options_.link_fd, message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void Supervisor::not_coming() { tell_mosixd({{"event", "not_coming"}}); }

void Supervisor::note_guest(const Guest& guest, const char* event) {
  nlohmann::json note = {
      {"event", event}, {"pid", guest.pid}, {"home", options_.home_name}, {"program", guest.program}};
  tell_mosixd(note);
}

/// Once a second: counters of the guests that made calls or used the processor.
void Supervisor::tick() {
  static uint64_t last_ns = 0;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t ns = static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
  if (ns - last_ns < 1000000000u) return;
  last_ns = ns;
  std::vector<std::shared_ptr<Guest>> guests;
  {
    std::shared_lock lock(registry_mutex_);
    for (auto& [pid, guest] : guests_) guests.push_back(guest);
  }
  for (auto& guest : guests) tell_figures(*guest);
  release_unmapped();
}

void Supervisor::tell_figures(Guest& guest) {
  GuestStatistics statistics;
  statistics.pid = guest.pid;
  statistics.epoch = guest.epoch;
  statistics.forwarded_calls = guest.forwarded_calls;
  {
    std::lock_guard lock(guest.mutex);
    for (auto& [tid, thread] : guest.threads)
      if (DirectPath* direct = thread->direct) statistics.forwarded_calls += direct->calls();
  }
  statistics.local_answers = guest.local_answers;
  statistics.cpu = cpu_figures(guest);
  if (auto stat = read_proc_stat(living_thread(guest.outer_pid)); stat && !guest.ended)
    statistics.resident_bytes = stat->rss_pages * 4096;
  send_control(ControlType::kStatistics, encode_message(statistics));
}

}  // namespace mosix
