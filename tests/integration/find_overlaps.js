// Returns pairs of controls and texts of the review page that overlap, and what runs out of its card.
() => {
  const texts = "button, input:not([type=checkbox]), select, h1, #counts, .caption, .line, .numbers, #histogram, #matching";
  const boxes = [...document.querySelectorAll(texts)]
    .filter((each) => each.offsetParent !== null && !each.matches(".picture") && !each.closest("footer"))
    .map((each) => [each, each.getBoundingClientRect()])
    .filter(([, box]) => box.width && box.height);
  const name = (each) => each.outerHTML.slice(0, 80);
  const found = [];
  boxes.forEach(([one, a], index) => {
    for (const [other, b] of boxes.slice(index + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (!one.contains(other) && !other.contains(one) && x > 1 && y > 1) found.push(`${name(one)} / ${name(other)}`);
    }
    const card = one.closest(".card")?.getBoundingClientRect();
    if (card && a.right > card.right) found.push(`out of its card: ${name(one)}`);
  });
  return found;
}
