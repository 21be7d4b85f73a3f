// From an image to a remote: a stub of the sandbox's pid 1, whose own program is unmapped to the last byte, gets
// the guest's mappings at the guest's addresses, its threads with their numbers, its signal actions and its
// registers, and last of all the filter. One thread of the supervisor does all of it, for it is the tracer;
// everything that takes time and needs nothing of the guest (namespaces, the stub and the agent in it, the
// filter's program) is done at kReserve, before
// the guest is frozen. After that each batch in the stub counts: on a busy node it waits for its turn twice.
#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "libmosix/agent/agent_image.h"
#include "libmosix/common/log.h"
#include "libmosix/common/membership.h"
#include "libmosix/common/net.h"
#include "libmosix/process/advice.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/syscall_site.h"
#include "libmosix/syscalls/filter.h"
#include "remote/batch.h"
#include "remote/image_queue.h"
#include "remote/page_filler.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr uint64_t kAddressSpaceEnd = 0x7ffffffff000;
constexpr uint64_t kArchMapVdso64 = 0x2003;
constexpr uint64_t kFilterFlags =
    1 /* TSYNC */ | 8 /* NEW_LISTENER */ | 16 /* TSYNC_ESRCH */ | 32 /* WAIT_KILLABLE_RECV */;
constexpr uint64_t kSsDisable = 2, kSsOnstack = 1;
constexpr size_t kArgStart = 7;  ///< in ProcessState::mm
constexpr int kImageLimitMs = 60000;
constexpr size_t kMaxGift = 253;  ///< SCM_MAX_FD: descriptors in one message

int64_t clock_now(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000 + t.tv_nsec;
}

/// Where the data of a PageRun lies in its message, which is not copied out of it.
constexpr size_t kPagePrefix = 16;
Result<uint64_t> page_run_address(const Bytes& body) {
  PageRun run;
  uint32_t bytes = 0;
  Decoder decoder(body.data(), body.size());
  decoder(run.pid), decoder(run.address), decoder(bytes);
  if (!decoder.ok() || body.size() != kPagePrefix + bytes) return fail(EBADMSG, "pages");
  return run.address;
}

/// What the kernel keeps of a thread and the thread itself has to ask for.
void add_thread_calls(Batch& batch, const ThreadState& thread) {
  batch.add(SYS_set_tid_address, {thread.clear_child_tid});
  if (thread.robust_list != 0) batch.add(SYS_set_robust_list, {thread.robust_list, thread.robust_list_size});
  if ((thread.altstack_flags & kSsDisable) == 0 && thread.altstack_size != 0) {
    uint64_t stack[3] = {thread.altstack_sp, thread.altstack_flags & ~kSsOnstack, thread.altstack_size};
    batch.add(SYS_sigaltstack, {batch.place(stack, sizeof stack), 0});
  }
  if (thread.rseq_address != 0)
    batch.add(SYS_rseq, {thread.rseq_address, thread.rseq_size, 0, thread.rseq_signature});
  char name[16] = {};
  strncpy(name, thread.name.c_str(), sizeof name - 1);
  batch.add(SYS_prctl, {PR_SET_NAME, batch.place(name, sizeof name)});
}

/// The code of the vDSO, which has to lie where home's does.
Result<CodeRange> check_vdso(int outer_pid, const Area& wanted) {
  TRY(std::vector<MapEntry> maps, read_maps(outer_pid));
  uint64_t start = ~0ull, end = 0;
  for (const MapEntry& entry : maps)
    if (entry.is_known_special() && entry.path != "[vsyscall]") {
      start = std::min(start, entry.start);
      end = std::max(end, entry.end);
    }
  if (start != wanted.start || end != wanted.end)
    return fail(ENOTSUP, "this node's vDSO is laid out otherwise than home's: another kernel");
  return vdso_code(maps);
}

}  // namespace

struct Supervisor::Building {
  Reserve order;
  ProcessState state;
  SpawnedStub stub;
  std::shared_ptr<Guest> guest;
  /// The stub's own thread, then those of state.threads that are not: all but the first, or all if the guest's first thread
  /// has ended. The stub's own ends then, too, when all is done.
  std::vector<Tracee> tracees;
  std::vector<std::shared_ptr<CachedFile>> files;
  std::shared_ptr<SharedPool> pool;  ///< of memory that it shares
  std::vector<BoundPin> bound;       ///< files that it maps, shared and writable
  std::vector<int> descriptors;      ///< of the file or memory behind each area; -1: there is none
  UniqueFd file_socket;              ///< the other end is the only descriptor of the stub, number 0
  UniqueFd userfaultfd;              ///< of the stub's address space; empty where there is none
  std::vector<sock_filter> filter;

