/* The configuration loader: defaults, every kind of error by name and line, lists, keys (OPS-1). */
#include <criterion/criterion.h>
#include <unistd.h>

#include "belfry/conf/conf_load.h"
#include "belfry/conf/conf_print.h"

static struct bf_conf *load_ok(const char *text)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    int rc =
        bf_conf_load_text("t.yaml", (const uint8_t *)text, strlen(text), &conf, err, sizeof(err));
    cr_assert_eq(rc, 0, "%s", err);
    return conf;
}

static void expect_error(const char *text, const char *needle)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    int rc =
        bf_conf_load_text("t.yaml", (const uint8_t *)text, strlen(text), &conf, err, sizeof(err));
    cr_assert_eq(rc, BF_ERR_MALFORMED, "accepted: %s", text);
    cr_assert_null(conf);
    cr_assert(strstr(err, needle) != NULL, "for\n%s\nwanted '%s' in '%s'", text, needle, err);
}

Test(conf, no_file_gives_defaults)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    cr_assert_eq(bf_conf_load(NULL, &conf, err, sizeof(err)), 0);
    cr_assert_eq(conf->api_port, 8080);
    cr_assert_str_eq(conf->log_engine, "embedded");
    cr_assert_eq(conf->jwt_key_count, 0);
    bf_conf_free(conf);
    bf_conf_free(NULL);
}

Test(conf, missing_file_is_said)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    cr_assert_eq(bf_conf_load("/nonexistent/b.yaml", &conf, err, sizeof(err)), -ENOENT);
    cr_assert(strstr(err, "/nonexistent/b.yaml") != NULL);
}

Test(conf, empty_texts_give_defaults)
{
    bf_conf_free(load_ok(""));
    bf_conf_free(load_ok("# only a comment\n"));
    bf_conf_free(load_ok("api:\ntopics:\n  broadcast:\n"));
}

Test(conf, values_of_every_type)
{
    struct bf_conf *conf =
        load_ok("node: {id: n7}\n"
                "dataplane:\n  workers: 4\n  busy_poll: true\n"
                "api:\n  port: 0\n  host: \"::1\"\n"
                "log:\n  kafka:\n    topics:\n      dlq: \"x.dlq\"\n"
                "topics:\n  broadcast: [news, \"score.*\"]\n  public: [\"*\"]\n");
    cr_assert_str_eq(conf->node_id, "n7");
    cr_assert_eq(conf->workers, 4);
    cr_assert(conf->busy_poll);
    cr_assert_eq(conf->api_port, 0);
    cr_assert_str_eq(conf->kafka_topic_dlq, "x.dlq");
    cr_assert_eq(conf->broadcast_topic_count, 2);
    cr_assert_str_eq(conf->broadcast_topics[1], "score.*");
    cr_assert_eq(conf->public_topic_count, 1);
    bf_conf_free(conf);
}

