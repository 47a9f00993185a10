/* APNs clients of others: see pf_pusher.h. */
#include "pf_pusher.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pf_load.h"
#include "pf_node.h"
#include "pf_report.h"
#include "pf_sim.h"

#define LINE_BYTES 256

struct pf_pusher {
    pid_t pid;
    FILE *to, *from;
    char dir[64];
};

/* Runs |command|; its last line, without trailing space, goes to |ret|. */
static bool shell(const char *command, char *ret, size_t len)
{
    char line[LINE_BYTES];
    FILE *pipe = popen(command, "r");
    snprintf(ret, len, "it could not be run");
    while (pipe && fgets(line, sizeof(line), pipe)) {
        line[strcspn(line, "\r\n")] = '\0';
        const char *text = line + strspn(line, " \t");
        if (*text != '\0')
            snprintf(ret, len, "%s", text);
    }
    return pipe && pclose(pipe) == 0;
}

/* ---- how each is got ---- */

static bool get_apns2(const struct pf_pusher *p, char *why, size_t why_len)
{
    char command[3 * PF_PATH_BYTES];
    snprintf(command, sizeof(command),
             "cp '%s'/perf/peers/apns2/* %s/ && cd %s && "
             "npm ci --no-audit --no-fund --prefer-offline --loglevel=error 2>&1",
             pf_root(), p->dir, p->dir);
    return shell(command, why, why_len);
}

static bool get_sideshow(const struct pf_pusher *p, char *why, size_t why_len)
{
    char command[3 * PF_PATH_BYTES];
    snprintf(command, sizeof(command),
             "cd '%s/perf/peers/sideshow' && PATH=$PATH:/usr/local/go/bin "
             "go build -mod=readonly -o %s/pusher . 2>&1",
             pf_root(), p->dir);
    return shell(command, why, why_len);
}

static bool get_gorush(const struct pf_pusher *p, char *why, size_t why_len)
{
    char command[256];
    snprintf(command, sizeof(command),
             "cd %s && PATH=$PATH:/usr/local/go/bin go mod download "
             "github.com/appleboy/gorush@latest 2>&1",
             p->dir);
    if (shell(command, why, why_len))
        snprintf(why, why_len, "the module can be had, but this benchmark does not run it");
    return false;
}

static const struct {
    const char *name;
    bool (*get)(const struct pf_pusher *p, char *why, size_t why_len);
    const char *program, *script; /* |script|: in its directory, the program's first argument */
} rows[] = {
    {"apns2", get_apns2, "node", "push.js"},
    {"sideshow", get_sideshow, "pusher", NULL},
    {"gorush", get_gorush, NULL, NULL},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static size_t row_of(const char *name)
{
    size_t i = 0;
    while (i < ROWS && strcmp(rows[i].name, name) != 0)
        i++;
    return i;
}

bool pf_pusher_is_known(const char *name)
{
    return row_of(name) < ROWS;
}

/* ---- the process ---- */

static _Noreturn void become(const struct pf_pusher *p, size_t row, int core,
                             const struct pf_sim *sim, uint64_t payload, uint64_t under_way)
{
    char program[96], script[96], port[16], bytes[24], many[24];
    snprintf(program, sizeof(program), "%s%s%s", rows[row].script ? "" : p->dir,
             rows[row].script ? "" : "/", rows[row].program);
    snprintf(script, sizeof(script), "%s/%s", p->dir, rows[row].script ? rows[row].script : "");
    snprintf(port, sizeof(port), "%u", pf_sim_apns_port(sim));
    snprintf(bytes, sizeof(bytes), "%" PRIu64, payload);
    snprintf(many, sizeof(many), "%" PRIu64, under_way);
    setenv("NODE_EXTRA_CA_CERTS", pf_sim_ca_file(sim), 1);
    setenv("SSL_CERT_FILE", pf_sim_ca_file(sim), 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pf_pin(core);
    const char *argv[10] = {program, script, port, pf_sim_key_file(sim), PF_SIM_KEY_ID, PF_SIM_TEAM,
                            bytes,   many,   NULL};
    if (!rows[row].script)
        memmove(argv + 1, argv + 2, 8 * sizeof(argv[0]));
    execvp(program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

struct pf_pusher *pf_pusher_start(const char *name, int core, const struct pf_sim *sim,
                                  uint64_t payload, uint64_t under_way, char *why, size_t why_len)
{
    struct pf_pusher *p = calloc(1, sizeof(*p));
    size_t row = row_of(name);
    int to[2], from[2];
    if (!p || pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        pf_die("out of memory or descriptors");
    snprintf(p->dir, sizeof(p->dir), "/tmp/belfry-peer-XXXXXX");
    if (!mkdtemp(p->dir))
        pf_die("no directory in /tmp");
    p->to = fdopen(to[1], "w");
    p->from = fdopen(from[0], "r");
    if (!rows[row].get(p, why, why_len)) {
        close(to[0]);
        close(from[1]);
        pf_pusher_stop(p);
        return NULL;
    }
    p->pid = fork();
    if (p->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        become(p, row, core, sim, payload, under_way);
    }
    close(to[0]);
    close(from[1]);
    return p;
}

pid_t pf_pusher_pid(const struct pf_pusher *p)
{
    return p->pid;
}

bool pf_pusher_prepare(struct pf_pusher *p, uint64_t first, uint64_t count)
{
    char line[LINE_BYTES] = "";
    fprintf(p->to, "%" PRIu64 " %" PRIu64 "\n", first, count);
    fflush(p->to);
    return fgets(line, sizeof(line), p->from) && strcmp(line, "ready\n") == 0;
}

uint64_t pf_pusher_run(struct pf_pusher *p)
{
    char line[LINE_BYTES] = "";
    fputs("go\n", p->to);
    fflush(p->to);
    return fgets(line, sizeof(line), p->from) ? strtoull(line, NULL, 10) : 0;
}

void pf_pusher_stop(struct pf_pusher *p)
{
    char command[128];
    fclose(p->to);
    fclose(p->from);
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    snprintf(command, sizeof(command), "rm -rf '%s'", p->dir);
    if (system(command) != 0)
        pf_say("%s is left behind", p->dir);
    free(p);
}
