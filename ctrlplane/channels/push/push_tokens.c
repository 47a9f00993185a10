/* See push_tokens.h. */
#include "channels/push/push_tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "belfry/base/base64url.h"
#include "crypto/sign.h"
#include "crypto/webpush.h"
#include "belfry/base/err.h"
#include "json/json.h"

#define CLAIMS_BYTES_MAX 2048u
#define ASSERTION_S      3600u
#define FCM_SCOPE        "https://www.googleapis.com/auth/firebase.messaging"
#define GRANT_TYPE       "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
/* A longer lifetime of an access token is not believed: Google's live an hour. */
#define ACCESS_LIFE_S_MAX 86400u

static struct bf_bytes cstr(const char *text)
{
    return (struct bf_bytes){text, strlen(text)};
}

static void put(struct bf_writer *w, const char *key, const char *value)
{
    bf_put_bytes(w, cstr(key));
    bf_json_put_str(w, cstr(value));
}

static void put_number(struct bf_writer *w, const char *key, uint64_t value)
{
    bf_put_bytes(w, cstr(key));
    bf_json_put_uint(w, value);
}

static char *sign(const struct bf_sign_key *key, struct bf_writer *header, struct bf_writer *claims)
{
    bf_put_u8(header, '}');
    bf_put_u8(claims, '}');
    if (header->failed || claims->failed)
        return NULL;
    return bf_sign_jwt(key, (struct bf_bytes){(char *)header->buf, header->len},
                       (struct bf_bytes){(char *)claims->buf, claims->len});
}

/* before + jwt + after; frees |jwt|. */
static char *wrap(const char *before, char *jwt, const char *after)
{
    char *text = NULL;
    if (jwt && asprintf(&text, "%s%s%s", before, jwt, after) < 0)
        text = NULL;
    free(jwt);
    return text;
}

char *bf_apns_token(const struct bf_sign_key *key, const char *key_id, const char *team_id,
                    uint64_t now_ms)
{
    uint8_t a[CLAIMS_BYTES_MAX], b[CLAIMS_BYTES_MAX];
    struct bf_writer header = {.buf = a, .cap = sizeof(a)}, claims = {.buf = b, .cap = sizeof(b)};
    put(&header, "{\"alg\":\"ES256\",\"kid\":", key_id);
    put(&claims, "{\"iss\":", team_id);
    put_number(&claims, ",\"iat\":", now_ms / 1000);
    return wrap("bearer ", sign(key, &header, &claims), "");
}

char *bf_vapid_token(const struct bf_sign_key *key, const char *origin, const char *subject,
                     uint64_t expires_ms)
{
    uint8_t a[CLAIMS_BYTES_MAX], b[CLAIMS_BYTES_MAX], point[BF_WEBPUSH_PUBLIC_BYTES];
    char after[128] = ", k=";
    struct bf_writer header = {.buf = a, .cap = sizeof(a)}, claims = {.buf = b, .cap = sizeof(b)};
    if (bf_sign_key_public(key, point) != 0)
        return NULL;
    after[4 + bf_base64url_encode(point, sizeof(point), after + 4)] = '\0';
    bf_put_bytes(&header, BF_BYTES("{\"typ\":\"JWT\",\"alg\":\"ES256\""));
    put(&claims, "{\"aud\":", origin);
    put_number(&claims, ",\"exp\":", expires_ms / 1000);
    put(&claims, ",\"sub\":", subject);
    return wrap("vapid t=", sign(key, &header, &claims), after);
}

/* ---- service accounts ---- */

static int take(yyjson_val *root, const char *name, char *out, size_t cap, char *err,
                size_t err_len)
{
    yyjson_val *val = yyjson_obj_get(root, name);
    if (!yyjson_is_str(val) || yyjson_get_len(val) == 0 || yyjson_get_len(val) >= cap) {
        snprintf(err, err_len, "a service account has a text %s of 1..%zu bytes", name, cap - 1);
        return BF_ERR_MALFORMED;
    }
    snprintf(out, cap, "%s", yyjson_get_str(val));
    return 0;
}

