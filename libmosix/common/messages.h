// Control messages between nodes: custodian (home), supervisor (away) and mosixd, over the connection that
// began with membership.h. docs/protocol.md has one row per message with who may send it when.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "libmosix/common/wire.h"

namespace mosix {

enum class ControlType : uint16_t {
  // First request on a fresh connection, answered by mosixd (kAccept or kRefuse).
  kPing = 1,       ///< PingRequest: asks a node about itself -> kPong
  kPong = 2,       ///< NodeInfo
  kGuestOpen = 3,  ///< GuestOpen: hand this connection to a supervisor for this family
  kAccept = 4,
  kRefuse = 5,  ///< Refusal

  // custodian -> supervisor
  kReserve = 10,  ///< Reserve -> kReserved | kRefuse
  /// ProcessState, then kPages*, then kImageEnd; also supervisor -> custodian, -> supervisor
  kImageState = 11,
  kPages = 12,     ///< PageRun
  kImageEnd = 13,  ///< ProcessRef -> kReady | kFailed
  kGo = 14,  ///< ProcessRef: the move is committed, let the guest run -> kRunning; or after kFrozen: go on
  kForget = 15,      ///< ProcessRef: the move did not happen, or the process is home, or has ended: drop it
  kBringHome = 16,   ///< MoveOrder: freeze and send the image to home -> kImageState... | kFailed
  kMoveTo = 17,      ///< MoveOrder: freeze and send the image to another supervisor -> kMoved | kFailed
  kResume = 18,      ///< ResumeOrder: a frozen guest goes on where it was
  kHold = 19,        ///< HoldOrder: home's process stopped or continued
  kSeized = 20,      ///< ExecAnswer: answer to kExecAsk
  kExeced = 21,      ///< ProcessRef: the exec succeeded at home, drop the remote
  kAdopt = 22,       ///< ChildBorn's answer
  kTraceOn = 23,     ///< TraceOrder
  kFilePages = 25,   ///< PageRun: pristine contents of a kFile area, as its file has them; goes with kPages
  kClockTell = 26,   ///< ClockReading: answer to kClockAsk
  kCpuTell = 27,     ///< CpuReading: answer to kCpuAsk
  kNeed = 24,        ///< FileNeed: receiver of an image state asks for contents it lacks
  kFileTold = 28,    ///< FileTold: answer to kFileBind and kFileSettle
  kFileRecall = 29,  ///< FileRef: somebody at home opens a file that is bound here -> kWantHome | kFileSettle
  kFileContents = 30,  ///< FileWrite: contents of a file that is being bound here

  // supervisor -> custodian
  kReserved = 40,    ///< Reserved
  kReady = 41,       ///< ProcessRef: rebuilt, waiting for the deputies' channels
  kRunning = 42,     ///< ProcessRef
  kFailed = 43,      ///< Refusal with the process: what could not be done, and why
  kAbort = 44,       ///< AbortOrder: get this deputy thread out of the call with this sequence number
  kExecAsk = 45,     ///< ExecAsk: about to exec, may it, and watch it
  kExecFailed = 46,  ///< ThreadRef: the exec returned an error, stop watching
  kChildBorn = 47,   ///< ChildBorn: a fork at home is complete
  kGone = 48,        ///< ProcessRef: the remote has ended
  kWantHome = 49,    ///< WantHome: cannot be done here, with the reason
  kTrace = 50,       ///< TraceEvent
  kClockAsk = 52,    ///< ClockReading, only its number: what do home's clocks say -> kClockTell
  kCpuAsk = 53,      ///< CpuReading, only its pid: what has this ended child spent away -> kCpuTell
  kFrozen = 54,      ///< Frozen: a guest that shares memory stands still -> kGo | kResume
  kFileBind = 55,    ///< FileBind: a guest maps a file shared and writable -> kFileContents..., kFileTold
  kFileWrite = 56,   ///< FileWrite: what a bound file has here
  kFileSettle = 57,  ///< FileSettle: home has all of it now -> kFileTold
  kStatistics = 51,  ///< GuestStatistics, once a second for each guest, and at its end
};

struct Refusal {
  int32_t pid = 0;
  int32_t code = 0;  ///< errno
  std::string reason;
  template <class A>
  void visit(A& a) {
    a(pid), a(code), a(reason);
  }
};

struct NodeInfo {
  std::string name;
  uint32_t id = 0;
  std::string kernel;
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  uint32_t load_milli = 0;  ///< 1-minute load average * 1000
  uint32_t guests = 0;
  uint32_t max_guests = 0;
  std::string cpu_features;  ///< flags of /proc/cpuinfo
  template <class A>
  void visit(A& a) {
    a(name), a(id), a(kernel), a(cpus), a(memory_bytes), a(free_bytes), a(load_milli), a(guests),
        a(max_guests), a(cpu_features);
  }
};

struct GuestOpen {
  std::string family;  ///< unique name: home node, custodian pid, start time
  std::string home_name;
  uint32_t uid = 0;
  std::string program;
  template <class A>
  void visit(A& a) {
    a(family), a(home_name), a(uid), a(program);
  }
};

struct ProcessRef {
  int32_t pid = 0;
  uint32_t epoch = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch);
  }
};

