"use strict";
// The data of the page: arrays are unpacked when they are first asked for, and sliced where they lie.

const UNDEFINED = -32768, INFINITE = 32767;
const KINDS = { 8: Int8Array, 16: Int16Array, 32: Float32Array, 64: Float64Array };
const held = document.getElementById("catalogue");
const catalogue = JSON.parse(held.textContent);
const unpacked = new Map();

// A report in a folder: data of a file of results are a script, which is asked for once.
const mark = held.dataset.mark;
const asked = new Map();
const taken = new Map();

function takeData(number, blocks) {
  for (const [block, text] of Object.entries(blocks)) taken.set(Number(block), text);
}

function fetchData(file) {
  if (!mark) return undefined;
  const number = file.number;
  if (!asked.has(number)) {
    asked.set(number, new Promise((done, failed) => {
      const script = document.createElement("script");
      script.nonce = mark;
      script.src = `data/${number}.js`;
      script.onload = done;
      script.onerror = () => {
        asked.delete(number);
        failed(new Error(
          `data/${number}.js cannot be loaded: this page has to stay in its folder, with "data".`));
      };
      document.head.append(script);
    }));
  }
  return asked.get(number);
}

function textOf(block) {
  if (!mark) return document.getElementById(`block-${block}`).textContent;
  return taken.get(block);
}

async function unpack(packed) {
  const found = unpacked.get(packed.block);
  if (found) return found;
  const text = atob(textOf(packed.block));
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const values = new KINDS[packed.bits ?? 16](buffer);
  unpacked.set(packed.block, values);
  taken.delete(packed.block);
  return values;
}

// All arrays of a field, so that every later action finds them in memory.
async function load(file, field) {
  await fetchData(file);
  if (field.formed) {
    for (const other of file.fields) other.file = file;  // its baseline as well
    return prepare(file);
  }
  const parts = [field, field.away].filter(Boolean);
  parts.push({ values: file.frames?.values, low: file.frames?.reference });
  const wanted = parts.flatMap((part) => [part.values, part.low, part.high]).filter(Boolean);
  await Promise.all(wanted.map(unpack));
  const baseline = file.fields.find((other) => other.name === field.baseline);
  if (baseline && field !== baseline) await load(file, baseline);
}

// Codes of unit length, and their sums over objects and over those of a category.
async function prepare(file) {
  if (file.codes) return;
  const n = file.ids.length, columns = file.axes.x.length;
  const places = file.axes.y.length * columns;
  const kinds = Math.max(...file.categories) + 1;
  const sizes = new Array(kinds).fill(0);
  for (const kind of file.categories) sizes[kind] += 1;
  const codes = [];
  for (const factor of file.factors) {
    const rank = factor.shape[2];
    const own = Float32Array.from(await unpack(factor), (step) => step * factor.scale + factor.offset);
    const sums = new Float32Array((kinds + 1) * places * rank);  // the last one is over all objects
    for (let object = 0; object < n; object += 1) {
      for (const kind of [file.categories[object], kinds]) {
        for (let at = 0; at < places * rank; at += 1) {
          sums[kind * places * rank + at] += own[object * places * rank + at];
        }
      }
    }
    codes.push({ rank, own, sums });
  }
  const pairs = n * n - sizes.reduce((sum, size) => sum + size * size, 0);
  file.codes = { layers: codes, n, places, columns, kinds, pairs };
}

// Cosines with the reference, and G, of every layer, object and place: once for each reference.
function formed(file, at) {
  const { n, places, columns, kinds, pairs } = file.codes;
  const reference = at.reference_y * columns + at.reference_x;
  const checkpoint = file.axes.checkpoint ? at.checkpoint : 0;
  if (file.formed?.reference !== reference) file.formed = { reference, at: new Map() };
  if (file.formed.at.has(checkpoint)) return file.formed.at.get(checkpoint);
  const count = file.axes.layer.length;
  const layers = file.codes.layers.slice(checkpoint * count, (checkpoint + 1) * count);
  const each = new Float32Array(layers.length * n * places);
  const [mean, baseline, G] = [0, 1, 2].map(() => new Float32Array(layers.length * places));
  layers.forEach(({ rank, own, sums }, layer) => {
    const product = (codes, part, place) => {
      let sum = 0;
      const one = (part * places + place) * rank, other = (part * places + reference) * rank;
      for (let k = 0; k < rank; k += 1) sum += codes[one + k] * codes[other + k];
      return sum;
    };
    for (let place = 0; place < places; place += 1) {
      let alike = 0;
      for (let object = 0; object < n; object += 1) {
        const value = product(own, object, place);
        each[(layer * n + object) * places + place] = value;
        alike += value / n;
      }
      let others = product(sums, kinds, place);
      for (let kind = 0; kind < kinds; kind += 1) others -= product(sums, kind, place);
      const where = layer * places + place;
      mean[where] = alike;
      const other = (baseline[where] = pairs ? others / pairs : NaN);
      G[where] = place === reference || !(1 - other >= 1e-3) ? NaN : (alike - other) / (1 - other);
    }
  });
  const found = { cosine_each: each, cosine: mean, cosine_baseline: baseline, cosine_G: G };
  file.formed.at.set(checkpoint, found);
  return found;
}

