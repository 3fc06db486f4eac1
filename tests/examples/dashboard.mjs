// The dashboard of the examples in a real Chromium: dashboard.mjs LIBRARIES PORT BUS. A web server at the port gives the
// page out. Emits events while it looks.
import { createRequire } from "node:module";
import { join } from "node:path";

const [libraries, port, bus] = process.argv.slice(2);
const { chromium } = createRequire(join(libraries, "node_modules/"))("playwright-core");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

async function open(host) {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`http://${host}:${port}/?bus=${encodeURIComponent(bus)}`);
  return page;
}

async function emit(data) {
  const answer = await fetch(`${bus}/events?type=backup.done`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data),
  });
  if (answer.status !== 202) throw new Error(`${answer.status}`);
}

try {
  await emit({ host: "db1", rc: 1 });
  const page = await open("localhost");
  await page.locator("tbody tr").first().waitFor();
  const before = await page.locator("tbody tr").allInnerTexts();
  await emit({ host: "<b>web</b>", rc: 0 });
  await emit({ host: "db1", rc: 0 });
  await page.locator("tbody tr", { hasText: "<b>web</b>" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".bad").length === 0);
  const hosts = await page.locator("tbody td:first-child").allInnerTexts();
  // A page from elsewhere reads nothing.
  const other = await open("127.0.0.1");
  await other.waitForFunction(() => document.getElementById("state").textContent.includes("lost"));
  console.log(JSON.stringify({ before: before.map((row) => row.split("\t").at(-1)), hosts, other: await other.locator("tbody tr").count() }));
} finally {
  await browser.close();
}
