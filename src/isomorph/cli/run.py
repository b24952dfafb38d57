"""`isomorph run`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import feeding, feeding_options
from isomorph.cli._output import Output, number, shape, verb

SHOWN = 8


@verb("run")
@click.argument("path", metavar="FILE")
@click.option("-o", "--output", metavar="FILE.npz", help="Save the outputs.")
@click.option("--signature", metavar="NAME", default="", help="Choose an entry point of a file that has several.")
@click.option("--reference", is_flag=True, help="Use plain kernels where the runtime has them.")
@click.option("--prompt", metavar="TEXT", help="Generate text from the weights of a language model, or the embedding of a text.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="How many tokens an answer may have.")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 takes the best token each time, more draws them.")
@click.option("--no-template", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("--runtime", type=click.Choice(["onnxruntime", "llama"]), help="What generates; llama.cpp for GGUF where it is installed.")
@click.option("--activations", type=click.Choice(["ggml", "exact"]), default="ggml", show_default=True,
              help="What ONNX Runtime multiplies blocks with: numbers rounded to 8 bits as llama.cpp rounds them, or as they are.")
@feeding
def command(out: Output, path: str, output: str | None, signature: str, reference: bool, prompt: str | None, max_tokens: int, temperature: float,
            no_template: bool, runtime: str | None, activations: str, **arguments: Any) -> None:
    """Run a model in its own runtime.

    The runtime works in a child process. Inputs that are not given are made up.
    """
    if prompt is not None:
        _generate(out, path, prompt, arguments, most=max_tokens, temperature=temperature, chat=not no_template, runtime=runtime or "",
                  rounded=activations == "ggml")
        return
    import numpy as np

    import isomorph
    answers = isomorph.run(path, reference=reference, signature=signature, **feeding_options(arguments))
    if output:
        _save(output, answers)
    described = [_described(name, value) for name, value in answers.items()]
    if out.as_json:
        out.document({"path": path, "outputs": described})
        return
    out.table(("output", "dtype", "shape", "min", "mean", "max"),
              [(row["name"], row["dtype"], shape(row["shape"]), number(row["min"]), number(row["mean"]), number(row["max"])) for row in described],
              right=("min", "mean", "max"))
    for name, value in answers.items():
        if isinstance(value, np.ndarray):
            out.note(f"{name}: {value.reshape(-1)[:SHOWN].tolist()}{' ...' if value.size > SHOWN else ''}")


def _generate(out: Output, path: str, prompt: str, arguments: dict[str, Any], *, most: int, temperature: float, chat: bool, runtime: str,
              rounded: bool) -> None:
    """Prints an answer while it is made, or the embedding of a network that reads whole texts."""
    import time

    from isomorph.generation import Generation
    given = feeding_options(arguments)
    with Generation(path, timeout=given["timeout"], runtime=runtime, rounded=rounded) as model:
        if model.reads_whole:
            vector = model.embedding(prompt)
            if out.as_json:
                out.document({"path": path, "embedding": [float(value) for value in vector]})
                return
            click.echo(" ".join(f"{value:.6g}" for value in vector))
            out.findings(model.findings)
            return
        tokens = model.prompt(prompt, chat=chat)
        start, pieces = time.perf_counter(), []
        for piece in model.text(tokens, most=most, temperature=temperature, seed=given["seed"]):
            pieces.append(piece)
            if not out.as_json:
                click.echo(piece, nl=False)
        seconds = time.perf_counter() - start
        count = len(model.tokenizer.encode("".join(pieces), add_special_tokens=False).ids)
        if out.as_json:
            out.document({"path": path, "prompt_tokens": len(tokens), "text": "".join(pieces), "tokens": count, "seconds": round(seconds, 3)})
            return
        click.echo()
        out.findings(model.findings)
        out.note(f"{len(tokens)} tokens of prompt, {count} of answer in {seconds:.1f} s")


def _described(name: str, value: Any) -> dict[str, Any]:
    import numpy as np
    if not isinstance(value, np.ndarray):
        return {"name": name, "dtype": type(value).__name__, "shape": None, "min": None, "mean": None, "max": None}
    about: dict[str, Any] = {"name": name, "dtype": "string" if value.dtype.kind in "OSU" else value.dtype.name, "shape": list(value.shape)}
    if value.dtype.kind in "OSUc" or not value.size:
        return about | {"min": None, "mean": None, "max": None}
    wide = value.astype(np.float64)
    return about | {kind: float(result) if np.isfinite(result) else None for kind, result in (("min", wide.min()), ("mean", wide.mean()), ("max", wide.max()))}


def _save(output: str, answers: dict[str, Any]) -> None:
    from pathlib import Path

    import numpy as np

    from isomorph.wire import files
    arrays: dict[str, Any] = {name: value for name, value in answers.items() if isinstance(value, np.ndarray) and value.dtype.kind != "O"}
    with files.replacing(Path(output), force=True) as file:
        np.savez(file, **arrays)
