// One sample at its own size: before and after, the outline, and all that is known about it.

import { describeSample, picture } from "/page/api.js";
import { $, make, show, tell } from "/page/dom.js";

const LARGEST = 16;
const shorten = (_, value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value);

export class Viewer {
  constructor({ decide }) {
    this.dialog = $("viewer");
    this.sample = null;
    $("close").addEventListener("click", () => this.dialog.close());
    $("split-at").addEventListener("input", () => this.divide());
    $("larger").addEventListener("click", () => this.zoom(2));
    $("smaller").addEventListener("click", () => this.zoom(0.5));
    $("fit").addEventListener("click", () => this.fit());
    this.dialog.querySelector(".actions").addEventListener("click", (event) => {
      if (event.target.dataset.decide) decide(this.sample, JSON.parse(event.target.dataset.decide));
    });
    $("compare").addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8);
    }, { passive: false });
    addEventListener("resize", () => this.isOpen && this.scale === null && this.fit());
  }

  get isOpen() {
    return this.dialog.open;
  }

  show(sample) {
    this.sample = sample;
    const layer = (name, kind) => make("img", { class: kind, alt: "", draggable: false, src: picture(sample.id, name) });
    const before = layer("source.png", "before");
    this.sheet = make("div", { class: "sheet" }, before);
    this.measure = before; // the sheet has the size of this picture, once it is loaded
    if (sample.drawn) {
      this.measure = layer("image.png", "after");
      this.measure.addEventListener("error", () => this.tellDamage(sample));
      this.sheet.append(this.measure, layer("border.svg", "outline"));
    }
    this.measure.addEventListener("load", () => this.fit());
    $("compare").replaceChildren(this.sheet);
    $("split-at").value = 100;
    this.divide();
    $("caption").textContent = sample.caption || sample.reason;
    this.showState();
    $("facts").replaceChildren();
    describeSample(sample.id).then((detail) => this.sample === sample && this.list(detail), (error) => tell(error.message, true));
    if (!this.isOpen) this.dialog.showModal();
  }

  showState() {
    this.dialog.dataset.decision = String(this.sample.decision);
    for (const button of this.dialog.querySelectorAll("[data-decide]")) {
      button.disabled = !this.sample.drawn;
      button.setAttribute("aria-pressed", button.dataset.decide === String(this.sample.decision));
    }
  }

  /** Turn between before and after. */
  flip() {
    $("split-at").value = $("split-at").value === "0" ? 100 : 0;
    this.divide();
  }

  divide() {
    this.sheet?.style.setProperty("--split", `${$("split-at").value}%`);
  }

  fit() {
    this.scale = null;
    this.resize();
  }

  zoom(factor) {
    const whole = this.fitting();
    this.scale = Math.min(LARGEST, Math.max(Math.min(whole, 1), (this.scale ?? whole) * factor));
    this.resize();
  }

  fitting() {
    const { naturalWidth: width, naturalHeight: height } = this.measure;
    const room = $("compare");
    return width ? Math.min(room.clientWidth / width, room.clientHeight / height, LARGEST) : 1;
  }

  resize() {
    const scale = this.scale ?? this.fitting();
    const { naturalWidth: width, naturalHeight: height } = this.measure;
    const room = $("compare");
    const x = (room.scrollLeft + room.clientWidth / 2) / (this.sheet.offsetWidth || 1);
    const y = (room.scrollTop + room.clientHeight / 2) / (this.sheet.offsetHeight || 1);
    this.sheet.style.width = `${Math.floor(width * scale)}px`;
    this.sheet.style.height = `${Math.floor(height * scale)}px`;
    this.sheet.classList.toggle("crisp", scale >= 2);
    room.scrollTo(x * this.sheet.offsetWidth - room.clientWidth / 2, y * this.sheet.offsetHeight - room.clientHeight / 2);
    $("scale").textContent = `${Math.round(scale * 100)} %`;
  }

  tellDamage(sample) {
    fetch(picture(sample.id, "image.png")).then((answer) => answer.json()).then(
      ({ error }) => $("compare").replaceChildren(make("p", { class: "error" }, error)),
      () => tell("The server does not answer.", true),
    );
  }

  list(detail) {
    const scores = Object.entries(detail.scores).map(([name, value]) => [name, show(value)]);
    const facts = [
      ["index", detail.index], ["family", detail.family], ["reason", detail.reason], ["prompt", detail.prompt],
      ["source", detail.source], ["split", detail.split], ...scores, ["seed", detail.seed], ["attempt", detail.attempt],
      ["seconds", show(detail.seconds)], ["version", detail.version], ["id", detail.id],
      ["parameters", detail.params], ["generator", detail.generator],
    ];
    $("facts").replaceChildren(...facts.filter(([, value]) => value !== "").flatMap(([name, value]) => [
      make("dt", {}, name),
      typeof value === "object" && value !== null ? make("dd", {}, make("pre", {}, JSON.stringify(value, shorten, 1))) : make("dd", {}, String(value)),
    ]));
  }
}
