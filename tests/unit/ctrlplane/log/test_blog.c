/* Broadcast log, embedded: numbers rise by one, a replay appends nothing, on_new comes in order
 * after the row; all of it over a reopening. */
#include "log_fixture.h"

#include "log/blog.h"

static struct bf_blog *blog;
static _Atomic uint64_t told;
static _Atomic int wrong;

static int is_there(void *arg, const struct bf_bcast_row *row)
{
    *(uint64_t *)arg = row->bseq;
    return 0;
}

static void on_new(void *arg, uint64_t bseq)
{
    uint64_t found = 0;
    (void)arg;
    if (bf_store_walk_bcast(store, bseq - 1, bseq, is_there, &found) != 0 || found != bseq)
        atomic_store(&wrong, 1);
    if (bseq <= atomic_exchange(&told, bseq))
        atomic_store(&wrong, 1);
}

static void blog_open(void)
{
    char err[256] = "";
    cr_assert_eq(bf_blog_open(&conf, store, on_new, NULL, &blog, err, sizeof(err)), 0, "%s", err);
}

static void append(uint64_t n)
{
    struct bf_bcast_row row = {.created_ms = 1,
                               .expires_ms = UINT64_MAX,
                               .bseq = 999,
                               .topic = text("news"),
                               .fragment = text("f")};
    memcpy(row.event_id.bytes, &n, sizeof(n));
    cr_assert_eq(bf_blog_append(blog, &row), 0);
}

static void wait_told(uint64_t bseq)
{
    for (int i = 0; i < 5000 && atomic_load(&told) < bseq; i++)
        usleep(1000);
    cr_assert_eq(atomic_load(&told), bseq);
    cr_assert_eq(atomic_load(&wrong), 0);
}

Test(blog, one_order, .init = setup, .fini = teardown, .timeout = 60)
{
    blog_open();
    cr_assert_eq(bf_blog_head(blog), 0);
    for (uint64_t n = 1; n <= 50; n++)
        append(n);
    for (uint64_t n = 1; n <= 50; n++)
        append(n);
    cr_assert_eq(bf_blog_head(blog), 50);
    wait_told(50);
    bf_blog_close(blog);
    log_close();
    log_open();
    blog_open();
    cr_assert_eq(bf_blog_head(blog), 50);
    append(50);
    append(51);
    cr_assert_eq(bf_blog_head(blog), 51);
    wait_told(51);
    bf_blog_close(blog);
    bf_blog_close(NULL);
}
