"use strict";
/* A page of what runs: asks for /state.json every two seconds and draws it. Text from there is
   set as text, never as HTML. */
const EVERY_MS = 2000;
const element = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const say = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
const clock = (s) => new Date(1000 * s).toLocaleTimeString("en-GB");
const moment = (s) => new Date(1000 * s);
const spell = (s) => (s === null ? "not known yet" : s < 90 ? `${s.toFixed(0)} s` : s < 5400 ? `${(s / 60).toFixed(0)} min` : `${(s / 3600).toFixed(1)} h`);
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

function fill(id, heads, rows) {
  const table = at(id), head = element("thead"), body = element("tbody"), line = element("tr");
  for (const text of heads) { const cell = element("th", text); cell.scope = "col"; line.append(cell); }
  head.append(line);
  for (const row of rows) {
    const made = element("tr");
    row.forEach((cell, i) => {
      if (cell instanceof Node) made.append(cell);
      else { const one = element(i ? "td" : "th", cell, String(cell).length > 40 ? "long" : ""); if (!i) one.scope = "row"; made.append(one); }
    });
    body.append(made);
  }
  table.replaceChildren(head, body);
}

function tiles(list) {
  at("tiles").replaceChildren(...list.map(([value, says]) => {
    const tile = element("div", undefined, "tile");
    tile.append(element("b", value), element("span", says));
    return tile;
  }));
}

const AXIS = { gridcolor: "#e6e8eb", zeroline: false, ticks: "outside", tickcolor: "#9aa0a6", linecolor: "#8a8f98", automargin: true };
const axis = (title, more) => ({ ...AXIS, title: { text: title, standoff: 8 }, ...more,
  ...(more && more.type === "date" && { tickangle: 0, nticks: narrow() ? 4 : 8, tickformat: "%H:%M:%S" }) });
const layout = (x, y, more) => ({
  xaxis: x, yaxis: y, height: 300, margin: { l: 50, r: 10, t: 12, b: 40 }, hovermode: "closest",
  legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, ...more,
});
const line = (name, x, y, colour, more) => ({
  type: "scatter", mode: x.length < 2 ? "markers" : "lines", name: name.replace(/[<>&]/g, ""), x, y,
  line: { color: colour, width: 1.5 }, marker: { color: colour, size: 6 }, ...more,
});

/* Cividis at five places, mixed between; text in what is read on it. */
const CIVIDIS = [[0, 34, 78], [65, 77, 107], [124, 123, 120], [185, 172, 112], [254, 232, 56]];
function coloured(cell, share) {
  const at_ = Math.min(Math.max(share, 0), 1) * 4, i = Math.min(Math.floor(at_), 3);
  const mixed = CIVIDIS[i].map((c, k) => Math.round(c + (CIVIDIS[i + 1][k] - c) * (at_ - i)));
  cell.style.backgroundColor = `rgb(${mixed.join()})`;
  cell.style.color = share > 0.6 ? "#000" : "#fff";
}

function showSweep(s) {
  say("title", s.done === s.cells ? `${s.name}: all ${s.cells} cells are measured` : `${s.name}: ${s.done} of ${s.cells} cells measured`);
  const idle = s.running.length ? "" : " once it runs again: nothing runs now";
  say("lead", s.done === s.cells ? "The sweep is over." : `About ${spell(s.seconds_left)} left${idle}.`.replace("About not known yet left", "Time left: not known yet"));
  at("bar").setAttribute("aria-valuemax", s.cells);
  at("bar").setAttribute("aria-valuenow", s.done);
  at("bar-done").style.width = `${(100 * s.done) / s.cells}%`;
  at("bar-failed").style.width = `${(100 * s.failed) / s.cells}%`;
  tiles([[String(s.done), `of ${s.cells} cells measured`], [String(s.waiting), "waiting"], [String(s.failed), "failed"],
    [String(s.workers), s.workers === 1 ? "process at work" : "processes at work"], [s.done === s.cells ? "0 s" : spell(s.seconds_left), "left"]]);
  const x = [...s.history.map((h) => moment(h[0])), moment(s.time)], y = [...s.history.map((h) => h[1]), s.done];
  draw("pace", { data: [line("measured", x, y, "#0072b2", { mode: "lines+markers", line: { shape: "hv", color: "#0072b2", width: 2 } })],
    layout: layout(axis("", { type: "date" }), axis("cells measured", { rangemode: "tozero", tickformat: "d", minallowed: 0, ...(s.done < 5 && { dtick: 1 }) }), { height: 200, showlegend: false }) });

  const { uploads, budgets_bytes, cells } = s.surface;
  const means = cells.filter((c) => c.maps.length).map((c) => c.maps.reduce((a, b) => a + b) / c.maps.length);
  const low = Math.min(...means), high = Math.max(...means);
  const codecs = new Set(uploads.map((u) => u[1])).size > 1;
  fill("grid", ["update", ...uploads.map(([n, codec]) => `${n.toLocaleString("en")} frames${codecs ? ` ${codec}` : ""}`)],
    [...budgets_bytes].reverse().map((b) => [quantity(b, "B"), ...uploads.map(([n, codec]) => {
      const c = cells.find((one) => one.frames === n && one.codec === codec && one.budget_bytes === b);
      if (!c) return element("td", "");
      const mean = c.maps.length ? c.maps.reduce((p, q) => p + q) / c.maps.length : null;
      const cell = element("td", mean === null ? (c.failed ? "failed" : "·") : percent(mean), mean === null ? "waits" : "measured");
      if (mean !== null) coloured(cell, high > low ? (mean - low) / (high - low) : 1);
      if (c.of > 1 && c.maps.length) cell.append(element("small", ` ${c.maps.length}/${c.of}`));
      cell.title = mean === null ? `next: ${c.next}` : `${c.maps.length} of ${c.of} seeds`;
      return cell;
    })]));
  say("surface-says", means.length ? `From ${s.m0 === null ? "?" : percent(s.m0)} before any update to ${percent(high)} so far` : "Nothing is measured yet");

  say("running-says", s.running.length ? `${s.running.length} at work` : "Nothing runs now");
  fill("running", ["what", "for", "process", "on"], s.running.map((r) => [r.says || r.node.replace(/-[0-9a-f]+$/, ""), spell(r.seconds), String(r.pid), r.host]));
  draw("losses", { data: s.losses.map((l, i) => line(l.name, l.steps, l.losses, PALETTE[i % PALETTE.length],
      { line: { width: l.running ? 3.5 : 1.2, color: PALETTE[i % PALETTE.length] }, opacity: l.running ? 1 : 0.65 })),
    layout: layout(axis("step"), axis("loss", { rangemode: "tozero" }), { height: 360, showlegend: s.losses.length > 0 && s.losses.length < 13 }) });
  say("failures-say", s.failures.length ? `${s.failures.length} cells failed; the same command tries them again` : "No cell has failed");
  at("failed").closest(".scroll").hidden = !s.failures.length;
  fill("failed", ["cell", "why"], s.failures.map((f) => [f.cell, f.reason]));
}