static const struct {
    const char *text;
    const char *needle;
} wrong[] = {
    {"api: {port: 70000}", "t.yaml:1: api.port: 70000 port is out of range; allowed 0..65535"},
    {"api:\n  port: many\n", "t.yaml:2: api.port: 'many' is not a whole number"},
    {"api:\n  port: -1\n", "is not a whole number"},
    {"api:\n  port: 99999999999999999999999\n", "is not a whole number"},
    {"api:\n  prot: 1\n", "t.yaml:2: unknown option 'api.prot'; did you mean 'api.port'?"},
    {"topic: {}\n", "unknown option 'topic'"},
    {"topics: {brodcast: []}\n", "did you mean 'topics.broadcast'"},
    {"api: 3\n", "api: is a section"},
    {"- 1\n- 2\n", "the file: is a section"},
    {"api: {port: [1]}\n", "takes one value"},
    {"api: {port: 1, port: 2}\n", "set twice, first at line 1"},
    {"dataplane: {busy_poll: yes}\n", "allowed true, false"},
    {"node: {id: \"\"}\n", "0 bytes long; allowed 1..64"},
    {"node: {id: \"a\\0b\"}\n", "no zeros"},
    {"api: {port: 1\n", "not valid YAML"},
    {"shm: {command_slots: 1000}\n", "t.yaml:1: shm.command_slots: 1000 is not a power of two"},
    {"websocket: {ping_interval: 60000}\n", "must be longer than"},
    {"websocket: {ping_interval: 90s}\n",
     "t.yaml: websocket.presence_timeout (1min) must be longer than websocket.ping_interval (90s)"},
    {"websocket:\n  ping_interval: 10 sec\n", "t.yaml:2: websocket.ping_interval: '10 sec' has a "
                                              "blank between number and unit; allowed 100ms to 1h, "
                                              "as a whole number and a unit (ms, s, m, min, h, d "
                                              "or w), e.g. 30s (a plain number counts in ms)"},
    {"websocket: {ping_interval: 50}\n",
     "websocket.ping_interval: '50' is out of range; allowed 100ms to 1h, as a"},
    {"websocket: {ping_interval: 2h}\n",
     "websocket.ping_interval: '2h' is out of range; allowed 100ms to 1h"},
    {"websocket: {ping_interval: -1}\n",
     "websocket.ping_interval: '-1' is negative; allowed 100ms to 1h"},
    {"websocket: {lifetime: 400d}\n",
     "websocket.lifetime: '400d' is out of range; allowed 0 to 365d"},
    {"websocket: {queue_bytes: 64KB}\n", "websocket.queue_bytes: '64KB' has the unit 'KB', a power "
                                         "of ten to some and a power of two to others: write KiB "
                                         "(powers of two); allowed 4KiB to 16MiB, as a whole "
                                         "number and a unit (B, KiB, MiB, GiB or TiB), "
                                         "e.g. 256KiB (a plain number counts in bytes)"},
    {"api: {idle_timeout: 1500ms}\n", "api.idle_timeout: '1500ms' is not a whole number of s, "
                                      "which this option counts in; allowed 1s to 1d"},
    {"api: {rate_per_min: 20/s}\n",
     "api.rate_per_min: '20/s' has the unit '/s', which this option does not take; allowed 0 to "
     "100000000/min, "
     "as a whole number and a unit (/min), e.g. 1000/min (a plain number counts in requests/min)"},
    {"admission: {accept_rate: lots}\n",
     "e.g. 10000000/s (a plain number counts in connections/s)"},
    {"push: {device_stale: 36h}\n", "push.device_stale: '36h' is not a whole number of days"},
    {"store: {cache: 256MB}\n", "store.cache: '256MB' has the unit 'MB'"},
    {"log: {disk_reserve: 99999999999999999999999}\n",
     "log.disk_reserve: '99999999999999999999999' is out of range; allowed 1MiB to 1TiB"},
    {"api: {port: 80s}\n", "api.port: '80s' is not a whole number; allowed 0..65535 port"},
    {"api: {host: localhost}\n", "not an IPv4 or IPv6 address"},
    {"log: {engine: redis}\n", "allowed embedded, kafka"},
    {"log: {engine: kafka}\n", "needs log.kafka.brokers"},
    {"log: {kafka: {acks: \"0\"}}\n", "allowed all, 1"},
    {"log: {kafka: {security: {protocol: tls}}}\n", "sasl_ssl"},
    {"log: {kafka: {security: {protocol: ssl, key_file: k}}}\n", "come together"},
    {"log: {kafka: {security: {protocol: sasl_ssl}}}\n", "needs log.kafka.sasl.username"},
    {"log: {kafka: {sasl: {username: u}}}\n", "asks for none"},
    {"log: {kafka: {sasl: {mechanism: MD5}}}\n", "SCRAM-SHA-256"},
    {"topics: {public: [\"a*b\"]}\n", "at the end only"},
    {"topics: {public: x}\n", "takes a list"},
    {"topics: {public: [{}]}\n", "takes topic names"},
    {"websocket: {jwt_keys: [x]}\n", "each entry is"},
    {"websocket: {jwt_keys: [{kid: a, alg: none, secret_env: HOME}]}\n", "alg 'none'; allowed"},
    {"websocket: {jwt_keys: [{kid: a, alg: HS256}]}\n", "exactly one of file, secret_env"},
    {"websocket: {jwt_keys: [{kid: a, alg: HS256, file: a, secret_env: b}]}\n", "exactly one"},
    {"websocket: {jwt_keys: [{kid: a, alg: HS256, secret_env: BF_NOT_SET}]}\n", "is not set"},
    {"websocket: {jwt_keys: [{kid: a, alg: HS256, file: /nonexistent/k}]}\n", "cannot read"},
    {"websocket: {jwt_keys: [{kid: a, algo: HS256}]}\n", "'algo': a key takes"},
    {"dev: {jwt_secret_file: /nonexistent/k}\n", "dev.jwt_secret_file: cannot read"},
    {"&a [*a]\n", "the file: is a section"},
    {"api: &a {host: *a}\n", "takes one value"},
};

