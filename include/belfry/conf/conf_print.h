/*
 * Writes the reference configuration (conf/belfry.yaml): every option with its doc, range, default
 * and what a change needs, times and sizes with units. Generated from options.def, so it cannot go
 * stale; a test compares the committed file. `belfryctl config reference` prints it.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "belfry/conf/conf_table.h"

#define BF_CONF_INDENT 2

static inline void bf_conf_print_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fputc('\\', out);
        fputc(*p, out);
    }
    fputc('"', out);
}

static inline void bf_conf_print_default(FILE *out, const struct bf_conf_option *o)
{
    char text[BF_AMOUNT_TEXT_BYTES];
    if (o->type == BF_CONF_TYPE_STR) {
        bf_conf_print_text(out, o->def_str);
    } else if (o->type == BF_CONF_TYPE_BOOL) {
        fputs(o->def_num ? "true" : "false", out);
    } else {
        bf_conf_number_text(o, o->def_num, text, sizeof(text));
        fputs(text, out);
    }
}

/* The range of a number, and what a plain number counts in. */
static inline void bf_conf_print_range(FILE *out, const struct bf_conf_option *o)
{
    char min[BF_AMOUNT_TEXT_BYTES], max[BF_AMOUNT_TEXT_BYTES];
    bf_conf_number_text(o, o->min, min, sizeof(min));
    bf_conf_number_text(o, o->max, max, sizeof(max));
    fprintf(out, "%s..%s", min, max);
    if (o->unit[0])
        fprintf(out, bf_amount_of(o->unit) ? " (a plain number: %s)" : " %s", o->unit);
}

/* "# doc" and "# range, default, reload" above an option. */
static inline void bf_conf_print_doc(FILE *out, const struct bf_conf_option *o, int indent)
{
    fprintf(out, "%*s# %s\n%*s# ", indent, "", o->doc, indent, "");
    if (o->type == BF_CONF_TYPE_BOOL)
        fputs("true or false", out);
    else if (o->type == BF_CONF_TYPE_STR)
        fprintf(out, "%llu..%llu bytes", (unsigned long long)o->min, (unsigned long long)o->max);
    else
        bf_conf_print_range(out, o);
    fputs("; default ", out);
    bf_conf_print_default(out, o);
    fprintf(out, "; change: %s\n", bf_conf_reload_name(o->reload));
}

static inline void bf_conf_print_option(FILE *out, const struct bf_conf_option *o, int indent)
{
    const char *dot = strrchr(o->path, '.');
    bf_conf_print_doc(out, o, indent);
    fprintf(out, "%*s%s: ", indent, "", dot ? dot + 1 : o->path);
    bf_conf_print_default(out, o);
    fputc('\n', out);
}

/* Opens the sections of |path| that the option before it was not in; returns the option's indent.
 */
static inline int bf_conf_print_sections(FILE *out, const char *path, const char *before)
{
    int indent = 0;
    bool is_shared = true;
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t len = (size_t)(dot - path);
        is_shared = is_shared && strncmp(path, before, len + 1) == 0;
        if (!is_shared) {
            const char *name = dot;
            while (name > path && name[-1] != '.')
                name--;
            fprintf(out, "%s%*s%.*s:\n", indent == 0 ? "\n" : "", indent, "", (int)(dot - name),
                    name);
        }
        indent += BF_CONF_INDENT;
    }
    return indent;
}

static inline void bf_conf_print_jwt_list(FILE *out)
{
    fputs(
        "  # Keys that people's JWTs are checked with, by kid; one alg a key. alg: HS256 (secret of"
        " 32 bytes\n"
        "  # or more), RS256, ES256, EdDSA (public key, PEM). change: live. Example:\n"
        "  # jwt_keys:\n"
        "  #   - {kid: web-1, alg: ES256, file: /etc/belfry/jwt-web-1.pem}\n"
        "  #   - {kid: internal, alg: HS256, secret_env: BELFRY_JWT_SECRET}\n"
        "  jwt_keys: []\n",
        out);
}

static inline void bf_conf_print_cert_list(FILE *out)
{
    fputs(
        "  # Certificates, chosen by the name that a client asks for (SNI); the first answers all "
        "other"
        " names.\n"
        "  # cert: file with the certificate and its chain (PEM); key: file with its private key;"
        " names: host\n"
        "  # names, or *.domain; without them, those of the certificate. At most 16; change: live,"
        " but the\n"
        "  # first one ever needs restart dataplane (it opens the port). Example:\n"
        "  # certificates:\n"
        "  #   - {cert: /etc/belfry/push.pem, key: /etc/belfry/push.key}\n"
        "  #   - {cert: /etc/belfry/eu.pem, key: /etc/belfry/eu.key, names: "
        "[\"*.eu.example.com\"]}\n"
        "  certificates: []\n",
        out);
}

