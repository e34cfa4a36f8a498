"""How fast are many students? One run, side by side with what one would write otherwise: `uv run python -m benchmarks`.

All train the same number of gradient steps of phase I (noisy gradient descent on both layers) on the same data:

- `tsjax.fit_many`: samples-last students, vectorised and sharded over all devices;
- `vmap, samples first`: the textbook loss, x (n, d) @ w.T, under jit(vmap), on one device;
- `loop of jitted students`: one student after the other.

Speeds are student-steps per second, the best of the repeats; ratios are to the first within this very run.
"""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp

import tsjax as ts
from tsjax.sweep.devices import use_all_cores
from tsjax.sweep.estimate import fastest

SHAPES = [(32, 2048, 5, 3), (64, 1024, 10, 5), (16, 4096, 20, 10), (256, 512, 10, 5), (8, 65536, 10, 5)]


def textbook(key, x, y, *, width: int, steps: int):
    """Noisy gradient descent as one would write it at first: samples on the leading axis."""
    eta, temperature = 2 * x.shape[1] / (width + 1), 0.05 / (width * x.shape[1] ** 2)
    key_a, key_w, key_noise = jax.random.split(key, 3)
    a = 0.1 * jax.random.normal(key_a, (width,), x.dtype)
    w = 0.7 / x.shape[1] ** 0.5 * jax.random.normal(key_w, (width, x.shape[1]), x.dtype)

    def loss(parameters):
        a, w = parameters
        return 0.5 * jnp.mean((jax.nn.relu(x @ w.T) @ a - y) ** 2) + 0.01 / x.shape[1] * (jnp.sum(a**2) + jnp.sum(w**2))

    def step(i, parameters):
        keys = jax.random.split(jax.random.fold_in(key_noise, i))
        move = lambda p, g, k: p - eta * g + (2 * eta * temperature) ** 0.5 * jax.random.normal(k, p.shape, p.dtype)
        return jax.tree.map(move, parameters, jax.grad(loss)(parameters), tuple(keys))

    return jax.lax.fori_loop(0, steps, step, (a, w))


def measure(batch: int, n: int, d: int, m: int, steps: int, repeats: int) -> dict[str, float]:
    """Student-steps per second of each way at one shape."""
    problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(m))
    keys = jax.random.split(jax.random.key(0), batch)

    @jax.jit
    @jax.vmap
    def sample(key):
        teacher_key, data_key = jax.random.split(key)
        return problem.sample(data_key, problem.sample_teacher(teacher_key), n)

    data = sample(keys)
    student = ts.TwoPhaseStudent(
        m, restarts=1, noisy=ts.NoisyPhase(width=m, samples=n, steps=steps), vanilla=ts.VanillaPhase(max_steps=0)
    )
    naive = partial(textbook, width=m, steps=steps)
    many, one = jax.jit(jax.vmap(naive)), jax.jit(naive)
    seconds = {
        "tsjax.fit_many": fastest(lambda: ts.fit_many(student, keys, data), repeats),
        "vmap, samples first": fastest(lambda: many(keys, data.x, data.y), repeats),
        "loop of jitted students": fastest(
            lambda: [one(keys[i], data.x[i], data.y[i]) for i in range(batch)],
            repeats,
        ),
    }
    return {name: batch * steps / value for name, value in seconds.items()}


def main() -> None:
    """Prints a Markdown table, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--steps", type=int, default=300, help="gradient steps of each student (300)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the fastest counts (3)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    use_all_cores()
    devices = ", ".join(device.device_kind for device in jax.local_devices())
    print(f"jax {jax.__version__} on {devices}; {options.steps} steps, best of {options.repeats}\n")
    print("| (students, n, d, m) | way | student-steps/s | tsjax is faster by |\n|---|---|---|---|")
    results = []
    for shape in SHAPES:
        speeds = measure(*shape, steps=options.steps, repeats=options.repeats)
        for name, speed in speeds.items():
            print(f"| {shape} | {name} | {speed:,.0f} | {speeds['tsjax.fit_many'] / speed:.1f} |", flush=True)
        results.append({"shape": shape, "student_steps_per_second": speeds})
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"jax": jax.__version__, "devices": devices, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
