"use strict";
/* Draws the figures. Everything comes from the JSON in the page. */
const contents = JSON.parse(document.getElementById("contents").textContent);
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const at = (id) => document.getElementById(id);
const narrow = () => window.innerWidth < 560;

/* Figures are written for light paper; these take their place on dark. What is to stay white or
   black on a colour scale is called by its name. */
const NIGHT = {
  "#ffffff": "#161b22", "#1f2328": "#e6edf3", "#000000": "#f0f3f6", "#e6e8eb": "#2d333b", "#cfd3d8": "#3d444d",
  "#5f6368": "#a3adb8", "#8a8f98": "#8b949e", "#9aa0a6": "#6e7681", "#0072b2": "#4ba3e3", "#d55e00": "#f0803c",
  "#009e73": "#2fbf92", "#56b4e9": "#7cc7f2", "#f1f3f5": "#21262d", "#cfe5f3": "#123a57", "#fbe3b0": "#574212",
  "#f3d3bf": "#5a3319", "#b9d6ea": "#1d4a69", "#d5d9de": "#3d444d",
};
const scheme = matchMedia("(prefers-color-scheme: dark)");
let onPaper = false;
const dark = () => scheme.matches && !onPaper;
const COLOURS = () => (dark() ? { up: "#1570b0", down: "#e0a02a", accent: "#f0803c" } : { up: "#0072b2", down: "#e69f00", accent: "#d55e00" });
const themed = (value) => (dark()
  ? JSON.parse(JSON.stringify(value).replace(/#[0-9a-f]{6}/g, (colour) => NIGHT[colour] || colour)
      .replace(/rgba\(0,114,178,0\.2\)/g, "rgba(75,163,227,0.28)"))
  : value);

/* A phone: two columns of legend, no numbers in cells too small for them. */
function slim(figure, layout) {
  if (layout.scene) layout.scene = { ...layout.scene, camera: { eye: { x: -1.8, y: -1.8, z: 0.9 }, center: { z: -0.15 } } };
  if (layout.legend && figure.data.length > 9) {
    layout.legend = { ...layout.legend, entrywidth: 0.5, entrywidthmode: "fraction" };
    layout.height += 60;
  }
  const x = layout.xaxis;
  if (x && x.type === "log" && !x.tickvals) layout.xaxis = { ...x, dtick: null, tickangle: 0, tickvals: fewTicks(figure, x) };
  if (x && x.type === "category") layout.xaxis = { ...x, dtick: 2 };
  const flat = (bar) => ({ ...bar, orientation: "h", y: 1.02, yanchor: "bottom", title: { ...bar.title, side: "top" } });
  return { data: figure.data.map((trace) => {
    if (trace.marker && trace.marker.colorbar) return { ...trace, marker: { ...trace.marker, colorbar: flat(trace.marker.colorbar) } };
    return trace.colorbar ? { ...trace, texttemplate: "", colorbar: flat(trace.colorbar) } : trace;
  }) };
}

/* At most five of 1, 2, 5 · 10^k in what a figure shows. */
function fewTicks(figure, axis) {
  const seen = axis.range ? axis.range.map((v) => 10 ** v) : figure.data.flatMap((trace) => trace.x || []).filter((v) => v > 0);
  const low = Math.min(...seen), high = Math.max(...seen), found = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++)
    found.push(...[1, 2, 5].map((c) => c * 10 ** k).filter((v) => v >= low && v <= high));
  const step = Math.ceil(found.length / 5);
  return found.filter((_, i) => i % step === 0);
}

function draw(id, figure) {
  figure = themed(figure);
  const ground = themed("#ffffff");
  const layout = {
    paper_bgcolor: ground, plot_bgcolor: ground, autosize: true,
    ...figure.layout, font: { family: FONT, size: 12, color: themed("#1f2328") },
    hoverlabel: { font: { family: FONT } },
  };
  if (narrow()) figure = slim(figure, layout);
  if (matchMedia("(pointer: coarse)").matches && !layout.scene) layout.dragmode = false;
  return Plotly.react(id, figure.data, layout, {
    responsive: true, displaylogo: false, modeBarButtons: [["toImage", layout.scene ? "resetCameraDefault3d" : "resetScale2d"]],
    displayModeBar: matchMedia("(hover: hover)").matches && layout.height > 200 ? "hover" : false,
    toImageButtonOptions: { format: "svg", filename: id },
  });
}

function quantity(value, unit) {
  if (!Number.isFinite(value)) return "–";
  const [scale, prefix] =
    [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]].find(([s]) => Math.abs(value) >= s * 0.9995) || [1, ""];
  const digits = value / scale, size = Math.abs(digits);
  return `${Number(digits.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2))}\u00a0${prefix}${unit}`;
}
const percent = (x) => (100 * x).toFixed(1);

const canvas = document.createElement("canvas");
const solid = Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
function drawAll() {
  for (const [id, figure] of Object.entries(contents.figures))
    if (solid || !figure.layout.scene) draw(id, figure);
    else at(id).closest("figure").hidden = true; // no WebGL: the contour shows the same surface
}
drawAll();

/* Paper cannot show WebGL: it gets a picture of the surface as it was last turned. */
if (at("surface") && solid) {
  const picture = document.createElement("img");
  picture.className = "paper-only";
  picture.alt = "the fitted surface with the measured points";
  at("surface").after(picture);
  const takePicture = () =>
    Plotly.toImage("surface", { format: "png", width: 560, height: 460, scale: 2 })
      .then((url) => (picture.src = url))
      .catch(() => picture.remove());
  at("surface").on("plotly_relayout", takePicture);
  setTimeout(takePicture, 1000);
}

/* Others redraw what is theirs when the colours change. */
const redraws = [drawAll];
scheme.addEventListener("change", () => redraws.forEach((again) => again()));

function layOut(printing) {
  const recolour = scheme.matches;
  onPaper = printing;
  document.documentElement.classList.toggle("paper", printing);
  document.querySelectorAll("main details").forEach((part) => (part.open = printing));
  if (recolour) redraws.forEach((again) => again());
  for (const plot of document.querySelectorAll(".js-plotly-plot"))
    Plotly.relayout(plot, printing ? { width: plot.clientWidth } : { width: null, autosize: true });
}
addEventListener("beforeprint", () => layOut(true));
addEventListener("afterprint", () => layOut(false));

/* A table that is wider than its place says so. */
for (const place of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "more";
  hint.textContent = "More columns to the right: scroll the table →";
  hint.hidden = true;
  place.after(hint);
  new ResizeObserver(() => (hint.hidden = place.scrollWidth <= place.clientWidth + 1)).observe(place);
}

/* On a phone the contents would fill the first screen. */
if (narrow() && at("contents-list")) at("contents-list").open = false;

/* The crops of what an update changes, by kind and class. */
const chooser = document.querySelector(".chooser");
if (chooser) {
  const crops = [...document.querySelectorAll("#crops figure")];
  const choose = () => {
    const kinds = new Set([...chooser.querySelectorAll("input:checked")].map((box) => box.value));
    const name = at("class").value;
    for (const crop of crops)
      crop.hidden = !kinds.has(crop.dataset.kind) || (name !== "" && crop.dataset.class !== name);
    at("chosen").textContent = `${crops.filter((crop) => !crop.hidden).length} of ${crops.length} shown`;
  };
  chooser.hidden = false;
  chooser.addEventListener("change", choose);
  choose();
}
addEventListener("load", () => (document.body.dataset.ready = "yes"));
