#include "deputy/custodian.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "libmosix/common/log.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr int64_t kLookNs = 30'000'000;     ///< how often processes that are away are looked at for stops
constexpr int64_t kLingerMs = 300;          ///< an empty custodian stays so long: orders come in groups
constexpr int64_t kFilesLingerMs = 20'000;  ///< ... and that for files that have not come home
constexpr int64_t kEndedMemoryMs = 60'000;  ///< a node that is cut off longer has been given up
constexpr int64_t kRecallMs = 1000;         ///< recalls are repeated so often
constexpr int64_t kUnmappedMs = 10'000;     ///< files that are kept for those at home are looked for so often
constexpr int64_t kEndedLookMs = 1000;      ///< nearly all of them are settled by their nodes' words
constexpr int64_t kGuestEndedGraceMs = 1000;  ///< a deputy whose guest has ended ends by itself within it
constexpr int64_t kLastWordMs = 2000;         ///< a node tells so soon what an ended guest has used
constexpr size_t kMaxEndedCpu = 4096;  ///< children that may wait to be reaped by parents that are away

// What an epoll event belongs to; other values are pids.
constexpr uint64_t kLinkEvent = 1ull << 40, kTimerEvent = 1ull << 41, kWakeEvent = 1ull << 42,
                   kLeaseEvent = 1ull << 43;

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

/// A pidfd does not tell of the end of a process while a tracer holds its dead threads: the tracer has to let
/// go first. (A dead leader alone is no end.)
bool killed_in_our_hands(int pid) {
  Result<ProcStat> leader = read_proc_stat(pid);
  if (!leader || leader->state != 'Z') return false;
  Result<std::vector<int>> tids = list_threads(pid);
  if (!tids) return false;
  return std::none_of(tids->begin(), tids->end(), [pid](int tid) {
    Result<ProcStat> thread = read_thread_stat(pid, tid);
    return thread && thread->state != 'Z' && thread->state != 'X';
  });
}

Status watch_fd(int epoll, int fd, uint64_t tag) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("epoll");
  return {};
}

}  // namespace

Custodian::Custodian(CustodianOptions options)
    : options_(std::move(options)), link_(UniqueFd(options_.link_fd)) {}

int Custodian::run() {
  Status started = start();
  if (!started) {
    log_error(started.error().message());
    return 1;
  }
  while (!nothing_left()) wait_for_events();
  log_debug("family " + options_.family + " is empty");
  // Readers of control connections are blocked; they end with the process.
  _exit(0);
}

Status Custodian::start() {
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sigset_t lease;
  sigemptyset(&lease);
  sigaddset(&lease, SIGIO);
  pthread_sigmask(SIG_BLOCK, &lease, nullptr);  // before there are other threads
  lease_signals_.reset(signalfd(-1, &lease, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!epoll_ || !timer_ || !wake_ || !lease_signals_) return fail_errno("start");
  fcntl(link_.fd(), F_SETFD, FD_CLOEXEC);
  TRY_VOID(watch_fd(epoll_.get(), link_.fd(), kLinkEvent));
  TRY_VOID(watch_fd(epoll_.get(), timer_.get(), kTimerEvent));
  TRY_VOID(watch_fd(epoll_.get(), lease_signals_.get(), kLeaseEvent));
  return watch_fd(epoll_.get(), wake_.get(), kWakeEvent);
}

void Custodian::wait_for_events() {
  epoll_event events[32];
  int count = epoll_wait(epoll_.get(), events, 32, 100);
  for (int i = 0; i < count; ++i) {
    uint64_t tag = events[i].data.u64;
    uint64_t ticks;
    if (tag == kLinkEvent)
      serve_link();
    else if (tag == kTimerEvent)
      (void)!read(timer_.get(), &ticks, sizeof ticks);
    else if (tag == kWakeEvent)
      (void)!read(wake_.get(), &ticks, sizeof ticks);
    else if (tag == kLeaseEvent)
      recall_files();
    else
      process_ended(static_cast<int>(tag));
  }
  tick();
}

void Custodian::serve_link() {
  Result<LinkOrder> order = link_.receive();
  if (order) {
    ordered_ = true;
    return serve(std::move(*order));
  }
  log_error("link to mosixd: " + order.error().message());
  if (link_.alive()) return;
  // Guests go on without mosixd; there will be no more orders.
  ordered_ = true;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, link_.fd(), nullptr);
}

