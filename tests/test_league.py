"""The simulated comparisons must be the same curves for all, with recipes that find what is there, and counts that add up."""

import numpy as np
import pytest

from benchmarks import league, peeking
from benchmarks.coverage_curves import LONG, SHORT
from benchmarks.league_methods import METHODS, run


def _noisy(rng, curve, seeds=16, sd=1e-3):
    return curve[:, None] * np.exp(sd * rng.normal(size=(len(curve), seeds)))


@pytest.mark.parametrize(
    ("model", "n", "curve", "exponent", "right"),
    [
        ("power", SHORT, lambda n: 1 / n, 1.0, ["tsjax", "curve_fit", "log OLS", "log HC3", "chinchilla"]),
        ("floor", SHORT, lambda n: 1 / n + 1 / 256, 1.0, ["tsjax", "curve_fit", "chinchilla"]),
        ("broken", LONG, league.ROWS[9].mean, 1.0, ["tsjax", "curve_fit"]),
    ],
)
def test_recipes_find_what_is_there(rng, model, n, curve, exponent, right):
    """Where noise is small, the methods that have the planted curve find its exponent, and go on with it."""
    risks, ahead = _noisy(rng, curve(n)), 4 * n[-1]
    for name in right:
        found = run(name, n, risks, model, rng)
        assert found is not None and found.interval is not None, name
        low, high = found.interval
        assert (low + high) / 2 == pytest.approx(exponent, abs=0.01), name
        assert found.predict(ahead) == pytest.approx(curve(ahead), rel=0.02), name


def test_recipes_continue_what_they_can(rng):
    """Those whose exponent means something else, or has no interval: a curve with a floor, and a broken one."""
    broken = league.ROWS[9].mean
    found = run("BNSL", LONG, _noisy(rng, broken(LONG)), "broken", rng)
    assert found is not None and found.predict(4 * LONG[-1]) == pytest.approx(broken(4 * LONG[-1]), rel=0.02)
    curve = 1 / SHORT + 1 / 256
    for name in ("BNSL", "pow4", "mmf4"):
        found = run(name, SHORT, _noisy(rng, curve), "floor", rng)
        assert found is not None and (found.interval is None) == (name != "BNSL")
        assert found.predict(4 * SHORT[-1]) == pytest.approx(1 / SHORT[-1] / 4 + 1 / 256, rel=0.03), name


def test_planted_noise_is_one_law_at_all_n(rng):
    """All rows have the shape that they say, and, where there are seeds, the same mean factor at every n."""
    for planted in league.ROWS:
        assert planted.noise(rng, len(planted.n), planted.seeds).shape == (len(planted.n), planted.seeds), planted.what
        if planted.seeds > 1:
            factors = planted.noise(rng, len(planted.n), 20_000)
            error = factors.std(axis=1).max() / np.sqrt(20_000)
            assert np.ptp(factors.mean(axis=1)) < 8 * error, planted.what
        # The planted exponent is that of the curve's excess over its floor, far out.
        far = np.array([1e9, 2e9]) * planted.n[-1]
        excess = planted.mean(far) - planted.mean(1e30 * planted.n[-1])
        assert -np.diff(np.log(excess))[0] / np.log(2) == pytest.approx(planted.exponent, abs=0.02), planted.what


def _scores(shares, widths, curves=200):
    """Scores with these shares of hits, methods in their order, NaN for none."""
    hit = np.array([np.full(curves, np.nan) if np.isnan(s) else np.arange(curves) < s * curves for s in shares], float)
    width = np.array(widths)[:, None] * np.ones(curves)
    return league.Scores(hit, width, np.zeros_like(hit), np.zeros_like(hit))


def test_the_verdict_on_a_row():
    nan, rest = float("nan"), [0.5] * (len(METHODS) - 4)
    score = lambda *shares, widths: _scores([*shares, *rest, nan], [*widths, *[0.1] * len(rest), nan])
    assert league.verdict(score(0.95, 0.94, 0.8, widths=(1.1, 1.0, 0.5))) == ""
    assert league.verdict(score(0.95, 0.94, 0.8, widths=(1.3, 1.0, 0.5))) == "is 1.30 times as wide as curve_fit"
    lost = league.verdict(score(0.85, 0.95, 1.0, widths=(1.0, 1.0, 9.0)))
    assert lost == "covers 85.0 %; covering: curve_fit"


def test_what_falsely_holds_is_decided_by_the_first_look_outside():
    inside, above, below = (0.9, 1.1), (1.01, 1.2), (0.8, 0.99)
    # Four runs of three looks.
    runs = [(inside, inside, inside), (above, inside, inside), (inside, below, above), (inside, inside, above)]
    ends = np.array(runs).swapaxes(0, 1)
    assert peeking.missed(ends).tolist() == [False, True, True, True]
    assert [side.tolist() for side in peeking.false_holds(ends)] == [
        [False, True, False, True],
        [False, False, True, False],
    ]


def test_the_table_of_peeking(capsys):
    """Few runs of the schedule that doubles: the counts are those of a loop over looks, and the width is that of the plan."""
    looks = peeking.SCHEDULES["double"]
    ends = peeking.simulate("gamma, shape 20", looks, 400, 3, 12)
    assert ends.shape == (2, 5, 12, 2) and (ends[1, ..., 0] <= ends[0, ..., 0]).all() and np.isfinite(ends).all()
    line = [cell.strip() for cell in peeking.row("gamma, shape 20", "double", ends).split("|")[1:-1]]
    missed = sum(any(not low <= 1.0 <= high for low, high in ends[0, :, i]) for i in range(12))
    assert line[4].startswith(f"{100 * missed / 12:.1f} [") and float(line[-1]) == pytest.approx(1.03, abs=0.01)
    # As many columns as the heading has.
    peeking.main(["--curves", "2", "--draws", "400", "--processes", "1", "--law", "1", "--schedule", "double"])
    *_, heading, _, printed = capsys.readouterr().out.strip().splitlines()
    assert heading.count("|") == printed.count("|") == len(line) + 1


@pytest.mark.slow
def test_the_league_at_a_tiny_size(capsys):
    league.main(["--curves", "2", "--processes", "2"])
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("| ") and not line.startswith("| planted")]
    assert len(lines) == 3 * len(league.ROWS) and {line.count("|") for line in lines} == {len(METHODS) + 2}
    assert f"of {len(league.ROWS)} rows." in out
    # 2 % of noise on 20 points of one run: the forecast of tsjax is right to a few per cent.
    errors = [line.split("|")[2].strip() for line in lines[len(league.ROWS) : 2 * len(league.ROWS)]]
    assert float(errors[-1]) < 3.0 and all(error == "–" or float(error) >= 0 for error in errors)
