"""What the engine says of options, by the names and units that they have here."""

from __future__ import annotations

import re

from towline import _options

# Their options are given by themselves; those of other groups are in a dict of the group's name.
_BY_THEMSELVES = ("Engine", "Consumer", "Topic", "EventSubscription", "SagaStep", "Saga", "Idempotency")
_ORDERINGS = {"unordered": "none", "key_ordered": "key", "partition_ordered": "partition"}


def _names() -> dict[str, str]:
    names = {"engine option delay_ms_max": "engine option delay_max"}
    for group, table in _options.TABLE.items():
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", group).lower()
        for name, (wire, *_) in table.items():
            here = name if group in _BY_THEMSELVES else f"{prefix}.{name}"
            names[f"{prefix}.{wire}"] = here
    return {**names, "consumer.order": "ordering", "retention_ms of topic": "retention of topic"}


_NAMES = _names()
# A value in quotes is somebody's own.
_OPTION = re.compile("|".join(rf"(?<![\w.']){re.escape(name)}\b" for name in sorted(_NAMES, reverse=True)))
_SPAN = re.compile(r"(?<![\w.'])(-?\d+(?:\.\d+)?) (ms|us)\b")
_ORDERING = re.compile(r"(?<!['\w])(unordered|key_ordered|partition_ordered)(?!['\w])")


def in_python(message: str) -> str:
    """The message of an error about options or times."""
    if "consumer.order" in message:
        message = _ORDERING.sub(lambda found: repr(_ORDERINGS[found[0]]), message)
    message = message.replace("consumer.ack: kFirst", "ack: 'first'")
    message = _OPTION.sub(lambda found: _NAMES[found[0]], message)
    return _SPAN.sub(_seconds, message)


def _seconds(found: re.Match[str]) -> str:
    return f"{float(found[1]) / (1000 if found[2] == 'ms' else 1_000_000):.12g} s"
