/* A node under test: see pf_node.h. */
#include "pf_node.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/base/time.h"
#include "pf_http.h"
#include "pf_report.h"

/* One node at a time is alive in a benchmark; an early exit must not leave it running. */
static struct pf_node *living;
static pid_t living_owner;

static struct pf_http api_connection = {.fd = -1};
static struct pf_http admin_connection = {.fd = -1};

const char *pf_root(void)
{
    static char root[PF_PATH_BYTES];
    const char *given = getenv("BELFRY_ROOT");
    if (given)
        return given;
    if (root[0] != '\0')
        return root;
    ssize_t n = readlink("/proc/self/exe", root, sizeof(root) - 1);
    root[n > 0 ? n : 0] = '\0';
    for (int up = 0; up < 3; up++) { /* root/build/<preset>/program */
        char *slash = strrchr(root, '/');
        if (slash)
            *slash = '\0';
    }
    return root;
}

/* Folder of this very build, so that the node comes from it too. */
static void export_build(void)
{
    char path[PF_PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return;
    *slash = '\0';
    setenv("BELFRY_BUILD", path, 0);
}

/* Runs scripts/dev and returns its output in a static buffer, or NULL. */
static char *dev(const char *arguments)
{
    static char out[PF_TEXT_BYTES];
    char command[5 * PF_PATH_BYTES];
    snprintf(command, sizeof(command), "'%s/scripts/dev' %s", pf_root(), arguments);
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return NULL;
    size_t n = fread(out, 1, sizeof(out) - 1, pipe);
    out[n] = '\0';
    return pclose(pipe) == 0 ? out : NULL;
}

static void stop_living(void)
{
    if (living && living_owner == getpid())
        pf_node_down(living);
}

static void stop_by_signal(int signal)
{
    (void)signal;
    exit(1); /* runs stop_living; a benchmark has no state that an interrupted call could spoil */
}

/* "http://host:port/path" to its parts. */
static void url_split(const char *url, char host[64], uint16_t *port)
{
    const char *start = strstr(url, "://");
    unsigned number = 0;
    if (!start || sscanf(start + 3, "%63[^:]:%u", host, &number) != 2)
        pf_die("scripts/dev: unexpected address %s", url);
    *port = (uint16_t)number;
}

static const char *text_member(yyjson_val *root, const char *name)
{
    const char *text = yyjson_get_str(yyjson_obj_get(root, name));
    if (!text)
        pf_die("scripts/dev: no member %s", name);
    return text;
}

static void node_read(struct pf_node *node, char *json)
{
    yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(root))
        pf_die("scripts/dev: no JSON object: %s", json);
    yyjson_val *pids = yyjson_obj_get(root, "pids");
    url_split(text_member(root, "api"), node->api_host, &node->api_port);
    url_split(text_member(root, "ws"), node->ws_host, &node->ws_port);
    url_split(text_member(root, "admin"), node->admin_host, &node->admin_port);
    node->dataplane = (pid_t)yyjson_get_int(yyjson_obj_get(pids, "dataplane"));
    node->ctrlplane = (pid_t)yyjson_get_int(yyjson_obj_get(pids, "ctrlplane"));
    snprintf(node->api_key, sizeof(node->api_key), "%s", text_member(root, "api_key"));
    const char *kafka = yyjson_get_str(yyjson_obj_get(root, "kafka"));
    snprintf(node->kafka, sizeof(node->kafka), "%s", kafka ? kafka : "");
    yyjson_doc_free(doc);
}

