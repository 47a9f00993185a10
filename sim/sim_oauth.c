/* OAuth token endpoint: see sim_oauth.h. */
#include "sim_oauth.h"

#include "sim_answer.h"
#include "sim_text.h"

#define GRANT_JWT "urn:ietf:params:oauth:grant-type:jwt-bearer"

static int hex_value(char c)
{
    char lower = (char)(c | 0x20);
    if (c >= '0' && c <= '9')
        return c - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Value of |name| in an application/x-www-form-urlencoded body. */
static struct sim_slice form_value(const struct sim_request *q, const char *name, char *out,
                                   size_t size)
{
    size_t n = strlen(name), made = 0;
    const char *p = q->body, *end = q->body + q->body_bytes;
    while (p < end) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        const char *stop = amp ? amp : end;
        if ((size_t)(stop - p) > n && memcmp(p, name, n) == 0 && p[n] == '=') {
            for (p += n + 1; p < stop && made < size; p++) {
                int hi = stop - p > 2 ? hex_value(p[1]) : -1,
                    lo = stop - p > 2 ? hex_value(p[2]) : -1;
                if (*p == '%' && hi >= 0 && lo >= 0) {
                    out[made++] = (char)(hi << 4 | lo);
                    p += 2;
                } else {
                    out[made++] = *p == '+' ? ' ' : *p;
                }
            }
            return (struct sim_slice){out, (uint32_t)made};
        }
        p = stop + 1;
    }
    return (struct sim_slice){out, 0};
}

struct sim_slice sim_oauth_assertion(const struct sim_request *q, char *out, size_t size)
{
    return form_value(q, "assertion", out, size);
}

void sim_oauth_fail(struct sim_answer *a, uint16_t status, const char *error, const char *text)
{
    a->status = status;
    a->reason = error;
    sim_answer_body(a, "application/json; charset=utf-8",
                    "{\"error\":\"%s\",\"error_description\":\"%s\"}", error, text);
}

/* NULL when the claims are good, else what Google's endpoint says about them. */
static const char *check_claims(const struct sim_ctx *c, const struct sim_claims *cl)
{
    const int64_t clock_skew_s = 300;
    int64_t now_s = c->now_ms / 1000;
    if (strcmp(cl->iss, c->world->oauth_email) != 0)
        return "Invalid grant: account not found";
    if (cl->kind != SIM_AUTH_GOOD)
        return "Invalid JWT Signature.";
    if (strcmp(cl->aud, c->world->oauth_token_uri) != 0)
        return "Invalid JWT: Failed audience check.";
    if (cl->iat <= 0 || cl->exp <= cl->iat || cl->exp - cl->iat > SIM_OAUTH_ASSERTION_S_MAX ||
        cl->iat > now_s + clock_skew_s || cl->exp < now_s)
        return "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
               "timeframe.";
    return NULL;
}

void sim_oauth_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a)
{
    char grant[128], token[256];
    sim_answer_init(a);
    a->topic = (struct sim_slice){q->claims->iss, (uint32_t)strlen(q->claims->iss)};
    struct sim_slice type = q->field[SIM_F_CONTENT_TYPE];
    if (!sim_slice_is(q->field[SIM_F_PATH], "/token")) {
        sim_oauth_fail(a, 404, "not_found", "The token endpoint is /token");
    } else if (!sim_slice_is(q->field[SIM_F_METHOD], "POST")) {
        sim_oauth_fail(a, 405, "invalid_request", "POST only");
    } else if (!sim_slice_begins(type, "application/x-www-form-urlencoded")) {
        sim_oauth_fail(a, 400, "invalid_request", "A form is wanted");
    } else if (!sim_slice_is(form_value(q, "grant_type", grant, sizeof(grant)), GRANT_JWT)) {
        sim_oauth_fail(a, 400, "unsupported_grant_type", "Invalid grant_type");
    } else if (q->claims->kind == SIM_AUTH_NONE || q->claims->kind == SIM_AUTH_MALFORMED) {
        sim_oauth_fail(a, 400, "invalid_request", "Missing or malformed parameter: assertion");
    } else {
        const char *bad = check_claims(c, q->claims);
        if (bad) {
            sim_oauth_fail(a, 400, "invalid_grant", bad);
        } else if (strstr(q->claims->scope, SIM_OAUTH_SCOPE) == NULL) {
            sim_oauth_fail(a, 400, "invalid_scope",
                           "Invalid OAuth scope or ID token audience provided.");
        } else {
            a->status = 200;
            a->authenticated = true;
            c->mint_access_token(c, token, sizeof(token));
            sim_answer_body(a, "application/json; charset=utf-8",
                            "{\"access_token\":\"%s\",\"expires_in\":%u,\"token_type\":\"Bearer\"}",
                            token, c->world->access_token_ttl_s);
        }
    }
}
