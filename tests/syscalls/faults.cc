// Faults of the processor as signals: the right number, code and address, handlers that jump out or change
// registers, and deaths with the right status.
#include <setjmp.h>
#include <ucontext.h>

#include "signal_tools.h"

namespace {

sigjmp_buf jump;
void* fault_address = nullptr;
int fault_code = 0;

void read_only_page_refuses(char* page) {
  const int got = sigsetjmp(jump, 1);
  if (got == 0) *const_cast<volatile char*>(page + 123) = 1;
  CHECK_EQ(got, SIGSEGV);
  CHECK(fault_address == page + 123);
  CHECK_EQ(fault_code, SEGV_ACCERR);
}

void faults_reach_handlers() {
  auto on_fault = [](int number, siginfo_t* info, void*) {
    fault_address = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(jump, number);
  };
  Handler segv(SIGSEGV, on_fault), fpe(SIGFPE, on_fault), ill(SIGILL, on_fault), trap(SIGTRAP, on_fault);
  char* page = static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK(page != MAP_FAILED);
  read_only_page_refuses(page);
  move_point();
  read_only_page_refuses(page);
  munmap(page, 8192);
  int got = sigsetjmp(jump, 1);
  if (got == 0) *const_cast<volatile char*>(page + 5000) = 1;
  CHECK_EQ(got, SIGSEGV);
  CHECK(fault_address == page + 5000);
  CHECK_EQ(fault_code, SEGV_MAPERR);
  got = sigsetjmp(jump, 1);
  if (got == 0) {
    int quotient, remainder;
    asm volatile("idivl %2" : "=a"(quotient), "=d"(remainder) : "r"(0), "a"(1), "d"(0));
  }
  CHECK_EQ(got, SIGFPE);
  CHECK_EQ(fault_code, FPE_INTDIV);
  got = sigsetjmp(jump, 1);
  if (got == 0) asm volatile("ud2");
  CHECK_EQ(got, SIGILL);
  got = sigsetjmp(jump, 1);
  if (got == 0) asm volatile("int3");
  CHECK_EQ(got, SIGTRAP);
}

void a_fault_kills_as_it_should() {
  auto dies = [](int number, void (*how)()) {
    CHECK_EQ(check::in_child([&] {
               signal(number, SIG_DFL);
               how();
               return 0;
             }) & 0x7f,
             number);
  };
  dies(SIGSEGV, [] { asm volatile("movb $1, 8" : : : "memory"); });
  dies(SIGILL, [] { asm volatile("ud2"); });
  dies(SIGABRT, [] { abort(); });
}

void handler_changes_the_registers() {
  // The handler steps over the faulting instruction and leaves a number in a register.
  struct sigaction action {
  }, before{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RIP] += 2;
    registers[REG_RBX] = 0x1234567;
  };
  CHECK_EQ(sigaction(SIGILL, &action, &before), 0);
  unsigned long value = 0;
  asm volatile("xor %%ebx, %%ebx; ud2; mov %%rbx, %0" : "=r"(value) : : "rbx");
  CHECK_EQ(value, 0x1234567ul);
  move_point();
  asm volatile("xor %%ebx, %%ebx; ud2; mov %%rbx, %0" : "=r"(value) : : "rbx");
  CHECK_EQ(value, 0x1234567ul);
  sigaction(SIGILL, &before, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"faults-reach-handlers", faults_reach_handlers},
                     {"a-fault-kills-as-it-should", a_fault_kills_as_it_should},
                     {"handler-changes-the-registers", handler_changes_the_registers}});
}
