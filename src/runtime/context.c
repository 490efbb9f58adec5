/* context - see context.h. */
#include "runtime/context.h"

#include "base/check.h"

#include <stdint.h>

#if defined(CONTEXT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CONTEXT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(CONTEXT_PORTABLE)

static void
portable_entry(unsigned high, unsigned low);

#else

/* Saves what the callee must keep on the running stack, stores the stack pointer, and goes on with the other stack. */
void context_swap_stacks(void **save_sp, void *load_sp);
/* Where a new context begins: calls the function in one saved register with the argument in another. */
void context_trampoline(void);

#if defined(__x86_64__)
/*
 * The end is a jump, not a ret: the return predictor would be wrong every time (13 ns against 6). "notrack", because
 * the place to go on at is no endbr64. The trampoline has no caller: .cfi_undefined tells that to debuggers.
 */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl context_swap_stacks\n"
        ".type context_swap_stacks,@function\n"
        "context_swap_stacks:\n"
        "    endbr64\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    subq $8, %rsp\n"
        "    stmxcsr (%rsp)\n"
        "    fnstcw 4(%rsp)\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    ldmxcsr (%rsp)\n"
        "    fldcw 4(%rsp)\n"
        "    addq $8, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    notrack jmp *%rcx\n"
        ".size context_swap_stacks, .-context_swap_stacks\n"
        ".globl context_trampoline\n"
        ".type context_trampoline,@function\n"
        "context_trampoline:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n"
        "    endbr64\n"
        "    movq %r13, %rdi\n"
        "    callq *%r12\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size context_trampoline, .-context_trampoline\n");

static void *
first_frame(void *top, void (*entry)(void *), void *arg)
{
    void **sp = top;
    uint32_t mxcsr;
    uint16_t x87;

    __asm__("stmxcsr %0" : "=m"(mxcsr));
    __asm__("fnstcw %0" : "=m"(x87));
    *--sp = NULL; /* the ABI wants the stack at a multiple of 16 before the trampoline's call */
    *--sp = NULL;
    *--sp = (void *)(uintptr_t)context_trampoline;
    *--sp = NULL; /* rbp */
    *--sp = NULL; /* rbx */
    *--sp = (void *)(uintptr_t)entry; /* r12 */
    *--sp = arg;                      /* r13 */
    *--sp = NULL; /* r14 */
    *--sp = NULL; /* r15 */
    *--sp = (void *)((uintptr_t)mxcsr | (uintptr_t)x87 << 32);
    return sp;
}

#elif defined(__aarch64__)
/* x19 to x30, d8 to d15, and the control word of the floating point: AAPCS64, section 6.1. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl context_swap_stacks\n"
        ".type context_swap_stacks,%function\n"
        "context_swap_stacks:\n"
        "    hint #34\n" /* bti c */
        "    sub sp, sp, #176\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mrs x9, fpcr\n"
        "    str x9, [sp, #160]\n"
        "    mov x10, sp\n"
        "    str x10, [x0]\n"
        "    mov sp, x1\n"
        "    ldr x9, [sp, #160]\n"
        "    msr fpcr, x9\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    add sp, sp, #176\n"
        "    mov x16, x30\n"
        "    br x16\n" /* x16: a branch by it may land on a "bti c" */
        ".size context_swap_stacks, .-context_swap_stacks\n"
        ".globl context_trampoline\n"
        ".type context_trampoline,%function\n"
        "context_trampoline:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined x30\n"
        "    hint #34\n"
        "    mov x0, x20\n"
        "    blr x19\n"
        "    brk #0\n"
        "    .cfi_endproc\n"
        ".size context_trampoline, .-context_trampoline\n");

static void *
first_frame(void *top, void (*entry)(void *), void *arg)
{
    uintptr_t *frame = (uintptr_t *)((uintptr_t)top - 176);
    uintptr_t fpcr;

    for (size_t i = 0; i < 22; i++)
        frame[i] = 0;
    __asm__("mrs %0, fpcr" : "=r"(fpcr));
    frame[0] = (uintptr_t)entry;               /* x19 */
    frame[1] = (uintptr_t)arg;                 /* x20 */
    frame[11] = (uintptr_t)context_trampoline; /* x30 */
    frame[20] = fpcr;
    return frame;
}
#endif
#endif

void
context_init_here(struct context *c)
{
    *c = (struct context){ 0 };
#if defined(CONTEXT_TSAN)
    c->tsan = __tsan_get_current_fiber();
#endif
}

/* Told by ASan where the stack lies that we came from: the only way to learn that of the thread's own. */
static void
arrive(struct context *c)
{
#if defined(CONTEXT_ASAN)
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(c->fake_stack, &bottom, &size);
    c->came_from->bottom = bottom;
    c->came_from->size = size;
#else
    (void)c;
#endif
}

static void
first_arrival(void *context)
{
    struct context *c = context;

    arrive(c);
    c->entry(c->arg);
    UNREACHABLE();
}

#if defined(CONTEXT_PORTABLE)
static void
portable_entry(unsigned high, unsigned low)
{
    first_arrival((void *)((uintptr_t)high << 16 << 16 | low));
}
#endif

void
context_init(struct context *c, void *bottom, size_t size, void (*entry)(void *arg), void *arg)
{
    *c = (struct context){ .bottom = bottom, .size = size, .entry = entry, .arg = arg };
    CHECK(((uintptr_t)bottom + size) % 16 == 0);
#if defined(CONTEXT_ASAN)
    /* The frames of the fiber that died here never returned, so their red zones still stand. */
    __asan_unpoison_memory_region(bottom, size);
#endif
#if defined(CONTEXT_TSAN)
    c->tsan = __tsan_create_fiber(0);
#endif
#if defined(CONTEXT_PORTABLE)
    CHECK(getcontext(&c->portable) == 0);
    c->portable.uc_stack.ss_sp = bottom;
    c->portable.uc_stack.ss_size = size;
    c->portable.uc_link = NULL;
    makecontext(&c->portable, (void (*)(void))(uintptr_t)portable_entry, 2, (unsigned)((uintptr_t)c >> 16 >> 16),
                (unsigned)(uintptr_t)c);
#else
    c->sp = first_frame((char *)bottom + size, first_arrival, c);
#endif
}

static void
swap(struct context *from, struct context *to, bool last)
{
    to->came_from = from;
#if defined(CONTEXT_ASAN)
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->bottom, to->size);
#else
    (void)last;
#endif
#if defined(CONTEXT_TSAN)
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
#if defined(CONTEXT_PORTABLE)
    CHECK(swapcontext(&from->portable, &to->portable) == 0);
#else
    context_swap_stacks(&from->sp, to->sp);
#endif
    arrive(from);
}

void
context_switch(struct context *from, struct context *to)
{
    swap(from, to, false);
}

_Noreturn void
context_leave(struct context *from, struct context *to)
{
    swap(from, to, true);
    UNREACHABLE();
}

void
context_done(struct context *c)
{
#if defined(CONTEXT_TSAN)
    __tsan_destroy_fiber(c->tsan);
#endif
    c->sp = NULL;
}
