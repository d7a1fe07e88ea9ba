// A plain program without any queue: one table and one index, insert, claim and delete in transactions of
// 1,000, on one thread, durable on power loss. What is left of SQLite's speed in JavaScript.
//
//     node better_sqlite3.mjs <file> <count>

import Database from "better-sqlite3";

import { measured } from "./measured.mjs";

const [file, countText] = process.argv.slice(2);
const BATCH = 1_000;
const database = new Database(file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.pragma("cache_size = -65536");
database.exec(`
  CREATE TABLE message(id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, due_us INTEGER NOT NULL,
    attempts INTEGER NOT NULL, payload BLOB NOT NULL);
  CREATE INDEX message_due ON message(queue, due_us)`);
const insert = database.prepare("INSERT INTO message(queue, due_us, attempts, payload) VALUES (1, ?, 0, ?)");
const claim = database.prepare(`
  UPDATE message SET due_us = ?, attempts = attempts + 1 WHERE id IN (SELECT id FROM message
    WHERE queue = 1 AND due_us <= ? ORDER BY due_us LIMIT ?) RETURNING id, payload`);
const remove = database.prepare("DELETE FROM message WHERE id = ?");
const payload = Buffer.alloc(256, "p");

const insertAll = database.transaction((now) => {
  for (let i = 0; i < BATCH; i += 1) insert.run(now, payload);
});
const claimAll = database.transaction((now) => claim.all(now + 30_000_000, now, BATCH));
const removeAll = database.transaction((rows) => {
  for (const { id } of rows) remove.run(id);
});

await measured(Number(countText), (count) => {
  let bytes = 0;
  for (let handled = 0; handled < count; ) {
    const now = Date.now() * 1_000;
    insertAll(now);
    const rows = claimAll(now);
    for (const row of rows) bytes += row.payload.length;
    removeAll(rows);
    handled += rows.length;
  }
  if (bytes !== count * payload.length) throw new Error("bytes were lost");
});
database.close();
