"""The ways to train many students that `benchmarks.training` compares: that of tsjax, and those that one might write instead.

Each is a function that prepares a `Case` and returns the function to time: noisy gradient descent on both layers (phase I) for
`case.steps` steps, which returns the final training losses of the students that it trained. All start from networks with the
same law, see the same data and take the same steps. Each is written in the usual style of its library, which only its own
process imports.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Run = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Case:
    """B students: x (B, n, d), y (B, n), and initial weights a (B, m) and w (B, m, d); all float32."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    w: np.ndarray
    steps: int
    threads: int
    few: int = 8  # Loops train only this many students, since each takes the same time.

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, n, d, m)."""
        return (*self.x.shape, self.a.shape[1])

    # The settings of `tsjax.NoisyPhase` on the sphere, where mean x_i^2 = 1/d.
    @property
    def step_size(self) -> float:
        return 2 * self.x.shape[2] / (self.a.shape[1] + 1)

    @property
    def penalty(self) -> float:
        return 0.01 / self.x.shape[2]

    @property
    def noise_std(self) -> float:
        """sqrt(2 eta T) with T = 0.05 / (m d^2)."""
        return (2 * self.step_size * 0.05 / (self.a.shape[1] * self.x.shape[2] ** 2)) ** 0.5


def fit_many(case: Case) -> Run:
    """`tsjax.fit_many`."""
    import jax

    import tsjax as ts

    _, n, _, m = case.shape
    noisy = ts.NoisyPhase(width=m, samples=n, steps=case.steps)
    student = ts.TwoPhaseStudent(m, restarts=1, noisy=noisy, vanilla=ts.VanillaPhase(max_steps=0))
    keys = jax.random.split(jax.random.key(0), len(case.x))
    data = ts.Dataset(x=jax.numpy.asarray(case.x), y=jax.numpy.asarray(case.y))
    return lambda: np.asarray(ts.fit_many(student, keys, data).stats["train_loss"])


def _textbook(case: Case):
    """Noisy gradient descent on one data set in straightforward JAX, with samples on the leading axis."""
    import jax
    import jax.numpy as jnp

    def half_mse(parameters, x, y):
        a, w = parameters
        return 0.5 * jnp.mean((jax.nn.relu(x @ w.T) @ a - y) ** 2)

    def objective(parameters, x, y):
        return half_mse(parameters, x, y) + case.penalty * sum(jnp.sum(p**2) for p in parameters)

    def train(key, x, y, a, w):
        def step(i, parameters):
            keys = jax.random.split(jax.random.fold_in(key, i))
            gradients = jax.grad(objective)(parameters, x, y)
            move = lambda p, g, k: p - case.step_size * g + case.noise_std * jax.random.normal(k, p.shape, p.dtype)
            return jax.tree.map(move, parameters, gradients, tuple(keys))

        return half_mse(jax.lax.fori_loop(0, case.steps, step, (a, w)), x, y)

    arrays = [jnp.asarray(array) for array in (case.x, case.y, case.a, case.w)]
    return train, (jax.random.split(jax.random.key(0), len(case.x)), *arrays)


def jax_vmap(case: Case) -> Run:
    """jit(vmap) of the textbook code."""
    import jax

    train, arguments = _textbook(case)
    many = jax.jit(jax.vmap(train))
    return lambda: np.asarray(many(*arguments))


def jax_loop(case: Case) -> Run:
    """One student after the other."""
    import jax

    train, arguments = _textbook(case)
    one = jax.jit(train)
    each = [[array[i] for array in arguments] for i in range(min(case.few, len(case.x)))]
    return lambda: np.asarray([one(*student) for student in each])


def jax_map(case: Case) -> Run:
    """`jax.lax.map`: one program, one student after the other."""
    import jax

    train, arguments = _textbook(case)
    arguments = [array[: case.few] for array in arguments]
    many = jax.jit(lambda *arguments: jax.lax.map(lambda student: train(*student), arguments))
    return lambda: np.asarray(many(*arguments))


def equinox(case: Case) -> Run:
    """An ensemble of equinox modules, optax, a jitted step in a Python loop."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    class Student(eqx.Module):
        hidden: eqx.nn.Linear
        output: eqx.nn.Linear

        def __init__(self, a, w):
            key = jax.random.key(0)
            linear = lambda weight: eqx.tree_at(
                lambda layer: layer.weight,
                eqx.nn.Linear(weight.shape[1], weight.shape[0], use_bias=False, key=key),
                weight,
            )
            self.hidden, self.output = linear(w), linear(a[None, :])

        def __call__(self, x):
            return self.output(jax.nn.relu(self.hidden(x)))[0]

    def half_mse(student, x, y):
        return 0.5 * jnp.mean((jax.vmap(student)(x) - y) ** 2)

    optimizer = lambda key: optax.chain(
        optax.add_decayed_weights(2 * case.penalty),
        optax.sgd(case.step_size),
        optax.add_noise(case.noise_std**2, 0.0, key),
    )

    @eqx.filter_jit
    @eqx.filter_vmap
    def step(student, state, key, x, y):
        gradients = eqx.filter_grad(half_mse)(student, x, y)
        updates, state = optimizer(key).update(gradients, state, student)
        return eqx.apply_updates(student, updates), state

    keys = jax.random.split(jax.random.key(0), len(case.x))
    x, y, a, w = (jnp.asarray(array) for array in (case.x, case.y, case.a, case.w))
    start = eqx.filter_vmap(Student)(a, w)
    losses = eqx.filter_jit(eqx.filter_vmap(half_mse))

    def run():
        student = start
        state = eqx.filter_vmap(lambda student, key: optimizer(key).init(student))(student, keys)
        for _ in range(case.steps):
            student, state = step(student, state, keys, x, y)
        return np.asarray(losses(student, x, y))

    return run


