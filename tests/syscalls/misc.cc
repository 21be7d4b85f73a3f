// What a program asks about itself and its machine, registers that must outlive a move, and system calls made
// without libc.
#include <elf.h>
#include <emmintrin.h>
#include <fenv.h>
#include <link.h>
#include <mqueue.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <cmath>
#include <fstream>

#include "signal_tools.h"

namespace {

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

void the_machine_is_home() {
  utsname names{};
  CHECK_EQ(uname(&names), 0);
  CHECK_EQ(std::string(names.sysname), "Linux");
  CHECK_EQ(std::string(names.machine), "x86_64");
  CHECK_EQ(first_line("/proc/sys/kernel/hostname"), std::string(names.nodename));
  CHECK_EQ(first_line("/proc/sys/kernel/osrelease"), std::string(names.release));
  char host[256] = {};
  CHECK_EQ(gethostname(host, sizeof host), 0);
  CHECK_EQ(std::string(host), std::string(names.nodename));
  const std::string boot = first_line("/proc/sys/kernel/random/boot_id");
  move_point();
  utsname after{};
  CHECK_EQ(uname(&after), 0);
  CHECK_EQ(std::string(after.nodename), std::string(names.nodename));
  CHECK_EQ(first_line("/proc/sys/kernel/random/boot_id"), boot);
  struct sysinfo info {};
  CHECK_EQ(sysinfo(&info), 0);
  CHECK(info.totalram > 0);
  CHECK(info.uptime > 0);
  CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
  CHECK_EQ(sysconf(_SC_PAGESIZE), 4096);
}

void random_bytes() {
  unsigned char a[256] = {}, b[256] = {};
  CHECK_EQ(getrandom(a, sizeof a, 0), static_cast<ssize_t>(sizeof a));
  CHECK_EQ(getrandom(b, sizeof b, GRND_NONBLOCK), static_cast<ssize_t>(sizeof b));
  CHECK(memcmp(a, b, sizeof a) != 0);
  CHECK_EQ(getentropy(a, 200), 0);
  const int fd = open("/dev/urandom", O_RDONLY);
  CHECK_EQ(read(fd, b, sizeof b), static_cast<ssize_t>(sizeof b));
  close(fd);
  CHECK_FAILS(getrandom(a, 1, 0xff00), EINVAL);
}

void names() {
  CHECK_EQ(prctl(PR_SET_NAME, "a-new-name"), 0);
  move_point();
  char name[16] = {};
  CHECK_EQ(prctl(PR_GET_NAME, name), 0);
  CHECK_EQ(std::string(name), "a-new-name");
  CHECK_EQ(first_line("/proc/self/comm"), "a-new-name");
  CHECK_EQ(first_line("/proc/thread-self/comm"), "a-new-name");
  const std::string status = first_line("/proc/self/stat");
  CHECK_EQ(status.substr(status.find('('), 12), "(a-new-name)");
}

/// The kernel cuts a program's name after 15 bytes, also in the middle of a letter.
void names_are_bytes() {
  for (const char* odd : {"fourteen bytes\303", "\377\376\"\\{}", "(a) b) c", " "}) {
    CHECK_EQ(prctl(PR_SET_NAME, odd), 0);
    move_point();
    char name[16] = {};
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK_EQ(std::string(name), odd);
    const int status = check::in_child([odd]() -> int {
      move_point();
      char inherited[16] = {};
      return prctl(PR_GET_NAME, inherited) == 0 && strcmp(inherited, odd) == 0 ? 0 : 1;
    });
    CHECK_EQ(status, 0);
  }
}

void auxiliary_vector() {
  CHECK_EQ(getauxval(AT_PAGESZ), 4096ul);
  CHECK_EQ(getauxval(AT_UID), getuid());
  CHECK_EQ(getauxval(AT_SECURE), 0ul);
  // libc's copy, made at start, and the kernel's own record agree.
  std::ifstream file("/proc/self/auxv", std::ios::binary);
  ElfW(auxv_t) entry;
  int compared = 0;
  while (file.read(reinterpret_cast<char*>(&entry), sizeof entry) && entry.a_type != AT_NULL) {
    if (entry.a_type == AT_PHDR || entry.a_type == AT_ENTRY || entry.a_type == AT_BASE ||
        entry.a_type == AT_RANDOM) {
      CHECK_EQ(getauxval(entry.a_type), entry.a_un.a_val);
      ++compared;
    }
  }
  CHECK_EQ(compared, 4);  // AT_HWCAP is not among them: libc puts a value of its own there
}

void paths_of_itself() {
  char path[4096] = {};
  CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  struct stat by_link {
  }, by_name{};
  CHECK_EQ(stat("/proc/self/exe", &by_link), 0);
  CHECK_EQ(stat(path, &by_name), 0);
  CHECK_EQ(by_link.st_ino, by_name.st_ino);
  char here[4096] = {}, link[4096] = {};
  CHECK(getcwd(here, sizeof here) != nullptr);
  CHECK(readlink("/proc/self/cwd", link, sizeof link - 1) > 0);
  CHECK_EQ(std::string(here), std::string(link));
  const std::string own = std::to_string(getpid());
  CHECK_EQ(access(("/proc/" + own + "/status").c_str(), R_OK), 0);
  std::ifstream command("/proc/self/cmdline", std::ios::binary);
  std::string word;
  std::getline(command, word, '\0');
  CHECK(!word.empty());
  std::ifstream environment("/proc/self/environ", std::ios::binary);
  CHECK(environment.good());
}

/// Computes for a while with values that live in registers only, and says whether they came out right.
bool vector_registers_hold(unsigned long turns) {
  __m128i values[8];
  for (int i = 0; i < 8; ++i) values[i] = _mm_set1_epi32(0x01010101 * (i + 1));
  __m128i a = values[0], b = values[1], c = values[2], d = values[3], e = values[4], f = values[5],
          g = values[6], h = values[7];
  for (unsigned long i = 0; i < turns; ++i) {
    a = _mm_add_epi32(a, b);
    b = _mm_xor_si128(b, c);
    c = _mm_add_epi32(c, d);
    d = _mm_xor_si128(d, e);
    e = _mm_add_epi32(e, f);
    f = _mm_xor_si128(f, g);
    g = _mm_add_epi32(g, h);
    h = _mm_xor_si128(h, a);
    asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h));
  }
  uint32_t scalar[8];
  for (uint32_t i = 0; i < 8; ++i) scalar[i] = 0x01010101u * (i + 1);
  for (unsigned long i = 0; i < turns; ++i) {
    scalar[0] += scalar[1];
    scalar[1] ^= scalar[2];
    scalar[2] += scalar[3];
    scalar[3] ^= scalar[4];
    scalar[4] += scalar[5];
    scalar[5] ^= scalar[6];
    scalar[6] += scalar[7];
    scalar[7] ^= scalar[0];
  }
  const __m128i vectors[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) {
    alignas(16) uint32_t lanes[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes), vectors[i]);
    for (uint32_t lane : lanes)
      if (lane != scalar[i]) return false;
  }
  return true;
}

