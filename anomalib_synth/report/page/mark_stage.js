// The picture that is marked: zoom and pan, drawing with a pointer or by keys, and the marks on it as SVG.

import { $, draw, make } from "/page/dom.js";

const LARGEST = 32;
const APART = 1.5; // screen pixels between the points of a line
const CLICK = 4; // screen pixels that a click may move
const NEAR = 8; // a click within so many screen pixels of a line hits it

/** Shows one image. `onDraw` gets a tool and points in pixels of the image, `onPick` a point that was clicked. */
export class Stage {
  constructor({ onDraw, onPick }) {
    Object.assign(this, { onDraw, onPick, tool: "box", radius: 4, live: null, cross: null, isByKey: false });
    this.room = $("stage");
    this.pointers = new Map();
    this.canvas = null;
    this.room.addEventListener("pointerdown", (event) => this.press(event));
    this.room.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.room.addEventListener(name, (event) => this.release(event));
    this.room.addEventListener("pointerleave", () => this.cursor?.replaceChildren());
    this.room.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.local(event));
    }, { passive: false });
    new ResizeObserver(() => this.isWhole && this.fit()).observe(this.room);
  }

  /** Show another image. Its size is known before the picture is loaded. */
  open(source, width, height, onError) {
    this.canvas?.remove();
    Object.assign(this, { width, height, live: null, cross: null, isByKey: false });
    const picture = make("img", { alt: "", draggable: false, src: source });
    picture.addEventListener("error", onError);
    this.svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
    [this.marks, this.drawing, this.cursor] = ["marks", "drawing", "pointer"].map((name) => draw("g", { class: name }));
    this.proposed = draw("path", { class: "proposed" });
    this.svg.append(this.marks, this.proposed, this.drawing, this.cursor);
    this.canvas = make("div", { class: "canvas" }, picture, this.svg);
    this.room.append(this.canvas);
    this.fit();
  }

  close() {
    this.canvas?.remove();
    this.canvas = null;
  }

  /** Show the marks; `chosen` is the place of a shape, "mask", or null. */
  showMarks({ mask, shapes }, chosen) {
    const layers = shapes.map((shape, place) => {
      const group = draw("g", { class: place === chosen ? "chosen" : "" });
      group.append(drawShape(shape, "casing"), drawShape(shape, "line"));
      return group;
    });
    if (mask) {
      const group = draw("g", { class: chosen === "mask" ? "chosen" : "" });
      this.region = draw("path", { class: "region line", d: mask });
      group.append(draw("path", { class: "casing", d: mask }), this.region);
      layers.unshift(group);
    } else {
      this.region = null;
    }
    this.marks.replaceChildren(...layers);
    if (!this.live) this.drawing.replaceChildren();
  }

  propose(outline) {
    this.proposed.setAttribute("d", outline);
  }

  /** Return what lies at a point: the place of a shape, "mask", or null. */
  find([x, y], shapes) {
    const near = NEAR / this.scale;
    const lines = shapes.findIndex(({ kind, points }) => kind !== "rectangle" && distance(points, [x, y]) < near);
    if (lines >= 0) return lines;
    const inside = shapes
      .map(({ kind, points }, place) => ({ kind, place, area: areaOf(points), box: boxOf(points) }))
      .filter(({ kind, box }) => kind === "rectangle" && x >= box[0] - near && x <= box[2] + near && y >= box[1] - near && y <= box[3] + near)
      .sort((one, other) => one.area - other.area);
    const isInMask = this.region?.isPointInFill(new DOMPoint(x, y)) ?? false;
    return inside.length ? inside[0].place : isInMask ? "mask" : null;
  }

  // Zoom and pan

  fit() {
    if (!this.canvas) return;
    this.isWhole = true;
    this.scale = this.fitting();
    this.x = (this.room.clientWidth - this.width * this.scale) / 2;
    this.y = (this.room.clientHeight - this.height * this.scale) / 2;
    this.place();
  }

  fitting() {
    return Math.min(this.room.clientWidth / this.width, this.room.clientHeight / this.height, LARGEST) || 1;
  }

  zoom(factor, [x, y] = [this.room.clientWidth / 2, this.room.clientHeight / 2]) {
    if (!this.canvas) return;
    const scale = Math.min(LARGEST, Math.max(Math.min(this.fitting(), 1), this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.isWhole = false;
    this.place();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.isWhole = false;
    this.place();
  }

  /** Place the picture; a part of it always stays visible. */
  place() {
    const [width, height] = [this.width * this.scale, this.height * this.scale];
    const keep = 40;
    this.x = Math.min(Math.max(this.x, keep - width), this.room.clientWidth - keep);
    this.y = Math.min(Math.max(this.y, keep - height), this.room.clientHeight - keep);
    Object.assign(this.canvas.style, { left: `${this.x}px`, top: `${this.y}px`, width: `${width}px`, height: `${height}px` });
    this.canvas.classList.toggle("crisp", this.scale >= 3);
    $("scale").textContent = `${Math.round(this.scale * 100)} %`;
  }

  local(event) {
    const box = this.room.getBoundingClientRect();
    return [event.clientX - box.left - this.room.clientLeft, event.clientY - box.top - this.room.clientTop];
  }

  point(event) {
    const [x, y] = this.local(event);
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  // Drawing with a pointer

  press(event) {
    if (!this.canvas || event.target.closest("#offer, #problem") || event.button > 1) return;
    event.preventDefault();
    this.room.focus({ preventScroll: true });
    this.room.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.local(event));
    this.cross = null;
    if (this.pointers.size > 1) {
      this.cancel();
      this.panning = true;
    } else if (event.button === 1 || this.tool === "hand") {
      this.panning = true;
      this.start = { at: this.local(event), point: this.point(event) };
    } else {
      this.begin(this.point(event));
    }
  }

  move(event) {
    if (!this.canvas) return;
    this.showCursor(this.point(event));
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = this.local(event);
    if (this.panning) this.drag(event.pointerId, last, now);
    else if (this.live) for (const each of event.getCoalescedEvents?.() ?? [event]) this.extend(this.point(each));
    this.pointers.set(event.pointerId, now);
  }

  /** Move the picture by one pointer, move and zoom it by two. */
  drag(id, last, now) {
    const other = [...this.pointers].find(([each]) => each !== id)?.[1];
    if (!other) return this.pan(now[0] - last[0], now[1] - last[1]);
    const before = Math.hypot(last[0] - other[0], last[1] - other[1]);
    const after = Math.hypot(now[0] - other[0], now[1] - other[1]);
    this.pan((now[0] - last[0]) / 2, (now[1] - last[1]) / 2);
    if (before > 10) this.zoom(after / before, [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  }

  release(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.panning) {
      const moved = this.start && Math.hypot(...this.local(event).map((value, axis) => value - this.start.at[axis]));
      if (this.start && moved < CLICK) this.onPick(this.start.point);
      this.start = null;
      this.panning = this.pointers.size > 0;
    } else if (event.type === "pointercancel") {
      this.cancel();
    } else {
      this.end();
    }
  }

  begin(point) {
    this.live = [point];
    this.showLive();
  }

  extend(point) {
    if (this.tool === "box") this.live[1] = point;
    else if (Math.hypot(point[0] - this.live.at(-1)[0], point[1] - this.live.at(-1)[1]) * this.scale >= APART) this.live.push(point);
    this.showLive();
  }

  end() {
    const points = this.live;
    if (!points) return;
    this.live = null;
    this.isByKey = false;
    const isClick = points.length < 2 || Math.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]) * this.scale < CLICK;
    if (this.tool === "box" && isClick) {
      this.drawing.replaceChildren();
      this.onPick(points[0]);
    } else {
      this.onDraw(this.tool, points); // the drawn line stays visible until the answer arrives
    }
  }

  cancel() {
    this.live = null;
    this.isByKey = false;
    this.drawing?.replaceChildren();
  }

  showLive() {
    const points = this.live;
    if (this.tool === "box") {
      const shape = { kind: "rectangle", points: [points[0], points.at(-1)] };
      this.drawing.replaceChildren(drawShape(shape, "casing"), drawShape(shape, "line"));
    } else if (this.tool === "scribble") {
      const shape = { kind: "linestrip", points };
      this.drawing.replaceChildren(drawShape(shape, "casing"), drawShape(shape, "line"));
    } else {
      const line = drawShape({ kind: "linestrip", points }, `stroke${this.tool === "eraser" ? " erase" : ""}`);
      line.setAttribute("stroke-width", 2 * this.radius);
      this.drawing.replaceChildren(line);
    }
  }

  showCursor([x, y]) {
    if (this.tool !== "brush" && this.tool !== "eraser") return this.cursor.replaceChildren();
    this.cursor.replaceChildren(...["cursor-casing", "cursor"].map((name) => draw("circle", { class: name, cx: x, cy: y, r: this.radius })));
  }

  // Drawing by keys: a cross that moves, and one key that presses and lets go

  moveCross(x, y, isFine) {
    if (!this.canvas || this.tool === "hand") return;
    const step = isFine ? 1 : 0.03 * Math.min(this.room.clientWidth, this.room.clientHeight) / this.scale;
    const [a, b] = this.cross ?? [(this.room.clientWidth / 2 - this.x) / this.scale, (this.room.clientHeight / 2 - this.y) / this.scale];
    this.cross = [Math.min(Math.max(a + x * step, 0), this.width), Math.min(Math.max(b + y * step, 0), this.height)];
    if (this.isByKey) this.extend(this.cross);
    const [left, top] = [this.cross[0] * this.scale + this.x, this.cross[1] * this.scale + this.y];
    const outside = (value, room) => (value < 0 ? -value + 40 : value > room ? room - value - 40 : 0);
    const [right, down] = [outside(left, this.room.clientWidth), outside(top, this.room.clientHeight)];
    if (right || down) this.pan(right, down);
    this.showCross();
  }

  pressCross() {
    if (!this.cross) return this.moveCross(0, 0, true);
    if (!this.isByKey) {
      this.isByKey = true;
      this.begin(this.cross);
    } else {
      this.end();
    }
    return this.showCross();
  }

  showCross() {
    const [x, y] = this.cross;
    const arm = 12 / this.scale;
    const d = `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`;
    this.cursor.replaceChildren(draw("path", { class: "cursor-casing", d }), draw("path", { class: "cross", d }));
    $("where").textContent = `x ${Math.round(x)}, y ${Math.round(y)}${this.isByKey ? ", drawing" : ""}`;
  }
}

