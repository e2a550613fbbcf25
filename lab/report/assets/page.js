"use strict";
/* Draws the figures. Everything comes from the JSON in the page. */
const contents = JSON.parse(document.getElementById("contents").textContent);
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const COLOURS = { up: "#0072b2", down: "#e69f00", accent: "#d55e00" };
const at = (id) => document.getElementById(id);
const narrow = () => window.innerWidth < 560;

/* A phone: two columns of legend, no numbers in cells too small for them. */
function slim(figure, layout) {
  if (layout.scene) layout.scene = { ...layout.scene, camera: { eye: { x: -1.8, y: -1.8, z: 0.9 }, center: { z: -0.15 } } };
  if (layout.legend && figure.data.length > 9) {
    layout.legend = { ...layout.legend, entrywidth: 0.5, entrywidthmode: "fraction" };
    layout.height += 60;
  }
  return { data: figure.data.map((trace) => (!trace.colorbar ? trace
    : { ...trace, ...(trace.type === "heatmap" && { texttemplate: "" }),
        colorbar: { ...trace.colorbar, orientation: "h", y: 1.02, yanchor: "bottom" } })) };
}

function draw(id, figure) {
  const layout = {
    paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", autosize: true,
    ...figure.layout, font: { family: FONT, size: 12, color: "#1f2328" },
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
for (const [id, figure] of Object.entries(contents.figures))
  if (solid || !figure.layout.scene) draw(id, figure);
  else at(id).textContent = "This browser has no WebGL, hence no 3-D. The contour shows the same surface.";

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

function layOut(onPaper) {
  document.documentElement.classList.toggle("paper", onPaper);
  document.querySelectorAll("details").forEach((part) => (part.open = onPaper));
  for (const plot of document.querySelectorAll(".js-plotly-plot"))
    Plotly.relayout(plot, onPaper ? { width: plot.clientWidth } : { width: null, autosize: true });
}
addEventListener("beforeprint", () => layOut(true));
addEventListener("afterprint", () => layOut(false));
addEventListener("load", () => (document.body.dataset.ready = "yes"));
