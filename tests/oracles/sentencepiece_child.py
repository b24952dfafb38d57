"""Runs inside an environment that has sentencepiece.

    python sentencepiece_child.py train CORPUS.txt FOLDER        a model of each kind in FOLDER, NAME/tokenizer.model
    python sentencepiece_child.py encode TEXTS.json FILE ...     the tokens of all texts by each model, as JSON, a line each
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import sentencepiece

KINDS = {
    "bpe": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True},
    "bpe-cleaned": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc"},
    "unigram": {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "unigram-bytes": {"model_type": "unigram", "byte_fallback": True, "add_dummy_prefix": False, "normalization_rule_name": "identity"},
}


def train(corpus: str, folder: str) -> None:
    for name, settings in KINDS.items():
        place = Path(folder) / name
        place.mkdir(parents=True)
        sentencepiece.SentencePieceTrainer.train(input=corpus, model_prefix=str(place / "tokenizer"), vocab_size=600, minloglevel=2, num_threads=1, **settings)


def encode(texts: str, *paths: str) -> None:
    for path in paths:
        print(json.dumps(sentencepiece.SentencePieceProcessor(model_file=path).encode(json.loads(Path(texts).read_text()))))


if __name__ == "__main__":
    {"train": train, "encode": encode}[sys.argv[1]](*sys.argv[2:])
