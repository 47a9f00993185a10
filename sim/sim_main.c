/* belfry-sim: push providers to test against. Options, start, ready line, signals. docs/SIM.md. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/base/port.h"
#include "sim_control.h"
#include "sim_hpack.h"
#include "sim_jwt.h"
#include "sim_provider.h"
#include "sim_text.h"
#include "sim_tls.h"
#include "sim_worker.h"

static const char help_text[] =
    "belfry-sim: APNs, FCM, its OAuth endpoint and Web Push, to test and load a sender without a "
    "vendor.\n"
    "\n"
    "Listens on ports of its own with TLS and HTTP/2, makes development credentials, checks "
    "requests as the\n"
    "providers document it, spoils what the fault script says, records what it got. When ready it "
    "prints one\n"
    "JSON object: ports, CA, keys. SIGTERM or SIGINT ends it. docs/SIM.md tells the whole story.\n"
    "\n"
    "  belfry-sim --state /tmp/sim                         all ports chosen, credentials in "
    "/tmp/sim\n"
    "  belfry-sim --state /tmp/sim --record /tmp/sim.log   one JSON line for each request\n"
    "  belfry-sim --state /tmp/sim --faults script.json    "
    "{\"faults\":[{\"kind\":\"storm\",\"rate\":0.2}]}\n"
    "  curl -d '{\"faults\":[{\"kind\":\"dead\",\"rate\":0.01}]}' http://127.0.0.1:CONTROL/faults\n"
    "\n"
    "Options:\n";

struct options {
    const char *state, *record, *faults, *environment, *topics, *project, *address;
    const char *keys[SIM_APNS_KEYS_MAX];
    uint64_t keys_count;
    uint64_t ports[SIM_PROVIDER_COUNT], control_port, threads, seed, streams, token_update_s,
        access_ttl_s;
    bool payload;
};

enum option_kind { OPT_TEXT, OPT_NUMBER, OPT_FLAG, OPT_KEY };

struct option_row {
    const char *name;
    enum option_kind kind;
    size_t offset;
    uint64_t max;
    const char *help;
};

#define AT(field) offsetof(struct options, field)
static const struct option_row rows[] = {
    {"--state", OPT_TEXT, AT(state), 0, "DIR     credentials, made there once (required)"},
    {"--address", OPT_TEXT, AT(address), 0, "IP      to listen on (127.0.0.1)"},
    {"--apns-port", OPT_NUMBER, AT(ports[SIM_APNS]), 65535, "N       0 = any (0)"},
    {"--fcm-port", OPT_NUMBER, AT(ports[SIM_FCM]), 65535, "N"},
    {"--oauth-port", OPT_NUMBER, AT(ports[SIM_OAUTH]), 65535, "N"},
    {"--webpush-port", OPT_NUMBER, AT(ports[SIM_WEBPUSH]), 65535, "N"},
    {"--control-port", OPT_NUMBER, AT(control_port), 65535, "N       on 127.0.0.1"},
    {"--threads", OPT_NUMBER, AT(threads), SIM_WORKERS_MAX,
     "N       workers, each with its own listeners (1)"},
    {"--seed", OPT_NUMBER, AT(seed), UINT64_MAX, "N       of all random choices (1)"},
    {"--streams", OPT_NUMBER, AT(streams), 1000000,
     "N       SETTINGS_MAX_CONCURRENT_STREAMS (1000)"},
    {"--record", OPT_TEXT, AT(record), 0, "FILE    JSON lines, appended; without it: fast mode"},
    {"--payload", OPT_FLAG, AT(payload), 0, "        the record holds bodies too"},
    {"--faults", OPT_TEXT, AT(faults), 0, "FILE    fault script in force from the start"},
    {"--environment", OPT_TEXT, AT(environment), 0,
     "NAME    APNs: production or sandbox (production)"},
    {"--topics", OPT_TEXT, AT(topics), 0, "A,B     APNs: bundle ids that exist (any)"},
    {"--apns-key", OPT_KEY, AT(keys), 0,
     "KID:TEAM:FILE   a provider key of yours, PEM; again for more"},
    {"--token-update-s", OPT_NUMBER, AT(token_update_s), UINT32_MAX,
     "N  APNs: least time between new tokens (1200)"},
    {"--project", OPT_TEXT, AT(project), 0, "NAME    FCM project (belfry-sim)"},
    {"--access-ttl-s", OPT_NUMBER, AT(access_ttl_s), UINT32_MAX,
     "N    life of an access token (3599)"},
};

static _Noreturn void die(const char *what, const char *name)
{
    fprintf(stderr, "belfry-sim: %s %s; --help says more\n", what, name);
    exit(2);
}

static _Noreturn void print_help(void)
{
    fputs(help_text, stdout);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        printf("  %-16s %s\n", rows[i].name, rows[i].help);
    exit(0);
}

static void set_option(struct options *o, const struct option_row *row, const char *value)
{
    char *at = (char *)o + row->offset;
    if (row->kind == OPT_TEXT) {
        *(const char **)(void *)at = value;
    } else if (row->kind == OPT_KEY) {
        if (o->keys_count == SIM_APNS_KEYS_MAX)
            die("too many", row->name);
        o->keys[o->keys_count++] = value;
    } else {
        struct sim_slice s = {value, (uint32_t)strlen(value)};
        if (!sim_text_number(s, row->max, (uint64_t *)(void *)at))
            die("not a good number for", row->name);
    }
}

static void read_options(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const struct option_row *row = NULL;
        for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++)
            if (strcmp(argv[i], rows[k].name) == 0)
                row = &rows[k];
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            print_help();
        if (!row)
            die("unknown option", argv[i]);
        if (row->kind == OPT_FLAG) {
            *(bool *)(void *)((char *)o + row->offset) = true;
            continue;
        }
        if (i + 1 == argc)
            die("no value for", argv[i]);
        set_option(o, row, argv[++i]);
    }
    if (!o->state)
        die("wanted:", "--state");
    if (o->threads == 0)
        die("at least one of", "--threads");
}

/* ---- start ---- */

