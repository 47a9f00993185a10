/*
 * Broadcast log over the store's rows. Embedded: appended here, told by the teller thread, so that
 * on_new never runs inside the caller of append. Kafka: blog_kafka.c.
 */
#include "log/blog.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "log/blog_impl.h"

struct embedded_blog {
    struct bf_blog blog; /* first */
    struct bf_store *store;
    struct bf_batch *batch; /* appender only */
    void (*on_new)(void *arg, uint64_t bseq);
    void *arg;
    pthread_t teller;
    pthread_mutex_t lock; /* head, is_closing */
    pthread_cond_t wake;
    uint64_t head;
    uint64_t told; /* the teller's; set before it starts: what is appended before its first turn is
                      new too */
    bool is_closing;
};

static void *tell(void *arg)
{
    struct embedded_blog *eb = arg;
    prctl(PR_SET_NAME, "bf-blog");
    pthread_mutex_lock(&eb->lock);
    while (!eb->is_closing) {
        if (eb->told == eb->head) {
            pthread_cond_wait(&eb->wake, &eb->lock);
            continue;
        }
        uint64_t bseq = ++eb->told;
        pthread_mutex_unlock(&eb->lock);
        eb->on_new(eb->arg, bseq);
        pthread_mutex_lock(&eb->lock);
    }
    pthread_mutex_unlock(&eb->lock);
    return NULL;
}

static int embedded_append(struct bf_blog *blog, const struct bf_bcast_row *row)
{
    struct embedded_blog *eb = (struct embedded_blog *)blog;
    uint64_t known;
    if (bf_store_find_bcast(eb->store, &row->event_id, &known))
        return 0;
    struct bf_bcast_row numbered = *row;
    numbered.bseq = bf_store_bcast_head(eb->store) + 1;
    bf_batch_clear(eb->batch);
    bf_batch_put_bcast(eb->batch, &numbered);
    if (bf_batch_write(eb->batch, true) != 0)
        return BF_ERR_STORE; /* not to be tried again, unlike a broker that is away */
    pthread_mutex_lock(&eb->lock);
    eb->head = numbered.bseq;
    pthread_cond_signal(&eb->wake);
    pthread_mutex_unlock(&eb->lock);
    return 0;
}

static void embedded_close(struct bf_blog *blog)
{
    struct embedded_blog *eb = (struct embedded_blog *)blog;
    pthread_mutex_lock(&eb->lock);
    eb->is_closing = true;
    pthread_cond_signal(&eb->wake);
    pthread_mutex_unlock(&eb->lock);
    pthread_join(eb->teller, NULL);
    pthread_mutex_destroy(&eb->lock);
    pthread_cond_destroy(&eb->wake);
    bf_batch_destroy(eb->batch);
    free(eb);
}

static uint64_t embedded_head(struct bf_blog *blog)
{
    return bf_store_bcast_head(((struct embedded_blog *)blog)->store);
}

static const struct bf_blog_ops embedded_ops = {
    .close = embedded_close,
    .append = embedded_append,
    .head = embedded_head,
};

static int open_embedded(struct bf_store *store, void (*on_new)(void *arg, uint64_t bseq),
                         void *arg, struct bf_blog **ret)
{
    struct embedded_blog *eb = calloc(1, sizeof(*eb));
    if (eb == NULL)
        return -ENOMEM;
    eb->blog.ops = &embedded_ops;
    eb->store = store;
    eb->batch = bf_batch_create(store);
    eb->on_new = on_new;
    eb->arg = arg;
    eb->head = eb->told = bf_store_bcast_head(store);
    pthread_mutex_init(&eb->lock, NULL);
    pthread_cond_init(&eb->wake, NULL);
    int made = pthread_create(&eb->teller, NULL, tell, eb);
    BF_BUG_ON(made != 0); /* start-up only */
    *ret = &eb->blog;
    return 0;
}

int bf_blog_open(const struct bf_conf *conf, struct bf_store *store,
                 void (*on_new)(void *arg, uint64_t bseq), void *arg, struct bf_blog **ret,
                 char *err, size_t err_len)
{
    if (strcmp(conf->log_engine, "kafka") == 0)
        return bf_blog_kafka_open(conf, store, on_new, arg, ret, err, err_len);
    int rc = open_embedded(store, on_new, arg, ret);
    if (rc != 0)
        snprintf(err, err_len, "cannot open the broadcast log: %s", bf_err_text(rc));
    return rc;
}

void bf_blog_close(struct bf_blog *blog)
{
    if (blog != NULL)
        blog->ops->close(blog);
}

int bf_blog_append(struct bf_blog *blog, const struct bf_bcast_row *row)
{
    return blog->ops->append(blog, row);
}

uint64_t bf_blog_head(struct bf_blog *blog)
{
    return blog->ops->head(blog);
}
