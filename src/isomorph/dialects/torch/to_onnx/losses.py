"""Composed calls: losses."""
from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import is_float, rank
from isomorph.dialects.torch.to_onnx.composed import LOSSES, Aten, composed, sizes

composed("margin_ranking_loss")(lambda a, x, y, target, margin=0.0, reduction=1: LOSSES[reduction](
    a, a.clamp_min(a.add(a.mul(a.neg(target), a.sub(x, y)), margin), 0)))
composed("hinge_embedding_loss")(lambda a, x, target, margin=1.0, reduction=1: LOSSES[reduction](
    a, a.where(a.eq(target, 1), x, a.where(a.eq(target, -1), a.clamp_min(a.rsub(x, margin), 0), 0.0))))
composed("mse_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.square(a.sub(x, y))))
composed("l1_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.abs(a.sub(x, y))))
composed("soft_margin_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.log1p(a.exp(a.mul(a.neg(y), x)))))
composed("threshold")(lambda a, x, threshold, value: a.where(a.gt(x, threshold), x, value))
composed("addcdiv")(lambda a, x, p, q, value=1: a.add(x, a.mul(a.div(p, q), value)))
composed("dist")(lambda a, x, y, p=2: a.norm(a.reshape(a.sub(x, y), [-1]), p))
composed("trace")(lambda a, x: a.sum(a.diagonal(x)))
composed("std_mean")(lambda a, x, *args, **more: [a.std(x, *args, **more), _mean(a, x, *args, **more)])
composed("var_mean")(lambda a, x, *args, **more: [a.var(x, *args, **more), _mean(a, x, *args, **more)])


def _mean(a: Aten, x: ir.Value, dim: Any = None, *rest: Any, keepdim: bool = False, **more: Any) -> ir.Value:
    dim = None if isinstance(dim, bool) else dim
    keepdim = rest[-1] if rest and isinstance(rest[-1], bool) else keepdim
    return a.mean(x, dim, keepdim)


@composed("smooth_l1_loss")
def smooth_l1_loss(a, x, y, reduction=1, beta=1.0):
    off = a.abs(a.sub(x, y))
    return LOSSES[reduction](a, off if beta == 0 else a.where(a.lt(off, beta), a.div(a.mul(a.mul(off, off), 0.5), beta), a.sub(off, 0.5 * beta)))


@composed("huber_loss")
def huber_loss(a, x, y, reduction=1, delta=1.0):
    off = a.abs(a.sub(x, y))
    return LOSSES[reduction](a, a.where(a.le(off, delta), a.mul(a.mul(off, off), 0.5), a.mul(a.sub(off, 0.5 * delta), delta)))


@composed("kl_div")
def kl_div(a, x, target, reduction=1, log_target=False):
    return LOSSES[reduction](a, a.mul(a.exp(target), a.sub(target, x)) if log_target else a.sub(a.xlogy(target, target), a.mul(target, x)))


@composed("poisson_nll_loss")
def poisson_nll_loss(a, x, target, log_input=True, full=False, eps=1e-8, reduction=1):
    loss = a.sub(a.exp(x), a.mul(target, x)) if log_input else a.sub(x, a.mul(target, a.log(a.add(x, eps))))
    if full:
        stirling = a.add(a.sub(a.mul(target, a.log(target)), target), a.mul(a.log(a.mul(target, 2 * math.pi)), 0.5))
        loss = a.add(loss, a.where(a.le(target, 1), 0.0, stirling))
    return LOSSES[reduction](a, loss)


@composed("binary_cross_entropy")
def binary_cross_entropy(a, x, target, weight=None, reduction=1):
    loss = a.neg(a.add(a.mul(target, a.clamp_min(a.log(x), -100)), a.mul(a.rsub(target, 1), a.clamp_min(a.log(a.rsub(x, 1)), -100))))
    return LOSSES[reduction](a, loss if weight is None else a.mul(loss, weight))


@composed("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(a, x, target, weight=None, pos_weight=None, reduction=1):
    log = a.log_sigmoid(x)
    positive = a.mul(target, log) if pos_weight is None else a.mul(a.mul(pos_weight, target), log)
    loss = a.neg(a.add(positive, a.mul(a.rsub(target, 1), a.sub(log, x))))
    return LOSSES[reduction](a, loss if weight is None else a.mul(loss, weight))


@composed("triplet_margin_loss")
def triplet_margin_loss(a, anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction=1):
    near, far = a.pairwise_distance(anchor, positive, p, eps), a.pairwise_distance(anchor, negative, p, eps)
    far = a.minimum(far, a.pairwise_distance(positive, negative, p, eps)) if swap else far
    return LOSSES[reduction](a, a.clamp_min(a.add(a.sub(near, far), margin), 0))


@composed("nll_loss", "nll_loss_nd", "nll_loss2d")
def nll_loss(a, x, target, weight=None, reduction=1, ignore_index=-100):
    how = {0: "none", 1: "mean", 2: "sum"}[reduction]
    single = rank(a.op, x) == 1
    x, target = (a.unsqueeze(x, 0), a.unsqueeze(target, 0)) if single else (x, target)
    loss = a.op.NegativeLogLikelihoodLoss(x, target, weight, ignore_index=ignore_index, reduction=how)
    return a.reshape(loss, []) if single else loss


@composed("cross_entropy_loss")
def cross_entropy_loss(a, x, target, weight=None, reduction=1, ignore_index=-100, label_smoothing=0.0):
    axis = 0 if rank(a.op, x) == 1 else 1
    logs = a.log_softmax(x, axis)
    if is_float(target):
        count = sizes(a, x)[axis]
        target = a.add(a.mul(target, 1 - label_smoothing), label_smoothing / count) if label_smoothing else target
        loss = a.mul(logs, target)
        loss = a.mul(loss, a.reshape(weight, [1] * axis + [-1] + [1] * (rank(a.op, x) - axis - 1))) if weight is not None else loss
        per = a.neg(a.sum(loss, [axis]))
        batch = math.prod(sizes(a, per)) or 1
        return a.div(a.sum(per), batch) if reduction == 1 else LOSSES[reduction](a, per)
    if label_smoothing:
        a.op.reject("a cross entropy with smoothed labels")
    return a.nll_loss(logs, target, weight, reduction, ignore_index)
