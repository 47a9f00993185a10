/* Taking commands from rings and dispatching them. See commands.h. */
#include "commands/commands.h"

#include <string.h>

#include "channel/channel.h"
#include "channel/quick.h"
#include "channel/sse_client.h"
#include "commands/census.h"
#include "session/life.h"

/*
 * The pipeline's distances, in commands. A miss is 150 ns, a command 50 ns, and a core has about 16
 * misses under way at once: two to three commands' worth of time, with room for a late one.
 */
#define AIM_AFTER   12u
#define ACT_AFTER   24u
#define TAKEN_COUNT 32u
_Static_assert(ACT_AFTER < TAKEN_COUNT, "a command under way has a place");
/* Slots that are prefetched before they are checked. */
#define SLOTS_AHEAD 16u

/* What the pipeline knows of a command: the connection it probably aims at, or one of these. */
#define AIM_NONE BF_SLOT_NONE        /* dispatch finds out */
#define AIM_BAD  (BF_SLOT_NONE - 1u) /* its slot failed the check */
#define AIM_USER (BF_SLOT_NONE - 2u) /* at a user, not looked up yet */
_Static_assert(BF_SLOTS_MAX < AIM_USER, "no connection");

/* Commands of one ring that are taken together: neighbours in memory. */
struct burst {
    const struct bf_slot *slots; /* the first */
    uint32_t position;           /* of the first */
    uint32_t lane;
    uint32_t quick; /* how many went straight through */
    struct bf_quick asked;
    uint32_t aims[TAKEN_COUNT]; /* by number in the burst, modulo */
};

enum verdict {
    TAKEN = 0,
    NOT_NOW = 1, /* leave it in the ring */
};

/* Nodes that targeted commands leave to broadcasts and answers: a sixteenth of the pool. */
static bool is_pool_low(const struct bf_worker_core *core)
{
    return core->nodes.used > core->nodes.cap - core->nodes.cap / 16u;
}

void bf_commands_init(struct bf_commands *in, struct bf_worker_core *core)
{
    const struct bf_region *region = core->region;
    *in = (struct bf_commands){.core = core, .producers = region->geometry.producers};
    in->drain.random = core->worker * 2654435761u + 1u;
    for (uint32_t p = 0; p < in->producers; p++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            bf_ring_consumer_attach(&in->rings[p][lane],
                                    bf_command_ring(region, p, core->worker, lane),
                                    bf_command_control(region, p, core->worker, lane));
    }
}

/* ---- targeted ---- */

static void notify(struct bf_commands *in, const struct bf_cmd_frame *cmd, uint32_t lane)
{
    struct bf_worker_core *core = in->core;
    const struct bf_frame frame = {.block = cmd->block.index,
                                   .stream = lane,
                                   .prev = cmd->prev,
                                   .seq = cmd->seq,
                                   .collapse = cmd->collapse};
    uint32_t slot = bf_users_find(&core->users, &core->conns, cmd->user);
    if (cmd->flags & BF_FRAME_STAMPED)
        in->stamp_ns = cmd->prev;
    if (slot == BF_SLOT_NONE)
        bf_worker_count(core, BF_M_commands_no_user, 1);
    for (; slot != BF_SLOT_NONE; slot = bf_hot(core, slot)->user_next) {
        if (!(cmd->flags & BF_FRAME_TRANSIENT))
            (void)bf_channel_offer(core, slot, &frame);
        /* before the lane's open marker: older than this connection, perhaps than an opt-out */
        else if (bf_hot(core, slot)->state == BF_CONN_LIVE &&
                 bf_hot(core, slot)->streams & BF_STREAM_OPEN(lane))
            (void)bf_channel_push_block(core, slot, frame.block,
                                        lane == BF_LANE_CRITICAL ? BF_RANK_CRITICAL : BF_RANK_REST,
                                        BF_NF_MASKABLE);
    }
}

/* Goes to those connections whose open marker of this lane has come. The marker follows the welcome
 * in the same ring, so commands after it carry a newer count than the welcome, and commands before
 * it an older one. */
static void state(struct bf_worker_core *core, const struct bf_cmd_frame *cmd, uint32_t lane)
{
    uint32_t slot = bf_users_find(&core->users, &core->conns, cmd->user);
    uint32_t except = bf_conn_find(&core->conns, cmd->seq);
    while (slot != BF_SLOT_NONE) {
        const struct bf_conn_hot *hot = bf_hot(core, slot);
        uint32_t next = hot->user_next;
        /* a client that cannot be told is closed; it connects again, and its welcome says the count
         */
        if (slot != except && hot->state <= BF_CONN_LIVE && (hot->streams & BF_STREAM_OPEN(lane)) &&
            !bf_channel_push_state(core, slot, cmd->block.index))
            bf_life_close(core, slot, BF_CLOSE_OVERLOADED, "no room", false);
        slot = next;
    }
}

