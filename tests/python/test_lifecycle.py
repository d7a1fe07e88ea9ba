"""Opening, closing and everything that ends a process: no hang, no crash, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import asynchronous, eventually, eventually_async, run

from towline import Engine, Message, NewEvent, PayloadError, Saga, _native, errors


@asynchronous
async def test_closing_is_idempotent(url: str) -> None:
    engine = Engine(url)
    await engine.open()
    await engine.consume("a", lambda: None, group="g")
    assert await asyncio.gather(*(engine.close() for _ in range(4))) == [0] * 4
    assert await engine.close() == 0


@asynchronous
async def test_calls_before_opening_are_refused(url: str) -> None:
    with pytest.raises(errors.ClosedError, match="not open"):
        await Engine(url).publish("a", b"")
    assert await Engine(url).close() == 0


@asynchronous
async def test_closing_inside_a_handler_returns_at_once_and_settles_its_message(url: str) -> None:
    closed: list[Any] = []
    engine = Engine(url)

    @engine.consumer("a", group="g")
    async def handle() -> None:
        closed.append(await engine.close())

    await engine.open()
    await engine.publish("a", b"")
    assert await eventually_async(lambda: bool(closed))
    assert await engine.close() == 0
    async with Engine(url) as again:
        if url.startswith("sqlite:"):
            assert [group.waiting for group in await again.backlog()] == [0]


@asynchronous
async def test_a_handler_that_does_not_end_is_counted_and_left(url: str) -> None:
    release = threading.Event()
    started = threading.Event()

    def handle() -> None:
        started.set()
        release.wait(30)

    engine = Engine(url)
    await engine.open()
    await engine.consume("a", handle, group="g")
    await engine.publish("a", b"")
    assert await eventually_async(started.is_set)
    begin = time.monotonic()
    assert await engine.close(0.05) == 1
    assert time.monotonic() - begin < 10
    release.set()


@asynchronous
async def test_who_closes_with_less_time_hurries_the_one_who_closes_already(url: str) -> None:
    started = asyncio.Event()

    async def handle() -> None:
        started.set()
        await asyncio.Event().wait()

    engine = Engine(url, drain_timeout=3600)
    await engine.open()
    await engine.consume("a", handle, group="g")
    await engine.publish("a", b"")
    await started.wait()
    patient = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    await asyncio.wait_for(engine.close(0), 20)
    await patient


def test_who_closes_the_twin_with_less_time_hurries_the_one_who_closes_already(url: str) -> None:
    started, end = threading.Event(), threading.Event()

    def handle() -> None:
        started.set()
        end.wait()

    with Engine(url, drain_timeout=3600) as engine:
        engine.consume("a", handle, group="g")
        engine.publish("a", b"")
        assert started.wait(20)
        patient = threading.Thread(target=engine.close)
        patient.start()
        assert eventually(lambda: engine._is_closing)
        engine.close(0)
        patient.join(20)
        assert not patient.is_alive()
        end.set()


def test_close_of_the_twin_from_four_threads_and_inside_a_handler(url: str) -> None:
    with Engine(url) as engine:
        inside: list[int] = []
        engine.consume("a", lambda: inside.append(engine.close()), group="g")
        engine.publish("a", b"")
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(engine.close())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == [0] * 4


@asynchronous
async def test_a_cancelled_call_disturbs_nobody(url: str) -> None:
    async with Engine(url) as engine:
        tasks = [asyncio.ensure_future(engine.publish("a", number)) for number in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in results[::2])
        assert all(not isinstance(one, BaseException) for one in results[1::2])


CANCELLED: list[Callable[[Engine], Awaitable[Any]]] = [
    lambda engine: engine.publish("a", b""),
    lambda engine: engine.publish_batch([{"topic": "a", "payload": b""}] * 3),
    lambda engine: engine.publish_with_retry("a", b""),
    lambda engine: engine.backlog(),
    lambda engine: engine.find_dead_letter("01890a5d-ac96-774b-bcce-b302099a8057"),
    lambda engine: engine.release_key("g", "a", "k"),  # which is refused
    lambda engine: engine.once("key", lambda: 1),
    lambda engine: engine.event_store.append("s", [NewEvent("t", b"")]),
]


@pytest.mark.parametrize("call", CANCELLED, ids=range(len(CANCELLED)))
@asynchronous
async def test_the_answer_to_a_cancelled_call_is_no_error_of_anybody(
    url: str, call: Callable[[Engine], Awaitable[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(url) as engine:
        tasks = [asyncio.ensure_future(call(engine)) for _ in range(20)]
        # Here each has asked, and nothing is fetched before they are cancelled.
        await asyncio.sleep(0)
        assert engine._requests
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in results)
        assert await eventually_async(lambda: not engine._requests), "an answer came to each"
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


# What is refused, by whom: before the boundary, at it, and behind it.
REFUSALS: list[tuple[type[Exception], Callable[[Any], Any]]] = [
    (errors.InvalidTopicError, lambda engine: engine.publish("not a topic", b"")),
    (PayloadError, lambda engine: engine.publish("a", object())),
    (errors.PayloadTooLargeError, lambda engine: engine.publish("a", LARGE)),
    (errors.InvalidDelayError, lambda engine: engine.publish("a", b"", delay=-1)),
    (errors.InvalidHeaderError, lambda engine: engine.publish("a", b"", headers={"": "x"})),
    (errors.InvalidArgumentError, lambda engine: engine.publish_batch([{"topic": "a"}])),
    (errors.InvalidConfigError, lambda engine: engine.consume("a", print, group="g", nosuch=1)),
    (errors.NotFoundError, lambda engine: engine.release_key("g", "a", "k")),
]
LARGE = b"x" * 10_000


def held(engine: Any) -> dict[str, int]:
    gc.collect()
    return {
        "objects": len(gc.get_objects()),
        "threads": len(os.listdir("/proc/self/task")),
        "requests": len(getattr(engine, "_requests", ())),
        "engine": sys.getrefcount(engine),
        "payload": sys.getrefcount(LARGE),
        **{f"error {i}": sys.getrefcount(kind) for i, (kind, _) in enumerate(REFUSALS)},
        # A sanitizer keeps what was freed.
        "pages": 0 if SANITIZED else int(Path("/proc/self/statm").read_text().split()[1]),
    }


SANITIZED = any(name in Path("/proc/self/maps").read_text() for name in ("libasan", "libtsan"))
# What refused calls leave is more: one object of each, or 400 bytes.
ROOM = {"objects": 500, "engine": 10, "payload": 10, "pages": 1_000}


def left_behind(engine: Any, before: dict[str, int]) -> dict[str, int]:
    grown = {name: count - before[name] for name, count in held(engine).items()}
    room = {name: 10 if name.startswith("error") else ROOM.get(name, 0) for name in grown}
    return {name: count for name, count in grown.items() if count > room[name]}


@asynchronous
async def test_rejected_calls_leave_nothing_behind(url: str) -> None:
    async with Engine(url, payload_bytes_max=1_000) as engine:

        async def reject(rounds: int) -> None:
            for _ in range(rounds):
                for kind, call in REFUSALS:
                    with pytest.raises(kind):
                        await call(engine)

        await reject(100)
        before = held(engine)
        await reject(10_000 // len(REFUSALS))
        more: list[dict[str, int]] = []

        def all_came_back() -> bool:
            more.append(left_behind(engine, before))
            return not more[-1]

        assert await eventually_async(all_came_back), more[-1]


def test_nor_do_those_of_the_twin(url: str) -> None:
    with Engine(url, payload_bytes_max=1_000) as engine:

        def reject(rounds: int) -> None:
            for _ in range(rounds):
                for kind, call in REFUSALS:
                    with pytest.raises(kind):
                        call(engine)

        reject(100)
        before = held(engine)
        reject(10_000 // len(REFUSALS))
        more: list[dict[str, int]] = []

        def all_came_back() -> bool:
            more.append(left_behind(engine, before))
            return not more[-1]

        assert eventually(all_came_back), more[-1]


@asynchronous
async def test_a_view_of_a_payload_outlives_everything(url: str) -> None:
    views: list[memoryview] = []

    async def keep(message: Message) -> None:
        views.append(memoryview(message.payload))

    async with Engine(url) as engine:
        await engine.consume("a", keep, group="g")
        await engine.publish("a", b"x" * 100_000)
        await engine.settle_down()
    del engine
    gc.collect()
    assert bytes(views[0]) == b"x" * 100_000


@pytest.mark.parametrize("twin", ["async", "sync"])
def test_the_interpreter_ends_while_a_consumer_runs(url: str, twin: str) -> None:
    asynchronous_code = """
        import asyncio, sys
        from towline import Engine
        async def main():
            engine = Engine(sys.argv[1])
            await engine.open()
            started = asyncio.Event()
            async def handle():
                started.set()
                await asyncio.sleep(60)
            await engine.consume("a", handle, group="g")
            await engine.publish("a", b"")
            await started.wait()
        asyncio.run(main())
        print("end")
    """
    synchronous_code = """
        import sys, threading
        from towline import Engine
        engine = Engine(sys.argv[1]).__enter__()
        started = threading.Event()
        engine.consume("a", started.set, group="g")
        engine.publish("a", b"")
        started.wait()
        print("end")
    """
    begin = time.monotonic()
    done = run(asynchronous_code if twin == "async" else synchronous_code, url)
    assert done.returncode == 0 and done.stdout == "end\n", done.stderr
    assert time.monotonic() - begin < 10


ENDINGS = {
    "a pending future": """
        import asyncio, sys
        from towline import Engine
        async def main():
            engine = Engine(sys.argv[1])
            await engine.open()
            await engine.consume("a", asyncio.Event().wait, group="g")
            await engine.publish("a", b"")
            asking = [asyncio.ensure_future(engine.settle_down(60)) for _ in range(3)]
            await asyncio.sleep(0)
            assert len(engine._requests) == 3
            global kept
            kept = engine, asking, asyncio.get_running_loop()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        print("end")
    """,
    "the end in another thread": """
        import asyncio, sys, threading
        from towline import Engine
        async def main():
            engine = Engine(sys.argv[1])
            await engine.open()
            await engine.consume("a", asyncio.Event().wait, group="g")
            await engine.publish("a", b"")
            await engine.settle_down(0.01)
        def end():
            try:
                asyncio.run(main())
            except TimeoutError:
                print("end", flush=True)
        threading.Thread(target=end).start()  # the main one ends before it
    """,
    "sys.exit in another thread": """
        import os, sys, threading
        from towline import Engine
        engine = Engine(sys.argv[1]).__enter__()
        started = threading.Event()
        engine.consume("a", started.set, group="g")
        engine.publish("a", b"")
        started.wait()
        def end():
            threading.main_thread().join()
            engine.publish("b", b"")
            print("end", flush=True)
            sys.exit(3)  # of this thread only
        threading.Thread(target=end).start()
    """,
    "os._exit in another thread": """
        import os, sys, threading
        from towline import Engine
        engine = Engine(sys.argv[1]).__enter__()
        started = threading.Event()
        engine.consume("a", started.set, group="g")
        def end():
            engine.publish("a", b"")
            started.wait()
            print("end", flush=True)
            os._exit(0)
        threading.Thread(target=end, daemon=True).start()
        engine.subscribe("b", group="g").receive(60)
    """,
}


@pytest.mark.parametrize("how", ENDINGS)
def test_the_interpreter_ends_with(url: str, how: str) -> None:
    begin = time.monotonic()
    done = run(ENDINGS[how], url)
    assert done.returncode == 0 and done.stdout == "end\n", (done.returncode, done.stdout, done.stderr)
    assert "Fatal" not in done.stderr
    assert time.monotonic() - begin < 10


SPAWNING = """
import asyncio
import multiprocessing
import sys
from towline import Engine


