"""Operations of `keras.ops` and raw TensorFlow functions inside functional models, as data: the function of each case by its name."""
from __future__ import annotations

from keras_models import F, builders

BATCH = 3
ONE, TWO, PICTURE = [((4, 6), F)], [((4, 6), F), ((4, 6), F)], [((8, 6, 4), F)]
UNARY = [
    "abs", "absolute", "fabs", "ceil", "floor", "round", "trunc", "exp", "exp2", "expm1", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsinh",
    "arctan", "square", "negative", "sign", "sigmoid", "relu", "relu6", "silu", "softplus", "softsign", "log_sigmoid", "hard_sigmoid", "hard_silu",
    "hard_tanh", "elu", "selu", "gelu", "celu", "glu", "leaky_relu", "tanh_shrink", "soft_shrink", "hard_shrink", "sparse_plus", "sparse_sigmoid",
    "squareplus", "erf", "erfc", "isfinite", "isnan", "isinf", "logical_not", "reciprocal", "deg2rad", "rad2deg", "sinc", "signbit", "conj", "real", "copy",
    "ones_like", "zeros_like", "ravel", "cbrt", "nan_to_num", "isreal", "isposinf", "isneginf", "log_softmax", "softmax", "stop_gradient"]
POSITIVE, BETWEEN = ("log", "log2", "log10", "sqrt", "rsqrt", "arccosh"), ("arcsin", "arccos", "arctanh")
BINARY = [
    "add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "fmax", "fmin", "power", "mod", "floor_divide", "arctan2", "equal",
    "not_equal", "greater", "greater_equal", "less", "less_equal", "logaddexp", "logaddexp2", "hypot", "divide_no_nan", "outer", "heaviside", "fmod",
    "logical_and", "logical_or", "logical_xor", "vdot", "inner"]
WITHOUT_NUMBERS = ("outer", "vdot", "inner")
REDUCTIONS = [
    "sum", "mean", "max", "min", "amax", "amin", "prod", "std", "var", "any", "all", "argmax", "argmin", "logsumexp", "count_nonzero", "median", "ptp",
    "nansum", "nanmean", "nanmax", "nanmin", "nanprod", "nanstd", "nanvar"]
ALONG = {"cumsum": {}, "flip": {}, "roll": {"shift": 2}, "repeat": {"repeats": 2}}


def operations(K):
    """Cases of `keras.ops`, with a function that makes the model of each."""
    from keras import ops
    yield from builders(K, by_name(ops), composed(ops), pictures(ops))


def by_name(ops):
    """Operations that are called with tensors, a number or an axis and nothing else. Those that this release lacks are left out."""
    def called(name, before=lambda x: x):
        return lambda x: getattr(ops, name)(before(x))

    def of_two(name, *number):
        return lambda *tensors: getattr(ops, name)(ops.abs(tensors[0]) if name == "power" else tensors[0], *tensors[1:], *number)

    def along(name, axis, **settings):
        return lambda x: getattr(ops, name)(x, axis=axis, **settings)
    rows = {f"op-{name}": (ONE, called(name)) for name in UNARY}
    rows |= {f"op-{name}": (ONE, called(name, lambda x: ops.add(ops.square(x), 1.25))) for name in POSITIVE}
    rows |= {f"op-{name}": (ONE, called(name, lambda x: ops.multiply(ops.tanh(x), 0.9))) for name in BETWEEN}
    rows |= {f"op2-{name}": (TWO, of_two(name)) for name in BINARY}
    rows |= {f"op2-{name}-number": (ONE, of_two(name, 2.0)) for name in BINARY if name not in WITHOUT_NUMBERS}
    rows |= {f"reduce-{name}-{axis}": (ONE, along(name, axis)) for name in REDUCTIONS for axis in (None, -1, 1)}
    rows |= {f"{name}-{axis}": (ONE, along(name, axis, **settings)) for name, settings in ALONG.items() for axis in (None, 1, -1)}
    return {name: row for name, row in rows.items() if hasattr(ops, name.split("-")[0 if name.split("-")[0] in ALONG else 1])}


