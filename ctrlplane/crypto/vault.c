/* The vault of device tokens; see vault.h. */
#include "crypto/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/id.h"
#include "crypto/hash.h"

#define GCM_TAG_BYTES 16u
#define GCM_IV_BYTES  12u
#define VAULT_VERSION 1u

void bf_vault_init(struct bf_vault *vault, const uint8_t key[BF_VAULT_KEY_BYTES])
{
    struct bf_bytes from = {(const char *)key, BF_VAULT_KEY_BYTES};
    bf_hmac_sha256(from, BF_BYTES("belfry device token seal 1"), vault->seal_key);
    bf_hmac_sha256(from, BF_BYTES("belfry device token index 1"), vault->hash_key);
}

/* Under another name first: a kill between making and writing leaves no key file that is empty. */
static int vault_write(const char *path, const char *text, size_t len)
{
    char fresh[600];
    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
        return -ENAMETOOLONG;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    /* synced: rows sealed with a key that a power cut takes back could never be read again */
    bool ok = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
    int rc = ok ? 0 : errno ? -errno : -EIO;
    close(fd);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    return rc;
}

static int vault_make(const char *path, char *err, size_t err_len)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t key[BF_VAULT_KEY_BYTES];
    char text[2 * BF_VAULT_KEY_BYTES + 1];
    bf_random(key, sizeof(key));
    for (size_t i = 0; i < sizeof(key); i++) {
        text[2 * i] = hex[key[i] >> 4];
        text[2 * i + 1] = hex[key[i] & 15];
    }
    text[sizeof(text) - 1] = '\n';
    int rc = vault_write(path, text, sizeof(text));
    OPENSSL_cleanse(key, sizeof(key));
    OPENSSL_cleanse(text, sizeof(text));
    if (rc != 0)
        snprintf(err, err_len, "cannot make the device key file %s: %s", path, strerror(-rc));
    return rc;
}

static int vault_parse(const char *text, size_t len, uint8_t key[BF_VAULT_KEY_BYTES])
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len != 2 * BF_VAULT_KEY_BYTES)
        return BF_ERR_MALFORMED;
    for (size_t i = 0; i < BF_VAULT_KEY_BYTES; i++) {
        int hi = bf_hex_digit(text[2 * i]), lo = bf_hex_digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return BF_ERR_MALFORMED;
        key[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

int bf_vault_open(const char *path, struct bf_vault *ret, char *err, size_t err_len)
{
    char text[2 * BF_VAULT_KEY_BYTES + 4];
    uint8_t key[BF_VAULT_KEY_BYTES];
    struct stat st;
    int rc = access(path, F_OK) == 0 ? 0 : vault_make(path, err, err_len);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (len < 0 || fstat(fd, &st) != 0) {
        rc = -errno;
        snprintf(err, err_len, "cannot read the device key file %s: %s", path, strerror(-rc));
    } else if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        rc = BF_ERR_DENIED;
        snprintf(err, err_len, "the device key file %s can be read by others: chmod 600", path);
    } else if (vault_parse(text, (size_t)len, key) != 0) {
        rc = BF_ERR_MALFORMED;
        snprintf(err, err_len, "the device key file %s does not hold 64 hex digits", path);
    } else {
        bf_vault_init(ret, key);
    }
    if (fd >= 0)
        close(fd);
    OPENSSL_cleanse(text, sizeof(text));
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

int bf_vault_seal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes plain,
                  uint8_t *out)
{
    int n = 0, end = 0;
    uint8_t *nonce = out + 1, *text = out + 1 + GCM_IV_BYTES;
    out[0] = VAULT_VERSION;
    bf_random(nonce, GCM_IV_BYTES);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx &&
              EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, vault->seal_key, nonce) == 1 &&
              EVP_EncryptUpdate(ctx, NULL, &n, (const uint8_t *)bound.at, (int)bound.len) == 1 &&
              EVP_EncryptUpdate(ctx, text, &n, (const uint8_t *)plain.at, (int)plain.len) == 1 &&
              EVP_EncryptFinal_ex(ctx, text + n, &end) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, GCM_TAG_BYTES, text + plain.len) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok ? 0 : BF_ERR_CORRUPT;
}

int bf_vault_unseal(const struct bf_vault *vault, struct bf_bytes bound, struct bf_bytes sealed,
                    uint8_t *out, size_t *ret_len)
{
    const uint8_t *at = (const uint8_t *)sealed.at;
    uint8_t tag[GCM_TAG_BYTES];
    int n = 0, end = 0;
    if (sealed.len < BF_VAULT_EXTRA_BYTES || at[0] != VAULT_VERSION)
        return BF_ERR_CORRUPT;
    size_t len = sealed.len - BF_VAULT_EXTRA_BYTES;
    const uint8_t *text = at + 1 + GCM_IV_BYTES;
    memcpy(tag, text + len, sizeof(tag));
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx &&
              EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, vault->seal_key, at + 1) == 1 &&
              EVP_DecryptUpdate(ctx, NULL, &n, (const uint8_t *)bound.at, (int)bound.len) == 1 &&
              EVP_DecryptUpdate(ctx, out, &n, text, (int)len) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, sizeof(tag), tag) == 1 &&
              EVP_DecryptFinal_ex(ctx, out + n, &end) == 1;
    EVP_CIPHER_CTX_free(ctx);
    ERR_clear_error();
    if (!ok)
        return BF_ERR_CORRUPT;
    *ret_len = len;
    return 0;
}

void bf_vault_hash(const struct bf_vault *vault, struct bf_bytes text,
                   uint8_t out[BF_VAULT_HASH_BYTES])
{
    uint8_t mac[BF_SHA256_BYTES];
    bf_hmac_sha256((struct bf_bytes){(const char *)vault->hash_key, BF_VAULT_KEY_BYTES}, text, mac);
    memcpy(out, mac, BF_VAULT_HASH_BYTES);
}