def child(url, pipe):
    async def main():
        got = asyncio.Event()

        async def handle(what: str) -> None:
            assert what == "from the parent"
            got.set()

        async with Engine(url) as engine:
            await engine.consume("to-child", handle, group="g")
            await engine.publish("to-parent", "from the child")
            await got.wait()

    asyncio.run(main())
    pipe.send("done")


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    url = sys.argv[1]
    ours, theirs = context.Pipe()
    with Engine(url) as engine:
        got = engine.subscribe("to-parent", group="g").__enter__()
        process = context.Process(target=child, args=(url, theirs))
        process.start()
        message = got.receive(20)
        assert message.value == "from the child"
        message.ack(wait=True)
        engine.publish("to-child", "from the parent")
        process.join(20)
        assert process.exitcode == 0 and ours.recv() == "done"
        assert all(one.waiting + one.in_flight == 0 for one in engine.backlog())
        got.close()
    print("end")
"""


def test_a_child_that_was_spawned_has_an_engine_beside_its_parents(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWNING)
    done = subprocess.run(
        [sys.executable, "-X", "dev", program, f"sqlite:{tmp_path}/store.db"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout == "end\n", done.stderr


@pytest.mark.parametrize("twin", ["async", "sync"])
def test_the_interpreter_ends_while_a_handler_of_events_runs(url: str, twin: str) -> None:
    asynchronous_code = """
        import asyncio, sys
        from towline import Engine, NewEvent
        async def main():
            engine = Engine(sys.argv[1])
            await engine.open()
            started = asyncio.Event()
            async def handle(events):
                started.set()
                await asyncio.sleep(60)
            await engine.event_store.subscribe("reader", handle)
            await engine.event_store.append("a", [NewEvent("t", b"")])
            await started.wait()
        asyncio.run(main())
        print("end")
    """
    synchronous_code = """
        import os, sys, threading
        from towline import Engine, NewEvent
        engine = Engine(sys.argv[1]).__enter__()
        started, may_end = threading.Event(), threading.Event()
        def handle(events):
            started.set()
            may_end.wait(60)
        engine.event_store.subscribe("reader", handle)
        engine.event_store.append("a", [NewEvent("t", b"")])
        started.wait()
        child = os.fork()
        if child == 0:
            may_end.set()
            engine.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        threading.Timer(0.1, may_end.set).start()  # the interpreter waits for the threads of handlers
        print("end", flush=True)
    """
    begin = time.monotonic()
    done = run(asynchronous_code if twin == "async" else synchronous_code, url)
    assert done.returncode == 0 and done.stdout == "end\n", done.stderr
    assert time.monotonic() - begin < 10


@asynchronous
async def test_a_handler_of_events_whose_starting_was_cancelled_takes_nothing(url: str) -> None:
    handled: list[str] = []
    async with Engine(url) as engine:
        await engine.event_store.append("a", [NewEvent("t", "one")])
        for _ in range(10):
            starting = asyncio.create_task(engine.event_store.subscribe("reader", handled.append))
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        # Its turn comes free at once, well within the lease.
        last = await engine.event_store.subscribe("reader")
        got = await last.receive(timeout=10)
        assert [one.value for one in got] == ["one"] and handled == []
        assert not engine._event_handlers


def test_the_interpreter_ends_while_daemon_threads_are_inside_calls(url: str) -> None:
    for _ in range(5):
        done = run(
            """
            import sys, threading, time
            from towline import Engine, errors
            engine = Engine(sys.argv[1]).__enter__()
            def publish():
                try:
                    while True:
                        engine.publish("a", b"")
                except errors.ClosedError:
                    pass
            for _ in range(20):
                threading.Thread(target=publish, daemon=True).start()
            time.sleep(0.1)  # sleeps: until they are inside their calls
            print("end")
            """,
            url,
        )
        assert done.returncode == 0 and done.stdout == "end\n", (done.returncode, done.stderr)


def test_a_forked_child_is_refused_and_the_parent_goes_on(url: str) -> None:
    done = run(
        """
        import os, sys
        from towline import Engine, errors
        with Engine(sys.argv[1]) as engine:
            got = []
            engine.consume("a", got.append, group="g")
            engine.publish("a", 1)
            child = os.fork()
            if child == 0:
                try:
                    engine.publish("a", 2)
                except errors.ForkedError:
                    engine.close()
                    os._exit(7)
                os._exit(8)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            child = os.fork()
            if child == 0:
                sys.exit(9)  # with all that an interpreter does at its end
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            engine.publish("a", 3)
            engine.settle_down()
            print(sorted(got))
        """,
        url,
    )
    assert done.returncode == 0 and done.stdout == "[1, 3]\n", done.stdout + done.stderr


def test_importing_loads_no_client_of_a_broker() -> None:
    done = run(
        """
        import sys
        import towline
        loaded = open("/proc/self/maps").read()
        assert "_core" in loaded
        assert not any(name in loaded for name in ("libpq", "librdkafka", "librabbitmq", "libnats",
        "libhiredis"))
        # Nor any model's, which would make it slow; how long it may take check_package.py says.
        assert not {"pydantic", "msgspec", "pytest"} & sys.modules.keys()
        """
    )
    assert done.returncode == 0, done.stderr


@asynchronous
async def test_what_a_killed_process_held_is_handled_by_the_next(tmp_path: Path) -> None:
    path = f"sqlite:{tmp_path}/store.db"
    done = run(
        """
        import asyncio, os, sys
        from towline import Engine
        async def main():
            async with Engine(sys.argv[1], lease=0.2) as engine:
                async def handle():
                    os.kill(os.getpid(), 9)
                await engine.consume("a", handle, group="g")
                await engine.publish("a", "x")
                await asyncio.sleep(30)
        asyncio.run(main())
        """,
        path,
    )
    assert done.returncode == -9
    handled: list[Message] = []

    async def handle(message: Message) -> None:
        handled.append(message)

    async with Engine(path) as engine:
        await engine.consume("a", handle, group="g")
        assert await eventually_async(lambda: bool(handled))
    assert handled[0].value == "x" and handled[0].redelivered and handled[0].crashes == 1


def test_the_logger_decides_what_is_logged(url: str) -> None:
    done = run(
        """
        import asyncio, logging, sys
        from towline import Engine
        logging.basicConfig(level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
        async def main():
            async with Engine(sys.argv[1]) as engine:
                async def handle():
                    raise ConnectionError("away")
                await engine.consume("a", handle, group="g", breaker={"throughput_min": 1})
                await engine.publish("a", b"")
                await asyncio.sleep(0.5)
        asyncio.run(main())
        """,
        url,
    )
    assert done.returncode == 0
    assert "towline WARNING consumer: g/a: circuit breaker open" in done.stderr


@contextlib.contextmanager
def logging_at(level: int | str) -> Iterator[None]:
    """A level of the logger, or how it is silenced as a whole."""
    logger, before = _native.logger, _native.logger.level
    try:
        if isinstance(level, int):
            logger.setLevel(level)
        elif level == "disabled":
            logger.disabled = True
        else:
            logging.disable(logging.CRITICAL)
        yield
    finally:
        logger.setLevel(before)
        logger.disabled = False
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("twin", ["async", "sync"])
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.INFO, {logging.INFO, logging.WARNING}),
        (logging.INFO + 1, {logging.WARNING}),
        (logging.ERROR, set()),
        (logging.CRITICAL + 1, set()),
        ("disabled", set()),
        ("all of logging disabled", set()),
    ],
)
@asynchronous
async def test_what_the_logger_does_not_want_does_not_even_reach_python(
    monkeypatch: pytest.MonkeyPatch, level: int | str, expected: set[int], twin: str
) -> None:
    came: list[int] = []
    monkeypatch.setattr(_native, "note_log", lambda event: came.append(_native.LEVELS[event[1]]))

    def fail() -> None:
        raise ConnectionError("away")

    options: Any = {"retry": {"kind": "fixed", "initial_delay": 0.001, "max_attempts": 2}}
    with logging_at(level):
        if twin == "sync":
            with Engine("memory:") as engine:
                engine.consume("a", fail, group="g", **options)
                engine.publish("a", b"")
                engine.settle_down()
                assert engine.statistics().dead_letters["pending"] == 1
        else:
            async with Engine("memory:") as engine_async:
                await engine_async.consume("a", fail, group="g", **options)
                await engine_async.publish("a", b"")
                await engine_async.settle_down()
                assert (await engine_async.statistics()).dead_letters["pending"] == 1
    assert set(came) == expected


@pytest.mark.parametrize("twin", ["async", "sync"])
@asynchronous
async def test_an_engine_that_could_not_be_opened_can_be_opened_later(tmp_path: Path, twin: str) -> None:
    engine = Engine(f"sqlite:{tmp_path}/later/store.db")
    handled: list[str] = []

    @engine.consumer("a", group="g")
    def handle(what: str) -> None:
        handled.append(what)

    for _ in range(2):
        with pytest.raises(errors.TowlineError):
            if twin == "sync":
                engine.__enter__()
            else:
                await engine.open()
    (tmp_path / "later").mkdir()
    if twin == "sync":
        with engine as opened:
            opened.publish("a", "x")
            assert eventually(lambda: handled == ["x"])
    else:
        with pytest.raises(errors.ClosedError, match="not open"):
            await engine.publish("a", "x")
        async with engine:
            await engine.publish("a", "x")
            assert await eventually_async(lambda: handled == ["x"])


@asynchronous
async def test_what_an_opening_that_failed_has_started_does_not_disturb_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(url)
    runs, may_end = [0], threading.Event()

    @engine.consumer("a", group="g")
    def handle() -> None:
        runs[0] += 1
        may_end.wait(30)

    async with Engine(url) as other:

        async def fail(_: Any) -> None:
            await other.publish("a", b"")
            assert await eventually_async(lambda: runs[0] == 1)
            raise ZeroDivisionError

        engine.saga(Saga("order").step("charge", print, pivot=True))
        with monkeypatch.context() as patch:
            patch.setattr(engine, "run_saga", fail)
            with pytest.raises(ZeroDivisionError):
                await engine.open()
        await engine.open()
        assert await eventually_async(lambda: runs[0] == 2)
        may_end.set()
        await engine.settle_down()
        assert [one.waiting + one.in_flight for one in await other.backlog() if one.topic == "a"] == [0]
        await engine.close()
