/* linux_library - see library.h. */
#include "runtime/library.h"

#include <dlfcn.h>
#include <string.h>

struct err
library_load(const char *name, const struct library_function *functions, size_t count, void *table, struct text *out_why)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const char *missing = library ? NULL : dlerror();

    for (size_t i = 0; i < count && !missing; i++) {
        void *found = dlsym(library, functions[i].name);
        memcpy((char *)table + functions[i].offset, &found, sizeof found);
        missing = found ? NULL : functions[i].name;
    }
    if (!missing)
        return OK;
    text_putf(out_why, "%s: %s", name, missing);
    if (library)
        dlclose(library);
    return ERR(ERR_NOT_FOUND, "load a library");
}
