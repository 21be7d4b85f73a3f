// Starts our own components, custodians and supervisors, as the user they shall run as. fork and exec from
// mosixd's main thread; worker threads may hold any lock of libc at that moment, so between fork and exec
// stand raw system calls only, on memory prepared before.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

struct SpawnOrder {
  std::string path;
  std::vector<std::string> arguments;  ///< without argv[0]
  std::vector<int> descriptors;        ///< become 3, 4, ...; everything else but standard error is closed
  std::optional<Identity> identity;    ///< none: as mosixd
};

/// The child's pid, once its exec has succeeded. The child has a session of its own, default signals, no
/// terminal, and is not tied to mosixd's life: guests survive a restart of mosixd.
Result<int> spawn_component(const SpawnOrder& order);

/// Path of "mosix-custodian" or "mosix-supervisor". For tests, $MOSIX_CUSTODIAN and $MOSIX_SUPERVISOR name
/// stand-ins. The error says where it was looked for.
Result<std::string> component_path(const std::string& name);

/// Identity of a user by name, for guest_user.
Result<Identity> identity_of_user(const std::string& name);

}  // namespace mosix
