"""The surface of the package: what is there is said alike in the stub, in the twins and in the docs."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import towline
import towline.pytest_plugin
import towline.testing
from towline import _core

STUB = Path(_core.__file__ or "").with_name("_core.pyi")


def test_the_stub_names_what_the_native_half_has_and_nothing_else() -> None:
    in_stub: dict[str, type] = {
        one.name: ast.ClassDef if isinstance(one, ast.ClassDef) else ast.FunctionDef
        for one in ast.parse(STUB.read_text()).body
        if isinstance(one, (ast.ClassDef, ast.FunctionDef))
    }
    in_module: dict[str, type] = {
        name: ast.ClassDef if inspect.isclass(one) else ast.FunctionDef
        for name, one in vars(_core).items()
        if not name.startswith("__")
    }
    assert in_stub == in_module and len(in_stub) > 10


# ---- documentation --------------------------------------------------------------------------------------


def members(kind: type) -> dict[str, object]:
    """What a class itself gives its users to call or to read: no fields, whose class explains them."""
    return {
        name: one
        for name, one in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(one) or isinstance(one, property))
    }


MODULES = [towline, towline.testing, towline.pytest_plugin]
CLASSES = [
    one
    for module in MODULES
    for name in getattr(module, "__all__", dir(module))
    if inspect.isclass(one := getattr(module, name)) and one.__module__.startswith("towline")
]


@pytest.mark.parametrize("kind", dict.fromkeys(CLASSES), ids=lambda kind: str(kind.__name__))
def test_every_class_and_method_says_what_it_is_for(kind: type) -> None:
    # What makes data classes gives them their signature.
    said = vars(kind).get("__doc__") or ""
    assert said and not said.startswith(f"{kind.__name__}(")
    silent = [name for name, one in members(kind).items() if not doc_of(one)]
    assert silent == []


def doc_of(one: object) -> str | None:
    """Its own, not one that it inherits."""
    return getattr(one.fget, "__doc__", None) if isinstance(one, property) else one.__doc__


def test_nothing_public_is_left_out() -> None:
    assert len(set(CLASSES)) >= len(towline.__all__)
    assert set(towline.__all__) == {
        name for name, one in vars(towline).items() if inspect.isclass(one) and not name.startswith("_")
    }
    for function in (towline.testing.in_memory, towline.testing.open_sync):
        assert function.__doc__


# ---- the twins ------------------------------------------------------------------------------------------

TWINS: list[tuple[type, type]] = [
    (towline.Engine, towline.SyncEngine),
    (towline.Consumer, towline.SyncConsumer),
    (towline.Subscription, towline.SyncSubscription),
    (towline.EventStore, towline.SyncEventStore),
    (towline.EventSubscription, towline.SyncEventSubscription),
    (towline.Conversations, towline.SyncConversations),
    (towline.ConversationFeed, towline.SyncConversationFeed),
    (towline.Sagas, towline.SyncSagas),
    (towline.SagaRunner, towline.SyncSagaRunner),
]
# Of an engine that is not open yet, which either twin may become; and what is said twice in the other.
OF_ASYNCIO_ONLY = {
    towline.Engine: {"consumer", "event_handler", "open", "saga"},
    towline.Subscription: {"aclose"},
}


def public(kind: type) -> dict[str, object]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


def parameters(function: object) -> list[tuple[str, object, object]]:
    """Names, kinds and defaults."""
    assert callable(function)
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("kind", "twin"), TWINS, ids=[one.__name__ for one, _ in TWINS])
def test_the_twin_has_the_same_names_and_parameters(kind: type, twin: type) -> None:
    names = public(kind).keys() - OF_ASYNCIO_ONLY.get(kind, set())
    assert names == public(twin).keys()
    for name in names:
        one, other = getattr(kind, name), getattr(twin, name)
        assert isinstance(one, property) == isinstance(other, property), name
        if not isinstance(one, property):
            assert parameters(one) == parameters(other), name
            assert not inspect.iscoroutinefunction(other), name


def test_every_class_of_asyncio_has_a_twin() -> None:
    waiting = {
        kind
        for kind in CLASSES
        if any(inspect.iscoroutinefunction(one) for one in members(kind).values())
    }
    # These two are for both; the clock has `settle_down` of either engine.
    assert waiting - {kind for kind, _ in TWINS} == {towline.Limiter, towline.testing.VirtualClock}
