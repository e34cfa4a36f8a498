"""A sweep in a process of its own that is going to be killed: what `multiprocessing` must be able to import."""

import os
import random
import signal
import time

from sweep.toys import power, power_spec

from tsjax.sweep.run import run_spec

SPEC = power_spec(grid={"n": [16, 32, 64, 128], "method": ["fast", "slow"], "seeds": 1200})
OPTIONS = {"experiment": power, "chunk": 8, "commit_seconds": 0.0}


def run_until_killed(out, seed, at_rename, ready):
    """Runs the sweep until it is killed; `at_rename` kills itself before or after one of its renames."""
    # A test run in the background of a shell ignores SIGINT, and its children would.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, replace, renames = random.Random(seed), os.replace, [0]

    def deadly(source, target):
        renames[0] += 1
        last = renames[0] == at_rename
        if last and rng.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    if at_rename:
        os.replace = deadly

    def listener(plan, stream):
        for done in stream:
            ready.set()
            time.sleep(0.03)  # So that the work outlasts the kills.
            yield done

    ready.set() if at_rename else None
    run_spec(SPEC, out=out, listener=listener, **OPTIONS)
