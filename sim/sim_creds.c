/* Development credentials: see sim_creds.h. */
#include "sim_creds.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

#include "sim_text.h"

#define CERT_DAYS   825 /* the longest that common clients take */
#define OID_TOPICS  "1.2.840.113635.100.6.3.6"
#define OID_SANDBOX "1.2.840.113635.100.6.3.1"
#define OID_PRODUCT "1.2.840.113635.100.6.3.2"
#define CERT_TOPIC  "com.example.app"

/* One row for each answer that APNs can give about a key. */
static const struct sim_apns_key dev_keys[] = {
    {"BELFRYKEY1", "BELFRYTEAM", 0, SIM_ENV_BOTH, false, ""},
    {"BELFRYKEY2", "BELFRYTEAM", 0, SIM_ENV_BOTH, false, ""},
    {"TOPICKEY01", "BELFRYTEAM", 1, SIM_ENV_BOTH, false, ""},
    {"SANDBOXKEY", "BELFRYTEAM", 0, SIM_ENV_SANDBOX, false, ""},
    {"PRODUCTKEY", "BELFRYTEAM", 0, SIM_ENV_PRODUCTION, false, ""},
    {"OTHERKEY01", "OTHERTEAM0", 0, SIM_ENV_BOTH, false, ""},
    {"REVOKEDKEY", "BELFRYTEAM", 0, SIM_ENV_BOTH, true, ""},
};

static bool fail(const char *what, const char *name)
{
    fprintf(stderr, "belfry-sim: %s: %s\n", name, what);
    return false;
}

static FILE *open_file(const struct sim_creds *c, const char *name, const char *mode)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", c->dir, name);
    if (mode[0] == 'r')
        return fopen(path, mode);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? NULL : fdopen(fd, mode);
}

static EVP_PKEY *load_key(const struct sim_creds *c, const char *name)
{
    FILE *f = open_file(c, name, "r");
    EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;
    if (f)
        fclose(f);
    return key;
}

/* The key in file |name|, made when there is none. NULL after a message. */
static EVP_PKEY *key_of(const struct sim_creds *c, const char *name, bool rsa)
{
    EVP_PKEY *key = load_key(c, name);
    if (key)
        return key;
    key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    FILE *f = open_file(c, name, "w");
    bool ok = key && f && PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1;
    if (f && fclose(f) != 0)
        ok = false;
    if (ok)
        return key;
    EVP_PKEY_free(key);
    fail("the key cannot be made", name);
    return NULL;
}

static X509 *load_cert(const struct sim_creds *c, const char *name)
{
    FILE *f = open_file(c, name, "r");
    X509 *cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    if (f)
        fclose(f);
    if (cert && X509_cmp_current_time(X509_get0_notAfter(cert)) < 0) {
        X509_free(cert);
        return NULL; /* out of date: made anew */
    }
    return cert;
}

static bool add_extension(X509 *cert, X509 *issuer, const char *name, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf(NULL, &ctx, name, value);
    bool ok = ext && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

struct cert_wish {
    const char *name, *common_name, *uid;
    const char *extensions[10]; /* name, value, .., NULL */
};

static bool fill_cert(X509 *cert, const struct cert_wish *wish, EVP_PKEY *key, X509 *issuer)
{
    uint64_t serial = 0;
    RAND_bytes((unsigned char *)&serial, sizeof(serial));
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600); /* clocks differ */
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * CERT_DAYS);
    X509_NAME *subject = X509_get_subject_name(cert);
    const unsigned char *cn = (const unsigned char *)wish->common_name;
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, cn, -1, -1, 0);
    if (wish->uid)
        X509_NAME_add_entry_by_txt(subject, "UID", MBSTRING_UTF8, (const unsigned char *)wish->uid,
                                   -1, -1, 0);
    X509_set_pubkey(cert, key);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert));
    for (unsigned i = 0; wish->extensions[i]; i += 2)
        if (!add_extension(cert, issuer ? issuer : cert, wish->extensions[i],
                           wish->extensions[i + 1]))
            return fail(wish->extensions[i], wish->name);
    return true;
}

/* The certificate in file |wish->name|, made and signed when there is none; self-signed without
 * issuer. */
static X509 *cert_of(const struct sim_creds *c, const struct cert_wish *wish, EVP_PKEY *key,
                     X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *cert = load_cert(c, wish->name);
    if (cert && X509_verify(cert, issuer_key) == 1 && X509_check_private_key(cert, key) == 1)
        return cert;
    X509_free(cert);
    cert = X509_new();
    FILE *f = open_file(c, wish->name, "w");
    bool ok = cert && f && fill_cert(cert, wish, key, issuer) &&
              X509_sign(cert, issuer_key, EVP_sha256()) && PEM_write_X509(f, cert) == 1;
    if (f && fclose(f) != 0)
        ok = false;
    if (ok)
        return cert;
    X509_free(cert);
    fail("the certificate cannot be made", wish->name);
    return NULL;
}

