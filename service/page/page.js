// Draws the page: asks for JSON every other second, and makes elements of it. Text only ever becomes text.
"use strict";

const EVERY_MS = 2000;
const SHOWN_EVENTS = 60;
const PHASES = ["data", "compute", "exchange", "sum", "apply"];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// Everything that outlives a drawing: the job that is shown, and what is known of it.
const nothing = () => ({ cursor: 0, curve: [], evaluations: [], events: [], names: ["loss"] });
const known = { job: null, ...nothing() };
let token = sessionStorage.getItem("token") || "";
let timer = 0;

const chosen = () => decodeURIComponent((location.hash.match(/^#job=(.+)$/) || [])[1] || "");

async function ask(path) {
  const answer = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  $("ask").hidden = answer.status !== 401;
  if (!answer.ok) throw new Error(answer.status === 401 ? "needs its token" : (await answer.json()).error || answer.statusText);
  return answer.json();
}

async function look() {
  clearTimeout(timer);
  const id = chosen();
  try {
    if (id) await lookAt(id);
    else drawJobs(await ask("api/jobs"));
    say("live", false);
  } catch (error) {
    say(error instanceof TypeError ? "the server does not answer" : error.message, true);
  }
  $("list").hidden = Boolean(id);
  $("one").hidden = !id;
  timer = setTimeout(look, EVERY_MS);
}

async function lookAt(id) {
  if (known.job !== id) Object.assign(known, { job: id, ...nothing() });
  let found;
  do {
    found = await ask(`api/jobs/${encodeURIComponent(id)}?after=${known.cursor}`);
    if (known.job !== id) return;
    found.events.forEach(remember);
  } while (found.hasMore);
  drawJob(found.job);
}

function remember(event) {
  known.cursor = event.cursor;
  const points = event.kind === "evaluation" ? known.evaluations : event.kind === "progress" ? known.curve : null;
  const names = Object.keys(event.metrics);
  if (points && names.length) {
    // A job that recovers goes some steps back: its curve is drawn anew from there.
    while (points.length && points[points.length - 1].step >= event.step) points.pop();
    points.push({ step: event.step, values: event.metrics, time: Date.parse(event.time) });
    known.names.push(...names.filter((name) => !known.names.includes(name)));
  }
  if (event.kind !== "progress") {
    known.events.push(event);
    if (known.events.length > SHOWN_EVENTS) known.events.shift();
  }
}

function say(text, isLost) {
  $("link").textContent = text;
  $("link").className = isLost ? "lost" : "";
}

// Elements.

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function row(...cells) {
  const made = make("tr");
  made.append(...cells);
  return made;
}

const number = (text) => make("td", text, "number");
const badge = (state) => make("span", state, `state ${state}`);

function holding(...children) {
  const cell = make("td");
  cell.append(...children);
  return cell;
}

function bar(share, state = "") {
  const outer = make("div", undefined, `bar ${state}`);
  const inner = make("div");
  inner.style.width = `${100 * share}%`;
  outer.append(inner);
  return outer;
}

// Numbers for people.

function short(value) {
  if (value === undefined) return "–";
  if (value === null) return "not finite";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(2);
  return Number(value.toPrecision(4)).toString();
}

const share = (job) => (job.totalSteps ? job.step / job.totalSteps : 0);
const hasWorkers = (job) => job.workers.filter((one) => one.state === "READY" || one.state === "SLOW").length;

function span(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(Math.max(0, seconds))} s`;
}

const ago = (time) => (time ? `${span((Date.now() - Date.parse(time)) / 1000)} ago` : "–");

// By the pace of the last tenth of the curve, evaluations and checkpoints included.
function left(job) {
  const points = known.curve, last = points[points.length - 1];
  const first = points[Math.max(0, points.length - 2 - Math.floor(points.length / 10))];
  if (job.state !== "RUNNING" || !last || last.step <= first.step || last.time <= first.time) return "–";
  return span(((job.totalSteps - job.step) * (last.time - first.time)) / (last.step - first.step) / 1000);
}

// The list.

function drawJobs(found) {
  const counts = Object.entries(found.counts).filter(([, count]) => count);
  $("counts").textContent = counts.map(([state, count]) => `${count} ${state.toLowerCase()}`).join(" · ");
  $("none").hidden = found.jobs.length > 0;
  $("jobs").replaceChildren(...found.jobs.map(jobRow));
  document.title = "Gradwire";
}

// On a narrow screen, where a job is a card, each value has its name beside it.
const HEADS = ["", "", "", "loss", "validation", "examples/s", "workers", "submitted"];

function jobRow(job) {
  const link = make("a", job.name);
  link.href = `#job=${encodeURIComponent(job.id)}`;
  const made = row(
    holding(link, " ", make("small", job.id)),
    holding(badge(job.state)),
    holding(bar(share(job), job.state), make("small", job.totalSteps ? `${job.step} / ${job.totalSteps}` : job.stateReason)),
    number(short(job.metrics.loss)),
    number(short(job.evalMetrics.loss)),
    number(job.state === "RUNNING" ? short(job.examplesPerSecond) : "–"),
    number(job.finishedAt ? "–" : `${hasWorkers(job)} / ${job.wantedWorkers}`),
    make("td", ago(job.createdAt), "time"),
  );
  [...made.children].forEach((cell, index) => { cell.dataset.label = HEADS[index]; });
  made.addEventListener("click", () => { location.hash = link.hash; });
  return made;
}

// One job.

function drawJob(job) {
  document.title = `${job.name} · Gradwire`;
  $("name").textContent = job.name;
  $("id").textContent = job.id;
  $("state").replaceChildren(badge(job.state));
  $("reason").textContent = job.stateReason;
  $("error").hidden = !job.error;
  $("error").textContent = job.error ? `${job.error.code}: ${job.error.message}\n${job.error.details}`.trim() : "";
  $("bar").style.width = `${100 * share(job)}%`;
  $("bar").parentElement.className = `bar ${job.state}`;
  drawFacts(job);
  drawChoice();
  drawCurve();
  drawPhases(job.phaseMs);
  const names = Object.keys({ ...job.metrics, ...job.evalMetrics });
  $("metrics").replaceChildren(...names.map((name) =>
    row(make("td", name), number(short(job.metrics[name])), number(short(job.evalMetrics[name])))));
  $("workers").replaceChildren(...job.workers.map((one) =>
    row(make("td", one.id.replace(`${job.id}-`, "")), holding(badge(one.state)), make("td", one.phase), make("td", one.node), number(String(one.pid)),
      make("td", one.transport.replace("_", " ")))));
  $("events").replaceChildren(...known.events.slice().reverse().map((event) =>
    row(make("td", event.time ? new Date(event.time).toLocaleTimeString([], { hour12: false }) : "", "time"), number(String(event.step)), make("td", event.message))));
}

function drawFacts(job) {
  const facts = {
    Step: job.totalSteps ? `${job.step} of ${job.totalSteps}` : String(job.step),
    Epoch: String(job.epoch),
    "Examples/s": short(job.examplesPerSecond),
    Workers: `${hasWorkers(job)} of ${job.wantedWorkers}`,
    Checkpoint: job.checkpointStep ? `step ${job.checkpointStep}` : "none yet",
    ...(job.best ? { Best: `${job.best.metric} ${short(job.best.value)}, step ${job.best.step}` } : {}),
    Starts: String(job.generation),
    Submitted: ago(job.createdAt),
    ...(job.state === "RUNNING" ? { Left: left(job) } : {}),
    ...(job.finishedAt ? { Ended: ago(job.finishedAt) } : {}),
  };
  $("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
}

function drawPhases(phases) {
  const entries = PHASES.filter((name) => Number.isFinite(phases[name])).map((name) => [name, phases[name]]);
  const total = Math.max(entries.reduce((sum, [, value]) => sum + value, 0), 1e-9);
  $("step-ms").textContent = entries.length ? `${total.toPrecision(3)} ms` : "";
  $("phases").replaceChildren(...entries.flatMap(([name, value]) =>
    [make("span", name), bar(value / total), make("span", `${value.toPrecision(3)} ms · ${Math.round((100 * value) / total)} %`, "number")]));
}

// The curve: straight lines between the points; with the box ticked, over the logarithm.

const FRAME = { left: 56, right: 14, top: 10, bottom: 26, height: 300 };
const MARKS = 6;
// What the pointer needs to find a point again: set with each drawing.
let drawn = null;

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function drawChoice() {
  const names = [...$("metric").options].map((option) => option.value);
  if (names.join() === known.names.join()) return;
  const wanted = known.names.includes($("metric").value) ? $("metric").value : "loss";
  $("metric").replaceChildren(...known.names.map((name) => make("option", name)));
  $("metric").value = wanted;
}

// Round numbers from low to high.
function marks(low, high) {
  const rough = (high - low) / MARKS, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

function drawCurve() {
  const isLog = $("log").checked, name = $("metric").value;
  const width = Math.max(300, Math.round($("curve").clientWidth || 800));
  $("curve").setAttribute("viewBox", `0 0 ${width} ${FRAME.height}`);
  const usable = (points) => points
    .map(({ step, values }) => ({ step, value: values[name] }))
    .filter(({ value }) => value !== undefined && value !== null && (!isLog || value > 0));
  const train = usable(known.curve), validation = usable(known.evaluations), all = [...train, ...validation];
  drawn = null;
  if (!all.length) {
    $("curve").replaceChildren(shape("text", { x: width / 2, y: 150, "text-anchor": "middle" }, `no ${name} yet`));
    return;
  }
  const height = ({ value }) => (isLog ? Math.log10(value) : value);
  const last = all.reduce((most, { step }) => Math.max(most, step), 1), heights = all.map(height);
  let low = heights.reduce((a, b) => Math.min(a, b)), high = heights.reduce((a, b) => Math.max(a, b));
  const space = high - low < 1e-12 ? 0.5 : (high - low) * 0.04;
  [low, high] = [low - space, high + space];
  const x = (step) => FRAME.left + (step / last) * (width - FRAME.left - FRAME.right);
  const y = (value) => FRAME.top + ((high - value) / (high - low)) * (FRAME.height - FRAME.top - FRAME.bottom);
  const line = (points) => points.map((point, index) => `${index ? "L" : "M"}${x(point.step).toFixed(1)} ${y(height(point)).toFixed(1)}`).join("");
  const shapes = marks(low, high).flatMap((value) => [
    shape("line", { class: "grid", x1: FRAME.left, x2: width - FRAME.right, y1: y(value), y2: y(value) }),
    shape("text", { x: FRAME.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(isLog ? 10 ** value : value)),
  ]);
  shapes.push(...marks(0, last).filter((step) => Number.isInteger(step)).map((step) =>
    shape("text", { x: x(step), y: FRAME.height - 6, "text-anchor": step > last * 0.95 ? "end" : "middle" }, String(step))));
  if (train.length) shapes.push(shape("path", { class: "train", d: line(train) }));
  if (validation.length) shapes.push(shape("path", { class: "validation", d: line(validation) }));
  if (validation.length < 40) shapes.push(...validation.map((point) => shape("circle", { cx: x(point.step), cy: y(height(point)), r: 3 })));
  $("curve").replaceChildren(...shapes);
  drawn = { train, validation, stepAt: (place) => ((place - FRAME.left) / (width - FRAME.left - FRAME.right)) * last };
}

// What the curves are where the pointer is.
function tell(event) {
  if (!drawn) return;
  const wanted = drawn.stepAt(event.clientX - $("curve").getBoundingClientRect().left);
  const near = (points) => points.reduce((best, point) => (!best || Math.abs(point.step - wanted) < Math.abs(best.step - wanted) ? point : best), null);
  const parts = [["training", near(drawn.train)], ["validation", near(drawn.validation)]];
  $("at").textContent = parts.filter(([, point]) => point).map(([what, { step, value }]) => `${what} ${short(value)} after step ${step}`).join(" · ");
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
  look();
});
$("log").addEventListener("change", drawCurve);
$("metric").addEventListener("change", drawCurve);
$("curve").addEventListener("pointermove", tell);
$("curve").addEventListener("pointerleave", () => { $("at").textContent = ""; });
addEventListener("resize", drawCurve);
addEventListener("hashchange", look);
look();
