/*
 * Pools, connections and requests without sockets: commands go in by the rings, the transport is a
 * list of what push asked for, and the test speaks HTTP/2 for the provider with frames by hand.
 * Time is the core's clock, which the test moves.
 */
#include "core_fixture.h"
#include "push/pools.h"

#define H2_BYTES  (16u << 20)
#define CONNS_MAX 256u
#define POOL      7u

/* A provider's end of a connection, and what push has asked of it. */
struct peer {
    bool is_open;
    uint32_t address;
    uint32_t requests; /* HEADERS that we sent */
    uint32_t resets;
    uint32_t pings;
    uint32_t last_stream;
};

static struct bf_push push;
static struct peer peers[CONNS_MAX];
static uint32_t opens;
static uint32_t closes;
static uint32_t goaways; /* that we sent, on all connections */
static uint32_t goaway_code;
static bool refuse_open;
static uint64_t next_id = 1;
static struct bf_rcpt_push last; /* result taken last */
static struct bf_rcpt_pool last_pool;
static char last_text[BF_PUSH_POOL_TEXT_MAX + 1];

/* ---- transport ---- */

static bool open_conn(void *context, uint32_t conn, uint32_t pool,
                      const struct bf_push_address *address)
{
    (void)context;
    cr_assert_lt(conn, CONNS_MAX);
    cr_assert(!peers[conn].is_open);
    peers[conn] = (struct peer){.is_open = !refuse_open,
                                .address = (uint32_t)(address - push.pools[pool].addresses)};
    opens++;
    return !refuse_open;
}

static void see(uint32_t conn, const uint8_t *bytes, size_t len);

static void close_conn(void *context, uint32_t conn, const uint8_t *words, size_t len)
{
    (void)context;
    see(conn, words, len);
    peers[conn].is_open = false;
    closes++;
    bf_push_released(&push, conn);
}

/* ---- the worker's part ---- */

static uint32_t be(const uint8_t *at, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | at[i];
    return v;
}

static void see(uint32_t conn, const uint8_t *bytes, size_t len)
{
    size_t at = len >= 24 && memcmp(bytes, "PRI ", 4) == 0 ? 24 : 0;
    for (; at + 9 <= len; at += 9 + be(bytes + at, 3)) {
        uint8_t type = bytes[at + 3];
        peers[conn].requests += type == 1;
        peers[conn].resets += type == 3;
        peers[conn].pings += type == 6 && !(bytes[at + 4] & 1);
        goaways += type == 7;
        if (type == 7)
            goaway_code = be(bytes + at + 13, 4);
        if (type == 1)
            peers[conn].last_stream = be(bytes + at + 5, 4);
    }
    cr_assert_eq(at, len);
}

/* Everything that is to be written leaves. */
static void write_all(void)
{
    static uint8_t out[65536];
    uint32_t conn;
    while ((conn = bf_push_ready_take(&push)) != UINT32_MAX) {
        size_t n = bf_push_pull(&push, conn, out, sizeof(out));
        see(conn, out, n);
        bf_push_sent(&push, conn, n);
    }
}

static void turn(uint32_t ms)
{
    fx.core.mono_ms += ms;
    (void)bf_commands_turn(&fx.commands);
    (void)bf_push_turn(&push);
    write_all();
}

/* Time passes, in steps that the housekeeping sees. */
static void pass(uint32_t ms)
{
    for (uint32_t at = 0; at < ms; at += 25)
        turn(25);
}

static void start(void)
{
    static const struct bf_push_transport transport = {.open = open_conn, .close = close_conn};
    fixture_start();
    fx.core.mono_ms = 100000;
    struct bf_push_memory m = {.h2 = aligned_alloc(4096, H2_BYTES), .h2_bytes = H2_BYTES};
    memset(m.h2, 0, H2_BYTES);
    fixture_slab(&m.requests, 256, sizeof(struct bf_push_request));
    m.conns = calloc(BF_PUSH_CONNECTIONS_MAX, sizeof(*m.conns));
    m.pools = calloc(BF_PUSH_POOLS_MAX, sizeof(*m.pools));
    m.ready = calloc(BF_PUSH_CONNECTIONS_MAX, sizeof(*m.ready));
    bf_push_init(&push, &fx.core, &m, &transport);
    fx.commands.push = &push;
}

