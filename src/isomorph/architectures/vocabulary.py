"""A tokenizer.json as keys of GGUF, told from its structure: which kind of model it is, its words with their types and scores, its merges, how text is cut.

How text is cut has a name in GGUF. It is found by cutting texts both ways and comparing, so that no spelling of an expression matters and no list of known
files is needed; a cut without a name is called "default", and its expressions come along in a key of ours, so that nothing is lost. Sources: the format of the
package tokenizers, llama.cpp's src/llama-vocab.cpp.
"""
from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from isomorph.errors import Damaged, Missing
from isomorph.formats.gguf import Typed
from isomorph.report import Finding, Severity

KEY = "tokenizer.ggml."
EXPRESSIONS = "isomorph.pretokenizer"                   # the expressions of a cut that GGUF has no name for, as JSON
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BLANK = "\u2581"
MOST_WORDS = 1 << 24
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What tells the cuts apart: contractions in both cases, long numbers, letters with marks, other scripts, blanks and ends of lines in every order.
PROBES = ("I'm sure they'LL say it's we'Ve'd  3 333 33333 1234567", " \n\n  x\t\ty \r\n z   \n", "a.b,c!?#$%^&*()/\\ \u20ac5.00 --> ...\n\n!! ' \" ''x",
          "caf\u00e9 na\u00efve e\u0301 \u0928\u093f \u4f60\u597d\u4e16\u754c \u3053\u3093 \ud55c\uad6d", "  leading", "trailing  ",
          "HTTPServer camelCase XMLhttp _snake_case_ 9a9 \u00bd\u00b2 \u0663\u0664 \U0001f999\U0001f680")


def keys(document: Mapping[str, Any], settings: Mapping[str, Any], size: int = 0) -> tuple[dict[str, Any], list[Finding]]:
    """The keys of `document`, a tokenizer.json, with the special words that `settings`, a tokenizer_config.json, names. Up to `size`, the rows of the table of
    words, numbers without a word get one that is never used. Raises `Damaged` for what is no tokenizer."""
    model = document.get("model")
    if not isinstance(model, Mapping):
        raise Damaged("it holds no model", where="tokenizer.json")
    findings: list[Finding] = []
    try:
        kind, found = _kind(document, model, findings)
        words, types = _words(document, model, found, size)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise Damaged(f"it is no tokenizer: {type(error).__name__} {str(error)[:120]}", where="tokenizer.json") from None
    scores = found.pop("scores", None)
    written = _written(words, types) if kind == "bert" else words
    made: dict[str, Any] = {KEY + "model": kind, KEY + "pre": "default", KEY + "tokens": written, KEY + "token_type": Typed("i32", types)}
    if scores is not None:
        made[KEY + "scores"] = Typed("f32", [*map(float, scores), *[LOWEST] * (len(words) - len(scores))][:len(words)])
    made |= {KEY + name: value for name, value in found.items() if not name.startswith("_")}
    made |= {EXPRESSIONS: found["_expressions"]} if "_expressions" in found else {}
    return made | _special(document, settings, words), findings


LOWEST = -1000.0                                        # the score of words that were added


def _kind(document: Mapping[str, Any], model: Mapping[str, Any], findings: list[Finding]) -> tuple[str, dict[str, Any]]:
    """What GGUF calls the kind of the model, with the keys that only this kind has."""
    name = model.get("type") or ("WordPiece" if "max_input_chars_per_word" in model else "Unigram" if isinstance(model.get("vocab"), list) else "BPE")
    if name == "WordPiece":
        normal = _find(document.get("normalizer"), "BertNormalizer") or {}
        return "bert", {"normalizer.lowercase": bool(normal.get("lowercase", False))}
    if name == "Unigram":
        return "t5", _unigram(document, model)
    if name != "BPE":
        raise ValueError(f"a model of the type {name!r}")
    bytewise = _find(document.get("pre_tokenizer"), "ByteLevel") or _find(document.get("decoder"), "ByteLevel")
    if bytewise is None and (_find(document.get("normalizer"), "Replace") or _find(document.get("pre_tokenizer"), "Metaspace")):
        split = _find(document.get("pre_tokenizer"), "Split")
        if split is not None and "\\n" in json.dumps(split.get("pattern")):
            return "gemma4", {"merges": _merges(model)}
        return "llama", {"scores": _scores(model), "add_space_prefix": _prefixed(document)}
    name, expressions = _cut(document, model, findings)
    return "gpt2", {"pre": name, "merges": _merges(model)} | ({"_expressions": expressions} if expressions else {})


