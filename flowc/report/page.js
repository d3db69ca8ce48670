"use strict";
// Details of a box by click, Enter or Space; arrows go from box to box; / goes to the search, Enter there to the next hit.
const facts = JSON.parse(document.getElementById("details").textContent);
const dialog = document.querySelector("dialog");
const search = document.getElementById("search");
const said = document.getElementById("said");
const boxes = [...document.querySelectorAll("svg .box[data-id]")];
const rows = [...document.querySelectorAll("main tbody tr")];
let hits = [];
let at = -1;

function show(box) {
  const about = facts[box.dataset.id];
  dialog.querySelector("h3").textContent = about.title;
  const list = dialog.querySelector("dl");
  list.replaceChildren();
  for (const [name, value] of about.facts) {
    for (const [tag, text] of [["dt", name], ["dd", value]]) {
      const made = document.createElement(tag);
      made.textContent = text;
      list.append(made);
    }
  }
  dialog.showModal();
}

function opened(element) {
  for (let e = element.parentElement; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  return element;
}

function beside(box, step) {
  const own = boxes.filter(b => b.ownerSVGElement === box.ownerSVGElement);
  const next = own[own.indexOf(box) + step];
  if (next) focusOn(next);
}

function focusOn(box) {
  for (const b of boxes) if (b.ownerSVGElement === box.ownerSVGElement) b.setAttribute("tabindex", b === box ? 0 : -1);
  box.focus();
  box.scrollIntoView({block: "nearest", inline: "nearest"});
}

for (const box of boxes) {
  box.addEventListener("click", () => { focusOn(box); show(box); });
  box.addEventListener("keydown", event => {
    const step = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
    if (step) beside(box, step);
    else if (event.key === "Enter" || event.key === " ") show(box);
    else return;
    event.preventDefault();
  });
}

function find() {
  const text = search.value.trim().toLowerCase();
  const fits = words => text !== "" && words.toLowerCase().includes(text);
  hits = [];
  for (const box of boxes) {
    const about = facts[box.dataset.id];
    const found = fits(about.title + " " + about.facts.map(f => f[1]).join(" "));
    box.classList.toggle("found", found);
    if (found) hits.push(box);
  }
  for (const row of rows) {
    const found = fits(row.textContent);
    row.classList.toggle("found", found);
    if (found) hits.push(row);
  }
  at = -1;
  said.textContent = text === "" ? "" : hits.length + (hits.length === 1 ? " place" : " places");
}

search.addEventListener("input", find);
search.addEventListener("keydown", event => {
  if (event.key === "Escape") { search.value = ""; find(); }
  if (event.key !== "Enter" || !hits.length) return;
  event.preventDefault();
  at = (at + (event.shiftKey ? hits.length - 1 : 1)) % hits.length;
  opened(hits[at]).scrollIntoView({block: "center", inline: "center"});
  said.textContent = (at + 1) + " of " + hits.length;
});
function centre(sheet) { if (sheet) sheet.scrollLeft = (sheet.scrollWidth - sheet.clientWidth) / 2; }
for (const svg of document.querySelectorAll("main svg")) {
  centre(svg.parentElement);
  svg.closest("details").addEventListener("toggle", () => centre(svg.parentElement));
}
document.addEventListener("keydown", event => {
  if (event.key === "/" && event.target !== search && !dialog.open) { event.preventDefault(); search.focus(); }
});