static void set_topics(struct sim_world *w, const char *list)
{
    while (list && *list) {
        size_t n = strcspn(list, ",");
        if (w->topics_count == SIM_APNS_TOPICS_MAX || n == 0 || n >= SIM_TOPIC_BYTES_MAX)
            die("not a good list in", "--topics");
        sim_text_copy(w->topics[w->topics_count++], SIM_TOPIC_BYTES_MAX,
                      (struct sim_slice){list, (uint32_t)n});
        list += n + (list[n] == ',');
    }
}

static void set_world(struct sim *sim, const struct options *o)
{
    struct sim_world *w = &sim->world;
    if (strcmp(o->environment, "sandbox") != 0 && strcmp(o->environment, "production") != 0)
        die("production or sandbox for", "--environment");
    w->sandbox = strcmp(o->environment, "sandbox") == 0;
    w->token_update_min_s = (uint32_t)o->token_update_s;
    w->token_age_max_s = 3600;
    w->access_token_ttl_s = (uint32_t)o->access_ttl_s;
    w->webpush_ttl_max_s = 2419200; /* four weeks, as the large services keep a message */
    snprintf(w->fcm_project, sizeof(w->fcm_project), "%s", o->project);
    snprintf(w->oauth_email, sizeof(w->oauth_email), "belfry-sim@%.60s.iam.gserviceaccount.com",
             o->project);
    set_topics(w, o->topics);
}

static bool add_keys(struct sim *sim, const struct options *o)
{
    for (uint64_t i = 0; i < o->keys_count; i++) {
        char kid[16], team[16];
        int at = 0;
        if (sscanf(o->keys[i], "%15[^:]:%15[^:]:%n", kid, team, &at) != 2 || at == 0)
            die("KID:TEAM:FILE for", "--apns-key");
        if (!sim_creds_add_key(&sim->creds, &sim->world, kid, team, o->keys[i] + at))
            return false;
    }
    return true;
}

