/* The decoder of DNS answers: what it gives, and what it does with packets that lie. */
#include "dns/answer.h"

#include "base/prng.h"
#include "base/test.h"

#include <string.h>

/* ---- a writer of packets ---------------------------------------------------------------------------------------- */

struct packet {
    unsigned char bytes[36 << 10];
    size_t len;
};

static void
add(struct packet *p, struct str s)
{
    memcpy(p->bytes + p->len, s.ptr, s.len);
    p->len += s.len;
}

static void
add_u16(struct packet *p, unsigned value)
{
    p->bytes[p->len++] = (unsigned char)(value >> 8);
    p->bytes[p->len++] = (unsigned char)value;
}

static void
add_name(struct packet *p, struct str name)
{
    struct name_wire wire;

    if (name_to_wire(name, &wire))
        add(p, str_new(wire.bytes, wire.len));
}

static void
start(struct packet *p, unsigned flags, struct str name, enum dns_type type)
{
    p->len = 0;
    add_u16(p, 0x1234);
    add_u16(p, flags);
    add(p, S("\0\1\0\0\0\0\0\0"));
    add_name(p, name);
    add_u16(p, type);
    add_u16(p, 1);
}

static void
add_record(struct packet *p, bool authority, struct str owner, unsigned type, unsigned ttl, struct str data)
{
    p->bytes[authority ? 9 : 7]++;
    add_name(p, owner);
    add_u16(p, type);
    add_u16(p, 1);
    add_u16(p, ttl >> 16);
    add_u16(p, ttl);
    add_u16(p, (unsigned)data.len);
    add(p, data);
}

#define FLAGS_OK 0x8180
#define FLAGS_NXDOMAIN 0x8183
#define FLAGS_SERVFAIL 0x8182
#define SOA_DATA "\0\0" "\0\0\0\1" "\0\0\0\1" "\0\0\0\1" "\0\0\0\1" "\0\0\0\x3c" /* minimum 60 */

/* Two MX behind two CNAMEs, with signatures and a stranger's record between. */
static void
full_mx_packet(struct packet *p)
{
    start(p, FLAGS_OK, S("Alias.Example"), DNS_MX);
    add_record(p, false, S("alias.example"), DNS_CNAME, 300, S("\3two\7example\0"));
    add_record(p, false, S("alias.example"), 46, 10, S("signature"));
    add_record(p, false, S("two.example"), DNS_CNAME, 200, S("\4real\7example\0"));
    add_record(p, false, S("real.example"), DNS_MX, 500, S("\0\x14\4slow\7example\0"));
    add_record(p, false, S("stranger.example"), DNS_MX, 1, S("\0\0\4evil\7example\0"));
    add_record(p, false, S("real.example"), DNS_MX, 400, S("\0\x0a\3Mx1\7example\0"));
}

