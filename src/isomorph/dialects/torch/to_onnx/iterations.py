"""Calls that take rounds, as loops of ONNX: systems of equations and factors of matrices column by column, polynomials by their order, Euclid's division.

Matrices are computed in double precision and given in the type of their input. The number of columns is known, batches may be open.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import INT64, cast, is_float
from isomorph.dialects.torch.to_onnx.composed import Aten, composed, like, sizes

DOUBLE = 7                                 # of dtype arguments
Step = Callable[[Any, ir.Value, list[ir.Value]], list[Any]]


def looped(a: Aten, rounds: Any, start: Sequence[Any], step: Step, condition: Callable[[Any, list[ir.Value]], ir.Value] | None = None) -> list[ir.Value]:
    """`step(op, round, values)` gives the values after a round. Without a number of rounds, as many as `condition(op, values)` asks for."""
    from isomorph.dialects.torch.loops import emit_loop
    context = a.op.context

    def one(number: ir.Value, values: list[ir.Value]) -> tuple[Any, list[Any], list[ir.Value]]:
        op = context.builder("round")
        results = step(op, number, values)
        for result, value in zip(results, values, strict=True):
            result.shape = value.shape             # a round changes no shape, whatever can be inferred of it
        return True if condition is None else condition(op, results), results, []
    count = a.op.const(np.int64(rounds)) if isinstance(rounds, int) else rounds
    return emit_loop(context, count, None if condition is None else condition(a.op, list(start)), start, one)


def together(a: Aten, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Two tensors in the shape of both."""
    y = a.add(y, a.to(a.zeros_like(x), like(y)))
    return a.add(x, a.to(a.zeros_like(y), like(x))), y


def column(op: Any, x: ir.Value) -> ir.Value:
    return op.Unsqueeze(x, [-1])


def row(op: Any, x: ir.Value) -> ir.Value:
    return op.Unsqueeze(x, [-2])


# ---- equations


def _eliminated(op: Any, k: ir.Value, m: ir.Value, rows: ir.Value) -> ir.Value:
    """Column k becomes a unit vector: the row with its largest element comes to place k, is divided by it, and is taken from all others."""
    candidates = op.Where(op.GreaterOrEqual(rows, k), op.Abs(op.Gather(m, k, axis=-1)), op.const(-1.0, like=m.dtype))
    best = op.ArgMax(candidates, axis=-1, keepdims=1)
    order = op.Where(op.Equal(rows, k), best, op.Where(op.Equal(rows, best), k, rows))
    m = op.GatherElements(m, op.Expand(column(op, order), op.Shape(m)), axis=-2)
    chosen = op.Gather(m, k, axis=-2)
    chosen = op.Div(chosen, column(op, op.Gather(chosen, k, axis=-1)))
    reduced = op.Sub(m, op.Mul(column(op, op.Gather(m, k, axis=-1)), row(op, chosen)))
    return op.Where(column(op, op.Equal(rows, k)), row(op, chosen), reduced)


def solved(a: Aten, m: ir.Value, right: ir.Value) -> ir.Value:
    """X of m X = right, both matrices of one batch, by Gauss and Jordan with pivots."""
    size = a.op.of(m)[1][-1]
    if not isinstance(size, int):
        a.op.reject("a system of equations whose size only the run knows")
    wide = a.cat([a.to(m, DOUBLE), a.to(right, DOUBLE)], -1)
    rows = a.op.const(np.arange(size))
    (done,) = looped(a, size, [wide], lambda op, k, values: [_eliminated(op, k, values[0], rows)])
    return cast(a.op, a.slice(done, -1, size, None), m.dtype)