def composed(ops):
    table = {
        "reshape": lambda x: ops.reshape(x, (-1, 24)), "transpose": lambda x: ops.transpose(x, (0, 2, 1)), "expand": lambda x: ops.expand_dims(x, 1),
        "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1), "concatenate": lambda x: ops.concatenate([x, x], axis=1),
        "stack": lambda x: ops.stack([x, x], axis=1), "split": lambda x: ops.split(x, 2, axis=1)[1], "split-at": lambda x: ops.split(x, [1, 3], axis=2)[1],
        "take": lambda x: ops.take(x, [1, 0, -1], axis=1), "take-none": lambda x: ops.take(x, [1, 0]), "tile": lambda x: ops.tile(x, (1, 2, 1)),
        "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1))), "pad-reflect": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect"),
        "pad-symmetric": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="symmetric"),
        "pad-value": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0), "where": lambda x: ops.where(x > 0, x, 0.5 * x),
        "clip": lambda x: ops.clip(x, -0.5, 0.7), "cast": lambda x: ops.cast(x, "int32"), "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        "einsum": lambda x: ops.einsum("abc,adc->abd", x, x), "swapaxes": lambda x: ops.swapaxes(x, 1, 2), "moveaxis": lambda x: ops.moveaxis(x, 1, 2),
        "sort": lambda x: ops.sort(x, axis=1), "argsort": lambda x: ops.argsort(x, axis=1), "top_k": lambda x: ops.top_k(x, 2),
        "one_hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 6), "tril": lambda x: ops.tril(x), "triu": lambda x: ops.triu(x, k=1),
        "slice": lambda x: x[:, 1:3, ::2], "slice-int": lambda x: x[:, 1], "slice-negative": lambda x: x[:, -1, ..., 2:],
        "slice-new": lambda x: x[:, None, 1:], "slice-step": lambda x: x[:, ::-1], "unstack": lambda x: ops.unstack(x, axis=1)[2],
        "meshgrid": lambda x: ops.meshgrid(x[0, 0], x[0, 1])[0], "moments": lambda x: ops.moments(x, axes=[1]), "diff": lambda x: ops.diff(x),
        "dot": lambda x: ops.dot(x, ops.ones((6, 3))), "cumprod": lambda x: ops.cumprod(x, axis=1),
        "tensordot": lambda x: ops.tensordot(x, ops.ones((6, 3)), axes=1), "broadcast": lambda x: ops.broadcast_to(x[:, :1], (BATCH, 4, 6)),
        "take_along": lambda x: ops.take_along_axis(x, ops.cast(ops.zeros((BATCH, 1, 6)), "int32"), axis=1), "norm": lambda x: ops.norm(x, axis=-1),
        "normalize": lambda x: ops.normalize(x, axis=-1), "average": lambda x: ops.average(x, axis=1), "hstack": lambda x: ops.hstack([x, x]),
        "vstack": lambda x: ops.vstack([x, x]), "full_like": lambda x: ops.full_like(x, 2.0),
        "digitize": lambda x: ops.digitize(x, ops.convert_to_tensor([-1.0, 0.0, 1.0])), "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
        "softmax-all": lambda x: ops.softmax(x, axis=(1, 2)), "multi_hot": lambda x: ops.multi_hot(ops.argmax(x, axis=-1), 6),
        "linspace": lambda x: x + ops.linspace(0.0, 1.0, 6), "isclose": lambda x: ops.isclose(x, ops.abs(x)),
        "extract_sequences": lambda x: ops.extract_sequences(x, 3, 2), "layer_norm": lambda x: ops.layer_normalization(x),
        "rms_norm": lambda x: ops.rms_normalization(x), "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
        "trace": lambda x: ops.trace(x, axis1=1, axis2=2),
        "searchsorted": lambda x: ops.searchsorted(ops.convert_to_tensor([-1.0, 0.0, 1.0]), ops.reshape(x, (-1,))), "fft": lambda x: ops.rfft(x)[0],
        "view": lambda x: x + ops.cast(ops.shape(x)[1], "float32"), "logical": lambda x: ops.logical_and(x > 0, x < 1),
        "sparsemax": lambda x: ops.sparsemax(x), "threshold": lambda x: ops.threshold(x, 0.2, -1.0),
        "dot_product": lambda x: ops.dot_product_attention(*[ops.reshape(x, (-1, 4, 2, 3))] * 3), "quantile": lambda x: ops.quantile(x, 0.5, axis=1),
        "array_split": lambda x: ops.array_split(x, 2, axis=1)[0], "scatter": lambda x: ops.scatter_update(x, [[0, 1, 2]], [5.0]),
        "slice-op": lambda x: ops.slice(x, (0, 1, 2), (BATCH, 2, 3)), "slice_update": lambda x: ops.slice_update(x, (0, 1, 2), ops.ones((1, 2, 2))),
        "cross": lambda x: ops.cross(x[..., :3], x[..., 3:]), "operators": lambda x: -(((x + 1) * 2 - x / 3) ** 2) % 3 // 0.7,
        "compare": lambda x: ops.cast((x > 0.1) & (x != 2), F), "bitwise": lambda x: ops.bitwise_and(ops.cast(x * 10, "int32"), 3),
        "bitshift": lambda x: ops.right_shift(ops.cast(ops.abs(x) * 10, "int32"), 1),
        "inv": lambda x: ops.inv(ops.matmul(x, ops.transpose(x, (0, 2, 1))) + ops.eye(4)),
        "det": lambda x: ops.det(ops.matmul(x, ops.transpose(x, (0, 2, 1)))), "rearrange": lambda x: ops.rearrange(x, "b (h p) c -> b h (p c)", p=2),
        "unique": lambda x: ops.nonzero(x > 0)[0], "add-shape": lambda x: ops.reshape(x, (ops.shape(x)[0], 2, 12)),
    }
    return {f"ops-{name}": (ONE, function) for name, function in table.items()}


