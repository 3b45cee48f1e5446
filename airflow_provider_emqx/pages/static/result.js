// The result of one task instance, from Airflow's REST API with the visitor's own login. Whatever comes from there is put
// into the page as text only: ids and reasons are anybody's.

const RUNS = 20; // runs in the picture of a task's history
const HISTORY = 60; // runs in the curves of figures
const CURVES = 24; // curves shown at first
const EVERY = 5000; // milliseconds between two requests while the task is at work
const AT_WORK = ["scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "up_for_reschedule", null];
const OUR_LINK = "EMQX dashboard"; // a link that every task of this provider has

const TONES = {
  created: "good", updated: "changed", unchanged: "same", written: "done", skipped: "left", rejected: "bad", deleted: "gone",
  pruned: "gone", unaddressable: "lost", kicked: "good", banned: "good", unbanned: "good", subscribed: "good",
  unsubscribed: "good", replied: "good", online: "good", published: "good", sent: "good", absent: "same", changed: "left",
  still_connected: "left", still_banned: "left", failed: "bad", no_reply: "left", not_delivered: "left", unknown: "lost",
  missing: "bad", awaited: "same", no_subscribers: "left", not_sent: "lost", bytes: "done",
};
const tone = (name) => `tone-${TONES[name] ?? "done"}`;
const words = (name) => String(name).replaceAll("_", " ");
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const objects = (value) => (Array.isArray(value) ? value.filter(isObject) : []);
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 3 });
const moment = (value) => (value ? new Date(value).toLocaleString() : "");

