// mosix-custodian --family NAME --node OWNNAME: started by mosixd as the family's user, with the link to it
// as descriptor 3. Nobody else starts it.
#include <malloc.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "deputy/custodian.h"
#include "libmosix/common/log.h"

namespace {

mosix::CustodianOptions parse(int argc, char** argv) {
  mosix::CustodianOptions options;
  for (int i = 1; i + 1 < argc; i += 2) {
    std::string name = argv[i];
    if (name == "--family") options.family = argv[i + 1];
    if (name == "--node") options.node_name = argv[i + 1];
  }
  if (options.family.empty() || options.node_name.empty()) {
    fprintf(stderr, "mosix-custodian is started by mosixd (--family NAME --node NAME, descriptor 3: link)\n");
    exit(2);
  }
  return options;
}

/// One arena for all threads, and buffers of pages that are used again: this process stands beside every
/// family and must stay small.
void keep_memory_small() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 8 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  mosix::CustodianOptions options = parse(argc, argv);
  keep_memory_small();
  signal(SIGPIPE, SIG_IGN);
  mosix::log_init("mosix-custodian[" + options.node_name + "]");
  return mosix::Custodian(options).run();
}
