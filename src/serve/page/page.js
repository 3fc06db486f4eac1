"use strict";
// What is shown of events and letters is set as text, never as markup.

/** How many events are kept, and how many of them are rows. */
const KEPT = 10000;
const ROWS = 300;
/** How often the groups are asked for, in milliseconds. */
const OFTEN = 3000;

const at = (id) => document.getElementById(id);
let admin = false;
let source = null;
/** Counts the streams and the dialogs that were opened: what comes for an older one is dropped. */
let streams = 0;
let dialogs = 0;
/** Counts the times that a token was asked for. */
let entries = 0;
let timer = null;
/** Newest last; and their sources and ids: over a restart of the server the last seconds come again. */
let events = [];
let known = new Set();
let pending = [];
let drawing = false;
let held = false;
/** Whether events were pruned that the stream would have shown. */
let gap = false;

/** An element with attributes and children, which are elements or texts. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : String(child)));
  return element;
}

/** A JSON answer; an error says what the server says. */
async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", ...options });
  const text = await response.text();
  let body = null;
  try { body = text ? JSON.parse(text) : null; } catch { body = null; }
  if (response.ok) return body;
  const error = new Error((body && body.detail) || `${response.status} ${response.statusText}`);
  error.status = response.status;
  throw error;
}

function post(path, body) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

const number = new Intl.NumberFormat();
const clock = (text) => {
  const time = new Date(text);
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString() : time.toLocaleString();
};