function showEdge(s) {
  const there = s.devices.filter((d) => d.connected).length, jobs = s.devices.reduce((n, d) => n + (d.jobs || 0), 0);
  say("title", `${there} of ${s.devices.length} devices connected, ${jobs} ${jobs === 1 ? "job" : "jobs"} at work or waiting`);
  say("lead", `${s.name}, as of ${clock(s.time)}.`);
  say("devices-say", s.devices.length ? "Each device, since the server started" : "No device has come yet");
  fill("device-rows", ["device", "link", "received", "sent", "frames", "jobs", "adapting", "round", "missed", "mAP (%)"],
    s.devices.map((d) => [d.device, d.quarantined ? "quarantined" : d.connected ? "up" : "down", quantity(d.received_bytes || 0, "B"),
      quantity(d.sent_bytes || 0, "B"), String(d.frames || 0), String(d.jobs || 0), spell(d.compute_s || 0),
      String(d.applied_round || 0), String(d.missed || 0), d.map === undefined ? "–" : percent(d.map)]));
  const known = s.devices.filter((d) => d.maps.length);
  say("maps-say", known.length ? "mAP50-95 that each device reported, since this page watches" : "No device has reported an mAP yet");
  draw("maps", { data: known.map((d, i) => line(d.device, [...d.maps.map((m) => moment(m[0])), moment(s.time)],
      [...d.maps.map((m) => 100 * m[1]), 100 * d.maps[d.maps.length - 1][1]], PALETTE[i % PALETTE.length], { mode: "lines+markers", line: { shape: "hv", color: PALETTE[i % PALETTE.length], width: 2 } })),
    layout: layout(axis("", { type: "date" }), axis("mAP50-95 (%)"), { showlegend: known.length > 0 }) });
  const rates = (k) => s.devices.flatMap((d) => d.bytes).length < 2 ? [] : total(s.devices, k);
  const up = rates(1), down = rates(2), last = (list) => (list.length ? quantity(list[list.length - 1][1], "B/s") : "–");
  say("link-says", `Now ${last(up)} up and ${last(down)} down, all devices together`);
  draw("rates", { data: [line("up", up.map((p) => moment(p[0])), up.map((p) => p[1]), "#0072b2"), line("down", down.map((p) => moment(p[0])), down.map((p) => p[1]), "#e69f00")],
    layout: layout(axis("", { type: "date" }), axis("bytes per second", { tickformat: "~s", rangemode: "tozero" })) });
  fill("event-rows", ["event", "times"], Object.entries(s.events).sort((a, b) => b[1] - a[1]).map(([name, n]) => [name, n.toLocaleString("en")]));
}

/* Bytes a second of all devices together, between the samples. */
function total(devices, k) {
  const moved = new Map();
  for (const d of devices)
    d.bytes.forEach((b, i) => {
      if (!i) return;
      const before = d.bytes[i - 1], seconds = b[0] - before[0];
      if (seconds > 0) moved.set(b[0], (moved.get(b[0]) || 0) + Math.max(b[k] - before[k], 0) / seconds);
    });
  return [...moved].sort((a, b) => a[0] - b[0]);
}

let state = null;
function show() {
  if (state === null) return;
  const trouble = state.error || (Date.now() / 1000 - state.time > 60 ? `nothing new since ${clock(state.time)}` : "");
  at("trouble").hidden = !trouble;
  say("trouble", trouble);
  if (state.kind === "sweep" && "cells" in state) showSweep(state);
  if (state.kind === "edge" && "devices" in state) showEdge(state);
  document.body.dataset.seen = String(state.time);
}
async function ask() {
  try {
    const answer = await fetch("/state.json", { cache: "no-store" });
    state = await answer.json();
    show();
  } catch (error) {
    at("trouble").hidden = false;
    say("trouble", "endedge watch has ended, or cannot be reached");
  }
  setTimeout(ask, EVERY_MS);
}
redraws.push(show);
ask();