  bool leader_has_ended() const { return state.threads[0].tid != state.pid; }
  Tracee& tracee_of(size_t thread) { return tracees[thread + (leader_has_ended() ? 1 : 0)]; }
};

void Supervisor::note_home_clocks(const ClockReading& told) {
  int64_t monotonic = told.monotonic_ns - clock_now(CLOCK_MONOTONIC);
  int64_t boottime = told.boottime_ns - clock_now(CLOCK_BOOTTIME);
  std::lock_guard lock(clock_mutex_);
  monotonic_offset_ns_ = std::max(monotonic, monotonic_offset_ns_.value_or(monotonic));
  boottime_offset_ns_ = std::max(boottime, boottime_offset_ns_.value_or(boottime));
  last_clock_answer_ = told.number;
  clock_changed_.notify_all();
}

/// Each reading is late by its way here; the offsets of a namespace are set once and for all, so it is worth some
/// round trips to find a quick one: a program that moves would see the difference as time that has not passed.
void Supervisor::ask_home_clocks() {
  constexpr uint32_t kFewest = 4, kMost = 100;
  constexpr int64_t kQuickNs = 60'000, kTimeNs = 100'000'000;
  constexpr auto kLimit = std::chrono::milliseconds(200);
  int64_t begun = clock_now(CLOCK_MONOTONIC), quickest = INT64_MAX;
  for (uint32_t number = 1; number <= kMost; ++number) {
    int64_t asked = clock_now(CLOCK_MONOTONIC);
    bool enough = number > kFewest && quickest <= kQuickNs;
    if (enough || asked - begun > kTimeNs) return;
    if (!send_control(ControlType::kClockAsk, encode_message(ClockReading{.number = number}))) return;
    std::unique_lock lock(clock_mutex_);
    if (!clock_changed_.wait_for(lock, kLimit, [&] { return last_clock_answer_ >= number; })) return;
    quickest = std::min(quickest, clock_now(CLOCK_MONOTONIC) - asked);
  }
}

Status Supervisor::ensure_sandbox(const Reserve& order) {
  std::lock_guard lock(sandbox_mutex_);
  if (sandbox_) return {};
  SandboxOptions options;
  if (order.monotonic_ns != 0) {
    ask_home_clocks();
    std::lock_guard clocks(clock_mutex_);
    options.monotonic_offset_ns = monotonic_offset_ns_.value_or(0);
    options.boottime_offset_ns = boottime_offset_ns_.value_or(0);
  }
  TRY(sandbox_, Sandbox::create(options));
  eventfd_write(wake_fd_.get(), 1);
  return {};
}

