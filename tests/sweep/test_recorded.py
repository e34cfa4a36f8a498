"""Tables that other code has made: what is read is what the fits and intervals of the same numbers give by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers import SEED

import tsjax as ts
from tsjax.rates.means import share_difference
from tsjax.sweep.run import run_spec
from tsjax.sweep.store import StoreError

DATA = Path(__file__).parents[1] / "data"
N = np.array([64, 128, 256, 512])
# Caballero et al. 2022, arXiv:2210.14891, in the code that they release: test cross-entropy of 4-digit addition by examples.
ADDITION = {
    "examples": [160, 192, 256, 320, 384, 448, 480, 512, 544, 576, 608, 640, 672, 736, 800, 864, 928],
    "loss": [
        2.13809046, 2.11813418, 2.08955508, 2.06988398, 2.05404987, 2.03837089, 2.02814281, 2.00496872, 1.95576149,
        1.86313841, 1.70891537, 1.50637664, 1.29754721, 0.96559684, 0.75856477, 0.64768338, 0.55695445,
    ],
}  # fmt: skip


def _frame(seeds=8, rng=None):
    rng = np.random.default_rng(SEED) if rng is None else rng
    rows = [
        {"model": model, "n": int(n), "run": seed, "loss": scale * n**-rate * rng.gamma(20) / 20, "lr": 0.1}
        for model, scale, rate in (("net", 3.0, 0.5), ("knn", 2.0, 0.3))
        for n in N
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def _read(table, **options):
    return ts.from_table(table, **{"x": "n", "y": "loss", "seed": "run", "curve": "model"} | options)


def test_the_numbers_are_those_of_the_fits_by_hand():
    frame = _frame()
    result = _read(frame.sample(frac=1.0, random_state=SEED))
    for curve in result.curves():
        table = frame[frame["model"] == curve.name].pivot(index="n", columns="run", values="loss").to_numpy()
        np.testing.assert_array_equal(curve.values["loss"], table)
        assert result.rate(curve).exponent == ts.fit_rate(N, table).exponent
    net, knn = (frame[frame["model"] == m].query("n == 512")["loss"].to_numpy() for m in ("net", "knn"))
    ratio = result.estimate("loss of net relative to knn at n = 512")
    assert ratio == ts.mean_ratio(net, knn)


@pytest.mark.parametrize(
    "make",
    [
        lambda frame, folder: frame,
        lambda frame, folder: frame.to_dict("list"),
        lambda frame, folder: frame.to_dict("records"),
        lambda frame, folder: pa.table(frame),
        lambda frame, folder: _written(frame.to_csv, folder / "t.csv", index=False),
        lambda frame, folder: _written(frame.to_csv, folder / "t.tsv.gz", index=False, sep="\t"),
        lambda frame, folder: _written(frame.to_parquet, folder / "t.parquet"),
        lambda frame, folder: _written(frame.to_json, folder / "t.jsonl", orient="records", lines=True),
    ],
    ids=["pandas", "dict", "rows", "arrow", "csv", "tsv", "parquet", "jsonl"],
)
def test_every_kind_of_table(make, tmp_path):
    frame = _frame(seeds=2)
    found = _read(make(frame, tmp_path)).records
    # The arguments, whose values are whole numbers and words, are what they were; a text has 15 digits or more.
    merged = found.merge(frame.rename(columns={"run": "seed"}), on=["model", "n", "seed"], suffixes=("", "_own"))
    assert len(merged) == len(frame) and found["n"].dtype == np.int64
    np.testing.assert_allclose(merged["loss"], merged["loss_own"], rtol=1e-9)


def _written(write, path, **options):
    write(path, **options)
    return path


def test_a_folder_of_logs(tmp_path):
    for seed, run in enumerate(("a", "b/c")):
        path = tmp_path / f"{run}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps({"step": step, "loss": (1 + seed) / step}) for step in (1, 2, 4)]
        path.write_text("\n".join(lines))
    result = ts.from_table(tmp_path, x="step", y="loss", seed="file")
    (curve,) = result.curves()
    np.testing.assert_allclose(curve.values["loss"], np.outer(1 / curve.x, [1, 2]))
    assert curve.name == "runs"


def test_rows_without_a_seed_are_independent_runs():
    """Sorted by its results, a table gives the same distribution of intervals as in any other order: pairs are at random."""
    frame = _frame(seeds=12)
    sorted_ = frame.sort_values("loss")
    result = _read(sorted_, seed=None)
    assert result.seeds == 12 and not result.records.duplicated(["model", "n", "seed"]).any()
    ranks = result.records.assign(rank=result.records.groupby(["model", "n"])["loss"].rank())
    net, knn = (ranks.query(f"model == '{m}' and n == 64").set_index("seed")["rank"] for m in ("net", "knn"))
    # By the order of the table it would be 1.
    assert abs(np.corrcoef(net, knn.loc[net.index])[0, 1]) < 0.8
    pd.testing.assert_frame_equal(result.records, _read(sorted_, seed=None).records)


@pytest.mark.slow
def test_one_run_for_each_point_and_names_with_spaces():
    frame = pd.DataFrame(ADDITION).rename(columns={"examples": "Training examples", "loss": "test loss"})
    result = ts.from_table(frame, x="Training examples", y="test loss")
    (curve,) = result.curves()
    assert result.experiment.labels == {"Training_examples": "Training examples", "test_loss": "test loss"}
    # No power law: a knee at some 600 examples. The best model by AICc has a break, and the fit says that a power is wrong.
    rate = result.rate(curve, model="auto")
    assert rate.errors == "residuals" and rate.model.name in ("bnsl", "broken", "bnsl2")
    assert any("power law" in warning for warning in result.warnings(curve))


def test_240_models_in_two_axes():
    result = ts.from_table(DATA / "chinchilla_240.csv", x="parameters", y="loss", by=["tokens"])
    surface = result.surface("parameters", "tokens", draws=100)
    # Besiroglu et al. 2024, arXiv:2404.10102, fitted by squared differences of logarithms: tests/rates/test_surface.py.
    n, d, loss = np.loadtxt(DATA / "chinchilla_240.csv", delimiter=",", skiprows=1).T
    own = ts.fit_surface(n, d, loss, draws=100)
    for name, estimate in surface.parameters.items():
        assert estimate.value == pytest.approx(own.parameters[name].value, rel=1e-6)
    assert surface.parameters["E"].value == pytest.approx(1.86455, rel=2e-5)


@pytest.mark.usefixtures("blank_figures")
def test_learning_curves_of_a_public_database(tmp_path):
    """LCDB (Mohr et al. 2022), set 44 of OpenML: error on 461 test points of three learners, five splits by five."""
    claims = [
        {"what": "rate of ExtraTreesClassifier in size_train", "at_least": 0.15},
        {"what": "error of ExtraTreesClassifier minus KNeighborsClassifier at size_train = 2048", "at_most": -0.1},
        {"what": "monotone of error of KNeighborsClassifier in size_train", "at_most": 1.0},
    ]
    how = {"x": "size_train", "y": "error", "seed": ["outer_seed", "inner_seed"], "curve": "learner"}
    kinds = {"error": ts.Share(trials="size_test")}
    result = ts.from_table(DATA / "lcdb_44.csv", **how, metrics=kinds, expect=claims, out=tmp_path)
    assert result.seeds == 25 and len(result.records) == 450
    assert [verdict.outcome for verdict in result.verdicts()] == ["holds", "holds", "holds"]
    # As the share of all test points: by the table.
    frame = pd.read_csv(DATA / "lcdb_44.csv").query("learner == 'SVC_linear' and size_train == 64")
    counts = (frame["error"] * 461).round()
    assert (counts / 461 - frame["error"]).abs().max() < 5.001e-5
    found = result.estimate("error of SVC_linear at size_train = 64")
    assert found == ts.Share(trials=461).mean(counts.to_numpy() / 461)
    again = ts.load(tmp_path)
    assert again.verdicts() == result.verdicts()
    page = again.report().read_text()
    assert "--seed outer_seed --seed inner_seed" in page and "--share error=size_test" in page


def test_missing_values_are_failed_runs():
    frame = _frame()
    frame.loc[frame["run"] == 3, "loss"] = np.nan
    result = _read(frame)
    assert all(curve.failed == len(N) for curve in result.curves())
    assert result.records.query("seed == 3")["status"].eq(ts.Status.FAILED).all()
    assert result.estimate("loss of net at n = 64").value == pytest.approx(
        frame.query("model == 'net' and n == 64")["loss"].mean()
    )


def test_a_store_is_made_anew_and_no_other_is_touched(tmp_path):
    frame = _frame()
    claims = [{"what": "rate of net in n", "at_least": 0.3}]
    _read(frame, out=tmp_path / "s", expect=claims).look()
    doubled = frame.assign(loss=2 * frame["loss"])
    longer = _read(pd.concat([doubled, doubled.assign(run=frame["run"] + 8)]), out=tmp_path / "s", expect=claims)
    assert longer.seeds == 16 and ts.load(tmp_path / "s").seeds == 16
    np.testing.assert_allclose(longer.records.query("seed < 8")["loss"].sum(), 2 * frame["loss"].sum())
    # Who looks, adds runs and looks again has looked twice.
    assert "looked at before, at 8 seeds" in longer.verdicts()[0].reason
    from sweep.toys import power, power_spec

    run_spec(power_spec(), experiment=power, out=tmp_path / "other")
    before = sorted((tmp_path / "other" / "chunks").iterdir())
    with pytest.raises(StoreError, match="not of a table: choose another out"):
        _read(frame, out=tmp_path / "other")
    assert sorted((tmp_path / "other" / "chunks").iterdir()) == before


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"y": "los"}, "no column 'los'. Did you mean 'loss'"),
        (
            {},
            {"x": "model", "curve": None},
            "column 'model' has 64 value.s. that are not numbers, the first 'net' in row 1",
        ),
        (
            {},
            {"seed": "lr"},
            r"8 rows of model = net, n = 64, lr = 0.1. They differ in run: name it in seed, curve or by",
        ),
        ({}, {"by": ["model"]}, "'model' is named twice"),
        ({"n": np.nan}, {}, "'n', which is x, has values that are not finite"),
        ({"run": None}, {}, r"column 'run' distinguishes runs, so it must have no gaps; it has 64"),
        ({"model": ["a b", "a-b"] * 32}, {"seed": None}, None),
        ({"model": ["a b", "a/b"] * 32}, {"seed": None}, "'a b' and 'a/b' would both be called 'a_b'; rename one"),
        ({}, {"y": []}, "y is empty"),
        ({"n": [True, False] * 32}, {"seed": None}, "'n', which is x, holds truth values"),
        ({}, {"labels": {"net": "knn"}}, "would both be called 'knn'"),
        ({}, {"expect": [{"what": "rate of nett in n", "at_least": 0.1}]}, "Did you mean 'net'"),
        ({}, {"expect": [{"what": "acc of net at n = 64", "at_least": 0.1}]}, "no value 'acc' was read from the table"),
    ],
)
def test_bad_tables(change, options, message):
    frame = _frame().assign(**change)
    if message is None:
        assert len(_read(frame, **options).curves()) == 2
        return
    with pytest.raises(ValueError, match=message):
        _read(frame, **options)


def test_names_of_the_engine_and_objects_are_no_trouble():
    """A column called as the engine's own, and whole numbers that pandas holds as objects."""
    frame = _frame(seeds=2).assign(n=lambda frame: frame["n"].astype(object)).rename(columns={"model": "seed"})
    result = _read(frame, curve="seed")
    assert [curve.name for curve in result.curves()] == ["net", "knn"] and result.seeds == 2
    frame = frame.rename(columns={"loss": "status", "n": "cell"})
    found = ts.from_table(frame, x="cell", y="status", seed="run", curve="seed").curves()[0]
    np.testing.assert_array_equal(found.values["status_"], result.curves()[0].values["loss"])
    with pytest.raises(ValueError, match="several columns 'loss'"):
        _read(pd.concat([_frame(), _frame()[["loss"]]], axis=1))


