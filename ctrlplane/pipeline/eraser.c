/* See eraser.h. */
#include "pipeline/eraser.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <yyjson.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "ingest/event.h"
#include "log/log.h"
#include "belfry/base/fault.h"
#include "store/keys.h"
#include "store/scrub.h"

/* Events that were read and requests that were being answered when a user went have come to their
 * end by then: they take milliseconds, and whatever they wrote is found. */
#define SETTLE_MS 3000u
#define LOOK_MS   500u
/* A pass that failed is tried again after this. */
#define RETRY_MS 30000u
/* Rest after work, as a multiple of it: a fifth of the disk's time at most. */
#define REST_FACTOR 4u
/* What a stop may take for erasures that wait. */
#define LAST_PASS_MS 3000u
/* Users of one pass; more wait for the next. The log is walked once a pass, whatever their number.
 */
#define USERS_MAX 1024u

static struct bf_fault fault_step = {.point = "erase_step"};

struct erased_user {
    uint64_t tag; /* in the log, in the place of what was theirs */
    uint64_t erased_ms;
    struct bf_uid uid; /* borrowed from |text| */
    bool is_back;      /* a new user has the id: later rows are theirs */
    char text[BF_TENANT_BYTES_MAX + BF_USER_ID_BYTES_MAX];
};

struct bf_eraser {
    struct bf_core *core;
    pthread_t thread;
    pthread_mutex_t lock; /* is_stopping */
    pthread_cond_t wake;
    bool is_stopping;
    /* The thread's own. */
    uint64_t deadline_ms; /* of the last pass, mono; 0: not the last */
    uint64_t until_ms;    /* erasures of this pass are not younger, wall */
    struct erased_user *users;
    uint32_t user_count;
};

/* Waits; false: the process is about to stop. */
static bool rest(struct bf_eraser *e, uint64_t ms)
{
    uint64_t at = bf_mono_ms() + ms;
    struct timespec until = {(time_t)(at / 1000), (long)(at % 1000) * 1000000};
    int rc = 0;
    pthread_mutex_lock(&e->lock);
    while (!e->is_stopping && rc == 0)
        rc = pthread_cond_timedwait(&e->wake, &e->lock, &until);
    bool goes_on = !e->is_stopping;
    pthread_mutex_unlock(&e->lock);
    return goes_on;
}

static bool go_on(void *arg, uint64_t took_ns)
{
    struct bf_eraser *e = arg;
    bf_fault_pass(&fault_step);
    if (e->deadline_ms != 0)
        return bf_mono_ms() < e->deadline_ms;
    return rest(e, took_ns * REST_FACTOR / 1000000u);
}

/* ---- whose ---- */

static int take_user(void *arg, const struct bf_erasing_row *row)
{
    struct bf_eraser *e = arg;
    if (row->erased_ms > e->until_ms)
        return 0;
    for (uint32_t i = 0; i < e->user_count; i++) {
        struct erased_user *known = &e->users[i];
        if (bf_bytes_is_equal(known->uid.user, row->uid.user) &&
            bf_bytes_is_equal(known->uid.tenant, row->uid.tenant)) {
            known->erased_ms =
                row->erased_ms > known->erased_ms ? row->erased_ms : known->erased_ms;
            return 0;
        }
    }
    if (e->user_count == USERS_MAX ||
        row->uid.tenant.len + row->uid.user.len > sizeof(e->users->text)) {
        e->until_ms =
            row->erased_ms - 1; /* the rows are in order of time: the rest is the next pass's */
        return 1;
    }
    struct erased_user *user = &e->users[e->user_count++];
    memcpy(user->text, row->uid.tenant.at, row->uid.tenant.len);
    memcpy(user->text + row->uid.tenant.len, row->uid.user.at, row->uid.user.len);
    user->uid = (struct bf_uid){{user->text, row->uid.tenant.len},
                                {user->text + row->uid.tenant.len, row->uid.user.len}};
    user->tag = bf_uid_hash(user->uid);
    user->erased_ms = row->erased_ms;
    return 0;
}

static bool is_of(const struct erased_user *user, struct bf_bytes tenant, struct bf_bytes id,
                  uint64_t at_ms)
{
    return bf_bytes_is_equal(user->uid.user, id) && bf_bytes_is_equal(user->uid.tenant, tenant) &&
           at_ms <= user->erased_ms + (user->is_back ? 0 : SETTLE_MS);
}

