/*
 * Sessions that keep their keys only (tls.lean), with OpenSSL as the peer, for each cipher: data
 * both ways in any cut, 20,000 records, KeyUpdates from either side, close_notify, spoiled records;
 * and against our own sealing: padding, empty, oversized and foreign records, alerts, KeyUpdates in
 * pieces and in floods. Keys and a record of RFC 8448 section 3. Sessions whose records the kernel
 * makes. TLS 1.2, tickets, names, memory.
 */
#include <criterion/criterion.h>
#include <malloc.h>
#include <openssl/ssl.h>

#include "belfry/base/err.h"
#include "tls/tls_lean.h"
#include "tls_fixture.h"

static const char *const suites[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                     "TLS_CHACHA20_POLY1305_SHA256"};
#define SUITES (sizeof(suites) / sizeof(suites[0]))

static struct bf_tls_engine *engine;
static struct tf_cert cert;
static struct bf_tls_server *server;
static struct bf_tls_client *client;
static struct tf_side c, s;

static void set_up(void)
{
    static struct tf_snapshot snapshot;
    const struct bf_tls_client_opts opts = {.no_verify = true, .alpn = "http/1.1"};
    char err[256] = "";
    cr_assert_eq(bf_tls_engine_create(&engine), 0);
    cert = tf_cert_make("one", "DNS:one.example", NULL, false);
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, cert.cert_pem, cert.key_pem, NULL);
    tf_put_cert(&snapshot, cert.cert_pem, cert.key_pem, "two.example");
    tf_put_ticket(&snapshot, 7);
    tf_put_options(&snapshot, BF_SNAP_TLS_F_TICKETS | BF_SNAP_TLS_F_LEAN, NULL);
    cr_assert_eq(bf_tls_server_create(snapshot.bytes, snapshot.w.len, &server, err, sizeof(err)), 0,
                 "%s", err);
    cr_assert_eq(bf_tls_client_create(&opts, &client, err, sizeof(err)), 0, "%s", err);
}

static void close_both(void)
{
    bf_tls_free(&c.s);
    bf_tls_free(&s.s);
    c.out_len = s.out_len = c.plain_len = s.plain_len = 0;
}

static void tear_down(void)
{
    close_both();
    bf_tls_server_destroy(server);
    bf_tls_client_destroy(client);
    tf_cert_free(&cert);
    bf_tls_engine_destroy(engine);
}

TestSuite(tls_lean, .init = set_up, .fini = tear_down, .timeout = 60);

static void open_with(const char *suite, const char *host, const struct bf_tls_ticket *ticket,
                      size_t piece)
{
    close_both();
    c.engine = s.engine = engine;
    cr_assert_eq(bf_tls_connect(engine, client, host, ticket, &c.s), 0);
    cr_assert_eq(SSL_set_ciphersuites(c.s.ssl, suite), 1);
    cr_assert_eq(bf_tls_accept(engine, server, &s.s), 0);
    cr_assert(tf_shake(&c, &s, piece));
    cr_assert(s.s.is_lean);
}

static void exchange(const char *up, const char *down, size_t piece)
{
    c.plain_len = s.plain_len = 0;
    cr_assert_eq(tf_write(&c, up, strlen(up)), 0);
    tf_carry(&c, &s, piece);
    cr_assert_eq(s.plain_len, strlen(up));
    cr_assert_arr_eq(s.plain, up, strlen(up));
    cr_assert_eq(tf_write(&s, down, strlen(down)), 0);
    tf_carry(&s, &c, piece);
    cr_assert_eq(c.plain_len, strlen(down));
    cr_assert_arr_eq(c.plain, down, strlen(down));
}

/* ---- with OpenSSL as the peer ---- */

