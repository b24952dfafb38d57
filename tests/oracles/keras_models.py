"""Models of several layers, as data: wrappers, cells, masks, attention, shared layers, nested models, states, weights of few bits.

A table has the inputs (shape without the batch, type) and the function from tensors to tensors by the name of the case.
"""
from __future__ import annotations

import numpy as np

F = "float32"
STEPS, TOKENS, PICTURE, ROW = [((5, 4), F)], [((6,), "int32")], [((8, 7, 3), F)], [((4,), F)]
QUERY_VALUE = [((4, 6), F), ((5, 6), F)]
RECURRENT = ("LSTM", "GRU", "SimpleRNN")
BOTH = (True, False)
POLICIES = ("mixed_float16", "float16", "bfloat16", "float64", "mixed_bfloat16")


def functional(K, shapes, function):
    """A model of a function over inputs."""
    inputs = [K.layers.Input(shape, dtype=dtype) for shape, dtype in shapes]
    return K.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))


def builders(K, *tables):
    """(name, function that makes the model) of the rows of tables."""
    for table in tables:
        for name, (shapes, function) in table.items():
            yield name, lambda shapes=shapes, function=function: functional(K, shapes, function)


def composed(K):
    """Every model of this module that a library has the layers for, with a function that makes it."""
    L = K.layers
    yield from builders(K, recurrences(L), masked(L), cells(L), wrapped(K, L), attended(L), adapted(L), combined(K, L))
    yield from whole(K, L).items()
    if K.__name__ == "keras":
        yield from builders(K, grouped(L), modern(L))
        for mode in ("int8", "int4"):
            yield f"quantized-{mode}", lambda mode=mode: quantized(K, L, mode)


def recurrences(L):
    def both_ways(kind, mode, sequences):
        return lambda x: L.Bidirectional(getattr(L, kind)(3, return_sequences=sequences), merge_mode=mode)(x)

    def backwards(x):
        other = L.LSTM(3, activation="relu", return_sequences=True, go_backwards=True)
        return L.Bidirectional(L.LSTM(3, return_sequences=True), backward_layer=other)(x)
    states = [((3,), F), ((3,), F)]
    return {
        **{f"Bidirectional-{kind}-{mode}-{sequences}": (STEPS, both_ways(kind, mode, sequences))
           for mode in ("concat", "sum", "mul", "ave", None) for sequences in BOTH for kind in RECURRENT},
        "Bidirectional-state": (STEPS, lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True, return_state=True))(x)),
        "Bidirectional-backward-layer": (STEPS, backwards),
        "initial-state": ([*STEPS, *states], lambda x, h, c: L.LSTM(3)(x, initial_state=[h, c])),
        "initial-state-gru": ([*STEPS, states[0]], lambda x, h: L.GRU(3, return_sequences=True)(x, initial_state=h)),
        "encoder-decoder": ([*STEPS, *STEPS], lambda x, y: L.LSTM(3, return_sequences=True)(y, initial_state=L.LSTM(3, return_state=True)(x)[1:])),
        "dynamic-length": ([((None, 3), F)], lambda x: L.Bidirectional(L.LSTM(3, return_sequences=True))(x)),
    }


