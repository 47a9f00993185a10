/*
 * The grammar of requests and the decoder of chunked bodies on any bytes: results stay inside the
 * input, every prefix gives "more" or the whole input's verdict, the strict rules hold for whatever
 * is taken, and a body decodes alike whole and byte by byte.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/http1/chunked.h"
#include "belfry/http1/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Smaller than a port's, so that the fuzzer reaches them. */
static const struct bf_http1_limits limits = {.head_bytes = 2048, .line_bytes = 512};

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void inside(struct bf_bytes b, const char *buf, size_t len)
{
    must(b.len == 0 || (b.at >= buf && b.at + b.len <= buf + len) ||
         (b.len == 1 && b.at[0] == '/'));
}

/* What no good head has, whatever else it says. */
static void good(const struct bf_http1_head *head, const char *buf, size_t len)
{
    must(len <= limits.head_bytes && memcmp(buf + len - 4, "\r\n\r\n", 4) == 0);
    must(!memchr(buf, 0, len) && !(head->has_length && head->is_chunked));
    must(head->has_host || head->minor == 0);
    inside(head->method, buf, len);
    inside(head->path, buf, len);
    inside(head->query, buf, len);
    inside(head->host, buf, len);
    for (uint32_t i = 0; i < head->field_count; i++) {
        struct bf_bytes name = bf_http1_field_name(buf, &head->fields[i]);
        struct bf_bytes value = bf_http1_field_value(buf, &head->fields[i]);
        inside(name, buf, len);
        inside(value, buf, len);
        must(bf_http1_is_token(name) && bf_http1_is_field_value(value));
    }
    for (size_t i = 0; i < len; i++)
        must((buf[i] == '\n') == (i > 0 && buf[i - 1] == '\r'));
}

struct body {
    long verdict; /* bytes taken, or the refusal */
    bool is_done;
    size_t len;
    uint64_t sum; /* of the bytes in their order */
};

static struct body decode(const char *buf, size_t len, size_t step)
{
    struct bf_http1_chunked chunks = {.state = BF_CHUNK_SIZE};
    struct body body = {0};
    size_t at = 0;
    while (at < len && chunks.state != BF_CHUNK_DONE) {
        struct bf_bytes part;
        size_t end = len - at < step ? len : at + step;
        long n = bf_http1_chunked_take(&chunks, buf + at, end - at, &part);
        if (n < 0) {
            must(chunks.why != NULL);
            body.verdict = n;
            return body;
        }
        must(n > 0 && (size_t)n <= end - at && part.len <= (size_t)n);
        inside(part, buf + at, end - at);
        for (size_t i = 0; i < part.len; i++)
            body.sum = body.sum * 31 + (uint8_t)part.at[i];
        body.len += part.len;
        at += (size_t)n;
    }
    body.verdict = (long)at;
    body.is_done = chunks.state == BF_CHUNK_DONE;
    return body;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *buf = (const char *)data;
    static struct bf_http1_head head, part;
    int rc = bf_http1_head_parse(buf, size, &limits, &head);
    if (rc > 0)
        good(&head, buf, (size_t)rc);
    if (rc < 0)
        must(rc == -400 || rc == -414 || rc == -431 || rc == -501 || rc == -505);
    size_t step = size / 64 + 1;
    for (size_t n = 0; n < size; n += step) {
        int early = bf_http1_head_parse(buf, n, &limits, &part);
        must(early == 0 || early == rc);
    }
    size_t from = rc > 0 && head.is_chunked ? (size_t)rc : 0; /* or the whole input as a body */
    struct body whole = decode(buf + from, size - from, SIZE_MAX);
    struct body pieces = decode(buf + from, size - from, 1);
    must(whole.verdict == pieces.verdict && whole.is_done == pieces.is_done);
    must(whole.verdict < 0 || (whole.len == pieces.len && whole.sum == pieces.sum));
    return 0;
}
