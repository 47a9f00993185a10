/*
 * Users' tokens as both planes read them (DESIGN 5; RFC 7519, 7515): the parts, the members that we
 * read, the claims. Signatures are each plane's own (dataplane/tls/jwt.c,
 * ctrlplane/crypto/user_token.c), and checked before any claim is asked for; public keys are in
 * public_key.h. Bytes in; results are borrowed from those bytes; no allocation. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <yyjson.h>

#include "belfry/base/base64url.h"
#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"
#include "belfry/base/plain_text.h"
#include "belfry/shm/snapshot.h"

#define BF_JWT_BYTES_MAX 8192u
/* alg, typ, kid and what a library adds; a header with a certificate chain in it is not for us. */
#define BF_JWT_HEADER_BYTES_MAX  2048u
#define BF_JWT_PAYLOAD_BYTES_MAX 6144u
/* RSA-8192 signs with 1,024 bytes. */
#define BF_JWT_SIGNATURE_BYTES_MAX 1024u
/* RFC 7518 section 3.3. */
#define BF_JWT_RSA_BITS_MIN      2048
#define BF_JWT_ED25519_SIG_BYTES 64u
/* yyjson, in situ: 12 bytes a byte of input plus a fixed part (yyjson_read_max_memory_usage). */
#define BF_JWT_POOL_BYTES (BF_JWT_PAYLOAD_BYTES_MAX * 12u + 1024u)

enum bf_jwt_verdict {
    BF_JWT_OK = 0,
    BF_JWT_MALFORMED,   /* not three base64url parts of JSON, too large, no sub, sub too long */
    BF_JWT_UNKNOWN_KEY, /* no key of that kid and alg (alg none included) */
    BF_JWT_BAD_SIGNATURE,
    BF_JWT_EXPIRED, /* exp passed, or missing */
    BF_JWT_NOT_YET, /* nbf */
    BF_JWT_AUDIENCE,
    BF_JWT_VERDICT_COUNT
};

/* The name of a key's algorithm, as a header has it. */
static inline struct bf_bytes bf_jwt_alg_name(enum bf_jwt_alg alg)
{
    static const struct bf_bytes names[BF_JWT_ALG_COUNT] = {
        [BF_JWT_HS256] = {"HS256", 5},
        [BF_JWT_RS256] = {"RS256", 5},
        [BF_JWT_ES256] = {"ES256", 5},
        [BF_JWT_EDDSA] = {"EdDSA", 5},
    };
    return names[alg];
}

/* ---- parts ---- */

/* Borrowed from the token. */
struct bf_jwt_parts {
    struct bf_bytes header, payload, signature; /* base64url */
    struct bf_bytes signed_text;                /* header and payload with the dot */
};

/* False: not three parts, or too long. */
static inline bool bf_jwt_split(struct bf_bytes token, struct bf_jwt_parts *ret)
{
    if (token.len == 0 || token.len > BF_JWT_BYTES_MAX)
        return false;
    const char *end = token.at + token.len;
    const char *first = memchr(token.at, '.', token.len);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second || memchr(second + 1, '.', (size_t)(end - second - 1)))
        return false;
    ret->header = (struct bf_bytes){.at = token.at, .len = (size_t)(first - token.at)};
    ret->payload = (struct bf_bytes){.at = first + 1, .len = (size_t)(second - first - 1)};
    ret->signature = (struct bf_bytes){.at = second + 1, .len = (size_t)(end - second - 1)};
    ret->signed_text = (struct bf_bytes){.at = token.at, .len = (size_t)(second - token.at)};
    return true;
}

/* ---- members ---- */

/* Members that we read, each at most once: with two of a name, issuer and verifier might differ. */
enum bf_jwt_member {
    BF_JWT_M_ALG = 0,
    BF_JWT_M_KID,
    BF_JWT_M_CRIT,
    BF_JWT_M_SUB,
    BF_JWT_M_EXP,
    BF_JWT_M_NBF,
    BF_JWT_M_AUD,
    BF_JWT_M_TENANT,
    BF_JWT_M_TOPICS, /* last: the API does not read it */
    BF_JWT_MEMBERS
};