static void welcome(struct bf_worker_core *core, uint32_t slot, uint32_t block, bool is_masked)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (hot->state != BF_CONN_AUTH)
        return; /* a repeat */
    bf_life_welcome(core, slot);
    /* the person's shard says what holds now; its earlier masks came before this */
    hot->flags &= (uint16_t)~BF_CF_MASKED;
    if (is_masked)
        hot->flags |= BF_CF_MASKED;
    if (BF_UNLIKELY(bf_hot(core, slot)->streams & BF_STREAMS_AS_EVENTS)) {
        const struct bf_block *frame = &bf_blocks(core->region)[block];
        const uint8_t *bytes = bf_block_data(core->region, frame);
        bf_sse_client_welcome(core, slot,
                              (struct bf_bytes){.at = (const char *)bytes, .len = frame->len});
    }
    if (!bf_channel_push_block(core, slot, block, BF_RANK_FIRST, 0))
        bf_life_close(core, slot, BF_CLOSE_OVERLOADED, "no room", false);
}

static void conn_frame(struct bf_worker_core *core, uint16_t kind,
                       const struct bf_cmd_conn_frame *cmd, uint32_t lane, bool has_block)
{
    uint32_t slot = bf_conn_find(&core->conns, cmd->conn);
    bool broadcast = kind == BF_CMD_OPEN_B || kind == BF_CMD_REPLAY_B;
    const struct bf_frame frame = {.block = cmd->block.index,
                                   .stream = broadcast ? BF_STREAM_BROADCAST : lane,
                                   .prev = cmd->prev,
                                   .seq = cmd->seq,
                                   .is_replay = true};
    if (slot == BF_SLOT_NONE || bf_hot(core, slot)->state > BF_CONN_LIVE ||
        bf_hot(core, slot)->state < BF_CONN_AUTH) {
        bf_worker_count(core, BF_M_commands_no_user, 1);
        return;
    }
    switch (kind) {
    case BF_CMD_OPEN:
    case BF_CMD_OPEN_B:
        bf_channel_open(core, slot, frame.stream, cmd->seq);
        break;
    case BF_CMD_REPLAY:
    case BF_CMD_REPLAY_B:
        bf_channel_replay(core, slot, &frame, has_block, (enum bf_replay_end)cmd->last);
        break;
    case BF_CMD_WELCOME:
        if (has_block)
            welcome(core, slot, cmd->block.index, cmd->flags & BF_CONN_MASKED);
        break;
    default: /* BF_CMD_REPLY */
        /* an event stream asks nothing, and what was sent on it needs no second time */
        if (!has_block || (bf_hot(core, slot)->streams & BF_STREAMS_AS_EVENTS))
            break;
        if (cmd->flags & BF_REPLY_IN_ORDER)
            (void)bf_channel_push_answer(core, slot, cmd->block.index);
        else
            (void)bf_channel_push_block(core, slot, cmd->block.index, BF_RANK_CONTROL,
                                        cmd->flags & BF_CONN_NOTICE ? BF_NF_HELD | BF_NF_MASKABLE
                                                                    : BF_NF_HELD);
        break;
    }
}

static void close_conn(struct bf_worker_core *core, uint32_t slot, const struct bf_cmd_close *cmd)
{
    if (cmd->reconnect_after_ms > 0)
        bf_life_goaway(core, slot, cmd->code, "closed by the server", cmd->reconnect_after_ms);
    else
        bf_life_close(core, slot, cmd->code, "closed by the server", false);
}

static void close_command(struct bf_worker_core *core, const struct bf_cmd_close *cmd)
{
    if (cmd->conn != 0) {
        uint32_t slot = bf_conn_find(&core->conns, cmd->conn);
        if (slot != BF_SLOT_NONE)
            close_conn(core, slot, cmd);
        return;
    }
    uint32_t slot = bf_users_find(&core->users, &core->conns, cmd->user);
    while (slot != BF_SLOT_NONE) {
        uint32_t next = bf_hot(core, slot)->user_next;
        close_conn(core, slot, cmd);
        slot = next;
    }
}