static bool open_server(struct sim_creds *c)
{
    const struct cert_wish ca = {"ca.pem",
                                 "Belfry simulator CA",
                                 NULL,
                                 {"basicConstraints", "critical,CA:TRUE", "keyUsage",
                                  "critical,keyCertSign,cRLSign", "subjectKeyIdentifier", "hash",
                                  NULL}};
    const struct cert_wish server = {"server.pem",
                                     "localhost",
                                     NULL,
                                     {"basicConstraints", "CA:FALSE", "subjectAltName",
                                      "DNS:localhost,IP:127.0.0.1,IP:::1", "extendedKeyUsage",
                                      "serverAuth", "keyUsage", "critical,digitalSignature", NULL}};
    c->ca_key = key_of(c, "ca.key", false);
    c->server_key = key_of(c, "server.key", false);
    if (!c->ca_key || !c->server_key)
        return false;
    c->ca = cert_of(c, &ca, c->ca_key, NULL, c->ca_key);
    c->server = c->ca ? cert_of(c, &server, c->server_key, c->ca, c->ca_key) : NULL;
    return c->server != NULL;
}

/* A push certificate: client.pem is good everywhere, client_sandbox.pem for the sandbox alone. */
static bool open_client(struct sim_creds *c, const char *name, bool production)
{
    /* SEQUENCE { UTF8String topic, SEQUENCE { UTF8String "app" } }, as Apple's certificates list
     * topics */
    static const char topics[] = "DER:30:18:0C:0F:63:6F:6D:2E:65:78:61:6D:70:6C:65:2E:61:70:70"
                                 ":30:05:0C:03:61:70:70";
    char cert_name[64], key_name[64];
    snprintf(cert_name, sizeof(cert_name), "%s.pem", name);
    snprintf(key_name, sizeof(key_name), "%s.key", name);
    struct cert_wish wish = {cert_name,
                             "Apple Push Services: " CERT_TOPIC,
                             CERT_TOPIC,
                             {"extendedKeyUsage", "clientAuth", OID_TOPICS, topics, OID_SANDBOX,
                              "DER:05:00", production ? OID_PRODUCT : NULL, "DER:05:00", NULL}};
    EVP_PKEY *key = key_of(c, key_name, false);
    X509 *cert = key ? cert_of(c, &wish, key, c->ca, c->ca_key) : NULL;
    bool ok = cert != NULL;
    X509_free(cert);
    EVP_PKEY_free(key);
    return ok;
}

static bool open_secret(struct sim_creds *c)
{
    FILE *f = open_file(c, "oauth.secret", "r");
    bool ok = f && fread(c->secret, 1, sizeof(c->secret), f) == sizeof(c->secret);
    if (f)
        fclose(f);
    if (ok)
        return true;
    f = open_file(c, "oauth.secret", "w");
    ok = f && RAND_bytes(c->secret, sizeof(c->secret)) == 1 &&
         fwrite(c->secret, 1, sizeof(c->secret), f) == sizeof(c->secret);
    if (f && fclose(f) != 0)
        ok = false;
    return ok ? true : fail("cannot be made", "oauth.secret");
}

static bool open_apns_keys(struct sim_creds *c, struct sim_world *w)
{
    for (size_t i = 0; i < sizeof(dev_keys) / sizeof(dev_keys[0]); i++) {
        char name[64];
        struct sim_apns_key *k = &w->keys[w->keys_count];
        *k = dev_keys[i];
        snprintf(name, sizeof(name), "AuthKey_%s.p8", k->kid);
        snprintf(k->path, sizeof(k->path), "%s/%s", c->dir, name);
        c->apns[w->keys_count] = key_of(c, name, false);
        if (!c->apns[w->keys_count])
            return false;
        w->keys_count++;
    }
    return true;
}

bool sim_creds_open(struct sim_creds *c, const char *dir, struct sim_world *w)
{
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return fail(strerror(errno), dir);
    char *full = realpath(dir, NULL);
    if (!full || strlen(full) >= sizeof(c->dir)) {
        free(full);
        return fail("cannot be used as state directory", dir);
    }
    snprintf(c->dir, sizeof(c->dir), "%s", full);
    free(full);
    c->oauth_key = key_of(c, "service_account.key", true);
    return c->oauth_key && open_server(c) && open_client(c, "client", true) &&
           open_client(c, "client_sandbox", false) && open_secret(c) && open_apns_keys(c, w);
}