def test_nothing_is_lost_where_a_table_does_not_fit_its_store(tmp_path):
    frame = _frame()
    _read(frame, out=tmp_path)
    with pytest.raises(StoreError, match="holds another sweep"):
        _read(frame, by=["lr"], out=tmp_path)
    assert len(ts.load(tmp_path).records) == len(frame) and ts.load(tmp_path).coverage.whole


def test_labels_and_names_of_every_kind():
    """An index with a name is a column; pydantic's own names, and empty words, are words; labels are for what the table has."""
    frame = _frame(seeds=2).replace({"net": ""}).assign(model_config=0.5).set_index("n")
    result = _read(frame, by=["model_config"], labels={"(empty)": "nothing", "knn": "neighbours"})
    assert [curve.label for curve in result.curves()] == ["nothing", "neighbours"]
    with pytest.raises(ValueError, match="'a b' and 'a/b' would both be called 'a_b'"):
        _read(_frame().assign(model="a b", set="a/b"), by=["set"], seed=None)
    failed = _frame()
    failed.loc[0, "loss"] = -np.inf
    assert _read(failed).kind("loss") == ts.Positive()
    with pytest.raises(ValueError, match="'lr' has 64 value"):
        _read(_frame().assign(lr="x"), metrics={"loss": ts.Share(trials="lr")}, by=["lr"])