Test(conf, each_error_names_line_and_cause)
{
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect_error(wrong[i].text, wrong[i].needle);
}

Test(conf, amounts_with_units_and_without)
{
    struct bf_conf *conf =
        load_ok("websocket: {ping_interval: 10s, presence_timeout: 25000, lifetime: 12h, "
                "queue_bytes: 1MiB}\n"
                "fanout: {inbox_ttl: 30d, rate: 500/s}\n"
                "push: {device_stale: 4w}\n"
                "store: {cache: 2GiB, write_buffer: 64}\n"
                "api: {rate_min: 4KiB/s, rate_per_min: \"60/min\"}\n");
    cr_expect_eq(conf->ping_interval_ms, 10000);
    cr_expect_eq(conf->presence_timeout_ms, 25000);
    cr_expect_eq(conf->lifetime_s, 43200);
    cr_expect_eq(conf->conn_queue_bytes, 1048576);
    cr_expect_eq(conf->inbox_ttl_s, 2592000);
    cr_expect_eq(conf->fanout_rate, 500);
    cr_expect_eq(conf->push_device_stale_days, 28);
    cr_expect_eq(conf->store_cache_mb, 2048);
    cr_expect_eq(conf->store_write_buffer_mb, 64);
    cr_expect_eq(conf->api_rate_min, 4096);
    cr_expect_eq(conf->api_rate_per_min, 60);
    bf_conf_free(conf);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

Test(conf, jwt_keys_and_development_secret)
{
    char path[] = "/tmp/belfry-conf-XXXXXX";
    close(mkstemp(path));
    write_file(path, "0123456789abcdef0123456789abcdef\n");
    setenv("BF_TEST_SECRET", "fedcba9876543210fedcba9876543210", 1);
    char text[512];
    snprintf(text, sizeof(text),
             "websocket:\n  jwt_keys:\n    - {kid: a, alg: HS256, secret_env: BF_TEST_SECRET}\n"
             "dev: {jwt_secret_file: %s}\n",
             path);
    struct bf_conf *conf = load_ok(text);
    cr_assert_eq(conf->jwt_key_count, 2);
    cr_assert_str_eq(conf->jwt_keys[1].kid, "dev");
    cr_assert_eq(conf->jwt_keys[1].len, 32, "the line end is no part of the secret");
    bf_conf_free(conf);

    snprintf(text, sizeof(text),
             "websocket: {jwt_keys: [{kid: dev, alg: HS256, secret_env: BF_TEST_SECRET}]}\n"
             "dev: {jwt_secret_file: %s}\n",
             path);
    conf = load_ok(text);
    cr_assert_eq(conf->jwt_key_count, 1, "a listed dev key wins");
    bf_conf_free(conf);

    write_file(path, "short\n");
    snprintf(text, sizeof(text), "dev: {jwt_secret_file: %s}\n", path);
    expect_error(text, "at least 32 bytes");
    snprintf(text, sizeof(text), "websocket: {jwt_keys: [{kid: e, alg: ES256, file: %s}]}\n", path);
    expect_error(text, "public key in PEM form");
    unlink(path);
}

Test(conf, defaults_are_inside_their_ranges)
{
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        uint64_t value = o->type == BF_CONF_TYPE_STR ? strlen(o->def_str) : o->def_num;
        cr_assert(value >= o->min && value <= o->max, "%s", o->path);
        cr_assert_eq(bf_conf_find(o->path), (int)i, "%s is listed twice", o->path);
    }
}

