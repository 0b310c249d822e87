"use strict";
// Bokeh's charts, filled with what is chosen.

const PANEL = { width: 1.12, height: 1.34, title: 0.26 };
const LINE = 4;  // px that the line around an object is wide
const ruler = document.createElement("canvas").getContext("2d");

class Charts {
  constructor(items) {
    keepStyles();
    this.items = items;
    this.plots = {};
    this.models = new Map();
    this.making = new Map();
    this.near = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) {
        this.plots[target.id].near = isIntersecting;
        this.rest(target.id);
      }
    }, { rootMargin: "150px" });
  }

  // Charts are made when they are first needed.
  need(name) {
    if (!this.making.has(name)) this.making.set(name, this.make(name));
    return this.making.get(name);
  }

  async make(name) {
    const host = document.getElementById(name);
    const hidden = host.closest("[hidden]");
    if (hidden) hidden.hidden = false;  // it is measured
    const manager = await Bokeh.embed.embed_item(this.items[name]);
    const view = [...manager][0];
    this.plots[name] = { model: view.model, view, host };
    // An axis keeps its width where its labels are shorter: with another, all is laid out anew.
    for (const axis of [...view.model.left, ...view.model.below]) {
      const shown = view.renderer_views.get(axis), own = shown.get_size?.bind(shown);
      if (!own || !("axis_label" in axis)) continue;
      let most = view.model.left.includes(axis) ? 64 : 0;
      shown.get_size = () => {
        if (axis.visible) most = Math.max(most, own().height);
        return { width: 0, height: axis.visible && most };
      };
    }
    this.theme([view.model]);
    this.near.observe(host);
  }

  // A chart that nobody sees rests until it comes near; one that is laid out wakes, but is held.
  rest(name) {
    const { model, view, near } = this.plots[name];
    if (!near && !view.is_paused) view.pause();
    while (near && view.is_paused) view.unpause();
    model.hold_render = !near;
  }

  // Paint at once those that rest, for paper and for pictures of the page.
  paint() {
    for (const [name, { model, view, host, near }] of Object.entries(this.plots)) {
      if (near || !host.clientWidth) continue;
      model.hold_render = false;
      while (view.is_paused) view.unpause(true);
      view.repaint();
      this.rest(name);
    }
  }

  // Documents look through all their models for a name, which takes longer than drawing some.
  named(name) {
    for (const { model } of this.models.has(name) ? [] : Object.values(this.plots)) {
      const found = model.document.get_model_by_name(name);
      if (found) this.models.set(name, found);
    }
    return this.models.get(name);
  }

  // The colours of text and lines, as the page has them, or paper.
  theme(plots = Object.values(this.plots).map(({ model }) => model), paper = false) {
    const style = getComputedStyle(paper ? byId("on-paper") : document.documentElement);
    const [ink, pale] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
    for (const model of plots) {
      for (const axis of [...model.below, ...model.left]) {
        if (axis.major_label_text_color !== undefined) axis.major_label_text_color = ink;
        for (const part of ["axis", "major_tick"]) {
          if (`${part}_line_color` in axis) axis[`${part}_line_color`] = ink;
        }
        if ("minor_tick_line_color" in axis) axis.minor_tick_line_color = null;
        if ("axis_label_text_color" in axis) axis.axis_label_text_color = ink;
      }
      for (const grid of model.center) if ("grid_line_color" in grid) grid.grid_line_color = pale;
      for (const legend of model.above) if (legend.label_text_color) legend.label_text_color = ink;
    }
    for (const name of ["names", "frame-names"]) {
      const text = this.named(name);
      if (text) text.glyph.text_color = { value: ink };
    }
  }

  // Which cell of a grid each pixel of its map shows; one pixel a cell where cells are alike.
  raster(values, { canvas, size }) {
    if (values.length === 1) return { first: values[0] - size / 2, span: size, index: [0] };
    const gaps = values.slice(1).map((value, place) => value - values[place]);
    const ends = [values[0] - gaps[0] / 2, values.at(-1) + gaps.at(-1) / 2];
    const first = Math.max(ends[0], 0);
    const span = Math.min(ends[1], canvas) - first;
    const whole = span === ends[1] - ends[0];
    if (whole && gaps.every((gap) => gap === gaps[0])) {
      return { first, span, index: [...values.keys()] };
    }
    const edges = gaps.map((gap, place) => values[place] + gap / 2);
    const pixels = Math.ceil(span);
    const index = Array.from({ length: pixels }, (_, pixel) => {
      const at = first + ((pixel + 0.5) * span) / pixels;
      let cell = 0;
      while (cell < edges.length && edges[cell] <= at) cell += 1;
      return cell;
    });
    return { first, span, index };
  }

  // Where maps stand: as many beside each other as have room.
  layout(names, scene, ys, xs) {
    const { model, host } = this.plots.maps;
    const wide = host.clientWidth || 600;
    // Another measure of the same layers and places has the same layout, which takes long to make.
    const key = JSON.stringify([names, scene.canvas, scene.size, ys, xs, wide]);
    if (this.laid === key) return;
    this.laid = key;
    model.hold_render = true;  // until its images are there
    const rows = Math.ceil(names.length / Math.max(1, Math.floor(wide / 150)));
    const columns = Math.ceil(names.length / rows);  // rows are of one length, but for the last
    const unit = Math.min(wide / (columns * PANEL.width), 240);
    this.unit = unit;
    this.scene = scene;
    this.rows = this.raster(ys, scene);
    this.columns = this.raster(xs, scene);
    this.panels = names.map((name, place) => ({
      text: fitted(name, unit - 20, "13px helvetica"),
      x: (place % columns) * PANEL.width + 0.06,
      y: Math.floor(place / columns) * PANEL.height + PANEL.title,
    }));
    model.height = Math.round(rows * PANEL.height * unit) + 46;
    model.x_range.setv({ start: 0, end: wide / unit });
    model.y_range.setv({ start: -rows * PANEL.height, end: 0 });
    const { height, width } = { height: this.rows.index.length, width: this.columns.index.length };
    const source = this.named("images");
    const Kind = source.data.image[0].constructor;
    this.images = names.map(() => new Kind(new Float32Array(height * width), [height, width]));
    this.named("canvases").data = {
      x: this.panels.map((panel) => panel.x + 0.5),
      y: this.panels.map((panel) => -(panel.y + 0.5)),
      w: this.panels.map(() => 1),
      h: this.panels.map(() => 1),
    };
    const part = 1 / scene.canvas;
    const bottom = this.rows.first + this.rows.span;
    this.still = {
      x: this.panels.map((panel) => panel.x + this.columns.first * part),
      y: this.panels.map((panel) => -(panel.y + bottom * part)),
      dw: this.panels.map(() => this.columns.span * part),
      dh: this.panels.map(() => this.rows.span * part),
    };
  }

  // `valueOf(panel, y, x)` in colours from low to high.
  maps(valueOf, [low, high]) {
    const mapper = this.named("colors");
    if (mapper.low !== low || mapper.high !== high) {
      // Each change is told to all images, and to the bar of colours: both ends are one change.
      mapper.setv({ low, high }, { silent: true });
      mapper.properties.high.change.emit();
    }
    const rows = this.rows.index, columns = this.columns.index;
    this.images.forEach((image, panel) => {
      let at = 0;
      for (let row = rows.length - 1; row >= 0; row -= 1) {
        for (const column of columns) image[at++] = valueOf(panel, rows[row], column);
      }
    });
    this.named("images").data = { image: this.images, ...this.still };
  }

  marks(here, reference, said, chosen) {
    const { canvas, size } = this.scene;
    const middle = size / 2 - Math.floor(size / 2);  // of an odd size it is between two pixels
    const side = Math.max(size / canvas - LINE / this.unit, size / canvas / 2);  // lines are inside
    const boxes = (place) => ({
      x: place ? this.panels.map((panel) => panel.x + (place[1] + middle) / canvas) : [],
      y: place ? this.panels.map((panel) => -(panel.y + (place[0] + middle) / canvas)) : [],
      w: place ? this.panels.map(() => side) : [],
      h: place ? this.panels.map(() => side) : [],
    });
    this.named("here").data = boxes(here);
    this.named("reference").data = boxes(reference);
    this.named("titles").data = {
      x: this.panels.map((panel) => panel.x),
      y: this.panels.map((panel) => 0.04 - panel.y),
      text: this.panels.map(
        (panel, at) => `${at === chosen ? "▸ " : ""}${panel.text}\n${said[at]}`),
    };
    this.rest("maps");
  }

  // Maps in the object's frame, side by side, each with the object's box in it.
  frames(maps, { rows, columns, block, first, size }) {
    const { model, host } = this.plots.frames;
    const [tall, across] = [rows * block, columns * block];
    const side = Math.max(tall, across);
    const wide = host.clientWidth || 600;
    const unit = Math.min(wide / (2 * PANEL.width), 240);
    const layout = `${unit} ${wide} ${tall / side}`;
    if (this.framed !== layout) {
      this.framed = layout;
      model.hold_render = true;
      const bottom = PANEL.title + tall / side + 0.06;
      model.height = Math.round(bottom * unit) + 46;
      model.x_range.setv({ start: 0, end: wide / unit });
      model.y_range.setv({ start: -bottom, end: 0 });
    }
    const source = this.named("frame-images");
    const Kind = source.data.image[0].constructor;
    const all = (value) => maps.map(() => value);
    const lefts = maps.map((_, at) => at * PANEL.width + 0.06);
    source.data = {
      image: maps.map(({ valueOf }) => {
        const image = new Kind(new Float32Array(rows * columns), [rows, columns]);
        for (let row = 0; row < rows; row += 1) {
          for (let column = 0; column < columns; column += 1) {
            image[(rows - 1 - row) * columns + column] = valueOf(row, column);
          }
        }
        return image;
      }),
      x: lefts, y: all(-(PANEL.title + tall / side)), dw: all(across / side), dh: all(tall / side),
    };
    this.named("frame-here").data = {
      x: lefts.map((left) => left + (size / 2 - first[1]) / side),
      y: all(-(PANEL.title + (size / 2 - first[0]) / side)),
      w: all(size / side), h: all(size / side),
    };
    this.named("frame-titles").data = {
      x: lefts, y: all(0.04 - PANEL.title), text: maps.map(({ name }) => name),
    };
    this.rest("frames");
  }

  // The colour of a share from -1 to 1 in such a map, as red, green and blue.
  frameColor(share) {
    const { palette } = this.named("frame-colors");
    const last = palette.length - 1;
    const color = palette[Math.round(((Math.min(Math.max(share, -1), 1) + 1) / 2) * last)];
    const bits = typeof color === "number" ? color >>> 8 : parseInt(color.slice(1, 7), 16);
    return [(bits >> 16) & 255, (bits >> 8) & 255, bits & 255];
  }

  // What a pointer is over: the panel and the cell, or nothing.
  under(event, ys, xs) {
    const { view, host } = this.plots.maps;
    const box = host.getBoundingClientRect();
    const frame = view.frame;
    const x = frame.x_scale.invert(event.clientX - box.left);
    const y = -frame.y_scale.invert(event.clientY - box.top);
    const { canvas } = this.scene;
    for (const [panel, { x: left, y: top }] of this.panels.entries()) {
      const pixel = [(y - top) * canvas, (x - left) * canvas];
      if (pixel.every((value) => value >= 0 && value <= canvas)) {
        const cell = (raster, value) => {
          const share = (value - raster.first) / raster.span;
          const place = Math.floor(share * raster.index.length);
          return raster.index[Math.min(Math.max(place, 0), raster.index.length - 1)];
        };
        return { panel, y: cell(this.rows, pixel[0]), x: cell(this.columns, pixel[1]) };
      }
    }
    return null;
  }

  // Values over layers or checkpoints, beside what they are compared with.
  lines(over, labels, series, others, now, [low, high], title) {
    const { model } = this.plots[`by-${over}`];
    this.named(`${over}-others`).data = {
      xs: others.map((values) => [...values.keys()]), ys: others,
    };
    for (const [name, values] of Object.entries(series)) {
      const known = values.filter((value) => value && Number.isFinite(value.value));
      const places = [...values.keys()].filter((at) => known.includes(values[at]));
      this.named(`${over}-${name}`).data = {
        x: places,
        y: known.map((each) => each.value),
        low: known.map((each) => (Number.isFinite(each.low) ? each.low : each.value)),
        high: known.map((each) => (Number.isFinite(each.high) ? each.high : each.value)),
      };
    }
    const legend = model.above.find((part) => part.items);
    const there = [...Object.values(series), others].map((values) => values.length > 0).reverse();
    if (this[`${over} legend`] !== there.join()) {
      this[`${over} legend`] = there.join();
      legend.items.forEach((item, at) => { item.visible = there[at]; });
    }
    const all = Object.values(series).flat().filter(Boolean);
    const ends = [...all.flatMap(({ value, low, high }) => [value, low, high]), ...others.flat()]
      .filter(Number.isFinite);
    const spread = (value) => Math.min(Math.max(value, low - 0.5), high + 0.5);
    model.x_range.setv({ start: -0.5, end: labels.length - 0.5 });
    model.y_range.setv({
      start: spread(Math.min(low, ...ends)), end: spread(Math.max(high, ...ends)) + 0.02,
    });
    this.named(`${over}-now`).location = now;
    this.label(over, labels);
    const upright = this.named(`${over}-y`);
    if (upright.axis_label !== title) upright.axis_label = title;
    this.rest(`by-${over}`);
  }

  // Names below an axis: side by side where they have room, else oblique, and none is cut off.
  label(over, labels) {
    const { host } = this.plots[`by-${over}`];
    const wide = host.clientWidth || 400;
    const key = JSON.stringify([labels, wide]);
    if (this[over] === key) return;
    this[over] = key;
    const axis = this.named(`${over}-x`);
    const font = "11px helvetica", left = 64, slope = 0.6;
    const part = (wide - left - 5) / labels.length;
    const step = Math.ceil(labels.length / 12);
    const ticks = [...labels.keys()].filter((at) => at % step === 0);
    ruler.font = font;
    const widest = Math.max(...ticks.map((at) => ruler.measureText(labels[at]).width));
    const beside = widest < step * part - 8;
    const room = (at) => Math.min(120, (left + (at + 0.5) * part - 12) / Math.cos(slope));
    axis.ticker.ticks = ticks;
    axis.major_label_overrides = new Map(
      ticks.map((at) => [at, beside ? labels[at] : fitted(labels[at], room(at), font)]));
    axis.major_label_orientation = beside ? "horizontal" : slope;
  }

  // What is saved is for paper, whatever colours the screen has; a text takes its own a frame later.
  async save(name, kind, file) {
    const { model, view } = this.plots[name];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    model.hold_render = false;
    while (view.is_paused) view.unpause(true);
    this.theme([model], true);
    await frame();
    await frame();
    view.repaint();
    const blob = await onWhite(await view.export(kind, true).to_blob(), kind);
    this.theme([model]);
    download(blob, `${file}.${kind}`);
    this.rest(name);
  }
}

