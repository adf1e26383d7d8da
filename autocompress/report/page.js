// Draws each plot from the JSON beside it, in the colours of the style sheet, again whenever these change.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
// A finger scrolls the page instead of zooming a plot.
const touch = window.matchMedia("(pointer: coarse)").matches;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: read("--grid"), linecolor: read("--line"), tickcolor: read("--line") };
  const hover = { bgcolor: read("--card"), bordercolor: read("--soft"), font: { color: read("--ink") } };
  return { font: { color: read("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 }, xaxis: axis, yaxis: axis, hoverlabel: hover };
}

function merged(layout) {
  const result = { ...layout };
  for (const [key, value] of Object.entries(colours())) result[key] = { ...layout[key], ...value };
  if (touch) result.dragmode = false;
  return result;
}

function draw() {
  for (const plot of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    Plotly.react(plot, figure.data, merged(figure.layout), { responsive: true, displaylogo: false, displayModeBar: false });
  }
}

draw();
dark.addEventListener("change", draw);
