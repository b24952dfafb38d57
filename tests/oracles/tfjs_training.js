// Loads a LayersModel into TensorFlow.js as its file says that it is trained, and trains it: eight steps towards other results on made-up data.
//
//     node tfjs_training.js FOLDER_OF_NODE_MODULES MODEL_JSON
//
// Prints JSON: the class of the optimizer and the loss of each step.
'use strict';
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');

const [, , folder, file] = process.argv;
const said = console.log;
console.log = console.warn = console.info = console.error;
const tf = createRequire(path.join(folder, 'package.json'))('@tensorflow/tfjs');

const bytes = (buffers) => {
  const all = Buffer.concat(buffers);
  return all.buffer.slice(all.byteOffset, all.byteOffset + all.length);
};

const load = async () => {
  const content = JSON.parse(fs.readFileSync(file, 'utf8'));
  const shards = content.weightsManifest.flatMap((group) => group.paths.map((name) => fs.readFileSync(path.join(path.dirname(file), name))));
  return {
    modelTopology: content.modelTopology, trainingConfig: content.trainingConfig, format: content.format,
    weightSpecs: content.weightsManifest.flatMap((group) => group.weights), weightData: bytes(shards),
  };
};

(async () => {
  await tf.setBackend('cpu');
  const model = await tf.loadLayersModel({ load });
  const x = tf.randomNormal([16, ...model.inputs[0].shape.slice(1)], 0, 1, 'float32', 3);
  const start = model.predict(x);
  const y = tf.add(start, tf.randomNormal(start.shape, 0, 1, 'float32', 4));
  const losses = [];
  for (let step = 0; step < 8; step += 1) losses.push([].concat(await model.trainOnBatch(x, y))[0]);
  said(JSON.stringify({ optimizer: model.optimizer.getClassName(), losses }));
})();