def _merges(model: Mapping[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])]


def _scores(model: Mapping[str, Any]) -> list[float]:
    """Sentencepiece merges by score, tokenizers by rank: the score of a word is the rank of the first merge that makes it, negated."""
    vocabulary = model["vocab"]
    scores = [-float(len(model.get("merges", [])) + 1)] * len(vocabulary)
    places = {word: place for place, word in enumerate(sorted(vocabulary, key=vocabulary.__getitem__))}
    seen: set[str] = set()
    for rank, merge in enumerate(model.get("merges", [])):
        one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
        if (word := one + other) in places and word not in seen:
            seen.add(word)
            scores[places[word]] = -float(rank)
    return scores


def _prefixed(document: Mapping[str, Any]) -> bool:
    """Whether a blank is put before the first word."""
    metaspace = _find(document.get("pre_tokenizer"), "Metaspace")
    if metaspace is not None:
        return metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never") != "never"
    return _find(document.get("normalizer"), "Prepend") is not None


def _unigram(document: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"scores": [float(score) for _, score in model["vocab"]], "add_space_prefix": _prefixed(document)}
    if model.get("unk_id") is not None:
        found["unknown_token_id"] = int(model["unk_id"])
    charsmap = _find(document.get("normalizer"), "Precompiled")
    if charsmap is not None and charsmap.get("precompiled_charsmap"):
        found["precompiled_charsmap"] = Typed("u8", list(base64.b64decode(charsmap["precompiled_charsmap"])))
    found["remove_extra_whitespaces"] = any("{2,}" in json.dumps(step.get("pattern", "")) for step in _steps(document.get("normalizer")))
    return found


# ---- words

def _words(document: Mapping[str, Any], model: Mapping[str, Any], found: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every number's word and type, of the model and of what was added to it."""
    vocabulary = model["vocab"]
    pairs = list(vocabulary.items()) if isinstance(vocabulary, Mapping) else [(word, place) for place, (word, _) in enumerate(vocabulary)]
    added = [(str(entry["content"]), int(entry["id"]), bool(entry.get("special"))) for entry in document.get("added_tokens") or []]
    count = max([size, *(number + 1 for _, number in pairs), *(number + 1 for _, number, _ in added)], default=0)
    if count > MOST_WORDS or any(number < 0 for _, number in pairs):
        raise ValueError(f"{count} words")
    words, types = [f"[PAD{place}]" for place in range(count)], [UNUSED] * count
    fallback = bool(model.get("byte_fallback"))
    for word, number in pairs:
        words[number], types[number] = word, BYTE if fallback and _is_byte(word) else NORMAL
    for word, number, special in added:
        words[number], types[number] = word, CONTROL if special else USER_DEFINED
    unknown = found.get("unknown_token_id", words.index(model["unk_token"]) if model.get("unk_token") in words else None)
    if isinstance(unknown, int) and "scores" in found:
        types[unknown] = UNKNOWN
    return words, types


def _is_byte(word: str) -> bool:
    return len(word) == 6 and word.startswith("<0x") and word.endswith(">")


def _written(words: Sequence[str], types: Sequence[int]) -> list[str]:
    """WordPiece marks where a word goes on, GGUF where one begins."""
    return [word if number in (CONTROL, UNUSED) else word[2:] if word.startswith("##") else BLANK + word for word, number in zip(words, types, strict=True)]


NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "cls": "cls", "mask": "mask"}