function seconds(value) {
  if (value < 1) return `${value.toLocaleString("en", { maximumSignificantDigits: 2 })} s`;
  if (value < 90) return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })} s`;
  const minutes = Math.round(value / 60);
  return minutes < 90 ? `${minutes} min` : `${number(Math.round(minutes / 6) / 10)} h`;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const card = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);
const width = (share) => {
  const element = h("i");
  element.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return element;
};

/** A link, if the address is one of a web page; else its text. */
function link(address, text = address) {
  try {
    const url = new URL(address, location.href);
    // the page may be a tab of Airflow's, which must not show another page inside
    const target = url.origin === location.origin ? "_top" : "_blank";
    if (["http:", "https:"].includes(url.protocol)) return h("a", { href: url.href, target, rel: "noopener noreferrer" }, text);
  } catch {
    // not an address
  }
  return document.createTextNode(text);
}

// ---------------------------------------------------------------------------------------------- Airflow's API

class Refused extends Error {
  constructor(status) {
    super(`Airflow responded with status ${status}`);
    this.status = status;
  }
}

const root = new URL("../", location.href);

async function ask(...path) {
  const query = typeof path.at(-1) === "object" ? path.pop() : {};
  const url = new URL(`api/v2/${path.map(encodeURIComponent).join("/")}`, root);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const response = await fetch(url, { headers: { Accept: "application/json" }, credentials: "same-origin" });
  if (!response.ok) throw new Refused(response.status);
  return response.json();
}

function read(value) {
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** The result of the task in a run, `undefined` if it has none. */
async function resultOf(task, run) {
  try {
    const path = ["dags", task.dag, "dagRuns", run, "taskInstances", task.id, "xcomEntries", "return_value"];
    return read((await ask(...path, { map_index: task.index })).value);
  } catch (error) {
    if (error.status === 404) return undefined;
    throw error;
  }
}

/** The results of this run and of those before it, oldest first. */
async function history(task, count) {
  const current = await ask("dags", task.dag, "dagRuns", task.run);
  const until = current.run_after ?? current.logical_date ?? current.start_date;
  const query = { order_by: "-run_after", limit: count };
  if (until) query.run_after_lte = until;
  const runs = (await ask("dags", task.dag, "dagRuns", query)).dag_runs ?? [];
  const results = await Promise.all(
    runs.map(async (run) => ({
      run: run.dag_run_id,
      at: run.run_after ?? run.logical_date,
      // a run of other rights or of an older version must not cost the page
      result: await resultOf(task, run.dag_run_id).catch(() => undefined),
    })),
  );
  return results.filter((one) => isObject(one.result)).reverse();
}

// ---------------------------------------------------------------------------------------------- reading a result

/** What became of the objects of a run: names and numbers, in the order of the picture. */
function outcomes(result) {
  const found = (names) => names.filter((name) => isNumber(result[name])).map((name) => [name, result[name]]);
  if (isObject(result.counts)) return Object.entries(result.counts).filter(([, count]) => isNumber(count));
  if (isNumber(result.read) && isNumber(result.written)) {
    const counted = found(["created", "updated", "unchanged"]);
    const rest = result.written - counted.reduce((sum, [, count]) => sum + count, 0);
    return [
      ...counted,
      ...(rest > 0 || !counted.length ? [["written", rest]] : []),
      ...found(["skipped", "rejected", "deleted", "pruned", "unaddressable"]),
    ];
  }
  if (isNumber(result.missing_count)) return [...found(["online"]), ["missing", result.missing_count]];
  if (isNumber(result.size) && typeof result.sha256 === "string") return [["bytes", result.size]];
  return [];
}

/** Figures that a snapshot of metrics has, by name. */
function figures(result) {
  if (typeof result.time !== "string") return [];
  return Object.entries(result).filter(([name, value]) => name.includes(".") && (isNumber(value) || value === null));
}

const KNOWN = ["reasons", "guards", "rejected_rows", "phases", "counts"]; // have a card of their own

// ---------------------------------------------------------------------------------------------- pictures

function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

/** Stacked bars, one per run; the run of the page is marked. */
function bars(runs, current, pageOf) {
  const [w, height, left, bottom, top] = [1060, 190, 58, 24, 8];
  const totals = runs.map((run) => run.outcomes.reduce((sum, [, count]) => sum + count, 0));
  const most = ceiling(Math.max(1, ...totals));
  const slot = (w - left) / Math.max(runs.length, 8);
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const dates = new Set(runs.map((run) => new Date(run.at).toDateString()));
  const when = (at) =>
    dates.size > 1
      ? new Date(at).toLocaleDateString("en", { month: "short", day: "numeric" })
      : new Date(at).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const label = (value) => value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
  const lines = [0, 0.5, 1].map((share) => [
    s("line", { class: "grid", x1: left, x2: w, y1: y(most * share), y2: y(most * share) }),
    s("text", { x: left - 8, y: y(most * share) + 4, "text-anchor": "end" }, label(most * share)),
  ]);
  const columns = runs.map((run, index) => {
    const x = left + slot * index + slot * 0.18;
    let bottomOf = y(0);
    const parts = run.outcomes.filter(([, count]) => count > 0).map(([name, count]) => {
      // a few rejected rows among thousands must be seen
      const tall = Math.max(2, y(0) - y(count));
      bottomOf -= tall;
      return s("rect", { class: `bar ${tone(name)}`, x, y: bottomOf, width: slot * 0.64, height: tall });
    });
    const text = run.outcomes.filter(([, count]) => count).map(([name, count]) => `${number(count)} ${words(name)}`);
    const column = s(
      "g",
      { class: "column", "data-run": run.run },
      s("title", {}, `${moment(run.at)}\n${text.join("\n") || "nothing"}`),
      run.run === current && s("rect", { class: "now", x: x - slot * 0.14, y: 0, width: slot * 0.92, height }),
      parts.length ? parts : s("rect", { class: "nothing", x, y: y(0) - 2, width: slot * 0.64, height: 2 }),
    );
    const page = s("a", { href: pageOf(run.run) }, column);
    const every = Math.ceil(runs.length / 10);
    const day = (runs.length - 1 - index) % every === 0 && run.at &&
      s("text", { x: x + slot * 0.32, y: height - 7, "text-anchor": "middle" }, when(run.at));
    return [page, day || null];
  });
  return s("svg", { viewBox: `0 0 ${w} ${height}`, role: "img", "aria-label": "The last runs" }, lines, columns);
}

function legend(entries) {
  return h(
    "div",
    { class: "legend" },
    entries.map(([name, text]) => h("span", { class: tone(name) }, h("i"), `${words(name)} `, text && h("b", {}, text))),
  );
}

/** The course of one figure. */
function curve(name, points) {
  const [w, height] = [260, 56];
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (index) => (points.length < 2 ? w / 2 : 3 + ((w - 6) * index) / (points.length - 1));
  const y = (value) => (high === low ? height / 2 : 4 + (height - 8) * (1 - (value - low) / (high - low)));
  const path = points.map((point, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(point.value).toFixed(1)}`).join("");
  const last = points.length - 1;
  const range = low === high ? "" : ` · ${number(low)} to ${number(high)}`;
  return h(
    "figure",
    { "data-figure": name },
    h("figcaption", { title: name }, name),
    h("b", {}, number(values[last])),
    h("span", { class: "hint" }, range),
    s(
      "svg",
      { viewBox: `0 0 ${w} ${height}`, role: "img", "aria-label": `${name} over ${points.length} runs` },
      points.length > 1 && s("path", { class: "area", d: `${path}L${x(last)} ${height}L${x(0)} ${height}Z` }),
      s("path", { class: "trend", d: path }),
      s("circle", { class: "dot", cx: x(last), cy: y(values[last]), r: 2.6 }),
    ),
  );
}

