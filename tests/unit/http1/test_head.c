/*
 * The grammar of requests (belfry/http1): the rows of tests/support/framing.tsv, each also fed byte
 * by byte (no cut may change a verdict), then what a good head says, and the decoder of chunked
 * bodies.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/http1/chunked.h"
#include "belfry/http1/head.h"

#define ROW_BYTES 32768u

static const struct bf_http1_limits limits = {.head_bytes = 16384, .line_bytes = 8192};

struct row {
    char name[128];
    int verdict;
    bool is_for_all;
    char text[ROW_BYTES];
    size_t len;
};

static void add(struct row *row, const void *bytes, size_t len)
{
    cr_assert_leq(row->len + len, sizeof(row->text));
    memcpy(row->text + row->len, bytes, len);
    row->len += len;
}

/* {path}, {pad:N}, {headers:N}; returns what follows it. */
static const char *expand_brace(struct row *row, const char *at)
{
    unsigned n = 0;
    const char *end = strchr(at, '}');
    cr_assert(end, "%s", row->name);
    if (strncmp(at, "{path}", 6) == 0)
        add(row, "/v1/ws", 6);
    else if (sscanf(at, "{pad:%u}", &n) == 1)
        while (n-- > 0)
            add(row, "a", 1);
    else if (sscanf(at, "{headers:%u}", &n) == 1)
        for (unsigned i = 0; i < n; i++) {
            char line[32];
            add(row, line, (size_t)snprintf(line, sizeof(line), "X-%u: y\r\n", i));
        }
    else
        cr_assert_fail("%s: %s", row->name, at);
    return end + 1;
}

static void expand(struct row *row, const char *at)
{
    while (*at && *at != '\n') {
        unsigned byte = (unsigned char)*at;
        size_t used = 1;
        if ((*at == '{' || *at == '}') && at[1] == *at) {
            used = 2;
        } else if (*at == '{') {
            at = expand_brace(row, at);
            continue;
        } else if (*at == '\\' && at[1] == 'x') {
            cr_assert_eq(sscanf(at, "\\x%2x", &byte), 1);
            used = 4;
        } else if (*at == '\\') {
            byte = at[1] == 'r'   ? '\r'
                   : at[1] == 'n' ? '\n'
                   : at[1] == 't' ? '\t'
                                  : (unsigned char)at[1];
            used = 2;
        }
        char c = (char)byte;
        add(row, &c, 1);
        at += used;
    }
}

static bool next_row(FILE *file, struct row *row)
{
    char line[4096], ports[8];
    int used = 0;
    do {
        if (!fgets(line, sizeof(line), file))
            return false;
    } while (line[0] == '#');
    row->len = 0;
    cr_assert_eq(sscanf(line, "%127[^\t]\t%d\t%7[^\t]\t%n", row->name, &row->verdict, ports, &used),
                 3, "%s", line);
    row->is_for_all = strcmp(ports, "all") == 0;
    expand(row, line + used);
    return true;
}

/* The verdict on the first |len| bytes of a connection: a status, 200, or 0 for more. */
static int judge(const char *text, size_t len)
{
    static struct bf_http1_head head;
    int used = bf_http1_head_parse(text, len, &limits, &head);
    if (used <= 0)
        return -used;
    size_t left = len - (size_t)used;
    if (!head.is_chunked)
        return !head.has_length || left >= head.content_length ? 200 : 0;
    struct bf_http1_chunked chunks = {.state = BF_CHUNK_SIZE};
    for (const char *at = text + used; left > 0 && chunks.state != BF_CHUNK_DONE;) {
        struct bf_bytes data;
        long n = bf_http1_chunked_take(&chunks, at, left, &data);
        if (n < 0)
            return (int)-n;
        at += n;
        left -= (size_t)n;
    }
    return chunks.state == BF_CHUNK_DONE ? 200 : 0;
}

