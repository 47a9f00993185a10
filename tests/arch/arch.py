#!/usr/bin/python3
"""Architecture tests (DESIGN 8, STYLE 4): each rule is a named function over the tree.

  tests/arch/arch.py               check the tree, then every rule against its own samples
  tests/arch/arch.py --rule NAME   one rule
  tests/arch/arch.py --list        the rules, one line each
  tests/arch/arch.py --root DIR    another tree
  tests/arch/arch.py --build DIR   where belfryctl is (default build/release): exact config freshness

A rule takes a Tree and gives violations as (path, line, text). Each has a passing and a failing sample
in samples.py; a rule without both fails. Exceptions are listed below with their reason, and one that
is no longer needed is a violation itself. Last line: `N passed, M failed`.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

FUNCTION_LINES_MAX = 70

# (rule, path or "path:function"): why it may be so
EXCEPTIONS = {
    ("no-malloc-in-dataplane", "dataplane/proto/ws/ws_rx.c"):
        "is a pool itself: all contexts of a worker are made at start, by _create alone",
    ("no-malloc-in-dataplane", "dataplane/proto/ws/deflate.c"):
        "zlib's memory is taken when a worker starts, by _create alone",
    ("no-malloc-in-dataplane", "dataplane/tls/jwt.c"):
        "a key set is built when a configuration snapshot is taken over, never for a message",
    ("no-malloc-in-dataplane", "dataplane/tls/tls_server.c"):
        "contexts are built when a configuration snapshot is taken over, never for a message",
    ("no-malloc-in-dataplane", "dataplane/tls/tls_client.c"):
        "contexts are built when a configuration snapshot is taken over, never for a message",
    ("no-malloc-in-dataplane", "dataplane/tls/tls_session.c"):
        "the engine is made at the start of a worker; sessions live in the worker's memory",
    ("no-malloc-in-dataplane", "dataplane/tls/tls_lean.c"):
        "keys once a connection, in place of OpenSSL's session; a record that comes in parts, of a counted number",
}

RULES = {}


def rule(function):
    RULES[function.__name__.replace("_", "-")] = function
    return function


class Tree:
    """The files of a tree: those that git tracks or would track, or all of a sample."""

    def __init__(self, root, build=None):
        self.root = pathlib.Path(root)
        self.build = pathlib.Path(build) if build else None
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=self.root,
                                capture_output=True, text=True)
        if (self.root / ".git").exists() and listed.returncode == 0:
            names = [n for n in listed.stdout.splitlines() if (self.root / n).is_file()]
        else:
            names = [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file()]
        self.names = sorted(names)
        self._text, self._code = {}, {}

    def text(self, name):
        if name not in self._text:
            try:
                self._text[name] = (self.root / name).read_text()
            except UnicodeDecodeError:
                self._text[name] = ""  # binary: a fuzz corpus
        return self._text[name]

    def code(self, name):
        """C without comments and string contents, lines kept."""
        if name not in self._code:
            self._code[name] = strip_c(self.text(name))
        return self._code[name]

    def c_files(self, *tops, suffixes=(".c", ".h", ".def")):
        return [n for n in self.names if n.endswith(suffixes) and (not tops or n.startswith(tops))]


def strip_c(text):
    def blank(match):
        s = match.group(0)
        if s.startswith("/"):
            return re.sub(r"[^\n]", " ", s)
        return s[0] + " " * (len(s) - 2) + s[-1]
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def grep(tree, names, pattern, say, code=True):
    found = []
    for name in names:
        lines = (tree.code(name) if code else tree.text(name)).splitlines()
        for number, line in enumerate(lines, 1):
            match = re.search(pattern, line)
            if match:
                found.append((name, number, say.format(match.group(0).strip())))
    return found


def includes(tree, name):
    """(line, path, quoted) of each #include."""
    for number, line in enumerate(tree.text(name).splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(2), match.group(1) == '"'


# ---- layers ---------------------------------------------------------------------------------------

@rule
def planes_apart(tree):
    """dataplane and ctrlplane never include each other; both see only include/belfry"""
    found = []
    for own, other in (("dataplane", "ctrlplane"), ("ctrlplane", "dataplane")):
        for name in tree.c_files(own + "/"):
            for line, path, quoted in includes(tree, name):
                here = str(pathlib.PurePosixPath(name).parent / path)
                known = {f"{own}/{path}", f"include/{path}", here}
                if other + "/" in path or (quoted and not known & set(tree.names)
                                           and f"{other}/{path}" in tree.names):
                    found.append((name, line, f"includes {path} of {other}"))
    return found


TABLE = "docs/ARCHITECTURE.md"
TABLE_HEAD = "| folder | what it has | may include | libraries |"
PARTS = ("include/belfry/", "dataplane/", "ctrlplane/")


class Row:
    """A row of the table of folders: what a folder may include, and which libraries it may use."""

    def __init__(self, line, part, may, libraries):
        def names(cell):
            return [n for n in re.split(r",\s*", cell.strip()) if n and n != "\u2013"]
        self.line = line
        self.is_everything = names(may) == ["everything"]
        self.may = {} if self.is_everything else {part + n: n for n in names(may)}
        self.libraries = names(libraries)


def folder_rows(tree):
    """{folder: Row} of the table in docs/ARCHITECTURE.md."""
    rows, inside = {}, False
    for number, line in enumerate(tree.text(TABLE).splitlines() if TABLE in tree.names else [], 1):
        inside = line == TABLE_HEAD or (inside and line.startswith("|"))
        match = re.match(r"\| `([\w/]+)` \| [^|]* \| ([^|]*) \| ([^|]*) \|$", line) if inside else None
        if match:
            folder = match.group(1)
            part = next((p for p in PARTS if folder.startswith(p)), "")
            rows[folder] = Row(number, part, match.group(2), match.group(3))
    return rows


def folder_of(name):
    """The folder of a file of the planes or of include/belfry; None: it has no row (belfry/plane.h)."""
    folder = os.path.dirname(name)
    return folder if (folder + "/").startswith(PARTS) and folder + "/" not in PARTS else None


def folder_edges(tree):
    """{(folder, folder): (file, line, path)}: who includes whom in its own part, with the first such line."""
    edges = {}
    for name in tree.c_files(*PARTS):
        own = folder_of(name)
        part = next(p for p in PARTS if name.startswith(p))
        for line, path, quoted in includes(tree, name) if own else []:
            if part == "include/belfry/":
                other = folder_of("include/" + path) if path.startswith("belfry/") else None
            else:
                other = folder_of(part + path) if quoted and not path.startswith("belfry/") and "/" in path else None
            if other and other != own:
                edges.setdefault((own, other), (name, line, path))
    return edges


@rule
def folder_table(tree):
    """an include between folders is allowed by its row in docs/ARCHITECTURE.md; each folder has a row; a row allows what is used"""
    rows, edges = folder_rows(tree), folder_edges(tree)
    folders = {folder_of(n) for n in tree.c_files(*PARTS)} - {None}
    found = [(TABLE, 1, f"no row for {folder}") for folder in sorted(folders - set(rows))]
    found += [(TABLE, rows[folder].line, f"there is no {folder}") for folder in sorted(set(rows) - folders)]
    for (own, other), (name, line, path) in sorted(edges.items()):
        row = rows.get(own)
        if row and not row.is_everything and other not in row.may:
            found.append((name, line, f"{own} may not include {path}: {TABLE} has the table"))
    for folder, row in sorted(rows.items()):
        found += [(TABLE, row.line, f"{folder} includes nothing of {short}")
                  for other, short in row.may.items() if (folder, other) not in edges]
    return found


def circles(edges):
    """Sets of folders that reach each other."""
    reach = {}
    for start in {a for a, _ in edges}:
        seen, todo = set(), [start]
        while todo:
            at = todo.pop()
            for other in [b for a, b in edges if a == at and b not in seen]:
                seen.add(other)
                todo.append(other)
        reach[start] = seen
    return sorted({tuple(sorted([a] + [b for b in reach[a] if b != a and a in reach.get(b, ())]))
                   for a in reach if a in reach[a]})


@rule
def no_include_cycle(tree):
    """no folder of a plane is reached again by following includes from folder to folder"""
    edges, found = folder_edges(tree), []
    for circle in circles(edges):
        inside = sorted((e, where) for e, where in edges.items() if e[0] in circle and e[1] in circle)
        for (own, other), (name, line, path) in inside:
            found.append((name, line, f"a circle of {', '.join(circle)}: {own} includes {path}"))
    return found


@rule
def small_belfryctl(tree):
    """belfryctl links no store, no log and no dataplane: by the table of folders, and by its file if it is built"""
    rows, seen, todo, found = folder_rows(tree), set(), ["ctrlplane/ctl"], []
    heavy = {"rocksdb": "librocksdb", "rdkafka": "librdkafka", "dpdk": "librte_"}
    while todo:
        folder = todo.pop()
        seen.add(folder)
        row = rows.get(folder)
        if not row:
            continue
        found += [(TABLE, row.line, f"belfryctl would link {library} by {folder}")
                  for library in row.libraries if library in heavy]
        todo += [other for other in row.may if other not in seen]
    program = tree.build / "belfryctl" if tree.build else None
    if program and program.exists():
        needed = subprocess.run(["readelf", "-d", str(program)], capture_output=True, text=True).stdout
        found += [("CMakeLists.txt", 1, f"belfryctl links {match}") for name in heavy.values()
                  for match in re.findall(rf"\[({name}[^\]]*)\]", needed)]
    return found


@rule
def protocol_no_io(tree):
    """dataplane: proto, tls and io know neither each other nor anything above them"""
    parts = ("proto", "tls", "io")
    above = ("worker", "session", "channel", "inbox", "outbox", "main")
    found = []
    for part in parts:
        others = tuple(f"{p}/" for p in parts + above if p != part)
        for name in tree.c_files(f"dataplane/{part}/"):
            for line, path, quoted in includes(tree, name):
                if quoted and path.startswith(others):
                    found.append((name, line, f"{part} may not include {path}"))
    return found


DECIDE_MAY_INCLUDE = ("decide/", "terms/", "ingest/event.h", "prefs/prefs.h", "belfry/base/cursor.h", "belfry/base/limits.h",
                      "stdbool.h", "stdint.h", "stddef.h", "string.h")
# The part of prefs/ that a decision calls: as pure as the rest.
DECIDE_SOURCES = re.compile(r"ctrlplane/(decide/\w+|prefs/prefs_decide)\.c$")
DECIDE_SYMBOLS = re.compile(r"mem(cpy|set|cmp|move)|bcmp|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|tsan|sanitizer)_\w+|"
                            r"__(start|stop)_\w+")


def symbols(objects, kind):
    """Names that the object files define (--defined-only) or want from elsewhere (--undefined-only)."""
    listed = subprocess.run(["nm", "--format=posix", kind, *map(str, objects)], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if len(line.split()) > 1}


@rule
def decide_is_pure(tree):
    """decide/ gets facts and gives a plan: no store, clock, lock, ring, log, allocation; by its includes and, built, by nm"""
    found = []
    for name in tree.c_files("ctrlplane/decide/", suffixes=(".c", ".h")):
        for line, path, _ in includes(tree, name):
            if not path.startswith(DECIDE_MAY_INCLUDE):
                found.append((name, line, f"decide/ may not include {path}"))
    sources = {n for n in tree.names if DECIDE_SOURCES.match(n)}
    objects = [o for o in tree.build.glob("CMakeFiles/*.dir/ctrlplane/*/*.o")
               if re.sub(r".*\.dir/", "", str(o)).removesuffix(".o") in sources] if tree.build else []
    if not objects and sources and tree.build and (tree.build / "belfry-ctrlplane").exists():
        found.append(("ctrlplane/decide", 1, "built, but its object files are not where this rule looks"))
    if objects:
        for symbol in sorted(symbols(objects, "--undefined-only") - symbols(objects, "--defined-only")):
            if not DECIDE_SYMBOLS.fullmatch(symbol):
                found.append(("ctrlplane/decide", 1, f"uses {symbol}, which is no part of a pure decision"))
    return found


LIBRARIES = {  # header: its names in the table of folders (DESIGN 8 "one library, one folder")
    r"librdkafka/": ("rdkafka",),
    r"hiredis/": ("hiredis",),
    r"libpq|postgresql/": ("libpq",),
    r"rocksdb/": ("rocksdb",),
    r"nghttp2/": ("nghttp2",),
    r"wslay/": ("wslay",),
    r"zlib\.h": ("zlib",),
    r"liburing": ("liburing",),
    r"rte_ring": ("rte_ring", "dpdk"),
    r"rte_(?!ring)": ("dpdk",),
    r"yaml\.h": ("yaml",),
    r"curl/": ("curl",),
    r"openssl/": ("openssl",),
}
# The API's TLS: bytes of a socket, nothing of tokens or keys. The rest of the server knows no OpenSSL.
HTTP_TLS_FILE = "ctrlplane/http/tls.c"


@rule
def one_library_one_folder(tree):
    """a library's headers are included only in folders whose row in docs/ARCHITECTURE.md names it; OpenSSL in one file of http"""
    rows, found = folder_rows(tree), []
    for name in tree.c_files("dataplane/", "ctrlplane/", "include/"):
        row = rows.get(folder_of(name) or "")
        for line, path, quoted in includes(tree, name):
            for pattern, names in LIBRARIES.items():
                if quoted or not re.match(pattern, path):
                    continue
                if not row or not set(names) & set(row.libraries):
                    found.append((name, line, f"{path}: the row of its folder in {TABLE} does not name {names[0]}"))
                elif pattern == "openssl/" and name.startswith("ctrlplane/http/") and name != HTTP_TLS_FILE:
                    found.append((name, line, f"{path} belongs into {HTTP_TLS_FILE}"))
    return found


# ---- functions and calls ----------------------------------------------------------------------------

def functions(tree, name):
    """(function, line, body lines) for each definition: a column-0 '{' line to a column-0 '}' line."""
    lines = tree.code(name).splitlines()
    start = None
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "{":
            start = number
        elif line.rstrip() == "}" and start:
            head = " ".join(lines[max(0, start - 8):start - 1])
            words = re.findall(r"(\w+)\s*\(", head)
            yield (words[-1] if words else "?"), start, number - start - 1
            start = None


def function_name(tree, name, line):
    """Name of the function whose '{' is at |line|: the identifier before the first '(' of its signature."""
    lines = tree.code(name).splitlines()
    first = line - 2
    while first > 0 and lines[first - 1].strip() and not lines[first - 1].rstrip().endswith((";", "}", "*/")):
        first -= 1
    match = re.search(r"(\w+)\s*\((?!\()", " ".join(lines[first:line - 1]).replace("__attribute__((", "("))
    return match.group(1) if match else "?"


@rule
def function_length(tree):
    """no function body is longer than 70 lines"""
    found = []
    for name in tree.c_files("dataplane/", "ctrlplane/", "include/", "perf/", "sim/", "tests/", suffixes=(".c", ".h")):
        for _, line, size in functions(tree, name):
            if size > FUNCTION_LINES_MAX:
                found.append((f"{name}:{function_name(tree, name, line)}", line, f"{size} lines"))
    return found


@rule
def no_malloc_in_dataplane(tree):
    """nothing under dataplane/ allocates, except memory/ and main/ (at start)"""
    names = [n for n in tree.c_files("dataplane/") if not n.startswith(("dataplane/memory/", "dataplane/main/"))]
    pattern = r"\b(malloc|calloc|realloc|reallocarray|free|strdup|strndup|asprintf|vasprintf|aligned_alloc|posix_memalign)\s*\("
    return grep(tree, names, pattern, "{} in the dataplane")


@rule
def banned_calls(tree):
    """no call that overruns, hides errors or sleeps blindly"""
    pattern = r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|usleep|sleep|signal|system|popen)\s*\("
    return grep(tree, tree.c_files("dataplane/", "ctrlplane/", "include/"), pattern, "{} is banned")


@rule
def no_printf_in_libraries(tree):
    """libraries log by base/log.h; only programs (main/, ctl/) print"""
    names = [n for n in tree.c_files("dataplane/", "ctrlplane/", "include/")
             if not re.match(r"(dataplane|ctrlplane)/(main|ctl)/", n)]
    return grep(tree, names, r"\b(printf|puts|putchar|perror)\s*\(", "{} in a library")


@rule
def text_is_cut_at_characters(tree):
    """no "%.60s" (cuts inside a character) and no bare vsnprintf: BF_CUT, bf_format and bf_vformat of base/text.h"""
    names = [n for n in tree.c_files("dataplane", "ctrlplane", "include") if n != "include/belfry/base/text.h"]
    printing = [n for n in names if n != "ctrlplane/json/out.c"]  # measures first, so it cuts nothing
    return grep(tree, names, r"%[-0-9*]*\.\d+s", "cuts text inside a character: %.*s with BF_CUT(text, N)", code=False) + \
        grep(tree, printing, r"\bvsnprintf\s*\(", "cuts text inside a character: bf_vformat")


@rule
def no_volatile(tree):
    """volatile is no synchronisation; rte_ring's words in shm/ring.h are the one place"""
    names = [n for n in tree.c_files("dataplane/", "ctrlplane/", "include/", "perf/", "sim/")
             if n != "include/belfry/shm/ring.h"]
    # asm volatile is a statement, not a type
    return grep(tree, names, r"(?<!asm )(?<!__asm__ )\bvolatile\b", "{}: use stdatomic")


@rule
def waits_by_the_steady_clock(tree):
    """nothing waits until a wall clock time: set back, it would wait as long again; base/ and the region's name read that clock"""
    names = [n for n in tree.c_files("dataplane/", "ctrlplane/", "include/")
             if not n.startswith("include/belfry/base/") and n != "dataplane/main/eal.c"]
    return grep(tree, names, r"\b(CLOCK_REALTIME|pthread_timedjoin_np|pthread_mutex_timedlock|sem_timedwait)\b",
                "{}: CLOCK_MONOTONIC, or bf_wall_ms for a time to keep")


@rule
def shm_no_pointers(tree):
    """structs of include/belfry/shm hold no function pointer and no char *"""
    found = []
    for name in tree.c_files("include/belfry/shm/"):
        inside = False
        for number, line in enumerate(tree.code(name).splitlines(), 1):
            if re.match(r"(typedef\s+)?(struct|union)\b[^;()]*\{", line):
                inside = True
            elif line.startswith("}"):
                inside = False
            elif inside and re.search(r"\(\s*\*\s*\w+\s*\)\s*\(|\bchar\s*(const\s*)?\*", line):
                found.append((name, number, f"'{line.strip()}' in a shared struct"))
    return found


TYPE = re.compile(r"^(?:struct|enum|union) (bf_\w+)\s*\{", re.M)


@rule
def one_name_one_type(tree):
    """a struct, union or enum of both planes and of include/ has a name of its own"""
    first, found = {}, []
    for name in tree.c_files("dataplane/", "ctrlplane/", "include/"):
        for match in TYPE.finditer(tree.code(name)):
            line = tree.code(name).count("\n", 0, match.start()) + 1
            if match.group(1) in first:
                found.append((name, line, f"{match.group(1)} is another thing in {first[match.group(1)]}"))
            first.setdefault(match.group(1), name)
    return found


@rule
def options_are_read(tree):
    """each option of options.def is read by somebody"""
    table = "include/belfry/conf/options.def"
    names = [n for n in tree.c_files("dataplane/", "ctrlplane/", "include/belfry/conf/") if n != table]
    read = {word for n in names for word in re.findall(r"(?:->|\.)(\w+)", tree.code(n))}
    found = []
    for match in OPTION.finditer(tree.text(table) if table in tree.names else ""):
        if match.group(1) not in read:
            line = tree.text(table).count("\n", 0, match.start()) + 1
            found.append((table, line, f"{match.group(2)}: nothing reads {match.group(1)}"))
    return found


# ---- files ------------------------------------------------------------------------------------------

@rule
def first_comment(tree):
    """every header, test file and script begins by saying what it is for"""
    found = []
    for name in tree.names:
        text = tree.text(name)
        is_script = name.startswith("scripts/") or text.startswith("#!")
        if name.endswith((".h", ".def")) or (name.endswith((".c", ".js", ".mjs")) and name.startswith("tests/")):
            good = re.match(r"(#![^\n]*\n)?\s*(/\*|//)\s*\S|(#![^\n]*\n)?/\*\n \* \S", text)
        elif name.endswith(".py") or text.startswith("#!/usr/bin/python3"):
            good = re.match(r'(#[^\n]*\n)*\s*"""\S', text) or (name.endswith("__init__.py") and not text)
        elif is_script:
            good = re.match(r"#![^\n]*\n# \S|#![^\n]*\n/[/*]", text)
        else:
            continue
        if not good:
            found.append((name, 1, "no first comment"))
    return found


@rule
def headers_once(tree):
    """every header has #pragma once"""
    return [(n, 1, "no #pragma once") for n in tree.c_files(suffixes=(".h",)) if "#pragma once" not in tree.text(n)]


@rule
def no_leftovers(tree):
    """no FIXME, TODO or XXX: an issue says it better"""
    names = [n for n in tree.names if not n.startswith(("tests/arch/", "tests/fuzz/corpus/"))]
    return grep(tree, names, r"\b(FIXME|TODO|XXX)\b", "{}", code=False)


@rule
def no_machine_names(tree):
    """no path of somebody's machine, no package registry's host name"""
    names = [n for n in tree.names if not n.startswith(("tests/arch/", "tests/fuzz/corpus/"))]
    pattern = (r"(?<![\w.$}])/(work|home|root)/\w|/tmp/wt\b|deb\.debian\.org|registry\.npmjs|repo1?\.maven|pypi\.org|"
               r"files\.pythonhosted")
    return grep(tree, names, pattern, "{}", code=False)


@rule
def markdown_one_title(tree):
    """a Markdown file has exactly one # title, in its first line"""
    found = []
    for name in [n for n in tree.names if n.endswith(".md")]:
        text = re.sub(r"^```.*?^```", lambda m: "\n" * m.group(0).count("\n"), tree.text(name), flags=re.S | re.M)
        titles = [i for i, line in enumerate(text.splitlines(), 1) if line.startswith("# ")]
        if titles != [1]:
            found.append((name, (titles + [1])[0], f"{len(titles)} titles"))
    return found


# A link or picture of Markdown: [text](target "title"), ![text](<target>). And [text]: target at a line's beginning.
LINK = re.compile(r"""\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^()\s<>]+)>?(?:\s+"[^"]*")?\s*\)|^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$""", re.M)
OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.I)  # https:, mailto:


