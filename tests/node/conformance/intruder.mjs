// What a user's program cannot do to a store, done behind the engine's back by a process with an SQLite of its
// own: never in this one, where the engine has the file open.

import { start } from "../support.mjs";
import { until } from "./tools.mjs";

function intruder(stage, sql) {
  return start("python3", ["-c", `
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
connection.execute(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
`, stage.path, sql]);
}

async function running(stage, sql) {
  const program = intruder(stage, sql);
  await until(() => program.out().includes("ready"), sql);
  return program;
}

async function end(program) {
  program.child.stdin.end();
  const { code, err } = await program.done;
  if (code !== 0) throw new Error(err);
}

/** Every writer of the store waits while `body` runs. */
export async function holdingStore(stage, body) {
  const program = await running(stage, "BEGIN IMMEDIATE");
  try {
    await body();
  } finally {
    await end(program);
  }
}

/** The stored bytes of the oldest message of a topic no longer decode. */
export async function damageMessage(stage, topic) {
  await end(await running(stage, `
    UPDATE message SET extras = x'ff00ff00ff00ff00', payload = CASE WHEN count IS NULL THEN payload ELSE
    substr(payload, 1, 2) || x'ffffffffffffffffffff' || substr(payload, 13) END
    WHERE seq = (SELECT min(seq) FROM message, log, topic
    WHERE seq >> 40 = log.id AND log.topic_id = topic.id AND topic.name = '${topic}')`));
}
