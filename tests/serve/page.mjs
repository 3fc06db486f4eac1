// The page in a real Chromium: page.mjs LIBRARIES URL TOKEN SCREENSHOTS. Prints what it saw as its last line.
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

const [libraries, url, token, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(libraries, "node_modules/"))("playwright-core");
const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const seen = { errors: [] };

async function emit(type, data, more = "") {
  const answer = await fetch(`${url}/events?type=${type}${more}`, {
    method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: JSON.stringify(data),
  });
  if (answer.status !== 202) throw new Error(`${type}: ${answer.status}`);
}

async function shot(page, name, fullPage = true) {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage });
}

try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => {
    // What is refused is shown to the user; the browser notes it, too.
    if (message.type() === "error" && !/status of 40[01]/.test(message.text())) seen.errors.push(message.text());
  });
  page.on("dialog", (dialog) => dialog.accept("a deploy"));

  // Without a token nothing is shown; with a wrong one, why.
  await page.goto(`${url}/`);
  await page.fill("#token", "wrong");
  await page.click("#enter button");
  await page.waitForFunction(() => document.getElementById("refused").textContent !== "");
  seen.refused = await page.textContent("#refused");
  await shot(page, "sign-in");
  await page.fill("#token", token);
  await page.press("#token", "Enter");
  await page.waitForSelector("#groups tbody tr");
  seen.groups = await page.locator("#groups tbody td.name").allInnerTexts();
  await page.waitForFunction(() => document.getElementById("connection").textContent === "live");
  seen.cookieIsHidden = await page.evaluate(() => document.cookie === "");

  // An event that comes is shown, as text.
  const hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
  await emit("page.hostile", { text: hostile }, `&subject=${encodeURIComponent(hostile)}`);
  const row = page.locator("#events button", { hasText: "page.hostile" });
  await row.waitFor();
  seen.subject = await row.locator(".subject").innerText();
  await row.focus();
  await page.keyboard.press("Enter");
  await page.locator("#event-groups tr").first().waitFor();
  seen.document = JSON.parse(await page.innerText("#event-document")).data.text === hostile;
  seen.states = await page.locator("#event-groups tr").allInnerTexts();
  seen.title = await page.title();
  seen.scripts = await page.locator("#events script, #events img, dialog script, dialog img").count();
  await shot(page, "event");
  await page.keyboard.press("Escape");
  seen.closed = await page.evaluate(() => !document.getElementById("event").open);

  // The filter is the server's.
  await page.fill("#type", "only.*");
  await page.press("#type", "Enter");
  await page.waitForFunction(() => document.getElementById("events").children.length === 0);
  await page.waitForFunction(() => document.getElementById("connection").textContent === "live");
  await emit("not.this", 1);
  await emit("only.this", 2);
  await page.locator("#events button").first().waitFor();
  seen.filtered = await page.locator("#events .type").allInnerTexts();
  await page.fill("#where", "(");
  await page.press("#where", "Enter");
  await page.waitForFunction(() => document.getElementById("events-note").textContent.includes("where"));
  seen.whereRefused = await page.textContent("#events-note");
  await page.fill("#where", "");
  await page.fill("#type", "");
  await page.press("#type", "Enter");
  await page.locator("#events button").first().waitFor();

  // Dead letters, and a redrive of all.
  await page.locator("#groups button.dead").first().waitFor();
  await shot(page, "groups");
  await page.locator("#groups button.dead").first().click();
  await page.locator("#letters-list li").first().waitFor();
  seen.letters = await page.locator("#letters-list li").count();
  await page.locator("#letters-list summary", { hasText: "Output" }).first().click();
  seen.output = await page.locator("#letters-list pre").first().innerText();
  await shot(page, "letters");
  await page.click("#redrive-all");
  await page.waitForFunction(() => document.getElementById("letters-note").textContent.includes("back to work"));
  seen.redriven = await page.textContent("#letters-note");
  await page.keyboard.press("Escape");

  // Pause and resume.
  await page.locator("#groups td.actions button", { hasText: "Pause" }).first().click();
  await page.locator("#groups span.paused").waitFor();
  seen.paused = await page.locator("#groups span.paused").innerText();
  await page.locator("#groups td.actions button", { hasText: "Resume" }).first().click();
  await page.locator("#groups span.paused").waitFor({ state: "detached" });

  // Many events: the page goes on.
  const many = Array.from({ length: 10_000 }, (_, n) => JSON.stringify({ n })).join("\n");
  const posted = await fetch(`${url}/events?type=many`, {
    method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/x-ndjson" }, body: many,
  });
  if (posted.status !== 202) throw new Error(`many: ${posted.status}`);
  await page.locator("#events .data", { hasText: '{"n":9999}' }).waitFor();
  seen.rows = await page.locator("#events li").count();

  // Narrow, and dark.
  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ colorScheme: "dark" });
  seen.overflows = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  await shot(page, "narrow-dark", false);

  await page.click("#leave");
  await page.waitForSelector("#enter:not([hidden])");
  seen.left = await page.evaluate(() => document.querySelectorAll("#events li, #groups tbody tr, #event-groups tr, #letters-list li").length);
  seen.afterLeaving = (await page.evaluate(() => fetch("groups").then((answer) => answer.status)));
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
