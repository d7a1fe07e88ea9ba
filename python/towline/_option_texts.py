"""Options as the engine takes them: names and values as text. What has the wrong type is refused here, by the
names and units of Python; bounds are the engine's."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from towline import _options, errors, records
from towline._handlers import error_type_of

# Options that name errors, by their classes or as texts.
_ERROR_TYPES = ("transient_types", "permanent_types", "error_types")
# What the registering of a consumer takes under another name.
_CALLED = {("Consumer", "order"): "ordering"}
# No bound is as far away: further it would not even be a number to the engine.
_COUNT_END = 2**63
_SECONDS_END = 2**43

_WANTED = {
    "text": "a text",
    "count": "a whole number",
    "bytes": "a whole number of bytes",
    "ratio": "a number",
    "bool": "True or False",
    "ms": "seconds as a number, or a timedelta",
}


def texts_of(group: str, options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Raises `InvalidConfigError`."""
    table = _options.TABLE[group]
    texts: list[tuple[str, str]] = []
    for name, value in options.items():
        if name not in table:
            known = [_CALLED.get((group, one), one) for one in table]
            raise errors.InvalidConfigError(
                f"unknown option '{prefix}{name}'{records.meant(str(name), known)}; "
                f"known are {', '.join(known)}"
            )
        wire, kind, more = table[name]
        named, where = prefix + name, prefix + wire
        if isinstance(more, str):
            if not isinstance(value, Mapping):
                raise _wrong(named, value, "a dict of options")
            texts.extend(texts_of(more, value, f"{where}."))
        elif more is not None:
            if group == "Retry" and value == "custom":
                raise errors.InvalidConfigError(
                    f"{named} is 'custom', which is a function and exists in C++ only; give kind 'sequence' "
                    "with the waits in sequence"
                )
            texts.append((where, _choice(named, value, more)))
        elif kind in ("texts", "counts", "mses"):
            one_kind = {"texts": "text", "counts": "count", "mses": "ms"}[kind]
            texts.extend((where, text) for text in _list(name, named, value, one_kind))
        else:
            texts.append((where, _text(named, value, "text" if kind == "code" else kind)))
    return texts


def _wrong(named: str, value: Any, wanted: str) -> errors.InvalidConfigError:
    return errors.InvalidConfigError(
        f"{named} is {records.shown(value)} ({type(value).__name__}), but must be {wanted}"
    )


def _choice(named: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _wrong(named, value, f"one of {', '.join(map(repr, choices))}")
    return value


def _list(name: str, named: str, values: Any, kind: str) -> list[str]:
    if name in _ERROR_TYPES:
        wanted = "a list of exception classes or their names, such as [ValueError]"
    else:
        wanted = f"a list, each entry {_WANTED[kind]}"
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise _wrong(named, values, wanted)
    texts = []
    for i, value in enumerate(values):
        if name in _ERROR_TYPES:
            if isinstance(value, type) and issubclass(value, BaseException):
                value = error_type_of(value)
            elif not isinstance(value, str):
                raise _wrong(f"{named}[{i}]", value, "an exception class or its name")
        texts.append(_text(f"{named}[{i}]", value, kind))
    return texts


def _text(named: str, value: Any, kind: str) -> str:
    if kind == "text" and isinstance(value, str):
        return _utf8(named, value)
    if kind == "bool" and isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bool):
        raise _wrong(named, value, _WANTED[kind])
    if kind == "ms" and isinstance(value, (int, float, timedelta)):
        return _milliseconds(named, value)
    if kind == "ratio" and isinstance(value, (int, float)):
        return str(value)
    if kind in ("count", "bytes") and hasattr(value, "__index__"):
        if not abs(count := operator.index(value)) < _COUNT_END:
            raise _wrong(named, value, "a smaller one")
        return str(count)
    raise _wrong(named, value, _WANTED[kind])


def _utf8(named: str, text: str) -> str:
    if not records.is_utf8(text):
        raise _wrong(named, text, "a text that UTF-8 has bytes for")
    return text


def _milliseconds(named: str, span: float | timedelta) -> str:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if not math.isfinite(seconds):
        raise _wrong(named, span, _WANTED["ms"])
    if not 0 <= seconds < _SECONDS_END:
        raise errors.InvalidConfigError(
            f"{named} is {seconds:g} s, but must {'not be negative' if seconds < 0 else 'be less'}"
        )
    return f"{seconds * 1000:.3f}"
