// The cards of a page of samples.

import { picture } from "/page/api.js";
import { $, make, show } from "/page/dom.js";

const SHOWN_SCORES = ["quality", "visibility", "agreement", "area"];

/** Make the card of a sample. `handlers` are `open`, `select` and `decide`, each called with the card's sample. */
export function makeCard(sample, handlers) {
  const card = make("li", { class: "card", tabIndex: -1, dataset: { id: sample.id, index: sample.index } });
  const scores = make("p", { class: "numbers" });
  for (const name of SHOWN_SCORES) {
    scores.append(make("span", { title: name }, `${name} `, make("b", {}, show(sample.scores[name]))));
  }
  card.append(
    sample.drawn ? makePicture(sample, handlers) : make("div", { class: "picture absent" }, "not drawn"),
    make(
      "div",
      { class: "text" },
      make("p", { class: "caption", title: sample.caption || sample.reason }, sample.caption || sample.reason),
      make("p", { class: "muted line", title: sample.source }, [sample.family, sample.source].filter(Boolean).join(" · ")),
      scores,
    ),
    make(
      "div",
      { class: "choice" },
      makeChoice("Reject", false, sample, handlers),
      makeChoice("Accept", true, sample, handlers),
    ),
    make("span", { class: "state" }),
    make(
      "label",
      { class: "pick", title: "Select (Space)" },
      make("input", {
        type: "checkbox",
        tabIndex: -1,
        "aria-label": `Select sample ${sample.index}`,
        onclick: (event) => handlers.select(sample, event.shiftKey),
      }),
    ),
  );
  showState(card, sample);
  return card;
}

function makePicture(sample, handlers) {
  const image = (name, kind) =>
    make("img", { class: kind, loading: "lazy", decoding: "async", alt: "", draggable: false, src: picture(sample.id, name) });
  const before = make("img", { class: "before", alt: "", draggable: false });
  const holder = make(
    "button",
    {
      type: "button",
      class: "picture",
      tabIndex: -1,
      title: "Before: hold the pointer here. Click to look closer.",
      "aria-label": `Look closer at sample ${sample.index}: ${sample.caption}`,
      onclick: () => handlers.open(sample),
      onpointerenter: () => (before.src ||= picture(sample.id, "source.webp")),
    },
    image("image.webp", "after"),
    before,
    image("outline.svg", "outline"),
  );
  holder.querySelector(".after").addEventListener("error", () => {
    holder.classList.add("broken");
    holder.append(make("span", { class: "broken-text" }, "damaged file"));
  });
  return holder;
}

function makeChoice(text, accepted, sample, handlers) {
  return make(
    "button",
    {
      type: "button",
      tabIndex: -1,
      disabled: !sample.drawn,
      class: accepted ? "yes" : "no",
      title: accepted ? "Accept (A)" : "Reject (R)",
      onclick: () => handlers.decide(sample, accepted),
    },
    text,
  );
}

/** Show the decision about a card's sample. */
export function showState(card, { decision, kept }) {
  card.classList.toggle("kept", kept);
  card.classList.toggle("out", !kept);
  card.dataset.decision = String(decision);
  const words = { true: "accepted", false: "rejected", null: kept ? "" : "left out" };
  card.querySelector(".state").textContent = words[String(decision)];
  card.querySelector(".yes").setAttribute("aria-pressed", decision === true);
  card.querySelector(".no").setAttribute("aria-pressed", decision === false);
}

/** Return how many cards are in a row of the grid. */
export function countColumns() {
  const cards = [...$("grid").children];
  const below = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
  return below === -1 ? Math.max(cards.length, 1) : below;
}
