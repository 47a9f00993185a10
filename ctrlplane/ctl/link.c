/* belfryctl's way to the node it runs beside: libcurl, kept connections, the API's TLS. See ctl.h.
 */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/shm/own.h"
#include "crypto/admin_token.h"
#include "ctl/ctl.h"

/* A node that does not answer for this long hangs. */
#define CALL_TIMEOUT_S 15L
/* /metrics of 64 workers is about 500 KB; a list of 10,000 connections 3 MB. */
#define REPLY_BYTES_MAX (64u * 1024u * 1024u)
#define KEY_BYTES_MAX   160u

struct bf_link {
    struct bf_ctl *ctl;
    CURL *curl;
    struct curl_slist *headers;
    const char *host;
    int port;
    bool is_tls;
    char error[CURL_ERROR_SIZE];
};

/* ---- credentials ---- */

bool bf_ctl_api_key(struct bf_ctl *ctl, char *out, size_t cap)
{
    const char *from_env = getenv("BELFRY_API_KEY");
    if (from_env) {
        snprintf(out, cap, "%s", from_env);
        return true;
    }
    FILE *file = ctl->conf->dev_api_key_file[0] ? fopen(ctl->conf->dev_api_key_file, "re") : NULL;
    bool has_key = file && fgets(out, (int)cap, file) != NULL;
    if (file)
        fclose(file);
    if (!has_key) {
        bf_ctl_fail(BF_CTL_FAILED, "no API key: set BELFRY_API_KEY, or dev.api_key_file in the "
                                   "configuration (belfryctl key create makes keys)");
        return false;
    }
    out[strcspn(out, "\r\n")] = '\0';
    return true;
}

/* The credential of the admin port: the environment's, the token file's, or an API key of scope
 * admin. */
static bool admin_credential(struct bf_ctl *ctl, char *out, size_t cap)
{
    char path[BF_PATH_BYTES_MAX];
    char token[BF_ADMIN_TOKEN_BYTES];
    bool is_private;
    const char *from_env = getenv("BELFRY_ADMIN_TOKEN");
    bf_admin_token_path(ctl->conf, path, sizeof(path));
    int rc = from_env ? 0 : bf_admin_token_read(path, token, &is_private);
    if (rc == 0) {
        snprintf(out, cap, "%s", from_env ? from_env : token);
        explicit_bzero(token, sizeof(token));
        return true;
    }
    if (getenv("BELFRY_API_KEY"))
        return bf_ctl_api_key(ctl, out, cap);
    if (rc == -ENOENT)
        bf_ctl_fail(BF_CTL_FAILED,
                    "no admin token in %s: the control process makes it when it starts. "
                    "Has it, and is --config its configuration?",
                    path);
    else if (rc == -EACCES)
        bf_ctl_fail(BF_CTL_FAILED,
                    "the admin token in %s is not for this user: run belfryctl as the "
                    "user of belfry-ctrlplane, or set BELFRY_ADMIN_TOKEN",
                    path);
    else
        bf_ctl_fail(BF_CTL_FAILED, "the admin token in %s cannot be used: %s", path,
                    bf_err_text(rc));
    return false;
}

/* ---- opening ---- */

/* The node's own certificate is what is trusted, under whatever name it is reached from here: the
 * API's file is in the configuration that we were given. */
static void trust_node(struct bf_link *link)
{
    const char *cert = getenv("BELFRY_CLIENT_CERT"), *key = getenv("BELFRY_CLIENT_KEY");
    curl_easy_setopt(link->curl, CURLOPT_CAINFO, link->ctl->conf->api_tls_cert);
    curl_easy_setopt(link->curl, CURLOPT_SSL_VERIFYHOST, 0L);
    if (cert)
        curl_easy_setopt(link->curl, CURLOPT_SSLCERT, cert);
    if (key)
        curl_easy_setopt(link->curl, CURLOPT_SSLKEY, key);
}

static size_t take(char *bytes, size_t size, size_t count, void *arg)
{
    struct bf_out *o = arg;
    if (o->len + size * count > REPLY_BYTES_MAX)
        return 0;
    bf_out_raw(o, bytes, size * count);
    return o->failed ? 0 : size * count;
}

static size_t drop(char *bytes, size_t size, size_t count, void *arg)
{
    (void)bytes, (void)arg;
    return size * count;
}