static struct bf_push_spec spec_of(uint16_t min, uint16_t max, uint8_t addresses)
{
    struct bf_push_spec spec = {.id = POOL,
                                .authority = BF_BYTES("push.example"),
                                .tls_name = BF_BYTES("push.example"),
                                .address_count = addresses,
                                .connections_min = min,
                                .connections_max = max,
                                .authorization = BF_BYTES("bearer x")};
    for (uint8_t i = 0; i < addresses; i++)
        spec.addresses[i] =
            (struct bf_push_address){.ip = {127, 0, 0, (uint8_t)(i + 1)}, .port = 1};
    return spec;
}

static void configure(const struct bf_push_spec *spec, bool is_other)
{
    bf_push_configure_begin(&push);
    if (spec)
        cr_assert_geq(bf_push_configure_pool(&push, spec, is_other), 0);
    bf_push_configure_end(&push);
}

/* ---- the provider's part ---- */

static void frame(uint32_t conn, uint8_t type, uint8_t flags, uint32_t stream, const char *payload,
                  size_t len)
{
    uint8_t bytes[1024] = {(uint8_t)(len >> 16),
                           (uint8_t)(len >> 8),
                           (uint8_t)len,
                           type,
                           flags,
                           (uint8_t)(stream >> 24),
                           (uint8_t)(stream >> 16),
                           (uint8_t)(stream >> 8),
                           (uint8_t)stream};
    memcpy(bytes + 9, payload, len);
    bf_push_received(&push, conn, bytes, 9 + len);
    write_all();
}

static void settings(uint32_t conn, uint32_t streams)
{
    const char payload[6] = {
        0, 3, (char)(streams >> 24), (char)(streams >> 16), (char)(streams >> 8), (char)streams};
    frame(conn, 4, 0, 0, payload, sizeof(payload));
}

/* The handshake is over and SETTINGS come. */
static void take_on(uint32_t conn, uint32_t streams)
{
    cr_assert(peers[conn].is_open);
    bf_push_opened(&push, conn);
    write_all();
    settings(conn, streams);
}

static void answer(uint32_t conn, uint32_t stream, char status_index)
{
    frame(conn, 1, 5, stream, &status_index, 1);
}

static void ok(uint32_t conn, uint32_t stream)
{
    answer(conn, stream, (char)0x88);
}

static void reset(uint32_t conn, uint32_t stream, uint8_t code)
{
    const char payload[4] = {0, 0, 0, (char)code};
    frame(conn, 3, 0, stream, payload, sizeof(payload));
}

static void goaway(uint32_t conn, uint8_t last_stream, uint8_t code)
{
    const char payload[10] = {0, 0, 0, (char)last_stream, 0, 0, 0, (char)code, '{', '}'};
    frame(conn, 7, 0, 0, payload, sizeof(payload));
}

/* ---- ctrlplane's part ---- */

static struct bf_user_key whose; /* of the next pushes */

static uint64_t submit_flags(uint32_t lane, uint32_t deadline_ms, uint32_t flags)
{
    uint8_t bytes[128];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    struct bf_block_ref ref = block_of_text("");
    bf_put_str16(&w, BF_BYTES("/3/device/1"));
    bf_put_u8(&w, 1);
    bf_put_u8(&w, 10);
    bf_put_bytes(&w, BF_BYTES("apns-topic"));
    bf_put_str16(&w, BF_BYTES("app"));
    bf_put_str32(&w, BF_BYTES("{}"));
    struct bf_block *block = &bf_blocks(fx.region)[ref.index];
    memcpy(bf_block_data(fx.region, block), bytes, w.len);
    block->len = (uint32_t)w.len;
    struct bf_cmd_push cmd = {.push_id = next_id++,
                              .block = ref,
                              .pool = POOL,
                              .deadline_ms = deadline_ms,
                              .flags = flags,
                              .user = whose};
    put_command(0, lane, BF_CMD_PUSH, &cmd);
    return cmd.push_id;
}

static uint64_t submit(uint32_t lane)
{
    return submit_flags(lane, 0, 0);
}

