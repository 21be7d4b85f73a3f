// The part of classic BPF that seccomp programs use, interpreted, so that a test can ask a filter about more
// calls than it could make, and about calls that it would not survive.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace mosix::fakes {

struct Judgement {
  uint32_t action = 0;  ///< SECCOMP_RET_*; 0xdead for a program that is wrong in itself
  int steps = 0;        ///< instructions executed
};

inline Judgement run_filter(const std::vector<sock_filter>& program, const seccomp_data& data) {
  Judgement judgement{0xdead, 0};
  uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {};
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& step = program[at];
    ++judgement.steps;
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (step.k > sizeof(data) - 4) return judgement;
        memcpy(&a, reinterpret_cast<const char*>(&data) + step.k, 4);
        break;
      case BPF_LD | BPF_W | BPF_MEM:
        a = memory[step.k % BPF_MEMWORDS];
        break;
      case BPF_ST:
        memory[step.k % BPF_MEMWORDS] = a;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= step.k;
        break;
      case BPF_MISC | BPF_TAX:
        x = a;
        break;
      case BPF_MISC | BPF_TXA:
        a = x;
        break;
      case BPF_JMP | BPF_JA:
        at += step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += a == step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        at += a > step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += a >= step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (a & step.k) != 0 ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        judgement.action = step.k;
        return judgement;
      default:
        return judgement;
    }
  }
  return judgement;
}

}  // namespace mosix::fakes