struct ResumeOrder {
  int32_t pid = 0;
  uint32_t epoch = 0;
  uint8_t fresh_channels = 0;  ///< 1: its deputies had been sent elsewhere, and connect anew
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(fresh_channels);
  }
};

struct ThreadRef {
  int32_t pid = 0;
  int32_t tid = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(tid);
  }
};

struct Reserve {
  int32_t pid = 0;
  uint32_t epoch = 0;
  uint64_t memory_bytes = 0;
  uint64_t window_base = 0;
  int64_t monotonic_ns = 0;  ///< home's clocks now; 0 both: unknown
  int64_t boottime_ns = 0;
  /// Below 4 GiB: addresses that the guest must leave alone, besides the window. None if ring_bytes is 0.
  uint64_t ring_base = 0;
  uint64_t ring_bytes = 0;
  uint64_t group =
      0;  ///< the same number for processes that share memory and come together; 0: it comes alone
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(memory_bytes), a(window_base), a(monotonic_ns), a(boottime_ns), a(ring_base),
        a(ring_bytes), a(group);
  }
};

/// Home's clocks at the moment of sending. The receiver's are behind by no more than the way took, and the best of a
/// few readings is taken.
struct ClockReading {
  uint32_t number = 0;  ///< of the question, which the answer repeats
  int64_t monotonic_ns = 0;
  int64_t boottime_ns = 0;
  template <class A>
  void visit(A& a) {
    a(number), a(monotonic_ns), a(boottime_ns);
  }
};

/// Processor time away from home, which no kernel at home counts: of a process itself, on all the nodes where it has
/// been, and of those of its children that it has waited for while it was away.
struct CpuFigures {
  uint64_t user_ns = 0;
  uint64_t system_ns = 0;
  uint64_t children_user_ns = 0;
  uint64_t children_system_ns = 0;
  /// Most memory resident at a time, as getrusage counts it; of it and its children apart
  uint64_t peak_kib = 0;
  uint64_t children_peak_kib = 0;
  uint64_t own_ns() const { return user_ns + system_ns; }
  uint64_t total_ns() const { return own_ns() + children_user_ns + children_system_ns; }
  /// What a parent that waits for such a process adds to what its children have spent.
  void add_child(const CpuFigures& child) {
    children_user_ns += child.user_ns + child.children_user_ns;
    children_system_ns += child.system_ns + child.children_system_ns;
    children_peak_kib = std::max({children_peak_kib, child.peak_kib, child.children_peak_kib});
  }
  template <class A>
  void visit(A& a) {
    a(user_ns), a(system_ns), a(children_user_ns), a(children_system_ns), a(peak_kib), a(children_peak_kib);
  }
};

struct CpuReading {
  int32_t pid = 0;
  CpuFigures cpu;
  template <class A>
  void visit(A& a) {
    a(pid), a(cpu);
  }
};

struct Reserved {
  int32_t pid = 0;
  uint16_t port = 0;       ///< where deputies (and another supervisor's image) connect
  uint8_t token[16] = {};  ///< for this process and epoch
  template <class A>
  void visit(A& a) {
    a(pid), a(port), a(token);
  }
};

