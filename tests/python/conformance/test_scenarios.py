"""The two lists and the tests belong together, and what compares the reports finds what it is for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import suite


def tested() -> set[tuple[str, str]]:
    """(id, provider) of every test here, by its source: "-" for one that takes no store."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        pattern = r"(?:async )?def (test_(?:conf|bad)_\d\d+_\w+)\(\s*(\w*)"
        for name, parameter in re.findall(pattern, file.read_text()):
            id = suite.id_of_test(name)
            assert id is not None
            found |= {(id, one) for one in (suite.PROVIDERS if parameter == "store" else ("-",))}
    return found


def test_every_scenario_has_a_test_for_every_provider_or_a_reason() -> None:
    have = tested()
    for id in suite.SCENARIOS:
        for provider in suite.PROVIDERS:
            assert (
                (id, provider) in have or (id, "-") in have or suite.skip_reason(id, provider)
            ), f"{id} has neither a test for {provider} nor a row in capabilities.txt"


def test_every_test_with_an_id_belongs_to_a_scenario() -> None:
    assert {id for id, _ in tested()} <= suite.SCENARIOS.keys()


def entries(language: str) -> list[dict[str, str]]:
    """A report without a fault."""
    made = []
    for id in suite.SCENARIOS:
        for provider in suite.PROVIDERS:
            passed_over = any(
                skip.id == id and skip.provider in ("*", provider) and skip.language in ("*", language)
                for skip in suite.SKIPS
            )
            result = "skip" if passed_over else "pass"
            made.append({"id": id, "provider": provider, "language": language, "result": result})
    return made


def compare(folder: Path, **reports: list[dict[str, str]]) -> tuple[int, str]:
    for language, report in reports.items():
        text = "".join(json.dumps(entry) + "\n" for entry in report)
        (folder / f"conformance-{language}.jsonl").write_text(text)
    program = [sys.executable, suite.LISTS / "compare", folder, *reports]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_reports_that_agree_are_no_finding(tmp_path: Path) -> None:
    code, text = compare(tmp_path, cpp=entries("cpp"), python=entries("python"))
    assert code == 0 and text.endswith("compare: 0 findings\n"), text


@pytest.mark.parametrize(
    ("index", "change", "finding"),
    [
        ("CONF-05", None, "CONF-05 on sqlite in python is not reported"),
        ("CONF-05", {"result": "fail"}, "CONF-05 on sqlite in python failed"),
        ("CONF-05", {"result": "skip"}, "CONF-05 on sqlite in python is passed over, and"),
        ("CONF-13", {"result": "pass"}, "CONF-13 on sqlite in python passes; its row"),
        ("CONF-05", {"id": "CONF-00"}, "CONF-00 on sqlite in python is no scenario"),
        ("CONF-05", {"language": "cpp"}, "of another language"),
        ("CONF-05", {"result": "maybe"}, "its result is 'maybe'"),
    ],
)
def test_a_difference_is_a_finding(
    tmp_path: Path, index: str, change: dict[str, str] | None, finding: str
) -> None:
    report = entries("python")
    at = next(n for n, entry in enumerate(report) if (entry["id"], entry["provider"]) == (index, "sqlite"))
    report[at : at + 1] = [] if change is None else [{**report[at], **change}]
    code, text = compare(tmp_path, cpp=entries("cpp"), python=report)
    assert code == 1 and finding in text, text


def test_a_missing_report_is_a_finding(tmp_path: Path) -> None:
    code, text = compare(tmp_path, cpp=entries("cpp"))
    assert code == 0, text
    program = [sys.executable, suite.LISTS / "compare", tmp_path, "cpp", "node"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "conformance-node.jsonl" in done.stdout