def batched(a: Aten, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Two stacks of matrices with one batch."""
    (_, p), (_, q) = a.op.of(x), a.op.of(y)
    if list(p[:-2]) == list(q[:-2]):
        return x, y
    batch = np.broadcast_shapes(tuple(sizes(a, x)[:-2]), tuple(sizes(a, y)[:-2]))
    return a.expand(x, [*batch, *p[-2:]]), a.expand(y, [*batch, *q[-2:]])


@composed("linalg_solve")
def solve(a, m, right, left=True):
    """A right side of one axis less than the matrices is a vector for each of them."""
    (rank, shape), (other, right_shape) = a.op.of(m), a.op.of(right)
    vector = other == 1 or (other == rank - 1 and list(right_shape) == list(shape[:-1]))
    b = a.unsqueeze(right, -1) if vector else right
    if not left:
        return a.transpose(solve(a, a.transpose(m, -2, -1), a.transpose(b, -2, -1)), -2, -1)
    y = solved(a, *batched(a, m, b))
    return a.squeeze(y, -1) if vector else y


@composed("linalg_inv", "inverse")
def inverse(a, m):
    return solved(a, m, a.add(a.zeros_like(m), a.op.const(np.eye(sizes_of_square(a, m), dtype=m.dtype.numpy()))))


def sizes_of_square(a: Aten, m: ir.Value) -> int:
    size = a.op.of(m)[1][-1]
    return size if isinstance(size, int) else a.op.reject("a matrix whose size only the run knows")


def no_failure(a: Aten, m: ir.Value) -> ir.Value:
    """The number for each matrix that says whether it could be done."""
    return a.to(a.zeros_like(a.select(a.select(m, -1, 0), -1, 0)), 3)


composed("linalg_inv_ex")(lambda a, m, check_errors=False: [inverse(a, m), no_failure(a, m)])
composed("linalg_solve_ex")(lambda a, m, right, left=True, check_errors=False: [solve(a, m, right, left), no_failure(a, m)])


@composed("linalg_solve_triangular")
def solve_triangular(a, m, right, upper, left=True, unitriangular=False):
    m = a.triu(m, 1 if unitriangular else 0) if upper else a.tril(m, -1 if unitriangular else 0)
    m = a.add(m, a.op.const(np.eye(sizes_of_square(a, m), dtype=m.dtype.numpy()))) if unitriangular else m
    if not left:
        return a.transpose(solved(a, *batched(a, a.transpose(m, -2, -1), a.transpose(right, -2, -1))), -2, -1)
    return solved(a, *batched(a, m, right))


@composed("triangular_solve")
def triangular_solve(a, right, m, upper=True, transpose=False, unitriangular=False):
    turned = a.transpose(m, -2, -1) if transpose else m
    right, whole = batched(a, right, m)
    return [solve_triangular(a, turned, right, bool(upper) != bool(transpose), True, unitriangular), whole]


@composed("linalg_tensorsolve")
def tensorsolve(a, m, right, dims=None):
    rank, last = a.op.of(m)[0], a.op.of(right)[0]
    if dims:
        m = a.movedim(m, list(dims), [rank - len(dims) + place for place in range(len(dims))])
    shape = sizes(a, m)
    count = int(np.prod(shape[last:]))
    y = solved(a, a.reshape(m, [count, count]), a.reshape(right, [count, 1]))
    return a.reshape(y, shape[last:])


@composed("linalg_tensorinv")
def tensorinv(a, m, ind=2):
    shape = sizes(a, m)
    count = int(np.prod(shape[:ind]))
    return a.reshape(inverse(a, a.reshape(m, [count, count])), [*shape[ind:], *shape[:ind]])


# ---- factors


def factor(a: Aten, m: ir.Value) -> ir.Value:
    """Cholesky's lower factor, column by column."""
    wide = a.to(m, DOUBLE)
    size = sizes_of_square(a, m)
    rows = a.op.const(np.arange(size))

    def step(op: Any, k: ir.Value, values: list[ir.Value]) -> list[Any]:
        (found,) = values
        mine = op.Gather(found, k, axis=-2)
        rest = op.Sub(op.Gather(wide, k, axis=-1), op.Squeeze(op.MatMul(found, column(op, mine)), [-1]))
        scaled = op.Div(rest, column(op, op.Sqrt(op.Gather(rest, k, axis=-1))))
        below = op.Where(op.GreaterOrEqual(rows, k), scaled, op.const(0.0, like=ir.DataType.DOUBLE))
        return [op.Where(op.Equal(rows, k), column(op, below), found)]
    (found,) = looped(a, size, [a.zeros_like(wide)], step)
    return cast(a.op, found, m.dtype)


@composed("linalg_cholesky", "cholesky")
def cholesky(a, m, upper=False):
    """The upper triangle of the input counts for an upper factor, the lower one for a lower factor."""
    return a.transpose(factor(a, a.transpose(m, -2, -1)), -2, -1) if upper else factor(a, m)


composed("linalg_cholesky_ex")(lambda a, m, upper=False, check_errors=False: [cholesky(a, m, upper), no_failure(a, m)])


def product(a: Aten, m: ir.Value, upper: bool) -> ir.Value:
    """What a factor is one of."""
    m = a.triu(m) if upper else a.tril(m)
    turned = a.transpose(m, -2, -1)
    return a.matmul(turned, m) if upper else a.matmul(m, turned)


composed("cholesky_inverse")(lambda a, m, upper=False: cast(a.op, inverse(a, product(a, a.to(m, DOUBLE), upper)), m.dtype))
composed("cholesky_solve")(lambda a, right, m, upper=False: cast(a.op, solved(a, *batched(a, product(a, a.to(m, DOUBLE), upper), right)), m.dtype))


@composed("linalg_qr")
def qr(a, m, mode="reduced"):
    """Householder's reflections with LAPACK's signs: the diagonal gets the sign that the column has not."""
    high, wide = sizes(a, m)[-2:]
    least = min(high, wide)
    rows = a.op.const(np.arange(high))
    zero = a.op.const(0.0, like=ir.DataType.DOUBLE)

    def step(op: Any, k: ir.Value, values: list[ir.Value]) -> list[Any]:
        upper, turns = values
        x = op.Where(op.GreaterOrEqual(rows, k), op.Gather(upper, k, axis=-1), zero)
        first, below = op.Gather(x, k, axis=-1), op.Where(op.Greater(rows, k), x, zero)
        rest = op.ReduceSum(op.Mul(below, below), [-1], keepdims=0)
        length = op.Sqrt(op.Add(op.Mul(first, first), rest))
        ahead = op.Add(first, op.Where(op.Less(first, zero), op.Neg(length), length))
        v = op.Where(op.Equal(rows, k), column(op, ahead), below)
        square = op.Add(op.Mul(ahead, ahead), rest)
        flat = op.Equal(rest, zero)
        weight = column(op, column(op, op.Where(flat, zero, op.Div(op.const(2.0, like=ir.DataType.DOUBLE), op.Where(flat, op.Exp(zero), square)))))
        across, along = column(op, v), row(op, v)
        return [op.Sub(upper, op.Mul(weight, op.MatMul(across, op.MatMul(along, upper)))),
                op.Sub(turns, op.Mul(weight, op.MatMul(op.MatMul(turns, across), along)))]
    double = a.to(m, DOUBLE)
    turns = a.expand(a.op.const(np.eye(high)), [*sizes(a, m)[:-2], high, high])
    upper, turns = looped(a, least, [double, turns], step)
    rows_kept = high if mode == "complete" else least
    r = cast(a.op, a.triu(a.slice(upper, -2, 0, rows_kept)), m.dtype)
    return [a.zeros([0], dtype=6) if mode == "r" else cast(a.op, a.slice(turns, -1, 0, rows_kept), m.dtype), r]


composed("qr")(lambda a, m, some=True: qr(a, m, "reduced" if some else "complete"))


# ---- polynomials of an order: their first one, and (k, x, p, q) -> the next of the last two


def _chebyshev(first: Callable[[Any, ir.Value], ir.Value]) -> tuple:
    return first, lambda op, k, x, p, q: op.Sub(op.Mul(op.Mul(x, 2.0), p), q)


POLYNOMIALS: dict[str, tuple] = {
    "chebyshev_polynomial_t": _chebyshev(lambda a, x: x), "chebyshev_polynomial_u": _chebyshev(lambda a, x: a.mul(x, 2.0)),
    "chebyshev_polynomial_v": _chebyshev(lambda a, x: a.sub(a.mul(x, 2.0), 1.0)), "chebyshev_polynomial_w": _chebyshev(lambda a, x: a.add(a.mul(x, 2.0), 1.0)),
    "hermite_polynomial_h": (lambda a, x: a.mul(x, 2.0), lambda op, k, x, p, q: op.Mul(op.Sub(op.Mul(x, p), op.Mul(k, q)), 2.0)),
    "hermite_polynomial_he": (lambda a, x: x, lambda op, k, x, p, q: op.Sub(op.Mul(x, p), op.Mul(k, q))),
    "laguerre_polynomial_l": (lambda a, x: a.rsub(x, 1.0), lambda op, k, x, p, q: op.Div(
        op.Sub(op.Mul(op.Sub(op.Add(op.Mul(k, 2.0), 1.0), x), p), op.Mul(k, q)), op.Add(k, 1.0))),
    "legendre_polynomial_p": (lambda a, x: x, lambda op, k, x, p, q: op.Div(
        op.Sub(op.Mul(op.Mul(op.Add(op.Mul(k, 2.0), 1.0), x), p), op.Mul(k, q)), op.Add(k, 1.0))),
}


def of_order(a: Aten, x: Any, n: Any, name: str, shifted: bool) -> ir.Value:
    """As many rounds as the largest order asks for; who has reached its order keeps what it has."""
    first, following = POLYNOMIALS[name]
    back = next((value.dtype for value in (x, n) if isinstance(value, ir.Value) and is_float(value)), ir.DataType.FLOAT)
    x = a.to(x, DOUBLE) if isinstance(x, ir.Value) else a.op.const(np.float64(x))
    x = a.sub(a.mul(x, 2.0), 1.0) if shifted else x
    order = a.to(n, 4) if isinstance(n, ir.Value) else a.op.const(np.int64(n))
    x, order = together(a, x, order)
    one = a.ones_like(x)
    start = [a.where(a.eq(order, 0), one, first(a, x)), one]

    def step(op: Any, number: ir.Value, values: list[ir.Value]) -> list[Any]:
        k = op.Add(number, np.int64(1))
        found = following(op, op.Cast(k, to=int(ir.DataType.DOUBLE)), x, *values)
        more = op.Less(k, order)
        return [op.Where(more, found, values[0]), op.Where(more, values[0], values[1])]
    most = a.op.ReduceMax(order, keepdims=0)
    p, _ = looped(a, a.op.Max(a.op.Sub(most, np.int64(1)), np.int64(0)), start, step)
    return cast(a.op, a.where(a.lt(order, 0), 0.0, p), back)


for _name in POLYNOMIALS:
    composed(f"special_{_name}")(lambda a, x, n, _name=_name: of_order(a, x, n, _name, False))
    if _name.startswith("chebyshev"):
        composed(f"special_shifted_{_name}")(lambda a, x, n, _name=_name: of_order(a, x, n, _name, True))


# ---- whole numbers


@composed("gcd")
def gcd(a, x, y):
    """Remainders until nothing is left anywhere."""
    x, y = together(a, x, y)
    kind = x.dtype
    start = [a.abs(a.to(x, 4)), a.abs(a.to(y, 4))]

    def step(op: Any, number: ir.Value, values: list[ir.Value]) -> list[Any]:
        p, q = values
        done = op.Equal(q, op.const(np.int64(0)))
        return [op.Where(done, p, q), op.Where(done, q, op.Mod(p, op.Where(done, op.const(np.int64(1)), q)))]
    found, _ = looped(a, None, start, step, lambda op, values: op.Greater(op.ReduceMax(values[1], keepdims=0), op.const(np.int64(0))))
    return cast(a.op, found, kind if kind != INT64 else INT64)


composed("lcm")(lambda a, x, y: a.abs(a.mul(a.div(x, a.clamp_min(a.gcd(x, y), 1), rounding_mode="trunc"), y)))
