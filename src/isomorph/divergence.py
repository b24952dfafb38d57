"""Proof for language models: both read the same text side by side, and what they expect next is compared token by token.

Nothing is kept but sums and one number a token, so no file of logits is written. As llama.cpp's perplexity tool does, a text is cut into windows and the second
half of each counts, where every token has at least half a window before it (llama.cpp, tools/perplexity).
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported, Usage
from isomorph.progress import SILENT, Progress
from isomorph.report import Report, Severity

if TYPE_CHECKING:
    import numpy as np

    from isomorph.generation import Generation

PIECE = 64                                  # tokens whose logits are in memory at once
WINDOW = 512
LEAST = 1e-300                              # a probability that is no zero to a logarithm


def verify(first: Any, second: Any, text: str, *, window: int = WINDOW, most_windows: int = 0, most_divergence: float | None = None, timeout: float = 300.0,
           progress: Progress = SILENT) -> Report:
    """Compares what two language models expect to come next in `text`. Facts: `passed`, `tokens` (that counted), `windows`; `divergence`, the Kullback-Leibler
    divergence of the second from the first in nats with `mean`, `error`, `median`, `p99`, `max`; `same_top`, the share of tokens where both have the same
    favourite; `perplexity` with `first`, `second`, `ratio` and their `error`.

    `passed` is whether the mean divergence is at most `most_divergence`, where that is given. The text is cut by the tokenizer of the first. Raises `Usage` for
    a text shorter than a window, `Unsupported` for models whose vocabularies differ in size.
    """
    from isomorph.generation import Generation
    if window < 4:
        raise Usage(f"windows of {window} tokens are too short", hint="give at least 4")
    with ExitStack() as stack:
        one, other = (stack.enter_context(Generation(path, timeout=timeout, runtime="onnxruntime")) for path in (first, second))
        tokens = one.prompt(text, chat=False)
        count = len(tokens) // window
        if not count:
            raise Usage(f"the text has {len(tokens)} tokens, less than one window of {window}", hint="give a longer text or a smaller window")
        count = min(count, most_windows) if most_windows else count
        progress.start("compare", count)
        rows = []
        for place in range(count):
            rows += _compared(one, other, one.window(tokens, place, window), window // 2)
            progress.advance()
        progress.finish()
        findings = [*one.findings, *other.findings]
    return _report(Report(f"{first} and {second}", findings), rows, count, window, most_divergence)


def _compared(one: Generation, other: Generation, tokens: list[int], skipped: int) -> list[tuple[float, bool, float, float]]:
    """(divergence, same favourite, what the first lost on the next token, what the second lost) of every token behind those that are skipped."""
    import numpy as np
    rows = []
    place = 0
    for left, right in zip(pieces(one, tokens), pieces(other, tokens), strict=True):
        if left.shape != right.shape:
            raise Unsupported(f"the models know {left.shape[-1]} and {right.shape[-1]} words", hint="compare models of one vocabulary")
        p, q = _logarithms(left), _logarithms(right)
        divergence = np.sum(np.exp(p) * (p - q), axis=-1)
        same = p.argmax(-1) == q.argmax(-1)
        for row in range(len(p)):
            if skipped <= place < len(tokens) - 1:
                following = tokens[place + 1]
                rows.append((max(float(divergence[row]), 0.0), bool(same[row]), -float(p[row, following]), -float(q[row, following])))
            place += 1
    return rows


def pieces(model: Generation, tokens: list[int]) -> Iterator[np.ndarray]:
    """The logits behind each token, some tokens at a time."""
    model.session.forget()
    for start in range(0, len(tokens), PIECE):
        yield model.logits(tokens[start:start + PIECE], start)


def _logarithms(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, float64."""
    import numpy as np
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def _report(report: Report, rows: list[tuple[float, bool, float, float]], windows: int, window: int, most: float | None) -> Report:
    import numpy as np
    divergence, same, first, second = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    root = np.sqrt(max(len(rows) - 1, 1))
    perplexities = [float(np.exp(lost.mean())) for lost in (first, second)]
    errors = [float(np.exp(lost.mean()) * lost.std() / root) for lost in (first, second)]
    passed = most is None or float(divergence.mean()) <= most
    report.facts |= {
        "passed": passed, "tokens": len(rows), "windows": windows, "window": window,
        "divergence": {"mean": float(divergence.mean()), "error": float(divergence.std() / root), "median": float(np.median(divergence)),
                       "p99": float(np.quantile(divergence, 0.99)), "max": float(divergence.max())},
        "same_top": float(same.mean()),
        "perplexity": {"first": perplexities[0], "second": perplexities[1], "ratio": float(np.exp((second - first).mean())),
                       "error": errors, "ratio_error": float(np.exp((second - first).mean()) * (second - first).std() / root)}}
    if not passed:
        report.add("verify.mismatch", Severity.HIGH, report.subject, f"the mean divergence is {float(divergence.mean()):.4g}, more than {most:.4g}")
    return report