Test(tls_lean, each_cipher_and_any_cut)
{
    static const size_t pieces[] = {0, 1, 3, 100};
    for (size_t i = 0; i < SUITES; i++)
        for (size_t k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
            struct bf_tls_info info;
            open_with(suites[i], "two.example", NULL, pieces[k]);
            bf_tls_info(&s.s, &info);
            cr_assert_str_eq(info.cipher, suites[i]);
            cr_assert_str_eq(info.alpn, "http/1.1");
            cr_assert_eq(info.version, 0x0304);
            cr_assert_not(info.is_resumed);
            for (int n = 0; n < 5; n++)
                exchange("from below", "from above", pieces[k]);
            cr_assert_not(s.s.is_partial);
        }
}

Test(tls_lean, twenty_thousand_records)
{
    for (size_t i = 0; i < SUITES; i++) {
        open_with(suites[i], "one.example", NULL, 0);
        for (int n = 0; n < 20000; n++)
            exchange("up", "down", 0);
    }
}

Test(tls_lean, large_records_in_pieces)
{
    static uint8_t data[BF_TLS_WRITE_BYTES_MAX];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31);
    for (size_t i = 0; i < SUITES; i++) {
        open_with(suites[i], "one.example", NULL, 0);
        cr_assert_eq(tf_write(&c, data, sizeof(data)), 0);
        tf_carry(&c, &s, 4096);
        cr_assert_eq(s.plain_len, sizeof(data));
        cr_assert_arr_eq(s.plain, data, sizeof(data));
        cr_assert_eq(tf_write(&s, data, sizeof(data)), 0);
        cr_assert_leq(s.out_len, sizeof(data) + BF_TLS_RECORD_OVERHEAD);
        tf_carry(&s, &c, 4096);
        cr_assert_eq(c.plain_len, sizeof(data));
        cr_assert_neq(tf_write(&s, data, sizeof(data) + 1), 0);
    }
}

Test(tls_lean, data_behind_the_last_flight)
{
    c.engine = s.engine = engine;
    cr_assert_eq(bf_tls_connect(engine, client, "one.example", NULL, &c.s), 0);
    cr_assert_eq(bf_tls_accept(engine, server, &s.s), 0);
    tf_feed(&c, NULL, 0);
    tf_carry(&c, &s, 0);
    tf_carry(&s, &c, 0);
    cr_assert_eq(tf_write(&c, "early ", 6), 0);
    cr_assert_eq(tf_write(&c, "bird", 4), 0);
    tf_carry(&c, &s, 0);
    cr_assert(s.s.is_lean);
    cr_assert_eq(s.plain_len, 10);
    exchange("up", "down", 0);
}

Test(tls_lean, key_updates_of_the_client)
{
    static const int kinds[] = {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED};
    for (size_t i = 0; i < SUITES; i++) {
        open_with(suites[i], "one.example", NULL, 0);
        for (unsigned n = 0; n < 10; n++) {
            cr_assert_eq(SSL_key_update(c.s.ssl, kinds[n % 2]), 1);
            exchange("under a new key", "and back", n % 3);
            exchange("again", "and again", 0);
        }
    }
}

Test(tls_lean, key_updates_of_ours)
{
    engine->records_max = 7;
    for (size_t i = 0; i < SUITES; i++) {
        open_with(suites[i], "one.example", NULL, 0);
        for (int n = 0; n < 100; n++) {
            exchange("up", "down", 0);
            cr_assert_leq(s.s.lean->out.sequence, engine->records_max);
        }
    }
}

Test(tls_lean, close_notify)
{
    open_with(suites[0], "one.example", NULL, 0);
    struct bf_tls_io io = {.out = c.out, .out_cap = sizeof(c.out)};
    bf_tls_close(engine, &c.s, &io);
    memcpy(c.out + io.out_len, "what follows does not count", 27);
    c.out_len = io.out_len + 27;
    tf_carry(&c, &s, 0);
    cr_expect_eq(s.s.state, BF_TLS_ENDED);
    cr_expect_eq(s.plain_len, 0);
    cr_expect_eq(tf_write(&s, "bye", 3), 0, "we may still write");
    io = (struct bf_tls_io){.out = s.out + s.out_len, .out_cap = BF_TLS_RECORD_OVERHEAD};
    bf_tls_close(engine, &s.s, &io);
    s.out_len += io.out_len;
    size_t said = io.out_len;
    bf_tls_close(engine, &s.s, &io);
    cr_expect_eq(io.out_len, said, "once");
    tf_carry(&s, &c, 0);
    cr_expect_eq(c.plain_len, 3);
    cr_expect_eq(c.s.state, BF_TLS_ENDED);
    cr_expect_neq(tf_write(&s, "more", 4), 0);
}

