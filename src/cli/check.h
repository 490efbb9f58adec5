/*
 * check - `postrider check` and `postrider config reference`: what is wrong with a configuration and with the world
 * it is meant for, and what a configuration may say. This header is the part that needs no machine, for tests.
 */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include "role/config.h"

/* The problems, one a line, and a last line that sums up. site: NULL if it could not be loaded. */
void check_put_text(struct text *, struct str file, const struct conf_problems *, const struct site *);
/* The same as one JSON object on a line: version, file, ok, errors, warnings, problems. */
void check_put_json(struct text *, struct str file, const struct conf_problems *);
enum { CHECK_REPORT_MAX = 128 << 10 }; /* bytes that either needs at most */

/* The gateway of the default route in the text of /proc/net/route or /proc/net/ipv6_route; family ADDRESS_NONE:
 * none. */
struct address check_find_gateway(struct str table, uint8_t family);

#endif
