// What the supervisor and mosix-init say to each other over two SOCK_SEQPACKET pairs, on one machine and
// always of one build. Included by init.cc, which has no libc: plain structs only.
#pragma once

#include <stdint.h>

namespace mosix {

/// Descriptors of mosix-init when it starts.
inline constexpr int kInitCommandFd = 3;
inline constexpr int kInitEventFd = 4;

/// The first message to mosix-init.
struct InitSetup {
  int64_t monotonic_offset_ns;
  int64_t boottime_offset_ns;
};

enum InitCommand : uint32_t {
  kInitSpawn = 1,       ///< value: pid. Answer carries the pidfd and credentials with the new pid
  kInitSetNextTid = 2,  ///< value: the number of the next process or thread
  kInitTranslate = 3,   ///< value: pid or tid inside. Answer carries credentials with it
};

struct InitRequest {
  uint32_t kind;
  int32_t value;
};

/// How far mosix-init came, for the message about what failed.
enum InitStep : int32_t {
  kStepNone = 0,
  kStepSetup,
  kStepUnshare,
  kStepIdMaps,
  kStepClockOffsets,
  kStepForkInit,
  kStepOpenLastPid,
  kStepRoot,
  kStepSignals,
  kStepWriteLastPid,
  kStepClone,
  kStepPidInUse,
  kStepDropCapabilities,
  kStepNoNewPrivileges,
  kStepTranslate,
  kStepUnknownCommand,
};

/// The answer to each request, and, once, to InitSetup. Carries SCM_CREDENTIALS whose pid is the one in
/// question.
struct InitReply {
  int32_t error;  ///< errno
  int32_t step;   ///< InitStep where it happened
};

/// On the event socket.
struct InitEvent {
  int32_t pid;
  int32_t wait_status;
  int64_t user_us;  ///< processor time of the process, all its threads
  int64_t system_us;
  int64_t peak_kib;  ///< most memory resident at a time
};

}  // namespace mosix