/* The next result in |last|; false: there is none. Pool reports are remembered on the way. */
static bool result(void)
{
    enum bf_rcpt_kind kind;
    while ((kind = take_receipt()) != BF_RCPT_NONE) {
        if (kind == BF_RCPT_PUSH) {
            memcpy(&last, fx.message, sizeof(last));
            return true;
        }
        if (kind == BF_RCPT_POOL) {
            memcpy(&last_pool, fx.message, sizeof(last_pool));
            memcpy(last_text, fx.message + sizeof(last_pool), last_pool.text_len);
            last_text[last_pool.text_len] = '\0';
        }
    }
    return false;
}

static void expect(uint64_t id, enum bf_push_end end, enum bf_push_why why)
{
    cr_assert(result(), "no result for %lu", (unsigned long)id);
    cr_assert_eq(last.push_id, id, "%lu instead of %lu", (unsigned long)last.push_id,
                 (unsigned long)id);
    cr_assert_eq(last.end, end, "end %u", last.end);
    cr_assert_eq(last.why, why, "why %u", last.why);
}

/* One open connection of |streams| streams; its index is 0. */
static void start_one(uint32_t streams)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    configure(&spec, false);
    pass(50);
    cr_assert_eq(opens, 1);
    take_on(0, streams);
}

/* ---- opt-outs ---- */

/* What waits goes back, what is in flight is not sent twice; of this person alone. */
Test(push, an_opt_out_takes_back_what_has_not_left)
{
    start_one(1);
    struct bf_cmd_mask mask = {.user = user_of("out"), .op = BF_MASK_HOLD};
    whose = user_of("out");
    uint64_t sent = submit(BF_LANE_NORMAL);
    turn(1);
    uint64_t waits = submit(BF_LANE_BULK);
    whose = user_of("in");
    uint64_t other = submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 1, "one stream: the rest waits");
    put_command(0, BF_LANE_CRITICAL, BF_CMD_MASK, &mask);
    turn(1);
    expect(waits, BF_PUSH_NOT_SENT, BF_PUSH_WHY_MASKED);
    cr_assert(!result());
    goaway(0, 0, 0); /* the provider has not looked at the one in flight */
    expect(sent, BF_PUSH_NOT_SENT, BF_PUSH_WHY_MASKED);
    pass(1000);
    take_on(0, 10);
    turn(1);
    cr_assert_eq(peers[0].requests, 1);
    ok(0, 1);
    expect(other, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    cr_assert(bf_push_is_idle(&push));
}

/* The mask in the critical ring overtakes a push in the bulk ring; the mask that follows it finds
 * it. */
Test(push, an_opt_out_through_the_ring_of_a_push)
{
    start_one(10);
    struct bf_cmd_mask mask = {.user = user_of("out"), .op = BF_MASK_HOLD, .ticket = 9};
    whose = user_of("out");
    uint64_t id = submit(BF_LANE_BULK);
    put_command(0, BF_LANE_CRITICAL, BF_CMD_MASK, &mask);
    put_command(0, BF_LANE_BULK, BF_CMD_MASK, &mask);
    (void)bf_commands_turn(&fx.commands);
    uint32_t lanes = 0;
    bool is_back = false;
    enum bf_rcpt_kind kind;
    while ((kind = take_receipt()) != BF_RCPT_NONE) {
        const struct bf_rcpt_masked *masked = (const void *)fx.message;
        const struct bf_rcpt_push *back = (const void *)fx.message;
        if (kind == BF_RCPT_MASKED)
            lanes |= 1u << masked->lane;
        else if (kind == BF_RCPT_PUSH)
            is_back = back->push_id == id && back->why == BF_PUSH_WHY_MASKED;
    }
    cr_assert_eq(lanes, 1u << BF_LANE_CRITICAL | 1u << BF_LANE_BULK);
    cr_assert(is_back);
    turn(1);
    cr_assert_eq(peers[0].requests, 0);
}

/* ---- requests and answers ---- */

Test(push, a_request_is_answered_and_its_block_returned)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 1);
    cr_assert_eq(take_returns(), 0, "it may have to be written again");
    ok(0, 1);
    expect(id, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    cr_assert_eq(last.status, 200);
    cr_assert_eq(take_returns(), 1);
    cr_assert(bf_push_is_idle(&push));
}

