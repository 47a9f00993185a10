/*
 * Proves that every spelling of a token, endpoint or key comes to one form, that what means
 * something else stays apart, that the form is a fixed point (random texts too), and where this
 * node may send to when people say where.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channels/push/push_canon.h"
#include "channels/push/push_egress.h"

#define P256DH                                                                                     \
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static const char *canon(enum bf_push_kind kind, const char *token)
{
    static struct bf_push_canon room;
    static char out[4][sizeof(room.token) + 1];
    static unsigned turn;
    struct bf_push_target target = {.kind = kind,
                                    .token = text(token),
                                    .p256dh = text(P256DH),
                                    .auth = text("BTBZMqHH6r4Tts7J_aSIgg")};
    bf_push_target_canon(&target, &room);
    char *at = out[turn++ % 4];
    snprintf(at, sizeof(out[0]), "%.*s", (int)target.token.len, target.token.at);
    return at;
}

Test(push_canon, apns)
{
    static const char *const same[] = {"a1b2c3d4",   "A1B2C3D4",      "a1b2 c3d4",
                                       "<a1b2c3d4>", "<a1b2 C3D4>\n", "\t a1 b2 c3 d4"};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        cr_expect_str_eq(canon(BF_PUSH_APNS, same[i]), "a1b2c3d4", "%s", same[i]);
}

Test(push_canon, fcm)
{
    cr_expect_str_eq(canon(BF_PUSH_FCM, " fcm:Ab\r\n"), "fcm:Ab");
    cr_expect_str_eq(canon(BF_PUSH_FCM, "fcm:ab"), "fcm:ab");
}

Test(push_canon, endpoints)
{
    static const char *const rows[][2] = {
        {"https://push.example/a/b?c=d", "https://push.example/a/b?c=d"},
        {"HTTPS://PUSH.Example/a", "https://push.example/a"},
        {"https://push.example:443/a", "https://push.example/a"},
        {"https://push.example:/a", "https://push.example/a"},
        {"https://push.example:0443/a", "https://push.example/a"},
        {"https://push.example:8443/a", "https://push.example:8443/a"},
        {"https://push.example./a", "https://push.example/a"},
        {"https://p%75sh.example/a", "https://push.example/a"},
        {"https://push.example/a#f", "https://push.example/a"},
        {"https://push.example/%61%7e%2F%3f%c3%a4", "https://push.example/a~%2F%3F%C3%A4"},
        {"https://push.example/a/./b/../c", "https://push.example/a/c"},
        {"https://push.example/a/%2e%2E/c", "https://push.example/c"},
        {"https://push.example/../../c/.", "https://push.example/c/"},
        {"https://push.example/a/..", "https://push.example/"},
        {"https://push.example/a//b", "https://push.example/a//b"},
        {"https://push.example/a?%41=..%2f#x", "https://push.example/a?A=..%2F"},
        {" https://push.example/a\n", "https://push.example/a"},
        {"https://2130706433/a", "https://127.0.0.1/a"},
        {"https://0x7f.1/a", "https://127.0.0.1/a"},
        {"https://0177.0.0.01/a", "https://127.0.0.1/a"},
        {"https://[0:0::0001]:443/a", "https://[::1]/a"},
        {"https://[2A00:1450::1]:8443/a", "https://[2a00:1450::1]:8443/a"},
        /* no such form: as it was, and refused by the check */
        {"http://push.example/a", "http://push.example/a"},
        {"https://push.example", "https://push.example"},
        {"https://push.example:99999/a", "https://push.example:99999/a"},
        {"https://push.example:0/a", "https://push.example:0/a"},
        {"https://user@push.example/a", "https://user@push.example/a"},
        {"https://256.1.1.1/a", "https://256.1.1.1/a"},
        {"https://push..example/a", "https://push..example/a"},
        {"https://[::1/a", "https://[::1/a"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_str_eq(canon(BF_PUSH_WEBPUSH, rows[i][0]), rows[i][1], "%s gives %s", rows[i][0],
                         canon(BF_PUSH_WEBPUSH, rows[i][0]));
}

Test(push_canon, keys)
{
    static const char *const same[] = {
        P256DH, P256DH "=", " " P256DH "==\n",
        "BCVxsr7N/eNgVRqvHtD0zTZsEc6+VV+JvLexhqUzORcxaOzi6+AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4="};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        struct bf_push_canon room;
        struct bf_push_target target = {.kind = BF_PUSH_WEBPUSH,
                                        .token = text("https://push.example/a"),
                                        .p256dh = text(same[i]),
                                        .auth = text("BTBZMqHH6r4Tts7J/aSIgg==")};
        char why[BF_WHY_BYTES];
        bf_push_target_canon(&target, &room);
        cr_expect(bf_bytes_is_equal(target.p256dh, text(P256DH)), "%s", same[i]);
        cr_expect(bf_bytes_is_equal(target.auth, text("BTBZMqHH6r4Tts7J_aSIgg")));
        cr_expect_eq(bf_push_target_check(&target, why), 0, "%s", why);
    }
}