void Supervisor::build_guest(Reserve order, std::shared_ptr<ImageQueue> queue) {
  Building building;
  building.order = order;
  auto guest = building.guest = std::make_shared<Guest>();
  guest->pid = order.pid;
  guest->epoch = order.epoch;
  guest->window = order.window_base;
  guest->ring_base = order.ring_base;
  guest->ring_bytes = order.ring_bytes;
  fill_random(guest->token, sizeof guest->token);
  expect_hello(guest->token);

  bool counted = false;  // as one who is coming
  auto work = [&]() -> Status {
    {
      // The same pid may have lived here until a moment ago.
      std::unique_lock lock(registry_mutex_);
      if (!registry_changed_.wait_for(lock, std::chrono::seconds(3),
                                      [&] { return !guests_.contains(order.pid); }))
        return fail(EEXIST, "process " + std::to_string(order.pid) + " is here already");
      reaped_.erase(order.pid);
    }
    constexpr uint64_t kFourGiB = 1ull << 32;
    if ((order.ring_base | order.ring_bytes) % 4096 != 0 || order.ring_base >= kFourGiB ||
        order.ring_bytes >= kFourGiB || order.ring_base + order.ring_bytes > kFourGiB)
      return fail(EBADMSG, "places for rings");
    TRY_VOID(let_in());
    counted = true;
    TRY_VOID(ensure_sandbox(order));
    TRY(building.stub, sandbox_->spawn(order.pid));
    guest->outer_pid = building.stub.outer_pid;
    guest->pidfd = std::move(building.stub.pidfd);
    TRY_VOID(prepare_stub(building));
    Reserved reserved{.pid = order.pid, .port = static_cast<uint16_t>(local_port(listen_fd_.get()))};
    memcpy(reserved.token, guest->token, sizeof reserved.token);
    TRY_VOID(send_control(ControlType::kReserved, encode_message(reserved)));

    TRY(bool socket, queue->wait_for_image(kImageLimitMs));
    std::unique_ptr<ImageConnection> connection;
    if (socket)
      connection = std::make_unique<SocketConnection>(queue->take_socket());
    else
      connection = std::make_unique<QueueConnection>(*this, queue);
    TRY_VOID(rebuild(building, *connection));
    ProcessRef ready{.pid = order.pid, .epoch = order.epoch};
    TRY_VOID(send_control(ControlType::kReady, encode_message(ready)));

    TRY(ControlMessage next, queue->pop(kStageTimeoutMs));
    if (next.type != static_cast<uint16_t>(ControlType::kGo))
      return fail(ECANCELED, "the move was called off");
    // Before it runs: its end, which may be near, must not be told first.
    note_guest(*guest, "guest");
    counted = false;
    return start_guest(building);
  };
  Status done = work();
  close_queue(order.pid, queue);
  if (done) {
    ProcessRef running{.pid = order.pid, .epoch = order.epoch};
    send_control(ControlType::kRunning, encode_message(running));
    log_info("guest " + std::to_string(order.pid) + " (" + guest->program + ") from " + options_.home_name +
             " runs");
    return;
  }
  log_info("guest " + std::to_string(order.pid) + " did not start: " + done.error().message());
  if (counted) not_coming();
  guest->ended = true;
  if (guest->outer_pid > 0) syscall(SYS_pidfd_send_signal, guest->pidfd.get(), SIGKILL, nullptr, 0);
  wait_for_end(building.tracees, guest->outer_pid);
  if (guest->outer_pid > 0) drop_guest(guest);
  forget_hello(guest->token);
  if (done.error().code != ECANCELED) send_failed(order.pid, done.error());
}

Status Supervisor::receive_pages(Building& building, ImageConnection& connection) {
  SharedRanges shared(building.pool);
  for (size_t i = 0; i < building.state.areas.size(); ++i)
    if (building.state.areas[i].kind == AreaKind::kShared)
      shared.add(building.state.areas[i], building.descriptors[i]);
  TRY(std::shared_ptr<PageFiller> filler,
      PageFiller::open(building.guest->outer_pid, std::move(building.userfaultfd), building.state.areas,
                       std::move(shared)));
  struct Sinking {
    ImageConnection& connection;
    ~Sinking() { connection.put_pages_into(nullptr); }
  } until_the_end{connection};
  connection.put_pages_into(filler);
  for (;;) {
    TRY(ControlMessage message, connection.receive());
    switch (static_cast<ControlType>(message.type)) {
      case ControlType::kImageEnd:
        return filler->status();
      case ControlType::kPages: {  // arrived before there was a sink
        TRY(uint64_t address, page_run_address(message.body));
        filler->take(address, message.body.data() + kPagePrefix, message.body.size() - kPagePrefix);
        break;
      }
      case ControlType::kFilePages: {
        TRY(PageRun run, decode_message<PageRun>(message.body));
        for (size_t i = 0; i < building.state.areas.size(); ++i) {
          const Area& area = building.state.areas[i];
          if (run.address < area.start || run.address >= area.end || building.files[i] == nullptr) continue;
          TRY_VOID(building.files[i]->put(area.offset + (run.address - area.start), run.data.data(),
                                          run.data.size()));
        }
        break;
      }
      case ControlType::kForget:
        return fail(ECANCELED, "the move was called off");
      default:
        return fail(EBADMSG, "unexpected message in an image");
    }
  }
}

/// What the guest has locked, once its pages are there.
Status Supervisor::lock_again(Batch& batch, Tracee& tracee, const ProcessState& state) {
  uint64_t bytes = 0;
  batch.clear();
  for (const Area& area : state.areas) {
    if ((area.advice & kLocked) == 0) continue;
    uint64_t flags = (area.advice & kLockedOnFault) != 0 ? MLOCK_ONFAULT : 0;
    batch.add(SYS_mlock2, {area.start, area.end - area.start, flags},
              true);  // fails of pages that nobody may touch
    bytes += area.end - area.start;
  }
  if (bytes == 0) return {};
  TRY_VOID(allow_locking(tracee.tid(), bytes, bytes));
  TRY_VOID(batch.run(tracee));
  TRY(std::vector<MapFlags> now, read_map_flags(tracee.tid()));
  if (!plan_locks(state.areas, now).empty()) return fail(ENOMEM, "this node cannot lock that much memory");
  return {};
}

