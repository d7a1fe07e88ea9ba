"""SyncEngine, the twin of Engine for programs without an event loop: one pump thread of Python's fetches the
events, and handlers run in threads."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

from towline import _native, _sync_calls, errors, records
from towline._calls import Span
from towline._event_subscription import GIVEN_UP, SyncEventSubscription
from towline._handlers import Handler, is_coroutine_function
from towline._message import ACKED, RELEASED, Message, OutcomeTuple, fields_of, handed_over
from towline._native import ALERT, DELIVERY, EVENTS, LOG, SAGA_CALLS, STOP, Native
from towline._options import ConsumerOptions, IdempotencyOptions
from towline._registered import DRAIN_COUNT, PUMP_POLL_US, AtOpen, Ordering, Registered, Topics, running_in
from towline._saga import SagaDefinition
from towline._saga_runner import SyncSagaRunner
from towline._sync_conversations import SyncConversations
from towline._sync_events import SyncEventStore
from towline._sync_sagas import SyncSagas
from towline.records import ConsumerStatistics, Receipt

if TYPE_CHECKING:
    from typing import Self, Unpack

    from towline import _core
    from towline.testing import VirtualClock

T = TypeVar("T")

# Outcomes that follow each other within so many seconds are told together.
TELL_AFTER = 0.001
# Handlers that take less seconds than this, on average, are done sooner one after the other, by one thread,
# than by several that wait for each other's interpreter.
QUICK = 0.0005
# Unless that one thread gets nowhere for so long.
LOOK_AFTER = 0.01


class SyncConsumer:
    """A running consumer of a `SyncEngine`. Closing the engine closes it."""

    def __init__(self, engine: SyncEngine, registered: Registered) -> None:
        self._engine = engine
        self._registered = registered
        self._native: _core.Consumer | None = None
        self._id = 0
        # Of the batch that is coming in; only the pump touches them.
        self._batch_numbers: list[int] = []
        self._batch_messages: list[Message] = []
        self._lock = threading.Lock()
        self._runs: deque[tuple[list[int], list[Message]]] = deque()
        self._runner_count = 0
        # What has become of whom, and is not told yet. Of these two only single calls are made, which need no
        # lock: it would cost as much as a quick handler.
        self._finished: deque[tuple[list[int], list[OutcomeTuple]]] = deque()
        self._told_at = 0.0
        self._handler_seconds = 1.0  # of late
        self._done_count = 0
        self._done_count_seen = 0
        self._looked_at = 0.0
        self._executor: ThreadPoolExecutor | None = None
        if registered.handler is not None:
            if registered.handler.is_async:
                raise errors.InvalidConfigError(
                    f"handler {registered.handler.name!r} is a coroutine function; use `async with` for it"
                )
            self._executor = ThreadPoolExecutor(
                max(registered.concurrency, 1), thread_name_prefix="towline-handler"
            )

    def _handle(self, numbers: list[int], messages: list[Message], batch_left: int) -> None:
        handler, executor = self._registered.handler, self._executor
        assert handler is not None and executor is not None
        if handler.in_batches:
            self._batch_numbers += numbers
            self._batch_messages += messages
            if batch_left:
                return
            came = [(self._batch_numbers, self._batch_messages)]
            self._batch_numbers, self._batch_messages = [], []
        else:
            came = [([number], [one]) for number, one in zip(numbers, messages, strict=True)]
        self._runs.extend(came)
        self._start_runners(1 if self._handler_seconds < QUICK else executor._max_workers)

    def _start_runners(self, count_max: int) -> None:
        """So many at most, and no more than there is work for."""
        handler, executor = self._registered.handler, self._executor
        assert handler is not None and executor is not None
        with self._lock:
            more = max(0, min(len(self._runs), min(count_max, executor._max_workers) - self._runner_count))
            self._runner_count += more
        for _ in range(more):
            executor.submit(self._run, handler)

    def _look(self) -> None:
        """By the pump, now and then: nothing waits because one handler takes its time."""
        if self._finished:
            self._tell(time.monotonic())
        if self._runs and time.monotonic() - self._looked_at >= LOOK_AFTER:
            if self._done_count == self._done_count_seen and self._executor is not None:
                self._start_runners(self._executor._max_workers)
            self._done_count_seen = self._done_count
            self._looked_at = time.monotonic()

    def _give_up_batch(self) -> list[int]:
        """The numbers of a batch whose rest is not handed over any more."""
        numbers, self._batch_numbers, self._batch_messages = self._batch_numbers, [], []
        return numbers

    def _run(self, handler: Handler) -> None:
        """One thread at work, until nothing waits."""
        context = contextvars.copy_context()
        context.run(running_in.set, self._engine)
        begin = time.monotonic()
        while True:
            try:
                numbers, messages = self._runs.popleft()
            except IndexError:
                with self._lock:
                    # Whoever puts something there looks at the count of runners afterwards.
                    if self._runs:
                        continue
                    self._runner_count -= 1
                    break
            outcomes = context.copy().run(handler.run, messages)
            end = time.monotonic()
            self._finished.append((numbers, outcomes))
            # Threads may get in each other's way here: these are but hints.
            self._done_count += 1
            self._handler_seconds += (end - begin - self._handler_seconds) / 32
            begin = end
            # Together with the next ones, if these come at once; telling has its price.
            if end - self._told_at >= TELL_AFTER or not self._runs:
                self._tell(end)
        self._tell(begin)

    def _tell(self, now: float) -> None:
        """Also called by the pump now and then, should the next handler take its time."""
        self._told_at = now
        told: tuple[list[int], list[OutcomeTuple]] = ([], [])
        try:
            while True:
                numbers, outcomes = self._finished.popleft()
                told[0].extend(numbers)
                told[1].extend(outcomes)
        except IndexError:
            pass
        if told[0]:
            self._engine._finish(*told)

    def pause(self) -> None:
        """Takes in nothing more; what is in flight goes on. Idempotent."""
        self._open().pause()

    def resume(self) -> None:
        """Takes messages in again after `pause` or `drain`. Idempotent."""
        self._open().resume()

    def set_concurrency(self, concurrency: int) -> None:
        """How many handlers run at once, [1, 4096], from now on: fewer stop nobody who runs. Raises
        `InvalidConfigError`."""
        self._open().set_concurrency(concurrency)
        if self._executor is not None and concurrency > self._executor._max_workers:
            self._executor._max_workers = concurrency

    def statistics(self) -> ConsumerStatistics:
        """What this consumer has counted since it started, and what it does now."""
        return ConsumerStatistics(**self._open().statistics())

    def drain(self, timeout: Span = 30) -> None:
        """Waits until nothing is in flight, then leaves it paused. Raises `TimeoutError`."""
        if running_in.get() is self._engine:
            raise errors.InvalidArgumentError(
                "drain: a handler cannot wait until no handler runs; use pause()"
            )
        self._open().drain(self._engine._check().port, None, records.seconds_to_us(timeout))

    def close(self, timeout: Span | None = None) -> int:
        """As `Consumer.close`."""
        native, port = self._open(), self._engine._check().port
        limit = None if timeout is None else records.seconds_to_us(timeout)
        if running_in.get() is self._engine:
            self._engine._elsewhere(lambda: self._close(native, port, limit))
            return 0
        return self._close(native, port, limit)

    def _close(self, native: _core.Consumer, port: _core.Port, limit: int | None) -> int:
        stuck = native.close(port, None, limit)
        self._engine._consumers.pop(self._id, None)
        with self._lock:
            self._runs.clear()  # they were given back
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        return stuck

    def _open(self) -> _core.Consumer:
        self._engine._check()
        if self._native is None:
            raise errors.ClosedError("the consumer is not open")
        return self._native


class SyncSubscription(SyncConsumer):
    """Messages one by one: `for message in engine.subscribe(...)`, or `receive`. Settle each with
    `message.ack()` and its like; what is not settled in `handler_timeout` is handed out again."""

    def __init__(self, engine: SyncEngine, registered: Registered) -> None:
        super().__init__(engine, registered)
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._closed = False

    def _handle(self, numbers: list[int], messages: list[Message], batch_left: int) -> None:
        with self._changed:
            if self._closed:
                return self._engine._finish(numbers, [RELEASED] * len(numbers))
            for number, message in zip(numbers, messages, strict=True):
                self._engine._pulled[number] = self
                message._on_settled = self._engine._settled
                self._waiting.append(message)
            self._changed.notify(len(numbers))

    def __enter__(self) -> Self:
        with self._starting:
            if self._native is None:
                self._engine._start(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close(0)

    def __iter__(self) -> Iterator[Message]:
        with self:
            while (message := self.receive()) is not None:
                yield message

    def receive(self, timeout: Span | None = None) -> Message | None:
        """The next message; None when `timeout` (None: without end) is over or the subscription is closed.
        Its time to be settled in begins now."""
        if self._closed:
            return None
        self.__enter__()
        limit = None if timeout is None else records.seconds_to_us(timeout) / 1e6
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            with self._changed:
                left = None if deadline is None else max(0, deadline - time.monotonic())
                self._changed.wait_for(lambda: self._waiting or self._closed, left)
                if self._closed or not self._waiting:
                    return None
                message = self._waiting.popleft()
            if handed_over(message):
                return message

    def _forget(self, number: int) -> None:
        """Its result does not count any more, so nobody must see it."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one._number != number)

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for number, subscription in list(self._engine._pulled.items()):
            if subscription is self:
                self._engine._settled(number, RELEASED)

    def close(self, timeout: Span | None = None) -> int:
        """Gives back what is unsettled. Idempotent."""
        if self._closed:
            return 0
        self._end()
        return 0 if self._native is None or self._engine._is_closed() else super().close(timeout)


