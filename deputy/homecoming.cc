#include "deputy/homecoming.h"

#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "deputy/calls_go_on.h"
#include "deputy/deputize.h"
#include "deputy/layout.h"
#include "deputy/page_stream.h"
#include "deputy/window.h"
#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "libmosix/process/advice.h"
#include "libmosix/process/descriptor.h"
#include "libmosix/process/syscall_site.h"

namespace mosix {
namespace {

constexpr uint64_t kDontNeedLocked = 24;  // MADV_DONTNEED_LOCKED, Linux 5.18: locked pages too
constexpr size_t kBrk = 5;                // in ProcessState::mm
constexpr size_t kMmFields = 11;

class Homecoming {
 public:
  Homecoming(ProcessRecord& record, const Place& place, uint32_t epoch, MoveGroup& group)
      : record_(record),
        group_(group),
        window_(place.window),
        node_(place.node),
        epoch_(epoch),
        mailbox_(node_, record.pid),
        hands_(record) {}

  Result<MoveReport> run() {
    Status done = until_complete();
    if (!done) {
      group_.give_up(record_.pid, done.error());
      group_.files().stay(node_, group_.pids());
      hands_.release();
      (void)node_->send(ControlType::kResume, ResumeOrder{record_.pid, epoch_, 0});
      return fail(std::move(done.error()));
    }
    // Whoever waits for one of these may have it: nobody stores away any more.
    for (const SharedKey& file : bound_) group_.files().release(file);
    Status native = become_native();
    if (!native) {
      native.error().code = ENOTRECOVERABLE;
      return fail(std::move(native.error()));
    }
    report_.freeze_ms = freeze_.ms();
    (void)node_->send(ControlType::kForget, ProcessRef{record_.pid, epoch_});
    report_.total_ms = total_.ms();
    return report_;
  }

 private:
  /// Everything that can fail while the guest could still go on away.
  Status until_complete() {
    TRY_VOID(at_stage("ask for the guest", receive_state()));
    TRY_VOID(at_stage("stop the deputies", stop_deputies()));
    TRY_VOID(at_stage("lay out memory", lay_out()));
    TRY_VOID(at_stage("advise about memory", advise()));
    TRY_VOID(at_stage("receive pages", receive_pages()));
    TRY_VOID(at_stage("drop old pages", drop_stale_pages()));
    TRY_VOID(at_stage("lock memory", lock()));
    TRY_VOID(at_stage("go on with a write", prepare_registers()));
    return group_.meet();
  }

  Status receive_state() {
    MoveOrder order;
    order.pid = record_.pid;
    order.epoch = epoch_;
    order.group = group_.number();
    TRY_VOID(node_->send(ControlType::kBringHome, order));
    TRY(ControlMessage first, mailbox_.box().take(kStageTimeoutMs));
    bool frozen = first.type == static_cast<uint16_t>(ControlType::kFrozen);
    if (frozen) {
      TRY(Frozen told, decode_message<Frozen>(first.body));
      group_.note_sharers({told.sharers.begin(), told.sharers.end()});
      TRY_VOID(group_.meet());
      TRY_VOID(node_->send(ControlType::kGo, ProcessRef{record_.pid, epoch_}));
      TRY(first, mailbox_.box().take(kStageTimeoutMs));
    } else if (!group_.alone() && first.type == static_cast<uint16_t>(ControlType::kImageState)) {
      return fail(EPROTO, "the guest did not wait for those that it shares memory with");
    }
    TRY_VOID(is_message(first, ControlType::kImageState));
    TRY(state_, decode_message<ProcessState>(first.body));
    freeze_ = Stopwatch();
    bool sound = state_.pid == record_.pid && !state_.threads.empty() && state_.mm.size() == kMmFields &&
                 state_.actions.size() == 64;
    if (!sound) return fail(EBADMSG, "the guest's state makes no sense");
    state_.window_base = window_;
    record_.cpu_away.note(state_);
    return {};
  }

  Status stop_deputies() {
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    memory_.emplace(std::move(memory));
    TRY(ring_places_, has_ring_places(*memory_, window_));
    TRY_VOID(hands_.stop_idle_deputies(*memory_, window_));
    TRY(site_, find_vdso_syscall(record_.pid));
    for (const ThreadState& thread : state_.threads)
      if (hands_.threads().find(thread.tid) == nullptr)
        return fail(ESRCH, "thread " + std::to_string(thread.tid) + " has ended at home");
    if (hands_.threads().threads.size() != state_.threads.size())
      return fail(EBUSY, "there are more deputies than threads of the guest");
    worker_ = &hands_.worker();
    for (const ThreadState& thread : state_.threads)
      if (thread.tid == worker_->tid()) place_ = {window_, thread.slot};
    TRY(deputy_registers_, worker_->registers());
    return {};
  }