static char *reference(size_t *ret_len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_len);
    bf_conf_print_yaml(out);
    fclose(out);
    return text;
}

Test(conf, reference_loads_as_the_defaults)
{
    size_t len;
    char *text = reference(&len);
    struct bf_conf *conf = load_ok(text);
    struct bf_conf *defaults = load_ok("");
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        if (o->type == BF_CONF_TYPE_STR)
            cr_assert_str_eq(*(char **)bf_conf_field(conf, o),
                             *(char **)bf_conf_field(defaults, o));
        else if (o->type == BF_CONF_TYPE_BOOL)
            cr_assert_eq(*(bool *)bf_conf_field(conf, o), *(bool *)bf_conf_field(defaults, o), "%s",
                         o->path);
        else
            cr_assert_eq(memcmp(bf_conf_field(conf, o), bf_conf_field(defaults, o),
                                o->type == BF_CONF_TYPE_U32 ? 4 : 8),
                         0, "%s", o->path);
    }
    bf_conf_free(conf);
    bf_conf_free(defaults);
    free(text);
}

static unsigned count_of(const char *text, const char *part)
{
    unsigned count = 0;
    for (size_t i = 0; text[i]; i++)
        count += strncmp(text + i, part, strlen(part)) == 0;
    return count;
}

/* Other readers of YAML keep the last of two sections of one name, and lose the first. */
Test(conf, reference_has_each_section_once)
{
    size_t len;
    char *text = reference(&len);
    const char *const sections[] = {"node", "websocket", "api", "fanout", "log", "store", "push"};
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        char line[32];
        snprintf(line, sizeof(line), "\n%s:\n", sections[i]);
        cr_expect_eq(count_of(text, line), 1, "%s", sections[i]);
    }
    free(text);
}

Test(conf, committed_reference_is_fresh)
{
    size_t len;
    char *text = reference(&len);
    FILE *file = fopen(BELFRY_SOURCE_DIR "/conf/belfry.yaml", "r");
    cr_assert_not_null(file, "conf/belfry.yaml is missing");
    char *have = calloc(1, len + 2);
    size_t got = fread(have, 1, len + 1, file);
    fclose(file);
    cr_assert_eq(got, len, "stale: belfryctl config reference > conf/belfry.yaml");
    cr_assert_str_eq(have, text, "stale: belfryctl config reference > conf/belfry.yaml");
    free(have);
    free(text);
}

/* ---- the API's address, TLS and origins ---- */

static void expect_host(const char *text, const char *host)
{
    struct bf_conf *conf = load_ok(text);
    cr_expect_str_eq(conf->api_host, host, "%s", text);
    bf_conf_free(conf);
}

