/* Reliability diagrams of all models on one data set, drawn when they are opened. */

const UNIT = 10000;
const SIZE = 160;
const LEFT = 30;
const TOP = 8;
const STRIP = 26;
const GAP = 8;
const ALL_SEEDS = "all";

function setUpReliability(box, data) {
  const [datasets, parts, seeds] = box.querySelectorAll("select");
  const { cells } = data.diagrams;
  for (const item of [...datasets.options]) if (!cells[item.value]) item.remove();
  if (!datasets.length) return;
  parts.append(...data.parts.filter((part) => part !== "joined").map((part) => option(part)));
  parts.parentElement.hidden = parts.length === 1;
  const found = Object.values(cells).flatMap((byPart) => Object.values(byPart).flat());
  const numbers = [...new Set(found.map(([, seed]) => seed))].sort((a, b) => a - b);
  seeds.append(option(ALL_SEEDS), ...numbers.filter((seed) => seed !== 0).map((seed) => option(seed)));
  const draw = () => {
    const here = cells[datasets.value][parts.value] ?? [];
    const figures = data.models.map((model, index) => {
      // Models without seeds have the seed 0.
      const wanted = here.filter(
        ([place, seed]) =>
          place === index && (seeds.value === ALL_SEEDS || seed === 0 || seed === Number(seeds.value)),
      );
      if (!wanted.length) return null;
      const missing = seeds.value === ALL_SEEDS ? missingSeeds(data, datasets.value, parts.value, index) : "";
      return diagram(modelLabel(data, model), model.method, { ...pooled(wanted, data), missing });
    });
    box.querySelector(".diagrams").replaceChildren(...figures.filter(Boolean));
    applyFilters();
  };
  box.hidden = false;
  box.addEventListener("toggle", () => box.open && draw());
  box.addEventListener("input", draw);
}

/** Return what is missing of the mean over seeds of a model, if anything. */
function missingSeeds(data, dataset, part, model) {
  const metric = data.metrics.findIndex(({ id }) => id === "ece");
  const rows = data.values[metric]?.[data.parts.indexOf(part)];
  const value = rows?.[model][data.datasets.indexOf(dataset)];
  return typeof value === "string" ? value : "";
}

/** Add up the bins of several seeds. */
function pooled(cells, data) {
  const bins = Array.from({ length: data.diagrams.n_bins }, () => ({ count: 0, confidence: 0, accuracy: 0 }));
  for (const [, , , flat] of cells) {
    for (let i = 0; i < flat.length; i += 4) {
      const bin = bins[flat[i]];
      bin.count += flat[i + 1];
      bin.confidence += (flat[i + 1] * flat[i + 2]) / UNIT;
      bin.accuracy += (flat[i + 1] * flat[i + 3]) / UNIT;
    }
  }
  const total = bins.reduce((sum, { count }) => sum + count, 0);
  const correct = bins.reduce((sum, { accuracy }) => sum + accuracy, 0);
  for (const bin of bins) {
    bin.confidence /= bin.count || 1;
    bin.accuracy /= bin.count || 1;
    bin.share = bin.count / total;
  }
  const ece = cells.reduce((sum, [, , value]) => sum + value, 0) / cells.length;
  return { bins, ece, accuracy: (100 * correct) / total, n: total, nSeeds: cells.length };
}

function diagram(label, method, { bins, ece, accuracy, n, nSeeds, missing }) {
  const figure = document.createElement("figure");
  figure.dataset.method = method;
  const caption = document.createElement("figcaption");
  const name = document.createElement("strong");
  name.textContent = label;
  const seeds = nSeeds > 1 ? `, ${nSeeds} seeds` : "";
  const numbers = missing
    ? `ECE ${DASH} (${missing})`
    : `ECE ${ece.toFixed(2)}, accuracy ${accuracy.toFixed(2)}`;
  caption.append(name, `${numbers}, ${n} images${missing ? "" : seeds}`);
  const height = TOP + SIZE + GAP + STRIP + 26;
  const svg = shape("svg", { viewBox: `0 0 ${LEFT + SIZE + 10} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `${label}: ${described(bins)}`);
  drawBars(svg, bins);
  drawAxes(svg);
  figure.append(caption, svg);
  return figure;
}

/** Return the bins in words, for screen readers. */
function described(bins) {
  const percent = (value) => `${Math.round(100 * value)} %`;
  return bins
    .filter(({ count }) => count)
    .map((bin) => `confidence ${percent(bin.confidence)}, accuracy ${percent(bin.accuracy)}, ${bin.count} images`)
    .join("; ");
}

function drawBars(svg, bins) {
  const width = SIZE / bins.length;
  const most = Math.max(...bins.map(({ share }) => share));
  const bottom = TOP + SIZE + GAP + STRIP;
  bins.forEach(({ count, accuracy, share }, index) => {
    if (!count) return;
    const x = LEFT + index * width;
    const top = TOP + SIZE * (1 - accuracy);
    const high = (STRIP * share) / most;
    svg.append(
      shape("rect", { class: "bar", x, y: top, width, height: SIZE * accuracy }),
      shape("rect", { class: "share", x, y: bottom - high, width: width * 0.9, height: high }),
    );
  });
  svg.append(shape("path", { class: "diagonal", d: `M${LEFT} ${TOP + SIZE}l${SIZE} ${-SIZE}` }));
  for (const { count, confidence, accuracy } of bins) {
    const place = { cx: LEFT + SIZE * confidence, cy: TOP + SIZE * (1 - accuracy) };
    if (count) svg.append(shape("circle", { class: "dot", ...place, r: 2.6 }));
  }
}

function drawAxes(svg) {
  const bottom = TOP + SIZE + GAP + STRIP;
  svg.append(
    shape("rect", { class: "frame", x: LEFT, y: TOP, width: SIZE, height: SIZE }),
    shape("path", { class: "frame", d: `M${LEFT} ${bottom}h${SIZE}` }),
  );
  for (const value of [0, 0.5, 1]) {
    const y = TOP + SIZE * (1 - value) + 3;
    svg.append(
      shape("text", { x: LEFT - 4, y, "text-anchor": "end" }, String(value)),
      shape("text", { x: LEFT + SIZE * value, y: bottom + 10, "text-anchor": "middle" }, String(value)),
    );
  }
  const middle = TOP + SIZE / 2;
  svg.append(
    shape("text", { x: LEFT + SIZE / 2, y: bottom + 20, "text-anchor": "middle" }, "confidence"),
    shape("text", { "text-anchor": "middle", transform: `translate(9 ${middle}) rotate(-90)` }, "accuracy"),
  );
}

function shape(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, typeof value === "number" ? Number(value.toFixed(2)) : value);
  }
  element.textContent = text;
  return element;
}

for (const section of document.querySelectorAll("section[data-index]")) {
  setUpReliability(section.querySelector(".reliability"), protocols[section.dataset.index]);
}
window.addEventListener("beforeprint", () => {
  for (const box of document.querySelectorAll(".reliability:not([hidden])")) box.open = true;
});
applyFilters();
