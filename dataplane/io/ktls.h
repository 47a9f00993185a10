/* Whether the kernel offers TLS records of its own (kTLS, tcp(7) TCP_ULP). Asked once at start and
 * reported; records are OpenSSL's or ours all the same (docs/ARCHITECTURE.md). Any thread. */
#pragma once

/* 0: it does. Else a negative errno: -ENOENT where it has none. */
int bf_ktls_probe(void);
