"""Runs in the environment of PyTorch: small transformers with random weights, traced and exported with open axes, and what they compute at three sizes.

python transformers_child.py FOLDER        writes NAME.jit, NAME.pt2 and NAME.npz with the arrays SIZE/in/PLACE and SIZE/out/PLACE
"""
from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

SIZES = ((2, 7), (3, 11), (1, 5))                     # batch and sequence; the first is what is traced
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 100, "max_position_embeddings": 64}
GROUPED = {**TEXT, "num_key_value_heads": 2}
PICTURE = {**SMALL, "image_size": 32, "patch_size": 8}
BATCH, SEQUENCE = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("sequence", min=2, max=64)
SOURCE, IMAGES = torch.export.Dim("source", min=2, max=64), torch.export.Dim("images", min=1, max=64)
ROWS = {0: BATCH, 1: SEQUENCE}


class Named(torch.nn.Module):
    """A model called with keywords, and chosen parts of what it gives."""

    def __init__(self, model: torch.nn.Module, results: tuple[str, ...], **fixed: Any):
        super().__init__()
        self.model, self.results, self.fixed = model, results, fixed

    def pick(self, **given: Any) -> Any:
        answer = self.model(**given, **self.fixed)
        return tuple(getattr(answer, name) for name in self.results)


class Text(Named):
    def forward(self, input_ids, attention_mask):
        return self.pick(input_ids=input_ids, attention_mask=attention_mask)


class Decoder(Named):
    def forward(self, input_ids, encoder_hidden_states):
        return self.pick(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states)


class Picture(Named):
    def forward(self, pixel_values):
        return self.pick(pixel_values=pixel_values)


class Sound(Named):
    def forward(self, input_features):
        return self.pick(input_features=input_features)


class Both(Named):
    def forward(self, input_ids, attention_mask, pixel_values):
        return self.pick(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)


def words(batch: int, length: int) -> tuple[torch.Tensor, ...]:
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length - 2:] = 0 if batch > 1 else 1
    return torch.randint(3, 100, (batch, length)), mask


def models() -> dict[str, tuple[torch.nn.Module, Any, Any]]:
    """name -> module, its inputs for a batch and a length, its open axes."""
    t5 = hf.T5Model(hf.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))
    whisper = hf.WhisperModel(hf.WhisperConfig(
        vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, num_mel_bins=16, max_source_positions=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1))
    clip = hf.CLIPModel(hf.CLIPConfig(text_config={**TEXT, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}, vision_config=PICTURE, projection_dim=16))
    last, logits, text = ("last_hidden_state",), ("logits",), {"input_ids": ROWS, "attention_mask": ROWS}
    return {
        "bert": (Text(hf.BertModel(hf.BertConfig(**TEXT)), (*last, "pooler_output")), words, text),
        "roberta": (Text(hf.RobertaModel(hf.RobertaConfig(**TEXT)), last), words, text),
        "distilbert": (Text(hf.DistilBertModel(hf.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64)), last), words, text),
        "gpt2": (Text(hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=4)), logits, use_cache=False), words, text),
        "llama": (Text(hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)), logits, use_cache=False), words, text),
        "qwen2": (Text(hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)), logits, use_cache=False), words, text),
        "t5_encoder": (Text(t5.encoder, last), words, text),
        "t5_decoder": (Decoder(t5.decoder, last, use_cache=False), lambda b, n: (words(b, n)[0], torch.randn(b, n + 3, 32)),
                       {"input_ids": ROWS, "encoder_hidden_states": {0: BATCH, 1: SOURCE}}),
        "vit": (Picture(hf.ViTModel(hf.ViTConfig(**PICTURE)), (*last, "pooler_output")), lambda b, n: (torch.randn(b, 3, 32, 32),),
                {"pixel_values": {0: BATCH}}),
        "whisper_encoder": (Sound(whisper.encoder, last), lambda b, n: (torch.randn(b, 16, 100),), {"input_features": {0: BATCH}}),
        "clip": (Both(clip, ("logits_per_image", "text_embeds", "image_embeds")), lambda b, n: (*words(b, n), torch.randn(b + 1, 3, 32, 32)),
                 {**text, "pixel_values": {0: IMAGES}}),
    }


def main(folder: Path) -> None:
    torch.manual_seed(0)
    for name, (model, inputs, axes) in models().items():
        model = model.eval()
        with torch.no_grad():
            arrays = {}
            for size, (batch, length) in enumerate(SIZES):
                given = inputs(batch, length)
                arrays |= {f"{size}/in/{place}": value.numpy() for place, value in enumerate(given)}
                arrays |= {f"{size}/out/{place}": value.numpy() for place, value in enumerate(model(*given))}
            np.savez(folder / f"{name}.npz", **arrays)
            example = inputs(*SIZES[0])
            torch.jit.trace(model, example, check_trace=False, strict=False).save(str(folder / f"{name}.jit"))
            torch.export.save(torch.export.export(model, example, dynamic_shapes=axes), str(folder / f"{name}.pt2"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
