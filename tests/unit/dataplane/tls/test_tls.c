/*
 * TLS without I/O. Covered: handshakes of 1.3 and 1.2 in pieces of any size, ALPN, SNI with names
 * and wildcards, tickets (resumed, by another context with the same keys, after a rotation, off),
 * client certificates, trust and host names of the client side, close_notify, bad, truncated and
 * oversized records, renegotiation, plain HTTP and noise, oversized handshakes, contexts that
 * outlive a reload, configurations that must be refused, and what an idle session costs.
 */
#include <criterion/criterion.h>
#include <malloc.h>
#include <openssl/ssl.h>

#include "belfry/base/err.h"
#include "tls_fixture.h"

static struct bf_tls_engine *engine;
static struct tf_cert ca, first, second, person;
static struct tf_snapshot snapshot;
static char err[256];

static void set_up(void)
{
    cr_assert_eq(bf_tls_engine_create(&engine), 0);
    ca = tf_cert_make("Test CA", NULL, NULL, false);
    first = tf_cert_make("first", "DNS:one.example,DNS:*.wild.example", &ca, false);
    second = tf_cert_make("second", "DNS:two.example", &ca, true);
    person = tf_cert_make("person", "DNS:person", &ca, false);
    tf_snapshot_start(&snapshot);
}

static void tear_down(void)
{
    bf_tls_engine_destroy(engine);
    tf_cert_free(&ca);
    tf_cert_free(&first);
    tf_cert_free(&second);
    tf_cert_free(&person);
}

TestSuite(tls, .init = set_up, .fini = tear_down, .timeout = 60);

static struct bf_tls_server *server_make(void)
{
    struct bf_tls_server *server = NULL;
    int rc = bf_tls_server_create(snapshot.bytes, snapshot.w.len, &server, err, sizeof(err));
    cr_assert_eq(rc, 0, "%s", err);
    return server;
}

static struct bf_tls_server *server_usual(void)
{
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, first.cert_pem, first.key_pem, NULL);
    tf_put_cert(&snapshot, second.cert_pem, second.key_pem, NULL);
    tf_put_ticket(&snapshot, 7);
    tf_put_options(&snapshot, BF_SNAP_TLS_F_TICKETS, NULL);
    return server_make();
}

static struct bf_tls_client *client_make(struct bf_tls_client_opts opts)
{
    struct bf_tls_client *client = NULL;
    if (opts.ca_pem.len == 0)
        opts.ca_pem = tf_text(ca.cert_pem);
    cr_assert_eq(bf_tls_client_create(&opts, &client, err, sizeof(err)), 0, "%s", err);
    return client;
}

struct pair {
    struct tf_side client, server;
};

static struct pair *pair_make(const struct bf_tls_client *c, const struct bf_tls_server *s,
                              const char *host, const struct bf_tls_ticket *ticket)
{
    struct pair *p = calloc(1, sizeof(*p));
    p->client.engine = p->server.engine = engine;
    cr_assert_eq(bf_tls_connect(engine, c, host, ticket, &p->client.s), 0);
    cr_assert_eq(bf_tls_accept(engine, s, &p->server.s), 0);
    return p;
}

static void pair_free(struct pair *p)
{
    bf_tls_free(&p->client.s);
    bf_tls_free(&p->server.s);
    free(p);
}

/* A pair that is open, by the usual server and a plain client. */
static struct pair *pair_open(uint16_t version_max)
{
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client =
        client_make((struct bf_tls_client_opts){.alpn = "http/1.1", .version_max = version_max});
    struct pair *p = pair_make(client, server, "one.example", NULL);
    cr_assert(tf_shake(&p->client, &p->server, 0));
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
    return p;
}

static void exchange(struct pair *p, const char *up, const char *down)
{
    cr_assert_eq(tf_write(&p->client, up, strlen(up)), 0);
    tf_carry(&p->client, &p->server, 0);
    cr_assert_eq(p->server.plain_len, strlen(up));
    cr_assert_arr_eq(p->server.plain, up, strlen(up));
    cr_assert_eq(tf_write(&p->server, down, strlen(down)), 0);
    tf_carry(&p->server, &p->client, 0);
    cr_assert_eq(p->client.plain_len, strlen(down));
    cr_assert_arr_eq(p->client.plain, down, strlen(down));
    p->server.plain_len = p->client.plain_len = 0;
}