bool sim_creds_add_key(struct sim_creds *c, struct sim_world *w, const char *kid, const char *team,
                       const char *file)
{
    if (w->keys_count == SIM_APNS_KEYS_MAX)
        return fail("too many keys", file);
    FILE *f = fopen(file, "r");
    if (!f)
        return fail(strerror(errno), file);
    EVP_PKEY *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    rewind(f);
    if (!key)
        key = PEM_read_PUBKEY(f, NULL, NULL, NULL);
    fclose(f);
    if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC) {
        EVP_PKEY_free(key);
        return fail("no P-256 key in PEM", file);
    }
    struct sim_apns_key *k = &w->keys[w->keys_count];
    snprintf(k->kid, sizeof(k->kid), "%s", kid);
    snprintf(k->team, sizeof(k->team), "%s", team);
    snprintf(k->path, sizeof(k->path), "%s", file);
    c->apns[w->keys_count++] = key;
    return true;
}

bool sim_creds_write_account(const struct sim_creds *c, const struct sim_world *w)
{
    BIO *pem = BIO_new(BIO_s_mem());
    char *text = NULL, *json = NULL;
    long bytes =
        pem && PEM_write_bio_PKCS8PrivateKey(pem, c->oauth_key, NULL, NULL, 0, NULL, NULL) == 1
            ? BIO_get_mem_data(pem, &text)
            : 0;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "type", "service_account");
    yyjson_mut_obj_add_str(doc, root, "project_id", w->fcm_project);
    yyjson_mut_obj_add_str(doc, root, "private_key_id", "belfry-sim-1");
    yyjson_mut_obj_add_strncpy(doc, root, "private_key", text ? text : "", (size_t)bytes);
    yyjson_mut_obj_add_str(doc, root, "client_email", w->oauth_email);
    yyjson_mut_obj_add_str(doc, root, "token_uri", w->oauth_token_uri);
    json = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY, NULL);
    FILE *f = json ? open_file(c, "service_account.json", "w") : NULL;
    bool ok = f && bytes > 0 && fputs(json, f) >= 0;
    if (f && fclose(f) != 0)
        ok = false;
    free(json);
    yyjson_mut_doc_free(doc);
    BIO_free(pem);
    return ok ? true : fail("cannot be written", "service_account.json");
}

void sim_creds_close(struct sim_creds *c)
{
    for (unsigned i = 0; i < SIM_APNS_KEYS_MAX; i++)
        EVP_PKEY_free(c->apns[i]);
    EVP_PKEY_free(c->ca_key);
    EVP_PKEY_free(c->server_key);
    EVP_PKEY_free(c->oauth_key);
    X509_free(c->ca);
    X509_free(c->server);
}

/* ---- client certificates ---- */

static const ASN1_OCTET_STRING *extension(X509 *cert, const char *oid)
{
    ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    int at = object ? X509_get_ext_by_OBJ(cert, object, -1) : -1;
    ASN1_OBJECT_free(object);
    return at < 0 ? NULL : X509_EXTENSION_get_data(X509_get_ext(cert, at));
}

/* Top-level UTF8Strings of the topics extension; anything else in it is skipped. */
static void read_topics(X509 *cert, struct sim_peer *peer)
{
    const ASN1_OCTET_STRING *data = extension(cert, OID_TOPICS);
    if (!data)
        return;
    const unsigned char *p = ASN1_STRING_get0_data(data);
    long left = ASN1_STRING_length(data), length = 0;
    int tag = 0, class = 0;
    if (ASN1_get_object(&p, &length, &tag, &class, left) & 0x80 || tag != V_ASN1_SEQUENCE)
        return;
    const unsigned char *end = p + length;
    while (p < end && peer->cert_topics_count < SIM_CERT_TOPICS_MAX) {
        if (ASN1_get_object(&p, &length, &tag, &class, end - p) & 0x80)
            return;
        if (tag == V_ASN1_UTF8STRING)
            sim_text_copy(peer->cert_topics[peer->cert_topics_count++], SIM_TOPIC_BYTES_MAX,
                          (struct sim_slice){(const char *)p, (uint32_t)length});
        p += length;
    }
}

void sim_creds_peer(const SSL *ssl, struct sim_peer *peer)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    peer->cert = SIM_CERT_NONE;
    peer->cert_topics_count = 0;
    if (!cert)
        return;
    if (SSL_get_verify_result(ssl) != X509_V_OK) {
        peer->cert = SIM_CERT_UNTRUSTED;
        return;
    }
    peer->cert = extension(cert, OID_PRODUCT) ? SIM_CERT_BOTH : SIM_CERT_SANDBOX;
    read_topics(cert, peer);
}