static struct dns_answer
decode(const struct packet *p, struct str name, enum dns_type type, enum dns_security security, struct arena *arena)
{
    struct str packet = test_edge(str_new(p->bytes, p->len));
    struct dns_answer a = dns_answer_decode(packet, name, type, security, S(""), arena);

    test_edge_free(packet); /* nothing may still point into it */
    return a;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void
takes_what_was_asked_and_no_more(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet p;

    arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
    full_mx_packet(&p);
    struct dns_answer a = decode(&p, S("alias.example."), DNS_MX, DNS_SECURE, &arena);
    EXPECT_INT(t, a.status, DNS_FOUND);
    EXPECT_INT(t, a.security, DNS_SECURE);
    EXPECT(t, a.aliased);
    EXPECT(t, !a.cut);
    EXPECT_STR(t, a.canonical, S("real.example"));
    EXPECT_INT(t, a.ttl, 200);
    if (EXPECT_INT(t, a.count, 2)) {
        EXPECT_INT(t, a.records[0].preference, 20);
        EXPECT_STR(t, a.records[0].name, S("slow.example"));
        EXPECT_INT(t, a.records[1].preference, 10);
        EXPECT_STR(t, a.records[1].name, S("mx1.example"));
        EXPECT_INT(t, a.records[1].ttl, 400);
    }
    arena_done(&arena);
}

static void
each_type(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet p;
    struct dns_answer a;
    char memory[64];
    struct text text = text_init(memory, sizeof memory);

    arena_init(&arena, &mem, 1024, 4 * DNS_ARENA_BYTES);
    start(&p, FLAGS_OK, S("h.example"), DNS_A);
    add_record(&p, false, S("h.example"), DNS_A, 1, S("\xc0\0\2\1"));
    a = decode(&p, S("h.example"), DNS_A, DNS_INSECURE, &arena);
    if (EXPECT_INT(t, a.count, 1))
        address_put_ip(&text, &a.records[0].ip);
    text_put_byte(&text, ' ');

    start(&p, FLAGS_OK, S("h.example"), DNS_AAAA);
    add_record(&p, false, S("h.example"), DNS_AAAA, 1, S("\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"));
    a = decode(&p, S("h.example"), DNS_AAAA, DNS_INSECURE, &arena);
    if (EXPECT_INT(t, a.count, 1))
        address_put_ip(&text, &a.records[0].ip);
    EXPECT_STR(t, text_str(&text), S("192.0.2.1 2001:db8::1"));

    start(&p, FLAGS_OK, S("h.example"), DNS_TXT);
    add_record(&p, false, S("h.example"), DNS_TXT, 1, S("\7v=spf1 \0\4-all"));
    add_record(&p, false, S("h.example"), DNS_TXT, 1, S(""));
    a = decode(&p, S("h.example"), DNS_TXT, DNS_INSECURE, &arena);
    if (EXPECT_INT(t, a.count, 2)) {
        EXPECT_STR(t, a.records[0].data, S("v=spf1 -all"));
        EXPECT_INT(t, a.records[1].data.len, 0);
    }

    start(&p, FLAGS_OK, S("_25._tcp.h.example"), DNS_TLSA);
    add_record(&p, false, S("_25._tcp.h.example"), DNS_TLSA, 1, S("\3\1\2\xaa\xbb"));
    a = decode(&p, S("_25._tcp.h.example"), DNS_TLSA, DNS_SECURE, &arena);
    if (EXPECT_INT(t, a.count, 1)) {
        EXPECT_INT(t, a.records[0].usage, 3);
        EXPECT_INT(t, a.records[0].selector, 1);
        EXPECT_INT(t, a.records[0].matching, 2);
        EXPECT_STR(t, a.records[0].data, S("\xaa\xbb"));
    }

    start(&p, FLAGS_OK, S("_25._tcp.h.example"), DNS_TLSA); /* too short: it is unusable, and hides no other */
    add_record(&p, false, S("_25._tcp.h.example"), DNS_TLSA, 1, S("\3\1\1"));
    add_record(&p, false, S("_25._tcp.h.example"), DNS_TLSA, 1, S(""));
    add_record(&p, false, S("_25._tcp.h.example"), DNS_TLSA, 1, S("\3\1\2\xaa\xbb"));
    a = decode(&p, S("_25._tcp.h.example"), DNS_TLSA, DNS_SECURE, &arena);
    if (EXPECT_INT(t, a.count, 3)) {
        EXPECT(t, a.records[0].usage == DNS_TLSA_PRIVATE && a.records[0].data.len == 0);
        EXPECT(t, a.records[1].usage == DNS_TLSA_PRIVATE && a.records[1].data.len == 0);
        EXPECT(t, a.records[2].usage == 3 && a.records[2].data.len == 2);
    }

    start(&p, FLAGS_OK, S("1.2.0.192.in-addr.arpa"), DNS_PTR);
    add_record(&p, false, S("1.2.0.192.in-addr.arpa"), DNS_PTR, 1, S("\4h\r\nX\0"));
    add_record(&p, false, S("1.2.0.192.in-addr.arpa"), DNS_PTR, 1, S("\4host\xc0\x0c"));
    a = decode(&p, S("1.2.0.192.in-addr.arpa"), DNS_PTR, DNS_INSECURE, &arena);
    if (EXPECT_INT(t, a.count, 2)) {
        EXPECT(t, str_is_absent(a.records[0].name));
        EXPECT_STR(t, a.records[1].name, S("host.1.2.0.192.in-addr.arpa"));
    }

    start(&p, FLAGS_OK, S("null.example"), DNS_MX);
    add_record(&p, false, S("null.example"), DNS_MX, 1, S("\0\0\0"));
    a = decode(&p, S("null.example"), DNS_MX, DNS_INSECURE, &arena);
    if (EXPECT_INT(t, a.count, 1))
        EXPECT_STR(t, a.records[0].name, S("."));
    arena_done(&arena);
}

enum trouble {
    PLAIN_NODATA,
    NXDOMAIN,
    NXDOMAIN_BEHIND_CNAME,
    SERVFAIL,
    BOGUS,
    TRUNCATED,
    A_QUESTION,
    OTHER_NAME,
    OTHER_TYPE,
    CNAME_LOOP,
    MX_DATA_TOO_SHORT,
    A_OF_FIVE_BYTES,
    TXT_OVER_ITS_END,
    MX_NAME_WITH_TAIL,
    HUGE_TTL,
};

static void
status_of_other_packets(struct test *t)
{
    static const struct {
        const char *why;
        enum trouble trouble;
        enum dns_type type;
        enum dns_status status;
        uint32_t ttl;
    } cases[] = {
        { "NODATA believes the SOA", PLAIN_NODATA, DNS_MX, DNS_NODATA, 60 },
        { "NXDOMAIN believes the SOA", NXDOMAIN, DNS_MX, DNS_NXDOMAIN, 60 },
        { "NXDOMAIN of an alias's target", NXDOMAIN_BEHIND_CNAME, DNS_MX, DNS_NXDOMAIN, 0 },
        { "SERVFAIL", SERVFAIL, DNS_MX, DNS_TEMPORARY, 0 },
        { "bogus comes with rcode 0 and records", BOGUS, DNS_A, DNS_TEMPORARY, 0 },
        { "truncated", TRUNCATED, DNS_A, DNS_TEMPORARY, 0 },
        { "a question, not an answer", A_QUESTION, DNS_A, DNS_TEMPORARY, 0 },
        { "answer for another name", OTHER_NAME, DNS_A, DNS_TEMPORARY, 0 },
        { "answer for another type", OTHER_TYPE, DNS_A, DNS_TEMPORARY, 0 },
        { "CNAMEs in a circle", CNAME_LOOP, DNS_A, DNS_TEMPORARY, 0 },
        { "MX of one byte", MX_DATA_TOO_SHORT, DNS_MX, DNS_TEMPORARY, 0 },
        { "A of five bytes", A_OF_FIVE_BYTES, DNS_A, DNS_TEMPORARY, 0 },
        { "TXT string over its end", TXT_OVER_ITS_END, DNS_TXT, DNS_TEMPORARY, 0 },
        { "MX name that ends before its data", MX_NAME_WITH_TAIL, DNS_MX, DNS_TEMPORARY, 0 },
        { "a negative TTL is 0", HUGE_TTL, DNS_A, DNS_FOUND, 0 },
    };
    struct str name = S("x.example"), ip = S("\xc0\0\2\1");
    struct mem mem = mem_libc();

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum trouble trouble = cases[i].trouble;
        struct arena arena;
        struct packet p;

        test_case(t, cases[i].why);
        arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
        start(&p, trouble == NXDOMAIN || trouble == NXDOMAIN_BEHIND_CNAME ? FLAGS_NXDOMAIN
                  : trouble == SERVFAIL                                   ? FLAGS_SERVFAIL
                  : trouble == TRUNCATED                                  ? 0x8380
                  : trouble == A_QUESTION                                 ? 0x0100
                                                                          : FLAGS_OK,
              trouble == OTHER_NAME ? S("y.example") : name, trouble == OTHER_TYPE ? DNS_AAAA : cases[i].type);
        if (trouble == PLAIN_NODATA || trouble == NXDOMAIN)
            add_record(&p, true, S("example"), DNS_SOA, 900, str_new(SOA_DATA, sizeof SOA_DATA - 1));
        else if (trouble == NXDOMAIN_BEHIND_CNAME)
            add_record(&p, false, name, DNS_CNAME, 60, S("\4gone\7example\0"));
        else if (trouble == CNAME_LOOP) {
            add_record(&p, false, name, DNS_CNAME, 60, S("\1y\7example\0"));
            add_record(&p, false, S("y.example"), DNS_CNAME, 60, S("\1x\7example\0"));
        } else if (trouble == MX_DATA_TOO_SHORT)
            add_record(&p, false, name, DNS_MX, 60, S("\0"));
        else if (trouble == A_OF_FIVE_BYTES)
            add_record(&p, false, name, DNS_A, 60, S("\xc0\0\2\1\1"));
        else if (trouble == TXT_OVER_ITS_END)
            add_record(&p, false, name, DNS_TXT, 60, S("\5abcd"));
        else if (trouble == MX_NAME_WITH_TAIL)
            add_record(&p, false, name, DNS_MX, 60, S("\0\1\1a\0\0"));
        else
            add_record(&p, false, name, DNS_A, trouble == HUGE_TTL ? 0x80000001 : 60, ip);
        struct dns_answer a = decode(&p, name, cases[i].type, trouble == BOGUS ? DNS_BOGUS : DNS_INSECURE, &arena);
        EXPECT_INT(t, a.status, cases[i].status);
        EXPECT_INT(t, a.ttl, cases[i].ttl);
        EXPECT(t, (a.count > 0) == (a.status == DNS_FOUND));
        EXPECT(t, (a.why.len > 0) == (a.status == DNS_TEMPORARY));
        if (trouble == NXDOMAIN_BEHIND_CNAME)
            EXPECT_STR(t, a.canonical, S("gone.example"));
        arena_done(&arena);
    }
}

