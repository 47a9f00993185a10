/* belfryctl's calls and what it shows of their answers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/text.h"
#include "ctl/ctl.h"

/* ---- what people see ---- */

struct bf_shown {
    struct bf_shown *next;
    char text[];
};

/* Ids, titles and reasons come from outside, so they are escaped for the terminal. */
static void show_text(struct bf_reply *reply, yyjson_val *val)
{
    const char *text = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);
    size_t cap = len * BF_TEXT_ESCAPE_BYTES + 1;
    struct bf_shown *shown = malloc(sizeof(*shown) + cap);
    size_t n = shown ? bf_text_escape(shown->text, cap, text, len) : 0;
    if (!shown || (n == len && memcmp(shown->text, text, len) == 0)) {
        if (!shown)
            yyjson_set_str(val, "?"); /* no memory to escape it with */
        free(shown);
        return;
    }
    yyjson_set_strn(val, shown->text, n);
    shown->next = reply->shown;
    reply->shown = shown;
}

static void show_all(struct bf_reply *reply, yyjson_val *val)
{
    size_t i, max;
    yyjson_val *key, *member;
    if (yyjson_is_str(val))
        show_text(reply, val);
    else if (yyjson_is_arr(val))
        yyjson_arr_foreach (val, i, max, member)
            show_all(reply, member);
    else if (yyjson_is_obj(val))
        yyjson_obj_foreach (val, i, max, key, member)
            show_all(reply, member);
}

bool bf_ctl_call(struct bf_ctl *ctl, const char *method, const char *path, const char *body,
                 struct bf_reply *ret)
{
    struct bf_out o = {0};
    struct bf_link *link = bf_link_open(ctl, strncmp(path, "/v1/", 4) != 0);
    *ret = (struct bf_reply){0};
    if (!link)
        return false;
    ret->status = bf_link_call(link, method, path, body, &o);
    bf_link_close(link);
    if (ret->status > 0) {
        bf_out_raw(&o, "", 1);
        ret->body = bf_out_take(&o, &ret->len);
    }
    if (ret->body) {
        ret->len--;
        ret->json = yyjson_read(ret->body, ret->len, 0);
        if (!ctl->is_json)
            show_all(ret, yyjson_doc_get_root(ret->json));
    }
    bf_out_free(&o);
    return ret->body != NULL;
}

void bf_reply_free(struct bf_reply *reply)
{
    yyjson_doc_free(reply->json);
    while (reply->shown) {
        struct bf_shown *shown = reply->shown;
        reply->shown = shown->next;
        free(shown);
    }
    free(reply->body);
    *reply = (struct bf_reply){0};
}

int bf_ctl_refused(const struct bf_reply *reply)
{
    yyjson_val *root = yyjson_doc_get_root(reply->json);
    const char *detail = bf_json_text(root, "detail");
    const char *field = bf_json_text(root, "field");
    return bf_ctl_fail(BF_CTL_FAILED, "the node refused (%d): %s%s%s%s", reply->status,
                       detail[0] ? detail : "no reason given", field[0] ? " [" : "", field,
                       field[0] ? "]" : "");
}

void bf_ctl_print_body(const struct bf_reply *reply)
{
    puts(reply->body);
}

void bf_out_percent(struct bf_out *o, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                        (*p >= '0' && *p <= '9') || strchr("-._~", *p);
        if (is_plain)
            bf_out_raw(o, p, 1);
        else
            bf_out_print(o, "%%%02X", *p);
    }
}

static yyjson_val *find(yyjson_val *root, const char *path)
{
    while (root && *path) {
        size_t len = strcspn(path, ".");
        root = yyjson_obj_getn(root, path, len);
        path += len + (path[len] == '.');
    }
    return root;
}

uint64_t bf_json_number(yyjson_val *root, const char *path)
{
    return yyjson_get_uint(find(root, path));
}

const char *bf_json_text(yyjson_val *root, const char *path)
{
    const char *text = yyjson_get_str(find(root, path));
    return text ? text : "";
}
