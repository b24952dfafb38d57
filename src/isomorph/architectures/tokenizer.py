"""Tokenizers from the keys of GGUF, rebuilt from their structure: words, ranks of merges, scores, and how text is cut. Needs the package `tokenizers`.

A name that is not known is cut as llama.cpp's default cuts, and said; it never fails. Sources: llama.cpp's src/llama-vocab.cpp, sentencepiece's models.
"""
from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, IsomorphError, Missing, Unsupported
from isomorph.report import Finding, Severity

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEY = "tokenizer.ggml."
CONTROL, USER_DEFINED, BYTE = 3, 4, 6                       # tokenizer.ggml.token_type
BLANK = "\u2581"                                            # how sentencepiece writes a blank
LONGEST_WORD = 100                                          # letters that WordPiece looks up


def tokenizer(metadata: Mapping[str, Any]) -> tuple[Tokenizer, list[Finding]]:
    """The tokenizer of a GGUF file, which adds no special tokens by itself. Raises `Unsupported` for a file without one or of a kind that is not built,
    `Missing` where `tokenizers` is not installed, `Damaged` for keys that contradict each other."""
    tokenizers = _package()
    kind = metadata.get(KEY + "model")
    if kind not in MODELS or KEY + "tokens" not in metadata:
        raise Unsupported(f"no tokenizer of the kind {kind!r} is built" if kind else "the file holds no tokenizer", hint="those that are: " + ", ".join(MODELS))
    words = list(metadata[KEY + "tokens"])
    types = list(metadata.get(KEY + "token_type", [])) or [1] * len(words)
    findings: list[Finding] = []
    try:
        made = MODELS[kind](tokenizers, metadata, words, types, findings)
    except IsomorphError:
        raise
    except Exception as error:                              # the package raises nothing narrower, and the keys are whatever a file says
        raise Damaged(f"the keys make no tokenizer: {str(error)[:200]}", where=KEY + "model") from None
    special = [tokenizers.AddedToken(word, special=True, normalized=False) for word, number in zip(words, types, strict=False) if number == CONTROL]
    given = [tokenizers.AddedToken(word, special=False, normalized=False) for word, number in zip(words, types, strict=False) if number == USER_DEFINED]
    made.add_special_tokens(special)
    made.add_tokens(given)
    return made, findings


