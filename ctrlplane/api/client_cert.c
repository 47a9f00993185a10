/* See client_cert.h. What was found stays with the connection until the configuration changes. */
#include "api/client_cert.h"

#include <string.h>
#include <strings.h>

#include "belfry/conf/conf.h"

/* Kept with the connection; zeros: nothing was asked yet. */
struct peer {
    const struct bf_conf *conf; /* that this holds for */
    bool has_key;
    uint8_t hash[BF_API_KEY_HASH_BYTES];
};

_Static_assert(sizeof(struct peer) <= BF_HTTP_PEER_BYTES, "fits the connection");

struct search {
    const struct bf_conf *conf;
    const char *key_id; /* found: of the key that it stands for */
    struct peer *peer;
};

/* Host names differ by case alone in nothing. */
static bool match_name(void *arg, struct bf_bytes name)
{
    struct search *search = arg;
    for (uint32_t i = 0; i < search->conf->api_client_count; i++) {
        const struct bf_conf_api_client *client = &search->conf->api_clients[i];
        if (strlen(client->name) == name.len && strncasecmp(client->name, name.at, name.len) == 0) {
            search->key_id = client->key;
            return true;
        }
    }
    return false;
}

static int match_key(void *arg, const struct bf_api_key_row *row)
{
    struct search *search = arg;
    if (strcmp(row->id, search->key_id) != 0)
        return 0;
    memcpy(search->peer->hash, row->hash, sizeof(search->peer->hash));
    search->peer->has_key = true;
    return 0;
}

bool bf_client_cert_key(struct bf_store *store, const struct bf_conf *conf, struct bf_request *r,
                        uint8_t hash[BF_API_KEY_HASH_BYTES])
{
    struct peer *peer = bf_request_peer_room(r);
    if (conf->api_client_count == 0)
        return false;
    if (peer->conf != conf) {
        struct search search = {.conf = conf, .peer = peer};
        *peer = (struct peer){.conf = conf};
        if (bf_request_peer(r, match_name, &search))
            bf_store_walk_api_keys(store, match_key, &search);
        if (search.key_id && !peer->has_key)
            peer->conf = NULL; /* the key may be made yet */
    }
    if (peer->has_key)
        memcpy(hash, peer->hash, sizeof(peer->hash));
    return peer->has_key;
}