  /// Runs a batch in the worker and gives it back the registers of a waiting deputy, so that until the end
  /// all of it can be called off.
  Status run(Batch& batch, const char* what) {
    Status ran = batch.run(*worker_, *memory_);
    TRY_VOID(worker_->set_registers(deputy_registers_));
    if (!ran) return ran;
    if (batch.first_error() != 0) return fail(batch.first_error(), what);
    return {};
  }

  Status apply(const std::vector<LayoutStep>& steps) {
    for (size_t next = 0; next < steps.size();) {
      Batch batch(place_);
      for (; next < steps.size() && batch.size() < Batch::kMaxCalls; ++next) add_step(batch, steps[next]);
      TRY_VOID(run(batch, "mirror the guest's mappings"));
    }
    return {};
  }

  void add_step(Batch& batch, const LayoutStep& step) const {
    constexpr uint64_t kFixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    uint64_t bytes = step.end - step.start;
    switch (step.kind) {
      case LayoutStep::Kind::kUnmap:
        batch.add(SYS_munmap, step.start, bytes);
        break;
      case LayoutStep::Kind::kMapAnonymous:
        batch.add(SYS_mmap, step.start, bytes, step.protection, kFixed, ~0ull, 0);
        break;
      case LayoutStep::Kind::kMapStack:
        batch.add(SYS_mmap, step.start, bytes, step.protection, kFixed | MAP_GROWSDOWN, ~0ull, 0);
        break;
      case LayoutStep::Kind::kMapShared:
        batch.add(SYS_mmap, step.start, bytes, step.protection, MAP_SHARED | MAP_FIXED,
                  static_cast<uint64_t>(shared_numbers_.at(memory_of(state_.areas[step.area]))),
                  state_.areas[step.area].offset + (step.start - state_.areas[step.area].start));
        break;
      case LayoutStep::Kind::kProtect:
        batch.add(SYS_mprotect, step.start, bytes, step.protection);
        break;
    }
  }

  Result<uint64_t> set_break(uint64_t address) {
    Batch batch(place_);
    batch.add(SYS_brk, address);
    TRY_VOID(run(batch, "set the break"));
    return static_cast<uint64_t>(batch.result(0));
  }

  /// The kernel lowers a break only over the heap that it stands on, so it goes down before anything is unmapped.
  Status lower_break() {
    TRY(uint64_t now, set_break(0));
    if (state_.mm[kBrk] < now) TRY_VOID(set_break(state_.mm[kBrk]));
    return {};
  }

  /// The break goes up natively where it can, after what lies in its way is gone and before the rest is mapped. A
  /// wrong one must not stay: a later brk(2) would find nothing to do, and the program no memory.
  Status raise_break() {
    TRY(uint64_t now, set_break(state_.mm[kBrk]));
    if (now == state_.mm[kBrk]) return {};
    Batch batch(place_);
    prctl_mm_map fields{};
    memcpy(&fields, state_.mm.data(), kMmFields * sizeof(uint64_t));
    fields.exe_fd = ~0u;
    batch.add(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, batch.place_data(&fields, sizeof fields), sizeof fields,
              0);
    return run(batch, "set the break");
  }

  Status lay_out() {
    TRY_VOID(lower_break());
    TRY(std::vector<MapEntry> maps, read_maps(record_.pid));
    TRY(LayoutPlan first, plan_layout(maps, window_, ring_places_, state_.areas));
    std::vector<LayoutStep> unmaps;
    std::copy_if(first.steps.begin(), first.steps.end(), std::back_inserter(unmaps),
                 [](const LayoutStep& step) { return step.kind == LayoutStep::Kind::kUnmap; });
    TRY_VOID(apply(unmaps));
    TRY_VOID(raise_break());
    TRY(maps, read_maps(record_.pid));
    TRY(LayoutPlan rest, plan_layout(maps, window_, ring_places_, state_.areas));
    Status mapped = give_shared_memory();
    if (mapped) mapped = apply(rest.steps);
    TRY_VOID(take_shared_memory_back());
    TRY_VOID(std::move(mapped));
    // What the first look wanted whole and then was unmapped is wanted by the second look too.
    return node_->send(ControlType::kNeed, FileNeed{record_.pid, rest.whole_areas});
  }

