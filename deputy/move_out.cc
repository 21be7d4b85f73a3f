#include "deputy/move_out.h"

#include <arpa/inet.h>
#include <sys/syscall.h>

#include <algorithm>
#include <functional>

#include "deputy/areas.h"
#include "deputy/calls_go_on.h"
#include "deputy/deputize.h"
#include "deputy/movable.h"
#include "deputy/page_stream.h"
#include "deputy/processes.h"
#include "deputy/window.h"
#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "libmosix/common/membership.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/syscall_site.h"
#include "libmosix/process/vdso.h"

namespace mosix {
namespace {

/// Transfers that the move has broken off go on behind what they have given or received. Where the process has no room for
/// that they are short: it goes on all the same.
void go_on_with_transfers(ProcessRecord& record, HeldProcess& hands, const ProcessMemory& memory,
                          Capture& capture) {
  const std::vector<ThreadState>& threads = capture.state.threads;
  auto worker = std::find_if(threads.begin(), threads.end(),
                             [&](const ThreadState& thread) { return thread.tid == hands.worker().tid(); });
  if (worker == threads.end()) return;
  CallsGoOn calls(record, memory, hands.worker(), {capture.state.window_base, worker->slot});
  for (size_t i = 0; i < threads.size(); ++i) {
    if (threads[i].moved_bytes == 0) continue;
    Result<user_regs_struct> registers = calls.registers_for(threads[i]);
    if (registers)
      capture.home_registers[i] = *registers;
    else
      log_info("process " + std::to_string(record.pid) + ": " + registers.error().message());
  }
  CallsSinceHome since = calls.take_calls();
  for (const CallAtHome& call : since.own) record.since_home.own.push_back(call);
}

/// The way back to home's own code from any point after the agent went in.
Status back_to_native(ProcessRecord& record, HeldProcess& hands, Capture& capture, uint64_t site) {
  TRY(ProcessMemory memory, ProcessMemory::open(record.pid));
  if (!hands.held()) TRY_VOID(hands.stop_deputies_somehow(memory, capture.state.window_base));
  go_on_with_transfers(record, hands, memory, capture);
  return make_native(hands.threads(), memory, site, capture.state, capture.home_registers);
}

int64_t clock_now(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

DeputyPeer peer_of(const AwayNode& node, const Reserved& reserved, uint32_t epoch) {
  DeputyPeer peer;
  peer.address = node.address();
  peer.port = static_cast<uint16_t>(reserved.port << 8 | reserved.port >> 8);
  memcpy(peer.token, reserved.token, sizeof peer.token);
  peer.epoch = epoch;
  return peer;
}

/// The node lets the guest run as soon as the deputies have connected, which they do in our hands. Then they are free.
Status begin_away(HeldProcess& hands, const ProcessMemory& memory, uint64_t window, Mailbox& box) {
  constexpr int kSliceMs = 20;
  bool running = false;
  for (int waited = 0;; waited += kSliceMs) {
    Result<bool> begun = hands.deputies_have_begun(memory, window, kSliceMs);
    if (!begun) return fail(std::move(begun.error()));
    if (*begun) break;
    if (waited >= kStageTimeoutMs) return fail(ETIMEDOUT, "the deputies do not get their channels");
    if (running) continue;
    Result<ControlMessage> told = expect_message(box, ControlType::kRunning, 0);
    running = told.has_value();
    if (!told && told.error().code != ETIMEDOUT) return fail(std::move(told.error()));
  }
  hands.release();
  if (running) return {};
  TRY(ProcessRef said, expect<ProcessRef>(box, ControlType::kRunning, kStageTimeoutMs));
  (void)said;
  return {};
}

/// As much as is on its way in any case, in the buffers of the connection and of the node.
constexpr uint64_t kAheadBytes = 16 << 20;

class MoveOut {
 public:
  MoveOut(ProcessRecord& record, std::shared_ptr<AwayNode> node, uint32_t epoch, HeldProcess& hands,
          MoveGroup& group)
      : record_(record),
        node_(std::move(node)),
        hands_(hands),
        group_(group),
        mailbox_(node_, record.pid),
        capture_(std::make_shared<Capture>()) {
    capture_->state.pid = record.pid;
    capture_->state.epoch = epoch;
  }

  Result<MoveReport> run() {
    Status moved = all_stages();
    if (!moved) {
      group_.give_up(record_.pid, moved.error());
      return fail(roll_back(std::move(moved.error())));
    }
    // Memory that others have changed by now is no state to go back to.
    if (!group_.alone()) record_.drop_origin();
    report_.freeze_ms = freeze_.ms();
    report_.total_ms = total_.ms();
    return report_;
  }

 private:
  enum class Reached { kNothing, kReserved, kAgent, kQuiet, kDeputies };

  Status all_stages() {
    TRY_VOID(at_stage("reserve", reserve()));
    TRY_VOID(at_stage("freeze", freeze()));
    TRY_VOID(at_stage("capture", capture()));
    TRY_VOID(at_stage("send memory", send_image()));
    TRY_VOID(at_stage("make deputies", make_deputies()));
    TRY_VOID(group_.meet());
    TRY_VOID(at_stage("start away", go()));
    return group_.meet();
  }

  uint32_t epoch() const { return capture_->state.epoch; }

  /// Whatever takes its time happens before the process stands still.
  Status reserve() {
    Result<std::vector<MapEntry>> read = read_maps(record_.pid);
    if (read) TRY_VOID(check_no_deputy(*read));
    if (std::string reason = why_process_stays(record_.pid, hands_.held()); !reason.empty())
      return fail(0, reason);
    TRY(std::vector<MapEntry> maps, std::move(read));
    note_nameless(record_.pid, maps, group_.files());
    if (std::string reason = why_mappings_stay(maps, group_.files()); !reason.empty()) return fail(0, reason);
    // Before it is interrupted in whatever it does: that is for nothing if somebody is missing.
    TRY_VOID(meet_sharers(maps));
    uint64_t random = 0;
    fill_random(&random, sizeof random);
    TRY(uint64_t window, choose_window(maps, random));
    capture_->state.window_base = window;
    ring_places_ = rings_need_places() && ring_places_are_free(maps);
    TRY(ProcStat stat, read_proc_stat(living_thread(record_.pid)));
    resident_bytes_ = stat.rss_pages * kPageBytes;
    Reserve order{record_.pid,
                  epoch(),
                  resident_bytes_,
                  window,
                  clock_now(CLOCK_MONOTONIC),
                  clock_now(CLOCK_BOOTTIME),
                  ring_places_ ? kRingFill : 0,
                  ring_places_ ? kRingEnd - kRingFill : 0,
                  group_.number()};
    TRY_VOID(node_->send(ControlType::kReserve, order));
    reached_ = Reached::kReserved;
    page_buffer_.resize(PageSender::kBufferBytes);
    TRY(reserved_, expect<Reserved>(mailbox_.box(), ControlType::kReserved, kStageTimeoutMs));
    return {};
  }

  Status freeze() {
    freeze_ = Stopwatch();
    if (!hands_.held()) TRY_VOID(hands_.stop());
    TRY(maps_, read_maps(record_.pid));
    TRY_VOID(check_no_deputy(maps_));
    note_nameless(record_.pid, maps_, group_.files());
    if (std::string reason = why_threads_stay(hands_.threads()); !reason.empty()) return fail(0, reason);
    if (std::string reason = why_mappings_stay(maps_, group_.files()); !reason.empty())
      return fail(0, reason);
    if (!window_is_free(maps_, window()) || (ring_places_ && !ring_places_are_free(maps_)))
      return fail(EAGAIN, "the address space has changed meanwhile; try again");
    TRY(site_, find_vdso_syscall(record_.pid));
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    memory_.emplace(std::move(memory));
    TRY_VOID(meet_sharers(maps_));  // there may be others by now
    return bind_files();
  }

  Status meet_sharers(const std::vector<MapEntry>& maps) {
    for (const MapEntry& entry : maps)
      if (is_shared_file(entry)) TRY_VOID(check_relatives(entry));
    group_.note_sharers(sharers_at_home(record_.pid, shared_memory_in(maps)));
    return group_.meet();
  }

  /// A file can be mapped by anybody: by whom the user has not given into our hands, too.
  Status check_relatives(const MapEntry& entry) const {
    for (int other : sharers_at_home(record_.pid, {{entry.device, entry.inode}}))
      if (!is_descendant(other, record_.pid) && !is_descendant(record_.pid, other) &&
          group_.pids().count(other) == 0)
        return fail(0, "it has mapped " + entry.path + " shared, as has process " + std::to_string(other));
    return {};
  }

  /// All who map them stand still. From here on nobody at home can open them, who does not wait for us.
  Status bind_files() {
    TRY(std::vector<FileBindings::Bound> bound, group_.files().bind_mapped(node_, maps_, group_.pids()));
    for (const FileBindings::Bound& file : bound) {
      capture_->bound[file.key] = {file.key.first, file.key.second, file.size,
                                   static_cast<int64_t>(file.number)};
      for (const BoundDescriptor& descriptor : file.descriptors)
        if (descriptor.pid == record_.pid) capture_->state.descriptors.push_back(descriptor);
    }
    return {};
  }

  uint64_t window() const { return capture_->state.window_base; }

  /// A child that a guest has just forked is known to whoever its parent tells before its node has told us: it is no
  /// process of home's. When it is asked for again, its place is known.
  Status check_no_deputy(const std::vector<MapEntry>& maps) const {
    Result<ProcessMemory> memory = ProcessMemory::open(record_.pid);
    if (!memory || !has_agent(maps, *memory)) return {};
    return fail(EAGAIN, "it has just been born away; try again");
  }

  Status capture() {
    for (Tracee& tracee : hands_.threads().threads) TRY_VOID(leave_vdso(tracee, vdso_code(maps_)));
    TRY_VOID(capture_threads(hands_.threads(), *memory_, record_.since_home, *capture_));
    reached_ = Reached::kAgent;
    TRY_VOID(install_agent(hands_.worker(), *memory_, site_, window(),
                           static_cast<int>(hands_.threads().threads.size()), ring_places_));
    TRY_VOID(capture_kernel_state(hands_.threads(), *memory_, window(), *capture_));
    TRY_VOID(check_handlers(hands_.threads().threads, record_.pid, maps_, capture_->state.actions));
    TRY_VOID(capture_process(*memory_, maps_, window(), *capture_));
    capture_->state.proc_files = proc_files_of(record_.pid);
    record_.cpu_away.go_on(capture_->state);
    return {};
  }

  Status send_image() {
    TRY_VOID(node_->send(ControlType::kImageState, capture_->state));
    // Pages do not depend on the answer, save where a file can no longer be read: few of them need not wait for
    // it. Many do, for it may be a refusal.
    bool ahead = resident_bytes_ <= kAheadBytes;
    std::vector<bool> sent = capture_->whole_areas;
    if (ahead) TRY_VOID(send_pages([](size_t) { return true; }));
    TRY(FileNeed need, expect<FileNeed>(mailbox_.box(), ControlType::kNeed, kStageTimeoutMs));
    TRY_VOID(send_files(need));
    TRY_VOID(send_pages([&](size_t i) { return !ahead || (capture_->whole_areas[i] && !sent[i]); }));
    TRY_VOID(node_->send(ControlType::kImageEnd, ProcessRef{record_.pid, epoch()}));
    TRY(ProcessRef ready, expect<ProcessRef>(mailbox_.box(), ControlType::kReady, kStageTimeoutMs));
    (void)ready;
    for (auto& [file, names] : capture_->bound)
      if (group_.claims().claim_file(file)) TRY_VOID(group_.files().send_contents(node_, file));
    return {};
  }

  /// Contents of files that the node has not seen yet, as they are in the file. One that cannot be read (any
  /// more) is taken from memory, which has mapped it.
  Status send_files(const FileNeed& need) {
    for (uint32_t index : need.areas) {
      if (index >= capture_->state.areas.size())
        return fail(EBADMSG, "the node asks for an area that does not exist");
      Result<uint64_t> sent = send_file_pages(*node_, record_.pid, capture_->state.areas[index]);
      if (sent)
        report_.bytes += *sent;
      else if (sent.error().code == ESTALE)
        capture_->whole_areas[index] = true;
      else
        return fail(std::move(sent.error()));
    }
    return {};
  }

  Status send_pages(const std::function<bool(size_t)>& wanted) {
    TRY(Pagemap pagemap, Pagemap::open(record_.pid));
    PageSender sender(*node_, *memory_, page_buffer_);
    for (size_t i = 0; i < capture_->state.areas.size(); ++i) {
      const Area& area = capture_->state.areas[i];
      if (area.kind == AreaKind::kVdso || area.kind == AreaKind::kBound || !wanted(i)) continue;
      if (area.kind == AreaKind::kShared) {
        TRY_VOID(send_shared_pages(area, sender));
        continue;
      }
      if (capture_->whole_areas[i]) {
        TRY_VOID(sender.add(area.start, area.end - area.start));
        continue;
      }
      TRY(std::vector<PageSpan> spans, pagemap.private_pages(area.start, area.end));
      for (const PageSpan& span : spans) TRY_VOID(sender.add(span.address, span.bytes()));
    }
    TRY_VOID(sender.flush());
    report_.bytes += sender.bytes_sent();
    return {};
  }

  Status send_shared_pages(const Area& area, PageSender& sender) {
    TRY(std::vector<PageSpan> spans, shared_pages(area));
    for (const PageSpan& span : spans)
      for (const PageSpan& part : group_.claims().claim(area, span))
        TRY_VOID(sender.add(part.address, part.bytes()));
    return {};
  }

  Result<std::vector<PageSpan>> shared_pages(const Area& area) {
    TRY(bool swapped, has_swapped_pages(record_.pid, area.start, area.end));
    if (swapped) return std::vector<PageSpan>{{area.start, (area.end - area.start) / kPageBytes}};
    std::vector<PageSpan> spans;
    std::vector<uint8_t> in_core;
    for (uint64_t at = area.start; at < area.end;) {
      uint64_t pages = std::min<uint64_t>(Batch::kDataBytes, (area.end - at) / kPageBytes);
      Batch batch({window(), capture_->state.threads[0].slot});
      uint64_t told = batch.place_room(pages);
      batch.add(SYS_mincore, at, pages * kPageBytes, told);
      Status asked = batch.run(hands_.worker(), *memory_);
      TRY_VOID(hands_.worker().set_registers(capture_->home_registers[0]));
      TRY_VOID(std::move(asked));
      if (batch.first_error() != 0) return fail(batch.first_error(), "look for pages of shared memory");
      in_core.resize(pages);
      TRY_VOID(memory_->read(told, in_core.data(), pages));
      add_resident(at, in_core.data(), pages, spans);
      at += pages * kPageBytes;
    }
    return spans;
  }

  Status make_deputies() {
    reached_ = Reached::kQuiet;
    TRY_VOID(quiet_process(hands_.threads(), *memory_, capture_->state));
    TRY_VOID(
        prepare_deputies(hands_.threads(), *memory_, capture_->state, peer_of(*node_, reserved_, epoch())));
    reached_ = Reached::kDeputies;
    // Before the guest can do anything that others ask about (a fork, a call to be aborted).
    record_.set_place({node_, window(), epoch(), capture_});
    return hands_.let_deputies_begin();
  }

  Status go() {
    TRY_VOID(node_->send(ControlType::kGo, ProcessRef{record_.pid, epoch()}));
    return begin_away(hands_, *memory_, window(), mailbox_.box());
  }

  Error roll_back(Error error) {
    log_debug("move of process " + std::to_string(record_.pid) + ": " + error.message());
    for (auto& [file, names] : capture_->bound) group_.files().release(file);
    if (reached_ == Reached::kDeputies) {
      if (hands_.held()) hands_.give_up_beginning();
      // The guest was quick: it has executed another program, at home, before we heard that it runs.
      if (!hands_.held() && record_.place().epoch != epoch()) return error;
      Result<uint64_t> calls = calls_accepted(record_.pid, window());
      if (!calls || *calls != 0) return lost(std::move(error));
    }
    if (reached_ >= Reached::kAgent) {
      Status back =
          reached_ == Reached::kAgent ? back_from_agent() : back_to_native(record_, hands_, *capture_, site_);
      if (!back) {
        log_error("process " + std::to_string(record_.pid) +
                  " cannot go on at home: " + back.error().message());
        return lost(std::move(error));
      }
    }
    if (reached_ == Reached::kDeputies) record_.set_place({});
    if (reached_ >= Reached::kReserved)
      (void)node_->send(ControlType::kForget, ProcessRef{record_.pid, epoch()});
    if (error.code == ENOTRECOVERABLE) error.code = ECANCELED;
    return error;
  }

  /// The agent may not be all there yet.
  Status back_from_agent() {
    go_on_with_transfers(record_, hands_, *memory_, *capture_);
    return take_agent_out(hands_.threads(), *memory_, site_, *capture_);
  }

  Error lost(Error error) {
    hands_.release();
    error.code = ENOTRECOVERABLE;
    return error;
  }

  ProcessRecord& record_;
  std::shared_ptr<AwayNode> node_;
  HeldProcess& hands_;
  MoveGroup& group_;
  OpenMailbox mailbox_;
  std::shared_ptr<Capture> capture_;
  Stopwatch total_, freeze_;
  Reached reached_ = Reached::kNothing;
  Reserved reserved_;
  bool ring_places_ = false;
  std::vector<MapEntry> maps_;
  std::vector<uint8_t> page_buffer_;
  uint64_t resident_bytes_ = 0;
  uint64_t site_ = 0;
  std::optional<ProcessMemory> memory_;
  MoveReport report_;
};

/// The image goes from supervisor to supervisor; home turns the deputies round.
class MoveOn {
 public:
  MoveOn(ProcessRecord& record, Place was, std::shared_ptr<AwayNode> to, uint32_t epoch, MoveGroup& group)
      : record_(record),
        was_(std::move(was)),
        from_(was_.node),
        to_(std::move(to)),
        group_(group),
        here_{record.pid, epoch},
        old_box_(from_, record.pid),
        new_box_(to_, record.pid),
        hands_(record) {}

  Result<MoveReport> run() {
    Status moved = all_stages();
    if (!moved) {
      group_.give_up(record_.pid, moved.error());
      return fail(roll_back(std::move(moved.error())));
    }
    report_.freeze_ms = freeze_.ms();
    (void)from_->send(ControlType::kForget, here_);
    report_.total_ms = total_.ms();
    return report_;
  }

 private:
  Status all_stages() {
    TRY_VOID(at_stage("reserve", reserve()));
    TRY_VOID(at_stage("send memory", order_image()));
    TRY_VOID(at_stage("send files", send_files()));
    TRY_VOID(group_.meet());
    TRY_VOID(at_stage("turn the deputies", turn_deputies()));
    TRY_VOID(group_.meet());
    TRY_VOID(at_stage("start away", go()));
    return group_.meet();
  }

  Status reserve() {
    TRY(ProcStat stat, read_proc_stat(record_.pid));
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    Result<bool> ring_places = has_ring_places(memory, was_.window);
    // Without the agent in it, it is somebody else by now.
    if (!ring_places && record_.place().epoch != was_.epoch)
      return fail(ECANCELED, "process " + std::to_string(record_.pid) + " has come home meanwhile");
    if (!ring_places) return fail(std::move(ring_places.error()));
    Reserve order{record_.pid,
                  here_.epoch,
                  stat.rss_pages * kPageBytes,
                  was_.window,
                  clock_now(CLOCK_MONOTONIC),
                  clock_now(CLOCK_BOOTTIME),
                  *ring_places ? kRingFill : 0,
                  *ring_places ? kRingEnd - kRingFill : 0,
                  group_.number()};
    TRY_VOID(to_->send(ControlType::kReserve, order));
    reserved_at_new_ = true;
    TRY(reserved_, expect<Reserved>(new_box_.box(), ControlType::kReserved, kStageTimeoutMs));
    return {};
  }

  Status order_image() {
    in_addr address{to_->address()};
    char dotted[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address, dotted, sizeof dotted);
    MoveOrder order{record_.pid, here_.epoch, dotted, reserved_.port, {}, group_.number()};
    memcpy(order.token, reserved_.token, sizeof order.token);
    freeze_ = Stopwatch();
    TRY_VOID(from_->send(ControlType::kMoveTo, order));
    ordered_ = true;
    if (!group_.alone()) {
      TRY(Frozen frozen, expect<Frozen>(old_box_.box(), ControlType::kFrozen, kStageTimeoutMs));
      TRY_VOID(let_it_leave(frozen));
    }
    return wait_ready();
  }

  /// The old node has written home what they had there.
  Status send_files() {
    for (const SharedKey& file : group_.files().leaving(from_, group_.pids())) {
      if (!group_.claims().claim_file(file)) continue;
      TRY_VOID(group_.files().send_contents(to_, file));
      group_.files().moved(file, to_);
      files_.push_back(file);
    }
    return {};
  }

  /// It shares memory, and stands still.
  Status let_it_leave(const Frozen& frozen) {
    group_.note_sharers({frozen.sharers.begin(), frozen.sharers.end()});
    TRY_VOID(group_.meet());
    return from_->send(ControlType::kGo, here_);
  }

  /// The new node says that it is ready; either may say that it is not.
  Status wait_ready() {
    constexpr int kSliceMs = 20;
    for (int waited = 0;; waited += kSliceMs) {
      Result<ControlMessage> told = new_box_.box().take(kSliceMs);
      if (told && told->type == static_cast<uint16_t>(ControlType::kReady)) return {};
      if (told) return refused(*told);
      if (told.error().code != ETIMEDOUT) return fail(std::move(told.error()));
      Result<ControlMessage> failed = old_box_.box().take(0);
      if (failed && failed->type == static_cast<uint16_t>(ControlType::kFrozen)) {
        TRY(Frozen frozen, decode_message<Frozen>(failed->body));
        TRY_VOID(let_it_leave(frozen));
        continue;
      }
      if (failed) return refused(*failed);
      if (failed.error().code != ETIMEDOUT) return fail(std::move(failed.error()));
      if (waited >= kStageTimeoutMs) return fail(ETIMEDOUT, to_->name() + " does not answer");
    }
  }

  static Status refused(const ControlMessage& message) {
    Result<Refusal> refusal = decode_message<Refusal>(message.body);
    if (!refusal) return fail(EPROTO, "message " + std::to_string(message.type) + " where kReady was due");
    return fail(refusal->code == 0 ? ECANCELED : refusal->code, refusal->reason);
  }

  Status turn_deputies() {
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    TRY_VOID(hands_.stop_idle_deputies(memory, was_.window));
    TRY(old_peers_, peers_of(hands_.threads(), memory, was_.window));
    for (Tracee& tracee : hands_.threads().threads) turned_.push_back(tracee.tid());
    std::vector<DeputyPeer> peers(old_peers_.size(), peer_of(*to_, reserved_, here_.epoch));
    TRY_VOID(redirect_deputies(hands_.threads(), memory, was_.window, peers));
    record_.set_place({to_, was_.window, here_.epoch, nullptr});
    return hands_.let_deputies_begin();
  }

  Status go() {
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    TRY_VOID(to_->send(ControlType::kGo, here_));
    return begin_away(hands_, memory, was_.window, new_box_.box());
  }

  Error roll_back(Error error) {
    log_debug("move of process " + std::to_string(record_.pid) + ": " + error.message());
    if (reserved_at_new_) (void)to_->send(ControlType::kForget, here_);
    // An exec, which ends a guest at home wherever it is, has set the place itself.
    for (const SharedKey& file : files_) group_.files().moved(file, from_);
    group_.files().stay(from_, group_.pids());
    bool ours = record_.place().epoch == here_.epoch;
    if (ours && hands_.held()) hands_.give_up_beginning();
    bool turned = !turned_.empty() && (hands_.held() || ours);
    Status back = turned ? turn_back() : Status();
    if (ours) record_.set_place(was_);
    if (ordered_)
      (void)from_->send(ControlType::kResume, ResumeOrder{record_.pid, here_.epoch, turned && back});
    if (turned && back) back = wait_until_back();
    hands_.release();
    if (!back) {
      log_error("process " + std::to_string(record_.pid) + " cannot go back: " + back.error().message());
      error.code = ENOTRECOVERABLE;
    }
    return error;
  }

  /// Nothing was accepted by the new node's deputies, or the guest has already acted there.
  Status turn_back() {
    TRY(uint64_t calls, calls_accepted(record_.pid, was_.window));
    if (calls != 0) return fail(EALREADY, "the guest has already made calls on the new node");
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    if (!hands_.held()) TRY_VOID(hands_.stop_deputies_somehow(memory, was_.window));
    std::vector<DeputyPeer> peers;
    for (Tracee& tracee : hands_.threads().threads) {
      auto at = std::find(turned_.begin(), turned_.end(), tracee.tid());
      if (at == turned_.end()) return fail(ESRCH, "there is a new thread");
      peers.push_back(old_peers_[static_cast<size_t>(at - turned_.begin())]);
    }
    TRY_VOID(redirect_deputies(hands_.threads(), memory, was_.window, peers));
    return hands_.let_deputies_begin();
  }

  Status wait_until_back() {
    TRY(ProcessMemory memory, ProcessMemory::open(record_.pid));
    TRY(bool begun, hands_.deputies_have_begun(memory, was_.window, kStageTimeoutMs));
    if (!begun) return fail(ETIMEDOUT, from_->name() + " does not take its deputies back");
    return {};
  }

  ProcessRecord& record_;
  Place was_;
  std::shared_ptr<AwayNode> from_, to_;
  MoveGroup& group_;
  ProcessRef here_;
  OpenMailbox old_box_, new_box_;
  HeldProcess hands_;
  Stopwatch total_, freeze_;
  Reserved reserved_;
  bool reserved_at_new_ = false, ordered_ = false;
  std::vector<SharedKey> files_;  ///< bound to the new node by us
  std::vector<DeputyPeer> old_peers_;
  std::vector<int> turned_;
  MoveReport report_;
};

}  // namespace

Status at_stage(const char* stage, Status status) {
  if (!status) status.error().what = std::string(stage) + ": " + status.error().what;
  return status;
}

Result<MoveReport> move_out(ProcessRecord& record, std::shared_ptr<AwayNode> node, uint32_t epoch,
                            HeldProcess& hands, MoveGroup& group) {
  return MoveOut(record, std::move(node), epoch, hands, group).run();
}

Result<MoveReport> move_on(ProcessRecord& record, std::shared_ptr<AwayNode> node, uint32_t epoch,
                           MoveGroup& group) {
  Place place = record.place();
  // An exec may have brought it home while the node was being dialled.
  if (!place.node)
    return fail(ECANCELED, "process " + std::to_string(record.pid) + " has come home meanwhile");
  return MoveOn(record, std::move(place), std::move(node), epoch, group).run();
}

Status restore_at_home(ProcessRecord& record) {
  Place place = record.place();
  if (!place.origin) return fail(ENODATA, "home's memory is older than the guest's");
  TRY(uint64_t calls, calls_accepted(record.pid, place.window));
  if (calls != 0) return fail(EALREADY, "the guest has made calls");
  HeldProcess hands(record);
  TRY(uint64_t site, find_vdso_syscall(record.pid));
  TRY_VOID(back_to_native(record, hands, *place.origin, site));
  record.set_place({});
  hands.release();
  return {};
}

}  // namespace mosix
