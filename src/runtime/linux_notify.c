/* linux_notify - see notify.h. */
#include "runtime/notify.h"

#include "runtime/linux.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool
rt_notify(struct rt *rt, struct str state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    size_t len = path ? strlen(path) : 0;

    (void)rt;
    if (len < 2 || len >= sizeof name.sun_path || (path[0] != '/' && path[0] != '@'))
        return false;
    memcpy(name.sun_path, path, len);
    if (path[0] == '@') /* Linux's abstract names begin with a NUL */
        name.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    ssize_t n = sendto(fd, state.ptr, state.len, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&name, size);
    close(fd);
    return n == (ssize_t)state.len;
}

bool
rt_notify_ready(struct rt *rt, struct str status)
{
    char memory[512];
    struct text t = text_init(memory, sizeof memory);

    text_put(&t, S("READY=1\nSTATUS="));
    text_put(&t, status);
    return rt_notify(rt, text_str(&t));
}

bool
rt_notify_reloading(struct rt *rt)
{
    char memory[64];
    struct text t = text_init(memory, sizeof memory);

    text_put(&t, S("RELOADING=1\nMONOTONIC_USEC="));
    text_put_i64(&t, rt_now(rt) / 1000);
    return rt_notify(rt, text_str(&t));
}

bool
rt_notify_stopping(struct rt *rt)
{
    return rt_notify(rt, S("STOPPING=1"));
}