/* ---- handshakes ---- */

Test(tls, both_versions_and_any_cut)
{
    static const size_t pieces[] = {0, 1, 7, 100, 1000};
    struct bf_tls_server *server = server_usual();
    for (uint16_t version = 0x0303; version <= 0x0304; version++) {
        struct bf_tls_client *client =
            client_make((struct bf_tls_client_opts){.alpn = "http/1.1", .version_max = version});
        for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
            struct pair *p = pair_make(client, server, "one.example", NULL);
            struct bf_tls_info info;
            cr_assert(tf_shake(&p->client, &p->server, pieces[i]));
            bf_tls_info(&p->server.s, &info);
            cr_assert_eq(info.version, version);
            cr_assert_str_eq(info.alpn, "http/1.1");
            cr_assert_str_eq(info.server_name, "one.example");
            cr_assert_not(info.is_resumed);
            cr_assert_not(info.has_peer_cert);
            exchange(p, "from below", "from above");
            pair_free(p);
        }
        bf_tls_client_destroy(client);
    }
    bf_tls_server_destroy(server);
}

Test(tls, data_travels_with_the_last_flight)
{
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){0});
    struct pair *p = pair_make(client, server, "one.example", NULL);
    tf_feed(&p->client, NULL, 0);
    tf_carry(&p->client, &p->server, 0);
    tf_carry(&p->server, &p->client, 0);
    cr_assert_eq(p->client.s.state, BF_TLS_OPEN);
    cr_assert_eq(tf_write(&p->client, "early bird", 10), 0);
    tf_carry(&p->client, &p->server, 0); /* Finished and data in one read */
    cr_assert_eq(p->server.s.state, BF_TLS_OPEN);
    cr_assert_eq(p->server.plain_len, 10);
    pair_free(p);
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
}

Test(tls, alpn_without_one_in_common)
{
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){.alpn = "h2"});
    struct pair *p = pair_make(client, server, "one.example", NULL);
    cr_assert_not(tf_shake(&p->client, &p->server, 0));
    cr_assert_eq(p->server.s.error, BF_TLS_E_ALPN);
    cr_assert_eq(p->client.s.error, BF_TLS_E_ALERT);
    pair_free(p);
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
}

static bool is_trusted(const struct bf_tls_server *server, const char *host)
{
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){0});
    struct pair *p = pair_make(client, server, host, NULL);
    bool open = tf_shake(&p->client, &p->server, 0);
    if (!open)
        cr_assert_eq(p->client.s.error, BF_TLS_E_CERT);
    pair_free(p);
    bf_tls_client_destroy(client);
    return open;
}

Test(tls, certificates_by_name)
{
    struct bf_tls_server *server = server_usual();
    cr_expect(is_trusted(server, "one.example"));
    cr_expect(is_trusted(server, "TWO.example"));
    cr_expect(is_trusted(server, "a.wild.example"));
    cr_expect_not(is_trusted(server, "a.b.wild.example"));
    cr_expect_not(is_trusted(server, "wild.example"));
    cr_expect_not(is_trusted(server, "unknown.example")); /* the default, which it does not name */
    cr_expect_not(is_trusted(server, "127.0.0.1"));
    bf_tls_server_destroy(server);
    /* configured names come instead of the certificate's own */
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, first.cert_pem, first.key_pem, NULL);
    tf_put_cert(&snapshot, second.cert_pem, second.key_pem, "elsewhere.example");
    server = server_make();
    cr_expect_not(is_trusted(server, "two.example"));
    bf_tls_server_destroy(server);
}

/* ---- tickets ---- */

