/* notice - see notice.h. */
#include "queue/notice.h"

#include "message/envelope.h"

enum notice_kind
notice_for_failure(struct notice_facts f)
{
    /* Never bounce a bounce (RFC 5321 section 6.1). Of our own ones we know that nobody else will look after them. */
    if (f.own_notice)
        return f.has_postmaster && !f.is_postmaster ? NOTICE_OF_DOUBLE_BOUNCE : NOTICE_NONE;
    if (f.null_reverse_path)
        return NOTICE_NONE;
    return f.notify == 0 || (f.notify & NOTIFY_FAILURE) ? NOTICE_OF_FAILURE : NOTICE_NONE;
}

bool
notice_for_delay(struct notice_facts f)
{
    if (f.own_notice || f.null_reverse_path)
        return false;
    return f.notify == 0 ? f.trusted || f.by : (f.notify & NOTIFY_DELAY) != 0;
}

bool
notice_for_success(struct notice_facts f)
{
    return !f.own_notice && !f.null_reverse_path && (f.notify & NOTIFY_SUCCESS) != 0;
}

bool
notice_for_relay(struct notice_facts f)
{
    return !f.own_notice && !f.null_reverse_path && (f.notify & NOTIFY_NEVER) == 0;
}
