"""Payloads: from what a user publishes to bytes, and from bytes to what a handler asks for.

bytes stay bytes, str is UTF-8, everything else is JSON. Models of pydantic and msgspec are known by their
modules when these are loaded already; neither is imported here.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = ""  # nothing is known of them; not stored either

# What stands for a list, or an object, in an annotation, and what is made of it.
_LISTS: dict[Any, Any] = {
    **{kind: kind for kind in (list, tuple, set, frozenset)},
    **dict.fromkeys((collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable), list),
}
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
# What JSON gives as it is wanted.
_AS_THEY_ARE = frozenset((str, int, float, bool))
_JSON_TYPES = (dict, list, str, int, float, bool, type(None))


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
        return value.model_dump(mode="json", by_alias=True)  # by the names that it is read by
    if _model(type(value), "msgspec", "Struct"):
        return sys.modules["msgspec"].to_builtins(value)
    if isinstance(value, (date, time)):  # a datetime is a date, too
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def encode(value: Any) -> tuple[bytes, str]:
    """The bytes of a value, and their content type."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES
    try:
        if isinstance(value, str):
            return value.encode(), TEXT
        if _model(type(value), "pydantic", "BaseModel"):
            return value.model_dump_json(by_alias=True).encode(), JSON
        return json.dumps(value, default=_plain, separators=(",", ":"), allow_nan=False).encode(), JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"the payload cannot be written: {error}; give bytes, or what JSON knows"
        ) from error


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value))


def _seconds(value: Any) -> timedelta:
    return timedelta(seconds=value)


# What is written as a text, or as a number: what JSON may give for it, and what makes it of that.
_SCALARS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    datetime: ((str,), datetime.fromisoformat),
    date: ((str,), date.fromisoformat),
    time: ((str,), time.fromisoformat),
    timedelta: ((int, float), _seconds),
    UUID: ((str,), UUID),
    Decimal: ((str, int, float), _decimal),
}


