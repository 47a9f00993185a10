/* Lean sessions whose records the kernel makes: see tls.h. What is left here is what the kernel
 * does not watch over, the age of the key and the peer's wish for another. */
#include <openssl/crypto.h>
#include <string.h>

#include "tls/tls_lean.h"

bool bf_tls_kernel_offer(const struct bf_tls_session *s, struct bf_tls_kernel_keys *ret)
{
    if (!s->is_lean || !s->is_server || s->state != BF_TLS_OPEN)
        return false;
    const struct bf_tls_lean *lean = s->lean;
    if (lean->is_kernel || lean->is_closed || lean->owes_update)
        return false;
    _Static_assert(sizeof(ret->key) == BF_REC_KEY_BYTES, "a key");
    _Static_assert(sizeof(ret->iv) == BF_REC_IV_BYTES, "an IV");
    memcpy(ret->key, lean->out.key, sizeof(ret->key));
    memcpy(ret->iv, lean->out.iv, sizeof(ret->iv));
    ret->suite = bf_rec_suite_number((enum bf_rec_suite)lean->out.suite);
    ret->sequence = lean->out.sequence;
    return true;
}

void bf_tls_kernel_taken(struct bf_tls_session *s)
{
    struct bf_rec_keys *out = &s->lean->out;
    s->lean->is_kernel = true;
    OPENSSL_cleanse(out->secret, sizeof(out->secret));
    OPENSSL_cleanse(out->key, sizeof(out->key));
    OPENSSL_cleanse(out->iv, sizeof(out->iv));
}

void bf_tls_kernel_sent(struct bf_tls_session *s, size_t len)
{
    /* full records, the rest, and one that the kernel may have cut short for want of memory */
    s->lean->out.sequence += len / BF_REC_PLAIN_BYTES_MAX + 2u;
}

enum bf_tls_kernel_state bf_tls_kernel_state(const struct bf_tls_engine *engine,
                                             const struct bf_tls_session *s)
{
    if (!s->is_lean || !s->lean->is_kernel)
        return BF_TLS_KERNEL_GOOD;
    if (s->lean->owes_update)
        return BF_TLS_KERNEL_MUTE;
    return s->lean->out.sequence >= engine->records_max ? BF_TLS_KERNEL_WORN : BF_TLS_KERNEL_GOOD;
}
