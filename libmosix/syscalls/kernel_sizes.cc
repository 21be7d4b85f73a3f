// Compares the sizes of kernel_sizes.h with the kernel's own headers. This file includes nothing of libc,
// whose structures of the same names are others, and has no code.

#include <asm/msgbuf.h>
#include <asm/poll.h>
#include <asm/sembuf.h>
#include <asm/shmbuf.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/stat.h>
#include <asm/statfs.h>
#include <linux/capability.h>
#include <linux/eventpoll.h>
#include <linux/fcntl.h>
#include <linux/mqueue.h>
#include <linux/msg.h>
#include <linux/resource.h>
#include <linux/sched/types.h>
#include <linux/sem.h>
#include <linux/shm.h>
#include <linux/stat.h>
#include <linux/sysinfo.h>
#include <linux/time.h>
#include <linux/times.h>
#include <linux/timex.h>
#include <linux/utime.h>
#include <linux/utsname.h>

#include "libmosix/syscalls/kernel_sizes.h"

namespace mosix {

static_assert(kCapHeaderBytes == sizeof(__user_cap_header_struct));
static_assert(kCapDataBytes == _LINUX_CAPABILITY_U32S_3 * sizeof(__user_cap_data_struct));
static_assert(kEpollEventBytes == sizeof(epoll_event));
static_assert(kFlockBytes == sizeof(flock));
static_assert(kItimerspecBytes == sizeof(__kernel_itimerspec));
static_assert(kItimervalBytes == sizeof(itimerval));
static_assert(kMqAttrBytes == sizeof(mq_attr));
static_assert(kMsgInfoBytes == sizeof(msginfo));
static_assert(kMsqidDsBytes == sizeof(msqid64_ds));
static_assert(kPollfdBytes == sizeof(pollfd));
static_assert(kRlimitBytes == sizeof(rlimit64));
static_assert(kRusageBytes == sizeof(rusage));
static_assert(kSchedAttrBytes == sizeof(sched_attr));
static_assert(kSembufBytes == sizeof(sembuf));
static_assert(kSemidDsBytes == sizeof(semid64_ds));
static_assert(kSeminfoBytes == sizeof(seminfo));
static_assert(kShmidDsBytes == sizeof(shmid64_ds));
static_assert(kShmInfoBytes == sizeof(shm_info));
static_assert(kShminfo64Bytes == sizeof(shminfo64));
static_assert(kSigactionBytes == sizeof(struct sigaction));
static_assert(kSigeventBytes == sizeof(sigevent));
static_assert(kSiginfoBytes == sizeof(siginfo_t));
static_assert(kSigsetArgpackBytes == sizeof(void*) + sizeof(__kernel_size_t));
static_assert(kStatBytes == sizeof(struct stat));
static_assert(kStatfsBytes == sizeof(struct statfs));
static_assert(kStatxBytes == sizeof(struct statx));
static_assert(kSysinfoBytes == sizeof(struct sysinfo));
static_assert(kTimespecBytes == sizeof(__kernel_timespec));
static_assert(kTimevalBytes == sizeof(__kernel_old_timeval));
static_assert(kTimexBytes == sizeof(__kernel_timex));
static_assert(kTimezoneBytes == sizeof(struct timezone));
static_assert(kTmsBytes == sizeof(tms));
static_assert(kUtimbufBytes == sizeof(utimbuf));
static_assert(kUtsnameBytes == sizeof(new_utsname));

// Not in the header of every kernel, or in none: the fields one by one.
struct KernelUstat {
  __kernel_daddr_t free_blocks;
  unsigned long free_inodes;
  char name[6], pack[6];
};
static_assert(kUstatBytes == sizeof(KernelUstat));
struct CachestatRange {
  __u64 offset, length;
};
static_assert(kCachestatRangeBytes == sizeof(CachestatRange));
struct Cachestat {
  __u64 cached, dirty, writeback, evicted, recently_evicted;
};
static_assert(kCachestatBytes == sizeof(Cachestat));
struct MountIdRequest {
  __u32 size, spare;
  __u64 mount_id, param, namespace_id;
};
static_assert(kMountIdRequestBytes == sizeof(MountIdRequest));

}  // namespace mosix