// ---------------------------------------------------------------------------------------------- parts of the page

function tiles(result) {
  const first = outcomes(result);
  const all = isNumber(result.read) ? [["read", result.read], ...first] : first;
  // times have a card of their own
  const elsewhere = isObject(result.phases) ? ["seconds", "rows_per_second"] : [];
  const named = new Set([...all.map(([name]) => name), "written", "size", "missing_count", ...elsewhere]);
  const others = Object.entries(result).filter(
    ([name, value]) => isNumber(value) && !named.has(name) && !name.includes(".") && value !== 0,
  );
  const tile = ([name, value]) => {
    const text = name === "seconds" ? seconds(value) : number(value);
    const tones = TONES[name] ? tone(name) : "";
    return h(
      "div",
      { class: `tile ${tones} ${value ? "" : "zero"}`, "data-name": name, "data-value": value },
      h("b", {}, text),
      h("span", {}, name === "seconds" ? "time" : words(name)),
    );
  };
  const shownTiles = [...all.filter(([name, value]) => value || name !== "unaddressable"), ...others].map(tile);
  return shownTiles.length ? h("div", { class: "tiles" }, shownTiles) : null;
}

function picture(runs, task, pageOf) {
  const drawn = runs.map((run) => ({ ...run, outcomes: outcomes(run.result) })).filter((run) => run.outcomes.length);
  if (!drawn.length) return null;
  const sums = new Map();
  for (const run of drawn) for (const [name, count] of run.outcomes) sums.set(name, (sums.get(name) ?? 0) + count);
  const present = [...sums].filter(([, count]) => count).map(([name]) => [name, ""]);
  const title = drawn.length > 1 ? `The last ${drawn.length} runs of this task` : "This run";
  return card(title, bars(drawn, task.run, pageOf), legend(present));
}

function curves(runs) {
  const names = [...new Set(runs.flatMap((run) => figures(run.result).map(([name]) => name)))];
  const courses = names
    .map((name) => [
      name,
      runs.filter((run) => isNumber(run.result[name])).map((run) => ({ value: run.result[name] })),
    ])
    .filter(([, points]) => points.length);
  if (!courses.length) return null;
  // what moves comes first
  const moves = ([, points]) => points.some((point) => point.value !== points[0].value);
  courses.sort((one, other) => moves(other) - moves(one));
  const grid = (some) => h("div", { class: "small" }, some.map(([name, points]) => curve(name, points)));
  const rest = courses.slice(CURVES);
  return card(
    `${courses.length} figures over ${runs.length} ${runs.length === 1 ? "run" : "runs"}`,
    grid(courses.slice(0, CURVES)),
    rest.length > 0 && h("details", {}, h("summary", {}, `${rest.length} more`), grid(rest)),
  );
}

function guards(result) {
  const found = objects(result.guards).filter((guard) => isNumber(guard.count) && isNumber(guard.allowed));
  if (!found.length) return null;
  const meter = (guard) => {
    const share = guard.allowed ? guard.count / guard.allowed : guard.count ? 1 : 0;
    const of = isNumber(guard.of) ? ` of ${number(guard.of)}` : "";
    const tones = guard.exceeded ? "tone-bad" : share > 0.8 ? "tone-left" : "tone-good";
    return h(
      "div",
      { class: `meter ${tones}`, "data-guard": shown(guard.name) },
      h(
        "p",
        {},
        h("span", {}, h("code", {}, shown(guard.name))),
        h("span", {}, `${number(guard.count)}${of}, ${number(guard.allowed)} allowed${guard.exceeded ? ": exceeded" : ""}`),
      ),
      h("div", { class: "track" }, width(share)),
    );
  };
  return card("Limits", found.map(meter));
}

const PHASES = ["changed", "gone", "done", "left", "good", "lost"];

