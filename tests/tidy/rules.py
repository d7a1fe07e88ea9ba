"""The rules. Each is a function of the tree that returns findings, each with file and line."""
import os
import re
import subprocess
import tempfile
from pathlib import Path

import cpp

LINE_LENGTH_MAX = 110
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70

SKIPPED_FOLDERS = {".git", "build", ".deps", ".venv", "node_modules", "__pycache__", "out", "corpus"}
CPP = {".cpp", ".hpp", ".cc", ".h"}

# What each folder of core/src may include of the others; "drivers/*" is every driver. The build enforces the
# same (core/CMakeLists.txt); this is the second pair of eyes, and says it in words.
LAYERS = {
    "base": {"base"},
    "codec": {"codec", "base"},
    "policy": {"policy", "base"},
    "saga": {"saga", "base"},
    "drivers/*": {"base", "codec", "drivers/common"},
    "engine": {"engine", "base", "codec", "policy", "saga"},
    "port": {"port", "base", "codec", "policy", "saga", "engine"},
    "admin": {"admin", "base"},
}
# Public headers that describe the engine; a driver, which the engine uses, has no business with them.
ENGINE_HEADERS = {"towline/towline.hpp", "towline/engine.hpp", "towline/consumer.hpp"}

# What code that the simulator drives must not touch: it has Clock, Rng, Store and Transport for that. The
# groups are the words of an exception: `purity core/src/engine/a.cpp locks <reason>`.
PURE_FOLDERS = ("base", "codec", "policy", "saga", "engine")
IMPURE = {
    "locks": r"std::(?:recursive_|shared_|timed_)*mutex\b|"
             r"std::(?:lock_guard|unique_lock|scoped_lock|shared_lock|call_once)\b",
    # Timed waits go through Clock::wait_until, so a virtual clock ends them; an untimed wait needs threads.
    "waits": r"(?<!clock->)(?<!clock_->)(?<!clock\.)(?<!clock_\.)\bwait_(?:for|until)\s*\(|"
             r"\.wait\(\s*\w*lock\b|"
             r"std::(?:future|promise|counting_semaphore|latch|barrier)\b|"
             r"\bsleep_(?:for|until)\b|\b(?:u|nano)?sleep\s*\(",
    "threads": r"std::(?:jthread|thread|this_thread|async)\b",
    "clocks": r"\w*_clock::now\b|\bclock_gettime\b|\bgettimeofday\b|std::time\b",
    "randomness": r"std::random_device\b|std::s?rand\b|\bgetrandom\b|\bgetentropy\b|\barc4random\w*\b",
    "environment": r"\bgetenv\b",
    "io": r"std::[io]?fstream\b|std::(?:cout|cerr|clog|cin)\b|\bf?printf\b|\bfopen\b",
}
IMPURE_HEADERS = {
    "locks": {"mutex", "shared_mutex"},
    "waits": {"future", "semaphore", "latch", "barrier"},
    "threads": {"thread"},
    "clocks": {"ctime", "sys/time.h", "time.h"},
    "randomness": {"random", "sys/random.h"},
    "io": {"iostream", "fstream", "filesystem", "cstdio", "unistd.h", "fcntl.h", "sys/stat.h"},
}

