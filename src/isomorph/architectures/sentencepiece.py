"""Models of SentencePiece (tokenizer.model, spiece.model) as keys of GGUF, and keys of GGUF as such models.

Its types of words have GGUF's numbers. What is merged by score is GGUF's "llama", what is chosen by the greatest sum of scores its "t5". Sources:
sentencepiece's src/sentencepiece_model.proto with its defaults, llama.cpp's conversion/base.py and conversion/t5.py.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isomorph.architectures.vocabulary import LOWEST, MOST_WORDS, NAMES
from isomorph.architectures.words import BYTE, CONTROL, KEY, NORMAL, UNUSED, USER_DEFINED
from isomorph.errors import Damaged
from isomorph.formats.gguf import Typed
from isomorph.wire import protobuf

FILES = ("tokenizer.model", "spiece.model")
UNIGRAM, BPE = 1, 2                             # trainer_spec.model_type
KINDS = {UNIGRAM: "t5", BPE: "llama"}
DEFAULTS = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
# Whether a text begins with its first special word and ends with its last where tokenizer_config.json does not say: as transformers' classes have it
USUAL = {"llama": (True, False), "t5": (False, True)}


def keys(data: memoryview | bytes, settings: Mapping[str, Any], size: int = 0) -> dict[str, Any]:
    """The keys of a model, with the special words that `settings`, a tokenizer_config.json, adds. Up to `size`, the rows of the table of words, numbers without
    a word get one that is never used. Raises `Damaged` for what is no model, or one of whole words or letters."""
    model = protobuf.read(data, protobuf.schema("sentencepiece")["ModelProto"], where="tokenizer.model")
    trainer, normal = (getattr(model, name, None) or protobuf.Record() for name in ("trainer_spec", "normalizer_spec"))
    kind = KINDS.get(_of(trainer, "model_type", UNIGRAM))
    pieces = _of(model, "pieces", [])
    if kind is None or not pieces or len(pieces) > MOST_WORDS:
        raise Damaged(f"it holds {len(pieces)} words and no model of merges or sums of scores", where="tokenizer.model")
    words, types = [_of(piece, "piece", "") for piece in pieces], [_of(piece, "type", NORMAL) for piece in pieces]
    scores = [float(_of(piece, "score", 0.0)) for piece in pieces]
    _add(words, types, scores, settings, size)
    begins, ends = USUAL[kind]
    made: dict[str, Any] = {
        KEY + "model": kind, KEY + "pre": "default", KEY + "tokens": words, KEY + "scores": Typed("f32", scores), KEY + "token_type": Typed("i32", types),
        KEY + "add_space_prefix": _of(normal, "add_dummy_prefix", True), KEY + "remove_extra_whitespaces": _of(normal, "remove_extra_whitespaces", True),
        KEY + "add_bos_token": bool(settings.get("add_bos_token", begins)), KEY + "add_eos_token": bool(settings.get("add_eos_token", ends))}
    if charsmap := bytes(_of(normal, "precompiled_charsmap", b"")):
        made[KEY + "precompiled_charsmap"] = Typed("u8", list(charsmap))
    for name, usual in DEFAULTS.items():
        number = _of(trainer, name, usual)
        if 0 <= number < len(pieces):
            made[f"{KEY}{NAMES[name.removesuffix('_id')]}_token_id"] = number
    if isinstance(settings.get("chat_template"), str):
        made["tokenizer.chat_template"] = settings["chat_template"]
    return made


def _of(record: Any, name: str, usual: Any) -> Any:
    """A field, or what it is where the file does not have it."""
    return record.__dict__.get(name, usual)


def _add(words: list[str], types: list[int], scores: list[float], settings: Mapping[str, Any], size: int) -> None:
    """Words that transformers adds behind those of the model, and numbers that have none."""
    added = settings.get("added_tokens_decoder")
    given = {int(number): entry for number, entry in added.items() if number.isdecimal() and isinstance(entry, Mapping)} if isinstance(added, Mapping) else {}
    count = max([size, len(words), *(number + 1 for number in given)])
    if count > MOST_WORDS:
        raise Damaged(f"{count} words", where="tokenizer_config.json")
    first = len(words)
    words += [f"[PAD{place}]" for place in range(first, count)]
    types += [UNUSED] * (count - first)
    scores += [LOWEST] * (count - first)
    for number, entry in given.items():
        if number >= first and isinstance(entry.get("content"), str):
            words[number], types[number] = entry["content"], CONTROL if entry.get("special") else USER_DEFINED


def model(metadata: Mapping[str, Any]) -> bytes | None:
    """The model of the keys, None where their kind is not one of SentencePiece or they do not say the scores. Numbers that no word stands for are left out
    where they are the last ones."""
    kinds = {name: number for number, name in KINDS.items()}
    kind = metadata.get(KEY + "model")
    if kind not in kinds or not all(KEY + name in metadata for name in ("tokens", "scores", "token_type")):
        return None
    messages = protobuf.schema("sentencepiece")
    rows = list(zip(*(list(metadata[KEY + name]) for name in ("tokens", "scores", "token_type")), strict=False))
    while rows and rows[-1][2] == UNUSED:
        rows.pop()
    pieces = [messages["SentencePiece"](piece=word, score=float(score), type=int(number)) for word, score, number in rows]
    special = {name: metadata.get(f"{KEY}{NAMES[name.removesuffix('_id')]}_token_id", -1) for name in DEFAULTS}
    named = {name.replace("_id", "_piece"): rows[number][0] for name, number in special.items() if isinstance(number, int) and 0 <= number < len(rows)}
    trainer = messages["TrainerSpec"](model_type=kinds[kind], vocab_size=len(pieces), byte_fallback=_falls_back(rows), **special, **named)
    normal = messages["NormalizerSpec"](
        name="identity" if not metadata.get(KEY + "precompiled_charsmap") else "user_defined",
        precompiled_charsmap=bytes(number & 0xFF for number in metadata.get(KEY + "precompiled_charsmap", ())),
        add_dummy_prefix=bool(metadata.get(KEY + "add_space_prefix", True)), escape_whitespaces=True,
        remove_extra_whitespaces=bool(metadata.get(KEY + "remove_extra_whitespaces", False)))
    return protobuf.dumps(messages["ModelProto"](pieces=pieces, trainer_spec=trainer, normalizer_spec=normal))


def _falls_back(rows: Sequence[tuple[str, float, int]]) -> bool:
    return any(number == BYTE for _, _, number in rows)