static const struct erased_user *find(const struct bf_eraser *e, struct bf_bytes tenant,
                                      struct bf_bytes id, uint64_t at_ms)
{
    for (uint32_t i = 0; i < e->user_count; i++)
        if (is_of(&e->users[i], tenant, id, at_ms))
            return &e->users[i];
    return NULL;
}

/* ---- events ---- */

static struct bf_bytes text_of(const char *text)
{
    return (struct bf_bytes){text, strlen(text)};
}

/* The one recipient that an event names, by user_id or a list of one. */
static struct bf_bytes sole_recipient(yyjson_val *root)
{
    yyjson_val *val = yyjson_obj_get(root, "user_id");
    yyjson_val *list = yyjson_obj_get(root, "recipients");
    if (!val && yyjson_arr_size(list) == 1)
        val = yyjson_arr_get_first(list);
    return yyjson_is_str(val) ? (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)}
                              : (struct bf_bytes){0};
}

static const struct erased_user *user_of_body(const struct bf_eraser *e, struct bf_bytes tenant,
                                              struct bf_bytes body, uint64_t at_ms)
{
    yyjson_doc *doc = yyjson_read(body.at ? body.at : "", body.len, 0);
    struct bf_bytes id = sole_recipient(yyjson_doc_get_root(doc));
    const struct erased_user *user = id.at ? find(e, tenant, id, at_ms) : NULL;
    yyjson_doc_free(doc);
    return user;
}

/* A record of the log; NULL: one that was written over under |*tag|. An event of one person has
 * their id as its key, a redriven one its own. */
static bool match_record(void *arg, const struct bf_log_record *record, uint64_t *tag)
{
    const struct bf_eraser *e = arg;
    struct bf_event_meta meta;
    if (!record) {
        for (uint32_t i = 0; i < e->user_count; i++)
            if (e->users[i].tag == *tag)
                return true;
        return false;
    }
    if (bf_event_meta_decode((const uint8_t *)record->meta.at, record->meta.len, &meta) != 0)
        return false;
    struct bf_bytes tenant = text_of(meta.tenant);
    const struct erased_user *user = find(e, tenant, record->key, record->timestamp_ms);
    if (!user && record->key.len == sizeof(struct bf_id))
        user = user_of_body(e, tenant, record->body, record->timestamp_ms);
    if (user)
        *tag = user->tag;
    return user != NULL;
}

/* ---- dead letters ---- */

struct letters {
    struct bf_eraser *e;
    struct bf_batch *batch;
    int rc;
};

/* A body that is no JSON (that may be why it died) is the person's if it has their id as a string.
 */
static const struct erased_user *user_of_text(const struct bf_eraser *e, struct bf_bytes tenant,
                                              const struct bf_dlq_row *row)
{
    for (uint32_t i = 0; i < e->user_count; i++) {
        const struct erased_user *user = &e->users[i];
        char quoted[BF_USER_ID_BYTES_MAX + 2];
        quoted[0] = quoted[user->uid.user.len + 1] = '"';
        memcpy(quoted + 1, user->uid.user.at, user->uid.user.len);
        if (is_of(user, tenant, user->uid.user, row->at_ms) &&
            memmem(row->body.at, row->body.len, quoted, user->uid.user.len + 2) != NULL)
            return user;
    }
    return NULL;
}

static int look_at_letter(void *arg, const struct bf_dlq_row *row)
{
    struct letters *l = arg;
    struct bf_event_meta meta = {0};
    if (row->meta.len > 0)
        (void)bf_event_meta_decode((const uint8_t *)row->meta.at, row->meta.len, &meta);
    struct bf_bytes tenant = text_of(meta.tenant);
    yyjson_doc *doc = yyjson_read(row->body.at ? row->body.at : "", row->body.len, 0);
    struct bf_bytes id = sole_recipient(yyjson_doc_get_root(doc));
    const struct erased_user *user =
        doc ? (id.at ? find(l->e, tenant, id, row->at_ms) : NULL) : user_of_text(l->e, tenant, row);
    yyjson_doc_free(doc);
    if (!user)
        return 0;
    bf_batch_erase_letter(l->batch, user->uid, user->erased_ms, row);
    l->rc = bf_batch_write(l->batch, false);
    return l->rc;
}