Test(push, a_request_waits_for_its_connection)
{
    start();
    struct bf_push_spec spec = spec_of(0, 2, 1);
    configure(&spec, false);
    pass(100);
    cr_assert_eq(opens, 0, "nobody asked for one");
    uint64_t id = submit(BF_LANE_NORMAL);
    pass(50);
    cr_assert_eq(opens, 1);
    take_on(0, 10);
    turn(1);
    ok(0, 1);
    expect(id, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
}

Test(push, an_unknown_pool_is_refused)
{
    start();
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_NO_POOL);
    cr_assert_eq(take_returns(), 1);
}

Test(push, a_malformed_request_is_refused)
{
    start_one(10);
    struct bf_cmd_push cmd = {.push_id = 5, .block = block_of_text("nonsense"), .pool = POOL};
    put_command(0, BF_LANE_NORMAL, BF_CMD_PUSH, &cmd);
    turn(1);
    expect(5, BF_PUSH_NOT_SENT, BF_PUSH_WHY_BAD_REQUEST);
    cr_assert_eq(peers[0].requests, 0);
}

Test(push, no_slot_is_said_at_once)
{
    start_one(1);
    for (uint32_t i = 0; i < 256; i++)
        (void)submit(BF_LANE_NORMAL);
    turn(1);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_BUSY);
}

Test(push, lanes_are_strict_when_streams_are_scarce)
{
    start_one(1);
    uint64_t first = submit(BF_LANE_BULK);
    turn(1);
    uint64_t bulk = submit(BF_LANE_BULK), normal = submit(BF_LANE_NORMAL);
    uint64_t critical = submit(BF_LANE_CRITICAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 1);
    const uint64_t order[] = {first, critical, normal, bulk};
    for (uint32_t i = 0; i < 4; i++) {
        ok(0, 2 * i + 1);
        expect(order[i], BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
        turn(1);
    }
}

/* ---- stream limits ---- */

Test(push, one_stream_until_the_first_good_answer)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    spec.streams_first = 1;
    configure(&spec, false);
    pass(50);
    take_on(0, 100);
    for (uint32_t i = 0; i < 5; i++)
        (void)submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 1);
    answer(0, 1, (char)0x8c); /* 400: proves nothing */
    turn(1);
    cr_assert_eq(peers[0].requests, 2);
    ok(0, 3);
    turn(1);
    cr_assert_eq(peers[0].requests, 5);
}

Test(push, a_lower_limit_is_obeyed_at_once)
{
    start_one(4);
    for (uint32_t i = 0; i < 8; i++)
        (void)submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 4);
    settings(0, 1);
    ok(0, 1);
    ok(0, 3);
    ok(0, 5);
    turn(1);
    cr_assert_eq(peers[0].requests, 4, "one is still open");
    ok(0, 7);
    turn(1);
    cr_assert_eq(peers[0].requests, 5);
    settings(0, 3);
    turn(1);
    cr_assert_eq(peers[0].requests, 7);
}

Test(push, a_pool_grows_when_its_streams_are_used_up)
{
    start();
    struct bf_push_spec spec = spec_of(1, 3, 1);
    configure(&spec, false);
    pass(50);
    take_on(0, 1);
    for (uint32_t i = 0; i < 4; i++)
        (void)submit(BF_LANE_NORMAL);
    pass(100);
    cr_assert_eq(opens, 2, "one at a time");
    take_on(1, 1);
    pass(100);
    cr_assert_eq(opens, 2, "the last place is for unverified tokens");
    cr_assert_eq(peers[0].requests + peers[1].requests, 2);
}

Test(push, load_is_spread_over_connections_and_addresses)
{
    start();
    struct bf_push_spec spec = spec_of(3, 3, 3);
    configure(&spec, false);
    pass(50);
    cr_assert_eq(opens, 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(peers[i].address, i);
        take_on(i, 100);
    }
    for (uint32_t i = 0; i < 3 * BF_PUSH_RUN; i++)
        (void)submit(BF_LANE_NORMAL);
    turn(1);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(peers[i].requests, BF_PUSH_RUN, "connection %u: %u", i, peers[i].requests);
}

