/*
 * Take-over of configuration snapshots (shm/snapshot.h). Naming a snapshot before reading it and
 * looking at `current` again after naming (both sequentially consistent: store buffering, as with
 * the doorbell) means that ctrlplane either sees the name and leaves the slot alone, or we see the
 * newer snapshot and take that one. What is needed is copied out, so between turns nothing is read
 * from it.
 */
#include "belfry/base/log.h"
#include "worker/worker.h"

static void take(struct bf_worker *w, struct bf_snapshot_slot *slot, uint64_t seq)
{
    /* acquire: pairs with ctrlplane's release of seq after the content */
    uint64_t is = atomic_load_explicit(&slot->seq, memory_order_acquire);
    if (is != seq || slot->len > BF_SNAPSHOT_BYTES_MAX ||
        XXH3_64bits(slot->content, slot->len) != slot->checksum ||
        bf_secure_configure(w, slot->content, slot->len) != 0 ||
        bf_session_configure(&w->session, slot->content, slot->len) != 0) {
        BF_WARN("dataplane", "worker %u: configuration %lu is damaged; the previous one stays",
                w->core.worker, (unsigned long)seq);
        return;
    }
    (void)bf_provider_configure(w, slot->content, slot->len); /* a bad pool spoils itself alone */
    bf_worker_count(&w->core, BF_M_snapshots, 1);
}

void bf_snapshot_check(struct bf_worker *w)
{
    struct bf_snapshot_area *area = bf_snapshots(w->core.region);
    _Atomic uint64_t *mine = &area->using_by[w->core.worker].seq;
    /* acquire: the slot's content was written before */
    uint64_t seq = atomic_load_explicit(&area->current, memory_order_acquire);
    if (BF_LIKELY(seq == atomic_load_explicit(mine, memory_order_relaxed)))
        return;
    for (;;) {
        atomic_store_explicit(mine, seq, memory_order_seq_cst);
        uint64_t again = atomic_load_explicit(&area->current, memory_order_seq_cst);
        if (again == seq)
            break;
        seq = again;
    }
    if (seq == 0 || seq == w->snapshot_seq)
        return; /* awake again, with the one we had */
    w->snapshot_seq = seq;
    take(w, &area->slots[seq % BF_SNAPSHOT_SLOTS], seq);
}

void bf_snapshot_none(struct bf_worker *w)
{
    /* seq_cst: ordered with the look at the rings before sleeping, costs nothing beside a sleep */
    atomic_store_explicit(&bf_snapshots(w->core.region)->using_by[w->core.worker].seq, 0,
                          memory_order_seq_cst);
}