class SyncEngine(_sync_calls.SyncCalls):
    """The twin of `Engine` for programs without an event loop, made by `with Engine(...) as engine`.
    Thread-safe. Calls wait; Ctrl-C ends the wait within 100 ms, and what was asked for goes on or does
    not."""

    def __init__(
        self,
        url: str,
        clock: VirtualClock | None,
        texts: list[tuple[str, str]],
        at_open: AtOpen,
    ) -> None:
        self._url = url
        self._clock = clock
        self._texts = texts
        self._at_open = at_open
        self._native = Native()
        self._consumers: dict[int, SyncConsumer] = {}
        # What subscriptions hold unsettled, by number.
        self._pulled: dict[int, SyncSubscription] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._is_closing = False
        self._stuck = 0
        self._alert_listeners: list[Callable[[dict[str, Any]], None]] = []
        self._events = SyncEventStore(self)
        self._conversations = SyncConversations(self)
        self._sagas = SyncSagas(self)
        self._saga_runners: dict[int, SyncSagaRunner] = {}
        # Subscriptions to events that have a handler.
        self._event_handlers: dict[int, SyncEventSubscription] = {}

    def _enter(self) -> None:
        port = self._native.port
        try:
            port.open(None, self._url, self._texts, None if self._clock is None else self._clock._native)
            self._native.start_pump(self._pump_main)
            for registered in self._at_open.consumers:
                with registered.told():
                    self._start(SyncConsumer(self, registered))
            for name, function, options in self._at_open.event_handlers:
                self._events.subscribe(name, function, **options)
            for saga in self._at_open.sagas:
                self.run_saga(saga)
        except BaseException:
            self.close(0)
            raise

    def consume(
        self,
        topics: Topics,
        handler: Callable[..., Any],
        *,
        ordering: Ordering = "none",
        batch: bool = False,
        **options: Unpack[ConsumerOptions],
    ) -> SyncConsumer:
        """Starts a consumer whose handler runs in threads, up to `concurrency` at once."""
        consumer = SyncConsumer(self, Registered(topics, Handler(handler, batch), ordering, options))
        self._start(consumer)
        return consumer

    def subscribe(
        self, topics: Topics, *, ordering: Ordering = "none", **options: Unpack[ConsumerOptions]
    ) -> SyncSubscription:
        """Messages one by one, settled by hand; at most `concurrency` (default 100) are out at once."""
        pulled: dict[str, Any] = {"concurrency": 100, **options, "ack": "manual"}
        return SyncSubscription(self, Registered(topics, None, ordering, pulled))

    @property
    def event_store(self) -> SyncEventStore:
        """The event store."""
        return self._events

    @property
    def conversations(self) -> SyncConversations:
        """The conversations."""
        return self._conversations

    @property
    def sagas(self) -> SyncSagas:
        """The sagas."""
        return self._sagas

    def run_saga(self, saga: SagaDefinition) -> SyncSagaRunner:
        """As `Engine.run_saga`, from now on; it may be used in a `with`."""
        runner = SyncSagaRunner(self, saga)
        self._start_among(self._saga_runners, runner, self._check().port.run_saga, saga._native())
        return runner

    def on_alert(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """`listener` is called in the pump's thread with each alert, as `Engine.on_alert` says; it must be
        quick."""
        self._alert_listeners.append(listener)

    def findings(self) -> list[str]:
        """What the provider found at opening, one sentence each."""
        return self._check().port.findings()

    def close(self, timeout: Span | None = None) -> int:
        """As `Engine.close`. Idempotent, from any thread. After Ctrl-C it goes on in a thread, and
        waits for handlers no longer."""
        if self._native.forked:
            return 0
        # A timeout that is none is refused before anything is closed.
        limit = None if timeout is None else records.seconds_to_us(timeout)
        if running_in.get() is self:
            self._elsewhere(lambda: self._close(limit))
            return 0
        return self._close(limit)

    def _close(self, limit: int | None) -> int:
        with self._lock:
            first, self._is_closing = not self._is_closing, True
        if not first:
            if limit is not None and not self._native.closed:  # hurries the one who closes already
                with contextlib.suppress(errors.ClosedError):
                    self._native.port.close(None, limit)
            self._closed.wait()
            return self._stuck
        for consumer in list(self._consumers.values()):
            if isinstance(consumer, SyncSubscription):
                consumer._end()
        try:
            if not self._native.closed:
                self._stuck = self._native.port.close(None, limit)
        except errors.TowlineError:
            self._shut()
            raise
        except BaseException:  # Ctrl-C: whoever waits no longer does not wait for handlers either
            self._elsewhere(self._close_at_once)
            raise
        self._shut()
        return self._stuck

    def _close_at_once(self) -> None:
        with contextlib.suppress(errors.TowlineError):
            self._stuck = self._native.port.close(None, 0)
        self._shut()

    def _shut(self) -> None:
        self._native.shut()
        for consumer in list(self._consumers.values()):
            if consumer._executor is not None:
                consumer._executor.shutdown(wait=False, cancel_futures=True)
        for runner in list(self._saga_runners.values()):
            runner._executor.shutdown(wait=False, cancel_futures=True)
        for subscription in list(self._event_handlers.values()):
            subscription._executor.shutdown(wait=False, cancel_futures=True)
        self._closed.set()

    def _elsewhere(self, work: Callable[[], Any]) -> None:
        def run() -> None:
            with contextlib.suppress(errors.ClosedError):  # somebody else was quicker
                work()

        threading.Thread(target=contextvars.Context().run, args=(run,), name="towline-close").start()

    def _start(self, consumer: SyncConsumer) -> None:
        arguments = consumer._registered.native_arguments
        self._start_among(self._consumers, consumer, self._check().port.consume, *arguments)

    def _start_event_handler(self, subscription: SyncEventSubscription, texts: list[tuple[str, str]]) -> None:
        self._start_among(self._event_handlers, subscription, self._check().port.handle_events, texts)

    def _start_among(
        self, running: dict[int, Any], one: Any, method: Callable[..., Any], *arguments: Any
    ) -> None:
        one._id = next(self._check().ids)
        # Before it starts: its first work may come before the answer.
        running[one._id] = one
        try:
            one._native = method(None, one._id, *arguments)
        except BaseException:
            running.pop(one._id, None)
            raise

    def _check(self) -> Native:
        self._native.check()
        return self._native

    def _is_closed(self) -> bool:
        return self._native.closed or self._native.forked

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._check().port, name)(None, *arguments)

    def once(self, key: str, run: Callable[[], T], **options: Unpack[IdempotencyOptions]) -> T:
        """As `Engine.once`; the function runs in the calling thread."""
        return cast(T, self._once(key, run, options))

    def _run_once(
        self, key: str, run: Callable[[], Any], token: Any, texts: list[tuple[str, str]]
    ) -> tuple[bytes, str]:
        if is_coroutine_function(run):
            self._call("fail", token)
            raise errors.InvalidArgumentError("run is a coroutine function; use `async with` for it")
        return super()._run_once(key, run, token, texts)

    def _publish(self, messages: list[Any]) -> list[Receipt]:
        return self._check().port.publish_and_wait(messages, fields_of)

    def _settled(self, number: int, outcome: OutcomeTuple = ACKED) -> None:
        if self._pulled.pop(number, None) is not None:
            self._finish([number], [outcome])

    def _finish(self, numbers: list[int], outcomes: list[OutcomeTuple]) -> None:
        if not self._native.forked:
            self._native.port.finish(numbers, outcomes)

    def _pump_main(self) -> None:
        port = self._native.port
        while not self._native.closed and not self._native.forked:
            consumers = list(self._consumers.values())
            is_busy = any(consumer._runs for consumer in consumers)
            came = port.poll(round(LOOK_AFTER * 1e6) if is_busy else PUMP_POLL_US)
            for consumer in consumers:
                consumer._look()
            for event in port.drain(DRAIN_COUNT) if came else ():
                try:
                    self._note(event)
                except Exception:
                    _native.note_failure("an event could not be handled")
                    if event[0] == DELIVERY:
                        self._finish(event[2], [RELEASED] * len(event[2]))

    def _note(self, event: tuple[Any, ...]) -> None:
        if event[0] == DELIVERY:
            consumer = self._consumers.get(event[1])
            # Whoever started the consumer was interrupted, or the engine closes: it goes back at once.
            if consumer is None or self._is_closing:
                numbers = event[2] if consumer is None else consumer._give_up_batch() + event[2]
                self._finish(numbers, [RELEASED] * len(numbers))
            else:
                consumer._handle(event[2], event[3], event[4])
        elif event[0] == STOP:
            if subscription := self._pulled.get(event[1]):
                subscription._forget(event[1])
            self._settled(event[1])
        elif event[0] == EVENTS:
            reader = self._event_handlers.get(event[1])
            if reader is not None and not self._is_closing:
                reader._handle(event[2])
            else:  # its start was interrupted, or all is closing
                self._native.port.finish_events(event[1], GIVEN_UP)
        elif event[0] == SAGA_CALLS:
            runner = self._saga_runners.get(event[1])
            # Whoever is not run, because all is closed or its start was interrupted, gives itself back.
            if runner is not None and not self._is_closing:
                for call in event[2]:
                    runner._handle(call)
        elif event[0] == LOG:
            _native.note_log(event)
        elif event[0] == ALERT:
            for listener in self._alert_listeners:
                listener(event[1])