/* Whatever came of it, it keeps its own promises. */
static void
expect_sound(struct test *t, const struct dns_answer *a)
{
    EXPECT(t, a->count <= DNS_RECORDS_MAX);
    EXPECT(t, (a->count > 0) == (a->status == DNS_FOUND));
    for (size_t i = 0; i < a->count; i++)
        EXPECT(t, a->records[i].name.len <= NAME_TEXT_MAX);
}

static void
survives_cuts_and_changes(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet whole, p;
    struct prng prng;

    arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
    full_mx_packet(&whole);
    for (size_t len = 0; len < whole.len; len++) {
        p = whole;
        p.len = len;
        struct dns_answer a = decode(&p, S("alias.example"), DNS_MX, DNS_INSECURE, &arena);
        EXPECT_INT(t, a.status, DNS_TEMPORARY);
        arena_reset(&arena);
    }
    for (size_t at = 0; at < whole.len; at++) {
        for (unsigned flip = 1; flip < 256; flip = flip * 2 + 1) {
            p = whole;
            p.bytes[at] ^= (unsigned char)flip;
            struct dns_answer a = decode(&p, S("alias.example"), DNS_MX, DNS_INSECURE, &arena);
            expect_sound(t, &a);
            arena_reset(&arena);
        }
    }
    prng_seed(&prng, 1);
    for (int round = 0; round < 3000; round++) {
        p = whole;
        for (uint64_t changes = 1 + prng_below(&prng, 6); changes > 0; changes--)
            p.bytes[prng_below(&prng, p.len)] = (unsigned char)prng_u64(&prng);
        struct dns_answer a = decode(&p, S("alias.example"), DNS_MX, DNS_INSECURE, &arena);
        expect_sound(t, &a);
        arena_reset(&arena);
    }
    arena_done(&arena);
}

