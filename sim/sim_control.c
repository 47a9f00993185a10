/* The control port: see sim_control.h. It may block and allocate: nothing of the simulation waits
 * for it. */
#include "sim_control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "sim_provider.h"
#include "sim_worker.h"

#define HEAD_BYTES_MAX 8192u
#define CLIENT_WAIT_MS 5000 /* a client that stays silent so long is sent away */
#define IN_FORCE_WAITS_MAX                                                                         \
    5000 /* milliseconds; a worker looks every 20, unless its record's disk is stuck */
#define ACCEPT_CHECK_MS 100 /* between looks at sim->stop */

struct sim_control {
    struct sim *sim;
    int listener;
    pthread_t thread;
};

struct reply {
    int status;
    char *text; /* malloc'ed */
    size_t bytes;
};

static struct reply say(int status, const char *text)
{
    char *copy = NULL;
    int n = asprintf(&copy, "{\"%s\":\"%s\"}\n", status < 300 ? "ok" : "error", text);
    return (struct reply){status, n < 0 ? NULL : copy, n < 0 ? 0 : (size_t)n};
}

static struct reply reply_doc(yyjson_mut_doc *doc)
{
    size_t n = 0;
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_NEWLINE_AT_END, &n);
    yyjson_mut_doc_free(doc);
    return (struct reply){text ? 200 : 500, text, n};
}

/* ---- /stats ---- */

static uint64_t sum(const struct sim *sim, unsigned provider, size_t offset)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < sim->workers_count; i++) {
        const char *block = (const char *)&sim->workers[i]->counters[provider];
        const _Atomic uint64_t *word = (const _Atomic uint64_t *)(const void *)(block + offset);
        total += atomic_load_explicit(word, memory_order_relaxed); /* a statistic */
    }
    return total;
}

static yyjson_mut_val *provider_stats(yyjson_mut_doc *doc, const struct sim *sim, unsigned provider)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc), *by_status = yyjson_mut_obj(doc);
#define COUNTER_OUT(name)                                                                          \
    yyjson_mut_obj_add_uint(doc, o, #name, sum(sim, provider, offsetof(struct sim_counters, name)));
    SIM_COUNTERS(COUNTER_OUT)
#undef COUNTER_OUT
    for (unsigned status = 100; status < SIM_STATUS_MAX; status++) {
        uint64_t n =
            sum(sim, provider, offsetof(struct sim_counters, status) + status * sizeof(uint64_t));
        char name[16];
        snprintf(name, sizeof(name), "%u", status);
        if (n)
            yyjson_mut_obj_add(by_status, yyjson_mut_strcpy(doc, name), yyjson_mut_uint(doc, n));
    }
    yyjson_mut_obj_add_val(doc, o, "status", by_status);
    return o;
}

static struct reply get_stats(const struct sim *sim)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++)
        yyjson_mut_obj_add_val(doc, root, sim_providers[p].name, provider_stats(doc, sim, p));
    if (sim->record)
        yyjson_mut_obj_add_uint(doc, root, "record_waits", sim_record_waits(sim->record));
    return reply_doc(doc);
}

/* ---- /record ---- */

/* The last |lines| lines of the file, as they are. */
static struct reply tail(const char *path, uint64_t lines)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        if (fd >= 0)
            close(fd);
        return say(500, "the record cannot be read");
    }
    size_t bytes =
        st.st_size > (off_t)SIM_RECORD_TAIL_MAX ? SIM_RECORD_TAIL_MAX : (size_t)st.st_size;
    char *text = malloc(bytes + 1);
    ssize_t n = text ? pread(fd, text, bytes, st.st_size - (off_t)bytes) : -1;
    close(fd);
    if (n < 0) {
        free(text);
        return say(500, "the record cannot be read");
    }
    size_t from = (size_t)n;
    while (from > 0 && (text[from - 1] != '\n' || from == (size_t)n || --lines > 0))
        from--;
    memmove(text, text + from, (size_t)n - from);
    return (struct reply){200, text, (size_t)n - from};
}

static struct reply get_record(const struct sim *sim, const char *query)
{
    if (!sim->record)
        return say(404, "no record: fast mode (--record FILE keeps one)");
    uint64_t lines = sim_record_flush(sim->record);
    if (query && strncmp(query, "tail=", 5) == 0)
        return tail(sim_record_path(sim->record), strtoull(query + 5, NULL, 10));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "file", sim_record_path(sim->record));
    yyjson_mut_obj_add_uint(doc, root, "lines", lines);
    yyjson_mut_obj_add_uint(doc, root, "waits", sim_record_waits(sim->record));
    return reply_doc(doc);
}

/* ---- /faults ---- */

static struct reply get_faults(struct sim *sim)
{
    struct sim_script *s = sim_script_current(sim);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "seed", s->seed);
    yyjson_mut_obj_add_int(doc, root, "age_ms", sim_now_us() / 1000 - s->began_ms);
    yyjson_mut_obj_add_uint(doc, root, "tokens", s->rules_count);
    for (uint32_t i = 0; i < s->faults_count; i++) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        yyjson_mut_obj_add_str(doc, o, "kind", sim_fault_kind_name(s->faults[i].kind));
        yyjson_mut_obj_add_uint(doc, o, "fired",
                                atomic_load_explicit(&s->faults[i].fired, memory_order_relaxed));
    }
    yyjson_mut_obj_add_val(doc, root, "faults", list);
    sim_script_unref(s);
    return reply_doc(doc);
}

