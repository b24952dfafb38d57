"""Words of a tokenizer as bytes, as files of the time before GGUF have them, and as GGUF writes them: with pieces of sentencepiece or the letters of GPT-2.

GPT-2 writes each byte as a letter: those that print as themselves, the others as the letters from U+0100 on. Such files have no merges, but a word stands where
its merge does, so they are found again: a word is merged, by those before it, to two parts.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from isomorph.errors import Unsafe
from isomorph.formats.gguf import Typed

KEY = "tokenizer.ggml."
SPECIAL = ("<unk>", "<s>", "</s>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6           # tokenizer.ggml.token_type
BLANK = "\u2581"                                                            # how sentencepiece writes a blank
UNKNOWN_WORD = " \u2047 ".encode()                                          # what sentencepiece shows for a word that it does not know
LONGEST_MERGED = 1024                                                       # bytes of a word that merges are looked for in
MOST_WORK = 20_000_000                                                      # pairs that are looked at; GPT-2's vocabulary takes three million
ENDS_TEXT = "<|endoftext|>"


def raw(word: str) -> bytes:
    """The bytes of a word as a GGML file was read."""
    return word.encode("utf-8", "surrogateescape")


def text(word: bytes) -> str:
    """As the reader of GGML files has the bytes of a word: what is no UTF-8 becomes half surrogates."""
    return word.decode("utf-8", "surrogateescape")


# ---- sentencepiece

def keys_of_pieces(tokens: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    """The keys of a tokenizer of llama: the first three words are special, single bytes follow, a blank is written as a low line."""
    words, types = [], []
    for place, word in enumerate(tokens):
        data = raw(word)
        if place < len(SPECIAL):
            words.append(SPECIAL[place])
            types.append(UNKNOWN if place == 0 else CONTROL)
        elif not data:
            words.append(word)
            types.append(CONTROL)
        elif place < len(SPECIAL) + 256 and len(data) == 1:
            words.append(f"<0x{data[0]:02X}>")
            types.append(BYTE)
        else:
            words.append(word.replace(" ", BLANK))
            types.append(NORMAL)
    return {KEY + "model": "llama", KEY + "tokens": words, KEY + "scores": Typed("f32", scores or [0.0] * len(words)), KEY + "token_type": Typed("i32", types),
            KEY + "unknown_token_id": 0, KEY + "bos_token_id": 1, KEY + "eos_token_id": 2}


def _piece(word: str, kind: int) -> bytes:
    if kind == UNKNOWN:
        return UNKNOWN_WORD
    if kind == CONTROL:
        return b""
    return bytes([int(word[3:5], 16)]) if kind == BYTE else raw(word.replace(BLANK, " "))


# ---- GPT-2

@cache
def letters() -> dict[int, str]:
    """The letter that GPT-2 writes for each byte."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {byte: chr(256 + place) for place, byte in enumerate(others)}


@cache
def _numbers() -> dict[str, int]:
    return {letter: byte for byte, letter in letters().items()}


def keys_of_bytes(tokens: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The keys of a tokenizer of GPT-2's kind, whose words are bytes in the order of their merges; and how many words are no word of their own, because the
    file says the same of several: converters of then wrote one letter for all bytes that are no text by themselves."""
    words = [raw(word) for word in tokens]
    merges, apart = merges_of(words)
    spelled, types, seen, lost = [], [], set(), 0
    for place, word in enumerate(words):
        twice = word in seen or not word
        seen.add(word)
        lost += twice
        spelled.append(f"[PAD{place}]" if twice else text(word) if place in apart and word.decode("utf-8", "ignore").encode() == word else _spelled(word))
        types.append(UNUSED if twice else NORMAL if place not in apart else CONTROL if spelled[-1] == ENDS_TEXT else USER_DEFINED)
    keys: dict[str, Any] = {KEY + "model": "gpt2", KEY + "pre": "gpt-2", KEY + "tokens": spelled, KEY + "token_type": Typed("i32", types),
                            KEY + "merges": Typed("string", [f"{_spelled(one)} {_spelled(other)}" for one, other in merges])}
    if ENDS_TEXT in spelled:
        keys |= {KEY + "bos_token_id": spelled.index(ENDS_TEXT), KEY + "eos_token_id": spelled.index(ENDS_TEXT)}
    return keys, lost


def _spelled(word: bytes) -> str:
    return "".join(letters()[byte] for byte in word)


def merges_of(words: Sequence[bytes]) -> tuple[list[tuple[bytes, bytes]], set[int]]:
    """The merges that make the words, in their order, and the places of longer words that no two others make. Raises `Unsafe` for words that take longer than
    those of any vocabulary."""
    ranks: dict[bytes, int] = {}
    found, apart, work = [], set(), 0
    for place, word in enumerate(words):
        if len(word) < 2 or word in ranks:
            continue
        work += min(len(word), LONGEST_MERGED) ** 2
        if work > MOST_WORK:
            raise Unsafe(f"{place + 1} words in whose bytes merges take too long to find", where="ggml.tokens")
        parts = _merged(word, ranks) if len(word) <= LONGEST_MERGED else []
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
            ranks[word] = place
        else:
            apart.add(place)
    return found, apart


def _merged(word: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """A word from its bytes on, merged as long as a merge is known, the earliest first."""
    parts = [word[place:place + 1] for place in range(len(word))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[place] + parts[place + 1], 1 << 62), place) for place in range(len(parts) - 1))
        if best == 1 << 62:
            return parts
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _bytes_of_letters(word: str, kind: int) -> bytes:
    numbers = _numbers()
    if kind in (CONTROL, USER_DEFINED, UNUSED) or any(letter not in numbers for letter in word):
        return raw(word)
    return bytes(numbers[letter] for letter in word)


# ---- back

SPELLINGS = {"llama": _piece, "gpt2": _bytes_of_letters}


def as_bytes(keys: Mapping[str, Any], count: int) -> tuple[list[str], list[float], bool]:
    """`count` words and their scores as a GGML file has them, of the keys of GGUF; False where the tokenizer is of a kind that such files do not hold, and
    the words are empty then. Merges become scores: the earlier, the better."""
    spelling = SPELLINGS.get(str(keys.get(KEY + "model")))
    if spelling is None or KEY + "tokens" not in keys:
        return [""] * count, [0.0] * count, False
    tokens = list(keys[KEY + "tokens"])[:count]
    types = [*keys.get(KEY + "token_type", ()), *[NORMAL] * len(tokens)]
    words = [text(spelling(word, kind)) for word, kind in zip(tokens, types, strict=False)]
    scores = [*map(float, keys.get(KEY + "scores") or (-place for place in range(len(words))))][:len(words)]
    missing = count - len(words)
    return words + [""] * missing, scores + [0.0] * missing, True
