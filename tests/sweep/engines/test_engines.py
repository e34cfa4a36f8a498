"""Names and options of engines: what is wrong is said before anything is compiled or written."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from sweep.toys import plain, power, power_spec

import tsjax as ts
from tsjax.sweep.engines import ENGINES, AbstractEngine, engine_of, options_from
from tsjax.sweep.engines.base import options_of
from tsjax.sweep.engines.local import run_plan
from tsjax.sweep.run import run_spec
from tsjax.sweep.spec import SpecError

BAD = [
    ({"chunk": -3}, "chunk = -3: give a number of cells .* an integer >= 1"),
    ({"chunk": 0}, "chunk = 0: "),
    ({"commit_seconds": -1.0}, "commit_seconds = -1.0: give the seconds .* a number >= 0"),
    ({"commit_seconds": float("nan")}, "commit_seconds = nan: "),
    ({"engine": "spark"}, "engine = 'spark': no such engine. Allowed: local, ray, slurm, black_box"),
    ({"engine": "rya"}, r"Did you mean 'ray'\?"),
    (
        {"engine": "ray", "commit_seconds": 1.0},
        "engine 'ray' has no option 'commit_seconds'. It is one of engine 'local'",
    ),
    ({"workers": 3}, r"workers is not an option any more: write engine=ts.engines.BlackBox\(processes=3\)"),
    ({"ray_address": "a:1"}, r"write engine=ts.engines.Ray\(address='a:1'\)"),
    ({"shard": (1, 2)}, "shard is not an option any more: .* processes that work on one store share its cells"),
    ({"engine": "slurm"}, "engine 'slurm' needs a store"),
    ({"engine": "black_box"}, "'plain' is an experiment in JAX"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_is_wrong_is_said_before_anything_is_written(options, message, tmp_path):
    out = {} if options.get("engine") == "slurm" else {"out": tmp_path / "s"}
    with pytest.raises(SpecError, match=message):
        ts.sweep(plain, seeds=2, n=[2], **out, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ts.engines.Local(lease_seconds=0.0),
            "lease_seconds = 0.0: give the seconds of silence.* a number > 0",
        ),
        (
            lambda: ts.engines.BlackBox(processes=0),
            "processes = 0: give the number of processes.* all cores by default",
        ),
        (lambda: ts.engines.Ray(address=" "), "address = ' ': give the address of a cluster as a text"),
        (lambda: ts.engines.Slurm(jobs=0), "jobs = 0: give the number of jobs"),
        (lambda: ts.engines.Slurm(memory_gb=-1.0), "memory_gb = -1.0"),
        (lambda: ts.engines.Slurm(cluster="pbs"), "cluster = 'pbs': say 'slurm', or 'local'"),
        (lambda: ts.engines.Slurm(flags="qos=high"), "flags = 'qos=high': write --name=value"),
        (lambda: ts.engines.Slurm(flags="'--a"), "it cannot be read"),
        (lambda: ts.engines.Slurm(setup="a\nb"), "setup = .* a text of one line"),
        (lambda: engine_of(3, {}), "engine = 3: no such engine. Give an object"),
        (lambda: engine_of(ts.engines.Local, {}), "no such engine. Give an object, such as ts.engines.Local"),
        (
            lambda: engine_of(ts.engines.Ray(), {"adress": "x"}),
            "engine 'ray' has no option 'adress'. Did you mean 'address'",
        ),
    ],
)
def test_values_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_options_become_python_numbers():
    engine = engine_of("local", {"chunk": np.int32(5), "commit_seconds": np.float32(0.5)})
    assert (engine.chunk, engine.commit_seconds) == (5, 0.5)
    assert type(engine.chunk) is int and type(engine.commit_seconds) is float
    # A name, an object, and an object with other options.
    assert (
        engine
        == ts.engines.Local(chunk=5, commit_seconds=0.5)
        == engine_of(ts.engines.Local(chunk=5), {"commit_seconds": 0.5})
    )
    assert engine_of(engine, {}) is engine and type(engine_of(None, {}, power)) is ts.engines.Local
    box = ts.black_box(lambda seed: {"risk": 1.0}, name="box", arguments=ts.Arguments)
    assert engine_of(None, {"chunk": 3}, box) == ts.engines.BlackBox(chunk=3)


def test_texts_of_a_command_line_are_read():
    given = {"jobs": "32", "memory_gb": "3.5", "partition": "gpu", "minutes": "90"}
    engine = engine_of("slurm", options_from(given, "slurm"))
    assert engine == ts.engines.Slurm(jobs=32, memory_gb=3.5, partition="gpu", minutes=90)
    assert options_from({"processes": "4"}, "black_box") == {"processes": 4}
    for text, name in (({"jobs": "2.5"}, "slurm"), ({"commit_seconds": "soon"}, "local")):
        with pytest.raises(SpecError, match="give a (whole )?number"):
            options_from(text, name)


def test_every_engine_says_what_it_is():
    for name, engine in ENGINES.items():
        assert engine.name == name and {"chunk"} <= set(options_of(engine))
        # Each option is described, and each has a value by default.
        assert all(f"`{option}`" in engine.__doc__ + AbstractEngine.__doc__ for option in options_of(engine))
        assert engine() == engine()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(AbstractEngine):
    """Somebody's: twice as many cells at a time."""

    name = "own"
    log: tuple = ()

    def run(self, plan, store, stop) -> Iterator:
        for done in run_plan(plan, store, chunk=2 * self.chunk, stop=stop):
            yield dataclasses.replace(done, kernel="own")


def test_an_engine_of_ones_own(tmp_path):
    whole, seen = run_spec(power_spec(), experiment=power).records, []

    def listener(plan, stream):
        for done in stream:
            seen.append((done.kernel, done.cells))
            yield done

    engine = Own(chunk=6)
    result = run_spec(
        power_spec(), experiment=power, out=tmp_path / "s", engine=engine, listener=listener, commit_seconds=None
    )
    assert result.records["risk"].equals(whole["risk"])
    assert {kernel for kernel, _ in seen} == {"own"} and sum(cells for _, cells in seen) == 96


def test_arguments_of_an_experiment_may_have_the_names_of_old_options():
    @ts.experiment
    def staff(key, *, n: int, workers: int):
        return {"risk": 1.0 / (n * workers)}

    assert ts.sweep(staff, seeds=1, n=2, workers=3).records["risk"].tolist() == [pytest.approx(1 / 6)]
