"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
document.documentElement.classList.add("js");

// One category, everywhere on the page.
const category = document.getElementById("category");
const cards = all(".card");
const verdicts = all("#verdicts input");
const shown = document.getElementById("shown");

function filterCards() {
  const wanted = new Set(verdicts.filter((box) => box.checked).map((box) => box.value));
  let count = 0;
  for (const card of cards) {
    const one = category.value === "" || card.dataset.category === category.value;
    card.hidden = !(one && wanted.has(card.dataset.verdict));
    count += !card.hidden;
  }
  if (shown) shown.value = `${count} of ${cards.length} images shown`;
}

function filterCategory() {
  for (const part of all("[data-category]:not(.card)")) {
    part.hidden = category.value !== "" && part.dataset.category !== category.value;
  }
  filterCards();
}

category.addEventListener("change", filterCategory);
for (const box of verdicts) box.addEventListener("change", filterCards);

// Order of the gallery.
const orders = {
  telling: (a, b) => a.dataset.order - b.dataset.order,
  highest: (a, b) => b.dataset.score - a.dataset.score,
  lowest: (a, b) => a.dataset.score - b.dataset.score,
  path: (a, b) => (a.dataset.path < b.dataset.path ? -1 : 1),
};
const order = document.getElementById("order");
order?.addEventListener("change", () => {
  cards.sort(orders[order.value]);
  document.getElementById("cards").append(...cards);
});

// Heat map over the input: one slider a card, and one for all of them.
const blend = (card, value) => card.style.setProperty("--heat", value / 100);
for (const card of cards) {
  const slider = card.querySelector("input");
  slider.addEventListener("input", () => blend(card, slider.value));
}
const every = document.getElementById("every");
every?.addEventListener("input", () => {
  for (const card of cards) {
    card.querySelector("input").value = every.value;
    blend(card, every.value);
  }
});
for (const [id, name] of [["outlines", "no-outlines"], ["large", "large"]]) {
  const box = document.getElementById(id);
  box?.addEventListener("change", () =>
    document.getElementById("cards").classList.toggle(name, box.checked === (name === "large")));
}

// The summary, sorted by the column whose header is pressed; what is missing stays last.
const body = document.querySelector("#table tbody");
const headers = all("#table thead th");
headers.forEach((header, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => {
    const text = header.dataset.sort === "text";
    const first = text ? "ascending" : "descending";
    const second = text ? "descending" : "ascending";
    const direction = header.getAttribute("aria-sort") === first ? second : first;
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (text ? x.localeCompare(y) : x - y);
    });
    body.append(...rows);
  });
});

filterCategory(); // a browser may remember the controls of an earlier visit