bool Custodian::nothing_left() {
  std::lock_guard lock(mutex_);
  bool empty = ordered_ && records_.empty() && threads_ == 0;
  if (!empty || empty_since_ms_ == 0) empty_since_ms_ = empty ? now_ms() : 0;
  if (!empty) return false;
  // What a program has stored away is on its way home when it ends. A node that keeps it is not waited for for ever.
  if (files_.any_away()) return now_ms() - empty_since_ms_ >= kFilesLingerMs;
  return now_ms() - empty_since_ms_ >= kLingerMs || !link_.alive();
}

void Custodian::wake() {
  uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
}

void Custodian::in_thread(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    ++threads_;
  }
  std::thread([this, work = std::move(work)] {
    work();
    std::lock_guard lock(mutex_);
    --threads_;
    wake();
  }).detach();
}

// --- register ---------------------------------------------------------------------------------------

Custodian::Record Custodian::find(int pid) {
  std::lock_guard lock(mutex_);
  auto at = records_.find(pid);
  return at == records_.end() ? nullptr : at->second;
}

/// A node's word about a process may be heard after the end of it, which the kernel here tells by another way: a
/// parent that ends as soon as it has forked is still its child's parent.
Inheritance Custodian::inheritance_from(int pid) {
  std::lock_guard lock(mutex_);
  if (auto at = records_.find(pid); at != records_.end()) return at->second->inheritance();
  auto ended = lately_ended_.find(pid);
  return ended == lately_ended_.end() ? Inheritance{} : ended->second.inheritance;
}

/// It changes with an exec.
std::string Custodian::program_of(const Record& record) {
  std::lock_guard lock(mutex_);
  return record->program;
}

Result<Custodian::Record> Custodian::find_or_create(int pid) {
  if (Record known = find(pid)) {
    bool ended;
    {
      std::lock_guard lock(mutex_);
      ended = known->ended && !known->held();
    }
    if (!ended) return known;
    drop(known);  // the number has been given to another
  }
  auto record = std::make_shared<ProcessRecord>(pid);
  record->pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!record->pidfd) return fail(ESRCH, "there is no process " + std::to_string(pid));
  record->stat.reset(open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  Result<ProcStat> stat = read_proc_stat(pid);
  if (!stat) return fail(ESRCH, "there is no process " + std::to_string(pid));
  record->program = stat->comm;
  std::lock_guard lock(mutex_);
  auto [at, fresh] = records_.emplace(pid, record);
  if (fresh) TRY_VOID(watch_fd(epoll_.get(), record->pidfd.get(), static_cast<uint64_t>(pid)));
  wake();
  return at->second;
}

void Custodian::process_ended(int pid) {
  Record record = find(pid);
  if (!record) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, record->pidfd.get(), nullptr);
  Place place = record->place();
  if (place.node) (void)place.node->send(ControlType::kForget, ProcessRef{pid, place.epoch});
  bool held, complete;
  {
    std::lock_guard lock(mutex_);
    record->ended = true;
    record->ended_ms = now_ms();
    held = record->held();
    complete = !awaits_last_word(*record);
  }
  end_waiting_for(pid);
  // An operation that has it ends soon and drops it.
  if (!held && complete) drop(record);
}

/// Its node will still say what the guest has used. Registry mutex.
bool Custodian::awaits_last_word(const ProcessRecord& record) const {
  Place place = record.place();
  if (!record.ended || !place.node || !place.node->alive() || now_ms() - record.ended_ms >= kLastWordMs)
    return false;
  auto heard = guests_ended_.find(record.pid);
  return heard == guests_ended_.end() || heard->second.epoch != place.epoch;
}

