"""Sizes that share a program: which do, and that records do not depend on it."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.size import Size, size_of
from tsjax.sweep import plan as plans
from tsjax.sweep import program, programs, run, sharing
from tsjax.sweep.classes import COMPILE_SECONDS, SPEEDS, Sized, joined_class, seconds_from, size_classes
from tsjax.sweep.experiment import Cost
from tsjax.sweep.plan import make_plan, plan_content, plan_of
from tsjax.sweep.provenance import manifest_of, provenance, shared_here
from tsjax.sweep.spec import find_experiment, load_spec, parse_spec
from tsjax.sweep.theory import TheoryTable
from tsjax.sweep.writer import StoreWriter

ROOT = Path(ts.__file__).parent.parent


@ts.experiment(sized=("n",), cost=lambda a: Cost(0.0, float(a["n"]) ** 3))
def mean(key, *, n: int, scale: float = 1.0):
    """The squared mean of n normal numbers, by weights."""
    x = scale * jr.normal(key, (n.limit,))
    weights = jnp.ones(n.limit) if n.weights() is None else n.weights()
    return {"risk": (jnp.sum(weights * x) / n.count) ** 2, "limit": n.limit, "padded": n.is_padded}


@ts.experiment(static=("n",))
def alone(key, *, n: int, scale: float = 1.0):
    """The same with a program for every n."""
    return {"risk": jnp.mean(scale * jr.normal(key, (n,))) ** 2}


def _plan(**grid):
    spec = parse_spec({"study": "a:mean", "grid": {"seeds": 4, **grid}}, where="test")
    return make_plan(spec, mean)


def _seconds(cost: Cost) -> float:
    products, factorisations = SPEEDS["cpu"]
    return (cost.products + cost.entries) / products + cost.factorisations / factorisations


def _rung(size: int, limit: int) -> int:
    """The size at which a program for `limit` rows factorises."""
    return min(rung for rung in (limit // 8, limit // 4, limit // 2, limit) if rung >= size)


@pytest.mark.parametrize("loops_end", [True, False])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_classes_are_the_best_of_all_partitions(power, loops_end):
    """Against a search of all ways to cut the sizes into classes."""
    rng = np.random.default_rng(SEED + power)
    cost_at = lambda sizes: Cost(
        1e7 * sizes[0], 30.0 * float(sizes[0]) ** power * 2048.0 ** (3 - power), 150.0 * float(sizes[0]) ** 2
    )
    sizes = [128, 256, 512, 1024, 1536, 2048]
    members = [Sized((n,), int(rng.integers(1, 40)), cost_at) for n in sizes]

    def total(cuts) -> float:
        seconds = 0.0
        for first, last in itertools.pairwise((0, *cuts, len(sizes))):
            limit, seconds = sizes[last - 1], seconds + COMPILE_SECONDS
            for one in members[first:last]:
                own, padded = cost_at(one.sizes), cost_at((limit,))
                held = cost_at((_rung(one.sizes[0], limit),)).factorisations
                products = own.products if loops_end else padded.products
                seconds += one.cells * _seconds(Cost(products, held, padded.entries))
        return seconds

    places = range(1, len(sizes))
    best = min(total(cuts) for count in range(len(sizes)) for cuts in itertools.combinations(places, count))
    found = size_classes(members, "cpu", loops_end)
    limits = [one.sizes if limit is None else limit for one, limit in zip(members, found, strict=True)]
    cuts = [i for i in places if limits[i] != limits[i - 1]]
    assert total(cuts) == pytest.approx(best)


def test_free_padding_gives_one_class_and_dear_padding_none():
    free = [Sized((n,), 8, lambda _: Cost(0.0)) for n in (16, 4096, 64)]
    assert size_classes(free, "cpu", True) == [(4096,)] * 3
    dear = [Sized((n,), 8, lambda sizes: Cost(0.0, 1e20 * sizes[0])) for n in (16, 32)]
    assert size_classes(dear, "cpu", True) == [None, None]
    # Loops that end with the rows that count cost nothing more.
    loops = [Sized((n,), 8, lambda sizes: Cost(1e20 * sizes[0])) for n in (16, 32)]
    assert size_classes(loops, "cpu", True) == [(32,), (32,)] and size_classes(loops, "cpu", False) == [None, None]


def test_without_a_cost_sizes_within_a_factor_of_4():
    members = [Sized((n,), 8, None) for n in (1000, 16, 32, 64, 250)]
    assert size_classes(members, "gpu", True) == [(1000,), (64,), (64,), (64,), (1000,)]


def test_a_new_size_joins_a_class_where_that_costs_least():
    cubic = Sized((100,), 10, lambda sizes: Cost(0.0, entries=float(sizes[0]) ** 3))
    classes = [(64,), (128,), (4096,)]
    assert joined_class(cubic, classes, "cpu", True) == (128,)
    # 10 x 4096^3 operations take longer than another program; a factorisation is held at 512 rows too.
    assert joined_class(cubic, [(64,), (4096,)], "cpu", True) is None
    factorised = Sized((100,), 10, lambda sizes: Cost(0.0, float(sizes[0]) ** 3))
    assert joined_class(factorised, [(64,), (4096,)], "cpu", True) == (4096,)
    assert joined_class(Sized((100,), 10, lambda _: Cost(1e3)), [(64,), (4096,)], "cpu", True) == (4096,)
    assert joined_class(Sized((100,), 10, None), [(400,), (4096,)], "cpu", True) == (400,)
    assert joined_class(Sized((100,), 10, None), [(401,)], "cpu", True) is None
    assert joined_class(cubic, [], "cpu", True) is None


def test_seconds_of_cells_from_those_of_others():
    """Worked out by hand, at 1e9 operations per second."""
    at, cost = (1e9, 1e9), lambda operations: Cost(0.0, operations)
    # A smoke run: 0.01 s, hardly any of it for its 1e6 operations. Proportion says 10 000 s; the operations take 1000 s.
    assert seconds_from([(1e6, 0.01)], cost(1e12), at) == pytest.approx(1000.0, rel=1e-4)
    # Cells that took long for their operations still do, if two of them agree on it.
    assert seconds_from([(1e9, 10.0), (1e8, 1.0)], cost(1e10), at) == pytest.approx(100.0)
    assert seconds_from([(1e8, 1.0), (1e9, 2.8)], cost(1e10), at) == pytest.approx(2.8 + 18.0)
    # Never longer than in proportion, and smaller cells in proportion.
    assert seconds_from([(1e9, 0.1)], cost(1e10), at) == pytest.approx(1.0)
    assert seconds_from([(1e9, 8.0), (4e9, 16.0)], cost(5e8), at) == pytest.approx(4.0)
    assert seconds_from([(1e9, 8.0)], cost(1e9), at) == 8.0


def test_two_sizes_are_padded_together():
    members = [Sized(sizes, 8, lambda _: Cost(0.0)) for sizes in ((8, 100), (16, 50))]
    assert size_classes(members, "cpu", True) == [(16, 100)] * 2


def test_a_shared_program_gives_what_programs_of_their_own_give():
    grid = {"seeds": 6, "n": [40, 50, 64], "scale": [1.0, 2.0]}
    shared, separate = ts.sweep(mean, **grid), ts.sweep(alone, **grid)
    assert shared.records["limit"].unique().tolist() == [64] and shared.records["padded"].all()
    assert shared.plan is not None and shared.plan.programs == 1
    assert separate.plan is not None and separate.plan.programs == 3
    order = ["n", "scale", "seed"]
    both = [one.records.sort_values(order)["risk"].to_numpy() for one in (shared, separate)]
    np.testing.assert_allclose(*both, rtol=1e-12)
    # Called directly, with a number, nothing is padded.
    direct = mean(jr.fold_in(jr.key(0), 2), n=50, scale=2.0)
    row = shared.records.query("n == 50 and scale == 2.0 and seed == 2")["risk"].item()
    assert not direct["padded"] and float(direct["risk"]) == pytest.approx(row, rel=1e-12)


def test_what_a_size_decides_is_decided_once():
    """A size is one number in a chunk, so that `cond` on it stays one; on an argument of each cell it becomes a choice of both
    sides."""

    @ts.experiment(sized=("n",))
    def sides(key, *, n: int, scale: float = 1.0):
        by_size = jax.lax.cond(n.count > 4, jnp.sin, jnp.cos, jr.normal(key, ()))
        return {"risk": by_size**2, "other": jax.lax.cond(scale > 1.0, jnp.sin, jnp.cos, jr.normal(key, ()))}

    spec = parse_spec({"study": "a:sides", "grid": {"seeds": 4, "n": [4, 8]}}, where="test")
    plan = shared_here(make_plan(spec, sides), {})
    assert all(group.shared.limits == (8,) for group in plan.groups)
    assert str(program.traced_group(sides, plan.groups[0], 2, 0).jaxpr).count("cond[") == 1
    found = ts.sweep(sides, seeds=4, n=[4, 8], scale=[0.5, 2.0]).records
    for row in found.itertuples():
        normal = jr.normal(program.key_of(0, row.seed, {}, ()), ())
        assert row.risk == pytest.approx(float((jnp.sin if row.n > 4 else jnp.cos)(normal)) ** 2)
        assert row.other == pytest.approx(float((jnp.sin if row.scale > 1 else jnp.cos)(normal)))


def test_cells_that_do_not_know_weights_are_not_padded():
    @ts.experiment(static=("kind",), sized=("n",), pads=lambda a: a["kind"] == "knows")
    def some(key, *, n: int, kind: str):
        return {"risk": 1.0 / n.count, "padded": n.is_padded}

    records = ts.sweep(some, seeds=2, n=[8, 16], kind=["knows", "ignores"]).records
    assert records.groupby("kind")["padded"].first().to_dict() == {"knows": True, "ignores": False}


def test_a_store_keeps_its_classes(tmp_path, monkeypatch):
    """Also when the sweep is extended, and where this machine would choose others."""
    first = ts.sweep(mean, seeds=4, n=[40, 64], out=tmp_path / "s")
    assert json.loads((tmp_path / "s/sweep.json").read_text())["plan"]["limits"] == [[64], [64]]
    monkeypatch.setattr(sharing, "size_classes", lambda members, *_: [None] * len(members))
    more = ts.sweep(mean, seeds=6, n=[40, 48, 64, 300], out=tmp_path / "s")
    assert more.plan is not None and [how.limits for how in more.plan.shared] == [(64,), (64,), (64,), None]
    limits = more.records.groupby("n")["limit"].first()
    assert limits.to_dict() == {40: 64, 48: 64, 64: 64, 300: 300}
    old = first.records.merge(more.records, on=["n", "seed"], suffixes=("", "_new"))
    assert len(old) == 8 and (old["risk"] == old["risk_new"]).all()


def test_plans_with_classes_are_written_and_read():
    plan = shared_here(_plan(n=[40, 64, 300]), {})
    again = plan_of(json.loads(json.dumps(plan_content(plan))), mean.description)
    assert again.shared == plan.shared and [g.shared for g in again.groups] == [g.shared for g in plan.groups]
    content = {**plan_content(plan), "limits": [[64]]}
    with pytest.raises(ValueError, match="limits of 1 groups, where there are 3"):
        plan_of(content, mean.description)
    # Of before there were classes.
    old = {key: value for key, value in plan_content(plan).items() if key != "limits"}
    assert plan_of(old, mean.description).shared == ()


def test_a_function_that_needs_the_value_of_a_size_says_so():
    @ts.experiment(sized=("n",))
    def shaped(key, *, n: int):
        return {"risk": jnp.mean(jr.normal(key, (int(n.count),))) ** 2}

    with pytest.raises(Exception, match="argument 'n' is traced, and the function needs its value"):
        ts.sweep(shaped, seeds=2, n=[8, 16])


@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_what_is_no_size(value):
    @ts.experiment(sized=("n",))
    def any_n(key, *, n: float):
        return {"risk": 1.0}

    message = "n = True is a truth value" if value is True else "is a sample size, so it must be a whole number >= 1"
    with pytest.raises(ValueError, match=message):
        ts.sweep(any_n, seeds=2, n=value)


def test_names_of_sizes():
    with pytest.raises(ValueError, match="'n' is in both static and sized"):
        ts.experiment(lambda key, n: {}, name="a", static=("n",), sized=("n",), arguments=mean.arguments)
    with pytest.raises(ValueError, match="sized names 'k', which is not one of its arguments"):
        ts.experiment(lambda key, n: {}, name="a", sized=("k",), arguments=mean.arguments)


def test_sizes():
    assert size_of(5).weights() is None and not size_of(5).is_padded
    assert size_of(Size(7, 3)) == Size(7, 3)
    padded = Size(4, jnp.asarray(4))
    weights = padded.weights(jnp.float32)
    assert padded.is_padded and weights is not None and weights.tolist() == [1.0] * 4
    for limit, count in ((4, 5), (4, 0)):
        with pytest.raises(ValueError, match="needs at least one point"):
            Size(limit, count)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("inputs", [ts.Sphere(4), ts.Gaussian(4), ts.Cube(4)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
def test_a_padded_sample_begins_with_the_sample(key, inputs, noise, dtype):
    problem = ts.Problem(inputs, ts.ReLUTeacher(3), noise=noise)
    teacher = problem.sample_teacher(key, dtype)
    short = problem.sample(key, teacher, 13, dtype)
    long = jax.jit(lambda count: problem.sample(key, teacher, Size(40, count), dtype))(13)
    assert long.x.shape == (40, 4) and long.weight is not None and long.weight.tolist() == [1.0] * 13 + [0.0] * 27
    assert (long.x.dtype, long.weight.dtype) == (jnp.dtype(dtype), jnp.dtype(dtype))
    eps = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(long.x[:13], short.x, rtol=eps, atol=eps)
    np.testing.assert_allclose(long.y[:13], short.y, rtol=eps, atol=eps)


@pytest.mark.slow
def test_padded_samples_of_mixtures_and_of_real_data(key):
    mixture = ts.GaussianMixture(means=jnp.eye(3)).draw(key)
    short, long = mixture.sample(key, 9), mixture.sample(key, Size(20, jnp.asarray(9)))
    np.testing.assert_array_equal(long.y[:9], short.y)
    np.testing.assert_allclose(long.x[:9], short.x, rtol=1e-12)
    rng = np.random.default_rng(SEED)
    rows = ts.DataProblem(rng.normal(size=(50, 3)), rng.normal(size=50))
    for draw in (lambda n: rows.split(key, n)[0], lambda n: rows.draw(key).sample(key, n)):
        short, long = draw(9), draw(Size(20, jnp.asarray(9)))
        np.testing.assert_array_equal(long.x[:9], short.x)
        np.testing.assert_array_equal(long.y[:9], short.y)
        assert long.weight is not None and int(long.weight.sum()) == 9
    with pytest.raises(ValueError, match=r"n must be in 1..38: of 50 rows 12 are held out; got n=39"):
        rows.split(key, Size(39, jnp.asarray(9)))


def _both(monkeypatch, study, n, **grid):
    """Records at the sizes n of a sweep in one program for each curve, and of the smaller ones in programs of their own."""
    largest = lambda members, *_: [tuple(map(max, zip(*(m.sizes for m in members), strict=True)))] * len(members)
    monkeypatch.setattr(sharing, "size_classes", largest)
    padded = ts.sweep(study, n=n, **grid).records
    monkeypatch.setattr(sharing, "size_classes", lambda members, *_: [None] * len(members))
    return padded, ts.sweep(study, n=n[:-1], **grid).records


_CELLS = {"d": 3, "m": 2, "noise_std": 0.1, "dtype": "float64", "test_points": 200}


@pytest.mark.slow
def test_linear_estimators_do_not_see_padding(monkeypatch):
    from tsjax.studies.superiority import ESTIMATORS

    names = [name for name in ESTIMATORS if "student" not in name]
    padded, own = _both(monkeypatch, ts.studies.superiority, n=[24, 40], seeds=4, estimator=names, **_CELLS)
    both = padded.merge(own, on=["estimator", "n", "seed"], suffixes=("", "_own"))
    assert len(both) == 4 * len(names) and (both["status"] == both["status_own"]).all()
    # What these make of roundoff is the subject of the next test.
    exact = ~both["estimator"].isin(["minimum_norm", "spectral_cutoff", "local_linear"])
    np.testing.assert_allclose(both["risk"][exact], both["risk_own"][exact], rtol=1e-9)


@pytest.mark.parametrize(
    "estimator", [ts.LocalLinear(), ts.MinimumNorm(ts.kernels.ntk()), ts.SpectralCutoff(ts.kernels.ntk())],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_padding_is_no_more_than_another_order_of_the_rows(estimator):
    """These divide by numbers that roundoff is a part of: a local regression on four points, a small eigenvalue. So the bar is
    what the order of the rows, which should change nothing, makes of each data set: at most three times the largest of five
    orders, or 1e-12."""
    problem = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), noise_std=0.1)
    x = problem.inputs.sample(jr.key(SEED), 200)
    predict = jax.jit(jax.vmap(lambda data: estimator.fit(jr.key(0), data).predict(x)))
    for seed in range(4):
        keys = jr.split(jr.key(SEED + seed))
        teacher = problem.sample_teacher(keys[0])
        data, padded = (problem.sample(keys[1], teacher, n) for n in (40, Size(64, jnp.asarray(40))))
        orders = jnp.stack([jnp.arange(40), *(jr.permutation(jr.key(i), 40) for i in range(5))])
        own = predict(ts.Dataset(x=data.x[orders], y=data.y[orders]))
        found = predict(jax.tree.map(lambda leaf: leaf[None], padded))
        scale = jnp.abs(own[0]).max()
        ordered, differs = jnp.abs(own[1:] - own[:1]).max() / scale, jnp.abs(found[0] - own[0]).max() / scale
        assert float(differs) <= max(3 * float(ordered), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "n"),
    [
        # Phase I sees 192 rows at most.
        ("student", [200, 256]),
        ("student", [100, 256]),
        ("sgd", [200, 256]),
    ],
    ids=["a part", "all rows", "sgd"],
)
def test_students_do_not_see_padding(monkeypatch, learner, n):
    """In float64, where roundoff has no time to grow."""
    settings = {"d": 3, "m": 1, "noise_std": 0.1, "dtype": "float64"}
    padded, own = _both(monkeypatch, ts.studies.recovery, n=n, seeds=4, learner=learner, **settings)
    both = padded.merge(own, on=["n", "seed"], suffixes=("", "_own"))
    assert len(both) == 4 and (both["total_steps"] == both["total_steps_own"]).all()
    np.testing.assert_allclose(both["risk"], both["risk_own"], rtol=1e-6)
    np.testing.assert_allclose(both["train_loss"], both["train_loss_own"], rtol=1e-6)
    np.testing.assert_allclose(both["cost"], both["cost_own"])


def test_shipped_sweeps_have_few_programs():
    """20, 53, 240 and 39 before sizes and kernels could share one; on GPUs, where padding costs less, fewer than on CPUs."""
    for name, on_cpu, on_gpu in (
        ("quickstart", 4, 4),
        ("superiority", 12, 9),
        ("all_linear", 60, 20),
        ("kernel_theory", 4, 3),
    ):
        spec = load_spec(ROOT / f"sweeps/{name}.toml")
        plan = plans.plan_cells(spec, find_experiment(spec.study))
        assert sharing.shared_plan(plan, "cpu", True, {}).programs <= on_cpu < len(plan.groups)
        assert sharing.shared_plan(plan, "gpu", True, {}).programs <= on_gpu


@pytest.mark.parametrize("order", [1, -1])
def test_a_resumed_sweep_has_the_program_that_it_began_with(tmp_path, monkeypatch, order):
    """Chunks of as many cells, so that records are the same to the bit; unless hardly anything is missing."""
    sizes, inner = [], programs.compile_group

    def compiled(experiment, group, key, size, budget):
        sizes.append(size)
        return inner(experiment, group, key, size, budget)

    monkeypatch.setattr(programs, "compile_group", compiled)
    grid = [{"n": 40, "seeds": 60}, {"n": 64, "seeds": 20}][::order]
    spec = parse_spec({"study": "a:mean", "grid": grid}, where="test")
    whole = run.run_spec(spec, out=tmp_path / "s", experiment=mean, commit_seconds=0.0).records
    # Where the smallest group fits into the largest three times.
    assert sizes == [20]
    for keep, expected in (
        (lambda n, seeds: n == 40, 20),
        (lambda n, seeds: n == 64, 20),
        (lambda n, seeds: seeds > 2, 3),
    ):
        folder = tmp_path / f"r{len(sizes)}"
        store = StoreWriter(folder)
        plan = shared_here(make_plan(spec, mean), {})
        store.open_for(spec, plan, TheoryTable([]), provenance(), manifest_of(spec, mean))
        part = whole[[bool(keep(n, seed)) for n, seed in zip(whole["n"], whole["seed"], strict=True)]]
        store.commit(part.drop(columns="curve", errors="ignore"))
        again = run.run_spec(spec, out=folder, experiment=mean).records
        assert sizes[-1] == expected
        both = whole.merge(again, on=["n", "seed"], suffixes=("", "_again"))
        assert len(both) == 80 and (both["risk"] == both["risk_again"]).all()


FREQUENCIES = {"sin": 1.0, "fast": 3.0, "slow": 0.5, "cubic": 0.0}


@ts.experiment(static=("kind",), sized=("n",), together=(("sin", "fast", "slow"),), curve="kind", version=1)
def waves(key, *, n: int, kind: str, scale: float = 1.0):
    """Waves whose frequency is data of the program, and a cubic that has one of its own."""
    x = scale * jr.normal(key, (n.limit,))
    weights = jnp.ones(n.limit) if n.weights() is None else n.weights()
    if isinstance(kind, ts.OneOf):
        frequency = jnp.asarray([FREQUENCIES[name] for name in kind.values])[kind.index]
        values, held = jnp.sin(frequency * x) ** 2, len(kind.values)
    else:
        values, held = x**6, 0
    return {"risk": jnp.sum(weights * values) / n.count, "held": held}


def _wave(kind, key, n, scale):
    """The same in NumPy."""
    x = scale * np.asarray(jr.normal(key, (n,)))
    return np.mean(x**6 if kind == "cubic" else np.sin(FREQUENCIES[kind] * x) ** 2)


def test_curves_of_a_family_share_programs():
    found = ts.sweep(waves, seeds=3, n=[40, 64], kind=list(FREQUENCIES), scale=[0.5, 1.0])
    assert found.plan is not None and found.plan.programs == 2
    for row in found.records.itertuples():
        key = program.key_of(0, row.seed, {}, ())
        assert row.risk == pytest.approx(_wave(row.kind, key, row.n, row.scale), rel=1e-12)
        assert row.held == (0 if row.kind == "cubic" else 3)
    # Alone in a sweep, a curve has a program without the code of others, and called directly it is one of one.
    assert ts.sweep(waves, seeds=2, n=[40, 64], kind="fast").records["held"].unique().tolist() == [1]
    assert waves(jr.key(0), n=5, kind="slow")["held"] == 1


def test_a_store_keeps_the_families_of_its_programs(tmp_path):
    """New curves of a family get a program of their own, so that the records of a resumed sweep do not change."""
    first = ts.sweep(waves, seeds=2, n=[40, 64], kind=["slow", "sin"], out=tmp_path / "s")
    stored = json.loads((tmp_path / "s/sweep.json").read_text())["plan"]
    assert stored["variants"] == {"values": [["sin", "slow"]]}
    more = ts.sweep(waves, seeds=3, n=[40, 50, 64], kind=["slow", "fast", "sin"], out=tmp_path / "s")
    held = more.records.groupby("kind")["held"].unique()
    assert {kind: list(one) for kind, one in held.items()} == {"slow": [2], "fast": [1], "sin": [2]}
    # The new size joins the class of its curve; the new curve has a class of its own.
    assert more.plan is not None and more.plan.programs == 2
    old = first.records.merge(more.records, on=["kind", "n", "seed"], suffixes=("", "_new"))
    assert len(old) == 8 and (old["risk"] == old["risk_new"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curve": "kind"}, "name that in curve= and in static="),
        ({"static": ("kind",)}, "name that in curve= and in static="),
        ({"curve": "kind", "static": ("kind",), "together": (("a", "b"), ("b", "c"))}, "together names 'b' twice"),
        ({"curve": "kind", "static": ("kind",), "together": (("a",),)}, "tuples of at least two values"),
    ],
)
def test_families_that_make_no_sense_are_refused(options, message):
    def some(key, *, kind: str, n: int = 1):
        return {"risk": 1.0}

    with pytest.raises(ValueError, match=message):
        ts.experiment(some, **{"together": (("a", "b"),), **options})


@pytest.mark.slow
def test_kernels_of_a_study_share_programs():
    """Their risks are those of programs of one kernel, up to the rounding of another program."""
    names = ("arccos0", "laplace", "polynomial")
    settings = {"seeds": 2, "n": [16, 24], "d": 3, "m": 1, "noise_std": 0.1}
    together = ts.sweep(ts.studies.superiority, estimator=list(names), **settings)
    assert together.plan is not None and together.plan.programs == 1
    alone = ts.sweep(ts.studies.superiority, estimator=names[SEED % 3], **settings).records
    both = together.records.merge(alone, on=["estimator", "n", "seed"], suffixes=("", "_alone"))
    assert len(both) == 4
    np.testing.assert_allclose(both["risk"], both["risk_alone"], rtol=1e-7)
    assert together.records.groupby("estimator")["risk"].mean().nunique() == 3
