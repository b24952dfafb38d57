"""Configurations of Keras 1 in the words of Keras 2 and 3: class names and keys that were renamed."""
from __future__ import annotations

from typing import Any

CLASSES = {
    "Convolution1D": "Conv1D", "Convolution2D": "Conv2D", "Convolution3D": "Conv3D", "AtrousConvolution1D": "Conv1D", "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose", "SeparableConvolution2D": "SeparableConv2D", "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization", "SyncBatchNormalization": "BatchNormalization", "TensorFlowOpLayer": "TensorFlowOpLayer",
    "AvgPool1D": "AveragePooling1D", "AvgPool2D": "AveragePooling2D", "AvgPool3D": "AveragePooling3D", "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D", "MaxPool3D": "MaxPooling3D", "Convolution2DTranspose": "Conv2DTranspose", "Convolution3DTranspose": "Conv3DTranspose",
    "GlobalAvgPool1D": "GlobalAveragePooling1D", "GlobalAvgPool2D": "GlobalAveragePooling2D", "GlobalAvgPool3D": "GlobalAveragePooling3D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D", "GlobalMaxPool2D": "GlobalMaxPooling2D", "GlobalMaxPool3D": "GlobalMaxPooling3D",
    "LSTMV2": "LSTM", "GRUV2": "GRU", "BatchNormV2": "BatchNormalization", "Resizing2D": "Resizing", "GroupQueryAttention": "GroupedQueryAttention",
    "Model": "Functional", "BatchNorm": "BatchNormalization",
}
KEYS = {
    "output_dim": "units", "nb_filter": "filters", "border_mode": "padding", "subsample": "strides", "bias": "use_bias", "p": "rate",
    "init": "kernel_initializer",
    "subsample_length": "strides", "filter_length": "kernel_size", "atrous_rate": "dilation_rate", "pool_length": "pool_size", "stride": "strides",
    "inner_activation": "recurrent_activation", "length": "size", "sigma": "stddev",
}
ORDERINGS = {"tf": "channels_last", "th": "channels_first"}
KEPT = {"Embedding": {"output_dim"}, "Highway": {"bias"}, "UpSampling1D": set(), "MaxoutDense": {"output_dim", "bias"}, "EinsumDense": {"length"}}


def modernised(data: dict[str, Any]) -> dict[str, Any]:
    """The same layer with the names that the rules know. What is modern stays as it is."""
    config = data["config"]
    kind = CLASSES.get(data["class_name"], data["class_name"])
    if isinstance(config, list):                       # Keras 1 and early Keras 2: the configuration of a Sequential is the list of its layers
        return {**data, "class_name": kind, "config": {"name": data.get("name") or "sequential", "layers": config}}
    if not isinstance(config, dict) or not _is_old(config):
        return {**data, "class_name": kind}
    kept = KEPT.get(kind, set())
    changed = {KEYS.get(key, key) if key not in kept else key: value for key, value in config.items()}
    if "nb_row" in config:
        depth = [config["kernel_dim1"], config["kernel_dim2"], config["kernel_dim3"]] if "kernel_dim1" in config else [config["nb_row"], config["nb_col"]]
        changed["kernel_size"] = depth
    if "kernel_dim1" in config:
        changed["kernel_size"] = [config["kernel_dim1"], config["kernel_dim2"], config["kernel_dim3"]]
    if "dim_ordering" in config:
        changed["data_format"] = ORDERINGS.get(config["dim_ordering"], config["dim_ordering"])
    if "mode" in config and kind == "Merge":
        changed["mode"] = config["mode"]
    if kind in ("LSTM", "GRU", "SimpleRNN"):
        changed["keras_1"] = True
    for key in ("nb_row", "nb_col", "kernel_dim1", "kernel_dim2", "kernel_dim3", "dim_ordering", "W_regularizer", "b_regularizer", "W_constraint",
        "b_constraint",
                "U_regularizer", "weights", "input_length" if kind != "Embedding" else "", "consume_less", "inner_init", "forget_bias_init", "dropout_W",
                "dropout_U", "gamma_init", "beta_init"):
        changed.pop(key, None)
    return {**data, "class_name": kind, "config": changed}


def _is_old(config: dict[str, Any]) -> bool:
    """Whether Keras 1 wrote it."""
    return bool({"nb_filter", "border_mode", "dim_ordering", "W_regularizer", "inner_activation", "init", "p", "pool_length",
                 "W_constraint"} & config.keys()) or (
        "output_dim" in config and "bias" in config)
