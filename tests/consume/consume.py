#!/usr/bin/env python3
"""Builds small projects against towline the three ways users do, and looks at what the library shows to them.

    tests/consume/consume.py --build <build folder> [--results file.xml]

The build folder is installed into a prefix, and the prefix is moved before it is used, so nothing installed
may know where it was. Work goes on in <build folder>/consume, kept so that the next run is quick.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CXX = os.environ.get("CXX", "g++")


class Failure(Exception):
    pass


def run(*command, env=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, **(env or {})})
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{tail}")
    return done.stdout


class Consume:
    def __init__(self, build):
        self.build = build
        self.work = build / "consume"
        self.prefix = self.work / "moved"
        self.work.mkdir(exist_ok=True)

    def _library(self):
        return next(self.prefix.rglob("libtowline.a"))

    def _run_program(self, program):
        store = self.work / "store"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        for url in ("memory:", f"sqlite:{store}/a.db"):
            if "handled order 1" not in run(program, url):
                raise Failure(f"{program} {url} handled nothing")

    def install(self):
        """The library installs, and the installation can be moved."""
        first = self.work / "installed"
        shutil.rmtree(first, ignore_errors=True)
        shutil.rmtree(self.prefix, ignore_errors=True)
        run("cmake", "--install", self.build, "--prefix", first, "--component", "towline")
        first.rename(self.prefix)
        for path in self.prefix.rglob("*"):
            if path.suffix in (".cmake", ".pc", ".hpp") and str(ROOT) in path.read_text():
                raise Failure(f"{path.name} names the folder it was built in")

    def find_package(self):
        """A project with find_package builds and runs."""
        build = self.work / "find_package"
        run("cmake", "-S", HERE / "find_package", "-B", build, "-G", "Ninja", "--fresh",
            f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", build)
        self._run_program(build / "program")

    def version(self):
        """Another major version is refused."""
        folder = self.work / "version"
        folder.mkdir(exist_ok=True)
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.24)\nproject(version LANGUAGES CXX)\n"
            "find_package(towline 99 CONFIG REQUIRED)\n")
        try:
            run("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        except Failure as failure:
            if "99" not in str(failure):
                raise
        else:
            raise Failure("find_package(towline 99) found this version")

    def pkg_config(self):
        """A compiler call with pkg-config builds and runs."""
        folder = next(self.prefix.rglob("towline.pc")).parent
        where = {"PKG_CONFIG_PATH": str(folder)}
        flags = run("pkg-config", "--cflags", "--libs", "towline", env=where).split()
        program = self.work / "pkg_config_program"
        run(CXX, "-std=c++20", HERE / "program.cpp", "-o", program, *flags)
        self._run_program(program)

    def documents(self):
        """The C++ programs of README.md and docs/ run."""
        folder = next(self.prefix.rglob("towline.pc")).parent
        where = {"PKG_CONFIG_PATH": str(folder)}
        flags = run("pkg-config", "--cflags", "--libs", "towline", env=where).split()
        work = self.work / "documents"
        shutil.rmtree(work, ignore_errors=True)
        programs = {}
        for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
            block = r"<!-- test: (\w+) -->\n```cpp\n(.*?)```"
            for name, code in re.findall(block, document.read_text(), re.DOTALL):
                programs[name] = code
        if len(programs) < 8:
            raise Failure(f"only {len(programs)} programs were found")

        def build_and_run(name):
            own = work / name
            own.mkdir(parents=True)
            (own / "main.cpp").write_text(programs[name])
            own_sqlite = ["-lsqlite3"] if "<sqlite3.h>" in programs[name] else []
            run(CXX, "-std=c++20", own / "main.cpp", "-o", own / "program", *flags, *own_sqlite)
            for _ in range(2):  # what one run leaves behind must not disturb the next
                done = subprocess.run([own / "program"], cwd=own, capture_output=True, text=True, timeout=60)
                if done.returncode != 0:
                    raise Failure(f"{name} ended with {done.returncode}: {done.stderr}")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(build_and_run, programs))

    def add_subdirectory(self):
        """A project with add_subdirectory builds and runs, and gets the library alone."""
        build = self.work / "add_subdirectory"
        run("cmake", "-S", HERE / "add_subdirectory", "-B", build, "-G", "Ninja", f"-DTOWLINE_SOURCE={ROOT}",
            "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_COMPILER_LAUNCHER=" + (shutil.which("ccache") or ""),
            "-DCMAKE_CXX_COMPILER_LAUNCHER=" + (shutil.which("ccache") or ""))
        run("cmake", "--build", build, "--parallel", "2")
        self._run_program(build / "program")

    def headers(self):
        """Every public header compiles on its own, without a warning."""
        include = self.prefix / "include"
        headers = sorted(path.relative_to(include) for path in include.rglob("*.hpp"))
        if not headers:
            raise Failure("no header was installed")

        def check(header):
            source = f"#include <{header}>\n#include <{header}>\n"
            command = [CXX, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow",
                       "-Werror", "-I", include, "-x", "c++", "-"]
            done = subprocess.run(command, input=source, capture_output=True, text=True)
            return f"{header}: {done.stderr.splitlines()[0]}" if done.returncode else None

        with ThreadPoolExecutor(2) as pool:
            bad = [finding for finding in pool.map(check, headers) if finding]
        if bad:
            raise Failure("\n".join(bad))

    def own_sqlite(self):
        """The bundled SQLite keeps its names to itself, so a program may link another one."""
        names = re.findall(r"^[0-9a-f]+ [TDBRVWC] (sqlite3\w*)$", run("nm", self._library()), re.MULTILINE)
        if names:
            raise Failure(f"libtowline.a defines {', '.join(names[:5])}")
        if "T towline_sqlite3_open_v2" not in run("nm", self._library()):
            raise Failure("libtowline.a has no SQLite inside")

    def exports(self):
        """A shared object with towline inside exports its entry point and nothing else."""
        plugin = next((self.work / "find_package").glob("libplugin.so"))
        names = [line.split()[-1] for line in run("nm", "-D", "--defined-only", plugin).splitlines()]
        ours = [name for name in names if "towline" in name or "sqlite" in name or name.startswith("XXH")]
        if "plugin_entry" not in names or ours:
            raise Failure(f"it exports {', '.join(ours[:8]) or names}")

    def hardening(self):
        """The library is compiled with stack protection, fortified calls and position-independent code."""
        symbols = run("nm", self._library())
        for symbol in ("__stack_chk_fail", "__memcpy_chk"):
            if f"U {symbol}" not in symbols:
                raise Failure(f"nothing in libtowline.a calls {symbol}")
        program = self.build / "tests/towline_unit"
        dynamic = run("readelf", "-dlW", program)
        for needed in ("GNU_RELRO", "BIND_NOW", "PIE"):
            if needed not in dynamic:
                raise Failure(f"{program.name} is linked without {needed}")


def write_results(path, outcomes):
    suite = ET.Element("testsuite", name="consume", tests=str(len(outcomes)))
    for name, error, seconds in outcomes:
        case = ET.SubElement(suite, "testcase", classname="consume", name=name, time=f"{seconds:.3f}")
        if error:
            ET.SubElement(case, "failure", message=error.split("\n", 1)[0]).text = error
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", type=Path, required=True, help="a configured and built build folder")
    parser.add_argument("--results", type=Path, help="write the outcome here as JUnit XML")
    options = parser.parse_args()
    consume = Consume(options.build.resolve())
    outcomes = []
    for step in (consume.install, consume.find_package, consume.version, consume.pkg_config, consume.headers,
                 consume.documents, consume.own_sqlite, consume.exports, consume.hardening,
                 consume.add_subdirectory):
        started = time.monotonic()
        error = None
        try:
            step()
        except (Failure, StopIteration) as failure:
            error = str(failure) or "a file that should be there is not"
        outcomes.append((step.__doc__.rstrip("."), error, time.monotonic() - started))
        print(f"{'FAILED' if error else 'ok'}: {outcomes[-1][0]} ({outcomes[-1][2]:.1f} s)", flush=True)
        if error:
            print(f"  {error}")
            if step == consume.install:
                break
    failed = sum(1 for _, error, _ in outcomes if error)
    print(f"consume: {len(outcomes) - failed} passed, {failed} failed")
    if options.results:
        write_results(options.results, outcomes)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
