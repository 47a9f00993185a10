/* Peers: see pf_peer.h. */
#include "pf_peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pf_http.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_report.h"

#define NGINX         "/usr/sbin/nginx"
#define NGINX_MODULES "/usr/lib/nginx/modules"
#define GO_SOURCES    "/usr/share/gocode"
#define CONF_BYTES    8192u
/* nginx says nothing when it is ready: tries of 10 ms. */
#define READY_TRIES 500

struct pf_peer {
    pid_t pid;
    int in; /* stdin of ws and gorilla, -1 */
    uint16_t port;
    char dir[64];
    struct pf_http http; /* nchan's publisher */
};

/* Runs |argv| with a pipe to its stdin and reads the port from its stdout. */
static bool run_piped(struct pf_peer *peer, char *const argv[], int core)
{
    int to[2], from[2];
    char line[32] = "";
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        pf_die("no pipes");
    peer->pid = fork();
    if (peer->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pf_pin(core);
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    peer->in = to[1];
    ssize_t n = read(from[0], line, sizeof(line) - 1);
    close(from[0]);
    peer->port = n > 0 ? (uint16_t)strtoul(line, NULL, 10) : 0;
    return peer->port != 0;
}

static bool start_ws(struct pf_peer *peer, int core)
{
    char script[PF_PATH_BYTES + 32];
    snprintf(script, sizeof(script), "%s/perf/peers/ws.js", pf_root());
    setenv("NODE_PATH", "/usr/share/nodejs", 1);
    char name[] = "node";
    char *argv[] = {name, script, NULL};
    return run_piped(peer, argv, core);
}

static bool start_gorilla(struct pf_peer *peer, int core)
{
    char command[3 * PF_PATH_BYTES], program[96];
    snprintf(program, sizeof(program), "%s/gorilla", peer->dir);
    snprintf(command, sizeof(command),
             "GO111MODULE=off GOFLAGS= GOPATH=%s GOCACHE=%s/cache "
             "PATH=$PATH:/usr/local/go/bin go build -o %s '%s/perf/peers/gorilla.go' >&2",
             GO_SOURCES, peer->dir, program, pf_root());
    if (system(command) != 0)
        return false;
    char *argv[] = {program, NULL};
    return run_piped(peer, argv, core);
}

/* A Go module: its dependencies come through the module proxy, once, into Go's own caches. */
static bool start_centrifugo(struct pf_peer *peer, int core)
{
    char command[3 * PF_PATH_BYTES], program[96];
    snprintf(program, sizeof(program), "%s/centrifugo", peer->dir);
    snprintf(command, sizeof(command),
             "cd '%s/perf/peers/centrifugo' && PATH=$PATH:/usr/local/go/bin "
             "go build -mod=readonly -o %s . >&2",
             pf_root(), program);
    if (system(command) != 0)
        return false;
    char *argv[] = {program, NULL};
    return run_piped(peer, argv, core);
}

const char *pf_peer_connect_frame(const char *name)
{
    return strcmp(name, "centrifugo") == 0 ? "{\"id\":1,\"connect\":{}}" : NULL;
}

/* Replaces every @KEY@ in place of the template. */
static void fill(char *text, size_t cap, const char *key, const char *value)
{
    char out[CONF_BYTES];
    for (char *at; (at = strstr(text, key)) != NULL;) {
        snprintf(out, sizeof(out), "%.*s%s%s", (int)(at - text), text, value, at + strlen(key));
        snprintf(text, cap, "%s", out);
    }
}

static uint16_t free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        pf_die("no free port");
    close(fd);
    return ntohs(at.sin_port);
}

static bool nchan_conf(const struct pf_peer *peer, const char *path)
{
    char text[CONF_BYTES] = "", source[PF_PATH_BYTES + 32], port[16];
    snprintf(source, sizeof(source), "%s/perf/peers/nchan.conf", pf_root());
    FILE *from = fopen(source, "re");
    FILE *to = fopen(path, "we");
    if (!from || !to)
        return false;
    size_t n = fread(text, 1, sizeof(text) - 1, from);
    text[n] = '\0';
    snprintf(port, sizeof(port), "%u", peer->port);
    fill(text, sizeof(text), "@MODULES@", NGINX_MODULES);
    fill(text, sizeof(text), "@DIR@", peer->dir);
    fill(text, sizeof(text), "@PORT@", port);
    fputs(text, to);
    fclose(from);
    return fclose(to) == 0;
}

static bool start_nchan(struct pf_peer *peer, int core)
{
    char path[96];
    peer->port = free_port();
    snprintf(path, sizeof(path), "%s/nginx.conf", peer->dir);
    if (!nchan_conf(peer, path))
        return false;
    peer->pid = fork();
    if (peer->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pf_pin(core);
        execl(NGINX, NGINX, "-c", path, "-p", peer->dir, NULL);
        _exit(127);
    }
    for (int i = 0; i < READY_TRIES; i++) {
        int fd = pf_tcp_connect("127.0.0.1", peer->port);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        if (waitpid(peer->pid, NULL, WNOHANG) == peer->pid) {
            peer->pid = 0;
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

struct pf_peer *pf_peer_start(const char *name, int core)
{
    static const struct {
        const char *name, *needs;
        bool (*start)(struct pf_peer *, int);
    } rows[] = {
        {"ws", "nodejs, node-ws", start_ws},
        {"gorilla", "golang-go, golang-github-gorilla-websocket-dev", start_gorilla},
        {"nchan", "nginx-light, libnginx-mod-nchan", start_nchan},
        {"centrifugo", "golang-go 1.24 or newer, and the Go module proxy once", start_centrifugo},
    };
    struct pf_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        pf_die("out of memory");
    peer->in = -1;
    peer->http.fd = -1;
    snprintf(peer->dir, sizeof(peer->dir), "/tmp/belfry-peer-XXXXXX");
    if (!mkdtemp(peer->dir))
        pf_die("no directory in /tmp");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        if (rows[i].start(peer, core))
            return peer;
        pf_say("%s did not start; it needs %s", name, rows[i].needs);
        pf_peer_stop(peer);
        return NULL;
    }
    pf_die("no peer %s: ws, gorilla, nchan, centrifugo", name);
}

uint16_t pf_peer_port(const struct pf_peer *peer)
{
    return peer->port;
}

pid_t pf_peer_pid(const struct pf_peer *peer)
{
    return peer->pid;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

bool pf_peer_broadcast(struct pf_peer *peer, const void *payload, size_t len)
{
    char head[32];
    if (peer->in < 0) {
        int status = pf_http_call(&peer->http, "127.0.0.1", peer->port, "POST", "/publish", NULL,
                                  "text/plain", payload, len, NULL, 0);
        return status >= 200 && status < 300;
    }
    int n = snprintf(head, sizeof(head), "%zu\n", len);
    return write_all(peer->in, head, (size_t)n) && write_all(peer->in, payload, len);
}

void pf_peer_stop(struct pf_peer *peer)
{
    char command[128];
    pf_http_close(&peer->http);
    if (peer->in >= 0)
        close(peer->in);
    if (peer->pid > 0) {
        kill(peer->pid, SIGKILL);
        waitpid(peer->pid, NULL, 0);
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", peer->dir);
    if (system(command) != 0)
        pf_say("%s is left behind", peer->dir);
    free(peer);
}