/// The agent goes into the stub, for it carries out the rest, and everything else of the stub goes.
Status Supervisor::prepare_stub(Building& building) {
  Guest& guest = *building.guest;
  int outer = guest.outer_pid;
  TRY(Tracee leader, Tracee::seize(outer, PTRACE_O_TRACECLONE));
  building.tracees.push_back(std::move(leader));
  Tracee& tracee = building.tracees[0];
  TRY_VOID(tracee.interrupt());
  TRY(StopInfo stop, tracee.wait_stop(kStageTimeoutMs));
  if (stop.gone()) return fail(ESRCH, "the stub is gone");
  uint64_t window = guest.window;
  uint64_t slot = slot_address(window, 0);
  {
    TRY(uint64_t site, find_vdso_syscall(outer));
    TRY(CallInjector injector, CallInjector::begin(tracee, site));
    constexpr uint64_t kFresh = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    TRY(long code, injector.call(SYS_mmap, window, kAgentCodeBytes, PROT_READ | PROT_EXEC, kFresh, ~0ull, 0));
    TRY(long work, injector.call(SYS_mmap, slot, kSlotMappedBytes, PROT_READ | PROT_WRITE, kFresh, ~0ull, 0));
    if (static_cast<uint64_t>(code) != window || static_cast<uint64_t>(work) != slot)
      return fail(ENOMEM, "the agent's window is not free in the stub");
    TRY_VOID(injector.finish());
  }
  TRY(ProcessMemory memory, ProcessMemory::open(outer));
  TRY_VOID(memory.write(window, kAgentImage.bytes, kAgentImage.size));

  Batch batch(window, outer);
  uint64_t window_end = window + kWindowBytes;
  batch.add(SYS_munmap, {0, window});
  batch.add(SYS_munmap, {window_end, kAddressSpaceEnd - window_end});
  uint64_t ends_at = batch.reserve(2 * sizeof(int));
  batch.add(SYS_socketpair, {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_at});
  size_t opened = batch.add(SYS_userfaultfd, {O_CLOEXEC | UFFD_USER_MODE_ONLY}, true);
  TRY_VOID(batch.run(tracee));
  int ends[2];
  TRY_VOID(batch.fetch(ends_at, ends, sizeof ends));
  if (ends[0] != 0) return fail(EBADF, "the stub has descriptors of its own");
  building.file_socket.reset(static_cast<int>(syscall(SYS_pidfd_getfd, guest.pidfd.get(), ends[1], 0)));
  if (!building.file_socket) return fail_errno("take the stub's socket");
  auto inner = static_cast<int>(batch.result(opened));
  if (inner >= 0)
    building.userfaultfd.reset(static_cast<int>(syscall(SYS_pidfd_getfd, guest.pidfd.get(), inner, 0)));
  batch.clear();
  batch.add(SYS_close_range, {1, ~0u, 0});
  // Who asks it finds that no thread has a direct path.
  batch.add(SYS_mmap, {window + kDirectDirectory, kDirectDirectoryBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ull, 0});
  TRY_VOID(batch.run(tracee));
  TRY(building.filter, build_guest_filter(window, kWindowBytes, guest.ring_bytes != 0));
  return {};
}

