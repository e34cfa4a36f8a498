"""A worker process of a black box: it receives a function, then cells one by one, and answers with the values of each cell.

It runs in a new interpreter, which does not load JAX unless the function does. It leads a process group of its own, so that
programs that the function starts end with it. It ends when the process that started it is gone.
"""

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from .errors import no_dict, no_number
from .places import in_one_line


class Named(NamedTuple):
    """A function to import: its module, and the name in it of the function or of the experiment that was made from it."""

    module: str
    attribute: str


def serve(handle: int) -> None:
    """Answers over the connection with this file descriptor until it is closed; see `tsjax.sweep.engines.black_box`.

    An answer is (kind, value, seconds). The kinds are

    - `ready`: the function is loaded; `broken`: loading it raised an error, whose text is the value;
    - `returned`: the value is the arrays of a cell; `wrong`: the value says why a record cannot hold what the cell returned;
    - `raised`: the cell raised an error, whose text is the value; `memory`: that error is a MemoryError.
    """
    os.set_inheritable(handle, False)
    _end_with_parent()
    parent = Connection(handle)
    try:
        fn = _load(*parent.recv())
    except BaseException as error:
        parent.send(("broken", in_one_line(error), 0.0))
        return
    parent.send(("ready", None, 0.0))
    while True:
        try:
            seed, arguments = parent.recv()
        except EOFError:
            return
        start = time.perf_counter()
        kind, value = _call(fn, seed, arguments)
        seconds = time.perf_counter() - start
        try:
            parent.send((kind, value, seconds))
        except OSError:
            return


def _load(named: Named | None, pickled: bytes) -> Callable[..., Any]:
    if named is None:
        return pickle.loads(pickled)
    found = getattr(importlib.import_module(named.module), named.attribute)
    return getattr(found, "fn", found)


def _call(fn: Callable[..., Any], seed: int, arguments: dict[str, Any]) -> tuple[str, Any]:
    import numpy as np

    try:
        values = fn(seed, **arguments)
        if not isinstance(values, Mapping):
            return "wrong", no_dict(values)
        # Plain arrays, since unpickling a number of another library would make the receiver load that library.
        arrays = {str(name): np.asarray(value) for name, value in values.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":
                return "wrong", no_number(name)
        return "returned", arrays
    except MemoryError as error:
        return "memory", in_one_line(error)
    # A call of sys.exit too, which would end the worker.
    except BaseException as error:
        return "raised", in_one_line(error)


def _end_with_parent() -> None:
    """Ends this process, and every process that it started, when the other end of its standard input is closed: for example
    when the process that holds that end is killed. The function itself finds an empty standard input."""
    lifeline = os.dup(sys.stdin.fileno())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
