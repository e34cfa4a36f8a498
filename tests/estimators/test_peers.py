"""Students of any network are compared with a loop in PyTorch, and with the infinitely wide network of neural-tangents. These
tests are slow."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.kernels import neural_tangents

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_full_batch_descent_is_that_of_pytorch(key, dtype, tolerance):
    """Both start from the same weights and train for 100 steps."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    x, y = rng.normal(size=(50, 4)).astype(dtype), rng.normal(size=50).astype(dtype)
    net = eqx.nn.MLP(4, "scalar", 16, 2, jnp.tanh, key=key)
    student = ts.Student(lambda own, point: net, learning_rate=0.1, steps=100)
    fit = student.fit(key, ts.Dataset(x=jnp.asarray(x), y=jnp.asarray(y)))

    layers = []
    for layer in net.layers:
        linear = torch.nn.Linear(layer.weight.shape[-1], max(1, layer.weight.shape[0]), dtype=getattr(torch, dtype))
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(np.array(layer.weight)))
            linear.bias.copy_(torch.tensor(np.array(layer.bias).reshape(-1)))
        layers += [linear, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, outputs = torch.tensor(x), torch.tensor(y)
    for _ in range(100):
        optimizer.zero_grad()
        (0.5 * torch.mean((model(inputs)[:, 0] - outputs) ** 2)).backward()
        optimizer.step()
    with torch.no_grad():
        expected = model(inputs)[:, 0].numpy()
    np.testing.assert_allclose(fit.predict(jnp.asarray(x)), expected, rtol=tolerance, atol=tolerance)


def test_wide_ensembles_tend_to_the_infinitely_wide_network(key):
    """The mean square distance of centred networks from `gradient_descent_mse` falls as 1 / width. This exponent of 1 is that
    of the fluctuations of the tangent kernel (Lee et al. 2019, arXiv:1902.06720, theorem 2.1: width^-1/2 in distance)."""
    if neural_tangents.source() == "closed form":
        pytest.skip("neural-tangents is not installed")
    nt = neural_tangents.load()
    x = jr.normal(key, (20, 3), jnp.float64)
    y, points = jnp.sin(2 * x[:, 0]), jr.normal(jr.fold_in(key, 1), (10, 3), jnp.float64)
    rate, steps, members = 0.25, 400, 24
    widths = np.array([32, 64, 128, 256, 512])
    kernel = ts.kernels.of(ts.MLP(widths=(512,), activation="erf"), "ntk")
    predict = nt.predict.gradient_descent_mse(kernel(x), y[:, None])
    expected = np.asarray(predict(rate * steps, jnp.zeros((20, 1)), jnp.zeros((10, 1)), kernel(points, x))[1])[:, 0]
    distances = np.empty((len(widths), members))
    for row, width in enumerate(widths):
        mlp = ts.MLP(widths=(int(width),), activation="erf")
        student = ts.Student(mlp, learning_rate=rate, steps=steps, output_scale=1.0)
        fit = ts.Ensemble(student, members).fit(jr.fold_in(key, 2), ts.Dataset(x=x, y=y))
        distances[row] = np.mean((np.asarray(fit.members(points)) - expected) ** 2, axis=1)
    found = ts.fit_rate(widths.astype(float), distances)
    print(f"exponent of the mean square distance in the width: {found.exponent:.3f} {found.interval}")
    assert found.interval[0] < 1.0 < found.interval[1] and abs(found.exponent - 1.0) < 0.15
