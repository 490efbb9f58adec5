/* notify_test - a datagram socket in the place of the service manager. */
#include "runtime/notify.h"

#include "base/check.h"
#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct manager {
    struct test *t;
    int fd;
};

static void
expect_datagram(struct manager *m, struct str want)
{
    char bytes[256];
    ssize_t n = recv(m->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    EXPECT_STR(m->t, str_new(bytes, n < 0 ? 0 : (size_t)n), want);
}

static void
say_everything(struct rt *rt, void *arg)
{
    struct manager *m = arg;
    char bytes[256];

    EXPECT(m->t, rt_notify_ready(rt, S("4 roles")));
    expect_datagram(m, S("READY=1\nSTATUS=4 roles"));
    EXPECT(m->t, rt_notify_reloading(rt));
    ssize_t n = recv(m->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    EXPECT(m->t, n > 0 && str_starts(str_new(bytes, (size_t)n), S("RELOADING=1\nMONOTONIC_USEC=")));
    EXPECT(m->t, rt_notify_stopping(rt));
    expect_datagram(m, S("STOPPING=1"));
}

static void
the_manager_is_told(struct test *t)
{
    for (int abstract = 0; abstract < 2; abstract++) {
        struct manager m = { t, socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
        struct sockaddr_un name = { .sun_family = AF_UNIX };
        int len = snprintf(name.sun_path, sizeof name.sun_path, "%snotify_test.%d", abstract ? "@" : "/tmp/",
                           (int)getpid());

        test_case(t, abstract ? "a name of its own" : "a path");
        CHECK(m.fd >= 0 && setenv("NOTIFY_SOCKET", name.sun_path, 1) == 0);
        if (abstract)
            name.sun_path[0] = '\0';
        CHECK(bind(m.fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len))
              == 0);
        EXPECT(t, !err_is(rt_run(say_everything, &m)));
        close(m.fd);
        if (!abstract)
            CHECK(unlink(name.sun_path) == 0);
    }
}

static void
say_nothing(struct rt *rt, void *arg)
{
    struct test *t = arg;

    EXPECT(t, !rt_notify_ready(rt, S("")));
    CHECK(setenv("NOTIFY_SOCKET", "relative", 1) == 0);
    EXPECT(t, !rt_notify_stopping(rt));
    CHECK(setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1) == 0);
    EXPECT(t, !rt_notify_stopping(rt));
}

static void
nobody_listens(struct test *t)
{
    CHECK(unsetenv("NOTIFY_SOCKET") == 0);
    EXPECT(t, !err_is(rt_run(say_nothing, t)));
}

TEST_MAIN({ "the manager is told", the_manager_is_told }, { "nobody listens", nobody_listens })
