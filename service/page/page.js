// Draws the page: asks for JSON every other second, and makes elements of it. Text only ever becomes text.
"use strict";

const EVERY_MS = 2000;
const SHOWN_EVENTS = 60;
const PHASES = ["data", "compute", "exchange", "sum", "apply"];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// Everything that outlives a drawing: the job that is shown, and what is known of it.
const known = { job: null, cursor: 0, curve: [], evaluations: [], events: [] };
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
  if (known.job !== id) Object.assign(known, { job: id, cursor: 0, curve: [], evaluations: [], events: [] });
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
  const loss = event.metrics.loss;
  const points = event.kind === "evaluation" ? known.evaluations : event.kind === "progress" ? known.curve : null;
  if (points && loss !== undefined) {
    // A job that recovers goes some steps back: its curve is drawn anew from there.
    while (points.length && points[points.length - 1].step >= event.step) points.pop();
    points.push({ step: event.step, loss });
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

function bar(share) {
  const outer = make("div", undefined, "bar");
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

function ago(time) {
  if (!time) return "–";
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

// The list.

function drawJobs(found) {
  const counts = Object.entries(found.counts).filter(([, count]) => count);
  $("counts").textContent = counts.map(([state, count]) => `${count} ${state.toLowerCase()}`).join(" · ");
  $("none").hidden = found.jobs.length > 0;
  $("jobs").replaceChildren(...found.jobs.map(jobRow));
  document.title = "Gradwire";
}

function jobRow(job) {
  const link = make("a", job.name);
  link.href = `#job=${encodeURIComponent(job.id)}`;
  const made = row(
    holding(link, " ", make("small", job.id)),
    holding(badge(job.state)),
    holding(bar(share(job)), make("small", job.totalSteps ? `${job.step} / ${job.totalSteps}` : job.stateReason)),
    number(short(job.metrics.loss)),
    number(short(job.evalMetrics.loss)),
    number(job.state === "RUNNING" ? short(job.examplesPerSecond) : "–"),
    number(`${hasWorkers(job)} / ${job.wantedWorkers}`),
    make("td", ago(job.createdAt), "time"),
  );
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
  drawFacts(job);
  drawCurve();
  drawPhases(job.phaseMs);
  const names = Object.keys({ ...job.metrics, ...job.evalMetrics });
  $("metrics").replaceChildren(...names.map((name) =>
    row(make("td", name), number(short(job.metrics[name])), number(short(job.evalMetrics[name])))));
  $("workers").replaceChildren(...job.workers.map((one) =>
    row(make("td", one.id), holding(badge(one.state)), make("td", one.phase), make("td", one.node), number(String(one.pid)),
      make("td", one.transport.replace("_", " ")))));
  $("events").replaceChildren(...known.events.slice().reverse().map((event) =>
    row(make("td", event.time ? new Date(event.time).toLocaleTimeString() : "", "time"), number(String(event.step)), make("td", event.message))));
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
  const most = Math.max(...entries.map(([, value]) => value), 1e-9);
  $("phases").replaceChildren(...entries.flatMap(([name, value]) =>
    [make("span", name), bar(value / most), make("span", `${value.toPrecision(3)} ms`, "number")]));
}

// The curve: straight lines between the points; with the box ticked, over the logarithm of the loss.

const FRAME = { left: 56, right: 12, top: 10, bottom: 26, width: 800, height: 300 };

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function drawCurve() {
  const isLog = $("log").checked;
  const usable = (points) => points.filter(({ loss }) => loss !== null && (!isLog || loss > 0));
  const train = usable(known.curve), validation = usable(known.evaluations);
  const all = [...train, ...validation];
  if (!all.length) {
    $("curve").replaceChildren(shape("text", { x: 400, y: 150, "text-anchor": "middle" }, "no loss yet"));
    return;
  }
  const height = ({ loss }) => (isLog ? Math.log10(loss) : loss);
  const last = Math.max(...all.map(({ step }) => step), 1);
  const heights = all.map(height);
  let low = Math.min(...heights), high = Math.max(...heights);
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const x = (step) => FRAME.left + (step / last) * (FRAME.width - FRAME.left - FRAME.right);
  const y = (value) => FRAME.top + ((high - value) / (high - low)) * (FRAME.height - FRAME.top - FRAME.bottom);
  const line = (points) => points.map((point, index) => `${index ? "L" : "M"}${x(point.step).toFixed(1)} ${y(height(point)).toFixed(1)}`).join("");
  const drawn = [];
  for (let tick = 0; tick <= 4; tick += 1) {
    const value = low + (tick / 4) * (high - low);
    drawn.push(shape("line", { class: "grid", x1: FRAME.left, x2: FRAME.width - FRAME.right, y1: y(value), y2: y(value) }));
    drawn.push(shape("text", { x: FRAME.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(isLog ? 10 ** value : value)));
    const step = Math.round((tick / 4) * last);
    drawn.push(shape("text", { x: x(step), y: FRAME.height - 6, "text-anchor": tick === 4 ? "end" : "middle" }, String(step)));
  }
  if (train.length) drawn.push(shape("path", { class: "train", d: line(train) }));
  if (validation.length > 1) drawn.push(shape("path", { class: "validation", d: line(validation) }));
  if (validation.length === 1) drawn.push(shape("circle", { cx: x(validation[0].step), cy: y(height(validation[0])), r: 3 }));
  $("curve").replaceChildren(...drawn);
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
  look();
});
$("log").addEventListener("change", drawCurve);
addEventListener("hashchange", look);
look();