Test(push, unverified_tokens_have_a_connection_of_their_own)
{
    start();
    struct bf_push_spec spec = spec_of(1, 2, 1);
    configure(&spec, false);
    pass(50);
    take_on(0, 100);
    uint64_t bad = submit_flags(BF_LANE_NORMAL, 0, BF_PUSH_UNVERIFIED);
    pass(50);
    cr_assert_eq(opens, 2);
    take_on(1, 100);
    uint64_t good = submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 1);
    cr_assert_eq(peers[1].requests, 1);
    ok(0, 1);
    expect(good, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    answer(1, 1, (char)0x8c);
    expect(bad, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
}

/* ---- ends of streams and connections ---- */

Test(push, what_goaway_names_unprocessed_moves)
{
    start_one(10);
    uint64_t a = submit(BF_LANE_NORMAL), b = submit(BF_LANE_NORMAL), c = submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 3);
    goaway(0, 1, 0);
    ok(0, 1);
    expect(a, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    cr_assert(!peers[0].is_open, "its streams have ended");
    pass(1000);
    cr_assert_eq(opens, 2);
    take_on(0, 10);
    turn(1);
    cr_assert_eq(peers[0].requests, 2);
    ok(0, 1);
    ok(0, 3);
    cr_assert(result());
    cr_assert(last.push_id == b || last.push_id == c);
    cr_assert(result());
    cr_assert_eq(metric(BF_M_push_moved), 2);
    cr_assert_eq(metric(BF_M_push_unknown), 0);
}

Test(push, goaway_and_no_other_connection_in_time)
{
    start_one(10);
    uint64_t id = submit_flags(BF_LANE_NORMAL, 500, 0);
    turn(1);
    goaway(0, 0, 0);
    refuse_open = true;
    pass(1000);
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_NO_CONNECTION);
}

Test(push, goaways_text_is_reported)
{
    start_one(10);
    goaway(0, 0, 7);
    pass(600);
    (void)result();
    cr_assert_str_eq(last_text, "{}");
    cr_assert_eq(last_pool.goaways, 1);
}

Test(push, a_pool_says_its_load_and_that_it_is_over)
{
    start_one(10);
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.connections, 1);
    (void)submit(BF_LANE_NORMAL);
    (void)submit(BF_LANE_NORMAL);
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.streams, 2);
    cr_assert_eq(last_pool.streams_max, 10);
    ok(0, 1);
    ok(0, 3);
    while (result())
        continue;
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.streams, 0);
}

Test(push, a_pool_says_that_nothing_waits_any_more)
{
    start_one(1);
    (void)submit(BF_LANE_NORMAL);
    (void)submit(BF_LANE_NORMAL);
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.streams, 1);
    cr_assert_eq(last_pool.waiting, 1);
    ok(0, 1);
    pass(10); /* the other takes its place: as many are in flight as before */
    ok(0, 3);
    (void)submit(BF_LANE_NORMAL);
    while (result())
        continue;
    pass(600);
    while (result())
        continue;
    cr_assert_eq(last_pool.streams, 1);
    cr_assert_eq(last_pool.waiting, 0);
}

Test(push, a_pool_is_reported_again_after_a_census)
{
    struct bf_cmd_census cmd = {.ticket = 9};
    start_one(10);
    pass(600);
    (void)result();
    memset(&last_pool, 0, sizeof(last_pool));
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.connections, 0, "nothing has changed, so nothing is said");
    put_command(1, BF_LANE_CRITICAL, BF_CMD_CENSUS, &cmd);
    turn(1);
    for (uint32_t i = 0; i < 4; i++)
        (void)bf_commands_jobs(&fx.commands, 1);
    pass(600);
    (void)result();
    cr_assert_eq(last_pool.connections, 1);
}

Test(push, refused_streams_move_and_give_up_in_the_end)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    for (uint32_t i = 0; i <= BF_PUSH_MOVES_MAX; i++) {
        turn(1);
        cr_assert_eq(peers[0].requests, i + 1);
        cr_assert(!result());
        reset(0, 2 * i + 1, 7);
    }
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_REFUSED);
}

Test(push, a_reset_without_an_answer_is_unknown)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    reset(0, 1, 2);
    expect(id, BF_PUSH_UNKNOWN, BF_PUSH_WHY_RESET);
}

