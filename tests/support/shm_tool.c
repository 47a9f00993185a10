/*
 * shm_tool: looks into, and on request damages, the shared memory of a running dataplane. It
 * attaches as an EAL secondary, as the control process does, so it sees exactly what that would
 * see.
 *
 *   shm_tool info     RUN_DIR              geometry, ring positions, blocks held, EAL heap: one
 * JSON object shm_tool scribble RUN_DIR COUNT SEED   COUNT slots of random bytes, published, into
 * every command ring
 *
 * scribble takes the control process's lock: it refuses while one lives (only the owner of a side
 * touches its ring ends). Exit code 0, or 1 with a line on stderr. One thread.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memzone.h>

#include "belfry/shm/layout.h"
#include "belfry/shm/own.h"

#define EAL_ARGS 8

__attribute__((format(printf, 1, 2))) static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "shm_tool: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static struct bf_region *attach(const char *run_dir)
{
    struct bf_current current;
    char prefix[BF_EAL_PREFIX_BYTES_MAX + 16];
    int rc = bf_current_read(run_dir, &current);
    if (rc != 0)
        die("%s/current: %s", run_dir, bf_err_text(rc));
    snprintf(prefix, sizeof(prefix), "--file-prefix=%s", current.prefix);
    char name[] = "shm_tool", type[] = "--proc-type=secondary", pci[] = "--no-pci";
    char level[] = "--log-level=error";
    char *argv[EAL_ARGS] = {name, type, prefix, pci, level, NULL};
    if (rte_eal_init(5, argv) < 0)
        die("cannot attach to %s", current.prefix);
    const struct rte_memzone *zone = rte_memzone_lookup(BF_SHM_MEMZONE);
    if (!zone)
        die("no memzone %s", BF_SHM_MEMZONE);
    struct bf_region *region = zone->addr;
    if (region->magic != BF_SHM_MAGIC || region->layout_hash != bf_layout_hash())
        die("another contract: built from other sources?");
    return region;
}

static void print_rings(const struct bf_region *r)
{
    const char *comma = "";
    printf(",\"commands\":[");
    for (uint32_t p = 0; p < r->geometry.producers; p++) {
        for (uint32_t w = 0; w < r->geometry.workers; w++) {
            for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
                struct rte_ring *ring = bf_command_ring(r, p, w, lane);
                printf("%s{\"producer\":%u,\"worker\":%u,\"lane\":%u,\"head\":%u,\"published\":%u,"
                       "\"taken\":%u}",
                       comma, p, w, lane, bf_ring_load(&ring->prod.head),
                       bf_ring_load(&ring->prod.tail), bf_ring_load(&ring->cons.tail));
                comma = ",";
            }
        }
    }
    comma = "";
    printf("],\"receipts\":[");
    for (uint32_t w = 0; w < r->geometry.workers; w++) {
        struct rte_ring *ring = bf_receipt_ring(r, w);
        printf("%s{\"worker\":%u,\"published\":%u,\"released\":%u}", comma, w,
               bf_ring_load(&ring->prod.tail), bf_ring_load(&ring->cons.tail));
        comma = ",";
    }
    printf("]");
}

static void print_info(const struct bf_region *r)
{
    struct rte_malloc_socket_stats heap = {0};
    uint64_t held = 0;
    for (uint64_t i = 0; i < r->block_count; i++)
        held += bf_blocks(r)[i].holders != 0;
    rte_malloc_get_socket_stats(0, &heap);
    printf("{\"generation\":%" PRIu64 ",\"pid\":%" PRId64 ",\"workers\":%u,\"producers\":%u,"
           "\"blocks\":%" PRIu64 ",\"blocks_held\":%" PRIu64
           ",\"attaches\":%u,\"ctrl_generation\":%u,"
           "\"heap_used\":%zu,\"heap_free\":%zu",
           r->generation, r->dataplane_pid, r->geometry.workers, r->geometry.producers,
           r->block_count, held, atomic_load(&r->ctrl_attaches), atomic_load(&r->ctrl_generation),
           heap.heap_allocsz_bytes, heap.heap_freesz_bytes);
    print_rings(r);
    printf("}\n");
}

/* xorshift: the same seed gives the same damage. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

static uint32_t scribble_ring(const struct bf_region *r, struct rte_ring *ring, uint32_t count,
                              uint64_t *random)
{
    uint32_t tail = bf_ring_load(&ring->prod.tail);
    uint32_t room = ring->capacity - (tail - bf_ring_load(&ring->cons.tail));
    struct bf_slot *slots = (struct bf_slot *)(void *)(ring + 1);
    if (count > room)
        count = room;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t words[BF_SLOT_BYTES / 8];
        for (uint32_t k = 0; k < BF_SLOT_BYTES / 8; k++)
            words[k] = next_random(random);
        struct bf_slot *slot = &slots[(tail + i) & ring->mask];
        memcpy(slot, words, sizeof(words));
        if (i % 3 == 1) { /* a plausible header, and a check that holds for another position */
            slot->generation = atomic_load(&r->ctrl_generation);
            slot->kind = (uint16_t)(1 + i % (BF_CMD_COUNT - 1));
            slot->part = 0;
            slot->parts = 1;
            slot->len = BF_SLOT_PAYLOAD_BYTES;
            slot->check = bf_slot_check(slot, tail + i + 1);
        }
    }
    bf_ring_store(&ring->prod.head, tail + count);
    bf_ring_store(&ring->prod.tail, tail + count);
    return count;
}

static void scribble(const struct bf_region *r, uint32_t count, uint64_t seed)
{
    uint64_t random = seed * 2 + 1;
    uint64_t written = 0;
    for (uint32_t p = 0; p < r->geometry.producers; p++) {
        for (uint32_t w = 0; w < r->geometry.workers; w++) {
            for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
                written += scribble_ring(r, bf_command_ring(r, p, w, lane), count, &random);
        }
    }
    for (uint32_t w = 0; w < r->geometry.workers; w++)
        bf_doorbell_ring(bf_worker_bell(r, w));
    printf("{\"written\":%" PRIu64 "}\n", written);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "info") == 0) {
        print_info(attach(argv[2]));
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "scribble") == 0) {
        int lock = bf_own_take(argv[2], BF_OWN_CTRLPLANE);
        if (lock < 0)
            die("%s: %s", argv[2], bf_err_text(lock));
        scribble(attach(argv[2]), (uint32_t)strtoul(argv[3], NULL, 10),
                 strtoull(argv[4], NULL, 10));
        return 0;
    }
    fprintf(stderr, "usage: shm_tool info RUN_DIR | scribble RUN_DIR COUNT SEED\n");
    return 1;
}
