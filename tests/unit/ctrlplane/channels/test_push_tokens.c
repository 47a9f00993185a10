/*
 * Claims of provider tokens, service accounts and access tokens as their readers see them; which
 * addresses are public.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "channels/push/push_egress.h"
#include "channels/push/push_tokens.h"
#include "crypto/sign.h"

#define NOW UINT64_C(1700000000123)

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static char *pem_of(EVP_PKEY *pkey)
{
    char *at = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    cr_assert_eq(PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &at);
    char *pem = strndup(at, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(pkey);
    return pem;
}

static struct bf_sign_key *es256(void)
{
    struct bf_sign_key *key = NULL;
    char *pem = pem_of(EVP_EC_gen("P-256"));
    cr_assert_eq(bf_sign_key_read(text(pem), BF_JWT_ES256, &key), 0);
    free(pem);
    return key;
}

/* The |n|-th part of a JWT, decoded. */
static const char *part(const char *jwt, int n)
{
    static char out[2][2048];
    for (int i = 0; i < n; i++)
        jwt = strchr(jwt, '.') + 1;
    long len = bf_base64url_decode((struct bf_bytes){jwt, strcspn(jwt, ".,")}, (uint8_t *)out[n],
                                   sizeof(out[n]) - 1);
    cr_assert_gt(len, 0);
    out[n][len] = '\0';
    return out[n];
}

Test(push_tokens, apns)
{
    struct bf_sign_key *key = es256();
    char *token = bf_apns_token(key, "KEY1234567", "TEAM123456", NOW);
    cr_assert_eq(strncmp(token, "bearer ", 7), 0);
    cr_expect_str_eq(part(token + 7, 0), "{\"alg\":\"ES256\",\"kid\":\"KEY1234567\"}");
    cr_expect_str_eq(part(token + 7, 1), "{\"iss\":\"TEAM123456\",\"iat\":1700000000}");
    free(token);
    bf_sign_key_free(key);
}

Test(push_tokens, vapid)
{
    struct bf_sign_key *key = es256();
    uint8_t point[65], shown[65];
    char *token = bf_vapid_token(key, "https://push.example.net", "mailto:a@example.com", NOW);
    cr_assert_eq(strncmp(token, "vapid t=", 8), 0);
    cr_expect_str_eq(part(token + 8, 0), "{\"typ\":\"JWT\",\"alg\":\"ES256\"}");
    cr_expect_str_eq(part(token + 8, 1),
                     "{\"aud\":\"https://push.example.net\",\"exp\":1700000000,\"sub\":"
                     "\"mailto:a@example.com\"}");
    const char *k = strstr(token, ", k=");
    cr_assert_not_null(k);
    cr_assert_eq(bf_sign_key_public(key, point), 0);
    cr_assert_eq(bf_base64url_decode(text(k + 4), shown, sizeof(shown)), 65);
    cr_assert_arr_eq(point, shown, 65);
    free(token);
    bf_sign_key_free(key);
}

Test(push_tokens, service_account)
{
    char *pem = pem_of(EVP_RSA_gen(2048)), json[4096], escaped[3000] = "", err[256] = "";
    size_t n = 0;
    for (const char *c = pem; *c; c++)
        n += (size_t)snprintf(escaped + n, sizeof(escaped) - n, *c == '\n' ? "\\n" : "%c", *c);
    struct bf_service_account account = {0};
    static const char *const names[] = {"client_email", "project_id", "private_key_id", "token_uri",
                                        "private_key"};
    for (int without = -1; without < 5; without++) {
        const char *values[] = {"a@p.iam", "p", "k1", "https://t/token", escaped};
        size_t len = (size_t)snprintf(json, sizeof(json), "{\"type\":\"service_account\"");
        for (int i = 0; i < 5; i++)
            if (i != without)
                len += (size_t)snprintf(json + len, sizeof(json) - len, ",\"%s\":\"%s\"", names[i],
                                        values[i]);
        snprintf(json + len, sizeof(json) - len, "}");
        int rc = bf_service_account_read(text(json), &account, err, sizeof(err));
        cr_expect_eq(rc, without < 0 ? 0 : BF_ERR_MALFORMED, "without %d: %s", without, err);
        if (without >= 0)
            cr_expect_not_null(strstr(err, names[without]), "%s", err);
    }
    cr_expect_eq(bf_service_account_read(text("[]"), &account, err, sizeof(err)), BF_ERR_MALFORMED);
    char *form = bf_service_account_form(&account, NOW);
    const char *begin =
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    cr_assert_eq(strncmp(form, begin, strlen(begin)), 0);
    cr_expect_str_eq(part(form + strlen(begin), 0),
                     "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}");
    cr_expect_str_eq(
        part(form + strlen(begin), 1),
        "{\"iss\":\"a@p.iam\",\"scope\":\"https://www.googleapis.com/auth/"
        "firebase.messaging\",\"aud\":\"https://t/token\",\"iat\":1700000000,\"exp\":1700003600}");
    free(form);
    free(pem);
    bf_service_account_clear(&account);
}

Test(push_tokens, access_tokens)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"access_token\":\"\",\"expires_in\":1}",
                                      "{\"expires_in\":1}",
                                      "{\"access_token\":\"a\"}",
                                      "{\"access_token\":\"a\",\"expires_in\":0}",
                                      "{\"access_token\":\"a b\",\"expires_in\":9}",
                                      "{\"access_token\":\"a\\r\\nx:y\",\"expires_in\":9}"};
    char *got = NULL;
    uint64_t life = 0;
    cr_assert_eq(
        bf_access_token_read(
            text("{\"access_token\":\"ya29.x\",\"expires_in\":3599,\"token_type\":\"Bearer\"}"),
            &got, &life),
        0);
    cr_expect_str_eq(got, "Bearer ya29.x");
    cr_expect_eq(life, 3599000);
    free(got);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(bf_access_token_read(text(bad[i]), &got, &life), BF_ERR_MALFORMED, "%s",
                     bad[i]);
}

Test(push_tokens, public_addresses)
{
    static const struct {
        const char *text;
        bool is_public;
    } rows[] = {
        {"17.188.128.1", true},
        {"8.8.8.8", true},
        {"172.32.0.1", true},
        {"100.128.0.1", true},
        {"127.0.0.1", false},
        {"10.1.2.3", false},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"192.168.0.1", false},
        {"169.254.169.254", false},
        {"100.64.0.1", false},
        {"0.0.0.0", false},
        {"224.0.0.1", false},
        {"255.255.255.255", false},
        {"2a00:1450::1", true},
        {"::1", false},
        {"::", false},
        {"fe80::1", false},
        {"fd00::1", false},
        {"ff02::1", false},
        {"::ffff:10.0.0.1", false},
        {"::ffff:8.8.8.8", true},
        {"64:ff9b::a00:1", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t address[16];
        int family = strchr(rows[i].text, ':') ? AF_INET6 : AF_INET;
        cr_assert_eq(inet_pton(family, rows[i].text, address), 1);
        cr_expect_eq(bf_egress_is_public(family, address), rows[i].is_public, "%s", rows[i].text);
    }
}