enum class AreaKind : uint8_t {
  kAnonymous = 0,
  kFile = 1,   ///< private file mapping, or shared but never writable
  kStack = 2,  ///< anonymous, grows down
  kVdso = 3,   ///< vdso and its data pages, [vvar start, vdso end)
  /// Anonymous memory that it shares with others, or may: `file` names it within one move, `offset` says which part
  kShared = 4,
  /// A shared mapping of a file of home's that is bound: while it is away, its contents are where its mappings are.
  /// `file` names it, `file.size` is its size, and `file.mtime_ns` the number of the binding
  kBound = 5,
};

/// Bits of Area::advice: what madvise(2) and mlock(2) have been told and smaps shows, in VmFlags, by these letters.
enum Advice : uint32_t {
  kAdviceDontFork = 1,     ///< dc
  kAdviceWipeOnFork = 2,   ///< wf
  kAdviceDontDump = 4,     ///< dd
  kAdviceMergeable = 8,    ///< mg
  kAdviceSequential = 16,  ///< sr
  kAdviceRandom = 32,      ///< rr
  kAdviceHuge = 64,        ///< hg
  kAdviceNoHuge = 128,     ///< nh
  kLocked = 256,           ///< lo: by mlock(2)
  kLockedOnFault = 512,    ///< lf: ... with MLOCK_ONFAULT
};

/// Identity of a mapped file's content on its home node.
struct FileKey {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  auto operator<=>(const FileKey&) const = default;
  template <class A>
  void visit(A& a) {
    a(device), a(inode), a(size), a(mtime_ns);
  }
};

/// One mapping of the guest.
struct Area {
  uint64_t start = 0;
  uint64_t end = 0;
  uint32_t protection = 0;  ///< PROT_*
  uint32_t advice = 0;      ///< Advice bits
  AreaKind kind = AreaKind::kAnonymous;
  FileKey file;
  uint64_t offset = 0;
  std::string path;
  template <class A>
  void visit(A& a) {
    a(start), a(end), a(protection), a(advice), a(kind), a(file), a(offset), a(path);
  }
};

struct SignalAction {
  uint64_t handler = 0;
  uint64_t flags = 0;
  uint64_t restorer = 0;
  uint64_t mask = 0;
  template <class A>
  void visit(A& a) {
    a(handler), a(flags), a(restorer), a(mask);
  }
};

/// Registers and what the kernel keeps for a thread. The registers are as at a clean boundary: in user mode,
/// a call to be made again stands at its `syscall` instruction with its number in rax.
struct ThreadState {
  int32_t tid = 0;
  int32_t slot = 0;
  Bytes registers;  ///< user_regs_struct
  Bytes xstate;     ///< XSAVE image as ptrace gives it
  uint64_t signal_mask = 0;
  uint64_t rseq_address = 0;
  uint32_t rseq_size = 0;
  uint32_t rseq_signature = 0;
  uint64_t robust_list = 0;
  uint64_t robust_list_size = 0;
  uint64_t clear_child_tid = 0;
  uint64_t altstack_sp = 0;
  uint32_t altstack_flags = 0;
  uint64_t altstack_size = 0;
  std::string name;
  uint32_t signals_acked = 0;
  uint32_t next_sequence = 1;
  uint64_t cpu_ns = 0;  ///< processor time spent away so far
  /// What the call in `registers`, which is made again, has given away or received already.
  uint64_t moved_bytes = 0;
  /// When the poll, select or other wait in `registers`, which is made again, has to end: CLOCK_MONOTONIC at home.
  /// 0: it has no limit, or begins anew. With sleep_call: the sleep's end. Of a read, whose limit no argument names: when
  /// it began.
  int64_t deadline_ns = 0;
  /// The sleep in `registers`, which goes on by the restart block of home's kernel: its number, or restart_syscall's if
  /// nobody knows. 0: no sleep.
  uint64_t sleep_call = 0;
  template <class A>
  void visit(A& a) {
    a(tid), a(slot), a(registers), a(xstate), a(signal_mask), a(rseq_address), a(rseq_size),
        a(rseq_signature), a(robust_list), a(robust_list_size), a(clear_child_tid), a(altstack_sp),
        a(altstack_flags), a(altstack_size), a(name), a(signals_acked), a(next_sequence), a(cpu_ns),
        a(moved_bytes), a(deadline_ns), a(sleep_call);
  }
};

