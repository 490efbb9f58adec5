/*
 * context - a stack and a place in it: what the scheduler switches between. Own assembly for x86-64 and aarch64 (6 ns
 * a switch), ucontext elsewhere or with -DCONTEXT_PORTABLE (two system calls a switch). Sanitizers are told of every
 * switch.
 *
 * Saved are the registers that the ABI calls callee-saved and the floating-point control words; the signal mask is not.
 */
#ifndef RUNTIME_CONTEXT_H
#define RUNTIME_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>

#if !defined(CONTEXT_PORTABLE) && !defined(__x86_64__) && !defined(__aarch64__)
#define CONTEXT_PORTABLE 1
#endif
#if defined(CONTEXT_PORTABLE)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CONTEXT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONTEXT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CONTEXT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CONTEXT_TSAN 1
#endif
#endif

struct context {
    void *sp;                     /* while it does not run */
    const void *bottom;           /* lowest byte of the stack, and its size: what ASan asks for */
    size_t size;
    struct context *came_from;    /* who switched here last */
    void (*entry)(void *arg);
    void *arg;
    void *fake_stack;             /* ASan's */
    void *tsan;
#if defined(CONTEXT_PORTABLE)
    ucontext_t portable;
#endif
};

/* The context of the code that runs now, on the thread's own stack: to switch away from and back to. */
void context_init_here(struct context *);
/* A new one: the first switch to it calls entry(arg), which must never return. The stack may have been used before. */
void context_init(struct context *, void *bottom, size_t size, void (*entry)(void *arg), void *arg);
/* Saves the running context in *from, which must be it, and goes on in *to. */
void context_switch(struct context *from, struct context *to);
/* The same for the last time: *from is never switched to again. */
_Noreturn void context_leave(struct context *from, struct context *to);
/* After context_leave(), from another context: before the stack is used again. */
void context_done(struct context *);

#endif