static FILE *open_table(void)
{
    FILE *file = fopen(BELFRY_SOURCE_DIR "/tests/support/framing.tsv", "re");
    cr_assert(file);
    return file;
}

Test(head, every_row_of_the_table)
{
    static struct row row;
    unsigned count = 0;
    FILE *file = open_table();
    for (; next_row(file, &row); count++) {
        int verdict = judge(row.text, row.len);
        cr_expect_eq(verdict, row.verdict, "%s: %d, not %d", row.name, verdict, row.verdict);
    }
    fclose(file);
    cr_assert_geq(count, 60);
}

Test(head, every_cut_gives_more_or_the_same_verdict)
{
    static struct row row;
    FILE *file = open_table();
    while (next_row(file, &row)) {
        size_t step = row.len > 4096 ? 97 : 1;
        bool is_decided = false;
        for (size_t n = 0; n <= row.len; n += step) {
            int verdict = judge(row.text, n);
            is_decided |= verdict != 0;
            cr_expect(verdict == (is_decided ? row.verdict : 0), "%s at %zu: %d", row.name, n,
                      verdict);
        }
    }
    fclose(file);
}

static struct bf_http1_head parsed(const char *text)
{
    struct bf_http1_head head;
    int rc = bf_http1_head_parse(text, strlen(text), &limits, &head);
    cr_assert_eq(rc, (int)strlen(text), "%d: %s", rc, head.why);
    return head;
}

static void expect_text(struct bf_bytes got, const char *want)
{
    cr_expect(got.len == strlen(want) && memcmp(got.at, want, got.len) == 0, "%.*s, not %s",
              (int)got.len, got.len ? got.at : "", want);
}

Test(head, what_a_good_head_says)
{
    struct bf_http1_head head =
        parsed("POST /a/b?c=d HTTP/1.1\r\nHost: h:1\r\nContent-Length: 12\r\n"
               "Connection: keep-alive, close\r\nExpect: 100-Continue\r\n\r\n");
    expect_text(head.method, "POST");
    expect_text(head.path, "/a/b");
    expect_text(head.query, "c=d");
    expect_text(head.host, "h:1");
    cr_expect(head.has_length && head.content_length == 12 && !head.is_chunked);
    cr_expect(head.is_close && head.expects_continue && !head.expects_other);
    cr_expect_eq(head.field_count, 4);
    head = parsed("GET http://a.example:81 HTTP/1.1\r\nHost: other\r\nExpect: tea\r\n\r\n");
    expect_text(head.path, "/");
    expect_text(head.host, "a.example:81");
    cr_expect(!head.is_close && head.expects_other);
    head = parsed("GET http://a.example?q HTTP/1.0\r\n\r\n");
    expect_text(head.path, "/");
    expect_text(head.query, "q");
    cr_expect(head.is_close, "HTTP/1.0 keeps nothing open");
    head = parsed("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
    cr_expect_not(head.expects_continue, "HTTP/1.0 knows no interim answers");
}

Test(head, chunks_are_joined_whatever_the_cut)
{
    static const char text[] =
        "5;x=y\r\nhello\r\n1\r\n \r\nA\r\nworld, and\r\n0\r\nX-T: 1\r\n\r\nGET";
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        struct bf_http1_chunked chunks = {.state = BF_CHUNK_SIZE};
        char out[64];
        size_t len = 0, at = 0;
        while (at < sizeof(text) - 1 && chunks.state != BF_CHUNK_DONE) {
            struct bf_bytes data;
            size_t end = at < cut ? cut : sizeof(text) - 1;
            long n = bf_http1_chunked_take(&chunks, text + at, end - at, &data);
            cr_assert_geq(n, 0);
            memcpy(out + len, data.at, data.len);
            len += data.len;
            at += (size_t)n;
        }
        cr_assert_eq(len, 16);
        cr_expect_eq(memcmp(out, "hello world, and", 16), 0);
        cr_expect_eq(at, sizeof(text) - 1 - 3, "what follows belongs to the next request");
    }
}