static int erase_letters(struct bf_eraser *e)
{
    struct letters l = {.e = e, .batch = bf_batch_create(e->core->store)};
    int rc = 0;
    for (unsigned channel = 0; rc == 0 && channel <= BF_DLQ_INGEST; channel++)
        if (bf_store_dlq_depth(e->core->store, (uint8_t)channel) > 0)
            rc = bf_store_walk_dlq(e->core->store, (uint8_t)channel, 0, look_at_letter, &l);
    bf_batch_destroy(l.batch);
    return rc;
}

/* ---- a pass ---- */

static int delete_rest(struct bf_eraser *e)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < e->user_count; i++) {
        struct erased_user *user = &e->users[i];
        user->is_back = bf_core_has_user(e->core, user->uid);
        if (!user->is_back)
            rc = bf_core_erase_rest(e->core, user->uid, user->erased_ms);
    }
    return rc == 0 ? erase_letters(e) : rc;
}

static int run_pass(struct bf_eraser *e)
{
    struct bf_pace pace = {go_on, e};
    struct bf_store *store = e->core->store;
    uint64_t began = bf_mono_ms();
    int rc = delete_rest(e);
    bf_fault_pass(&fault_step);
    if (rc == 0)
        rc = bf_log_erase(e->core->log, match_record, e, &pace);
    bf_fault_pass(&fault_step);
    if (rc == 0)
        rc = bf_store_scrub(store, e->until_ms, &pace);
    bf_fault_pass(&fault_step);
    if (rc == 0)
        rc = bf_store_end_erasing(store, e->until_ms, &pace);
    if (rc == 0)
        BF_INFO("ctrlplane", "erasure: nothing of %u erased users is on the disk any more, %llu ms",
                e->user_count, (unsigned long long)(bf_mono_ms() - began));
    else if (rc != -ECANCELED)
        BF_ERROR("ctrlplane", "erasure: not finished: %s. It is tried again", bf_err_text(rc));
    return rc;
}

/* Takes what waits, if anything does. */
static int look(struct bf_eraser *e, uint64_t older_than_ms)
{
    e->until_ms = bf_wall_ms() - older_than_ms;
    e->user_count = 0;
    int rc = bf_store_walk_erasing(e->core->store, take_user, e);
    if (rc < 0 || e->user_count == 0)
        return rc < 0 ? rc : 0;
    return run_pass(e);
}

static void *eraser_main(void *arg)
{
    struct bf_eraser *e = arg;
    uint64_t wait_ms = LOOK_MS;
    prctl(PR_SET_NAME, "bf-eraser");
    bf_store_enter_thread(e->core->store);
    while (rest(e, wait_ms)) {
        uint64_t began = bf_mono_ms();
        int rc = look(e, SETTLE_MS);
        uint64_t took = bf_mono_ms() - began;
        wait_ms = rc != 0 && rc != -ECANCELED ? RETRY_MS : LOOK_MS;
        if (took * REST_FACTOR > wait_ms)
            wait_ms = took * REST_FACTOR;
    }
    e->deadline_ms = bf_mono_ms() + LAST_PASS_MS;
    (void)look(e, 0);
    return NULL;
}

struct bf_eraser *bf_eraser_start(struct bf_core *core)
{
    pthread_condattr_t attr;
    struct bf_eraser *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->users = calloc(USERS_MAX, sizeof(*e->users));
    e->core = core;
    bf_fault_arm(&fault_step);
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (e->users && pthread_create(&e->thread, NULL, eraser_main, e) == 0)
        return e;
    free(e->users);
    free(e);
    return NULL;
}

/* The thread looks at the time between files only; one that takes longer is given up in its middle.
 */
static void await_end(struct bf_eraser *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until); /* a clock that is set back must not hold a stop up */
    until.tv_sec += LAST_PASS_MS / 1000u + 1;
    if (pthread_clockjoin_np(e->thread, NULL, CLOCK_MONOTONIC, &until) == 0)
        return;
    bf_store_stop_scrub(e->core->store);
    bf_log_stop_erase(e->core->log);
    pthread_join(e->thread, NULL);
}

void bf_eraser_stop(struct bf_eraser *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->is_stopping = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    await_end(e);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    free(e->users);
    free(e);
}
