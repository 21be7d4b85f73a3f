#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "tools/trace_filter.h"

#include <doctest/doctest.h>
#include <sys/syscall.h>

#include "tools/trace_output.h"

using mosix::calls_of_class;
using mosix::Json;
using mosix::TraceFilter;

namespace {
Json event(int number, int64_t result = 0, const char* by = "home") {
  return Json{{"number", number}, {"result", result}, {"answered_by", by}};
}
}  // namespace

TEST_CASE("classes come from the table") {
  auto file = calls_of_class("file"), desc = calls_of_class("desc");
  for (int number :
       {SYS_openat, SYS_stat, SYS_execve, SYS_mount, SYS_symlink, SYS_rename, SYS_chdir, SYS_getxattr})
    CHECK(file.count(number) == 1);
  for (int number : {SYS_read, SYS_fgetxattr, SYS_memfd_create, SYS_getpid}) CHECK(file.count(number) == 0);
  for (int number : {SYS_read, SYS_openat, SYS_ioctl, SYS_epoll_wait, SYS_fsetxattr})
    CHECK(desc.count(number) == 1);
  for (int number : {SYS_stat, SYS_getpid, SYS_mmap + 1000}) CHECK(desc.count(number) == 0);
  for (const char* name : {"process", "network", "signal", "memory", "ipc"})
    CHECK(calls_of_class(name).size() > 9);
  CHECK(calls_of_class("nonsense").empty());
}

TEST_CASE("every name of the lists is a call of the table") {
  // a misspelt name would silently be missing
  CHECK(calls_of_class("process").size() == 18);
  CHECK(calls_of_class("network").size() == 18);
  CHECK(calls_of_class("signal").size() == 16);
  CHECK(calls_of_class("memory").size() == 25);
  CHECK(calls_of_class("ipc").size() == 12);
}

TEST_CASE("sets") {
  TraceFilter filter;
  CHECK(filter.shows(event(SYS_read)));
  CHECK(filter.shows(event(-1)));
  REQUIRE(filter.add("read,%network"));
  CHECK(filter.shows(event(SYS_read)));
  CHECK(filter.shows(event(SYS_socket)));
  CHECK_FALSE(filter.shows(event(SYS_write)));
  CHECK_FALSE(filter.shows(Json::object()));
  REQUIRE(filter.add("trace=!read"));
  CHECK_FALSE(filter.shows(event(SYS_read)));
  CHECK(filter.shows(event(SYS_write)));
  CHECK_FALSE(filter.add("trace=%read"));  // a call is no class
}

TEST_CASE("outcome and place") {
  TraceFilter filter;
  REQUIRE(filter.add("status=failed"));
  CHECK(filter.shows(event(SYS_read, -2)));
  CHECK(filter.shows(event(SYS_read, -4095)));
  CHECK_FALSE(filter.shows(event(SYS_read, -4096)));  // an address
  CHECK_FALSE(filter.shows(event(SYS_read, 0)));
  REQUIRE(filter.add("answered=cache"));
  CHECK_FALSE(filter.shows(event(SYS_read, -2, "home")));
  CHECK(filter.shows(event(SYS_read, -2, "cache")));
}

TEST_CASE("spans") {
  CHECK(mosix::span_text(0) == "0ns");
  CHECK(mosix::span_text(999) == "999ns");
  CHECK(mosix::span_text(1500) == "1.5us");
  CHECK(mosix::span_text(45000) == "45us");
  CHECK(mosix::span_text(1.5e6) == "1.5ms");
  CHECK(mosix::span_text(3.456e9) == "3.46s");
}
