/* The admin port's token file, and which Host and Origin are its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/credential.h"
#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "crypto/admin_token.h"
#include "tmp_dir.h"

static struct bf_bytes text(const char *at)
{
    return (struct bf_bytes){at, strlen(at)};
}

Test(credential, hosts)
{
    static const struct {
        const char *admin_host, *names, *host;
        bool is_ours;
    } rows[] = {
        {"127.0.0.1", "", "localhost", true},
        {"127.0.0.1", "", "LOCALHOST:9090", true},
        {"127.0.0.1", "", "127.0.0.1:9090", true},
        {"127.0.0.1", "", "[::1]:9090", true},
        {"127.0.0.2", "", "127.0.0.2", true},
        {"127.0.0.1", "", "127.0.0.2", false},
        {"127.0.0.1", "", "10.1.2.3:9090", false},
        {"10.1.2.3", "", "10.1.2.3:9090", true},
        {"0.0.0.0", "", "10.1.2.3:9090", true}, /* an address cannot be rebound */
        {"::", "", "[fe80::1]:9090", true},
        {"0.0.0.0", "", "evil.example:9090", false},
        {"127.0.0.1", "", "evil.example", false},
        {"127.0.0.1", "", "localhost.evil.example", false},
        {"127.0.0.1", "", "localhos", false},
        {"127.0.0.1", "", "[::1", false},
        {"127.0.0.1", "", ":9090", false},
        {"127.0.0.1", "", "", false},
        {"127.0.0.1", "node-1.internal, prom", "node-1.internal:9090", true},
        {"127.0.0.1", "node-1.internal, prom", "PROM", true},
        {"127.0.0.1", "node-1.internal, prom", "node-1", false},
        {"127.0.0.1", " , ", "", false},
    };
    static struct bf_conf conf;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        conf.admin_host = rows[i].admin_host;
        conf.admin_names = rows[i].names;
        cr_assert_eq(bf_admin_host_is_ours(&conf, text(rows[i].host)), rows[i].is_ours, "%s on %s",
                     rows[i].host, rows[i].admin_host);
    }
    cr_assert_not(bf_admin_host_is_ours(&conf, (struct bf_bytes){NULL, 0}), "no Host at all");
    char long_host[600];
    memset(long_host, 'a', sizeof(long_host));
    cr_assert_not(bf_admin_host_is_ours(&conf, (struct bf_bytes){long_host, sizeof(long_host)}));
}

Test(credential, origins)
{
    struct bf_bytes host = text("localhost:9090");
    cr_assert(bf_admin_origin_is_same(text("http://localhost:9090"), host));
    cr_assert(bf_admin_origin_is_same(text("https://LOCALHOST:9090"), host));
    cr_assert_not(bf_admin_origin_is_same(text("http://localhost"), host));
    cr_assert_not(bf_admin_origin_is_same(text("http://localhost:90900"), host));
    cr_assert_not(bf_admin_origin_is_same(text("null"), host));
    cr_assert_not(bf_admin_origin_is_same(text("ftp://localhost:9090"), host));
    cr_assert_not(bf_admin_origin_is_same(text(""), host));
    cr_assert_not(bf_admin_origin_is_same(text("http://"), (struct bf_bytes){NULL, 0}));
}

Test(credential, the_file_is_made_once_and_is_private)
{
    char dir[200], path[256], err[256];
    char first[BF_ADMIN_TOKEN_BYTES], again[BF_ADMIN_TOKEN_BYTES];
    struct stat st;
    tmp_dir_make(dir, sizeof(dir));
    snprintf(path, sizeof(path), "%s/token", dir);
    cr_assert_eq(bf_admin_token_open(path, first, err, sizeof(err)), 0);
    cr_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    cr_assert_eq(strlen(first), BF_ADMIN_TOKEN_BYTES - 1);
    cr_assert_eq(bf_admin_token_open(path, again, err, sizeof(err)), 0);
    cr_assert_str_eq(first, again);
    cr_assert_eq(chmod(path, 0640), 0);
    cr_assert_eq(bf_admin_token_open(path, again, err, sizeof(err)), 0);
    cr_assert_str_neq(first, again, "others may have read it");
    FILE *file = fopen(path, "w");
    fputs("bfa_short\n", file);
    fclose(file);
    cr_assert_eq(bf_admin_token_open(path, first, err, sizeof(err)), 0);
    cr_assert_str_neq(first, again);
    snprintf(path, sizeof(path), "%s/no/token", dir);
    cr_assert_eq(bf_admin_token_open(path, first, err, sizeof(err)), -ENOENT);
    cr_assert(strstr(err, "admin.token_file"), "%s", err);
    tmp_dir_remove(dir);
}
