import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import tsjax as ts

MU = jnp.array([0.0, 3.0, 4.0, 0.0])


def test_the_law_of_the_data(key):
    task = ts.SignalNoisePatches(MU, flip=0.2, std=0.5, patches=3)
    data = task.draw(key).sample(key, 40_000)
    assert task.d == 4 and data.x.shape == (40_000, 3, 4) and data.y.dtype == jnp.int32 and data.weight is None
    x, y = np.asarray(data.x), np.asarray(data.y)
    # The signal patch is +-mu; its sign is the label, but for a share of flips.
    sign = np.sign(x[:, 0, 1])
    np.testing.assert_array_equal(x[:, 0], sign[:, None] * np.asarray(MU))
    for share, chance in ((np.mean(sign > 0), 0.5), (np.mean((sign > 0) != y), 0.2)):
        assert abs(share - chance) < 4 * (chance * (1 - chance) / 40_000) ** 0.5
    # Flips fall on both classes, and noise knows nothing of either.
    assert abs(np.mean(((sign > 0) != y)[sign > 0]) - 0.2) < 0.012
    noise = x[:, 1:].reshape(40_000, 8)
    np.testing.assert_allclose(np.cov(noise.T), 0.25 * np.eye(8), atol=0.01)
    np.testing.assert_allclose(noise.T @ np.stack([sign, 2.0 * y - 1.0], axis=1) / 40_000, 0.0, atol=0.012)


def test_noise_orthogonal_to_the_signal(key):
    x = np.asarray(ts.SignalNoisePatches(MU, orthogonal=True).draw(key).sample(key, 20_000).x)
    np.testing.assert_allclose(x[:, 1] @ np.asarray(MU), 0.0, atol=1e-12)
    direction = np.asarray(MU) / 5.0
    np.testing.assert_allclose(np.cov(x[:, 1].T), np.eye(4) - np.outer(direction, direction), atol=0.04)
    # Without a signal there is no direction to leave out.
    plain = ts.SignalNoisePatches(jnp.zeros(4), orthogonal=True).draw(key).sample(key, 5).x
    assert np.isfinite(plain).all() and (np.abs(plain[:, 1]) > 0).all()


def test_the_target_is_the_label_before_the_flips(key):
    instance = ts.SignalNoisePatches(MU, flip=0.3).draw(key)
    data = instance.sample(key, 5000)
    clean = np.asarray(jax.vmap(instance.target)(data.x))
    np.testing.assert_array_equal(clean, data.x[:, 0, 1] > 0)
    fit = ts.ModelFit(lambda x: x[0] @ MU, jnp.array(0), {})
    bayes = float(ts.classification_error(fit, data).value)
    assert abs(bayes - 0.3) < 4 * (0.21 / 5000) ** 0.5


def test_sizes_and_types(key):
    instance = ts.SignalNoisePatches(MU, flip=0.1).draw(key, jnp.float32)
    padded = instance.sample(key, ts.Size(8, jnp.asarray(5)))
    one = instance.sample(key, 5)
    assert padded.weights.tolist() == [1.0] * 5 + [0.0] * 3 and one.x.dtype == jnp.float32
    np.testing.assert_array_equal(padded.x[:5], one.x)
    np.testing.assert_array_equal(padded.y[:5], one.y)

    # Signals, flips and keys are mapped.
    def sample(length, flip, key):
        return ts.SignalNoisePatches(length * MU.astype(jnp.float32), flip).draw(key).sample(key, 5).x

    many = jax.jit(jax.vmap(sample))(jnp.array([1.0, 2.0], jnp.float32), jnp.array([0.1, 0.2]), jnp.stack([key, key]))
    np.testing.assert_array_equal(many[0], one.x)
    np.testing.assert_array_equal(many[1, :, 0], 2 * one.x[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 0.5}, r"below 1/2, .*; got 0\.5"),
        ({"std": 0.0}, r"std must be finite and > 0"),
        ({"patches": 1}, r"at least 2 patches, .* got patches=1"),
    ],
)
def test_bad_patches_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ts.SignalNoisePatches(**{"signal": MU, **options})


def test_a_sample_has_a_point(key):
    with pytest.raises(ValueError, match="at least one point, got n=0"):
        ts.SignalNoisePatches(MU).draw(key).sample(jr.key(1), 0)


def test_whole_numbers_and_lists_make_a_signal():
    for signal in ([2, 0, 0], np.array([2, 0, 0]), jnp.array([2, 0, 0])):
        task = ts.SignalNoisePatches(signal=signal, flip=0.3, std=0.5)
        data = task.draw(jax.random.key(0)).sample(jax.random.key(1), 2000)
        # Neither the flips nor the noise are rounded to whole numbers.
        wrong = np.mean(np.asarray(data.y) != (np.asarray(data.x)[:, 0, 0] > 0))
        assert task.d == 3 and abs(wrong - 0.3) < 0.05 and abs(float(jnp.std(data.x[:, 1])) - 0.5) < 0.02