def test_no_table():
    with pytest.raises(ValueError, match="an object of type int is not a table: give a DataFrame"):
        _read(3)
    with pytest.raises(ValueError, match="the table has no rows"):
        _read(_frame().iloc[:0])
    with pytest.raises(FileNotFoundError):
        _read("nowhere.csv")
    with pytest.raises(ValueError, match=r"notes\.txt: a file with a table ends in \.csv"):
        _read("notes.txt")
    with pytest.raises(ValueError, match="there is nothing to run"):
        run_spec(_read(_frame()).spec)


def test_differences_of_shares_of_other_numbers_of_trials():
    """Of a column beside another one, and of a curve beside another one: each has the interval of its own trials."""
    rng = np.random.default_rng(SEED)
    rows = [
        {
            "n": 8,
            "seed": s,
            "net": net,
            "middle": rng.binomial(90, 0.7) / 90,
            "ends": rng.binomial(180, 0.6) / 180,
            "tests": t,
        }
        for s in range(6)
        for net, t in (("a", 50), ("b", 200))
    ]
    frame = pd.DataFrame(rows)
    frame["error"] = [rng.binomial(count, 0.2) / count for count in frame["tests"]]
    kinds = {"middle": ts.Share(trials=90), "ends": ts.Share(trials=180), "error": ts.Share(trials="tests")}
    result = ts.from_table(frame, x="n", y=list(kinds), seed="seed", curve="net", metrics=kinds)
    of = lambda name, net: frame[frame["net"] == net][name].to_numpy()
    middle, ends = of("middle", "a"), of("ends", "a")
    found = result.estimate("middle of a minus ends at n = 8")
    by = lambda kind: lambda values: kind.mean(values)
    assert found == share_difference(middle, ends, by(kinds["middle"]), by(kinds["ends"]))
    assert found != share_difference(middle, ends, by(kinds["ends"]), by(kinds["ends"]))
    rivals = result.estimate("error of a minus b at n = 8")
    assert rivals == share_difference(
        of("error", "a"), of("error", "b"), by(ts.Share(trials=50)), by(ts.Share(trials=200))
    )
