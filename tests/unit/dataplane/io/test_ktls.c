/*
 * What the kernel is given for its TLS records, byte by byte as linux/tls.h lays it out, from the
 * traffic secret of RFC 8448 section 3 and two of our own; the keys were derived apart from our
 * code (Python's hmac). Alerts; and the probe, which says yes or why not.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/tls.h>
#include <openssl/crypto.h>
#include <string.h>
#include <unistd.h>

#include "io/ktls.h"
#include "tls/tls_record.h"

static size_t unhex(const char *hex, uint8_t *to, size_t cap)
{
    size_t len = 0;
    cr_assert_eq(OPENSSL_hexstr2buf_ex(to, cap, &len, hex, '\0'), 1, "%s", hex);
    return len;
}

/* Version 3.4 and the cipher, little endian; then IV, key, salt, sequence in the kernel's order. */
static const struct {
    const char *secret;
    enum bf_rec_suite suite;
    const char *info;
} vectors[] = {
    {"a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
     BF_SUITE_AES_128_GCM_SHA256,
     "04033300"
     "dd83549aadf1e984" /* iv */
     "9f02283b6c9c07efc26bb9f2ac92e356"
     "cf782b88" /* salt */
     "0102030405060708"},
    {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2"
     "e"
     "2f",
     BF_SUITE_AES_256_GCM_SHA384,
     "04033400"
     "a0fe88648fc09e9f"
     "6877d022f1c61d24ebb7487c16752d9a4798e40431c75b39320e537c90e23225"
     "42822531"
     "0102030405060708"},
    {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     BF_SUITE_CHACHA20_POLY1305_SHA256,
     "04033600"
     "2f41c846a431a163814bcd71"
     "2ffbc449e87844051c7768f61ffd8ad070830f01ec2c520ef65f08e8296dffa0"
     "0102030405060708"},
};

Test(ktls, info_of_a_secret)
{
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct bf_rec_keys keys = {0};
        struct bf_ktls_info info;
        uint8_t want[128];
        (void)unhex(vectors[i].secret, keys.secret, sizeof(keys.secret));
        cr_assert(bf_rec_keys_derive(&keys, vectors[i].suite));
        const struct bf_ktls_keys given = {.suite = bf_rec_suite_number(vectors[i].suite),
                                           .key = keys.key,
                                           .iv = keys.iv,
                                           .sequence = 0x0102030405060708u};
        cr_assert(bf_ktls_info_set(&info, &given));
        cr_expect_eq(info.len, unhex(vectors[i].info, want, sizeof(want)), "suite %zu", i);
        cr_expect_arr_eq(info.bytes, want, info.len, "suite %zu", i);
    }
}

Test(ktls, other_suites_are_refused)
{
    static const uint8_t zeros[32];
    static const uint16_t others[] = {0, 0x1300, 0x1304, 0x1305, 0xc02f};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct bf_ktls_info info = {.len = 7};
        const struct bf_ktls_keys keys = {.suite = others[i], .key = zeros, .iv = zeros};
        cr_expect_not(bf_ktls_info_set(&info, &keys));
        cr_expect_eq(info.len, 0);
        cr_expect_eq(bf_ktls_bit(others[i]), 0);
    }
    cr_expect_eq(bf_ktls_bit(0x1301) | bf_ktls_bit(0x1302) | bf_ktls_bit(0x1303), 7);
}

Test(ktls, alert)
{
    static const uint8_t bytes[2] = {2, 20};
    struct bf_ktls_alert alert;
    bf_ktls_alert_set(&alert, bytes);
    const struct cmsghdr *type = CMSG_FIRSTHDR(&alert.message);
    cr_assert_not_null(type);
    cr_expect_eq(type->cmsg_level, 282);
    cr_expect_eq(type->cmsg_type, TLS_SET_RECORD_TYPE);
    cr_expect_eq(type->cmsg_len, CMSG_LEN(1));
    cr_expect_eq(*CMSG_DATA(type), 21);
    cr_expect_null(CMSG_NXTHDR(&alert.message, (struct cmsghdr *)type));
    cr_assert_eq(alert.message.msg_iovlen, 1);
    cr_expect_eq(alert.message.msg_iov->iov_len, 2);
    cr_expect_arr_eq(alert.message.msg_iov->iov_base, bytes, 2);
}

static int descriptors(void)
{
    int fd = dup(STDIN_FILENO);
    cr_assert_geq(fd, 0);
    close(fd);
    return fd;
}

Test(ktls, probe)
{
    int before = descriptors();
    int rc = bf_ktls_probe();
    cr_log_info("bf_ktls_probe: %d (%s)", rc, rc < 0 ? strerror(-rc) : "bits of suites");
    cr_expect(rc < 0 || (rc > 0 && rc <= 7));
    cr_expect_eq(bf_ktls_probe(), rc, "again");
    cr_expect_eq(descriptors(), before, "nothing stays open");
}
