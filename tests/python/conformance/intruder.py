"""Another program that opens the file of a store: takes the write lock, runs one statement, prints its rows
as a line of JSON, and lets go when its input ends.

    intruder.py PATH SQL
"""

from __future__ import annotations

import json
import sqlite3
import sys


def main() -> None:
    path, sql = sys.argv[1:]
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    rows = [
        [value.hex() if isinstance(value, bytes) else value for value in row]
        for row in connection.execute(sql).fetchall()
    ]
    print(json.dumps(rows), flush=True)
    sys.stdin.read()
    connection.execute("COMMIT")
    connection.close()


main()
