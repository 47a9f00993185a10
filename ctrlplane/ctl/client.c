/* belfryctl's HTTP client: plain sockets to the node it runs beside. Blocking, one call a
 * connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/credential.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/shm/own.h"
#include "ctl/ctl.h"

/* A node that does not answer for this long is stuck. */
#define CALL_TIMEOUT_S 15
/* /metrics of 64 workers is about 500 KB; a list of 10,000 connections 3 MB. */
#define REPLY_BYTES_MAX (64u * 1024u * 1024u)
#define KEY_BYTES_MAX   160u

static int open_socket(const char *host, int port)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&address;
    bool is_v4 = inet_pton(AF_INET, host, &v4->sin_addr) == 1;
    socklen_t len = is_v4 ? sizeof(*v4) : sizeof(*v6);
    if (is_v4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
    } else {
        inet_pton(AF_INET6, host, &v6->sin6_addr);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
    }
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, len) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        fd = -1;
    }
    return fd;
}

int bf_ctl_connect(const char *host, int port)
{
    int fd = open_socket(host, port);
    struct timeval timeout = {.tv_sec = CALL_TIMEOUT_S};
    int on = 1;
    if (fd < 0) {
        bf_ctl_fail(
            BF_CTL_FAILED,
            "no node at %s port %d: %s. Is the control process running, and is --config its "
            "configuration?",
            host, port, strerror(errno));
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void strip(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = '\0';
}

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
    strip(out);
    return true;
}

static bool send_all(int fd, const char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads until the node closes: every call asks for that. */
static bool receive_all(int fd, struct bf_out *o)
{
    char chunk[16384];
    for (;;) {
        ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        bf_out_raw(o, chunk, (size_t)n);
        if (o->failed || o->len > REPLY_BYTES_MAX)
            return false;
    }
}

static bool split_reply(struct bf_out *raw, struct bf_reply *ret)
{
    size_t len = 0;
    char *text = bf_out_take(raw, &len);
    char *body = text ? strstr(text, "\r\n\r\n") : NULL;
    if (!body || sscanf(text, "HTTP/1.1 %d", &ret->status) != 1) {
        free(text);
        return false;
    }
    body += 4;
    ret->len = len - (size_t)(body - text);
    ret->body = malloc(ret->len + 1);
    if (ret->body) {
        memcpy(ret->body, body, ret->len);
        ret->body[ret->len] = '\0';
        ret->json = yyjson_read(ret->body, ret->len, 0);
    }
    free(text);
    return ret->body != NULL;
}

/* ---- what people see ---------------------------------------------------------------------------
 */

struct bf_shown {
    struct bf_shown *next;
    char text[];
};

/* Ids, titles and reasons are what somebody sent: a terminal gets them escaped. */
static void show_text(struct bf_reply *reply, yyjson_val *val)
{
    const char *text = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);
    size_t cap = len * BF_TEXT_ESCAPE_BYTES + 1;
    struct bf_shown *shown = malloc(sizeof(*shown) + cap);
    size_t n = shown ? bf_text_escape(shown->text, cap, text, len) : 0;
    if (!shown || (n == len && memcmp(shown->text, text, len) == 0)) {
        if (!shown)
            yyjson_set_str(val, "?"); /* no memory to escape it with */
        free(shown);
        return;
    }
    yyjson_set_strn(val, shown->text, n);
    shown->next = reply->shown;
    reply->shown = shown;
}

static void show_all(struct bf_reply *reply, yyjson_val *val)
{
    size_t i, max;
    yyjson_val *key, *member;
    if (yyjson_is_str(val))
        show_text(reply, val);
    else if (yyjson_is_arr(val))
        yyjson_arr_foreach (val, i, max, member)
            show_all(reply, member);
    else if (yyjson_is_obj(val))
        yyjson_obj_foreach (val, i, max, key, member)
            show_all(reply, member);
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

/* Head and body of a call, with the credential of the port that it goes to. */
static bool write_call(struct bf_ctl *ctl, struct bf_out *o, bool is_admin, const char *method,
                       const char *path, const char *body)
{
    char key[KEY_BYTES_MAX] = "";
    const char *host = is_admin ? ctl->admin_host : ctl->api_host;
    bool is_v6 = strchr(host, ':') != NULL;
    if (!(is_admin ? admin_credential(ctl, key, sizeof(key))
                   : bf_ctl_api_key(ctl, key, sizeof(key))))
        return false;
    bf_out_print(o, "%s %s HTTP/1.1\r\nHost: %s%s%s:%d\r\nConnection: close\r\n", method, path,
                 is_v6 ? "[" : "", host, is_v6 ? "]" : "",
                 is_admin ? ctl->admin_port : ctl->api_port);
    if (key[0])
        bf_out_print(o, "Authorization: Bearer %s\r\n", key);
    if (body)
        bf_out_print(o, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    bf_out_text(o, "\r\n");
    if (body)
        bf_out_text(o, body);
    return !o->failed;
}

bool bf_ctl_call(struct bf_ctl *ctl, const char *method, const char *path, const char *body,
                 struct bf_reply *ret)
{
    bool is_admin = strncmp(path, "/v1/", 4) != 0;
    struct bf_out request = {0};
    struct bf_out raw = {0};
    *ret = (struct bf_reply){0};
    if (!write_call(ctl, &request, is_admin, method, path, body))
        return false;
    int fd = is_admin ? bf_ctl_connect(ctl->admin_host, ctl->admin_port)
                      : bf_ctl_connect(ctl->api_host, ctl->api_port);
    bool ok = fd >= 0;
    if (ok) {
        ok = send_all(fd, request.at, request.len) && receive_all(fd, &raw) &&
             split_reply(&raw, ret);
        if (!ok)
            bf_ctl_fail(BF_CTL_FAILED, "the node did not answer %s %s: %s", method, path,
                        errno ? strerror(errno) : "the connection broke");
        close(fd);
        if (ok && !ctl->is_json)
            show_all(ret, yyjson_doc_get_root(ret->json));
    }
    bf_out_free(&request);
    bf_out_free(&raw);
    return ok;
}

/* Head bytes are few: one by one is fine, and leaves the next answer unread. */
int bf_ctl_read_status(int fd)
{
    char head[2048];
    size_t len = 0;
    int status;
    while (len < sizeof(head) - 1 && (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0)) {
        ssize_t n = recv(fd, head + len, 1, 0);
        if (n <= 0)
            return -1;
        len += (size_t)n;
    }
    head[len] = '\0';
    const char *field = strcasestr(head, "\r\nContent-Length:");
    size_t body = field ? strtoul(field + 17, NULL, 10) : 0;
    while (body > 0) {
        char skipped[1024];
        ssize_t n = recv(fd, skipped, body < sizeof(skipped) ? body : sizeof(skipped), 0);
        if (n <= 0)
            return -1;
        body -= (size_t)n;
    }
    return sscanf(head, "HTTP/1.1 %d", &status) == 1 ? status : -1;
}

void bf_reply_free(struct bf_reply *reply)
{
    yyjson_doc_free(reply->json);
    while (reply->shown) {
        struct bf_shown *shown = reply->shown;
        reply->shown = shown->next;
        free(shown);
    }
    free(reply->body);
    *reply = (struct bf_reply){0};
}

int bf_ctl_refused(const struct bf_reply *reply)
{
    yyjson_val *root = yyjson_doc_get_root(reply->json);
    const char *detail = bf_json_text(root, "detail");
    const char *field = bf_json_text(root, "field");
    return bf_ctl_fail(BF_CTL_FAILED, "the node refused (%d): %s%s%s%s", reply->status,
                       detail[0] ? detail : "no reason given", field[0] ? " [" : "", field,
                       field[0] ? "]" : "");
}

void bf_ctl_print_body(const struct bf_reply *reply)
{
    puts(reply->body);
}

void bf_out_percent(struct bf_out *o, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                        (*p >= '0' && *p <= '9') || strchr("-._~", *p);
        if (is_plain)
            bf_out_raw(o, p, 1);
        else
            bf_out_print(o, "%%%02X", *p);
    }
}

static yyjson_val *find(yyjson_val *root, const char *path)
{
    while (root && *path) {
        size_t len = strcspn(path, ".");
        root = yyjson_obj_getn(root, path, len);
        path += len + (path[len] == '.');
    }
    return root;
}

uint64_t bf_json_number(yyjson_val *root, const char *path)
{
    return yyjson_get_uint(find(root, path));
}

const char *bf_json_text(yyjson_val *root, const char *path)
{
    const char *text = yyjson_get_str(find(root, path));
    return text ? text : "";
}
