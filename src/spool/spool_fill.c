/*
 * spool_fill - for tests only: fills a spool with messages of every kind, lets some end and defers others, and prints,
 * one JSON object a line, what then lives there. The independent reader (tests/spool_reader.py) must find the same.
 *
 *     spool_fill DIRECTORY MESSAGES SEGMENT_BYTES close|kill
 *
 * "kill" leaves the spool as a killed daemon would. DIRECTORY exists and is empty, or was filled before.
 */
#include "base/json.h"
#include "spool/log/record.h"
#include "spool/spool_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct fill {
    const char *path, *end;
    uint64_t count, segment_bytes;
    struct test test;
};

static void
must(struct fixture *f, struct err e)
{
    (void)f;
    CHECK(!err_is(e));
}

/* A notice, and with it the end of what it reports. */
static void
commit_notice(struct fixture *f, uint64_t of, uint64_t number)
{
    struct fixture_envelope *e = malloc(sizeof *e);
    struct recipient_status statuses[FIXTURE_RECIPIENTS_MAX] = { { 0 } };
    struct spool_settle settles = { .id = fixture_id(of), .statuses = statuses, .count = fixture_recipient_count(of) };
    struct draft *draft;

    for (uint32_t i = 0; i < settles.count; i++)
        statuses[i] = (struct recipient_status){ .index = i, .state = STATE_FAILED_SENT, .last_reply = S("550 5.1.1 no") };
    fixture_envelope(f, number, e);
    e->envelope.reverse_path = S("");
    e->envelope.notice = true;
    must(f, f->ops->begin(f->spool, fixture_id(number), 0, FOREVER, &draft));
    must(f, f->ops->put(draft, S("notice"), FOREVER));
    must(f, f->ops->commit(draft, &e->envelope, NULL, &settles, FOREVER));
    free(e);
}

static void
settle_one(struct fixture *f, uint64_t number, uint32_t recipient, uint8_t state)
{
    struct recipient_status status = { .index = recipient, .state = state, .attempts = 2, .next_wall = 99,
                                       .last_reply = S("451 4.7.1 caf\xc3\xa9 \"later\""), .last_remote = S("mx.example") };
    struct spool_settle settle = { .id = fixture_id(number), .statuses = &status, .count = 1, .set_held = number % 2,
                                   .held = number % 2, .held_why = S("by hand") };

    must(f, f->ops->settle(f->spool, &settle, number % 3 == 0, FOREVER));
}

static void
live_through(struct fixture *f, uint64_t i)
{
    must(f, fixture_try_commit(f, i));
    switch (i % 8) {
    case 0:
    case 1:
    case 2: must(f, fixture_settle(f, i, STATE_DELIVERED, S("250"), i % 2)); break;
    case 3: must(f, fixture_settle(f, i, STATE_PENDING, S("450 4.2.1 later"), true)); break;
    case 4:
        must(f, fixture_settle(f, i, STATE_FAILED_OWED, S("550"), false));
        commit_notice(f, i, i + 1000000);
        break;
    case 5:
        settle_one(f, i, 0, STATE_PENDING);
        settle_one(f, i, 0, STATE_RELAYED);
        break;
    default: break;
    }
}

static void
print_message(struct fixture *f, struct message_id id)
{
    char id_memory[MESSAGE_ID_TEXT], memory[8192];
    struct text line = text_init(memory, sizeof memory);
    struct spool_message m;
    struct arena arena;
    size_t size = 0, got;
    char *content = malloc(2 << 20);

    arena_init(&arena, rt_mem(f->rt), 64 << 10, 16 << 20);
    must(f, f->ops->get(f->spool, id, &arena, FOREVER, &m));
    do {
        must(f, f->ops->read(f->spool, id, size, content + size, (2 << 20) - size, FOREVER, &got));
        size += got;
    } while (got > 0);
    text_put_byte(&line, '{');
    json_put_field(&line, "id", message_id_text(id, id_memory));
    json_put_field(&line, "reverse_path", m.envelope.reverse_path);
    json_put_number(&line, "content_size", (int64_t)size);
    json_put_name(&line, "content_hash");
    text_putf(&line, "\"%016llx\",\"recipients\":[", (unsigned long long)record_hash_data(str_new(content, size)));
    for (size_t i = 0; i < m.envelope.recipient_count; i++) {
        if (i > 0)
            text_put_byte(&line, ',');
        if (line.len > sizeof memory - 1024) { /* on it goes */
            printf("%.*s", STR_ARG(text_str(&line)));
            line.len = 0;
        }
        text_put_byte(&line, '{');
        json_put_field(&line, "address", m.envelope.recipients[i].address);
        json_put_field(&line, "state", recipient_state_name(m.statuses[i].state));
        json_put_number(&line, "attempts", m.statuses[i].attempts);
        json_put_field(&line, "reply", m.statuses[i].last_reply.len ? m.statuses[i].last_reply : S(""));
        text_put_byte(&line, '}');
    }
    printf("%.*s],\"held\":%s}\n", STR_ARG(text_str(&line)), m.held ? "true" : "false");
    arena_done(&arena);
    free(content);
}

static void
fill(struct rt *rt, void *arg)
{
    struct fill *how = arg;
    struct fixture *f = calloc(1, sizeof *f);
    struct spool_place place = { .order = 0 };

    *f = (struct fixture){ .t = &how->test, .rt = rt, .ops = &spool_log_ops, .content_max = 40000 };
    f->settings = (struct spool_settings){ .segment_bytes = how->segment_bytes, .fresh_bytes_max = 1 << 20 };
    snprintf(f->path, sizeof f->path, "%s", how->path);
    event_init(&f->recovered_event);
    must(f, fixture_try_open(f));
    for (uint64_t i = 0; i < how->count; i++)
        live_through(f, i);
    fixture_commit(f, 5000000); /* takes the lazy ones along */
    while (f->ops->scan(f->spool, place.order, &place, 1) > 0)
        print_message(f, place.id);
    fflush(stdout);
    if (strcmp(how->end, "kill") == 0)
        _exit(0);
    fixture_close(f);
    free(f);
}

int
main(int argc, char **argv)
{
    struct fill how = { .test.name = "fill" };

    if (argc != 5 || (strcmp(argv[4], "close") != 0 && strcmp(argv[4], "kill") != 0)) {
        fprintf(stderr, "usage: spool_fill DIRECTORY MESSAGES SEGMENT_BYTES close|kill\n");
        return 64;
    }
    how.path = argv[1];
    how.count = strtoull(argv[2], NULL, 10);
    how.segment_bytes = strtoull(argv[3], NULL, 10);
    how.end = argv[4];
    return err_is(rt_run(fill, &how)) || how.test.failures > 0;
}