Test(push, a_malformed_answer_is_unknown)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    frame(0, 1, 5, 1, "\x88\x88", 2);
    expect(id, BF_PUSH_UNKNOWN, BF_PUSH_WHY_BAD_ANSWER);
}

Test(push, a_dead_connection_leaves_unknown_what_had_left)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    bf_push_closed(&push, 0, "reset by the peer");
    expect(id, BF_PUSH_UNKNOWN, BF_PUSH_WHY_CLOSED);
    cr_assert(!peers[0].is_open);
}

Test(push, what_never_left_a_dead_connection_moves)
{
    static uint8_t out[65536];
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    fx.core.mono_ms++;
    (void)bf_commands_turn(&fx.commands);
    (void)bf_push_turn(&push);
    uint32_t conn = bf_push_ready_take(&push);
    cr_assert_eq(conn, 0);
    (void)bf_push_pull(&push, conn, out, sizeof(out)); /* and never sent */
    bf_push_closed(&push, 0, "reset by the peer");
    cr_assert(!result());
    pass(1000);
    cr_assert_eq(opens, 2);
    take_on(0, 10);
    turn(1);
    ok(0, 1);
    expect(id, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
}

Test(push, nonsense_replaces_the_connection)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    frame(0, 0, 1, 0, "oops", 4);
    expect(id, BF_PUSH_UNKNOWN, BF_PUSH_WHY_CLOSED);
    pass(2000);
    cr_assert_eq(opens, 2);
    (void)result();
    cr_assert(strstr(last_text, "HTTP/2"), "%s", last_text);
    cr_assert_eq(goaways, 1, "it is told (RFC 9113 section 6.8)");
    cr_assert_eq(goaway_code, 1);
}

/* Section 6.9.1: a window that overflows is a FLOW_CONTROL_ERROR of the connection. */
Test(push, an_overflowing_window_is_told)
{
    start_one(10);
    (void)submit(BF_LANE_NORMAL);
    turn(1);
    frame(0, 8, 0, 0, "\x7f\xff\xff\xff", 4);
    cr_assert_not(peers[0].is_open);
    cr_assert_eq(goaways, 1);
    cr_assert_eq(goaway_code, 3);
}

/* ---- time ---- */

Test(push, a_stream_without_answer_is_cancelled)
{
    start_one(10);
    uint64_t id = submit(BF_LANE_NORMAL);
    turn(1);
    pass(4900);
    cr_assert(!result());
    pass(200);
    expect(id, BF_PUSH_UNKNOWN, BF_PUSH_WHY_TIMEOUT);
    cr_assert_eq(peers[0].resets, 1);
    cr_assert_eq(peers[0].pings, 1, "is the peer still there?");
    ok(0, 1); /* too late: nobody waits for it */
    cr_assert(!result());
    pass(BF_PUSH_PONG_MS + 500);
    cr_assert(peers[0].is_open, "it has said something since");
}

Test(push, a_silent_connection_is_given_up)
{
    start_one(10);
    (void)submit(BF_LANE_NORMAL);
    pass(5200);
    pass(BF_PUSH_PONG_MS + 2000);
    cr_assert_geq(opens, 2);
    cr_assert_eq(goaways, 1);
    cr_assert_eq(goaway_code, 0);
}

Test(push, no_stream_before_the_deadline)
{
    start_one(1);
    (void)submit_flags(BF_LANE_NORMAL, 5000, 0);
    turn(1);
    uint64_t id = submit_flags(BF_LANE_NORMAL, 300, 0);
    pass(250);
    cr_assert(!result());
    pass(100);
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_BUSY);
}

Test(push, no_connection_before_the_deadline)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    refuse_open = true;
    configure(&spec, false);
    uint64_t id = submit(BF_LANE_NORMAL);
    pass(5200);
    expect(id, BF_PUSH_NOT_SENT, BF_PUSH_WHY_NO_CONNECTION);
    cr_assert_leq(opens, 8, "no churn: %u", opens);
    cr_assert_geq(opens, 3);
}

Test(push, an_address_that_fails_is_tried_less_and_less)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    refuse_open = true;
    configure(&spec, false);
    pass(60000);
    uint32_t minute = opens;
    cr_assert_leq(minute, 12, "%u", minute);
    pass(120000);
    cr_assert_leq(opens - minute, 5, "%u", opens - minute);
}

