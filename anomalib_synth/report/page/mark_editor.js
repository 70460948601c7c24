// One image and its marks. Edits go to the server one after the other, and each is saved before the next one.

import { $, make, tell } from "/page/dom.js";
import { describeImage, editImage, imagePicture, proposeOutline, stepImage } from "/page/mark_api.js";
import { Stage } from "/page/mark_stage.js";

const WORDS = { rectangle: "box", linestrip: "scribble", line: "scribble", point: "click", points: "clicks" };
const PROPOSABLE = ["rectangle", "linestrip", "point"];

/** The editor of an image; `onChange` is called with the image's id and its state in the list. */
export class Editor {
  constructor({ onChange }) {
    this.onChange = onChange;
    this.stage = new Stage({ onDraw: (tool, points) => this.draw(tool, points), onPick: (point) => this.pick(point) });
    this.queue = Promise.resolve();
    Object.assign(this, { id: null, marks: null, chosen: null, offer: null, nextType: "" });
    $("palette").addEventListener("click", (event) => event.target.dataset.tool && this.choose(event.target.dataset.tool));
    $("size").addEventListener("input", () => this.resize());
    $("undo").addEventListener("click", () => this.step(true));
    $("redo").addEventListener("click", () => this.step(false));
    $("accept").addEventListener("click", () => this.accept());
    $("refuse").addEventListener("click", () => this.refuse());
    $("delete").addEventListener("click", () => this.remove());
    $("no-defect").addEventListener("click", () => this.sayNoDefect());
    $("larger").addEventListener("click", () => this.stage.zoom(1.5));
    $("smaller").addEventListener("click", () => this.stage.zoom(1 / 1.5));
    $("fit").addEventListener("click", () => this.stage.fit());
    $("type").addEventListener("change", (event) => this.rename(event.target.value.trim()));
  }

  get isOpen() {
    return this.id !== null;
  }

  /** Open an image. */
  async open(id, { proposes }) {
    await this.queue;
    Object.assign(this, { id, marks: null, chosen: null, size: null });
    this.withdraw();
    this.stage.close();
    $("where").textContent = "";
    try {
      const marks = await describeImage(id);
      if (this.id !== id) return;
      this.show(marks);
      if (proposes && this.isBlank()) this.propose(null);
    } catch (error) {
      if (this.id === id) this.tellProblem(error.message);
    }
  }

  close() {
    this.id = null;
    this.stage.close();
  }

  isBlank() {
    return this.marks.problem === "" && !this.marks.mask && !this.marks.shapes.length && !this.marks.no_defect;
  }

  /** Show the state of the image in the server's answer. */
  show(marks) {
    this.marks = marks;
    const { width, height, shapes, mask } = marks;
    if (this.chosen === "mask" ? !mask : this.chosen !== null && this.chosen >= shapes.length) this.chosen = null;
    if (width && !this.stage.canvas) {
      this.stage.open(imagePicture(this.id, "picture"), width, height, () => this.tellProblem("The picture cannot be shown."));
      this.resize();
    }
    if (this.stage.canvas) this.stage.showMarks(marks, this.chosen);
    this.tellProblem(marks.problem);
    this.list();
    $("undo").disabled = !marks.undoable;
    $("redo").disabled = !marks.redoable;
    $("no-defect").setAttribute("aria-pressed", marks.no_defect);
    this.onChange(this.id, mask || shapes.length ? "marked" : marks.no_defect ? "no_defect" : "unmarked");
  }

  tellProblem(text) {
    $("problem").hidden = !text;
    $("problem").textContent = text;
  }

  /** List the marks at the side. */
  list() {
    const { mask, mask_type: maskType, shapes } = this.marks;
    const rows = shapes.map(({ kind, label }, place) => [place, `${WORDS[kind] ?? kind}: ${label}`]);
    if (mask) rows.unshift(["mask", `outline: ${maskType}`]);
    $("marks").replaceChildren(
      ...rows.map(([place, text]) =>
        make("li", {}, make("button", { type: "button", title: text, "aria-pressed": place === this.chosen, onclick: () => this.take(place) }, text)),
      ),
    );
    const known = new Set([...$("types").options].map(({ value }) => value));
    const types = [...shapes.map(({ label }) => label), maskType].filter((name) => name && !known.has(name));
    $("types").append(...types.map((value) => make("option", { value })));
    $("no-marks").hidden = rows.length > 0 || this.marks.no_defect;
    $("delete").disabled = this.chosen === null;
    const isTyping = document.activeElement === $("type");
    if (!isTyping) $("type").value = this.typeOf(this.chosen) ?? (this.nextType || this.marks.folder_type);
    $("type-hint").textContent = this.chosen === null ? "For the next mark." : "For the chosen mark and the next ones.";
  }

  typeOf(place) {
    if (place === null) return null;
    return place === "mask" ? this.marks.mask_type : this.marks.shapes[place].label;
  }

  type() {
    return this.nextType || this.marks?.folder_type || "defect";
  }

  /** Choose a tool. */
  choose(tool) {
    this.stage.cancel();
    this.stage.tool = tool;
    $("stage").dataset.tool = tool;
    for (const button of $("palette").querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === tool);
    $("size-field").hidden = tool !== "brush" && tool !== "eraser";
  }

  /** Follow the slider of the brush's size: half a pixel to an eighth of the image, each step by the same factor. */
  resize(step = 0) {
    if (step) $("size").value = Number($("size").value) + step;
    if (!this.stage.canvas) return;
    const largest = Math.max(2, Math.min(this.stage.width, this.stage.height) / 8);
    this.stage.radius = 0.5 * (2 * largest) ** (Number($("size").value) / 100);
    if (step) tell(`Brush of ${(2 * this.stage.radius).toFixed(1)} pixels.`);
  }