Test(tls_lean, spoiled_records_and_the_alert)
{
    for (size_t i = 0; i < SUITES; i++)
        for (size_t at = 0; at < 40; at++) {
            open_with(suites[i], "one.example", NULL, 0);
            cr_assert_eq(tf_write(&c, "some data to spoil", 18), 0);
            c.out[at] ^= at == 3 || at == 4 ? 0 : 0x41;
            if (at == 3 || at == 4)
                continue; /* another length waits for more: see lengths */
            tf_carry(&c, &s, 0);
            cr_assert_eq(s.s.state, BF_TLS_FAILED);
            cr_assert_eq(s.s.error, BF_TLS_E_RECORD);
            cr_assert_eq(s.plain_len, 0);
            tf_carry(&s, &c, 0);
            cr_assert_eq(c.s.error, BF_TLS_E_ALERT, "it can read our alert");
            tf_feed(&s, (const uint8_t *)"more", 4);
            cr_assert_lt(s.rc, 0);
        }
}

Test(tls_lean, tickets)
{
    open_with(suites[0], "one.example", NULL, 0);
    exchange("x", "y", 0);
    struct bf_tls_ticket *ticket = bf_tls_ticket_take(&c.s);
    cr_assert_not_null(ticket);
    struct bf_tls_info info;
    open_with(suites[0], "one.example", ticket, 0);
    bf_tls_info(&s.s, &info);
    cr_expect(info.is_resumed);
    exchange("x", "y", 0);
    bf_tls_ticket_free(ticket);
}

Test(tls_lean, version_1_2_stays_with_openssl)
{
    c.engine = s.engine = engine;
    cr_assert_eq(bf_tls_connect(engine, client, "one.example", NULL, &c.s), 0);
    SSL_set_max_proto_version(c.s.ssl, TLS1_2_VERSION);
    cr_assert_eq(bf_tls_accept(engine, server, &s.s), 0);
    cr_assert(tf_shake(&c, &s, 0));
    cr_assert_not(s.s.is_lean);
    exchange("up", "down", 0);
}

/* ---- against records of ours ---- */

/* Seals as the client would and feeds it; returns the alert that came back, -1 for none. */
static int fed(enum bf_rec_type type, const void *bytes, size_t len, size_t padding)
{
    static uint8_t wire[BF_REC_CIPHER_BYTES_MAX + 4096], alert[64];
    struct bf_rec_keys keys = s.s.lean->in, back = s.s.lean->out;
    uint8_t kind;
    size_t n = bf_rec_seal(&engine->ciphers, &keys, type, bytes, len, padding, wire), alert_len;
    s.out_len = 0;
    tf_feed(&s, wire, n);
    if (s.out_len == 0)
        return -1;
    cr_assert_eq(bf_rec_open(&engine->ciphers, &back, s.out, s.out + BF_REC_HEADER_BYTES,
                             s.out_len - BF_REC_HEADER_BYTES, alert, &kind, &alert_len),
                 BF_ALERT_CLOSE_NOTIFY);
    cr_assert_eq(kind, BF_REC_ALERT);
    cr_assert_eq(alert_len, 2);
    cr_assert_eq(s.s.state, BF_TLS_FAILED);
    return alert[1];
}

static int fed_anew(enum bf_rec_type type, const void *bytes, size_t len, size_t padding)
{
    open_with(suites[0], "one.example", NULL, 0);
    return fed(type, bytes, len, padding);
}