/** Make the SVG element of a shape as LabelMe has it. */
function drawShape({ kind, points }, name) {
  if ((kind === "rectangle" || kind === "mask") && points.length === 2) {
    const [left, top, right, bottom] = boxOf(points);
    return draw("rect", { class: name, x: left, y: top, width: right - left, height: bottom - top });
  }
  if (kind === "circle" && points.length === 2) {
    const r = Math.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]);
    return draw("circle", { class: name, cx: points[0][0], cy: points[0][1], r });
  }
  const isOpen = ["linestrip", "line", "point", "points"].includes(kind);
  const line = points.length === 1 ? [points[0], points[0]] : points; // a line without length has round ends: a dot
  return draw(isOpen ? "polyline" : "polygon", { class: name + (points.length === 1 ? " dot" : ""), points: line.map((point) => point.join(",")).join(" ") });
}

function boxOf(points) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return [xs, ys].map((each) => each.reduce((a, b) => Math.min(a, b), Infinity)).concat([xs, ys].map((each) => each.reduce((a, b) => Math.max(a, b), -Infinity)));
}

function areaOf(points) {
  const [left, top, right, bottom] = boxOf(points);
  return (right - left) * (bottom - top);
}

/** Return how far a point is from a line through points. */
function distance(points, [x, y]) {
  const parts = points.length === 1 ? [[points[0], points[0]]] : points.slice(1).map((point, place) => [points[place], point]);
  return Math.min(...parts.map(([[a, b], [c, d]]) => {
    const length = (c - a) ** 2 + (d - b) ** 2;
    const share = length ? Math.min(1, Math.max(0, ((x - a) * (c - a) + (y - b) * (d - b)) / length)) : 0;
    return Math.hypot(a + share * (c - a) - x, b + share * (d - b) - y);
  }));
}
