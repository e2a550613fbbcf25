"use strict";
/* The control: the split at a bandwidth and period, from the fitted curves. */
/* Lightness alone tells them apart, so they survive grey printing too. */
const REGIMES = {
  none: "#f1f3f5", "corner data": "#cfe5f3", "corner model": "#fbe3b0", interior: "#ffffff",
  "model saturated": "#f3d3bf", "data saturated": "#b9d6ea", saturated: "#d5d9de",
};
/* Sliders are logarithmic; the address keeps their state: #bandwidth_hz=…&period_s=… */
const { curves, rules, link, range } = contents;
const scale = (name) => ({
  of: (value) => 1000 * Math.log(value / range[name][0]) / Math.log(range[name][1] / range[name][0]),
  at: (slider) => range[name][0] * Math.pow(range[name][1] / range[name][0], slider / 1000),
});
const state = { bandwidth_hz: contents.bandwidth_hz, period_s: link.period_s };
for (const [key, text] of new URLSearchParams(location.hash.slice(1)))
  if (key in state && Number(text) > 0 && Number.isFinite(Number(text))) state[key] = Number(text);

/* What policies are judged by: where the old model serves for a while, the average over the period. */
const averaged = rules.objective === "average" && (rules.schedule !== "pipelined" || rules.apply_s > 0);
if (averaged) at("predicted-what").textContent = "Predicted mAP over the period";

const takeaway = at("share-title").textContent;
const linkAt = (bandwidth_hz) => ({ ...link, bandwidth_hz, period_s: state.period_s });

function showAnswer() {
  const answer = Solver.allocate(curves, linkAt(state.bandwidth_hz), rules);
  at("bandwidth-out").textContent = quantity(state.bandwidth_hz, "Hz");
  at("period-out").textContent = quantity(state.period_s, "s");
  const up = answer.uplink_hz / state.bandwidth_hz, down = answer.downlink_hz / state.bandwidth_hz;
  for (const [id, share] of [["up-bar", up], ["down-bar", down]]) {
    at(id).style.width = `${100 * share}%`;
    at(id).textContent = share > 0.09 ? `${Math.round(100 * share)} %` : "";
  }
  const sends = answer.regime !== "none";
  at("upload").textContent = sends
    ? `${quantity(answer.upload_bytes, "B")} (${answer.frames.toLocaleString("en")} frames)` : "nothing";
  at("update").textContent = sends ? quantity(answer.update_bytes, "B") : "nothing";
  const reached = `${percent(answer.predicted_map)} (${percent(answer.low)}–${percent(answer.high)})`;
  at("predicted").textContent = !sends ? `${percent(answer.average_map)}, as before`
    : averaged ? `${percent(answer.average_map)}; ${reached} once applied` : reached;
  at("regime").textContent = sends ? answer.regime : "no update";
  const home = state.bandwidth_hz === contents.bandwidth_hz && state.period_s === link.period_s;
  at("share-title").textContent = home ? takeaway
    : `At ${quantity(state.bandwidth_hz, "Hz")}, one update every ${quantity(state.period_s, "s")}: ` +
      (sends ? `${Math.round(100 * up)} % for frames, ${Math.round(100 * down)} % for the model`
        : "no update fits or pays off");
  at("answer").dataset.answer = JSON.stringify({ ...state, ...answer });
  return answer;
}

/* The two rows on either side of a change of regime, by bisection. */
function border(before, after) {
  for (let k = 0; k < 10; k++) {
    const hz = Math.sqrt(before.hz * after.hz), row = { hz, ...Solver.allocate(curves, linkAt(hz), rules) };
    if (row.regime === before.regime) before = row;
    else after = row;
  }
  return [before, after];
}

function sweep() {
  const [low, high] = range.bandwidth_hz, n = narrow() ? 60 : 120, rows = [];
  for (let i = 0; i <= n; i++) {
    const hz = low * Math.pow(high / low, i / n);
    rows.push({ hz, ...Solver.allocate(curves, linkAt(hz), rules) });
  }
  return rows.flatMap((row, i) => (i && rows[i - 1].regime !== row.regime ? [...border(rows[i - 1], row), row] : [row]));
}