/* Whatever comes in, the form of the form is the form, and nothing is written out of bounds. */
Test(push_canon, a_fixed_point)
{
    static const char alphabet[] = "https://:[]@%2e2F/..?#aAzZ09<> \t\\\"\x7f\xc3";
    unsigned seed = 20260801;
    for (unsigned n = 0; n < 200000; n++) {
        char given[64], first[sizeof(((struct bf_push_canon *)0)->token) + 1];
        size_t len = (size_t)rand_r(&seed) % (sizeof(given) - 1), from = 0;
        if (n % 2 == 0 && len > 20)
            from = (size_t)snprintf(given, sizeof(given), "https://h%s/", n % 4 ? ":8" : "");
        for (size_t i = from; i < len; i++)
            given[i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        given[len] = '\0';
        enum bf_push_kind kind = (enum bf_push_kind)(n % BF_PUSH_KIND_COUNT);
        kind = n % 2 ? kind : BF_PUSH_WEBPUSH;
        snprintf(first, sizeof(first), "%s", canon(kind, given));
        const char *again = canon(kind, first);
        /* <<aa>> is no token: only what a check lets through needs to be fixed */
        struct bf_push_target target = {.kind = kind,
                                        .token = text(first),
                                        .app_topic = text("app"),
                                        .p256dh = text(P256DH),
                                        .auth = text("BTBZMqHH6r4Tts7J_aSIgg")};
        char why[BF_WHY_BYTES];
        if (bf_push_target_check(&target, why) == 0)
            cr_assert_str_eq(again, first, "'%s' gives '%s' and then '%s'", given, first, again);
    }
}

static bool may_go(const char *allow, const char *host)
{
    struct bf_host read;
    (void)bf_host_read(text(host), &read);
    return bf_egress_host(allow, &read);
}

Test(push_canon, private_hosts)
{
    static const char *const private[] = {"localhost",
                                          "LOCALHOST.",
                                          "a.localhost",
                                          "printer",
                                          "nas.local",
                                          "x.internal",
                                          "metadata.google.internal",
                                          "router.lan",
                                          "a.home.arpa",
                                          "127.0.0.1",
                                          "127.1",
                                          "2130706433",
                                          "0x7f000001",
                                          "017700000001",
                                          "0",
                                          "10.0.0.1",
                                          "172.16.0.9",
                                          "192.168.1.1",
                                          "100.64.0.1",
                                          "169.254.169.254",
                                          "168.63.129.16",
                                          "224.0.0.1",
                                          "255.255.255.255",
                                          "198.18.0.1",
                                          "[::1]",
                                          "[::]",
                                          "[fe80::1]",
                                          "[fd00::1]",
                                          "[ff02::1]",
                                          "[::ffff:127.0.0.1]",
                                          "[::ffff:a00:1]",
                                          "[64:ff9b::10.0.0.1]",
                                          "[64:ff9b:1::1]",
                                          "[2002:7f00:1::]",
                                          "[2001:0:1::1]",
                                          "[2001:db8::1]",
                                          "[::127.0.0.1]",
                                          "1%32%37.0.0.1",
                                          "",
                                          "a b"};
    static const char *const public[] = {
        "push.example.net", "fcm.googleapis.com", "8.8.8.8",         "172.32.0.1",
        "[2a00:1450::1]",   "[64:ff9b::808:808]", "[2002:808:808::]"};
    for (size_t i = 0; i < sizeof(private) / sizeof(private[0]); i++)
        cr_expect(!may_go("", private[i]), "%s is private", private[i]);
    for (size_t i = 0; i < sizeof(public) / sizeof(public[0]); i++)
        cr_expect(may_go("", public[i]), "%s is public", public[i]);
}

Test(push_canon, the_list_of_exceptions)
{
    const char *allow = "localhost, 10.1.0.0/16,fd00::/8, 127.0.0.1, push.corp";
    struct bf_bytes bad;
    uint8_t address[16];
    cr_expect(bf_egress_check(allow, &bad) && bf_egress_check("", &bad));
    cr_expect(may_go(allow, "localhost") && may_go(allow, "10.1.200.3") && may_go(allow, "127.1"));
    cr_expect(may_go(allow, "[fd12::1]") && may_go(allow, "PUSH.corp"));
    cr_expect(!may_go(allow, "10.2.0.1") && !may_go(allow, "127.0.0.2") &&
              !may_go(allow, "a.localhost") && !may_go(allow, "[fe80::1]"));
    inet_pton(AF_INET, "127.0.0.9", address);
    cr_expect(bf_egress_address(allow, "localhost", AF_INET, address), "its name is listed");
    cr_expect(!bf_egress_address(allow, "rebound.example", AF_INET, address));
    inet_pton(AF_INET, "10.1.2.3", address);
    cr_expect(bf_egress_address(allow, "any.example", AF_INET, address), "its network is listed");
    static const char *const wrong[] = {"10.0.0.0/33", "10.0.0.0/",  "a/8",
                                        "http://x",    "fd00::/129", "10.0.0.0/8x"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect(!bf_egress_check(wrong[i], &bad), "%s", wrong[i]);
}
