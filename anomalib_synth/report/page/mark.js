// The marking page: the grid of images, the image that is open, and the keys.

import { $, tell } from "/page/dom.js";
import { countColumns } from "/page/grid.js";
import { imagePicture } from "/page/mark_api.js";
import { Editor } from "/page/mark_editor.js";
import { ImageList } from "/page/mark_list.js";

const list = new ImageList({ open: (id) => open(id) });
const editor = new Editor({ onChange: (id, state) => list.note(id, state) });
let order = []; // the ids that "next" goes through: what the grid showed when an image was opened

/** Open an image; `keepsOrder` while one goes from image to image. */
async function open(id, { keepsOrder = false } = {}) {
  if (!keepsOrder) order = list.shown().map((image) => image.id);
  if (!order.includes(id)) order = list.images.map((image) => image.id);
  $("overview").hidden = true;
  $("editor").hidden = false;
  document.body.classList.add("editing");
  history.replaceState(null, "", `#${id}`);
  showPlace(id);
  tell("");
  $("stage").focus({ preventScroll: true });
  await editor.open(id, { proposes: list.proposes });
  const next = order[order.indexOf(id) + 1];
  if (next) new Image().src = imagePicture(next, "picture"); // load the next picture in advance
}

function showPlace(id) {
  const place = order.indexOf(id);
  const { name } = list.images.find((image) => image.id === id);
  $("name").textContent = `${name} (${place + 1} of ${order.length})`;
  $("name").title = name;
  $("before").disabled = place === 0;
  $("after").disabled = place === order.length - 1;
}

async function showAll() {
  const { id } = editor;
  await editor.queue; // the list must include what is being saved
  editor.close();
  $("editor").hidden = true;
  $("overview").hidden = false;
  document.body.classList.remove("editing");
  history.replaceState(null, "", location.pathname);
  tell("");
  await load();
  list.focus(id);
}

function go(step) {
  const id = order[order.indexOf(editor.id) + step];
  if (id) open(id, { keepsOrder: true });
}

/** Open the next image without a mark, round the end of the list. */
function goToUnmarked() {
  const place = order.indexOf(editor.id);
  const states = new Map(list.images.map(({ id, state }) => [id, state]));
  const next = [...order.slice(place + 1), ...order.slice(0, place)].find((id) => states.get(id) === "unmarked");
  if (next) open(next, { keepsOrder: true });
  else tell("No other image is left to mark.");
}

async function load() {
  try {
    await list.load();
  } catch (error) {
    tell(error.message, true);
  }
}

const EDITOR_KEYS = {
  b: () => editor.choose("box"),
  s: () => editor.choose("scribble"),
  p: () => editor.choose("brush"),
  e: () => editor.choose("eraser"),
  h: () => editor.choose("hand"),
  t: () => $("type").offsetParent && $("type").select(),
  n: () => editor.sayNoDefect(),
  m: () => goToUnmarked(),
  g: () => showAll(),
  u: () => editor.step(true),
  y: () => editor.step(false),
  "[": () => editor.resize(-5),
  "]": () => editor.resize(5),
  "+": () => editor.stage.zoom(1.5),
  "-": () => editor.stage.zoom(1 / 1.5),
  0: () => editor.stage.fit(),
  ArrowLeft: () => go(-1),
  ArrowRight: () => go(1),
  Enter: () => editor.accept(),
  Escape: () => editor.refuse(),
  Delete: () => editor.remove(),
  Backspace: () => editor.remove(),
  " ": () => editor.stage.pressCross(),
};
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function takeKey(event) {
  const { target, key } = event;
  if ($("keys").open) return;
  if (target.matches("input:not([type=checkbox], [type=range])")) {
    if (key === "Escape" || (key === "Enter" && editor.isOpen)) (editor.isOpen ? $("stage") : target).focus(), target.blur(), event.preventDefault();
    return;
  }
  const letter = key.length === 1 ? key.toLowerCase() : key;
  const isStage = target === $("stage");
  let action = null;
  if (letter === "?" || (letter === "o" && !event.ctrlKey)) action = letter === "?" ? () => $("keys").showModal() : () => $("outlines").click();
  else if (!editor.isOpen) action = letter === "/" ? () => $("find").focus() : gridAction(key);
  else if (event.ctrlKey || event.metaKey) action = { z: () => editor.step(!event.shiftKey), y: () => editor.step(false) }[letter];
  else if (event.shiftKey && key in STEPS) action = () => editor.stage.moveCross(...STEPS[key], event.altKey);
  else if (isStage && key === "Tab" && editor.marks && (editor.marks.mask || editor.marks.shapes.length)) action = tabAction(event.shiftKey);
  else if (["Enter", " "].includes(key) && target.matches("button, input, summary, a")) action = null;
  else if (key.startsWith("Arrow") && target.matches("[type=range]")) action = null;
  else if (!event.altKey) action = EDITOR_KEYS[letter];
  if (!action) return;
  action();
  event.preventDefault();
}

/** Go through the marks with Tab on the picture; past the last one, on to the rest of the page. */
function tabAction(isBackwards) {
  const places = [...(editor.marks.mask ? ["mask"] : []), ...editor.marks.shapes.keys()];
  const next = places.indexOf(editor.chosen) + (isBackwards ? -1 : 1);
  if (editor.chosen === null && isBackwards) return null;
  if (next < 0 || next >= places.length) {
    editor.take(null);
    return null;
  }
  return () => editor.take(places[next]);
}

/** Go from card to card with the arrows. */
function gridAction(key) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -countColumns(), ArrowDown: countColumns() };
  if (!(key in steps)) return null;
  const cards = [...$("grid").children];
  const place = cards.findIndex((card) => card.contains(document.activeElement));
  const next = cards[place < 0 ? 0 : Math.min(Math.max(place + steps[key], 0), cards.length - 1)];
  return next && (() => list.focus(next.dataset.id));
}

document.addEventListener("keydown", takeKey);
$("help").addEventListener("click", () => $("keys").showModal());
$("outlines").addEventListener("change", (event) => document.body.classList.toggle("no-outlines", !event.target.checked));
$("back").addEventListener("click", () => showAll());
$("before").addEventListener("click", () => go(-1));
$("after").addEventListener("click", () => go(1));
$("done").addEventListener("click", () => goToUnmarked());
editor.choose("box");
await load();
if (list.images.some(({ id }) => `#${id}` === location.hash)) open(location.hash.slice(1));
