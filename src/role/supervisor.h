/*
 * supervisor - starts the roles, links them, restarts what dies, reloads, stops. It opens sockets and directories and
 * passes them on; it reads no network and interprets nothing but the configuration.
 */
#ifndef ROLE_SUPERVISOR_H
#define ROLE_SUPERVISOR_H

#include "runtime/rt.h"

/* Runs until SIGTERM, SIGINT or `postrider stop`. Returns an exit code of sysexits.h. */
int supervisor_main(struct rt *, struct str config_path);

#endif
