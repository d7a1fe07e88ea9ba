"""One message, three languages, one SQLite file: published in one, failed and dead-lettered in another,
edited and redriven from the third, handled in the first again; in every order. And events that one appends
and the others follow, by turns under one name. And a saga that one begins, whose command another handles, and
that the third ends. Each role is a process of its own.

The commands of the languages are in TOWLINE_ROLE_<LANGUAGE>, as JSON lists.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest

LANGUAGES = ("cpp", "python", "node")


def play(language: str, role: str, url: str) -> dict:
    command = json.loads(os.environ[f"TOWLINE_ROLE_{language.upper()}"])
    done = subprocess.run([*command, role, url], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, f"{language} {role}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.parametrize(("first", "second", "third"), itertools.permutations(LANGUAGES))
def test_a_message_goes_through_all_three(first: str, second: str, third: str, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    message_id = play(first, "publish", url)["id"]
    failed = play(second, "fail", url)
    assert json.loads(failed.pop("payload")) == {"n": 1, "s": "ün"}
    same = {"id": message_id, "content_type": "application/json", "key": "customer-9", "partition": 17,
            "headers": {"a": "ü"}, "correlation_id": "c-1"}
    assert failed == {**same, "attempt": 1, "redrives": 0}

    mended = play(third, "mend", url)
    assert json.loads(mended.pop("payload")) == {"n": 1, "s": "ün"}
    assert mended == {"id": message_id, "count": 1, "content_type": "application/json", "headers": {"a": "ü"},
                      "error": "no amount", "attempt": 1, "fingerprint": 16}

    handled = play(first, "handle", url)
    assert json.loads(handled.pop("payload")) == {"n": 2}
    assert handled == {**same, "attempt": 1, "redrives": 1}


@pytest.mark.parametrize(("first", "second", "third"), itertools.permutations(LANGUAGES))
def test_events_are_followed_by_turns(first: str, second: str, third: str, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    assert play(first, "append", url) == {"first": 1, "last": 2}
    seen = play(second, "follow", url)
    assert json.loads(seen.pop("payload")) == {"n": 1, "s": "ün"}
    assert seen == {"version": 1, "type": "order.placed", "content_type": "application/json",
                    "headers": {"a": "ü"}}
    assert play(third, "follow", url) == {"version": 2, "type": "order.noted", "payload": "ün",
                                          "content_type": "text/plain; charset=utf-8", "headers": {}}


@pytest.mark.parametrize(("first", "second", "third"), itertools.product(LANGUAGES, repeat=3))
def test_a_saga_goes_on_in_another_language(first: str, second: str, third: str, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/a.db"
    begun = play(first, "begin", url)
    assert begun == {"is_new": True, "status": "running", "step": "charge", "fingerprint": "92a593d844ec9123"}
    handled = play(second, "reply", url)
    context = {"n": 1, "s": "ün", "reserved": "order/o-1/reserve/execute"}
    assert json.loads(handled.pop("payload")) == context
    assert handled == {"key": "o-1"}
    receipt = {"receipt": "ün"}
    assert play(third, "end", url) == {
        "status": "completed", "context": context,
        "done": [["reserve", "shelf 7"], ["charge", receipt], ["ship", ["shelf 7", receipt]]]}
