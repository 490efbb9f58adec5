/*
 * smtp_test_server DIR [WORD...] - the session behind a real socket, with the site of server_fake.h, for tests that
 * speak TCP.
 *
 * Listens on a free port of 127.0.0.1 and prints it. Each message that is committed becomes DIR/1.eml, DIR/2.eml, ...
 * (its content, without trace). Words: "repair" (line ends), "quick" (times of seconds instead of minutes), "offer"
 * (VRFY, EXPN).
 */
#include "base/check.h"
#include "smtp/server.h"
#include "smtp/server_fake.h"

#include <stdio.h>
#include <string.h>

#define QUICK (4 * SECOND) /* no client that is alive is kept from the processor for so long */

static struct fake_site site;
static struct listener_settings settings;
static const char *mail_dir;
static unsigned stored;

static void
write_message(const struct fake_message *m)
{
    char path[512], part[520];

    snprintf(path, sizeof path, "%s/%u.eml", mail_dir, ++stored);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *file = fopen(part, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(m->content ? m->content : "", 1, m->len, file) == m->len);
    CHECK(fclose(file) == 0);
    CHECK(rename(part, path) == 0);
    site.committed = 0; /* the next one takes its place */
}

static void
serve(void *arg)
{
    struct stream *stream = arg;
    struct wire wire = wire_in_clear(stream);
    struct server_client client = { .address = stream_peer(stream), .local = stream_local(stream) };
    char memory[64];
    struct text name = text_init(memory, sizeof memory);

    address_put_ip(&name, &client.address);
    client.name = text_str(&name);
    server_run(&wire, &settings, &site.hooks, &client);
    wire_close(&wire);
}

static void
listen_fiber(struct rt *rt, void *arg)
{
    struct address address;
    struct listener *listener;
    struct stream *stream;

    (void)arg;
    site.rt = rt;
    CHECK(address_parse(S("127.0.0.1:0"), &address));
    CHECK(!err_is(listener_open(rt, &address, &listener)));
    printf("%u\n", listener_address(listener).port);
    fflush(stdout);
    while (!err_is(listener_accept(listener, FOREVER, &stream, &address)))
        fiber_start(rt, "session", serve, stream);
    listener_close(listener);
}

int
main(int argc, char **argv)
{
    CHECK(argc >= 2);
    mail_dir = argv[1];
    fake_site_init(&site);
    site.committed_hook = write_message;
    settings = listener_settings_default(S("mx.local.test"));
    settings.refuse_early_talk = false; /* tests speak early by accident */
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "repair") == 0)
            settings.line_ends = LINE_ENDS_REPAIR;
        if (strcmp(argv[i], "offer") == 0)
            settings.vrfy = settings.expn = OFFER_ON;
        if (strcmp(argv[i], "quick") == 0) {
            settings.command_wait = settings.block_wait = settings.rate_window = QUICK;
            settings.slow_down = 0;
        }
    }
    return err_is(rt_run(listen_fiber, NULL)) ? 1 : 0;
}
