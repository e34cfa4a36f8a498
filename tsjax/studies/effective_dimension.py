r"""How the exponent of the risk depends on the dimension of the inputs if the target depends on two of them only.

Suh & Cheng (arXiv:2401.07187) survey the rates. For compositions whose worst function has smoothness b and t* arguments, sparse
deep ReLU networks attain n^{-2b/(2b+t*)} up to logarithms, in every dimension d of the inputs (Schmidt-Hieber 2020,
arXiv:1708.06633, theorem 1). Over all functions of d arguments with smoothness b, no estimator does better than n^{-2b/(2b+d)}
(Stone 1982). The survey has no experiment; this study is one, with x uniform on [-1, 1]^d, y = f(x) + noise, f of t* = 2
coordinates.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from ..estimators.base import AbstractFit
from ..estimators.ridge import KernelRidge
from ..estimators.student import Student
from ..kernels import AbstractKernel, Laplace, Stretched, ntk
from ..losses import squared
from ..networks.mlp import MLP
from ..problem import Cube, FunctionTeacher, Problem
from ..risk import monte_carlo_risk
from ..size import Size
from ..status import failed
from ..sweep.experiment import Arguments, Cost, Theory, experiment
from ..task import Dataset
from ..train import Validation
from .citations import SUH_CHENG
from .linear import ENTRY

EFFECTIVE_DIMENSION = 2
"""t*: the number of coordinates that the target depends on."""

LENGTHS, DECAYS = (1.0, 2.0, 4.0, 8.0), (1e-3, 1e-1)
"""The length scales of a kernel, among which the oracle chooses, and the weight decays of a network, among which validation
chooses."""

_WIDTHS, _BATCH, _RATE, _EVERY = (64, 64), 64, 3e-3, 50


def target(kink: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
    r"""f(x) = h(x_1, x_2) + sin(2 x_1) / 2, where `kink` is the order of the derivative of h that jumps across |x_1| = |x_2|:

    | kink | h | smoothness b |
    |---|---|---|
    | 1 | 2 max(\|x_1\| - \|x_2\|, 0) | 1: Lipschitz |
    | 2 | 5/2 max(x_1^2 - x_2^2, 0)^2 | 2: a Lipschitz gradient |
    | 0 | 1/2 log(1 + exp(4 (x_1^2 - x_2^2))) | infinite: analytic |
    """
    square = x[0] ** 2 - x[1] ** 2
    rough = 2.0 * jnp.maximum(jnp.abs(x[0]) - jnp.abs(x[1]), 0.0)
    smooth = jnp.where(kink == 2, 2.5 * jnp.maximum(square, 0.0) ** 2, 0.5 * jax.nn.softplus(4.0 * square))
    return jnp.where(kink == 1, rough, smooth) + 0.5 * jnp.sin(2.0 * x[0])


def exponent(kink: int, arguments: int) -> float:
    """2b / (2b + t): the minimax exponent of functions of t arguments with smoothness b (`target`); 1 for an analytic
    function."""
    return 2.0 * kink / (2.0 * kink + arguments) if kink else 1.0


def theory(arguments: dict[str, Any], n: np.ndarray) -> Theory:
    """The exponents of the rates in arXiv:2401.07187: with t* for the network, with d for kernels. There is no curve, since the
    constants are unknown."""
    del n
    kink, d = arguments["kink"], arguments["d"]
    if arguments["learner"] == "mlp":
        source = "2b/(2b+t*), t* = 2: compositions, arXiv:2401.07187 after Schmidt-Hieber, arXiv:1708.06633"
        return Theory(None, exponent(kink, EFFECTIVE_DIMENSION), source)
    return Theory(None, exponent(kink, d), "2b/(2b+d): functions of d arguments, arXiv:2401.07187 after Stone 1982")


class EffectiveDimensionArguments(Arguments):
    """Target, learner and sizes of one cell.

    - `kink`: the choice of the target (see `target`). `d`: the dimension of the inputs.
    - `n`: the rows that learners train on; `held_out`: further rows, on which the network is validated.
    - `steps`: training steps of the network. `test_points`: fresh points at which the risk is measured.
    """

    learner: Literal["mlp", "laplace", "ntk"]
    kink: Literal[0, 1, 2] = 1
    n: Annotated[int, Field(ge=2)]
    d: Annotated[int, Field(ge=EFFECTIVE_DIMENSION)]
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    steps: Annotated[int, Field(ge=_EVERY)] = 3000
    held_out: Annotated[int, Field(ge=1)] = 500
    test_points: Annotated[int, Field(ge=100)] = 4096

    @model_validator(mode="after")
    def _consistent(self):
        if self.learner == "mlp" and self.n < _BATCH:
            raise ValueError(f"n = {self.n} rows are no mini-batch of {_BATCH}: raise n to {_BATCH} or more")
        if self.learner == "mlp" and self.steps % _EVERY:
            raise ValueError(
                f"steps = {self.steps} must be a multiple of {_EVERY}, the steps between looks at held-out rows"
            )
        return self


def least(score: Callable[[Any], tuple[AbstractFit, Array]], choices: tuple[float, ...], dtype: Any, each: Callable):
    """The fit of the choice with the least score, and that choice. `each(score)` maps `score` over the choices, as `jax.vmap`
    does."""
    values = jnp.asarray(choices, dtype)
    fits, scores = each(score)(values)
    best = jnp.argmin(jnp.where(failed(fits.status), jnp.inf, scores))
    return jax.tree.map(lambda leaf: leaf[best], fits), values[best]


def ridge(kernel: Callable[[Any], AbstractKernel], key, problem: Problem, teacher, data: Dataset):
    """Kernel ridge regression with the ridge and the length scale of least true risk; returns the fit and that choice."""

    def score(length):
        fit = KernelRidge(kernel(length), "oracle").fit(key, data, oracle=(problem, teacher))
        return fit, fit.stats["oracle"]

    # One after another: the matrices of all lengths at once would not fit in the cache.
    fit, length = least(score, LENGTHS, jnp.float64, lambda score: lambda values: jax.lax.map(score, values))
    return fit, {"length_scale": length, "ridge": fit.stats["ridge"]}


def network(key, problem: Problem, teacher, data: Dataset, steps: int, held_out: int):
    """A network of two hidden layers of 64 ReLU neurons by AdamW with a cosine schedule, from He's initialisation and zero
    biases. Among all checks on `held_out` further rows, and both weight decays, it keeps the network with the least squared
    error there."""
    held_key, fit_key = jax.random.split(key)
    held = problem.sample(held_key, teacher, held_out, data.x.dtype)
    mlp = MLP(_WIDTHS, parameterisation="standard", bias_std=jnp.zeros(()))

    def score(decay):
        student = Student(
            mlp, optimizer=optax.adam, learning_rate=_cosine(steps), weight_decay=decay, steps=steps, batch_size=_BATCH,
            stop=Validation(data=held, objective=squared, patience=None, every=_EVERY),
        )  # fmt: skip
        fit = student.fit(fit_key, data)
        return fit, squared(fit.model, held)

    fit, decay = least(score, DECAYS, data.x.dtype, jax.vmap)
    return fit, {"weight_decay": decay}


@functools.cache
def _cosine(steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(_RATE, steps)


def cost(arguments: dict[str, Any]) -> Cost:
    """The cost of training both networks, or of the tridiagonal form of each length scale's matrix and its values at the
    oracle's points."""
    n, d, points = arguments["n"], arguments["d"], arguments["test_points"]
    if arguments["learner"] != "mlp":
        fresh = 2.0 * (4096 * len(LENGTHS) + points) * n * d
        return Cost(0.0, 2.0 * len(LENGTHS) * n**3, fresh + ENTRY * len(LENGTHS) * n * n)
    weights = d * _WIDTHS[0] + _WIDTHS[0] * _WIDTHS[1] + _WIDTHS[1]
    rows = 3 * _BATCH + arguments["held_out"] / _EVERY
    return Cost(2.0 * len(DECAYS) * arguments["steps"] * rows * weights)


