"""Payloads that are models of pydantic and of msgspec: written, read, nested, and refused when they do not
fit."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from conftest import asynchronous

from towline import Engine, _payload

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class Line(pydantic.BaseModel):
    name: str
    count: int = 1


class Bill(pydantic.BaseModel):
    id: UUID
    at: datetime
    total: Decimal
    lines: list[Line]
    by_level: dict[int, str] = {}


class Aliased(pydantic.BaseModel):
    id: int = pydantic.Field(alias="billId")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    at: datetime


class Row(msgspec.Struct):
    name: str
    count: int = 1


class Slip(msgspec.Struct):
    id: UUID
    at: datetime
    total: Decimal
    lines: list[Row]
    by_level: dict[int, str] = {}


class Renamed(msgspec.Struct, rename="camel"):
    bill_id: int


MODELS: list[Any] = [
    Bill(id=ID, at=AT, total=Decimal("9.90"), lines=[Line(name="book")], by_level={1: "one"}),
    Aliased(billId=5),
    Strict(at=AT),
    Slip(id=ID, at=AT, total=Decimal("9.90"), lines=[Row("book")], by_level={1: "one"}),
    Renamed(5),
]
BY_NAME = {type(one).__name__: one for one in MODELS}


@dataclasses.dataclass
class HoldsBill:
    of: Bill
    all: list[Bill]
    other: Bill | None = None


@dataclasses.dataclass
class HoldsAliased:
    of: Aliased
    all: list[Aliased]
    other: Aliased | None = None


@dataclasses.dataclass
class HoldsStrict:
    of: Strict
    all: list[Strict]
    other: Strict | None = None


@dataclasses.dataclass
class HoldsSlip:
    of: Slip
    all: list[Slip]
    other: Slip | None = None


@dataclasses.dataclass
class HoldsRenamed:
    of: Renamed
    all: list[Renamed]
    other: Renamed | None = None


HOLDERS: dict[str, Any] = {
    "Bill": HoldsBill,
    "Aliased": HoldsAliased,
    "Strict": HoldsStrict,
    "Slip": HoldsSlip,
    "Renamed": HoldsRenamed,
}


async def handled(url: str, payload: Any, kind: Any) -> tuple[list[Any], list[Any]]:
    """What a handler of a `kind` got, and the dead letters."""
    got: list[Any] = []

    async def handle(one: Any) -> None:
        got.append(one)

    handle.__annotations__["one"] = kind
    async with Engine(url) as engine:
        await engine.consume("bills", handle, group="g")
        await engine.publish("bills", payload)
        await engine.settle_down()
        return got, (await engine.dead_letters()).items


@pytest.mark.parametrize("name", BY_NAME)
@asynchronous
async def test_a_model_comes_as_it_was_published(url: str, name: str) -> None:
    model = BY_NAME[name]
    assert await handled(url, model, type(model)) == ([model], [])


@pytest.mark.parametrize("name", BY_NAME)
@asynchronous
async def test_so_it_does_inside_a_dataclass(url: str, name: str) -> None:
    model = BY_NAME[name]
    held = HOLDERS[name](model, [model, model])
    assert await handled(url, held, HOLDERS[name]) == ([held], [])
    held = HOLDERS[name](model, [], model)
    assert await handled(url, held, HOLDERS[name]) == ([held], [])


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("name", BY_NAME)
@asynchronous
async def test_what_does_not_fit_a_model_is_a_dead_letter_at_once(url: str, name: str, is_held: bool) -> None:
    kind: Any = HOLDERS[name] if is_held else type(BY_NAME[name])
    wrong: Any = {"id": "x", "at": "soon"}
    got, entries = await handled(url, {"of": wrong, "all": []} if is_held else wrong, kind)
    assert got == []
    (entry,) = entries
    assert (entry.error_type, entry.reason, entry.attempt) == ("PayloadError", "permanent", 1)
    assert type(BY_NAME[name]).__name__ in entry.error_message


UNIONS: list[tuple[Any, Any]] = [
    (None, Bill | None),
    (None, Slip | None),
    (Line(name="book"), Aliased | Line),
    (Row("book"), Renamed | Row),
    (Row("book"), Bill | Row),
    ({"any": 1}, Line | Row | dict[str, int]),
]


@pytest.mark.parametrize(("value", "kind"), UNIONS, ids=range(len(UNIONS)))
def test_of_several_kinds_the_first_that_fits_is_taken(value: Any, kind: Any) -> None:
    assert _payload.decode(*_payload.encode(value), kind) == value