let rows = [];
function showShares(recompute) {
  if (recompute) rows = sweep();
  const x = rows.map((r) => r.hz), share = (key) => rows.map((r) => (100 * r[key]) / r.hz);
  const area = (name, y, colour) => ({
    type: "scatter", mode: "lines", stackgroup: "share", name, x, y, line: { color: colour, width: 1 },
    fillcolor: colour, hovertemplate: `${name}: %{y:.0f} % at %{x:.3s}Hz<extra></extra>`,
  });
  const runs = [];
  for (const row of rows) {
    const last = runs[runs.length - 1];
    if (last && last.regime === row.regime) last.to = row.hz;
    else {
      if (last) last.to = Math.sqrt(last.to * row.hz);
      runs.push({ regime: row.regime, from: last ? last.to : row.hz, to: row.hz });
    }
  }
  const strip = runs.map((r) => ({
    type: "rect", xref: "x", yref: "paper", x0: r.from, x1: r.to, y0: 1.01, y1: 1.09,
    fillcolor: REGIMES[r.regime], line: { color: "#9aa0a6", width: 0.5 },
  }));
  for (let i = 1; i < runs.length; i++) runs[i].from = runs[i - 1].to;
  const whole = Math.log(range.bandwidth_hz[1] / range.bandwidth_hz[0]), wide = at("share").clientWidth;
  const names = runs
    .filter((r) => (Math.log(r.to / r.from) / whole) * (wide - 70) > 6.6 * r.regime.length)
    .map((r) => ({
      text: r.regime === "none" ? "no update" : r.regime, xref: "x", yref: "paper", showarrow: false,
      x: Math.log10(Math.sqrt(r.from * r.to)), y: 1.05, yanchor: "middle", font: { size: 11 },
    }));
  const data = [area("frames up", share("uplink_hz"), COLOURS().up), area("model down", share("downlink_hz"), COLOURS().down)];
  if (Math.abs(state.period_s / link.period_s - 1) < 1e-9)
    data.push({
      type: "scatter", mode: "markers", name: "allocation.csv", x: contents.steps.map((s) => s[0]),
      y: contents.steps.map((s) => 100 * s[1]),
      marker: { color: "#ffffff", size: 8, line: { color: "#000000", width: 1.5 } },
      hovertemplate: "allocation.csv: %{y:.0f} % up at %{x:.3s}Hz<extra></extra>",
    });
  const axis = { gridcolor: "#e6e8eb", zeroline: false, ticks: "outside", tickcolor: "#9aa0a6", automargin: true };
  draw("share", {
    data,
    layout: {
      height: 340, margin: { l: 50, r: 10, t: 34, b: 44 }, showlegend: false,
      xaxis: {
        ...axis, type: "log", range: range.bandwidth_hz.map(Math.log10), tickformat: "~s", dtick: "D2",
        title: { text: "bandwidth of the link (Hz)" },
      },
      yaxis: { ...axis, range: [0, 100], title: { text: "share of the bandwidth (%)" } },
      shapes: [...strip, {
        type: "line", xref: "x", yref: "paper", x0: state.bandwidth_hz, x1: state.bandwidth_hz, y0: 0, y1: 1,
        line: { color: COLOURS().accent, width: 3 },
      }],
      annotations: names,
    },
  });
  at("regimes").textContent = "Regimes: " + runs
    .map((r) => `${r.regime === "none" ? "no update" : r.regime} ${quantity(r.from, "Hz")}–${quantity(r.to, "Hz")}`)
    .join("; ") + ".";
}

let due = 0;
for (const [id, name] of [["bandwidth", "bandwidth_hz"], ["period", "period_s"]]) {
  at(id).value = scale(name).of(state[name]);
  at(id).addEventListener("input", () => {
    const value = scale(name).at(Number(at(id).value));
    state[name] = Math.abs(value / link.period_s - 1) < 0.004 && name === "period_s" ? link.period_s : value;
    showAnswer();
    cancelAnimationFrame(due);
    due = requestAnimationFrame(() => showShares(name === "period_s"));
    history.replaceState(null, "", `#bandwidth_hz=${state.bandwidth_hz}&period_s=${state.period_s}`);
  });
}

showAnswer();
showShares(true);
redraws.push(() => showShares(false));