# One word per idea (core/README.md), and nothing that only makes sense on one machine.
BANNED = [
    (r"(?i)\bpoison\w*", 'say "dead letter"'),
    (r"(?i)(?:\b|_)dl[qm]s?(?:\b|_)", 'say "dead letter"'),
    (r"(?i)\bdead[ -]letter[ -]queues?\b", 'say "dead letters"'),
    (r"(?i)\bretry[ _]?count(?:er)?s?\b", 'say "attempt"'),
    (r"(?i)\bbroker[ _-]queues?\b", 'say "transport"'),
    (r"(?i)(?<!not )(?<!no )\bexactly[ -]once delivery\b", "at-least-once delivery, exactly-once effect"),
    (r"(?i)\b(?:sub-?)?agents?\b", "the project speaks of itself alone"),
    (r"(?i)\bissue #?[0-9]+\b", "the project speaks of itself alone"),
    (r"(?<![\w.$}])/(?:work|root|home|tmp)/", "a path of one machine"),
    (r"https?://(?!(?:127\.0\.0\.1|(?:\w+\.)*example\.(?:com|org)|www\.apache\.org|www\.w3\.org|"
     r"www\.rfc-editor\.org|json-schema\.org)\b)[\w-]+\.[^\s)>\"']*", "an address"),
]
TEXT_SUFFIXES = CPP | {".md", ".py", ".txt", ".cmake", ".in", ".def", ".json", ".toml", ".sql", ""}


