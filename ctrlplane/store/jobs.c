/* Jobs: expansions under way, each with the cursor that its last finished chunk ended with. */
#include "belfry/base/err.h"
#include "store/store_impl.h"

void bf_batch_put_job(struct bf_batch *b, const struct bf_job_row *job)
{
    struct bf_key key;
    bf_key_id(&key, BF_T_JOB, &job->id);
    struct bf_writer w = bf_batch_value(b, 32 + job->meta.len + job->body.len + job->cursor.len);
    bf_put_u64(&w, job->targeted);
    bf_put_str16(&w, job->cursor);
    bf_put_str16(&w, job->meta);
    bf_put_str32(&w, job->body);
    bf_put_u8(&w, job->is_push_only);
    bf_batch_put(b, &key, &w);
}

void bf_batch_delete_job(struct bf_batch *b, const struct bf_id *id)
{
    struct bf_key key;
    bf_key_id(&key, BF_T_JOB, id);
    bf_batch_delete(b, key.at, key.len);
}

static bool decode_job(const struct bf_scan *scan, struct bf_job_row *job)
{
    struct bf_reader k = bf_key_reader(scan->key);
    const uint8_t *id = bf_get_raw(&k, sizeof(job->id.bytes));
    struct bf_reader r = bf_value_reader(scan->value, NULL);
    job->targeted = bf_get_u64(&r);
    job->cursor = bf_get_str16(&r);
    job->meta = bf_get_str16(&r);
    job->body = bf_get_str32(&r);
    /* a row of an earlier version ends here: its event's target says the same */
    job->is_push_only = r.at < r.len && bf_get_u8(&r) != 0;
    if (!bf_value_is_read(&k) || !bf_value_is_read(&r))
        return false;
    memcpy(job->id.bytes, id, sizeof(job->id.bytes));
    return true;
}

int bf_store_walk_jobs(struct bf_store *s, int (*each)(void *arg, const struct bf_job_row *job),
                       void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_JOB);
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_job_row job;
        if (decode_job(&scan, &job))
            rc = each(arg, &job);
        else
            bf_store_corrupt("job", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}