def torch_loop(case: Case) -> Run:
    """PyTorch: nn.Linear, SGD, noise; one student after the other."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(case.threads)
    d, m = case.shape[2:]
    x, y, a, w = (torch.from_numpy(array.copy()) for array in (case.x, case.y, case.a, case.w))

    def train(i):
        net = torch.nn.Sequential(torch.nn.Linear(d, m, bias=False), torch.nn.ReLU(), torch.nn.Linear(m, 1, bias=False))
        with torch.no_grad():
            net[0].weight.copy_(w[i])
            net[2].weight.copy_(a[i][None, :])
        optimizer = torch.optim.SGD(net.parameters(), lr=case.step_size, weight_decay=2 * case.penalty)
        half_mse = lambda: 0.5 * torch.mean((net(x[i])[:, 0] - y[i]) ** 2)
        for _ in range(case.steps):
            optimizer.zero_grad()
            half_mse().backward()
            optimizer.step()
            with torch.no_grad():
                for p in net.parameters():
                    p.add_(torch.randn_like(p), alpha=case.noise_std)
        return float(half_mse().detach())

    return lambda: np.asarray([train(i) for i in range(min(case.few, len(x)))])


def torch_func(case: Case) -> Run:
    """torch.func: vmap(grad) over the whole batch, and a Python loop of steps."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(case.threads)
    x, y, a, w = (torch.from_numpy(array.copy()) for array in (case.x, case.y, case.a, case.w))

    def half_mse(parameters, x, y):
        a, w = parameters
        return 0.5 * torch.mean((torch.relu(x @ w.T) @ a - y) ** 2)

    gradients = torch.func.vmap(torch.func.grad(half_mse))

    def run():
        parameters = (a, w)
        with torch.no_grad():
            for _ in range(case.steps):
                moves = gradients(parameters, x, y)
                parameters = tuple(
                    p - case.step_size * (g + 2 * case.penalty * p) + case.noise_std * torch.randn_like(p)
                    for p, g in zip(parameters, moves, strict=True)
                )
            return torch.func.vmap(half_mse)(parameters, x, y).numpy()

    return run


def sklearn(case: Case) -> Run:
    """scikit-learn's MLPRegressor, full batches of SGD, joblib over students. It has no noise, but has biases, whose inputs of
    size 1 would diverge with the step size of the others."""
    import warnings

    from joblib import Parallel, delayed
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    _, n, d, m = case.shape
    options = {
        "hidden_layer_sizes": (m,),
        "solver": "sgd",
        "batch_size": n,
        "momentum": 0.0,
        "learning_rate_init": case.step_size / d,
        "alpha": 2 * case.penalty * n,
        "max_iter": case.steps,
        "tol": 0.0,
        "n_iter_no_change": case.steps + 1,
        "shuffle": False,
        "random_state": 0,
    }

    def train(x, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            net = MLPRegressor(**options).fit(x, y)
        return 0.5 * np.mean((net.predict(x) - y) ** 2)

    count = min(case.few, len(case.x))
    return lambda: np.asarray(Parallel(n_jobs=case.threads)(delayed(train)(case.x[i], case.y[i]) for i in range(count)))


def c_loop(case: Case, noise: bool = True) -> Run:
    """The limit: everything in C (benchmarks/limit.c)."""
    import ctypes

    import jax

    from tsjax.fast import native

    here = Path(__file__).parent / "limit.c"
    includes = (str(Path(native.__file__).parent), jax.ffi.include_dir())
    libraries = ("-ffast-math", "-pthread", "-Wl,--no-as-needed", "-lmvec", "-lm")
    library = ctypes.CDLL(str(native.build(here, native.cache_folder() / "benchmarks", includes, libraries)))
    floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    library.train_all.argtypes = [ctypes.c_long] * 6 + [ctypes.c_float] * 3 + [floats] * 4
    library.train_all.restype = None
    x_t = np.ascontiguousarray(np.swapaxes(case.x, 1, 2))
    start = np.concatenate([case.a, case.w.reshape(len(case.w), -1)], axis=1)

    def run():
        theta, losses = start.copy(), np.empty(len(x_t), np.float32)
        sizes = (case.threads, *case.shape, case.steps)
        rates = (case.step_size, case.noise_std if noise else 0.0, case.penalty)
        library.train_all(*sizes, *rates, x_t, case.y, theta, losses)
        return losses

    return run


WAYS: dict[str, Callable[[Case], Run]] = {
    "tsjax.fit_many": fit_many,
    "JAX jit(vmap), samples first": jax_vmap,
    "JAX loop of jitted students": jax_loop,
    "JAX lax.map": jax_map,
    "equinox ensemble, optax": equinox,
    "PyTorch loop, nn.Linear": torch_loop,
    "torch.func vmap(grad)": torch_func,
    "scikit-learn MLPRegressor, joblib": sklearn,
    "C, the limit": c_loop,
}