def pictures(ops):
    table = {
        "conv": lambda x: ops.conv(x, ops.ones((3, 3, 4, 2)), padding="same", strides=2), "depthwise": lambda x: ops.depthwise_conv(x, ops.ones((3, 3, 4, 1))),
        "separable": lambda x: ops.separable_conv(x, ops.ones((3, 3, 4, 1)), ops.ones((1, 1, 4, 2))),
        "transpose": lambda x: ops.conv_transpose(x, ops.ones((3, 3, 2, 4)), 2), "max": lambda x: ops.max_pool(x, 2, padding="same"),
        "average": lambda x: ops.average_pool(x, 2), "resize": lambda x: ops.image.resize(x, (5, 9)), "gray": lambda x: ops.image.rgb_to_grayscale(x[..., :3]),
        "patches": lambda x: ops.image.extract_patches(x, (2, 2)), "crop": lambda x: ops.image.crop_images(x, 1, 1, 1, 2),
        "pad": lambda x: ops.image.pad_images(x, 1, 2, 1, 2), "depth_to_space": lambda x: ops.depth_to_space(x, 2),
        "space_to_depth": lambda x: ops.space_to_depth(x, 2), "batch_norm": lambda x: ops.batch_normalization(x, ops.ones(4), ops.ones(4) * 2, -1),
        "hsv": lambda x: ops.image.rgb_to_hsv(ops.sigmoid(x[..., :3])), "adaptive": lambda x: ops.adaptive_average_pool(x, 3),
        "adaptive-max": lambda x: ops.adaptive_max_pool(x, 3), "unfold": lambda x: ops.unfold(x, 2),
        "blur": lambda x: ops.image.gaussian_blur(x, (3, 3), (1.0, 1.0)), "sobel": lambda x: ops.image.sobel_edges(x),
    }
    return {f"picture-{name}": (PICTURE, function) for name, function in table.items()}


def raw(K):
    """Cases of raw TensorFlow functions, which Keras 2 puts into its models, with a function that makes the model of each."""
    import tensorflow as tf
    yield from builders(K, functions(K, tf), on_pictures(tf), {"raw-two": (TWO, lambda a, b: tf.add(a, b) * a - tf.maximum(a, b))})