/// A descriptor of a process that leads to a bound file.
struct BoundDescriptor {
  int32_t pid = 0;
  int32_t number = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  auto operator<=>(const BoundDescriptor&) const = default;
  template <class A>
  void visit(A& a) {
    a(pid), a(number), a(device), a(inode);
  }
};

/// A process between two places: everything but its pages.
struct ProcessState {
  int32_t pid = 0;
  uint32_t epoch = 0;
  uint64_t window_base = 0;
  std::vector<Area> areas;
  std::vector<ThreadState> threads;   ///< the group leader first
  std::vector<SignalAction> actions;  ///< signals 1 to 64
  std::vector<uint64_t> mm;           ///< fields of prctl_mm_map, in its order, without auxv
  Bytes auxv;
  int64_t monotonic_ns = 0;  ///< home's clocks at the freeze
  int64_t boottime_ns = 0;
  uint64_t stack_limit = 0;          ///< RLIMIT_STACK, soft
  std::vector<uint64_t> cpu_timers;  ///< itimerval (4 words) of ITIMER_VIRTUAL and of ITIMER_PROF
  CpuFigures cpu;                    ///< spent away so far
  std::vector<BoundDescriptor> descriptors;
  std::vector<int32_t> proc_files;  ///< descriptors that lead into /proc
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(window_base), a(areas), a(threads), a(actions), a(mm), a(auxv), a(monotonic_ns),
        a(boottime_ns), a(stack_limit), a(cpu_timers), a(cpu), a(descriptors), a(proc_files);
  }
};

struct FileRef {
  uint64_t device = 0;
  uint64_t inode = 0;
  template <class A>
  void visit(A& a) {
    a(device), a(inode);
  }
};

struct FileBind {
  uint32_t question = 0;  ///< repeated by the answer
  int32_t pid = 0;
  int32_t number = 0;  ///< of its descriptor
  template <class A>
  void visit(A& a) {
    a(question), a(pid), a(number);
  }
};

struct FileTold {
  uint32_t question = 0;
  int32_t code = 0;  ///< errno: it cannot be bound, and why; 0: done
  std::string reason;
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  uint64_t binding = 0;                      ///< number of this binding of the file
  std::vector<BoundDescriptor> descriptors;  ///< all that lead to it, of processes that are on this node
  template <class A>
  void visit(A& a) {
    a(question), a(code), a(reason), a(device), a(inode), a(size), a(binding), a(descriptors);
  }
};

/// Contents of a bound file. Zeros that were never written are not sent.
struct FileWrite {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;  ///< of the whole file
  uint64_t binding = 0;
  uint64_t offset = 0;
  Bytes data;  ///< at most kPageRunBytes
  template <class A>
  void visit(A& a) {
    a(device), a(inode), a(size), a(binding), a(offset), a(data);
  }
};

/// All of a bound file that was changed away has been sent.
struct FileSettle {
  /// kRelease: nobody there maps it any more; kLeave: its mappings are about to move with `pid`. Others count as kStay
  enum class Then : uint8_t { kStay = 0, kRelease = 1, kLeave = 2 };
  uint32_t question = 0;  ///< 0: no answer is wanted
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t binding = 0;  ///< a word about an earlier one is late, and means nothing
  Then then = Then::kStay;
  int32_t pid = 0;
  template <class A>
  void visit(A& a) {
    a(question), a(device), a(inode), a(binding), a(then), a(pid);
  }
};

/// Contents of consecutive pages that differ from what a fresh mapping of their area would hold.
struct PageRun {
  int32_t pid = 0;
  uint64_t address = 0;
  Bytes data;  ///< multiple of 4096, at most kPageRunBytes
  template <class A>
  void visit(A& a) {
    a(pid), a(address), a(data);
  }
};

/// The receiver of a ProcessState asks for the contents of these areas in full (indices into areas): it has
/// no file of that key. Always sent once, empty when nothing is lacking.
struct FileNeed {
  int32_t pid = 0;
  std::vector<uint32_t> areas;
  template <class A>
  void visit(A& a) {
    a(pid), a(areas);
  }
};

