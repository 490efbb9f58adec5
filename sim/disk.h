/*
 * disk - a file system in memory that knows what a power failure would leave of it.
 *
 * It has two views. The *cache* is what programs read and write; it survives the death of a process. The *durable* view
 * is what was synced; every change since then is an *operation* in a list, oldest first, and after power loss each of
 * them may have reached the platter or not, in any combination, a write also in part (512-byte sectors):
 *
 *     write     bytes of a file; the file grows by an operation of its own ("size")
 *     size      a file's length: growing, cutting, claiming
 *     link      a new name in a directory
 *     unlink    a name that is gone
 *     rename    in one directory it is atomic; between two the new name may be there beside the old one, but a file
 *               never loses both
 *
 * disk_sync() of a file makes its writes and sizes durable; of a directory, its names. One does not do the other's work.
 * A sync that fails (disk_fail_sync) leaves the cache as it is and forgets the writes: some have arrived, the others
 * never will, and no later sync says so: what Linux does. Sizes and names go through a journal; they stay unsynced.
 *
 * Nothing here waits, draws random numbers or knows time: the simulator (sim/file.c) adds these, and the enumeration of
 * crash states uses disk_clone() and disk_lose_power() alone.
 *
 * An inode is a number; 0 is the root directory. It lives while a name in either view, an operation, or disk_hold()
 * needs it.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "base/err.h"
#include "base/mem.h"

struct disk;
typedef uint32_t disk_inode;
enum { DISK_ROOT = 0, DISK_SECTOR = 512, DISK_BLOCK = 4096 };

enum disk_op_kind { DISK_WRITE, DISK_SIZE, DISK_LINK, DISK_UNLINK, DISK_RENAME };

struct disk_op {
    uint64_t number;       /* grows with time; never used twice */
    uint8_t kind;          /* enum disk_op_kind */
    disk_inode inode;      /* write, size: the file; link, rename: what is named */
    disk_inode dir, to;    /* of names; rename: from `dir` to `to` */
    struct str name, to_name;
    uint64_t offset;       /* write */
    uint64_t len;          /* write: bytes; size: the new size */
};

/* capacity: bytes of all files' blocks together, beyond which growing is ENOSPC. */
struct disk *disk_new(struct mem *, uint64_t capacity);
void disk_free(struct disk *);
/* Both views, the operations and the holds, in memory of the same struct mem. */
struct disk *disk_clone(const struct disk *);

/* ---- names ------------------------------------------------------------------------------------------------------- */

bool disk_look_up(const struct disk *, disk_inode dir, struct str name, disk_inode *out);
/* The same through several directories: "a/b/c"; leading slashes are ignored, an empty path is `dir`. */
bool disk_walk(const struct disk *, disk_inode dir, struct str path, disk_inode *out);
bool disk_is_dir(const struct disk *, disk_inode);
struct err disk_create(struct disk *, disk_inode dir, struct str name, bool is_dir, disk_inode *out); /* EEXIST */
struct err disk_rename(struct disk *, disk_inode from, struct str name, disk_inode to, struct str new_name);
struct err disk_unlink(struct disk *, disk_inode dir, struct str name);
/* The nth name of a directory in byte order; absent: there are fewer. */
struct str disk_name(const struct disk *, disk_inode dir, size_t nth);

void disk_hold(struct disk *, disk_inode);    /* an open file */
void disk_release(struct disk *, disk_inode);

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

uint64_t disk_size(const struct disk *, disk_inode);
size_t disk_read(const struct disk *, disk_inode, void *memory, size_t len, uint64_t offset);
struct err disk_write(struct disk *, disk_inode, struct str bytes, uint64_t offset); /* ENOSPC: nothing was written */
struct err disk_set_size(struct disk *, disk_inode, uint64_t size);
struct err disk_claim(struct disk *, disk_inode, uint64_t size); /* grows to it; never shrinks */
uint64_t disk_free_space(const struct disk *);
uint64_t disk_used(const struct disk *);
void disk_set_capacity(struct disk *, uint64_t capacity);
/* The cached bytes of the whole file, for checkers. */
struct str disk_bytes(const struct disk *, disk_inode);

/* ---- what lasts -------------------------------------------------------------------------------------------------- */

void disk_sync(struct disk *, disk_inode);
void disk_sync_all(struct disk *);
/* As the kernel does in the background: the oldest operations become durable until at most `most` are left. */
void disk_write_back(struct disk *, size_t most);

enum disk_fate { DISK_LOST, DISK_KEPT, DISK_TORN };
/* Who decides. Asked once for each operation, oldest first; of a torn write, once for each sector that it touches. */
struct disk_choice {
    enum disk_fate (*fate)(void *arg, const struct disk_op *);
    bool (*keep_sector)(void *arg, const struct disk_op *, uint64_t sector); /* number of the sector in the write */
    void *arg;
};
/* drop_cache: reads give from now on what is durable (some file systems), else what was written. */
void disk_fail_sync(struct disk *, disk_inode, const struct disk_choice *, bool drop_cache);
/* Of a file: reads give what is durable, and what is written and not synced yet. */
void disk_forget_cache(struct disk *, disk_inode);
/* The power fails: the cache becomes what is durable with what the choice keeps of the operations. Nothing may be held
 * (disk_release_all). */
void disk_lose_power(struct disk *, const struct disk_choice *);
void disk_release_all(struct disk *);

/* Operations that are not durable. The nth, oldest first; NULL: there are fewer. Good until the disk changes. */
size_t disk_op_count(const struct disk *);
const struct disk_op *disk_op(const struct disk *, size_t nth);
uint64_t disk_next_number(const struct disk *); /* of the operation that comes next: a point in time */

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* In both views: flips bits of one byte, or fills with zeros. */
void disk_flip(struct disk *, disk_inode, uint64_t offset, uint8_t bits);
void disk_blank(struct disk *, disk_inode, uint64_t offset, uint64_t len);
/* Calls each(arg, inode, path) for every file, in the order of names. */
void disk_each_file(const struct disk *, disk_inode dir, void (*each)(void *arg, disk_inode, struct str path), void *arg);

#endif
