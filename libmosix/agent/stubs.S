# The agent's assembly: entry points, the two guarded system calls, the signal restorer. x86-64.
#
# A guarded call is the stretch from `check` to the `syscall` instruction. The signal handler (in-process) and
# the custodian (by ptrace) may both find the thread there; whoever does moves the instruction pointer to the
# `abort` label, so a signal or an abort that comes after the check but before the kernel is entered is never
# slept over. Standing ON the syscall instruction also means "rewound by the kernel to be restarted": the
# same answer is right. Offsets are those of struct AgentSlot.

        .section .text.entry, "ax"
        .globl agent_entry_deputy, agent_entry_teardown, agent_entry_batch, agent_led_syscall, agent_led_trap

# rdi: slot. The stack pointer is the top of the slot's stack.
agent_entry_deputy:
        xorl    %ebp, %ebp
        andq    $-16, %rsp
        call    agent_deputy_main
        ud2

# rdi: slot. Closes the channel, gives the ring back, traps to the tracer.
agent_entry_teardown:
        xorl    %ebp, %ebp
        andq    $-16, %rsp
        call    agent_teardown
        int3
        ud2

# rdi: array of BatchCall, rsi: count. Traps to the tracer when all are done.
agent_entry_batch:
        movq    %rdi, %rbx
        movq    %rsi, %r12
1:      testq   %r12, %r12
        jz      2f
        movq    (%rbx), %rax
        movq    8(%rbx), %rdi
        movq    16(%rbx), %rsi
        movq    24(%rbx), %rdx
        movq    32(%rbx), %r10
        movq    40(%rbx), %r8
        movq    48(%rbx), %r9
        syscall
        movq    %rax, 56(%rbx)
        addq    $64, %rbx
        decq    %r12
        jmp     1b
2:      int3
        ud2

# A syscall instruction for a tracer that leads a thread through one call.
agent_led_syscall:
        syscall
agent_led_trap:
        int3
        ud2

# A call of the guest, made from here to its deputy without a trap (direct.cc). Registers as for the `syscall`
# instruction, and called by `call`. Returns rcx 0: rax is the result; rcx 1: nothing has happened that the caller
# could see, rax is as it was, and he makes the call by `syscall`. Beside those two only r11 changes, as by any call.
        .globl agent_direct
agent_direct:
        pushq   %rax
        movl    agent_entry_deputy+0x28002000(%rip), %ecx       # kDirectSole
        testl   %ecx, %ecx
        jnz     3f
        movl    $186, %eax              # gettid, which the filter lets pass
        syscall
        movl    %eax, %ecx
        andl    $1023, %ecx             # kDirectEntries - 1
        leaq    agent_entry_deputy+0x28000000(%rip), %r11       # kDirectDirectory
        leaq    (%r11,%rcx,8), %r11
        cmpl    (%r11), %eax
        jne     1f
        movl    4(%r11), %ecx
        incl    %ecx
3:      shlq    $16, %rcx               # kDirectAreaStride
        leaq    agent_entry_deputy+0x30000000-0x10000(%rip), %r11       # kDirectAreas, less one
        addq    %rcx, %r11
        popq    %rax
        cmpq    $512, %rax
        jae     2f
        btq     %rax, 24(%r11)          # DirectHead::numbers
        jnc     2f
        movq    %rsp, %rcx
        leaq    0x3000(%r11), %rsp      # kDirectAreaBytes
        pushq   %rcx
        pushq   %r9
        pushq   %r8
        pushq   %r10
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rax
        movq    %rsp, %rdi
        movq    %r11, %rsi
        call    agent_direct_call
        movl    %eax, %ecx
        popq    %rax
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %r10
        popq    %r8
        popq    %r9
        popq    %rsp
        ret
1:      popq    %rax
2:      movl    $1, %ecx
        ret

        .text
        .globl agent_direct_receive, agent_direct_receive_check, agent_direct_receive_syscall, agent_direct_receive_end
        .globl agent_direct_receive_abort
        .hidden agent_direct_receive