static struct bf_tls_ticket *ticket_of(const struct bf_tls_client *client,
                                       const struct bf_tls_server *server, bool *ret_resumed,
                                       const struct bf_tls_ticket *before)
{
    struct bf_tls_info info;
    struct pair *p = pair_make(client, server, "one.example", before);
    cr_assert(tf_shake(&p->client, &p->server, 0));
    exchange(p, "x", "y");
    bf_tls_info(&p->server.s, &info);
    *ret_resumed = info.is_resumed;
    struct bf_tls_ticket *ticket = bf_tls_ticket_take(&p->client.s);
    pair_free(p);
    return ticket;
}

static struct bf_tls_server *server_with_keys(uint8_t newest, uint8_t older, uint8_t flags)
{
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, first.cert_pem, first.key_pem, NULL);
    tf_put_ticket(&snapshot, newest);
    if (older)
        tf_put_ticket(&snapshot, older);
    tf_put_options(&snapshot, flags, NULL);
    return server_make();
}

Test(tls, tickets)
{
    for (uint16_t version = 0x0303; version <= 0x0304; version++) {
        struct bf_tls_client *client =
            client_make((struct bf_tls_client_opts){.version_max = version});
        struct bf_tls_server *one = server_with_keys(1, 0, BF_SNAP_TLS_F_TICKETS);
        struct bf_tls_server *same = server_with_keys(1, 0, BF_SNAP_TLS_F_TICKETS);
        struct bf_tls_server *rotated = server_with_keys(2, 1, BF_SNAP_TLS_F_TICKETS);
        struct bf_tls_server *other = server_with_keys(3, 0, BF_SNAP_TLS_F_TICKETS);
        struct bf_tls_server *off = server_with_keys(1, 0, 0);
        bool resumed;
        struct bf_tls_ticket *ticket = ticket_of(client, one, &resumed, NULL);
        cr_assert_not_null(ticket);
        cr_assert_not(resumed);
        struct bf_tls_ticket *next = ticket_of(client, same, &resumed, ticket);
        cr_expect(resumed, "another worker has the same keys");
        const uint8_t *old_bytes, *new_bytes;
        size_t old_len, new_len;
        SSL_SESSION_get0_ticket((const SSL_SESSION *)ticket, &old_bytes, &old_len);
        SSL_SESSION_get0_ticket((const SSL_SESSION *)next, &new_bytes, &new_len);
        bool is_same = old_len == new_len && memcmp(old_bytes, new_bytes, old_len) == 0;
        cr_expect_eq(is_same, version == 0x0303, "a ticket of 1.3 is used once");
        bf_tls_ticket_free(next);
        bf_tls_ticket_free(ticket_of(client, rotated, &resumed, ticket));
        cr_expect(resumed, "the key before the newest");
        bf_tls_ticket_free(ticket_of(client, other, &resumed, ticket));
        cr_expect_not(resumed, "keys that are gone");
        cr_expect_null(ticket_of(client, off, &resumed, ticket));
        cr_expect_not(resumed, "tickets are off");
        bf_tls_ticket_free(ticket);
        bf_tls_server_destroy(one);
        bf_tls_server_destroy(same);
        bf_tls_server_destroy(rotated);
        bf_tls_server_destroy(other);
        bf_tls_server_destroy(off);
        bf_tls_client_destroy(client);
    }
}

/* ---- client certificates ---- */

static enum bf_tls_error with_client_cert(uint8_t flags, const struct tf_cert *cert, bool *ret_has)
{
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, first.cert_pem, first.key_pem, NULL);
    tf_put_options(&snapshot, flags, ca.cert_pem);
    struct bf_tls_server *server = server_make();
    struct bf_tls_client *client =
        client_make((struct bf_tls_client_opts){.cert_pem = tf_text(cert ? cert->cert_pem : ""),
                                                .key_pem = tf_text(cert ? cert->key_pem : "")});
    struct pair *p = pair_make(client, server, "one.example", NULL);
    struct bf_tls_info info;
    (void)tf_shake(&p->client, &p->server, 0);
    enum bf_tls_error error = p->server.s.error;
    bf_tls_info(&p->server.s, &info);
    *ret_has = error == BF_TLS_E_NONE && info.has_peer_cert;
    pair_free(p);
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
    return error;
}