def masked(L):
    """A mask that an Embedding or a Masking makes, through the layers behind it."""
    def words(x, width=5):
        return L.Embedding(4, width, mask_zero=True)(x)

    def recurrent(kind, **settings):
        return lambda x: getattr(L, kind)(3, **settings)(words(x))

    def both_ways(kind, sequences):
        return lambda x: L.Bidirectional(getattr(L, kind)(3, return_sequences=sequences))(words(x))

    def stacked(x):
        return L.Dense(3)(L.LSTM(3)(L.Dropout(0.2)(L.GRU(4, return_sequences=True)(words(x)))))

    def heads(query, value, **settings):
        return L.MultiHeadAttention(2, 3)(query, value, **settings)

    def own_heads(x, **settings):
        embedded = words(x)
        return heads(embedded, embedded, **settings)
    rows = {}
    for kind in RECURRENT:
        for sequences in BOTH:
            rows |= {f"masked-{kind}-{sequences}": (TOKENS, recurrent(kind, return_sequences=sequences)),
                     f"masked-backwards-{kind}-{sequences}": (TOKENS, recurrent(kind, return_sequences=sequences, go_backwards=True)),
                     f"masked-bidirectional-{kind}-{sequences}": (TOKENS, both_ways(kind, sequences))}
    return rows | {
        "masked-stack": (TOKENS, stacked),
        "masked-average": (TOKENS, lambda x: L.GlobalAveragePooling1D()(words(x))),
        "masking-lstm": (STEPS, lambda x: L.LSTM(3)(L.Masking(0.0)(L.ReLU()(x)))),
        "masked-concatenate": (TOKENS, lambda x: L.LSTM(3)(L.Concatenate()([words(x), L.Embedding(4, 2)(x)]))),
        "masked-add": (TOKENS, lambda x: L.LSTM(3)(L.Add()([words(x), L.Embedding(4, 5)(x)]))),
        "masked-softmax": (TOKENS, lambda x: L.Softmax(axis=1)(L.Dense(1)(L.Embedding(4, 5)(x)))),
        "masked-time-distributed": (TOKENS, lambda x: L.LSTM(3)(L.TimeDistributed(L.Dense(4))(words(x)))),
        "masked-attention": (TOKENS, lambda x: L.Attention()([words(x)] * 2)),
        "masked-heads": (TOKENS, own_heads),
        "masked-heads-causal": (TOKENS, lambda x: own_heads(x, use_causal_mask=True)),
        "masked-heads-two": ([*TOKENS, *TOKENS], lambda x, y: heads(words(x), words(y))),
        "masked-heads-values": ([*TOKENS, *TOKENS], lambda x, y: heads(L.Embedding(4, 5)(x), words(y))),
    }


def cells(L):
    kinds = {"lstm": lambda: L.LSTMCell(3), "gru": lambda: L.GRUCell(3), "simple": lambda: L.SimpleRNNCell(3), "stack": lambda: [L.LSTMCell(3), L.GRUCell(4)],
             "deep": lambda: L.StackedRNNCells([L.LSTMCell(3), L.LSTMCell(2)])}
    rows = {}
    for name, cell in kinds.items():
        rows |= {f"RNN-{name}-{sequences}": (STEPS, lambda x, cell=cell, sequences=sequences: L.RNN(cell(), return_sequences=sequences)(x))
                 for sequences in BOTH}
        rows[f"RNN-{name}-masked"] = (TOKENS, lambda x, cell=cell: L.RNN(cell(), return_sequences=True)(L.Embedding(4, 5, mask_zero=True)(x)))
        rows[f"RNN-{name}-state"] = (STEPS, lambda x, cell=cell: L.RNN(cell(), return_state=True)(x)[0])
    return rows


def wrapped(K, L):
    clips = [((4, 6, 7, 2), F)]

    def model():
        return K.Sequential([L.Input((6, 7, 2)), L.Conv2D(3, 3), L.BatchNormalization(), L.GlobalMaxPooling2D()])
    return {
        "TimeDistributed-dense": (STEPS, lambda x: L.TimeDistributed(L.Dense(3, activation="relu"))(x)),
        "TimeDistributed-conv": (clips, lambda x: L.TimeDistributed(L.Conv2D(3, 3, padding="same"))(x)),
        "TimeDistributed-model": (clips, lambda x: L.TimeDistributed(model())(x)),
        "TimeDistributed-lstm": ([((4, 5, 3), F)], lambda x: L.TimeDistributed(L.LSTM(3))(x)),
        "SpectralNormalization": (PICTURE, lambda x: L.SpectralNormalization(L.Conv2D(3, 3))(x)),
        "SpectralNormalization-dense": ([((5,), F)], lambda x: L.SpectralNormalization(L.Dense(3))(x)),
    }


