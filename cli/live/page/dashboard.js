"use strict";
// Draws the picture that `/v1/picture` has. Every element belongs to a key (a workload, an edge, a line of a table) and
// stays while its key does: a refresh changes texts and attributes only where they differ, and so nothing flickers.
// What comes from the mesh becomes text, never markup.

const EVERY = 2000; // milliseconds
const COLUMN = 304, ROW = 76, WIDTH = 150, HEIGHT = 38, EDGE = 14;
const OLD = 15; // seconds
const DENSE = 40; // edges; of more, only the table tells the numbers
const LOCKS = { mutual: "mTLS", plain: "plain", mixed: "in part", unknown: "" };

const find = (id) => document.getElementById(id);
const drawn = new Map(); // by parent: elements by key

/** The elements of `parent`, one for each of `items`, in their order; `make` one, `update` each. */
function keyed(parent, items, key, make, update) {
  const known = drawn.get(parent) || new Map();
  drawn.set(parent, known);
  const wanted = new Set(items.map(key));
  for (const [name, element] of known) {
    if (!wanted.has(name)) { element.remove(); known.delete(name); }
  }
  let place = parent.firstChild;
  for (const item of items) {
    let element = known.get(key(item));
    if (!element) { element = make(item); known.set(key(item), element); }
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
}

function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

function attribute(element, name, value) {
  const wanted = String(value);
  if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

function svg(name, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  element.append(...children);
  return element;
}

function rows(table, items, key, cells) {
  const make = (item) => {
    const row = document.createElement("tr");
    for (const _ of cells(item)) row.append(document.createElement("td"));
    return row;
  };
  keyed(find(table).tBodies[0], items, key, make, (row, item) => cells(item).forEach(([value, kind], n) => {
    text(row.cells[n], value);
    attribute(row.cells[n], "class", kind || "");
  }));
}

const left = (place) => 12 + place[0] * COLUMN, above = (place) => 10 + place[1] * ROW;
const named = (id) => id.startsWith("/") ? id.slice(1) : id;
const short = (name, most) => name.length > most ? name.slice(0, most - 1) + "\u2026" : name;
const number = (value) => value === null ? "\u2026" : value ? value.toFixed(value < 10 ? 1 : 0) : "";
const milliseconds = (value) => value === null ? "" : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const percent = (value) => value === null ? "" : `${(100 * value).toFixed(value && value < 0.1 ? 1 : 0)}%`;
const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);

/** The two largest units, as everywhere in Heddle: 1d1h, 5m3s. */
function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count || parts.length) parts.push(`${count}${unit}`);
    if (parts.length === 2) break;
  }
  return parts.filter((part, n) => n === 0 || !part.startsWith("0")).join("");
}

function standing(workload) {
  if (workload.pods.some((pod) => pod.silent)) return "silent";
  return workload.pods.some((pod) => !pod.upToDate) ? "behind" : "";
}

function drawWorkload(group, workload) {
  const [rect, name, below, title] = group.children;
  const [x, y] = [left(workload.place), above(workload.place)];
  attribute(group, "class", `${workload.kind} ${standing(workload)}`.trim());
  attribute(group, "transform", `translate(${x} ${y})`);
  attribute(rect, "width", WIDTH); attribute(rect, "height", HEIGHT); attribute(rect, "rx", 6);
  attribute(name, "x", 9); attribute(name, "y", 16);
  attribute(below, "x", 9); attribute(below, "y", 30); attribute(below, "class", "small");
  text(name, short(workload.name, 22));
  const pods = workload.pods.length;
  const where = workload.kind === "outside" ? "outside the mesh" : `${workload.namespace}, ${pods} pod${pods === 1 ? "" : "s"}`;
  text(below, short(where, 28));
  const said = workload.pods.map((pod) => `${pod.name}: ${pod.silent || (pod.upToDate ? "current" : "behind")}`);
  text(title, [named(workload.id), ...said].join("\n"));
}