Test(tls, client_certificates)
{
    struct tf_cert stranger = tf_cert_make("stranger", "DNS:stranger", NULL, false);
    bool has;
    cr_expect_eq(with_client_cert(0, NULL, &has), BF_TLS_E_NONE);
    cr_expect_not(has);
    cr_expect_eq(with_client_cert(0, &person, &has), BF_TLS_E_NONE);
    cr_expect(has);
    cr_expect_eq(with_client_cert(BF_SNAP_TLS_F_REQUIRE, &person, &has), BF_TLS_E_NONE);
    cr_expect_eq(with_client_cert(BF_SNAP_TLS_F_REQUIRE, NULL, &has), BF_TLS_E_CERT);
    cr_expect_eq(with_client_cert(0, &stranger, &has), BF_TLS_E_CERT);
    tf_cert_free(&stranger);
}

/* ---- the end, and what peers get wrong ---- */

Test(tls, close_notify)
{
    for (uint16_t version = 0x0303; version <= 0x0304; version++) {
        struct pair *p = pair_open(version);
        struct bf_tls_io io = {.out = p->client.out, .out_cap = sizeof(p->client.out)};
        bf_tls_close(engine, &p->client.s, &io);
        cr_assert_gt(io.out_len, 0);
        cr_assert_leq(io.out_len, BF_TLS_RECORD_OVERHEAD);
        p->client.out_len = io.out_len;
        memcpy(p->client.out + io.out_len, "what follows does not count", 27);
        p->client.out_len += 27;
        tf_carry(&p->client, &p->server, 0);
        cr_expect_eq(p->server.s.state, BF_TLS_ENDED);
        cr_expect_eq(p->server.plain_len, 0);
        cr_expect_eq(tf_write(&p->server, "bye", 3), 0, "we may still write");
        pair_free(p);
    }
}

Test(tls, large_data_in_pieces)
{
    static uint8_t data[BF_TLS_WRITE_BYTES_MAX];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31);
    for (uint16_t version = 0x0303; version <= 0x0304; version++) {
        struct pair *p = pair_open(version);
        cr_assert_eq(tf_write(&p->client, data, sizeof(data)), 0);
        cr_assert_leq(p->client.out_len, sizeof(data) + BF_TLS_RECORD_OVERHEAD);
        tf_carry(&p->client, &p->server, 4096);
        cr_assert_eq(p->server.plain_len, sizeof(data));
        cr_assert_arr_eq(p->server.plain, data, sizeof(data));
        cr_assert_neq(tf_write(&p->client, data, sizeof(data) + 1), 0);
        pair_free(p);
    }
}

Test(tls, part_of_a_record_is_told)
{
    struct pair *p = pair_open(0);
    cr_assert_eq(tf_write(&p->client, "0123456789", 10), 0);
    tf_feed(&p->server, p->client.out, 9);
    cr_expect(p->server.s.is_partial);
    tf_feed(&p->server, p->client.out + 9, p->client.out_len - 9);
    cr_expect_not(p->server.s.is_partial);
    cr_expect_eq(p->server.plain_len, 10);
    pair_free(p);
}

Test(tls, bad_records)
{
    for (uint16_t version = 0x0303; version <= 0x0304; version++) {
        for (size_t at = 5; at < 30; at += 3) {
            struct pair *p = pair_open(version);
            cr_assert_eq(tf_write(&p->client, "some data to spoil", 18), 0);
            p->client.out[at] ^= 0x40;
            tf_carry(&p->client, &p->server, 0);
            cr_expect_eq(p->server.s.state, BF_TLS_FAILED);
            cr_expect_eq(p->server.s.error, BF_TLS_E_RECORD);
            cr_expect_gt(p->server.out_len, 0, "an alert says so");
            cr_expect_eq(p->server.plain_len, 0);
            tf_feed(&p->server, (const uint8_t *)"more", 4);
            cr_expect_eq(p->server.rc, BF_ERR_MALFORMED);
            pair_free(p);
        }
    }
}