Test(tls_lean, padding_and_empty_records)
{
    static const uint8_t data[BF_REC_PLAIN_BYTES_MAX] = {1};
    cr_expect_eq(fed_anew(BF_REC_DATA, "abc", 3, 1000), -1);
    cr_expect_eq(s.plain_len, 3);
    cr_expect_eq(fed(BF_REC_DATA, data, 1000, 0), -1, "zeros of the data stay");
    cr_expect_eq(s.plain_len, 1003);
    cr_expect_eq(fed(BF_REC_NONE, data, 0, 100), BF_ALERT_UNEXPECTED_MESSAGE, "padding alone");
    cr_expect_eq(fed_anew(BF_REC_DATA, data, BF_REC_PLAIN_BYTES_MAX, 0), -1);
    cr_expect_eq(s.plain_len, BF_REC_PLAIN_BYTES_MAX);
    cr_expect_eq(fed_anew(BF_REC_DATA, data, BF_REC_PLAIN_BYTES_MAX, 1), BF_ALERT_RECORD_OVERFLOW);
    open_with(suites[0], "one.example", NULL, 0);
    for (unsigned i = 0; i < BF_LEAN_IDLE_RECORDS_MAX; i++)
        cr_assert_eq(fed(BF_REC_DATA, data, 0, i), -1);
    cr_expect_eq(fed(BF_REC_DATA, data, 0, 0), BF_ALERT_UNEXPECTED_MESSAGE, "a flood");
}

Test(tls_lean, lengths)
{
    static const struct {
        uint8_t header[5];
        int alert;
    } bad[] = {{{23, 3, 3, 0, 0}, BF_ALERT_BAD_RECORD_MAC},
               {{23, 3, 3, 0x41, 1}, BF_ALERT_RECORD_OVERFLOW},
               {{20, 3, 3, 0, 1}, BF_ALERT_UNEXPECTED_MESSAGE},
               {{22, 3, 3, 0, 5}, BF_ALERT_UNEXPECTED_MESSAGE}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        open_with(suites[0], "one.example", NULL, 0);
        tf_feed(&s, bad[i].header, 5);
        cr_expect_eq(s.s.state, BF_TLS_FAILED, "case %zu", i);
        cr_expect_gt(s.out_len, 0);
    }
    open_with(suites[0], "one.example", NULL, 0);
    tf_feed(&s, (const uint8_t *)"\x17\x03\x03\x41\x00 part", 10);
    cr_expect(s.s.is_partial, "as long as may be: more is awaited");
}

Test(tls_lean, messages)
{
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "\x18\0\0\1\2", 5, 0), BF_ALERT_ILLEGAL_PARAMETER);
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "\x18\0\0\2\0", 5, 0), BF_ALERT_DECODE_ERROR);
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "\x18\0\0\1\0\x18", 6, 0), BF_ALERT_UNEXPECTED_MESSAGE);
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "\x01\0\0\1\0", 5, 0), BF_ALERT_UNEXPECTED_MESSAGE);
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "", 0, 0), BF_ALERT_UNEXPECTED_MESSAGE);
    cr_expect_eq(fed_anew(BF_REC_CHANGE_CIPHER_SPEC, "\1", 1, 0), BF_ALERT_UNEXPECTED_MESSAGE);
    cr_expect_eq(fed_anew(BF_REC_ALERT, "\2", 1, 0), BF_ALERT_DECODE_ERROR);
    cr_expect_eq(fed_anew(BF_REC_ALERT, "\1\x5a", 2, 0), -1, "user_canceled");
    cr_expect_eq(s.s.state, BF_TLS_OPEN);
    cr_expect_eq(fed(BF_REC_ALERT, "\2\x14", 2, 0), -1, "no answer to an alert");
    cr_expect_eq(s.s.error, BF_TLS_E_ALERT);
    cr_expect_eq(fed_anew(BF_REC_HANDSHAKE, "\x18\0", 2, 0), -1);
    cr_expect_eq(fed(BF_REC_HANDSHAKE, "\0\1\1", 3, 5), -1, "in pieces");
    cr_expect(s.s.lean->owes_update);
    cr_expect_eq(fed(BF_REC_DATA, "abc", 3, 0), -1, "under the next key");
    cr_expect_eq(s.plain_len, 3);
    cr_expect_eq(fed(BF_REC_HANDSHAKE, "\x18", 1, 0), -1);
    cr_expect_eq(fed(BF_REC_DATA, "abc", 3, 0), BF_ALERT_UNEXPECTED_MESSAGE, "between pieces");
}