def attended(L):
    def heads(count=2, **settings):
        return L.MultiHeadAttention(count, 3, **settings)

    def scored(scores, bias):
        return lambda q, v: heads(value_dim=4, use_bias=bias)(q, v, return_attention_scores=scores)
    with_mask, volume = [((4, 6), F), ((4, 4), "bool")], [((3, 4, 6), F)]
    return {
        **{f"MultiHeadAttention-{scores}-{bias}": (QUERY_VALUE, scored(scores, bias)) for scores in BOTH for bias in BOTH},
        "MultiHeadAttention-one": (QUERY_VALUE, lambda q, v: heads(1)(q, v)),
        "MultiHeadAttention-key": ([*QUERY_VALUE, ((5, 7), F)], lambda q, v, k: heads(output_shape=5)(q, v, k)),
        "MultiHeadAttention-causal": (STEPS, lambda x: heads()(x, x, use_causal_mask=True)),
        "MultiHeadAttention-causal-dynamic": ([((None, 6), F)], lambda x: heads()(x, x, use_causal_mask=True)),
        "MultiHeadAttention-mask": (with_mask, lambda q, m: heads()(q, q, attention_mask=m)),
        "MultiHeadAttention-mask-causal": (with_mask, lambda q, m: heads()(q, q, attention_mask=m, use_causal_mask=True)),
        "MultiHeadAttention-mask-heads": ([((4, 6), F), ((1, 4, 4), "bool")], lambda q, m: heads()(q, q, attention_mask=m)),
        "MultiHeadAttention-mask-known": ([((4, 6), F)], lambda x: heads()(x, x, attention_mask=np.eye(4, dtype=bool))),
        "MultiHeadAttention-axes": (volume, lambda x: heads(attention_axes=(2,))(x, x)),
        "MultiHeadAttention-two-axes": (volume, lambda x: heads(attention_axes=(1, 2))(x, x)),
        "Attention-causal": (STEPS, lambda x: L.Attention()([x, x], use_causal_mask=True)),
        "Attention-scores": (STEPS, lambda x: L.Attention()([x, x], return_attention_scores=True)),
        "Attention-masks": ([*QUERY_VALUE, ((4,), "bool"), ((5,), "bool")], lambda q, v, a, b: L.Attention()([q, v], mask=[a, b])),
    }


def grouped(L):
    """Attention whose heads share keys."""
    def heads(query, value, groups=2, bias=True, **call):
        return L.GroupQueryAttention(3, 4, groups, use_bias=bias)(query, value, **call)

    def padded(x):
        embedded = L.Embedding(4, 5, mask_zero=True)(x)
        return heads(embedded, embedded, 1)
    return {
        **{f"GroupedQueryAttention-{bias}": (QUERY_VALUE, lambda q, v, bias=bias: heads(q, v, bias=bias)) for bias in BOTH},
        "GroupedQueryAttention-causal": (STEPS, lambda x: heads(x, x, use_causal_mask=True, return_attention_scores=True)),
        "GroupedQueryAttention-causal-alone": (STEPS, lambda x: heads(x, x, use_causal_mask=True)),
        "GroupedQueryAttention-mask": ([((4, 6), F), ((4, 4), "bool")], lambda x, m: heads(x, x, attention_mask=m, use_causal_mask=True)),
        "GroupedQueryAttention-masked": (TOKENS, padded),
    }


def modern(L):
    def typed(dtype):
        return lambda x: L.Dense(3, dtype=dtype)(L.Flatten(dtype=dtype)(L.Conv2D(4, 3, dtype=dtype)(x)))
    return {
        "MultiHeadAttention-gate": (QUERY_VALUE, lambda q, v: L.MultiHeadAttention(2, 3, use_gate=True)(q, v)),
        "MultiHeadAttention-window": (STEPS, lambda x: L.MultiHeadAttention(2, 3, sliding_window=2)(x, x)),
        "GroupedQueryAttention-gate": (QUERY_VALUE, lambda q, v: L.GroupQueryAttention(3, 4, 2, use_gate=True)(q, v)),
        "GroupedQueryAttention-window": (STEPS, lambda x: L.GroupQueryAttention(3, 4, 2, sliding_window=2)(x, x)),
        "Pipeline": (PICTURE, lambda x: L.Pipeline([L.Rescaling(0.5), L.CenterCrop(5, 5)])(x)),
        **{f"policy-{dtype}": (PICTURE, typed(dtype)) for dtype in POLICIES},
    }


