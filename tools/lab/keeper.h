// The keeper: the guard process outside the lab, one a lab. It owns everything that a lab is made of, in a
// session of its own so that no terminal or process group takes it down with the front end.
//
// It ends the lab when told ("down", or SIGTERM from `mosixlab down`), and when the front end's end of their
// socket closes before "stay": the kernel closes it however the front end died. Should the keeper itself be
// killed, the inits die with it (PR_SET_PDEATHSIG), and the front end or the next mosixlab removes its files.
#pragma once

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// The front end's half. `socket` is a SOCK_SEQPACKET pair of text messages (send_link()).
/// Front end to keeper: "stay", "down" (in order), "kill" (at once).
/// Keeper to front end: "ready", "failed WHY", "note TEXT", "done" (nothing is left).
struct Keeper {
  pid_t pid = 0;
  UniqueFd socket;
};

/// Forks the keeper; returns in the front end only. `lock` is what claim_lab() gave.
Result<Keeper> start_keeper(const LabSpec& spec, UniqueFd lock);

}  // namespace mosix::lab
