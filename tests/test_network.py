import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import tsjax as ts
from tsjax.network import absorb_output_weights


def _net(key, m=4, d=3):
    return ts.TwoLayer(a=jr.normal(key, (m,)), w=jr.normal(jr.fold_in(key, 1), (m, d)))


def test_the_value_by_hand():
    net = ts.TwoLayer(a=jnp.array([2.0, -1.0]), w=jnp.array([[1.0, 0.0], [1.0, -1.0]]))
    assert float(net(jnp.array([3.0, 1.0]))) == 2 * 3 - 2
    assert float(net(jnp.array([-1.0, 5.0]))) == 0.0


def test_samples_last_is_the_mapped_call(key):
    net, x = _net(key), jr.normal(jr.fold_in(key, 2), (7, 3))
    values = net.samples_last(x.T)
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


def test_absorbing_keeps_the_type(key):
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), _net(key))
    absorbed = absorb_output_weights(net)
    assert absorbed.a.dtype == absorbed.w.dtype == net(jnp.ones(3, jnp.float32)).dtype == jnp.float32
