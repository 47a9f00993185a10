/* Users: profile, preferences, and the small row of heads and acknowledgements. */
#include <errno.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "store/gather.h"
#include "store/store_impl.h"

/* Three numbers a lane, two counters, flags, two times. */
#define STATE_BYTES   (BF_LANE_COUNT * 3u * 8u + 25u)
#define STATE_EXACT   (1u << 0)
#define STATE_TELLING (1u << 1)

static void put_json(struct bf_batch *b, enum bf_table table, struct bf_uid uid,
                     struct bf_bytes json)
{
    struct bf_key key;
    bf_key_uid(&key, table, uid);
    struct bf_writer w = bf_batch_value(b, json.len);
    bf_put_bytes(&w, json);
    bf_batch_put(b, &key, &w);
}

void bf_batch_put_user(struct bf_batch *b, struct bf_uid uid, struct bf_bytes profile_json)
{
    put_json(b, BF_T_USER, uid, profile_json);
}

void bf_batch_put_prefs(struct bf_batch *b, struct bf_uid uid, struct bf_bytes prefs_json)
{
    put_json(b, BF_T_PREFS, uid, prefs_json);
}

void bf_batch_put_state(struct bf_batch *b, struct bf_uid uid, const struct bf_user_state *state,
                        uint64_t now_ms, bool is_exact)
{
    struct bf_key key;
    bf_key_uid(&key, BF_T_STATE, uid);
    struct bf_writer w = bf_batch_value(b, STATE_BYTES);
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
        bf_put_u64(&w, state->head[lane]);
        bf_put_u64(&w, state->ack_from[lane]);
        bf_put_u64(&w, state->ack_to[lane]);
    }
    bf_put_u32(&w, state->unread);
    bf_put_u32(&w, state->stored);
    bf_put_u8(&w,
              (uint8_t)((is_exact ? STATE_EXACT : 0) | (state->is_telling ? STATE_TELLING : 0)));
    bf_put_u64(&w, now_ms);
    bf_put_u64(&w, state->unread_due_ms);
    bf_batch_put(b, &key, &w);
}

/* The last seq of the step that |head| lies in; 0 stays 0. */
static uint64_t end_of_step(uint64_t head)
{
    return (head + BF_SEQ_STEP - 1) / BF_SEQ_STEP * BF_SEQ_STEP;
}

static bool decode_state(struct bf_bytes value, struct bf_user_state *ret)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    struct bf_user_state state = {0};
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
        state.head[lane] = bf_get_u64(&r);
        state.ack_from[lane] = bf_get_u64(&r);
        state.ack_to[lane] = bf_get_u64(&r);
    }
    state.unread = bf_get_u32(&r);
    state.stored = bf_get_u32(&r);
    uint8_t flags = bf_get_u8(&r);
    state.is_rounded = !(flags & STATE_EXACT);
    state.is_telling = (flags & STATE_TELLING) != 0;
    bool is_young = bf_get_u64(&r) + BF_SHORT_TTL_MS > bf_wall_ms();
    if (!r.failed && r.at < r.len) /* rows of earlier releases end here */
        state.unread_due_ms = bf_get_u64(&r);
    if (!bf_value_is_read(&r))
        return false;
    for (unsigned lane = 0; state.is_rounded && lane < BF_LANE_COUNT; lane++) {
        uint64_t end = end_of_step(state.head[lane]);
        state.gap[lane] = (uint8_t)(end - state.head[lane]);
        state.has_gap |= is_young && state.gap[lane] > 0;
        state.head[lane] = end;
    }
    *ret = state;
    return true;
}

/* The JSON after the format byte; at NULL if the format is not ours. */
static struct bf_bytes decode_json(struct bf_bytes value)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    return bf_get_bytes(&r, r.failed ? 0 : value.len - r.at);
}

static int get_json(struct bf_store *s, enum bf_table table, struct bf_uid uid, char **ret_json,
                    size_t *ret_len)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_uid(&key, table, uid);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_bytes json = decode_json(row.value);
    char *copy = json.at != NULL ? malloc(json.len + 1) : NULL;
    if (json.at == NULL) {
        rc = bf_store_corrupt("user", key.at, key.len);
    } else if (copy == NULL) {
        rc = -ENOMEM;
    } else {
        memcpy(copy, json.at, json.len);
        copy[json.len] = 0;
        *ret_json = copy;
        *ret_len = json.len;
    }
    bf_row_put(&row);
    return rc;
}

int bf_store_get_user(struct bf_store *s, struct bf_uid uid, char **ret_json, size_t *ret_len)
{
    return get_json(s, BF_T_USER, uid, ret_json, ret_len);
}

int bf_store_get_prefs(struct bf_store *s, struct bf_uid uid, char **ret_json, size_t *ret_len)
{
    return get_json(s, BF_T_PREFS, uid, ret_json, ret_len);
}

