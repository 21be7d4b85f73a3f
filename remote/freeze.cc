// From a running guest to an image: freeze, capture, send, and then wait for what home decides. One thread does
// all of it, because a tracer is a thread. While it holds the guest frozen nothing is lost: calls that were in
// flight have been aborted at home (or have been answered), each thread stands on its way to user mode, with the
// kernel's own restart code in rax where a call has to be made again.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "libmosix/common/log.h"
#include "libmosix/common/net.h"
#include "libmosix/process/advice.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/pagemap.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/shared_memory.h"
#include "remote/batch.h"
#include "remote/image_queue.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int kStopLimitMs = 5000;
constexpr int kDecisionLimitMs = 120000;
constexpr std::chrono::milliseconds kLongestHoldPause(100);

int64_t clock_now(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000 + t.tv_nsec;
}

/// A thread of ours that could not detach from it, because it stood in its call, frees it by its own end (hold()).
Result<Tracee> seize_soon(int tid) {
  for (int waited = 0;; ++waited) {
    Result<Tracee> tracee = Tracee::seize(tid);
    if (tracee || tracee.error().code != EPERM || waited == kStopLimitMs) return tracee;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

/// A guest in our hands.
struct Supervisor::Frozen {
  std::shared_ptr<Guest> guest;
  std::vector<std::shared_ptr<GuestThread>> threads;
  std::vector<std::unique_lock<std::mutex>> tracing;
  std::vector<Tracee> tracees;
  bool begun = false;  ///< `freezing` is ours to take back
};

Status Supervisor::freeze(Frozen& frozen) {
  Guest& guest = *frozen.guest;
  {
    std::unique_lock lock(guest.mutex);
    // The last move may just be called off.
    if (!guest.changed.wait_for(lock, std::chrono::milliseconds(kStopLimitMs),
                                [&] { return !guest.freezing || guest.ended || guest.left; }))
      return fail(EBUSY, "the guest is being moved already");
    if (guest.ended || guest.left) return fail(ESRCH, "the guest has ended");
    guest.freezing = true;
    frozen.begun = true;
    ++guest.moves_begun;
    guest.changed.notify_all();  // whoever holds it for job control lets go of it
    if (!guest.changed.wait_for(lock, std::chrono::milliseconds(kStopLimitMs),
                                [&] { return guest.busy == 0 || guest.ended || guest.left; }))
      return fail(EBUSY, "the guest is in the middle of an exec");
    if (guest.ended || guest.left) return fail(ESRCH, "the guest has ended");
  }
  // Whoever holds a thread under ptrace (a fork, a signal) finishes first; nobody begins anew. A fork that was
  // under way may have added a thread, so the list is taken after that.
  for (bool complete = false; !complete;) {
    complete = true;
    std::vector<std::shared_ptr<GuestThread>> now;
    {
      std::lock_guard lock(guest.mutex);
      for (auto& [tid, thread] : guest.threads) now.push_back(thread);
    }
    for (auto& thread : now) {
      if (std::find(frozen.threads.begin(), frozen.threads.end(), thread) != frozen.threads.end()) continue;
      complete = false;
      frozen.tracing.emplace_back(thread->tracer_mutex);
      frozen.threads.push_back(thread);
    }
  }
  for (auto& thread : frozen.threads) TRY_VOID(shut_direct(*thread));
  for (auto& thread : frozen.threads) {
    Result<Tracee> tracee = seize_soon(thread->outer_tid);
    if (!tracee && tracee.error().code == ESRCH) return fail(ESRCH, "a thread ended meanwhile");
    if (!tracee) return fail(tracee.error());
    TRY_VOID(tracee->interrupt());
    frozen.tracees.push_back(std::move(*tracee));
    std::lock_guard lock(thread->mutex);
    thread->interrupted = true;
    thread->changed.notify_all();
  }
  for (auto& thread : frozen.threads) {
    std::lock_guard lock(thread->mutex);
    if (!thread->exchanging) continue;
    AbortOrder order{.pid = guest.pid, .tid = thread->tid, .sequence = thread->in_flight};
    TRY_VOID(send_control(ControlType::kAbort, encode_message(order)));
  }
  for (Tracee& tracee : frozen.tracees) {
    Result<StopInfo> stop = tracee.settle(kStopLimitMs);
    if (!stop && stop.error().code != ETIMEDOUT) return fail(std::move(stop.error()));
    if (!stop)
      return fail(stop.error().code,
                  "a thread does not stop (in the middle of vfork, or home does not abort its call)");
    if (stop->gone()) return fail(ESRCH, "the guest has ended");
  }
  // Workers have answered; wait until they are out of their thread's channel.
  for (auto& thread : frozen.threads) {
    std::unique_lock lock(thread->mutex);
    thread->changed.wait(lock, [&] { return !thread->in_call && !thread->watcher_busy; });
  }
  // Signals that came with the last replies belong to the guest's present, before its next step: a call that
  // has failed with EINTR for them must not return ahead of their handlers.
  for (size_t i = 0; i < frozen.threads.size(); ++i) {
    GuestThread& thread = *frozen.threads[i];
    bool unread;
    {
      std::lock_guard lock(thread.mutex);
      unread = !thread.answered_restart;
      thread.answered_restart = false;
    }
    TRY_VOID(leave_code(frozen.tracees[i], agent_code(guest)));
    if (unread) mend_unread_call(thread, frozen.tracees[i]);
    lead_back_into_call(thread, frozen.tracees[i]);
    TRY_VOID(leave_vdso(frozen.tracees[i], guest.vdso));
    put_signals(thread, frozen.tracees[i], Then::kKeep);
    if (!frozen.tracees[i].stopped()) return fail(ESRCH, "the guest has ended");
  }
  return {};
}

void Supervisor::thaw(Frozen& frozen) {
  if (!frozen.begun) return;
  Guest& guest = *frozen.guest;
  // Also those that were not taken before the freeze failed: their workers wait for its end, and what came over
  // their channels has not been looked at.
  std::vector<std::shared_ptr<GuestThread>> all;
  {
    std::lock_guard lock(guest.mutex);
    guest.freezing = false;
    guest.changed.notify_all();
    for (auto& [tid, thread] : guest.threads) all.push_back(thread);
  }
  for (auto& thread : frozen.threads) {
    std::lock_guard lock(thread->mutex);
    thread->interrupted = false;
  }
  for (auto& thread : all) {
    std::lock_guard lock(thread->mutex);
    thread->changed.notify_all();
  }
  for (size_t i = 0; i < frozen.tracees.size(); ++i) {
    if (!frozen.tracees[i].attached()) continue;
    // Signals that came meanwhile find their way in before the thread goes on.
    if (frozen.tracees[i].stopped())
      put_signals(*frozen.threads[i], frozen.tracees[i]);
    else
      frozen.tracees[i].detach();
  }
  frozen.tracees.clear();
  frozen.tracing.clear();
  for (auto& thread : all) {
    std::lock_guard lock(thread->mutex);
    if (!thread->ended && !thread->in_call) rest(thread);
  }
  start_holding(frozen.guest);
}

Result<ProcessState> Supervisor::capture(Frozen& frozen, uint32_t epoch) {
  Guest& guest = *frozen.guest;
  int outer = guest.outer_pid;
  ProcessState state;
  state.pid = guest.pid;
  state.epoch = epoch;
  state.window_base = guest.window;
  // The first thread first, unless it has ended.
  for (size_t i = 0; i < frozen.threads.size(); ++i)
    if (frozen.threads[i]->tid == guest.pid && i != 0) {
      std::swap(frozen.threads[0], frozen.threads[i]);
      std::swap(frozen.tracees[0], frozen.tracees[i]);
      std::swap(frozen.tracing[0], frozen.tracing[i]);
    }
  for (auto& thread : frozen.threads) thread->led = true;
  struct Led {
    Frozen& frozen;
    ~Led() {
      for (auto& thread : frozen.threads) thread->led = false;
    }
  } led{frozen};

  Batch batch(guest.window, outer);
  for (size_t i = 0; i < frozen.threads.size(); ++i) {
    GuestThread& thread = *frozen.threads[i];
    Tracee& tracee = frozen.tracees[i];
    ThreadState out;
    out.tid = thread.tid;
    out.slot = thread.slot;
    TRY_VOID(tracee.abort_rseq_section());
    TRY(user_regs_struct registers, tracee.registers());
    TRY(std::vector<std::byte> xstate, tracee.xstate());
    TRY(out.signal_mask, tracee.signal_mask());
    TRY(RseqConfiguration rseq, tracee.rseq_configuration());
    TRY(auto robust, tracee.robust_list());
    batch.clear();
    uint64_t altstack = batch.reserve(24), tid_address = batch.reserve(8);
    batch.add(SYS_sigaltstack, {0, altstack});
    batch.add(SYS_prctl, {40 /* PR_GET_TID_ADDRESS */, tid_address});
    uint64_t actions = 0;
    uint64_t timers = 0;
    size_t brk = 0;
    if (i == 0) {
      actions = batch.reserve(64 * sizeof(SignalAction));
      for (uint64_t signal = 1; signal <= 64; ++signal)
        batch.add(SYS_rt_sigaction, {signal, 0, actions + (signal - 1) * sizeof(SignalAction), 8}, true);
      timers = batch.reserve(64);
      batch.add(SYS_getitimer, {ITIMER_VIRTUAL, timers});
      batch.add(SYS_getitimer, {ITIMER_PROF, timers + 32});
      brk = batch.add(SYS_brk, {0});
    }
    TRY_VOID(batch.run(tracee));
    struct {
      uint64_t sp;
      uint32_t flags, pad;
      uint64_t size;
    } stack{};
    TRY_VOID(batch.fetch(altstack, &stack, sizeof stack));
    TRY_VOID(batch.fetch(tid_address, &out.clear_child_tid, 8));
    if (i == 0) {
      state.actions.resize(64);
      TRY_VOID(batch.fetch(actions, state.actions.data(), 64 * sizeof(SignalAction)));
      state.cpu_timers.resize(8);
      TRY_VOID(batch.fetch(timers, state.cpu_timers.data(), 64));
      TRY(ProcStat stat, read_proc_stat(living_thread(outer)));
      state.mm = {stat.start_code,  stat.end_code,  stat.start_data,
                  stat.end_data,    stat.start_brk, static_cast<uint64_t>(batch.result(brk)),
                  stat.start_stack, stat.arg_start, stat.arg_end,
                  stat.env_start,   stat.env_end};
    }
    capture_restart(thread, registers, out);
    out.registers.resize(sizeof registers);
    memcpy(out.registers.data(), &registers, sizeof registers);
    out.xstate.resize(xstate.size());
    memcpy(out.xstate.data(), xstate.data(), xstate.size());
    out.rseq_address = rseq.address;
    out.rseq_size = rseq.bytes;
    out.rseq_signature = rseq.signature;
    out.robust_list = robust.first;
    out.robust_list_size = robust.second;
    out.altstack_sp = stack.sp;
    out.altstack_flags = stack.flags;
    out.altstack_size = stack.size;
    out.name = read_comm(outer, thread.outer_tid).value_or("");
    CpuTimes used = cpu_times(guest, &thread);
    out.cpu_ns = used.user_ns + used.system_ns;
    {
      // Signals that came and have not been given are home's to offer again.
      std::lock_guard lock(thread.mutex);
      out.moved_bytes = thread.moved_bytes;
      if (registers.orig_rax == thread.deadline_call) out.deadline_ns = thread.deadline_ns;
      out.signals_acked = thread.signals_received;
      for (const WaitingSignal& signal : thread.waiting)
        out.signals_acked = std::min(out.signals_acked, signal.number - 1);
    }
    state.threads.push_back(std::move(out));
  }

  TRY(ProcessMemory memory, ProcessMemory::open(outer));
  TRY(std::vector<MapEntry> maps, read_maps(outer));
  TRY_VOID(check_handlers(frozen.tracees, outer, maps, state.actions));
  Area vdso{.start = ~0ull, .kind = AreaKind::kVdso};
  for (const MapEntry& entry : maps) {
    if (entry.path == "[vsyscall]" || guest.is_ours(entry.start, entry.end - entry.start)) continue;
    if (is_shared_anonymous(entry)) {
      state.areas.push_back(shared_area(entry, memory));
      continue;
    }
    if (is_bound_memory(entry)) {
      TRY(Area bound, bound_area(entry));
      state.areas.push_back(std::move(bound));
      continue;
    }
    if (entry.is_special()) {
      vdso.start = std::min(vdso.start, entry.start);
      vdso.end = std::max(vdso.end, entry.end);
      continue;
    }
    Area area;
    area.start = entry.start;
    area.end = entry.end;
    area.protection = entry.protection;
    area.kind = entry.path == "[stack]" ? AreaKind::kStack : AreaKind::kAnonymous;
    if (entry.has_inode() && entry.path != "/dev/zero") {
      std::shared_ptr<CachedFile> file = files_.by_inode(entry.inode);
      if (file == nullptr) return fail(ENOTSUP, "mapping " + entry.path + " is not known");
      area.kind = AreaKind::kFile;
      area.file = file->key();
      area.path = file->path();
      area.offset = entry.offset;
    }
    state.areas.push_back(std::move(area));
  }
  if (vdso.end != 0) state.areas.push_back(vdso);
  std::sort(state.areas.begin(), state.areas.end(),
            [](const Area& a, const Area& b) { return a.start < b.start; });
  TRY_VOID(note_advice(outer, state.areas));

  // The auxiliary vector as the kernel has it, with its terminating pair.
  TRY(auto auxv, read_auxv(outer));
  for (auto [type, value] : auxv)
    for (uint64_t word : {type, value})
      for (int byte = 0; byte < 8; ++byte) state.auxv.push_back(static_cast<uint8_t>(word >> (8 * byte)));
  state.auxv.resize(state.auxv.size() + 16);
  state.monotonic_ns = clock_now(CLOCK_MONOTONIC);
  state.boottime_ns = clock_now(CLOCK_BOOTTIME);
  struct rlimit stack_limit {};
  if (prlimit(outer, RLIMIT_STACK, nullptr, &stack_limit) == 0) state.stack_limit = stack_limit.rlim_cur;
  state.cpu = cpu_figures(guest);
  state.descriptors = bound_.descriptors_of(guest.pid);
  state.proc_files = proc_files_.of(guest.pid);
  return state;
}

Result<Area> Supervisor::bound_area(const MapEntry& entry) {
  std::shared_ptr<BoundFile> file = bound_.of_memory({entry.device, entry.inode});
  if (file == nullptr) return fail(ENOTSUP, "a mapped file is not known");
  Area area;
  area.start = entry.start;
  area.end = entry.end;
  area.protection = entry.protection;
  area.kind = AreaKind::kBound;
  area.path = file->path();
  area.file = {file->key().first, file->key().second, file->bytes(), static_cast<int64_t>(file->binding())};
  area.offset = entry.offset;
  return area;
}

Status Supervisor::send_file(ImageConnection& connection, const Guest& guest, const Area& area,
                             const CachedFile& file) {
  std::vector<uint8_t> buffer(kPageRunBytes);
  for (uint64_t at = area.start; at < area.end;) {
    size_t want = std::min<uint64_t>(kPageRunBytes, area.end - at);
    TRY(size_t got, file.get(area.offset + (at - area.start), buffer.data(), want));
    if (got == 0) break;  // beyond the end of the file
    PageRun head{.pid = guest.pid, .address = at};
    TRY_VOID(connection.send_pages(ControlType::kFilePages, head, buffer.data(), got));
    at += got;
  }
  return {};
}

/// Who has mappings of memory that it shares, itself among them; empty: it shares none. A child of vfork is not asked:
/// its memory is its parent's, and it has next to nothing to do before it executes a program.
Result<std::vector<int32_t>> Supervisor::sharers_of(const Guest& guest) {
  std::vector<int32_t> sharers;
  if (guest.shares_memory) return sharers;
  TRY(std::vector<MapEntry> maps, read_maps(guest.outer_pid));
  std::erase_if(maps, [&](const MapEntry& entry) { return guest.is_ours(entry.start, entry.bytes()); });
  std::set<SharedKey> memory = shared_memory_in(maps);
  std::set<int> users;  // of the descriptors of bound files
  for (const std::shared_ptr<BoundFile>& file : bound_.all()) {
    std::set<int> theirs = bound_.users_of(file->key());
    if (memory.count(file->memory()) == 0 && theirs.count(guest.pid) == 0) continue;
    memory.insert(file->memory());
    users.merge(theirs);
  }
  if (memory.empty()) return sharers;
  for (auto& other : all_guests()) {
    if (other->pid == guest.pid || users.count(other->pid) != 0) {
      sharers.push_back(other->pid);
      continue;
    }
    if (other->shares_memory || other->ended || other->left) continue;
    Result<std::vector<MapEntry>> theirs = read_maps(other->outer_pid);
    if (theirs && maps_any_of(*theirs, memory)) sharers.push_back(other->pid);
  }
  return sharers;
}

/// Home lets go only when all who share memory with it stand still.
Result<ControlMessage> Supervisor::wait_for_sharers(const MoveOrder& order, std::vector<int32_t> sharers,
                                                    ImageQueue& queue) {
  mosix::Frozen told{.pid = order.pid, .epoch = order.epoch, .sharers = std::move(sharers)};
  TRY_VOID(send_control(ControlType::kFrozen, encode_message(told)));
  return queue.pop(kDecisionLimitMs);
}

/// One for each group, for as long as any of its members has it.
std::shared_ptr<SharedClaims> Supervisor::claims_of(uint64_t group) {
  if (group == 0) return std::make_shared<SharedClaims>();
  std::unique_lock lock(registry_mutex_);
  std::erase_if(claims_, [](auto& entry) { return entry.second.expired(); });
  std::shared_ptr<SharedClaims> claims = claims_[group].lock();
  if (claims == nullptr) claims_[group] = claims = std::make_shared<SharedClaims>();
  return claims;
}

std::shared_ptr<SharedPool> Supervisor::pool_of(uint64_t group) {
  if (group == 0) return std::make_shared<SharedPool>();
  std::unique_lock lock(registry_mutex_);
  std::erase_if(pools_, [](auto& entry) { return entry.second.expired(); });
  std::shared_ptr<SharedPool> pool = pools_[group].lock();
  if (pool == nullptr) pools_[group] = pool = std::make_shared<SharedPool>();
  return pool;
}

/// The pages of `area` that anybody has touched, and that no other member of the group sends.
Result<std::vector<PageSpan>> Supervisor::shared_pages(Frozen& frozen, const Area& area,
                                                       SharedClaims& claims) {
  constexpr uint64_t kPagesAtOnce = 32 << 10;
  int outer = frozen.guest->outer_pid;
  std::vector<PageSpan> resident;
  TRY(bool swapped, has_swapped_pages(outer, area.start, area.end));
  if (swapped) resident.push_back({area.start, (area.end - area.start) / kPageBytes});
  std::vector<uint8_t> in_core;
  for (uint64_t at = area.start; at < area.end && !swapped;) {
    uint64_t pages = std::min(kPagesAtOnce, (area.end - at) / kPageBytes);
    Batch batch(frozen.guest->window, outer);
    uint64_t told = batch.reserve(pages);
    batch.add(SYS_mincore, {at, pages * kPageBytes, told});
    frozen.threads[0]->led = true;
    Status asked = batch.run(frozen.tracees[0]);
    frozen.threads[0]->led = false;
    TRY_VOID(std::move(asked));
    in_core.resize(pages);
    TRY_VOID(batch.fetch(told, in_core.data(), pages));
    add_resident(at, in_core.data(), pages, resident);
    at += pages * kPageBytes;
  }
  std::vector<PageSpan> spans;
  for (const PageSpan& span : resident)
    for (const PageSpan& part : claims.claim(area, span)) spans.push_back(part);
  return spans;
}

Status Supervisor::send_image(ImageConnection& connection, Frozen& frozen, const ProcessState& state,
                              Receiver to, SharedClaims& claims) {
  const Guest& guest = *frozen.guest;
  TRY_VOID(connection.send(ControlType::kImageState, encode_message(state)));
  TRY(ControlMessage answer, connection.receive());
  if (answer.type != static_cast<uint16_t>(ControlType::kNeed))
    return fail(ECANCELED, "the image was refused");
  TRY(FileNeed need, decode_message<FileNeed>(answer.body));
  TRY(ProcessMemory memory, ProcessMemory::open(guest.outer_pid));
  TRY(Pagemap pagemap, Pagemap::open(guest.outer_pid));
  std::vector<uint8_t> buffer(kPageRunBytes);
  for (size_t i = 0; i < state.areas.size(); ++i) {
    const Area& area = state.areas[i];
    if (area.kind == AreaKind::kVdso || area.kind == AreaKind::kBound) continue;
    bool whole = std::find(need.areas.begin(), need.areas.end(), i) != need.areas.end();
    // Another node lacks the file: it gets that, and what is private stays apart. Sent as private pages all of it
    // would be on the way home too, where a file that is mapped shared takes none.
    if (std::shared_ptr<CachedFile> file = files_.find(area.file);
        whole && file != nullptr && to == Receiver::kNode && area.kind == AreaKind::kFile) {
      TRY_VOID(send_file(connection, guest, area, *file));
      whole = false;
    }
    std::vector<PageSpan> spans;
    if (area.kind == AreaKind::kShared) {
      TRY(spans, shared_pages(frozen, area, claims));
    } else if (whole) {
      spans.push_back({area.start, (area.end - area.start) / kPageBytes});
    } else {
      TRY(spans, pagemap.private_pages(area.start, area.end));
    }
    for (const PageSpan& span : spans)
      for (uint64_t at = span.address; at < span.address + span.bytes();) {
        size_t want = std::min<uint64_t>(kPageRunBytes, span.address + span.bytes() - at);
        TRY(size_t got, memory.read_some(at, buffer.data(), want));
        got &= ~size_t{4095};
        if (got == 0) {  // beyond the end of the file: no page there
          if (!whole) return fail(EIO, "page of the guest");
          at += kPageBytes;
          continue;
        }
        PageRun head{.pid = guest.pid, .address = at};
        TRY_VOID(connection.send_pages(ControlType::kPages, head, buffer.data(), got));
        at += got;
      }
  }
  ProcessRef end{.pid = guest.pid, .epoch = state.epoch};
  return connection.send(ControlType::kImageEnd, encode_message(end));
}

void Supervisor::wait_for_end(std::vector<Tracee>& tracees, int leader) {
  constexpr int kEndLimitMs = 1000;
  for (bool leaders_turn : {false, true})
    for (Tracee& tracee : tracees)
      while (tracee.attached() && (tracee.tid() == leader) == leaders_turn) {
        Result<StopInfo> stop = tracee.wait_stop(kEndLimitMs);
        if (!stop || stop->gone()) break;
      }
}

void Supervisor::move_guest(MoveOrder order, bool home, std::shared_ptr<ImageQueue> queue) {
  Frozen frozen;
  frozen.guest = find_guest(order.pid);
  if (frozen.guest == nullptr) {
    close_queue(order.pid, queue);
    return send_failed(order.pid, Error{ESRCH, "no such guest"});
  }
  std::optional<ControlMessage> called_off;  // while it waited for those that it shares memory with
  std::shared_ptr<SharedClaims> claims = claims_of(order.group);
  ProcessState state;
  auto work = [&]() -> Status {
    TRY_VOID(freeze(frozen));
    TRY(std::vector<int32_t> sharers, sharers_of(*frozen.guest));
    if (order.group != 0 || !sharers.empty()) {
      TRY(ControlMessage word, wait_for_sharers(order, std::move(sharers), *queue));
      if (word.type != static_cast<uint16_t>(ControlType::kGo)) {
        called_off = std::move(word);
        return {};
      }
    }
    TRY_VOID(release_before_leaving(order.pid));
    TRY(state, capture(frozen, order.epoch));
    TRY_VOID(write_files_home(state, *claims));
    if (home) {
      QueueConnection connection(*this, queue);
      return send_image(connection, frozen, state, Receiver::kHome, *claims);
    }
    TRY(UniqueFd fd, dial_tcp(order.address, order.port, kConnectTimeoutMs));
    HelloBody hello{.pid = order.pid};
    memcpy(hello.token, order.token, sizeof hello.token);
    TRY_VOID(send_frame(fd.get(), FrameType::kImage, *frozen.guest, 0, 0, &hello, sizeof hello));
    SocketConnection connection(std::move(fd));
    return send_image(connection, frozen, state, Receiver::kNode, *claims);
  };
  Status sent = work();
  bool resume = !sent, fresh = false;
  if (sent) {
    // Home's word: the process runs elsewhere now (forget), or it does not (resume). Without a word the
    // control connection has ended, and so will we.
    Result<ControlMessage> word =
        called_off ? Result<ControlMessage>(std::move(*called_off)) : queue->pop(kDecisionLimitMs);
    resume = word && word->type == static_cast<uint16_t>(ControlType::kResume);
    if (!word) resume = word.error().code == ETIMEDOUT;
    Result<ResumeOrder> how =
        resume && word ? decode_message<ResumeOrder>(word->body) : Result<ResumeOrder>(ResumeOrder{});
    fresh = how && how->fresh_channels != 0;
  } else {
    send_failed(order.pid, sent.error());
  }
  close_queue(order.pid, queue);
  if (resume && !frozen.guest->left) {
    if (fresh)
      if (Status met = meet_deputies(*frozen.guest, frozen.threads); !met)
        log_error("guest " + std::to_string(order.pid) +
                  " goes on without its deputies: " + met.error().message());
    end_leaving(state, false);
    thaw(frozen);
    return;
  }
  // Their tracer has to hear of their end before pid 1 may reap them.
  frozen.guest->ended = true;
  syscall(SYS_pidfd_send_signal, frozen.guest->pidfd.get(), SIGKILL, nullptr, 0);
  wait_for_end(frozen.tracees, frozen.guest->outer_pid);
  drop_guest(frozen.guest);
  end_leaving(state, true);
}

/// Home's process is stopped by job control, or continued. The reader of the control connection notes it, so that
/// of two such orders the later one holds.
void Supervisor::note_hold(const HoldOrder& order) {
  std::shared_ptr<Guest> guest = find_guest(order.pid);
  if (guest == nullptr) return;
  {
    std::lock_guard lock(guest->mutex);
    guest->held = order.stopped != 0;
    guest->changed.notify_all();
  }
  start_holding(guest);
}

void Supervisor::start_holding(const std::shared_ptr<Guest>& guest) {
  std::lock_guard lock(guest->mutex);
  if (!guest->held || guest->freezing || guest->ended || std::exchange(guest->being_held, true)) return;
  std::thread([this, guest] { hold(guest); }).detach();
}

/// Threads in a call wait with home anyhow; those that compute are held by ptrace, which leaves no trace in the
/// guest.
void Supervisor::hold(const std::shared_ptr<Guest>& guest) {
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(guest->mutex);
    for (auto& [tid, thread] : guest->threads) threads.push_back(thread);
  }
  std::vector<std::unique_lock<std::mutex>> tracing;
  std::vector<Tracee> tracees;
  auto over = [&] { return !guest->held || guest->ended || guest->freezing; };
  std::vector<std::shared_ptr<GuestThread>> loose = threads;
  for (std::chrono::milliseconds pause(1);; pause = std::min(2 * pause, kLongestHoldPause)) {
    // Who has one of them under ptrace just now (it is being given a signal, or has not begun) lets it go soon.
    std::erase_if(loose, [&](const std::shared_ptr<GuestThread>& thread) {
      std::unique_lock lock(thread->tracer_mutex, std::try_to_lock);
      Result<Tracee> tracee = lock ? Tracee::seize(thread->outer_tid) : Result<Tracee>(fail(EBUSY, "traced"));
      if (!tracee) return thread->ended.load();
      tracee->interrupt();
      tracees.push_back(std::move(*tracee));
      tracing.push_back(std::move(lock));
      return true;
    });
    std::unique_lock lock(guest->mutex);
    if (loose.empty()) guest->changed.wait(lock, over);
    if (loose.empty() || guest->changed.wait_for(lock, pause, over)) break;
  }
  // A thread that is in a call cannot be detached from: the end of this thread here lets it go.
  for (Tracee& tracee : tracees) {
    Result<std::optional<StopInfo>> stop = tracee.poll_stop();
    if (stop && !*stop) tracee.forget();
  }
  tracees.clear();
  tracing.clear();
  for (auto& thread : threads) {
    std::lock_guard lock(thread->mutex);
    if (thread->has_signal() && !thread->in_call && !thread->ended) rest(thread);
  }
  {
    std::lock_guard lock(guest->mutex);
    guest->being_held = false;
  }
  start_holding(guest);  // it may have been stopped anew meanwhile
}

}  // namespace mosix
