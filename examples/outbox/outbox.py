"""Publishes what a database has committed, and nothing else: an outbox.

A transaction that changes something also writes the event into the table `outbox`. A relay reads that table and publishes:
so an event is published if and only if its transaction was committed, whatever crashes in between. SQLite here; it works
the same in every database that has transactions.
"""

import json
import os
import sqlite3
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

HUB = os.environ.get("RINGSIDE_URL", "http://127.0.0.1:3000")

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
  topic TEXT NOT NULL,
  data TEXT NOT NULL
);
"""


def place_order(db: sqlite3.Connection, item: str) -> None:
    """Stores an order and its event, both or neither."""
    with db:
        order = db.execute("INSERT INTO orders (item) VALUES (?)", (item,)).lastrowid
        event = json.dumps({"order": order, "item": item})
        db.execute("INSERT INTO outbox (topic, data) VALUES ('orders', ?)", (event,))


def relay(db: sqlite3.Connection) -> None:
    """Publishes what waits, the oldest first. Run one relay at a time: that keeps the order."""
    for id, key, topic, data in db.execute("SELECT id, key, topic, data FROM outbox ORDER BY id").fetchall():
        publish(topic, data, key)
        with db:
            # a crash before this line publishes it again, with the same key, which Ringside stores once
            db.execute("DELETE FROM outbox WHERE id = ?", (id,))


def publish(topic: str, data: str, key: str) -> None:
    """Returns once Ringside has stored it; waits while it can't. What it refuses for good raises an HTTPError."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    while True:
        try:
            urlopen(Request(f"{HUB}/events/{quote(topic)}", data.encode(), headers), timeout=10).close()
            return
        except HTTPError as error:
            if error.code not in (429, 503):
                raise
            time.sleep(int(error.headers.get("Retry-After", 1)))
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(1)


if __name__ == "__main__":
    # python3 outbox.py FILE order ITEM, and python3 outbox.py FILE relay
    database = sqlite3.connect(sys.argv[1])
    database.executescript(SCHEMA)
    if sys.argv[2] == "order":
        place_order(database, sys.argv[3])
    else:
        relay(database)
