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
from towline._limiter import Limiter, LimiterStatistics, Permit
from towline._message import Defer, Message, Reject, Retry, Transaction
from towline._payload import PayloadError
from towline._sync_engine import SyncConsumer, SyncEngine, SyncSubscription
from towline.errors import TowlineError
from towline.records import (
    BlockedKey,
    ConsumerStatistics,
    DeadLetter,
    DeadLetterGroup,
    EngineStatistics,
    GroupBacklog,
    Health,
    Page,
    Receipt,
    RedriveReport,
    Scheduled,
)

__version__ = "0.1.0"

__all__ = [
    "BlockedKey",
    "Consumer",
    "ConsumerStatistics",
    "DeadLetter",
    "DeadLetterGroup",
    "Defer",
    "Engine",
    "EngineStatistics",
    "GroupBacklog",
    "Health",
    "Limiter",
    "LimiterStatistics",
    "Message",
    "Page",
    "PayloadError",
    "Permit",
    "Receipt",
    "RedriveReport",
    "Reject",
    "Retry",
    "Scheduled",
    "Subscription",
    "SyncConsumer",
    "SyncEngine",
    "SyncSubscription",
    "TowlineError",
    "Transaction",
]
