"""A surface over two arguments of a sweep, against the fit of the same records by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsjax as ts


@ts.experiment(sized=(), static=("learner",), x="tokens", curve="learner")
def scaling(key, *, tokens: int, width: float, learner: str = "mlp", limit: float = 0.5):
    """A sum of two powers with a floor, times noise; one seed in the corner fails."""
    noise = jnp.exp(0.02 * jax.random.normal(jax.random.fold_in(key, tokens), (), jnp.float64))
    exponent = 0.5 if learner == "mlp" else 0.3
    size = jnp.asarray(tokens, jnp.float64)
    risk = (limit + 3.0 / width**0.6 + 9.0 / size**exponent) * noise
    return {"status": jnp.where((width < 3) & (jax.random.uniform(key) < 0.2), 2, 0), "risk": risk}


GRID = {
    "tokens": [16, 64, 256, 1024, 4096], "width": [2.0, 8.0, 32.0, 128.0, 512.0], "learner": ["mlp", "cnn"], "seeds": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return ts.sweep(scaling, **GRID)


def test_a_surface_is_the_fit_of_its_records(result):
    surface = result.surface("width", "tokens", at={"learner": "mlp"}, draws=200)
    rows = result.records[(result.records["learner"] == "mlp") & (result.records["status"] == 0)]
    table = rows.pivot(index=["width", "tokens"], columns="seed", values="risk")
    n, d = np.array(list(table.index), float).T
    hand = ts.fit_surface(n, d, table.to_numpy(float), draws=200)
    assert np.isnan(table.to_numpy()).any() and surface.mean_loss.shape == (25,)
    for name, planted in {"a": 0.6, "b": 0.5, "E": 0.5, "A": 3.0, "B": 9.0}.items():
        assert surface.parameters[name].value == pytest.approx(hand.parameters[name].value, rel=1e-5)
        assert surface.parameters[name].value == pytest.approx(planted, rel=0.2)
    other = result.surface("tokens", "width", "risk", at={"learner": "cnn"}, floor=False, draws=100)
    assert "E" not in other.parameters and other.parameters["a"].value < 0.3


def test_what_a_surface_needs(result):
    for arguments, message in (
        ((("width", "token"), {}), "'token' is not an argument of this sweep. Did you mean 'tokens'"),
        ((("width", "width"), {}), "must be different; got n='width', d='width'"),
        ((("width", "tokens"), {}), "learner varies too: give its value, such as at={'learner': ...}"),
        ((("width", "learner"), {}), "a surface is over two numbers; here width = 2.0 and learner = 'mlp'"),
        ((("width", "tokens"), {"at": {"learner": "rnn"}}), "no record has {'learner': 'rnn'}"),
        ((("width", "tokens", "rsk"), {}), "'rsk' is not among the y of scaling. Did you mean 'risk'"),
        ((("width", "tokens"), {"at": {"learner": "mlp", "limit": 0.1}}), "no record has"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            result.surface(*arguments[0], **arguments[1])
