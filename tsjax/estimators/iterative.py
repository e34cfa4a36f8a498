r"""Kernel ridge regression for samples whose kernel matrix does not fit in memory.

`KernelRidge` factorises the system (K + ridge I) alpha = y. This module solves it by preconditioned conjugate gradients. K is
never stored: each product recomputes it tile by tile, and a tile above the diagonal also serves as its mirror image.

- *Preconditioner.* P = F F^T + ridge I with a partial Cholesky factor F (n, rank) of K
  (`tsjax.estimators.preconditioner`).
- *Refinement.* Conjugate gradients use float32 tiles (unless `dtype` says otherwise) and float64 vectors. Then the residual
  y - (K + ridge I) alpha is computed with float64 tiles. While it is above the tolerance, the same system is solved for the
  correction (Higham 2002, "Accuracy and Stability of Numerical Algorithms", chapter 12). Errors of float32 thus cost steps, not
  accuracy.
- *Weights and outputs.* With D = diag(sqrt(w_i)) the system is (D K D + ridge I) beta = D y, and alpha = D beta. Several
  outputs share the preconditioner and every tile; each has its own conjugate gradients.
- *Search.* A criterion scores the path of `KernelRidge` for F F^T + tail I in place of K, where tail = trace(K - F F^T) / n:
  the part of K that F misses counts as noise. This takes O(n rank^2) operations for the whole path. Only the system with the
  best ridge is solved, and with the exact K.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..compilation import compiled
from ..kernels.base import AbstractKernel
from ..precision import requires_float64
from ..status import Status
from ..task import Dataset
from .base import AbstractEstimator, AbstractFit, KernelSum, check_at_least, check_data, floats_as_arrays
from .preconditioner import Preconditioner, block_of, gram_of, pivoted_cholesky, project
from .repeats import Distinct, distinct, sample_of, shaped
from .ridge import as_kernel, best_score, log_likelihood, ridge_path
from .shifted import solve_shifted
from .tiles import WHOLE, Tiles, kernel_product, over_devices, sum_over_devices, tiles_of
from .tuning import Fixed, Search, check_oracle, gcv_judged, tuned

_MAX_ROUNDS = 10
# A stream far from the small numbers that split(key) amounts to folding in.
_PIVOT_STREAM = 0x91707


def _search(
    criterion: str,
    factor: Float[Array, "groups blocks tile pivots"],
    gram: Float[Array, "q q"],
    rows: Distinct,
    root: Float[Array, "blocks tile"],
    trace,
    mesh: Mesh | None,
) -> dict[str, Array]:
    """The ridge and the scores of the best candidate for F F^T + tail I, from F, F^T F and the trace of D K D. Equal rows count
    as one: with their mean response at each of them, sums over all rows are the sums over distinct rows of the criteria."""
    count = rows.groups
    y = root[:, :, None] * _tiled(rows.mean, root)
    b = over_devices(mesh, lambda factor, y: sum_over_devices(mesh, project(factor, y)), (1, 0), WHOLE)(factor, y)
    ridges, q = ridge_path(trace, rows), b.shape[0]
    tail = jnp.maximum(trace - jnp.trace(gram), 0.0) / rows.n
    shifts = ridges + tail
    path = solve_shifted(gram, b, shifts)

    def squares(factor, y, c):
        groups, blocks, _, pivots = factor.shape
        c = c.reshape(groups, pivots, *c.shape[1:])
        fitted = lambda k: jnp.einsum("gtp,gpro->tro", block_of(factor, k), c, precision="highest")
        add = lambda k, total: total + jnp.sum((y[k][:, None, :] - fitted(k)) ** 2, axis=0)
        return sum_over_devices(mesh, jax.lax.fori_loop(0, blocks, add, jnp.zeros(c.shape[2:])))

    # (I-H) y = ridge / shift (y - F c) for c = (F^T F + shift I)^{-1} b, and y^T (y - F c) = |y - F c|^2 + shift |c|^2.
    residuals = over_devices(mesh, squares, (1, 0, WHOLE), WHOLE)(factor, y, path.solutions)
    unexplained = shifts * path.trace_inverse + count - q
    gcv = rows.gcv(jnp.sum(residuals, axis=1), unexplained)
    if criterion == "gcv":
        score = gcv_judged(gcv, unexplained**2 / (shifts**2 * path.trace_inverse_square + count - q), count)
    else:
        quadratic = residuals / shifts[:, None] + jnp.sum(path.solutions**2, axis=0)
        score = log_likelihood(quadratic, (path.log_det + (count - q) * jnp.log(shifts)) / count)
    best = best_score(jnp.where(ridges < tail, jnp.inf, score))
    dof = count - ridges[best] / shifts[best] * unexplained[best]
    return {"ridge": ridges[best], "dof": dof, "gcv": gcv[best], "tail": tail}


def _tiled(values: Float[Array, "n k"], root: Float[Array, "blocks tile"]) -> Float[Array, "blocks tile k"]:
    """The rows in blocks, with zeros at the padding."""
    return jnp.pad(values, ((0, root.size - values.shape[0]), (0, 0))).reshape(*root.shape, -1)


class _Progress(NamedTuple):
    """The state of the refinement of one output, in terms of the weighted system."""

    alpha: Float[Array, "blocks tile"]
    rest: Float[Array, "blocks tile"]
    """y - (D K D + ridge I) alpha, with y times the roots of the weights."""
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    rounds: Int[Array, ""]
    stalled: Array
    broken: Array


def _solve(
    self: "IterativeRidge", key: PRNGKeyArray, tiles: Tiles, y: Float[Array, "blocks tile k"], rows: Distinct, rank: int
) -> tuple[_Progress, dict[str, Array]]:
    """Solves (D K D + ridge I) alpha = y for each output. Returns the end of each refinement, with alpha (k, blocks, tile), and
    the ridge, the rank of the preconditioner, and the scores of a search."""
    trace = jnp.sum(tiles.diagonal * tiles.root**2)
    factor, found = pivoted_cholesky(self.kernel, tiles, jr.fold_in(key, _PIVOT_STREAM), rank, self.dtype, self.mesh)
    gram = gram_of(factor, self.mesh)
    if isinstance(self.ridge, Search):
        stats = _search(self.ridge.criterion, factor, gram, rows, tiles.root, trace, self.mesh)
    else:
        stats = {"ridge": jnp.asarray(self.ridge.value, jnp.float64)}
    ridge = stats["ridge"]
    # With a smaller shift F^T F + shift I may have no Cholesky factor in float64. A shift above the ridge does not change the
    # solution; the preconditioner is only less effective.
    shift = jnp.maximum(ridge, 1e-14 * trace + jnp.finfo(jnp.float64).tiny)
    precondition = Preconditioner(factor, jnp.linalg.cholesky(gram + shift * jnp.eye(gram.shape[0])))
    solve = lambda y: _solve_one(self, tiles, y, ridge, shift, precondition)
    # A single output needs no batch of one.
    found_all = jax.vmap(solve, 2)(y) if y.shape[2] > 1 else jax.tree.map(lambda v: v[None], solve(y[:, :, 0]))
    return found_all, stats | {"rank": found.astype(jnp.int32)}


def _solve_one(
    self: "IterativeRidge", tiles: Tiles, y: Float[Array, "blocks tile"], ridge, shift, precondition: Preconditioner
) -> _Progress:
    size = jnp.linalg.norm(y)
    scale = jnp.where(size > 0, size, 1.0)
    floor = 1e-7 if self.dtype == "float32" else 1e-15

    # The system is divided by the shift because lineax stops when both the residual and the last change of the solution are
    # small. |ridge change| is at most of the order of the residual, so in these units one tolerance suits both.
    def scaled(v):
        return (kernel_product(self.kernel, tiles, v, self.dtype, self.mesh) + ridge * v) / shift

    shape = jax.ShapeDtypeStruct(y.shape, jnp.float64)
    matrix = lx.FunctionLinearOperator(scaled, shape, lx.positive_semidefinite_tag)
    inverse = lx.FunctionLinearOperator(lambda v: precondition(self.mesh, v), shape, lx.positive_semidefinite_tag)

    def go_on(state: _Progress):
        unfinished = (state.residual > self.tolerance) & (state.steps < self.max_steps)
        return unfinished & ~state.stalled & ~state.broken & (state.rounds < _MAX_ROUNDS)

    def refine(state: _Progress) -> _Progress:
        # The goal is well below the tolerance, since the errors of the tiles add to the residual, but not below these errors.
        goal = jnp.maximum(0.3 * self.tolerance * scale, floor * jnp.linalg.norm(state.rest))
        limits: dict[str, Any] = {"atol": goal, "max_steps": self.max_steps - state.steps}
        solver = lx.CG(rtol=0.0, norm=jnp.linalg.norm, stabilise_every=None, **limits)
        # lineax computes a product for its first guess even if that is 0, so a good guess costs nothing more.
        options = {"preconditioner": inverse, "y0": precondition(self.mesh, state.rest)}
        done = lx.linear_solve(matrix, state.rest, solver, options=options, throw=False)
        alpha = state.alpha + done.value / shift
        exact = kernel_product(self.kernel, tiles, alpha, "float64", self.mesh) + ridge * alpha
        rest = y - exact
        residual = jnp.linalg.norm(rest) / scale
        broken = ~jnp.isfinite(residual)
        # The first solution is always taken, a correction only if it lowers the residual.
        taken = ~broken & ((state.rounds == 0) | (residual < state.residual))
        steps = state.steps + jnp.asarray(done.stats["num_steps"], jnp.int32)
        stalled = (state.rounds > 0) & ~(residual < 0.5 * state.residual)
        keep = lambda new, old: jnp.where(taken, new, old)
        return _Progress(
            keep(alpha, state.alpha), keep(rest, state.rest), keep(residual, state.residual), steps,
            state.rounds + 1, stalled, broken,
        )  # fmt: skip

    count = jnp.zeros((), jnp.int32)
    no = jnp.zeros((), bool)
    start = _Progress(jnp.zeros_like(y), y, size / scale, count, count, no, no)
    return jax.lax.while_loop(go_on, refine, start)


class TiledKernelFit(AbstractFit):
    """f(x) = k(x, X) alpha, evaluated tile by tile, so that no matrix of all training points is made. alpha has the shape of y,
    (n,) or (n, k).

    `stats`: `ridge`, and after a search `dof`, `gcv` and `tail` of the approximation that was searched; `residual`, the
    relative residual |y - (K + ridge I) alpha| / |y| in float64 (the largest over outputs); `steps` of conjugate gradients
    over all rounds of refinement (the most over outputs); `rank`, the number of columns of the preconditioner that are not 0.
    """

    kernel: AbstractKernel
    x: Float[Array, "*batch n d"]
    alpha: Float[Array, "..."]
    status: Int[Array, "*batch"]
    stats: dict[str, Array]
    tile: int = eqx.field(static=True)

    def predict(self, x: Float[Array, "t d"]) -> Float[Array, "t *outputs"]:
        return _predict(self.kernel, self.x, self.alpha, self.tile, x)

    @property
    def as_kernel_sum(self) -> KernelSum:
        return KernelSum(self.kernel, self.x, self.alpha)


@requires_float64
def _predict(kernel, x_train, alpha, tile, x):
    return _predict_compiled(kernel, x_train, alpha, tile, jnp.asarray(x, jnp.float64))


@compiled
def _predict_compiled(kernel, x_train, alpha, tile: int, x):
    rows, columns = tiles_of(kernel, x, tile, 1).x, tiles_of(kernel, x_train, tile, 1).x
    outputs = alpha.shape[1:]
    padding = columns.shape[0] * columns.shape[1] - alpha.shape[0]
    weights = jnp.pad(alpha, ((0, padding), *((0, 0) for _ in outputs))).reshape(*columns.shape[:2], *outputs)

    def of_block(block):
        add = lambda total, part: (total + jnp.dot(kernel.tile(block, part[0]), part[1]), None)
        return jax.lax.scan(add, jnp.zeros((block.shape[0], *outputs)), (columns, weights))[0]

    return jax.lax.map(of_block, rows).reshape(-1, *outputs)[: x.shape[0]]


_ridge_rule = tuned("ridge", ("gcv", "marginal_likelihood"))


class IterativeRidge(AbstractEstimator):
    """`KernelRidge` for large samples: solves (K + ridge I) alpha = y to a given residual, without storing K (module
    docstring).

    It stores n times `rank` numbers of `dtype` and rank^2 float64 numbers. A step computes n^2 / 2 values of the kernel, which
    kernels with a fast `tile` do by matrix products. Infinitely wide relu networks have fast tiles unless they have biases
    and several hidden layers; other network kernels are evaluated without.

    **Arguments:**

    - `kernel`: any kernel.
    - `ridge`: a number >= 0 (not times n), traced; or `"gcv"` or `"marginal_likelihood"`: the best of the path of
      `KernelRidge` for the approximation F F^T + tail I of K (module docstring). Candidates below its `tail` are left out. If
      the ridge that is chosen is close to `tail`, use a larger `rank`.
    - `rank`: number of columns of the preconditioner, >= 1; None is 10 sqrt(n), rounded up, but at most n.
    - `tolerance`: the relative residual |y - (K + ridge I) alpha| / |y| to reach, >= 1e-15.
    - `max_steps`: the largest total number of steps of conjugate gradients, >= 1.
    - `tile`: the number of rows and of columns of a tile, >= 1.
    - `dtype`: that of the tiles and the factor, "float32" or "float64". The accuracy of the solution does not depend on it.
    - `mesh`: a `jax.sharding.Mesh` with one axis, to share out the tiles and the rows of the factor over its devices.

    The status is CONVERGED if the residual, computed in float64 for the coefficients returned, is at most `tolerance`. It is
    SINGULAR if conjugate gradients broke down before that, because the matrix is singular to working precision (with ridge 0
    and duplicates, for example). Otherwise it is STEP_LIMIT: either `max_steps` were done, or refinement stopped improving
    because the tolerance is below the rounding errors at this ridge. The coefficients are always finite.

    **Raises:** ValueError for a negative ridge, a criterion other than these, a `kernel` that is not a kernel, a dtype not
    named here, a mesh of several axes, and numbers out of range.
    """

    kernel: AbstractKernel = eqx.field(converter=as_kernel)
    ridge: Fixed | Search = eqx.field(converter=_ridge_rule, default="gcv")
    rank: int | None = eqx.field(static=True, default=None)
    tolerance: Any = 1e-6
    max_steps: int = eqx.field(static=True, default=500)
    tile: int = eqx.field(static=True, default=1024)
    dtype: str = eqx.field(static=True, default="float32")
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_at_least("IterativeRidge", rank=(self.rank, 1), max_steps=(self.max_steps, 1), tile=(self.tile, 1))
        check_at_least("IterativeRidge", tolerance=(self.tolerance, 1e-15))
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f'IterativeRidge: dtype must be "float32" or "float64", got {self.dtype!r}.')
        if self.mesh is not None and len(self.mesh.axis_names) != 1:
            raise ValueError(f"IterativeRidge needs a mesh with one axis, got axes {self.mesh.axis_names}.")

    def fit(self, key: PRNGKeyArray, data: Dataset) -> TiledKernelFit:
        """Fits x (n, d) and y, (n,) or (n, k). `key` draws the pivots of the preconditioner, which affect the number of steps,
        the solution only within `tolerance`, and the scores of a search.

        **Raises:** ValueError for data that are not finite or of the wrong rank, and for a search on fewer than two rows or on
        rows that are all equal.
        """
        check_data(key, data, outputs=True, weights=True)
        check_oracle("ridge", self.ridge, None, data)
        return _fit(floats_as_arrays(self), key, data)


@requires_float64
def _fit(self: IterativeRidge, key, data: Dataset) -> TiledKernelFit:
    return _fit_compiled(self, key, data)


@compiled
def _fit_compiled(self: IterativeRidge, key, data: Dataset) -> TiledKernelFit:
    sample, n = sample_of(data), data.n
    tiles = tiles_of(self.kernel, sample.x, self.tile, 1 if self.mesh is None else self.mesh.size, sample.weight)
    rank = min(n, math.ceil(10.0 * n**0.5) if self.rank is None else self.rank)
    y = tiles.root[:, :, None] * _tiled(sample.y, tiles.root)
    end, stats = _solve(self, key, tiles, y, distinct(sample), rank)
    failure = jnp.where(jnp.any(end.broken), Status.SINGULAR.value, Status.STEP_LIMIT.value)
    residual = jnp.max(end.residual)
    status = jnp.where(residual <= self.tolerance, Status.CONVERGED.value, failure).astype(jnp.int32)
    stats |= {"residual": residual, "steps": jnp.max(end.steps)}
    alpha = (tiles.root[None] * end.alpha).reshape(len(end.alpha), -1)[:, :n].T
    return TiledKernelFit(
        kernel=self.kernel, x=sample.x, alpha=shaped(alpha, data), status=status, stats=stats, tile=self.tile
    )
