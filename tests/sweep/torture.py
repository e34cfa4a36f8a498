"""A sweep in a process of its own that is going to be killed: what `multiprocessing` must be able to import."""

import os
import random
import signal
import time

from sweep.toys import power, power_spec

import tsjax as ts
from tsjax.sweep.run import run_spec

# Two programs: every run that is going to be killed compiles them first.
GRID = {"n": 16, "method": ["fast", "slow"]}
SPEC = power_spec(grid={**GRID, "seeds": 3600})
SHORT = power_spec(grid={**GRID, "seeds": 1200})
OPTIONS = {"experiment": power, "chunk": 8, "commit_seconds": 0.0}


def run_until_killed(out, seed, at_rename, ready, spec=SPEC, unhurried=8):
    """Runs the sweep until it is killed; `at_rename` kills itself before or after one of its renames. After `unhurried` chunks
    it takes a while for each, so that a process outlasts its kill on any machine, and a hundred do not finish the sweep."""
    # A test run in the background of a shell ignores SIGINT, and its children would.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, replace, renames = random.Random(seed), os.replace, [0]

    def deadly(source, target):
        renames[0] += 1
        last = renames[0] == at_rename
        if last and rng.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        try:
            # There may be no such file: a chunk that another process announced may have been there already.
            replace(source, target)
        finally:
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly

    def listener(plan, stream):
        chunks = 0
        for done in stream:
            # The first event may be about what a killed run left behind, while this one is still compiling.
            if not done.resumed:
                ready.set()
                chunks += 1
            if chunks > unhurried:
                time.sleep(0.25)
            yield done

    ready.set() if at_rename else None
    run_spec(spec, out=out, listener=listener, **OPTIONS)


def _bad_inputs(rng):
    """Calls that must fail before anything is compiled, with what they leave out of the sweep."""
    number = lambda: rng.choice(
        [-1, -3, 0, 2.5, float("nan"), float("inf"), -float("inf"), 10**18, "many", None, [], {}, True]
    )
    word = lambda: "".join(rng.choice("abcxyz_:.-/* ") for _ in range(rng.randint(1, 9)))
    spacings = ["step", "factor", "count"]
    good = {"n": [16, 32], "method": "fast", "seeds": 2}
    kinds = [
        lambda: {**good, "chunk": rng.choice([-3, 0, 2.5, "x", float("nan"), None])},
        lambda: {**good, "commit_seconds": rng.choice([-1.0, float("nan"), "x", []])},
        lambda: {**good, "engine": rng.choice([word(), 3, ts.engines.Local])},
        lambda: {**good, rng.choice(["workers", "ray_address", "shard"]): number()},
        lambda: {**good, "key": rng.choice([-1, 2**32, 1.5, "x", []])},
        lambda: {**good, "seeds": rng.choice([0, -1, 1.5, "x", [], [-1], [2**32], [0.5], 10**9, None, {}])},
        lambda: {**good, "n": rng.choice([1, -4, 1.5, "x", [], [16, 1], [float("nan")], [None], {"from": 2}, {}])},
        lambda: {**good, "n": {"from": rng.choice([float("nan"), 2]), "to": float("inf"), "step": 1}},
        lambda: {**good, "n": {"from": 2, "to": 8, rng.choice(spacings): rng.choice([0, -1, "x", float("nan")])}},
        lambda: {**good, "method": rng.choice([word(), 3, None, ["fast", word()], True])},
        lambda: {**good, word().strip() or "x": number()},
        lambda: {**good, "scale": rng.choice([float("nan"), float("inf"), "x", None, [[1.0]], [], {}])},
        lambda: {**good, "zip": rng.choice([{"n": [2], "scale": [1.0, 2.0]}, {"m": [1]}, 3, [3], {"n": [8]}])},
        lambda: {**good, "only": rng.choice([{"n": [2]}, {"where": {}}, 3])},
        lambda: {**good, "only": {"where": rng.choice([{"m": 1}, {"n": 5}]), "scale": 2.0}},
    ]  # fmt: skip
    return kinds[rng.randrange(len(kinds))]()


def try_bad_inputs(out, seed, count, answers):
    """Puts arguments, kind and text of the error, and whether something was left on the disk, for each of some bad calls."""
    rng = random.Random(seed)
    for _ in range(count):
        arguments = _bad_inputs(rng)
        try:
            ts.sweep(power, out=out, **arguments)
            answers.put((repr(arguments), "nothing", "it ran", True))
        except BaseException as error:
            answers.put((repr(arguments), type(error).__name__, str(error), os.path.exists(out)))