// Where layers, objects and places of a formed field stand: its reference is in it already.
function formedAt(field, at) {
  const first = field.dims.indexOf("layer");  // the checkpoint is chosen before
  const dims = field.dims.slice(first, -2), shape = field.values.shape.slice(first, -2);
  const value = formed(field.file, at)[field.name][positionOf(dims, shape, at)];
  return { value, low: NaN, high: NaN, off: [field.values.error, 0, 0] };
}

function read(packed, position) {
  return packed ? decoder(packed)(unpacked.get(packed.block)[position]) : NaN;
}

// A number and the ends of its interval; and by how much each may be off.
function readAll({ values, low, high }, position) {
  const found = [values, low, high].map((packed) => read(packed, position));
  const off = [values, low, high].map((packed, at) => (packed ? errorAt(packed, found[at]) : 0));
  return { value: found[0], low: found[1], high: found[2], off };
}

// What a number of an array stands for; floats stand for themselves.
function decoder({ bits, scale, offset }) {
  if (bits > 16) return (value) => value;
  return (step) => {
    if (step === UNDEFINED) return NaN;
    if (step === INFINITE || step === -INFINITE) return Math.sign(step) * Infinity;
    return step * scale + offset;
  };
}

// By how much a value may be off: the error of floats is a share of it.
function errorAt(packed, value) {
  return packed.bits > 16 && Number.isFinite(value) ? packed.error * Math.abs(value) : packed.error;
}

// Where a value stands: `at` has an index for each dimension, and may have more.
function positionOf(dims, shape, at) {
  let position = 0;
  dims.forEach((dim, axis) => {
    position = position * shape[axis] + Math.min(at[dim] ?? 0, shape[axis] - 1);
  });
  return position;
}

function valueAt(field, at) {
  if (field.formed) return formedAt(field, at);
  const position = positionOf(field.dims, field.values.shape, at);
  return readAll(field, position);
}

function awayAt(field, at) {
  if (!field.away) return null;
  const dims = field.dims.filter((dim) => dim !== "y" && dim !== "x");
  const position = positionOf(dims, field.away.values.shape, at);
  return readAll(field.away, position);
}

// Numbers that three places would make zero keep the digits that `off`, their error, leaves them.
function shown(value, off = 0) {
  if (Number.isNaN(value)) return "undefined";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : "minus infinite";
  const size = Math.abs(value);
  const small = size < 0.0005 && size > off;
  const text = small ? size.toExponential(off > size / 20 ? 0 : 1) : size.toFixed(3);
  return value < 0 && Number(text) ? `−${text}` : text;
}

function withInterval({ value, low, high, off = [] }) {
  const ends = Number.isNaN(low) || Number.isNaN(high);
  return shown(value, off[0]) + (ends ? "" : ` [${shown(low, off[1])}, ${shown(high, off[2])}]`);
}

// Lowest and highest finite value that a field has anywhere, so that colours stay what they are.
const extents = new Map();
function extentOf(field) {
  if (field.formed) return field.name === "cosine_G" ? [0, 1] : [-1, 1];
  const key = field.values.block;
  if (!extents.has(key)) {
    let low = Infinity, high = -Infinity;
    const valueOf = decoder(field.values);
    for (const step of unpacked.get(key)) {
      const value = valueOf(step);
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    extents.set(key, low > high ? [0, 1] : [low, high]);
  }
  return extents.get(key);
}

// The scale of colours: from 0 to 1 where a measure is there, wider where values are.
function rangeOf(field) {
  const [low, high] = extentOf(field);
  if (/^(up to 1|0\.\.1|-1\.\.1)$/.test(field.range)) {
    return [Math.min(0, Math.max(-1, Math.floor(low * 10) / 10)), 1];
  }
  return low < high ? [low, high] : [low - 0.5, low + 0.5];
}

// Rows as a file of CSV. A cell that begins as a formula does is text.
function csvOf(rows) {
  const cell = (value) => {
    const text = String(value);
    const safe = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const text = rows.map((row) => row.map(cell).join(",")).join("\n");
  return new Blob([`${text}\n`], { type: "text/csv" });
}