/// Sends the image's files to the stub and adds the calls that receive and map them, and close them with all else.
/// Where the descriptors' numbers will be found: they are counted on from 1, as the kernel gives out the lowest.
/// (Over a socket and not by its own notified calls, each of which would be a change of threads there and back.)
Result<std::vector<uint64_t>> Supervisor::add_file_maps(Batch& batch, const Building& building) {
  std::vector<int> files;
  std::map<int, uint64_t> numbers;
  for (int fd : building.descriptors)
    if (fd >= 0 && numbers.emplace(fd, files.size() + 1).second) files.push_back(fd);
  std::vector<uint64_t> gifts;
  for (size_t first = 0; first < files.size(); first += kMaxGift) {
    size_t count = std::min(kMaxGift, files.size() - first);
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxGift * sizeof(int))] = {};
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; ++i) {
      int fd = files[first + i];
      memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof fd);
    }
    if (sendmsg(building.file_socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
      return fail_errno("give the remote its files");

    gifts.push_back(batch.reserve(message.msg_controllen));
    message.msg_control = reinterpret_cast<void*>(gifts.back());
    part.iov_base = reinterpret_cast<void*>(batch.reserve(1));
    message.msg_iov = reinterpret_cast<iovec*>(batch.place(&part, sizeof part));
    batch.add(SYS_recvmsg, {0, batch.place(&message, sizeof message), MSG_CMSG_CLOEXEC});
  }
  for (size_t i = 0; i < building.descriptors.size(); ++i) {
    if (building.descriptors[i] < 0) continue;
    const Area& area = building.state.areas[i];
    bool shared = area.kind == AreaKind::kShared || area.kind == AreaKind::kBound;
    uint64_t flags = shared ? MAP_SHARED : MAP_PRIVATE;
    batch.add(SYS_mmap, {area.start, area.end - area.start, area.protection,
                         flags | MAP_FIXED | MAP_NORESERVE, numbers[building.descriptors[i]], area.offset});
  }
  batch.add(SYS_close_range, {0, ~0u, 0});
  return gifts;
}

Status Supervisor::check_gifts(const Batch& batch, const std::vector<uint64_t>& gifts) {
  int expected = 1;
  for (uint64_t at : gifts) {
    cmsghdr head{};
    TRY_VOID(batch.fetch(at, &head, sizeof head));
    if (head.cmsg_type != SCM_RIGHTS || head.cmsg_len < CMSG_LEN(0) ||
        head.cmsg_len > CMSG_LEN(kMaxGift * sizeof(int)))
      return fail(EBADMSG, "the remote did not get its files");
    std::vector<int> numbers((head.cmsg_len - CMSG_LEN(0)) / sizeof(int));
    TRY_VOID(batch.fetch(at + CMSG_LEN(0), numbers.data(), numbers.size() * sizeof(int)));
    for (int number : numbers)
      if (number != expected++) return fail(EBADMSG, "the remote has its files under other numbers");
  }
  return {};
}

