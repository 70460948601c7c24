"use strict";
const boxes = [...document.querySelectorAll("input[name=family]")];
const texts = [...document.querySelectorAll("pre[data-file]")];
const status = document.getElementById("count");

function update() {
  const chosen = boxes.filter((box) => box.checked);
  const empty = boxes.length > 0 && chosen.length === 0;
  for (const text of texts) {
    const lines = (found, indent) => chosen.map((box) => indent + box.value).join("\n");
    text.textContent = empty ? "" : text.dataset.template.replace(/^( *)@families@$/m, lines);
  }
  for (const button of document.querySelectorAll("[data-copy], [data-download]")) button.disabled = empty;
  document.getElementById("hint").hidden = !empty;
  if (boxes.length) status.textContent = `${chosen.length} of ${boxes.length} families ticked`;
}

function tickAll(checked) {
  for (const box of boxes) box.checked = checked;
  update();
}

const find = (name) => texts.find((text) => text.dataset.file === name);

async function copy(name) {
  const text = find(name);
  try {
    await navigator.clipboard.writeText(text.textContent);
    status.textContent = `Copied ${name}`;
  } catch {
    getSelection().selectAllChildren(text);
    status.textContent = "The browser does not let pages copy: press Ctrl+C, the text is selected";
  }
}

function download(name) {
  const link = document.createElement("a");
  link.href = `data:application/yaml;charset=utf-8,${encodeURIComponent(find(name).textContent)}`;
  link.download = name;
  link.click();
}

for (const box of boxes) box.addEventListener("change", update);
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => download(button.dataset.download));
document.getElementById("all")?.addEventListener("click", () => tickAll(true));
document.getElementById("none")?.addEventListener("click", () => tickAll(false));
for (const tools of document.querySelectorAll("[data-needs-script]")) tools.hidden = false;
update();