function phases(result) {
  const found = isObject(result.phases) ? Object.entries(result.phases).filter(([, value]) => isNumber(value) && value > 0) : [];
  const total = found.reduce((sum, [, value]) => sum + value, 0);
  if (!total) return null;
  const parts = found.map(([, value], index) => {
    const part = width(value / total);
    part.className = `tone-${PHASES[index % PHASES.length]}`;
    return part;
  });
  const entries = found.map(([name, value], index) =>
    h("span", { class: `tone-${PHASES[index % PHASES.length]}` }, h("i"), `${words(name)} `, h("b", {}, seconds(value))),
  );
  const whole = isNumber(result.seconds) ? `Time: ${seconds(result.seconds)}` : "Time";
  const speed = isNumber(result.rows_per_second) ? `, ${number(result.rows_per_second)} rows/s` : "";
  return card(whole + speed, h("div", { class: "track" }, parts), h("div", { class: "legend" }, entries));
}

function table(id, heads, rows) {
  const cell = (tag, value, index) => h(tag, heads[index].number ? { class: "number" } : {}, value);
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { id },
      h("thead", {}, h("tr", {}, heads.map((head, index) => cell("th", head.name, index)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value, index) => cell("td", value, index))))),
    ),
  );
}

const code = (value) => (value === null || value === undefined ? "" : h("code", {}, shown(value)));

function reasons(result) {
  const found = objects(result.reasons).filter((reason) => isNumber(reason.count));
  if (!found.length) return null;
  const outcome = found.some((reason) => reason.outcome);
  const line = found.some((reason) => isNumber(reason.line));
  const file = found.some((reason) => reason.file);
  const heads = [
    { name: "count", number: true }, ...(outcome ? [{ name: "outcome" }] : []), { name: "reason" }, { name: "for example" },
    ...(line ? [{ name: "line", number: true }] : []), ...(file ? [{ name: "file" }] : []),
  ];
  const rows = found.map((reason) => [
    number(reason.count), ...(outcome ? [words(reason.outcome ?? "")] : []), shown(reason.reason ?? ""), code(reason.id),
    ...(line ? [isNumber(reason.line) ? number(reason.line) : ""] : []), ...(file ? [code(reason.file)] : []),
  ]);
  return card("Why", table("reasons", heads, rows));
}

function rejected(result) {
  const found = objects(result.rejected_rows);
  if (!found.length) return null;
  const file = found.some((row) => row.file);
  const heads = [
    ...(file ? [{ name: "file" }] : []), { name: "line", number: true }, { name: "id" }, { name: "reason" },
  ];
  const rows = found.map((row) => [
    ...(file ? [code(row.file)] : []), isNumber(row.line) ? number(row.line) : "", code(row.id), shown(row.reason ?? ""),
  ]);
  const all = isNumber(result.rejected) ? result.rejected : found.length;
  const title = all > found.length ? `Rejected rows: the first ${found.length} of ${number(all)}` : "Rejected rows";
  return card(title, table("rejected", heads, rows));
}

function lists(result) {
  const found = Object.entries(result).filter(([name, value]) => !KNOWN.includes(name) && Array.isArray(value) && value.length);
  if (!found.length) return null;
  const list = ([name, values]) => {
    const counted = result.counts?.[name] ?? result[`${name}_count`];
    const all = isNumber(counted) && counted > values.length ? ` of ${number(counted)}` : "";
    const open = ["failed", "unknown", "missing", "no_reply", "still_connected"].includes(name) ? { open: "" } : {};
    const items = values.map((value) => h("li", {}, code(isObject(value) ? Object.values(value).map(shown).join("  ") : value)));
    return h(
      "details",
      { "data-list": name, ...open },
      h("summary", {}, words(name), h("span", { class: "hint" }, `${number(values.length)}${all}`)),
      h("div", { class: "scroll" }, h("ul", { class: "names" }, items)),
    );
  };
  return card("Who and what", found.map(list));
}

function facts(result) {
  const own = Object.entries(result).filter(
    ([name, value]) =>
      !KNOWN.includes(name) && name !== "report_path" &&
      (typeof value === "string" || typeof value === "boolean" || (isObject(value) && Object.keys(value).length > 0)),
  );
  const entries = own.map(([name, value]) => {
    const text = isObject(value)
      ? Object.entries(value).map(([key, one]) => `${words(key)}: ${isNumber(one) ? number(one) : shown(one)}`).join(", ")
      : typeof value === "boolean" ? (value ? "yes" : "no") : value;
    return [h("dt", {}, words(name)), h("dd", {}, text)];
  });
  const report = result.report_path;
  if (typeof report === "string") {
    entries.unshift([h("dt", {}, "report"), h("dd", { id: "report" }, /^https?:/i.test(report) ? link(report) : code(report))]);
  }
  const raw = h("details", {}, h("summary", {}, "As JSON"), h("div", { class: "scroll" }, h("code", {}, JSON.stringify(result, null, 2))));
  return card("More", entries.length > 0 && h("dl", {}, entries), raw);
}

