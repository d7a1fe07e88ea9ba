"""Planted breaches: each must be found by its rule, by file name, in a tree where nothing else is wrong."""
import tempfile
from pathlib import Path

import rules

GOOD = {
    "core/include/towline/towline.hpp": "#pragma once\n// Everything.\nnamespace towline {\n"
                                        "inline int two() { return 2; }\n}\n",
    "core/src/base/bytes.hpp": "#pragma once\n// Bytes.\nint size_of_bytes();\n",
    "core/src/base/bytes.cpp": '// Bytes.\n#include "base/bytes.hpp"\n#include <towline/towline.hpp>\n'
                               "int size_of_bytes() { return 1'000; }\n",
    "core/src/registry.cpp": '// The top.\n#include "base/bytes.hpp"\n',
    "tests/unit/base/bytes_test.cpp": "// Bytes.\n",
    "README.md": "# Good\n\n[here](README.md#good)\n\n"
                 "<!-- test: python_two -->\n```python\ntwo()\n```\n"
                 "<!-- test: two -->\n```cpp\nint a = towline::two();\n(void)a;\n```\n",
}
EXCEPTIONS = "tests/tidy/exceptions.txt"
LONG_FUNCTION = "// Long.\nint long_one(int a) {\n" + "  ++a;\n" * 75 + "  return a;\n}\n"


def _engine(body):
    return {"core/src/engine/settler.cpp": "// Settles.\n" + body}


# name, rule, planted files, what the finding must contain
PLANTS = [
    ("a policy that includes the engine", rules.layers,
     {"core/src/policy/a.cpp": '// A.\n#include "engine/b.hpp"\n'}, "core/src/policy/a.cpp:2"),
    ("a driver that includes another driver", rules.layers,
     {"core/src/drivers/redis/a.cpp": '// A.\n#include "drivers/sqlite/b.hpp"\n'}, "drivers/redis/a.cpp:2"),
    ("an engine that includes a driver", rules.layers, _engine('#include "drivers/memory/b.hpp"\n'),
     "settler.cpp:2"),
    ("a driver that includes a policy", rules.layers,
     {"core/src/drivers/memory/a.cpp": '// A.\n#include "policy/b.hpp"\n'}, "drivers/memory/a.cpp:2"),
    ("a driver that includes the public engine", rules.layers,
     {"core/src/drivers/memory/a.cpp": "// A.\n#include <towline/engine.hpp>\n"}, "drivers/memory/a.cpp:2"),
    ("an include that climbs out of its folder", rules.layers, _engine('#include "engine/../port/b.hpp"\n'),
     "settler"),
    ("SQLite outside its driver", rules.layers, _engine("#include <sqlite3.h>\n"), "settler.cpp:2"),
    ("a folder that is in no layer", rules.layers, {"core/src/misc/a.cpp": "// A.\n"}, "core/src/misc/a.cpp"),
    ("a public header that shows a third party", rules.public_headers,
     {"core/include/towline/a.hpp": "#pragma once\n// A.\n#include <nlohmann/json.hpp>\n"},
     "towline/a.hpp:3"),
    ("a demo that looks inside", rules.public_headers,
     {"demo/main.cpp": '// A.\n#include "engine/core.hpp"\n'}, "demo/main.cpp:2"),
    ("a long line", rules.sizes, _engine("// " + "x" * 120 + "\n"), "settler.cpp:2"),
    ("a long file", rules.sizes, _engine("int a;\n" * 900), "settler.cpp:1: 901 lines"),
    ("a long function", rules.sizes, {"core/src/engine/settler.cpp": LONG_FUNCTION},
     "settler.cpp:2: 78 lines"),
    ("a long member function", rules.sizes,
     _engine("class A : public B {\n public:\n  A() : a_{1} {}\n  void f() const override {\n"
             + "    ++a_;\n" * 80 + "  }\n  int a_;\n};\n"), "settler.cpp:5: 82 lines"),
    ("a long test", rules.sizes,
     {"tests/unit/base/bytes_test.cpp": "// A.\nTEST(A, B) {\n" + "  f();\n" * 80 + "}\n"},
     "bytes_test.cpp:2"),
    ("a word that is not ours", rules.words, _engine("int poison_count;\n"), "settler.cpp:2"),
    ("another name for dead letters", rules.words, _engine("int orders_dlq;\n"), "settler.cpp:2"),
    ("another name for attempts", rules.words, _engine("int retry_count;\n"), "settler.cpp:2"),
    ("a promise nobody can keep", rules.words, {"docs/a.md": "It has exactly-once delivery.\n"},
     "docs/a.md:1"),
    ("a path of one machine", rules.words, {"docs/a.md": "See /home/me/x.\n"}, "docs/a.md:1"),
    ("an address", rules.words, {"scripts/get": "#!/bin/sh\nfetch https://files.invalid/a\n"},
     "scripts/get:2"),
    ("a thread in the engine", rules.purity, _engine("std::thread t;\n"), "std::thread"),
    ("a lock in a policy", rules.purity, {"core/src/policy/a.cpp": "// A.\nstd::mutex m;\n"},
     "policy/a.cpp:2"),
    ("a wait that no virtual clock can end", rules.purity,
     _engine("void f() { changed_.wait_for(lock, 1s); }\n"), "wait_for"),
    ("a wait without a time", rules.purity, _engine("void f() { changed_.wait(lock); }\n"), "wait(lock"),
    ("a clock in the engine", rules.purity, _engine("auto t = std::chrono::steady_clock::now();\n"),
     "steady_clock"),
    ("randomness in the base", rules.purity, {"core/src/base/a.cpp": "// A.\nstd::random_device d;\n"},
     "base/a.cpp:2"),
    ("the environment in a codec", rules.purity, {"core/src/codec/a.cpp": '// A.\nauto* a = getenv("A");\n'},
     "getenv"),
    ("a header of threads", rules.purity, _engine("#include <mutex>\n"), "<mutex>"),
    ("a walk over a hash table", rules.hash_order,
     {"core/src/engine/a.hpp": "#pragma once\n// A.\n"
                               "struct A { std::unordered_map<int, std::vector<int>> keys_; };\n",
      "core/src/engine/a.cpp": "// A.\nvoid A::f() { for (auto& [k, v] : keys_) g(k); }\n"},
     "engine/a.cpp:2"),
    ("a test that sleeps", rules.waiting,
     {"tests/conformance/a.cpp": "// A.\nvoid f() { std::this_thread::sleep_for(1s); }\n"},
     "conformance/a.cpp:2"),
    ("a file that does not introduce itself", rules.openings,
     {"core/src/engine/a.cpp": "#include <vector>\n"}, "engine/a.cpp:1"),
    ("a header without its guard", rules.openings, {"core/src/engine/a.hpp": "// A.\n"}, "engine/a.hpp:1"),
    ("a stale generated file", rules.generated,
     {"scripts/generate": "#!/bin/sh\necho docs/OPTIONS.md is stale\nexit 1\n"}, "docs/OPTIONS.md is stale"),
    ("a link to nowhere", rules.links, {"docs/a.md": "See [this](gone.md).\n"}, "docs/a.md:1"),
    ("a link to no heading", rules.links, {"docs/a.md": "# One\n\nSee [this](#two).\n"}, "docs/a.md:3"),
    ("a snippet that does not compile", rules.snippets,
     {"README.md": "<!-- test: bad -->\n```cpp\nint a = towline::three();\n```\n"}, "README.md:3: `bad`"),
    ("a snippet that no test covers", rules.snippets, {"README.md": "# A\n\n```cpp\nint a;\n```\n"},
     "README.md:4"),
    ("a source file that nothing builds", rules.dead_files, {"core/src/drivers/a.cpp": "// A.\n"},
     "drivers/a.cpp"),
    ("a test that nothing builds", rules.dead_files, {"tests/other/a_test.cpp": "// A.\n"},
     "tests/other/a_test.cpp"),
    ("a header that nothing includes", rules.dead_files,
     {"core/src/engine/a.hpp": "#pragma once\n// A.\n"}, "core/src/engine/a.hpp"),
    ("a source file without a unit test", rules.twins, {"core/src/policy/a.cpp": "// A.\n"}, "policy/a.cpp"),
    ("a header with logic and no unit test", rules.twins,
     {"core/src/policy/a.hpp": "#pragma once\n// A.\ninline int f(int a) { if (a) return 1; return 2; }\n"},
     "policy/a.hpp"),
    ("a driver's source file without a unit test", rules.twins,
     {"core/src/drivers/memory/queue_a.cpp": "// A.\n", "tests/unit/drivers/b_test.cpp": "// A.\n",
      "core/src/drivers/memory/b.cpp": "// A.\n"}, "drivers/memory/queue_a.cpp"),
    ("a unit test of nothing", rules.twins, {"tests/unit/policy/gone_test.cpp": "// A.\n"}, "gone_test.cpp"),
    ("a part of a unit test that is not there", rules.twins,
     {"tests/unit/policy/gone_part_test.cpp": "// A.\n"}, "gone_part_test.cpp"),
]


