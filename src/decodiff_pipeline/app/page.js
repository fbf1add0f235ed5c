// What Gradio's components lack: folders, drawing on an image, keyboard shortcuts.
"use strict";

const IMAGE = /\.(png|jpe?g|bmp|tiff?|webp)$/i;
const MOST_LISTED = 5000; // files of a folder
const BRUSH = 16; // pixels of the screen; zoom in for a finer stroke
const find = (selector) => document.querySelector(selector);
const shown = (id) => Boolean(document.getElementById(id)?.offsetParent);

// Inspect: the images of a folder, chosen or dropped; each is a path and its file.

function uploadImages(files) {
  const images = files
    .filter(([path]) => IMAGE.test(path) && !/(^|\/)\./.test(path))
    .sort(([first], [second]) => (first < second ? -1 : 1));
  const most = Number(find("#drop").dataset.most);
  const message = images.length ? "" : "There is no PNG, JPEG, BMP, TIFF or WebP image in it.";
  find("#upload-message").textContent = images.length > most ? `The first ${most} of ${images.length} images.` : message;
  if (!images.length) return;
  const transfer = new DataTransfer();
  for (const [path, file] of images.slice(0, most)) {
    transfer.items.add(new File([file], path.replaceAll("/", "_"), { type: file.type }));
  }
  const input = find("[data-testid='Images-upload-button']");
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

async function collectFiles(entry, prefix, files) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    files.push([entry.fullPath.slice(prefix), file]);
    return;
  }
  const reader = entry.createReader();
  while (files.length < MOST_LISTED) {
    const entries = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!entries.length) return;
    for (const child of entries) await collectFiles(child, prefix, files);
  }
}

document.addEventListener("dragover", (event) => shown("drop") && event.preventDefault());
document.addEventListener("drop", async (event) => {
  if (!shown("drop")) return;
  event.preventDefault();
  const files = [];
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
  for (const entry of entries.filter(Boolean)) {
    await collectFiles(entry, entry.isFile ? 1 : entry.fullPath.length + 1, files);
  }
  uploadImages(files);
});

function chooseFolder() {
  const input = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true });
  input.addEventListener("change", () => {
    uploadImages([...input.files].map((file) => [file.webkitRelativePath.replace(/^[^/]*\//, ""), file]));
  });
  input.click();
}

// Review: rectangles and strokes over the image, in its pixels.

const canvas = () => find("#review-view svg");
let marks = []; // shapes on the image
let drawing = null; // the shape being drawn, and its first point: x, y

// Gradio updates the picture in place at every event: the marks are kept until another image is shown.
let image = ""; // SHA-256
new MutationObserver(() => {
  const now = find("#reviewed-image")?.dataset.image ?? image;
  if (now !== image) marks = [];
  image = now;
  for (const mark of marks) if (!mark.isConnected) canvas()?.append(mark);
}).observe(document, { childList: true, subtree: true, attributeFilter: ["data-image"] });

function set(shape, attributes) {
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
  return shape;
}

function add(name, attributes) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  marks.push(canvas().appendChild(set(shape, { class: "drawn", ...attributes })));
  return shape;
}

function imagePoint(event) {
  const screen = canvas().getScreenCTM();
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(screen.inverse());
  const { width, height } = canvas().viewBox.baseVal;
  return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
}

document.addEventListener("pointerdown", (event) => {
  const tool = find("#tool input:checked")?.value ?? "Move";
  if (event.button || !canvas()?.contains(event.target) || tool.startsWith("Move")) return;
  canvas().setPointerCapture(event.pointerId);
  const [x, y] = imagePoint(event);
  const width = BRUSH / canvas().getScreenCTM().a;
  const shape = tool.startsWith("Brush")
    ? add("polyline", { "stroke-width": width, points: `${x},${y} ${x},${y}` })
    : add("rect", { x, y, width: 0, height: 0 });
  drawing = [shape, x, y];
});

document.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const [shape, left, top] = drawing;
  const [x, y] = imagePoint(event);
  const changed =
    shape.localName === "polyline"
      ? { points: `${shape.getAttribute("points")} ${x},${y}` }
      : { x: Math.min(x, left), y: Math.min(y, top), width: Math.abs(x - left), height: Math.abs(y - top) };
  set(shape, changed);
});

for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, () => {
    if (drawing?.[0].getAttribute("width") === "0") removeLastMark(); // a click
    drawing = null;
  });
}

const removeLastMark = () => marks.pop()?.remove();
const boxOf = (rect) => [rect.x, rect.y, rect.width, rect.height].map((length) => length.baseVal.value);

function drawBoxes() {
  for (const rect of canvas()?.querySelectorAll("rect:not(.drawn)") ?? []) {
    const [x, y, width, height] = boxOf(rect);
    add("rect", { x, y, width, height });
  }
}

// Sent with a verdict: the displayed image, and the shapes on it.
function currentDrawing() {
  const shapes = marks.map((shape) =>
    shape.localName === "rect"
      ? { rectangle: boxOf(shape) }
      : {
          stroke: [...shape.points].map(({ x, y }) => [x, y]),
          width: Number(shape.getAttribute("stroke-width")),
        },
  );
  return JSON.stringify({ image, shapes });
}

const ACTIONS = { folder: chooseFolder, boxes: drawBoxes, erase: removeLastMark };
document.addEventListener("click", (event) => ACTIONS[event.target.closest("button")?.id]?.());

const KEYS = { g: "#good", d: "#defective", s: "#skip", u: "#undo", x: "#boxes", c: "#erase" };
const TOOLS = { r: "Rectangle", b: "Brush", m: "Move" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !shown("good")) return;
  if (event.target.closest("textarea, input:not([type=radio]), select, [contenteditable]")) return;
  const tool = TOOLS[event.key] && `#tool input[value^=${TOOLS[event.key]}]`;
  const pressed = find(KEYS[event.key] ?? tool ?? "#none");
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
});