Test(push, a_bad_address_does_not_hold_up_a_good_one)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 2);
    configure(&spec, false);
    pass(50);
    bf_push_closed(&push, 0, "connection refused");
    pass(50);
    cr_assert_eq(opens, 2);
    cr_assert_eq(peers[0].address, 1);
}

Test(push, opening_has_a_deadline)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    configure(&spec, false);
    pass(50);
    pass(BF_PUSH_OPEN_MS + 200);
    cr_assert_eq(closes, 1);
    cr_assert_eq(metric(BF_M_push_connection_failures), 1);
}

Test(push, opens_of_an_address_are_limited)
{
    start();
    struct bf_push_spec spec = spec_of(200, 200, 1);
    configure(&spec, false);
    for (uint32_t i = 0; i < 49; i++)
        turn(20);
    cr_assert_eq(opens, BF_PUSH_OPENS_PER_S, "%u in a second", opens);
    for (uint32_t i = 0; i < 49; i++)
        turn(20);
    cr_assert_eq(opens, 200);
}

Test(push, an_idle_connection_is_pinged)
{
    start();
    struct bf_push_spec spec = spec_of(1, 1, 1);
    spec.ping_idle_ms = 1000;
    configure(&spec, false);
    pass(50);
    take_on(0, 10);
    pass(900);
    cr_assert_eq(peers[0].pings, 0);
    pass(300);
    cr_assert_eq(peers[0].pings, 1);
    frame(0, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8);
    pass(500);
    cr_assert(peers[0].is_open);
    pass(1000 + BF_PUSH_PONG_MS + 500);
    cr_assert_eq(closes, 1, "no answer to the second");
    cr_assert_eq(metric(BF_M_push_pings), 2);
    cr_assert_eq(metric(BF_M_push_pongs), 1);
}

/* ---- configuration ---- */

