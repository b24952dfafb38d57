"""The families, as data. Names: transformers' models/*/modeling_*.py and llama.cpp's gguf-py/gguf/tensor_mapping.py; changes: llama.cpp's conversion/*.py.

A row is (name in Hugging Face, name in GGUF, change); {} is the number of the layer. Changes: "query" and "key" reorder the rows of rotary heads,
"plus one" adds 1 to a norm, "transposed" exchanges the axes.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Family:
    """One architecture: GGUF's name, the classes of transformers, the rows, names that are computed and so left out, other spellings in config.json."""

    name: str
    model_type: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)

    def spelled(self, name: str) -> str:
        return self.spelling.get(name, name)

    def ignored(self, name: str) -> bool:
        return name.endswith(self.left_out) if self.left_out else False


# config.json -> key of GGUF
KEYS = (
    ("vocab_size", "{arch}.vocab_size"), ("max_position_embeddings", "{arch}.context_length"), ("hidden_size", "{arch}.embedding_length"),
    ("num_hidden_layers", "{arch}.block_count"), ("intermediate_size", "{arch}.feed_forward_length"), ("num_attention_heads", "{arch}.attention.head_count"),
    ("num_key_value_heads", "{arch}.attention.head_count_kv"), ("head_dim", "{arch}.attention.key_length"), ("rope_theta", "{arch}.rope.freq_base"),
    ("rms_norm_eps", "{arch}.attention.layer_norm_rms_epsilon"), ("layer_norm_eps", "{arch}.attention.layer_norm_epsilon"),
    ("sliding_window", "{arch}.attention.sliding_window"), ("attn_logit_softcapping", "{arch}.attn_logit_softcapping"),
    ("final_logit_softcapping", "{arch}.final_logit_softcapping"), ("embedding_multiplier", "{arch}.embedding_scale"),
    ("residual_multiplier", "{arch}.residual_scale"), ("attention_multiplier", "{arch}.attention.scale"), ("logits_scaling", "{arch}.logit_scale"),
)


def _both(hf: str, gguf: str, change: str = "", *, bias: bool = True) -> tuple[Row, ...]:
    """A row for the weight and one for the bias."""
    return tuple((f"{hf}.{part}", f"{gguf}.{part}", change) for part in (("weight", "bias") if bias else ("weight",)))


def _llama_like(query: str = "", key: str = "", norm: str = "", *, fused: bool = False, tied: bool = False, centred: bool = False) -> tuple[Row, ...]:
    """`centred`: norms that have a bias."""
    layer, block = "model.layers.{}.", "blk.{}."
    attention = (_both(layer + "self_attn.qkv_proj", block + "attn_qkv") if fused else
                 _both(layer + "self_attn.q_proj", block + "attn_q", query) + _both(layer + "self_attn.k_proj", block + "attn_k", key)
                 + _both(layer + "self_attn.v_proj", block + "attn_v"))
    inner = _both(layer + "mlp.gate_up_proj", block + "ffn_up") if fused else (
        _both(layer + "mlp.gate_proj", block + "ffn_gate") + _both(layer + "mlp.up_proj", block + "ffn_up"))
    head = () if tied else (("lm_head.weight", "output.weight", ""),)
    norms = (("model.norm", "output_norm"), (layer + "input_layernorm", block + "attn_norm"), (layer + "post_attention_layernorm", block + "ffn_norm"))
    return (("model.embed_tokens.weight", "token_embd.weight", ""), *head, *(row for hf, gguf in norms for row in _both(hf, gguf, norm, bias=centred)),
            *attention, *_both(layer + "self_attn.o_proj", block + "attn_output"), *inner, *_both(layer + "mlp.down_proj", block + "ffn_down"))


def _head_norms() -> tuple[Row, ...]:
    """Norms of queries and keys, one size a head."""
    return tuple((f"model.layers.{{}}.self_attn.{part}_norm.weight", f"blk.{{}}.attn_{part}_norm.weight", "") for part in "qk")


def _gemma2() -> tuple[Row, ...]:
    """As Gemma, with norms on both sides of attention and of the inner layer."""
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
             "post_feedforward_layernorm": "post_ffw_norm"}
    others = tuple(row for row in _llama_like(norm="plus one", tied=True) if "layernorm" not in row[0])
    return (*others, *((f"model.layers.{{}}.{hf}.weight", f"blk.{{}}.{gguf}.weight", "plus one") for hf, gguf in norms.items()))


def _gemma3() -> tuple[Row, ...]:
    """As Gemma 2, with norms of queries and keys."""
    return (*_gemma2(), *((hf, gguf, "plus one") for hf, gguf, _ in _head_norms()))


def _olmo2() -> tuple[Row, ...]:
    """Norms behind attention and behind the inner layer, none before them."""
    norms = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
    others = tuple(row for row in _llama_like() if "layernorm" not in row[0])
    return (*others, *_head_norms(), *((f"model.layers.{{}}.{hf}.weight", f"blk.{{}}.{gguf}.weight", "") for hf, gguf in norms.items()))


def _named(pairs: Mapping[str, str], *, last: str) -> tuple[Row, ...]:
    """A family whose layers have weights and biases throughout: {name in a layer of Hugging Face: name in a block of GGUF}; `last` is the last norm."""
    layers = (row for hf, gguf in pairs.items() for row in _both(f"model.layers.{{}}.{hf}", f"blk.{{}}.{gguf}"))
    return (("model.embed_tokens.weight", "token_embd.weight", ""), *_both(f"model.{last}", "output_norm"), *_both("lm_head", "output"), *layers)


