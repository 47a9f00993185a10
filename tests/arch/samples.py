"""Small trees that each rule of arch.py must accept (good) or refuse (bad): {rule: {kind: [files]}}."""

LONG = "int f(void)\n{\n" + "    g();\n" * 71 + "}\n"
FULL = "int f(void)\n{\n" + "    g();\n" * 70 + "}\n"
OPTION = 'X(a, "node.a", U32, 0, 9, 5, "s", LIVE, "How long.")\n'
GIT = "set -euo pipefail\n"
IDS_QUOTED = ('/* DESIGN 2 "Blocks", 4.3: PROVIDERS.md 1.2 and\n * 2; STYLE 4; PERFORMANCE, P8 */\n'
              '/* DESIGN 4.2-4.4, 9; FAN-7, TPL-1/2, OPS-1..OPS-3 */\n')



def table(folder, may="", libraries=""):
    """The table of folders with one row."""
    return ("\n| folder | what it has | may include | libraries |\n|---|---|---|---|\n"
            f"| `{folder}` | x | {may or chr(0x2013)} | {libraries or chr(0x2013)} |\n")


SAMPLES = {
    "planes-apart": {
        "good": [{"dataplane/io/a.c": '#include "belfry/base/err.h"\n#include "io/b.h"\n', "dataplane/io/b.h": "",
                  "include/belfry/base/err.h": "", "ctrlplane/log/b.h": ""}],
        "bad": [{"dataplane/io/a.c": '#include "log/b.h"\n', "ctrlplane/log/b.h": ""},
                {"ctrlplane/log/a.c": '#include "../../dataplane/io/b.h"\n', "dataplane/io/b.h": ""}],
    },
    "folder-table": {
        "good": [{"docs/ARCHITECTURE.md": table("ctrlplane/log", "store", "rdkafka") + table("ctrlplane/store") + table("ctrlplane/main", "everything"),
                  "ctrlplane/log/a.c": '#include "store/b.h"\n#include "belfry/base/b.h"\n#include "log/c.h"\n', "ctrlplane/store/b.h": "",
                  "ctrlplane/main/m.c": '#include "log/c.h"\n'},
                 {"docs/ARCHITECTURE.md": table("include/belfry/base") + table("include/belfry/shm", "base", "rte_ring"),
                  "include/belfry/base/b.h": "", "include/belfry/plane.h": '#include "belfry/shm/a.h"\n',
                  "include/belfry/shm/a.h": '#include <stdint.h>\n#include <rte_ring_core.h>\n#include "belfry/base/b.h"\n'},
                 {"docs/ARCHITECTURE.md": table("dataplane/push", "proto/h2") + table("dataplane/proto/h2"),
                  "dataplane/push/a.c": '#include "proto/h2/h.h"\n', "dataplane/proto/h2/h.h": ""}],
        "bad": [{"docs/ARCHITECTURE.md": table("ctrlplane/log", "store") + table("ctrlplane/store"),
                 "ctrlplane/log/a.c": '#include "store/b.h"\n', "ctrlplane/store/b.h": '#include "log/a.h"\n'},
                {"docs/ARCHITECTURE.md": table("ctrlplane/log", "store") + table("ctrlplane/store"),
                 "ctrlplane/log/a.c": "", "ctrlplane/store/b.h": ""},
                {"docs/ARCHITECTURE.md": table("ctrlplane/log") + table("ctrlplane/gone"), "ctrlplane/log/a.c": ""},
                {"docs/ARCHITECTURE.md": table("ctrlplane/log"), "ctrlplane/log/a.c": "", "ctrlplane/store/b.h": ""},
                {"docs/ARCHITECTURE.md": table("include/belfry/base") + table("include/belfry/shm"),
                 "include/belfry/base/a.h": '#include "belfry/shm/ring.h"\n', "include/belfry/shm/ring.h": ""}],
    },
    "no-include-cycle": {
        "good": [{"ctrlplane/log/a.c": '#include "store/b.h"\n', "ctrlplane/store/b.h": '#include "terms/t.h"\n', "ctrlplane/terms/t.h": "",
                  "dataplane/store/b.h": '#include "log/a.h"\n', "dataplane/log/a.h": ""}],
        "bad": [{"ctrlplane/log/a.c": '#include "store/b.h"\n', "ctrlplane/store/b.h": '#include "log/a.h"\n'},
                {"dataplane/io/a.c": '#include "tls/b.h"\n', "dataplane/tls/b.h": '#include "memory/c.h"\n',
                 "dataplane/memory/c.h": '#include "io/a.h"\n'}],
    },
    "small-belfryctl": {
        "good": [{"docs/ARCHITECTURE.md": table("ctrlplane/ctl", "json", "curl") + table("ctrlplane/json") + table("ctrlplane/store", "", "rocksdb")}],
        "bad": [{"docs/ARCHITECTURE.md": table("ctrlplane/ctl", "api") + table("ctrlplane/api", "store") + table("ctrlplane/store", "", "rocksdb")}],
    },
    "protocol-no-io": {
        "good": [{"dataplane/proto/ws/a.c": '#include "proto/ws/a.h"\n#include "memory/pool.h"\n',
                  "dataplane/worker/a.c": '#include "io/ring.h"\n#include "proto/ws/a.h"\n'}],
        "bad": [{"dataplane/proto/ws/a.c": '#include "io/ring.h"\n'}, {"dataplane/tls/a.c": '#include "proto/ws/a.h"\n'},
                {"dataplane/io/a.c": '#include "worker/worker.h"\n'}],
    },
    "decide-is-pure": {
        "good": [{"ctrlplane/decide/a.c": '#include "decide/decide.h"\n#include <string.h>\n',
                  "ctrlplane/decide/decide.h": '#include "prefs/prefs.h"\n#include "terms/reason.h"\n',
                  "ctrlplane/fanout/a.c": '#include "belfry/base/time.h"\n'}],
        "bad": [{"ctrlplane/decide/a.c": '#include "store/store.h"\n'}, {"ctrlplane/decide/a.c": "#include <pthread.h>\n"},
                {"ctrlplane/decide/a.c": '#include "belfry/base/time.h"\n'}, {"ctrlplane/decide/a.h": '#include "fanout/shard.h"\n'},
                {"ctrlplane/decide/a.c": "#include <stdlib.h>\n"}],
    },
    "one-library-one-folder": {
        "good": [{"docs/ARCHITECTURE.md": table("dataplane/io", "", "liburing") + table("ctrlplane/log", "", "rdkafka") +
                  table("ctrlplane/crypto", "", "openssl") + table("ctrlplane/http", "", "openssl") +
                  table("include/belfry/shm", "", "rte_ring"),
                  "dataplane/io/a.c": "#include <liburing.h>\n", "ctrlplane/log/k.c": "#include <librdkafka/rdkafka.h>\n",
                  "ctrlplane/crypto/hash.c": "#include <openssl/hmac.h>\n", "ctrlplane/crypto/b.c": "#include <openssl/evp.h>\n",
                  "ctrlplane/http/tls.c": "#include <openssl/ssl.h>\n", "tests/support/x.c": "#include <liburing.h>\n",
                  "include/belfry/shm/a.h": "#include <rte_ring_core.h>\n"}],
        "bad": [{"docs/ARCHITECTURE.md": table("dataplane/worker"), "dataplane/worker/a.c": "#include <liburing.h>\n"},
                {"docs/ARCHITECTURE.md": table("ctrlplane/http", "", "openssl"), "ctrlplane/http/conn.c": "#include <openssl/ssl.h>\n"},
                {"docs/ARCHITECTURE.md": table("ctrlplane/fanout", "", "curl"), "ctrlplane/fanout/a.c": "#include <rocksdb/c.h>\n"},
                {"docs/ARCHITECTURE.md": table("include/belfry/shm", "", "rte_ring"), "include/belfry/shm/a.h": "#include <rte_malloc.h>\n"},
                {"dataplane/worker/a.c": "#include <rte_eal.h>\n"}],
    },
    "function-length": {"good": [{"ctrlplane/api/a.c": FULL}], "bad": [{"ctrlplane/api/a.c": LONG}, {"tests/unit/a.c": LONG}]},
    "no-malloc-in-dataplane": {
        "good": [{"dataplane/memory/a.c": "p = malloc(4);\n", "dataplane/main/a.c": "p = calloc(1, 4);\n",
                  "dataplane/io/a.c": "/* malloc(4) */ bf_free_slot(x);\n", "ctrlplane/api/a.c": "p = malloc(4);\n"}],
        "bad": [{"dataplane/io/a.c": "p = malloc(4);\n"}, {"dataplane/session/a.c": "free(p);\n"},
                {"dataplane/tls/a.h": "p = strdup(s);\n"}],
    },
    "banned-calls": {
        "good": [{"ctrlplane/api/a.c": 'snprintf(b, 4, "strcpy(");\nnanosleep(&ts, NULL);\n', "scripts/x": "sleep(1)\n"}],
        "bad": [{"ctrlplane/api/a.c": "strcpy(a, b);\n"}, {"dataplane/io/a.c": "usleep(5);\n"},
                {"include/belfry/base/a.h": "sprintf(a, b);\n"}],
    },
    "no-printf-in-libraries": {
        "good": [{"ctrlplane/ctl/a.c": 'printf("x");\n', "dataplane/main/a.c": 'printf("x");\n',
                  "ctrlplane/api/a.c": 'fprintf(file, "x"); snprintf(b, 4, "x");\n'}],
        "bad": [{"ctrlplane/api/a.c": 'printf("x");\n'}, {"dataplane/io/a.c": 'perror("x");\n'}],
    },
    "text-is-cut-at-characters": {
        "good": [{"ctrlplane/ctl/a.c": 'printf("%.*s %-24s %.3f %.2fs", BF_CUT(name, 60), b, c, d);\n',
                  "include/belfry/base/text.h": "vsnprintf(a, 4, f, args);\n", "tests/unit/a.c": 'printf("%.60s", a);\n'}],
        "bad": [{"ctrlplane/ctl/a.c": 'printf("%.60s", name);\n'}, {"ctrlplane/api/a.c": 'f("x %-24.19s y", name);\n'},
                {"dataplane/main/a.c": "vsnprintf(a, 4, f, args);\n"}],
    },
    "no-volatile": {
        "good": [{"include/belfry/shm/ring.h": "volatile int x;\n", "dataplane/io/a.c": '__asm__ volatile("pause");\n'}],
        "bad": [{"dataplane/io/a.c": "volatile int stop;\n"}, {"include/belfry/shm/b.h": "volatile int x;\n"}],
    },
    "waits-by-the-steady-clock": {
        "good": [{"include/belfry/base/time.h": "clock_gettime(CLOCK_REALTIME, &t);\n",
                  "ctrlplane/api/a.c": "clock_gettime(CLOCK_MONOTONIC, &t);\nclock_gettime(CLOCK_REALTIME_COARSE, &t);\n"}],
        "bad": [{"ctrlplane/api/a.c": "clock_gettime(CLOCK_REALTIME, &t);\n"},
                {"ctrlplane/api/a.c": "pthread_timedjoin_np(thread, NULL, &t);\n"}],
    },
    "shm-no-pointers": {
        "good": [{"include/belfry/shm/a.h": "struct a {\n    uint64_t off;\n    struct rte_ring *ring;\n};\nint f(char *s);\n"}],
        "bad": [{"include/belfry/shm/a.h": "struct a {\n    char *name;\n};\n"},
                {"include/belfry/shm/a.h": "struct a {\n    int (*call)(void *);\n};\n"},
                {"include/belfry/shm/a.h": "struct a {\n    const char *name;\n} __attribute__((aligned(64)));\n"}],
    },
    "one-name-one-type": {
        "good": [{"dataplane/io/a.h": "struct bf_a {\n};\n", "ctrlplane/log/a.h": "struct bf_b {\n};\nstruct bf_a;\n"}],
        "bad": [{"dataplane/io/a.h": "struct bf_a {\n};\n", "ctrlplane/log/a.h": "struct bf_a {\n};\n"},
                {"ctrlplane/http/a.h": "enum bf_a {\n};\n", "ctrlplane/log/a.h": "enum bf_a {\n};\n"}],
    },
    "options-are-read": {
        "good": [{"include/belfry/conf/options.def": OPTION, "ctrlplane/api/a.c": "f(conf->a);\n"}],
        "bad": [{"include/belfry/conf/options.def": OPTION, "ctrlplane/api/a.c": "f(conf->b); /* conf->a */\n"}],
    },
    "first-comment": {
        "good": [{"include/belfry/a.h": "/*\n * What.\n */\n", "tests/unit/a.c": "/* What. */\n", "tests/a.py": '"""What."""\n',
                  "scripts/x": "#!/usr/bin/env bash\n# What.\n", "ctrlplane/api/a.c": "int x;\n"}],
        "bad": [{"include/belfry/a.h": "#pragma once\n"}, {"tests/unit/a.c": "#include <x.h>\n"}, {"tests/a.py": "import os\n"},
                {"scripts/x": "#!/usr/bin/env bash\nset -e\n"}],
    },
    "headers-once": {"good": [{"include/a.h": "/* A. */\n#pragma once\n"}], "bad": [{"include/a.h": "/* A. */\n"}]},
    "no-leftovers": {"good": [{"ctrlplane/a.c": "/* todos are users' data */\n"}],
                     "bad": [{"ctrlplane/a.c": "/* TODO: later */\n"}, {"docs/a.md": "FIXME\n"}]},
    "no-machine-names": {"good": [{"scripts/x": "cd /tmp/belfry; ls $HOME/wo" "rk/a; path=/var/lib/belfry\n"}],
                         "bad": [{"scripts/x": "cd /wo" "rk/main\n"}, {"a.md": "/root/x\n"}, {"x": "http://deb.deb" "ian.org/deb" "ian\n"}]},
    "markdown-one-title": {"good": [{"README.md": "# A\n\n```\n# shell comment\n```\n## B\n"}],
                           "bad": [{"README.md": "# A\n# B\n"}, {"README.md": "text\n# A\n"}]},
    "links-resolve": {
        "good": [{"README.md": "# A\n\n[b](docs/b.md), [c](docs/b.md#how-it-ends), [d](#a), [docs](docs), ![e](docs/e%20f.svg)\n"
                               "[out](https://example.com/x#y), [mail](mailto:a@example.com), `[code](gone.md)`\n"
                               "```\n[fenced](gone.md)\n```\n[ref]: docs/b.md#how-it-ends-1\n",
                  "docs/b.md": "# B\n\n## How it `ends`\n\n## How it ends\n\n[up](../README.md), [`x`](<c/d.h>)\n",
                  "docs/e f.svg": "", "docs/c/d.h": "", "a.c": "x[1](gone)\n"}],
        "bad": [{"README.md": "# A\n\n[b](docs/b.md)\n"},
                {"README.md": "# A\n\n[b](docs/b.md#how-it-begins)\n", "docs/b.md": "# B\n\n## How it ends\n"},
                {"README.md": "# A\n\n[b](#b)\n"}, {"README.md": "# A\n\n![a picture](a.svg)\n"},
                {"docs/b.md": "# B\n\n[up](README.md)\n", "README.md": "# A\n"},
                {"docs/b.md": "# B\n\n[up](../../README.md)\n", "README.md": "# A\n"},
                {"docs/b.md": "# B\n\n[top](/README.md)\n", "README.md": "# A\n"},
                {"README.md": "# A\n\n[b](docs/b.md#fenced)\n", "docs/b.md": "# B\n\n```\n# Fenced\n```\n"},
                {"README.md": "# A\n\n[ref]: docs/b.md\n"}],
    },
    "ids-resolve": {
        "good": [{"ctrlplane/a.c": IDS_QUOTED + "/* UTF-8, SHA-256, DESIGN.md */\n", "a.md": "DESIGN\n2\n",
                  "docs/DESIGN.md": "# Design\n\n## 9 Tests\n\n**4.2** Ledger.\n\n- **4.3 Direct.** Or not.\n",
                  "docs/design/04.md": "# 4\n\n### 4.4 Identity\n\n## 2 Shared memory\n",
                  "docs/REQUIREMENTS.md": "# R\n\n**FAN-7** x.\n\n| **TPL-1** | x |\n| **P8** | x |\n\n### TPL-2\n",
                  "docs/requirements/b.md": "# B\n\n**OPS-1** x\n\n**OPS-2** x\n\n**OPS-3** x\n",
                  "docs/PROVIDERS.md": "# P\n\n### 1.2 Request\n", "docs/providers/b.md": "# B\n\n## 2 FCM\n",
                  "docs/STYLE.md": "# S\n\n## 4 Checks\n"}],
        "bad": [{"ctrlplane/a.c": "/* DESIGN 4.2 */\n", "docs/DESIGN.md": "# D\n\nSee 4.2, **not 4.2**.\n\n## 4.22 A\n"},
                {"ctrlplane/a.c": "/* DESIGN 4.2-4.4 */\n", "docs/DESIGN.md": "# D\n\n## 4.2 A\n\n## 4.4 C\n"},
                {"ctrlplane/a.c": "/* DESIGN 4.2, 4.7 */\n", "docs/DESIGN.md": "# D\n\n## 4.2 A\n"},
                {"ctrlplane/a.c": "/* see DESIGN\n * 4.7 */\n", "docs/DESIGN.md": "# D\n\n## 4.2 A\n"},
                {"ctrlplane/a.c": "/* DESIGN 4.2 */\n", "docs/PROVIDERS.md": "# P\n\n## 4.2 Another page's\n"},
                {"ctrlplane/a.c": "/* PROVIDERS 1.2 and 3 */\n", "docs/PROVIDERS.md": "# P\n\n## 1.2 A\n"},
                {"scripts/x": "# STYLE 4\n", "docs/STYLE.md": "# S\n\n## 1 A\n"},
                {"tests/a.py": "ING-1, ING-3\n", "docs/REQUIREMENTS.md": "# R\n\n**ING-1** x\n"},
                {"tests/a.py": "TPL-1/2\n", "docs/REQUIREMENTS.md": "# R\n\n**TPL-1** x\n"},
                {"tests/a.py": "WS-1..WS-3\n", "docs/REQUIREMENTS.md": "# R\n\n**WS-1** x\n\n**WS-3** x\n"},
                {"tests/a.py": "ING-1\n", "docs/REQUIREMENTS.md": "# R\n\n**ING-10** x, **ING-1** in a sentence\n"},
                {"perf/a.c": "/* PERFORMANCE, P8 */\n", "docs/REQUIREMENTS.md": "# R\n\n| **P9** | x |\n"},
                {"docs/REQUIREMENTS.md": "# R\n\n**ING-1** x\n", "docs/requirements/b.md": "# B\n\n**ING-1** y\n"}],
    },
    "shell-strict": {"good": [{"scripts/x": "#!/usr/bin/env bash\n" + GIT + 'echo "$1"\n', "scripts/y": "#!/usr/bin/python3\n"}],
                     "bad": [{"scripts/x": "#!/usr/bin/env bash\necho 1\n"},
                             {"scripts/x": "#!/usr/bin/env bash\n" + GIT + "rm $1/*\n"}]},
    "tests-bind-port-zero": {"good": [{"tests/support/a.py": 's.bind(("127.0.0.1", 0))\ns.bind(("127.0.0.1", port))\n'}],
                             "bad": [{"tests/support/a.py": 's.bind(("127.0.0.1", 8080))\n'}]},
    "config-fresh": {
        "good": [{"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How long.\n  # 0..9 s\n  a: 5\n"},
                 {"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How long.\n  # 0..9s\n  a: 5s\n"}],
        "bad": [{"include/belfry/conf/options.def": OPTION},
                {"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How long.\n  a: 6\n"},
                {"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How long.\n  a: 5min\n"},
                {"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How short.\n  a: 5\n"},
                {"include/belfry/conf/options.def": OPTION, "conf/belfry.yaml": "node:\n  # How long.\n  b: 5\n"}],
    },
}