def without_code(text):
    """Markdown without fenced blocks and `code`, in which nothing is a link; lines kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1[^\n]*$", blank, text, flags=re.S | re.M)
    return re.sub(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)", blank, text)


def anchors(text):
    """The names by which headings can be linked to, as GitHub makes them: lower case, no punctuation, hyphens."""
    found = set()
    fences = re.sub(r"^ *(```+|~~~+).*?^ *\1[^\n]*$", "", text, flags=re.S | re.M)
    for title in re.findall(r"^#{1,6} +(.*?) *#*$", fences, re.M):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number, unique = 0, name
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found.add(unique)
    return found | set(re.findall(r"""<a (?:id|name)=["']([^"']+)["']""", fences))


def broken(tree, page, target):
    """Why |target|, as a link of |page|, leads nowhere; None: it leads somewhere."""
    path, _, anchor = target.partition("#")
    if path.startswith("/"):
        return "begins with /: links are relative to their page"
    name = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    if name not in tree.names and not any(known.startswith(name + "/") for known in tree.names):
        return f"there is no {name}"
    if anchor and name.endswith(".md") and anchor not in anchors(tree.text(name)):
        return f"{name} has no heading #{anchor}"
    return None


@rule
def links_resolve(tree):
    """relative links of Markdown pages lead to files of the tree, and their #anchors to headings"""
    found = []
    for page in [n for n in tree.names if n.endswith(".md")]:
        text = without_code(tree.text(page))
        for match in LINK.finditer(text):
            target = urllib.parse.unquote(match.group(1) or match.group(2))
            why = None if OUTSIDE.match(target) else broken(tree, page, target)
            if why:
                found.append((page, text.count("\n", 0, match.start()) + 1, f"link to {target}: {why}"))
    return found