ATTENTION = {f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"}


def _gpt2() -> tuple[Row, ...]:
    """The layers of GPT-2 hold their matrices as [in, out]. Some files leave out the prefix, which GGUF does not keep, so one form is written back."""
    rows: list[Row] = [("transformer.wte.weight", "token_embd.weight", ""), ("transformer.wpe.weight", "position_embd.weight", ""),
                       ("lm_head.weight", "output.weight", ""), *_both("transformer.ln_f", "output_norm")]
    for hf, gguf in (("ln_1", "attn_norm"), ("ln_2", "ffn_norm")):
        rows += _both(f"transformer.h.{{}}.{hf}", f"blk.{{}}.{gguf}")
    for hf, gguf in (("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"), ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")):
        rows += [(f"transformer.h.{{}}.{hf}.weight", f"blk.{{}}.{gguf}.weight", "transposed"), (f"transformer.h.{{}}.{hf}.bias", f"blk.{{}}.{gguf}.bias", "")]
    return (*rows, *((hf.removeprefix("transformer."), gguf, change) for hf, gguf, change in rows if hf.startswith("transformer.")))


def _bert() -> tuple[Row, ...]:
    rows: list[Row] = [("embeddings.word_embeddings.weight", "token_embd.weight", ""), ("embeddings.position_embeddings.weight", "position_embd.weight", ""),
                       ("embeddings.token_type_embeddings.weight", "token_types.weight", ""), *_both("embeddings.LayerNorm", "token_embd_norm")]
    for hf, gguf in (("attention.self.query", "attn_q"), ("attention.self.key", "attn_k"), ("attention.self.value", "attn_v"),
                     ("attention.output.dense", "attn_output"), ("attention.output.LayerNorm", "attn_output_norm"), ("intermediate.dense", "ffn_up"),
                     ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm")):
        rows += _both(f"encoder.layer.{{}}.{hf}", f"blk.{{}}.{gguf}")
    return (*rows, *(("bert." + hf, gguf, change) for hf, gguf, change in rows))


FAMILIES: dict[str, Family] = {family.name: family for family in (
    Family("llama", "llama", ("LlamaForCausalLM", "LlamaModel", "MistralForCausalLM"), _llama_like("query", "key"),
           ("rotary_emb.inv_freq", "rope_freqs.weight")),
    Family("qwen2", "qwen2", ("Qwen2ForCausalLM", "Qwen2Model"), _llama_like(), ("rotary_emb.inv_freq",)),
    Family("gemma", "gemma", ("GemmaForCausalLM",), _llama_like(norm="plus one", tied=True), ("rotary_emb.inv_freq", "lm_head.weight")),
    Family("gemma2", "gemma2", ("Gemma2ForCausalLM",), _gemma2(), ("rotary_emb.inv_freq", "lm_head.weight")),
    Family("qwen3", "qwen3", ("Qwen3ForCausalLM", "Qwen3Model"), (*_llama_like(), *_head_norms()), ("rotary_emb.inv_freq",)),
    Family("smollm3", "smollm3", ("SmolLM3ForCausalLM",), _llama_like("query", "key"), ("rotary_emb.inv_freq",)),
    Family("phi3", "phi3", ("Phi3ForCausalLM",), _llama_like(fused=True), ("rotary_emb.inv_freq",)),
    Family("gemma3", "gemma3_text", ("Gemma3ForCausalLM",), _gemma3(), ("rotary_emb.inv_freq", "lm_head.weight")),
    Family("olmo2", "olmo2", ("Olmo2ForCausalLM",), _olmo2(), ("rotary_emb.inv_freq",)),
    Family("granite", "granite", ("GraniteForCausalLM",), _llama_like("query", "key"), ("rotary_emb.inv_freq",)),
    Family("stablelm", "stablelm", ("StableLmForCausalLM",), _llama_like(centred=True), ("rotary_emb.inv_freq",)),
    Family("starcoder2", "starcoder2", ("Starcoder2ForCausalLM",), _named(
        {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", **ATTENTION, "self_attn.o_proj": "attn_output", "mlp.c_fc": "ffn_up",
         "mlp.c_proj": "ffn_down"}, last="norm"), ("rotary_emb.inv_freq",), {"layer_norm_eps": "norm_epsilon"}),
    Family("phi2", "phi", ("PhiForCausalLM",), _named(
        {"input_layernorm": "attn_norm", **ATTENTION, "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"}, last="final_layernorm"),
        ("rotary_emb.inv_freq",)),
    Family("gpt2", "gpt2", ("GPT2LMHeadModel", "GPT2Model"), _gpt2(), (".attn.bias", ".attn.masked_bias"),
           {"max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
            "intermediate_size": "n_inner", "layer_norm_eps": "layer_norm_epsilon"}),
    Family("bert", "bert", ("BertModel", "BertForMaskedLM"), _bert(), ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")),
)}

# What llama.cpp wrote before GGUF: Meta's own names, and heads that are laid out as ggml rotates them already.
GGML_LLAMA = Family("llama", "llama", (), (
    ("tok_embeddings.weight", "token_embd.weight", ""), ("norm.weight", "output_norm.weight", ""), ("output.weight", "output.weight", ""),
    *((f"layers.{{}}.{old}.weight", f"blk.{{}}.{new}.weight", "") for old, new in (
        ("attention_norm", "attn_norm"), ("attention.wq", "attn_q"), ("attention.wk", "attn_k"), ("attention.wv", "attn_v"), ("attention.wo", "attn_output"),
        ("ffn_norm", "ffn_norm"), ("feed_forward.w1", "ffn_gate"), ("feed_forward.w2", "ffn_down"), ("feed_forward.w3", "ffn_up")))))
