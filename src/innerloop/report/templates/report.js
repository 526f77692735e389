"use strict";

// A click on a column's heading sorts by it: ascending, then descending. Cells without a value come last both ways.
function valueOf(row, column) {
  const given = row.cells[column].dataset.value;
  if (given === undefined) return null;
  const number = Number(given);
  return given.trim() !== "" && Number.isFinite(number) ? number : given.toLowerCase();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return sign * compare(a.value, b.value);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", direction);
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// What an address names is opened.
function unfold() {
  const part = document.getElementById(location.hash.slice(1));
  const folded = part?.querySelector(":scope > details");
  if (folded) folded.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// Paper can't be unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