# Kind of id: the pages that explain it.
ID_PAGES = {
    "DESIGN": ("docs/DESIGN.md", "docs/design/"),
    "PROVIDERS": ("docs/PROVIDERS.md", "docs/providers/"),
    "STYLE": ("docs/STYLE.md",),
    "REQUIREMENTS": ("docs/REQUIREMENTS.md", "docs/requirements/"),
}
NAMES = "ING|FAN|PRF|TPL|WS|INB|PSH|EML|SMS|WHK|CHN|REL|OPS|CLU|SEC|CLI"
# How an id is explained: a heading that begins with it, or the id in bold at the beginning of a line, an item or a row.
ANCHOR = re.compile(rf"^(?:#+ +|[ \t]*(?:[-*|] *)?\*\*)((?:{NAMES})-\d+|P\d+k?|\d+(?:\.\d+)?)(?![\w.-])", re.M)

# How ids are quoted. Numbers come in lists and ranges, over the ends of comment lines, perhaps with a title:
# DESIGN 4.2-4.7 and 9, PROVIDERS 1.2, 2, DESIGN 2 "Ownership and death", 4.10
GAP = r"(?:[ \t]|\n[ \t]*(?:\*|//|#)?)"
NUMBER = r"\d+(?:\.\d+)?(?![\w%]|\.\d|,\d)"
TITLED = rf'{NUMBER}(?:{GAP}+"[^"\n]+")?'
RANGE = r"-|\u2013|\.\.|\bto\b"
NUMBERS = re.compile(rf"(?<![\w-])(DESIGN|PROVIDERS|STYLE)(?:\.md)?{GAP}+"
                     rf"({TITLED}(?:(?:{GAP}*(?:,|{RANGE}|\band\b))+{GAP}*{TITLED})*)")