def _tree(folder, files):
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("scripts/"):
            path.chmod(0o755)
    return rules.Tree(folder)


def _run_plant(rule, files, expected):
    with tempfile.TemporaryDirectory() as folder:
        findings = rule(_tree(folder, {**GOOD, **files}))
    if not any(expected in finding for finding in findings):
        return [f"{rule.__name__} did not name `{expected}`; it said {findings}"]
    return []


def _run_good():
    with tempfile.TemporaryDirectory() as folder:
        tree = _tree(folder, GOOD)
        return [finding for rule in rules.ALL for finding in rule(tree)]


def _run_stale_exception():
    with tempfile.TemporaryDirectory() as folder:
        tree = _tree(folder, {**GOOD, EXCEPTIONS: "purity core/src/engine/gone.cpp locks why\n"})
        for rule in rules.ALL:
            rule(tree)
        return [] if tree.stale_exceptions() else ["an exception that nothing needs was not named"]


def _run_exception():
    with tempfile.TemporaryDirectory() as folder:
        files = {**GOOD, **_engine("std::mutex m;\n"),
                 EXCEPTIONS: "purity core/src/engine/settler.cpp locks it has a reason\n"}
        tree = _tree(folder, files)
        return rules.purity(tree) + tree.stale_exceptions()


def _run_folder_exception():
    with tempfile.TemporaryDirectory() as folder:
        files = {**GOOD, **_engine("void f() { clock_->wait_until(lock, changed_, t); }\nstd::mutex m;\n"),
                 EXCEPTIONS: "purity core/src/engine/ locks they all have a reason\n"}
        tree = _tree(folder, files)
        return rules.purity(tree) + tree.stale_exceptions()


def plants():
    """(name, function that returns findings) of every self-test."""
    yield "nothing in a tree that is right", _run_good
    yield "an exception, and lets it pass", _run_exception
    yield "an exception for a folder, and lets it pass", _run_folder_exception
    yield "an exception that nothing needs", _run_stale_exception
    for name, rule, files, expected in PLANTS:
        yield name, lambda rule=rule, files=files, expected=expected: _run_plant(rule, files, expected)
