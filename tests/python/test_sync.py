"""The synchronous twin: the same names, threads instead of a loop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually

from towline import Engine, Message, NewEvent, errors
from towline.testing import VirtualClock


def test_the_twin_publishes_consumes_and_answers(url: str) -> None:
    got: list[Any] = []
    app = Engine(url)

    @app.consumer("orders", group="g", concurrency=4)
    def handle(order: dict[str, Any], message: Message) -> None:
        got.append((order["id"], message.attempt))
        if order["id"] == 2 and message.attempt == 1:
            raise ValueError("once")

    with app as engine:
        ids = [engine.publish("orders", {"id": number}).id for number in range(3)]
        assert len(set(ids)) == 3
        assert eventually(lambda: len(got) == 3)
        assert (2, 1) in got
        assert engine.statistics().published == 3
        delayed = engine.publish("orders", {"id": 9}, delay=1000)
        assert engine.cancel(delayed.id) == "done"
        assert engine.once("key", lambda: [1]) == engine.once("key", lambda: [2]) == [1]
        assert engine.health().ok
        receipts = engine.publish_batch([{"topic": "b", "payload": b""}, {"topic": "b ad", "payload": b""}])
        assert [receipt.acked for receipt in receipts] == [True, False]
    with pytest.raises(errors.ClosedError):
        engine.publish("orders", {})


def test_messages_are_received_one_by_one(url: str) -> None:
    with Engine(url) as engine:
        with engine.subscribe("a", group="g") as subscription:
            assert subscription.receive(0.01) is None
            engine.publish("a", "x")
            message = subscription.receive(10)
            assert message is not None and message.value == "x"
            message.ack()
            with pytest.raises(errors.AlreadySettledError):
                message.nak()
        engine.publish("b", 1)
        for message in engine.subscribe("b", group="g"):
            message.ack()
            break
        engine.settle_down()
        assert all(group.waiting == 0 for group in engine.backlog())


@pytest.mark.parametrize("in_main", [True, False])
def test_settling_can_wait_until_it_is_durable(url: str, in_main: bool) -> None:
    def settle(engine: Any, subscription: Any) -> None:
        acked, rejected = subscription.receive(10), subscription.receive(10)
        acked.ack(wait=True)
        assert subscription.statistics().acked == 1
        rejected.reject("of no use", wait=True)
        assert [one.error_message for one in engine.dead_letters().items] == ["of no use"]
        with pytest.raises(errors.AlreadySettledError):
            acked.ack(wait=True)

    with Engine(url) as engine, engine.subscribe("a", group="g") as subscription:
        engine.publish_batch([{"topic": "a", "payload": n} for n in range(2)])
        if in_main:
            settle(engine, subscription)
        else:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(settle, engine, subscription).result()


def test_a_coroutine_handler_is_refused(url: str) -> None:
    async def handle() -> None: ...

    with Engine(url) as engine, pytest.raises(errors.InvalidConfigError, match="coroutine"):
        engine.consume("a", handle, group="g")


def test_many_threads_publish_at_once(url: str) -> None:
    with Engine(url) as engine:
        threads = [
            threading.Thread(target=lambda: [engine.publish("a", b"") for _ in range(50)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.statistics().published == 400


def test_the_fixtures_of_the_plug_in_work(towline_clock: VirtualClock, towline_engine: Any) -> None:
    got: list[int] = []
    towline_engine.consume("a", got.append, group="g")
    towline_engine.publish("a", 1, delay=30)
    towline_clock.advance(29)
    towline_engine.settle_down()
    assert got == []
    towline_clock.advance(1)
    towline_engine.settle_down()
    assert got == [1]


def test_an_interrupted_receive_of_events_loses_nothing(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Engine(f"sqlite:{tmp_path}/a.db") as engine:
            subscription = engine.event_store.subscribe("reader")
            for number in range(5):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                with pytest.raises(Interrupted):
                    subscription.receive()
                # What the engine was asked for goes on, and gets this one.
                engine.event_store.append("order-1", [NewEvent("happened", str(number))])
                assert [event.value for event in subscription.receive(timeout=10)] == [str(number)]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_in_the_child_of_a_fork_a_subscription_is_dead_and_in_the_parent_alive(tmp_path: Path) -> None:
    with Engine(f"sqlite:{tmp_path}/a.db") as engine:
        subscription = engine.event_store.subscribe("reader")
        child = os.fork()
        if child == 0:
            refused = 0
            try:
                for call in (subscription.receive, subscription.statistics, engine.event_store.streams):
                    with contextlib.suppress(errors.ForkedError):
                        call()
                        refused -= 10
                    refused += 1
                subscription.close()
                del call, subscription  # its end must not touch what is the parent's
            finally:
                os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        engine.event_store.append("order-1", [NewEvent("happened", "one")])
        assert [event.value for event in subscription.receive(timeout=10)] == ["one"]