class Tree:
    """The files of a checkout, read once, and the exceptions that were granted."""

    def __init__(self, root):
        self.root = Path(root)
        self.files = {}
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix in TEXT_SUFFIXES and not path.is_symlink():
                    try:
                        self.files[path.relative_to(self.root).as_posix()] = path.read_text()
                    except UnicodeDecodeError:
                        pass
        self.exceptions = {}
        for number, line in enumerate(self.files.get("tests/tidy/exceptions.txt", "").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                parts = line.split(None, 3)
                if len(parts) < 4:
                    raise SystemExit(f"tests/tidy/exceptions.txt:{number}: takes rule, path, word and reason")
                self.exceptions[tuple(parts[:3])] = 0

    def allowed(self, rule, path, word):
        """Whether an exception names this file, or a folder (with its slash) that it is in."""
        folders = [path[:at + 1] for at, char in enumerate(path) if char == "/"]
        for where in (path, *folders):
            if (rule, where, word) in self.exceptions:
                self.exceptions[rule, where, word] += 1
                return True
        return False

    def stale_exceptions(self):
        return [f"tests/tidy/exceptions.txt: nothing needs `{' '.join(key)}`"
                for key, uses in self.exceptions.items() if uses == 0]

    def cpp(self, *prefixes):
        for path, text in self.files.items():
            if Path(path).suffix in CPP and (not prefixes or path.startswith(prefixes)):
                yield path, text

    def generated(self, path):
        return "Generated by" in self.files[path][:300]


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def folder_of(path):
    """The layer folder of a file of core/src: engine, drivers/sqlite, or "" for the files on top."""
    parts = path.split("/")[2:]
    if len(parts) < 2:
        return ""
    return "/".join(parts[:2]) if parts[0] == "drivers" else parts[0]


def layers(tree):
    """A file of core/src includes its own folder, public headers and lower layers only."""
    findings = []
    for path, text in tree.cpp("core/src/"):
        own = folder_of(path)
        if own == "":
            continue
        seen = LAYERS["drivers/*"] | {own} if own.startswith("drivers/") else LAYERS.get(own)
        if seen is None:
            findings.append(f"{path}:1: the folder {own} is in no layer")
            continue
        for line, kind, target in cpp.includes(text):
            if ".." in target.split("/"):
                findings.append(f"{path}:{line}: includes {target}; paths start at core/src")
            elif kind == '"' and folder_of("core/src/" + target) not in seen:
                findings.append(f"{path}:{line}: {own} must not include {target}")
            elif target == "sqlite3.h" and own not in ("drivers/sqlite", "drivers/common"):
                findings.append(f"{path}:{line}: only the sqlite driver includes {target}")
            elif own.startswith("drivers/") and target in ENGINE_HEADERS:
                findings.append(f"{path}:{line}: a driver must not include {target}")
    return findings


def public_headers(tree):
    """Public headers include the standard library and each other only; the demo sees nothing else of it."""
    findings = []
    for path, text in tree.cpp("core/include/"):
        for line, kind, target in cpp.includes(text):
            if kind == '"' or not (target.startswith("towline/") or re.fullmatch(r"[a-z_0-9]+", target)):
                findings.append(f"{path}:{line}: a public header must not include {target}")
    inside = tuple(name.split("/")[0] + "/" for name in LAYERS)
    for path, text in tree.cpp("demo/", "cli/", "bindings/"):
        for line, kind, target in cpp.includes(text):
            if (kind == '"' and target.startswith(inside)) or target.startswith("towline/spi/"):
                findings.append(f"{path}:{line}: looks inside the library: {target}")
    return findings


def sizes(tree):
    """Lines, files and functions stay within their limits."""
    findings = []
    for path, text in tree.files.items():
        kind = Path(path).suffix
        code = kind in CPP or kind in {".py", ".cmake"} or path.startswith("scripts/") or \
            Path(path).name in {"CMakeLists.txt", "Makefile"}
        if not code or tree.generated(path):
            continue
        lines = text.splitlines()
        if len(lines) > FILE_LINES_MAX and not tree.allowed("sizes", path, "file"):
            findings.append(f"{path}:1: {len(lines)} lines, at most {FILE_LINES_MAX}")
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_LENGTH_MAX:
                findings.append(f"{path}:{number}: {len(line)} characters, at most {LINE_LENGTH_MAX}")
        if kind in CPP:
            for function in cpp.functions(text):
                length = function.last - function.first + 1
                if length > FUNCTION_LINES_MAX and not tree.allowed("sizes", path, "function"):
                    findings.append(f"{path}:{function.first}: {length} lines, at most {FUNCTION_LINES_MAX}: "
                                    f"{function.name[:60]}")
    return findings


def words(tree):
    """One word per idea, and no word about one machine."""
    findings = []
    for path, text in tree.files.items():
        if path == "LICENSE" or path.startswith("tests/tidy/"):
            continue
        for pattern, advice in BANNED:
            for match in re.finditer(pattern, text):
                word = match.group(0)
                if not tree.allowed("words", path, word):
                    findings.append(f"{path}:{line_of(text, match.start())}: `{word}`: {advice}")
    return findings


def purity(tree):
    """Code that the simulator drives calls no clock, random device, thread primitive or I/O."""
    findings = []
    for path, text in tree.cpp(*(f"core/src/{folder}/" for folder in PURE_FOLDERS)):
        code = cpp.code_of(text)
        headers = [(line, target) for line, kind, target in cpp.includes(text) if kind == "<"]
        for group in IMPURE:
            hits = [(line_of(code, match.start()), match.group(0).rstrip("( "))
                    for match in re.finditer(IMPURE[group], code)]
            known = IMPURE_HEADERS.get(group, ())
            hits += [(line, f"<{target}>") for line, target in headers if target in known]
            if hits and not tree.allowed("purity", path, group):
                line, word = min(hits)
                findings.append(f"{path}:{line}: `{word}` and {len(hits) - 1} more ({group}); it has Clock, "
                                "Rng, Store and Transport for that")
    return findings


def hash_order(tree):
    """Nothing the simulator drives depends on the order of a hash table."""
    findings = []
    declared = re.compile(r"std::unordered_(?:multi)?(?:map|set)\s*<[^;{}()]*>\s*&?\s*(\w+)\s*[;={,)]")
    for path, text in tree.cpp(*(f"core/src/{folder}/" for folder in PURE_FOLDERS)):
        code = cpp.code_of(text)
        twin = path[:-3] + "hpp" if path.endswith(".cpp") else ""
        names = set(declared.findall(code)) | set(declared.findall(cpp.code_of(tree.files.get(twin, ""))))
        for name in sorted(names):
            for match in re.finditer(rf":\s*(?:this->)?{name}\s*\)|\b{name}\s*\.\s*begin\s*\(", code):
                if not tree.allowed("hash_order", path, name):
                    findings.append(f"{path}:{line_of(code, match.start())}: walks the hash table "
                                    f"`{name}`, whose order is not defined; sort first")
    return findings


def waiting(tree):
    """Tests wait for conditions, not for time."""
    findings = []
    for path, text in tree.cpp("tests/", "demo/"):
        lines = text.splitlines()
        for match in re.finditer(r"\bsleep_(?:for|until)\b|\bu?n?a?n?o?sleep\s*\(", cpp.code_of(text)):
            line = line_of(text, match.start())
            near = "\n".join(lines[max(0, line - 3):line])
            if "sleeps:" not in near and not tree.allowed("waiting", path, "sleep"):
                findings.append(f"{path}:{line}: sleeps; wait for a condition, or say why: `// sleeps: ...`")
    return findings


def openings(tree):
    """Every source file opens with a paragraph that says what it is for; every header is included once."""
    findings = []
    for path, text in tree.cpp("core/", "tests/", "demo/", "bench/", "cli/"):
        if path.endswith((".hpp", ".h")) and "#pragma once" not in text:
            findings.append(f"{path}:1: has no #pragma once")
        first = re.sub(r"^\s*#pragma once\s*", "", text).lstrip()
        if not first.startswith(("//", "/*")):
            findings.append(f"{path}:1: does not open by saying what it is for")
    return findings


def generated(tree):
    """Generated files are fresh."""
    script = tree.root / "scripts/generate"
    if not script.exists():
        return []
    run = subprocess.run([script, "--check"], capture_output=True, text=True, cwd=tree.root)
    return [] if run.returncode == 0 else [f"scripts/generate --check: {(run.stdout + run.stderr).strip()}"]


def _anchors(text):
    for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        yield plain.replace(" ", "-")


def links(tree):
    """Every link of the documents leads somewhere."""
    findings = []
    for path, text in tree.files.items():
        if not path.endswith(".md"):
            continue
        plain = re.sub(r"```.*?```|`[^`\n]*`", _blank_keep_lines, text, flags=re.DOTALL)
        for match in re.finditer(r"\]\(([^)\s]+)\)", plain):
            target, _, anchor = match.group(1).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (tree.root / path).parent / target if target else tree.root / path
            where = f"{path}:{line_of(text, match.start())}"
            if not file.exists():
                findings.append(f"{where}: leads to {target}, which does not exist")
            elif anchor and file.suffix == ".md" and anchor not in set(_anchors(file.read_text())):
                findings.append(f"{where}: {target or path} has no heading #{anchor}")
    return findings


def _blank_keep_lines(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def _snippets(text):
    """(line, name or None, preamble, code) of each C++ block; the name is in the comment before it."""
    block = r"(?:<!-- test: ([\w-]+)((?:(?!-->).)*)-->\s*\n)?```(?:cpp|c\+\+)\n(.*?)```"
    for match in re.finditer(block, text, re.DOTALL):
        yield line_of(text, match.start(3)), match.group(1), match.group(2) or "", match.group(3)


def _program_of(preamble, code):
    """A snippet with a main is a program; any other is the inside of a function, its includes put first."""
    if re.search(r"\bint main\b", code):
        return preamble + "\n" + code
    top = [line for line in code.splitlines() if line.startswith(("#include", "using namespace"))]
    rest = [line for line in code.splitlines() if line not in top]
    return "\n".join(["#include <towline/towline.hpp>", *top, preamble, "void snippet() {", *rest, "}", ""])


def snippets(tree):
    """The C++ of README.md and docs/ compiles."""
    findings = []
    for path, text in tree.files.items():
        if path != "README.md" and not re.fullmatch(r"docs/\w+\.md", path):
            continue
        for line, name, preamble, code in _snippets(text):
            if name is None:
                findings.append(f"{path}:{line}: no test covers this; put `<!-- test: name -->` before it")
                continue
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, f"{name}.cpp")
                source.write_text(_program_of(preamble, code))
                command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra",
                           "-I", tree.root / "core/include", source]
                run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0:
                errors = [text for text in run.stderr.splitlines() if "error" in text][:3]
                findings.append(f"{path}:{line}: `{name}` does not compile: {' / '.join(errors)}")
    return findings


