/*
 * Configuration as both planes hold it: scalars from options.def, and the lists. Plain data, filled
 * once by bf_conf_load (conf_load.h), immutable afterwards; a reload makes a new one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/push_wire.h"
#include "belfry/shm/snapshot.h"

#define BF_CONF_STR_BYTES_MAX   4097u
#define BF_CONF_JWT_KEYS_MAX    32u
#define BF_CONF_JWT_KEY_BYTES   4096u
#define BF_CONF_TOPIC_RULES_MAX 64u
/* Certificates of a node; dataplane/tls makes a context of each. */
#define BF_CONF_CERTS_MAX 16u
/* Chains have 2-8 KB, keys up to 3.3 KB (RSA-4096), names of a certificate are few. */
#define BF_CONF_CHAIN_BYTES     20480u
#define BF_CONF_CERT_KEY_BYTES  8192u
#define BF_CONF_CERT_NAMES_MAX  16u
#define BF_CONF_CERT_NAME_BYTES 254u
#define BF_CONF_CLIENT_CA_BYTES 65536u
/* All of it has to fit a snapshot beside JWT keys (shm/snapshot.h). */
#define BF_CONF_TLS_BYTES_MAX   (256u * 1024u)
#define BF_CONF_ERROR_BYTES_MAX 512u
/* Apps, i.e. names that devices register under; each has a pool, Web Push one an origin. */
#define BF_CONF_PUSH_APPS_MAX   32u
#define BF_CONF_PUSH_TEXT_BYTES 256u
#define BF_CONF_PUSH_FILE_BYTES 401u
/* An origin goes into a header of an answer (http/http.h: 95 bytes); longer host names are rare. */
#define BF_CONF_ORIGIN_BYTES_MAX 95u
/* Producers that are known by their certificate. */
#define BF_CONF_API_CLIENTS_MAX  256u
#define BF_CONF_API_KEY_ID_BYTES 33u

#define BF_CONF_U32(field)  uint32_t field;
#define BF_CONF_U64(field)  uint64_t field;
#define BF_CONF_BOOL(field) bool field;
#define BF_CONF_STR(field)  const char *field; /* owned by the conf, never NULL */

/* yaml: websocket.jwt_keys: [{kid, alg, file | secret_env}] */
struct bf_conf_jwt_key {
    char kid[65]; /* "" answers tokens without kid */
    enum bf_jwt_alg alg;
    uint32_t len;
    uint8_t key[BF_CONF_JWT_KEY_BYTES]; /* raw secret, or PEM public key */
};

/* yaml: tls.certificates: [{cert, key, names?}] */
struct bf_conf_cert {
    uint32_t chain_len;
    uint32_t key_len;
    uint32_t name_count;                /* 0: those of the certificate */
    uint8_t chain[BF_CONF_CHAIN_BYTES]; /* PEM */
    uint8_t key[BF_CONF_CERT_KEY_BYTES];
    char names[BF_CONF_CERT_NAMES_MAX][BF_CONF_CERT_NAME_BYTES];
};

/* yaml: api.tls.clients: [{name, key}] */
struct bf_conf_api_client {
    char name[BF_CONF_CERT_NAME_BYTES]; /* in the certificate: a SAN (DNS, mail, URI) or its one CN
                                         */
    char key[BF_CONF_API_KEY_ID_BYTES]; /* id of the API key that it acts as */
};

/* yaml: push.apps: [{name, kind, ...}]. Files are named here and read by ctrlplane alone
 * (push_creds.h). */
struct bf_conf_push_app {
    enum bf_push_kind kind;
    bool is_sandbox; /* APNs: environment sandbox */
    uint32_t port, connections_min, connections_max;
    char name[65];
    char failover[65];                   /* another app of this kind; "" = none */
    char topic[BF_CONF_PUSH_TEXT_BYTES]; /* APNs: bundle id. FCM: project, "" = the account's */
    char team_id[BF_CONF_PUSH_TEXT_BYTES], key_id[BF_CONF_PUSH_TEXT_BYTES];
    char subject[BF_CONF_PUSH_TEXT_BYTES]; /* Web Push */
    char host[BF_CONF_PUSH_TEXT_BYTES];    /* "" = the provider's */
    char key[BF_CONF_PUSH_FILE_BYTES], cert[BF_CONF_PUSH_FILE_BYTES];
    char service_account[BF_CONF_PUSH_FILE_BYTES];
    char ca[BF_CONF_PUSH_FILE_BYTES]; /* "" = the system's */
};

struct bf_conf {
#define X(field, path, type, min, max, def, unit, reload, doc) BF_CONF_##type(field)
#include "belfry/conf/options.def"
#undef X
    uint32_t jwt_key_count;
    struct bf_conf_jwt_key jwt_keys[BF_CONF_JWT_KEYS_MAX];
    uint32_t cert_count;
    struct bf_conf_cert certs[BF_CONF_CERTS_MAX]; /* the first answers names that none has */
    uint32_t client_ca_len;
    uint8_t client_ca[BF_CONF_CLIENT_CA_BYTES]; /* PEM; the content of tls.client_ca */
    struct bf_conf_cert api_cert; /* content of api.tls.cert and api.tls.key; chain_len 0: none */
    uint32_t api_client_ca_len;
    uint8_t api_client_ca[BF_CONF_CLIENT_CA_BYTES]; /* PEM */
    uint32_t api_client_count;
    struct bf_conf_api_client api_clients[BF_CONF_API_CLIENTS_MAX];
    uint32_t push_app_count;
    struct bf_conf_push_app push_apps[BF_CONF_PUSH_APPS_MAX];
    /* yaml: topics.broadcast and topics.public: lists of names or prefixes ending in '*' */
    uint32_t broadcast_topic_count;
    const char *broadcast_topics[BF_CONF_TOPIC_RULES_MAX];
    uint32_t public_topic_count;
    const char *public_topics[BF_CONF_TOPIC_RULES_MAX];
};
