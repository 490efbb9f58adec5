/*
 * fuzz_sink - `postrider sink`: its options, and a client that says anything.
 *
 * Aims at: cli/sink.c
 * Seeds:   smtp/server_test.c fuzz-profuzzbench/ smtp-smuggling/
 * Longest: 3000
 * Test:    3300 runs
 * Choices: 2 bytes in front
 *
 * The input is options, words with spaces between, a byte 0xff, and what the client says. What the sink answers is whole lines
 * that begin with a code; it ends when its time is over, with a known code.
 */
#include "fuzz.h"

#include "command.h"
#include "world.h"

struct sinking {
    struct command command;
    struct str said;
    size_t step;
    struct text heard;
};

static void
listen_to(void *arg)
{
    struct sinking *s = arg;
    struct stream *stream = NULL;
    char memory[2048];
    size_t len;

    for (int i = 0; i < 20 && !stream; i++) {
        rt_sleep(s->command.rt, within(s->command.rt, MILLISECOND));
        stream = world_connect(s->command.rt);
    }
    if (!stream) /* the options were wrong */
        return;
    struct str rest = s->said;
    while (rest.len > 0) {
        if (err_is(stream_write(stream, str_slice(rest, 0, s->step), within(s->command.rt, MINUTE))))
            break;
        rest = str_from(rest, s->step);
        while (!err_is(stream_read_now(stream, memory, sizeof memory, &len)) && len > 0)
            text_put(&s->heard, str_new(memory, len));
        fiber_yield(s->command.rt);
    }
    stream_shut_down(stream);
    while (!err_is(stream_read(stream, memory, sizeof memory, within(s->command.rt, MINUTE), &len)) && len > 0)
        text_put(&s->heard, str_new(memory, len));
    stream_close(stream);
}

static void
check_replies(struct str heard)
{
    while (heard.len > 0) {
        size_t end = str_find(heard, S("\r\n"));
        if (end == heard.len)
            return; /* it was told to reset, or to close */
        CHECK(end >= 4 && byte_is_digit(heard.ptr[0]) && byte_is_digit(heard.ptr[1]) && byte_is_digit(heard.ptr[2]));
        heard = str_from(heard, end + 2);
    }
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct sinking *s = arena_new(arena, struct sinking);
    struct str rest = input;
    uint8_t how = fuzz_choice(&rest);

    s->step = 1u + fuzz_choice(&rest);
    s->command = (struct command){ .verb = &verb_sink, .beside = listen_to, .arg = s };
    command_add(&s->command, S("--quiet"), arena);
    command_add(&s->command, fuzz_field(&rest), arena);
    command_add(&s->command, S("--seconds 90"), arena);
    s->said = rest;
    s->heard = fuzz_text(arena, 64 << 10);
    world_rules = (struct world_rules){ .seed = 1, .read_max = how & 1 ? s->step : 0, .drops_heap = true };
    command_run(&s->command);
    check_replies(text_str(&s->heard));
}
