"""Fixtures of the conformance suite, its checks after each test, and its report.

The report has one line per scenario and provider, on the terminal and, where TOWLINE_RESULTS names a
folder, in conformance-python.jsonl there, which tests/conformance/compare reads. It is written after a whole
run only.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from conformance import suite
from conformance.suite import Store
from conftest import eventually

FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(provider): of this provider; the table says why not of others")
    config.addinivalue_line("markers", "logs_errors: the engine logs errors here")
    if not hasattr(config, "workerinput"):  # one of the processes of pytest-xdist; the first one sums up
        config.pluginmanager.register(Report(config), "conformance-report")


@pytest.fixture(params=suite.PROVIDERS)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Store]:
    """A fresh store. Afterwards every thread and file is given back, and no error was logged."""
    provider = request.param
    if (only := request.node.get_closest_marker("only")) and only.args[0] != provider:
        id = suite.id_of_test(request.node.name)
        assert id is not None
        reason = suite.skip_reason(id, provider)
        assert reason, f"{id} is passed over on {provider}, but capabilities.txt has no row for it"
        pytest.skip(reason)
    files = suite.open_files()
    made = Store(provider, tmp_path)
    yield made
    made.let_go()
    if request.node.stash.get(FAILED, False):
        return  # what it left behind is no news
    gc.collect()  # engines and their handlers know each other
    assert eventually(lambda: suite.open_files() <= files, 5), "a file was left open"
    assert eventually(lambda: not engine_threads(), 5), f"threads were left: {engine_threads()}"
    if not request.node.get_closest_marker("logs_errors"):
        loud = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
        assert not loud


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


def engine_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("towline-")]


class Report:
    """Sums the tests of each scenario: it fails when one failed, and is passed over when one was."""

    def __init__(self, config: pytest.Config) -> None:
        self.results: dict[tuple[str, str], set[str]] = {}
        folder = Path(__file__).parent
        self.is_whole = not (config.option.keyword or config.option.markexpr) and any(
            folder.is_relative_to(Path(argument).resolve()) for argument in config.args
        )

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.is_whole = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        id = suite.id_of_test(name)
        if id is None or (report.when != "call" and report.passed):
            return
        provider = next((one for one in suite.PROVIDERS if parameters.startswith(one)), "-")
        self.results.setdefault((id, provider), set()).add(report.outcome)

    def lines(self) -> Iterator[dict[str, str]]:
        for id in suite.SCENARIOS:
            for provider in ("-", *suite.PROVIDERS):
                outcomes = self.results.get((id, provider), set())
                reason = suite.skip_reason(id, provider)
                if "failed" in outcomes:
                    result = "fail"
                elif outcomes == {"passed"}:
                    result = "pass"
                elif outcomes or (provider in suite.PROVIDERS and reason and (id, "-") not in self.results):
                    result = "skip"
                else:
                    continue
                yield {
                    "id": id,
                    "provider": provider,
                    "language": suite.LANGUAGE,
                    "result": result,
                    "reason": (reason or "") if result == "skip" else "",
                }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.results or not self.is_whole:
            return
        for line in self.lines():
            verdict = f"skip({line['reason']})" if line["result"] == "skip" else line["result"]
            terminalreporter.write_line(f"{line['id']} {line['provider']} {line['language']} {verdict}")

    def pytest_sessionfinish(self) -> None:
        folder = os.environ.get("TOWLINE_RESULTS")
        if self.is_whole and self.results and folder:
            path = Path(folder) / f"conformance-{suite.LANGUAGE}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines()))
