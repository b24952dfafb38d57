"""Options that several verbs share, and what they mean."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from isomorph.errors import Usage


def conversion(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a conversion can be told."""
    for option in (
            click.option("--input", "--input-shape", "input_shapes", metavar="[NAME=]1x3x224x224", multiple=True,
                         help="Fix the shape of an input, by its name or in their order; ? leaves a size open."),
            click.option("--module", metavar="PACKAGE.MODULE:FACTORY",
                         help="PyTorch weights: IMPORT AND RUN this code of your own, load the weights into the module that it makes, and export that."),
            click.option("--signature", metavar="NAME", help="Choose an entry point of a file that has several."),
            click.option("--genai", is_flag=True, default=None, help="ONNX of a language model: write what onnxruntime-genai asks for beside it."),
            click.option("--integers", is_flag=True, default=None,
                         help="Quantised TensorFlow Lite: integer arithmetic with the bits of the reference kernels, in the place of QuantizeLinear."),
            click.option("--external-data/--single-file", "external_data", default=None, help="ONNX: weights beside the file, or inside it."),
            click.option("--names", type=click.Choice(("gguf", "huggingface")), help="Language models: name and lay out the weights as that world does."),
            click.option("--dtype", type=click.Choice(("fp32", "fp16", "bf16", "fp64", "uint8", "uint16")),
                         help="Store float weights in this type; uint8 and uint16 are for TensorFlow.js."),
            click.option("--shard-bytes", type=click.IntRange(1), metavar="N",
                         help="GGUF, safetensors, Hugging Face folders: parts of at most N bytes of weights."),
            click.option("--opset", type=int, metavar="N", help="ONNX: the operator set to write.")):
        function = option(function)
    return function


def conversion_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `plan` and `convert`."""
    shapes = dict(_shape(text, place) for place, text in enumerate(arguments["input_shapes"]))
    names = ("opset", "dtype", "names", "external_data", "signature", "genai", "integers", "module", "shard_bytes")
    return {name: arguments[name] for name in names} | {"input_shapes": shapes or None}


def _shape(text: str, place: int) -> tuple[str, tuple[int, ...]]:
    name, equals, dims = text.rpartition("=")
    if not all(dim.isdecimal() or dim == "?" for dim in dims.split("x")):
        raise Usage(f"cannot read the shape {text!r}", hint="write NAME=1x3x224x224")
    return name if equals else str(place), tuple(-1 if dim == "?" else int(dim) for dim in dims.split("x"))


def feeding(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a model is run on."""
    for option in (
            click.option("--timeout", type=float, default=300.0, metavar="SECONDS", show_default=True, help="Give up on a runtime after this long."),
            click.option("--seed", type=int, default=0, show_default=True, help="Of the inputs that are made up."),
            click.option("--dim", "dims", metavar="SYMBOL=N", multiple=True, help="Fix a symbolic dimension."),
            click.option("--inputs", "archive", metavar="FILE.npz", help="Arrays for the inputs, by name."),
            click.option("--input", "texts", metavar="NAME=...", multiple=True,
                         help="NAME=@x.npy is an array, NAME=1x3x224x224 a shape to fill at random, NAME=:16000 a value.")):
        function = option(function)
    return function


def feeding_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments `inputs`, `sizes`, `seed` and `timeout` of `run`, `bench` and `verify`."""
    from isomorph.verification import inputs
    given = inputs.from_archive(arguments["archive"]) if arguments["archive"] else {}
    return {"inputs": given | inputs.parse(arguments["texts"]), "sizes": dict(_size(text) for text in arguments["dims"]), "seed": arguments["seed"],
            "timeout": arguments["timeout"]}


def _size(text: str) -> tuple[str, int]:
    name, equals, value = text.rpartition("=")
    if not equals or not value.isdecimal():
        raise Usage(f"cannot read the dimension {text!r}", hint="write SYMBOL=N")
    return name, int(value)