// A picture on white, where it lay on nothing.
async function onWhite(blob, kind) {
  if (kind === "svg") {
    const ground = '<rect width="100%" height="100%" fill="#fff"/>';
    const text = (await blob.text()).replace(/<svg[^>]*>/, (head) => head + ground);
    return new Blob([text], { type: blob.type });
  }
  const image = await createImageBitmap(blob);
  const { width, height } = image;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0);
  return new Promise((done) => canvas.toBlob(done));
}

// Bokeh writes the place of each part of a chart into a style sheet whenever it paints, and asks for
// styles between. Written again as it was, it would make the browser find out all styles anew.
function keepStyles() {
  let sheet;
  try {
    sheet = Bokeh.require("core/dom").InlineStyleSheet.prototype;
  } catch { return; }  // of another version of Bokeh; it is only slower
  const write = sheet._update;
  if (!write) return;
  sheet._update = function (text) {
    if (this.el.textContent !== text) write.call(this, text);
  };
}

// A name on one line that takes so many pixels at most; its end says more than its middle.
function fitted(name, room, font) {
  ruler.font = font;
  const line = name.replace(/\s+/g, " ");
  if (ruler.measureText(line).width <= room) return line;
  const signs = [...line];
  let [text, low, high] = ["…", 1, signs.length - 1];
  while (low <= high) {
    const kept = (low + high) >> 1, begin = Math.floor(kept / 3);
    const tried = `${signs.slice(0, begin).join("")}…${signs.slice(begin - kept).join("")}`;
    if (ruler.measureText(tried).width <= room) [text, low] = [tried, kept + 1];
    else high = kept - 1;
  }
  return text;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