def dead_files(tree):
    """Every source file is built, and every header is included by somebody."""
    findings = []
    built = (r"core/src/(?:base|codec|policy|saga|engine|port|admin)/.*\.cpp|core/src/drivers/\w+/.*\.cpp|"
             r"core/src/\w+\.cpp|tests/(?:unit|conformance|simulation|support)/.*\.cpp|tests/fuzz/\w+\.cpp|"
             r"tests/fuzz/driver/\w+\.cc|tests/consume/\w+\.cpp|bench/.*\.cpp")
    included = {target for _, text in tree.cpp() for _, _, target in cpp.includes(text)}
    names = {Path(target).name for target in included}
    for path in (path for path, _ in tree.cpp()):
        name = Path(path).name
        if path.endswith((".hpp", ".h")):
            known = path.removeprefix("core/src/").removeprefix("core/include/").removeprefix("tests/")
            if known not in included and (path.startswith("core/") or name not in names):
                findings.append(f"{path}:1: nothing includes it")
        elif not re.fullmatch(built, path):
            listing = tree.files.get(str(Path(path).parent / "CMakeLists.txt"), "")
            if name not in listing and not re.search(r"file\(GLOB[^)]*\*\.cpp", listing):
                findings.append(f"{path}:1: no target builds it")
    return findings