Status Supervisor::rebuild(Building& building, ImageConnection& connection) {
  Guest& guest = *building.guest;
  TRY(ControlMessage first, connection.receive());
  if (first.type == static_cast<uint16_t>(ControlType::kForget))
    return fail(ECANCELED, "the move was called off");
  if (first.type != static_cast<uint16_t>(ControlType::kImageState)) return fail(EBADMSG, "no image state");
  TRY(building.state, decode_message<ProcessState>(first.body));
  const ProcessState& state = building.state;
  if (state.pid != guest.pid || state.threads.empty() || state.threads.size() > kMaxThreads ||
      state.window_base != guest.window || state.actions.size() != 64 || state.mm.size() != 11)
    return fail(EBADMSG, "image state");
  if (!state.threads[0].name.empty()) guest.program = state.threads[0].name;
  guest.cpu_before = state.cpu;
  guest.children.children_user_ns = state.cpu.children_user_ns;
  guest.children.children_system_ns = state.cpu.children_system_ns;
  guest.children.children_peak_kib = state.cpu.children_peak_kib;

  FileNeed need{.pid = guest.pid};
  building.files.resize(state.areas.size());
  building.descriptors.resize(state.areas.size(), -1);
  building.pool = pool_of(building.order.group);
  for (size_t i = 0; i < state.areas.size(); ++i) {
    const Area& area = state.areas[i];
    if (area.kind == AreaKind::kShared) {
      TRY(building.descriptors[i], building.pool->open(area));
    }
    if (area.kind == AreaKind::kBound) {
      if (area.offset % kPageBytes != 0) return fail(EBADMSG, "mapping of a file");
      TRY(BoundPin file,
          bound_.open(key_of(area), area.file.size, static_cast<uint64_t>(area.file.mtime_ns)));
      file->set_path(area.path);
      building.descriptors[i] = file->fd();
      building.bound.push_back(std::move(file));
    }
    if (area.kind != AreaKind::kFile) continue;
    TRY(building.files[i], files_.open(area.file, area.path));
    building.descriptors[i] = building.files[i]->read_only_fd();
    if (!building.files[i]->covers(area.offset, area.end - area.start))
      need.areas.push_back(static_cast<uint32_t>(i));
  }
  TRY_VOID(connection.send(ControlType::kNeed, encode_message(need)));

  int outer = guest.outer_pid;
  building.tracees.reserve(state.threads.size() + 1);  // references to them are kept below
  Tracee& tracee = building.tracees[0];
  uint64_t window = guest.window;
  uint64_t slot = slot_address(window, 0);
  Batch batch(window, outer);
  if (guest.ring_bytes != 0)  // shared, so that it is not merged with a mapping of the guest's
    batch.add(SYS_mmap, {guest.ring_base, guest.ring_bytes, PROT_NONE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, ~0ull, 0});
  for (const Area& area : state.areas) {
    uint64_t bytes = area.end - area.start;
    if (area.end <= area.start || (area.start | area.end) % 4096 != 0 || guest.is_ours(area.start, bytes))
      return fail(EBADMSG, "area");
    if (area.kind == AreaKind::kVdso) batch.add(SYS_arch_prctl, {kArchMapVdso64, area.start});
    if (area.kind != AreaKind::kAnonymous && area.kind != AreaKind::kStack) continue;
    uint64_t flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    if (area.kind == AreaKind::kStack) flags |= MAP_GROWSDOWN | MAP_STACK;
    batch.add(SYS_mmap, {area.start, bytes, area.protection, flags, ~0ull, 0});
  }
  TRY(std::vector<uint64_t> gifts, add_file_maps(batch, building));
  std::vector<AdviceStep> advice;
  for (const Area& area : state.areas) add_advice_steps(area.start, area.end, 0, area.advice, advice);
  // A kernel may lack huge or merged pages; nothing that a program can tell depends on them.
  for (const AdviceStep& step : advice)
    batch.add(SYS_madvise, {step.start, step.end - step.start, static_cast<uint64_t>(step.advice)}, true);
  struct rlimit stack_limit {};
  if (prlimit(outer, RLIMIT_STACK, nullptr, &stack_limit) == 0 && state.stack_limit != 0) {
    stack_limit.rlim_cur = std::min<rlim_t>(state.stack_limit, stack_limit.rlim_max);
    prlimit(outer, RLIMIT_STACK, &stack_limit, nullptr);
  }
  prctl_mm_map mm{};
  memcpy(&mm, state.mm.data(), 11 * sizeof(uint64_t));
  uint64_t auxv = batch.place(state.auxv.data(), state.auxv.size());
  mm.auxv = reinterpret_cast<__u64*>(auxv);
  mm.auxv_size = static_cast<uint32_t>(state.auxv.size());
  mm.exe_fd = ~0u;
  batch.add(SYS_prctl, {PR_SET_MM, PR_SET_MM_MAP, batch.place(&mm, sizeof mm), sizeof mm, 0});
  for (int signal = 1; signal <= 64; ++signal) {
    const SignalAction& action = state.actions[static_cast<size_t>(signal - 1)];
    if (action.handler == 0 || signal == SIGKILL || signal == SIGSTOP) continue;
    uint64_t words[4] = {action.handler, action.flags, action.restorer, action.mask};
    batch.add(SYS_rt_sigaction, {static_cast<uint64_t>(signal), batch.place(words, sizeof words), 0, 8});
  }
  TRY_VOID(batch.run(tracee));
  TRY_VOID(check_gifts(batch, gifts));
  for (const Area& area : state.areas) {
    if (area.kind != AreaKind::kVdso) continue;
    TRY(guest.vdso, check_vdso(outer, area));
  }

  // Threads, with their numbers; each stands still from its first instruction.
  for (size_t i = building.leader_has_ended() ? 0 : 1; i < state.threads.size(); ++i) {
    std::unique_lock one_at_a_time = sandbox_->clone_lock();
    TRY_VOID(sandbox_->set_next_tid(state.threads[i].tid));
    TRY(user_regs_struct original, tracee.registers());
    user_regs_struct led = original;
    led.rip = window + kAgentImage.led_syscall;
    led.rax = SYS_clone;
    led.orig_rax = ~0ull;
    led.rdi = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    led.rsi = slot + kSlotStackTop;
    led.rdx = led.r10 = led.r8 = 0;
    TRY_VOID(tracee.set_registers(led));
    TRY_VOID(tracee.resume());
    TRY(StopInfo cloned, tracee.wait_stop(kStageTimeoutMs));
    if (cloned.kind != StopKind::kFork) return fail(EAGAIN, "thread of the remote: " + cloned.text());
    building.tracees.push_back(Tracee::adopt(static_cast<int>(cloned.message)));
    TRY(StopInfo born, building.tracees.back().wait_stop(kStageTimeoutMs));
    if (born.gone()) return fail(EAGAIN, "thread of the remote is gone");
    TRY_VOID(tracee.resume());
    TRY(StopInfo trapped, tracee.wait_stop(kStageTimeoutMs));
    if (trapped.kind != StopKind::kSignal || trapped.signal != SIGTRAP)
      return fail(EAGAIN, "thread of the remote: " + trapped.text());
    TRY_VOID(tracee.set_registers(original));
  }
  for (size_t i = state.threads.size(); i-- > 0;) {
    batch.clear();
    add_thread_calls(batch, state.threads[i]);
    if (&building.tracee_of(i) != &tracee) TRY_VOID(batch.run(building.tracee_of(i)));
  }
  // The stub's own thread last, which installs the filter for all: the last thing that it does as it likes.
  if (building.leader_has_ended()) batch.clear();
  struct {
    uint64_t length;
    uint64_t address;
  } program{building.filter.size(),
            batch.place(building.filter.data(), building.filter.size() * sizeof(sock_filter))};
  size_t installed = batch.add(SYS_seccomp, {1, kFilterFlags, batch.place(&program, sizeof program)});
  TRY_VOID(batch.run(tracee));
  auto inner_listener = static_cast<int>(batch.result(installed));
  guest.listener = static_cast<int>(syscall(SYS_pidfd_getfd, guest.pidfd.get(), inner_listener, 0));
  if (guest.listener < 0) return fail_errno("take the guest's listener");

  // From here on its calls are notified. It is known, and led, so they are let through.
  auto leader = std::make_shared<GuestThread>();  // if it is not one of the guest's
  struct Known {
    Supervisor& supervisor;
    const std::shared_ptr<GuestThread>& thread;
    ~Known() { supervisor.drop_thread(thread); }
  } until_the_end{*this, leader};
  if (building.leader_has_ended()) {
    leader->guest = building.guest;
    leader->outer_tid = tracee.tid();
    leader->led = true;
    add_thread(leader);
  }
  for (size_t i = 0; i < state.threads.size(); ++i) {
    auto record = std::make_shared<GuestThread>();
    record->guest = building.guest;
    record->tid = state.threads[i].tid;
    record->outer_tid = building.tracee_of(i).tid();
    record->slot = state.threads[i].slot;
    record->signals_received = state.threads[i].signals_acked;
    record->cpu_before_ns = state.threads[i].cpu_ns;
    record->moved_bytes = state.threads[i].moved_bytes;
    user_regs_struct registers{};
    if (state.threads[i].registers.size() != sizeof registers) return fail(EBADMSG, "registers");
    memcpy(&registers, state.threads[i].registers.data(), sizeof registers);
    if (state.threads[i].sleep_call != 0) {
      record->sleep = {state.threads[i].sleep_call, arguments_in(registers), state.threads[i].deadline_ns};
    } else {
      record->deadline_ns = state.threads[i].deadline_ns;
      record->deadline_call = registers.orig_rax;
    }
    if (static_cast<int64_t>(registers.orig_rax) >= 0)
      record->begun = begun_call(registers.orig_rax, arguments_in(registers), registers.rip,
                                 static_cast<int64_t>(registers.rax));
    record->led = true;
    guest.threads[record->tid] = record;
    guest.slots.insert(record->slot);
    add_thread(record);
  }
  {
    std::unique_lock lock(registry_mutex_);
    guests_[guest.pid] = building.guest;
  }
  for (const BoundDescriptor& descriptor : state.descriptors)
    if (descriptor.pid == guest.pid) note_bound_descriptor(descriptor);
  for (int32_t number : state.proc_files) note_proc_file(building.guest, static_cast<uint32_t>(number));
  start_workers(guest.listener);
  batch.clear();
  batch.add(SYS_close, {static_cast<uint64_t>(inner_listener)});
  // Late, for they run while the remote works for us.
  bool timed =
      std::any_of(state.cpu_timers.begin(), state.cpu_timers.end(), [](uint64_t word) { return word != 0; });
  if (timed && state.cpu_timers.size() == 8) {
    guest.no_direct = true;
    uint64_t timers = batch.place(state.cpu_timers.data(), 64);
    batch.add(SYS_setitimer, {ITIMER_VIRTUAL, timers, 0});
    batch.add(SYS_setitimer, {ITIMER_PROF, timers + 32, 0});
  }
  TRY_VOID(batch.run(tracee));
  TRY_VOID(receive_pages(building, connection));
  TRY_VOID(lock_again(batch, tracee, state));

  for (size_t i = 0; i < state.threads.size(); ++i) {
    const ThreadState& thread = state.threads[i];
    user_regs_struct registers{};
    if (thread.registers.size() != sizeof registers) return fail(EBADMSG, "registers");
    memcpy(&registers, thread.registers.data(), sizeof registers);
    std::vector<std::byte> xstate(thread.xstate.size());
    memcpy(xstate.data(), thread.xstate.data(), xstate.size());
    TRY_VOID(building.tracee_of(i).set_xstate(xstate));
    TRY_VOID(building.tracee_of(i).set_registers(registers));
    TRY_VOID(building.tracee_of(i).set_signal_mask(thread.signal_mask));
  }
  return building.leader_has_ended() ? end_leader(building) : Status{};
}

