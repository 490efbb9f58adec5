/*
 * fuzz_conf - configuration text: words, blocks, includes, variables; sizes, times, rates, addresses, hops.
 *
 * Aims at: base/conf.c base/address.c
 * Seeds:   base/conf_test.c base/setting_test.c role/config_test.c
 * Longest: 3000
 * Test:    570 runs
 *
 * Fields of the input: the main file and two that it may include. What was parsed, written again with every word in quotes, is
 * parsed to the same words; every node and problem knows a place within its file; and a role that parses the encoded bundle
 * gets the same tree without asking anybody.
 */
#include "fuzz.h"

#include "base/conf_fake.h"

static void
check_where(struct conf_where where)
{
    if (!where.file)
        return;
    CHECK(where.line <= 1 + where.file->text.len && where.column <= 1 + where.file->text.len);
}

static void
put_word(struct text *t, struct str word)
{
    text_put_byte(t, '"');
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        if (c == '"' || c == '\\')
            text_put_byte(t, '\\');
        if (c == '\n' || c == '\t')
            text_put(t, c == '\n' ? S("\\n") : S("\\t"));
        else
            text_put_byte(t, c);
    }
    text_put(t, S("\" "));
}

static void
put_tree(struct text *t, const struct conf_node *node)
{
    for (; node; node = node->next) {
        CHECK(node->count > 0);
        for (size_t i = 0; i < node->count; i++) {
            check_where(node->words[i].where);
            put_word(t, node->words[i].text);
        }
        if (node->has_block) {
            text_put(t, S("{\n"));
            put_tree(t, node->children);
            text_put(t, S("}"));
        }
        text_put(t, S("\n"));
    }
}

static bool
has(const struct conf_node *node, char byte)
{
    for (; node; node = node->next) {
        for (size_t i = 0; i < node->count; i++)
            if (str_has_byte(node->words[i].text, byte))
                return true;
        if (has(node->children, byte))
            return true;
    }
    return false;
}

static void
check_values(struct str word)
{
    uint64_t size;
    int64_t time;
    struct conf_rate rate;
    struct address addresses[2];
    size_t count;
    struct conf_hop hop;

    if (conf_take_time(word, &time))
        CHECK(time >= 0);
    (void)conf_take_size(word, &size);
    if (conf_take_rate(word, &rate))
        CHECK(rate.per_ns > 0);
    if (conf_take_addresses(word, addresses, &count))
        CHECK(count == 1 || count == 2);
    if (conf_take_hop(word, &hop))
        CHECK(str_is_absent(hop.host) != str_is_absent(hop.path));
    (void)conf_is_domain(word);
}

static void
check_all_values(const struct conf_node *node)
{
    for (; node; node = node->next) {
        for (size_t i = 0; i < node->count; i++)
            check_values(node->words[i].text);
        check_all_values(node->children);
    }
}

struct parsed {
    struct conf_bundle bundle;
    struct conf_problems problems;
    struct conf_node *tree;
    struct str text; /* put_tree() */
};

static void
parse(struct parsed *p, struct arena *arena, size_t room)
{
    struct text t = fuzz_text(arena, room);

    conf_problems_init(&p->problems, arena);
    p->tree = conf_parse(&p->bundle, arena, &p->problems);
    for (size_t i = 0; i < p->problems.count; i++) {
        struct text line = fuzz_text(arena, 4096);
        check_where(p->problems.items[i].where);
        conf_problem_put(&line, &p->problems.items[i]);
    }
    put_tree(&t, p->tree);
    CHECK(!t.full);
    p->text = text_str(&t);
}

void
fuzz_one(struct str input, struct arena *arena)
{
    struct str rest = input, main_text = fuzz_field(&rest), first = fuzz_field(&rest);
    const struct conf_fake_file files[] = { { STR("/etc/m.conf"), main_text }, { STR("/etc/a.conf"), first },
                                            { STR("/etc/b.conf"), rest } };
    struct conf_fake fake = { files, 3, 0 };
    struct conf_world world = conf_fake_world(&fake);
    struct parsed *p = arena_new(arena, struct parsed), *of_role = arena_new(arena, struct parsed),
                  *again = arena_new(arena, struct parsed);
    size_t room = 1 << 20;

    check_values(input);
    conf_bundle_init(&p->bundle, arena, &world, files[0].path);
    parse(p, arena, room);
    check_all_values(p->tree);

    size_t size = conf_bundle_size(&p->bundle), loads = fake.loads;
    struct put put = put_init(arena_alloc(arena, size), size);
    conf_bundle_put(&put, &p->bundle);
    CHECK(!put.full);
    struct take take = take_init(put_str_so_far(&put));
    CHECK(conf_bundle_take(&take, arena, &of_role->bundle) && take_end(&take));
    parse(of_role, arena, room);
    CHECK(fake.loads == loads && str_eq(of_role->text, p->text) && of_role->problems.errors == p->problems.errors);
    conf_bundle_done(&of_role->bundle);
    struct conf_bundle hostile;
    take = take_init(input);
    if (conf_bundle_take(&take, arena, &hostile))
        conf_bundle_done(&hostile);

    if (p->problems.errors == 0 && p->text.len < 100000 && !has(p->tree, '$') && !has(p->tree, '\r')) {
        const struct conf_fake_file written[] = { { STR("/etc/m.conf"), p->text } };
        struct conf_fake only = { written, 1, 0 };
        struct conf_world of_written = conf_fake_world(&only);
        conf_bundle_init(&again->bundle, arena, &of_written, written[0].path);
        parse(again, arena, room);
        CHECK(again->problems.errors == 0 && str_eq(again->text, p->text));
        conf_bundle_done(&again->bundle);
    }
    conf_bundle_done(&p->bundle);
}