static void
too_many_records_are_cut(struct test *t)
{
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet p;

    arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
    start(&p, FLAGS_OK, S("m.example"), DNS_A);
    for (int i = 0; i < 200; i++)
        add_record(&p, false, S("m.example"), DNS_A, 60, S("\xc0\0\2\1"));
    struct dns_answer a = decode(&p, S("m.example"), DNS_A, DNS_INSECURE, &arena);
    EXPECT_INT(t, a.count, DNS_RECORDS_MAX);
    EXPECT(t, a.cut);
    arena_done(&arena);
}

static void
too_large_is_not_none(struct test *t)
{
    static const char data[DNS_BYTES_MAX + 1] = { 3, 1, 0 };
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet p;

    arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
    start(&p, FLAGS_OK, S("_25._tcp.m.example"), DNS_TLSA);
    add_record(&p, false, S("_25._tcp.m.example"), DNS_TLSA, 60, str_new(data, sizeof data));
    struct dns_answer a = decode(&p, S("_25._tcp.m.example"), DNS_TLSA, DNS_SECURE, &arena);
    EXPECT_INT(t, a.status, DNS_TEMPORARY);
    EXPECT_INT(t, a.count, 0);
    arena_done(&arena);
}

static void
goes_over_a_link(struct test *t)
{
    static unsigned char frame[DNS_ANSWER_ENCODED_MAX];
    struct mem mem = mem_libc();
    struct arena arena;
    struct packet p;
    struct dns_answer b;

    arena_init(&arena, &mem, 1024, 4 * DNS_ARENA_BYTES);
    full_mx_packet(&p);
    struct dns_answer a = decode(&p, S("alias.example"), DNS_MX, DNS_SECURE, &arena);
    struct put put = put_init(frame, sizeof frame);
    dns_answer_put(&put, &a);
    EXPECT(t, !put.full);
    EXPECT_INT(t, put.len, dns_answer_size(&a));
    struct take take = take_init(put_str_so_far(&put));
    EXPECT(t, dns_answer_take(&take, &arena, &b) && take_end(&take));
    EXPECT_INT(t, b.status, DNS_FOUND);
    EXPECT_STR(t, b.canonical, a.canonical);
    EXPECT_INT(t, b.ttl, a.ttl);
    if (EXPECT_INT(t, b.count, 2))
        EXPECT_STR(t, b.records[1].name, S("mx1.example"));
    for (size_t len = 0; len < put.len; len++) {
        struct str cut = test_edge(str_new(frame, len));
        take = take_init(cut);
        EXPECT(t, !dns_answer_take(&take, &arena, &b));
        test_edge_free(cut);
        arena_reset(&arena);
    }
    arena_done(&arena);
}