# ING-5, TPL-1/2, OPS-1..3, WS-1..WS-7, REL-1 to 3
NAMED = re.compile(rf"(?<![\w-])({NAMES})-(\d+(?:(?:/|{GAP}*(?:{RANGE}){GAP}*)(?:\1-)?\d+)*)(?!\w)")
# A performance bar, as comments quote one; anywhere else P5 may be something else.
BAR = re.compile(r"\bPERFORMANCE, (P\d+k?)\b")


def explained_ids(tree):
    """{(kind, id): [(page, line)]}: where each id is explained."""
    found = {}
    for kind, pages in ID_PAGES.items():
        for name in [n for n in tree.names if n.endswith(".md") and n.startswith(pages)]:
            text = tree.text(name)
            for match in ANCHOR.finditer(text):
                if match.group(1)[0].isdigit() != (kind == "REQUIREMENTS"):
                    where = (name, text.count("\n", 0, match.start()) + 1)
                    found.setdefault((kind, match.group(1)), []).append(where)
    return found


def listed(text):
    """The numbers of a list, ranges filled in: 4.2-4.4, 9 are 4.2, 4.3, 4.4, 9."""
    found, is_range = [], False
    for word in re.findall(rf"{NUMBER}|{RANGE}", re.sub(r'"[^"]*"', "", text)):
        if not word[0].isdigit():
            is_range = True
            continue
        if is_range:
            (head, _, low), (last_head, _, high) = found[-1].rpartition("."), word.rpartition(".")
            if head == last_head:
                found += [f"{head}.{n}" if head else str(n) for n in range(int(low) + 1, int(high))]
        found.append(word)
        is_range = False
    return found