void Custodian::drop(const Record& record) {
  std::shared_ptr<AwayNode> asking;
  CpuFigures used = record->cpu_away.figures();
  {
    std::lock_guard lock(mutex_);
    auto at = records_.find(record->pid);
    if (at == records_.end() || at->second != record) return;
    records_.erase(at);
    record->drop_origin();
    Inheritance left = record->inheritance();
    auto heard = guests_ended_.find(record->pid);
    bool settled = heard != guests_ended_.end() && left.is_settled_by(left.place.node, heard->second.epoch);
    if (left.place.node && !settled) lately_ended_[record->pid] = {std::move(left), now_ms()};
    if (heard != guests_ended_.end()) guests_ended_.erase(heard);
    wants_home_.erase(record->pid);
    if (record->ended && used.total_ns() > 0) {
      ended_cpu_.push_back({record->pid, used});
      if (ended_cpu_.size() > kMaxEndedCpu) ended_cpu_.pop_front();
    }
    auto question = cpu_questions_.find(record->pid);
    if (question != cpu_questions_.end()) {
      asking = question->second.lock();
      cpu_questions_.erase(question);
    }
  }
  if (asking) tell_child_times(asking, record->pid);
  if (used.total_ns() > 0) announce(record);  // the last figures
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, record->pidfd.get(), nullptr);
  link_.gone(record->pid);
  wake();
}

/// A process that never left and has nothing to wait for is none of ours.
void Custodian::drop_if_unmanaged(const Record& record) {
  {
    std::lock_guard lock(mutex_);
    bool managed = record->moves > 0 || !record->hold_node.empty() || !record->busy.empty() ||
                   record->place().node != nullptr || watches_.count(record->pid) != 0;
    if ((managed && !record->ended) || record->held()) return;
  }
  drop(record);
}

void Custodian::announce(const Record& record, const MoveLine* line, int parent) {
  ProcessNews news;
  {
    std::lock_guard lock(mutex_);
    news = {record->pid,
            record->program,
            record->where(),
            record->reason,
            record->moves,
            record->calls,
            record->cpu_away.figures().own_ns() / 1000,
            parent};
  }
  link_.process(news, line);
}

void Custodian::kill_process(const Record& record, const std::string& why) {
  log_error("process " + std::to_string(record->pid) + " is killed: " + why);
  syscall(SYS_pidfd_send_signal, record->pidfd.get(), SIGKILL, nullptr, 0);
}

// --- looking after those that are away --------------------------------------------------------------

