/* notify - tells the service manager how the daemon is: one datagram to $NOTIFY_SOCKET, sd_notify(3). Without it:
 * nothing. */
#ifndef RUNTIME_NOTIFY_H
#define RUNTIME_NOTIFY_H

#include "runtime/rt.h"

/* "READY=1", "RELOADING=1\nMONOTONIC_USEC=...", "STOPPING=1", "STATUS=...". False: nobody asked, or it did not arrive.
 * */
bool rt_notify(struct rt *, struct str state);
bool rt_notify_ready(struct rt *, struct str status); /* "READY=1", and a sentence for systemctl status */
bool rt_notify_reloading(struct rt *);
bool rt_notify_stopping(struct rt *);

#endif
