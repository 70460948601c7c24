// The grid of images: which are marked, and which of them are shown.

import { $, make, plural } from "/page/dom.js";
import { imagePicture, listImages } from "/page/mark_api.js";

const PER_PAGE = 96;
const PAUSE = 1500; // while the server looks for images that cannot be read
const WORDS = { unmarked: "", marked: "marked", no_defect: "no defect", unreadable: "cannot be read" };

/** Keeps the list of images and shows a page of it; `open` is called with the image that is chosen. */
export class ImageList {
  constructor({ open }) {
    this.open = open;
    this.images = [];
    this.state = "";
    this.page = 0;
    this.drawn = 0; // a number in the URLs of the marks' pictures, so that the browser requests them again
    $("states").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.filter(button.dataset.state);
    });
    $("find").addEventListener("input", () => this.filter(this.state));
    $("page-before").addEventListener("click", () => this.turn(-1));
    $("page-after").addEventListener("click", () => this.turn(1));
  }

  /** Request the list, again and again until the server has read every image. */
  async load({ isRepeated = false } = {}) {
    clearTimeout(this.waiting);
    const answer = await listImages();
    const isSame = JSON.stringify(answer.images) === JSON.stringify(this.images);
    Object.assign(this, { images: answer.images, proposes: answer.proposes });
    if (!isRepeated) this.drawn += 1;
    this.show(answer);
    if (!isRepeated || !isSame) this.showPage();
    if (answer.looking) this.waiting = setTimeout(() => this.load({ isRepeated: true }).catch(() => {}), PAUSE);
  }

  filter(state) {
    this.state = state;
    this.page = 0;
    for (const button of $("states").children) button.setAttribute("aria-pressed", button.dataset.state === state);
    this.showPage();
  }

  turn(step) {
    this.page += step;
    this.showPage();
    scrollTo({ top: 0 });
  }

  /** Take over an image's state from the editor. */
  note(id, state) {
    const image = this.images.find((each) => each.id === id);
    if (!image || image.state === state) return;
    this.counts[image.state] -= 1;
    this.counts[state] += 1;
    image.state = state;
    this.showCounts();
  }

  show({ counts, types, left_out: leftOut, looking }) {
    Object.assign(this, { counts, looking });
    this.showCounts();
    $("types").replaceChildren(...types.map((value) => make("option", { value })));
    $("left-out").hidden = leftOut.length === 0;
    $("left-out").querySelector("summary").textContent = `${plural(leftOut.length, "file")} left out`;
    $("left-out").querySelector("ul").replaceChildren(...leftOut.map((text) => make("li", {}, text)));
  }

  showCounts() {
    const { counts } = this;
    for (const button of $("states").children) {
      if (!button.dataset.state) continue;
      button.querySelector(".count").textContent = counts[button.dataset.state].toLocaleString("en");
      button.hidden = button.dataset.state === "unreadable" && counts.unreadable === 0;
    }
    $("counts").textContent =
      `${plural(this.images.length, "image")}: ${counts.marked} marked, ${counts.unmarked} not marked` +
      `${$("no-defect").hidden ? "" : `, ${counts.no_defect} without a defect`}${counts.unreadable ? `, ${counts.unreadable} cannot be read` : ""}` +
      (this.looking ? " (still looking)" : "");
  }

  /** The images that the filter lets through, in their order. */
  shown() {
    const text = $("find").value.trim().toLowerCase();
    return this.images.filter(
      ({ state, name, types }) =>
        (!this.state || state === this.state) && (!text || [name, ...types].some((each) => each.toLowerCase().includes(text))),
    );
  }

  showPage() {
    if ($("overview").hidden) return;
    const shown = this.shown();
    this.page = Math.min(this.page, Math.max(0, Math.ceil(shown.length / PER_PAGE) - 1));
    const start = this.page * PER_PAGE;
    const page = shown.slice(start, start + PER_PAGE);
    const focused = document.activeElement?.closest?.(".card")?.dataset.id;
    $("grid").replaceChildren(...page.map((image) => this.makeCard(image)));
    if (focused) this.focus(focused);
    $("grid").removeAttribute("aria-busy");
    $("matching").textContent = shown.length ? "" : "No image matches. Show all, or clear the search.";
    $("pager").hidden = shown.length <= PER_PAGE;
    $("place").textContent = `${start + 1} to ${start + page.length} of ${shown.length.toLocaleString("en")}`;
    $("page-before").disabled = start === 0;
    $("page-after").disabled = start + page.length >= shown.length;
  }

  focus(id) {
    const card = [...$("grid").children].find((each) => each.dataset.id === id);
    card?.querySelector(".picture").focus();
    card?.scrollIntoView({ block: "nearest" });
  }

  makeCard(image) {
    const picture = (name, kind) => make("img", { class: kind, loading: "lazy", decoding: "async", alt: "", draggable: false, src: imagePicture(image.id, name) });
    const button = make("button", { type: "button", class: "picture", "aria-label": `${image.name}, ${WORDS[image.state] || "not marked"}`, onclick: () => this.open(image.id) });
    if (image.state === "unreadable") {
      button.append(make("span", { class: "absent" }, "cannot be read"));
      button.disabled = true;
    } else {
      button.append(picture("thumbnail.webp", "after"));
      if (image.state === "marked") button.append(picture(`marks.svg?${this.drawn}`, "outline"));
    }
    const types = image.reason || image.types.join(", ");
    return make(
      "li",
      { class: "card", dataset: { id: image.id, state: image.state } },
      button,
      make("div", { class: "text" }, make("p", { class: "line", title: image.name }, image.name), make("p", { class: "line muted", title: types }, types || "\u00a0")),
      make("span", { class: "state" }, WORDS[image.state]),
    );
  }
}
