// Takes orders: each order and its event are inserted in one transaction.
//
//     app.mjs [N]    takes N orders (100 unless given); every fifth one is rolled back
//
// DATABASE_URL names the database, in which `evbus init` has made the table evbus.outbox.

import pg from "pg";

const TABLE = `
CREATE TABLE IF NOT EXISTS orders (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    total integer NOT NULL
)`;

/** Inserts an order and its event: both, or neither. */
async function takeOrder(client, total, isRefused) {
  await client.query("BEGIN");
  try {
    const order = await client.query("INSERT INTO orders (total) VALUES ($1) RETURNING id", [total]);
    await client.query("INSERT INTO evbus.outbox (type, subject, data) VALUES ($1, $2, $3)", [
      "order.created",
      `orders/${order.rows[0].id}`,
      { total },
    ]);
  } catch (error) {
    // The first error is the one to tell, also where the connection is gone.
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
  await client.query(isRefused ? "ROLLBACK" : "COMMIT");
}

const count = Number(process.argv[2] ?? 100);
// A transaction needs one connection: of a pool, `await pool.connect()`, and not `pool.query`.
const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
try {
  await client.query(TABLE);
  let committed = 0;
  let rolledBack = 0;
  for (let number = 1; number <= count; number += 1) {
    const isRefused = number % 5 === 0;
    await takeOrder(client, number, isRefused);
    if (isRefused) rolledBack += 1;
    else committed += 1;
  }
  console.log(`committed ${committed}, rolled back ${rolledBack}`);
} finally {
  await client.end();
}
