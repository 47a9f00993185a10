/* Proven: the conversation of belfry.v1.json (DESIGN 5) from token to welcome, who may subscribe to
 * what, every close code that a client's own frames can bring about, deadlines of each state, the
 * rate limit, and that a client command is refused as temporary when receipts are full. Tokens are
 * HS256. */
#include "core_fixture.h"

#include <openssl/hmac.h>

#include "session/session.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define NOW_S  UINT64_C(1700000000)

static struct bf_session session;

static size_t base64url(const void *in, size_t len, char *out)
{
    size_t n = (size_t)EVP_EncodeBlock((unsigned char *)out, in, (int)len);
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    while (n > 0 && out[n - 1] == '=')
        n--;
    out[n] = '\0';
    return n;
}

/* A token of |user| that lives |ttl_s|; |more|: further claims. */
static const char *token_of(const char *user, long ttl_s, const char *more)
{
    static char token[1024];
    char claims[512];
    unsigned char mac[32];
    unsigned mac_len = 0;
    snprintf(claims, sizeof(claims), "{\"sub\":\"%s\",\"exp\":%ld%s}", user, (long)NOW_S + ttl_s,
             more);
    size_t len = base64url("{\"alg\":\"HS256\"}", 15, token);
    token[len++] = '.';
    len += base64url(claims, strlen(claims), token + len);
    (void)HMAC(EVP_sha256(), SECRET, 32, (const unsigned char *)token, len, mac, &mac_len);
    token[len++] = '.';
    (void)base64url(mac, mac_len, token + len);
    return token;
}

static void start(void)
{
    uint8_t content[512];
    struct bf_writer w = {.buf = content, .cap = sizeof(content)};
    fixture_start();
    fx.core.wall_ms = NOW_S * 1000u;
    bf_put_u16(&w, BF_SNAP_JWT_KEY);
    bf_put_u32(&w, 2 + 1 + 2 + 32);
    bf_put_str16(&w, BF_BYTES(""));
    bf_put_u8(&w, BF_JWT_HS256);
    bf_put_str16(&w, BF_BYTES(SECRET));
    bf_put_u16(&w, BF_SNAP_PUBLIC_TOPIC);
    bf_put_str32(&w, BF_BYTES("open.*"));
    bf_put_u16(&w, BF_SNAP_ORIGIN);
    bf_put_str32(&w, BF_BYTES("https://good"));
    bf_session_init(&session, &fx.core, calloc(1, BF_CLIENT_MSG_POOL_BYTES));
    cr_assert_eq(bf_session_configure(&session, content, w.len), 0);
}

static uint32_t open_socket(void)
{
    uint32_t slot = bf_conn_take(&fx.core.conns, 0);
    struct bf_upgrade up = {
        .key = BF_BYTES("dGhlIHNhbXBsZSBub25jZQ=="), .offers_v1_json = true, .is_upgrade = true};
    bf_life_start(&fx.core, slot);
    bf_session_upgrade(&session, slot, &up);
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_OPEN);
    cr_assert_not_null(strstr(take_sent(slot, ALL), "101"));
    return slot;
}

static void say(uint32_t slot, const char *text)
{
    static char copy[BF_CLIENT_FRAME_BYTES_MAX];
    snprintf(copy, sizeof(copy), "%s", text);
    struct bf_ws_event event = {.kind = BF_WS_EV_TEXT, .data = {.at = copy, .len = strlen(copy)}};
    bf_session_event(&session, slot, &event);
}

static void say_connect(uint32_t slot, const char *token, const char *more)
{
    char text[2048];
    snprintf(text, sizeof(text), "{\"t\":\"connect\",\"token\":\"%s\"%s}", token, more);
    say(slot, text);
}

static uint32_t welcomed(const char *user, const char *claims, const char *more)
{
    uint32_t slot = open_socket();
    say_connect(slot, token_of(user, 3600, claims), more);
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_AUTH);
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    conn_command(slot, 0, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    (void)bf_commands_turn(&fx.commands);
    (void)take_sent(slot, ALL);
    return slot;
}

static void expect_close(uint32_t slot, uint16_t code)
{
    cr_assert_geq(bf_hot(&fx.core, slot)->state, BF_CONN_CLOSING);
    cr_assert_eq(bf_cold(&fx.core, slot)->close_code, code, "%u",
                 bf_cold(&fx.core, slot)->close_code);
}

Test(session, connect_is_announced_with_what_it_asked)
{
    start();
    uint32_t s = open_socket();
    say_connect(s, token_of("ann", 60, ",\"tenant\":\"t1\""),
                ",\"device\":\"phone\",\"resume\":{\"epoch\":\"e\",\"seq\":7}");
    cr_assert_eq(take_receipt(), BF_RCPT_CONNECT);
    struct bf_rcpt_connect rcpt;
    memcpy(&rcpt, fx.message, sizeof(rcpt));
    cr_assert_eq(rcpt.resume_seq[BF_LANE_NORMAL], 7);
    cr_assert_eq(rcpt.flags, BF_CONNECT_RESUME | BF_CONNECT_HAS_DEVICE);
    cr_assert_eq(rcpt.token_expires_ms, (NOW_S + 60) * 1000u);
    cr_assert_arr_eq(fx.message + sizeof(rcpt), "annphonet1", 10);
    struct bf_user_key key = bf_user_key_of(fx.region->user_secret, "t1", 2, "ann", 3);
    cr_assert(bf_user_key_is_equal(rcpt.user, key));
}