/* ---- RFC 8448 section 3 ---- */

static size_t unhex(const char *hex, uint8_t *to, size_t cap)
{
    size_t len = 0;
    cr_assert_eq(OPENSSL_hexstr2buf_ex(to, cap, &len, hex, '\0'), 1);
    return len;
}

Test(tls_lean, rfc_8448)
{
    struct bf_rec_keys keys = {0};
    uint8_t want[128], wire[128], plain[50];
    unhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5", keys.secret,
          sizeof(keys.secret));
    cr_assert(bf_rec_keys_derive(&keys, BF_SUITE_AES_128_GCM_SHA256));
    unhex("17422dda596ed5d9acd890e3c63f5051", want, sizeof(want));
    cr_expect_arr_eq(keys.key, want, 16);
    unhex("5b78923dee08579033e523d9", want, sizeof(want));
    cr_expect_arr_eq(keys.iv, want, 12);
    for (unsigned i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)i;
    size_t len =
        unhex("1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b"
              "395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
              want, sizeof(want));
    cr_expect_eq(bf_rec_seal(&engine->ciphers, &keys, BF_REC_DATA, plain, sizeof(plain), 0, wire),
                 len);
    cr_expect_arr_eq(wire, want, len);
}

/* ---- records by the kernel ---- */

/* What is offered opens and seals as ours does; what was taken is forgotten here. */
Test(tls_lean, handed_over_to_the_kernel)
{
    static const struct bf_rec_keys nothing;
    for (size_t i = 0; i < SUITES; i++) {
        struct bf_tls_kernel_keys keys;
        open_with(suites[i], "one.example", NULL, 0);
        exchange("up", "down", 0);
        cr_assert(bf_tls_kernel_offer(&s.s, &keys));
        cr_expect_eq(keys.suite, 0x1301 + i);
        cr_expect_eq(keys.sequence, s.s.lean->out.sequence);
        cr_expect_eq(keys.sequence, 2, "a ticket and what was said");
        struct bf_rec_keys kernel = {.suite = (uint8_t)bf_rec_suite_of(keys.suite),
                                     .sequence = keys.sequence};
        memcpy(kernel.key, keys.key, sizeof(kernel.key));
        memcpy(kernel.iv, keys.iv, sizeof(kernel.iv));
        bf_tls_kernel_taken(&s.s);
        cr_expect_arr_eq(s.s.lean->out.secret, nothing.secret, sizeof(nothing.secret));
        cr_expect_arr_eq(s.s.lean->out.key, nothing.key, sizeof(nothing.key));
        cr_expect_not(bf_tls_kernel_offer(&s.s, &keys), "once");
        c.plain_len = 0;
        s.out_len = bf_rec_seal(&engine->ciphers, &kernel, BF_REC_DATA, (const uint8_t *)"by it", 5,
                                0, s.out);
        tf_carry(&s, &c, 0);
        cr_expect_eq(c.plain_len, 5);
        cr_assert_eq(tf_write(&c, "and back", 8), 0);
        tf_carry(&c, &s, 0);
        cr_expect_eq(s.plain_len, 2 + 8, "it is read as before");
        cr_expect_neq(tf_write(&s, "x", 1), 0, "not by us any more");
        cr_expect_eq(s.out_len, 0);
    }
}

static void open_by_kernel(void)
{
    struct bf_tls_kernel_keys keys;
    open_with(suites[0], "one.example", NULL, 0);
    cr_assert(bf_tls_kernel_offer(&s.s, &keys));
    bf_tls_kernel_taken(&s.s);
}