static struct reply set_faults(struct sim *sim, const char *json, size_t bytes)
{
    char error[SIM_SCRIPT_ERROR_BYTES];
    struct sim_script *now = sim_script_current(sim);
    struct sim_script *s = sim_script_parse(json, bytes, now, sim_now_us() / 1000, error);
    sim_script_unref(now);
    if (!s)
        return say(400, error);
    uint32_t version = sim_script_install(sim, s);
    for (unsigned i = 0; i < sim->workers_count; i++)
        for (unsigned waits = 0; !sim_worker_has_script(sim->workers[i], version); waits++) {
            if (waits == IN_FORCE_WAITS_MAX)
                return say(503, "a worker is busy; the script comes into force later");
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        }
    return say(200, "in force");
}

/* ---- HTTP ---- */

struct request {
    char *text; /* malloc'ed: head and body, ended */
    size_t bytes, head_bytes, body_bytes;
};

static bool read_more(int fd, struct request *q, size_t room)
{
    struct pollfd wait = {fd, POLLIN, 0};
    if (q->bytes >= room || poll(&wait, 1, CLIENT_WAIT_MS) != 1)
        return false;
    ssize_t n = read(fd, q->text + q->bytes, room - q->bytes);
    if (n <= 0)
        return false;
    q->bytes += (size_t)n;
    q->text[q->bytes] = '\0';
    return true;
}

/* Reads one request with its Content-Length body. */
static bool read_request(int fd, struct request *q)
{
    char *end = NULL;
    q->text = malloc(HEAD_BYTES_MAX + 1);
    if (q->text)
        q->text[0] = '\0';
    while (q->text && !(end = strstr(q->text, "\r\n\r\n")))
        if (!read_more(fd, q, HEAD_BYTES_MAX))
            return false;
    if (!end)
        return false;
    q->head_bytes = (size_t)(end + 4 - q->text);
    const char *length = strcasestr(q->text, "\r\ncontent-length:");
    uint64_t body = length && length < end ? strtoull(length + 17, NULL, 10) : 0;
    if (body > SIM_SCRIPT_BYTES_MAX)
        return false;
    char *wider = realloc(q->text, HEAD_BYTES_MAX + body + 1);
    if (!wider)
        return false;
    q->text = wider;
    q->body_bytes = body;
    while (q->bytes < q->head_bytes + body)
        if (!read_more(fd, q, q->head_bytes + body))
            return false;
    return true;
}

static struct reply route(struct sim *sim, struct request *q)
{
    char method[8] = "", path[256] = "";
    if (sscanf(q->text, "%7s %255s", method, path) != 2)
        return say(400, "not HTTP");
    char *query = strchr(path, '?');
    if (query)
        *query++ = '\0';
    bool get = strcmp(method, "GET") == 0;
    if (strcmp(path, "/stats") == 0 && get)
        return get_stats(sim);
    if (strcmp(path, "/record") == 0 && get)
        return get_record(sim, query);
    if (strcmp(path, "/faults") == 0 && get)
        return get_faults(sim);
    if (strcmp(path, "/faults") == 0 && strcmp(method, "POST") == 0)
        return set_faults(sim, q->text + q->head_bytes, q->body_bytes);
    if (strcmp(path, "/faults") == 0 && strcmp(method, "DELETE") == 0)
        return set_faults(sim, "{}", 2);
    return say(404, "GET /stats, GET /record[?tail=N], GET|POST|DELETE /faults");
}

static void write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        struct pollfd wait = {fd, POLLOUT, 0};
        ssize_t sent = poll(&wait, 1, CLIENT_WAIT_MS) == 1 ? send(fd, p, n, MSG_NOSIGNAL) : -1;
        if (sent <= 0)
            return;
        p += sent;
        n -= (size_t)sent;
    }
}

static void serve(struct sim *sim, int fd)
{
    char head[160];
    struct request q = {NULL, 0, 0, 0};
    struct reply r = read_request(fd, &q) ? route(sim, &q) : say(400, "no whole request");
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n"
                     "connection: close\r\n\r\n",
                     r.status, r.status < 300 ? "OK" : "Error", r.text ? r.bytes : 0);
    write_all(fd, head, (size_t)n);
    if (r.text)
        write_all(fd, r.text, r.bytes);
    free(r.text);
    free(q.text);
}

static void *control_main(void *arg)
{
    struct sim_control *c = arg;
    struct pollfd wait = {c->listener, POLLIN, 0};
    while (!atomic_load_explicit(&c->sim->stop, memory_order_relaxed)) {
        if (poll(&wait, 1, ACCEPT_CHECK_MS) != 1)
            continue;
        int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        serve(c->sim, fd);
        close(fd);
    }
    return NULL;
}

struct sim_control *sim_control_create(struct sim *sim)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(sim->control_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    int on = 1;
    struct sim_control *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->sim = sim;
    c->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&at, n) != 0 ||
        listen(c->listener, 64) != 0 || getsockname(c->listener, (struct sockaddr *)&at, &n) != 0) {
        fprintf(stderr, "belfry-sim: control port %u: %s\n", sim->control_port, strerror(errno));
        return NULL;
    }
    sim->control_port = ntohs(at.sin_port);
    if (pthread_create(&c->thread, NULL, control_main, c) == 0)
        return c;
    fprintf(stderr, "belfry-sim: no thread for the control port\n");
    return NULL;
}

void sim_control_destroy(struct sim_control *c)
{
    pthread_join(c->thread, NULL);
    close(c->listener);
    free(c);
}
