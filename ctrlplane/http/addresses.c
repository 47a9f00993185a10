/*
 * Connections by address: IPv4 whole, IPv6 by /64, which is what one customer of a network has.
 * Asked once an accept and once a close, so one lock is enough. There is an entry for each address
 * that has a connection, and none for another: connections_max bounds them.
 */
#include <stdlib.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "http/server.h"

/* Power of two. */
#define CHAINS 1024u

struct bf_address_count {
    struct bf_address_count *next;
    uint8_t key[16];
    uint32_t chain;
    uint32_t count;
};

struct bf_addresses {
    pthread_mutex_t lock;
    uint64_t seed; /* nobody can aim at one chain */
    struct bf_address_count *chains[CHAINS];
};

struct bf_addresses *bf_addresses_create(void)
{
    struct bf_addresses *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    pthread_mutex_init(&a->lock, NULL);
    a->seed = (uint64_t)(uintptr_t)a ^ (uint64_t)time(NULL) << 32;
    return a;
}

void bf_addresses_destroy(struct bf_addresses *a)
{
    for (unsigned i = 0; a && i < CHAINS; i++) {
        while (a->chains[i]) {
            struct bf_address_count *next = a->chains[i]->next;
            free(a->chains[i]);
            a->chains[i] = next;
        }
    }
    if (a)
        pthread_mutex_destroy(&a->lock);
    free(a);
}

static void make_key(const struct sockaddr_storage *from, uint8_t key[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memset(key, 0, 16);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)from;
        memcpy(key, mapped, sizeof(mapped));
        memcpy(key + 12, &v4->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)from;
        bool is_mapped = memcmp(&v6->sin6_addr, mapped, sizeof(mapped)) == 0;
        memcpy(key, &v6->sin6_addr, is_mapped ? 16 : 8);
    }
}

struct bf_address_count *bf_addresses_take(struct bf_addresses *a,
                                           const struct sockaddr_storage *from, uint32_t max)
{
    uint8_t key[16];
    make_key(from, key);
    uint32_t chain = (uint32_t)XXH3_64bits_withSeed(key, sizeof(key), a->seed) & (CHAINS - 1);
    pthread_mutex_lock(&a->lock);
    struct bf_address_count *at = a->chains[chain];
    while (at && memcmp(at->key, key, sizeof(key)) != 0)
        at = at->next;
    if (!at && (at = calloc(1, sizeof(*at)))) {
        memcpy(at->key, key, sizeof(key));
        at->chain = chain;
        at->next = a->chains[chain];
        a->chains[chain] = at;
    }
    bool fits = at && at->count < max;
    if (fits)
        at->count++;
    pthread_mutex_unlock(&a->lock);
    return fits ? at : NULL;
}

void bf_addresses_give(struct bf_addresses *a, struct bf_address_count *count)
{
    if (!count)
        return;
    pthread_mutex_lock(&a->lock);
    if (--count->count == 0) {
        struct bf_address_count **at = &a->chains[count->chain];
        while (*at != count)
            at = &(*at)->next;
        *at = count->next;
        free(count);
    }
    pthread_mutex_unlock(&a->lock);
}
