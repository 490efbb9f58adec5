/*
 * date - see date.h.
 *
 * Days are counted in eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
 */
#include "message/date.h"

#include "base/limits.h"

static const struct str day_names[] = { STR("Thu"), STR("Fri"), STR("Sat"), STR("Sun"), STR("Mon"),
                                        STR("Tue"), STR("Wed") };
static const struct str month_names[] = { STR("Jan"), STR("Feb"), STR("Mar"), STR("Apr"), STR("May"), STR("Jun"),
                                          STR("Jul"), STR("Aug"), STR("Sep"), STR("Oct"), STR("Nov"), STR("Dec") };

enum { ERA_DAYS = 146097, ERA_TO_1970 = 719468, DAY_SECONDS = 86400 };

static int64_t
days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, year_of_era = year % 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - ERA_TO_1970;
}

static void
civil_from_days(int64_t days, int64_t *out_year, int64_t *out_month, int64_t *out_day)
{
    int64_t z = days + ERA_TO_1970, era = z / ERA_DAYS, day_of_era = z % ERA_DAYS;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;

    *out_day = day_of_year - (153 * shifted + 2) / 5 + 1;
    *out_month = shifted < 10 ? shifted + 3 : shifted - 9;
    *out_year = year_of_era + era * 400 + (*out_month <= 2);
}

/* A day and the second in it; times outside the years 1900 to 9999 are put to their ends. */
struct civil {
    int64_t days, of_day, year, month, day;
};

static struct civil
civil_of(int64_t wall)
{
    int64_t second = wall / SECOND - (wall % SECOND < 0);
    int64_t first = days_from_civil(1900, 1, 1) * DAY_SECONDS, last = days_from_civil(10000, 1, 1) * DAY_SECONDS - 1;
    struct civil c;

    second = second < first ? first : second > last ? last : second;
    c.days = second / 86400 - (second % 86400 < 0);
    c.of_day = second - c.days * 86400;
    civil_from_days(c.days, &c.year, &c.month, &c.day);
    return c;
}

void
date_put(struct text *t, int64_t wall)
{
    struct civil c = civil_of(wall);
    struct str weekday = day_names[((c.days % 7) + 7) % 7];

    text_putf(t, "%.*s, %02d %.*s %04d %02d:%02d:%02d +0000", STR_ARG(weekday), (int)c.day,
              STR_ARG(month_names[c.month - 1]), (int)c.year, (int)(c.of_day / 3600), (int)(c.of_day / 60 % 60),
              (int)(c.of_day % 60));
}

void
date_put_rfc3339(struct text *t, int64_t wall)
{
    struct civil c = civil_of(wall);

    text_putf(t, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)c.year, (int)c.month, (int)c.day, (int)(c.of_day / 3600),
              (int)(c.of_day / 60 % 60), (int)(c.of_day % 60));
}

static int64_t
days_of_month(int64_t year, int64_t month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

/* False: there is no such day, or it is beyond the year 2262. zone in minutes. */
static bool
wall_of(int64_t year, int64_t month, int64_t day, int64_t of_day, int64_t zone, int64_t *out_wall)
{
    if (day < 1 || day > days_of_month(year, month))
        return false;
    int64_t seconds = days_from_civil(year, month, day) * DAY_SECONDS + of_day - zone * 60;
    if (seconds > INT64_MAX / SECOND || seconds < INT64_MIN / SECOND)
        return false;
    *out_wall = seconds * SECOND;
    return true;
}

/* Exactly so many digits. */
static bool
take_digits(struct str *s, size_t digits, int64_t *out)
{
    for (size_t i = 0; i < digits; i++)
        if (i >= s->len || !byte_is_digit(s->ptr[i]))
            return false;
    *out = 0;
    for (size_t i = 0; i < digits; i++)
        *out = *out * 10 + (s->ptr[i] - '0');
    *s = str_from(*s, digits);
    return true;
}

/* "Z", "+01:00". */
static bool
take_offset(struct str *s, int64_t *out_minutes)
{
    bool minus = str_starts(*s, S("-"));
    int64_t hours, minutes;

    *out_minutes = 0;
    if (str_take_nocase(s, S("Z")))
        return true;
    if (!minus && !str_starts(*s, S("+")))
        return false;
    *s = str_from(*s, 1);
    if (!take_digits(s, 2, &hours) || !str_take_byte(s, ':') || !take_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *out_minutes = (hours * 60 + minutes) * (minus ? -1 : 1);
    return true;
}

bool
date_parse_rfc3339(struct str s, int64_t *out_wall)
{
    int64_t year, month, day, hour, minute, second, zone;

    if (!take_digits(&s, 4, &year) || !str_take_byte(&s, '-') || !take_digits(&s, 2, &month) || !str_take_byte(&s, '-') ||
        !take_digits(&s, 2, &day) || !str_take_nocase(&s, S("T")) || !take_digits(&s, 2, &hour) || !str_take_byte(&s, ':') ||
        !take_digits(&s, 2, &minute) || !str_take_byte(&s, ':') || !take_digits(&s, 2, &second))
        return false;
    if (str_take_byte(&s, '.')) {
        size_t before = s.len;
        while (s.len && byte_is_digit(s.ptr[0]))
            s = str_from(s, 1);
        if (s.len == before)
            return false;
    }
    if (!take_offset(&s, &zone) || s.len || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 60)
        return false;
    return wall_of(year, month, day, (hour * 60 + minute) * 60 + second, zone, out_wall);
}
