// The histogram of a score; dragging over it chooses a range.

import { $, draw, plural, show } from "/page/dom.js";

const WIDTH = 240;
const HEIGHT = 72;

/** Draw how many samples are kept and left out by score; `choose` gets the ends of a range as text. */
export function drawHistogram({ score, scale, edges, kept, out }, { least, largest }, choose) {
  const svg = $("histogram");
  const bins = kept.length;
  const width = WIDTH / bins;
  const tallest = Math.max(1, ...kept.map((count, bin) => count + out[bin]));
  // A bin with a single sample must be seen beside one with thousands, so heights are square roots.
  const height = (count) => HEIGHT * Math.sqrt(count / tallest);
  const bars = [];
  for (let bin = 0; bin < bins; bin++) {
    const whole = height(kept[bin] + out[bin]);
    const share = whole * (kept[bin] / Math.max(1, kept[bin] + out[bin]));
    const chosen = (least === "" || edges[bin + 1] > Number(least)) && (largest === "" || edges[bin] <= Number(largest));
    const place = { x: bin * width + 0.3, width: width - 0.6, class: chosen ? "" : "faded" };
    const kinds = [draw("rect", { ...place, y: HEIGHT - share, height: share }), draw("rect", { ...place, y: HEIGHT - whole, height: whole - share })];
    kinds[0].classList.add("kept-bar");
    kinds[1].classList.add("out-bar");
    const title = draw("title", {});
    title.textContent = `${score} ${show(edges[bin])} to ${show(edges[bin + 1])}: ${kept[bin]} kept, ${out[bin]} left out`;
    const column = draw("rect", { x: bin * width, y: 0, width, height: HEIGHT, class: "column" });
    column.append(title);
    bars.push(...kinds, column);
  }
  const marker = draw("rect", { y: 0, height: HEIGHT, class: "marker", width: 0 });
  svg.replaceChildren(...bars, marker);
  const total = [...kept, ...out].reduce((sum, count) => sum + count, 0);
  svg.setAttribute("aria-label", `Histogram of ${score}: ${plural(total, "sample")} from ${show(edges[0])} to ${show(edges[bins])}`);
  $("lowest").textContent = show(edges[0]);
  $("highest").textContent = `${show(edges[bins])}${scale === "log" ? " (log)" : ""}`;
  svg.onpointerdown = (event) => drag(svg, event, bins, marker, (first, last) => {
    // The outermost bins have no limit beyond them; rounding outwards keeps their own samples in the range.
    choose(first === 0 ? "" : String(edges[first]), last === bins - 1 ? "" : String(edges[last + 1]));
  });
}

function drag(svg, start, bins, marker, choose) {
  const binAt = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(bins - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * bins)));
  };
  const from = binAt(start);
  let to = from;
  const mark = () => {
    marker.setAttribute("x", (Math.min(from, to) * WIDTH) / bins);
    marker.setAttribute("width", ((Math.abs(to - from) + 1) * WIDTH) / bins);
  };
  svg.setPointerCapture(start.pointerId);
  svg.onpointermove = (event) => {
    to = binAt(event);
    mark();
  };
  svg.onpointerup = () => {
    svg.onpointermove = svg.onpointerup = null;
    choose(Math.min(from, to), Math.max(from, to));
  };
  mark();
}