/** From the right side of one to the left side of the other; back, or within a column, around the outside. */
function curve(from, to) {
  const [x1, y1, x2, y2] = [left(from) + WIDTH, above(from) + HEIGHT / 2, left(to), above(to) + HEIGHT / 2];
  const bend = Math.max(46, Math.abs(x2 - x1) / 2);
  return [`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, x1 + (x2 - x1) * 0.616, y1 + (y2 - y1) * 0.718];
}

/** How much flows, and how long it takes. */
function words(edge) {
  const flow = edge.requestsPerSecond ? `${number(edge.requestsPerSecond)}/s`
    : edge.connectionsPerSecond ? `${number(edge.connectionsPerSecond)} conn/s` : "";
  const failed = edge.errors ? `${percent(edge.errors)} errors` : "";
  const took = edge.p50Milliseconds === null ? "" : `${milliseconds(edge.p50Milliseconds)}, p99 ${milliseconds(edge.p99Milliseconds)}`;
  return [[flow, failed].filter(Boolean).join(", "), took];
}

function draw(picture) {
  const places = new Map(picture.workloads.map((workload) => [workload.id, workload.place]));
  const key = (edge) => JSON.stringify([edge.source, edge.destination]);
  const known = picture.edges.filter((edge) => places.has(edge.source) && places.has(edge.destination));
  const kind = (edge) => edge.errors ? "errors" : edge.requestsPerSecond || edge.connectionsPerSecond ? "busy" : "idle";
  const graph = find("graph");
  const size = (n) => Math.max(0, ...picture.workloads.map((workload) => workload.place[n])) + 1;
  attribute(graph, "width", size(0) * COLUMN + EDGE); attribute(graph, "height", size(1) * ROW + EDGE);
  attribute(graph, "class", picture.edges.length > DENSE ? "dense" : "");
  keyed(find("edges"), known, key, () => svg("path", svg("title")), (path, edge) => {
    attribute(path, "d", curve(places.get(edge.source), places.get(edge.destination))[0]);
    attribute(path, "class", kind(edge));
    text(path.firstChild, `${named(edge.source)} \u2192 ${named(edge.destination)}\n${[...words(edge), LOCKS[edge.lock]].join("\n")}`);
  });
  keyed(find("labels"), known, key, () => svg("g", svg("use"), svg("text"), svg("text")), (group, edge) => {
    const [, x, y] = curve(places.get(edge.source), places.get(edge.destination));
    const [lock, flow, took] = group.children;
    attribute(group, "class", kind(edge));
    attribute(group, "transform", `translate(${x} ${y})`);
    attribute(lock, "href", edge.lock === "unknown" ? "" : edge.lock === "mutual" ? "#mutual" : "#plain");
    attribute(lock, "class", edge.lock);
    attribute(lock, "x", -6); attribute(lock, "y", -7); attribute(lock, "width", 12); attribute(lock, "height", 14);
    attribute(flow, "y", -10); attribute(took, "y", 18);
    words(edge).forEach((word, n) => text(group.children[n + 1], word));
  });
  keyed(find("workloads"), picture.workloads, (workload) => workload.id,
    () => svg("g", svg("rect"), svg("text"), svg("text"), svg("title")), drawWorkload);
  rows("traffic", picture.edges, key, (edge) => [
    [named(edge.source)], [named(edge.destination)], [number(edge.requestsPerSecond)],
    [percent(edge.errors), edge.errors ? "bad" : ""], [milliseconds(edge.p50Milliseconds)],
    [milliseconds(edge.p99Milliseconds)], [number(edge.connectionsPerSecond)], [LOCKS[edge.lock], edge.lock],
  ]);
  rows("certificates", picture.certificates, (each) => `${each.holder} ${each.identity}`, (each) => [
    [each.holder],
    [each.expires <= picture.at ? "expired" : duration(each.expires - picture.at), each.expires <= picture.at ? "bad" : each.renews <= picture.at ? "plain" : ""],
    [each.renews <= picture.at ? "due" : duration(each.renews - picture.at)],
  ]);
  rows("changes", picture.changes, (each) => String(each.at), (each) => [
    [clock(each.at)], [each.proxies], [duration(each.seconds)], [each.types.join(" ")],
  ]);
  drawRotation(picture.rotation);
  summarize(picture);
}

function drawRotation(rotation) {
  const waiting = rotation && rotation.waitingFor ? `. Waiting for: ${rotation.waitingFor}` : "";
  text(find("rotation"), rotation ? rotation.headline + waiting : "The ca does not tell.");
  const make = () => {
    const line = document.createElement("div");
    line.className = "phase";
    line.append(document.createElement("span"), document.createElement("progress"), document.createElement("span"));
    return line;
  };
  keyed(find("phases"), rotation ? rotation.phases : [], (each) => each.phase, make, (line, each) => {
    text(line.children[0], each.phase);
    attribute(line.children[1], "value", each.part);
    text(line.children[2], each.of ? `${each.have}/${each.of}` : each.state);
  });
}

function summarize(picture) {
  const { proxies, current, behind } = picture.convergence;
  const down = Object.entries(picture.components).filter(([, state]) => state !== "running");
  const silent = picture.workloads.flatMap((workload) => workload.pods.filter((pod) => pod.silent)
    .map((pod) => `${workload.namespace}/${pod.name}: ${pod.silent}`));
  const summary = find("summary");
  text(summary, `${picture.workloads.filter((each) => each.pods.length).length} workloads, ${current} of ${proxies} proxies are current`
    + ` \u00b7 ${clock(picture.at)}`);
  attribute(summary, "class", current < proxies ? "bad" : "");
  const age = Date.now() / 1000 - picture.at;
  const old = age > OLD ? [`this picture is ${duration(age)} old: the mesh takes long to answer`] : [];
  say([...old, ...down.map(([name, state]) => `${name}: ${state}`), ...picture.problems,
    ...behind.map((name) => `${name} is behind`), ...silent]);
}

function say(problems) {
  const once = [...new Set(problems)].map((sentence, line) => ({ sentence, line })); // one that counts seconds stays
  keyed(find("problems"), once, (each) => each.line, () => document.createElement("li"),
    (item, each) => text(item, each.sentence));
}

async function refresh() {
  try {
    const answer = await fetch("/v1/picture");
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    const picture = await answer.json();
    if (picture.workloads) {
      draw(picture);
      document.body.dataset.drawn = String(1 + Number(document.body.dataset.drawn || 0));
    }
    setTimeout(refresh, picture.workloads ? EVERY : EVERY / 10);
  } catch (error) {
    say([`heddle dashboard does not answer, what is shown is old (${error.message})`]);
    setTimeout(refresh, EVERY);
  }
}

refresh();