__attribute__((target("avx"))) bool wide_registers_hold(unsigned long turns) {
  typedef double v4 __attribute__((vector_size(32)));
  v4 x = {1, 2, 3, 4}, one = {1, 1, 1, 1};
  for (unsigned long i = 0; i < turns; ++i) {
    x = x + one;
    asm volatile("" : "+x"(x), "+x"(one));
  }
  for (int i = 0; i < 4; ++i)
    if (x[i] != static_cast<double>(i + 1) + static_cast<double>(turns)) return false;
  return true;
}

void registers_are_kept_while_computing() {
  // Long enough (about a second) that a harness which moves every 200 ms meets it several times.
  for (int i = 0; i < 4; ++i) {
    CHECK(vector_registers_hold(20000000));
    if (__builtin_cpu_supports("avx")) CHECK(wide_registers_hold(60000000));
    if (i == 1) move_point();
  }
}

void rounding_mode_is_kept() {
  CHECK_EQ(fesetround(FE_UPWARD), 0);
  unsigned int control = 0;
  unsigned short x87 = 0;
  volatile double one = 1, three = 3;
  const double upward = one / three;
  move_point();
  CHECK_EQ(fegetround(), FE_UPWARD);
  CHECK_EQ(one / three, upward);
  asm volatile("stmxcsr %0" : "=m"(control));
  asm volatile("fnstcw %0" : "=m"(x87));
  CHECK_EQ(control & 0x6000u, 0x4000u);
  CHECK_EQ(x87 & 0x0c00, 0x0800);
  CHECK_EQ(fesetround(FE_TONEAREST), 0);
  CHECK(one / three < upward);
  // The x87 stack with a value in it.
  long double pushed = 0;
  asm volatile("fldpi" : : : "st");
  asm volatile("fstpt %0" : "=m"(pushed) : : "st");
  CHECK(fabsl(pushed - 3.14159265358979323846L) < 1e-18L);
}

void calls_without_libc() {
  long result = 0;
  asm volatile("syscall" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory");
  CHECK_EQ(result, static_cast<long>(getppid()));
  const char text[] = "x";
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_write), "D"(-1), "S"(text), "d"(1)
               : "rcx", "r11", "memory");
  CHECK_EQ(result, static_cast<long>(-EBADF));
  // Numbers that no kernel has.
  CHECK_FAILS(syscall(1000000), ENOSYS);
  CHECK_FAILS(syscall(511), ENOSYS);
  CHECK_FAILS(syscall(-1), ENOSYS);
}

