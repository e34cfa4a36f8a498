r"""Does gradient descent with a sparse penalty identify its teacher? Over-parameterised students as in arXiv:2106.06251.

The teacher is f*(x) = sum_{j <= m} s_j relu(<w_j, x>), w_j orthonormal, x uniform on the sphere, without noise. The student
has `width` > m neurons and minimises, by plain gradient descent from a small start a ~ std N(0, 1), w ~ std N(0, I/d),

    (1/2n) sum_i (f(x_i) - y_i)^2 + (lam/2) sum_j (a_j^2 + |w_j|^2).

The pairs (a, w) and (c a, w/c) give the same relu neuron, and the least of (a^2 + |w|^2)/2 over c is |a||w|. So the penalty has
the minimisers of lam sum_j |a_j||w_j|, the total variation of the student as a measure with atoms of mass |a_j||w_j| at (sign
a_j, w_j/|w_j|). The student has identified its teacher if all its mass lies at the m atoms of the teacher. The steps of the
paper's gradient descent depend on the norms of the neurons; here all neurons have one step size.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from ..estimators.student import ModelFit, Student
from ..network import TwoLayer
from ..problem import Problem, ReLUTeacher, Sphere
from ..rates.kinds import Indicator, Positive, Signed
from ..risk import excess_risk
from ..size import Rows
from ..sweep.experiment import Arguments, Cost, Theory, experiment

LEARNABILITY = """@inproceedings{akiyama2021learnability,
  title         = {On Learnability via Gradient Method for Two-Layer {ReLU} Neural Networks in Teacher-Student Setting},
  author        = {Akiyama, Shunta and Suzuki, Taiji},
  booktitle     = {International Conference on Machine Learning},
  year          = {2021},
  eprint        = {2106.06251},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}"""
NEAR = 0.1
"""The angle in radians below which an atom counts as near a teacher's neuron."""
SUCCESS = 1e-3
"""A student with a smaller excess risk than this counts as a success."""


class LearnabilityArguments(Arguments):
    """Teacher, data, student and training of one cell; the defaults are those of the sweep over lam."""

    lam: Annotated[float, Field(ge=0)]
    width: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=2)] = 500
    d: Annotated[int, Field(ge=2)] = 5
    m: Annotated[int, Field(ge=1)] = 4
    signs: Literal["alternating", "positive"] = "alternating"
    steps: Annotated[int, Field(ge=0)] = 20000
    step_size: Annotated[float, Field(gt=0)] = 1.0
    start: Annotated[float, Field(gt=0)] = 0.1

    @model_validator(mode="after")
    def _consistent(self):
        ReLUTeacher(self.m, signs=self.signs).check(self.d)
        return self


class Start(eqx.Module):
    """The initialisation of the student before it is scaled: a ~ N(0, I), w_j ~ N(0, I/d)."""

    width: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray, point: int) -> TwoLayer:
        key_a, key_w = jr.split(key)
        return TwoLayer(a=jr.normal(key_a, (self.width,)), w=jr.normal(key_w, (self.width, point)) / point**0.5)


class Atoms(NamedTuple):
    """A relu network as a measure: sum_j sign_j relu(<position_j, x>), where `position` (M, d) is the mass |a_j||w_j| times the
    direction w_j/|w_j|, and `sign` (M,) is that of a_j."""

    position: Float[Array, "M d"]
    sign: Float[Array, " M"]


def atoms(net: TwoLayer) -> Atoms:
    """The neurons of a network as atoms, in float64."""
    a, w = net.a.astype(jnp.float64), net.w.astype(jnp.float64)
    return Atoms(jnp.abs(a)[:, None] * w, jnp.sign(a))


def identification(student: TwoLayer, teacher: TwoLayer) -> dict[str, Float[Array, ""]]:
    """How close the atoms of a student are to those of its teacher (m unit masses).

    - `angle`: the mean over the student's mass of the angle to the nearest teacher's neuron of the same sign, pi if no neuron
      has that sign.
    - `near`: the share of the student's mass with an angle below 0.1; `recovered`: this mass over that of the teacher.
    - `mass`: the total mass of the student over that of the teacher.
    """
    own, true = atoms(student), atoms(teacher)
    mass, whole = jnp.linalg.norm(own.position, axis=1), jnp.sum(jnp.linalg.norm(true.position, axis=1))
    unit = own.position / jnp.maximum(mass, 1e-300)[:, None]
    target = true.position / jnp.linalg.norm(true.position, axis=1, keepdims=True)
    # Unlike the arc-cosine, the chord keeps its digits at small angles.
    apart = jnp.linalg.norm(unit[:, None] - target[None], axis=2)
    between = 2 * jnp.arctan2(apart, jnp.linalg.norm(unit[:, None] + target[None], axis=2))
    angle = jnp.min(jnp.where(own.sign[:, None] == true.sign[None], between, jnp.pi), axis=1)
    near, total = jnp.sum(jnp.where(angle < NEAR, mass, 0.0)), jnp.sum(mass)
    return {
        "angle": jnp.sum(mass * angle) / total,
        "near": near / total,
        "recovered": near / whole,
        "mass": total / whole,
    }


