"""Whether a student found its teacher, judged by its loss, by its risk, and neuron by neuron."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .estimators.base import AbstractFit
from .estimators.phases import row_count
from .estimators.two_phase import NetworkFit, OracleStudent
from .losses import weighted_mean
from .network import TwoLayer, match_neurons
from .precision import requires_float64
from .problem import Problem, RegressionFunction
from .risk import exact_risk
from .task import Dataset
from .theory import cramer_rao


class Recovery(NamedTuple):
    """The result of `recovery`: scalars, NaN where they do not apply to the fit or the teacher.

    - `risk`: exact excess risk; NaN without a closed form (`tsjax.monte_carlo_risk` estimates it).
    - `oracle_risk`: the exact excess risk of the oracle student on the same data.
    - `cramer_rao`: the Cramer-Rao limit sigma^2 m d / n for the teacher's m d parameters (m (d + 1) if phi is not homogeneous).
    - `train_loss`: half mean squared error over the data, in float64.
    - `loss_gap`: `train_loss` minus the training loss of the oracle student.
    - `success`: whether `loss_gap` is below half of `cramer_rao`. This needs no knowledge of the risk.
    - `alignment`, `parameter_error`: as `tsjax.match_neurons` defines them.
    - `width`: the number of neurons alive.
    """

    risk: Float[Array, ""]
    oracle_risk: Float[Array, ""]
    cramer_rao: Float[Array, ""]
    train_loss: Float[Array, ""]
    loss_gap: Float[Array, ""]
    success: Bool[Array, ""]
    alignment: Float[Array, ""]
    parameter_error: Float[Array, ""]
    width: Int[Array, ""]


@requires_float64
def recovery(
    problem: Problem,
    teacher: RegressionFunction,
    data: Dataset,
    fit: AbstractFit,
    oracle: NetworkFit | None = None,
) -> Recovery:
    """Compares a fit with its teacher and with the oracle student, which runs phase II from the teacher on the same data.

    **Arguments:**

    - `problem`, `teacher`, `data`: the problem, its two-layer teacher, and the training sample.
    - `fit`: any fit to `data`; its neurons are compared if it is a `NetworkFit` with the teacher's activation.
    - `oracle`: the fit of `OracleStudent` to `data`, trained here if None.

    **Returns:** a `Recovery`. Pure, so it composes with `jax.jit` and `jax.vmap`.

    **Raises:** ValueError for a teacher that is not a two-layer network: it has neither neurons nor an oracle student.
    """
    if not isinstance(teacher, TwoLayer):
        raise ValueError(
            f"recovery compares with a two-layer teacher, got a {type(teacher).__name__}. For other teachers use "
            "tsjax.excess_risk(problem, teacher, fit, key=...)."
        )
    if oracle is None:
        oracle = OracleStudent().fit(jax.random.key(0), data, oracle=(problem, teacher))
    x, y = data.x.astype(jnp.float64), data.y.astype(jnp.float64)
    loss = lambda fit: 0.5 * weighted_mean((fit.predict(x) - y) ** 2, data.weight)
    # Each neuron of a non-homogeneous activation has an output weight of its own.
    own = data.d + (teacher.activation.degree is None)
    limit = cramer_rao(m=teacher.a.shape[0], d=own, n=1, noise_std=1.0) * problem.noise_std**2 / row_count(data)
    missing = jnp.full((), jnp.nan)
    risk, oracle_risk = (
        missing if exact is None else exact.value
        for exact in (exact_risk(problem, teacher, fit), exact_risk(problem, teacher, oracle))
    )
    alignment = error = missing
    width = jnp.zeros((), jnp.int32)
    # Only trained networks: random features have neurons, but did not learn them.
    net = fit.as_network if "width" in fit.stats else None
    if net is not None and net.activation == teacher.activation:
        match = match_neurons(net, teacher)
        alignment, error = match.alignment, match.parameter_error
    if net is not None:
        width = fit.stats["width"]
    gap = loss(fit) - loss(oracle)
    return Recovery(
        risk=risk,
        oracle_risk=oracle_risk,
        cramer_rao=jnp.asarray(limit, jnp.float64),
        train_loss=loss(fit),
        loss_gap=gap,
        success=gap < 0.5 * limit,
        alignment=alignment,
        parameter_error=error,
        width=width,
    )