static char *read_file(const char *path, size_t *ret_bytes)
{
    FILE *f = fopen(path, "r");
    char *text = f ? malloc(SIM_SCRIPT_BYTES_MAX) : NULL;
    if (!text)
        die(strerror(errno), path);
    *ret_bytes = fread(text, 1, SIM_SCRIPT_BYTES_MAX, f);
    fclose(f);
    return text;
}

static void first_script(struct sim *sim, const struct options *o)
{
    char error[SIM_SCRIPT_ERROR_BYTES], seed[64];
    int n = snprintf(seed, sizeof(seed), "{\"seed\":%" PRIu64 "}", o->seed);
    int64_t now_ms = sim_now_us() / 1000;
    struct sim_script *s = sim_script_parse(seed, (size_t)n, NULL, now_ms, error);
    if (o->faults && s) {
        size_t bytes = 0;
        char *text = read_file(o->faults, &bytes);
        struct sim_script *scripted = sim_script_parse(text, bytes, s, now_ms, error);
        free(text);
        sim_script_unref(s);
        s = scripted;
    }
    if (!s)
        die(error, o->faults ? o->faults : "script");
    sim_script_install(sim, s);
}

/* Its listeners share a port by SO_REUSEPORT: another simulator there would share ours too. */
static bool claim_port(const struct sim *sim, unsigned p, int *ret_claim)
{
    char why[512];
    *ret_claim = sim->port[p] != 0 ? bf_port_claim(sim->address, sim->port[p]) : -1;
    if (sim->port[p] == 0 || *ret_claim >= 0)
        return true;
    bf_port_explain(*ret_claim, sim->address, sim->port[p], "its --...-port option", why,
                    sizeof(why));
    fprintf(stderr, "belfry-sim: %s\n", why);
    return false;
}

static bool create_workers(struct sim *sim, const struct options *o)
{
    int claims[SIM_PROVIDER_COUNT];
    bool ok = true;
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++)
        claims[p] = -1;
    for (unsigned p = 0; ok && p < SIM_PROVIDER_COUNT; p++)
        ok = claim_port(sim, p, &claims[p]);
    for (unsigned i = 0; ok && i < o->threads; i++) {
        sim->workers[i] = sim_worker_create(sim, i);
        ok = sim->workers[i] != NULL;
        sim->workers_count += ok;
    }
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++) {
        if (claims[p] >= 0)
            close(claims[p]);
    }
    return ok;
}

static bool start(struct sim *sim, const struct options *o)
{
    sim->channels = sim_channels_create();
    if (!sim->channels || !sim_creds_open(&sim->creds, o->state, &sim->world) || !add_keys(sim, o))
        return false;
    first_script(sim, o);
    if (o->record &&
        !(sim->record = sim_record_create(o->record, (unsigned)o->threads, o->payload)))
        return false;
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++) {
        sim->port[p] = (uint16_t)o->ports[p];
        sim->tls[p] = sim_tls_create(&sim->creds, (enum sim_provider_id)p);
        if (!sim->tls[p])
            return false;
    }
    if (!create_workers(sim, o))
        return false;
    snprintf(sim->world.oauth_token_uri, sizeof(sim->world.oauth_token_uri),
             "https://localhost:%u/token", sim->port[SIM_OAUTH]);
    return sim_creds_write_account(&sim->creds, &sim->world);
}

/* ---- the ready line ---- */

static void add_path(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name,
                     const struct sim *sim, const char *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", sim->creds.dir, file);
    yyjson_mut_obj_add_strcpy(doc, o, name, path);
}