  /** Choose a mark: the place of a shape, "mask", or null. */
  take(place) {
    this.chosen = place;
    this.at = null;
    if (this.offer && this.offer.shape !== place) this.withdraw();
    this.stage.showMarks(this.marks, place);
    this.list();
  }

  pick(point) {
    if (!this.marks) return;
    this.take(this.stage.find(point, this.marks.shapes));
    this.at = this.chosen === "mask" ? [point] : null;
  }

  /** Go to another mark by keys. */
  cycle(step) {
    const places = [...(this.marks.mask ? ["mask"] : []), ...this.marks.shapes.keys()];
    if (places.length) this.take(places[(places.indexOf(this.chosen) + step + places.length + (this.chosen === null && step < 0 ? 1 : 0)) % places.length]);
  }

  async draw(tool, points) {
    const rounded = points.map((point) => point.map((value) => Math.round(value * 100) / 100));
    if (tool === "box" || tool === "scribble") {
      if (this.offer) this.withdraw();
      const isDone = await this.edit({ kind: tool, points: rounded }, () => (this.chosen = Infinity));
      if (isDone) await this.propose(this.marks.shapes.length - 1);
    } else {
      if (this.offer && this.offer.outline) await this.accept();
      const stroke = { kind: "brush", points: rounded, radius: this.stage.radius, erase: tool === "eraser" };
      await this.edit(stroke, () => (this.chosen = null));
    }
  }

  /** Request the outline proposed within a shape, or in the whole image for null, and offer it. */
  async propose(shape) {
    const { id } = this;
    const { version } = this.marks;
    $("stage").classList.add("waiting");
    try {
      const { outline } = await proposeOutline(id, shape);
      if (this.id !== id || this.marks.version !== version) return;
      const what = shape === null ? "" : (WORDS[this.marks.shapes[shape].kind] ?? "mark");
      if (!outline) {
        tell(shape === null ? "Nothing is proposed here." : `Nothing stands out here, so the ${what} is kept as it is. You can paint the defect with the brush.`);
        return;
      }
      this.offer = { shape, outline };
      this.stage.propose(outline);
      $("offer").hidden = false;
      $("offer-text").textContent = shape === null ? "Here the image differs most from the good images." : "Proposed outline.";
      $("refuse").textContent = shape === null ? "Dismiss" : `Keep the ${what}`;
    } catch (error) {
      if (this.id === id) tell(error.message, true);
    } finally {
      $("stage").classList.remove("waiting");
    }
  }

  async accept() {
    if (!this.offer) return this.proposeForChosen();
    const { shape } = this.offer;
    this.withdraw();
    const isDone = await this.edit({ kind: "accept", shape }, () => (this.chosen = "mask"));
    if (isDone) tell("Outline saved.");
    return isDone;
  }

  /** Propose an outline for a box or a scribble that was kept. */
  proposeForChosen() {
    const shape = this.marks?.shapes[this.chosen];
    if (shape && PROPOSABLE.includes(shape.kind)) return this.propose(this.chosen);
    return undefined;
  }

  refuse() {
    if (this.stage.live) return this.stage.cancel();
    if (!this.offer) return this.marks && this.take(null);
    const { shape } = this.offer;
    this.withdraw();
    return tell(shape === null ? "" : `${$("refuse").textContent.replace("Keep the ", "The ")} is kept.`);
  }

  withdraw() {
    this.offer = null;
    $("offer").hidden = true;
    if (this.stage.canvas) this.stage.propose("");
  }

  remove() {
    if (this.chosen === null || !this.marks) return;
    this.withdraw();
    const edit = { kind: "remove", shape: this.chosen === "mask" ? null : this.chosen, at: this.chosen === "mask" ? this.at ?? null : null };
    this.edit(edit, () => (this.chosen = null));
  }

  /** Use the typed type for the chosen mark and for the next ones. */
  rename(name) {
    if (!this.marks) return;
    this.nextType = name;
    const chosen = this.chosen;
    if (chosen !== null && name && name !== this.typeOf(chosen)) this.edit({ kind: "rename", shape: chosen === "mask" ? null : chosen });
    else this.list();
  }

  async sayNoDefect() {
    if (!this.marks || $("no-defect").hidden) return false;
    const value = !this.marks.no_defect;
    this.withdraw();
    const isDone = await this.edit({ kind: "no_defect", value });
    if (isDone) tell(value ? "No defect in this image." : "");
    return isDone && value;
  }

  edit(edit, choose = () => {}) {
    return this.change((id, version) => editImage(id, version, this.type(), edit), choose);
  }

  step(isBack) {
    this.withdraw();
    return this.change((id, version) => stepImage(id, version, isBack), () => (this.chosen = null));
  }

  /** Let the server change the image, after all earlier requests; return whether it did. */
  change(send, choose) {
    const { id } = this;
    this.queue = this.queue.then(async () => {
      if (this.id !== id || !this.marks) return false;
      try {
        const marks = await send(id, this.marks.version);
        if (this.id !== id) return true;
        choose();
        if (this.chosen === Infinity) this.chosen = marks.shapes.length - 1;
        tell("");
        this.show(marks);
        return true;
      } catch (error) {
        if (this.id === id && error.status === 409 && error.body.version) this.show(error.body);
        else if (this.stage.canvas) this.stage.showMarks(this.marks, this.chosen);
        tell(error.message, true);
        return false;
      }
    });
    return this.queue;
  }
}
