"""What goes wrong stays where it happens, and the devices do not wait."""

import os
import signal
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep.toys import power, power_spec, stored

import tsjax as ts
from tsjax.sweep import programs
from tsjax.sweep.engines import local
from tsjax.sweep.faults import GroupError
from tsjax.sweep.interrupt import Interrupted, Stop, listening
from tsjax.sweep.program import Program
from tsjax.sweep.run import run_spec


@ts.experiment(static=("kind", "n"), curve="kind")
def uneven(key, *, kind: str, n: int):
    """Memory of n doubles a cell, or something that cannot be traced."""
    if kind == "broken":
        raise TypeError("no such thing")
    numbers = jnp.arange(n, dtype=jnp.float64) * jax.random.uniform(key, (), jnp.float64)
    # Sorted, so that the numbers are really there.
    return {"risk": jnp.sort(numbers)[0] + 1.0, "count": n}


def _sizes_only(monkeypatch, largest):
    """Makes programs for more than `largest` cells run out of memory; returns the sizes that ran."""
    compile_group, ran = programs.compile_group, []

    def compiled(*args, **kwargs):
        program = compile_group(*args, **kwargs)

        def call(*inputs):
            if program.size > largest:
                raise RuntimeError(f"RESOURCE_EXHAUSTED: Out of memory allocating {program.bytes} bytes.")
            ran.append(program.size)
            return program.call(*inputs)

        return Program(call, program.size, program.bytes, program.compile_seconds, program.outputs)

    monkeypatch.setattr(programs, "compile_group", compiled)
    return ran


def test_a_chunk_that_runs_out_of_memory_is_halved(monkeypatch, tmp_path):
    whole = run_spec(power_spec(), experiment=power).records
    ran = _sizes_only(monkeypatch, 12)
    records = run_spec(power_spec(), experiment=power, chunk=48, out=tmp_path / "s").records
    assert set(ran) <= {12, 6} and 12 in ran
    names = ["cell", "status", "risk", "limit", "draw"]
    assert records[names].equals(whole[names])


@pytest.mark.slow
def test_the_memory_that_was_found_out_is_remembered(monkeypatch):
    """The second group plans with what the first one learned, but for the program that was made ahead."""
    _sizes_only(monkeypatch, 4)
    sizes = []
    inner = programs.compile_group
    monkeypatch.setattr(
        programs, "compile_group", lambda *a, **k: (program := inner(*a, **k), sizes.append(program.size))[0]
    )
    run_spec(power_spec(), experiment=power, chunk=48)
    assert sizes[:6] == [48, 48, 24, 12, 6, 4] and max(sizes[6:]) <= 4


def test_cells_that_do_not_fit_alone_are_records(tmp_path):
    """2^46 doubles: really refused by the allocator. The other cells are there."""
    result = ts.sweep(uneven, out=tmp_path / "s", kind="fine", n=[8, 2**46], seeds=3)
    records = result.records
    small, large = records[records["n"] == 8], records[records["n"] != 8]
    assert len(small) == len(large) == 3
    assert (large["status"] == int(ts.Status.OUT_OF_MEMORY)).all() and large["risk"].isna().all()
    assert np.isfinite(small["risk"]).all() and result.curves()[0].failed == 3


def test_chunks_that_fit_only_one_at_a_time_are_no_failures(monkeypatch):
    """The smallest program runs out of memory whenever another chunk is on its way."""
    compile_group, flying = programs.compile_group, []

    def compiled(*args, **kwargs):
        program = compile_group(*args, **kwargs)

        def call(*inputs):
            if flying:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            flying.append(1)
            return program.call(*inputs)

        return Program(call, program.size, program.bytes, program.compile_seconds, program.outputs)

    device_get = jax.device_get
    monkeypatch.setattr(programs, "compile_group", compiled)
    monkeypatch.setattr(local.jax, "device_get", lambda tree: (flying.clear(), device_get(tree))[1])
    records = run_spec(power_spec(), experiment=power, chunk=2).records
    assert (records["status"] == 0).all() and len(records) == 96 and np.isfinite(records["risk"]).all()


def test_a_program_that_cannot_be_made_stops_no_other(tmp_path):
    with pytest.raises(
        GroupError, match=r"1 of 2 programs failed.*first was at kind=broken, n=8: TypeError: no such thing"
    ):
        ts.sweep(uneven, out=tmp_path / "s", kind=["broken", "fine"], n=8, seeds=3)
    assert set(stored(tmp_path / "s")["kind"]) == {"fine"}
    # The only one: its own error.
    with pytest.raises(TypeError, match="no such thing"):
        ts.sweep(uneven, kind="broken", n=8, seeds=1)


def test_commits_are_by_time(tmp_path):
    for seconds, files in ((100.0, 2), (0.0, 24)):
        out = tmp_path / str(files)
        run_spec(power_spec(), experiment=power, chunk=4, out=out, commit_seconds=seconds)
        assert len(list((out / "chunks").iterdir())) == files
    same = [stored(tmp_path / str(files)).sort_values("cell")["risk"].to_numpy() for files in (2, 24)]
    np.testing.assert_array_equal(*same)


