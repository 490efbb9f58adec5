/* host - host.h, sandbox.h and notify.h in the simulator: one configuration file, a handful of users, no kernel. */
#include "runtime/host.h"

#include "base/check.h"
#include "runtime/notify.h"
#include "runtime/sandbox.h"
#include "sim/sim.h"

#include <errno.h>

static const struct {
    struct str name;
    uint32_t id;
} users[] = { { STR("postrider"), SIM_USER }, { STR("root"), 0 }, { STR("anna"), 2001 }, { STR("bob"), 2002 } };

static struct err
a_moment(struct rt *rt)
{
    process_step(process_of(rt));
    TRY(sched_enter(rt));
    fiber_yield(rt);
    int error = faults_call(process_of(rt), CALL_HOST);
    return error ? err_from_os(error, "use the machine") : OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

struct err
host_read_file(struct rt *rt, struct str path, size_t max, struct arena *arena, int64_t until, struct str *out)
{
    struct sim *sim = process_of(rt)->sim;
    struct str bytes = sim->config;
    disk_inode file;

    (void)until;
    TRY(a_moment(rt));
    if (!str_eq(path, S(SIM_CONFIG_PATH))) {
        if (!disk_walk(sim->disk, DISK_ROOT, path, &file))
            return err_from_os(ENOENT, "open");
        bytes = disk_bytes(sim->disk, file);
    }
    if (bytes.len > max)
        return ERR(ERR_LIMIT, "read: the file is too long");
    *out = arena_keep(arena, bytes);
    return OK;
}

struct err
host_write_file(struct rt *rt, struct str path, struct str bytes, unsigned mode, int64_t until)
{
    (void)path;
    (void)bytes;
    (void)mode;
    (void)until;
    TRY(a_moment(rt));
    return err_from_os(EROFS, "create");
}

/* As linux_host.c: each one that is made is synced into the directory that holds it. */
struct err
host_make_dir(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    struct process *p = process_of(rt);
    disk_inode dir = DISK_ROOT, made;

    (void)mode;
    (void)uid;
    (void)gid;
    (void)until;
    TRY(a_moment(rt));
    int error = faults_disk_error(p->sim, p, CALL_DIR);
    if (error)
        return err_from_os(error, "make a directory");
    while (!str_is_absent(path)) {
        struct str part = str_cut(&path, '/');
        if (part.len == 0)
            continue;
        if (!disk_look_up(p->sim->disk, dir, part, &made)) {
            TRY(disk_create(p->sim->disk, dir, part, true, &made));
            process_step(p);
        }
        dir = made;
    }
    return OK;
}

struct err
host_own(struct rt *rt, struct str path, unsigned mode, int64_t uid, int64_t gid, int64_t until)
{
    (void)path;
    (void)mode;
    (void)uid;
    (void)gid;
    (void)until;
    return a_moment(rt);
}

struct err
host_stat(struct rt *rt, struct str path, int64_t until, struct host_file *out)
{
    struct sim *sim = process_of(rt)->sim;
    disk_inode inode;

    (void)until;
    TRY(a_moment(rt));
    if (!disk_walk(sim->disk, DISK_ROOT, path, &inode))
        return err_from_os(ENOENT, "look at");
    /* Files here are replaced, never changed: a time for each. */
    *out = (struct host_file){ .changed = SIM_WALL_START + inode * SECOND, .size = disk_size(sim->disk, inode), .mode = 0700,
                               .is_dir = disk_is_dir(sim->disk, inode) };
    return OK;
}

/* There are no links. */
struct err
host_open_plain(struct rt *rt, struct str path, int64_t until, struct handle *out, struct host_file *out_file)
{
    TRY(host_stat(rt, path, until, out_file));
    return host_open(rt, path, until, out);
}

/* ---- users and names --------------------------------------------------------------------------------------------- */

struct err
host_user(struct rt *rt, struct str name, int64_t until, uint32_t *out_uid, uint32_t *out_gid)
{
    (void)until;
    TRY(a_moment(rt));
    for (size_t i = 0; i < sizeof users / sizeof *users; i++)
        if (str_eq(users[i].name, name)) {
            *out_uid = *out_gid = users[i].id;
            return OK;
        }
    return ERR(ERR_NOT_FOUND, "look a user up");
}

struct err
host_user_by_id(struct rt *rt, uint32_t uid, int64_t until, struct arena *arena, struct str *out_name, uint32_t *out_gid)
{
    (void)until;
    TRY(a_moment(rt));
    for (size_t i = 0; i < sizeof users / sizeof *users; i++)
        if (users[i].id == uid) {
            *out_name = arena_keep(arena, users[i].name);
            *out_gid = uid;
            return OK;
        }
    return ERR(ERR_NOT_FOUND, "look a user up");
}

uint32_t
host_my_uid(struct rt *rt)
{
    return process_of(rt)->uid;
}

uint32_t
host_my_gid(struct rt *rt)
{
    return process_of(rt)->gid;
}

uint32_t
host_processors(struct rt *rt)
{
    (void)rt;
    return 2;
}

struct str
host_env(struct rt *rt, struct str name)
{
    (void)rt;
    (void)name;
    return (struct str){ NULL, 0 };
}

struct err
host_whole_path(struct rt *rt, struct str path, struct arena *arena, struct str *out)
{
    (void)rt;
    CHECK(str_starts(path, S("/")));
    *out = arena_keep(arena, path);
    return OK;
}

struct err
host_name(struct rt *rt, struct arena *arena, struct str *out)
{
    int error = faults_call(process_of(rt), CALL_HOST);

    if (error)
        return err_from_os(error, "ask for the host's name");
    *out = arena_keep(arena, S("mx.sim.test"));
    return OK;
}

/* ---- sandbox, service manager, library sockets ------------------------------------------------------------------- */

struct err
sandbox_enter(struct rt *rt, const struct sandbox_rules *rules, struct sandbox_report *out_report)
{
    int error = faults_call(process_of(rt), CALL_SANDBOX);

    (void)rules;
    process_step(process_of(rt));
    if (error)
        return err_from_os(error, "enter the sandbox");
    *out_report = (struct sandbox_report){ .no_new_privileges = true, .files = true, .calls = true };
    return OK;
}

void
sandbox_report_text(const struct sandbox_report *report, struct text *out)
{
    (void)report;
    text_put(out, S("simulated"));
}

bool
rt_notify(struct rt *rt, struct str state)
{
    (void)rt;
    (void)state;
    return false;
}

bool
rt_notify_ready(struct rt *rt, struct str status)
{
    (void)status;
    sim_note(process_of(rt)->sim, process_of(rt), "ready", 0, 0);
    process_of(rt)->sim->daemon_ready = true;
    return true;
}

bool
rt_notify_reloading(struct rt *rt)
{
    (void)rt;
    return false;
}

bool
rt_notify_stopping(struct rt *rt)
{
    (void)rt;
    return false;
}