/// The stub's own thread ends as the guest's first has. It is let go of at the last stop of its way: a tracer would hear of
/// its end only after that of all others.
Status Supervisor::end_leader(Building& building) {
  Tracee& tracee = building.tracees[0];
  TRY_VOID(tracee.set_options(PTRACE_O_TRACEEXIT));
  TRY(user_regs_struct registers, tracee.registers());
  registers.rip = building.guest->window + kAgentImage.led_syscall;
  registers.rax = SYS_exit;
  registers.orig_rax = ~0ull;
  registers.rdi = 0;
  TRY_VOID(tracee.set_registers(registers));
  TRY_VOID(tracee.resume());
  TRY(StopInfo stop, tracee.wait_stop(kStageTimeoutMs));
  if (stop.kind != StopKind::kExiting) return fail(EAGAIN, "first thread of the remote: " + stop.text());
  return tracee.detach();
}

/// Deputies that home has sent here connect, and tell what came while the guest was on its way: signals are there before
/// it makes a step.
Status Supervisor::meet_deputies(const Guest& guest,
                                 const std::vector<std::shared_ptr<GuestThread>>& threads) {
  for (auto& thread : threads) {
    TRY(UniqueFd channel,
        wait_for_hello(guest.token, thread->tid, thread->signals_received, kConnectTimeoutMs));
    std::lock_guard lock(thread->mutex);
    thread->channel = std::move(channel);
    thread->inbox.clear();
  }
  for (auto& thread : threads) TRY_VOID(send_raw(*thread, FrameType::kHear, nullptr, 0, InMove::kFinish));
  for (auto& thread : threads) {
    TRY([[maybe_unused]] CallReply heard, await_reply(*thread, plain_plan(0, {})));
  }
  return {};
}

