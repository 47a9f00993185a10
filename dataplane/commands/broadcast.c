/* See broadcast.h. */
#include "commands/broadcast.h"

#include "channel/channel.h"

static struct bf_job *job_at(struct bf_broadcasts *b, uint32_t position)
{
    return &b->jobs[position % BF_JOBS_MAX];
}

bool bf_broadcast_add(struct bf_broadcasts *b, struct bf_worker_core *core,
                      const struct bf_job *job)
{
    uint64_t last = b->head == b->tail ? core->b_pos : job_at(b, b->tail - 1)->bseq;
    if (job->bseq <= last) {
        bf_worker_count(core, BF_M_frames_duplicate, 1);
        return true; /* walked or queued before */
    }
    if (b->tail - b->head == BF_JOBS_MAX)
        return false;
    *job_at(b, b->tail++) = *job;
    bf_holds_add(&core->holds, job->block);
    return true;
}

/* Whether |job| can be walked with those before it: everyone's of one tenant, and nothing missing
 * between. (A connection that is passed over moves on with the walk's end, not within it.) */
static bool joins(const struct bf_job *before, const struct bf_job *job)
{
    return before->topic == 0 && job->topic == 0 && before->tenant == job->tenant &&
           job->prev <= before->bseq;
}

static void start_walk(struct bf_broadcasts *b, struct bf_worker_core *core)
{
    const struct bf_job *first = job_at(b, b->head);
    b->group = 1;
    while (b->group < BF_JOB_GROUP_MAX && b->head + b->group != b->tail &&
           joins(job_at(b, b->head + b->group - 1), job_at(b, b->head + b->group)))
        b->group++;
    b->everyone = first->topic == 0 || first->prev > core->b_pos;
    b->cursor = 0;
    if (!b->everyone)
        bf_topics_walk(&core->topics, first->topic);
    core->b_started = job_at(b, b->head + b->group - 1)->bseq;
}

static void end_walk(struct bf_broadcasts *b, struct bf_worker_core *core)
{
    core->b_pos = core->b_started;
    bf_worker_count(core, BF_M_broadcasts, b->group);
    for (; b->group > 0; b->group--)
        bf_holds_drop(&core->holds, job_at(b, b->head++)->block);
}

static bool is_of_tenant(const struct bf_worker_core *core, uint32_t slot, const struct bf_job *job)
{
    return bf_conn_tenant(&core->conns, slot) == job->tenant;
}

/* Whether the job's frame is for this connection. A walk over a topic's subscribers has chosen them
 * already. */
static bool is_for(const struct bf_broadcasts *b, const struct bf_worker_core *core, uint32_t slot,
                   const struct bf_job *job)
{
    if (!is_of_tenant(core, slot, job))
        return false;
    /* a topic's walk over everyone looks for who lacks what was lost; the frame is not for all */
    return job->topic == 0 || !b->everyone ||
           bf_topics_has(&core->topics, &core->conns, slot, job->topic);
}

/* Offers the walk's frames to one connection. Returns true if it has something new to send. */
static bool visit(struct bf_broadcasts *b, struct bf_worker_core *core, uint32_t slot)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t queued = 0;
    if (!(hot->streams & BF_STREAM_OPEN(BF_STREAM_BROADCAST)) || hot->state > BF_CONN_LIVE)
        return false;
    for (uint32_t i = 0; i < b->group; i++) {
        const struct bf_job *job = job_at(b, b->head + i);
        const struct bf_frame frame = {.block = job->block,
                                       .stream = BF_STREAM_BROADCAST,
                                       .prev = job->prev,
                                       .seq = job->bseq};
        if (!is_for(b, core, slot, job))
            bf_channel_skip(core, slot, job->prev);
        else if (bf_channel_offer(core, slot, &frame) == BF_OFFER_QUEUED)
            queued++;
    }
    bf_worker_count(core, BF_M_broadcast_frames, queued);
    return queued > 0;
}

/* Next slot in use; BF_SLOT_NONE at the end or with *budget looks spent. */
static uint32_t next_slot(struct bf_broadcasts *b, struct bf_worker_core *core, uint32_t *budget)
{
    struct bf_conns *conns = &core->conns;
    for (; *budget > 0; --*budget) {
        uint32_t slot = bf_conns_skip(conns, b->cursor);
        b->cursor = slot;
        if (slot == conns->cap)
            break;
        b->cursor++;
        __builtin_prefetch(&conns->hot[slot + 4]);
        __builtin_prefetch(&conns->cold[slot + 4]);
        if (conns->hot[slot].state != BF_CONN_FREE)
            return slot;
    }
    return BF_SLOT_NONE;
}

static bool is_walk_over(const struct bf_broadcasts *b, const struct bf_worker_core *core)
{
    return b->everyone ? b->cursor >= core->conns.cap : core->topics.cursor == 0;
}

bool bf_broadcast_slice(struct bf_broadcasts *b, struct bf_worker_core *core, uint32_t sends_max)
{
    uint32_t budget = BF_WALK_SCAN_MAX;
    uint32_t sends = 0;
    if (b->head == b->tail)
        return false;
    if (b->group == 0)
        start_walk(b, core);
    while (sends < sends_max && budget > 0) {
        uint32_t slot = b->everyone ? next_slot(b, core, &budget) : bf_topics_next(&core->topics);
        if (slot == BF_SLOT_NONE)
            break;
        budget--;
        sends += visit(b, core, slot);
    }
    if (is_walk_over(b, core))
        end_walk(b, core);
    return b->head != b->tail;
}
