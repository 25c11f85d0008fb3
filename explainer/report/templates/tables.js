"use strict";
// Sorting of tables by their headings, and copying of commands.
(() => {
  const value = (row, column, numeric) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined) return null;
    return numeric ? Number(text.replace("inf", "Infinity")) : text; // as the CSV files write it
  };

  const compare = (first, second, sign) => {
    if (first === null || second === null) return (first === null) - (second === null); // empty cells stay last
    const order = typeof first === "number" ? first - second : first.localeCompare(second, undefined, { numeric: true });
    return sign * order;
  };

  const sort = (heading) => {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const numeric = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    // Numbers begin with the largest, names with A.
    const next = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column, numeric), row]);
    rows.sort((first, second) => compare(first[0], second[0], sign));
    body.append(...rows.map((pair) => pair[1]));
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sort(button.closest("th"));
    const copy = event.target.closest("button.copy");
    if (copy) {
      const text = copy.parentElement.querySelector("code").textContent;
      // A page from disk may not write to the clipboard everywhere; then the text is selected for Ctrl-C.
      const select = () => getSelection().selectAllChildren(copy.parentElement.querySelector("code"));
      (navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject()).then(
        () => { copy.textContent = "Copied"; },
        select,
      );
    }
  });
})();