Status Supervisor::start_guest(Building& building) {
  Guest& guest = *building.guest;
  std::vector<std::shared_ptr<GuestThread>> threads;
  for (const ThreadState& state : building.state.threads) threads.push_back(guest.thread(state.tid));
  TRY_VOID(meet_deputies(guest, threads));
  for (auto& thread : threads) thread->led = false;
  // Arguments and environment stay: /proc/PID/cmdline and environ, and with them ps, show home's.
  uint64_t arguments = building.state.mm[kArgStart] & ~uint64_t{4095};
  for (const Area& area : building.state.areas) {
    if (area.kind == AreaKind::kVdso) continue;
    uint64_t end = area.start < arguments && arguments < area.end ? arguments : area.end;
    std::lock_guard lock(guest.mutex);
    guest.at_home.push_back({area.start, end - area.start});
  }
  for (const ThreadState& state : building.state.threads) {
    std::shared_ptr<GuestThread> thread = guest.thread(state.tid);
    std::lock_guard lock(thread->mutex);
    rest(thread);
  }
  for (size_t i = 0; i < building.state.threads.size(); ++i) {
    GuestThread& thread = *guest.thread(building.state.threads[i].tid);
    bool has_signal;
    {
      std::lock_guard lock(thread.mutex);
      has_signal = thread.has_signal();
    }
    if (has_signal)
      put_signals(thread, building.tracee_of(i));
    else
      TRY_VOID(building.tracee_of(i).detach());
  }
  return {};
}

}  // namespace mosix