bool bf_store_has_user(struct bf_store *s, struct bf_uid uid)
{
    struct bf_key key;
    bf_key_uid(&key, BF_T_USER, uid);
    return s->engine->ops->has(s->engine, &key);
}

void bf_store_have_users(struct bf_store *s, struct bf_bytes tenant, const struct bf_bytes *users,
                         uint32_t count, bool *ret_have)
{
    struct bf_gather g;
    struct bf_key key;
    bf_gather_init(&g, s->engine);
    for (uint32_t i = 0; i < count; i++) {
        bf_key_uid(&key, BF_T_USER, (struct bf_uid){tenant, users[i]});
        bf_want_has(&g, &key);
    }
    int rc = bf_gather_read(&g);
    for (uint32_t i = 0; i < count; i++)
        ret_have[i] = rc == 0 && bf_gather_got(&g, i)->rc == 0;
    bf_gather_fini(&g);
}

int bf_store_get_state(struct bf_store *s, struct bf_uid uid, struct bf_user_state *ret)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_uid(&key, BF_T_STATE, uid);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    if (!decode_state(row.value, ret))
        rc = bf_store_corrupt("state", key.at, key.len);
    bf_row_put(&row);
    return rc;
}

/* ---- the walk: three tables in one key order, merged ---- */

enum { WALK_USER, WALK_STATE, WALK_PREFS, WALK_COUNT };
static const enum bf_table walk_tables[WALK_COUNT] = {BF_T_USER, BF_T_STATE, BF_T_PREFS};

struct walk {
    struct bf_scan scans[WALK_COUNT];
    bool has[WALK_COUNT];
};

/* Order of two keys of different tables: what follows the table byte. */
static int compare_uid(struct bf_bytes a, struct bf_bytes b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = memcmp(a.at + 1, b.at + 1, n - 1);
    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

/* The lowest key at which any of the table scans stands. A user who is in one table only is
 * reported too: a forgotten head would give numbers twice. */
static bool walk_lowest(const struct walk *walk, struct bf_bytes *ret)
{
    bool found = false;
    for (int i = 0; i < WALK_COUNT; i++) {
        if (walk->has[i] && (!found || compare_uid(walk->scans[i].key, *ret) < 0)) {
            *ret = walk->scans[i].key;
            found = true;
        }
    }
    return found;
}

static int walk_report(struct walk *walk, struct bf_bytes key, bf_user_fn each, void *arg)
{
    struct bf_reader r = bf_key_reader(key);
    struct bf_uid uid = bf_key_get_uid(&r);
    struct bf_user_state state = {0};
    struct bf_bytes prefs = {0};
    const struct bf_scan *at = &walk->scans[WALK_STATE];
    if (!bf_value_is_read(&r)) {
        bf_store_corrupt("user key", key.at, key.len);
        return 0;
    }
    if (walk->has[WALK_STATE] && compare_uid(at->key, key) == 0 &&
        !decode_state(at->value, &state)) {
        bf_store_corrupt("state", key.at, key.len);
        return 0; /* without its heads the user cannot be served: skipped, not guessed */
    }
    at = &walk->scans[WALK_PREFS];
    if (walk->has[WALK_PREFS] && compare_uid(at->key, key) == 0) {
        prefs = decode_json(at->value);
        if (prefs.at == NULL) {
            bf_store_corrupt("prefs", key.at, key.len);
            return 0; /* an opt-out may be in there: better nothing than a message against it */
        }
    }
    return each(arg, uid, &state, prefs);
}

int bf_store_walk_users(struct bf_store *s, bf_user_fn each, void *arg)
{
    struct walk walk;
    struct bf_key prefix, current;
    struct bf_bytes lowest = {0};
    int rc = 0;
    for (int i = 0; i < WALK_COUNT; i++) {
        bf_key_begin(&prefix, walk_tables[i]);
        bf_scan_open(&walk.scans[i], s, &prefix, NULL, BF_SCAN_BULK);
        walk.has[i] = bf_scan_next(&walk.scans[i]);
    }
    while (rc == 0 && walk_lowest(&walk, &lowest)) {
        /* a copy, because the bytes are gone when the scan steps on */
        current.len = 0;
        bf_key_raw(&current, lowest.at, lowest.len);
        lowest = (struct bf_bytes){(const char *)current.at, current.len};
        rc = walk_report(&walk, lowest, each, arg);
        for (int i = 0; i < WALK_COUNT; i++) {
            if (walk.has[i] && compare_uid(walk.scans[i].key, lowest) == 0)
                walk.has[i] = bf_scan_next(&walk.scans[i]);
        }
    }
    for (int i = 0; i < WALK_COUNT; i++) {
        int closed = bf_scan_close(&walk.scans[i]);
        rc = rc != 0 ? rc : closed;
    }
    return rc;
}
