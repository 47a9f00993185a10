/* See admission.h. */
#include "worker/admission.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf.h"
#include "session/life.h"
#include "worker/worker.h"

#define TOKEN 1000u

int bf_admission_init(struct bf_worker *w, uint32_t slots)
{
    struct bf_admission *a = &w->admission;
    a->keys = bf_arena_take(&w->arena, "addresses, by slot", slots, sizeof(*a->keys));
    if (!a->keys)
        return BF_ERR_NO_MEMORY;
    return bf_arena_slab(&w->arena, "addresses, asked", BF_ADMISSION_QUESTIONS,
                         sizeof(struct sockaddr_storage), &a->questions);
}

/* ---- rate ---- */

bool bf_admission_may_accept(struct bf_worker *w)
{
    struct bf_admission *a = &w->admission;
    uint64_t rate = w->core.limits.accept_rate; /* a second, or milli-tokens a millisecond */
    if (rate == 0)
        return true;
    rate /= w->core.region->geometry.workers;
    if (rate == 0)
        rate = 1;
    uint64_t burst = rate / BF_ADMISSION_BURST_DIVISOR;
    burst = (burst > BF_ADMISSION_BURST_MIN ? burst : BF_ADMISSION_BURST_MIN) * TOKEN;
    uint64_t passed_ms = w->core.mono_ms - a->filled_ms;
    a->milli_tokens += passed_ms * rate;
    a->filled_ms = w->core.mono_ms;
    if (a->milli_tokens > burst)
        a->milli_tokens = burst;
    if (a->milli_tokens >= TOKEN) {
        a->milli_tokens -= TOKEN;
        return true;
    }
    bf_worker_count(&w->core, BF_M_admission_refused_rate, 1);
    return false;
}

/* ---- addresses ---- */

/* Keyed with the region's secret: nobody can choose addresses that collide. 0: neither v4 nor v6.
 */
static uint64_t key_of(const struct bf_worker *w, const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    const void *bytes;
    size_t len;
    if (address->ss_family == AF_INET) {
        bytes = &v4->sin_addr;
        len = sizeof(v4->sin_addr);
    } else if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        bytes = &v6->sin6_addr.s6_addr[12];
        len = 4;
    } else if (address->ss_family == AF_INET6) {
        bytes = &v6->sin6_addr; /* the network; the rest is the client's to choose */
        len = 8;
    } else {
        return 0;
    }
    uint64_t seed;
    memcpy(&seed, w->core.region->user_secret, sizeof(seed));
    return XXH3_64bits_withSeed(bytes, len, seed) | 1u;
}

/* Counts the connection, or sends it away. Returns whether it may stay. */
static bool judge(struct bf_worker *w, uint32_t slot, const struct sockaddr_storage *address)
{
    struct bf_admission *a = &w->admission;
    uint64_t key = key_of(w, address);
    if (key == 0)
        return true;
    if (!bf_address_counts_take(w->opts.addresses, key, w->core.limits.per_address)) {
        bf_worker_count(&w->core, BF_M_admission_refused_address, 1);
        bf_io_reset(w->io, bf_sock_of(w, slot));
        bf_life_gone(&w->core, slot, 0);
        return false;
    }
    a->keys[slot] = key;
    a->counted++;
    return true;
}

/* The kernel wants exactly the length of the address, or less. */
static uint32_t address_bytes(struct bf_worker *w, uint32_t slot)
{
    bool is_tls = bf_hot(&w->core, slot)->flags & BF_CF_TLS;
    const char *host = is_tls ? w->opts.conf->tls_host : w->opts.conf->ws_host;
    return strchr(host, ':') ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

bool bf_admission_ask(struct bf_worker *w, uint32_t slot)
{
    struct bf_admission *a = &w->admission;
    if (w->core.limits.per_address == 0 || a->is_deaf || !bf_io_is_direct(w->io))
        return false;
    uint32_t question = bf_slab_take(&a->questions);
    if (question == 0)
        return false; /* more accepts than a turn has: not counted rather than refused */
    bf_io_peer(w->io, bf_sock_of(w, slot), bf_slab_at(&a->questions, question),
               address_bytes(w, slot), (uint16_t)question);
    return true;
}

bool bf_admission_look(struct bf_worker *w, uint32_t slot)
{
    struct sockaddr_storage address = {0};
    if (w->core.limits.per_address == 0 || bf_io_is_direct(w->io) ||
        bf_io_peer_now(w->io, bf_sock_of(w, slot), &address) != 0)
        return true;
    return judge(w, slot, &address);
}

bool bf_admission_answer(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_admission *a = &w->admission;
    uint32_t slot = event->slot;
    struct sockaddr_storage address = {0};
    if (event->res > 0)
        memcpy(&address, bf_slab_at(&a->questions, event->aux),
               (size_t)event->res < sizeof(address) ? (size_t)event->res : sizeof(address));
    bf_slab_put(&a->questions, event->aux);
    if (bf_hot(&w->core, slot)->state == BF_CONN_CLOSED)
        return false;
    if (event->res < 0 && event->res != -ENOTCONN) {
        if (!a->is_deaf)
            BF_WARN("dataplane",
                    "worker %u: this kernel does not tell addresses of direct "
                    "descriptors (%s): admission.per_address is not kept",
                    w->core.worker, bf_err_text(event->res));
        a->is_deaf = true;
        return true;
    }
    return judge(w, slot, &address);
}

void bf_admission_release(struct bf_worker *w, uint32_t slot)
{
    struct bf_admission *a = &w->admission;
    if (a->counted == 0)
        return; /* the limit is off: its memory stays untouched */
    uint64_t key = a->keys[slot];
    if (key == 0)
        return;
    a->keys[slot] = 0;
    a->counted--;
    bf_address_counts_put(w->opts.addresses, key);
}
