"""Runs inside the environment `tensorflow`: makes models of one layer each, saves them, and computes what Keras computes with them.

    python keras_cases.py FOLDER [keras|tf_keras] [PATTERN]

Every class that Keras exports has a row in `GRID` or a reason in `LEFT_OUT`; the program ends with an error where one has neither. A row is the inputs (shapes,
with a type where it is not float32) and settings; a setting that is a list of alternatives under `EACH` makes one case of each.
For each case it prints a line of JSON: name, file, whether it could be made; inputs and outputs lie in FOLDER/NAME.npz.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

BATCH = 3
VALID_SAME = ["valid", "same"]
BOTH = [True, False]
ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "swish", "hard_swish", "tanh", "tanh_shrink", "threshold"]
CONV = {"filters": 4, "kernel_size": [1, 3, 4], "strides": [1, 2], "padding": VALID_SAME, "use_bias": BOTH}
RNN = {"units": 4, "return_sequences": BOTH, "go_backwards": BOTH, "use_bias": BOTH}
ATTENTION = [{"query": (4, 6), "value": (5, 6)}]
IMAGE, SOUND, VOLUME = (8, 7, 3), (9, 4), (5, 6, 5, 2)


def grid(**settings):
    """Every combination of the alternatives."""
    names = list(settings)
    lists = [value if isinstance(value, list) else [value] for value in settings.values()]
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*lists)]


def conv_rows():
    for kind, shape in (("1D", SOUND), ("2D", IMAGE), ("3D", VOLUME)):
        yield (
            f"Conv{kind}",
            shape,
            grid(**CONV) + grid(filters=4, kernel_size=3, dilation_rate=2, padding=VALID_SAME) + grid(filters=4, kernel_size=2, activation=["relu", "softmax"]),
        )
        yield (
            f"Conv{kind}Transpose",
            shape,
            grid(**(CONV | {"strides": [1, 2, 3]}))
            + [dict(filters=2, kernel_size=3, strides=2, padding=p, output_padding=o) for p in VALID_SAME for o in (0, 1)],
        )
    yield "Conv1D", SOUND, grid(filters=4, kernel_size=[2, 3], padding="causal", dilation_rate=[1, 2]) + grid(filters=4, kernel_size=3, groups=[2, 4])
    yield "Conv2D", (8, 8, 4), grid(filters=8, kernel_size=[(3, 2), (1, 5)], strides=[(2, 1), (1, 2)], groups=[1, 2, 4], padding=VALID_SAME)
    yield (
        "Conv2DTranspose",
        IMAGE,
        grid(filters=2, kernel_size=[(3, 2)], strides=[(2, 1), (2, 3)], padding=VALID_SAME)
        + grid(filters=2, kernel_size=3, dilation_rate=2, padding=VALID_SAME),
    )
    yield "Conv1DTranspose", SOUND, grid(filters=2, kernel_size=3, dilation_rate=2, padding=VALID_SAME)
    for kind, shape in (("1D", SOUND), ("2D", IMAGE)):
        yield (
            f"DepthwiseConv{kind}",
            shape,
            grid(kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, depth_multiplier=[1, 2], use_bias=BOTH)
            + grid(kernel_size=3, dilation_rate=2, padding=VALID_SAME),
        )
        yield (
            f"SeparableConv{kind}",
            shape,
            grid(filters=5, kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, depth_multiplier=[1, 2])
            + grid(filters=5, kernel_size=3, dilation_rate=2, use_bias=False),
        )


def pooling_rows():
    for kind, shape in (("1D", SOUND), ("2D", IMAGE), ("3D", VOLUME)):
        for which in ("Max", "Average"):
            yield (
                f"{which}Pooling{kind}",
                shape,
                grid(pool_size=[2, 3], strides=[None, 1, 2], padding=VALID_SAME) + grid(pool_size=2, data_format="channels_first"),
            )
            yield f"Global{which}Pooling{kind}", shape, grid(keepdims=BOTH, data_format=["channels_last", "channels_first"])
            yield f"Adaptive{which}Pooling{kind}", shape, grid(output_size=[1, 2, 3]) + grid(output_size=2, data_format="channels_first")
    yield "AveragePooling2D", IMAGE, grid(pool_size=[(3, 2), (2, 3)], strides=[(2, 1)], padding=VALID_SAME)


def recurrent_rows():
    x = (5, 3)
    yield (
        "LSTM",
        x,
        grid(**RNN, activation=["tanh", "relu"])
        + grid(units=3, recurrent_activation=["hard_sigmoid", "relu"])
        + grid(units=3, activation="gelu", return_state=BOTH),
    )
    yield "LSTM", (5, 3), grid(units=3, return_state=True, return_sequences=BOTH) + grid(units=3, unroll=True) + grid(units=3, unit_forget_bias=False)
    yield (
        "GRU",
        x,
        grid(**RNN, reset_after=BOTH)
        + grid(units=3, recurrent_activation="hard_sigmoid", reset_after=BOTH)
        + grid(units=3, return_state=True, return_sequences=BOTH)
        + grid(units=3, activation="silu", reset_after=BOTH),
    )
    yield "SimpleRNN", x, grid(**RNN) + grid(units=3, activation=["relu", "softsign", "elu", "mish"]) + grid(units=3, return_state=True)
    for kind, shape in (("1D", (3, 6, 2)), ("2D", (3, 5, 6, 2)), ("3D", (2, 4, 3, 4, 2))):
        yield (
            f"ConvLSTM{kind}",
            shape,
            grid(filters=2, kernel_size=[2, 3], padding=VALID_SAME, return_sequences=BOTH)
            + grid(filters=2, kernel_size=3, strides=2, go_backwards=BOTH)
            + grid(filters=2, kernel_size=2, use_bias=False, recurrent_activation=["sigmoid"]),
        )


def simple_rows():
    yield "Dense", (5,), grid(units=4, use_bias=BOTH, activation=[None, *ACTIVATIONS])
    yield "Dense", (3, 5), grid(units=4, activation=[None, "softmax"])
    yield "Dense", (2, 3, 5), grid(units=4)
    yield "Activation", (4, 6), grid(activation=[name for name in ACTIVATIONS if name != "threshold"])
    yield (
        "EinsumDense",
        (4, 6),
        [dict(equation="abc,cd->abd", output_shape=(None, 5), bias_axes=b) for b in (None, "d")]
        + [dict(equation="abc,cde->abde", output_shape=(None, 2, 3), bias_axes=b) for b in ("de", "e", None)]
        + [dict(equation="...x,xy->...y", output_shape=5, bias_axes="y"), dict(equation="abc,bd->adc", output_shape=(3, 6), activation="relu")],
    )
    yield "ReLU", (4, 3), grid(max_value=[None, 1.0], negative_slope=[0.0, 0.2], threshold=[0.0, 0.3])
    yield "LeakyReLU", (4, 3), grid(negative_slope=[0.1, 0.3])
    yield "LeakyReLU", (4, 3), grid(alpha=[0.1])
    yield "ELU", (4, 3), grid(alpha=[1.0, 0.5])
    yield "PReLU", (4, 3), grid(shared_axes=[None, [1], [1, 2]])
    yield "PReLU", IMAGE, grid(shared_axes=[None, [1, 2]])
    yield "Softmax", (4, 3), grid(axis=[-1, 1, [1, 2]])
    yield "ThresholdedReLU", (4, 3), grid(theta=[1.0, 0.3])
    yield "Flatten", IMAGE, grid(data_format=["channels_last", "channels_first"])
    yield "Flatten", (), [{}]
    yield "Reshape", (4, 6), grid(target_shape=[(6, 4), (-1,), (2, -1), (24,), (2, 3, 4)])
    yield "Permute", (4, 6, 2), grid(dims=[(2, 1, 3), (3, 1, 2)])
    yield "RepeatVector", (4,), grid(n=[1, 3])
    yield "ZeroPadding1D", SOUND, grid(padding=[1, (1, 2)])
    yield "ZeroPadding2D", IMAGE, grid(padding=[1, (1, 2), ((1, 0), (2, 1))], data_format=["channels_last", "channels_first"])
    yield "ZeroPadding3D", VOLUME, grid(padding=[1, (1, 2, 0), ((1, 0), (2, 1), (0, 3))], data_format=["channels_last", "channels_first"])
    yield "Cropping1D", SOUND, grid(cropping=[1, (1, 2), (0, 2)])
    yield "Cropping2D", IMAGE, grid(cropping=[1, (1, 2), ((1, 0), (2, 1))])
    yield "Cropping2D", (3, 8, 7), grid(cropping=[1, ((1, 0), (2, 1))], data_format="channels_first")
    yield "Cropping3D", VOLUME, grid(cropping=[1, (1, 2, 0), ((1, 0), (2, 1), (0, 3))])
    yield "UpSampling1D", SOUND, grid(size=[2, 3])
    yield "UpSampling2D", IMAGE, grid(size=[2, (3, 2)], interpolation=["nearest", "bilinear", "bicubic"]) + grid(size=2, data_format="channels_first")
    yield "UpSampling3D", VOLUME, grid(size=[2, (1, 3, 2)], data_format=["channels_last", "channels_first"])
    for name in ("Dropout", "AlphaDropout", "GaussianDropout"):
        yield name, (4, 3), grid(rate=[0.3])
    yield "GaussianNoise", (4, 3), grid(stddev=[0.3])
    yield "SpatialDropout1D", SOUND, grid(rate=0.3)
    yield "SpatialDropout2D", IMAGE, grid(rate=0.3)
    yield "SpatialDropout3D", VOLUME, grid(rate=0.3)
    yield "ActivityRegularization", (4, 3), grid(l1=0.1)
    yield "Identity", (4, 3), [{}]
    yield "Masking", (4, 3), grid(mask_value=[0.0])
    yield "Embedding", [((5,), "int32")], grid(input_dim=7, output_dim=4, mask_zero=BOTH)
    yield "Embedding", [((5,), "float32")], grid(input_dim=7, output_dim=4)
    yield "ReversibleEmbedding", [((5,), "int32")], grid(input_dim=7, output_dim=4, tie_weights=BOTH)


def normalization_rows():
    yield "BatchNormalization", IMAGE, grid(axis=[-1, 1, 2], center=BOTH, scale=BOTH) + grid(epsilon=0.1)
    yield "BatchNormalization", (4,), grid(center=BOTH, scale=BOTH)
    yield "BatchNormalization", SOUND, grid(axis=[-1, 1])
    yield "LayerNormalization", IMAGE, grid(axis=[-1, 1, [1, 2], [2, 3], [1, 3]], center=BOTH, scale=BOTH)
    yield "LayerNormalization", (4,), grid(epsilon=[1e-3, 1e-6]) + grid(rms_scaling=True)
    yield "GroupNormalization", (6, 5, 8), grid(groups=[1, 2, 8, -1], center=BOTH, scale=BOTH)
    yield "GroupNormalization", (8, 5, 6), grid(groups=[2, 4], axis=1)
    yield "GroupNormalization", (5, 8), grid(groups=[2, 4])
    yield "RMSNormalization", IMAGE, grid(axis=[-1, 1, [2, 3]])
    yield "UnitNormalization", IMAGE, grid(axis=[-1, 1, [1, 2]])
    stated = dict(mean=[1.0, 2, 3, 4], variance=[2.0, 1, 0.5, 3])
    yield "Normalization", (4,), [stated | dict(invert=each) for each in BOTH] + [dict(axis=None, mean=2.0, variance=3.0)]


def image_rows():
    yield "Resizing", IMAGE, grid(height=[5, 16], width=[7, 9], interpolation=["nearest", "bilinear",
                                                                               "bicubic"])
    yield "Resizing", IMAGE, grid(height=6, width=3, crop_to_aspect_ratio=True) + grid(height=6, width=3, pad_to_aspect_ratio=True)
    yield "Resizing", (3, 8, 7), grid(height=5, width=9, data_format="channels_first")
    yield "Rescaling", IMAGE, [dict(scale=1 / 255.0), dict(scale=2.0, offset=-1.0), dict(scale=[0.5, 1.0, 2.0], offset=[1.0, 2.0, 3.0])]
    yield "Rescaling", [(IMAGE, "uint8")], [dict(scale=1 / 255.0)]
    yield "CenterCrop", IMAGE, grid(height=[4, 5], width=[3, 4]) + grid(height=10, width=10)
    yield "RandomCrop", IMAGE, grid(height=5, width=4)
    for name in RANDOM:
        yield name, IMAGE, [RANDOM[name]]


RANDOM = {
    "RandomBrightness": dict(factor=0.2),
    "RandomContrast": dict(factor=0.2),
    "RandomFlip": {},
    "RandomRotation": dict(factor=0.2),
    "RandomTranslation": dict(height_factor=0.2, width_factor=0.2),
    "RandomZoom": dict(height_factor=0.2),
    "RandomShear": dict(x_factor=0.2),
    "RandomHue": dict(factor=0.2),
    "RandomSaturation": dict(factor=0.2),
    "RandomSharpness": dict(factor=0.2),
    "RandomGrayscale": dict(factor=0.2),
    "RandomPosterization": dict(factor=3),
    "RandomColorDegeneration": dict(factor=0.2),
    "RandomColorJitter": dict(brightness_factor=0.2),
    "RandomInvert": {},
    "RandomErasing": {},
    "RandomGaussianBlur": {},
    "RandomPerspective": {},
    "RandomElasticTransform": {},
    "AugMix": {},
    "RandAugment": {},
    "CutMix": {},
    "MixUp": {},
}


def merging_rows():
    pair = [((4, 3), "float32"), ((4, 3), "float32")]
    for name in ("Add", "Multiply", "Average", "Maximum", "Minimum"):
        yield name, pair, [{}]
        yield name, [*pair, ((1, 3), "float32")], [{}]
    yield "Subtract", pair, [{}]
    yield "Concatenate", pair, grid(axis=[-1, 1, 2])
    yield "Dot", pair, grid(axes=[1, 2, -1], normalize=BOTH)
    yield "Dot", [((4, 3), "float32"), ((3, 5), "float32")], grid(axes=[(2, 1)])
    yield "Dot", [((4,), "float32"), ((4,), "float32")], grid(axes=1, normalize=BOTH)


def attention_rows():
    two, three = [((4, 6), "float32"), ((5, 6), "float32")], [((4, 6), "float32"), ((5, 6), "float32"), ((5, 6), "float32")]
    yield "Attention", two, grid(use_scale=BOTH, score_mode=["dot", "concat"])
    yield "Attention", three, [{}]
    yield "AdditiveAttention", two, grid(use_scale=BOTH)
    yield "AdditiveAttention", three, [{}]


def preprocessing_rows():
    yield "CategoryEncoding", [((4,), "int32")], grid(num_tokens=6, output_mode=["multi_hot", "count"])
    yield "CategoryEncoding", [((1,), "int32")], grid(num_tokens=6, output_mode=["one_hot"])
    yield (
        "Discretization",
        (4,),
        grid(bin_boundaries=[[-1.0, 0.0, 0.5]], output_mode=["int", "multi_hot", "count"])
        if False
        else [dict(bin_boundaries=[-1.0, 0.0, 0.5], output_mode=m) for m in ("int", "multi_hot", "count", "one_hot")],
    )
    yield (
        "IntegerLookup",
        [((4,), "int64")],
        [
            dict(vocabulary=[1, 3, 4], output_mode=m, **o)
            for m in ("int", "multi_hot", "count")
            for o in ({}, dict(mask_token=0), dict(num_oov_indices=2), dict(oov_token=-5))
        ]
        + [dict(vocabulary=[1, 3, 4], invert=True)],
    )
    yield (
        "StringLookup",
        [((4,), "string")],
        [dict(vocabulary=["a", "b", "dog"], output_mode=m, **o) for m in ("int", "multi_hot", "count") for o in ({}, dict(mask_token=""), dict(oov_token="?"))],
    )
    yield "StringLookup", [((4,), "int64")], [dict(vocabulary=["a", "b", "dog"], invert=True)]
    yield "StringLookup", [((4,), "string")], [dict(vocabulary=["a", "b", "dog"], output_mode="tf_idf", idf_weights=[0.5, 1.0, 2.0])]
    yield (
        "TextVectorization",
        [((1,), "string")],
        [
            dict(vocabulary=["a", "b", "dog"], output_mode=m, **o)
            for m in ("int", "multi_hot", "count")
            for o in ({}, dict(standardize=None), dict(standardize="lower"), dict(standardize="strip_punctuation"), dict(max_tokens=10))
        ]
        + [
            dict(vocabulary=["a", "b", "dog"], output_sequence_length=6),
            dict(vocabulary=["a", "b", "a b"], ngrams=2),
            dict(vocabulary=["a", "b", "dog"], split="character", standardize=None),
            dict(vocabulary=["a", "b"], output_mode="tf_idf", idf_weights=[0.5, 1.0]),
        ],
    )
    yield "Hashing", [((4,), "int64")], [dict(num_bins=5), dict(num_bins=5, salt=3)]
    yield "Hashing", [((4,), "string")], [dict(num_bins=5)]
    yield "HashedCrossing", [((1,), "int64"), ((1,), "int64")], [dict(num_bins=5)]
    yield "STFTSpectrogram", (300, 1), grid(mode=["log", "magnitude", "psd", "real", "imag", "angle", "stft"], frame_length=64, frame_step=32, fft_length=64)
    yield "MelSpectrogram", (3000,), grid(fft_length=256, sequence_stride=128, num_mel_bins=20)


def old_rows():
    yield "LocallyConnected1D", SOUND, grid(filters=4, kernel_size=[1, 3], strides=[1, 2], use_bias=BOTH, activation="relu")
    yield "LocallyConnected2D", IMAGE, grid(filters=4, kernel_size=[1, 3], strides=[1, 2], use_bias=BOTH)
    yield "RandomHeight", IMAGE, [dict(factor=0.2)]
    yield "RandomWidth", IMAGE, [dict(factor=0.2)]


def rows():
    for make in (
        simple_rows, conv_rows, pooling_rows, normalization_rows, recurrent_rows, image_rows, merging_rows, attention_rows, preprocessing_rows, old_rows):
        yield from make()


# Classes without a case of their own, each with the reason.
LEFT_OUT = {
    "Layer": "the base class", "Wrapper": "the base class of wrappers", "InputLayer": "in every model", "InputSpec": "no layer", "Lambda": "code, never run",
    "RNN": "in `COMPOSED`", "LSTMCell": "in `COMPOSED`", "GRUCell": "in `COMPOSED`", "SimpleRNNCell": "in `COMPOSED`", "StackedRNNCells": "in `COMPOSED`",
    "Bidirectional": "in `COMPOSED`", "TimeDistributed": "in `COMPOSED`", "SpectralNormalization": "in `COMPOSED`", "MultiHeadAttention": "in `COMPOSED`",
    "GroupedQueryAttention": "in `COMPOSED`", "Pipeline": "in `COMPOSED`", "TernaryDense": "in `COMPOSED`", "TFSMLayer": "names a SavedModel outside the file",
    "TorchModuleWrapper": "a pickle of PyTorch", "JaxLayer": "code of JAX", "FlaxLayer": "code of JAX",
    "MaxNumBoundingBoxes": "takes a dictionary of boxes, which no graph has", "FeatureSpace": "no layer",
    "AutoContrast": "acts on pictures at training time only, by default", "Equalization": "needs sorted histograms of pictures",
    "ContrastLimitedAdaptiveHistogramEqualization": "needs histograms of pictures", "Solarization": "random factors", "AbstractRNNCell": "a base class",
    "DenseFeatures": "takes feature columns, which are code", "experimental": "a module"}


def composed(K, L):
    """Models of several layers: wrappers, cells, masks, shared layers, nested models, operations. (name, function that makes it)"""

    def functional(shapes, function, **names):
        inputs = [L.Input(shape, dtype=dtype) for shape, dtype in shapes]
        outputs = function(*inputs)
        return K.Model(inputs if len(inputs) > 1 else inputs[0], outputs)

    def adapted(layer, data):
        layer.adapt(np.asarray(data))
        return layer

    f = "float32"
    seq, ints, img = [((5, 4), f)], [((6,), "int32")], [((8, 7, 3), f)]
    for mode in ("concat", "sum", "mul", "ave", None):
        for sequences in BOTH:
            for kind in ("LSTM", "GRU", "SimpleRNN"):
                yield (
                    f"Bidirectional-{kind}-{mode}-{sequences}",
                    lambda kind=kind, mode=mode, sequences=sequences: functional(
                        seq, lambda x: L.Bidirectional(getattr(L, kind)(3, return_sequences=sequences), merge_mode=mode)(x)
                    ),
                )
    for case, dtype, make, data in (
        ("words", "string", L.StringLookup, ["dog", "a", "a"]),
        ("numbers", "int64", L.IntegerLookup, [1, 3, 3]),
        ("text", "string", L.TextVectorization, ["a b dog", "The dog"]),
        ("bins", f, lambda: L.Discretization(num_bins=4), np.linspace(-1, 1, 40)),
        ("normalization", f, L.Normalization, np.linspace(-1, 4, 40).reshape(10, 4)),
    ):
        yield f"adapted-{case}", lambda dtype=dtype, make=make, data=data: functional(
            [((1 if make is L.TextVectorization else 4,), dtype)], lambda x: adapted(make(), data)(x)
        )
    yield "Bidirectional-state", lambda: functional(seq, lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True, return_state=True))(x))
    yield (
        "Bidirectional-backward-layer",
        lambda: functional(
            seq,
            lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True), backward_layer=L.LSTM(3, activation="relu", return_sequences=True, go_backwards=True))(
                x
            ),
        ),
    )
    for sequences in BOTH:
        for kind in ("LSTM", "GRU", "SimpleRNN"):
            yield (
                f"masked-{kind}-{sequences}",
                lambda kind=kind, sequences=sequences: functional(
                    ints, lambda x: getattr(L, kind)(3, return_sequences=sequences)(L.Embedding(4, 5, mask_zero=True)(x))
                ),
            )
            yield (
                f"masked-backwards-{kind}-{sequences}",
                lambda kind=kind, sequences=sequences: functional(
                    ints, lambda x: getattr(L, kind)(3, return_sequences=sequences, go_backwards=True)(L.Embedding(4, 5, mask_zero=True)(x))
                ),
            )
            yield (
                f"masked-bidirectional-{kind}-{sequences}",
                lambda kind=kind, sequences=sequences: functional(
                    ints, lambda x: L.Bidirectional(getattr(L, kind)(3, return_sequences=sequences))(L.Embedding(4, 5, mask_zero=True)(x))
                ),
            )
    yield (
        "masked-stack",
        lambda: functional(ints, lambda x: L.Dense(3)(L.LSTM(3)(L.Dropout(0.2)(L.GRU(4, return_sequences=True)(L.Embedding(4, 5, mask_zero=True)(x)))))),
    )
    yield "masked-average", lambda: functional(ints, lambda x: L.GlobalAveragePooling1D()(L.Embedding(4, 5, mask_zero=True)(x)))
    yield "masking-lstm", lambda: functional(seq, lambda x: L.LSTM(3)(L.Masking(0.0)(L.ReLU()(x))))
    yield "masked-concatenate", lambda: functional(ints, lambda x: L.LSTM(3)(L.Concatenate()([L.Embedding(4, 5, mask_zero=True)(x), L.Embedding(4, 2)(x)])))
    yield "masked-add", lambda: functional(ints, lambda x: L.LSTM(3)(L.Add()([L.Embedding(4, 5, mask_zero=True)(x), L.Embedding(4, 5)(x)])))
    yield "masked-softmax", lambda: functional(ints, lambda x: L.Softmax(axis=1)(L.Dense(1)(L.Embedding(4, 5)(x))))
    yield "masked-time-distributed", lambda: functional(ints, lambda x: L.LSTM(3)(L.TimeDistributed(L.Dense(4))(L.Embedding(4, 5, mask_zero=True)(x))))
    yield "masked-attention", lambda: functional(ints, lambda x: L.Attention()([L.Embedding(4, 5, mask_zero=True)(x)] * 2))
    yield "masked-heads", lambda: functional(ints, lambda x: (lambda e: L.MultiHeadAttention(2, 3)(e, e))(L.Embedding(4, 5, mask_zero=True)(x)))
    yield "masked-heads-causal", lambda: functional(
        ints, lambda x: (lambda e: L.MultiHeadAttention(2, 3)(e, e, use_causal_mask=True))(L.Embedding(4, 5, mask_zero=True)(x)))
    yield "masked-heads-two", lambda: functional(
        [*ints, *ints], lambda x, y: L.MultiHeadAttention(2, 3)(L.Embedding(4, 5, mask_zero=True)(x), L.Embedding(4, 5, mask_zero=True)(y)))
    yield "masked-heads-values", lambda: functional(
        [*ints, *ints], lambda x, y: L.MultiHeadAttention(2, 3)(L.Embedding(4, 5)(x), L.Embedding(4, 5, mask_zero=True)(y)))
    yield "initial-state", lambda: functional([*seq, ((3,), f), ((3,), f)], lambda x, h, c: L.LSTM(3)(x, initial_state=[h, c]))
    yield (
        "encoder-decoder",
        lambda: functional([*seq, *seq], lambda x, y: L.LSTM(3, return_sequences=True)(y, initial_state=L.LSTM(3, return_state=True)(x)[1:])),
    )
    yield "initial-state-gru", lambda: functional([*seq, ((3,), f)], lambda x, h: L.GRU(3, return_sequences=True)(x, initial_state=h))
    for name, cell in (
        ("lstm", lambda: L.LSTMCell(3)),
        ("gru", lambda: L.GRUCell(3)),
        ("simple", lambda: L.SimpleRNNCell(3)),
        ("stack", lambda: [L.LSTMCell(3), L.GRUCell(4)]),
        ("deep", lambda: L.StackedRNNCells([L.LSTMCell(3), L.LSTMCell(2)])),
    ):
        for sequences in BOTH:
            yield f"RNN-{name}-{sequences}", lambda cell=cell, sequences=sequences: functional(seq, lambda x: L.RNN(cell(), return_sequences=sequences)(x))
        yield f"RNN-{name}-masked", lambda cell=cell: functional(ints, lambda x: L.RNN(cell(), return_sequences=True)(L.Embedding(4, 5, mask_zero=True)(x)))
        yield f"RNN-{name}-state", lambda cell=cell: functional(seq, lambda x: L.RNN(cell(), return_state=True)(x)[0])
    yield "TimeDistributed-dense", lambda: functional(seq, lambda x: L.TimeDistributed(L.Dense(3, activation="relu"))(x))
    yield "TimeDistributed-conv", lambda: functional([((4, 6, 7, 2), f)], lambda x: L.TimeDistributed(L.Conv2D(3, 3, padding="same"))(x))
    yield (
        "TimeDistributed-model",
        lambda: functional(
            [((4, 6, 7, 2), f)],
            lambda x: L.TimeDistributed(K.Sequential([L.Input((6, 7, 2)), L.Conv2D(3, 3), L.BatchNormalization(), L.GlobalMaxPooling2D()]))(x),
        ),
    )
    yield "TimeDistributed-lstm", lambda: functional([((4, 5, 3), f)], lambda x: L.TimeDistributed(L.LSTM(3))(x))
    yield "SpectralNormalization", lambda: functional(img, lambda x: L.SpectralNormalization(L.Conv2D(3, 3))(x))
    yield "SpectralNormalization-dense", lambda: functional([((5,), f)], lambda x: L.SpectralNormalization(L.Dense(3))(x))
    for scores in BOTH:
        for bias in BOTH:
            yield (
                f"MultiHeadAttention-{scores}-{bias}",
                lambda scores=scores, bias=bias: functional(
                    [((4, 6), f), ((5, 6), f)], lambda q, v: L.MultiHeadAttention(2, 3, value_dim=4, use_bias=bias)(q, v, return_attention_scores=scores)
                ),
            )
    yield "MultiHeadAttention-causal", lambda: functional(seq, lambda x: L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))
    yield (
        "MultiHeadAttention-key",
        lambda: functional([((4, 6), f), ((5, 6), f), ((5, 7), f)], lambda q, v, k: L.MultiHeadAttention(2, 3, output_shape=5)(q, v, k)),
    )
    yield "MultiHeadAttention-mask", lambda: functional([((4, 6), f), ((4, 4), "bool")], lambda q, m: L.MultiHeadAttention(2, 3)(q, q, attention_mask=m))
    yield "MultiHeadAttention-mask-causal", lambda: functional(
        [((4, 6), f), ((4, 4), "bool")], lambda q, m: L.MultiHeadAttention(2, 3)(q, q, attention_mask=m, use_causal_mask=True))
    yield "MultiHeadAttention-mask-heads", lambda: functional(
        [((4, 6), f), ((1, 4, 4), "bool")], lambda q, m: L.MultiHeadAttention(2, 3)(q, q, attention_mask=m))
    yield "MultiHeadAttention-causal-dynamic", lambda: functional([((None, 6), f)], lambda x: L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))
    yield "MultiHeadAttention-mask-known", lambda: functional([((4, 6), f)], lambda x: L.MultiHeadAttention(2, 3)(x, x, attention_mask=np.eye(4, dtype=bool)))
    yield "MultiHeadAttention-one", lambda: functional([((4, 6), f), ((5, 6), f)], lambda q, v: L.MultiHeadAttention(1, 3)(q, v))
    yield "MultiHeadAttention-axes", lambda: functional([((3, 4, 6), f)], lambda x: L.MultiHeadAttention(2, 3, attention_axes=(2,))(x, x))
    yield "MultiHeadAttention-two-axes", lambda: functional([((3, 4, 6), f)], lambda x: L.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x))
    yield "Attention-causal", lambda: functional(seq, lambda x: L.Attention()([x, x], use_causal_mask=True))
    yield "Attention-scores", lambda: functional(seq, lambda x: L.Attention()([x, x], return_attention_scores=True))
    if hasattr(L, "GroupQueryAttention"):
        for bias in BOTH:
            yield (
                f"GroupedQueryAttention-{bias}",
                lambda bias=bias: functional([((4, 6), f), ((5, 6), f)], lambda q, v: L.GroupQueryAttention(3, 4, 2, use_bias=bias)(q, v)),
            )
        yield (
            "GroupedQueryAttention-causal",
            lambda: functional(seq, lambda x: L.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True, return_attention_scores=True)),
        )
        yield "GroupedQueryAttention-causal-alone", lambda: functional(seq, lambda x: L.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True))
        yield "GroupedQueryAttention-mask", lambda: functional(
            [((4, 6), f), ((4, 4), "bool")], lambda x, m: L.GroupQueryAttention(3, 4, 2)(x, x, attention_mask=m, use_causal_mask=True))
        yield "GroupedQueryAttention-masked", lambda: functional(
            ints, lambda x: (lambda e: L.GroupQueryAttention(3, 4, 1)(e, e))(L.Embedding(4, 5, mask_zero=True)(x)))
        yield "Pipeline", lambda: functional(img, lambda x: L.Pipeline([L.Rescaling(0.5), L.CenterCrop(5, 5)])(x))
    yield "shared", lambda: functional([((4,), f), ((4,), f)], lambda a, b: (lambda d: L.Concatenate()([d(a), d(b), d(d(a))]))(L.Dense(4)))
    yield "nested", lambda: functional([((4,), f)], lambda x: K.Sequential([L.Input((4,)), L.Dense(3), K.Sequential([L.Input((3,)), L.Dense(5, "relu")])])(x))
    yield (
        "nested-functional",
        lambda: functional(
            [((4,), f), ((4,), f)],
            lambda a, b: (lambda m: L.Add()([m([a, b]), m([b, a])]))(
                functional([((4,), f), ((4,), f)], lambda a, b: L.Subtract()([L.Dense(3)(a), L.Dense(3)(b)]))
            ),
        ),
    )
    yield (
        "nested-batch-norm",
        lambda: functional(
            img,
            lambda x: L.Dense(2)(
                K.Sequential([L.Input((8, 7, 3)), L.Conv2D(3, 3), L.BatchNormalization(), L.Conv2D(2, 3), L.BatchNormalization(), L.Flatten()])(x)
            ),
        ),
    )

    def frozen():
        inner = K.Sequential([L.Input((8, 7, 3)), L.Conv2D(3, 3), L.BatchNormalization(), L.Conv2D(2, 3), L.BatchNormalization(), L.Flatten()])
        inner.layers[0].trainable = False
        inner.layers[3].trainable = False
        return functional(img, lambda x: L.Dense(2)(inner(x)))

    yield "nested-frozen", frozen
    yield "two-outputs", lambda: functional([((4,), f)], lambda x: [L.Dense(3)(x), L.Dense(2)(L.Dense(3)(x))])
    yield (
        "sequential",
        lambda: K.Sequential(
            [
                L.Input((8, 7, 3)),
                L.Conv2D(4, 3, padding="same", activation="relu"),
                L.MaxPooling2D(),
                L.BatchNormalization(),
                L.Flatten(),
                L.Dense(5, activation="softmax"),
            ]
        ),
    )
    yield "output-is-input", lambda: functional([((4,), f)], lambda x: [x, L.Dense(2)(x)])
    yield "dynamic-size", lambda: functional([((None, None, 3), f)], lambda x: L.GlobalAveragePooling2D()(L.Conv2D(4, 3, strides=2, padding="same")(x)))
    yield "dynamic-length", lambda: functional([((None, 3), f)], lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True))(x))
    yield (
        "residual",
        lambda: functional(img, lambda x: (lambda y: L.Add()([y, L.Conv2D(4, 3, padding="same")(L.ReLU()(y))]))(L.Conv2D(4, 3, padding="same")(x))),
    )
    if K.__name__ == "keras":
        for dtype in ("mixed_float16", "float16", "bfloat16", "float64", "mixed_bfloat16"):
            yield (
                f"policy-{dtype}",
                lambda dtype=dtype: functional(img, lambda x: L.Dense(3, dtype=dtype)(L.Flatten(dtype=dtype)(L.Conv2D(4, 3, dtype=dtype)(x)))),
            )


def quantized(K, L):
    """Layers whose weights Keras 3 has made integers of."""
    for mode in ("int8", "int4"):
        def build(mode=mode):
            words = L.Input((6,), dtype="int32")
            model = K.Model(words, L.Dense(5)(L.Dense(12, activation="relu")(L.Embedding(10, 8)(words))))
            rng = np.random.default_rng(1)
            for weight in model.weights:
                weight.assign(rng.standard_normal(weight.shape))
            model.quantize(mode)
            return model
        yield f"quantized-{mode}", build


def operations(K, L):
    """Keras operations inside functional models."""
    from keras import ops

    f = "float32"

    def functional(shapes, function):
        inputs = [L.Input(shape, dtype=dtype) for shape, dtype in shapes]
        return K.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))

    one, two = [((4, 6), f)], [((4, 6), f), ((4, 6), f)]
    unary = [
        "abs", "absolute", "fabs", "ceil", "floor", "round", "trunc", "exp", "exp2", "expm1", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsinh",
        "arctan", "square", "negative", "sign", "sigmoid", "relu", "relu6", "silu", "softplus", "softsign", "log_sigmoid", "hard_sigmoid", "hard_silu",
        "hard_tanh", "elu", "selu", "gelu", "celu", "glu", "leaky_relu", "tanh_shrink", "soft_shrink", "hard_shrink", "sparse_plus", "sparse_sigmoid",
        "squareplus", "erf", "erfc", "isfinite", "isnan", "isinf", "logical_not", "reciprocal", "deg2rad", "rad2deg", "sinc", "signbit", "conj", "real",
        "copy", "ones_like", "zeros_like", "ravel", "cbrt", "nan_to_num", "isreal", "isposinf", "isneginf", "log_softmax", "softmax", "identity",
        "stop_gradient"]
    for name in unary:
        if hasattr(ops, name) and name not in ("identity",):
            yield f"op-{name}", lambda name=name: functional(one, lambda x: getattr(ops, name)(x))
    for name in ("log", "log2", "log10", "sqrt", "rsqrt", "arccosh"):
        yield f"op-{name}", lambda name=name: functional(one, lambda x: getattr(ops, name)(ops.add(ops.square(x), 1.25)))
    for name in ("arcsin", "arccos", "arctanh"):
        yield f"op-{name}", lambda name=name: functional(one, lambda x: getattr(ops, name)(ops.multiply(ops.tanh(x), 0.9)))
    for name in [
        "add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "fmax", "fmin", "power", "mod", "floor_divide", "arctan2", "equal",
        "not_equal", "greater", "greater_equal", "less", "less_equal", "logaddexp", "logaddexp2", "hypot", "divide_no_nan", "outer", "heaviside", "fmod",
        "logical_and", "logical_or", "logical_xor", "vdot", "inner"]:
        if not hasattr(ops, name):
            continue
        yield f"op2-{name}", lambda name=name: functional(two, lambda a, b: getattr(ops, name)(ops.abs(a) if name == "power" else a, b))
        if name not in ("outer", "vdot", "inner"):
            yield f"op2-{name}-number", lambda name=name: functional(one, lambda a: getattr(ops, name)(ops.abs(a) if name == "power" else a, 2.0))
    for name in [
        "sum", "mean", "max", "min", "amax", "amin", "prod", "std", "var", "any", "all", "argmax", "argmin", "logsumexp", "count_nonzero", "median", "ptp",
        "nansum", "nanmean", "nanmax", "nanmin", "nanprod", "nanstd", "nanvar"]:
        if not hasattr(ops, name):
            continue
        for axis in (None, -1, 1):
            yield f"reduce-{name}-{axis}", lambda name=name, axis=axis: functional(one, lambda x: getattr(ops, name)(x, axis=axis))
    for axis in (None, 1, -1):
        yield f"cumsum-{axis}", lambda axis=axis: functional(one, lambda x: ops.cumsum(x, axis=axis))
        yield f"flip-{axis}", lambda axis=axis: functional(one, lambda x: ops.flip(x, axis=axis))
        yield f"roll-{axis}", lambda axis=axis: functional(one, lambda x: ops.roll(x, 2, axis=axis))
        yield f"repeat-{axis}", lambda axis=axis: functional(one, lambda x: ops.repeat(x, 2, axis=axis))
    table = {
        "reshape": lambda x: ops.reshape(x, (-1, 24)),
        "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
        "expand": lambda x: ops.expand_dims(x, 1),
        "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
        "concatenate": lambda x: ops.concatenate([x, x], axis=1),
        "stack": lambda x: ops.stack([x, x], axis=1),
        "split": lambda x: ops.split(x, 2, axis=1)[1],
        "split-at": lambda x: ops.split(x, [1, 3], axis=2)[1],
        "take": lambda x: ops.take(x, [1, 0, -1], axis=1),
        "take-none": lambda x: ops.take(x, [1, 0]),
        "tile": lambda x: ops.tile(x, (1, 2, 1)),
        "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1))),
        "pad-reflect": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect"),
        "pad-symmetric": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="symmetric"),
        "pad-value": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0),
        "where": lambda x: ops.where(x > 0, x, 0.5 * x),
        "clip": lambda x: ops.clip(x, -0.5, 0.7),
        "cast": lambda x: ops.cast(x, "int32"),
        "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        "einsum": lambda x: ops.einsum("abc,adc->abd", x, x),
        "swapaxes": lambda x: ops.swapaxes(x, 1, 2),
        "moveaxis": lambda x: ops.moveaxis(x, 1, 2),
        "sort": lambda x: ops.sort(x, axis=1),
        "argsort": lambda x: ops.argsort(x, axis=1),
        "top_k": lambda x: ops.top_k(x, 2),
        "one_hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 6),
        "tril": lambda x: ops.tril(x),
        "triu": lambda x: ops.triu(x, k=1),
        "slice": lambda x: x[:, 1:3, ::2],
        "slice-int": lambda x: x[:, 1],
        "slice-negative": lambda x: x[:, -1, ..., 2:],
        "slice-new": lambda x: x[:, None, 1:],
        "slice-step": lambda x: x[:, ::-1],
        "unstack": lambda x: ops.unstack(x, axis=1)[2],
        "meshgrid": lambda x: ops.meshgrid(x[0, 0], x[0, 1])[0],
        "moments": lambda x: ops.moments(x, axes=[1]),
        "diff": lambda x: ops.diff(x),
        "dot": lambda x: ops.dot(x, ops.ones((6, 3))),
        "cumprod": lambda x: ops.cumprod(x, axis=1),
        "tensordot": lambda x: ops.tensordot(x, ops.ones((6, 3)), axes=1),
        "broadcast": lambda x: ops.broadcast_to(x[:, :1], (BATCH, 4, 6)),
        "take_along": lambda x: ops.take_along_axis(x, ops.cast(ops.zeros((BATCH, 1, 6)), "int32"), axis=1),
        "norm": lambda x: ops.norm(x, axis=-1),
        "normalize": lambda x: ops.normalize(x, axis=-1),
        "average": lambda x: ops.average(x, axis=1),
        "hstack": lambda x: ops.hstack([x, x]),
        "vstack": lambda x: ops.vstack([x, x]),
        "full_like": lambda x: ops.full_like(x, 2.0),
        "digitize": lambda x: ops.digitize(x, ops.convert_to_tensor([-1.0, 0.0, 1.0])),
        "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
        "softmax-all": lambda x: ops.softmax(x, axis=(1, 2)),
        "multi_hot": lambda x: ops.multi_hot(ops.argmax(x, axis=-1), 6),
        "linspace": lambda x: x + ops.linspace(0.0, 1.0, 6),
        "isclose": lambda x: ops.isclose(x, ops.abs(x)),
        "extract_sequences": lambda x: ops.extract_sequences(x, 3, 2),
        "layer_norm": lambda x: ops.layer_normalization(x),
        "rms_norm": lambda x: ops.rms_normalization(x),
        "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
        "trace": lambda x: ops.trace(x, axis1=1, axis2=2),
        "searchsorted": lambda x: ops.searchsorted(ops.convert_to_tensor([-1.0, 0.0, 1.0]), ops.reshape(x, (-1,))),
        "fft": lambda x: ops.rfft(x)[0],
        "view": lambda x: x + ops.cast(ops.shape(x)[1], "float32"),
        "logical": lambda x: ops.logical_and(x > 0, x < 1),
        "sparsemax": lambda x: ops.sparsemax(x),
        "threshold": lambda x: ops.threshold(x, 0.2, -1.0),
        "dot_product": lambda x: ops.dot_product_attention(*[ops.reshape(x, (-1, 4, 2, 3))] * 3),
        "quantile": lambda x: ops.quantile(x, 0.5, axis=1),
        "array_split": lambda x: ops.array_split(x, 2, axis=1)[0],
        "scatter": lambda x: ops.scatter_update(x, [[0, 1, 2]], [5.0]),
        "slice-op": lambda x: ops.slice(x, (0, 1, 2), (BATCH, 2, 3)),
        "slice_update": lambda x: ops.slice_update(x, (0, 1, 2), ops.ones((1, 2, 2))),
        "cross": lambda x: ops.cross(x[..., :3], x[..., 3:]),
        "operators": lambda x: -(((x + 1) * 2 - x / 3) ** 2) % 3 // 0.7,
        "compare": lambda x: ops.cast((x > 0.1) & (x != 2), f),
        "bitwise": lambda x: ops.bitwise_and(ops.cast(x * 10, "int32"), 3),
        "bitshift": lambda x: ops.right_shift(ops.cast(ops.abs(x) * 10, "int32"), 1),
        "inv": lambda x: ops.inv(ops.matmul(x, ops.transpose(x, (0, 2, 1))) + ops.eye(4)),
        "det": lambda x: ops.det(ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
        "rearrange": lambda x: ops.rearrange(x, "b (h p) c -> b h (p c)", p=2),
        "unique": lambda x: ops.nonzero(x > 0)[0],
        "add-shape": lambda x: ops.reshape(x, (ops.shape(x)[0], 2, 12)),
    }
    for name, function in table.items():
        yield f"ops-{name}", lambda function=function: functional(one, function)
    pictures = [((8, 6, 4), f)]
    for name, function in {
        "conv": lambda x: ops.conv(x, ops.ones((3, 3, 4, 2)), padding="same", strides=2),
        "depthwise": lambda x: ops.depthwise_conv(x, ops.ones((3, 3, 4, 1))),
        "separable": lambda x: ops.separable_conv(x, ops.ones((3, 3, 4, 1)), ops.ones((1, 1, 4, 2))),
        "transpose": lambda x: ops.conv_transpose(x, ops.ones((3, 3, 2, 4)), 2),
        "max": lambda x: ops.max_pool(x, 2, padding="same"),
        "average": lambda x: ops.average_pool(x, 2),
        "resize": lambda x: ops.image.resize(x, (5, 9)),
        "gray": lambda x: ops.image.rgb_to_grayscale(x[..., :3]),
        "patches": lambda x: ops.image.extract_patches(x, (2, 2)),
        "crop": lambda x: ops.image.crop_images(x, 1, 1, 1, 2),
        "pad": lambda x: ops.image.pad_images(x, 1, 2, 1, 2),
        "depth_to_space": lambda x: ops.depth_to_space(x, 2),
        "space_to_depth": lambda x: ops.space_to_depth(x, 2),
        "batch_norm": lambda x: ops.batch_normalization(x, ops.ones(4), ops.ones(4) * 2, -1),
        "hsv": lambda x: ops.image.rgb_to_hsv(ops.sigmoid(x[..., :3])),
        "adaptive": lambda x: ops.adaptive_average_pool(x, 3),
        "adaptive-max": lambda x: ops.adaptive_max_pool(x, 3),
        "unfold": lambda x: ops.unfold(x, 2),
        "blur": lambda x: ops.image.gaussian_blur(x, (3, 3), (1.0, 1.0)),
        "sobel": lambda x: ops.image.sobel_edges(x),
    }.items():
        yield f"picture-{name}", lambda function=function: functional(pictures, function)


def raw(K, L):
    """Raw TensorFlow functions in models of Keras 2."""
    import tensorflow as tf

    def functional(shapes, function):
        inputs = [L.Input(shape) for shape in shapes]
        return K.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))

    table = {
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "leaky": lambda x: tf.nn.leaky_relu(x, 0.3),
        "elu": tf.nn.elu,
        "selu": tf.nn.selu,
        "gelu": tf.nn.gelu,
        "swish": tf.nn.swish,
        "softmax": tf.nn.softmax,
        "softmax-axis": lambda x: tf.nn.softmax(x, axis=1),
        "log_softmax": tf.nn.log_softmax,
        "sigmoid": tf.sigmoid,
        "tanh": tf.tanh,
        "softplus": tf.nn.softplus,
        "exp": tf.exp,
        "log": lambda x: tf.math.log(tf.abs(x) + 1.0),
        "sqrt": lambda x: tf.sqrt(tf.abs(x)),
        "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 1.0),
        "square": tf.square,
        "abs": tf.abs,
        "neg": lambda x: -x,
        "floor": tf.floor,
        "ceil": tf.math.ceil,
        "round": tf.round,
        "sign": tf.sign,
        "sin": tf.sin,
        "cos": tf.cos,
        "add": lambda x: x + 1.5,
        "radd": lambda x: 1.5 + x,
        "sub": lambda x: x - 2.0,
        "rsub": lambda x: 2.0 - x,
        "mul": lambda x: x * x,
        "div": lambda x: x / 2.0,
        "rdiv": lambda x: 2.0 / (x + 9.0),
        "pow": lambda x: x**2,
        "mod": lambda x: x % 2.0,
        "floordiv": lambda x: x // 0.7,
        "maximum": lambda x: tf.maximum(x, 0.2),
        "minimum": lambda x: tf.minimum(x, 0.2),
        "sum": lambda x: tf.reduce_sum(x, axis=1),
        "mean": lambda x: tf.reduce_mean(x, axis=[1, 2]),
        "max": lambda x: tf.reduce_max(x, axis=-1, keepdims=True),
        "min": lambda x: tf.reduce_min(x, axis=1),
        "prod": lambda x: tf.reduce_prod(x, axis=1),
        "argmax": lambda x: tf.argmax(x, axis=-1),
        "argmin": lambda x: tf.argmin(x, axis=1),
        "concat": lambda x: tf.concat([x, x], axis=-1),
        "stack": lambda x: tf.stack([x, x], axis=1),
        "reshape": lambda x: tf.reshape(x, [-1, 24]),
        "transpose": lambda x: tf.transpose(x, [0, 2, 1]),
        "expand": lambda x: tf.expand_dims(x, 1),
        "tile": lambda x: tf.tile(x, [1, 2, 1]),
        "squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 1), axis=1),
        "split": lambda x: tf.split(x, 2, axis=1)[1],
        "unstack": lambda x: tf.unstack(x, axis=1)[1],
        "slice": lambda x: x[:, 1:3, ::2],
        "index": lambda x: x[:, -1],
        "newaxis": lambda x: x[:, tf.newaxis, ..., 1:],
        "gather": lambda x: tf.gather(x, [2, 0], axis=1),
        "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]),
        "pad-reflect": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], mode="REFLECT"),
        "clip": lambda x: tf.clip_by_value(x, -0.5, 0.5),
        "cast": lambda x: tf.cast(x, tf.int32),
        "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
        "where": lambda x: tf.where(x > 0.0, x, x * 0.1),
        "equal": lambda x: tf.equal(x, tf.abs(x)),
        "greater": lambda x: x > 0.5,
        "less": lambda x: x <= 0.5,
        "logical": lambda x: tf.logical_and(x > 0.0, x < 1.0),
        "l2": lambda x: tf.nn.l2_normalize(x, axis=-1),
        "one_hot": lambda x: tf.one_hot(tf.argmax(x, axis=-1), 6),
        "cumsum": lambda x: tf.cumsum(x, axis=1),
        "reverse": lambda x: tf.reverse(x, axis=[1]),
        "top_k": lambda x: tf.math.top_k(x, 2)[0],
        "norm": lambda x: tf.norm(x, axis=-1),
        "zeros_like": tf.zeros_like,
        "ones_like": tf.ones_like,
        "identity": tf.identity,
        "stop": tf.stop_gradient,
        "erf": tf.math.erf,
        "squared_difference": lambda x: tf.math.squared_difference(x, 1.0),
        "broadcast": lambda x: tf.broadcast_to(x[:1], [3, 4, 6]),
        "shape": lambda x: tf.reshape(x, [tf.shape(x)[0], 2, 12]),
        "bias_add": lambda x: tf.nn.bias_add(x, tf.ones([6])),
        "tensordot": lambda x: tf.tensordot(x, tf.ones([6, 3]), axes=1),
        "reduce_all": lambda x: tf.reduce_any(x > 0.0, axis=1),
        "logsumexp": lambda x: tf.reduce_logsumexp(x, axis=1),
        "std": lambda x: tf.math.reduce_std(x, axis=1),
        "variance": lambda x: tf.math.reduce_variance(x, axis=1),
        "backend": lambda x: K.backend.mean(x, axis=1),
    }
    for name, function in table.items():
        yield f"raw-{name}", lambda function=function: functional([(4, 6)], function)
    yield "raw-two", lambda: functional([(4, 6), (4, 6)], lambda a, b: tf.add(a, b) * a - tf.maximum(a, b))
    for name, function in {
        "conv": lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 4, 2]), 1, "SAME"),
        "depthwise": lambda x: tf.nn.depthwise_conv2d(x, tf.ones([3, 3, 4, 1]), [1, 1, 1, 1], "SAME"),
        "max": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"),
        "avg": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
        "resize": lambda x: tf.image.resize(x, (5, 9)),
        "nearest": lambda x: tf.image.resize(x, (5, 9), method="nearest"),
        "d2s": lambda x: tf.nn.depth_to_space(x, 2),
        "s2d": lambda x: tf.nn.space_to_depth(x, 2),
        "upsample": lambda x: tf.compat.v1.image.resize_bilinear(x, (16, 12)),
    }.items():
        yield f"raw-picture-{name}", lambda function=function: functional([(8, 6, 4)], function)


class Maker:
    """Makes, saves and runs one model after the other."""

    def __init__(self, folder, library):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.library = library
        self.K = __import__(library)
        self.suffix = ".keras" if library == "keras" else ".h5"

    def run(self, name, build):
        self.K.backend.clear_session()
        rng = np.random.default_rng(7)
        line = {"name": name}
        try:
            model = build()
            if not name.startswith(("quantized", "adapted")):
                self.randomise(model, rng)
            inputs = [self.feed(tensor, rng, name) for tensor in model.inputs]
            outputs = (
                model.predict_on_batch(inputs if len(inputs) > 1 else inputs[0])
                if False
                else model([self.tensor(x) for x in inputs] if len(inputs) > 1 else self.tensor(inputs[0]), training=False)
            )
            flat = self.flatten(outputs)
            path = self.folder / f"{name}{self.suffix}"
            model.save(path)
            arrays = {f"in{i}": x for i, x in enumerate(inputs)} | {f"out{i}": np.asarray(x) for i, x in enumerate(flat)}
            arrays = {
                k: v.astype("U")
                if v.dtype.kind in "OS" and not isinstance(v.ravel()[0], bytes)
                else np.char.decode(v.astype("S"))
                if v.dtype.kind in "OS"
                else v.astype("float32")
                if v.dtype.name == "bfloat16"
                else v
                for k, v in arrays.items()
            }
            np.savez(self.folder / f"{name}.npz", **arrays)
            line |= {"file": path.name, "inputs": [t.name.split(":")[0] for t in model.inputs]}
        except Exception as error:
            line["error"] = f"{type(error).__name__}: {str(error)[:200]}"
        print(json.dumps(line), flush=True)

    def flatten(self, outputs):
        import tensorflow as tf

        return tf.nest.flatten(outputs)

    def tensor(self, array):
        import tensorflow as tf

        return tf.constant(array.astype(object) if array.dtype.kind == "U" else array)

    def feed(self, tensor, rng, name):
        shape = [BATCH if axis == 0 else 6 if dim is None else dim for axis, dim in enumerate(tensor.shape)]
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        if dtype == "string":
            words = ["a", "b", "dog", "cat", "The dog, a b!"] if "TextV" in name else ["a", "b", "dog", "cat"]
            return np.asarray(rng.choice(words, shape))
        if dtype == "bool":
            return rng.random(shape) < 0.7
        if dtype.startswith(("int", "uint")):
            return rng.integers(0, 200 if dtype == "uint8" else 4, shape).astype(dtype)
        if name.startswith("Embedding"):
            return rng.integers(0, 4, shape).astype(dtype)
        return rng.standard_normal(shape).astype(dtype)

    def randomise(self, model, rng):
        for weight in model.weights:
            shape, name = tuple(weight.shape), weight.name
            if "float" not in str(weight.dtype) or "seed" in getattr(weight, "path", name):
                continue
            positive = "variance" in name
            values = rng.random(shape) + 0.5 if positive else rng.standard_normal(shape) * 0.5
            if "mean" in name or "count" in name or positive or shape:
                weight.assign(values.astype("float32"))


def every(K, library):
    L = K.layers
    seen = set()
    for place, (kind, shape, settings) in enumerate(rows()):
        seen.add(kind)
        if not hasattr(L, kind):
            continue
        shapes = shape if isinstance(shape, list) else [(shape, "float32")]
        for number, options in enumerate(settings):

            def build(kind=kind, shapes=shapes, options=options):
                inputs = [L.Input(size, dtype=dtype) for size, dtype in shapes]
                outputs = getattr(L, kind)(**options)(inputs if len(inputs) > 1 else inputs[0])
                return K.Model(inputs if len(inputs) > 1 else inputs[0], outputs)

            yield f"{kind}-{place}-{number}", build
    missing = {name for name in dir(L) if isinstance(getattr(L, name), type) and getattr(L, name).__name__ == name} - seen - set(LEFT_OUT)
    assert not missing, f"no row for {sorted(missing)}"
    yield from composed(K, L)
    if library == "keras":
        yield from quantized(K, L)
        yield from operations(K, L)
    else:
        yield from raw(K, L)


def main():
    folder, library, pattern = [*sys.argv[1:], *["", "keras", "*"][len(sys.argv) - 1:]]
    maker = Maker(folder, library)
    for name, build in every(maker.K, library):
        if any(fnmatch.fnmatch(name, each) for each in pattern.split(",")):
            maker.run(name, build)


if __name__ == "__main__":
    main()
