// Loads one model after another into TensorFlow.js and runs it, for `runtime/tfjs.py`, which starts this file in Node.js and talks to it over standard
// input and output in the messages of `runtime/pipe.py`: u64 length, JSON, then the bytes of every array that the JSON names.
'use strict';
const fs = require('fs');
const path = require('path');
const { pathToFileURL } = require('url');

const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array, complex64: Float32Array };
// TensorFlow.js says much on standard output, which belongs to the messages.
console.log = console.warn = console.info = console.debug = console.error;

let held = Buffer.alloc(0);

function bytes(count) {
  const out = Buffer.alloc(count);
  let at = 0;
  while (at < count) {
    if (!held.length) {
      const piece = Buffer.alloc(Math.max(1 << 16, Math.min(count - at, 1 << 24)));
      let size;
      try {
        size = fs.readSync(0, piece, 0, piece.length, null);
      } catch (error) {
        if (error.code === 'EAGAIN') continue;
        throw error;
      }
      if (!size) process.exit(0);
      held = piece.subarray(0, size);
    }
    const part = Math.min(held.length, count - at);
    held.copy(out, at, 0, part);
    held = held.subarray(part);
    at += part;
  }
  return out;
}

function receive() {
  const length = Number(bytes(8).readBigUInt64LE());
  return deep(JSON.parse(bytes(length).toString('utf8')));
}

function deep(value) {
  if (Array.isArray(value)) return value.map(deep);
  if (value === null || typeof value !== 'object') return value;
  if ('$array' in value) {
    const [dtype, shape] = value.$array;
    const raw = bytes(shape.reduce((a, b) => a * b, 1) * (dtype === 'complex64' ? 8 : dtype === 'bool' ? 1 : 4));
    const kind = ARRAYS[dtype];
    return { dtype, shape, data: new kind(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length)) };
  }
  if ('$text' in value) return { dtype: 'string', shape: value.$text[1], data: value.$text[0] };
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, deep(item)]));
}

function send(message) {
  const arrays = [];
  const header = Buffer.from(JSON.stringify(message, (key, value) => {
    if (!value || !value.dtype || !value.data) return value;
    if (value.dtype === 'string') return { $text: [Array.from(value.data), value.shape] };
    // A cast shares what it was made from, so the numbers may lie in an array of another kind than the type says.
    const kind = ARRAYS[value.dtype];
    const wanted = value.shape.reduce((a, b) => a * b, value.dtype === 'complex64' ? 2 : 1);
    if (value.data.length !== wanted) throw new Error(`a result of the shape [${value.shape}] has ${value.data.length} elements`);
    arrays.push(value.data instanceof kind ? value.data : new kind(value.data));
    return { $array: [value.dtype, value.shape] };
  }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  for (const part of [length, header, ...arrays.map((data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength))]) {
    for (let at = 0; at < part.length;) {
      try {
        at += fs.writeSync(1, part, at);
      } catch (error) {
        if (error.code !== 'EAGAIN') throw error;
      }
    }
  }
}

let tf = null;
let model = null;
let feeds = {};

function handler(file) {
  const folder = path.dirname(file);
  const about = JSON.parse(fs.readFileSync(file, 'utf8'));
  const manifest = about.weightsManifest || [];
  const data = Buffer.concat(manifest.flatMap((group) => group.paths.map((name) => fs.readFileSync(path.join(folder, name)))));
  const artifacts = {
    ...about,
    weightSpecs: manifest.flatMap((group) => group.weights),
    weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.length),
  };
  delete artifacts.weightsManifest;
  return { about, io: { load: async () => artifacts } };
}

async function prepare({ folder, backend }) {
  const wanted = require('module').createRequire(pathToFileURL(path.join(folder, 'package.json')));
  tf = wanted('@tensorflow/tfjs');
  if (backend === 'wasm') {
    const wasm = wanted('@tensorflow/tfjs-backend-wasm');
    wasm.setWasmPaths(path.dirname(wanted.resolve('@tensorflow/tfjs-backend-wasm')) + '/');
  }
  await tf.setBackend(backend);
  await tf.ready();
  return { version: tf.version['tfjs-core'] };
}

async function load({ file }) {
  if (model) model.dispose();
  const { about, io } = handler(file);
  const layers = about.format === 'layers-model' || 'model_config' in about.modelTopology || 'class_name' in about.modelTopology;
  model = layers ? await tf.loadLayersModel(io) : await tf.loadGraphModel(io);
  const port = (tensor) => ({ name: tensor.name, dtype: tensor.dtype || 'float32', shape: tensor.shape || null });
  return { layers, inputs: model.inputs.map(port), outputs: model.outputs.map(port) };
}

function feed({ arrays }) {
  tf.dispose(feeds);
  feeds = {};
  for (const [name, { dtype, shape, data }] of Object.entries(arrays)) {
    feeds[name] = dtype === 'complex64'
      ? tf.complex(tf.tensor(data.filter((_, i) => i % 2 === 0), shape), tf.tensor(data.filter((_, i) => i % 2 === 1), shape))
      : tf.tensor(data, shape, dtype);
  }
  return {};
}

async function run({ outputs, layers, answer }) {
  const names = Object.keys(feeds);
  let results;
  if (layers) {
    const given = model.inputs.map((tensor) => feeds[tensor.name] || feeds[tensor.name.split('/')[0]] || feeds[names[0]]);
    results = tf.tidy(() => model.predict(given.length === 1 ? given[0] : given));
  } else {
    results = await model.executeAsync(feeds, outputs);
  }
  results = Array.isArray(results) ? results : [results];
  const found = [];
  for (const result of results) {
    const data = await result.data();
    found.push(answer ? { dtype: result.dtype, shape: result.shape, data } : null);
  }
  tf.dispose(results.filter((result) => !Object.values(feeds).includes(result)));
  return answer ? { results: found } : {};
}

const ACTIONS = { prepare, load, feed, run };

(async () => {
  for (;;) {
    const request = receive();
    try {
      send(await ACTIONS[request.do](request.with));
    } catch (error) {
      send({ error: String((error && error.message) || error) });
    }
  }
})();
