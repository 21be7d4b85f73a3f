// The supervisor: one process beside each family of guests on an away node. Rebuilds remotes from images, owns
// their seccomp listener, forwards their calls to their deputies, puts signals into them, freezes and captures
// them for the next move. It runs outside the sandbox, as the user that mosixd gave it, and needs no privilege
// beyond its own user namespace. When it ends, its guests end with it.
//
// One class, for all of it works on one registry; its parts are in files of their own:
//   supervisor.cc     start, control connection, link to mosixd, end of guests
//   channels.cc       accepting deputies, watching idle channels
//   notify.cc         notification workers and the way of one call through them
//   direct_calls.cc   calls that guest threads make to their deputies themselves
//   signals.cc        putting home's signals into guest threads
//   partial_calls.cc   write, send and their like, and MSG_WAITALL, which a move may break off
//   timed_calls.cc    poll, select and their like, whose time limits outlast a move
//   split_calls.cc    calls in which both sides take part: signal actions and masks, times, limits
//   memory_calls.cc   mappings of home's files
//   shared_files.cc   ... that are shared and writable
//   process_calls.cc  fork, threads, exec, exit
//   child_times.cc    processor time of children, at the parent's wait
//   rebuild.cc        from image to remote
//   freeze.cc         from remote to image
#pragma once

#include <linux/seccomp.h>
#include <nlohmann/json_fwd.hpp>

#include <deque>
#include <functional>
#include <shared_mutex>
#include <string>
#include <thread>

#include "libmosix/common/page_sink.h"
#include "libmosix/process/shared_memory.h"
#include "libmosix/process/tracee.h"
#include "libmosix/syscalls/decode.h"
#include "libmosix/syscalls/table.h"
#include "remote/bound_files.h"
#include "remote/channel.h"
#include "remote/crew.h"
#include "remote/file_cache.h"
#include "remote/guest.h"
#include "remote/pending_call.h"
#include "remote/proc_files.h"
#include "remote/sandbox/sandbox.h"

