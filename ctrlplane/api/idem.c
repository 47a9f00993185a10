/* Running idempotency keys; see idem.h. Short chains under a lock each: held for a few loads. */
#include "api/idem.h"

#include <pthread.h>
#include <stdlib.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/bug.h"

/* More than threads and commits in flight can collide on. Power of two. */
#define CHAINS 256u

struct chain {
    pthread_mutex_t lock;
    struct bf_idem_mark *head;
};

struct bf_idem_set {
    struct chain chains[CHAINS];
};

struct bf_idem_set *bf_idem_set_create(void)
{
    struct bf_idem_set *set = calloc(1, sizeof(*set));
    for (unsigned i = 0; set && i < CHAINS; i++)
        pthread_mutex_init(&set->chains[i].lock, NULL);
    return set;
}

void bf_idem_set_destroy(struct bf_idem_set *set)
{
    for (unsigned i = 0; set && i < CHAINS; i++)
        pthread_mutex_destroy(&set->chains[i].lock);
    free(set);
}

static struct chain *chain_of(struct bf_idem_set *set, const struct bf_idem_mark *mark)
{
    return &set->chains[mark->key[0] & (CHAINS - 1)];
}

bool bf_idem_begin(struct bf_idem_set *set, struct bf_idem_mark *mark, struct bf_bytes key)
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(key.at, key.len));
    memcpy(mark->key, hash.digest, sizeof(mark->key));
    struct chain *chain = chain_of(set, mark);
    pthread_mutex_lock(&chain->lock);
    struct bf_idem_mark *other = chain->head;
    while (other && memcmp(other->key, mark->key, sizeof(mark->key)) != 0)
        other = other->next;
    if (!other) {
        mark->next = chain->head;
        chain->head = mark;
    }
    pthread_mutex_unlock(&chain->lock);
    return !other;
}

void bf_idem_end(struct bf_idem_set *set, struct bf_idem_mark *mark)
{
    struct chain *chain = chain_of(set, mark);
    pthread_mutex_lock(&chain->lock);
    struct bf_idem_mark **at = &chain->head;
    while (*at && *at != mark)
        at = &(*at)->next;
    BF_BUG_ON(!*at);
    *at = mark->next;
    pthread_mutex_unlock(&chain->lock);
}
