"""towline: messages stay attached. Delayed messages, retry, dead letters, idempotency, order per key and
consumer groups, in one engine that runs inside your process, over the store you already have.

    from towline import Engine

    engine = Engine("sqlite:orders.db")

    @engine.consumer("orders", group="billing", ordering="key")
    async def bill(order: Order) -> None: ...

    async with engine:
        await engine.publish("orders", Order(id="1"), key="customer-9", delay=10)
"""

from towline._engine import Consumer, Engine, Subscription
from towline._event_subscription import EventSubscription, SyncEventSubscription
from towline._events import EventStore
from towline._limiter import Limiter, LimiterStatistics, Permit
from towline._message import Defer, Message, Reject, Retry, Transaction
from towline._payload import PayloadError
from towline._sync_engine import SyncConsumer, SyncEngine, SyncSubscription
from towline._sync_events import SyncEventStore
from towline.errors import TowlineError
from towline.records import (
    Appended,
    BlockedKey,
    ConsumerStatistics,
    DeadLetter,
    DeadLetterGroup,
    EngineStatistics,
    EventPage,
    EventSubscriptionStatistics,
    GroupBacklog,
    Health,
    NewEvent,
    Page,
    Receipt,
    RecordedEvent,
    RedriveReport,
    Scheduled,
    Snapshot,
    StreamInfo,
)

__version__ = "0.1.0"

__all__ = [
    "Appended",
    "BlockedKey",
    "Consumer",
    "ConsumerStatistics",
    "DeadLetter",
    "DeadLetterGroup",
    "Defer",
    "Engine",
    "EngineStatistics",
    "EventPage",
    "EventStore",
    "EventSubscription",
    "EventSubscriptionStatistics",
    "GroupBacklog",
    "Health",
    "Limiter",
    "LimiterStatistics",
    "Message",
    "NewEvent",
    "Page",
    "PayloadError",
    "Permit",
    "Receipt",
    "RecordedEvent",
    "RedriveReport",
    "Reject",
    "Retry",
    "Scheduled",
    "Snapshot",
    "StreamInfo",
    "Subscription",
    "SyncConsumer",
    "SyncEngine",
    "SyncEventStore",
    "SyncEventSubscription",
    "SyncSubscription",
    "TowlineError",
    "Transaction",
]