@experiment(
    static=("learner", "d", "steps", "held_out", "test_points"),
    sized=("n",),
    # With padding, where 128 of 2048 rows count, permuting the rows takes longer than the steps of an epoch.
    pads=lambda arguments: arguments["learner"] != "mlp",
    arguments=EffectiveDimensionArguments,
    x="n",
    y=("risk",),
    curve="learner",
    theory=theory,
    cost=cost,
    cite=SUH_CHENG,
    labels={
        "n": "sample size n", "risk": "excess risk", "kink": "order of the kink", "d": "dimension d",
        "mlp": "network, stopped by validation", "laplace": "Laplace ridge, oracle", "ntk": "NTK ridge, oracle",
    },
)  # fmt: skip
def effective_dimension(key, *, learner, kink, n, d, noise_std, steps, held_out, test_points):
    """Fits one learner to n rows; returns its excess risk, a Monte-Carlo estimate with standard error `risk_se`, and the
    choices made: `length_scale` and `ridge` of kernels by the true risk, `weight_decay` of the network by held-out rows."""
    problem = Problem(Cube(d), FunctionTeacher(jax.tree_util.Partial(target, kink)), noise_std=noise_std)
    data_key, fit_key, test_key = (jax.random.fold_in(key, i) for i in range(3))
    teacher = problem.sample_teacher(key)
    size: Size = n
    data = problem.sample(jax.random.fold_in(data_key, size.count), teacher, size, jnp.float32)
    own = jax.random.fold_in(fit_key, size.count)
    if learner == "mlp":
        fit, chosen = network(own, problem, teacher, data, steps, held_out)
    else:
        kernel = Laplace if learner == "laplace" else lambda length: Stretched(ntk(2, bias_std=1.0), length)
        fit, chosen = ridge(kernel, own, problem, teacher, data)
    risk = monte_carlo_risk(problem, teacher, fit, test_key, test_points)
    return {
        "status": fit.status,
        "risk": jnp.where(failed(fit.status), jnp.nan, risk.value),
        "risk_se": risk.standard_error,
        **chosen,
    }
