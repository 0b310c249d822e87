"use strict";
// What is chosen, and all that follows from it. The state is in the fragment of the address.

const CHOICES = ["what", "directory", "condition", "seed", "measure"];
const OWN = new Set(["y", "x", "reference_y", "reference_x", "layer", "checkpoint", "object"]);

class Explorer {
  constructor() {
    const order = ["track", "similarity", "recording"];
    const rank = (file) => (order.includes(file.kind) ? order.indexOf(file.kind) : order.length);
    this.files = catalogue.files.filter((file) => file.fields.length)
      .sort((one, other) => rank(one) - rank(other));
    this.state = { dims: {} };
    this.charts = new Charts(JSON.parse(byId("charts").textContent));
    this.stage = new Stage(byId("stage"), {
      moved: (y, x) => this.set({ y, x }),
      chosen: (y, x) => this.refer(y, x),
    });
  }

  async start() {
    this.listen();
    await this.restore();
    document.documentElement.dataset.ready = "yes";
  }

  listen() {
    for (const name of CHOICES) {
      byId(`choose-${name}`).addEventListener("change", (event) =>
        this.choose({ ...(this.asked ?? this.state), [name]: event.target.value }));
    }
    for (const name of ["layer", "object"]) {
      byId(`choose-${name}`).addEventListener("change", (event) =>
        this.set({ [name]: Number(event.target.value) }));
    }
    byId("checkpoint").addEventListener("input", (event) =>
      this.set({ checkpoint: Number(event.target.value) }));
    byId("play").addEventListener("click", () => this.play());
    byId("to-reference").addEventListener("click", () => this.refer(this.state.y, this.state.x));
    const maps = byId("maps");
    maps.addEventListener("pointermove", (event) => this.hover(event));
    maps.addEventListener("pointerleave", () => this.say());
    maps.addEventListener("click", (event) => {
      const found = this.charts.under(event, this.ys, this.xs);
      if (!found) return;
      this.set({ layer: this.layers.length > 1 ? found.panel : this.state.layer });
      this.refer(found.y, found.x);
    });
    byId("numbers").addEventListener("toggle", () => this.table());
    byId("evidence-here").addEventListener("toggle", () => this.evidence());
    byId("csv").addEventListener("click", () => this.csv());
    for (const button of document.querySelectorAll("[data-save]")) {
      const [name, kind] = button.dataset.save.split(" ");
      button.addEventListener("click", () => this.charts.save(name, kind, `elsewhere-${name}`));
    }
    addEventListener("hashchange", () => this.restore());
    addEventListener("beforeprint", () => this.charts.paint());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.charts.theme());
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) requestAnimationFrame(() => this.layout());
      width = innerWidth;
      this.soon();  // Bokeh clears what it lays out
    });
  }

  // --- what is chosen ---------------------------------------------------------------------

  // Fill the menus for a wish; what is not there is replaced by the first that is.
  async choose(wish) {
    this.stop();
    let left = this.files;
    const state = { ...wish };
    for (const name of ["what", "directory", "condition", "seed"]) {
      const values = [...new Set(left.map((file) => file[name]))];
      state[name] = values.includes(wish[name]) ? wish[name] : values[0];
      this.menu(name, values.map((value) => [value, value || "not named"]), state[name]);
      left = left.filter((file) => file[name] === state[name]);
    }
    const file = left[0];
    const names = file.fields.map((field) => field.name);
    const first = names.find((name) => name.endsWith("_G"))
      ?? names.find((name) => name === "accuracy")
      ?? names.find((name) => name.startsWith("equivariance")) ?? names[0];
    state.measure = names.includes(wish.measure) ? wish.measure : first;
    const field = file.fields.find((each) => each.name === state.measure);
    this.menu("measure", file.fields.map((each) => [each.name, this.title(each)]), state.measure);
    this.asked = state;  // what is chosen while arrays are unpacked is added to it
    try {
      await Promise.all([load(file, field), ...this.needed(file, field)]);
    } catch (error) {  // a file beside the page is missing
      byId("hint").textContent = error.message;
      if (this.asked === state) this.asked = undefined;
      return;
    }
    if (this.asked !== state) return;
    this.asked = undefined;
    Object.assign(this, { file, field });
    this.baseline = file.fields.find((each) => each.name === field.baseline);
    this.ys = file.axes.y;
    this.xs = file.axes.x;
    this.layers = field.dims.includes("layer") ? file.axes.layer : [field.name.replaceAll("_", " ")];
    const counts = Object.fromEntries(field.dims.map((dim, at) => [dim, field.values.shape[at]]));
    for (const [at, dim] of (file.frames?.dims ?? []).entries()) {
      if (OWN.has(dim)) counts[dim] ??= file.frames.values.shape[at];
    }
    const inside = (value, count, other) =>
      Number.isInteger(value) && value >= 0 && value < count ? value : other;
    state.y = inside(state.y, this.ys.length, this.ys.length >> 1);
    state.x = inside(state.x, this.xs.length, this.xs.length - 1);
    for (const dim of ["layer", "object", "checkpoint"]) {
      const count = counts[dim] ?? 1;
      const last = dim === "object" ? 0 : count - 1;
      state[dim] = inside(state[dim], count, last);
      byId(`field-${dim}`).hidden = !(dim in counts);
    }
    state.dims = Object.fromEntries(
      field.dims.filter((dim) => !OWN.has(dim))
        .map((dim) => [dim, inside(wish.dims?.[dim], counts[dim], 0)]));
    for (const dim of ["y", "x"]) {
      const name = `reference_${dim}`;
      const known = this.file.axes[name]?.indexOf(this.file.scene.reference?.[dim === "y" ? 0 : 1]);
      if (name in counts) state[name] = inside(state[name], counts[name], Math.max(known, 0));
      else delete state[name];
    }
    this.state = state;
    this.others = [];
    if ("checkpoint" in counts) this.beside(field, state);
    for (const dim of ["layer", "object"]) {
      const labels = dim in counts ? file.axes[dim] : [];
      this.menu(dim, labels.map((label, at) => [String(at), label]), String(state[dim]));
    }
    const slider = byId("checkpoint");
    slider.max = (counts.checkpoint ?? 1) - 1;
    slider.value = state.checkpoint;
    this.more();
    this.notes();
    this.layout();
  }

  // The charts that show a field, which are made where they are not there yet.
  needed(file, field) {
    const curves = ["layer", "checkpoint"].filter((dim) => this.curved(dim, file, field));
    const names = ["maps", ...curves.map((dim) => `by-${dim}`), ...(file.frames ? ["frames"] : [])];
    return names.map((name) => this.charts.need(name));
  }

  curved(dim, file = this.file, field = this.field) {
    return field.dims.includes(dim) && file.axes[dim].length > 1;
  }

  // The same field of other seeds, whose curves are drawn when they are there.
  async beside(field, state) {
    const { file } = this;
    const like = (other) => other !== file && !other.factors
      && ["what", "directory", "condition"].every((name) => other[name] === file[name])
      && String(other.axes.checkpoint) === String(file.axes.checkpoint);
    const found = this.files.filter(like).slice(0, 20)
      .map((other) => [other, other.fields.find((each) => each.name === field.name)])
      .filter(([, other]) => String(other?.values.shape) === String(field.values.shape));
    const there = () => found.map(([, own]) => own).filter((own) => unpacked.has(own.values.block));
    this.others = there();
    if (this.others.length === found.length) return;
    try {
      for (const [other, own] of found) {
        await fetchData(other);
        await unpack(own.values);
      }
    } catch { return; }  // a file beside the page is missing: it is named when it is chosen
    if (this.state.seed !== state.seed || this.field !== field) return;
    this.others = there();
    this.dirty ??= requestAnimationFrame(() => this.draw());
  }

  menu(name, entries, value) {
    const select = byId(`choose-${name}`);
    const same = [...select.options].map((option) => `${option.value}\n${option.text}`).join("\n\n");
    if (same !== entries.map((entry) => entry.join("\n")).join("\n\n")) {
      select.replaceChildren(...entries.map(([key, text]) => new Option(text, key)));
    }
    select.value = value;
    const one = entries.length === 1 && !entries[0][0];
    if (CHOICES.includes(name)) byId(`field-${name}`).hidden = one;
  }

  // Menus of further dimensions: exemplars, axes that change the objects.
  more() {
    const fields = Object.entries(this.state.dims).map(([dim, chosen]) => {
      const label = document.createElement("label");
      label.append(dim.replaceAll("_", " "));
      const select = document.createElement("select");
      select.dataset.dim = dim;
      select.append(...this.file.axes[dim].map((text, at) => new Option(text, at)));
      select.value = chosen;
      select.addEventListener("change", () =>
        this.set({ dims: { ...this.state.dims, [dim]: Number(select.value) } }));
      label.append(select);
      return label;
    });
    byId("further").replaceChildren(...fields);
  }

  title(field) {
    const text = field.long_name || field.name;
    return text.length > 90 ? `${text.slice(0, 89)}…` : text;
  }

  set(change) {
    Object.assign(this.asked ?? this.state, change);
    if (this.asked) return;  // it is drawn when all is there
    this.dirty ??= requestAnimationFrame(() => this.draw());
  }

  refer(y, x) {
    if ("reference_y" in this.state) return this.set({ y, x, reference_y: y, reference_x: x });
    this.set({ y, x });
    const [ry, rx] = this.file.scene.reference ?? [];
    this.alert = ry === undefined
      ? "This result is not compared with a reference."
      : `This result is compared with one place only, y ${ry}, x ${rx}.`;
    const other = this.files.find((file) => file.factors && file.path === this.file.path
      && file.directory === this.file.directory);
    if (other) this.alert += ` The result “${other.what}” takes any place.`;
    byId("hint").textContent = this.alert;
  }

  at(change = {}) {
    const { y, x, layer, object, checkpoint, reference_y, reference_x, dims } = this.state;
    return { y, x, layer, object, checkpoint, reference_y, reference_x, ...dims, ...change };
  }

  reference() {
    if (!("reference_y" in this.state)) return this.file.scene.reference;
    const { reference_y, reference_x } = this.file.axes;
    return [reference_y[this.state.reference_y], reference_x[this.state.reference_x]];
  }

  // --- what is seen -----------------------------------------------------------------------

  layout() {
    const scene = this.file.scene;
    const known = scene.canvas && scene.size;
    this.scene = known ? scene : this.plainScene();
    this.stage.show({ scene: this.scene, ys: this.ys, xs: this.xs, trained: scene.trained });
    this.charts.layout(this.layers, this.scene, this.ys, this.xs);
    this.draw();
  }

  plainScene() {
    const most = Math.max(...this.ys, ...this.xs) + 1;
    return { ...this.file.scene, canvas: most, size: Math.max(1, Math.round(most / 10)) };
  }

  draw() {
    const begun = performance.now();
    cancelAnimationFrame(this.dirty);
    this.dirty = undefined;
    const { field, state } = this;
    const range = rangeOf(field);
    const many = field.dims.includes("layer");
    this.charts.maps(this.reader(field, many), range);
    const each = (dim, labels) =>
      labels.map((_, index) => valueAt(field, this.at({ [dim]: index })));
    const here = many ? each("layer", this.layers) : [valueAt(field, this.at())];
    const place = [this.ys[state.y], this.xs[state.x]];
    this.charts.marks(
      place, this.reference(), here.map(({ value, off }) => shown(value, off[0])), many ? state.layer : -1);
    this.curve("layer", range);
    this.curve("checkpoint", range);
    const names = this.file.axes.checkpoint;
    const named = field.dims.includes("checkpoint") ? names[state.checkpoint] : "";
    byId("checkpoint").value = state.checkpoint;
    byId("checkpoint").setAttribute("aria-valuetext", named);
    byId("checkpoint-name").textContent = named;
    for (const dim of ["layer", "object"]) byId(`choose-${dim}`).value = state[dim];
    const pictures = catalogue.pictures[this.file.pictures] ?? {};
    const id = this.file.ids[state.object] ?? this.file.ids[0] ?? Object.keys(pictures)[0];
    this.stage.update({
      y: state.y,
      x: state.x,
      reference: this.reference(),
      picture: Object.hasOwn(pictures, id) ? pictures[id] : undefined,
      name: id ?? "object",
      said: `${id ?? "object"} at ${this.sentence()}`,
    });
    this.frames();
    byId("hint").textContent = this.alert ?? "";
    this.alert = undefined;
    this.say();
    this.evidence();
    this.soon();
    document.documentElement.dataset.drawn = (performance.now() - begun).toFixed(1);
  }

  // Maps of attribution in the object's frame: over the object, and beside that at the reference.
  frames() {
    const { frames, scene } = this.file;
    byId("box-frames").hidden = !frames;
    if (!frames) return this.stage.map();
    const [rows, columns] = frames.values.shape.slice(-2);
    const map = (packed, name, at) => {
      const dims = frames.dims.slice(0, -2).filter((dim) =>
        packed === frames.values || (dim !== "y" && dim !== "x"));
      const start = positionOf(dims, packed.shape, at) * rows * columns;
      const steps = unpacked.get(packed.block);
      const valueOf = (row, column) => {
        const step = steps[start + row * columns + column];
        return step === -128 ? NaN : step * packed.scale + packed.offset;
      };
      return { name, valueOf };
    };
    const place = [this.ys[this.state.y], this.xs[this.state.x]];
    const here = map(frames.values, `here, y ${place[0]}, x ${place[1]}`, this.at());
    const form = { rows, columns, block: frames.block, first: frames.first, size: this.scene.size };
    const maps = [here];
    const at = scene.reference ?? [];
    const [y, x] = [this.ys.indexOf(at[0]), this.xs.indexOf(at[1])];
    const there = `at the reference, y ${at[0]}, x ${at[1]}`;
    if (frames.reference) maps.push(map(frames.reference, there, this.at()));
    else if (y >= 0 && x >= 0) maps.push(map(frames.values, there, this.at({ y, x })));
    this.charts.frames(maps, form);
    this.stage.map({ ...form, ...here, at: place }, (share) => this.charts.frameColor(share));
    byId("frames-of").textContent = frames.of;
  }

  // A function of panel, y and x that reads a field's values where they lie.
  reader(field, many) {
    if (field.formed) {
      const { [field.name]: values } = formed(field.file, this.at());
      const places = this.ys.length * this.xs.length, width = this.xs.length;
      const objects = field.dims.includes("object") ? this.file.ids.length : 1;
      const object = objects > 1 ? this.state.object : 0;
      return (panel, y, x) => values[(panel * objects + object) * places + y * width + x];
    }
    const steps = unpacked.get(field.values.block);
    const { shape } = field.values;
    const width = shape.at(-1), valueOf = decoder(field.values);
    const starts = this.layers.map((_, panel) =>
      positionOf(field.dims, shape, this.at({ y: 0, x: 0, ...(many && { layer: panel }) })));
    return (panel, y, x) => valueOf(steps[starts[panel] + y * width + x]);
  }

  curve(dim, range) {
    const there = this.curved(dim);
    byId(`box-${dim}`).hidden = !there;
    if (!there) return;
    const labels = this.file.axes[dim];
    const over = (read) => labels.map((_, index) => read(this.at({ [dim]: index })));
    this.charts.lines(dim, labels, {
      value: over((at) => valueAt(this.field, at)),
      away: this.field.away ? over((at) => awayAt(this.field, at)) : [],
      baseline: this.baseline ? over((at) => valueAt(this.baseline, at)) : [],
    }, dim === "checkpoint" ? this.others.map((field) => over((at) => valueAt(field, at).value)) : [],
    this.state[dim], range, this.field.name.replaceAll("_", " "));
  }

  sentence(at = this.at()) {
    const where = `y ${this.ys[at.y]}, x ${this.xs[at.x]}`;
    const layer = this.field.dims.includes("layer") ? `, ${this.file.axes.layer[at.layer]}` : "";
    const name = this.field.name.replaceAll("_", " ");
    const beside = this.baseline ? `; baseline ${withInterval(valueAt(this.baseline, at))}` : "";
    return `${where}${layer}: ${name} ${withInterval(valueAt(this.field, at))}${beside}`;
  }

  say(at) {
    byId("readout").textContent = this.sentence(at);
  }

  hover(event) {
    const found = this.charts.under(event, this.ys, this.xs);
    byId("maps").style.cursor = found ? "crosshair" : "";
    if (found) this.say(this.at({ layer: found.panel, y: found.y, x: found.x }));
    else this.say();
  }

  evidence() {
    if (!byId("evidence-here").open || !this.field) return;
    const { file, field } = this;
    const at = this.at();
    const found = valueAt(field, at);
    const parts = ["low", "high"].filter((end) => field[end]).map((end) => [field[end], found[end]]);
    const place = field.dims
      .map((dim) => `${dim} ${file.axes[dim][at[dim]]}`)
      .join(", ");
    describe(byId("source"), file, {
      variable: field.name, place, value: withInterval(found),
      meaning: field.long_name, chance: field.chance, formed: field.formed,
      error: Math.max(...[[field.values, found.value], ...parts].map((each) => errorAt(...each))),
    });
  }

  notes() {
    const notes = this.file.notes.map((note) => {
      const item = document.createElement("li");
      item.textContent = note;
      return item;
    });
    byId("notes").replaceChildren(...notes);
    byId("notes-box").hidden = !notes.length;
  }

  soon() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.settle(), 250);
  }

  // What need not follow at once: the address, what is spoken, the table, charts out of sight.
  settle() {
    if (this.timer) return;
    this.charts.paint();
    byId("spoken").textContent = this.sentence();
    const { dims, ...rest } = this.state;
    const kept = new URLSearchParams();
    for (const [key, value] of Object.entries({ ...rest, ...dims })) {
      if (value !== undefined) kept.set(key, value);
    }
    this.kept = `#${kept}`;
    history.replaceState(null, "", this.kept);
    this.table();
  }

  async restore() {
    if (location.hash && location.hash === this.kept) return;
    const target = location.hash.length > 1 && !location.hash.includes("=");
    if (target && this.file) return;  // a link to a section
    const wish = { ...this.state, dims: {} };
    for (const [key, value] of new URLSearchParams(target ? "" : location.hash.slice(1))) {
      if (CHOICES.includes(key)) wish[key] = value;
      else if (OWN.has(key)) wish[key] = Number(value);
      else wish.dims[key] = Number(value);
    }
    await this.choose(wish);
  }

  // --- playing, and taking away -----------------------------------------------------------

  play() {
    if (this.timer) return this.stop();
    const last = Number(byId("checkpoint").max);
    if (this.state.checkpoint >= last) this.set({ checkpoint: 0 });
    byId("play").textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.state.checkpoint >= last) return this.stop();
      this.set({ checkpoint: this.state.checkpoint + 1 });
    }, 500);
  }

  stop() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = undefined;
    byId("play").textContent = "Play";
    this.settle();
  }

  table() {
    if (!byId("numbers").open) return;
    const head = ["place", ...(this.layers.length > 1 ? this.layers : ["value"])];
    const many = this.field.dims.includes("layer");
    const rows = [];
    for (const [y, py] of this.ys.entries()) {
      for (const [x, px] of this.xs.entries()) {
        rows.push([`y ${py}, x ${px}`, ...this.layers.map((_, layer) =>
          withInterval(valueAt(this.field, this.at({ y, x, ...(many && { layer }) }))))]);
      }
    }
    const part = rows.slice(0, 200);
    fillTable(byId("numbers-table"), head, part);
    byId("numbers-note").textContent = rows.length > part.length
      ? `The first ${part.length} of ${rows.length} places; "Save as CSV" has all.` : "";
  }

  csv() {
    const { file, field } = this;
    const many = field.dims.includes("layer");
    const fixed = field.dims.filter((dim) => !["layer", "y", "x"].includes(dim));
    const head = ["directory", "condition", "seed", "measure", ...fixed, "layer", "y", "x",
      "value", "low", "high"];
    const rows = [];
    for (const [layer, name] of this.layers.entries()) {
      for (const [y, py] of this.ys.entries()) {
        for (const [x, px] of this.xs.entries()) {
          const at = this.at({ y, x, ...(many && { layer }) });
          const { value, low, high } = valueAt(field, at);
          const exact = [value, low, high].map((each) =>
            Number.isFinite(each) ? each.toPrecision(6) : "");
          rows.push([file.directory, file.condition, file.seed, field.name,
            ...fixed.map((dim) => file.axes[dim][at[dim]]), many ? name : "", py, px, ...exact]);
        }
      }
    }
    download(csvOf([head, ...rows]), `elsewhere-${field.name}.csv`);
  }
}

listenToNumbers();
const explorer = byId("stage") && new Explorer();
if (explorer) explorer.start();
else document.documentElement.dataset.ready = "yes";