def functions(K, tf):
    table = {
        "relu": tf.nn.relu, "relu6": tf.nn.relu6, "leaky": lambda x: tf.nn.leaky_relu(x, 0.3), "elu": tf.nn.elu, "selu": tf.nn.selu, "gelu": tf.nn.gelu,
        "swish": tf.nn.swish, "softmax": tf.nn.softmax, "softmax-axis": lambda x: tf.nn.softmax(x, axis=1), "log_softmax": tf.nn.log_softmax,
        "sigmoid": tf.sigmoid, "tanh": tf.tanh, "softplus": tf.nn.softplus, "exp": tf.exp, "log": lambda x: tf.math.log(tf.abs(x) + 1.0),
        "sqrt": lambda x: tf.sqrt(tf.abs(x)), "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 1.0), "square": tf.square, "abs": tf.abs, "neg": lambda x: -x,
        "floor": tf.floor, "ceil": tf.math.ceil, "round": tf.round, "sign": tf.sign, "sin": tf.sin, "cos": tf.cos, "add": lambda x: x + 1.5,
        "radd": lambda x: 1.5 + x, "sub": lambda x: x - 2.0, "rsub": lambda x: 2.0 - x, "mul": lambda x: x * x, "div": lambda x: x / 2.0,
        "rdiv": lambda x: 2.0 / (x + 9.0), "pow": lambda x: x**2, "mod": lambda x: x % 2.0, "floordiv": lambda x: x // 0.7,
        "maximum": lambda x: tf.maximum(x, 0.2), "minimum": lambda x: tf.minimum(x, 0.2), "sum": lambda x: tf.reduce_sum(x, axis=1),
        "mean": lambda x: tf.reduce_mean(x, axis=[1, 2]), "max": lambda x: tf.reduce_max(x, axis=-1, keepdims=True), "min": lambda x: tf.reduce_min(x, axis=1),
        "prod": lambda x: tf.reduce_prod(x, axis=1), "argmax": lambda x: tf.argmax(x, axis=-1), "argmin": lambda x: tf.argmin(x, axis=1),
        "concat": lambda x: tf.concat([x, x], axis=-1), "stack": lambda x: tf.stack([x, x], axis=1), "reshape": lambda x: tf.reshape(x, [-1, 24]),
        "transpose": lambda x: tf.transpose(x, [0, 2, 1]), "expand": lambda x: tf.expand_dims(x, 1), "tile": lambda x: tf.tile(x, [1, 2, 1]),
        "squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 1), axis=1), "split": lambda x: tf.split(x, 2, axis=1)[1],
        "unstack": lambda x: tf.unstack(x, axis=1)[1], "slice": lambda x: x[:, 1:3, ::2], "index": lambda x: x[:, -1],
        "newaxis": lambda x: x[:, tf.newaxis, ..., 1:], "gather": lambda x: tf.gather(x, [2, 0], axis=1), "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]),
        "pad-reflect": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], mode="REFLECT"), "clip": lambda x: tf.clip_by_value(x, -0.5, 0.5),
        "cast": lambda x: tf.cast(x, tf.int32), "matmul": lambda x: tf.matmul(x, x, transpose_b=True), "where": lambda x: tf.where(x > 0.0, x, x * 0.1),
        "equal": lambda x: tf.equal(x, tf.abs(x)), "greater": lambda x: x > 0.5, "less": lambda x: x <= 0.5,
        "logical": lambda x: tf.logical_and(x > 0.0, x < 1.0), "l2": lambda x: tf.nn.l2_normalize(x, axis=-1),
        "one_hot": lambda x: tf.one_hot(tf.argmax(x, axis=-1), 6), "cumsum": lambda x: tf.cumsum(x, axis=1), "reverse": lambda x: tf.reverse(x, axis=[1]),
        "top_k": lambda x: tf.math.top_k(x, 2)[0], "norm": lambda x: tf.norm(x, axis=-1), "zeros_like": tf.zeros_like, "ones_like": tf.ones_like,
        "identity": tf.identity, "stop": tf.stop_gradient, "erf": tf.math.erf, "squared_difference": lambda x: tf.math.squared_difference(x, 1.0),
        "broadcast": lambda x: tf.broadcast_to(x[:1], [3, 4, 6]), "shape": lambda x: tf.reshape(x, [tf.shape(x)[0], 2, 12]),
        "bias_add": lambda x: tf.nn.bias_add(x, tf.ones([6])), "tensordot": lambda x: tf.tensordot(x, tf.ones([6, 3]), axes=1),
        "reduce_all": lambda x: tf.reduce_any(x > 0.0, axis=1), "logsumexp": lambda x: tf.reduce_logsumexp(x, axis=1),
        "std": lambda x: tf.math.reduce_std(x, axis=1), "variance": lambda x: tf.math.reduce_variance(x, axis=1),
        "backend": lambda x: K.backend.mean(x, axis=1),
    }
    return {f"raw-{name}": (ONE, function) for name, function in table.items()}


def on_pictures(tf):
    table = {
        "conv": lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 4, 2]), 1, "SAME"),
        "depthwise": lambda x: tf.nn.depthwise_conv2d(x, tf.ones([3, 3, 4, 1]), [1, 1, 1, 1], "SAME"), "max": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"),
        "avg": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), "resize": lambda x: tf.image.resize(x, (5, 9)),
        "nearest": lambda x: tf.image.resize(x, (5, 9), method="nearest"), "d2s": lambda x: tf.nn.depth_to_space(x, 2),
        "s2d": lambda x: tf.nn.space_to_depth(x, 2), "upsample": lambda x: tf.compat.v1.image.resize_bilinear(x, (16, 12)),
    }
    return {f"raw-picture-{name}": (PICTURE, function) for name, function in table.items()}