struct MoveOrder {
  int32_t pid = 0;
  uint32_t epoch = 0;
  std::string address;  ///< of the other supervisor, for kMoveTo
  uint16_t port = 0;
  uint8_t token[16] = {};
  uint64_t group = 0;  ///< as in Reserve
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(address), a(port), a(token), a(group);
  }
};

/// The guests on this node that have mappings of memory that this one shares, itself among them.
struct Frozen {
  int32_t pid = 0;
  uint32_t epoch = 0;
  std::vector<int32_t> sharers;
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(sharers);
  }
};

struct HoldOrder {
  int32_t pid = 0;
  uint8_t stopped = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(stopped);
  }
};

struct AbortOrder {
  int32_t pid = 0;
  int32_t tid = 0;
  uint32_t sequence = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(tid), a(sequence);
  }
};

struct ExecAsk {
  int32_t pid = 0;
  int32_t tid = 0;
  int32_t directory = -100;  ///< home descriptor that a relative path starts from, AT_FDCWD
  int32_t flags = 0;         ///< of execveat
  std::string path;
  CpuFigures cpu;  ///< the next program goes on counting from here
  uint64_t thread_cpu_ns = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(tid), a(directory), a(flags), a(path), a(cpu), a(thread_cpu_ns);
  }
};

struct ExecAnswer {
  int32_t pid = 0;
  int32_t tid = 0;
  uint8_t allowed = 0;  ///< 0: bring the process home first, reason says why (set-id, unreadable)
  std::string reason;
  template <class A>
  void visit(A& a) {
    a(pid), a(tid), a(allowed), a(reason);
  }
};

struct ChildBorn {
  int32_t parent_pid = 0;
  int32_t pid = 0;
  int32_t slot = 0;
  template <class A>
  void visit(A& a) {
    a(parent_pid), a(pid), a(slot);
  }
};

struct WantHome {
  int32_t pid = 0;
  std::string reason;      ///< "io_uring_setup", "shmat", ...
  uint8_t for_a_call = 0;  ///< 1: once that is made, it may come back
  template <class A>
  void visit(A& a) {
    a(pid), a(reason), a(for_a_call);
  }
};

struct TraceOrder {
  int32_t pid = 0;  ///< 0: every guest of the family
  uint8_t on = 0;
  uint8_t stacks = 0;  ///< also walk the guest's stack for each call
  template <class A>
  void visit(A& a) {
    a(pid), a(on), a(stacks);
  }
};

enum class AnsweredBy : uint8_t {
  kHere = 0,
  kHome = 1,
  kCache = 2,
  kPosted = 3,
  kSplit = 4,
  kBroughtHome = 5
};

struct TraceEvent {
  int32_t pid = 0;
  int32_t tid = 0;
  uint32_t number = 0;
  uint64_t args[6] = {};
  int64_t result = 0;
  AnsweredBy answered_by = AnsweredBy::kHome;
  int64_t started_ns = 0;      ///< CLOCK_REALTIME
  uint64_t round_trip_ns = 0;  ///< notification received until answered
  uint64_t home_ns = 0;        ///< of it, frames sent until replies received: the network and home
  std::string text;            ///< call with decoded arguments, "openat(AT_FDCWD, \"/etc/motd\", O_RDONLY)"
  std::string result_text;     ///< "3", "-1 ENOENT (No such file or directory)"
  std::vector<std::string> stack;
  template <class A>
  void visit(A& a) {
    a(pid), a(tid), a(number), a(args), a(result), a(answered_by), a(started_ns), a(round_trip_ns),
        a(home_ns), a(text), a(result_text), a(stack);
  }
};

struct GuestStatistics {
  int32_t pid = 0;
  uint32_t epoch = 0;
  uint64_t forwarded_calls = 0;
  uint64_t local_answers = 0;
  CpuFigures cpu;
  uint64_t resident_bytes = 0;
  template <class A>
  void visit(A& a) {
    a(pid), a(epoch), a(forwarded_calls), a(local_answers), a(cpu), a(resident_bytes);
  }
};

}  // namespace mosix
