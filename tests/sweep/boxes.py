"""Black boxes for tests: what goes right, and everything that can go wrong in a process."""

import os
import signal
import subprocess
import time

import numpy as np

import tsjax as ts


@ts.black_box(curve="learner", y=("risk", "accuracy"), labels={"gbt": "gradient-boosted trees"})
def trees(seed: int, *, learner: str, n: int, members: int = 5):
    """A forest, or gradient-boosted trees, on a nonlinear function of five inputs."""
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

    rng = np.random.default_rng(seed)
    x, test = rng.uniform(size=(n, 5)), rng.uniform(size=(500, 5))
    f = lambda x: 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    make = {"forest": RandomForestRegressor, "gbt": GradientBoostingRegressor}[learner]
    fit = make(n_estimators=members, random_state=seed).fit(x, f(x) + rng.normal(size=n))
    return {
        "risk": np.mean((fit.predict(test) - f(test)) ** 2),
        "accuracy": fit.score(test, f(test)),
        "pid": os.getpid(),
    }


@ts.black_box(curve="kind", timeout=1.5)
def troubled(seed: int, *, kind: str, n: int, folder: str = ""):
    """Cells that go wrong in one way each; seed 0 is well."""
    if seed > 0:
        if kind == "raises":
            raise ValueError(f"no luck at n = {n}")
        if kind == "memory":
            raise MemoryError("too much")
        if kind == "exits":
            raise SystemExit(3)
        if kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hangs":
            # Also what it has started is to end.
            subprocess.run(["sh", "-c", f"echo $$ > {folder}/{seed}; sleep 600"])
        if kind == "dies once" and not os.path.exists(f"{folder}/{seed}"):
            open(f"{folder}/{seed}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "mended" and not os.path.exists(f"{folder}/mended"):
            raise ValueError("not mended")
    return {"risk": (1.0 + seed) / n, "large": seed > 3}


@ts.black_box(x="step")
def path(seed: int, *, length: int = 4, wrong: bool = False):
    """A vector."""
    if wrong and seed == 1:
        raise ValueError("wrong")
    step = np.arange(1, length + 1)
    return {"step": step, "risk": (1.0 + seed) / step}


@ts.black_box
def returning(seed: int, *, n: int, what: str):
    """What no record can hold."""
    return {
        "list": [1.0],
        "word": {"risk": "small"},
        "complex": {"risk": 1j},
        "clash": {"risk": 1.0, "n": 3},
        "no risk": {"loss": 1.0},
        "table": {"risk": np.ones((2, 2))},
        "well": {"risk": float(seed + 1)},
    }[what]


@ts.black_box(independent=("n",))
def draws(seed: int, *, n: int):
    """The seed itself."""
    return {"risk": 1.0, "got": seed, "at": time.time() > n}
