"""Payloads: from what a user publishes to bytes, and from bytes to what a handler asks for.

bytes stay bytes, str is UTF-8, everything else is JSON. Models of pydantic and msgspec are known by their
modules when these are loaded already; neither is imported here.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
import typing
from typing import Any

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = ""  # nothing is known of them; not stored either


class PayloadError(ValueError):
    """The payload cannot be read as the handler's type, or a value cannot be written: never retried."""


def _model(kind: Any, module: str, name: str) -> bool:
    """Whether `kind` is a subclass of `module.name`, which must be loaded for that."""
    loaded = sys.modules.get(module)
    return loaded is not None and inspect.isclass(kind) and issubclass(kind, getattr(loaded, name))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if _model(type(value), "pydantic", "BaseModel"):
        return value.model_dump(mode="json")
    if _model(type(value), "msgspec", "Struct"):
        return sys.modules["msgspec"].to_builtins(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def encode(value: Any) -> tuple[bytes, str]:
    """The bytes of a value, and their content type."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES
    if isinstance(value, str):
        return value.encode(), TEXT
    if _model(type(value), "pydantic", "BaseModel"):
        return value.model_dump_json().encode(), JSON
    try:
        return json.dumps(value, default=_plain, separators=(",", ":"), allow_nan=False).encode(), JSON
    except (TypeError, ValueError) as error:
        raise PayloadError(
            f"the payload cannot be written: {error}; give bytes, or what JSON knows"
        ) from error


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gave it, as a `kind`."""
    origin = typing.get_origin(kind)
    if kind is Any or kind is inspect.Parameter.empty:
        return value
    if kind is None or kind is type(None):
        if value is not None:
            raise PayloadError(f"{where} is not null")
        return None
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(kind):
            try:
                return _build(choice, value, where)
            except PayloadError:
                continue
        raise PayloadError(f"{where} is none of {kind}")
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise PayloadError(f"{where} is {value!r}, not one of {typing.get_args(kind)}")
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if _model(kind, "pydantic", "BaseModel"):
        return kind.model_validate(value)
    if _model(kind, "msgspec", "Struct"):
        return sys.modules["msgspec"].convert(value, kind)
    if origin in (list, tuple, set, frozenset) or kind in (list, tuple, set, frozenset):
        base = origin or kind
        if not isinstance(value, list):
            raise PayloadError(f"{where} is no list")
        inner = typing.get_args(kind)
        of = inner[0] if inner else Any
        return base(_build(of, one, f"{where}[{i}]") for i, one in enumerate(value))
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise PayloadError(f"{where} is no object")
        inner = typing.get_args(kind)
        of = inner[1] if len(inner) == 2 else Any
        return {name: _build(of, one, f"{where}.{name}") for name, one in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if inspect.isclass(kind) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise PayloadError(f"{where} is a {type(value).__name__}, not {getattr(kind, '__name__', kind)}")


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise PayloadError(f"{where} is no object, so it is no {kind.__name__}")
    hints = typing.get_type_hints(kind)
    fields = {}
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        if field.name in value:
            fields[field.name] = _build(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PayloadError(f"{where} has no '{field.name}', which {kind.__name__} needs")
    return kind(**fields)


def decode(payload: bytes, content_type: str, kind: Any) -> Any:
    """`payload` as a `kind`; without one by its content type: JSON, text, else bytes."""
    if kind is inspect.Parameter.empty or kind is Any:
        if content_type.startswith(JSON):
            kind = Any
        elif content_type.startswith("text/"):
            kind = str
        else:
            return payload
    if kind is bytes:
        return payload
    try:
        if kind is str:
            return payload.decode()
        if _model(kind, "pydantic", "BaseModel"):
            return kind.model_validate_json(payload)
        if _model(kind, "msgspec", "Struct"):
            return sys.modules["msgspec"].json.decode(payload, type=kind)
        return _build(kind, json.loads(payload), "the payload")
    except PayloadError:
        raise
    except Exception as error:
        # Whatever a codec or a model raises: the bytes will not be other ones next time.
        name = getattr(kind, "__name__", str(kind))
        raise PayloadError(f"the payload is no {name}: {error}") from error


# ---- what sagas keep ----------------------------------------------------------------------------------
# Their contexts and outputs have no content type: bytes are as they are, everything else is JSON.


def pack(value: Any) -> bytes:
    """The bytes of a saga's context or output. None is nothing."""
    if value is None:
        return b""
    return json.dumps(value).encode() if isinstance(value, str) else encode(value)[0]


def unpack(data: bytes | None, kind: Any = Any) -> Any:
    """The value again: nothing is None, JSON what it says, anything else bytes; or a `kind`."""
    if data is None or kind is bytes:
        return data
    if kind is Any:
        try:
            return json.loads(data.decode()) if data else None
        except (ValueError, RecursionError):
            return data
    if kind is str:
        value = unpack(data)
        if isinstance(value, str):
            return value
    return decode(data, JSON, kind)