void scheduling() {
  cpu_set_t all, back;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  CHECK(CPU_COUNT(&all) >= 1);
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  CHECK_EQ(sched_getaffinity(0, sizeof back, &back), 0);
  CHECK(CPU_EQUAL(&one, &back));
  CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  CHECK(sched_getcpu() >= 0);
  CHECK_EQ(sched_yield(), 0);
  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  CHECK_FAILS(syscall(SYS_sched_getscheduler, -1), EINVAL);
}

void system_v_messages_and_semaphores() {
  const int queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  CHECK(queue >= 0);
  struct {
    long type;
    char text[32];
  } message{3, "third kind"}, got{};
  CHECK_EQ(msgsnd(queue, &message, 11, 0), 0);
  message.type = 2;
  strcpy(message.text, "second kind");
  CHECK_EQ(msgsnd(queue, &message, 12, 0), 0);
  CHECK_EQ(msgrcv(queue, &got, sizeof got.text, 2, 0), 12);
  CHECK_EQ(std::string(got.text), "second kind");
  CHECK_EQ(msgrcv(queue, &got, sizeof got.text, 0, IPC_NOWAIT), 11);
  CHECK_EQ(got.type, 3);
  CHECK_FAILS(msgrcv(queue, &got, sizeof got.text, 0, IPC_NOWAIT), ENOMSG);
  msqid_ds state{};
  CHECK_EQ(msgctl(queue, IPC_STAT, &state), 0);
  CHECK_EQ(state.msg_qnum, 0u);
  CHECK_EQ(msgctl(queue, IPC_RMID, nullptr), 0);
  const int set = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
  CHECK(set >= 0);
  unsigned short values[2] = {5, 0};
  CHECK_EQ(semctl(set, 0, SETALL, values), 0);
  sembuf take[2] = {{0, -2, 0}, {1, 1, 0}};
  CHECK_EQ(semop(set, take, 2), 0);
  CHECK_EQ(semctl(set, 0, GETVAL), 3);
  unsigned short back[2] = {};
  CHECK_EQ(semctl(set, 0, GETALL, back), 0);
  CHECK_EQ(back[1], 1);
  sembuf impossible{1, -5, IPC_NOWAIT};
  CHECK_FAILS(semop(set, &impossible, 1), EAGAIN);
  CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
}

/// Whatever is behind their pointers.
void commands_that_nobody_knows() {
  long room[64] = {};
  const int segment = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
  const int queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  const int set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
  CHECK(segment >= 0);
  CHECK(queue >= 0);
  CHECK(set >= 0);
  for (int round = 0; round < 2; ++round) {
    CHECK_FAILS(shmctl(segment, -1, reinterpret_cast<shmid_ds*>(room)), EINVAL);
    CHECK_FAILS(msgctl(queue, 12345, reinterpret_cast<msqid_ds*>(room)), EINVAL);
    CHECK_FAILS(semctl(set, 0, -1, room), EINVAL);
    CHECK_FAILS(fcntl(0, 98765, room), EINVAL);
    CHECK_FAILS(prctl(987654, room, room, room, room), EINVAL);
    CHECK_FAILS(syscall(SYS_keyctl, -1, room, room, room, room), EOPNOTSUPP);
    CHECK_FAILS(syscall(SYS_kcmp, getpid(), getppid(), 1000, 0, 0), EINVAL);
    move_point();
  }
  CHECK_EQ(shmctl(segment, IPC_RMID, nullptr), 0);
  CHECK_EQ(msgctl(queue, IPC_RMID, nullptr), 0);
  CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
}

/// A queue that goes with its scope.
class Queue {
 public:
  explicit Queue(int flags = 0) : name_("/mosix-check-" + std::to_string(getpid())) {
    mq_unlink(name_.c_str());
    mq_attr attributes{};
    attributes.mq_maxmsg = 3;
    attributes.mq_msgsize = 64;
    number = mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR | flags, 0600, &attributes);
    CHECK(number >= 0);
  }
  ~Queue() {
    mq_close(number);
    mq_unlink(name_.c_str());
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  void send(const char* text, unsigned priority = 0) const {
    CHECK_EQ(mq_send(number, text, strlen(text), priority), 0);
  }
  std::string receive() const {
    char text[64];
    const ssize_t bytes = mq_receive(number, text, sizeof text, nullptr);
    return bytes < 0 ? strerror(errno) : std::string(text, static_cast<size_t>(bytes));
  }
  mqd_t number;

 private:
  std::string name_;
};