static bool set_up(struct bf_link *link, const char *key)
{
    char line[KEY_BYTES_MAX + 32];
    snprintf(line, sizeof(line), "Authorization: Bearer %s", key);
    link->headers = curl_slist_append(NULL, line);
    explicit_bzero(line, sizeof(line));
    if (!link->headers || !curl_slist_append(link->headers, "Content-Type: application/json") ||
        !curl_slist_append(link->headers, "Expect:"))
        return false;
    curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, link->headers);
    curl_easy_setopt(link->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(link->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(link->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(link->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(link->curl, CURLOPT_CONNECTTIMEOUT, CALL_TIMEOUT_S);
    curl_easy_setopt(link->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(link->curl, CURLOPT_LOW_SPEED_TIME, CALL_TIMEOUT_S);
    curl_easy_setopt(link->curl, CURLOPT_ERRORBUFFER, link->error);
    if (link->is_tls)
        trust_node(link);
    return true;
}

struct bf_link *bf_link_open(struct bf_ctl *ctl, bool is_admin)
{
    char key[KEY_BYTES_MAX] = "";
    if (!(is_admin ? admin_credential(ctl, key, sizeof(key))
                   : bf_ctl_api_key(ctl, key, sizeof(key))))
        return NULL;
    struct bf_link *link = calloc(1, sizeof(*link));
    if (link) {
        link->ctl = ctl;
        link->curl = curl_easy_init();
        link->host = is_admin ? ctl->admin_host : ctl->api_host;
        link->port = is_admin ? ctl->admin_port : ctl->api_port;
        link->is_tls = !is_admin && ctl->conf->api_tls_cert[0] != '\0';
    }
    bool ok = link && link->curl && set_up(link, key);
    explicit_bzero(key, sizeof(key));
    if (ok)
        return link;
    bf_link_close(link);
    bf_ctl_fail(BF_CTL_FAILED, "out of memory");
    return NULL;
}

void bf_link_close(struct bf_link *link)
{
    if (!link)
        return;
    curl_easy_cleanup(link->curl);
    curl_slist_free_all(link->headers);
    free(link);
}

/* ---- calls ---- */

static void say_why(const struct bf_link *link, CURLcode rc, const char *method, const char *path)
{
    const char *why = link->error[0] ? link->error : curl_easy_strerror(rc);
    if (rc == CURLE_COULDNT_CONNECT)
        bf_ctl_fail(BF_CTL_FAILED,
                    "no node at %s port %d: %s. Is the control process running, and is --config "
                    "its configuration?",
                    link->host, link->port, why);
    else
        bf_ctl_fail(BF_CTL_FAILED, "the node did not answer %s %s: %s", method, path, why);
}

int bf_link_call(struct bf_link *link, const char *method, const char *path, const char *body,
                 struct bf_out *ret_body)
{
    struct bf_out url = {0};
    long status = 0;
    size_t len;
    bool is_v6 = strchr(link->host, ':') != NULL;
    bf_out_print(&url, "%s://%s%s%s:%d%s", link->is_tls ? "https" : "http", is_v6 ? "[" : "",
                 link->host, is_v6 ? "]" : "", link->port, path);
    bf_out_raw(&url, "", 1);
    char *text = bf_out_take(&url, &len);
    if (!text) {
        bf_ctl_fail(BF_CTL_FAILED, "out of memory");
        return -1;
    }
    link->error[0] = '\0';
    curl_easy_setopt(link->curl, CURLOPT_URL, text);
    curl_easy_setopt(link->curl, CURLOPT_HTTPGET, 1L); /* no body of the call before */
    if (body) {
        curl_easy_setopt(link->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
        curl_easy_setopt(link->curl, CURLOPT_POSTFIELDS, body);
    }
    curl_easy_setopt(link->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(link->curl, CURLOPT_WRITEFUNCTION, ret_body ? take : drop);
    curl_easy_setopt(link->curl, CURLOPT_WRITEDATA, ret_body);
    CURLcode rc = curl_easy_perform(link->curl);
    free(text);
    curl_easy_getinfo(link->curl, CURLINFO_RESPONSE_CODE, &status);
    if (rc == CURLE_OK)
        return (int)status;
    say_why(link, rc, method, path);
    return -1;
}