void Custodian::tick() {
  if (now_ms() - recalled_ms_ > kRecallMs) {
    recalled_ms_ = now_ms();
    recall_files();
  }
  if (now_ms() - looked_for_unmapped_ms_ > kUnmappedMs) {
    looked_for_unmapped_ms_ = now_ms();
    files_.close_unmapped();
  }
  std::vector<Record> away, busy, orphans, settled;
  {
    std::lock_guard lock(mutex_);
    for (auto& [pid, record] : records_) {
      if (!record->busy.empty() && !record->ended) busy.push_back(record);
      if (record->place().node == nullptr) continue;
      if (record->ended && !record->held() && !awaits_last_word(*record)) {
        settled.push_back(record);
        continue;
      }
      away.push_back(record);
      if (record->ended) continue;
      auto ended = guests_ended_.find(pid);
      // An older one than the guest that is away now: the process has executed, or moved, since then.
      if (ended == guests_ended_.end() || ended->second.epoch != record->place().epoch) continue;
      if (record->busy.empty() && now_ms() - ended->second.heard_ms > kGuestEndedGraceMs)
        orphans.push_back(record);
    }
    for (const Record& record : orphans) guests_ended_.erase(record->pid);
    if (now_ms() - looked_for_old_ms_ > kEndedLookMs) {
      looked_for_old_ms_ = now_ms();
      std::erase_if(lately_ended_, [](auto& one) { return now_ms() - one.second.since_ms > kEndedMemoryMs; });
    }
  }
  for (const Record& record : settled) drop(record);
  for (const Record& record : away)
    if (!record->ended) look_at_state(*record);
  for (const Record& record : busy)
    if (killed_in_our_hands(record->pid)) end_waiting_for(record->pid);
  for (const Record& record : orphans) kill_process(record, "its guest has ended on " + record->where());
  if (timer_on_ == !away.empty()) return;
  timer_on_ = !away.empty();
  int64_t period = timer_on_ ? kLookNs : 0;
  itimerspec spec{.it_interval = {0, period}, .it_value = {0, period}};
  timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

/// Ends the waiting of whatever operation has the process.
void Custodian::end_waiting_for(int pid) {
  std::lock_guard lock(mutex_);
  for (auto& [name, node] : nodes_)
    node->fail_mailbox(pid, Error{ESRCH, "process " + std::to_string(pid) + " has ended"});
}

/// Stop and continue by job control are heard only by a parent or tracer; we look.
void Custodian::look_at_state(ProcessRecord& record) {
  char text[128];
  ssize_t got = pread(record.stat.get(), text, sizeof text - 1, 0);
  if (got <= 0) return;
  text[got] = '\0';
  const char* close = strrchr(text, ')');
  if (close == nullptr || close + 2 >= text + got || close[2] == 't') return;
  bool stopped = close[2] == 'T';
  Place place = record.place();
  if (place.node == nullptr) return;
  // A guest that has come to another node since then has not been told there, and runs.
  bool told = record.stopped && record.told_epoch == place.epoch;
  if (stopped == told) return;
  record.stopped = stopped;
  record.told_epoch = place.epoch;
  (void)place.node->send(ControlType::kHold, HoldOrder{record.pid, static_cast<uint8_t>(stopped)});
}

// --- what supervisors say unasked -------------------------------------------------------------------

namespace {

int64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

template <class M, class F>
void with(const ControlMessage& message, F&& act) {
  Result<M> value = decode_message<M>(message.body);
  if (value)
    act(*value);
  else
    log_error("control message " + std::to_string(message.type) + ": " + value.error().message());
}

}  // namespace

void Custodian::heard(const std::shared_ptr<AwayNode>& node, ControlMessage message) {
  switch (static_cast<ControlType>(message.type)) {
    case ControlType::kAbort:
      return with<AbortOrder>(message, [&](auto& order) { abort(order); });
    case ControlType::kExecAsk:
      return with<ExecAsk>(message, [&](auto& ask) { exec_asked(node, ask); });
    case ControlType::kExecFailed:
      return with<ThreadRef>(message, [&](auto& thread) { exec_failed(thread.pid); });
    case ControlType::kChildBorn:
      return with<ChildBorn>(message, [&](auto& born) { child_born(node, born); });
    case ControlType::kGone:
      return with<ProcessRef>(message, [&](auto& gone) { guest_ended(node, gone); });
    case ControlType::kClockAsk:
      return with<ClockReading>(message, [&](auto& question) {
        ClockReading now{question.number, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_BOOTTIME)};
        (void)node->send(ControlType::kClockTell, now);
      });
    case ControlType::kTrace:
      return with<TraceEvent>(message, [&](auto& event) { link_.trace(event); });
    case ControlType::kCpuAsk:
      return with<CpuReading>(message, [&](auto& question) { child_times_asked(node, question.pid); });
    case ControlType::kStatistics:
      return with<GuestStatistics>(message, [&](auto& figures) { statistics(figures); });
    case ControlType::kFileBind:
      return with<FileBind>(message,
                            [&](auto& ask) { in_thread([this, node, ask] { bind_file(node, ask); }); });
    case ControlType::kFileWrite:
      return with<FileWrite>(message, [&](auto& change) { file_written(node, change); });
    case ControlType::kFileSettle:
      return with<FileSettle>(message, [&](auto& settle) { file_settled(node, settle); });
    case ControlType::kWantHome:
      return with<WantHome>(message, [&](auto& want) {
        if (Record record = find(want.pid)) bring_home_because(record, {want.reason, want.for_a_call != 0});
      });
    default:
      log_debug("control message " + std::to_string(message.type) + " from " + node->name() +
                " is not for us");
  }
}

void Custodian::abort(const AbortOrder& order) {
  Record record = find(order.pid);
  if (!record) return;
  in_thread([record, order] {
    Status done = abort_call(*record, order);
    if (!done && done.error().code != ESRCH)
      log_debug("abort of a call of thread " + std::to_string(order.tid) + ": " + done.error().message());
  });
}