static enum verdict mask(struct bf_commands *in, const struct bf_cmd_mask *cmd, uint32_t lane)
{
    struct bf_worker_core *core = in->core;
    struct bf_rcpt_out *out = &core->receipts;
    if (out->masked_count == BF_RCPT_OUT_MASKED_MAX)
        return NOT_NOW;
    uint32_t slot = bf_users_find(&core->users, &core->conns, cmd->user);
    for (; slot != BF_SLOT_NONE; slot = bf_hot(core, slot)->user_next) {
        if (cmd->op == BF_MASK_HOLD)
            bf_channel_mask(core, slot);
        else if (cmd->op == BF_MASK_LIFT)
            bf_channel_unmask(core, slot, cmd->bseq);
    }
    if (cmd->op == BF_MASK_HOLD && in->push)
        bf_push_mask(in->push, cmd->user);
    /* confirmed by the flush of receipts, which follows this turn's submit: what was in a send
     * batch before the mask has left, nothing else will */
    if (cmd->ticket != 0)
        out->masked[out->masked_count++] =
            (struct bf_rcpt_out_masked){.ticket = cmd->ticket, .lane = lane};
    return TAKEN;
}

/* ---- dispatch ---- */

static struct bf_block_ref block_of(const struct bf_slot *slot)
{
    struct bf_block_ref none = {0};
    switch (slot->kind) {
    case BF_CMD_NOTIFY:
    case BF_CMD_STATE:
    case BF_CMD_NOOP:
        return ((const struct bf_cmd_frame *)(const void *)slot->payload)->block;
    case BF_CMD_REPLAY:
    case BF_CMD_WELCOME:
    case BF_CMD_OPEN:
    case BF_CMD_OPEN_B:
    case BF_CMD_REPLAY_B:
    case BF_CMD_REPLY:
        return ((const struct bf_cmd_conn_frame *)(const void *)slot->payload)->block;
    case BF_CMD_BROADCAST:
        return ((const struct bf_cmd_broadcast *)(const void *)slot->payload)->block;
    case BF_CMD_PUSH:
        return ((const struct bf_cmd_push *)(const void *)slot->payload)->block;
    default:
        return none;
    }
}

static bool needs_block(uint16_t kind)
{
    return kind == BF_CMD_NOTIFY || kind == BF_CMD_STATE || kind == BF_CMD_WELCOME ||
           kind == BF_CMD_REPLY || kind == BF_CMD_BROADCAST || kind == BF_CMD_NOOP ||
           kind == BF_CMD_PUSH;
}

static enum verdict broadcast(struct bf_commands *in, const struct bf_cmd_broadcast *cmd)
{
    struct bf_job job = {.block = cmd->block.index,
                         .prev = cmd->prev,
                         .bseq = cmd->bseq,
                         .topic = cmd->topic,
                         .tenant = cmd->tenant};
    if (in->raw && in->raw(in->raw_context, cmd))
        return TAKEN;
    return bf_broadcast_add(&in->broadcasts, in->core, &job) ? TAKEN : NOT_NOW;
}

/* Acts on a command whose slot is good. */
static enum verdict act(struct bf_commands *in, const struct bf_slot *slot, uint32_t lane,
                        bool has_block)
{
    struct bf_worker_core *core = in->core;
    const void *payload = slot->payload;
    switch (slot->kind) {
    case BF_CMD_NOTIFY:
        notify(in, payload, lane);
        return TAKEN;
    case BF_CMD_STATE:
        state(core, payload, lane);
        return TAKEN;
    case BF_CMD_REPLAY:
    case BF_CMD_WELCOME:
    case BF_CMD_OPEN:
    case BF_CMD_OPEN_B:
    case BF_CMD_REPLAY_B:
    case BF_CMD_REPLY:
        conn_frame(core, slot->kind, payload, lane, has_block);
        return TAKEN;
    case BF_CMD_BROADCAST:
        return broadcast(in, payload);
    case BF_CMD_CLOSE:
        close_command(core, payload);
        return TAKEN;
    case BF_CMD_MASK:
        return mask(in, payload, lane);
    case BF_CMD_CENSUS:
        bf_census_start(in, ((const struct bf_cmd_census *)payload)->ticket);
        return TAKEN;
    case BF_CMD_DRAIN:
        bf_commands_drain(in, ((const struct bf_cmd_drain *)payload)->rate,
                          ((const struct bf_cmd_drain *)payload)->reconnect_after_ms);
        return TAKEN;
    case BF_CMD_NOOP:
        return TAKEN;
    case BF_CMD_PUSH:
        if (in->push)
            return bf_push_take(in->push, payload, lane) ? TAKEN : NOT_NOW;
        bf_worker_count(core, BF_M_commands_bad, 1);
        return TAKEN;
    default:
        bf_worker_count(core, BF_M_commands_bad, 1);
        return TAKEN;
    }
}

