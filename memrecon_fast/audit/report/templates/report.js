"use strict";
// The filters of the contact sheet and of the galleries. Without scripts they are not shown, and everything else is.

const values = bar => Object.fromEntries([...bar.querySelectorAll("select, input")].map(one => [one.name, one.value]));
const asked = wanted => Object.values(wanted).some(value => value !== "");

function showSheet(wanted, said) {
  const tiles = [...document.querySelectorAll(".tile")];
  for (const tile of tiles) {
    tile.hidden = !((!wanted.verdict || tile.dataset.verdict === wanted.verdict)
      && (!wanted.mask || tile.dataset.mask === wanted.mask)
      && tile.dataset.name.toLowerCase().includes(wanted.name.toLowerCase()));
  }
  const rest = document.querySelector("#sheet-rest");
  if (rest && asked(wanted)) rest.open = true;
  said.textContent = asked(wanted) ? `${tiles.filter(tile => !tile.hidden).length} of ${tiles.length}` : "";
}

const sections = [...document.querySelectorAll("details.cell")];
for (const row of document.querySelectorAll("details.cell tr.image")) row.home = row.parentElement;

function key(row, wanted) {
  const cells = [...row.querySelectorAll("td[data-error]")];
  const cell = wanted.method ? cells.find(one => one.dataset.method === wanted.method) : cells[0];
  return cell ? Number(cell.dataset.error) : Infinity;
}

function inOrder(rows, wanted) {
  if (wanted.order === "name") {
    return rows.sort((a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, {numeric: true}));
  }
  const sign = wanted.order === "worst" ? -1 : 1;
  const compare = (a, b) => a === b ? 0 : a < b ? -1 : 1;  // of infinities the difference is no number
  return rows.sort((a, b) => sign * compare(key(a, wanted), key(b, wanted)));
}

function showGallery(wanted, said) {
  let count = 0;
  for (const section of sections) {
    for (const cell of section.querySelectorAll("[data-method]")) {
      cell.hidden = wanted.method !== "" && cell.dataset.method !== wanted.method;
    }
    section.rows ??= [...section.querySelectorAll("tr.image")];
    for (const row of section.rows) {
      const cells = [...row.querySelectorAll("td[data-verdict]")].filter(cell => !cell.hidden);
      row.hidden = wanted.verdict !== "" && !cells.some(cell => cell.dataset.verdict === wanted.verdict);
    }
    const groups = [...section.querySelectorAll("tbody")];
    if (wanted.order) groups[0].append(...inOrder([...section.rows], wanted));
    else for (const row of section.rows) row.home.append(row);
    for (const group of groups) {
      const heading = group.querySelector("tr.group");
      heading.hidden = wanted.order !== "" || ![...group.querySelectorAll("tr.image")].some(row => !row.hidden);
    }
    const left = section.rows.filter(row => !row.hidden).length;
    section.hidden = left === 0 || (wanted.mask !== "" && section.dataset.mask !== wanted.mask)
      || (wanted.split !== "" && section.dataset.split !== wanted.split);
    if (!section.hidden) {
      count += left;
      if (asked(wanted)) section.open = true;
    }
  }
  said.textContent = asked(wanted) ? `${count} rows` : "";
}

for (const bar of document.querySelectorAll(".filters")) {
  const show = bar.dataset.of === "sheet" ? showSheet : showGallery;
  const said = bar.querySelector("output");
  bar.addEventListener("input", () => show(values(bar), said));
  bar.hidden = false;
}