def _special(document: Mapping[str, Any], settings: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The numbers of special words, whether one begins every text, and the chat template."""
    numbers = {word: place for place, word in reversed(list(enumerate(words)))}
    found: dict[str, Any] = {}
    model = document["model"]
    stated = {"unk_token": model.get("unk_token")} | dict(settings)
    for name, ours in NAMES.items():
        word = stated.get(f"{name}_token")
        word = word.get("content") if isinstance(word, Mapping) else word
        if isinstance(word, str) and word in numbers:
            found[f"{KEY}{ours}_token_id"] = numbers[word]
    if model.get("type") == "Unigram" and isinstance(model.get("unk_id"), int):
        found[KEY + "unknown_token_id"] = model["unk_id"]
    for place, name in ((0, "bos"), (-1, "eos")):
        if isinstance(settings.get(f"add_{name}_token"), bool):
            found[f"{KEY}add_{name}_token"] = settings[f"add_{name}_token"]
        elif single := _template(document):
            found[f"{KEY}add_{name}_token"] = "SpecialToken" in single[place]
    if isinstance(settings.get("chat_template"), str):
        found["tokenizer.chat_template"] = settings["chat_template"]
    return found


def _template(document: Mapping[str, Any]) -> list[Any]:
    step = _find(document.get("post_processor"), "TemplateProcessing") or {}
    single = step.get("single")
    return single if isinstance(single, list) and single and all(isinstance(piece, Mapping) for piece in single) else []


# ---- how text is cut

def _cut(document: Mapping[str, Any], model: Mapping[str, Any], findings: list[Finding]) -> tuple[str, str]:
    """The name that GGUF has for how a byte-level tokenizer cuts text, and where it has none the expressions, as JSON."""
    from isomorph.architectures.tokenizer import WHOLE_WORDS, cuts
    expressions = list(_expressions(document.get("pre_tokenizer")))
    whole = bool(model.get("ignore_merges"))
    cutters = [lambda text: expressions]
    try:
        cutters.insert(0, _pieces_of(document))
    except Missing:
        findings.append(Finding("tokenizer.cut", Severity.LOW, KEY + "pre", "the package tokenizers is not installed, so cuts are compared by their spelling"))
    fitting = []
    for name, known in cuts().items():
        same = known == expressions if len(cutters) == 1 else all(cutters[0](text) == _pieces_with(known)(text) for text in PROBES)
        if same and (name in WHOLE_WORDS) == whole:
            return name, ""
        fitting += [name] if same else []
    if fitting and not whole:
        return fitting[0], ""
    findings.append(Finding("tokenizer.cut", Severity.MEDIUM, KEY + "pre", "GGUF has no name for how this tokenizer cuts text; it is called 'default'",
                            "isomorph keeps the expressions in a key of its own; llama.cpp cuts by its default"))
    return "default", json.dumps({"expressions": expressions, "whole": whole})


Cutter = Callable[[str], Any]


def _pieces_of(document: Mapping[str, Any]) -> Cutter:
    """Where the tokenizer itself cuts a text."""
    from isomorph.architectures.tokenizer import of_json
    small = {**document, "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}, "post_processor": None}
    made = of_json(json.dumps(small).encode(), "tokenizer.json")
    return lambda text: [place for _, place in made.pre_tokenizer.pre_tokenize_str(text)] if made.pre_tokenizer else [(0, len(text))]


def _pieces_with(expressions: Sequence[str]) -> Cutter:
    from tokenizers import pre_tokenizers

    from isomorph.architectures.tokenizer import cutting
    made = pre_tokenizers.Sequence(cutting(expressions))
    return lambda text: [place for _, place in made.pre_tokenize_str(text)]


def _expressions(step: Any) -> Iterator[str]:
    """The expressions that a tree of steps cuts by, one after the other."""
    for each in _steps(step):
        kind, pattern = each.get("type"), each.get("pattern")
        if kind == "Split" and isinstance(pattern, Mapping):
            yield from (str(value) for value in pattern.values())
        elif kind == "Digits":
            yield r"\p{N}" if each.get("individual_digits") else r"\p{N}+"
        elif kind == "Punctuation":
            yield r"\p{P}+"
        elif kind == "ByteLevel" and each.get("use_regex", True):
            yield GPT2


def _steps(step: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or a cutter, those inside sequences too."""
    if not isinstance(step, Mapping):
        return
    inside = next((step[name] for name in ("normalizers", "pretokenizers", "decoders", "processors") if isinstance(step.get(name), list)), None)
    if inside is None:
        yield step
    for each in inside or ():
        yield from _steps(each)


def _find(step: Any, kind: str) -> Mapping[str, Any] | None:
    return next((each for each in _steps(step) if each.get("type") == kind), None)