Test(session, refused_tokens_and_first_frames)
{
    start();
    uint32_t s = open_socket();
    say_connect(s, "not.a.token", "");
    expect_close(s, BF_CLOSE_TOKEN);
    s = open_socket();
    say_connect(s, token_of("ann", -3600, ""), "");
    expect_close(s, BF_CLOSE_TOKEN);
    s = open_socket();
    say(s, "{\"t\":\"ping\"}");
    expect_close(s, BF_CLOSE_PROTOCOL);
    s = open_socket();
    say(s, "nonsense");
    expect_close(s, BF_CLOSE_PROTOCOL);
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "nobody was announced");
}

Test(session, token_of_the_request)
{
    start();
    uint32_t slot = bf_conn_take(&fx.core.conns, 0);
    const char *token = token_of("ann", 60, "");
    struct bf_upgrade up = {.key = BF_BYTES("dGhlIHNhbXBsZSBub25jZQ=="),
                            .bearer = {.at = token, .len = strlen(token)},
                            .is_upgrade = true};
    bf_life_start(&fx.core, slot);
    bf_session_upgrade(&session, slot, &up);
    say(slot, "{\"t\":\"connect\"}");
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_AUTH);
    slot = bf_conn_take(&fx.core.conns, 0);
    bf_life_start(&fx.core, slot);
    up.bearer = BF_BYTES("bad");
    bf_session_upgrade(&session, slot, &up);
    expect_close(slot, BF_CLOSE_TOKEN);
    cr_assert_not_null(strstr(take_sent(slot, ALL), "101"), "the code needs a handshake before it");
}

Test(session, origins)
{
    start();
    uint32_t slot = bf_conn_take(&fx.core.conns, 0);
    struct bf_upgrade up = {.key = BF_BYTES("dGhlIHNhbXBsZSBub25jZQ=="),
                            .origin = BF_BYTES("https://bad"),
                            .is_upgrade = true};
    bf_life_start(&fx.core, slot);
    bf_session_upgrade(&session, slot, &up);
    cr_assert_not_null(strstr(take_sent(slot, ALL), " 403 "));
    slot = bf_conn_take(&fx.core.conns, 0);
    bf_life_start(&fx.core, slot);
    up.origin = BF_BYTES("https://good");
    bf_session_upgrade(&session, slot, &up);
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_OPEN);
}

Test(session, newer_connection_of_a_device_replaces)
{
    start();
    uint32_t old = welcomed("ann", "", ",\"device\":\"d\"");
    uint32_t other = welcomed("ann", "", ",\"device\":\"e\"");
    uint32_t fresh = welcomed("ann", "", ",\"device\":\"d\"");
    expect_close(old, BF_CLOSE_REPLACED);
    cr_assert_eq(bf_hot(&fx.core, other)->state, BF_CONN_LIVE);
    cr_assert_eq(bf_hot(&fx.core, fresh)->state, BF_CONN_LIVE);
}

Test(session, topics_need_the_claim_or_are_public)
{
    start();
    uint32_t s = welcomed("ann", ",\"topics\":[\"news.*\",\"exact\"]", "");
    say(s, "{\"t\":\"sub\",\"topic\":\"news.a\",\"ref\":1}");
    say(s, "{\"t\":\"sub\",\"topic\":\"exact\",\"ref\":2}");
    say(s, "{\"t\":\"sub\",\"topic\":\"open.x\",\"ref\":3}");
    cr_assert_null(strstr(take_sent(s, ALL), "error"));
    say(s, "{\"t\":\"sub\",\"topic\":\"exactly\",\"ref\":4}");
    cr_assert_not_null(strstr(take_sent(s, ALL), "forbidden"));
    say(s, "{\"t\":\"unsub\",\"topic\":\"exact\",\"ref\":5}");
    cr_assert_not_null(strstr(take_sent(s, ALL), "\"ok\""));
    cr_assert_eq(fx.core.topics.subs.used, 2);
    bf_life_gone(&fx.core, s, 0);
    cr_assert_eq(fx.core.topics.subs.used, 0);
    cr_assert_eq(fx.core.grants.used, 0);
    cr_assert_eq(fx.core.pendings.used, 0);
}

Test(session, refresh_keeps_the_user)
{
    start();
    char text[2048];
    uint32_t s = welcomed("ann", "", "");
    uint32_t before = bf_cold(&fx.core, s)->deadline;
    snprintf(text, sizeof(text), "{\"t\":\"refresh\",\"token\":\"%s\",\"ref\":1}",
             token_of("ann", 7200, ""));
    say(s, text);
    cr_assert_not_null(strstr(take_sent(s, ALL), "\"ok\""));
    cr_assert_gt(bf_cold(&fx.core, s)->deadline, before);
    snprintf(text, sizeof(text), "{\"t\":\"refresh\",\"token\":\"%s\"}", token_of("bob", 60, ""));
    say(s, text);
    expect_close(s, BF_CLOSE_FORBIDDEN);
}

