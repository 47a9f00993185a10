/* belfry-sim as a child: see pf_sim.h. */
#include "pf_sim.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/shm/push_wire.h"
#include "belfry/shm/snapshot.h"
#include "pf_http.h"
#include "pf_jwt.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_report.h"

#define LINE_BYTES 8192u
#define FILE_BYTES 16384u

struct pf_sim {
    pid_t pid;
    FILE *out;
    char dir[64];
    char ca[FILE_BYTES];
    char ca_file[256];
    char key_file[256];
    char authorization[PF_JWT_BYTES_MAX + 16];
    uint16_t apns_port;
    uint16_t control_port;
};

static void read_file(const char *path, char *to, size_t cap)
{
    FILE *file = fopen(path, "re");
    if (!file)
        pf_die("cannot read %s", path);
    to[fread(to, 1, cap - 1, file)] = '\0';
    fclose(file);
}

static void run(struct pf_sim *sim, int core, uint32_t streams, const char *faults, int out)
{
    char program[PF_PATH_BYTES], state[80], streams_text[16], script[80];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    snprintf(slash + 1, sizeof(program) - (size_t)(slash + 1 - program), "belfry-sim");
    snprintf(state, sizeof(state), "%s", sim->dir);
    snprintf(streams_text, sizeof(streams_text), "%u", streams);
    snprintf(script, sizeof(script), "%s/faults.json", sim->dir);
    if (faults) {
        FILE *file = fopen(script, "we");
        if (!file || fputs(faults, file) < 0 || fclose(file) != 0)
            _exit(1);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    pf_pin(core);
    dup2(out, STDOUT_FILENO);
    execl(program, program, "--state", state, "--streams", streams_text, faults ? "--faults" : NULL,
          script, NULL);
    perror(program);
    _exit(1);
}

static void read_ready(struct pf_sim *sim)
{
    static char line[LINE_BYTES];
    if (!fgets(line, sizeof(line), sim->out))
        pf_die("belfry-sim did not start");
    yyjson_doc *doc = yyjson_read(line, strlen(line), 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *apns = yyjson_obj_get(root, "apns");
    const char *ca = yyjson_get_str(yyjson_obj_get(root, "ca"));
    const char *key = yyjson_get_str(yyjson_obj_get(apns, "key"));
    sim->apns_port = (uint16_t)yyjson_get_uint(yyjson_obj_get(apns, "port"));
    sim->control_port =
        (uint16_t)yyjson_get_uint(yyjson_obj_get(yyjson_obj_get(root, "control"), "port"));
    if (!ca || !key || sim->apns_port == 0)
        pf_die("belfry-sim said %s", line);
    snprintf(sim->ca_file, sizeof(sim->ca_file), "%s", ca);
    read_file(sim->ca_file, sim->ca, sizeof(sim->ca));
    snprintf(sim->key_file, sizeof(sim->key_file), "%s", key);
    yyjson_doc_free(doc);
}

struct pf_sim *pf_sim_start(int core, uint32_t streams, const char *faults)
{
    struct pf_sim *sim = calloc(1, sizeof(*sim));
    int ends[2];
    if (!sim || pipe(ends) != 0)
        pf_die("out of memory");
    snprintf(sim->dir, sizeof(sim->dir), "/tmp/belfry-sim-XXXXXX");
    if (!mkdtemp(sim->dir))
        pf_die("no directory in /tmp");
    sim->pid = fork();
    if (sim->pid == 0)
        run(sim, core, streams, faults, ends[1]);
    if (sim->pid < 0)
        pf_die("fork failed");
    close(ends[1]);
    sim->out = fdopen(ends[0], "r");
    read_ready(sim);
    FILE *file = fopen(sim->key_file, "re");
    EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;
    if (!key)
        pf_die("cannot read %s", sim->key_file);
    fclose(file);
    size_t n = (size_t)snprintf(sim->authorization, sizeof(sim->authorization), "bearer ");
    n += pf_jwt_mint_apns(key, PF_SIM_KEY_ID, PF_SIM_TEAM, (uint64_t)time(NULL),
                          sim->authorization + n);
    sim->authorization[n] = '\0';
    EVP_PKEY_free(key);
    return sim;
}

void pf_sim_stop(struct pf_sim *sim)
{
    char command[128];
    kill(sim->pid, SIGTERM);
    waitpid(sim->pid, NULL, 0);
    fclose(sim->out);
    snprintf(command, sizeof(command), "rm -rf '%s'", sim->dir);
    if (system(command) != 0)
        pf_say("%s is left behind", sim->dir);
    free(sim);
}

pid_t pf_sim_pid(const struct pf_sim *sim)
{
    return sim->pid;
}

uint16_t pf_sim_apns_port(const struct pf_sim *sim)
{
    return sim->apns_port;
}

uint16_t pf_sim_control_port(const struct pf_sim *sim)
{
    return sim->control_port;
}

const char *pf_sim_dir(const struct pf_sim *sim)
{
    return sim->dir;
}

const char *pf_sim_ca_file(const struct pf_sim *sim)
{
    return sim->ca_file;
}

const char *pf_sim_key_file(const struct pf_sim *sim)
{
    return sim->key_file;
}

const char *pf_sim_authorization(const struct pf_sim *sim)
{
    return sim->authorization;
}

uint64_t pf_sim_stat(const struct pf_sim *sim, const char *name)
{
    static char text[FILE_BYTES];
    struct pf_http http = {.fd = -1};
    int status = pf_http_call(&http, "127.0.0.1", sim->control_port, "GET", "/stats", NULL, NULL,
                              NULL, 0, text, sizeof(text));
    pf_http_close(&http);
    yyjson_doc *doc = status == 200 ? yyjson_read(text, strlen(text), 0) : NULL;
    yyjson_val *value = yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "apns"), name);
    if (!value)
        pf_die("belfry-sim: no %s in its /stats (status %d)", name, status);
    uint64_t count = yyjson_get_uint(value);
    yyjson_doc_free(doc);
    return count;
}

void pf_sim_put_pool(const struct pf_sim *sim, struct bf_writer *out, const struct pf_pool *pool)
{
    static uint8_t bytes[FILE_BYTES * 2];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    bf_put_u32(&w, pool->id);
    bf_put_u8(&w, BF_PUSH_APNS);
    bf_put_str16(&w, BF_BYTES("perf"));
    bf_put_str16(&w, BF_BYTES("api.push.apple.com"));
    bf_put_str16(&w, BF_BYTES("localhost"));
    bf_put_u8(&w, 1);
    bf_put_str16(&w, BF_BYTES("127.0.0.1"));
    bf_put_u16(&w, pool->port ? pool->port : sim->apns_port);
    bf_put_u16(&w, pool->connections_min);
    bf_put_u16(&w, pool->connections_max);
    bf_put_u32(&w, pool->streams_first);
    bf_put_u32(&w, pool->ping_idle_ms);
    bf_put_u8(&w, 0);
    bf_put_str32(&w, (struct bf_bytes){sim->authorization, strlen(sim->authorization)});
    bf_put_str32(&w, (struct bf_bytes){0});
    bf_put_str32(&w, (struct bf_bytes){0});
    bf_put_str32(&w, (struct bf_bytes){sim->ca, strlen(sim->ca)});
    bf_put_u16(out, BF_SNAP_PUSH_POOL);
    bf_put_str32(out, (struct bf_bytes){(const char *)bytes, w.len});
}