def quoted_ids(text):
    """(kind, id, position) of each id that a text quotes."""
    for match in NUMBERS.finditer(text):
        for number in listed(match.group(2)):
            yield match.group(1), number, match.start()
    for match in NAMED.finditer(text):
        for number in listed(match.group(2).replace(f"{match.group(1)}-", "").replace("/", " , ")):
            yield "REQUIREMENTS", f"{match.group(1)}-{number}", match.start()
    for match in BAR.finditer(text):
        yield "REQUIREMENTS", match.group(1), match.start()


def spoken(kind, an_id):
    return an_id if kind == "REQUIREMENTS" else f"{kind} {an_id}"


@rule
def ids_resolve(tree):
    """every id that the tree quotes (DESIGN 4.6, PROVIDERS 1.4, ING-5) is explained under docs/, in one place"""
    explained = explained_ids(tree)
    found = [(*where, f"{spoken(kind, an_id)} is explained in {places[0][0]}:{places[0][1]} already")
             for (kind, an_id), places in explained.items() for where in places[1:]]
    for name in [n for n in tree.names if not n.startswith(("tests/arch/", "tests/fuzz/corpus/"))]:
        text = tree.text(name)
        for kind, an_id, position in quoted_ids(text):
            if (kind, an_id) not in explained:
                line = text.count("\n", 0, position) + 1
                found.append((name, line, f"{spoken(kind, an_id)} is not explained in {' or '.join(ID_PAGES[kind])}"))
    return found