Test(conf, the_api_leaves_the_machine_with_tls_or_when_told_to)
{
    char path[] = "/tmp/belfry-conf-XXXXXX";
    char text[1024];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    write_file(path, "-----BEGIN CERTIFICATE-----\n");
    expect_host("", "127.0.0.1");
    expect_host("api: {host: 0.0.0.0}", "0.0.0.0");
    expect_host("api: {host: '::'}", "::");
    snprintf(text, sizeof(text), "api: {tls: {cert: %s, key: %s}}", path, path);
    expect_host(text, "0.0.0.0");
    snprintf(text, sizeof(text), "api: {host: 10.0.0.1, tls: {cert: %s, key: %s}}", path, path);
    expect_host(text, "10.0.0.1");
    expect_error("api: {host: here}", "is not an IPv4 or IPv6 address");
    snprintf(text, sizeof(text), "api: {tls: {cert: %s}}", path);
    expect_error(text, "cert and key go together; only cert is set");
    expect_error("api: {tls: {key: /nowhere/k}}", "only key is set");
    expect_error("api: {tls: {cert: /nowhere/c, key: /nowhere/k}}", "cannot read '/nowhere/c'");
    expect_error("api: {tls: {client_ca: /nowhere/c}}", "need api.tls.cert");
    expect_error("api: {tls: {client_required: true}}", "need api.tls.client_ca");
    snprintf(text, sizeof(text), "api: {tls: {cert: %s, key: %s, clients: [{name: a, key: b}]}}",
             path, path);
    expect_error(text, "need api.tls.client_ca");
    const char *clients[][2] = {{"x", "each entry is {name, key}"},
                                {"{name: a}", "needs name and key"},
                                {"{name: a, key: b, scope: c}", "takes name"},
                                {"{name: a, name: b, key: c}", "takes name"},
                                {"{name: a, key: b}, {name: a, key: c}", "listed twice"}};
    for (unsigned i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        snprintf(text, sizeof(text),
                 "api: {tls: {cert: %s, key: %s, client_ca: %s, clients: [%s]}}", path, path, path,
                 clients[i][0]);
        expect_error(text, clients[i][1]);
    }
    unlink(path);
}

Test(conf, origins_of_the_api)
{
    bf_conf_free(load_ok("api: {origins: '*'}"));
    bf_conf_free(load_ok("api: {origins: 'https://a.example, http://localhost:3000'}"));
    expect_error("api: {origins: 'a.example'}", "'a.example' is no origin");
    expect_error("api: {origins: 'https://a.example/'}", "is no origin");
    expect_error("api: {origins: 'https://a.example, ://b'}", "'://b' is no origin");
    expect_error("api: {origins: 'https://a.example,,'}", "is no origin");
}

/* ---- certificates ---- */

Test(conf, certificates)
{
    char path[] = "/tmp/belfry-conf-XXXXXX";
    char text[1024];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    write_file(path, "-----BEGIN CERTIFICATE-----\n");
    snprintf(
        text, sizeof(text),
        "tls:\n  port: 0\n  client_ca: %s\n  client_required: true\n  certificates:\n"
        "    - {cert: %s, key: %s}\n    - {cert: %s, key: %s, names: [a.example, '*.b.example']}\n",
        path, path, path, path, path);
    struct bf_conf *conf = load_ok(text);
    cr_assert_eq(conf->cert_count, 2);
    cr_assert_eq(conf->certs[0].name_count, 0);
    cr_assert_eq(conf->certs[1].name_count, 2);
    cr_assert_str_eq(conf->certs[1].names[1], "*.b.example");
    cr_assert_gt(conf->client_ca_len, 0);
    cr_assert(conf->tls_client_required);
    bf_conf_free(conf);
    snprintf(text, sizeof(text), "tls:\n  certificates: [{cert: %s}]\n", path);
    expect_error(text, "needs cert and key");
    snprintf(text, sizeof(text), "tls:\n  certificates: [{cert: %s, key: /nowhere/k}]\n", path);
    expect_error(text, "cannot read '/nowhere/k'");
    snprintf(text, sizeof(text), "tls:\n  certificates: [{cert: %s, key: %s, names: x}]\n", path,
             path);
    expect_error(text, "takes a list");
    write_file(path, "hello");
    snprintf(text, sizeof(text), "tls:\n  certificates: [{cert: %s, key: %s}]\n", path, path);
    expect_error(text, "is not a PEM file");
    expect_error("tls:\n  certificates: [x]\n", "each entry is {cert, key, names}");
    expect_error("tls:\n  certificates: [{cart: x}]\n",
                 "'cart': a certificate takes cert, key, names");
    expect_error("tls:\n  client_required: true\n", "needs tls.client_ca");
    expect_error("tls:\n  host: somewhere\n", "tls.host: 'somewhere'");
    unlink(path);
}
