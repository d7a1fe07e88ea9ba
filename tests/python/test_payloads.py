"""What a payload can be written from, and read as."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Generic, Literal, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest
from conftest import asynchronous, eventually_async

from towline import Engine, PayloadError, _payload


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Word(str, Enum):
    YES = "yes"


class Item(TypedDict):
    name: str
    at: datetime
    note: NotRequired[str]


OrderId = NewType("OrderId", UUID)
T = TypeVar("T")


@dataclass
class Order:
    id: UUID
    at: datetime
    on: date
    begin: time
    took: timedelta
    total: Decimal
    color: Color
    level: Level
    until: datetime | None
    colors: list[Color]
    days: dict[str, date | None]
    item: Item
    pair: tuple[int, str]
    of: OrderId
    parent: Order | None = None


@dataclass
class Locked:
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Closed:
    lock: threading.Lock


class Plain:
    pass


class Box(Generic[T]):
    pass


ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def order(parent: Order | None = None) -> Order:
    return Order(
        id=ID,
        at=AT,
        on=date(2026, 1, 2),
        begin=time(8, 30),
        took=timedelta(seconds=1.5),
        total=Decimal("12.10"),
        color=Color.RED,
        level=Level.LOW,
        until=None,
        colors=[Color.BLUE, Color.RED],
        days={"a": date(2026, 1, 3), "b": None},
        item={"name": "x", "at": AT},
        pair=(1, "x"),
        of=OrderId(ID),
        parent=parent,
    )


def read(value: Any, kind: Any) -> Any:
    return _payload.decode(*_payload.encode(value), kind)


@asynchronous
async def test_a_dataclass_comes_as_it_was_published(url: str) -> None:
    got: list[Order] = []

    async def handle(one: Order) -> None:
        got.append(one)

    async with Engine(url) as engine:
        await engine.consume("a", handle, group="g")
        await engine.publish("a", order(order()))
        assert await eventually_async(lambda: bool(got))
        assert not (await engine.dead_letters()).items
    assert got == [order(order())]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (AT, datetime),
        (AT.date(), date),
        (time(1, 2), time),
        (timedelta(days=-1), timedelta),
        (ID, UUID),
        (ID, OrderId),
        (Decimal("0.10"), Decimal),
        (Color.RED, Color),
        (Level.LOW, Level),
        (Word.YES, Word),
        ("yes", str | None),
        (None, datetime | None),
        (AT, datetime | None),
        ({1: AT}, dict[int, datetime]),
        ([AT], list[datetime]),
        ([1, 2], Sequence[int]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({"a": 1}, Mapping[str, int]),
        ({"name": "x", "at": AT, "more": 1}, Item),
        ("a", Literal["a", "b"]),
    ],
)
def test_a_value_comes_as_it_was_published(value: Any, kind: Any) -> None:
    assert _payload.unreadable(kind) is None
    again = read(value, kind)
    assert again == value and type(again) is type(value)


def test_a_time_may_be_written_as_others_write_it() -> None:
    assert _payload.decode(b'"2026-01-02T03:04:05.000678Z"', _payload.JSON, datetime) == AT
    assert _payload.decode(b"2026-01-02T03:04:05.000678+00:00", _payload.TEXT, datetime) == AT
    assert _payload.decode(b"12.5", _payload.JSON, Decimal) == Decimal("12.5")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("soon", datetime, "the payload is 'soon', which is no datetime"),
        (5, datetime, "the payload is a int, not datetime"),
        ({"on": True}, dict[str, Decimal], "the payload.on is a bool, not Decimal"),
        ("green", Color, "'green', not one of 'red', 'blue'"),
        ({"name": "x"}, Item, "the payload has no 'at', which Item needs"),
        ({"name": 5, "at": AT}, Item, "the payload.name is a int, not str"),
        ({"x": AT}, dict[int, datetime], "has the name 'x', which is no int"),
        ([1], tuple[int, str], "has 1 entries, not 2"),
        ("1/0", Decimal, "which is no Decimal"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, kind: Any, text: str) -> None:
    with pytest.raises(PayloadError, match=text.replace("(", r"\(")):
        read(value, kind)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (Plain, "Plain"),
        (Plain | None, "Plain"),
        (list[Plain], "Plain"),
        (dict[str, Plain], "Plain"),
        (Closed, "lock"),
        (list[Closed], "lock"),
        (Box[int], "Box"),
        (bytearray, "bytearray"),
        (list[bytes], "bytes"),
        (datetime | Plain, None),
        (Locked, None),
        (Order, None),
        (object, None),
        (bytes, None),
        (Any, None),
    ],
)
def test_what_can_never_be_read_is_refused_where_the_handler_is_registered(
    kind: Any, part: str | None
) -> None:
    engine = Engine("memory:")

    def handle(order: Any) -> None:
        pass

    handle.__annotations__["order"] = kind
    if part is None:
        engine.consumer("a")(handle)
        return
    with pytest.raises(TypeError, match=f"handle': its parameter 'order' is annotated as .*{part}"):
        engine.consumer("a")(handle)
    handle.__annotations__["order"] = list[kind]
    with pytest.raises(TypeError, match="its parameter 'order'"):
        engine.consumer("a", batch=True)(handle)