static inline void bf_conf_print_api_client_list(FILE *out)
{
    fputs("    # Producers that show a certificate of api.tls.client_ca in place of an API key: "
          "name is one that"
          " the\n"
          "    # certificate has (SAN: DNS, mail or URI; else its one CN), key the id of the API "
          "key that it acts"
          " as\n"
          "    # (`belfryctl keys list`): its tenant, scopes and limits. A request with "
          "Authorization is judged by"
          " that\n"
          "    # alone. At most 256; change: live. Example:\n"
          "    # clients:\n"
          "    #   - {name: orders.internal, key: 4f1c2a9be07d3385}\n"
          "    clients: []\n",
          out);
}

static inline void bf_conf_print_push_list(FILE *out)
{
    fputs("  # Apps that devices register for, by name. At most 32; change: live. kind:\n"
          "  #   apns     topic (bundle id), environment (production, sandbox), and team_id, "
          "key_id, key (file,"
          " .p8) or\n"
          "  #            cert, key (files, PEM)\n"
          "  #   fcm      service_account (file, JSON); topic: another project than the account's\n"
          "  #   webpush  key (file, P-256 private key, PEM), subject (mailto: or https:)\n"
          "  # connections_min, connections_max: held by each worker (1, 8). host, port, ca: "
          "another place than"
          " the\n"
          "  # provider's, e.g. belfry-sim; for webpush the only origin served. failover: another "
          "app of this"
          " kind that\n"
          "  # takes the devices of this one while its breaker is open or its credential is "
          "refused. Example:\n"
          "  # apps:\n"
          "  #   - {name: shop, kind: apns, topic: com.example.shop, team_id: A1B2C3D4E5, key_id: "
          "F6G7H8I9J0,"
          " key: /etc/belfry/apns.p8}\n"
          "  #   - {name: shop, kind: fcm, service_account: /etc/belfry/fcm.json}\n"
          "  #   - {name: site, kind: webpush, key: /etc/belfry/vapid.pem, subject: "
          "\"mailto:ops@example.com\"}\n"
          "  apps: []\n",
          out);
}

static inline void bf_conf_print_topic_lists(FILE *out)
{
    fputs(
        "\ntopics:\n"
        "  # Topics of carriage broadcast (frames `b`, no inbox), beside those declared by the API:"
        " names, or\n"
        "  # prefixes ending in *. At most 64; change: live.\n"
        "  broadcast: []\n"
        "  # Broadcast topics that any socket may subscribe to without the JWT claim `topics`.\n"
        "  # Names, or prefixes ending in *. At most 64; change: live.\n"
        "  public: []\n",
        out);
}

static inline void bf_conf_print_yaml(FILE *out)
{
    const char *before = "";
    fputs(
        "# Belfry configuration: every option with its default.\n"
        "# Generated by `belfryctl config reference`; check yours with `belfryctl config check`.\n"
        "# What a change needs: live (`belfryctl config reload`), restart ctrlplane (sockets stay"
        " open),\n"
        "# restart dataplane (sockets reconnect). An option left out has its default.\n"
        "#\n"
        "# Times, sizes and rates are a whole number and a unit, without a blank: ms, s, m or min, "
        "h,"
        " d, w;\n"
        "# B, KiB, MiB, GiB, TiB (powers of two; KB, MB and GB are refused, for they are read in "
        "two"
        " ways);\n"
        "# KiB/s, /s, /min. A plain number is accepted too; the line above an option says what it "
        "counts"
        " in.\n",
        out);
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        int indent = bf_conf_print_sections(out, o->path, before);
        bf_conf_print_option(out, o, indent);
        if (i == BF_CONF_ID_jwt_audience)
            bf_conf_print_jwt_list(out);
        if (i == BF_CONF_ID_tls_client_required)
            bf_conf_print_cert_list(out);
        if (i == BF_CONF_ID_api_tls_client_required)
            bf_conf_print_api_client_list(out);
        if (i == BF_CONF_ID_push_device_key_file)
            bf_conf_print_push_list(out);
        before = o->path;
    }
    bf_conf_print_topic_lists(out);
}
