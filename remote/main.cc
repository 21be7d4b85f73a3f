// mosix-supervisor: started by mosixd for one family of guests. See supervisor.h.
#include <getopt.h>
#include <signal.h>

#include <cstdio>
#include <cstring>

#include "libmosix/common/log.h"
#include "remote/supervisor.h"

namespace {

const char kHelp[] =
    "Usage: mosix-supervisor --family NAME --home NODE --node NODE [--uid UID]\n"
    "Started by mosixd, with the control connection to the custodian as descriptor 3 and the link to mosixd "
    "as 4.\n";

}  // namespace

int main(int argc, char** argv) {
  static const option kOptions[] = {{"family", required_argument, nullptr, 'f'},
                                    {"home", required_argument, nullptr, 'h'},
                                    {"node", required_argument, nullptr, 'n'},
                                    {"uid", required_argument, nullptr, 'u'},
                                    {"help", no_argument, nullptr, '?'},
                                    {"version", no_argument, nullptr, 'V'},
                                    {nullptr, 0, nullptr, 0}};
  mosix::SupervisorOptions options;
  for (int option; (option = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (option) {
      case 'f':
        options.family = optarg;
        break;
      case 'h':
        options.home_name = optarg;
        break;
      case 'n':
        options.node_name = optarg;
        break;
      case 'u':
        break;  // whom the guests belong to at home; mosixd has judged it
      case 'V':
        puts("mosix-supervisor " MOSIX_VERSION);
        return 0;
      default:
        fputs(kHelp, stdout);
        return 2;
    }
  }
  signal(SIGPIPE, SIG_IGN);
  mosix::log_init("mosix-supervisor[" + options.node_name + "]");
  return mosix::Supervisor(options).run();
}
