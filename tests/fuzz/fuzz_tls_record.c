/*
 * Records of any kind into a lean session (tls/tls_lean.h) whose keys are known, so that what lies
 * after the decryption is reached. The first byte chooses: bytes instead of records, which may give
 * no plaintext; or a script of records, each four bytes (type, length, padding, whether to spoil
 * it) and its content, which give what was in those of data until one fails.
 */
#include <stdlib.h>
#include <string.h>

#include "../support/tls_fixture.h"
#include "tls/tls_lean.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bf_tls_engine *engine;

static void begin(struct tf_side *side, enum bf_rec_suite suite)
{
    struct bf_tls_lean *lean = calloc(1, sizeof(*lean));
    memset(lean->in.secret, 1, sizeof(lean->in.secret));
    memset(lean->out.secret, 2, sizeof(lean->out.secret));
    if (!bf_rec_keys_derive(&lean->in, suite) || !bf_rec_keys_derive(&lean->out, suite))
        abort();
    side->engine = engine;
    side->out_len = side->plain_len = 0;
    side->s = (struct bf_tls_session){
        .lean = lean, .state = BF_TLS_OPEN, .is_server = true, .is_lean = true};
}

static void script(struct tf_side *side, const uint8_t *data, size_t size)
{
    static uint8_t wire[1024];
    while (size >= 4 && side->s.state == BF_TLS_OPEN) {
        size_t len = data[1] < size - 4 ? data[1] : size - 4, before = side->plain_len;
        struct bf_rec_keys keys = side->s.lean->in;
        enum bf_rec_type type = (enum bf_rec_type)(data[0] % 8u ? 19u + data[0] % 8u : 0u);
        size_t n = bf_rec_seal(&engine->ciphers, &keys, type, data + 4, len, data[2], wire);
        bool spoil = data[3] % 8u == 7u;
        wire[BF_REC_HEADER_BYTES + data[3] % (n - BF_REC_HEADER_BYTES)] ^= spoil ? 1u : 0u;
        size_t cut = data[3] % n;
        tf_feed(side, wire, cut);
        if (side->s.state == BF_TLS_OPEN)
            tf_feed(side, wire + cut, n - cut);
        if (spoil ? side->s.state != BF_TLS_FAILED || side->plain_len != before
                  : side->plain_len - before > len)
            abort();
        if (side->out_len > BF_TLS_RECORD_OVERHEAD || side->plain_len > 32768u)
            break;
        if (side->s.state == BF_TLS_OPEN && tf_write(side, "pong", 4) != 0)
            abort();
        side->out_len = 0;
        data += 4 + len;
        size -= 4 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tf_side side;
    if (!engine && bf_tls_engine_create(&engine) != 0)
        abort();
    if (size < 1)
        return 0;
    begin(&side, (enum bf_rec_suite)(1u + data[0] / 2u % 3u));
    if (data[0] % 2u == 1u) {
        script(&side, data + 1, size - 1);
    } else {
        tf_feed(&side, data + 1, size - 1);
        if (side.plain_len != 0)
            abort(); /* nobody can forge a record */
    }
    bf_tls_free(&side.s);
    return 0;
}
