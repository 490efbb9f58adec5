/*
 * library - shared libraries that are loaded by who needs them, and not linked: one that every role had would cost each of
 * them memory, and a dozen roles need none of them. Before a sandbox, which would not let anything be loaded.
 */
#ifndef RUNTIME_LIBRARY_H
#define RUNTIME_LIBRARY_H

#include "base/err.h"
#include "base/str.h"

struct library_function {
    const char *name;
    size_t offset; /* of the pointer to it in the caller's table */
};

/* Fills the pointers of *table. ERR_NOT_FOUND: *out_why is a sentence. There is no way to unload: what a library brought along
 * may have destructors and threads' memory of its own. */
struct err library_load(const char *name, const struct library_function *, size_t count, void *table, struct text *out_why);

#endif