static void secret_read(struct pf_node *node)
{
    char path[PF_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/jwt_secret", node->state);
    FILE *file = fopen(path, "re");
    if (!file)
        pf_die("no %s", path);
    node->jwt_secret_len = fread(node->jwt_secret, 1, sizeof(node->jwt_secret), file);
    fclose(file);
}

void pf_node_up(struct pf_node *node, const char *yaml, const char *engine)
{
    char path[PF_PATH_BYTES + 32], arguments[3 * PF_PATH_BYTES];
    memset(node, 0, sizeof(*node));
    snprintf(node->state, sizeof(node->state), "/tmp/belfry-perf-XXXXXX");
    if (!mkdtemp(node->state))
        pf_die("no directory in /tmp");
    snprintf(path, sizeof(path), "%s/perf.yaml", node->state);
    FILE *file = fopen(path, "we");
    if (!file || fputs(yaml, file) < 0 || fclose(file) != 0)
        pf_die("cannot write %s", path);
    living = node;
    living_owner = getpid();
    atexit(stop_living);
    signal(SIGINT, stop_by_signal);
    signal(SIGTERM, stop_by_signal);
    export_build();
    snprintf(arguments, sizeof(arguments), "up --state '%s' --config '%s' %s %s", node->state, path,
             engine ? "--engine" : "", engine ? engine : "");
    char *json = dev(arguments);
    if (!json)
        pf_die("the node did not start");
    node_read(node, json);
    secret_read(node);
}

void pf_node_down(struct pf_node *node)
{
    char arguments[PF_PATH_BYTES + 32];
    pf_http_close(&api_connection);
    pf_http_close(&admin_connection);
    living = NULL;
    snprintf(arguments, sizeof(arguments), "down --purge --state '%s'", node->state);
    if (!dev(arguments))
        pf_say("the node in %s did not stop", node->state);
}

double pf_node_restart(struct pf_node *node, const char *side)
{
    char arguments[PF_PATH_BYTES + 64];
    uint64_t start = bf_mono_ns();
    pf_http_close(&api_connection);
    pf_http_close(&admin_connection);
    snprintf(arguments, sizeof(arguments), "restart %s --state '%s'", side, node->state);
    char *json = dev(arguments);
    if (!json)
        pf_die("%s did not start again", side);
    node_read(node, json);
    return (double)(bf_mono_ns() - start) / 1e9;
}

bool pf_node_ctl(const struct pf_node *node, const char *arguments)
{
    char command[4 * PF_PATH_BYTES];
    snprintf(command, sizeof(command), "'%s/belfryctl' --config '%s/belfry.yaml' %s >&2",
             getenv("BELFRY_BUILD"), node->state, arguments);
    return system(command) == 0;
}

double pf_node_metric(const struct pf_node *node, const char *name)
{
    static char text[PF_TEXT_BYTES];
    size_t len = strlen(name);
    double total = 0;
    bool found = false;
    if (pf_http_call(&admin_connection, node->admin_host, node->admin_port, "GET", "/metrics", NULL,
                     NULL, NULL, 0, text, sizeof(text)) != 200)
        return -1;
    for (char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) != 0 || (line[len] != ' ' && line[len] != '{'))
            continue;
        const char *value = strchr(line, ' ');
        const char *brace = line[len] == '{' ? strchr(line, '}') : NULL;
        if (brace)
            value = strchr(brace, ' ');
        total += value ? strtod(value, NULL) : 0;
        found = true;
    }
    return found ? total : -1;
}

int pf_node_api(const struct pf_node *node, const char *method, const char *path, const char *body,
                char *answer)
{
    char authorization[PF_SECRET_BYTES + 16];
    snprintf(authorization, sizeof(authorization), "Bearer %s", node->api_key);
    return pf_http_call(&api_connection, node->api_host, node->api_port, method, path,
                        authorization, body ? "application/json" : NULL, body,
                        body ? strlen(body) : 0, answer, answer ? PF_TEXT_BYTES : 0);
}

/* Users of one import call: a body well below the API's limit. */
#define IMPORT_CHUNK 500u

void pf_node_users(const struct pf_node *node, const char *prefix, uint32_t first, uint32_t count)
{
    static char body[IMPORT_CHUNK * 64];
    for (uint32_t done = 0; done < count;) {
        size_t len = 0;
        for (uint32_t i = 0; i < IMPORT_CHUNK && done < count; i++, done++)
            len += (size_t)snprintf(body + len, sizeof(body) - len, "{\"user_id\":\"%s%u\"}\n",
                                    prefix, first + done);
        int status = pf_node_api(node, "POST", "/v1/users/import", body, NULL);
        if (status != 200 && status != 202)
            pf_die("users cannot be imported: HTTP %d", status);
    }
}
