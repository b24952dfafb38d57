"""The families, as data. Names: transformers' models/*/modeling_*.py and llama.cpp's gguf-py/gguf/tensor_mapping.py; changes: llama.cpp's conversion/*.py.

A row is (name in Hugging Face, name in GGUF, change); {} is the number of the layer, and a second {} that of an expert, whose matrices GGUF keeps stacked
under the name `_exps`. What the changes do stands in `changes`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Family:
    """One architecture: GGUF's name, the classes of transformers, the rows, names that are computed and so left out, other spellings in config.json.

    `keys` are rows beside `KEYS` that only it has; `constants` are keys whose value GGUF asks for and config.json does not say. `mark` tells families apart
    that share a class or a name in GGUF: parts of the names of tensors, in Hugging Face and in GGUF, that only this one has. `derived` makes of config.json
    what it does not spell out.
    """

    name: str
    model_type: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[tuple[str, str], ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    mark: tuple[str, str] = ("", "")
    derived: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None

    def spelled(self, name: str) -> str:
        return self.spelling.get(name, name)

    def entries(self) -> Iterator[tuple[str, str, str]]:
        """(the usual name of an entry of config.json, this family's name of it, the key of GGUF), for those that both have."""
        for name, key in KEYS:
            if self.spelled(name):
                yield name, self.spelled(name), key.format(arch=self.name)
        yield from ((name, name, key) for name, key in self.keys)

    def ignored(self, name: str) -> bool:
        return name.endswith(self.left_out) if self.left_out else False


# config.json -> key of GGUF
KEYS = (
    ("vocab_size", "{arch}.vocab_size"), ("max_position_embeddings", "{arch}.context_length"), ("hidden_size", "{arch}.embedding_length"),
    ("num_hidden_layers", "{arch}.block_count"), ("intermediate_size", "{arch}.feed_forward_length"), ("num_attention_heads", "{arch}.attention.head_count"),
    ("num_key_value_heads", "{arch}.attention.head_count_kv"), ("head_dim", "{arch}.attention.key_length"), ("head_dim", "{arch}.attention.value_length"),
    ("rope_theta", "{arch}.rope.freq_base"),
    ("rms_norm_eps", "{arch}.attention.layer_norm_rms_epsilon"), ("layer_norm_eps", "{arch}.attention.layer_norm_epsilon"),
    ("sliding_window", "{arch}.attention.sliding_window"), ("attn_logit_softcapping", "{arch}.attn_logit_softcapping"),
    ("final_logit_softcapping", "{arch}.final_logit_softcapping"), ("embedding_multiplier", "{arch}.embedding_scale"),
    ("residual_multiplier", "{arch}.residual_scale"), ("attention_multiplier", "{arch}.attention.scale"), ("logits_scaling", "{arch}.logit_scale"),
    ("num_local_experts", "{arch}.expert_count"), ("num_experts_per_tok", "{arch}.expert_used_count"), ("norm_topk_prob", "{arch}.expert_weights_norm"),
    ("use_parallel_residual", "{arch}.use_parallel_residual"),
)

FLAGS = frozenset({"norm_topk_prob", "use_parallel_residual", "scale_decoder_outputs"})      # those that are true or false


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
    """The pooler is GGUF's `cls`: what is multiplied with the first word before a tanh."""
    rows: list[Row] = [("embeddings.word_embeddings.weight", "token_embd.weight", ""), ("embeddings.position_embeddings.weight", "position_embd.weight", ""),
                       ("embeddings.token_type_embeddings.weight", "token_types.weight", ""), *_both("embeddings.LayerNorm", "token_embd_norm"),
                       *_both("pooler.dense", "cls")]
    for hf, gguf in (("attention.self.query", "attn_q"), ("attention.self.key", "attn_k"), ("attention.self.value", "attn_v"),
                     ("attention.output.dense", "attn_output"), ("attention.output.LayerNorm", "attn_output_norm"), ("intermediate.dense", "ffn_up"),
                     ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm")):
        rows += _both(f"encoder.layer.{{}}.{hf}", f"blk.{{}}.{gguf}")
    return (*rows, *(("bert." + hf, gguf, change) for hf, gguf, change in rows))


def _nomic_bert() -> tuple[Row, ...]:
    rows: list[Row] = [("embeddings.word_embeddings.weight", "token_embd.weight", ""), ("embeddings.token_type_embeddings.weight", "token_types.weight", ""),
                       *_both("emb_ln", "token_embd_norm")]
    for hf, gguf in (("attn.Wqkv", "attn_qkv"), ("attn.out_proj", "attn_output"), ("norm1", "attn_output_norm"), ("mlp.fc11", "ffn_up"),
                     ("mlp.fc12", "ffn_gate"), ("mlp.fc2", "ffn_down"), ("norm2", "layer_output_norm")):
        rows += _both(f"encoder.layers.{{}}.{hf}", f"blk.{{}}.{gguf}")
    return tuple(rows)


def _mixtral() -> tuple[Row, ...]:
    """As llama, with a choice of experts in the place of the inner layer."""
    layer, block = "model.layers.{}.block_sparse_moe.", "blk.{}."
    experts = tuple((f"{layer}experts.{{}}.{hf}.weight", f"{block}{gguf}.{{}}.weight", "")
                    for hf, gguf in (("w1", "ffn_gate"), ("w2", "ffn_down"), ("w3", "ffn_up")))
    return (*_without_inner(_llama_like("query", "key")), (layer + "gate.weight", block + "ffn_gate_inp.weight", ""), *experts)


def _qwen2_moe() -> tuple[Row, ...]:
    """As Qwen 2, with a choice of experts and one that is always asked."""
    layer, block, parts = "model.layers.{}.mlp.", "blk.{}.", ("gate", "up", "down")
    experts = tuple((f"{layer}experts.{{}}.{part}_proj.weight", f"{block}ffn_{part}.{{}}.weight", "") for part in parts)
    shared = tuple((f"{layer}shared_expert.{part}_proj.weight", f"{block}ffn_{part}_shexp.weight", "") for part in parts)
    return (*_without_inner(_llama_like()), (layer + "gate.weight", block + "ffn_gate_inp.weight", ""), *experts, *shared,
            (layer + "shared_expert_gate.weight", block + "ffn_gate_inp_shexp.weight", "row"))


def _without_inner(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(row for row in rows if ".mlp." not in row[0])


def _gpt_neox() -> tuple[Row, ...]:
    rows: list[Row] = [("gpt_neox.embed_in.weight", "token_embd.weight", ""), ("embed_out.weight", "output.weight", ""),
                       *_both("gpt_neox.final_layer_norm", "output_norm"),
                       *_both("gpt_neox.layers.{}.attention.query_key_value", "blk.{}.attn_qkv", "grouped")]
    for hf, gguf in (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"), ("attention.dense", "attn_output"),
                     ("mlp.dense_h_to_4h", "ffn_up"), ("mlp.dense_4h_to_h", "ffn_down")):
        rows += _both(f"gpt_neox.layers.{{}}.{hf}", f"blk.{{}}.{gguf}")
    return tuple(rows)


def _gpt_j() -> tuple[Row, ...]:
    rows: list[Row] = [("transformer.wte.weight", "token_embd.weight", ""), *_both("lm_head", "output"), *_both("transformer.ln_f", "output_norm")]
    for hf, gguf in (("ln_1", "attn_norm"), ("attn.q_proj", "attn_q"), ("attn.k_proj", "attn_k"), ("attn.v_proj", "attn_v"), ("attn.out_proj", "attn_output"),
                     ("mlp.fc_in", "ffn_up"), ("mlp.fc_out", "ffn_down")):
        rows += _both(f"transformer.h.{{}}.{hf}", f"blk.{{}}.{gguf}", bias=gguf.startswith(("attn_norm", "ffn")))
    return tuple(rows)


def _falcon(norms: Mapping[str, str]) -> tuple[Row, ...]:
    rows: list[Row] = [("transformer.word_embeddings.weight", "token_embd.weight", ""), ("lm_head.weight", "output.weight", ""),
                       *_both("transformer.ln_f", "output_norm"), *_both("transformer.h.{}.self_attention.query_key_value", "blk.{}.attn_qkv", "grouped")]
    for hf, gguf in {**norms, "self_attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}.items():
        rows += _both(f"transformer.h.{{}}.{hf}", f"blk.{{}}.{gguf}")
    return tuple(rows)


def _falcon_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """How many heads hold keys is said by three entries, the width of the inner layer only sometimes."""
    heads, width = config.get("num_attention_heads", 0), config.get("hidden_size", 0)
    one = config.get("multi_query", True) and not config.get("new_decoder_architecture", False)
    return {"num_key_value_heads": 1 if one else config.get("num_kv_heads") or heads, "intermediate_size": config.get("ffn_hidden_size") or 4 * width,
            "max_position_embeddings": config.get("max_position_embeddings", 2048)}


T5_LAYERS = {
    "encoder": {"layer.0.SelfAttention.q": "attn_q", "layer.0.SelfAttention.k": "attn_k", "layer.0.SelfAttention.v": "attn_v",
                "layer.0.SelfAttention.o": "attn_o", "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b", "layer.0.layer_norm": "attn_norm",
                "layer.1.DenseReluDense.wi_0": "ffn_gate", "layer.1.DenseReluDense.wi_1": "ffn_up", "layer.1.DenseReluDense.wi": "ffn_up",
                "layer.1.DenseReluDense.wo": "ffn_down", "layer.1.layer_norm": "ffn_norm"},
    "decoder": {"layer.0.SelfAttention.q": "attn_q", "layer.0.SelfAttention.k": "attn_k", "layer.0.SelfAttention.v": "attn_v",
                "layer.0.SelfAttention.o": "attn_o", "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b", "layer.0.layer_norm": "attn_norm",
                "layer.1.EncDecAttention.q": "cross_attn_q", "layer.1.EncDecAttention.k": "cross_attn_k", "layer.1.EncDecAttention.v": "cross_attn_v",
                "layer.1.EncDecAttention.o": "cross_attn_o", "layer.1.layer_norm": "cross_attn_norm",
                "layer.2.DenseReluDense.wi_0": "ffn_gate", "layer.2.DenseReluDense.wi_1": "ffn_up", "layer.2.DenseReluDense.wi": "ffn_up",
                "layer.2.DenseReluDense.wo": "ffn_down", "layer.2.layer_norm": "ffn_norm"},
}


def _t5(*, gated: bool) -> tuple[Row, ...]:
    """Encoder and decoder; `gated` layers have two matrices before the activation, plain ones have one."""
    rows: list[Row] = [("shared.weight", "token_embd.weight", ""), ("lm_head.weight", "output.weight", "")]
    for side, layers in T5_LAYERS.items():
        rows.append((f"{side}.final_layer_norm.weight", f"{side[:3]}.output_norm.weight", ""))
        rows += [(f"{side}.block.{{}}.{hf}.weight", f"{side[:3]}.blk.{{}}.{gguf}.weight", "") for hf, gguf in layers.items()
                 if "DenseReluDense.wi" not in hf or hf.endswith("wi") != gated]
    return tuple(rows)


def _mamba() -> tuple[Row, ...]:
    layer, block = "backbone.layers.{}.", "blk.{}."
    rows: list[Row] = [("backbone.embeddings.weight", "token_embd.weight", ""), ("lm_head.weight", "output.weight", ""),
                       ("backbone.norm_f.weight", "output_norm.weight", ""), (layer + "norm.weight", block + "attn_norm.weight", ""),
                       (layer + "mixer.conv1d.weight", block + "ssm_conv1d.weight", "channel"), (layer + "mixer.conv1d.bias", block + "ssm_conv1d.bias", ""),
                       (layer + "mixer.A_log", block + "ssm_a", "decay"), (layer + "mixer.D", block + "ssm_d", "")]
    for hf, gguf in (("in_proj", "ssm_in"), ("x_proj", "ssm_x"), ("dt_proj", "ssm_dt"), ("out_proj", "ssm_out")):
        rows += _both(f"{layer}mixer.{hf}", f"{block}{gguf}")
    return tuple(rows)


def _rwkv() -> tuple[Row, ...]:
    """RWKV 4, which llama.cpp does not run; the names are those of its later versions."""
    layer, block = "rwkv.blocks.{}.", "blk.{}."
    rows: list[Row] = [("rwkv.embeddings.weight", "token_embd.weight", ""), ("head.weight", "output.weight", ""), *_both("rwkv.ln_out", "output_norm"),
                       *_both("rwkv.blocks.0.pre_ln", "token_embd_norm"), *_both(layer + "ln1", block + "attn_norm"),
                       *_both(layer + "ln2", block + "attn_norm_2"), (layer + "attention.time_decay", block + "time_mix_decay.weight", ""),
                       (layer + "attention.time_first", block + "time_mix_first.weight", "")]
    for part, gguf, mixed in (("attention", "time_mix", ("key", "value", "receptance")), ("feed_forward", "channel_mix", ("key", "receptance"))):
        rows += [(f"{layer}{part}.time_mix_{name}", f"{block}{gguf}_lerp_{name[0]}.weight", "line") for name in mixed]
    rows += [(f"{layer}attention.{name}.weight", f"{block}time_mix_{name}.weight", "") for name in ("key", "value", "receptance", "output")]
    rows += [(f"{layer}feed_forward.{name}.weight", f"{block}channel_mix_{name}.weight", "") for name in ("key", "value", "receptance")]
    return tuple(rows)


ROTARY = ("rotary_emb.inv_freq",)
GPT_SPELLING = {"max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
                "intermediate_size": "n_inner", "layer_norm_eps": "layer_norm_epsilon"}
EXPERTS = {"num_local_experts": "num_experts"}
T5_SPELLING = {"hidden_size": "d_model", "intermediate_size": "d_ff", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads",
               "head_dim": "d_kv", "rms_norm_eps": "layer_norm_epsilon", "max_position_embeddings": "n_positions"}
T5_KEYS = (("num_decoder_layers", "t5.decoder_block_count"), ("relative_attention_num_buckets", "t5.attention.relative_buckets_count"),
           ("relative_attention_max_distance", "t5.attention.relative_max_distance"), ("layer_norm_epsilon", "t5.attention.layer_norm_epsilon"),
           ("decoder_start_token_id", "t5.decoder_start_token_id"), ("scale_decoder_outputs", "t5.scale_decoder_outputs"))
T5_CONSTANTS = {"t5.context_length": 512, "t5.decoder_start_token_id": 0}
TYPES = (("type_vocab_size", "tokenizer.ggml.token_type_count"),)
FAMILIES: dict[str, Family] = {
    "mixtral": Family("llama", "mixtral", ("MixtralForCausalLM",), _mixtral(), ROTARY, mark=("experts.", "ffn_gate_inp")),
    "falcon-40b": Family("falcon", "falcon", ("FalconForCausalLM",), _falcon({"ln_mlp": "attn_norm", "ln_attn": "attn_norm_2"}), ROTARY,
                         {"layer_norm_eps": "layer_norm_epsilon"}, mark=("ln_attn", "attn_norm_2"), derived=_falcon_config),
    "t5-1.1": Family("t5", "t5", ("T5ForConditionalGeneration",), _t5(gated=True), ("embed_tokens.weight",), T5_SPELLING, T5_KEYS, T5_CONSTANTS,
                     ("wi_0", "ffn_gate")),
} | {family.name: family for family in (
    Family("llama", "llama", ("LlamaForCausalLM", "LlamaModel", "MistralForCausalLM"), _llama_like("query", "key"),
           ("rotary_emb.inv_freq",)),
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
    Family("gpt2", "gpt2", ("GPT2LMHeadModel", "GPT2Model"), _gpt2(), (".attn.bias", ".attn.masked_bias"), GPT_SPELLING,
           derived=lambda config: {"n_inner": config.get("n_inner") or 4 * config.get("n_embd", 0)}),
    Family("gptj", "gptj", ("GPTJForCausalLM",), _gpt_j(), (".attn.bias", ".attn.masked_bias", ".attn.embed_positions"), GPT_SPELLING,
           (("rotary_dim", "gptj.rope.dimension_count"),), derived=lambda config: {"n_inner": config.get("n_inner") or 4 * config.get("n_embd", 0)}),
    Family("qwen2moe", "qwen2_moe", ("Qwen2MoeForCausalLM",), _qwen2_moe(), ROTARY, EXPERTS,
           (("moe_intermediate_size", "qwen2moe.expert_feed_forward_length"),
            ("shared_expert_intermediate_size", "qwen2moe.expert_shared_feed_forward_length"))),
    Family("gptneox", "gpt_neox", ("GPTNeoXForCausalLM",), _gpt_neox(), (*ROTARY, ".attention.bias", ".attention.masked_bias")),
    Family("falcon", "falcon", ("FalconForCausalLM",), _falcon({"input_layernorm": "attn_norm"}), ROTARY,
           {"layer_norm_eps": "layer_norm_epsilon"}, derived=_falcon_config),
    Family("bert", "bert", ("BertModel", "BertForMaskedLM"), _bert(), ("embeddings.position_ids",),
           keys=TYPES, constants={"bert.attention.causal": False}),
    Family("nomic-bert", "nomic_bert", ("NomicBertModel",), _nomic_bert(), ("embeddings.position_ids",),
           keys=TYPES, constants={"nomic-bert.attention.causal": False}),
    Family("t5", "t5", ("T5ForConditionalGeneration",), _t5(gated=False), ("embed_tokens.weight",), T5_SPELLING, T5_KEYS, T5_CONSTANTS),
    Family("mamba", "mamba", ("MambaForCausalLM",), _mamba(), (),
           {"rms_norm_eps": "layer_norm_epsilon", "intermediate_size": "", "max_position_embeddings": ""},
           (("conv_kernel", "mamba.ssm.conv_kernel"), ("intermediate_size", "mamba.ssm.inner_size"), ("state_size", "mamba.ssm.state_size"),
            ("time_step_rank", "mamba.ssm.time_step_rank")),
           {"mamba.context_length": 1 << 20, "mamba.feed_forward_length": 0, "mamba.attention.head_count": 0}),
    Family("rwkv", "rwkv", ("RwkvForCausalLM",), _rwkv(), (), {"max_position_embeddings": "context_length", "layer_norm_eps": "layer_norm_epsilon"},
           (("rescale_every", "rwkv.rescale_every_n_layers"), ("attention_hidden_size", "rwkv.attention.inner_size")),
           {"rwkv.architecture_version": 4, "rwkv.attention.head_count": 0}),
)}

# What llama.cpp wrote before GGUF: Meta's own names, and heads that are laid out as ggml rotates them already.
GGML_LLAMA = Family("llama", "llama", (), (
    ("tok_embeddings.weight", "token_embd.weight", ""), ("norm.weight", "output_norm.weight", ""), ("output.weight", "output.weight", ""),
    *((f"layers.{{}}.{old}.weight", f"blk.{{}}.{new}.weight", "") for old, new in (
        ("attention_norm", "attn_norm"), ("attention.wq", "attn_q"), ("attention.wk", "attn_k"), ("attention.wv", "attn_v"), ("attention.wo", "attn_output"),
        ("ffn_norm", "ffn_norm"), ("feed_forward.w1", "ffn_gate"), ("feed_forward.w2", "ffn_down"), ("feed_forward.w3", "ffn_up")))))


def _ggml_gpt2() -> tuple[Row, ...]:
    """TensorFlow's names, with matrices as [out, in]."""
    rows: list[Row] = [("model/wte", "token_embd.weight", ""), ("model/wpe", "position_embd.weight", ""), ("model/lm_head", "output.weight", ""),
                       ("model/ln_f/g", "output_norm.weight", ""), ("model/ln_f/b", "output_norm.bias", "")]
    for ggml, gguf, weight in (("ln_1", "attn_norm", "g"), ("ln_2", "ffn_norm", "g"), ("attn/c_attn", "attn_qkv", "w"), ("attn/c_proj", "attn_output", "w"),
                               ("mlp/c_fc", "ffn_up", "w"), ("mlp/c_proj", "ffn_down", "w")):
        rows += [(f"model/h{{}}/{ggml}/{weight}", f"blk.{{}}.{gguf}.weight", ""), (f"model/h{{}}/{ggml}/b", f"blk.{{}}.{gguf}.bias", "")]
    return tuple(rows)


GGML_GPT2 = Family("gpt2", "gpt2", (), _ggml_gpt2())


def _ggml_rwkv() -> tuple[Row, ...]:
    """rwkv.cpp keeps the author's names, and the decay as it is multiplied with."""
    layer, block = "blocks.{}.", "blk.{}."
    rows: list[Row] = [("emb.weight", "token_embd.weight", ""), ("head.weight", "output.weight", ""), *_both("ln_out", "output_norm"),
                       *_both("blocks.0.ln0", "token_embd_norm"), *_both(layer + "ln1", block + "attn_norm"), *_both(layer + "ln2", block + "attn_norm_2"),
                       (layer + "att.time_decay", block + "time_mix_decay.weight", "logarithm"),
                       (layer + "att.time_first", block + "time_mix_first.weight", "line")]
    for part, gguf, mixed in (("att", "time_mix", "kvr"), ("ffn", "channel_mix", "kr")):
        rows += [(f"{layer}{part}.time_mix_{letter}", f"{block}{gguf}_lerp_{letter}.weight", "line") for letter in mixed]
        products = ("key", "value", "receptance", *(("output",) if part == "att" else ()))
        rows += [(f"{layer}{part}.{name}.weight", f"{block}{gguf}_{name}.weight", "") for name in products]
    return tuple(rows)


GGML_RWKV = Family("rwkv", "rwkv", (), _ggml_rwkv())
