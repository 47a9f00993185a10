/* What became of a leg or of one attempt, as the delivery status shows it. Types and names only. */
#pragma once

/* Numbers are stored (outcomes): never change or reuse one. */
enum bf_status {
    BF_STATUS_QUEUED = 0,
    BF_STATUS_SENT = 1,
    BF_STATUS_DELIVERED = 2,
    BF_STATUS_SEEN = 3,
    BF_STATUS_OPENED = 4,
    BF_STATUS_SUPPRESSED = 5,
    BF_STATUS_FAILED = 6,
    BF_STATUS_EXPIRED = 7,
    BF_STATUS_COUNT
};

/* "queued", "sent", ...; "unknown" for any other number. Static text; any thread. */
const char *bf_status_name(enum bf_status status);
