"""What notebooks show: small, escaped HTML that says the numbers."""

from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts
from tsjax.display import card, grid
from tsjax.estimators.base import Status

N = 2.0 ** np.arange(5, 10)


class _Html(HTMLParser):
    """Collects the text, and checks that tags are few, known and closed in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        assert self.open == [] and len(source) < 20_000

    def handle_starttag(self, tag, attrs):
        assert tag in ("div", "b", "table", "thead", "tbody", "tr", "th", "td", "small") and {
            name for name, _ in attrs
        } <= {"style"}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


def _text(value) -> str:
    return " ".join(_Html(value._repr_html_()).text.split())


def _problem():
    return ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), noise_std=0.25)


def test_problem():
    text = _text(_problem())
    assert "dimension d = 4" in text and "m=2" in text and "gaussian, standard deviation 0.25" in text


def test_problem_inside_jit():
    shown = []

    @jax.jit
    def f(noise_std):
        shown.append(_text(ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), noise_std=noise_std)))
        return noise_std

    f(0.1)
    assert "standard deviation unknown inside jit" in shown[0]


@pytest.mark.parametrize(
    "estimator",
    [ts.KernelRidge(ts.kernels.RBF(0.7), ridge="gcv"), ts.TwoPhaseStudent(width=2)],
    ids=lambda one: type(one).__name__,
)
def test_fits(key, estimator):
    problem = _problem()
    teacher = problem.sample_teacher(key)
    fit = estimator.fit(key, problem.sample(jax.random.fold_in(key, 1), teacher, 32))
    text = _text(fit)
    assert type(fit).__name__ in text and Status(int(fit.status)).name.lower().replace("_", " ") in text
    for name, value in fit.stats.items():
        if value.ndim == 0:
            assert f"{name} {value.item():.4g}" in text


def test_many_fits(key):
    fit = ts.KernelRidge(ts.kernels.RBF(0.7), ridge=1e-3)
    datasets = jax.vmap(lambda k: _problem().sample(k, lambda x: x[0], 16))(jax.random.split(key, 3))
    fits = ts.fit_many(fit, jax.random.split(key, 3), datasets)
    text = _text(fits)
    assert ": 3 fits" in text and "3 converged" in text and "shape (3,)" in text
    shown = jax.jit(lambda f: [seen.append(f._repr_html_()), f.status][1])
    seen: list[str] = []
    shown(fits)
    assert "unknown inside jit" in seen[0]


def test_rate():
    risks = 3.0 / N[:, None] * np.random.default_rng(0).chisquare(15, (5, 3)) / 15
    rate = ts.fit_rate(N, risks)
    text = _text(rate)
    assert f"{rate.exponent:.3f}, 95 % interval [{rate.interval[0]:.3f}" in text and "n = 32..512, 3 seeds" in text
    assert rate.warnings and all(f"! {warning}" in text for warning in rate.warnings)


@ts.experiment(static=("name",), curve="name", labels={"risk": "<i>risk</i>"})
def named(key, *, name: str, n: int, d: int):
    return {"risk": (1 + d) * jax.random.uniform(key, (), jnp.float64) / n}


def test_result():
    evil = "<script>alert(1)</script>"
    result = ts.sweep(named, seeds=4, n=[8, 16, 32], name=[evil], d=list(range(23)))
    text = _text(result)
    assert evil in text and "<i>risk</i>" in text and "276 in 23 curves, in memory" in text
    assert "(d=19)" in text and "(d=20)" not in text and "3 more curves" in text
    rate = result.rate(result.curves()[1])
    # As many decimals as the interval has.
    assert any(f"{rate.exponent:.{decimals}f} [" in text for decimals in range(4))


def test_cards_escape():
    text = card("<b>t", {"<i>n": "&v"}, ["<u>"], grid(["<a>", "b"], [["<c>", "&"]]))
    for tag in ("<b>t", "<i>n", "<u>", "<a>", "<c>"):
        assert tag in _Html(text).text