int bf_service_account_read(struct bf_bytes json, struct bf_service_account *ret, char *err,
                            size_t err_len)
{
    struct bf_service_account account = {0};
    yyjson_doc *doc = yyjson_read(json.at, json.len, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *pem = yyjson_obj_get(root, "private_key");
    int rc = yyjson_is_obj(root) ? 0 : BF_ERR_MALFORMED;
    if (rc != 0)
        snprintf(err, err_len, "a service account is a JSON object");
    if (rc == 0)
        rc = take(root, "client_email", account.email, sizeof(account.email), err, err_len);
    if (rc == 0)
        rc = take(root, "project_id", account.project, sizeof(account.project), err, err_len);
    if (rc == 0)
        rc = take(root, "private_key_id", account.key_id, sizeof(account.key_id), err, err_len);
    if (rc == 0)
        rc = take(root, "token_uri", account.token_uri, sizeof(account.token_uri), err, err_len);
    if (rc == 0 && strncmp(account.token_uri, "https://", 8) != 0) {
        snprintf(err, err_len, "a service account's token_uri begins with https://");
        rc = BF_ERR_MALFORMED;
    }
    if (rc == 0 && (!yyjson_is_str(pem) ||
                    bf_sign_key_read((struct bf_bytes){yyjson_get_str(pem), yyjson_get_len(pem)},
                                     BF_JWT_RS256, &account.key) != 0)) {
        snprintf(err, err_len,
                 "a service account's private_key is an RSA key in PEM, 2,048 bits or more");
        rc = BF_ERR_MALFORMED;
    }
    yyjson_doc_free(doc);
    if (rc == 0)
        *ret = account;
    return rc;
}

void bf_service_account_clear(struct bf_service_account *account)
{
    bf_sign_key_free(account->key);
    *account = (struct bf_service_account){0};
}

char *bf_service_account_form(const struct bf_service_account *account, uint64_t now_ms)
{
    uint8_t a[CLAIMS_BYTES_MAX], b[CLAIMS_BYTES_MAX];
    struct bf_writer header = {.buf = a, .cap = sizeof(a)}, claims = {.buf = b, .cap = sizeof(b)};
    put(&header, "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":", account->key_id);
    put(&claims, "{\"iss\":", account->email);
    put(&claims, ",\"scope\":", FCM_SCOPE);
    put(&claims, ",\"aud\":", account->token_uri);
    put_number(&claims, ",\"iat\":", now_ms / 1000);
    put_number(&claims, ",\"exp\":", now_ms / 1000 + ASSERTION_S);
    return wrap("grant_type=" GRANT_TYPE "&assertion=", sign(account->key, &header, &claims), "");
}

int bf_access_token_read(struct bf_bytes json, char **ret_authorization, uint64_t *ret_life_ms)
{
    yyjson_doc *doc = yyjson_read(json.at, json.len, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *token = yyjson_get_str(yyjson_obj_get(root, "access_token"));
    yyjson_val *life = yyjson_obj_get(root, "expires_in");
    uint64_t life_s = yyjson_is_uint(life) ? yyjson_get_uint(life) : 0;
    int rc = token && token[0] && life_s > 0 ? 0 : BF_ERR_MALFORMED;
    for (const char *c = token; rc == 0 && *c; c++) /* it becomes a header field */
        if (*c <= ' ' || *c > '~')
            rc = BF_ERR_MALFORMED;
    if (rc == 0 && asprintf(ret_authorization, "Bearer %s", token) < 0)
        rc = -ENOMEM;
    if (rc == 0)
        *ret_life_ms = (life_s < ACCESS_LIFE_S_MAX ? life_s : ACCESS_LIFE_S_MAX) * 1000;
    yyjson_doc_free(doc);
    return rc;
}