namespace mosix {

struct HiddenLimit;

class Batch;

/// A call that may send a signal to a thread of the process `pid`, which makes it.
bool may_signal_own_threads(uint64_t number, const std::array<uint64_t, 6>& args, int pid);

/// How a trapped call is answered.
struct Answer {
  bool run_here = false;
  int64_t result = 0;
  static Answer value(int64_t result) { return {false, result}; }
  static Answer here() { return {true, 0}; }
  void apply(PendingCall& call) const { run_here ? call.let_run_here() : call.answer(result); }
};

struct CpuTimes {
  uint64_t user_ns = 0, system_ns = 0;
};
/// Processor time that a guest (or one thread of it) has spent away from home, here and before.
CpuTimes cpu_times(const Guest& guest, const GuestThread* thread);
/// The same with that of the children it has waited for; its last word once it is reaped.
CpuFigures cpu_figures(Guest& guest);

/// dup(2) and its like.
bool makes_another_descriptor(uint64_t number, const std::array<uint64_t, 6>& args);

/// In a struct rusage that home has filled: most memory resident at a time, of which home's kernel knows only what
/// home keeps.
void raise_peak(std::vector<uint8_t>& rusage_bytes, uint64_t peak_kib);

/// Where an image comes from or goes to: a connection that carries control messages about one process.
class ImageConnection {
 public:
  virtual ~ImageConnection() = default;
  virtual Status send(ControlType type, const Bytes& body) = 0;
  /// One PAGES message without copying its data first.
  virtual Status send_pages(ControlType type, const PageRun& head, const void* data, size_t bytes) = 0;
  virtual Result<ControlMessage> receive() = 0;
  /// From now on pages go to `sink` and are not received; null ends that.
  virtual void put_pages_into(std::shared_ptr<PageSink> sink) = 0;
};

struct SupervisorOptions {
  std::string family;
  std::string home_name;
  std::string node_name;
  int control_fd = 3;
  int link_fd = 4;
};

class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options);
  /// Serves until the control connection ends and no guest is left. The exit status.
  int run();

 private:
  // --- supervisor.cc
  void read_control();
  void serve_control(ControlMessage message);
  Status send_control(ControlType type, const Bytes& body);
  void serve_link();
  void watch_sandbox();
  void tick();
  void send_failed(int pid, const Error& error);
  std::shared_ptr<Guest> find_guest(int pid);
  std::shared_ptr<GuestThread> find_thread(int outer_tid);
  void add_thread(const std::shared_ptr<GuestThread>& thread);
  void drop_thread(const std::shared_ptr<GuestThread>& thread);
  /// Kills the remote and waits until pid 1 has reaped it, so that its pid is free again here.
  void kill_guest(Guest& guest);
  /// Kills it and forgets it: it is home, or has ended, or never began.
  void drop_guest(const std::shared_ptr<Guest>& guest);
  void guest_died(const ReapedGuest& reaped);
  void tell_figures(Guest& guest);
  /// It has ended for good, which its parent will hear from home: what it used is kept for the parent's wait.
  void keep_for_parent(Guest& guest);
  void note_guest(const Guest& guest, const char* event);
  /// Asks mosixd whether this node takes one guest more. An error says that it is full. If it is let in, either
  /// note_guest(..., "guest") or not_coming() has to follow.
  Status let_in();
  void not_coming();
  void tell_mosixd(const nlohmann::json& message);

  // --- channels.cc
  Status start_listening();
  void accept_channels();
  void welcome_connection(UniqueFd fd);
  void watch_channels();
  void watch(GuestThread& thread);
  void unwatch(GuestThread& thread);
  void rest(const std::shared_ptr<GuestThread>& thread);
  void watch_those_at_rest();
  void serve_idle_channel(const std::shared_ptr<GuestThread>& thread);
  /// Waits for the hello of the deputy thread `tid` that was told this token, and welcomes it.
  Result<UniqueFd> wait_for_hello(const uint8_t (&token)[16], int tid, uint32_t signals_acked, int limit_ms);
  Result<UniqueFd> wait_for_child(GuestThread& parent, const uint8_t (&token)[16], int child_tid,
                                  bool is_thread);
  void expect_hello(const uint8_t (&token)[16]);
  void forget_hello(const uint8_t (&token)[16]);

  // --- notify.cc
  void start_workers(int listener);
  void start_worker(std::shared_ptr<Crew> crew);
  void work(std::shared_ptr<Crew> crew);
  bool take(const std::shared_ptr<Crew>& crew, const seccomp_notif& notification);
  void serve_call(PendingCall& call);
  void release_home_memory(GuestThread& thread);
  void dispatch(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void forward_call(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  /// Brings the reply of a call to its end: outs, signals, answer; or makes the call again.
  /// False: it has to be made again here and now.
  bool finish_call(GuestThread& thread, PendingCall& call, const CallPlan& plan,
                   const Result<CallReply>& reply, const Answer* instead = nullptr);
  bool leave_early(GuestThread& thread, PendingCall& call);
  enum class Afterwards : uint8_t { kStay = 0, kMayReturn = 1 };
  void bring_home(GuestThread& thread, PendingCall& call, const std::string& reason,
                  Afterwards afterwards = Afterwards::kStay);
  void answer_when_interrupted(GuestThread& thread, PendingCall& call, int64_t restart_code);
  void lose_channel(GuestThread& thread, PendingCall& call, const Error& error);
  void trace_call(GuestThread& thread, const SyscallRow& row, const CallText& text, const PendingCall& call,
                  AnsweredBy answered_by, int64_t started_ns, uint64_t total_ns,
                  std::vector<std::string> stack);

  // --- timed_calls.cc
  static bool has_time_limit(uint64_t number);
  int64_t home_clock_ns();
  void forward_timed(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  /// The call with the time that is left of its limit.
  Result<CallPlan> plan_timed(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  /// A wait for descriptors, or for signals alone, that was met by a move on its way to home: the program waits already,
  /// as far as it can tell, and a signal that comes now ends it. Otherwise `code`.
  static int64_t code_to_wait(uint64_t number, const std::array<uint64_t, 6>& args, int outer_tid,
                              int64_t code);
  /// Unless the call is to be made again.
  static void end_deadline(GuestThread& thread, const PendingCall& call);

  // --- hidden_limits.cc
  void forward_read(GuestThread& thread, PendingCall& call, const CallPlan& plan);
  static void note_beginning(GuestThread& thread, const PendingCall& call, int64_t begun_ns);
  bool wait_for_rest(GuestThread& thread, PendingCall& call, int64_t begun_ns);
  bool ask_hidden_limit(GuestThread& thread, PendingCall& call, HiddenLimit* limit);
  bool ask_for_call(GuestThread& thread, PendingCall& call, const CallPlan& plan, int64_t restart_code,
                    CallReply* reply);

  // --- sleeps.cc
  /// A sleep that home's kernel can go on with.
  static bool is_sleep(uint64_t number, const std::array<uint64_t, 6>& args);
  void sleep_at_home(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void restart(GuestThread& thread, PendingCall& call);
  void go_on_sleeping(GuestThread& thread, PendingCall& call, CallPlan plan);
  Result<CallReply> make_room_for_rest(GuestThread& thread, uint64_t address);
  Result<CallReply> fetch_rest(GuestThread& thread, CallReply reply);
  void age_rest(GuestThread& thread, Tracee& tracee);
  static void capture_restart(GuestThread& thread, user_regs_struct& registers, ThreadState& state);

  // --- partial_calls.cc
  void give_bytes(GuestThread& thread, PendingCall& call, const SyscallRow& row, uint64_t total);
  void receive_all(GuestThread& thread, PendingCall& call, const CallPlan& whole, uint64_t total,
                   int64_t begun_ns);
  bool goes_on_receiving(GuestThread& thread, PendingCall& call, bool* stream);
  /// What a call that was broken off has given or received so far: the caller answers it with that.
  static uint64_t take_moved_bytes(GuestThread& thread);

  // --- direct_calls.cc
  void enable_direct(GuestThread& thread, PendingCall& call);
  bool adopt_direct_call(GuestThread& thread, PendingCall& call);
  static void kick_direct(GuestThread& thread);
  static Status shut_direct(GuestThread& thread);
  static Status end_direct_calls(GuestThread& caller);
  static Status forget_sole_thread(const Guest& guest);
  static void drop_inherited_paths(GuestThread& thread, Tracee& child);

  // --- signals.cc
  /// Answers the call, and has the guest take what signals wait for it before it makes another step.
  void answer_and_deliver(GuestThread& thread, PendingCall& call, const Answer& answer);
  /// The same for sigsuspend, whose own mask must be in force (run here), and for calls like ppoll.
  void deliver_in_sigsuspend(GuestThread& thread, PendingCall& call);
  void deliver_under_mask(GuestThread& thread, PendingCall& call, uint64_t mask_address);
  void deliver_to_computing(GuestThread& thread);
  void hear_siblings(GuestThread& caller);
  void hear_others(GuestThread& caller);
  /// For a thread in an interrupt stop of ours. Detaches it, or leaves it in such a stop, at the first instruction
  /// of the last handler.
  enum class Then { kDetach, kKeep };
  void put_signals(GuestThread& thread, Tracee& tracee, Then then = Then::kDetach);
  static void mend_unread_call(GuestThread& thread, Tracee& tracee);
  /// For a thread that is answered by `code`, or rebuilt with it.
  static BegunCall begun_call(uint64_t number, const std::array<uint64_t, 6>& args, uint64_t instruction_end,
                              int64_t code);
  /// A thread that stands right before a call that it makes again is put back into it.
  static void lead_back_into_call(GuestThread& thread, Tracee& tracee);
  static void end_giving(GuestThread& thread, Tracee& tracee);
  /// The right to trace the thread; none while the guest is being moved, for then the mover has it.
  static std::unique_lock<std::mutex> lock_tracer(GuestThread& thread);
  /// Fails only if the thread is being killed: of a call that is not answered then nobody hears.
  static Result<Tracee> seize_caller(GuestThread& thread, const PendingCall& call, unsigned long options = 0);

  // --- split_calls.cc
  void split_call(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void set_limit(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void set_action(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void set_mask(GuestThread& thread, PendingCall& call);
  void return_from_handler(GuestThread& thread, PendingCall& call);
  void change_mask_at_home(GuestThread& thread, PendingCall& call, uint64_t how, uint64_t set);
  void suspend(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void timed_with_mask(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void times(GuestThread& thread, PendingCall& call, const SyscallRow& row);

  // --- child_times.cc
  void wait_for_child(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  CpuFigures child_times(Guest& parent, int pid, bool ended, bool reaped);
  CpuFigures ask_child_times(int pid);
  void forward_then_run_here(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void protection_key(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void judge_memory_call(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  // --- lock_calls.cc
  bool set_lock_limit(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  void lock_memory(GuestThread& thread, PendingCall& call, const SyscallRow& row);

  // --- memory_calls.cc
  void map_memory(GuestThread& thread, PendingCall& call);
  void map_file(GuestThread& thread, PendingCall& call);
  void map_zero_device(GuestThread& thread, PendingCall& call);
  void try_mapping_at_home(GuestThread& thread, PendingCall& call, const char* reason);
  enum class Mirrored { kNo, kYes };  ///< at home
  void map_descriptor(GuestThread& thread, PendingCall& call, int fd, Mirrored mirrored);
  void again(GuestThread& thread, PendingCall& call, const Error& error);

  // --- shared_files.cc
  void map_shared_file(GuestThread& thread, PendingCall& call, const SharedKey& key);
  Result<BoundPin> bind(const Guest& guest, const SharedKey& key, int number);
  Result<FileTold> ask_about_file(uint32_t& question, const std::function<Status()>& send);
  void give_back(const SharedKey& key, uint64_t binding);
  void note_bound_descriptor(const BoundDescriptor& descriptor);
  bool meets_bound_file(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  /// Forwards a call that makes another descriptor of the same, and tells which.
  void duplicate(GuestThread& thread, PendingCall& call, const std::function<void(uint64_t number)>& note);
  /// For as long as `reason`, one of the guest's flags, is set.
  static void stop_direct_calls(Guest& guest, std::atomic<bool>& reason);
  void note_proc_file(const std::shared_ptr<Guest>& guest, uint64_t number);
  bool meets_proc_file(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  Result<uint64_t> place_in_file(GuestThread& thread, PendingCall& call);
  Status go_on_in_file(GuestThread& thread, PendingCall& call, uint64_t place);
  Result<ssize_t> read_proc_file_here(GuestThread& thread, PendingCall& call, const SyscallRow& row,
                                      Guest& target, const ProcPath& where);
  Result<ssize_t> write_guest_memory(GuestThread& thread, PendingCall& call, Guest& target);
  Result<std::string> guest_bytes(Guest& target, const std::string& name, uint64_t place, size_t bytes);
  Result<std::string> proc_text(GuestThread& thread, PendingCall& call, Guest& target, const ProcPath& where);
  static std::optional<SharedKey> left_open_by_exec(GuestThread& thread,
                                                    const std::vector<BoundDescriptor>& own);
  std::vector<std::shared_ptr<Guest>> all_guests();
  int who_maps(const BoundFile& file);
  Status write_home(const BoundFile& file, FileSettle::Then then, bool answered, int pid = 0);
  void release_unmapped();
  void release_unmapped_soon();
  Status release_before_leaving(int pid);
  void recall_file(const SharedKey& key);
  Status write_files_home(const ProcessState& state, SharedClaims& claims);
  void end_leaving(const ProcessState& state, bool gone);

  // --- process_calls.cc
  bool answer_unplanned(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  bool try_unknown_command(GuestThread& thread, PendingCall& call, const SyscallRow& row);
  bool all_semaphores(GuestThread& thread, PendingCall& call, bool set);
  bool notify_by_thread(GuestThread& thread, PendingCall& call);
  bool keeps_identity(GuestThread& thread, const PendingCall& call, const SyscallRow& row);
  void clone_call(GuestThread& thread, PendingCall& call, Split kind);
  void exec_call(GuestThread& thread, PendingCall& call, const SyscallRow& row, bool at);
  void exit_thread(GuestThread& thread, PendingCall& call);
  void exit_group(GuestThread& thread, PendingCall& call);

  // --- rebuild.cc
  struct Building;
  struct ImageQueue;
  Status ensure_sandbox(const Reserve& order);
  void note_home_clocks(const ClockReading& told);
  void ask_home_clocks();
  void build_guest(Reserve order, std::shared_ptr<ImageQueue> queue);
  Status prepare_stub(Building& building);
  static Result<std::vector<uint64_t>> add_file_maps(Batch& batch, const Building& building);
  static Status check_gifts(const Batch& batch, const std::vector<uint64_t>& gifts);
  Status rebuild(Building& building, ImageConnection& connection);
  Status end_leader(Building& building);
  Status receive_pages(Building& building, ImageConnection& connection);
  static Status lock_again(Batch& batch, Tracee& tracee, const ProcessState& state);
  Status start_guest(Building& building);
  Status meet_deputies(const Guest& guest, const std::vector<std::shared_ptr<GuestThread>>& threads);

  // --- freeze.cc
  struct Frozen;
  void move_guest(MoveOrder order, bool home, std::shared_ptr<ImageQueue> queue);
  Status freeze(Frozen& frozen);
  /// Hears of the end of killed tracees: the leader's comes only after that of all others.
  static void wait_for_end(std::vector<Tracee>& tracees, int leader);
  void thaw(Frozen& frozen);
  Result<ProcessState> capture(Frozen& frozen, uint32_t epoch);
  Result<Area> bound_area(const MapEntry& entry);
  enum class Receiver { kHome, kNode };
  Status send_image(ImageConnection& connection, Frozen& frozen, const ProcessState& state, Receiver to,
                    SharedClaims& claims);
  Result<std::vector<int32_t>> sharers_of(const Guest& guest);
  Result<ControlMessage> wait_for_sharers(const MoveOrder& order, std::vector<int32_t> sharers,
                                          ImageQueue& queue);
  static Result<std::vector<PageSpan>> shared_pages(Frozen& frozen, const Area& area, SharedClaims& claims);
  std::shared_ptr<SharedClaims> claims_of(uint64_t group);
  std::shared_ptr<SharedPool> pool_of(uint64_t group);
  Status send_file(ImageConnection& connection, const Guest& guest, const Area& area, const CachedFile& file);
  void note_hold(const HoldOrder& order);
  void start_holding(const std::shared_ptr<Guest>& guest);
  void hold(const std::shared_ptr<Guest>& guest);

  // --- image_queue.cc
  class QueueConnection;
  class SocketConnection;
  std::shared_ptr<ImageQueue> open_queue(int pid);
  /// Frees whoever waits for room in it, and the place, unless another operation has it by now.
  void close_queue(int pid, const std::shared_ptr<ImageQueue>& queue);
  bool queue_message(int pid, ControlMessage& message);
  std::shared_ptr<PageSink> sink_of(int pid);

  SupervisorOptions options_;
  std::mutex control_mutex_;
  bool control_lost_ = false;
  UniqueFd listen_fd_;
  UniqueFd epoll_fd_;
  UniqueFd rest_fd_;  ///< wakes the channel watcher when the first thread comes to rest
  std::mutex rest_mutex_;
  std::vector<std::shared_ptr<GuestThread>> at_rest_;
  std::mutex link_mutex_;  ///< guards options_.link_fd, which is closed when mosixd has gone
  UniqueFd wake_fd_;       ///< makes the main thread look again at what it polls

  std::mutex sandbox_mutex_;
  std::unique_ptr<Sandbox> sandbox_;
  FileCache files_;
  BoundFiles bound_;
  ProcFiles proc_files_;
  std::mutex bound_mutex_;  ///< of whoever binds or releases one, to the end

  std::shared_mutex registry_mutex_;
  std::map<int, std::shared_ptr<Guest>> guests_;               // by pid
  std::map<int, std::shared_ptr<GuestThread>> outer_threads_;  // by outer tid
  std::set<int> reaped_;                                       // pids, not yet asked for
  std::condition_variable_any registry_changed_;

  // Of groups that share memory and are on their way from here, or to here (registry mutex).
  std::map<uint64_t, std::weak_ptr<SharedClaims>> claims_;
  std::map<uint64_t, std::weak_ptr<SharedPool>> pools_;

  // Home's clocks minus ours, never too high: the best that readings have told.
  std::mutex clock_mutex_;
  std::condition_variable clock_changed_;
  std::optional<int64_t> monotonic_offset_ns_, boottime_offset_ns_;
  uint32_t last_clock_answer_ = 0;

  // Hellos that have arrived and are expected, by token.
  struct Hello {
    bool arrived = false;
    int tid = 0;
    UniqueFd fd;
  };
  std::mutex hello_mutex_;
  std::condition_variable hello_changed_;
  std::multimap<std::string, Hello> hellos_;
  std::set<std::string> expected_tokens_;

  // Answers of home to questions about an exec.
  std::map<int, ExecAnswer> exec_answers_;
  // The same about ended children, by their pid; asked for and perhaps not answered yet.
  std::map<int, std::optional<CpuFigures>> child_times_;
  // The same about bound files, by question.
  std::map<uint32_t, std::optional<FileTold>> file_answers_;
  uint32_t next_file_question_ = 1;
  // Questions to mosixd whether a guest may come, by number; nothing: not answered yet. The text is a refusal's.
  std::map<int64_t, std::optional<std::string>> let_in_;
  int64_t next_question_ = 1;
  bool link_lost_ = false;
  // Messages for the thread that rebuilds or has frozen a process.
  std::map<int, std::shared_ptr<ImageQueue>> image_queues_;
};

/// Lets a guest lock so many bytes in all: what is wanted, or, where this node's limit is lower, that if it is at least
/// `least`. lock_calls.cc.
Status allow_locking(int outer_pid, uint64_t least, uint64_t wanted);

}  // namespace mosix