static inline struct bf_bytes bf_jwt_text(yyjson_val *val)
{
    return (struct bf_bytes){.at = yyjson_get_str(val), .len = yyjson_get_len(val)};
}

/*
 * Reads the first |count| members of an object. |json| has |len| bytes and room for
 * YYJSON_PADDING_SIZE more, and is changed; |pool| is yyjson's memory (BF_JWT_POOL_BYTES). |found|:
 * NULL where there is none; values live as long as both. False: not such an object, or a member
 * twice.
 */
static inline bool bf_jwt_members(char *json, size_t len, void *pool, unsigned count,
                                  yyjson_val *found[BF_JWT_MEMBERS])
{
    static const struct bf_bytes names[BF_JWT_MEMBERS] = {
        [BF_JWT_M_ALG] = {"alg", 3},       [BF_JWT_M_KID] = {"kid", 3},
        [BF_JWT_M_CRIT] = {"crit", 4},     [BF_JWT_M_SUB] = {"sub", 3},
        [BF_JWT_M_EXP] = {"exp", 3},       [BF_JWT_M_NBF] = {"nbf", 3},
        [BF_JWT_M_AUD] = {"aud", 3},       [BF_JWT_M_TENANT] = {"tenant", 6},
        [BF_JWT_M_TOPICS] = {"topics", 6},
    };
    yyjson_alc alc;
    size_t at, max;
    yyjson_val *key, *val;
    memset(found, 0, BF_JWT_MEMBERS * sizeof(found[0]));
    memset(json + len, 0, YYJSON_PADDING_SIZE);
    if (len == 0 || !yyjson_alc_pool_init(&alc, pool, BF_JWT_POOL_BYTES))
        return false;
    yyjson_doc *doc = yyjson_read_opts(json, len, YYJSON_READ_INSITU, &alc, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;
    if (!yyjson_is_obj(root))
        return false;
    yyjson_obj_foreach (root, at, max, key, val) {
        for (unsigned i = 0; i < count; i++) {
            if (!bf_bytes_is_equal(bf_jwt_text(key), names[i]))
                continue;
            if (found[i])
                return false;
            found[i] = val;
        }
    }
    return true;
}

/* The members of a header by which the key is chosen. False: no alg, or extensions that must be
 * understood (crit, RFC 7515 section 4.1.11): we understand none. *ret_kid: "" when there is none.
 */
static inline bool bf_jwt_header(yyjson_val *const m[BF_JWT_MEMBERS], struct bf_bytes *ret_alg,
                                 struct bf_bytes *ret_kid)
{
    if (!yyjson_is_str(m[BF_JWT_M_ALG]) || m[BF_JWT_M_CRIT] ||
        (m[BF_JWT_M_KID] && !yyjson_is_str(m[BF_JWT_M_KID])))
        return false;
    *ret_alg = bf_jwt_text(m[BF_JWT_M_ALG]);
    *ret_kid = m[BF_JWT_M_KID] ? bf_jwt_text(m[BF_JWT_M_KID]) : (struct bf_bytes){"", 0};
    return true;
}

/* ---- claims ---- */

/* A string of at most |max| bytes without control characters (a user id may be any other text). */
static inline bool bf_jwt_name(yyjson_val *val, size_t max, struct bf_bytes *ret)
{
    struct bf_bytes text = bf_jwt_text(val);
    if (!yyjson_is_str(val) || text.len > max || bf_text_has_control(text.at, text.len))
        return false;
    *ret = text;
    return true;
}

/* NumericDate: a number of seconds from 0 on, perhaps with a fraction; above year 36812 it is a
 * mistake. */
static inline bool bf_jwt_seconds(yyjson_val *val, uint64_t *ret)
{
    double v = yyjson_is_num(val) ? yyjson_get_num(val) : -1.0;
    if (!(v >= 0.0 && v <= 1e12))
        return false;
    *ret = (uint64_t)v;
    return true;
}

/* |wanted| is one of the token's audiences: a text, or a list with it. */
static inline bool bf_jwt_has_audience(yyjson_val *aud, struct bf_bytes wanted)
{
    size_t at, max;
    yyjson_val *val;
    if (yyjson_is_str(aud))
        return bf_bytes_is_equal(bf_jwt_text(aud), wanted);
    yyjson_arr_foreach (aud, at, max, val) {
        if (yyjson_is_str(val) && bf_bytes_is_equal(bf_jwt_text(val), wanted))
            return true;
    }
    return false;
}

/* Borrowed from the members' memory. */
struct bf_jwt_claims {
    struct bf_bytes user;   /* sub: 1 to BF_USER_ID_BYTES_MAX bytes */
    struct bf_bytes tenant; /* "" when absent */
    uint64_t expires_s;
};

/* |audience| empty: aud is not checked. |now_s|: wall clock. *ret is good only for BF_JWT_OK. */
static inline enum bf_jwt_verdict bf_jwt_check_claims(yyjson_val *const m[BF_JWT_MEMBERS],
                                                      struct bf_bytes audience, uint64_t now_s,
                                                      struct bf_jwt_claims *ret)
{
    uint64_t not_before = 0;
    *ret = (struct bf_jwt_claims){.tenant = {"", 0}};
    if (!bf_jwt_name(m[BF_JWT_M_SUB], BF_USER_ID_BYTES_MAX, &ret->user) || ret->user.len == 0)
        return BF_JWT_MALFORMED;
    if (m[BF_JWT_M_TENANT] && !bf_jwt_name(m[BF_JWT_M_TENANT], BF_TENANT_BYTES_MAX, &ret->tenant))
        return BF_JWT_MALFORMED;
    if ((m[BF_JWT_M_EXP] && !bf_jwt_seconds(m[BF_JWT_M_EXP], &ret->expires_s)) ||
        (m[BF_JWT_M_NBF] && !bf_jwt_seconds(m[BF_JWT_M_NBF], &not_before)))
        return BF_JWT_MALFORMED;
    if (!m[BF_JWT_M_EXP] || now_s >= ret->expires_s + BF_JWT_LEEWAY_S)
        return BF_JWT_EXPIRED;
    if (not_before > now_s + BF_JWT_LEEWAY_S)
        return BF_JWT_NOT_YET;
    if (audience.len > 0 && !bf_jwt_has_audience(m[BF_JWT_M_AUD], audience))
        return BF_JWT_AUDIENCE;
    return BF_JWT_OK;
}

/* ---- signatures of ES256 ---- */

#define BF_JWT_ES256_HALF_BYTES 32u
/* A sequence of two integers of at most 33 bytes, each with tag and length. */
#define BF_JWT_DER_BYTES_MAX (2u + 2u * (3u + BF_JWT_ES256_HALF_BYTES))

/* One DER INTEGER of a big-endian number of 32 bytes. Returns its bytes, at most 35. */
static inline size_t bf_jwt_der_integer(const uint8_t half[BF_JWT_ES256_HALF_BYTES], uint8_t *out)
{
    size_t skip = 0;
    while (skip < BF_JWT_ES256_HALF_BYTES - 1 && half[skip] == 0)
        skip++;
    size_t n = BF_JWT_ES256_HALF_BYTES - skip;
    size_t pad = half[skip] >> 7; /* a leading zero keeps it positive */
    out[0] = 0x02;
    out[1] = (uint8_t)(n + pad);
    out[2] = 0;
    memcpy(out + 2 + pad, half + skip, n);
    return 2 + pad + n;
}

/* JOSE's r||s (RFC 7518 section 3.4) to the DER that OpenSSL takes; 0 if it has another length. */
static inline size_t bf_jwt_es256_der(const uint8_t *sig, size_t len,
                                      uint8_t der[BF_JWT_DER_BYTES_MAX])
{
    if (len != 2 * BF_JWT_ES256_HALF_BYTES)
        return 0;
    size_t n = 2;
    n += bf_jwt_der_integer(sig, der + n);
    n += bf_jwt_der_integer(sig + BF_JWT_ES256_HALF_BYTES, der + n);
    der[0] = 0x30;
    der[1] = (uint8_t)(n - 2);
    return n;
}