void message_queues() {
  const Queue queue(O_NONBLOCK);
  CHECK_EQ(queue.receive(), strerror(EAGAIN));
  queue.send("low", 1);
  queue.send("high", 9);
  queue.send("low again", 1);
  CHECK_EQ(mq_send(queue.number, "x", 1, 0), -1);
  CHECK_EQ(errno, EAGAIN);
  mq_attr attributes{};
  CHECK_EQ(mq_getattr(queue.number, &attributes), 0);
  CHECK_EQ(attributes.mq_curmsgs, 3);
  for (const char* text : {"high", "low", "low again"}) CHECK_EQ(queue.receive(), text);
  attributes.mq_flags = 0;
  CHECK_EQ(mq_setattr(queue.number, &attributes, nullptr), 0);
  timespec limit{};
  clock_gettime(CLOCK_REALTIME, &limit);
  char text[64];
  CHECK_EQ(mq_timedreceive(queue.number, text, sizeof text, nullptr, &limit), -1);
  CHECK_EQ(errno, ETIMEDOUT);
  const pid_t child = fork();
  if (child == 0) {
    queue.send("from a child");
    _exit(0);
  }
  CHECK_EQ(queue.receive(), "from a child");
  CHECK_EQ(waitpid(child, nullptr, 0), child);
}

/// One notification for one message that comes to an empty queue.
void message_queues_notify() {
  const Queue queue;
  const Handler handler(SIGUSR1, count_with_info);
  const Blocked blocked({SIGUSR1});
  handled = 0;
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  event.sigev_value.sival_int = 4711;
  CHECK_EQ(mq_notify(queue.number, &event), 0);
  CHECK_EQ(mq_notify(queue.number, &event), -1);
  CHECK_EQ(errno, EBUSY);
  move_point();
  queue.send("one");
  sigsuspend(blocked.before());
  CHECK_EQ(handled, 1);
  CHECK_EQ(last_info.si_code, SI_MESGQ);
  CHECK_EQ(last_info.si_value.sival_int, 4711);
  CHECK_EQ(last_info.si_pid, getpid());
  CHECK_EQ(queue.receive(), "one");
  // Registered anew, and taken back.
  CHECK_EQ(mq_notify(queue.number, &event), 0);
  CHECK_EQ(mq_notify(queue.number, nullptr), 0);
  event.sigev_notify = SIGEV_NONE;
  CHECK_EQ(mq_notify(queue.number, &event), 0);
  const pid_t child = fork();
  if (child == 0) _exit(mq_notify(queue.number, &event) == -1 ? errno : 0);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(WEXITSTATUS(status), EBUSY);
  queue.send("two");
  CHECK_EQ(queue.receive(), "two");
  sigset_t pending;
  CHECK_EQ(sigpending(&pending), 0);
  CHECK_EQ(sigismember(&pending, SIGUSR1), 0);
}

sem_t notified;
int told_value = 0;

void message_queues_notify_by_a_thread() {
  const Queue queue;
  CHECK_EQ(sem_init(&notified, 0, 0), 0);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD;
  event.sigev_value.sival_int = 42;
  event.sigev_notify_function = [](sigval value) {
    told_value = value.sival_int;
    sem_post(&notified);
  };
  CHECK_EQ(mq_notify(queue.number, &event), 0);
  move_point();
  queue.send("one");
  while (sem_wait(&notified) != 0) CHECK_EQ(errno, EINTR);
  CHECK_EQ(told_value, 42);
  CHECK_EQ(queue.receive(), "one");
}

void proc_files_change_with_us() {
  auto field = [](const char* name) {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line))
      if (line.rfind(name, 0) == 0) return line.substr(strlen(name));
    return std::string();
  };
  CHECK_EQ(atoi(field("Pid:").c_str()), getpid());
  CHECK_EQ(atoi(field("PPid:").c_str()), getppid());
  CHECK_EQ(atoi(field("Tgid:").c_str()), getpid());
  CHECK_EQ(atoi(field("TracerPid:").c_str()), 0);
  const mode_t before = umask(0123);
  CHECK_EQ(field("Umask:"), "\t0123");
  umask(before);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"the-machine-is-home", the_machine_is_home},
                     {"random-bytes", random_bytes},
                     {"names", names},
                     {"names-are-bytes", names_are_bytes},
                     {"auxiliary-vector", auxiliary_vector},
                     {"paths-of-itself", paths_of_itself},
                     {"registers-are-kept-while-computing", registers_are_kept_while_computing},
                     {"rounding-mode-is-kept", rounding_mode_is_kept},
                     {"calls-without-libc", calls_without_libc},
                     {"scheduling", scheduling},
                     {"system-v-messages-and-semaphores", system_v_messages_and_semaphores},
                     {"commands-that-nobody-knows", commands_that_nobody_knows},
                     {"message-queues", message_queues},
                     {"message-queues-notify", message_queues_notify},
                     {"message-queues-notify-by-a-thread", message_queues_notify_by_a_thread},
                     {"proc-files-change-with-us", proc_files_change_with_us}});
}