# int64_t agent_direct_receive(descriptor, buffer, bytes): -EINTR if the supervisor led the thread to the abort.
agent_direct_receive:
        movl    $45, %eax               # recvfrom
        xorl    %r10d, %r10d
        xorl    %r8d, %r8d
        xorl    %r9d, %r9d
agent_direct_receive_check:
agent_direct_receive_syscall:
        syscall
agent_direct_receive_end:
        ret
agent_direct_receive_abort:
        movq    $-4, %rax
        ret

        .globl agent_call, agent_call_check, agent_call_syscall, agent_call_end, agent_call_abort
        .globl agent_enter, agent_enter_check, agent_enter_syscall, agent_enter_end, agent_enter_abort
        .globl agent_restorer, agent_clone, agent_exit, agent_trap
        .hidden agent_call, agent_call_check, agent_call_syscall, agent_call_end, agent_call_abort
        .hidden agent_enter, agent_enter_check, agent_enter_syscall, agent_enter_end, agent_enter_abort
        .hidden agent_restorer, agent_clone, agent_exit, agent_trap

# int64_t agent_call(AgentSlot*): the forwarded call.
agent_call:
        pushq   %rbx
        movq    %rdi, %rbx
        movq    24(%rbx), %rax
        movq    32(%rbx), %rdi
        movq    40(%rbx), %rsi
        movq    48(%rbx), %rdx
        movq    56(%rbx), %r10
        movq    64(%rbx), %r8
        movq    72(%rbx), %r9
agent_call_check:
        movl    0(%rbx), %ecx
        cmpl    4(%rbx), %ecx
        je      agent_call_abort
        movl    8(%rbx), %ecx
        cmpl    12(%rbx), %ecx
        jne     agent_call_abort
agent_call_syscall:
        syscall
agent_call_end:
        popq    %rbx
        ret
agent_call_abort:
        movl    $1, 20(%rbx)            # Verdict::kRestart
        movq    $-513, %rax             # -ERESTARTNOINTR: nothing was executed
        popq    %rbx
        ret

# int64_t agent_enter(AgentSlot*): wait for the channel; -EINTR as soon as a signal waits to be sent.
agent_enter:
        pushq   %rbx
        movq    %rdi, %rbx
        movq    80(%rbx), %rax
        movq    88(%rbx), %rdi
        movq    96(%rbx), %rsi
        movq    104(%rbx), %rdx
        movq    112(%rbx), %r10
        movq    120(%rbx), %r8
        movq    128(%rbx), %r9
agent_enter_check:
        movl    8(%rbx), %ecx
        cmpl    16(%rbx), %ecx
        jne     agent_enter_abort
agent_enter_syscall:
        syscall
agent_enter_end:
        popq    %rbx
        ret
agent_enter_abort:
        movq    $-4, %rax
        popq    %rbx
        ret

agent_restorer:
        movl    $15, %eax
        syscall
        ud2

agent_trap:
        int3
        ret

# void agent_exit(AgentSlot*, number, status): the slot's prepared call, which closes the channel, then the
# exit, without a stack: once the away side hears that the channel is closed, it may give this thread's slot to
# a new one, and its stack is no more.
agent_exit:
        movq    %rsi, %rbx
        movq    %rdx, %r12
        movq    %rdi, %rcx
        movq    80(%rcx), %rax
        movq    88(%rcx), %rdi
        movq    96(%rcx), %rsi
        movq    104(%rcx), %rdx
        movq    112(%rcx), %r10
        movq    120(%rcx), %r8
        movq    128(%rcx), %r9
        syscall
1:      movq    %rbx, %rax
        movq    %r12, %rdi
        syscall
        jmp     1b

# int64_t agent_clone(flags, stack_top, child_slot): the child starts as a deputy on its slot.
agent_clone:
        movq    %rdx, %r9
        xorl    %edx, %edx
        xorl    %r10d, %r10d
        xorl    %r8d, %r8d
        movl    $56, %eax
        syscall
        testq   %rax, %rax
        jz      1f
        ret
1:      movq    %r9, %rdi
        jmp     agent_entry_deputy

        .section .note.GNU-stack, "", @progbits
