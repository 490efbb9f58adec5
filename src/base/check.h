/*
 * check - CHECK(condition) states what must hold. It is for our own bugs, never for input, and stays on in production:
 * a role that finds itself wrong ends at once, and the spool is whole without it.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <assert.h>

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define UNREACHABLE() check_failed(__FILE__, __LINE__, "unreachable")

/* Says where and what on standard error, and aborts. */
_Noreturn void check_failed(const char *file, int line, const char *what);

#endif
