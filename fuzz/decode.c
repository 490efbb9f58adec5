/* decode - see decode.h. */
#include "decode.h"

#include "fuzz.h"

void
decode_quoted_printable(struct str in, struct text *out)
{
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] != '=') {
            if (in.ptr[i] == '\n' && (i == 0 || in.ptr[i - 1] != '\r')) /* reads as a line end */
                text_put_byte(out, '\r');
            text_put_byte(out, in.ptr[i]);
            continue;
        }
        struct str rest = str_from(in, i + 1);
        int high = rest.len >= 2 ? byte_hex(rest.ptr[0]) : -1, low = rest.len >= 2 ? byte_hex(rest.ptr[1]) : -1;
        if (high >= 0 && low >= 0) {
            text_put_byte(out, (char)(high * 16 + low));
            i += 2;
        } else if (str_starts(rest, S("\r\n"))) { /* a soft line end */
            i += 2;
        } else if (str_starts(rest, S("\n"))) {
            i += 1;
        } else {
            text_put_byte(out, '=');
        }
    }
}

void
decode_base64(struct str in, struct text *out)
{
    static const struct str digits = STR("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    uint32_t bits = 0;
    int count = 0;

    for (size_t i = 0; i < in.len && in.ptr[i] != '='; i++) {
        size_t digit = str_find_byte(digits, in.ptr[i]);
        if (digit == digits.len)
            continue;
        bits = bits << 6 | (uint32_t)digit;
        count += 6;
        if (count >= 8) {
            count -= 8;
            text_put_byte(out, (char)(bits >> count & 0xff));
        }
    }
}

const struct mime_needs *
scan_message(struct arena *arena, struct str message, size_t cut)
{
    struct mime_scan *scan = mime_scan_new(arena);

    mime_scan_feed(scan, str_slice(message, 0, cut));
    mime_scan_feed(scan, str_from(message, cut));
    return mime_scan_end(scan);
}

struct str
convert_message(struct arena *arena, const struct mime_needs *needs, enum convert_to to, struct str message, size_t cut,
                size_t room)
{
    struct convert *convert = convert_new(arena, needs, to);
    struct text out = fuzz_text(arena, 8192 + 40 * message.len);
    struct text part = fuzz_text(arena, room);

    for (int i = 0; i < 2; i++) {
        struct str piece = i == 0 ? str_slice(message, 0, cut) : str_from(message, cut);
        for (bool done = false; !done;) {
            part.len = 0;
            done = convert_feed(convert, &piece, &part);
            CHECK(!part.full && (!done || piece.len == 0));
            text_put(&out, text_str(&part));
        }
    }
    for (bool done = false; !done;) {
        part.len = 0;
        done = convert_end(convert, &part);
        CHECK(!part.full);
        text_put(&out, text_str(&part));
    }
    CHECK(!out.full);
    return text_str(&out);
}

size_t
decode_message(struct arena *arena, struct str message, struct decoded_body *out, size_t max)
{
    struct mime *mime = mime_new(arena);
    struct mime_piece piece;
    struct str rest = message;
    size_t count = 0;

    while (mime_next(mime, &rest, &piece) || mime_end(mime, &piece)) {
        if (piece.entity >= max)
            break;
        if (piece.place == MIME_HEADER_END) {
            out[piece.entity] = (struct decoded_body){ .entity = *mime_entity(mime) };
            out[piece.entity].raw = fuzz_text(arena, message.len);
            count = piece.entity + 1;
        } else if (piece.place == MIME_BODY) {
            CHECK(piece.entity < count);
            text_put(&out[piece.entity].raw, piece.bytes);
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct text decoded = fuzz_text(arena, 2 * out[i].raw.len);
        if (out[i].entity.encoding == MIME_QUOTED_PRINTABLE)
            decode_quoted_printable(text_str(&out[i].raw), &decoded);
        else if (out[i].entity.encoding == MIME_BASE64)
            decode_base64(text_str(&out[i].raw), &decoded);
        else
            text_put(&decoded, text_str(&out[i].raw));
        CHECK(!decoded.full);
        out[i].decoded = text_str(&decoded);
    }
    return count;
}