namespace {

/// A node can name any number. Only a process that carries the agent, with that slot prepared, is a child of
/// one of its guests. Its first thread may have ended, and has no memory any more; the others have.
bool is_deputy(int pid, uint64_t window, int slot) {
  if (window == 0 || slot < 0 || slot >= kSlotCount) return false;
  Result<std::vector<int>> threads = list_threads(pid);
  return threads && std::any_of(threads->begin(), threads->end(), [&](int tid) {
           Result<ProcessMemory> memory = ProcessMemory::open(tid);
           if (!memory) return false;
           Result<AgentSlot> head = memory->read_value<AgentSlot>(slot_address(window, slot));
           return head && head->window == window && head->index == static_cast<uint32_t>(slot);
         });
}

}  // namespace

void Custodian::child_born(const std::shared_ptr<AwayNode>& node, const ChildBorn& born) {
  Inheritance inheritance = inheritance_from(born.parent_pid);
  Place place = inheritance.place_at(node);
  if (place.node != node || !is_deputy(born.pid, place.window, born.slot))
    return forget_child(node, born, std::move(inheritance));
  Result<Record> child = find_or_create(born.pid);
  if (!child) return forget_child(node, born, std::move(inheritance));
  {
    std::lock_guard lock(mutex_);
    (*child)->hold_node = inheritance.hold_node;
    (*child)->require = inheritance.require;
    (*child)->reason = "its parent was on " + node->name();
    (*child)->epoch = place.epoch;
  }
  (*child)->set_place(std::move(place));
  announce(*child, nullptr, born.parent_pid);
}

/// It has ended already, and its guest is to be forgotten like any other's. It may have had children by then, of
/// which the next messages tell.
void Custodian::forget_child(const std::shared_ptr<AwayNode>& node, const ChildBorn& born,
                             Inheritance inheritance) {
  Place place = inheritance.place_at(node);
  if (place.node == node) {
    inheritance.place = std::move(place);
    inheritance.before = {};
    std::lock_guard lock(mutex_);
    // Not in the stead of a process that has been given the number since.
    if (records_.count(born.pid) == 0) lately_ended_[born.pid] = {std::move(inheritance), now_ms()};
  }
  (void)node->send(ControlType::kForget, ProcessRef{born.pid, 0});
}

void Custodian::statistics(const GuestStatistics& figures) {
  Record record = find(figures.pid);
  if (!record) return;
  {
    std::lock_guard lock(mutex_);
    // The last word on an earlier visit may come when the next has begun: its calls are not the new guest's.
    if (figures.epoch == record->place().epoch) record->calls = figures.forwarded_calls;
  }
  record->cpu_away.note(figures.cpu);
  if (figures.forwarded_calls > 0 && figures.epoch == record->place().epoch) record->drop_origin();
  announce(record);
}

/// A parent that is away has reaped a child. The child's own node may have its last word yet to say.
void Custodian::child_times_asked(const std::shared_ptr<AwayNode>& node, int pid) {
  {
    std::lock_guard lock(mutex_);
    if (records_.count(pid) != 0) {
      cpu_questions_[pid] = node;
      return;
    }
  }
  tell_child_times(node, pid);
}

void Custodian::tell_child_times(const std::shared_ptr<AwayNode>& node, int pid) {
  CpuReading answer{.pid = pid, .cpu = {}};
  {
    std::lock_guard lock(mutex_);
    auto newest =
        std::find_if(ended_cpu_.rbegin(), ended_cpu_.rend(), [&](auto& one) { return one.pid == pid; });
    if (newest != ended_cpu_.rend()) answer.cpu = newest->cpu;
  }
  (void)node->send(ControlType::kCpuTell, answer);
}

void Custodian::guest_ended(const std::shared_ptr<AwayNode>& node, const ProcessRef& gone) {
  Record record = find(gone.pid);
  std::lock_guard lock(mutex_);
  auto ended = lately_ended_.find(gone.pid);
  if (ended != lately_ended_.end() && ended->second.inheritance.is_settled_by(node, gone.epoch))
    lately_ended_.erase(ended);
  if (!record) return;
  // A program may end before its move is written down here as done.
  if (record->place().node != node && gone.epoch != record->epoch) return;
  guests_ended_[gone.pid] = {gone.epoch, now_ms()};
  if (record->ended) wake();
}

}  // namespace mosix