Test(session, inbox_ops_travel_or_are_temporary)
{
    start();
    uint32_t s = welcomed("ann", "", "");
    say(s, "{\"t\":\"archive\",\"id\":\"m7\",\"ref\":\"r\"}");
    cr_assert_eq(take_receipt(), BF_RCPT_CLIENT);
    const struct bf_rcpt_client *rcpt = (const void *)fx.message;
    cr_assert_eq(rcpt->op, BF_CLIENT_ARCHIVE);
    cr_assert_arr_eq(fx.message + sizeof(*rcpt), "\"r\"m7", 5);
    while (bf_rcpt_put(&fx.core.receipts, BF_RCPT_MASKED, fx.message, 8, 0))
        continue;
    say(s, "{\"t\":\"read\",\"id\":\"m8\",\"ref\":2}");
    cr_assert_not_null(strstr(take_sent(s, ALL), "\"temporary\":true"));
}

Test(session, too_many_frames)
{
    start();
    uint32_t s = welcomed("ann", "", "");
    fx.core.limits.client_frames_per_s = 5;
    fx.core.limits.conn_queue_frames = 64;
    fx.core.tick += 40;
    for (uint32_t i = 0; i < 6; i++)
        say(s, "{\"t\":\"ping\"}");
    const char *sent = take_sent(s, ALL);
    cr_assert_not_null(strstr(sent, "rate_limited"));
    for (uint32_t i = 0; i < 5; i++)
        say(s, "{\"t\":\"ping\"}");
    expect_close(s, BF_CLOSE_PROTOCOL);
}

/* Lets |ms| pass and the wheel look. */
static void pass(uint32_t ms)
{
    for (uint32_t t = 0; t < ms; t += BF_TICK_MS) {
        fx.core.tick++;
        fx.core.wall_ms += BF_TICK_MS;
        for (uint32_t slot;
             (slot = bf_wheel_take(&fx.core.wheel, &fx.core.conns, fx.core.tick)) != BF_SLOT_NONE;)
            bf_life_look(&fx.core, slot);
    }
}

Test(session, deadlines_of_each_state)
{
    start();
    uint32_t open = open_socket();
    pass(BF_CONNECT_DEADLINE_MS - 200);
    cr_assert_eq(bf_hot(&fx.core, open)->state, BF_CONN_OPEN);
    pass(400);
    expect_close(open, BF_CLOSE_NO_CONNECT);
    uint32_t auth = open_socket();
    say_connect(auth, token_of("ann", 360000, ""), "");
    pass(BF_WELCOME_DEADLINE_MS + 200);
    expect_close(auth, BF_CLOSE_OVERLOADED);
    pass(BF_CLOSE_LINGER_MS + 200);
    cr_assert_eq(bf_hot(&fx.core, auth)->state, BF_CONN_CLOSED);
}

Test(session, heartbeat_then_no_sign_of_life)
{
    start();
    uint32_t s = welcomed("ann", "", "");
    pass(30200);
    cr_assert_eq(metric(BF_M_pings_sent), 1);
    (void)take_sent(s, ALL);
    pass(30200);
    expect_close(s, BF_CLOSE_NO_SIGN_OF_LIFE);
}

Test(session, token_ends)
{
    start();
    uint32_t slot = open_socket();
    say_connect(slot, token_of("ann", 10, ""), "");
    conn_command(slot, 0, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    (void)bf_commands_turn(&fx.commands);
    pass(9800);
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_LIVE);
    pass(400);
    expect_close(slot, BF_CLOSE_EXPIRED);
}

/* A fifth of the lifetime is jitter; a fresh token does not make a connection younger. */
Test(session, aged_connection_is_told_to_go)
{
    start();
    fx.core.limits.lifetime_s = 10;
    uint32_t s = welcomed("ann", "", "");
    pass(8900);
    cr_assert_eq(bf_hot(&fx.core, s)->state, BF_CONN_LIVE);
    bf_life_set_end(&fx.core, s, fx.core.wall_ms + 3600000);
    pass(2400);
    expect_close(s, BF_CLOSE_LIFETIME);
}

Test(session, slow_reader_is_closed)
{
    start();
    uint32_t s = welcomed("ann", "", "");
    fx.core.limits.slow_timeout_ms = 1000;
    (void)bf_channel_push_local(&fx.core, s, "x", 1, BF_RANK_CONTROL, 0);
    bf_hot(&fx.core, s)->ops |= BF_OP_POLLOUT; /* the socket takes nothing */
    bf_cold(&fx.core, s)->last_tx = fx.core.tick;
    bf_life_file(&fx.core, s);
    pass(900);
    cr_assert_eq(bf_hot(&fx.core, s)->state, BF_CONN_LIVE);
    pass(300);
    expect_close(s, BF_CLOSE_SLOW);
}
