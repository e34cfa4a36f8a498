"""Weight space: lines, curves and simplexes of networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import SEED

import tsjax as ts
from tsjax import subspaces

RNG = np.random.default_rng(SEED)
X = RNG.normal(size=(40, 3))
DATA = ts.Dataset(x=jnp.asarray(X), y=jnp.asarray(X[:, 0] > X[:, 1], jnp.int32))


def mlp(key, point):
    return eqx.nn.MLP(point, 2, 6, 1, jnp.tanh, key=key)


def test_interpolation_is_between_all_weights(key):
    a, b = (mlp(own, 3) for own in jr.split(key))
    middle = ts.interpolate(a, b, 0.25)
    np.testing.assert_allclose(
        middle.layers[0].weight, 0.75 * a.layers[0].weight + 0.25 * b.layers[0].weight, rtol=1e-6
    )
    np.testing.assert_array_equal(ts.interpolate(a, b, 0.0)(DATA.x[0]), a(DATA.x[0]))
    with pytest.raises(ValueError, match="only if they have the same structure and shapes; these differ"):
        ts.interpolate(a, eqx.nn.MLP(3, 2, 7, 1, key=key), 0.5)


def test_places_of_a_subspace(key):
    line = ts.Subspace(mlp, "line").init(key, 3)
    np.testing.assert_allclose(
        line.at(jnp.asarray(0.3)).layers[0].weight, ts.interpolate(line.corner(0), line.corner(1), 0.3).layers[0].weight,
        rtol=1e-5, atol=1e-7,
    )  # fmt: skip
    curve = ts.Subspace(mlp, "curve").init(key, 3)
    t, corners = 0.3, [curve.corner(i).layers[0].weight for i in range(3)]
    expected = (1 - t) ** 2 * corners[0] + 2 * t * (1 - t) * corners[1] + t**2 * corners[2]
    np.testing.assert_allclose(curve.at(jnp.asarray(t)).layers[0].weight, expected, rtol=1e-5, atol=1e-7)
    simplex = ts.Subspace(mlp, "simplex", 4).init(key, 3)
    shares = simplex.draw(key)
    assert shares.shape == (4,) and abs(float(shares.sum()) - 1.0) < 1e-6
    expected = sum(shares[i] * simplex.corner(i).layers[0].weight for i in range(4))
    np.testing.assert_allclose(simplex.at(shares).layers[0].weight, expected, rtol=1e-5, atol=1e-7)
    leaves = [np.concatenate([np.ravel(np.asarray(v)) for v in _arrays(line.corner(i))]) for i in (0, 1)]
    cosine = leaves[0] @ leaves[1] / np.linalg.norm(leaves[0]) / np.linalg.norm(leaves[1])
    np.testing.assert_allclose(line.cosine(0, 1), cosine, rtol=1e-5)


def _arrays(net):
    return jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array))


@pytest.mark.slow
def test_a_line_is_trained_everywhere_and_kept_apart(key):
    fits = {
        repulsion: ts.Student(
            ts.Subspace(mlp), subspaces.everywhere(ts.losses.cross_entropy, repulsion), optax.adam, 0.02, steps=200
        ).fit(key, DATA)
        for repulsion in (0.0, 5.0)
    }
    for fit in fits.values():
        along = [
            float(ts.losses.cross_entropy(fit.model.at(jnp.asarray(alpha)), DATA)) for alpha in (0.0, 0.25, 0.5, 1.0)
        ]
        assert max(along) < 0.5 and fit.predict(DATA.x).shape == (40, 2)
    assert abs(float(fits[5.0].model.cosine(0, 1))) < min(0.1, abs(float(fits[0.0].model.cosine(0, 1))))


def test_places_and_pairs_are_uniform(key):
    """Uniform shares of three corners: means 1/3, variances 1/18, covariances -1/36; each of three pairs equally often."""
    simplex = ts.Subspace(mlp, "simplex", 3).init(key, 3)
    keys = jr.split(key, 20_000)
    shares = np.asarray(jax.vmap(simplex.draw)(keys))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(np.cov(shares.T), np.eye(3) / 12 - 1 / 36, atol=0.003)
    first, second = (np.asarray(part) for part in jax.vmap(simplex.draw_pair)(keys))
    pairs, counts = np.unique(np.stack([first, second], axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_allclose(counts / 20_000, 1 / 3, atol=0.02)
    assert ts.Subspace(mlp).init(key, 3).draw_pair(key) == (0, 1)


def test_corners_are_the_networks_of_their_keys(key):
    line = ts.Subspace(mlp).init(key, 3)
    for index, own in enumerate(jr.split(key)):
        for found, expected in zip(_arrays(line.corner(index)), _arrays(mlp(own, 3)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_gradient_of_a_line_is_that_at_its_place(key):
    """By the chain rule: (1 - t) g and t g, g the gradient at place t, plus that of the squared cosine of both ends."""
    line = ts.Subspace(mlp).init(key, 3)
    t = line.draw(jr.split(key, 3)[0])
    found = eqx.filter_grad(lambda net: subspaces.everywhere(ts.losses.cross_entropy, 0.5)(net, DATA, key))(line)
    there = eqx.filter_grad(lambda net: ts.losses.cross_entropy(net, DATA))(line.at(t))
    flat = lambda net: np.concatenate([np.ravel(np.asarray(leaf)) for leaf in _arrays(net)])
    g, ends = flat(there), [flat(line.corner(i)) for i in (0, 1)]
    norms = [np.linalg.norm(end) for end in ends]
    cosine = ends[0] @ ends[1] / norms[0] / norms[1]
    for i, share in ((0, 1 - float(t)), (1, float(t))):
        of_cosine = ends[1 - i] / norms[0] / norms[1] - cosine * ends[i] / norms[i] ** 2
        own = flat(jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, found))
        np.testing.assert_allclose(own, share * g + 0.5 * 2 * cosine * of_cosine, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.Subspace(mlp, "line", 3), r"a line has 2 corners, got corners=3"),
        (lambda: ts.Subspace(mlp, "simplex"), r"a simplex has at least 2 corners: give corners=\.\.\., got None"),
        (lambda: subspaces.everywhere(ts.losses.squared, -1.0), r"repulsion must be finite and >= 0, got -1\.0"),
    ],
)
def test_bad_subspaces_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
