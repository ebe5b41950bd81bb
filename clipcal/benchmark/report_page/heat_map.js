/* A table of data sets and models for each protocol, with a color for each column. */

// The largest share of the color, which leaves the text readable.
const MOST_COLOR = 0.85;
const DASH = "\u2013";
const protocols = JSON.parse(document.getElementById("data").textContent);

function partLabel(part, metric) {
  return part === "joined" ? metric.joined : part;
}

function modelLabel(data, model) {
  const several = new Set(data.models.map(({ shots }) => shots).filter(Boolean)).size > 1;
  return several && model.shots ? `${model.label}, ${model.shots} shots` : model.label;
}

function setUpHeatMap(box, data) {
  const [metrics, parts] = box.querySelectorAll("select");
  metrics.append(...data.metrics.map((metric, index) => option(index, metric.label)));
  const fillParts = () => {
    const chosen = parts.selectedIndex;
    const metric = data.metrics[metrics.value];
    parts.replaceChildren(...data.parts.map((part, index) => option(index, partLabel(part, metric))));
    parts.selectedIndex = Math.max(chosen, 0);
  };
  const draw = () => {
    const table = heatMap(data, Number(metrics.value), Number(parts.value));
    box.querySelector(".scroll").replaceChildren(table);
    const metric = data.metrics[metrics.value];
    const scale =
      metric.higher === null ? "A stronger color is higher" : "A stronger color is better, and the best is underlined";
    box.querySelector(".about").textContent =
      `${metric.about} Means over seeds. ${scale}, among the models in a column.`;
    applyFilters();
  };
  parts.parentElement.hidden = data.parts.length === 1;
  fillParts();
  metrics.addEventListener("input", fillParts);
  box.addEventListener("input", draw);
  box.hidden = false;
  draw();
}

function heatMap(data, metricIndex, partIndex) {
  const metric = data.metrics[metricIndex];
  const rows = data.values[metricIndex][partIndex];
  const names = [...data.datasets, "average"];
  const table = document.createElement("table");
  const caption = table.createCaption();
  const part = data.parts.length > 1 ? `, ${partLabel(data.parts[partIndex], metric)}` : "";
  const title = document.createElement("div");
  title.textContent = metric.label + part;
  caption.append(title);
  const head = table.createTHead().insertRow();
  head.append(header("col", "model"), ...names.map((name) => header("col", name)));
  const body = table.createTBody();
  const ranges = names.map((_, column) => range(rows.map((row) => row[column])));
  data.models.forEach((model, index) => {
    const line = body.insertRow();
    line.dataset.method = model.method;
    line.append(header("row", modelLabel(data, model)));
    names.forEach((_, column) => fillCell(line.insertCell(), rows[index][column], metric, ranges[column]));
  });
  for (const line of table.rows) {
    data.datasets.forEach((name, column) => (line.cells[column + 1].dataset.column = name));
  }
  makeSortable(table);
  return table;
}

function header(scope, text) {
  const cell = document.createElement("th");
  cell.scope = scope;
  // Names of data sets may be broken after these letters.
  text.split(/(?<=[_/-])/).forEach((piece, index) => {
    if (index) cell.append(document.createElement("wbr"));
    cell.append(piece);
  });
  return cell;
}

function range(values) {
  const numbers = values.filter((value) => typeof value === "number");
  return { low: Math.min(...numbers), high: Math.max(...numbers) };
}

/** Write a number with its color, or what is missing. */
function fillCell(cell, value, metric, { low, high }) {
  if (typeof value !== "number") {
    const note = document.createElement("small");
    note.textContent = value;
    cell.append(DASH, note);
    return;
  }
  const position = high > low ? (value - low) / (high - low) : 0;
  const share = metric.higher === false ? 1 - position : position;
  cell.textContent = value.toFixed(metric.digits);
  cell.dataset.value = value;
  if (high > low) {
    cell.style.setProperty("--share", (MOST_COLOR * share).toFixed(3));
    cell.classList.toggle("best", metric.higher !== null && share === 1);
  }
}

for (const section of document.querySelectorAll("section[data-index]")) {
  const data = protocols[section.dataset.index];
  if (data.metrics.length) setUpHeatMap(section.querySelector(".heat-map"), data);
}