function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return "now";
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)}${unit}`;
  }
  return `${Math.floor(seconds)}s`;
}

/** A line of values over the hour; a gap where nothing was measured. */
function plot(values, times, label) {
  const svgNs = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(svgNs, "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const known = values.filter((value) => value !== null);
  const most = known.reduce((most, value) => Math.max(most, value), 0);
  svg.setAttribute("aria-label", known.length ? `${label}: ${round(known.at(-1))}, at most ${round(most)}` : `${label}: not measured yet`);
  const base = document.createElementNS(svgNs, "line");
  for (const [name, value] of [["x1", 0], ["x2", 100], ["y1", 19.5], ["y2", 19.5]]) base.setAttribute(name, value);
  svg.append(base);
  const end = times.length ? Date.parse(times.at(-1)) : 0;
  let path = "";
  let down = false;
  values.forEach((value, place) => {
    if (value === null) { down = false; return; }
    const x = 100 - (end - Date.parse(times[place])) / 36000;
    const y = 19 - (most > 0 ? (value / most) * 17 : 0);
    path += `${down ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`;
    down = true;
  });
  const line = document.createElementNS(svgNs, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const round = (value) => (value >= 100 || Number.isInteger(value) ? number.format(Math.round(value)) : value.toFixed(1));

function wanted(group) {
  const types = (group.types || []).length ? group.types.join(", ") : "all types";
  const not = (group.not || []).length ? `, not ${group.not.join(", ")}` : "";
  return `${types}${not}${group.where ? `, where ${group.where}` : ""}`;
}

function workers(group) {
  const live = group.owners.filter((owner) => !owner.gone).map((owner) => `${owner.host}:${owner.pid}`);
  return [...new Set(live)].join(", ");
}

function row(group, history) {
  const series = Object.hasOwn(history.groups, group.group) ? history.groups[group.group] : { lag: [], rate: [] };
  const cell = (label, content, more = "number") => make("td", { class: more, "data-label": label }, content);
  const state = group.paused && group.paused.why ? `paused: ${group.paused.why}` : group.state;
  const dead = group.dead > 0
    ? make("button", { type: "button", class: "dead", "data-act": "letters", onclick: () => showLetters(group.group) }, `${number.format(group.dead)} dead`)
    : "0";
  const pause = make("button", { type: "button", "data-act": "pause", onclick: () => pauseOrResume(group) }, group.paused ? "Resume" : "Pause");
  return make("tr", { "data-group": group.group },
    make("td", { class: "name" }, group.group, make("span", { class: "sub" }, wanted(group))),
    cell("State", make("span", { class: group.state }, state, group.damage ? `: ${group.damage}` : ""), ""),
    cell("Lag", number.format(group.lag)),
    cell("Oldest", span(group.lag_seconds)),
    cell("Rate", group.rate === null ? "" : `${round(group.rate)}/s`),
    cell("Retries", retries(group)),
    cell("Dead", dead),
    cell("Workers", workers(group), ""),
    make("td", {}, plot(series.lag, history.times || [], "lag")),
    make("td", {}, plot(series.rate, history.times || [], "rate")),
    make("td", { class: "actions" }, admin ? pause : null));
}

function retries(group) {
  const first = (group.retries || [])[0];
  const text = number.format(group.retrying);
  return first ? make("span", { title: `${first.type} ${first.id}: ${first.why}` }, text) : text;
}

async function drawGroups() {
  clearTimeout(timer);
  const own = entries;
  try {
    const overview = await ask("groups");
    if (own !== entries) return;
    const body = at("groups").tBodies[0];
    // The focus stays where it was.
    const focused = document.activeElement && document.activeElement.closest("tr[data-group]");
    const [group, act] = focused ? [focused.dataset.group, document.activeElement.dataset.act] : [];
    body.replaceChildren(...overview.groups.map((group) => row(group, overview.history)));
    if (act) {
      const again = [...body.rows].find((row) => row.dataset.group === group);
      const button = again && again.querySelector(`[data-act="${act}"]`);
      if (button) button.focus();
    }
    at("groups-note").textContent = overview.groups.length ? "" : "no groups yet: evbus group create NAME -t 'PATTERN'";
  } catch (error) {
    if (own !== entries) return;
    if (error.status === 401) return enter();
    at("groups-note").textContent = `the groups cannot be shown: ${error.message}`;
  }
  timer = setTimeout(drawGroups, document.hidden ? OFTEN * 10 : OFTEN);
}

async function pauseOrResume(group) {
  let body = {};
  if (!group.paused) {
    const why = prompt(`Pause '${group.group}'? Its workers start nothing more. Why (may be empty):`, "");
    if (why === null) return;
    if (why.trim()) body = { why: why.trim() };
  }
  await act(at("groups-note"), () => post(`groups/${encodeURIComponent(group.group)}:${group.paused ? "resume" : "pause"}`, body));
  drawGroups();
}

/** Does something, and says where it fails. */
async function act(note, action) {
  try {
    note.textContent = "";
    return await action();
  } catch (error) {
    note.textContent = error.message;
    return null;
  }
}

async function showLetters(group) {
  const dialog = at("letters");
  const own = ++dialogs;
  at("letters-title").textContent = `Dead letters of ${group}`;
  at("letters-list").replaceChildren();
  at("redrive-all").hidden = true;
  if (!dialog.open) dialog.showModal();
  const found = await act(at("letters-note"), () => ask(`groups/${encodeURIComponent(group)}/dead`));
  if (!found || own !== dialogs) return;
  const some = found.letters.length < found.count ? `the newest ${found.letters.length} of ${number.format(found.count)}` : "";
  at("letters-note").textContent = found.count === 0 ? "none" : some;
  const all = at("redrive-all");
  all.hidden = !admin || found.count === 0;
  all.onclick = () => redrive(group, null, found.count);
  at("letters-list").replaceChildren(...found.letters.map((letter) => letterItem(group, letter)));
}

function letterItem(group, letter) {
  const attempts = letter.attempts === 1 ? "1 attempt" : `${letter.attempts} attempts`;
  return make("li", {},
    make("div", { class: "head" },
      make("strong", {}, letter.type || "?"), make("span", {}, letter.id),
      make("span", {}, letter.died ? `${clock(letter.died)}, ${attempts}` : ""),
      make("span", { class: "why" }, letter.why),
      admin ? make("button", { type: "button", onclick: () => redrive(group, [letter.letter], 1) }, "Redrive") : null),
    letter.stderr ? make("details", {}, make("summary", {}, "Output"), make("pre", {}, letter.stderr)) : null,
    letter.event ? make("details", {}, make("summary", {}, "Event"), make("pre", {}, JSON.stringify(letter.event, null, 2))) : null);
}

async function redrive(group, letters, count) {
  if (!confirm(`Put ${count === 1 ? "this dead letter" : `${number.format(count)} dead letters`} of '${group}' back to work?`)) return;
  const done = await act(at("letters-note"), () => post(`groups/${encodeURIComponent(group)}:redrive`, letters ? { letters } : {}));
  if (!done) return;
  await showLetters(group);
  at("letters-note").textContent = `${number.format(done.redriven)} back to work`;
  drawGroups();
}

async function showEvent(event) {
  at("event-title").textContent = `${event.type} ${event.id}`;
  at("event-document").textContent = JSON.stringify(event, null, 2);
  at("event-groups").replaceChildren();
  at("event").showModal();
  const body = at("event-groups");
  const own = ++dialogs;
  try {
    const found = await ask(`events/${encodeURIComponent(event.id)}?source=${encodeURIComponent(event.source)}`);
    if (own !== dialogs) return;
    const line = (one) => make("tr", {},
      make("td", { class: "name" }, one.group), make("td", {}, make("span", { class: one.state }, one.state)),
      make("td", {}, [one.attempts ? `attempt ${one.attempts}` : "", one.why || "", one.next ? `next ${clock(one.next)}` : ""].filter(Boolean).join(", ")));
    body.replaceChildren(...found.groups.map(line));
    if (!found.groups.length) body.replaceChildren(make("tr", {}, make("td", {}, "no groups yet")));
  } catch (error) {
    body.replaceChildren(make("tr", {}, make("td", {}, error.message)));
  }
}

function eventRow(event) {
  const data = event.data === undefined ? (event.data_base64 ? "(binary)" : "") : JSON.stringify(event.data);
  return make("li", {}, make("button", { type: "button", onclick: () => showEvent(event) },
    make("span", { class: "when" }, event.time ? clock(event.time) : ""), make("span", { class: "type" }, event.type),
    make("span", { class: "subject" }, event.subject || ""), make("span", { class: "data" }, data.slice(0, 200))));
}

/** Draws what has come since the last frame, the newest first. */
function draw() {
  drawing = false;
  if (held) return noteEvents();
  const list = at("events");
  const fresh = pending.slice(-ROWS).reverse();
  pending = [];
  list.prepend(...fresh.map(eventRow));
  while (list.children.length > ROWS) list.lastElementChild.remove();
  noteEvents();
}

function noteEvents() {
  const more = events.length > ROWS ? `; the newest ${ROWS} are shown` : "";
  const waiting = held ? `; ${number.format(pending.length)} held back` : "";
  const pruned = gap ? "; older ones were pruned before they could be shown" : "";
  at("events-note").textContent = `${number.format(events.length)}${events.length >= KEPT ? " or more" : ""} events${more}${waiting}${pruned}`;
}

const identity = (event) => `${event.source} ${event.id}`;

function come(event) {
  if (known.has(identity(event))) return;
  known.add(identity(event));
  events.push(event);
  pending.push(event);
  // Seldom, so that it costs little for each.
  if (events.length >= 2 * KEPT) {
    events = events.slice(-KEPT);
    known = new Set(events.map(identity));
  }
  if (pending.length > KEPT) pending = pending.slice(-KEPT);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

/** Shows no events, as before the first. */
function forget() {
  events = [];
  known = new Set();
  pending = [];
  gap = false;
  at("events").replaceChildren();
}

async function follow() {
  const own = ++streams;
  if (source) source.close();
  source = null;
  forget();
  const query = new URLSearchParams();
  const types = at("type").value.trim();
  if (types) query.set("type", types.replaceAll(/\s/g, ""));
  const where = at("where").value.trim();
  if (where) query.set("where", where);
  // A stream tells no reason when it is refused.
  try {
    await ask(`events?${query}${String(query) ? "&" : ""}last=0&limit=1`);
  } catch (error) {
    if (own === streams) at("events-note").textContent = error.message;
    return;
  }
  if (own === streams) listen(own, query, "last", "200");
}

/** Opens a stream from a place on. */
function listen(own, query, place, value) {
  const from = new URLSearchParams(query);
  from.set(place, value);
  const stream = new EventSource(`events?${from}`);
  source = stream;
  let last = null;
  const keep = (message) => { if (message.lastEventId) last = message.lastEventId; };
  stream.onopen = () => { at("connection").textContent = "live"; noteEvents(); };
  stream.onerror = () => {
    at("connection").textContent = "the connection is lost; it is tried again …";
    // After an answer that is no stream the browser does not come back by itself.
    if (stream.readyState !== EventSource.CLOSED) return;
    setTimeout(() => {
      if (own !== streams) return;
      listen(own, query, last ? "after" : place, last || value);
    }, OFTEN);
  };
  stream.onmessage = (message) => {
    keep(message);
    try { come(JSON.parse(message.data)); } catch { /* Not an event. */ }
  };
  stream.addEventListener("cursor", keep);
  stream.addEventListener("gap", () => { gap = true; noteEvents(); });
}

function enter() {
  entries++;
  streams++;
  if (source) source.close();
  clearTimeout(timer);
  at("inside").hidden = true;
  at("leave").hidden = true;
  at("enter").hidden = false;
  at("connection").textContent = "";
  // What was read is for those who may read.
  for (const shown of [at("groups").tBodies[0], at("event-groups"), at("event-document"), at("letters-list")]) shown.replaceChildren();
  for (const said of ["event-title", "letters-title", "letters-note", "groups-note", "events-note"]) at(said).textContent = "";
  for (const dialog of [at("event"), at("letters")]) dialog.close();
  dialogs++;
  forget();
  at("token").focus();
}

async function begin() {
  try {
    const session = await ask("session");
    admin = session.admin;
    at("leave").hidden = !session.token;
    at("enter").hidden = true;
    if (!session.read) {
      at("connection").textContent = "this token may not read";
      at("leave").hidden = false;
      return;
    }
    at("inside").hidden = false;
    drawGroups();
    follow();
  } catch (error) {
    if (error.status === 401) return enter();
    at("connection").textContent = `the server does not answer: ${error.message}`;
    setTimeout(begin, OFTEN);
  }
}

at("enter").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const token = at("token").value.trim();
  try {
    await ask("session", { method: "POST", headers: { authorization: `Bearer ${token}` } });
    at("token").value = "";
    at("refused").textContent = "";
    begin();
  } catch (error) {
    at("refused").textContent = error.message;
  }
});
at("leave").addEventListener("click", async () => {
  await ask("session", { method: "DELETE" }).catch(() => null);
  enter();
});
at("filter").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  follow();
});
at("hold").addEventListener("click", () => {
  held = !held;
  at("hold").setAttribute("aria-pressed", String(held));
  if (!held) draw(); else noteEvents();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("inside").hidden) drawGroups(); });
begin();
