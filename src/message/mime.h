/*
 * mime - the structure of a message (RFC 2045, 2046), found while it streams by: which bytes are header fields, the
 * body of a part, or what lies between. Used to see what a message needs (mime_scan) and to convert it (convert.h).
 *
 * An *entity* is what has a header: the message itself is number 0, then every part and every encapsulated message, in
 * the order in which their headers begin. The same bytes always give the same numbers, however they are cut.
 *
 * As readers in use do: boundaries match exactly, but for spaces behind them; one of an outer multipart ends the inner
 * ones; a header ends at its first line that is no field; the first Content-Type counts; MIME-Version is not asked for.
 * Memory is bounded: LIMIT_MIME_DEPTH boundaries of BOUNDARY_MAX bytes, and one line's start.
 */
#ifndef MESSAGE_MIME_H
#define MESSAGE_MIME_H

#include "base/arena.h"
#include "base/limits.h"

enum mime_place {
    MIME_FIELD,      /* of a header field of `entity`; `starts` says that a new one begins */
    MIME_HEADER_END, /* the empty line, or nothing where it is missing */
    MIME_BODY,       /* content of a part that has no parts; never the line end before a boundary */
    MIME_OUTER,      /* boundaries, and what stands before, between and behind parts */
};
enum mime_class {
    MIME_TEXT,       /* text/..., or what is as good as text */
    MIME_OTHER,
    MIME_FIELDS,     /* message/delivery-status and its kind: lines like header fields, never encoded as a whole */
    MIME_FIXED,      /* message/partial, message/external-body: never to be encoded at all */
    MIME_MULTIPART,  /* these two have entities within, not a body */
    MIME_MESSAGE,
    MIME_CLASS_COUNT
};
enum mime_encoding {
    MIME_UNSAID, MIME_7BIT, MIME_8BIT, MIME_BINARY, MIME_QUOTED_PRINTABLE, MIME_BASE64, MIME_UNKNOWN,
    MIME_ENCODING_COUNT
};

struct mime_entity {
    enum mime_class class;
    enum mime_encoding encoding;
    bool is_root;     /* a message, not a part */
    bool has_type, has_version;
};
struct mime_piece {
    enum mime_place place;
    uint32_t entity;
    bool starts;      /* of a field: its first piece */
    bool line_end;    /* of a body or what is outer: these are CRLF, or a bare LF, that end a line */
    struct str bytes; /* borrows from the input or from the struct mime, until the next call */
};

struct mime;
struct mime *mime_new(struct arena *);
/* Takes bytes off the input and gives the next piece. False: *bytes is empty, and more is needed. */
bool mime_next(struct mime *, struct str *bytes, struct mime_piece *out);
/* No more bytes come: gives what was held back, piece by piece, then false. */
bool mime_end(struct mime *, struct mime_piece *out);
/* Two Content-Type fields, each with its name, say the same of what an entity is and where its parts are. Two struct mime that are
 * used for nothing else are their memory. */
bool mime_is_same_type(struct mime *, struct mime *, struct str field, struct str other);
/* The entity whose MIME_HEADER_END was the last to come. */
const struct mime_entity *mime_entity(const struct mime *);
/* What was seen so far: a multipart or message deeper than LIMIT_MIME_DEPTH, taken for a part without parts; a boundary
 * that is not ASCII, or a line that a conversion could make one; (after mime_end) a multipart whose boundary never came. */
bool mime_is_too_deep(const struct mime *);
bool mime_has_odd_boundary(const struct mime *);
bool mime_has_partless(const struct mime *);

/* A body as it was before its Content-Transfer-Encoding: at most as many bytes. False: it is not encoded as it says, or nobody knows
 * how. */
bool mime_decode(enum mime_encoding, struct str body, struct text *out);

enum { LIMIT_MIME_ENTITIES = 10000 };

/* What a message needs, entity by entity: two bytes for each. */
enum mime_need {
    MIME_NEED_8BIT     = 1 << 0, /* its own body, without what is within */
    MIME_NEED_BARE     = 1 << 1, /* bare CR or LF, or NUL */
    MIME_NEED_LONG     = 1 << 2, /* a line over 998 */
    MIME_NOT_UTF8      = 1 << 3,
    MIME_IS_ROOT       = 1 << 4,
    MIME_HAS_TYPE      = 1 << 5,
    MIME_HAS_VERSION   = 1 << 6,
    MIME_CLASS_SHIFT   = 7,      /* enum mime_class in three bits */
    MIME_ENCODING_SHIFT = 10,    /* enum mime_encoding in three bits */
};
struct mime_needs {
    uint16_t *entities;
    uint32_t count;
    bool header_8bit; /* in a header field of any entity: SMTPUTF8, or somebody's mistake */
    bool body_8bit;   /* anywhere else */
    bool bare;        /* bare CR or NUL anywhere, or a bare LF in a body (elsewhere it ends a line for every reader) */
    bool odd;         /* too deep, too many entities, boundaries not ASCII or missing: cannot be converted */
    uint64_t longest; /* line, without its end */
};

struct mime_scan;
struct mime_scan *mime_scan_new(struct arena *);
void mime_scan_feed(struct mime_scan *, struct str bytes);
/* Lives as long as the arena. */
const struct mime_needs *mime_scan_end(struct mime_scan *);

#endif
