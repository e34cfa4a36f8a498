"""A thousand networks with a thousand learning rates, side by side: `uv run python -m benchmarks networks`.

Networks of three layers are trained on a task with ten classes by Adam in mini-batches, as in docs/howto/classification.md: by
tsjax all at once; by a jitted loop written in JAX and optax, one network after the other; and by torch.func.vmap, if torch is
installed. Seconds include compilation. Each way draws its own initial weights and mini-batches, so errors agree only in
distribution.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import tsjax as ts

POINTS, INPUTS, CLASSES, WIDTH, STEPS, BATCH = 500, 20, 10, 16, 200, 32


def _task():
    means = 1.5 * jax.random.normal(jax.random.key(0), (CLASSES, INPUTS))
    instance = ts.GaussianMixture(means, std=2.5).draw(jax.random.key(1))
    return tuple(instance.sample(jax.random.key(seed), POINTS) for seed in (2, 3))


def by_tsjax(rates: np.ndarray) -> np.ndarray:
    """Errors on the test set of one network for each learning rate, in one program."""
    train, test = _task()
    # As in the other ways: He's initial weights, and biases that start at 0 (bias_std=0 as a number would mean no biases).
    mlp = ts.MLP((WIDTH, WIDTH), CLASSES, "relu", "standard", weight_std=2**0.5, bias_std=jnp.zeros(()))

    @jax.jit
    @jax.vmap
    def errors(rate, key):
        student = ts.Student(mlp, ts.losses.cross_entropy, optax.adam, rate, steps=STEPS, batch_size=BATCH)
        return ts.classification_error(student.fit(key, train), test).value

    return np.asarray(errors(jnp.asarray(rates), jax.random.split(jax.random.key(4), len(rates))))


def by_a_jitted_loop(rates: np.ndarray) -> np.ndarray:
    """The usual code without tsjax: a step of optax in `lax.scan`, jitted once, called for one network after the other."""
    train, test = _task()
    sizes = (INPUTS, WIDTH, WIDTH, CLASSES)

    def outputs(parameters, x):
        for i, (w, b) in enumerate(parameters):
            x = x @ w + b[None, :]
            x = jax.nn.relu(x) if i < len(parameters) - 1 else x
        return x

    def loss(parameters, rows):
        logits = outputs(parameters, train.x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, train.y[rows]).mean()

    @jax.jit
    def error(rate, key):
        keys = jax.random.split(key, len(sizes))
        parameters = [
            (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n))
            for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
        ]
        optimizer = optax.adam(rate)
        # As many whole epochs as the steps need, each in a new order.
        per_epoch = POINTS // BATCH
        orders = jax.vmap(lambda k: jax.random.permutation(k, POINTS)[: per_epoch * BATCH].reshape(per_epoch, BATCH))
        rows = orders(jax.random.split(keys[-1], -(-STEPS // per_epoch))).reshape(-1, BATCH)[:STEPS]

        def step(carry, rows):
            parameters, state = carry
            updates, state = optimizer.update(jax.grad(loss)(parameters, rows), state)
            return (optax.apply_updates(parameters, updates), state), None

        (parameters, _), _ = jax.lax.scan(step, (parameters, optimizer.init(parameters)), rows)
        return jnp.mean(outputs(parameters, test.x).argmax(1) != test.y)

    keys = jax.random.split(jax.random.key(4), len(rates))
    return np.asarray([error(rate, key) for rate, key in zip(rates, keys, strict=True)])


def by_torch_func(rates: np.ndarray) -> np.ndarray:
    """torch.func: vmap(grad) over all networks at once, and a Python loop of steps of Adam."""
    import torch  # pyright: ignore[reportMissingImports]

    data = [torch.from_numpy(np.array(part)) for one in _task() for part in (one.x, one.y)]
    (x, y, x_test, y_test), rate = data, torch.from_numpy(rates.astype(np.float32))
    y, y_test, many = y.long(), y_test.long(), len(rates)
    torch.manual_seed(4)
    parameters = []
    for m, n in ((INPUTS, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)):
        parameters += [torch.randn(many, m, n) * (2 / m) ** 0.5, torch.zeros(many, n)]

    def outputs(parameters, x):
        for i in range(0, 6, 2):
            x = x @ parameters[i] + parameters[i + 1]
            x = torch.relu(x) if i < 4 else x
        return x

    loss = lambda parameters, x, y: torch.nn.functional.cross_entropy(outputs(parameters, x), y)
    gradients = torch.func.vmap(torch.func.grad(loss))
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    with torch.no_grad():
        per_epoch = POINTS // BATCH
        order = torch.zeros(many, POINTS, dtype=torch.long)
        for step in range(STEPS):
            if step % per_epoch == 0:
                order = torch.rand(many, POINTS).argsort(1)
            rows = order[:, step % per_epoch * BATCH :][:, :BATCH]
            moves = gradients(parameters, x[rows], y[rows])
            for p, g, m, v in zip(parameters, moves, first, second, strict=True):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                up = (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                p.sub_(rate.reshape(-1, *(1,) * (p.ndim - 1)) * up)
        found = torch.func.vmap(outputs, in_dims=(0, None))(tuple(parameters), x_test).argmax(2)
        return (found != y_test).float().mean(1).numpy()


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tsjax, all at once": by_tsjax,
    "a jitted loop, one by one": by_a_jitted_loop,
    "torch.func.vmap": by_torch_func,
}


def main(arguments: list[str]) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks networks", description="Many networks, many learning rates."
    )
    parser.add_argument("--networks", type=int, default=1000, help="how many (1000)")
    options = parser.parse_args(arguments)
    rates = np.logspace(-4, 0, options.networks)
    middle = (rates > 1e-3) & (rates < 1e-2)
    # JAX's start-up time belongs to none of the ways.
    jax.block_until_ready(jax.jit(functools.partial(jnp.add, 1.0))(1.0))
    print("| way | seconds | times tsjax | mean error at rates of 0.001 to 0.01 |\n|---|---|---|---|")
    base = None
    for name, way in WAYS.items():
        start = time.perf_counter()
        try:
            errors = way(rates)
        except ModuleNotFoundError as error:
            print(f"| {name} | {error} | | |")
            continue
        seconds = time.perf_counter() - start
        base = seconds if base is None else base
        print(f"| {name} | {seconds:.1f} | {seconds / base:.2f} | {errors[middle].mean():.3f} |", flush=True)