/* The content of the alert that is to be said, once. */
Test(tls_lean, alerts_for_the_kernel_to_say)
{
    struct bf_tls_io io = {.out = s.out, .out_cap = 2};
    open_by_kernel();
    bf_tls_close(engine, &s.s, &io);
    cr_expect_eq(io.out_len, 2);
    cr_expect_arr_eq(s.out, "\1\0", 2);
    open_by_kernel();
    cr_assert_eq(tf_write(&c, "some data to spoil", 18), 0);
    c.out[20] ^= 1;
    tf_carry(&c, &s, 0);
    cr_expect_eq(s.s.state, BF_TLS_FAILED);
    cr_expect_eq(s.out_len, 2);
    cr_expect_arr_eq(s.out, "\2\24", 2);
}

Test(tls_lean, what_is_not_handed_over)
{
    struct bf_tls_kernel_keys keys;
    open_with(suites[0], "one.example", NULL, 0);
    cr_expect_not(bf_tls_kernel_offer(&c.s, &keys), "a client, by OpenSSL");
    cr_assert_eq(SSL_key_update(c.s.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    cr_assert_eq(tf_write(&c, "x", 1), 0);
    tf_carry(&c, &s, 0);
    cr_expect_not(bf_tls_kernel_offer(&s.s, &keys), "the peer wants another key first");
    cr_assert_eq(tf_write(&s, "x", 1), 0);
    cr_expect(bf_tls_kernel_offer(&s.s, &keys), "which it has got");
    cr_expect_eq(keys.sequence, 1);
    open_with(suites[0], "one.example", NULL, 0);
    struct bf_tls_io io = {.out = s.out, .out_cap = sizeof(s.out)};
    bf_tls_close(engine, &s.s, &io);
    cr_expect_not(bf_tls_kernel_offer(&s.s, &keys), "closed");
}

Test(tls_lean, keys_that_the_kernel_cannot_renew)
{
    open_by_kernel();
    cr_assert_eq(SSL_key_update(c.s.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    cr_assert_eq(tf_write(&c, "x", 1), 0);
    tf_carry(&c, &s, 0);
    cr_expect_eq(bf_tls_kernel_state(engine, &s.s), BF_TLS_KERNEL_GOOD, "its own is its affair");
    cr_assert_eq(SSL_key_update(c.s.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    cr_assert_eq(tf_write(&c, "x", 1), 0);
    tf_carry(&c, &s, 0);
    cr_expect_eq(s.plain_len, 2);
    cr_expect_eq(bf_tls_kernel_state(engine, &s.s), BF_TLS_KERNEL_MUTE);
    open_by_kernel();
    bf_tls_engine_wear(engine, 100);
    uint64_t sequence = s.s.lean->out.sequence;
    bf_tls_kernel_sent(&s.s, 80000);
    cr_expect_geq(s.s.lean->out.sequence - sequence, 5, "80,000 bytes are five records at least");
    for (unsigned i = 0; i < 98; i++)
        bf_tls_kernel_sent(&s.s, 1);
    cr_expect_eq(bf_tls_kernel_state(engine, &s.s), BF_TLS_KERNEL_WORN);
    cr_expect_gt((uint64_t)23726566, BF_LEAN_RECORDS_MAX, "2^24.5 (RFC 8446 section 5.5)");
}

/* ---- memory ---- */

Test(tls_lean, idle_session_is_tiny)
{
    enum { COUNT = 200 };
    static struct bf_tls_session kept[COUNT];
    size_t total = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        open_with(suites[1], "one.example", NULL, 0);
        exchange("up", "down", 3);
        kept[i] = s.s;
        s.s = (struct bf_tls_session){0};
    }
    for (unsigned i = 0; i < COUNT; i++) {
        size_t before = mallinfo2().uordblks;
        bf_tls_free(&kept[i]);
        total += before - mallinfo2().uordblks;
    }
    cr_log_info("an idle lean session: %zu bytes", total / COUNT);
    cr_expect_leq(total / COUNT, 400);
}
