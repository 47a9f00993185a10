/*
 * Ciphertext of any kind into a server session. The first byte chooses: bytes instead of a
 * ClientHello; a real ClientHello with bytes written over it; bytes instead of records of an open
 * session; a record of these bytes with one bit changed. Nothing but a record as it was sent may
 * give plaintext.
 */
#include <stdlib.h>
#include <string.h>

#include "../support/tls_fixture.h"

#define PIECE_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bf_tls_engine *engine;
static struct bf_tls_server *server;
static struct bf_tls_client *client;

static void set_up(void)
{
    static struct tf_snapshot snapshot;
    char err[128];
    struct tf_cert cert = tf_cert_make("fuzz", "DNS:fuzz", NULL, false);
    const struct bf_tls_client_opts opts = {.no_verify = true};
    tf_snapshot_start(&snapshot);
    tf_put_cert(&snapshot, cert.cert_pem, cert.key_pem, NULL);
    tf_put_ticket(&snapshot, 1);
    tf_put_options(&snapshot, BF_SNAP_TLS_F_TICKETS, NULL);
    if (bf_tls_engine_create(&engine) != 0 ||
        bf_tls_server_create(snapshot.bytes, snapshot.w.len, &server, err, sizeof(err)) != 0 ||
        bf_tls_client_create(&opts, &client, err, sizeof(err)) != 0)
        abort();
    tf_cert_free(&cert);
}

static void feed(struct tf_side *side, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size && side->s.state < BF_TLS_ENDED; at += PIECE_BYTES) {
        size_t n = size - at < PIECE_BYTES ? size - at : PIECE_BYTES;
        uint8_t *copy = malloc(n);
        memcpy(copy, data + at, n);
        tf_feed(side, copy, n);
        free(copy);
        side->out_len = 0;
    }
}

static void into_hello(struct tf_side *c, struct tf_side *s, const uint8_t *data, size_t size)
{
    tf_feed(c, NULL, 0);
    size_t at = size > 1 ? (data[0] | (size_t)data[1] << 8) % c->out_len : 0;
    for (size_t i = 2; i < size && at < c->out_len; i++, at++)
        c->out[at] = data[i];
    feed(s, c->out, c->out_len);
}

static void into_record(struct tf_side *c, struct tf_side *s, const uint8_t *data, size_t size)
{
    if (size < 3 || size > BF_TLS_WRITE_BYTES_MAX || tf_write(c, data, size) != 0)
        return;
    size_t at = (data[0] | (size_t)data[1] << 8) % c->out_len;
    c->out[at] ^= (uint8_t)(1u << data[2] % 8u);
    feed(s, c->out, c->out_len);
    /* a longer length makes it wait for more; nothing may come out */
    if (s->plain_len != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tf_side c, s;
    if (!engine)
        set_up();
    if (size < 1)
        return 0;
    memset(&c.s, 0, sizeof(c.s));
    memset(&s.s, 0, sizeof(s.s));
    c.engine = s.engine = engine;
    c.out_len = s.out_len = c.plain_len = s.plain_len = 0;
    if (bf_tls_accept(engine, server, &s.s) != 0 ||
        bf_tls_connect(engine, client, "fuzz", NULL, &c.s) != 0)
        abort();
    unsigned mode = data[0] % 4u;
    if (mode >= 2 && !tf_shake(&c, &s, 0))
        abort();
    if (mode == 1)
        into_hello(&c, &s, data + 1, size - 1);
    else if (mode == 3)
        into_record(&c, &s, data + 1, size - 1);
    else
        feed(&s, data + 1, size - 1);
    if (mode == 2 && s.plain_len != 0)
        abort(); /* nobody can forge a record */
    bf_tls_free(&c.s);
    bf_tls_free(&s.s);
    return 0;
}
