"""The layers of Keras and a grid of their options, as data: (class, inputs, settings of each case).

Inputs are a shape without the batch, or a list of (shape, type). Inside the environment `tensorflow`, `keras_cases.py` makes a model of each.
"""
from __future__ import annotations

import itertools

VALID_SAME = ["valid", "same"]
BOTH = [True, False]
FORMATS = ["channels_last", "channels_first"]
MODES = ["int", "multi_hot", "count"]
WORDS = ["a", "b", "dog"]
ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "swish", "hard_swish", "tanh", "tanh_shrink", "threshold"]
CONV = {"filters": 4, "kernel_size": [1, 3, 4], "strides": [1, 2], "padding": VALID_SAME, "use_bias": BOTH}
RNN = {"units": 4, "return_sequences": BOTH, "go_backwards": BOTH, "use_bias": BOTH}
IMAGE, SOUND, VOLUME = (8, 7, 3), (9, 4), (5, 6, 5, 2)


def grid(**settings):
    """Every combination of the alternatives: a list holds some, anything else is one."""
    lists = [value if isinstance(value, list) else [value] for value in settings.values()]
    return [dict(zip(settings, combination, strict=True)) for combination in itertools.product(*lists)]


def given(modes, others, **settings):
    """Every mode of the output with each of some other settings. A vocabulary is one setting, though it is a list."""
    return [{**settings, "output_mode": mode, **other} for mode in modes for other in others]


def conv_rows():
    for kind, shape in (("1D", SOUND), ("2D", IMAGE), ("3D", VOLUME)):
        yield f"Conv{kind}", shape, grid(**CONV)
        yield f"Conv{kind}", shape, grid(filters=4, kernel_size=3, dilation_rate=2, padding=VALID_SAME)
        yield f"Conv{kind}", shape, grid(filters=4, kernel_size=2, activation=["relu", "softmax"])
        yield f"Conv{kind}Transpose", shape, grid(**CONV | {"strides": [1, 2, 3]})
        yield f"Conv{kind}Transpose", shape, grid(filters=2, kernel_size=3, strides=2, padding=VALID_SAME, output_padding=[0, 1])
    yield "Conv1D", SOUND, grid(filters=4, kernel_size=[2, 3], padding="causal", dilation_rate=[1, 2]) + grid(filters=4, kernel_size=3, groups=[2, 4])
    yield "Conv2D", (8, 8, 4), grid(filters=8, kernel_size=[(3, 2), (1, 5)], strides=[(2, 1), (1, 2)], groups=[1, 2, 4], padding=VALID_SAME)
    yield "Conv2DTranspose", IMAGE, grid(filters=2, kernel_size=[(3, 2)], strides=[(2, 1), (2, 3)], padding=VALID_SAME)
    yield "Conv2DTranspose", IMAGE, grid(filters=2, kernel_size=3, dilation_rate=2, padding=VALID_SAME)
    yield "Conv1DTranspose", SOUND, grid(filters=2, kernel_size=3, dilation_rate=2, padding=VALID_SAME)
    for kind, shape in (("1D", SOUND), ("2D", IMAGE)):
        yield f"DepthwiseConv{kind}", shape, grid(kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, depth_multiplier=[1, 2], use_bias=BOTH)
        yield f"DepthwiseConv{kind}", shape, grid(kernel_size=3, dilation_rate=2, padding=VALID_SAME)
        yield f"SeparableConv{kind}", shape, grid(filters=5, kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, depth_multiplier=[1, 2])
        yield f"SeparableConv{kind}", shape, grid(filters=5, kernel_size=3, dilation_rate=2, use_bias=False)


def pooling_rows():
    for kind, shape in (("1D", SOUND), ("2D", IMAGE), ("3D", VOLUME)):
        for which in ("Max", "Average"):
            yield f"{which}Pooling{kind}", shape, grid(pool_size=[2, 3], strides=[None, 1, 2], padding=VALID_SAME)
            yield f"{which}Pooling{kind}", shape, grid(pool_size=2, data_format="channels_first")
            yield f"Global{which}Pooling{kind}", shape, grid(keepdims=BOTH, data_format=FORMATS)
            yield f"Adaptive{which}Pooling{kind}", shape, grid(output_size=[1, 2, 3]) + grid(output_size=2, data_format="channels_first")
    yield "AveragePooling2D", IMAGE, grid(pool_size=[(3, 2), (2, 3)], strides=[(2, 1)], padding=VALID_SAME)