static void add_apns(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct sim *sim)
{
    static const char *const environments[] = {"both", "sandbox", "production"};
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    yyjson_mut_obj_add_str(doc, o, "key_id", sim->world.keys[0].kid);
    yyjson_mut_obj_add_str(doc, o, "team_id", sim->world.keys[0].team);
    yyjson_mut_obj_add_str(doc, o, "key", sim->world.keys[0].path);
    add_path(doc, o, "cert", sim, "client.pem");
    add_path(doc, o, "cert_key", sim, "client.key");
    add_path(doc, o, "cert_sandbox", sim, "client_sandbox.pem");
    add_path(doc, o, "cert_sandbox_key", sim, "client_sandbox.key");
    for (uint32_t i = 0; i < sim->world.keys_count; i++) {
        const struct sim_apns_key *k = &sim->world.keys[i];
        yyjson_mut_val *row = yyjson_mut_arr_add_obj(doc, list);
        yyjson_mut_obj_add_str(doc, row, "key_id", k->kid);
        yyjson_mut_obj_add_str(doc, row, "team_id", k->team);
        yyjson_mut_obj_add_str(doc, row, "key", k->path);
        yyjson_mut_obj_add_int(doc, row, "group", k->group);
        yyjson_mut_obj_add_str(doc, row, "environment", environments[k->env]);
        yyjson_mut_obj_add_bool(doc, row, "revoked", k->revoked);
    }
    yyjson_mut_obj_add_val(doc, o, "keys", list);
}

static void print_ready(const struct sim *sim)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++) {
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        yyjson_mut_obj_add_uint(doc, o, "port", sim->port[p]);
        if (p == SIM_APNS)
            add_apns(doc, o, sim);
        if (p == SIM_FCM) {
            yyjson_mut_obj_add_str(doc, o, "project", sim->world.fcm_project);
            add_path(doc, o, "service_account", sim, "service_account.json");
        }
        if (p == SIM_OAUTH)
            yyjson_mut_obj_add_str(doc, o, "token_uri", sim->world.oauth_token_uri);
        yyjson_mut_obj_add_val(doc, root, sim_providers[p].name, o);
    }
    add_path(doc, root, "ca", sim, "ca.pem");
    yyjson_mut_val *control = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_uint(doc, control, "port", sim->control_port);
    yyjson_mut_obj_add_val(doc, root, "control", control);
    yyjson_mut_obj_add_int(doc, root, "pid", getpid());
    char *text = yyjson_mut_write(doc, 0, NULL);
    puts(text ? text : "{}");
    fflush(stdout);
    free(text);
    yyjson_mut_doc_free(doc);
}

static void stop(struct sim *sim, struct sim_control *control)
{
    atomic_store_explicit(&sim->stop, true, memory_order_relaxed); /* joined below */
    sim_control_destroy(control);
    for (unsigned i = 0; i < sim->workers_count; i++)
        sim_worker_destroy(sim->workers[i]);
    sim_record_destroy(sim->record);
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++)
        SSL_CTX_free(sim->tls[p]);
    sim_script_unref(sim->script);
    sim_channels_destroy(sim->channels);
    sim_creds_close(&sim->creds);
}

int main(int argc, char **argv)
{
    static struct sim sim = {.script_lock = PTHREAD_MUTEX_INITIALIZER};
    struct options o = {.address = "127.0.0.1",
                        .environment = "production",
                        .project = "belfry-sim",
                        .threads = 1,
                        .seed = 1,
                        .streams = SIM_STREAMS_CONCURRENT,
                        .token_update_s = 1200,
                        .access_ttl_s = 3599};
    sigset_t set;
    read_options(&o, argc, argv);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before the threads: they inherit it */
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    sim.seed = o.seed;
    sim.streams_max = (uint32_t)o.streams;
    sim.control_port = (uint16_t)o.control_port;
    snprintf(sim.address, sizeof(sim.address), "%s", o.address);
    set_world(&sim, &o);
    sim_hpack_setup(sim_stream_tag);
    if (!start(&sim, &o))
        return 1;
    for (unsigned i = 0; i < sim.workers_count; i++)
        if (!sim_worker_start(sim.workers[i]))
            return 1;
    struct sim_control *control = sim_control_create(&sim);
    if (!control)
        return 1;
    print_ready(&sim);
    int number = 0;
    sigwait(&set, &number);
    stop(&sim, control);
    return 0;
}