Test(push, a_pool_that_is_named_no_more_ends_with_its_streams)
{
    start_one(10);
    uint64_t sent = submit(BF_LANE_NORMAL);
    turn(1);
    configure(NULL, false);
    uint64_t late = submit(BF_LANE_NORMAL);
    turn(1);
    expect(late, BF_PUSH_NOT_SENT, BF_PUSH_WHY_NO_POOL);
    cr_assert(peers[0].is_open);
    ok(0, 1);
    expect(sent, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    cr_assert(!peers[0].is_open);
    cr_assert(!push.pools[0].is_used);
    cr_assert_eq(goaways, 1);
    cr_assert_eq(goaway_code, 0);
}

Test(push, what_waits_in_a_pool_that_goes_is_given_back)
{
    start_one(1);
    (void)submit(BF_LANE_NORMAL);
    turn(1);
    uint64_t waits = submit(BF_LANE_NORMAL);
    turn(1);
    configure(NULL, false);
    expect(waits, BF_PUSH_NOT_SENT, BF_PUSH_WHY_NO_POOL);
}

Test(push, another_certificate_replaces_connections)
{
    start_one(10);
    struct bf_push_spec spec = spec_of(1, 1, 1);
    configure(&spec, true);
    pass(1000);
    cr_assert_eq(opens, 2);
}

Test(push, another_authorization_keeps_them)
{
    start_one(10);
    struct bf_push_spec spec = spec_of(1, 1, 1);
    spec.authorization = BF_BYTES("bearer another");
    configure(&spec, false);
    pass(1000);
    cr_assert_eq(opens, 1);
    cr_assert_eq(push.pools[0].authorization_len, 14);
}

Test(push, a_damaged_pool_is_refused)
{
    uint8_t bytes[256];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    struct bf_push_spec spec;
    bf_put_u32(&w, 3);
    bf_put_u8(&w, BF_PUSH_FCM);
    bf_put_str16(&w, BF_BYTES("name"));
    bf_put_str16(&w, BF_BYTES("fcm.example"));
    bf_put_str16(&w, BF_BYTES("fcm.example"));
    bf_put_u8(&w, 2);
    bf_put_str16(&w, BF_BYTES("192.0.2.1"));
    bf_put_u16(&w, 443);
    bf_put_str16(&w, BF_BYTES("2001:db8::1"));
    bf_put_u16(&w, 443);
    bf_put_u16(&w, 1);
    bf_put_u16(&w, 4);
    bf_put_u32(&w, 0);
    bf_put_u32(&w, 60000);
    bf_put_u8(&w, 0);
    for (uint32_t i = 0; i < 4; i++)
        bf_put_str32(&w, (struct bf_bytes){0});
    cr_assert_eq(bf_push_spec_read((struct bf_bytes){(char *)bytes, w.len}, &spec), 0);
    cr_assert(spec.addresses[1].is_v6);
    for (size_t len = 0; len < w.len; len++)
        cr_assert_neq(bf_push_spec_read((struct bf_bytes){(char *)bytes, len}, &spec), 0, "%zu",
                      len);
    for (size_t at = 0; at < w.len; at++) { /* any byte may differ: no crash */
        bytes[at] ^= 0xff;
        (void)bf_push_spec_read((struct bf_bytes){(char *)bytes, w.len}, &spec);
        bytes[at] ^= 0xff;
    }
}

/* ---- receipts, census, stop ---- */

Test(push, results_wait_for_room_and_no_new_push_is_taken)
{
    struct bf_rcpt_gone gone = {0};
    start_one(100);
    uint64_t a = submit(BF_LANE_NORMAL), b = submit(BF_LANE_NORMAL);
    turn(1);
    while (bf_rcpt_put(&fx.core.receipts, BF_RCPT_GONE, &gone, sizeof(gone), 0))
        continue;
    ok(0, 1);
    ok(0, 3);
    cr_assert(bf_push_is_impatient(&push));
    uint64_t c = submit(BF_LANE_NORMAL);
    turn(1);
    cr_assert_eq(peers[0].requests, 2, "it stays in its ring");
    cr_assert(!result());
    turn(1);
    expect(a, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    expect(b, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    turn(1);
    cr_assert_eq(peers[0].requests, 3);
    ok(0, 5);
    expect(c, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
}

Test(push, the_census_names_what_is_in_flight)
{
    struct bf_cmd_census cmd = {.ticket = 9};
    struct bf_rcpt_census_push rcpt;
    uint64_t ids[BF_PUSH_CENSUS_IDS_MAX];
    start_one(100);
    for (uint32_t i = 0; i < 70; i++)
        (void)submit(BF_LANE_NORMAL);
    turn(1);
    ok(0, 1);
    (void)result();
    put_command(1, BF_LANE_CRITICAL, BF_CMD_CENSUS, &cmd);
    turn(1);
    for (uint32_t i = 0; i < 4; i++)
        (void)bf_commands_jobs(&fx.commands, 1);
    uint32_t count = 0;
    enum bf_rcpt_kind kind;
    while ((kind = take_receipt()) == BF_RCPT_CENSUS_PUSH || kind == BF_RCPT_POOL) {
        if (kind == BF_RCPT_POOL)
            continue;
        memcpy(&rcpt, fx.message, sizeof(rcpt));
        memcpy(ids, fx.message + sizeof(rcpt), rcpt.count * sizeof(uint64_t));
        cr_assert_eq(rcpt.ticket, 9);
        for (uint32_t i = 0; i < rcpt.count; i++)
            cr_assert_neq(ids[i], 1, "it was answered");
        count += rcpt.count;
    }
    cr_assert_eq(kind, BF_RCPT_CENSUS_DONE);
    cr_assert_eq(count, 69);
}

Test(push, a_stop_gives_back_what_waits)
{
    start_one(1);
    uint64_t sent = submit(BF_LANE_NORMAL);
    turn(1);
    uint64_t waits = submit(BF_LANE_NORMAL);
    turn(1);
    bf_push_stop(&push);
    expect(waits, BF_PUSH_NOT_SENT, BF_PUSH_WHY_STOPPING);
    uint64_t late = submit(BF_LANE_NORMAL);
    turn(1);
    expect(late, BF_PUSH_NOT_SENT, BF_PUSH_WHY_STOPPING);
    cr_assert(!bf_push_is_idle(&push));
    ok(0, 1);
    expect(sent, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    cr_assert(bf_push_is_idle(&push));
}