def is_bash(tree, name):
    return re.match(r"#!.*\b(bash|sh)\b", tree.text(name)) is not None


@rule
def shell_strict(tree):
    """shell scripts stop at errors, and shellcheck has nothing to say"""
    found = []
    for name in tree.names:
        if not is_bash(tree, name):
            continue
        if "set -euo pipefail" not in tree.text(name):
            found.append((name, 1, "no set -euo pipefail"))
        if shutil.which("shellcheck"):
            done = subprocess.run(["shellcheck", "-f", "gcc", name], cwd=tree.root, capture_output=True, text=True)
            for line in done.stdout.splitlines():
                match = re.match(r"[^:]*:(\d+):\d+: (.*)", line)
                found.append((name, int(match.group(1)) if match else 1, match.group(2) if match else line))
    return found


@rule
def tests_bind_port_zero(tree):
    """no test names a fixed port to listen on"""
    names = [n for n in tree.names if n.startswith("tests/") and n.endswith((".py", ".js", ".c"))
             and not n.startswith(("tests/arch/", "tests/unit/"))]
    return grep(tree, names, r"\b(bind|listen)\(\(?\s*[\"'][^\"']*[\"']\s*,\s*[1-9]\d*", "{}: bind port 0", code=False)


OPTION = re.compile(r'^X\(\s*(\w+)\s*,\s*"([^"]+)"\s*,\s*(\w+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*("[^"]*"|\d+)\s*,\s*"([^"]*)"\s*,'
                    r'\s*(\w+)\s*,\s*"((?:[^"\\]|\\.)*)"\s*\)', re.M)


UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "days": 86_400_000, "bytes": 1, "B": 1,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def plain_number(text, unit):
    """A value of the reference (30s, 256MiB, 500/s) as the number of |unit| that the table has."""
    match = re.fullmatch(r"(\d+)([A-Za-z]*)(/\w+)?", text)
    if not match or not (match.group(2) or match.group(3)):
        return text
    return str(int(match.group(1)) * UNITS.get(match.group(2), 1) // UNITS.get(unit.split("/")[0], 1))


@rule
def config_fresh(tree):
    """conf/belfry.yaml is generated from options.def and up to date"""
    table, reference = "include/belfry/conf/options.def", "conf/belfry.yaml"
    if table not in tree.names:
        return []
    if reference not in tree.names:
        return [(reference, 1, "missing: belfryctl config reference > conf/belfry.yaml")]
    tool = tree.build / "belfryctl" if tree.build else None
    if tool and tool.exists():
        made = subprocess.run([str(tool), "config", "reference"], capture_output=True, text=True)
        if made.returncode == 0 and made.stdout != tree.text(reference):
            return [(reference, 1, "stale: belfryctl config reference > conf/belfry.yaml")]
    # without a build: every option has its place, default and documentation
    found = []
    known, stack = {}, []
    comment = []
    for number, line in enumerate(tree.text(reference).splitlines(), 1):
        match = re.match(r"^( *)(?:# )?([\w]+):(?:\s+(.*))?$", line)
        if line.strip().startswith("#") and not match:
            comment.append(line.strip()[1:].strip())
        elif match and not line.strip().startswith("#"):
            depth = len(match.group(1)) // 2
            stack = stack[:depth] + [match.group(2)]
            known[".".join(stack)] = (number, (match.group(3) or "").strip(), " ".join(comment))
            comment = []
        elif match:
            comment.append(line.strip()[1:].strip())
    for _, path, kind, _, _, default, unit, _, doc in OPTION.findall(tree.text(table)):
        if path not in known:
            found.append((reference, 1, f"{path} is missing"))
            continue
        number, value, said = known[path]
        wanted = {"0": "false", "1": "true"}[default] if kind == "BOOL" else default
        if plain_number(value.strip('"'), unit) != wanted.strip('"'):
            found.append((reference, number, f"{path} says {value}, the table {wanted}"))
        if doc not in said:
            found.append((reference, number, f"{path}: its documentation differs from the table"))
    return found


# ---- running ----------------------------------------------------------------------------------------

def excepted(name, violation, used):
    key = (name, violation[0])
    if key in EXCEPTIONS:
        used.add(key)
        return True
    return False


def check_tree(tree, wanted):
    passed = failed = 0
    used = set()
    for name, function in RULES.items():
        if name not in wanted:
            continue
        bad = [v for v in function(tree) if not excepted(name, v, used)]
        for path, line, text in bad:
            print(f"{path}:{line}: {name}: {text}")
        passed, failed = passed + (not bad), failed + bool(bad)
    for key in EXCEPTIONS:
        if key not in used and key[0] in wanted:
            print(f"tests/arch/arch.py: exception {key} is not needed any more")
            failed += 1
    return passed, failed


def run_sample(function, files, fails):
    with tempfile.TemporaryDirectory(prefix="belfry-arch-") as directory:
        for path, text in files.items():
            target = pathlib.Path(directory) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return bool(function(Tree(directory))) == fails


def check_samples(wanted):
    import samples
    passed = failed = 0
    for name, function in RULES.items():
        if name not in wanted:
            continue
        for kind in ("good", "bad"):
            cases = samples.SAMPLES.get(name, {}).get(kind, [])
            if not cases:
                print(f"tests/arch/samples.py: {name} has no {kind} sample")
                failed += 1
            for index, files in enumerate(cases):
                right = run_sample(function, files, kind == "bad")
                if not right:
                    print(f"tests/arch/samples.py: {name}: {kind} sample {index} is judged wrongly")
                passed, failed = passed + right, failed + (not right)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = pathlib.Path(__file__).resolve()
    parser.add_argument("--root", default=here.parents[2])
    parser.add_argument("--build")
    parser.add_argument("--rule", choices=sorted(RULES))
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        for name, function in RULES.items():
            print(f"{name:26} {function.__doc__}")
        return
    sys.path.insert(0, str(here.parent))
    wanted = {args.rule} if args.rule else set(RULES)
    tree = Tree(args.root, args.build or pathlib.Path(args.root) / "build/release")
    passed, failed = (sum(pair) for pair in zip(check_tree(tree, wanted), check_samples(wanted)))
    print(f"arch: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
