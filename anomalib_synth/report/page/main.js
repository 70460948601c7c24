// The review page: pages of cards, a current card, a selection, and decisions.

import { decide, decideMatching, listSamples, undo } from "/page/api.js";
import { $, plural, tell } from "/page/dom.js";
import { Filters } from "/page/filters.js";
import { countColumns, makeCard, showState } from "/page/grid.js";
import { Viewer } from "/page/viewer.js";

const WORDS = { true: "Accepted", false: "Rejected", null: "Undecided" };

const state = { samples: [], current: 0, selected: new Set(), anchor: 0, page: null };
const filters = new Filters(() => load());
const viewer = new Viewer({ decide: (sample, accepted) => judge([sample.id], accepted) });
const handlers = {
  open: (sample) => open(position(sample.id)),
  select: (sample, extend) => select(position(sample.id), extend),
  decide: (sample, accepted) => judge([sample.id], accepted),
};

const position = (id) => state.samples.findIndex((sample) => sample.id === id);
const cards = () => $("grid").children;
let latest = 0;
let queue = Promise.resolve();

/** Request the page of samples for the filters, and show it. */
async function load({ current = 0 } = {}) {
  const mine = ++latest;
  $("grid").setAttribute("aria-busy", "true");
  try {
    const page = await listSamples(filters.query.toString());
    if (mine !== latest) return;
    Object.assign(state, { page, samples: page.samples });
    state.selected = new Set();
    $("grid").replaceChildren(...page.samples.map((sample) => makeCard(sample, handlers)));
    filters.update(page);
    goTo(current === "last" ? page.samples.length - 1 : current, { focus: document.activeElement === document.body });
    showPage();
    tell("");
  } catch (error) {
    if (mine === latest) tell(error.message, true);
  } finally {
    if (mine === latest) $("grid").removeAttribute("aria-busy");
  }
}

function showPage() {
  const { start, matching, samples } = state.page;
  $("matching").textContent = matching ? `${plural(matching, "sample")} match${matching === 1 ? "es" : ""}` : "No sample matches. Loosen a filter, or show all.";
  $("place").textContent = matching ? `${start + 1} to ${start + samples.length} of ${matching.toLocaleString("en")}` : "";
  $("previous").disabled = start === 0;
  $("next").disabled = start + samples.length >= matching;
  showCounts(state.page);
  showProblems(state.page);
  showSelection();
}

/** Name the lines of the store that could not be read; everything else is shown. */
function showProblems({ problems }) {
  $("problems").hidden = problems.length === 0;
  $("problems").textContent = problems.length
    ? `Some lines of the store are damaged and left out. ${problems.join(" ")} \`anomalib-synth check --repair\` puts them aside.`
    : "";
}

/** Show the cost of the samples of each generator, a paragraph each. */
function showCosts(costs) {
  const three = (number) => Number(number.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const paragraphs = costs.map((cost) => {
    const kept = cost.seconds_per_accepted === null ? "none is kept" : `${three(cost.seconds_per_accepted)} s a kept one`;
    const price = cost.price_per_accepted === null ? "" : `, price ${three(cost.price_per_accepted)} each`;
    const text = `${cost.generator}: ${plural(cost.samples, "sample")}, ${three(cost.seconds)} s a sample, ` +
      `${three(cost.device_seconds)} device-seconds in all; ${kept}${price}`;
    return Object.assign(document.createElement("p"), { className: "hint", textContent: text });
  });
  $("costs").replaceChildren(...paragraphs);
}

function showCounts({ counts, costs, undoable }) {
  showCosts(costs);
  $("counts").textContent =
    `${counts.kept.toLocaleString("en")} kept, ${counts.out.toLocaleString("en")} left out; ` +
    `${counts.accepted.toLocaleString("en")} accepted and ${counts.rejected.toLocaleString("en")} rejected by a person`;
  $("undo").disabled = undoable === 0;
}

function showSelection() {
  const count = state.selected.size;
  $("selection").hidden = count === 0;
  $("selected").textContent = `${count} selected`;
  const { matching, samples } = state.page;
  $("whole").hidden = matching <= samples.length || count < samples.length;
  $("whole").textContent = state.whole ? `All ${matching.toLocaleString("en")} are selected` : `Select all ${matching.toLocaleString("en")} that match`;
  for (const card of cards()) {
    const isSelected = state.selected.has(card.dataset.id);
    card.classList.toggle("selected", isSelected);
    card.querySelector(".pick input").checked = isSelected;
  }
}

function goTo(index, { focus = true } = {}) {
  const last = state.samples.length - 1;
  state.current = Math.min(Math.max(index, 0), Math.max(last, 0));
  [...cards()].forEach((card, place) => {
    card.classList.toggle("current", place === state.current);
    card.tabIndex = place === state.current ? 0 : -1;
  });
  const card = cards()[state.current];
  if (card && focus) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }
}

function select(index, extend) {
  if (extend) {
    const [from, to] = [Math.min(state.anchor, index), Math.max(state.anchor, index)];
    for (const sample of state.samples.slice(from, to + 1)) state.selected.add(sample.id);
  } else {
    const { id } = state.samples[index];
    if (!state.selected.delete(id)) state.selected.add(id);
    state.anchor = index;
  }
  state.whole = false;
  goTo(index);
  showSelection();
}

function deselect() {
  state.selected.clear();
  state.whole = false;
  showSelection();
}

function open(index) {
  goTo(index, { focus: false });
  viewer.show(state.samples[state.current]);
}

