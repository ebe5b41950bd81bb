"use strict";

/* Sorting of tables by their columns, and filters of rows and columns. */

const DIRECTIONS = { none: "ascending", ascending: "descending", descending: "none" };

/** Put a button into each header of a column; clicks cycle through ascending, descending, original order. */
function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const name = document.createElement("span");
    name.append(...header.childNodes);
    button.append(name);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const direction = DIRECTIONS[header.getAttribute("aria-sort")];
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", direction);
      body.append(...sortedRows(original, column, direction));
    });
  });
}

function sortedRows(rows, column, direction) {
  if (direction === "none") return rows;
  const sign = direction === "ascending" ? 1 : -1;
  const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
  const keyed = rows.map((row) => {
    const { dataset, textContent } = row.cells[column];
    return { row, key: numeric ? parseFloat(dataset.value) : textContent.trim() };
  });
  // Rows without a number are last in both directions.
  const missing = (key) => numeric && Number.isNaN(key);
  keyed.sort((a, b) => {
    if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key);
    return sign * (numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true }));
  });
  return keyed.map(({ row }) => row);
}

/** Apply all filters to sections, rows and columns, and tell how many rows remain. */
function applyFilters() {
  const form = document.getElementById("filters");
  const { text, protocol, dataset, method } = Object.fromEntries(new FormData(form));
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("section[data-protocol]")) {
    section.hidden = protocol !== "" && section.dataset.protocol !== protocol;
  }
  const differs = (wanted, found) => wanted !== "" && found !== undefined && found !== "" && found !== wanted;
  let total = 0;
  let shown = 0;
  for (const row of document.querySelectorAll("main tbody tr")) {
    const content = row.textContent.toLowerCase();
    row.hidden =
      differs(method, row.dataset.method) ||
      differs(dataset, row.dataset.dataset) ||
      !words.every((word) => content.includes(word));
    if (row.closest("section[hidden]")) continue;
    total += 1;
    shown += !row.hidden;
  }
  for (const cell of document.querySelectorAll("[data-column]")) {
    cell.hidden = differs(dataset, cell.dataset.column);
  }
  for (const figure of document.querySelectorAll(".diagrams figure")) {
    figure.hidden =
      differs(method, figure.dataset.method) ||
      !words.every((word) => figure.textContent.toLowerCase().includes(word));
  }
  document.getElementById("shown").textContent = `${shown} of ${total} rows shown`;
}

function option(value, label = value) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = label;
  return element;
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.getElementById("filters").addEventListener("input", applyFilters);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
// The fields have their first values only after the event.
document.getElementById("filters").addEventListener("reset", () => setTimeout(applyFilters));