Test(tls, oversized_record)
{
    struct pair *p = pair_open(0);
    const uint8_t head[] = {23, 3, 3, 0x48, 0x01}; /* 18,433: one more than TLS 1.2 allows */
    tf_feed(&p->server, head, sizeof(head));
    cr_expect_eq(p->server.s.state, BF_TLS_FAILED);
    cr_expect_eq(p->server.s.error, BF_TLS_E_RECORD);
    pair_free(p);
}

Test(tls, renegotiation_is_refused)
{
    struct pair *p = pair_open(0x0303);
    SSL *ssl = p->client.s.ssl;
    SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
    cr_assert_eq(SSL_renegotiate(ssl), 1);
    (void)tf_write(&p->client, "x", 1); /* brings the ClientHello out */
    cr_assert_gt(p->client.out_len, 0);
    tf_carry(&p->client, &p->server, 0);
    cr_expect_gt(p->server.out_len, 0, "a warning: no_renegotiation");
    tf_carry(&p->server, &p->client, 0);
    cr_expect_eq(p->client.s.state, BF_TLS_FAILED);
    cr_expect_neq(p->server.s.state, BF_TLS_HANDSHAKE);
    pair_free(p);
}

#define READ_BYTES 4096u

static enum bf_tls_error fed(const void *bytes, size_t len)
{
    struct bf_tls_server *server = server_usual();
    struct tf_side *side = calloc(1, sizeof(*side));
    side->engine = engine;
    cr_assert_eq(bf_tls_accept(engine, server, &side->s), 0);
    bf_tls_server_destroy(server);                  /* the session keeps what it needs */
    for (size_t at = 0; at < len; at += READ_BYTES) /* as a worker reads */
        tf_feed(side, (const uint8_t *)bytes + at, len - at < READ_BYTES ? len - at : READ_BYTES);
    enum bf_tls_error error = side->s.error;
    bf_tls_free(&side->s);
    free(side);
    return error;
}

Test(tls, other_bytes)
{
    static uint8_t zeros[100000];
    static const char http[] = "GET /v1/ws HTTP/1.1\r\nHost: a\r\n\r\n";
    static const uint8_t ssl2[48] = {0x80, 0x2e, 0x01, 0x00, 0x02, 0x00, 0x15, 0, 0, 0, 0x10};
    cr_expect_eq(fed(http, sizeof(http) - 1), BF_TLS_E_HTTP);
    cr_expect_neq(fed(zeros, sizeof(zeros)), BF_TLS_E_NONE);
    cr_expect_neq(fed("\r\n\r\n\r\n", 6), BF_TLS_E_NONE);
    cr_expect_neq(fed(ssl2, sizeof(ssl2)), BF_TLS_E_NONE);
    cr_expect_eq(fed("\x16\x03\x01", 3), BF_TLS_E_NONE, "more is awaited");
}

/* Handshake records of a ClientHello that never ends. */
Test(tls, endless_hello)
{
    static uint8_t hello[4 * 16389];
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *record = hello + i * 16389;
        const uint8_t head[] = {22, 3, 1, 0x40, 0x00};
        memcpy(record, head, sizeof(head));
    }
    hello[5] = 1; /* ClientHello of 65,000 bytes */
    hello[7] = 0xfd;
    hello[8] = 0xe8;
    enum bf_tls_error error = fed(hello, sizeof(hello));
    cr_expect_eq(error, BF_TLS_E_OVERSIZE, "%s", bf_tls_error_text(error));
}

Test(tls, old_version)
{
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){0});
    struct pair *p = pair_make(client, server, "one.example", NULL);
    SSL_set_security_level(p->client.s.ssl, 0);
    SSL_set_min_proto_version(p->client.s.ssl, TLS1_VERSION);
    SSL_set_max_proto_version(p->client.s.ssl, TLS1_1_VERSION);
    SSL_set_cipher_list(p->client.s.ssl, "ALL:@SECLEVEL=0");
    cr_assert_not(tf_shake(&p->client, &p->server, 0));
    cr_expect_eq(p->server.s.error, BF_TLS_E_VERSION);
    pair_free(p);
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
}

/* ---- contexts ---- */

