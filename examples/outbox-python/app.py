"""Takes orders: each order and its event are inserted in one transaction.

    app.py [N]    takes N orders (100 unless given); every fifth one is rolled back

DATABASE_URL names the database, in which `evbus init` has made the table evbus.outbox.
"""

import os
import sys

import psycopg
from psycopg.types.json import Json

TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    total integer NOT NULL
)
"""


def take_order(connection, total, is_refused):
    """Inserts an order and its event: both, or neither."""
    with connection.transaction():
        row = connection.execute("INSERT INTO orders (total) VALUES (%s) RETURNING id", [total]).fetchone()
        connection.execute(
            "INSERT INTO evbus.outbox (type, subject, data) VALUES (%s, %s, %s)",
            ["order.created", f"orders/{row[0]}", Json({"total": total})],
        )
        if is_refused:
            raise psycopg.Rollback


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    committed = rolled_back = 0
    # With autocommit a `with connection.transaction()` is a transaction, and not a savepoint within one.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(TABLE)
        for number in range(1, count + 1):
            is_refused = number % 5 == 0
            take_order(connection, total=number, is_refused=is_refused)
            if is_refused:
                rolled_back += 1
            else:
                committed += 1
    print(f"committed {committed}, rolled back {rolled_back}")


main()
