// Sizes of the structures that calls read and fill, as the x86-64 kernel has them (which for sigaction,
// termios and others is not what libc has). Numbers here, because a row must be constant and libc's and the
// kernel's headers cannot be included together; kernel_sizes.cc compares each with the kernel's header.
#pragma once

#include <cstdint>

namespace mosix {

inline constexpr uint32_t kCachestatBytes = 40;
inline constexpr uint32_t kCachestatRangeBytes = 16;
inline constexpr uint32_t kCapHeaderBytes = 8;
inline constexpr uint32_t kCapDataBytes = 24;
inline constexpr uint32_t kEpollEventBytes = 12;  ///< packed
inline constexpr uint32_t kFlockBytes = 32;
inline constexpr uint32_t kItimerspecBytes = 32;
inline constexpr uint32_t kItimervalBytes = 32;
inline constexpr uint32_t kMountIdRequestBytes = 32;  ///< of Linux 6.18; the kernel reads its first u32 of it
inline constexpr uint32_t kMqAttrBytes = 64;
inline constexpr uint32_t kMsgInfoBytes = 32;
inline constexpr uint32_t kMsqidDsBytes = 120;
inline constexpr uint32_t kPollfdBytes = 8;
inline constexpr uint32_t kRlimitBytes = 16;
inline constexpr uint32_t kRusageBytes = 144;
inline constexpr uint32_t kSchedAttrBytes = 56;
inline constexpr uint32_t kSembufBytes = 6;
inline constexpr uint32_t kSemidDsBytes = 104;
inline constexpr uint32_t kSeminfoBytes = 40;
inline constexpr uint32_t kShmidDsBytes = 112;
inline constexpr uint32_t kShmInfoBytes = 48;    ///< SHM_INFO
inline constexpr uint32_t kShminfo64Bytes = 72;  ///< IPC_INFO
inline constexpr uint32_t kSigactionBytes = 32;  ///< handler, flags, restorer, 64-bit mask
inline constexpr uint32_t kSigeventBytes = 64;
inline constexpr uint32_t kFileHandleHeadBytes = 8;  // struct file_handle, in no header of the kernel
inline constexpr uint32_t kSiginfoBytes = 128;
inline constexpr uint32_t kSigsetArgpackBytes = 16;  ///< pselect6: pointer, size
inline constexpr uint32_t kStatBytes = 144;
inline constexpr uint32_t kStatfsBytes = 120;
inline constexpr uint32_t kStatxBytes = 256;
inline constexpr uint32_t kSysinfoBytes = 112;
inline constexpr uint32_t kTimespecBytes = 16;
inline constexpr uint32_t kTimevalBytes = 16;
inline constexpr uint32_t kTimexBytes = 208;
inline constexpr uint32_t kTimezoneBytes = 8;
inline constexpr uint32_t kTmsBytes = 32;
inline constexpr uint32_t kUstatBytes = 32;
inline constexpr uint32_t kUtimbufBytes = 16;
inline constexpr uint32_t kUtsnameBytes = 390;

}  // namespace mosix
