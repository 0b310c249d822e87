"use strict";
// The canvas with the object on it: a grid of one cell, which moves, so that it is one tab stop.

class Stage {
  constructor(element, { moved, chosen }) {
    this.element = element;
    this.moved = moved;
    this.chosen = chosen;
    this.cell = element.querySelector("[role=gridcell]");
    this.row = element.querySelector("[role=row]");
    this.picture = element.querySelector("img");
    this.reference = element.querySelector(".reference");
    this.dots = element.querySelector(".dots");
    this.over = element.querySelector(".over");
    element.addEventListener("keydown", (event) => this.press(event));
    element.addEventListener("pointerdown", (event) => this.begin(event));
    element.addEventListener("pointermove", (event) => this.drag(event));
    element.addEventListener("pointerup", (event) => this.end(event));
    element.addEventListener("pointercancel", () => { this.from = null; });
  }

  show({ scene, ys, xs, trained }) {
    const key = JSON.stringify([scene, ys, xs, trained, this.element.clientWidth]);
    if (this.shown === key) return;
    this.shown = key;
    this.scene = scene;
    this.ys = ys;
    this.xs = xs;
    this.element.setAttribute("aria-rowcount", ys.length);
    this.element.setAttribute("aria-colcount", xs.length);
    this.element.style.background = `rgb(${scene.background.join(" ")})`;
    const light = scene.background.reduce((sum, level) => sum + level) > 382;
    const side = (this.dots.width = this.dots.height = 2 * this.element.clientWidth || 600);
    const pen = this.dots.getContext("2d");
    pen.fillStyle = light ? "rgb(0 0 0 / 45%)" : "rgb(255 255 255 / 45%)";
    const part = side / scene.canvas;
    for (const y of ys) for (const x of xs) pen.fillRect(x * part - 1, y * part - 1, 3, 3);
    pen.strokeStyle = "#ff9e3d";
    pen.lineWidth = 2;
    for (const [y, x] of trained ?? []) pen.strokeRect(x * part - 5, y * part - 5, 10, 10);
  }

  place(box, y, x) {
    const { canvas, size } = this.scene;
    box.style.width = box.style.height = `${(100 * size) / canvas}%`;
    box.style.top = `${(100 * (y - Math.floor(size / 2))) / canvas}%`;
    box.style.left = `${(100 * (x - Math.floor(size / 2))) / canvas}%`;
  }

  update({ y, x, reference, picture, name, said }) {
    this.place(this.cell, this.ys[y], this.xs[x]);
    this.row.setAttribute("aria-rowindex", y + 1);
    this.cell.setAttribute("aria-colindex", x + 1);
    this.cell.setAttribute("aria-label", said);
    this.reference.hidden = !reference;
    if (reference) this.place(this.reference, ...reference);
    this.cell.classList.toggle("plain", !picture);
    this.picture.hidden = !picture;
    if (picture && this.picture.src !== picture) this.picture.src = picture;
    this.cell.title = name;
    this.at = [y, x];
  }

  // Lay a map over the object: stronger values are less transparent. Without one, there is none.
  map(map, colorOf) {
    this.over.hidden = !map;
    if (!map) return;
    const { rows, columns, block, first, valueOf, at: [y, x] } = map;
    const { canvas, size } = this.scene;
    const part = (px) => `${(100 * px) / canvas}%`;
    this.over.style.top = part(y - Math.floor(size / 2) + first[0]);
    this.over.style.left = part(x - Math.floor(size / 2) + first[1]);
    this.over.style.height = part(rows * block);
    this.over.style.width = part(columns * block);
    Object.assign(this.over, { width: columns, height: rows });
    const pen = this.over.getContext("2d");
    const image = pen.createImageData(columns, rows);
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const value = valueOf(row, column);
        if (!Number.isFinite(value)) continue;
        const strength = 240 * Math.sqrt(Math.min(Math.abs(value), 1));
        image.data.set([...colorOf(value), strength], 4 * (row * columns + column));
      }
    }
    pen.putImageData(image, 0, 0);
  }

  nearest(event) {
    const box = this.element.getBoundingClientRect();
    const px = (value, start, length) => ((value - start) / length) * this.scene.canvas;
    const closest = (values, wanted) =>
      values.reduce(
        (best, value, index) =>
          Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? index : best, 0);
    return [
      closest(this.ys, px(event.clientY, box.top, box.height)),
      closest(this.xs, px(event.clientX, box.left, box.width)),
    ];
  }

  begin(event) {
    if (event.button || !this.at) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.cell.focus({ preventScroll: true });
    this.from = { x: event.clientX, y: event.clientY, dragged: false };
  }

  // Keys may come faster than what they ask for is drawn: the next one starts from here.
  go(y, x) {
    this.at = [y, x];
    this.moved(y, x);
  }

  drag(event) {
    if (!this.from) return;
    const far = Math.hypot(event.clientX - this.from.x, event.clientY - this.from.y);
    this.from.dragged ||= far > 3;
    if (!this.from.dragged) return;
    const [y, x] = this.nearest(event);
    if (y !== this.at[0] || x !== this.at[1]) this.go(y, x);
  }

  end(event) {
    if (this.from && !this.from.dragged) this.chosen(...this.nearest(event));
    this.from = null;
  }

  press(event) {
    if (event.altKey || event.metaKey || !this.at) return;
    const [y, x] = this.at;
    const last = [this.ys.length - 1, this.xs.length - 1];
    const steps = {
      ArrowUp: [y - 1, x],
      ArrowDown: [y + 1, x],
      ArrowLeft: [y, x - 1],
      ArrowRight: [y, x + 1],
      Home: [event.ctrlKey ? 0 : y, 0],
      End: [event.ctrlKey ? last[0] : y, last[1]],
      PageUp: [0, x],
      PageDown: [last[0], x],
    };
    if (event.key === "Enter" || event.key === " ") this.chosen(y, x);
    else if (event.key in steps) {
      const clip = (value, most) => Math.min(Math.max(value, 0), most);
      const [to, across] = steps[event.key];
      this.go(clip(to, last[0]), clip(across, last[1]));
    } else return;
    event.preventDefault();
  }
}