@ts.experiment(static=("n",))
def slow(key, *, n: int):
    """A fraction of a second of one core."""
    spin = jax.lax.fori_loop(0, 200, lambda i, x: jnp.sin(x) + i, jnp.ones(20_000) * jax.random.uniform(key))
    return {"risk": jnp.mean(spin) + n}


@pytest.mark.slow
def test_the_devices_hardly_wait(tmp_path):
    def share(out):
        run, idle = 0.0, 0.0

        def listener(plan, stream):
            nonlocal run, idle
            for done in stream:
                run, idle = run + done.seconds, done.idle_seconds
                time.sleep(0.02)  # A slow terminal.
                yield done

        ts.sweep(slow, out=out, n=[1], seeds=24, chunk=4, listener=listener, commit_seconds=0.0)
        assert run > 0.2
        return idle / run

    # Most of three: other programs on the machine make the devices wait too.
    assert np.median([share(tmp_path / str(attempt)) for attempt in range(3)]) < 0.25


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_between_chunks(tmp_path, signum):
    whole = run_spec(power_spec(), experiment=power).records

    def listener(plan, stream):
        for i, done in enumerate(stream):
            if i == 2:
                os.kill(os.getpid(), signum)
                time.sleep(0.01)
            yield done

    # A test run in the background of a shell ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signum)
    options = {"experiment": power, "out": tmp_path / "s", "chunk": 4, "commit_seconds": 0.0}
    with pytest.raises(Interrupted) as stopped:
        run_spec(power_spec(), listener=listener, **options)
    assert stopped.value.exit_code == 128 + signum and signal.getsignal(signum) is before
    assert 12 <= len(stored(tmp_path / "s")) < 60
    assert run_spec(power_spec(), **options).records["risk"].equals(whole["risk"])


def test_a_second_signal_drops_what_is_running():
    stop = Stop()
    assert not stop.now and not stop.overdue
    stop.request(signal.SIGTERM)
    assert stop.now and not stop.overdue
    stop.request(signal.SIGTERM)
    assert stop.overdue


def test_threads_do_not_listen():
    found = []

    def run():
        with listening() as stop:
            found.append(stop.now)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_independent_arguments_have_their_own_draws():
    @ts.experiment(independent=("n",), curve="scale")
    def own(key, *, n: int, scale: float = 1.0):
        return {"risk": jax.random.uniform(key, (), jnp.float64), "size": scale * n}

    records = ts.sweep(own, seeds=4, n=[1, 2], scale=[1.0, 2.0]).records
    draws = records.pivot_table(index=["seed", "n"], columns="scale", values="risk")
    assert (draws[1.0] == draws[2.0]).all()
    assert draws[1.0].nunique() == 8
    # A record does not depend on what else is in the sweep.
    alone = ts.sweep(own, seeds=[3], n=2).records["risk"][0]
    assert alone == records.query("seed == 3 and n == 2 and scale == 1.0")["risk"].item()
    with pytest.raises(ValueError, match="independent names 'm', which is not one of its arguments"):
        ts.experiment(independent=("m",))(own.fn)


def test_the_next_program_is_compiled_while_the_devices_run(monkeypatch):
    compile_group, begun = programs.compile_group, {n: threading.Event() for n in (100, 200, 300)}

    def compiled(experiment, group, *args):
        n = group.static["n"]
        begun[n].set()
        program = compile_group(experiment, group, *args)

        def call(*inputs):
            # Goes on once the next program is in the making: never, if that waited for this one to be run.
            assert n == 300 or begun[n + 100].wait(30)
            return program.call(*inputs)

        return Program(call, program.size, program.bytes, program.compile_seconds, program.outputs)

    monkeypatch.setattr(programs, "compile_group", compiled)
    records = ts.sweep(uneven, kind="even", n=list(begun), seeds=2).records
    assert sorted(set(records["n"])) == list(begun) and records["risk"].notna().all()
    # Float64, also in the thread that compiles.
    assert records["risk"].dtype == np.float64


def test_few_programs_are_held_at_a_time(monkeypatch):
    """Each takes memory: the one that runs, and one for each core in the making."""
    compile_group, gone, most = programs.compile_group, [], []

    def compiled(experiment, group, *args):
        program = compile_group(experiment, group, *args)
        # What is held by nobody any more is gone.
        weakref.finalize(program, gone.append, 1)
        most.append(len(most) + 1 - len(gone))
        return program

    monkeypatch.setattr(programs, "compile_group", compiled)
    monkeypatch.setattr(programs.os, "cpu_count", lambda: 2)
    records = ts.sweep(uneven, kind="even", n=list(range(2, 14)), seeds=2).records
    assert len(records) == 24 and len(most) == 12 and max(most) <= 4