def adapted(L):
    """Layers that learnt something from data before they were saved."""
    def learnt(make, data):
        def function(x):
            layer = make()
            layer.adapt(np.asarray(data))
            return layer(x)
        return function
    text, four = [((1,), "string")], [((4,), "string")]
    return {
        "TextVectorization-letters": (text, lambda x: L.TextVectorization(vocabulary=["a", "b", "dog"], split="character", standardize=None)(x)),
        "adapted-words": (four, learnt(L.StringLookup, ["dog", "a", "a"])),
        "adapted-numbers": ([((4,), "int64")], learnt(L.IntegerLookup, [1, 3, 3])),
        "adapted-text": (text, learnt(L.TextVectorization, ["a b dog", "The dog"])),
        "adapted-bins": (ROW, learnt(lambda: L.Discretization(num_bins=4), np.linspace(-1, 1, 40))),
        "adapted-normalization": (ROW, learnt(L.Normalization, np.linspace(-1, 4, 40).reshape(10, 4))),
    }


def combined(K, L):
    """Shared layers, models in models, several inputs and outputs."""
    def shared(a, b):
        dense = L.Dense(4)
        return L.Concatenate()([dense(a), dense(b), dense(dense(a))])

    def nested(x):
        return K.Sequential([L.Input((4,)), L.Dense(3), K.Sequential([L.Input((3,)), L.Dense(5, "relu")])])(x)

    def nested_functional(a, b):
        model = functional(K, [*ROW, *ROW], lambda a, b: L.Subtract()([L.Dense(3)(a), L.Dense(3)(b)]))
        return L.Add()([model([a, b]), model([b, a])])

    def pictures():
        return K.Sequential([L.Input((8, 7, 3)), L.Conv2D(3, 3), L.BatchNormalization(), L.Conv2D(2, 3), L.BatchNormalization(), L.Flatten()])

    def frozen(x):
        inner = pictures()
        inner.layers[0].trainable = inner.layers[3].trainable = False
        return L.Dense(2)(inner(x))

    def residual(x):
        y = L.Conv2D(4, 3, padding="same")(x)
        return L.Add()([y, L.Conv2D(4, 3, padding="same")(L.ReLU()(y))])
    return {
        "shared": ([*ROW, *ROW], shared), "nested": (ROW, nested), "nested-functional": ([*ROW, *ROW], nested_functional),
        "nested-batch-norm": (PICTURE, lambda x: L.Dense(2)(pictures()(x))), "nested-frozen": (PICTURE, frozen), "residual": (PICTURE, residual),
        "two-outputs": (ROW, lambda x: [L.Dense(3)(x), L.Dense(2)(L.Dense(3)(x))]),
        "output-is-input": (ROW, lambda x: [x, L.Dense(2)(x)]),
        "dynamic-size": ([((None, None, 3), F)], lambda x: L.GlobalAveragePooling2D()(L.Conv2D(4, 3, strides=2, padding="same")(x))),
    }


def whole(K, L):
    def sequential():
        return K.Sequential([L.Input((8, 7, 3)), L.Conv2D(4, 3, padding="same", activation="relu"), L.MaxPooling2D(), L.BatchNormalization(), L.Flatten(),
                             L.Dense(5, activation="softmax")])

    def without_an_input():
        model = K.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
        model.build((None, 3))
        return model
    return {"sequential": sequential, "sequential-without-an-input": without_an_input}


def quantized(K, L, mode):
    """Layers whose weights Keras 3 has made integers of."""
    words = L.Input((6,), dtype="int32")
    model = K.Model(words, L.Dense(5)(L.Dense(12, activation="relu")(L.Embedding(10, 8)(words))))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape))
    model.quantize(mode)
    return model