def recurrent_rows():
    x = (5, 3)
    yield "LSTM", x, grid(**RNN, activation=["tanh", "relu"])
    yield "LSTM", x, grid(units=3, recurrent_activation=["hard_sigmoid", "relu"]) + grid(units=3, activation="gelu", return_state=BOTH)
    yield "LSTM", x, grid(units=3, return_state=True, return_sequences=BOTH) + grid(units=3, unroll=True) + grid(units=3, unit_forget_bias=False)
    yield "GRU", x, grid(**RNN, reset_after=BOTH)
    yield "GRU", x, grid(units=3, recurrent_activation="hard_sigmoid", reset_after=BOTH) + grid(units=3, activation="silu", reset_after=BOTH)
    yield "GRU", x, grid(units=3, return_state=True, return_sequences=BOTH)
    yield "SimpleRNN", x, grid(**RNN) + grid(units=3, activation=["relu", "softsign", "elu", "mish"]) + grid(units=3, return_state=True)
    for kind, shape in (("1D", (3, 6, 2)), ("2D", (3, 5, 6, 2)), ("3D", (2, 4, 3, 4, 2))):
        yield f"ConvLSTM{kind}", shape, grid(filters=2, kernel_size=[2, 3], padding=VALID_SAME, return_sequences=BOTH)
        yield f"ConvLSTM{kind}", shape, grid(filters=2, kernel_size=3, strides=2, go_backwards=BOTH)
        yield f"ConvLSTM{kind}", shape, grid(filters=2, kernel_size=2, use_bias=False, recurrent_activation="sigmoid")


def simple_rows():
    yield "Dense", (5,), grid(units=4, use_bias=BOTH, activation=[None, *ACTIVATIONS])
    yield "Dense", (3, 5), grid(units=4, activation=[None, "softmax"])
    yield "Dense", (2, 3, 5), grid(units=4)
    yield "Activation", (4, 6), grid(activation=[name for name in ACTIVATIONS if name != "threshold"])
    yield "EinsumDense", (4, 6), grid(equation="abc,cd->abd", output_shape=[(None, 5)], bias_axes=[None, "d"])
    yield "EinsumDense", (4, 6), grid(equation="abc,cde->abde", output_shape=[(None, 2, 3)], bias_axes=["de", "e", None])
    yield "EinsumDense", (4, 6), [{"equation": "...x,xy->...y", "output_shape": 5, "bias_axes": "y"},
                                  {"equation": "abc,bd->adc", "output_shape": (3, 6), "activation": "relu"}]
    yield "ReLU", (4, 3), grid(max_value=[None, 1.0], negative_slope=[0.0, 0.2], threshold=[0.0, 0.3])
    yield "LeakyReLU", (4, 3), grid(negative_slope=[0.1, 0.3])
    yield "LeakyReLU", (4, 3), grid(alpha=[0.1])
    yield "ELU", (4, 3), grid(alpha=[1.0, 0.5])
    yield "PReLU", (4, 3), grid(shared_axes=[None, [1], [1, 2]])
    yield "PReLU", IMAGE, grid(shared_axes=[None, [1, 2]])
    yield "Softmax", (4, 3), grid(axis=[-1, 1, [1, 2]])
    yield "ThresholdedReLU", (4, 3), grid(theta=[1.0, 0.3])
    yield "Flatten", IMAGE, grid(data_format=FORMATS)
    yield "Flatten", (), [{}]
    yield "Reshape", (4, 6), grid(target_shape=[(6, 4), (-1,), (2, -1), (24,), (2, 3, 4)])
    yield "Permute", (4, 6, 2), grid(dims=[(2, 1, 3), (3, 1, 2)])
    yield "RepeatVector", (4,), grid(n=[1, 3])
    yield "ZeroPadding1D", SOUND, grid(padding=[1, (1, 2)])
    yield "ZeroPadding2D", IMAGE, grid(padding=[1, (1, 2), ((1, 0), (2, 1))], data_format=FORMATS)
    yield "ZeroPadding3D", VOLUME, grid(padding=[1, (1, 2, 0), ((1, 0), (2, 1), (0, 3))], data_format=FORMATS)
    yield "Cropping1D", SOUND, grid(cropping=[1, (1, 2), (0, 2)])
    yield "Cropping2D", IMAGE, grid(cropping=[1, (1, 2), ((1, 0), (2, 1))])
    yield "Cropping2D", (3, 8, 7), grid(cropping=[1, ((1, 0), (2, 1))], data_format="channels_first")
    yield "Cropping3D", VOLUME, grid(cropping=[1, (1, 2, 0), ((1, 0), (2, 1), (0, 3))])
    yield "UpSampling1D", SOUND, grid(size=[2, 3])
    yield "UpSampling2D", IMAGE, grid(size=[2, (3, 2)], interpolation=["nearest", "bilinear", "bicubic"]) + grid(size=2, data_format="channels_first")
    yield "UpSampling3D", VOLUME, grid(size=[2, (1, 3, 2)], data_format=FORMATS)
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
    stated = {"mean": [1.0, 2, 3, 4], "variance": [2.0, 1, 0.5, 3]}
    yield "Normalization", (4,), [stated | {"invert": each} for each in BOTH] + [{"axis": None, "mean": 2.0, "variance": 3.0}]


