/*
 * supervisor_sockets - the sockets that the site listens on: opened here, with our rights, handed to the roles, and kept over
 * generations, so that no reload closes a port.
 */
#include "role/supervisor_own.h"

#include "base/check.h"
#include "runtime/host.h"
#include "runtime/log.h"

static struct socket *
find_socket(struct supervisor *s, const struct address *address)
{
    list_each (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        if (address_eq(&socket->address, address))
            return socket;
    }
    return NULL;
}

/* No listener closes its port before all of a new site are open: so this one cannot move there. */
static bool
is_in_our_own_way(const struct supervisor *s, const struct address *address)
{
    list_each (node, &s->sockets) {
        const struct socket *socket = container_of(node, struct socket, node);
        if (socket->address.family == address->family && socket->address.port == address->port &&
            address->family != ADDRESS_UNIX && !str_is_absent(socket->name))
            return true;
    }
    return false;
}

static struct str
advice_about(const struct supervisor *s, const struct address *address, struct err e)
{
    if (e.kind == ERR_UNREACHABLE && address->family == ADDRESS_IPV6)
        return S("this machine has no IPv6, or not this address: \":PORT\" is every address that there is");
    if (e.kind == ERR_UNREACHABLE)
        return S("this machine has no such address: \":PORT\" is every address that there is");
    if (e.kind == ERR_BUSY && is_in_our_own_way(s, address))
        return S("the server itself listens at this port, by an address that overlaps: such a change needs a stop and a start");
    return S("");
}

static struct err
cannot_listen(struct supervisor *s, const struct address *address, struct err e, struct text *out_text)
{
    struct str advice = advice_about(s, address, e);
    struct log_line line;

    log_begin(&line, s->rt, LOG_ERROR, "cannot-listen");
    log_address(&line, "address", address);
    log_err(&line, e);
    if (advice.len)
        log_str(&line, "advice", advice);
    log_end(&line);
    address_put(out_text, address);
    text_put(out_text, S(": cannot listen there: "));
    err_text(e, out_text);
    text_putf(out_text, "%s%.*s\n", advice.len ? ": " : "", STR_ARG(advice));
    return e;
}

/* Said, and no fault: who wrote ":25" wants what there is. */
static struct err
go_without(struct supervisor *s, struct str name, const struct address *address, struct err e)
{
    struct log_line line;

    log_begin(&line, s->rt, LOG_WARNING, "this-machine-has-no-IPv6");
    log_str(&line, "listener", name);
    log_address(&line, "address", address);
    log_err(&line, e);
    log_end(&line);
    return OK;
}

/* if_any: nothing is amiss if the machine has no such addresses. */
static struct err
want_socket(struct supervisor *s, enum role_kind taker, struct str name, const struct address *address, bool if_any,
            struct text *out_text)
{
    struct socket *socket = find_socket(s, address);
    struct listener *listener;

    if (!socket) {
        struct err e = listener_open(s->rt, address, &listener);
        if (if_any && e.kind == ERR_UNREACHABLE)
            return go_without(s, name, address, e);
        if (err_is(e))
            return cannot_listen(s, address, e, out_text);
        struct handle handle = listener_handle(s->rt, listener);
        struct address bound = listener_address(listener);
        listener_close(listener);
        if (handle_is_none(handle))
            return cannot_listen(s, address, ERR(ERR_NO_FILES, "duplicate a listener"), out_text);
        socket = mem_new(rt_mem(s->rt), struct socket);
        socket->name = (struct str){ NULL, 0 };
        socket->handle = handle;
        socket->address = *address;
        list_push_back(&s->sockets, &socket->node);
        struct log_line line;
        log_begin(&line, s->rt, LOG_INFO, "listening");
        log_str(&line, "listener", name);
        log_address(&line, "address", &bound);
        log_end(&line);
    }
    socket->next_name = str_eq(socket->name, name) ? socket->name : arena_keep(&s->arena, name);
    socket->next_taker = taker;
    return OK;
}

static struct err
want_unix_socket(struct supervisor *s, enum role_kind taker, struct str name, struct str state, const char *file,
                 unsigned mode, struct text *out_text)
{
    struct address address = { .family = ADDRESS_UNIX };
    struct text path = text_init(address.path, sizeof address.path - 1);

    text_putf(&path, "%.*s/%s", STR_ARG(state), file);
    CHECK(!path.full); /* the configuration's `state` is not longer than that */
    TRY(want_socket(s, taker, name, &address, false, out_text));
    struct err e = host_own(s->rt, text_str(&path), mode, supervisor_owner(s, s->user_id), supervisor_owner(s, s->group_id), FOREVER);
    return err_is(e) ? cannot_listen(s, &address, e, out_text) : OK;
}

static void
close_socket(struct supervisor *s, struct socket *socket)
{
    handle_close(s->rt, socket->handle);
    list_remove(&socket->node);
    mem_free(rt_mem(s->rt), socket, sizeof *socket);
}

struct err
supervisor_open_sockets(struct supervisor *s, const struct site *site, struct text *out_text)
{
    list_each (node, &s->sockets)
        container_of(node, struct socket, node)->next_name = (struct str){ NULL, 0 };
    /* Anybody on this machine may hand in mail; only our own user and group may operate the server. */
    TRY(want_unix_socket(s, ROLE_SUBMISSION, S("local"), site->state, "submission.sock", 0666, out_text));
    TRY(want_unix_socket(s, ROLE_CONSOLE, S("control"), site->state, "control.sock", 0660, out_text));
    for (size_t i = 0; i < site->listener_count; i++)
        for (size_t k = 0; k < site->listeners[i].address_count; k++)
            TRY(want_socket(s, role_of_listener(site->listeners[i].kind), site->listeners[i].name,
                            &site->listeners[i].addresses[k], site->listeners[i].if_any[k], out_text));
    return OK;
}

void
supervisor_keep_sockets(struct supervisor *s)
{
    list_each_safe (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        socket->name = socket->next_name;
        socket->taker = socket->next_taker;
        if (str_is_absent(socket->name))
            close_socket(s, socket);
    }
}

void
supervisor_drop_sockets(struct supervisor *s)
{
    list_each_safe (node, &s->sockets) {
        struct socket *socket = container_of(node, struct socket, node);
        if (str_is_absent(socket->name))
            close_socket(s, socket);
    }
}