  /// Descriptors of the memory that it shares, for as long as it takes to map them: over a socket, for that needs nothing
  /// of the process's view of files. No code of its own runs meanwhile.
  Status give_shared_memory() {
    for (const Area& area : state_.areas) {
      if (area.kind == AreaKind::kBound) {
        TRY(int fd, group_.files().descriptor(node_, key_of(area)));
        shared_numbers_[memory_of(area)] = fd;
        bound_.insert(key_of(area));
      }
      if (area.kind != AreaKind::kShared) continue;
      TRY(int fd, group_.pool()->open(area));
      shared_ranges_.add(area, fd);
      shared_numbers_[memory_of(area)] = fd;  // ours, as yet
    }
    if (shared_numbers_.empty()) return {};
    Batch batch(place_);
    uint64_t ends_at = batch.place_room(2 * sizeof(int));
    batch.add(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_at);
    TRY_VOID(run(batch, "a socket for shared memory"));
    auto ends = batch.data_at<std::array<int, 2>>(ends_at);
    given_.assign(ends.begin(), ends.end());
    TRY(UniqueFd ours, take_descriptor(record_.pid, record_.pidfd, ends[1]));
    for (auto& [memory, number] : shared_numbers_) {
      TRY_VOID(send_descriptor(ours.get(), number));
      TRY(number, receive_descriptor(ends[0]));
      given_.push_back(number);
    }
    return {};
  }

  static Status send_descriptor(int socket, int fd) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) return fail_errno("give shared memory");
    return {};
  }

  /// The number that it has in the process.
  Result<int> receive_descriptor(int socket) {
    struct Gift {  // a cmsghdr and what it holds
      uint64_t bytes;
      int level, type, fd;
    };
    Batch batch(place_);
    uint64_t gift_at = batch.place_room(CMSG_SPACE(sizeof(int)));
    iovec part{reinterpret_cast<void*>(batch.place_room(1)), 1};
    msghdr message{};
    message.msg_iov = reinterpret_cast<iovec*>(batch.place_data(&part, sizeof part));
    message.msg_iovlen = 1;
    message.msg_control = reinterpret_cast<void*>(gift_at);
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    batch.add(SYS_recvmsg, static_cast<uint64_t>(socket), batch.place_data(&message, sizeof message),
              MSG_CMSG_CLOEXEC);
    TRY_VOID(run(batch, "receive shared memory"));
    auto gift = batch.data_at<Gift>(gift_at);
    if (gift.bytes != CMSG_LEN(sizeof(int)) || gift.type != SCM_RIGHTS)
      return fail(EMFILE, "no descriptor is left for shared memory");
    return gift.fd;
  }

  Status take_shared_memory_back() {
    for (size_t next = 0; next < given_.size();) {
      Batch batch(place_);
      for (; next < given_.size() && batch.size() < Batch::kMaxCalls; ++next)
        batch.add(SYS_close, static_cast<uint64_t>(given_[next]));
      TRY_VOID(run(batch, "close shared memory"));
    }
    given_.clear();
    return {};
  }

  /// What the guest has told its kernel about its mappings. A refusal is no reason to stay away: the mapping may be of
  /// another kind here.
  Status advise() {
    TRY(std::vector<MapFlags> now, read_map_flags(record_.pid));
    locks_ = plan_locks(state_.areas, now);
    std::vector<AdviceStep> steps = plan_advice(state_.areas, now);
    for (size_t next = 0; next < steps.size();) {
      Batch batch(place_);
      for (; next < steps.size() && batch.size() < Batch::kMaxCalls; ++next) {
        const AdviceStep& step = steps[next];
        batch.add(SYS_madvise, step.start, step.end - step.start, static_cast<uint64_t>(step.advice));
      }
      TRY_VOID(batch.run(*worker_, *memory_));
      TRY_VOID(worker_->set_registers(deputy_registers_));
      if (batch.first_error() != 0)
        log_debug("madvise for " + std::to_string(record_.pid) + ": " + strerror(batch.first_error()));
    }
    return {};
  }

  Status receive_pages() {
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    auto sink = std::make_shared<HomeSink>(std::move(memory), state_.areas, shared_ranges_);
    struct Sinking {
      Mailbox& box;
      ~Sinking() { box.put_pages_into(nullptr); }
    } until_the_end{mailbox_.box()};
    mailbox_.box().put_pages_into(sink);
    for (uint64_t taken = 0;;) {
      Result<ControlMessage> message = mailbox_.box().take(kStageTimeoutMs);
      // Pages that go to the sink are no messages, but they are a sign of life.
      if (!message && message.error().code == ETIMEDOUT && sink->bytes_taken() != taken) {
        taken = sink->bytes_taken();
        continue;
      }
      if (!message) return fail(std::move(message.error()));
      auto type = static_cast<ControlType>(message->type);
      if (type == ControlType::kImageEnd) break;
      if (type == ControlType::kFailed) {
        TRY(Refusal refusal, decode_message<Refusal>(message->body));
        return fail(refusal.code == 0 ? ECANCELED : refusal.code, refusal.reason);
      }
      if (type != ControlType::kPages) return fail(EPROTO, "no pages but another message came");
      TRY(ReceivedPages pages, parse_pages(message->body));  // arrived before there was a sink
      sink->take(pages.address, pages.data, pages.bytes);
    }
    TRY_VOID(sink->status());
    report_.bytes += sink->bytes_taken();
    received_ = sink->received();
    return {};
  }