def image_rows():
    yield "Resizing", IMAGE, grid(height=[5, 16], width=[7, 9], interpolation=["nearest", "bilinear", "bicubic"])
    yield "Resizing", IMAGE, grid(height=6, width=3, crop_to_aspect_ratio=True) + grid(height=6, width=3, pad_to_aspect_ratio=True)
    yield "Resizing", (3, 8, 7), grid(height=5, width=9, data_format="channels_first")
    yield "Rescaling", IMAGE, [{"scale": 1 / 255.0}, {"scale": 2.0, "offset": -1.0}, {"scale": [0.5, 1.0, 2.0], "offset": [1.0, 2.0, 3.0]}]
    yield "Rescaling", [(IMAGE, "uint8")], [{"scale": 1 / 255.0}]
    yield "CenterCrop", IMAGE, grid(height=[4, 5], width=[3, 4]) + grid(height=10, width=10)
    yield "RandomCrop", IMAGE, grid(height=5, width=4)
    yield "AutoContrast", IMAGE, grid(value_range=[(0, 255), (0, 1)])
    yield "AutoContrast", (3, 8, 7), grid(data_format="channels_first")
    yield "ContrastLimitedAdaptiveHistogramEqualization", (20, 17, 2), grid(
        value_range=[(0, 255), (-3, 3)], clip_limit=[0.0, 1.5], tile_grid_size=[(2, 3), (4, 4)])
    for name in RANDOM:
        yield name, IMAGE, [RANDOM[name]]


