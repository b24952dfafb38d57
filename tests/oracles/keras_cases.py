"""Runs inside the environment `tensorflow`: makes models of `keras_grid`, `keras_models` and `keras_functions`, saves them, and computes what Keras computes.

    python keras_cases.py FOLDER LIBRARY PATTERN         LIBRARY is keras or tf_keras

For each case it prints a line of JSON, with the name of its file or why it could not be made; inputs and outputs lie in FOLDER/NAME.npz. The last line says
which of the layers that the library exports were in no model that was made; with the pattern `*` there must be none but those of `LEFT_OUT`.
"""
from __future__ import annotations

import fnmatch
import importlib
import inspect
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

BATCH, FREE = 3, 6                              # the size of the batch, and of axes whose size is open
WORDS = ["a", "b", "dog", "cat"]
TEXTS = [*WORDS, "The dog, a b!"]
CYCLE = "part of a cycle"                       # what Keras says of a model with a layer whose result is its input
# Exported classes that no model can be made of, by the reason. Code is for isomorph to refuse.
LEFT_OUT = {"base": ["Layer", "Wrapper", "AbstractRNNCell"], "no layer": ["InputSpec"],
            "code": ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "DenseFeatures"],
            CYCLE: ["Equalization"]}


class Maker:
    """Makes, saves and runs one model after the other, and remembers which layers were in them."""

    def __init__(self, K, folder):
        self.K, self.folder = K, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.suffix = ".keras" if K.__name__ == "keras" else ".h5"
        self.met, self.refused = set(), {}

    def run(self, name, build):
        self.K.backend.clear_session()
        try:
            print(json.dumps({"name": name, **self.made(name, build, np.random.default_rng(7))}), flush=True)
        except Exception as error:
            self.refused[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(json.dumps({"name": name, "error": self.refused[name]}), flush=True)

    def made(self, name, build, rng):
        model, twin = build() if name.startswith("first-") else (build(), None)
        if not name.startswith(("quantized", "adapted")):
            randomise(model, rng)
        inputs = [feed(tensor, rng, name) for tensor in model.inputs]
        outputs = self.called(model, inputs) if twin is None else self.behind(model, twin, inputs[0], 2 if "ConvLSTM" in name else 1)
        model.save(self.folder / f"{name}{self.suffix}")
        arrays = {f"in{place}": array for place, array in enumerate(inputs)} | {f"out{place}": np.asarray(each) for place, each in enumerate(leaves(outputs))}
        np.savez(self.folder / f"{name}.npz", **{key: stored(value) for key, value in arrays.items()})
        self.met |= {kind for layer in layers_of(model) for kind in type(layer).__mro__}
        return {"file": f"{name}{self.suffix}", "inputs": [tensor.name.split(":")[0] for tensor in model.inputs]}

    def called(self, model, inputs):
        tensors = [self.tensor(x) for x in inputs]
        return model(tensors if len(tensors) > 1 else tensors[0], training=False)

    def behind(self, model, twin, x, axis):
        """What a model gives whose twin has the channels behind, and which TensorFlow cannot run. Recurrent ones have a time in front of them at times."""
        twin.set_weights(model.get_weights())
        y = np.asarray(self.called(twin, [np.moveaxis(x, axis, -1)]))
        return np.moveaxis(y, -1, axis if y.ndim == x.ndim else 1)

    def tensor(self, array):
        import tensorflow as tf
        return tf.constant(array.astype(object) if array.dtype.kind == "U" else array)

    def missing(self):
        """Exported classes that were in no model and have no reason, or one that does not hold. Cells and wrappers count where a layer holds one."""
        exported = {value for name in dir(self.K.layers) if isinstance(value := getattr(self.K.layers, name), type)}
        return sorted(kind.__name__ for kind in exported - self.met if not self.excused(kind, exported))

    def excused(self, kind, exported):
        if kind.__name__ in LEFT_OUT["base"]:
            return "NotImplementedError" in inspect.getsource(kind) or any(other is not kind and issubclass(other, kind) for other in exported)
        if kind.__name__ in LEFT_OUT["no layer"]:
            return not issubclass(kind, self.K.layers.Layer)
        said = next((error for name, error in self.refused.items() if name.split("-")[0] == kind.__name__), "")
        return kind.__name__ in LEFT_OUT["code"] or (kind.__name__ in LEFT_OUT[CYCLE] and CYCLE in said)


def layers_of(thing, seen=None):
    """A layer and all that hang on it, in lists and attributes."""
    seen = {} if seen is None else seen
    if isinstance(thing, (list, tuple, dict)):
        for each in thing.values() if isinstance(thing, dict) else thing:
            layers_of(each, seen)
    elif hasattr(thing, "get_config") and hasattr(thing, "call") and id(thing) not in seen:
        seen[id(thing)] = thing
        layers_of([value for key, value in vars(thing).items() if "parent" not in key], seen)
    return list(seen.values())


def leaves(outputs):
    """The tensors of a structure, one behind the other."""
    if isinstance(outputs, dict):
        outputs = [outputs[key] for key in sorted(outputs)]
    return [leaf for each in outputs for leaf in leaves(each)] if isinstance(outputs, (list, tuple)) else [outputs]


def stored(array):
    """An array as .npz can hold it: text as text, and bfloat16 as float32, which has all its numbers."""
    if array.dtype.name == "bfloat16":
        return array.astype("float32")
    if array.dtype.kind not in "OS":
        return array
    return np.char.decode(array.astype("S")) if isinstance(array.ravel()[0], bytes) else array.astype("U")


def feed(tensor, rng, name):
    """Made-up content of an input."""
    shape = [BATCH if axis == 0 else FREE if size is None else size for axis, size in enumerate(tensor.shape)]
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    if dtype == "string":
        return np.asarray(rng.choice(TEXTS if "TextV" in name else WORDS, shape))
    if dtype == "bool":
        return rng.random(shape) < 0.7
    if dtype.startswith(("int", "uint")) or name.startswith("Embedding"):
        return rng.integers(0, 200 if dtype == "uint8" else 4, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def randomise(model, rng):
    """Other numbers than zeros and ones in every variable of floats; variances are positive."""
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name
        if "float" not in str(weight.dtype) or "seed" in getattr(weight, "path", name):
            continue
        values = rng.random(shape) + 0.5 if "variance" in name else rng.standard_normal(shape) * 0.5
        if shape or any(word in name for word in ("mean", "count", "variance")):
            weight.assign(values.astype("float32"))


def single(K, rows):
    """Cases of one layer each, by class, place of the row and number of the setting."""
    from keras_models import functional

    def builder(kind, shapes, options):
        def call(*tensors):
            return getattr(K.layers, kind)(**options)(list(tensors) if len(tensors) > 1 else tensors[0])
        return lambda: functional(K, shapes, call)
    for place, (kind, shape, settings) in enumerate(rows):
        for number, options in enumerate(settings if hasattr(K.layers, kind) else ()):
            yield f"{kind}-{place}-{number}", builder(kind, shape if isinstance(shape, list) else [(shape, "float32")], options)


def channels_first(K, rows):
    """The same with the channels in front, each with its twin."""
    from keras_models import functional

    def builder(kind, shape, options):
        place = 1 if kind.startswith("ConvLSTM") else 0
        behind = (*shape[:place], *shape[place + 1:], shape[place])
        sides = ((shape, options), (behind, {**options, "data_format": "channels_last"}))
        return lambda: [functional(K, [(size, "float32")], getattr(K.layers, kind)(**settings)) for size, settings in sides]
    for place, (kind, shape, settings) in enumerate(rows):
        for number, options in enumerate(settings if hasattr(K.layers, kind) else ()):
            yield f"first-{kind}-{place}-{number}", builder(kind, shape, options)


def every(K):
    import keras_functions
    import keras_grid
    import keras_models
    yield from single(K, keras_grid.rows())
    yield from channels_first(K, keras_grid.channels_first_rows())
    yield from keras_models.composed(K)
    yield from keras_functions.operations(K) if K.__name__ == "keras" else keras_functions.raw(K)


def main():
    folder, library, pattern = sys.argv[1:]
    os.environ["TF_USE_LEGACY_KERAS"] = str(int(library == "tf_keras"))            # some of Keras 2 asks TensorFlow for Keras
    maker = Maker(importlib.import_module(library), folder)
    for name, build in every(maker.K):
        if any(fnmatch.fnmatch(name, each) for each in pattern.split(",")):
            maker.run(name, build)
    print(json.dumps({"missing": maker.missing()}))


if __name__ == "__main__":
    main()
