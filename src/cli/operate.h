/*
 * operate - what the operator's verbs share: the way to the running server's console socket, and one call over it.
 */
#ifndef CLI_OPERATE_H
#define CLI_OPERATE_H

#include "cli/cli.h"
#include "role/border.h"

/* Of every such verb. */
struct operate_settings {
    struct str config, socket;
    bool json;
};
#define OPERATE_OPTIONS(type, field)                                                                                   \
    { "--config", "FILE", OPTION_WORD, offsetof(struct type, field.config),                                            \
      "of the server that is meant (" CLI_CONFIG ")" },                                                                \
    { "--socket", "PATH", OPTION_WORD, offsetof(struct type, field.socket), "its control socket (STATE/control.sock)" }

struct operate;
/* NULL: it was said why; *out_exit is the code. */
struct operate *operate_open(struct rt *, const struct verb *, const struct operate_settings *, int *out_exit);
void operate_close(struct operate *);
/* False: it was said why. The reply lives until operate_close(). */
bool operate_call(struct operate *, uint16_t type, struct str body, struct str *out_reply);
struct arena *operate_arena(struct operate *);

#endif
