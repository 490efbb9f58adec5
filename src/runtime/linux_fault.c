/*
 * linux_fault - last words of a process that touches memory it has not, above all of a fiber that runs off its stack:
 * which one it was, on standard error. Then it ends as it would have without them.
 *
 * A handler cannot run on a stack that has no room left, so every thread of ours has one for it (sigaltstack). The
 * kernel tells the handler where that stack lies, and what the handler must know lies at its beginning: so nothing here
 * is a variable of the whole program.
 */
#include "runtime/linux.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { FAULT_STACK_BYTES = 64 << 10 }; /* touched when it is used; sanitizers need some of it for their report */

static const char mark[] = "postrider"; /* a sanitizer may have put a stack of its own there */

struct fault_stack {
    const char *mark;
    struct world *world;
    const char *lane; /* NULL: the reactor's thread */
    stack_t before;
};

static void
say(const struct fault_stack *s, const void *address)
{
    const struct fiber *f = s->lane ? NULL : s->world->rt.running;
    char memory[200];
    struct text t = text_init(memory, sizeof memory);

    text_put(&t, S("postrider["));
    text_put_u64(&t, (uint64_t)getpid());
    text_put(&t, f ? S("]: fiber \"") : S("]: thread \""));
    text_put(&t, str_from_cstr(f ? f->name : s->lane ? s->lane : "reactor"));
    text_put(&t, f && stack_guards(f->stack, address) ? S("\" ran off its stack\n")
                                                       : S("\" touched memory that it has not\n"));
    if (write(STDERR_FILENO, t.ptr, t.len) < 0)
        return; /* nobody hears it; the signal that follows says enough */
}

static void
fault(int signal, siginfo_t *info, void *context)
{
    static const struct sigaction as_usual = { .sa_handler = SIG_DFL };
    const struct fault_stack *s = ((const ucontext_t *)context)->uc_stack.ss_sp;
    bool ours = s && s->mark == mark, sent = info->si_code <= 0; /* by kill(2): nothing was touched */

    if (ours && !sent)
        say(s, info->si_addr);
    (void)sigaction(signal, ours ? &s->world->fault_before : &as_usual, NULL);
    if (sent) /* else it comes again of itself: what was tried is tried once more */
        (void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
}

struct fault_stack *
fault_stack_enter(struct world *w, const char *lane)
{
    void *map = mmap(NULL, FAULT_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    struct fault_stack *s = map;

    CHECK(map != MAP_FAILED);
    *s = (struct fault_stack){ .mark = mark, .world = w, .lane = lane };
    stack_t stack = { .ss_sp = map, .ss_size = FAULT_STACK_BYTES };
    CHECK(sigaltstack(&stack, &s->before) == 0);
    return s;
}

void
fault_stack_leave(struct fault_stack *s)
{
    CHECK(sigaltstack(&s->before, NULL) == 0);
    munmap(s, FAULT_STACK_BYTES);
}

void
fault_init(struct world *w)
{
    struct sigaction action = { .sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

    w->fault_stack = fault_stack_enter(w, NULL);
    CHECK(sigaction(SIGSEGV, &action, &w->fault_before) == 0);
}

void
fault_done(struct world *w)
{
    CHECK(sigaction(SIGSEGV, &w->fault_before, NULL) == 0);
    fault_stack_leave(w->fault_stack);
}
