/* See push_fetch.h. */
#include "channels/push/push_fetch.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "channels/push/push_egress.h"
#include "channels/push/push_tokens.h"

/* An answer has 1 to 2 KB. */
#define ANSWER_BYTES_MAX 16384u

struct answer {
    size_t len;
    char text[ANSWER_BYTES_MAX];
};

int bf_push_fetch_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : BF_ERR_UNSUPPORTED;
}

static size_t take(char *at, size_t size, size_t count, void *arg)
{
    struct answer *a = arg;
    size_t n = size * count;
    if (n > sizeof(a->text) - a->len)
        return 0; /* ends the transfer: that is no token */
    memcpy(a->text + a->len, at, n);
    a->len += n;
    return n;
}

static void prepare(CURL *curl, const char *url, const char *form, const char *ca_pem,
                    struct answer *answer)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, form);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)BF_PUSH_FETCH_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    if (ca_pem) {
        struct curl_blob blob = {
            .data = (void *)(uintptr_t)ca_pem, .len = strlen(ca_pem), .flags = CURL_BLOB_COPY};
        curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
    }
}

int bf_push_fetch(const char *url, const char *form, const char *ca_pem, char **ret_authorization,
                  uint64_t *ret_life_ms, char *why, size_t why_len)
{
    struct answer answer = {0};
    long status = 0;
    CURL *curl = curl_easy_init();
    if (!curl)
        return BF_ERR_NO_MEMORY;
    prepare(curl, url, form, ca_pem, &answer);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    int rc = BF_ERR_AWAY;
    if (code != CURLE_OK)
        snprintf(why, why_len, "%s", curl_easy_strerror(code));
    else if (status != 200)
        snprintf(why, why_len, "the token endpoint answered %ld", status);
    else if ((rc = bf_access_token_read((struct bf_bytes){answer.text, answer.len},
                                        ret_authorization, ret_life_ms)) != 0)
        snprintf(why, why_len, "the token endpoint's answer holds no access token");
    explicit_bzero(answer.text, answer.len);
    return rc;
}

/* ---- addresses ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

void bf_push_resolve(const char *host, const char *allow, struct bf_push_addresses *ret)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    *ret = (struct bf_push_addresses){0};
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return;
    for (const struct addrinfo *at = list; at && ret->count < BF_PUSH_ADDRESSES_MAX;
         at = at->ai_next) {
        const void *address =
            at->ai_family == AF_INET
                ? (const void *)&((struct sockaddr_in *)(void *)at->ai_addr)->sin_addr
                : (const void *)&((struct sockaddr_in6 *)(void *)at->ai_addr)->sin6_addr;
        if ((at->ai_family != AF_INET && at->ai_family != AF_INET6) ||
            (allow && !bf_egress_address(allow, host, at->ai_family, address)))
            continue;
        if (inet_ntop(at->ai_family, address, ret->text[ret->count], BF_PUSH_ADDRESS_TEXT_BYTES))
            ret->count++;
    }
    freeaddrinfo(list);
    /* resolvers rotate: sorted, so that the same addresses are the same record */
    qsort(ret->text, ret->count, sizeof(ret->text[0]), by_text);
}
