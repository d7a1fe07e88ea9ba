"""Options that are wrong: told by the names, types and units of Python, and of which consumer."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from conftest import asynchronous, eventually_async

from towline import Engine, PayloadError, Saga, errors

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"group": 5}, "group is 5 (int), but must be a text"),
    ({"group": None}, "group is None (NoneType), but must be a text"),
    ({"name": b"x"}, "name is b'x' (bytes), but must be a text"),
    ({"group": "\udce9"}, "(str), but must be a text that UTF-8 has bytes for"),
    ({"concurrency": "4"}, "concurrency is '4' (str), but must be a whole number"),
    ({"concurrency": 4.0}, "concurrency is 4.0 (float), but must be a whole number"),
    ({"concurrency": True}, "concurrency is True (bool), but must be a whole number"),
    ({"concurrency": 2**63}, "but must be a smaller one"),
    ({"retry": {"multiplier": "2"}}, "retry.multiplier is '2' (str), but must be a number"),
    ({"retry": {"jitter_ratio": True}}, "retry.jitter_ratio is True (bool), but must be a number"),
    ({"retry": 5}, "retry is 5 (int), but must be a dict of options"),
    ({"retry": {"kind": "fast"}}, "retry.kind is 'fast' (str), but must be one of 'fixed', 'linear'"),
    ({"retry": {"kind": "custom"}}, "exists in C++ only; give kind 'sequence'"),
    ({"retry": {"custom": print}}, "unknown option 'retry.custom'"),
    ({"retry": {"delay_mx": 5}}, "unknown option 'retry.delay_mx', did you mean 'delay_max'?"),
    ({"ordring": "key"}, "unknown option 'ordring', did you mean 'ordering'?; known are group, name,"),
    ({"retry": {"sequence": [1, "x"]}}, "retry.sequence[1] is 'x' (str), but must be seconds as a number"),
    ({"retry": {"sequence": [1, -1]}}, "retry.sequence[1] is -1 s, but must not be negative"),
    ({"retry": {"sequence": 5}}, "retry.sequence is 5 (int), but must be a list"),
    ({"handler_timeout": "5"}, "handler_timeout is '5' (str), but must be seconds as a number, or a time"),
    ({"handler_timeout": timedelta(seconds=-1)}, "handler_timeout is -1 s, but must not be negative"),
    ({"handler_timeout": 1e30}, "handler_timeout is 1e+30 s, but must be less"),
    ({"breaker": {"enabled": 1}}, "breaker.enabled is 1 (int), but must be True or False"),
    ({"breaker": {"enabled": "no"}}, "breaker.enabled is 'no' (str), but must be True or False"),
    ({"partitions": "12"}, "partitions is '12' (str), but must be a list"),
    ({"partitions": [1, "2"]}, "partitions[1] is '2' (str), but must be a whole number"),
    ({"classify": {"permanent_types": ValueError}}, "but must be a list of exception classes or their names"),
    ({"classify": {"permanent_types": "ValueError"}}, "but must be a list of exception classes"),
    ({"classify": {"transient_types": [int]}}, "classify.transient_types[0] is <class 'int'> (type), but"),
    ({"classify": {"transient_types": [ValueError()]}}, "must be an exception class or its name"),
    ({"dead_letters": {"error_types": [5]}}, "dead_letters.error_types[0] is 5 (int), but must be an exc"),
    ({"classify": {"transient_patterns": [ValueError]}}, "classify.transient_patterns[0] is <class 'ValueEr"),
]


@pytest.mark.parametrize(("options", "text"), WRONG)
def test_a_value_of_the_wrong_type_is_named_with_what_to_give(options: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidConfigError, match=re.escape(text)):
        Engine("memory:").consumer("orders", **options)(print)


def test_so_are_those_of_engines_sagas_and_keys() -> None:
    wrong: Any = "5"
    with pytest.raises(errors.InvalidConfigError, match=r"lease is '5' \(str\)"):
        Engine("memory:", lease=wrong)
    with pytest.raises(errors.InvalidConfigError, match=r"lease is -1 s, but must not be negative"):
        Engine("memory:", lease=-1)
    with pytest.raises(errors.InvalidConfigError, match=r"name is 5 \(int\)"):
        Engine("memory:", name=5)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidConfigError, match=r"concurrency is '5' \(str\)"):
        Saga("order", concurrency=wrong)
    with Engine("memory:") as engine:
        with pytest.raises(errors.InvalidConfigError, match=r"ttl is '5' \(str\)"):
            engine.once("key", print, ttl=wrong)
        with pytest.raises(errors.InvalidConfigError, match=r"type is 'ring' \(str\), but must be one of"):
            engine.declare_topic("orders", type="ring")  # type: ignore[arg-type]


class OutOfStock(Exception):
    class Forever(Exception):
        pass


class Unreadable(PayloadError):
    pass


@pytest.mark.parametrize("option", ["permanent_types", "error_types"])
@pytest.mark.parametrize("kind", [OutOfStock, OutOfStock.Forever, ConnectionError, Unreadable])
@asynchronous
async def test_errors_can_be_given_by_their_classes(url: str, kind: type[Exception], option: str) -> None:
    async def handle() -> None:
        raise kind("no")

    options: Any = {"classify" if option == "permanent_types" else "dead_letters": {option: [kind]}}
    async with Engine(url) as engine:
        await engine.consume("orders", handle, group="g", **options)
        await engine.publish("orders", b"")
        consumer_entries: list[Any] = []
        while not consumer_entries:
            consumer_entries = (await engine.dead_letters()).items
        assert consumer_entries[0].attempt == 1


@asynchronous
async def test_a_transient_error_can_be_given_by_its_class(url: str) -> None:
    runs: list[int] = []

    async def handle() -> None:
        runs.append(1)
        if len(runs) < 2:
            raise OutOfStock

    options: Any = {
        "classify": {"transient_types": [OutOfStock], "otherwise": "permanent"},
        "retry": {"initial_delay": 0.01},
    }
    async with Engine(url) as engine:
        await engine.consume("orders", handle, group="g", **options)
        await engine.publish("orders", b"")
        assert await eventually_async(lambda: len(runs) == 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retry": {"initial_delay": 0}}, "retry.initial_delay is 0, but must be more than 0 where"),
        (
            {"retry": {"initial_delay": 5, "delay_max": 0.5}},
            "retry.delay_max is 0.5 s, but must be at least retry.initial_delay, which is 5 s",
        ),
        ({"retry": {"kind": "sequence"}}, "but retry.sequence is empty"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts is 0, but must be between 1 and"),
        ({"handler_timeout": timedelta(hours=25)}, "handler_timeout is 90000 s, but must be between 0.001 s"),
        ({"dead_letters": {"age_max": 1e9}}, "dead_letters.age_max is 1000000000 s, but must be between 0 s"),
        ({"inbox_window": 0.001}, "inbox_window is 0.001 s, shorter than the redelivery horizon of"),
        ({"ordering": "key", "ack": "first"}, "ack: 'first' cannot keep order"),
        ({"group": "", "ordering": "key"}, "ordering: an ephemeral subscriber"),
    ],
)
def test_bounds_are_told_by_the_names_and_units_of_python(options: dict[str, Any], text: str) -> None:
    wanted = {"group": "g", **options}
    with Engine("memory:") as engine, pytest.raises(errors.InvalidConfigError, match=re.escape(text)) as told:
        engine.consume("orders", print, **wanted)
    assert "_ms" not in told.value.message


def test_so_are_those_of_the_engine_and_of_what_it_is_asked() -> None:
    with pytest.raises(errors.InvalidConfigError, match=r": lease is 0.001 s, but must be between 0.1 s and"):
        Engine("memory:", lease=0.001).__enter__()
    with Engine("memory:", delay_max=60) as engine:
        text = r"delay is -1 s, but must be between 0 and 60 s \(engine option delay_max\)"
        with pytest.raises(errors.InvalidDelayError, match=text):
            engine.publish("orders", b"", delay=-1)
        engine.consume("orders", print, group="g", ordering="none")
        text = "ordering is 'key' on 'orders'.* that is 'none' on 'orders'"
        with pytest.raises(errors.TopologyMismatchError, match=text):
            engine.consume("orders", print, group="g", ordering="key")
        with pytest.raises(errors.InvalidConfigError, match="ttl is 0 s, but must be between 1 s"):
            engine.once("key", print, ttl=0)
    # A URL has the names of all languages.
    with pytest.raises(errors.InvalidConfigError, match="lease_ms: 'soon' is not a number of milliseconds"):
        Engine("memory:?lease_ms=soon").__enter__()


@pytest.mark.parametrize("twin", [False, True])
@asynchronous
async def test_what_is_wrong_with_a_registered_consumer_says_of_which(twin: bool) -> None:
    engine = Engine("memory:")

    @engine.consumer("fine", group="billing")
    def fine() -> None: ...

    @engine.consumer("orders", group="billing", concurrency=5000)
    def bill() -> None: ...

    name = re.escape(bill.__qualname__)
    text = f"the consumer '{name}' of 'orders' \\(group 'billing'\\): concurrency is 5000, but"
    with pytest.raises(errors.InvalidConfigError, match=text) as told:
        if twin:
            engine.__enter__()
        else:
            await engine.open()
    assert str(told.value).count("the consumer") == 1
    with pytest.raises(errors.InvalidConfigError, match=r"'print' of \['a', 'b'\]: ordering is 'x'"):
        engine.consumer(["a", "b"], ordering="x")(print)  # type: ignore[arg-type]
    if twin:
        return
    other = Engine("memory:")
    other.consumer("not a topic", group="g")(bill)
    with pytest.raises(errors.InvalidTopicError, match="the consumer .* of 'not a topic' "):
        await other.open()