# Layers that change pictures only while a model is trained, and what they need to be told.
RANDOM = {
    **{name: {"factor": 0.2} for name in ("RandomBrightness", "RandomContrast", "RandomRotation", "RandomHue", "RandomSaturation", "RandomSharpness",
                                          "RandomGrayscale", "RandomColorDegeneration", "RandomHeight", "RandomWidth")},
    **{name: {} for name in ("RandomFlip", "RandomInvert", "RandomErasing", "RandomGaussianBlur", "RandomPerspective", "RandomElasticTransform", "AugMix",
                             "RandAugment", "CutMix", "MixUp", "Equalization", "Solarization")},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2}, "RandomZoom": {"height_factor": 0.2}, "RandomShear": {"x_factor": 0.2},
    "RandomPosterization": {"factor": 3}, "RandomColorJitter": {"brightness_factor": 0.2},
    "MaxNumBoundingBoxes": {"max_number": 3, "bounding_box_format": "xyxy"}}


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
    yield "Discretization", (4,), given(["int", "multi_hot", "count", "one_hot"], [{"bin_boundaries": [-1.0, 0.0, 0.5]}])
    others = [{}, {"mask_token": 0}, {"num_oov_indices": 2}, {"oov_token": -5}]
    yield "IntegerLookup", [((4,), "int64")], given(MODES, others, vocabulary=[1, 3, 4])
    yield "IntegerLookup", [((4,), "int64")], [{"vocabulary": [1, 3, 4], "invert": True}]
    yield "StringLookup", [((4,), "string")], given(MODES, [{}, {"mask_token": ""}, {"oov_token": "?"}], vocabulary=WORDS)
    yield "StringLookup", [((4,), "int64")], [{"vocabulary": WORDS, "invert": True}]
    yield "StringLookup", [((4,), "string")], [{"vocabulary": WORDS, "output_mode": "tf_idf", "idf_weights": [0.5, 1.0, 2.0]}]
    others = [{}, {"standardize": None}, {"standardize": "lower"}, {"standardize": "strip_punctuation"}, {"max_tokens": 10}]
    yield "TextVectorization", [((1,), "string")], given(MODES, others, vocabulary=WORDS)
    yield "TextVectorization", [((1,), "string")], [
        {"vocabulary": WORDS, "output_sequence_length": 6}, {"vocabulary": ["a", "b", "a b"], "ngrams": 2},
        {"vocabulary": ["a", "b"], "output_mode": "tf_idf", "idf_weights": [0.5, 1.0]}]
    yield "Hashing", [((4,), "int64")], [{"num_bins": 5}, {"num_bins": 5, "salt": 3}]
    yield "Hashing", [((4,), "string")], [{"num_bins": 5}]
    yield "HashedCrossing", [((1,), "int64"), ((1,), "int64")], [{"num_bins": 5}]
    frames = {"frame_length": 64, "frame_step": 32, "fft_length": 64}
    yield "STFTSpectrogram", (300, 1), grid(mode=["log", "magnitude", "psd", "real", "imag", "angle", "stft"], window=None, **frames)
    yield "STFTSpectrogram", (300, 2), grid(mode=["log", "stft"], window=None, padding="same", expand_dims=BOTH, **frames)
    yield "STFTSpectrogram", (300, 1), grid(window=["hann", "hamming"], **frames)                 # which Keras makes with SciPy
    yield "MelSpectrogram", (3000,), grid(fft_length=256, sequence_stride=128, num_mel_bins=20)


def old_rows():
    yield "LocallyConnected1D", SOUND, grid(filters=4, kernel_size=[1, 3], strides=[1, 2], use_bias=BOTH, activation="relu")
    yield "LocallyConnected2D", IMAGE, grid(filters=4, kernel_size=[1, 3], strides=[1, 2], use_bias=BOTH)


def channels_first_rows():
    """What TensorFlow has no kernels for on a CPU: the same with the channels behind says what is right."""
    first = {"data_format": "channels_first"}
    for kind, shape in (("1D", (4, 9)), ("2D", (4, 8, 7)), ("3D", (2, 6, 5, 4))):
        yield f"Conv{kind}", shape, grid(filters=4, kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, groups=[1, 2], **first)
        yield f"Conv{kind}Transpose", shape, grid(filters=4, kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, **first)
        yield f"MaxPooling{kind}", shape, grid(pool_size=[2, 3], strides=[None, 1], padding=VALID_SAME, **first)
        yield f"AveragePooling{kind}", shape, grid(pool_size=[2, 3], strides=[None, 1], padding=VALID_SAME, **first)
    for kind, shape in (("1D", (4, 9)), ("2D", (4, 8, 7))):
        yield f"DepthwiseConv{kind}", shape, grid(kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, depth_multiplier=[1, 2], **first)
        yield f"SeparableConv{kind}", shape, grid(filters=5, kernel_size=[2, 3], strides=[1, 2], padding=VALID_SAME, **first)
    yield "ConvLSTM2D", (3, 2, 5, 6), grid(filters=2, kernel_size=[2, 3], padding=VALID_SAME, return_sequences=BOTH, **first)
    yield "STFTSpectrogram", (2, 300), grid(mode="magnitude", window=None, expand_dims=BOTH, frame_length=64, **first)
    yield "UpSampling2D", (3, 8, 7), grid(size=[2, (3, 2)], interpolation=["nearest", "bilinear"], **first)
    yield "Resizing", (3, 8, 7), grid(height=[5, 16], width=9, interpolation=["nearest", "bilinear"], **first)


def rows():
    """All that Keras computes by itself."""
    for make in (simple_rows, conv_rows, pooling_rows, normalization_rows, recurrent_rows, image_rows, merging_rows, attention_rows, preprocessing_rows,
                 old_rows):
        yield from make()
