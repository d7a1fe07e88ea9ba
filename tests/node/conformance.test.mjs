// The conformance list through the package, over each provider; see conformance/harness.mjs.

import "./conformance/publish.mjs";
import "./conformance/consume.mjs";
import "./conformance/groups.mjs";
import "./conformance/order.mjs";
import "./conformance/retry.mjs";
import "./conformance/dead_letters.mjs";
import "./conformance/delay.mjs";
import "./conformance/idempotency.mjs";
import "./conformance/events.mjs";
import "./conformance/outbox.mjs";
import "./conformance/conversations.mjs";
import "./conformance/sagas.mjs";
import "./conformance/choreographies.mjs";
import "./conformance/limits.mjs";
import "./conformance/features.mjs";
import "./conformance/lifecycle.mjs";
import "./conformance/crash.mjs";
import "./conformance/bad_messages.mjs";
import "./conformance/bad_options.mjs";
import "./conformance/bad_arguments.mjs";
