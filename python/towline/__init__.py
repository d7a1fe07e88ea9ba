"""towline: messages stay attached. Delayed messages, retry, dead letters, idempotency, order per key and
consumer groups, in one engine that runs inside your process, over the store you already have.

    from towline import Engine

    engine = Engine("sqlite:orders.db")

    @engine.consumer("orders", group="billing", ordering="key")
    async def bill(order: Order) -> None: ...

    async with engine:
        await engine.publish("orders", Order(id="1"), key="customer-9", delay=10)
"""

from towline._choreography import Choreography
from towline._consumer import Consumer, Subscription
from towline._conversations import ConversationFeed, Conversations
from towline._engine import Engine
from towline._event_subscription import EventSubscription, SyncEventSubscription
from towline._events import EventStore
from towline._limiter import Limiter, LimiterStatistics, Permit
from towline._message import Defer, Message, Reject, Retry, Transaction
from towline._payload import PayloadError
from towline._saga import Saga, SagaCall, SagaStep
from towline._saga_runner import SagaRunner, SyncSagaRunner
from towline._sagas import Sagas
from towline._sync_conversations import SyncConversationFeed, SyncConversations
from towline._sync_engine import SyncConsumer, SyncEngine, SyncSubscription
from towline._sync_events import SyncEventStore
from towline._sync_sagas import SyncSagas
from towline.errors import TowlineError
from towline.records import (
    Appended,
    AppendedMessage,
    BlockedKey,
    CatchUp,
    ConsumerStatistics,
    ConversationGap,
    ConversationMessage,
    ConversationPage,
    DeadLetter,
    DeadLetterGroup,
    EngineStatistics,
    EventPage,
    EventSubscriptionStatistics,
    GroupBacklog,
    Health,
    MissedConversation,
    NewEvent,
    Page,
    Receipt,
    RecordedEvent,
    RedriveReport,
    SagaEntry,
    SagaInfo,
    SagaResult,
    SagaRunnerStatistics,
    SagaStarted,
    Scheduled,
    Snapshot,
    StreamInfo,
)

__version__ = "0.1.0"

__all__ = [
    "Appended",
    "AppendedMessage",
    "BlockedKey",
    "CatchUp",
    "Choreography",
    "Consumer",
    "ConsumerStatistics",
    "ConversationFeed",
    "ConversationGap",
    "ConversationMessage",
    "ConversationPage",
    "Conversations",
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
    "MissedConversation",
    "NewEvent",
    "Page",
    "PayloadError",
    "Permit",
    "Receipt",
    "RecordedEvent",
    "RedriveReport",
    "Reject",
    "Retry",
    "Saga",
    "SagaCall",
    "SagaEntry",
    "SagaInfo",
    "SagaResult",
    "SagaRunner",
    "SagaRunnerStatistics",
    "SagaStarted",
    "SagaStep",
    "Sagas",
    "Scheduled",
    "Snapshot",
    "StreamInfo",
    "Subscription",
    "SyncConsumer",
    "SyncConversationFeed",
    "SyncConversations",
    "SyncEngine",
    "SyncEventStore",
    "SyncEventSubscription",
    "SyncSagaRunner",
    "SyncSagas",
    "SyncSubscription",
    "TowlineError",
    "Transaction",
]