def shift(d: int, m: int, signs: str) -> tuple[float, float]:
    r"""How far the penalty moves the minimiser, to first order in lam and for infinite n: (angle, lost mass)/lam.

    The minimiser of |sum_j s_j relu(<v_j, x>) - f*|^2/2 + lam sum_j |v_j| near v_j = w_j is w - lam H^{-1} w, with the blocks
    H_jj = I/2d and H_jk = (s_j s_k/d) (I/4 + (w_j w_k^T + w_k w_j^T)/2 pi) of orthonormal neurons: second moments of x where
    both neurons are active. The part of lam H^{-1} w orthogonal to w_j is the angle, and the part along w_j the lost mass.
    [Derived here.]
    """
    s = np.ones(m) if signs == "positive" else np.where(np.arange(m) % 2, -1.0, 1.0)
    w = np.eye(m, d)
    pairs = np.einsum("jp,kq->jpkq", w, w)
    blocks = np.eye(d)[None, :, None, :] / 4 + (pairs + pairs.transpose(0, 3, 2, 1)) / (2 * np.pi)
    blocks = blocks * (s[:, None] * s[None])[:, None, :, None]
    for j in range(m):
        blocks[j, :, j] = np.eye(d) / 2
    moved = np.linalg.solve(blocks.reshape(m * d, m * d) / d, w.ravel()).reshape(m, d)
    along = np.sum(moved * w, axis=1)
    across = np.linalg.norm(moved - along[:, None] * w, axis=1)
    return float(across.mean()), float(along.mean())


def _theory(arguments: dict[str, Any], x: np.ndarray) -> Theory:
    slope, _ = shift(*(arguments[name] for name in ("d", "m", "signs")))
    # At lam = 0 every student that fits the data is a minimiser, so nothing is predicted.
    return Theory(np.where(x > 0, slope * x, np.nan), None, "the minimiser to first order in lam, with n infinite")


def _cost(arguments: dict[str, Any]) -> Cost:
    return Cost(6.0 * math.prod(arguments[name] for name in ("steps", "width", "n", "d")))


def trained(
    key: PRNGKeyArray, lam: Any, width: int, n: Rows, d: int, m: int, signs: Any, steps: int, step_size: Any, start: Any
) -> tuple[Problem, TwoLayer, ModelFit]:
    """The problem, a teacher, and a student trained on n points. With one key, all n and lam share the teacher, the
    initialisation and the data (a smaller n takes the first points of a larger one)."""
    problem = Problem(Sphere(d), ReLUTeacher(m, signs=signs), noise_std=0.0)
    teacher_key, data_key, fit_key = (jr.fold_in(key, i) for i in range(3))
    teacher = problem.sample_teacher(teacher_key, jnp.float32)
    data = problem.sample(data_key, teacher, n, jnp.float32)
    student = Student(Start(width), learning_rate=step_size, steps=steps, penalty=lam / 2, init_scale=start)
    return problem, teacher, student.fit(fit_key, data)


@experiment(
    static=("width", "d", "m", "signs", "steps"),
    sized=("n",),
    arguments=LearnabilityArguments,
    x="lam",
    y=("angle", "near", "recovered", "risk"),
    metrics={
        "angle": Positive(), "near": Signed(), "recovered": Signed(), "mass": Positive(), "risk": Positive(),
        "success": Indicator(), "train_loss": Positive(),
    },
    arrays=dict.fromkeys(("positive_atoms", "negative_atoms", "teacher_atoms"), ("neuron", "coordinate")),
    theory=_theory,
    cost=_cost,
    rates=False,
    cite=LEARNABILITY,
    labels={
        "lam": "penalty lambda", "n": "sample size n", "angle": "angle to the teacher (radians)",
        "near": "share of the mass within 0.1", "recovered": "mass within 0.1 / the teacher's", "risk": "excess risk",
        "positive_atoms": "positive atoms", "negative_atoms": "negative atoms", "teacher_atoms": "atoms of the teacher",
        "success": "success (risk below 0.001)", "width": "width of the student", "steps": "gradient steps",
        "learnability": "penalised student", "learnability_width": "penalised student",
    },
)  # fmt: skip
def learnability(key, *, lam, width, n, d, m, signs, steps, step_size, start) -> Mapping[str, Any]:
    """Trains one wide student; returns where its atoms lie (`identification`), its exact excess `risk`, whether that is below
    0.001 (`success`), its `train_loss` including the penalty, and the positions of its atoms and the teacher's, by sign, NaN in
    the rows of the other sign."""
    problem, teacher, fit = trained(key, lam, width, n, d, m, signs, steps, step_size, start)
    risk = excess_risk(problem, teacher, fit)
    ends = {"risk": risk, "success": risk < SUCCESS, "train_loss": fit.stats["train_loss"]}
    position, sign = atoms(fit.model)
    signed = lambda wanted: jnp.where(sign[:, None] == wanted, position, jnp.nan)
    places = {"positive_atoms": signed(1), "negative_atoms": signed(-1), "teacher_atoms": atoms(teacher).position}
    return {"status": fit.status, **identification(fit.model, teacher), **ends, **places}


against_width = dataclasses.replace(
    learnability, name="learnability_width", x="width", y=("success", "angle", "risk"), theory=None
)
"""The same cells, plotted against the width of the student."""