def of_json(data: bytes, where: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises `Damaged` for what is none, `Missing` as `tokenizer` does."""
    try:
        return _package().Tokenizer.from_buffer(data)
    except Missing:
        raise
    except Exception as error:                              # the package raises nothing narrower
        raise Damaged(f"it is no tokenizer: {str(error)[:200]}", where=where) from None


def _package() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise Missing("the package tokenizers is not installed", hint="run `pip install 'isomorph[text]'`") from None
    return tokenizers


def byte_level(tokenizers: Any, metadata: Mapping[str, Any], words: list[str], types: Sequence[int], findings: list[Finding]) -> Tokenizer:
    """GPT-2's kind: bytes are written as letters, words are cut by expressions, and merged by rank."""
    numbers = _numbered(words)
    merges = _ranked(metadata, numbers)
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=merges, fuse_unk=False, ignore_merges=_ignores_merges(metadata)))
    name, stated = str(metadata.get(KEY + "pre", "")), _stated(metadata)
    if name not in cuts():
        findings.append(Finding("tokenizer.cut", Severity.MEDIUM, KEY + "pre", f"how text is cut is called {name!r}, which is not known; it is cut by default"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(cutting(stated.get("expressions") or cuts().get(name, cuts()["default"])))
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


def _ranked(metadata: Mapping[str, Any], numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges, the first first. The package does not survive one that makes no word, so they are compared with the words before. Raises `Damaged`."""
    found: list[tuple[str, str]] = []
    for merge in metadata.get(KEY + "merges", []):
        one, blank, other = merge.partition(" ")
        if not blank or not all(word in numbers for word in (one, other, one + other)):
            raise Damaged(f"the merge {merge[:60]!r} makes no word of the vocabulary", where=KEY + "merges")
        found.append((one, other))
    return found


def cutting(expressions: Sequence[str]) -> list[Any]:
    """The steps that cut by expressions, one after the other, and write bytes as letters. Raises `Damaged` for one that is no expression."""
    import tokenizers
    try:
        pieces = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), behavior="isolated") for expression in expressions]
    except Exception as error:                              # the package raises nothing narrower
        raise Damaged(f"an expression that cuts text is none: {str(error)[:200]}") from None
    return [*pieces, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _stated(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The cut that a file of ours states because GGUF has no name for it, {} where there is none."""
    try:
        found = json.loads(metadata.get("isomorph.pretokenizer", "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    texts = found.get("expressions") if isinstance(found, dict) else None
    return found if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else {}


def _ignores_merges(metadata: Mapping[str, Any]) -> bool:
    """Whether whole words of the vocabulary are taken before anything is merged."""
    return metadata.get(KEY + "pre") in WHOLE_WORDS or bool(_stated(metadata).get("whole"))


WHOLE_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"})


def sentencepiece(tokenizers: Any, metadata: Mapping[str, Any], words: list[str], types: Sequence[int], findings: list[Finding]) -> Tokenizer:
    """Llama's kind: two neighbours whose union has the best score are merged first; what is in no word goes letter by letter, as bytes."""
    scores = list(metadata.get(KEY + "scores", [])) or [0.0] * len(words)
    numbers = _numbered(words)
    unknown = words[int(metadata.get(KEY + "unknown_token_id", 0))]
    model = tokenizers.models.BPE(vocab=numbers, merges=_merges(words, scores, numbers), unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types)
    made = tokenizers.Tokenizer(model)
    before = [tokenizers.normalizers.Prepend(BLANK)] if metadata.get(KEY + "add_space_prefix", True) else []
    made.normalizer = tokenizers.normalizers.Sequence([*_cleaned(tokenizers, metadata), *before, tokenizers.normalizers.Replace(" ", BLANK)])
    steps = [tokenizers.decoders.Replace(BLANK, " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    made.decoder = tokenizers.decoders.Sequence([*steps, *([tokenizers.decoders.Strip(" ", 1, 0)] if before else [])])
    return made


def _cleaned(tokenizers: Any, metadata: Mapping[str, Any]) -> list[Any]:
    """The steps that replace letters and leave out blanks before a text is cut."""
    charsmap = bytes(value & 0xFF for value in metadata.get(KEY + "precompiled_charsmap", []))
    steps = [tokenizers.normalizers.Precompiled(charsmap)] if charsmap else []
    if metadata.get(KEY + "remove_extra_whitespaces"):
        steps += [tokenizers.normalizers.Strip(), tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    return steps


def _merges(words: Sequence[str], scores: Sequence[float], numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to put a word together from two others, the best word first; of one word, in the order of its parts."""
    found: list[tuple[float, int, tuple[str, str]]] = []
    for word, score in zip(words, scores, strict=False):
        pairs = [(word[:place], word[place:]) for place in range(1, len(word)) if word[:place] in numbers and word[place:] in numbers]
        pairs.sort(key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
        found += [(-score, len(found) + place, pair) for place, pair in enumerate(pairs)]
    return [pair for _, _, pair in sorted(found)]


def lines(tokenizers: Any, metadata: Mapping[str, Any], words: list[str], types: Sequence[int], findings: list[Finding]) -> Tokenizer:
    """Gemma 4's kind: as sentencepiece writes blanks, merged by rank, cut only where lines end; what is in no word goes as bytes."""
    numbers = _numbered(words)
    merges = _ranked(metadata, numbers)
    unknown = words[int(metadata.get(KEY + "unknown_token_id", 0))]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types))
    made.normalizer = tokenizers.normalizers.Replace(" ", BLANK)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("[^\\n]+|[\\n]+"), behavior="isolated")
    made.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.Replace(BLANK, " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
    return made


def unigram(tokenizers: Any, metadata: Mapping[str, Any], words: list[str], types: Sequence[int], findings: list[Finding]) -> Tokenizer:
    """T5's kind: the words whose scores sum to the most."""
    scores = list(metadata.get(KEY + "scores", [])) or [0.0] * len(words)
    unknown = int(metadata.get(KEY + "unknown_token_id", 0))
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(list(zip(words, map(float, scores), strict=True)), unk_id=unknown, byte_fallback=BYTE in types))
    made.normalizer = tokenizers.normalizers.Sequence(_cleaned(tokenizers, metadata))
    scheme = "always" if metadata.get(KEY + "add_space_prefix", True) else "never"
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(BLANK, prepend_scheme=scheme)
    made.decoder = tokenizers.decoders.Metaspace(BLANK, prepend_scheme=scheme)
    return made


def wordpiece(tokenizers: Any, metadata: Mapping[str, Any], words: list[str], types: Sequence[int], findings: list[Finding]) -> Tokenizer:
    """BERT's kind. GGUF marks where a word begins, WordPiece where one goes on."""
    plain = [_continued(word) if number != CONTROL else word for word, number in zip(words, types, strict=False)]
    unknown = plain[int(metadata.get(KEY + "unknown_token_id", 0))]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=_numbered(plain), unk_token=unknown, max_input_chars_per_word=LONGEST_WORD))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=bool(metadata.get(KEY + "normalizer.lowercase", True)))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    return made


def _continued(word: str) -> str:
    return word[1:] if word.startswith(BLANK) else "##" + word


MODELS = {"gpt2": byte_level, "llama": sentencepiece, "gemma4": lines, "t5": unigram, "bert": wordpiece}


def _numbered(words: Sequence[str]) -> dict[str, int]:
    """Word -> number; of equal words the first."""
    numbers: dict[str, int] = {}
    for number, word in enumerate(words):
        numbers.setdefault(word, number)
    return numbers


@cache
def cuts() -> dict[str, list[str]]:
    """The expressions of every name, with their common parts put in."""
    table = tomllib.loads((resources.files("isomorph") / "data" / "pretokenizers.toml").read_text("utf-8"))

    def filled(expression: str) -> str:
        for name, part in table["parts"].items():
            expression = expression.replace(f"<<{name}>>", part)
        return expression
    return {name: [filled(expression) for expression in row["expressions"]] for row in table["cut"] for name in row["names"]}
