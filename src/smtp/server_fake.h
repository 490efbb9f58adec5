/*
 * server_fake - a site for tests of the session: local.test, with these behind RCPT:
 *
 *     ok, v, postmaster, and "user" followed by digits    250
 *     fwd      251, goes to fwd@partner.test              moved    551
 *     list     members ok and v, owner owner-list         sales    an alias to ok and v
 *     busy     450                                        bye      421
 *     crowd    FAKE_CROWD members, c0 and so on
 *     slow     250, when the test has woken `slow`; 450 if that is not in time
 *
 * Nobody else is known (550 5.1.1), and elsewhere is relayed to for trusted clients only (550 5.7.1).
 * What is committed is kept, to be looked at.
 */
#ifndef SMTP_SERVER_FAKE_H
#define SMTP_SERVER_FAKE_H

#include "smtp/server.h"

enum { FAKE_MESSAGES = 64, FAKE_REFUSALS = 160, FAKE_CROWD = 4000 };

struct fake_message {
    struct message_id id;
    char *content;
    size_t len;
    char trace[1024];
    char reverse_path[128];
    char recipients[512];  /* address, notify and origin of the first few: "ok@local.test/0/0 " */
    size_t recipient_count;
    uint8_t body;
    bool smtputf8, trusted;
    char client[64];
};

struct fake_site {
    struct server_hooks hooks;
    struct fake_message messages[FAKE_MESSAGES];
    size_t committed;      /* those beyond FAKE_MESSAGES are counted only */
    size_t begun, aborted; /* drafts */
    size_t admitted, left;
    size_t told, told_unknown; /* XCLIENT; without an address */
    uint64_t puts, put_bytes;

    /* What goes wrong. */
    const struct reply *admission;
    struct err begin_error, put_error, commit_error;
    bool over_budget, draining;
    struct rt *rt;         /* of `slow` */
    struct event slow;
    size_t slow_asked;
    size_t crowd_asked;
    int64_t commit_takes;  /* ns */
    struct str reverse_name;

    /* The last session's line. */
    struct server_report report;
    char ended[80], last_refusal[FAKE_REFUSALS], last_refused[80];
    size_t sessions_logged, refusals_logged;
    uint64_t repaired;
    void (*committed_hook)(const struct fake_message *); /* NULL: none */
};

void fake_site_init(struct fake_site *);
void fake_site_done(struct fake_site *);

#endif