/* Whoever sends one may have been taken over. */
static void
believes_no_answer_that_is_not_one(struct test *t)
{
    static const struct { const char *why; struct str canonical, name; uint16_t type; uint8_t family; bool ok; } cases[] = {
        { "as ours", STR("a.example"), STR("mx.example"), DNS_MX, ADDRESS_NONE, true },
        { "the root", STR("a.example"), STR("."), DNS_MX, ADDRESS_NONE, true },
        { "no host's name", STR("a.example"), { 0 }, DNS_MX, ADDRESS_NONE, true },
        { "a line end in a name", STR("a.example"), STR("mx.example\r\nDATA"), DNS_MX, ADDRESS_NONE, false },
        { "an empty name", STR("a.example"), STR(""), DNS_MX, ADDRESS_NONE, false },
        { "a canonical name that is none", STR("a b"), STR("mx.example"), DNS_MX, ADDRESS_NONE, false },
        { "an address of the other family", STR("a.example"), { 0 }, DNS_A, ADDRESS_IPV6, false },
        { "an address of an MX", STR("a.example"), STR("mx.example"), DNS_MX, ADDRESS_IPV4, false },
    };
    struct mem mem = mem_libc();
    struct arena arena;
    struct dns_answer b;

    arena_init(&arena, &mem, 1024, DNS_ARENA_BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dns_record r = { .name = cases[i].name, .ip.family = cases[i].family };
        struct dns_answer a = { .status = DNS_FOUND, .type = cases[i].type, .canonical = cases[i].canonical, .records = &r,
                                .count = 1 };
        unsigned char memory[1024];
        struct put put = put_init(memory, sizeof memory);
        test_case(t, cases[i].why);
        dns_answer_put(&put, &a);
        struct take take = take_init(put_str_so_far(&put));
        EXPECT_INT(t, dns_answer_take(&take, &arena, &b), cases[i].ok);
        arena_reset(&arena);
    }
    struct dns_answer bogus = { .status = DNS_NODATA, .security = DNS_BOGUS, .type = DNS_MX, .canonical = STR("a.example") };
    unsigned char memory[1024];
    struct put put = put_init(memory, sizeof memory);
    test_case(t, "bogus, and yet an answer");
    dns_answer_put(&put, &bogus);
    struct take take = take_init(put_str_so_far(&put));
    EXPECT(t, !dns_answer_take(&take, &arena, &b));
    arena_done(&arena);
}

TEST_MAIN({ "takes what was asked and no more", takes_what_was_asked_and_no_more }, { "each type", each_type },
          { "status of other packets", status_of_other_packets },
          { "survives cuts and changes", survives_cuts_and_changes },
          { "too many records are cut", too_many_records_are_cut },
          { "too large is not none", too_large_is_not_none }, { "goes over a link", goes_over_a_link },
          { "believes no answer that is not one", believes_no_answer_that_is_not_one })