  /// Pages that home has from before and the guest has not: they were freed away.
  Status drop_stale_pages() {
    TRY(Pagemap pagemap, Pagemap::open(record_.pid));
    std::vector<PageSpan> stale;
    for (const Area& area : state_.areas) {
      if (area.kind == AreaKind::kVdso || area.kind == AreaKind::kShared || area.kind == AreaKind::kBound)
        continue;
      TRY(std::vector<PageSpan> own, pagemap.private_pages(area.start, area.end));
      for (const PageSpan& span : subtract_spans(own, received_)) stale.push_back(span);
    }
    for (size_t next = 0; next < stale.size();) {
      Batch batch(place_);
      for (; next < stale.size() && batch.size() < Batch::kMaxCalls; ++next)
        batch.add(SYS_madvise, stale[next].address, stale[next].bytes(), kDontNeedLocked);
      TRY_VOID(run(batch, "free pages that the guest has freed"));
    }
    return {};
  }

  /// What the guest has locked and unlocked away. It may lock less at home than it might when it did so: it goes on then
  /// without.
  Status lock() {
    for (size_t next = 0; next < locks_.size();) {
      Batch batch(place_);
      for (; next < locks_.size() && batch.size() < Batch::kMaxCalls; ++next) {
        const LockStep& step = locks_[next];
        bool on_fault = (step.locked & kLockedOnFault) != 0;
        batch.add(step.locked == 0 ? SYS_munlock : SYS_mlock2, step.start, step.end - step.start,
                  on_fault ? MLOCK_ONFAULT : 0);
      }
      TRY_VOID(batch.run(*worker_, *memory_));
      TRY_VOID(worker_->set_registers(deputy_registers_));
      if (batch.first_error() != 0)
        log_info("mlock for " + std::to_string(record_.pid) + ": " + strerror(batch.first_error()));
    }
    return {};
  }

  Status prepare_registers() {
    CallsGoOn calls(record_, *memory_, *worker_, place_);
    for (const ThreadState& thread : state_.threads) {
      TRY(user_regs_struct registers, calls.registers_for(thread));
      registers_.push_back(registers);
    }
    calls_ = calls.take_calls();
    return {};
  }

  Status become_native() {
    TRY_VOID(at_stage("go on at home", make_native(hands_.threads(), *memory_, site_, state_, registers_)));
    record_.since_home = std::move(calls_);
    record_.set_place({});
    hands_.release();
    return {};
  }

  ProcessRecord& record_;
  MoveGroup& group_;
  uint64_t window_;
  std::shared_ptr<AwayNode> node_;
  uint32_t epoch_;
  OpenMailbox mailbox_;
  HeldProcess hands_;
  Stopwatch total_, freeze_;
  std::optional<ProcessMemory> memory_;
  uint64_t site_ = 0;
  bool ring_places_ = false;
  ProcessState state_;
  Tracee* worker_ = nullptr;
  AgentPlace place_;
  user_regs_struct deputy_registers_{};
  std::vector<PageSpan> received_;
  std::vector<LockStep> locks_;
  /// Memory has a node's numbers, a file has home's.
  using SharedThing = std::pair<AreaKind, SharedKey>;
  static SharedThing memory_of(const Area& area) { return {area.kind, key_of(area)}; }
  std::map<SharedThing, int> shared_numbers_;  ///< of the process's descriptors, while it has them
  std::vector<int> given_;                     ///< all of these
  std::set<SharedKey> bound_;                  ///< files that come home
  SharedRanges shared_ranges_{group_.pool()};
  CallsSinceHome calls_;
  std::vector<user_regs_struct> registers_;  ///< to go on with, in the order of state_.threads
  MoveReport report_;
};

}  // namespace

Result<MoveReport> bring_home(ProcessRecord& record, uint32_t epoch, MoveGroup& group) {
  Place place = record.place();
  if (!place.node)
    return fail(ECANCELED, "process " + std::to_string(record.pid) + " has come home meanwhile");
  return Homecoming(record, place, epoch, group).run();
}

}  // namespace mosix
