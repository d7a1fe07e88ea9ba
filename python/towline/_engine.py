"""Engine for asyncio; its twin is in _sync_engine.py.

Each holds one native engine. Its threads never touch a Python object: they leave events in a mailbox, and the
event loop (for the twin, one pump thread of Python's) fetches hundreds at a time. The outcomes of one tick of
the loop go back together.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, overload

from towline import _core, _native, errors, records
from towline._calls import ACQUIRED, Calls, Span
from towline._consumer import Consumer, Run, Subscription
from towline._conversations import Conversations
from towline._event_subscription import GIVEN_UP, EventSubscription
from towline._events import EventStore
from towline._handlers import Handler, Over, is_coroutine_function
from towline._message import ACKED, RELEASED, Message, OutcomeTuple, fields_of
from towline._native import (
    ALERT,
    DELIVERY,
    EVENTS,
    LOG,
    RECEIPTS,
    REPLY,
    SAGA_CALLS,
    SAGA_STOP,
    STOP,
    Native,
)
from towline._option_texts import texts_of
from towline._options import ConsumerOptions, EngineOptions, IdempotencyOptions, RetryOptions
from towline._registered import (
    DRAIN_COUNT,
    PUMP_POLL_US,
    AtOpen,
    F,
    Ordering,
    Registered,
    Topics,
    noted,
    running_in,
)
from towline._saga import S, SagaDefinition, checked
from towline._saga_runner import SagaRunner
from towline._sagas import Sagas
from towline._sync_engine import SyncEngine
from towline.records import Receipt

if TYPE_CHECKING:
    from typing import Self, Unpack

    from towline.testing import VirtualClock

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class Engine(Calls):
    """One engine: `async with Engine("sqlite:orders.db") as engine:` for asyncio, or
    `with Engine("sqlite:orders.db") as engine:` for the synchronous twin, which has the same names.

    `url`: `memory:`, `memory:name`, `sqlite:path`. Options are those of docs/OPTIONS.md under Engine; times
    are seconds or timedeltas. Handlers registered with `consumer` start when it opens. Of one event loop;
    every method is for that loop. Log records go to `logging.getLogger("towline")`; its level when
    the engine opens decides which are made at all.

    Every call from another event loop or thread raises `InvalidArgumentError` and changes nothing; from a
    thread use `asyncio.run_coroutine_threadsafe`, or the synchronous twin, which is for all threads. Once its
    loop has ended it can be closed from any other.
    """

    def __init__(
        self, url: str, *, clock: VirtualClock | None = None, **options: Unpack[EngineOptions]
    ) -> None:
        if not isinstance(url, str):
            raise errors.InvalidUrlError(
                f"url is {records.shown(url)}, but must be a text, such as 'sqlite:orders.db' or 'memory:'"
            )
        self._url = url
        self._clock = clock
        self._texts = texts_of("Engine", options)
        self._at_open = AtOpen()
        self._alert_listeners: list[Callable[[dict[str, Any]], None]] = []
        self._reset()

    def _reset(self) -> None:
        """As it is before it opens. It opens once, but for tests (testing.py)."""
        self._twin: SyncEngine | None = None
        self._native: Native | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._consumers: dict[int, Consumer] = {}
        self._running: dict[int, Run] = {}
        # What subscriptions hold unsettled, by number.
        self._pulled: dict[int, Subscription] = {}
        # What has become of whom, to be told together.
        self._finished: tuple[list[int], list[OutcomeTuple]] = ([], [])
        self._executor: ThreadPoolExecutor | None = None
        self._closing: asyncio.Task[int] | None = None
        self._background: set[asyncio.Future[Any]] = set()
        self._events = EventStore(self)
        self._conversations = Conversations(self)
        self._sagas = Sagas(self)
        self._saga_runners: dict[int, SagaRunner] = {}
        self._saga_calls: dict[int, asyncio.Task[OutcomeTuple]] = {}
        # Subscriptions to events that have a handler.
        self._event_handlers: dict[int, EventSubscription] = {}
        # Of consumers and the like whose starting is not answered yet.
        self._starting: dict[int, asyncio.Future[Any]] = {}

    # ---- consumers ------------------------------------------------------------------------------------

    def consumer(
        self,
        topics: Topics,
        *,
        ordering: Ordering = "none",
        batch: bool = False,
        **options: Unpack[ConsumerOptions],
    ) -> Callable[[F], F]:
        """Registers the decorated function: it handles the messages of `topics` (names or patterns: `*` one
        word, `#` any number) once the engine is open, up to `concurrency` at once.

        The function is `async def`, or `def`, which runs in a thread. Its first parameter gets the payload as
        its annotation says, without one by content type; one annotated as `Message` gets the message.
        Returning acknowledges, raising fails the attempt; `Retry`, `Reject` and `Defer` say more. A payload
        that cannot be read becomes a dead letter at once.

        A payload is read as: bytes, str; int, float, bool, None; list, tuple, set, frozenset, dict and their
        abstract kinds, of any of these; dataclasses, TypedDict, pydantic and msgspec models; datetime, date
        and time (ISO 8601), timedelta (seconds), UUID, Decimal, Enum (its value), Literal; `X | Y`, the first
        that fits. Raises `TypeError` for what can never be read.

        `batch`: the function gets up to `batch_count_max` messages at once, as `list[Order]` or
        `list[Message]`, and up to `concurrency` batches run at once. Returning acknowledges all of them,
        raising fails all of them, except those that it settled with `message.ack()` and its like.
        """

        def register(function: F) -> F:
            self._at_open.consumers.append(Registered(topics, Handler(function, batch), ordering, options))
            return function

        return register

    async def consume(
        self,
        topics: Topics,
        handler: Callable[..., Any],
        *,
        ordering: Ordering = "none",
        batch: bool = False,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer:
        """Starts a consumer now, with a handler as `consumer` takes it."""
        consumer = Consumer(self, Registered(topics, Handler(handler, batch), ordering, options))
        await self._start(consumer)
        return consumer

    def subscribe(
        self, topics: Topics, *, ordering: Ordering = "none", **options: Unpack[ConsumerOptions]
    ) -> Subscription:
        """Messages one by one, settled by hand; at most `concurrency` (default 100) are out at once. It
        starts with the first message asked for, or with `async with`."""
        pulled: dict[str, Any] = {"concurrency": 100, **options, "ack": "manual"}
        return Subscription(self, Registered(topics, None, ordering, pulled))

    @property
    def event_store(self) -> EventStore:
        """The event store."""
        return self._events

    @property
    def conversations(self) -> Conversations:
        """The conversations."""
        return self._conversations

    @property
    def sagas(self) -> Sagas:
        """The sagas."""
        return self._sagas

    def event_handler(
        self,
        name: str,
        *,
        stream: str = "",
        types: Sequence[str] = (),
        from_end: bool = False,
        batch_count_max: int = 100,
        retry: RetryOptions | None = None,
    ) -> Callable[[F], F]:
        """Registers the decorated function: once the engine is open it follows the events of the event store
        under this name. Takes what `event_store.subscribe` takes."""
        options = {
            "stream": stream,
            "types": types,
            "from_end": from_end,
            "batch_count_max": batch_count_max,
            "retry": retry,
        }

        def register(function: F) -> F:
            self._at_open.event_handlers.append((name, function, options))
            return function

        return register

    def saga(self, saga: S) -> S:
        """Registers a definition, and returns it: once the engine is open it runs its sagas, as `run_saga`
        does. Its steps may follow: `order = engine.saga(Saga("order"))`, then `@order.step("charge")`."""
        self._at_open.sagas.append(checked(saga))
        return saga

    def run_saga(self, saga: SagaDefinition) -> SagaRunner:
        """Runs sagas of this definition that anybody starts, up to its `concurrency` at once, from
        `async with engine.run_saga(order)` or `await engine.run_saga(order)` on. Raises `InvalidSagaError`,
        `InvalidConfigError`, `DefinitionMismatchError` (unfinished sagas of this type and version began under
        other steps; give the new ones a new version, and run both until the old ones are done)."""
        return SagaRunner(self, saga)

    def on_alert(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """`listener` is called in the loop with each alert, a dictionary: `kind` ("depth", "age", "rate",
        "new_fingerprint" or "entry" of dead letters, or "saga_stuck"), `recovered` (the condition has ended),
        `value`, `limit`, `topic`, `fingerprint`, `saga_type`, `saga_id`, `saga_step`."""
        self._alert_listeners.append(listener)

    async def _start(self, consumer: Consumer) -> None:
        port = self._check().port
        arguments = consumer._registered.native_arguments
        await self._start_among(self._consumers, consumer, port.consume, *arguments)

    async def _start_saga_runner(self, runner: SagaRunner) -> None:
        port = self._check().port
        await self._start_among(self._saga_runners, runner, port.run_saga, runner._saga._native())

    async def _start_event_handler(
        self, subscription: EventSubscription, texts: list[tuple[str, str]]
    ) -> None:
        port = self._check().port
        await self._start_among(self._event_handlers, subscription, port.handle_events, texts)

    async def _start_among(
        self, running: dict[int, Any], one: Any, method: Callable[..., Any], *arguments: Any
    ) -> None:
        one._id = next(self._check().ids)
        # Before it starts: its first work may come before the answer.
        running[one._id] = one
        try:
            starting = self._request(method, one._id, *arguments)
            waiting = self._starting[one._id] = asyncio.shield(starting)
            one._native = await waiting
        except asyncio.CancelledError:
            running.pop(one._id, None)
            starting.add_done_callback(self._close_unwanted)
            raise
        except BaseException:
            running.pop(one._id, None)
            raise
        finally:
            self._starting.pop(one._id, None)

    def _wanted(self, running: dict[int, A], number: int) -> A | None:
        """None: all is closed, or whoever started it was cancelled, if only a moment ago: its task runs
        later than that, and work may come in between."""
        starting = self._starting.get(number)
        if self._is_closed() or (starting is not None and starting.cancelled()):
            return None
        return running.get(number)

    def _close_unwanted(
        self, starting: asyncio.Future[_core.Consumer | _core.SagaRunner | _core.EventSubscription]
    ) -> None:
        """Whoever started it was cancelled: it must not go on taking what there is to do."""
        if starting.cancelled() or starting.exception() is not None or self._is_closed():
            return
        started = starting.result()
        if isinstance(started, _core.EventSubscription):
            self._keep(self._request(started.abandon))
        else:
            self._keep(self._request(started.close, 0))

    def _keep(self, future: asyncio.Future[Any]) -> None:
        """Until it is done, in the background."""
        self._background.add(future)
        future.add_done_callback(self._background.discard)

    # ---- opening and closing --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Opens the store and starts what was registered; when that fails it may be called again. Raises
        `InvalidUrlError`, `InvalidConfigError` and what the provider says."""
        if self._native is not None:
            raise errors.InvalidArgumentError("the engine is open already, or was; make another one")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        native = self._native = Native()
        try:
            self._loop.add_reader(native.port.fileno(), self._fetch)
        except NotImplementedError:  # a loop that knows no file descriptors
            native.start_pump(self._pump_main)
        try:
            clock = None if self._clock is None else self._clock._native
            await self._request(native.port.open, self._url, self._texts, clock)
            for registered in self._at_open.consumers:
                with registered.told():
                    await self._start(Consumer(self, registered))
            for name, function, options in self._at_open.event_handlers:
                await self._events.subscribe(name, function, **options)
            for saga in self._at_open.sagas:
                await self.run_saga(saga)
        except BaseException:
            await self.close(0)
            self._reset()  # it may be tried again
            raise

    async def close(self, timeout: Span | None = None) -> int:
        """Stops intake, waits for handlers up to `timeout` (default: drain_timeout), gives back the rest,
        settles and closes the store. Idempotent; who has less time than whoever closes already hurries it.
        Returns the number of handlers that have not ended. Inside a handler it returns at once, and the rest
        happens later. When its event loop has ended, it closes from any other, and waits for no handler."""
        if self._native is None or self._native.forked:
            return 0
        # A timeout that is none is refused before anything is closed.
        limit = None if timeout is None else records.seconds_to_us(timeout)
        if asyncio.get_running_loop() is not self._loop:
            return await self._close_elsewhere(self._native)
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(limit))
        elif limit is not None and not self._native.closed:  # hurries the one who closes already
            hurrying = self._request(self._native.port.close, limit)
            hurrying.add_done_callback(noted)
        return await self._later_inside_a_handler(self._closing)

    async def _close(self, limit: int | None) -> int:
        native = self._native
        assert native is not None
        for consumer in list(self._consumers.values()):
            if isinstance(consumer, Subscription):
                consumer._end()
        # Whoever was cancelled by somebody else before it began would be waited for.
        for run in set(self._running.values()):
            if run.task.done():
                run.give_up()
        stuck: int = 0
        try:
            if not native.closed:
                stuck = await self._request(native.port.close, limit)
        finally:
            native.closed = True
            for run in set(self._running.values()):
                run.stop()
            for task in list(self._saga_calls.values()):
                task.cancel()
            for subscription in list(self._event_handlers.values()):
                subscription._give_up()
            await asyncio.shield(self._loop.run_in_executor(None, native.shut))
            while self._fetch():  # what was answered while its threads ended
                pass
            if native.pump is None:
                self._loop.remove_reader(native.port.fileno())
            for future in self._requests.values():
                if not future.done():
                    future.set_exception(errors.ClosedError("the engine was closed before the answer came"))
            self._requests.clear()
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
        return stuck

    async def _close_elsewhere(self, native: Native) -> int:
        """In another loop, when that of the engine runs no more."""
        if self._loop.is_running():
            if native.closed:
                return 0
            raise self._not_here()
        is_first, native.closed = not native.closed, True

        def close() -> int:
            # Handlers cannot go on without their loop, so there is nothing to wait for: all goes back.
            stuck = native.port.close(None, 0) if is_first else 0
            native.shut()
            return stuck

        stuck = await asyncio.to_thread(close)
        self._requests.clear()  # who waited ended with the loop
        if native.pump is None and not self._loop.is_closed():
            self._loop.remove_reader(native.port.fileno())
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        return stuck

    async def _later_inside_a_handler(self, closing: Any) -> int:
        future = asyncio.ensure_future(closing)
        if running_in.get() is not self:
            return int(await asyncio.shield(future))
        self._keep(future)
        return 0

    def __enter__(self) -> SyncEngine:
        self._twin = SyncEngine(self._url, self._clock, self._texts, self._at_open)
        self._twin._enter()
        return self._twin

    def __exit__(self, *_: object) -> None:
        assert self._twin is not None
        self._twin.close()

    def findings(self) -> list[str]:
        """What the provider found at opening, one sentence each."""
        return self._alive().port.findings()

    # ---- requests and events --------------------------------------------------------------------------

    def _alive(self) -> Native:
        if self._native is None:
            raise errors.ClosedError("the engine is not open; use `async with`, or open()")
        self._native.check()
        return self._native

    def _check(self) -> Native:
        """For all that is asked of the engine: its answers come in its loop, and nowhere else."""
        native = self._alive()
        if asyncio._get_running_loop() is not self._loop:
            raise self._not_here()
        return native

    def _not_here(self) -> errors.InvalidArgumentError:
        if not self._loop.is_running():
            return errors.InvalidArgumentError(
                "this engine belongs to another event loop, which has ended; close() it, and open another "
                "engine in this one"
            )
        return errors.InvalidArgumentError(
            "this engine belongs to another event loop; hand the call to that with "
            "asyncio.run_coroutine_threadsafe(), or use the synchronous twin, `with Engine(...)`, which is "
            "for all threads"
        )

    def _is_closed(self) -> bool:
        return self._native is None or self._native.closed or self._native.forked

    def _request(self, method: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """An answer that comes as an event. A method of the port, or one of a consumer, which wants the
        port."""
        return self._ask(self._check(), method, *arguments)

    def _ask(self, native: Native, method: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        number = next(native.ids)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._requests[number] = future
        try:
            if isinstance(getattr(method, "__self__", None), type(native.port)):
                method(number, *arguments)
            else:
                method(native.port, number, *arguments)
        except BaseException:
            del self._requests[number]
            raise
        return future

    async def _call(self, name: str, *arguments: Any) -> Any:
        native = self._check()
        return await self._ask(native, getattr(native.port, name), *arguments)

    async def _begin(self, key: str, texts: list[tuple[str, str]]) -> Any:
        beginning = self._request(self._check().port.begin, key, texts)
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(self._give_key_back)
            raise

    def _give_key_back(self, beginning: asyncio.Future[Any]) -> None:
        """Whoever asked for the key was cancelled before the answer came."""
        if beginning.cancelled() or beginning.exception() is not None or self._is_closed():
            return
        kind, token, *_ = beginning.result()
        if kind == ACQUIRED:
            self._keep(self._request(self._check().port.fail, token))

    @overload
    async def once(
        self, key: str, run: Callable[[], Awaitable[T]], **options: Unpack[IdempotencyOptions]
    ) -> T: ...
    @overload
    async def once(self, key: str, run: Callable[[], T], **options: Unpack[IdempotencyOptions]) -> T: ...
    async def once(self, key: str, run: Callable[[], Any], **options: Unpack[IdempotencyOptions]) -> Any:
        """Runs `run` unless this key has a result, and returns the result: what JSON knows, or bytes. Single
        flight among callers and processes; a run that raises leaves the key free. None, 0, False and "" are
        results. A plain function runs in a thread, to its end also when the caller is cancelled.

        The result is what was stored, read as the function's return annotation says, the first time as any
        other: `-> Order` gives an Order; without one a dataclass is a dict, a tuple a list, and a name in a
        dict a str.

        `wait_max`: how long to wait for another caller's run. Raises `InProgressError` beyond that,
        `KeyMismatchError` (another `fingerprint`), `LeaseLostError` (it took longer than `lease`, and
        somebody else has the key now), `PayloadError` and `PayloadTooLargeError` (it ran, and its result
        could not be kept), `PayloadError` (the result that is kept cannot be read as the annotation says)."""
        return await self._once(key, run, options)

    async def _run_once(
        self, key: str, run: Callable[[], Any], token: Any, texts: list[tuple[str, str]]
    ) -> tuple[bytes, str]:
        if is_coroutine_function(run):
            return await super()._run_once(key, run, token, texts)

        async def in_thread() -> Any:
            value = await asyncio.to_thread(run)
            return await value if inspect.isawaitable(value) else value

        # A thread cannot be taken away from it: what it did is kept, and nobody else begins meanwhile.
        running = asyncio.ensure_future(super()._run_once(key, in_thread, token, texts))
        self._keep(running)
        running.add_done_callback(noted)
        return await asyncio.shield(running)

    async def _publish(self, messages: list[Any]) -> list[Receipt]:
        native = self._check()
        receipts: list[Receipt] = await self._ask(native, native.port.publish, messages, fields_of)
        return receipts

    def _fetch(self) -> bool:
        """Whether there was anything."""
        native = self._native
        if native is None or native.forked:
            return False
        events = native.port.drain(DRAIN_COUNT)
        for event in events:
            try:
                self._note(event)
            except Exception:  # such as a logging handler's
                _native.note_failure("an event could not be handled")
        return bool(events)

    def _note(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == DELIVERY:
            self._deliver(event[1], event[2], event[3], event[4])
        elif kind in (REPLY, RECEIPTS):
            self._answer(event)
        elif kind == STOP:
            if run := self._running.get(event[1]):
                run.stop_one()
            elif subscription := self._pulled.get(event[1]):
                subscription._forget(event[1])
                self._settled(event[1])
        elif kind == EVENTS:
            self._handle_events(event[1], event[2])
        elif kind == SAGA_CALLS:
            self._run_saga_calls(event[1], event[2])
        elif kind == SAGA_STOP:
            if task := self._saga_calls.get(event[1]):
                task.cancel()
        elif kind == LOG:
            _native.note_log(event)
        elif kind == ALERT:
            for listener in self._alert_listeners:
                self._loop.call_soon(listener, event[1])

    def _deliver(
        self, consumer_id: int, numbers: list[int], messages: list[Message], batch_left: int
    ) -> None:
        consumer = self._wanted(self._consumers, consumer_id)
        try:
            if consumer is not None:
                return consumer._handle(numbers, messages, batch_left)
        except Exception:
            _native.note_failure("a handler could not be started")
        # Whoever runs all the same is finished already when it ends.
        self._finish(numbers, [RELEASED] * len(numbers))

    def _handle_events(self, subscription_id: int, raw: list[tuple[Any, ...]]) -> None:
        subscription = self._wanted(self._event_handlers, subscription_id)
        if subscription is not None:
            subscription._handle(raw)
        elif self._native is not None:
            self._native.port.finish_events(subscription_id, GIVEN_UP)

    def _run_saga_calls(self, runner_id: int, calls: list[_core.SagaCall]) -> None:
        # Whoever is not run gives itself back.
        if runner := self._wanted(self._saga_runners, runner_id):
            for call in calls:
                runner._handle(call)

    def _answer(self, event: tuple[Any, ...]) -> None:
        future = self._requests.pop(event[1], None)
        if future is None or future.done():  # whoever waited was cancelled
            return
        if event[2]:
            future.set_result(event[3])
        else:
            future.set_exception(event[3])

    def _returned(self, numbers: list[int], outcomes: list[OutcomeTuple]) -> None:
        for number in numbers:
            self._running.pop(number, None)
        self._finish(numbers, outcomes)

    async def _run_in_thread(
        self, context: contextvars.Context, handler: Handler, messages: list[Message], over: Over
    ) -> None:
        outcomes = released = [RELEASED] * len(messages)
        try:
            outcomes = await self._in_thread(context, released, handler.run, messages)
        finally:
            over(outcomes)

    def _settled(self, number: int, outcome: OutcomeTuple = ACKED) -> None:
        if self._loop.is_closed():  # nobody hands anything out any more
            return
        if threading.get_ident() != self._thread:  # in asyncio.to_thread(message.transaction, ...)
            self._loop.call_soon_threadsafe(self._settled, number, outcome)
        elif self._pulled.pop(number, None) is not None:
            self._finish([number], [outcome])

    def _finish(self, numbers: list[int], outcomes: list[OutcomeTuple]) -> None:
        if not self._finished[0]:
            try:
                self._loop.call_soon(self._hand_back)
            except RuntimeError:  # the loop has ended
                return
        self._finished[0].extend(numbers)
        self._finished[1].extend(outcomes)

    def _hand_back(self) -> None:
        finished, self._finished = self._finished, ([], [])
        if self._native is not None and not self._native.forked:
            self._native.port.finish(*finished)

    async def _in_thread(
        self, context: contextvars.Context, released: R, function: Callable[[A], R], argument: A
    ) -> R:
        # Stopping waits for the thread: it cannot be taken away, and its place is not free before.
        done = self._loop.run_in_executor(self._threads(), context.copy().run, function, argument)
        while True:
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                if done.cancelled() or self._is_closed():
                    return released

    def _threads(self) -> ThreadPoolExecutor:
        wanted = max(self._thread_count(), 1)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(wanted, thread_name_prefix="towline-handler")
        elif wanted > self._executor._max_workers:
            self._executor._max_workers = wanted
        return self._executor

    def _thread_count(self) -> int:
        of_consumers = sum(
            one._registered.concurrency
            for one in self._consumers.values()
            if one._registered.handler is not None and not one._registered.handler.is_async
        )
        of_sagas = sum(one._thread_count() for one in self._saga_runners.values())
        return of_consumers + of_sagas + sum(one._thread_count() for one in self._event_handlers.values())

    def _pump_main(self) -> None:
        assert self._native is not None
        native = self._native
        while not native.closed and not native.forked:
            if native.port.poll(PUMP_POLL_US):
                fetched = threading.Event()
                try:
                    self._loop.call_soon_threadsafe(self._fetch_and_tell, fetched)
                except RuntimeError:  # the loop has ended, and the engine is yet to be closed
                    return
                fetched.wait(1)

    def _fetch_and_tell(self, fetched: threading.Event) -> None:
        self._fetch()
        fetched.set()
