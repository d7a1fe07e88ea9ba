#!/usr/bin/env python3
"""Checks the source tree itself, and first that each check finds what it is for.

    tests/tidy/tidy.py [--results file.xml] [--root folder]

Every rule of rules.py runs over the tree; before that, selftest.py plants breaches of each rule in a scratch
tree and requires the rule to name them, so a rule that has stopped working is a failure and not a silence.
What a rule must let pass in one place, and why, is a line of exceptions.txt; a line without use is a finding.
"""
import argparse
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import rules  # noqa: E402  (needs the path above)
import selftest  # noqa: E402


def write_results(path, cases):
    suite = ET.Element("testsuite", name="tidy", tests=str(len(cases)))
    for name, findings, seconds in cases:
        case = ET.SubElement(suite, "testcase", classname="tidy", name=name, time=f"{seconds:.3f}")
        if findings:
            ET.SubElement(case, "failure", message=f"{len(findings)} findings").text = "\n".join(findings)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, help="write the outcome here as JUnit XML")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    options = parser.parse_args()

    cases = []
    for name, run in selftest.plants():
        started = time.monotonic()
        cases.append((f"notices: {name}", run(), time.monotonic() - started))
    tree = rules.Tree(options.root)
    for rule in rules.ALL:
        started = time.monotonic()
        cases.append((rule.__doc__.split("\n", 1)[0].rstrip("."), rule(tree), time.monotonic() - started))
    cases.append(("No exception is listed that nothing needs", tree.stale_exceptions(), 0.0))

    failed = [case for case in cases if case[1]]
    for name, findings, _ in failed:
        print(f"FAILED: {name}")
        for finding in findings:
            print(f"  {finding}")
    print(f"tidy: {len(cases) - len(failed)} passed, {len(failed)} failed")
    if options.results:
        write_results(options.results, cases)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