/* Holds the command's block while it is acted on. Commands are one slot each. */
static enum verdict dispatch(struct bf_commands *in, const struct bf_slot *slot, uint32_t lane)
{
    struct bf_worker_core *core = in->core;
    struct bf_block_ref ref = block_of(slot);
    bool has_block = ref.lap != 0;
    if (slot->parts != 1 || (needs_block(slot->kind) && !has_block) ||
        (has_block && !bf_holds_take(&core->holds, ref))) {
        bf_worker_count(core, BF_M_commands_bad, 1);
        return TAKEN;
    }
    enum verdict verdict = act(in, slot, lane, has_block);
    if (!has_block)
        return verdict;
    if (verdict == NOT_NOW)
        bf_holds_forget(&core->holds, ref.index);
    else
        bf_holds_drop(&core->holds, ref.index);
    return verdict;
}

/* ---- bursts ---- */

/* Kind, part and parts of a slot as one word. */
static inline uint32_t kind_word(uint16_t kind, uint8_t part, uint8_t parts)
{
    return (uint32_t)kind | (uint32_t)part << 16 | (uint32_t)parts << 24;
}

/* Whether the command is the common one: a plain frame for a user. */
static inline bool is_plain(const struct bf_slot *slot)
{
    uint32_t word;
    memcpy(&word, &slot->kind, sizeof(word));
    return word == kind_word(BF_CMD_NOTIFY, 0, 1) &&
           ((const struct bf_cmd_frame *)(const void *)slot->payload)->flags == 0;
}
_Static_assert(offsetof(struct bf_slot, part) == offsetof(struct bf_slot, kind) + 2 &&
                   offsetof(struct bf_slot, parts) == offsetof(struct bf_slot, kind) + 3,
               "the word is what it is taken for");

static inline const struct bf_cmd_frame *frame_of(const struct burst *b, uint32_t i)
{
    return (const void *)b->slots[i].payload;
}

/* Checks a slot and asks for the lines that the look-up will touch. */
static inline void look(const struct bf_worker_core *core, struct bf_ring_consumer *ring,
                        struct burst *b, uint32_t i)
{
    /* the other core wrote it last. Beyond what is published it costs the producer a miss at most,
     * and only in a ring that is almost empty */
    __builtin_prefetch(bf_ring_peek(ring, b->position + i + SLOTS_AHEAD));
    uint32_t *aim = &b->aims[i % TAKEN_COUNT];
    if (BF_UNLIKELY(!bf_slot_is_valid(ring, b->position + i))) {
        *aim = AIM_BAD;
        return;
    }
    *aim = AIM_NONE;
    if (BF_UNLIKELY(!is_plain(&b->slots[i])))
        return;
    const struct bf_cmd_frame *cmd = frame_of(b, i);
    bf_users_prefetch(&core->users, cmd->user);
    if (BF_UNLIKELY(cmd->block.index >= core->region->block_count))
        return;
    __builtin_prefetch(&bf_blocks(core->region)[cmd->block.index]);
    __builtin_prefetch(&core->holds.by_block[cmd->block.index], 1);
    *aim = AIM_USER;
}

/* The table's entry has arrived: asks for the connection's line. */
static inline void aim(const struct bf_worker_core *core, struct burst *b, uint32_t i)
{
    uint32_t *aim = &b->aims[i % TAKEN_COUNT];
    if (BF_UNLIKELY(*aim != AIM_USER))
        return;
    *aim = bf_users_guess(&core->users, frame_of(b, i)->user);
    __builtin_prefetch(&core->conns.hot[*aim & (BF_SLOTS_MAX - 1u)], 1);
}

/*
 * The common command, straight through: the next frame of a user with one connection that has
 * nothing queued, in a block that is not held. Returns false for any other, having changed nothing:
 * dispatch then does the same, and everything else. |conn| is the table's first connection of the
 * key's tag, since when no connection was linked (sessions do that, no command) and this one was
 * not unlinked (bf_channel_try_offer looks).
 */
static inline bool try_notify(struct bf_worker_core *core, const struct burst *b,
                              const struct bf_cmd_frame *cmd, uint32_t conn)
{
    if (!bf_user_key_is_equal(bf_hot(core, conn)->user, cmd->user))
        return false;
    const struct bf_block *block = bf_holds_find_new(&core->holds, cmd->block);
    if (!block)
        return false;
    const struct bf_frame frame = {.block = cmd->block.index,
                                   .stream = b->lane,
                                   .prev = cmd->prev,
                                   .seq = cmd->seq,
                                   .collapse = cmd->collapse};
    if (!bf_channel_try_offer(core, conn, &frame, block->len, &b->asked))
        return false;
    bf_holds_add_new(&core->holds, cmd->block);
    return true;
}

