"""A shop over HTTP with FastAPI: orders are taken at once and billed in the background, in this process.

    pip install fastapi uvicorn
    uvicorn fastapi_shop:app

What a client repeats with the same Idempotency-Key is one order. An order that cannot be billed is a dead
letter, which an operator lists and sends back. SIGTERM: no new requests, running handlers finish, and it
ends.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from towline import Engine, Message, Reject, TowlineError

engine = Engine(os.environ.get("STORE", "sqlite:shop.db"))
billed: dict[str, int] = {}


class Order(BaseModel):
    customer: str
    amount: int


@engine.consumer("orders", group="billing", concurrency=8, retry={"max_attempts": 3, "initial_delay": 0.05})
async def bill(order: Order, message: Message) -> None:
    if order.amount <= 0:
        raise Reject("the amount must be more than 0")
    billed[message.id] = order.amount


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine:  # its consumers run from here on; leaving it drains and closes
        yield
    print("closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def take(
    order: Order, response: Response, idempotency_key: Annotated[str, Header()] = ""
) -> dict[str, str]:
    receipt = await engine.publish("orders", order, key=order.customer, dedup_id=idempotency_key)
    if receipt.duplicate:
        response.status_code = 200
    return {"id": receipt.id}


@app.get("/orders/{order_id}")
async def look(order_id: str) -> dict[str, Any]:
    if order_id in billed:
        return {"state": "billed", "amount": billed[order_id]}
    return {"state": "waiting"}


@app.get("/dead-letters")
async def dead_letters() -> list[dict[str, Any]]:
    page = await engine.dead_letters(status="pending")
    return [{"id": one.id, "error": one.error_message, "order": one.payload.decode()} for one in page.items]


@app.post("/dead-letters/{entry_id}/redrive", status_code=202)
async def redrive(entry_id: str, order: Order) -> None:
    await engine.redrive(entry_id, payload=order)


@app.get("/health")
async def health(response: Response) -> dict[str, Any]:
    state = await engine.health()
    response.status_code = 200 if state.ok else 503
    return {"ok": state.ok, "detail": state.detail}


@app.exception_handler(TowlineError)
async def refuse(_: Request, error: TowlineError) -> JSONResponse:
    known = {"ERR_INVALID_ID": 400, "ERR_INVALID_KEY": 400, "ERR_NOT_FOUND": 404, "ERR_CONFLICT": 409}
    return JSONResponse({"code": error.code}, known.get(error.code, 503 if error.retryable else 500))