def twins(tree):
    """Each source file of base, codec, policy and the drivers has its unit test, and each test its source."""
    findings = []
    for path, text in tree.cpp("core/src/base/", "core/src/codec/", "core/src/policy/", "core/src/drivers/"):
        if tree.generated(path) or ".gen." in path:
            continue
        stem = path.rsplit(".", 1)[0]
        if path.endswith(".hpp"):
            has_logic = any(function.body.count(";") >= 3 or re.search(r"\b(?:if|for|while)\b", function.body)
                            for function in cpp.functions(text))
            if stem + ".cpp" in tree.files or not has_logic:
                continue
        test = stem.replace("core/src/", "tests/unit/", 1) + "_test.cpp"
        # What every driver must do is tested over all of them: drivers/thing_test.cpp for thing and a_thing.
        name = Path(stem).name
        shared = {f"tests/unit/drivers/{part}_test.cpp" for part in (name, name.rpartition("_")[2])}
        if path.startswith("core/src/drivers/") and shared & tree.files.keys():
            continue
        if test not in tree.files and not tree.allowed("twins", path, "untested"):
            findings.append(f"{path}:1: has no unit test {test}")
    for path, _ in tree.cpp("tests/unit/"):
        if not path.endswith("_test.cpp"):
            continue
        stem = path.replace("tests/unit/", "core/src/", 1).removesuffix("_test.cpp")
        whole = stem.rpartition("_")[0]  # thing_subject_test.cpp is a part of thing_test.cpp
        if whole.replace("core/src/", "tests/unit/", 1) + "_test.cpp" in tree.files:
            continue
        public = "core/include/towline/" + Path(stem).name
        # drivers/thing_test.cpp is run over every driver, so it is enough that one of them has the thing.
        of_drivers = re.compile(stem.replace("drivers/", r"drivers/\w+/") + r"\.[ch]pp")
        if not any(candidate in tree.files for candidate in (stem + ".cpp", stem + ".hpp", public + ".hpp")) \
                and not any(of_drivers.fullmatch(candidate) for candidate in tree.files):
            findings.append(f"{path}:1: there is no {stem}.cpp or .hpp that it tests")
    return findings


ALL = [layers, public_headers, sizes, words, purity, hash_order, waiting, openings, generated, links,
       snippets, dead_files, twins]