/* Acts on a command that was looked at and aimed. Inlined at both of its calls: a call and its
 * saved registers would be a tenth of the common command. */
__attribute__((always_inline)) static inline enum verdict act_on(struct bf_commands *in,
                                                                 struct burst *b, uint32_t i)
{
    const uint32_t conn = b->aims[i % TAKEN_COUNT];
    if (BF_LIKELY(conn < BF_SLOTS_MAX) && try_notify(in->core, b, frame_of(b, i), conn)) {
        b->quick++;
        return TAKEN;
    }
    if (conn != AIM_BAD)
        return dispatch(in, &b->slots[i], b->lane);
    bf_worker_count(in->core, BF_M_commands_bad_slot, 1);
    return TAKEN;
}

/* Takes the first |n| commands of |b| as a pipeline: while one is acted on, the connection's line
 * of a later one and the table entry of one later still are on their way, so that cache misses
 * overlap each other and the work. Returns how many were taken. */
static uint32_t pipeline(struct bf_commands *in, struct bf_ring_consumer *ring, struct burst *b,
                         uint32_t n)
{
    struct bf_worker_core *core = in->core;
    const uint32_t act_after = n < ACT_AFTER ? n : ACT_AFTER;
    const uint32_t aim_after = n < ACT_AFTER ? n / 2 : AIM_AFTER;
    uint32_t looked = 0;
    uint32_t aimed = 0;
    uint32_t done = 0;
    while (looked < act_after) {
        look(core, ring, b, looked++);
        if (looked > aim_after)
            aim(core, b, aimed++);
    }
    while (looked < n) {
        look(core, ring, b, looked++);
        aim(core, b, aimed++);
        if (act_on(in, b, done) == NOT_NOW)
            return done;
        done++;
    }
    for (; done < n; done++) {
        if (aimed < n)
            aim(core, b, aimed++);
        if (act_on(in, b, done) == NOT_NOW)
            return done;
    }
    return done;
}

/* Takes up to |max| commands of one ring, at most to the end of its memory. */
static uint32_t take_burst(struct bf_commands *in, struct bf_ring_consumer *ring, uint32_t lane,
                           uint32_t max)
{
    struct burst b = {.slots = bf_ring_peek(ring, ring->next),
                      .position = ring->next,
                      .lane = lane,
                      .asked = bf_quick_of(lane)};
    uint32_t to_end = ring->mask + 1u - (ring->next & ring->mask);
    uint32_t n = bf_ring_ready(ring);
    n = n < max ? n : max;
    n = n < to_end ? n : to_end;
    if (n == 0)
        return 0;
    uint32_t done = pipeline(in, ring, &b, n);
    ring->next += done;
    bf_ring_release(ring, ring->next);
    bf_worker_count(in->core, BF_M_commands, done);
    bf_worker_count(in->core, BF_M_frames_queued, b.quick);
    in->work_due |= done < n;
    return done;
}

static uint32_t take_lane(struct bf_commands *in, uint32_t lane, uint32_t max)
{
    uint32_t total = 0;
    if (lane != BF_LANE_CRITICAL && is_pool_low(in->core)) {
        in->work_due = true;
        return 0;
    }
    for (uint32_t i = 0; i < in->producers; i++) {
        uint32_t p = (in->first + i) % in->producers;
        for (uint32_t n = 1; n > 0 && total < max; total += n)
            n = take_burst(in, &in->rings[p][lane], lane, max - total);
    }
    return total;
}

uint32_t bf_commands_turn(struct bf_commands *in)
{
    uint32_t total = 0;
    in->work_due = false;
    in->first = (in->first + 1) % in->producers;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        uint32_t left = BF_COMMANDS_PER_TURN - total;
        if (lane == BF_LANE_BULK && left < BF_COMMANDS_BULK_SHARE)
            left = BF_COMMANDS_BULK_SHARE;
        total += take_lane(in, lane, left);
    }
    return total;
}

bool bf_commands_has_waiting(struct bf_commands *in)
{
    bool any = false;
    for (uint32_t p = 0; p < in->producers; p++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            any |= bf_ring_ready_now(&in->rings[p][lane]) > 0;
    }
    return any;
}