/** Send a decision and show the result. The server records it before it answers. */
async function judge(ids, accepted) {
  const seen = () => Object.fromEntries(state.samples.filter(({ id }) => ids.includes(id)).map(({ id, version }) => [id, version]));
  await change(() => decide(ids, accepted, seen()), WORDS[accepted]); // as shown when it is sent, after all before it
}

async function judgeChosen(accepted) {
  if (state.whole) {
    const { matching } = state.page;
    await change(() => decideMatching(filters.query.toString(), matching, accepted, state.page.version), WORDS[accepted]);
    deselect();
  } else if (state.selected.size) {
    await judge([...state.selected], accepted);
    deselect();
  } else if (state.samples.length) {
    const { id } = state.samples[state.current];
    move(1); // at once: whoever types fast means the next one by the next key
    await judge([id], accepted);
  }
}

/** Let the server change something, after all earlier requests, and show the result. */
function change(send, word) {
  queue = queue.then(() => changeNow(send, word));
  return queue;
}

async function changeNow(send, word) {
  try {
    const answer = await send();
    const isHere = showStates(answer);
    if (answer.since === state.page.version) state.page.version = answer.version; // else somebody else has decided in between
    tell(describe(answer, word));
    if (!isHere || answer.changed > answer.ids.length) await refreshStates();
  } catch (error) {
    if (error.status === 409) {
      const isShown = error.body.states !== undefined && showStates(error.body);
      if (!isShown || state.whole) await load({ current: state.current });
    }
    tell(error.message, true);
  }
}

/** Show the decisions in the server's answer; return whether any of them is on this page. */
function showStates(answer) {
  let isHere = false;
  for (const sample of state.samples) {
    const now = answer.states[sample.id];
    if (!now) continue;
    isHere = true;
    Object.assign(sample, now, { version: answer.versions[sample.id] });
    showState(cards()[position(sample.id)], sample);
  }
  showCounts(answer);
  showProblems(answer);
  if (viewer.isOpen) viewer.showState();
  return isHere;
}

function describe({ changed, skipped }, word) {
  const rest = skipped ? ` ${plural(skipped, "sample")} left as before.` : "";
  return changed ? `${word}: ${plural(changed, "sample")}.${rest}` : `Nothing to change.${rest}`;
}

/** Request and show the states of the cards, as an answer did not name them all. */
async function refreshStates() {
  const text = $("message").textContent;
  await load({ current: state.current });
  tell(text);
}

function turn(step) {
  const { samples } = state;
  const button = $(step > 0 ? "next" : "previous");
  if (button.disabled || !samples.length) return;
  filters.turn(step > 0 ? { after: samples.at(-1).id } : { before: samples[0].id });
  scrollTo({ top: 0 });
}

function move(step) {
  const index = state.current + step;
  if (index < 0 || index >= state.samples.length) return;
  if (viewer.isOpen) open(index);
  else goTo(index);
}

function decideByKey(accepted) {
  if (viewer.isOpen) {
    const { id } = viewer.sample;
    move(1);
    judge([id], accepted);
  } else {
    judgeChosen(accepted);
  }
}

const KEYS = {
  a: () => decideByKey(true),
  r: () => decideByKey(false),
  c: () => decideByKey(null),
  u: () => change(undo, "Taken back"),
  o: () => $("outlines").click(),
  n: () => turn(1),
  p: () => turn(-1),
  b: () => (viewer.isOpen ? viewer.flip() : cards()[state.current]?.classList.toggle("flipped")),
  "?": () => $("keys").showModal(),
  "/": () => $("query").elements.find.focus(),
  "+": () => viewer.isOpen && viewer.zoom(2),
  "-": () => viewer.isOpen && viewer.zoom(0.5),
  0: () => viewer.isOpen && viewer.fit(),
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
  ArrowUp: () => move(-countColumns()),
  ArrowDown: () => move(countColumns()),
  Enter: () => !viewer.isOpen && open(state.current),
  " ": (event) => !viewer.isOpen && state.samples.length && select(state.current, event.shiftKey),
  Escape: () => deselect(),
};

function takeKey(event) {
  const target = event.target;
  const isTyping = target.matches("input:not([type=checkbox], [type=range]), select, textarea");
  if (isTyping && event.key === "Escape") target.blur();
  if (isTyping || event.altKey || event.metaKey || $("keys").open) return;
  const isArrow = event.key.startsWith("Arrow");
  if (isArrow && target.matches("[type=range]")) return;
  if (["Enter", " "].includes(event.key) && target.matches("button, a, summary, input")) return;
  if (event.ctrlKey) {
    if (event.key === "z") KEYS.u();
    else if (event.key === "a" && !viewer.isOpen) state.samples.forEach((sample) => state.selected.add(sample.id)), showSelection();
    else return;
  } else {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in KEYS) || (key === "Escape" && viewer.isOpen)) return;
    KEYS[key](event);
  }
  event.preventDefault();
}

document.addEventListener("keydown", takeKey);
$("undo").addEventListener("click", () => KEYS.u());
$("help").addEventListener("click", () => KEYS["?"]());
$("next").addEventListener("click", () => turn(1));
$("previous").addEventListener("click", () => turn(-1));
$("deselect").addEventListener("click", () => deselect());
$("whole").addEventListener("click", () => {
  state.whole = !state.whole;
  showSelection();
});
$("outlines").addEventListener("change", (event) => document.body.classList.toggle("no-outlines", !event.target.checked));
$("selection").addEventListener("click", (event) => {
  if (event.target.dataset.decide) judgeChosen(JSON.parse(event.target.dataset.decide));
});
$("grid").addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card) goTo(position(card.dataset.id), { focus: false });
});
viewer.dialog.addEventListener("close", () => goTo(state.current));
if (matchMedia("(max-width: 760px)").matches) $("filters").open = false;
load();
