// The query: the form at the side, kept in the address, so that a reload shows the same samples.

import { drawHistogram } from "/page/histogram.js";
import { $, make, show } from "/page/dom.js";

const SINGLE = { find: "", decision: "any", sort: "index", order: "asc", score: "quality" };
const GROUPS = ["family", "reason", "split"];

/** Keep the form and the query in step; `onchange` is called when the person changes the query. */
export class Filters {
  constructor(onchange) {
    this.onchange = onchange;
    this.query = new URLSearchParams(location.search);
    this.form = $("query");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    for (const name of ["decision", "sort", "order", "score"]) {
      this.form.elements[name].addEventListener("change", (event) => this.put(name, event.target.value));
    }
    let waiting = 0;
    this.form.elements.find.addEventListener("input", (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.put("find", event.target.value), 250);
    });
    for (const id of ["least", "largest"]) $(id).addEventListener("change", () => this.readRange());
    $("reset").addEventListener("click", () => this.replace(new URLSearchParams()));
  }

  /** Show what the server answered: the counts to choose from, the histogram, and what is chosen. */
  update({ facets, scores, histogram }) {
    for (const [name, fallback] of Object.entries(SINGLE)) {
      const field = this.form.elements[name];
      if (name === "sort") fill(field, [["index", "as made"], ...scores.map((score) => [score, score])]);
      if (name === "score") fill(field, scores.map((score) => [score, score]));
      if (document.activeElement !== field) field.value = this.query.get(name) ?? fallback;
    }
    for (const group of GROUPS) this.updateGroup(group, facets[group]);
    const [least, largest] = this.ranges().find(([name]) => name === histogram.score)?.slice(1) ?? ["", ""];
    $("least").value = least;
    $("largest").value = largest;
    drawHistogram(histogram, { least, largest }, (low, high) => this.putRange(histogram.score, low, high));
    $("ranges").replaceChildren(...this.ranges().map((range) => this.makeChip(range)));
  }

  put(name, value) {
    const query = new URLSearchParams(this.query);
    query.delete(name);
    if (value !== SINGLE[name]) query.set(name, value);
    this.replace(query, name === "score");
  }

  putRange(score, least, largest) {
    const query = new URLSearchParams(this.query);
    query.delete("range");
    for (const [name, low, high] of this.ranges()) if (name !== score) query.append("range", `${name}:${low}:${high}`);
    if (least !== "" || largest !== "") query.append("range", `${score}:${least}:${largest}`);
    this.replace(query);
  }

  /** Go to another part of the same samples. */
  turn(place) {
    this.replace(withoutPlace(this.query), true, place);
  }

  /** Change the query; start at the first page, unless only the histogram or the place changes. */
  replace(query, keepsPlace = false, place = {}) {
    this.query = keepsPlace ? query : withoutPlace(query);
    for (const [name, value] of Object.entries(place)) this.query.set(name, value);
    const text = this.query.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
    this.onchange();
  }

  ranges() {
    return this.query.getAll("range").map((text) => {
      const parts = text.split(":");
      return [parts.slice(0, -2).join(":"), parts.at(-2), parts.at(-1)];
    });
  }

  readRange() {
    const values = ["least", "largest"].map((id) => {
      const field = $(id);
      const text = field.value.trim().replace(",", ".");
      const isRight = text === "" || Number.isFinite(Number(text));
      field.setCustomValidity(isRight ? "" : "A number, or empty for no limit.");
      field.reportValidity();
      return isRight ? text : null;
    });
    if (!values.includes(null)) this.putRange(this.form.elements.score.value, ...values);
  }

  makeChip([score, least, largest]) {
    const text = [least && `≥ ${show(Number(least))}`, largest && `≤ ${show(Number(largest))}`].filter(Boolean).join(", ");
    return make(
      "li",
      {},
      `${score} ${text} `,
      make("button", { type: "button", title: "Remove", onclick: () => this.putRange(score, "", "") }, "×"),
    );
  }

  updateGroup(group, names) {
    const chosen = new Set(this.query.getAll(group));
    const shown = names.filter(({ name }) => name !== "" || names.length > 1);
    $(group).parentElement.hidden = shown.length < 2 && chosen.size === 0;
    $(group).replaceChildren(
      ...shown.map(({ name, count }) => {
        const box = make("input", { type: "checkbox", checked: chosen.has(name), onchange: () => this.choose(group, name) });
        const text = make("span", { class: "name", title: name }, name || "none");
        return make("label", { class: count ? "" : "muted" }, box, text, make("span", { class: "count" }, count.toLocaleString("en")));
      }),
    );
  }

  choose(group, name) {
    const query = new URLSearchParams(this.query);
    const chosen = new Set(query.getAll(group));
    if (!chosen.delete(name)) chosen.add(name);
    query.delete(group);
    for (const each of chosen) query.append(group, each);
    this.replace(query);
  }
}

function withoutPlace(query) {
  const rest = new URLSearchParams(query);
  for (const name of ["offset", "after", "before"]) rest.delete(name);
  return rest;
}

function fill(field, options) {
  if (field.options.length === options.length) return;
  field.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
}