def _plain_kind(kind: Any) -> Any:
    """What a NewType or a `type` alias stands for."""
    while not isinstance(kind, type):
        inner = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
        if inner is None:
            break
        kind = inner
    return kind


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gave it, as a `kind`."""
    if type(value) is kind and kind in _AS_THEY_ARE:  # most of all
        return value
    if kind is Any or kind is object or kind is inspect.Parameter.empty:
        return value
    if kind is None or kind is type(None):
        if value is not None:
            raise PayloadError(f"{where} is not null")
        return None
    kind = _plain_kind(kind)
    origin = typing.get_origin(kind) or kind
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
    if typing.is_typeddict(kind):
        return _build_typed_dict(kind, value, where)
    if _model(kind, "pydantic", "BaseModel") or _model(kind, "msgspec", "Struct"):
        return _build_model(kind, value, where)
    if origin in _LISTS:
        return _build_list(_LISTS[origin], typing.get_args(kind), value, where)
    if origin in _OBJECTS:
        return _build_object(typing.get_args(kind), value, where)
    return _build_scalar(kind, value, where)


def _build_model(kind: Any, value: Any, where: str) -> Any:
    try:
        if _model(kind, "msgspec", "Struct"):
            return sys.modules["msgspec"].convert(value, kind, str_keys=True)
        # From JSON, since a strict model takes a time that is a text from nothing else.
        return kind.model_validate_json(json.dumps(value))
    except Exception as error:  # whatever it raises: it does not fit
        raise PayloadError(f"{where} is no {kind.__name__}: {error}") from error


def _build_list(base: Any, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise PayloadError(f"{where} is no list")
    if base is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise PayloadError(f"{where} has {len(value)} entries, not {len(inner)}")
        each = enumerate(zip(inner, value, strict=True))
        return tuple(_build(of, one, f"{where}[{i}]") for i, (of, one) in each)
    of = inner[0] if inner else Any
    return base(_build(of, one, f"{where}[{i}]") for i, one in enumerate(value))


def _build_object(inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise PayloadError(f"{where} is no object")
    key, of = inner if len(inner) == 2 else (Any, Any)
    if key is str or key is Any:
        return {name: _build(of, one, f"{where}.{name}") for name, one in value.items()}
    return {_build_key(key, name, where): _build(of, one, f"{where}.{name}") for name, one in value.items()}


def _build_key(kind: Any, name: str, where: str) -> Any:
    """The names in objects are texts, also where they were written as numbers."""
    if kind in (int, float):
        try:
            return kind(name)
        except ValueError:
            raise PayloadError(f"{where} has the name '{name}', which is no {kind.__name__}") from None
    return _build(kind, name, f"a name in {where}")


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in _SCALARS:
        given, make = _SCALARS[kind]
        if isinstance(value, given) and not isinstance(value, bool):
            try:
                return make(value)
            except (ValueError, ArithmeticError):
                raise PayloadError(f"{where} is {value!r}, which is no {kind.__name__}") from None
    elif inspect.isclass(kind) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(repr(one.value) for one in kind)
            raise PayloadError(f"{where} is {value!r}, not one of {known}") from None
    elif inspect.isclass(kind) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
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


def _typed_dict_fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """By name: what it is, and whether it must be there."""
    hints, marked = typing.get_type_hints(kind), typing.get_type_hints(kind, include_extras=True)
    fields = {}
    for name, hint in hints.items():
        # As texts, by `from __future__ import annotations`, the class has not understood these marks.
        mark = typing.get_origin(marked[name])
        is_required = name in kind.__required_keys__ and mark is not typing.NotRequired
        fields[name] = (hint, is_required or mark is typing.Required)
    return fields


def _build_typed_dict(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise PayloadError(f"{where} is no object, so it is no {kind.__name__}")
    built = dict(value)
    for name, (hint, is_required) in _typed_dict_fields(kind).items():
        if name in value:
            built[name] = _build(hint, value[name], f"{where}.{name}")
        elif is_required:
            raise PayloadError(f"{where} has no '{name}', which {kind.__name__} needs")
    return built


# ---- what can be read at all --------------------------------------------------------------------------


def unreadable(kind: Any, known: tuple[Any, ...] = ()) -> Any:
    """The part of an annotation that no JSON can be read as; None: all can be. `known`: it is a part of
    these."""
    if kind is Any or kind is inspect.Parameter.empty or kind is None or kind in known:
        return None
    kind = _plain_kind(kind)
    origin = typing.get_origin(kind) or kind
    inner = typing.get_args(kind)
    known = (*known, kind)
    if origin in (typing.Union, types.UnionType):
        bad = [unreadable(choice, known) for choice in inner if choice is not type(None)]
        return None if None in bad else next(iter(bad), None)
    if origin is typing.Literal:
        return None
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return _unreadable_field(kind, known)
    if _model(kind, "pydantic", "BaseModel") or _model(kind, "msgspec", "Struct"):
        return None
    if origin in _LISTS or origin in _OBJECTS:
        bad = [unreadable(of, known) for of in inner if of is not Ellipsis]
        return next((one for one in bad if one is not None), None)
    return None if kind in _SCALARS or _is_of_json(kind) else kind


def _unreadable_field(kind: Any, known: tuple[Any, ...]) -> Any:
    try:
        if typing.is_typeddict(kind):
            needed = [hint for hint, is_required in _typed_dict_fields(kind).values() if is_required]
        else:
            hints = typing.get_type_hints(kind)
            needed = [
                hints[field.name]
                for field in dataclasses.fields(kind)
                if field.init
                and field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ]
    except NameError:  # of a class that may come later in its module
        return None
    bad = [unreadable(hint, known) for hint in needed]
    return next((one for one in bad if one is not None), None)


def _is_of_json(kind: Any) -> bool:
    if not inspect.isclass(kind):
        return False
    try:
        return issubclass(kind, enum.Enum) or any(issubclass(one, kind) for one in _JSON_TYPES)
    except TypeError:  # a protocol, which cannot be asked
        return False


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
        if content_type.startswith("text/"):
            return _build_of_text(kind, payload)
        return _build(kind, json.loads(payload), "the payload")
    except PayloadError:
        raise
    except Exception as error:
        # Whatever a codec or a model raises: the bytes will not be other ones next time.
        name = getattr(kind, "__name__", str(kind))
        raise PayloadError(f"the payload is no {name}: {error}") from error


def _build_of_text(kind: Any, payload: bytes) -> Any:
    """A text may hold JSON, or be the value itself: an enum's, a date, or a `str | None`."""
    try:
        value = json.loads(payload)
    except ValueError:
        return _build(kind, payload.decode(), "the payload")
    try:
        return _build(kind, value, "the payload")
    except PayloadError as error:
        try:
            return _build(kind, payload.decode(), "the payload")
        except PayloadError:
            raise error from None


# ---- results that are kept under a key ----------------------------------------------------------------


def result_kind(function: Callable[..., Any]) -> Any:
    """What its annotation says that it returns; Any where it says nothing that could be read."""
    while isinstance(function, functools.partial):
        function = function.func
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)
    try:
        kind = typing.get_type_hints(called).get("return", Any)
    except (NameError, TypeError):
        return Any
    return Any if kind is bytes or unreadable(kind) is not None else kind


def read_result(key: str, data: bytes, content_type: str, kind: Any) -> Any:
    if content_type == BYTES:
        return data
    try:
        if content_type == JSON and kind is not str:  # which would be the JSON as it is
            return decode(data, content_type, kind)
        return _build(kind, decode(data, content_type, Any), "it")
    except PayloadError as error:
        raise PayloadError(f"the result that is kept of the key {key!r} cannot be read: {error}") from error


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
