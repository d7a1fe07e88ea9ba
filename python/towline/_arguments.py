"""Arguments of the wrong type, told by name. The native half refuses them, with a text about itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from towline import errors, records

C = TypeVar("C", bound=type)

# Annotations, as they stand in the source, and what they mean.
_KINDS = {"str": str, "str | None": str, "int": int, "int | None": int}
# They are called most, and look at their arguments themselves.
_OTHERS = ("publish", "publish_batch")


def names_arguments(cls: C) -> C:
    """Decorates a class: when a public method raises TypeError, and one of its arguments is no `str` or `int`
    where it must be one, the error becomes an InvalidArgumentError that names it."""
    for name, method in list(vars(cls).items()):
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        # The class that people know is the one that these calls are of.
        method.__qualname__ = method.__qualname__.replace("Calls.", "Engine.")
        if name in _OTHERS:
            continue
        if any(kind in _KINDS for kind in method.__annotations__.values()):
            setattr(cls, name, _naming(method))
    return cls


def _naming(method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await method(*args, **kwargs)
            except TypeError as error:
                raise _named(method, args, kwargs, error) from None

        return awaited

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TypeError as error:
            raise _named(method, args, kwargs, error) from None

    return called


def _named(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> Exception:
    try:
        given = inspect.signature(method).bind(*args, **kwargs).arguments
    except TypeError:  # it does not take them at all, and says so
        return error
    for name, value in given.items():
        annotation = method.__annotations__.get(name)
        kind = _KINDS.get(annotation or "")
        if kind is None or (value is None and annotation != kind.__name__):
            continue
        if isinstance(value, str) and kind is str and not records.is_utf8(value):
            return errors.InvalidArgumentError(f"{name} is {value!r}, which UTF-8 has no bytes for")
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "a str" if kind is str else "a whole number"
            return errors.InvalidArgumentError(f"{name} is {records.shown(value)}, but must be {wanted}")
    return error
