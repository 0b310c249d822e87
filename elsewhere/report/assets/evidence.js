"use strict";
// Tables of numbers, and where each number comes from.

const byId = (id) => document.getElementById(id);

function fillTable(table, head, rows) {
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text, at) => {
      const cell = document.createElement(at === 0 || tag === "th" ? "th" : tag);
      cell.scope = tag === "th" ? "col" : at === 0 ? "row" : "";
      if (!cell.scope) cell.removeAttribute("scope");
      cell.textContent = text;
      return cell;
    }));
    return row;
  };
  table.tHead.replaceChildren(line(head, "th"));
  table.tBodies[0].replaceChildren(...rows.map((row) => line(row, "td")));
}

// --- where numbers come from ----------------------------------------------------------------

function describe(list, file, { variable, place, value, meaning, error, chance, formed }) {
  const facts = [
    ["number", value],
    ["what", `${meaning} (${variable})`],
    ["at", place],
    ["compare with", chance],
    ["run and seed", [file.condition, file.seed && `seed ${file.seed}`].filter(Boolean).join(", ")],
    ["file", `${file.shown ?? file.path} in ${file.directory}`],
    ["SHA-256 of the file", file.sha256],
    ["made by", file.command],
    [formed ? "error of the factor, over all layers and pairs" : "error of the page's rounding",
      error === undefined ? "" : `at most ${error.toExponential(1)}`],
  ].filter(([, text]) => text);
  list.replaceChildren(...facts.flatMap(([name, text]) => {
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = text;
    return [term, said];
  }));
}

function tell(button) {
  const { file, variable, place, value, meaning } = JSON.parse(button.dataset.evidence);
  describe(byId("evidence-list"), catalogue.files[file], { variable, place, value, meaning });
  byId("evidence").hidden = false;
}

function listenToNumbers() {
  for (const kind of ["click", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const button = event.target.closest?.("button.number");
      if (button) tell(button);
    });
  }
  const close = () => { byId("evidence").hidden = true; };
  byId("evidence-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
}