Test(tls, sessions_outlive_their_contexts)
{
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){0});
    struct pair *p = pair_make(client, server, "two.example", NULL);
    bf_tls_server_destroy(server); /* a reload, before the ClientHello has come */
    bf_tls_client_destroy(client);
    cr_assert(tf_shake(&p->client, &p->server, 3));
    exchange(p, "still", "here");
    pair_free(p);
}

Test(tls, configurations_that_cannot_be)
{
    struct bf_tls_server *server = NULL;
    cr_expect_eq(bf_tls_server_create(NULL, 0, &server, err, sizeof(err)), BF_ERR_NOT_FOUND);
    struct {
        const char *cert, *key, *name, *says;
    } bad[] = {
        {"nonsense", first.key_pem, NULL, "not a certificate"},
        {first.cert_pem, "nonsense", NULL, "not a private key"},
        {first.cert_pem, person.key_pem, NULL, "does not belong"},
        {first.cert_pem, first.key_pem, "not a name", "not a host name"},
        {first.key_pem, first.cert_pem, NULL, "not a certificate"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tf_snapshot_start(&snapshot);
        tf_put_cert(&snapshot, bad[i].cert, bad[i].key, bad[i].name);
        cr_expect_eq(
            bf_tls_server_create(snapshot.bytes, snapshot.w.len, &server, err, sizeof(err)),
            BF_ERR_MALFORMED);
        cr_expect_not_null(strstr(err, bad[i].says), "case %zu: %s", i, err);
    }
    cr_expect_null(server);
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, first.cert_pem, first.key_pem, NULL);
    tf_put_options(&snapshot, 0, "nonsense");
    cr_expect_eq(bf_tls_server_create(snapshot.bytes, snapshot.w.len, &server, err, sizeof(err)),
                 BF_ERR_MALFORMED);
}

Test(tls, any_cut_of_a_configuration)
{
    bf_tls_server_destroy(server_usual());
    for (size_t len = 0; len < snapshot.w.len; len += 97) {
        struct bf_tls_server *server = NULL;
        (void)bf_tls_server_create(snapshot.bytes, len, &server, err, sizeof(err));
        bf_tls_server_destroy(server);
    }
}

Test(tls, hash_follows_what_it_is_made_of)
{
    bf_tls_server_destroy(server_usual());
    uint64_t usual = bf_tls_server_hash(snapshot.bytes, snapshot.w.len);
    bf_put_u16(&snapshot.w, BF_SNAP_JWT_AUDIENCE);
    bf_put_str32(&snapshot.w, tf_text("other records do not count"));
    cr_expect_eq(bf_tls_server_hash(snapshot.bytes, snapshot.w.len), usual);
    tf_put_ticket(&snapshot, 9);
    cr_expect_neq(bf_tls_server_hash(snapshot.bytes, snapshot.w.len), usual);
    cr_expect_eq(bf_tls_server_hash(NULL, 0), 0);
}

/* ---- memory ---- */

/* P4's share of OpenSSL: the benchmark tls-idle counts the rest. */
Test(tls, idle_session_is_small)
{
    enum { COUNT = 200 };
    static struct pair *pairs[COUNT];
    struct bf_tls_server *server = server_usual();
    struct bf_tls_client *client = client_make((struct bf_tls_client_opts){.alpn = "http/1.1"});
    struct pair *warm = pair_make(client, server, "one.example", NULL);
    cr_assert(tf_shake(&warm->client, &warm->server, 0));
    size_t total = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        pairs[i] = pair_make(client, server, "one.example", NULL);
        cr_assert(tf_shake(&pairs[i]->client, &pairs[i]->server, 0));
        exchange(pairs[i], "up", "down");
        bf_tls_free(&pairs[i]->client.s);
        size_t before = mallinfo2().uordblks;
        bf_tls_free(&pairs[i]->server.s);
        total += before - mallinfo2().uordblks;
    }
    cr_log_info("an idle TLS 1.3 session: %zu bytes", total / COUNT);
    cr_expect_lt(total / COUNT, 14500);
    for (unsigned i = 0; i < COUNT; i++)
        pair_free(pairs[i]);
    pair_free(warm);
    bf_tls_client_destroy(client);
    bf_tls_server_destroy(server);
}