// ---------------------------------------------------------------------------------------------- the page

const page = document.getElementById("page");

function say(text, ...more) {
  page.replaceChildren(h("p", { class: "banner bad", id: "problem" }, text, ...more));
}

function heading(task, instance, links) {
  const index = task.index >= 0 ? ` [${instance.rendered_map_index ?? task.index}]` : "";
  const steps = ["dags", task.dag, "runs", task.run, "tasks", task.id, ...(task.index >= 0 ? ["mapped", String(task.index)] : [])];
  const back = new URL(steps.map(encodeURIComponent).join("/"), root).href;
  const state = instance.state ?? "waiting";
  const about = [instance.operator_name ?? instance.operator, moment(instance.start_date), isNumber(instance.duration) && seconds(instance.duration)];
  return h(
    "header",
    {},
    h(
      "div",
      {},
      h("div", { class: "path" }, `${task.dag} / ${task.run}`),
      h("div", { class: "title" }, h("h1", {}, `${task.id}${index}`), h("span", { class: `state ${state}`, id: "state" }, words(state))),
      h("div", { class: "about" }, about.filter(Boolean).join(" · ")),
    ),
    h("div", {}, link(back, "Task in Airflow"), links[OUR_LINK] && [" · ", link(links[OUR_LINK], OUR_LINK)]),
  );
}

function show(task, instance, links, result, runs) {
  document.title = `${task.id}: EMQX result`;
  const pageOf = (run) => {
    const url = new URL(location.href);
    url.searchParams.set("run_id", run);
    return url.href;
  };
  const parts = [heading(task, instance, links)];
  const atWork = AT_WORK.includes(instance.state);
  if (result === undefined) {
    const text = atWork ? "The task has not finished; its result appears here." : "This task instance has no result.";
    parts.push(h("p", { class: "banner", id: "no-result" }, text));
  } else if (!isObject(result)) {
    parts.push(card("Result", h("code", {}, shown(result))));
  } else {
    if (result.dry_run === true) parts.push(h("p", { class: "banner" }, "Dry run: nothing was changed. The numbers are the plan."));
    if (instance.state === "failed") parts.push(h("p", { class: "banner bad" }, "The task failed. This is what was done until then."));
    const small = [guards(result), phases(result)].filter(Boolean);
    parts.push(
      tiles(result),
      figures(result).length ? curves(runs) : picture(runs, task, pageOf),
      small.length > 0 && h("div", { class: "columns" }, small),
      reasons(result),
      rejected(result),
      lists(result),
      facts(result),
    );
  }
  page.replaceChildren(...parts.filter(Boolean));
  page.dataset.ready = "yes";
}

async function load() {
  const query = new URLSearchParams(location.search);
  const index = Number.parseInt(query.get("map_index") ?? "-1", 10);
  const task = {
    dag: query.get("dag_id"), run: query.get("run_id"), id: query.get("task_id"), index: Number.isNaN(index) ? -1 : index,
  };
  if (!task.dag || !task.run || !task.id) {
    say("The address names no task instance. Open this page with the link Result of a task.");
    return;
  }
  try {
    const path = ["dags", task.dag, "dagRuns", task.run, "taskInstances", task.id];
    const instance = await ask(...path, ...(task.index >= 0 ? [String(task.index)] : []));
    const links = (await ask(...path, "links", { map_index: task.index })).extra_links ?? {};
    if (!(OUR_LINK in links)) {
      say("This task is not one of EMQX's operators or sensors: this page has nothing to show.");
      return;
    }
    const result = await resultOf(task, task.run);
    const count = isObject(result) && figures(result).length ? HISTORY : RUNS;
    const runs = isObject(result) ? await history(task, count).catch(() => [{ run: task.run, result }]) : [];
    show(task, instance, links, result, runs);
    if (AT_WORK.includes(instance.state)) setTimeout(load, EVERY);
  } catch (error) {
    if (error.status === 401) say("You are not logged in. ", link(root.href, "Log in to Airflow"), ", then open this page again.");
    else if (error.status === 403) say("Your account may not see this task or its result.");
    else if (error.status === 404) say("Airflow has no such task instance.");
    else say(`The result cannot be read: ${error.message}. Reload the page to try again.`);
  }
}

load();
