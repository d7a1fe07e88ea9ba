"""A worker of the demo in Python; ../worker.cpp and worker.mjs are the same in their languages, and the
README of the demo says what all of them do.

For every delivery: the start is written to the ledger, the handler works for a moment, then it books the
order in one transaction with the acknowledgement, and only after that transaction has committed the effect is
written to the ledger. Orders that have a saga start it before they are booked.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import time

from towline import Engine, Message, Reject, Saga, SagaCall, Transaction, errors

INSERT_EFFECT = (
    "INSERT INTO effects"
    " (order_number, order_id, customer, total_cents, attempt, payload_hash, worker, at_us)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class PaymentConnectionLost(Exception):
    """The failure that the plan asks for."""


class StoreUnavailable(Exception):
    """A transaction that failed and was not to."""


class ServiceUnavailable(Exception):
    """The failure of a step that the plan asks for."""


def wall_us() -> int:
    return time.time_ns() // 1000


def hash_of(payload: bytes) -> int:
    """FNV-1a, as the signed 64 bits that SQLite stores."""
    state = 14695981039346656037
    for byte in payload:
        state = (state ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
    return state - (1 << 64) if state >> 63 else state


class World:
    """What the steps of sagas change: a folder with a file for each effect, named after its key."""

    def __init__(self, folder: str, worker: str) -> None:
        self.folder, self.worker = folder, worker
        self.drafts = itertools.count()

    def take_effect(self, number: int, part: str, key: str, at_us: int) -> bool:
        """All of it or nothing, also if the process dies here. False: it was done under this key before."""
        draft = f"{self.folder}/.{self.worker}-{next(self.drafts)}"
        effect = {"order": number, "part": part, "key": key, "worker": self.worker, "at_us": at_us}
        with open(draft, "w") as out:
            json.dump(effect, out)
        try:
            os.link(draft, f"{self.folder}/{key.replace('/', '~')}")
            return True
        except FileExistsError:
            return False
        finally:
            os.unlink(draft)


class Worker:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.world = World(options.world, options.name)
        self.saga = Saga("order", concurrency=options.concurrency)
        # The death of a process counts as an attempt, and processes are killed here.
        retry = {"max_attempts": 20, "initial_delay": options.retry_ms / 1000}
        for step in ("reserve", "charge", "ship"):
            self.saga.step(step, self.run_step, self.run_step, retry=retry, compensation_retry=retry)
        # A file of its own for each life of a process: nobody writes behind half a line.
        self.ledger = os.open(options.ledger, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def note(self, what: str, number: int, given: Message | SagaCall, **more: object) -> None:
        record = {"what": what, "order": number, "at_us": wall_us(), "attempt": given.attempt, **more}
        line = json.dumps(record).encode() + b"\n"
        try:
            if os.write(self.ledger, line) == len(line):
                return
        except OSError as error:
            print(f"the ledger cannot be written: {error}", file=sys.stderr, flush=True)
        os._exit(3)  # nothing that happens afterwards could be judged

    async def work(self, number: int, attempt: int) -> None:
        """Half to one and a half of `work_ms`: what a call to a payment service would take."""
        spread = (self.options.seed + number * 131 + attempt) * 2654435761 % 2**32 / 2**32
        await asyncio.sleep(self.options.work_ms * (0.5 + spread) / 1000)

    def book(self, message: Message, number: int, payload_hash: int, must_fail: bool) -> None:
        order = json.loads(message.payload)
        row = (
            number,
            str(order["order_id"] if "order_id" in order else order["id"]),
            str(order["customer_id"] if "customer_id" in order else order["customer"]),
            order.get("total_cents", 0),
            message.attempt,
            payload_hash,
            self.options.name,
            wall_us(),
        )

        def body(transaction: Transaction) -> None:
            transaction.execute(INSERT_EFFECT, row)
            if must_fail:
                raise PaymentConnectionLost("the payment was declined after the order was booked")

        try:
            message.transaction(body)
        except PaymentConnectionLost:
            self.note("fail", number, message, text="inside the transaction")
            raise
        except (errors.LeaseLostError, errors.ClosedError) as error:
            self.note("void", number, message, text=str(error))
        except errors.TowlineError as error:
            self.note("trouble", number, message, text=str(error))
            raise StoreUnavailable(str(error)) from error
        else:
            self.note("trouble" if must_fail else "effect", number, message)

    async def run_step(self, call: SagaCall) -> None:
        """A step of a saga, or what undoes it."""
        order = call.context
        number, refused = order["order"], order["refused_at"] == call.step and not call.compensates
        part = f"{call.step}/{'compensate' if call.compensates else 'execute'}"
        await self.work(number, call.attempt)
        if order["fails_once"] == part and call.attempt == 1:
            self.note("step_fail", number, call, key=call.key)
            raise ServiceUnavailable("the service did not answer")
        if not refused or order["refused_late"]:
            at_us = wall_us()
            is_new = self.world.take_effect(number, part, call.key, at_us)
            self.note("step", number, call, key=call.key, at_us=at_us, duplicate=not is_new)
        if refused:
            self.note("step_fail", number, call, key=call.key)
            raise Reject("the order is refused")

    async def start_saga(self, engine: Engine, message: Message, number: int) -> None:
        """A process that dies before the order is booked leaves the message, and so the start is repeated,
        which changes nothing."""
        context = message.headers.get("saga-context")
        if context is None:
            return
        # As bytes: the start is the same in every language.
        started = await engine.sagas.start(self.saga, context.encode(), id=str(number))
        self.note("saga", number, message, duplicate=not started.is_new)

    async def handle(self, engine: Engine, message: Message) -> None:
        number = int(message.headers["order-number"])
        must_fail = message.attempt <= int(message.headers["planned-failures"])
        payload_hash = hash_of(message.payload)
        self.note("start", number, message, crashes=message.crashes, redelivered=message.redelivered,
                  payload_hash=payload_hash)
        await self.work(number, message.attempt)
        if must_fail and number % 2 == 0:
            self.note("fail", number, message, text="before the transaction")
            raise PaymentConnectionLost("the payment service did not answer")
        await self.start_saga(engine, message, number)
        # A transaction waits for the file; the loop does not. In the thread it also notes what came of it.
        await asyncio.to_thread(self.book, message, number, payload_hash, must_fail)


async def run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker(options)
    async with Engine(options.store, name=options.name, lease=options.lease_ms / 1000) as engine:

        async def handle(message: Message) -> None:
            await worker.handle(engine, message)

        await engine.run_saga(worker.saga)
        await engine.consume(
            options.topic,
            handle,
            group=options.group,
            name=options.name,
            concurrency=options.concurrency,
            ordering="key",
            handler_timeout=20,
            retry={
                "max_attempts": options.attempts,
                "initial_delay": options.retry_ms / 1000,
                "delay_max": options.retry_max_ms / 1000,
            },
            # The planned failures are the orders' and not the payment service's: intake must not pause.
            breaker={"enabled": False},
            # An order may be in the hands of every worker that is killed and must not count as the killer.
            dead_letters={"max_crashes": 20},
        )
        await stop.wait()
        stuck = await engine.close(5)
    if stuck:
        print(f"{stuck} handlers did not end in time", file=sys.stderr)
    return 1 if stuck else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("store", "ledger", "world", "name", "topic", "group"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("lease-ms", "concurrency", "attempts", "retry-ms", "retry-max-ms", "work-ms", "seed"):
        parser.add_argument(f"--{name}", required=True, type=int)
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(asyncio.run(run(parse())))
