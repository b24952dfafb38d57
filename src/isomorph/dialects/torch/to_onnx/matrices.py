"""Composed calls: matrices and distances."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, is_float
from isomorph.dialects.torch.to_onnx.composed import LOSSES, Aten, composed, sizes


def blended(a: Aten, x: ir.Value, product: ir.Value, beta: Any, alpha: Any) -> ir.Value:
    if not is_float(x):                            # of whole numbers the factors are whole as well
        beta, alpha = int(beta), int(alpha)
    product = product if alpha == 1 else a.mul(product, alpha)
    return product if beta == 0 else a.add(product, x if beta == 1 else a.mul(x, beta))


composed("addr")(lambda a, x, p, q, beta=1, alpha=1: a.logical_or(a.logical_and(x, bool(beta)), a.logical_and(a.logical_and(a.unsqueeze(p, 1), q), bool(alpha)))
                 if x.dtype == BOOL else blended(a, x, a.outer(p, q), beta, alpha))
composed("addmv")(lambda a, x, p, q, beta=1, alpha=1: blended(a, x, a.matmul(p, q), beta, alpha))
composed("addbmm")(lambda a, x, p, q, beta=1, alpha=1: blended(a, x, a.sum(a.matmul(p, q), [0]), beta, alpha))
composed("chain_matmul")(lambda a, xs: xs[0] if len(xs) == 1 else a.chain_matmul([a.matmul(xs[0], xs[1]), *xs[2:]]))
composed("vecdot")(lambda a, x, y, dim=-1: a.sum(a.mul(x, y), [dim]))
composed("linalg_det")(lambda a, x: a.op.Det(x))


@composed("pairwise_distance")
def pairwise_distance(a, x, y, p=2.0, eps=1e-6, keepdim=False):
    return a.norm(a.add(a.sub(x, y), eps), p, [-1], keepdim)


@composed("linalg_cross", "cross")
def cross(a, x, y, dim=None):
    shape = [max(p, q) for p, q in zip(sizes(a, x), sizes(a, y), strict=True)]
    dim = -1 if dim is None and a.op.node.op_type == "linalg_cross" else shape.index(3) if dim is None else dim
    x, y = a.expand(x, shape), a.expand(y, shape)
    x1, y2, x2, y1 = (a.roll(v, [shift], [dim]) for v, shift in ((x, -1), (y, -2), (x, -2), (y, -1)))
    return a.sub(a.mul(x1, y2), a.mul(x2, y1))


@composed("cosine_embedding_loss")
def cosine_embedding_loss(a, x, y, target, margin=0.0, reduction=1):
    eps = 1e-12
    dot = a.sum(a.mul(x, y), [-1])
    size = a.sqrt(a.mul(a.add(a.sum(a.mul(x, x), [-1]), eps), a.add(a.sum(a.mul(y, y), [-1]), eps)))
    cosine = a.div(dot, size)
    positive, negative = a.rsub(cosine, 1), a.clamp_min(a.sub(cosine, margin), 0)
    zeros = a.zeros_like(positive)
    return LOSSES[reduction](a, a.add(a.where(a.eq(target, 1), positive, zeros), a.where(a.eq(target, -1), negative, zeros)))


composed("logdet")(lambda a, x: a.log(a.linalg_det(x)))
composed("linalg_slogdet", "slogdet")(lambda a, x: [a.sign(a.linalg_det(x)), a.log(a.abs(a.linalg_det(x)))])


@composed("linalg_matrix_power", "matrix_power")
def matrix_power(a, x, n):
    """A product of squares, of the inverse where the power is negative."""
    if not -1 << 16 < n < 1 << 16:
        a.op.reject(f"the power {n} of a matrix")
    if n < 0:
        x, n = a.linalg_inv(x), -n
    eye = np.eye(sizes(a, x)[-1], dtype=x.dtype.numpy())
    result, square = (a.add(a.zeros_like(x), a.op.const(eye)) if not n else None), x
    while n:
        result = (square if result is None else a.matmul(result, square)) if n & 1 else result
        n >>= 1
        square = a.matmul(square, square) if n else square
    return result
