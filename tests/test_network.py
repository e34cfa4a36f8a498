import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize

import tsjax as ts
from tsjax.activations import Activation, erf, leaky_relu, quadratic, relu
from tsjax.network import absorb_output_weights

TANH = Activation(jnp.tanh)
CUBE = Activation(lambda z: z**3, degree=3, parity="odd")


def _net(key, m=4, d=3, activation=relu):
    return ts.TwoLayer(a=jr.normal(key, (m,)), w=jr.normal(jr.fold_in(key, 1), (m, d)), activation=activation)


def test_the_value_by_hand():
    net = ts.TwoLayer(a=jnp.array([2.0, -1.0]), w=jnp.array([[1.0, 0.0], [1.0, -1.0]]))
    assert float(net(jnp.array([3.0, 1.0]))) == 2 * 3 - 2
    assert float(net(jnp.array([-1.0, 5.0]))) == 0.0


def test_a_batch_is_no_point():
    """Three points of R^3 would go through as one: columns would be taken for points."""
    for shape in ((7, 3), (3, 3), (4,)):
        with pytest.raises(ValueError, match=r"one point x of shape \(3,\), got \(.*of a batch: jax\.vmap\(network\)"):
            _net(jr.key(0))(jnp.ones(shape))


def test_samples_last_is_the_mapped_call(key):
    for activation in (leaky_relu(0.2), quadratic, erf, TANH):
        net, x = _net(key, activation=activation), jr.normal(jr.fold_in(key, 2), (7, 3))
        np.testing.assert_allclose(net.samples_last(x.T), jax.vmap(net)(x), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(net.samples_last(x.T), net.a @ activation(net.w @ x.T), rtol=1e-12, atol=1e-14)
    net = _net(key)
    values = net.samples_last(x.T)
    np.testing.assert_array_equal(net.features(x.T), jax.nn.relu(net.w @ x.T))
    assert values.shape == (7,)
    np.testing.assert_allclose(values, jax.vmap(net)(x), rtol=1e-14, atol=1e-15)
    a, w, points = (np.asarray(v) for v in (net.a, net.w, x))
    np.testing.assert_allclose(values, np.maximum(points @ w.T, 0) @ a, rtol=1e-13, atol=1e-14)


def test_absorbing_preserves_the_function(key):
    net, x = _net(key), jr.normal(jr.fold_in(key, 2), (20, 3))
    net = ts.TwoLayer(a=net.a.at[1].set(0.0).at[2].set(-0.3), w=net.w)
    absorbed = absorb_output_weights(net)
    np.testing.assert_allclose(absorbed.samples_last(x.T), net.samples_last(x.T), rtol=1e-12, atol=1e-15)
    assert set(np.asarray(absorbed.a).tolist()) <= {-1.0, 1.0}
    assert absorbed.a[1] == 1.0 and not absorbed.w[1].any() and absorbed.a[2] == -1.0
    # Idempotent, and on a batch the same as one by one.
    again = absorb_output_weights(absorbed)
    assert bool((again.a == absorbed.a).all() and (again.w == absorbed.w).all())
    batch = jax.tree.map(lambda *v: jnp.stack(v), net, _net(jr.fold_in(key, 9)))
    np.testing.assert_array_equal(absorb_output_weights(batch).w[0], absorbed.w)


@pytest.mark.parametrize("activation", [leaky_relu(0.2), quadratic, CUBE], ids=str)
def test_absorbing_by_the_degree(key, activation):
    net, x = _net(key, activation=activation), jr.normal(jr.fold_in(key, 2), (20, 3))
    net = ts.TwoLayer(a=net.a.at[1].set(0.0), w=net.w, activation=activation)
    absorbed = absorb_output_weights(net)
    np.testing.assert_allclose(absorbed.samples_last(x.T), net.samples_last(x.T), rtol=1e-11, atol=1e-13)
    assert absorbed.activation == activation and set(np.abs(absorbed.a).tolist()) == {1.0} and not absorbed.w[1].any()


def test_nothing_to_absorb_without_homogeneity(key):
    net = _net(key, activation=erf)
    assert absorb_output_weights(net) is net


def test_the_activation_is_checked():
    net = object.__new__(ts.TwoLayer)
    object.__setattr__(net, "activation", jnp.tanh)
    with pytest.raises(ValueError, match=r"activation must be relu, .* or Activation\(function\)"):
        ts.TwoLayer.__check_init__(net)


def _same(key, net):
    """The function of `net` by other parameters: neurons in another order, rescaled, mirrored where phi allows it."""
    m = net.a.shape[0]
    order = jr.permutation(key, m)
    a, w = net.a[order], net.w[order]
    flip = jr.rademacher(jr.fold_in(key, 2), (m,), jnp.float64)
    if net.activation.parity is not None:
        w = flip[:, None] * w
        a = a if net.activation.parity == "even" else flip * a
    if net.activation.degree is not None:
        scale = jnp.exp(jr.normal(jr.fold_in(key, 1), (m,)))
        a, w = a / scale**net.activation.degree, scale[:, None] * w
    return ts.TwoLayer(a=a, w=w, activation=net.activation)


@pytest.mark.parametrize(
    "activation",
    [relu, quadratic, TANH, *(pytest.param(one, marks=pytest.mark.slow) for one in (leaky_relu(0.2), erf, CUBE))],
    ids=str,
)
def test_one_function_is_one_set_of_neurons(key, activation):
    teacher = _net(key, 4, 3, activation)
    student = _same(jr.fold_in(key, 5), teacher)
    x = jr.normal(jr.fold_in(key, 6), (20, 3))
    np.testing.assert_allclose(student.samples_last(x.T), teacher.samples_last(x.T), rtol=1e-10, atol=1e-12)
    # Spare neurons that vanish cost nothing.
    w = jnp.concatenate([jnp.zeros((1, 3)), student.w, jnp.ones((1, 3))])
    padded = ts.TwoLayer(a=jnp.concatenate([-jnp.ones(1), student.a, jnp.zeros(1)]), w=w, activation=activation)
    for net in (student, padded):
        match = ts.match_neurons(net, teacher)
        np.testing.assert_allclose(match.cosine, np.ones(4), rtol=1e-12)
        assert match.alignment == match.cosine.min() and float(match.parameter_error) < 1e-7
    # Without one of some orthogonal neurons there is no better partner for it than none.
    teacher = ts.TwoLayer(a=teacher.a, w=jnp.eye(4, 5) * jnp.arange(1.0, 5)[:, None], activation=activation)
    less = ts.TwoLayer(a=teacher.a[1:], w=teacher.w[1:], activation=activation)
    match = ts.match_neurons(less, teacher)
    np.testing.assert_allclose(match.cosine, [0, 1, 1, 1], rtol=1e-12)
    v = jnp.concatenate([teacher.w, jnp.abs(teacher.a)[:, None]], axis=1)
    if activation.degree is not None:
        v = absorb_output_weights(teacher).w
    np.testing.assert_allclose(match.parameter_error, jnp.linalg.norm(v[0]) / jnp.linalg.norm(v), rtol=1e-12)
    # And the other way round, a spare neuron.
    spare = ts.match_neurons(teacher, less)
    np.testing.assert_allclose(spare.cosine, np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(spare.parameter_error, jnp.linalg.norm(v[0]) / jnp.linalg.norm(v[1:]), rtol=1e-12)


def test_matching_by_hand():
    teacher = ts.TwoLayer(a=jnp.array([1.0, -2.0, 1.0]), w=jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    student = ts.TwoLayer(a=jnp.array([0.5, 1.0, 1.0]), w=jnp.array([[0.0, 2.0], [3.0, 4.0], [-1.0, 0.0]]))
    # (3, 4) goes to (1, 0) at cost 20, the teacher's neuron of sign - is left with (0, 1) of sign +, at cost 1 + 4.
    match = ts.match_neurons(student, teacher)
    np.testing.assert_allclose(match.cosine, [0.6, -1.0, 1.0], rtol=1e-15)
    assert float(match.alignment) == -1.0
    np.testing.assert_allclose(match.parameter_error, np.sqrt((20 + 5 + 0) / (1 + 4 + 1)), rtol=1e-15)


def _costs(student, teacher):
    """The costs of pairs of relu neurons, in NumPy."""
    rows = []
    for a_t, w_t in zip(*map(np.asarray, (teacher.a, teacher.w)), strict=True):
        pairs = zip(*map(np.asarray, (student.a, student.w)), strict=True)
        v_t = abs(a_t) * w_t
        rows.append(
            [np.sum((abs(a) * w - v_t) ** 2) if a * a_t > 0 else np.sum((a * w) ** 2) + v_t @ v_t for a, w in pairs]
        )
    return np.asarray(rows)


@pytest.mark.parametrize("width", [2, 5, pytest.param(9, marks=pytest.mark.slow)])
def test_the_matching_is_the_cheapest(key, width):
    keys = jr.split(key, 30)
    teachers = jax.vmap(lambda k: _net(k, 5, 3))(keys)
    students = jax.vmap(lambda k: _net(jr.fold_in(k, 7), width, 3))(keys)
    matches = jax.jit(jax.vmap(ts.match_neurons))(students, teachers)
    for i in range(30):
        student, teacher = jax.tree.map(lambda leaf, i=i: leaf[i], (students, teachers))
        # Everybody alone costs all squares; a pair saves those of its two neurons, and costs its own.
        of_student, of_teacher = (np.sum(np.asarray(net.a[:, None] * net.w) ** 2, axis=1) for net in (student, teacher))
        change = _costs(student, teacher) - of_student - of_teacher[:, None]
        rows, columns = scipy.optimize.linear_sum_assignment(change)
        best = np.sum(of_student) + np.sum(of_teacher) + np.sum(change[rows, columns])
        np.testing.assert_allclose(matches.parameter_error[i] ** 2, best / np.sum(of_teacher), rtol=1e-10)


def test_matching_of_failed_students_and_of_single_precision(key):
    teacher = _net(key)
    for bad in (jnp.nan, jnp.inf):
        for field in ("a", "w"):
            broken = {"a": teacher.a, "w": teacher.w}
            broken[field] = broken[field] * bad
            assert all(bool(jnp.isnan(v).all()) for v in ts.match_neurons(ts.TwoLayer(**broken), teacher))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), teacher)
    match = ts.match_neurons(single, teacher)
    assert match.cosine.dtype == jnp.float64 and 0 < float(match.parameter_error) < 1e-6
    with jax.enable_x64(False):
        assert ts.match_neurons(single, single).alignment.dtype == jnp.float32


def test_neurons_that_cannot_be_compared(key):
    with pytest.raises(ValueError, match=r"the same activation; the student has relu, the teacher erf\."):
        ts.match_neurons(_net(key), _net(key, activation=erf))
    with pytest.raises(ValueError, match=r"inputs of dimension 3, the teacher of 4"):
        ts.match_neurons(_net(key), _net(key, d=4))


def test_absorbing_keeps_the_type(key):
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), _net(key))
    absorbed = absorb_output_weights(net)
    assert absorbed.a.dtype == absorbed.w.dtype == net(jnp.ones(3, jnp.float32)).dtype == jnp.float32
