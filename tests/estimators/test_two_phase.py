import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import scipy.special
from helpers import SEED
from jax.extend.random import threefry_2x32

import tsjax as ts
from tsjax import theory
from tsjax.estimators.phases import step_scale
from tsjax.risk import network_risk

PROBLEM = ts.Problem(ts.Sphere(3), ts.ReLUTeacher(2), 0.1)
TEACHER = ts.TwoLayer(a=jnp.array([1.0, -1.0]), w=jnp.eye(2, 3))
N, STEPS_ONE, STEPS_TWO = 24, 15, 10

# Few steps: rounding has no time to grow, so that any reference must agree to many digits.
SHORT = ts.TwoPhaseStudent(
    width=2,
    restarts=3,
    agreement=None,
    noisy=ts.NoisyPhase(width=2, steps=STEPS_ONE, step_size=1.1, temperature=0.01, regularisation=0.02),
    vanilla=ts.VanillaPhase(max_steps=STEPS_TWO, step_size=0.7),
    init_output_std=0.5,
    init_neuron_std=0.4,
)


@pytest.fixture(scope="module")
def data():
    return PROBLEM.sample(jr.key(SEED + 1), TEACHER, N)


# Algorithm 1 again, in NumPy, its gradients by hand and one sample at a time.


def _numpy_loss(a, w, x, y):
    return 0.5 * np.mean([(a @ np.maximum(w @ xi, 0.0) - yi) ** 2 for xi, yi in zip(x, y, strict=True)])


def _numpy_gradient(a, w, x, y):
    grad_a, grad_w = np.zeros_like(a), np.zeros_like(w)
    for xi, yi in zip(x, y, strict=True):
        residual = a @ np.maximum(w @ xi, 0.0) - yi
        for j in range(len(a)):
            z = w[j] @ xi
            grad_a[j] += residual * max(z, 0.0) / len(y)
            grad_w[j] += residual * a[j] * (z > 0.0) * xi / len(y)
    return grad_a, grad_w


def _numpy_switch(a, w):
    return np.where(a < 0, -1.0, 1.0), np.abs(a)[:, None] * w


def _numpy_descent(a, w, x, y, step_size, steps):
    nets = [(a, w)]
    for _ in range(steps):
        w = w - step_size * _numpy_gradient(a, w, x, y)[1]
        nets.append((a, w))
    return nets


def _numpy_normals(key, step, size):
    """The noise of a step in NumPy, by JAX's own Threefry and SciPy's inverse error function."""
    seed = jr.bits(key, (2,), np.uint32)
    counters = np.concatenate([np.full(size, step), np.arange(size)]).astype(np.uint32)
    high, low = np.asarray(threefry_2x32(seed, jnp.asarray(counters))).astype(np.uint64).reshape(2, size)
    part = ((high << np.uint64(32)) | low).view(np.int64) >> 11
    return 2**0.5 * scipy.special.erfinv((part + 0.5) * 2.0**-52)


def _numpy_noisy_descent(student, key, x, y):
    """The networks after each step of phase I and after the switch, in NumPy."""
    phase, (m, d) = student.noisy, (student.width, x.shape[1])
    key_a, key_w, key_noise = jr.split(key, 3)
    a = student.init_output_std * np.asarray(jr.normal(key_a, (m,)))
    w = student.init_neuron_std * np.asarray(jr.normal(key_w, (m, d)))
    clip = lambda r: r if student.clip is None else student.clip * np.tanh(r * abs(r) / (2 * student.clip))
    slope = lambda r: (
        np.ones_like(r) if student.clip is None else abs(r) / np.cosh(r * abs(r) / (2 * student.clip)) ** 2
    )
    nets = [_numpy_switch(clip(a), clip(w))]
    for t in range(phase.steps):
        grad_a, grad_w = _numpy_gradient(clip(a), clip(w), x, y)
        xi = _numpy_normals(key_noise, t, m + m * d)
        noise = np.sqrt(2 * phase.step_size * phase.temperature) * xi
        a_next = a - phase.step_size * (grad_a * slope(a) + 2 * phase.regularisation * a) + noise[:m]
        w = w - phase.step_size * (grad_w * slope(w) + 2 * phase.regularisation * w) + noise[m:].reshape(m, d)
        a = a_next
        nets.append(_numpy_switch(clip(a), clip(w)))
    return nets


def _numpy_two_phases(student, key, data):
    x, y = np.asarray(data.x), np.asarray(data.y)
    runs = []
    for i in range(student.restarts):
        one = _numpy_noisy_descent(student, jr.fold_in(key, i), x, y)
        runs.append((one, _numpy_descent(*one[-1], x, y, student.vanilla.step_size, student.vanilla.max_steps)))
    return runs, [_numpy_loss(*two[-1], x, y) for _, two in runs]


@pytest.mark.parametrize("clip", [None, 1.5])
def test_both_phases_equal_algorithm_1_in_numpy(data, key, clip):
    student = dataclasses.replace(SHORT, clip=clip)
    # Temperature 0 is gradient descent with the penalty; the other one adds the noise. One compiled program.
    for temperature in (0.0, 0.01):
        student = dataclasses.replace(student, noisy=dataclasses.replace(student.noisy, temperature=temperature))
        fit = student.fit(key, data)
        runs, losses = _numpy_two_phases(student, key, data)
        best = int(np.argmin(losses))
        np.testing.assert_allclose(fit.stats["restart_losses"], losses, rtol=1e-9)
        assert int(fit.stats["restart"]) == best
        np.testing.assert_allclose(fit.stats["train_loss"], losses[best], rtol=1e-9)
        np.testing.assert_allclose(fit.net.a, runs[best][1][-1][0], rtol=0, atol=0)
        np.testing.assert_allclose(fit.net.w, runs[best][1][-1][1], rtol=1e-9, atol=1e-11)
        assert fit.stats["steps"].tolist() == [STEPS_ONE, 0, STEPS_TWO] and fit.status == ts.Status.STEP_LIMIT


def test_vanilla_phase_equals_a_numpy_loop(data, key):
    start = ts.TwoLayer(a=jnp.array([2.0, -0.5, 0.0]), w=jr.normal(key, (3, 3)))
    student = ts.OracleStudent(ts.VanillaPhase(max_steps=20, step_size=0.9))
    fit = student.fit(key, data, oracle=(PROBLEM, start))
    a, w = _numpy_switch(np.asarray(start.a), np.asarray(start.w))
    x, y = np.asarray(data.x), np.asarray(data.y)
    a, w = _numpy_descent(a, w, x, y, 0.9, 20)[-1]
    assert fit.net.a.tolist() == [1.0, -1.0, 1.0] == a.tolist()
    np.testing.assert_allclose(fit.net.w, w, rtol=1e-10)
    np.testing.assert_allclose(fit.stats["train_loss"], _numpy_loss(a, w, x, y), rtol=1e-10)
    assert fit.stats["steps"].tolist() == [0, 0, 20] and fit.status == ts.Status.STEP_LIMIT


def test_trajectory(data, key):
    student = dataclasses.replace(SHORT, restarts=2)
    steps = ((0, 5, STEPS_ONE), (0, 3, STEPS_TWO))
    probe = lambda net: {"risk": network_risk(net, TEACHER, PROBLEM.inputs), "norm": jnp.sum(net.w**2)}
    fit = student.fit(key, data, probe=probe, probe_steps=steps)
    trajectory = fit.stats["trajectory"]
    assert set(trajectory) == {"risk", "norm", "train_loss", "step"} and trajectory["risk"].shape == (6,)
    assert trajectory["step"].tolist() == [*steps[0], *steps[1]]
    runs, losses = _numpy_two_phases(student, key, data)
    one, two = runs[int(np.argmin(losses))]
    nets = [one[t] for t in steps[0]] + [two[t] for t in steps[1]]
    x, y = np.asarray(data.x), np.asarray(data.y)
    np.testing.assert_allclose(trajectory["train_loss"], [_numpy_loss(a, w, x, y) for a, w in nets], rtol=1e-9)
    np.testing.assert_allclose(trajectory["norm"], [np.sum(w**2) for _, w in nets], rtol=1e-9)
    # Phase I ends where phase II begins, and the last value is that of the fit.
    np.testing.assert_allclose(trajectory["risk"][2], trajectory["risk"][3], rtol=1e-12)
    np.testing.assert_allclose(trajectory["risk"][-1], network_risk(fit.net, TEACHER, PROBLEM.inputs), rtol=1e-12)
    np.testing.assert_allclose(trajectory["train_loss"][-1], fit.stats["train_loss"], rtol=1e-12)
    # The same run as without a probe.
    np.testing.assert_allclose(fit.stats["restart_losses"], losses, rtol=1e-9)


@pytest.mark.slow
def test_log_spaced_trajectory(data, key):
    """The fit equals that without a probe, and the points of the trajectory equal those of a run probed at the same steps."""
    student = dataclasses.replace(SHORT, restarts=1, vanilla=ts.VanillaPhase(max_steps=900, step_size=0.7))
    probe = lambda net: {"norm": jnp.sum(net.w**2)}
    plain, fit = student.fit(key, data), student.fit(key, data, probe=probe, probe_steps=5)
    np.testing.assert_allclose(fit.net.w, plain.net.w, rtol=1e-9)
    assert fit.stats["steps"].tolist() == plain.stats["steps"].tolist()
    done = int(plain.stats["steps"][2])
    assert 100 <= done < 900, "the end of phase II lies between the marks"
    steps = fit.stats["trajectory"]["step"].tolist()
    # 15 steps in phase I: 1, 2, 4, 8, 15; 900 in phase II: 1, 5, 30, then whole segments, up to the end of the phase.
    assert steps[:6] == [0, 1, 2, 4, 8, 15] and steps[6:] == [0, 1, 5, 30, 50, min(200, done), done]
    by_hand = student.fit(key, data, probe=probe, probe_steps=(tuple(steps[:6]), (0, 1, 5, 30, done)))
    for name in ("norm", "train_loss"):
        values = fit.stats["trajectory"][name]
        np.testing.assert_allclose(values[:10], by_hand.stats["trajectory"][name][:10], rtol=1e-9)
        np.testing.assert_allclose(values[-1], by_hand.stats["trajectory"][name][-1], rtol=1e-9)


def test_probing_beyond_the_limits_extends_the_phases(data, key):
    student = dataclasses.replace(SHORT, restarts=1, noisy=dataclasses.replace(SHORT.noisy, steps=2))
    fit = student.fit(key, data, probe=lambda net: {}, probe_steps=((4,), (400,)))
    # Long after the loss is flat, phase II still goes to its last probed step.
    assert fit.stats["steps"].tolist() == [4, 0, 400] and fit.stats["trajectory"]["train_loss"].shape == (2,)
    longer = dataclasses.replace(SHORT, restarts=1, noisy=dataclasses.replace(SHORT.noisy, steps=4))
    x, y = np.asarray(data.x), np.asarray(data.y)
    at_four = _numpy_noisy_descent(longer, jr.fold_in(key, 0), x, y)[-1]
    np.testing.assert_allclose(fit.stats["trajectory"]["train_loss"][0], _numpy_loss(*at_four, x, y), rtol=1e-9)


def test_any_optax_optimizer_in_both_phases(data, key):
    adam = optax.adam(0.03)
    student = ts.TwoPhaseStudent(
        width=2,
        restarts=1,
        noisy=ts.NoisyPhase(width=2, steps=6, temperature=0.0, regularisation=0.01, optimizer=adam),
        vanilla=ts.VanillaPhase(max_steps=6, optimizer=optax.adam(0.02)),
        init_neuron_std=0.6,
    )
    fit = student.fit(key, data)
    # A loop over optax's own steps.
    key_a, key_w, _ = jr.split(jr.fold_in(key, 0), 3)
    params = (0.1 * jr.normal(key_a, (2,)), 0.6 * jr.normal(key_w, (2, 3)))
    state, x, y = adam.init(params), np.asarray(data.x), np.asarray(data.y)
    for _ in range(6):
        gradient = _numpy_gradient(*(np.asarray(p) for p in params), x, y)
        updates, state = adam.update(
            jax.tree.map(lambda g, p: jnp.asarray(g) + 0.02 * p, gradient, params), state, params
        )
        params = optax.apply_updates(params, updates)
    a, w = _numpy_switch(*(np.asarray(p) for p in params))
    optimizer = optax.adam(0.02)
    state = optimizer.init(jnp.asarray(w))
    for _ in range(6):
        updates, state = optimizer.update(jnp.asarray(_numpy_gradient(a, w, x, y)[1]), state)
        w = w + np.asarray(updates)
    np.testing.assert_allclose(fit.net.w, w, rtol=1e-7)
    assert fit.net.a.tolist() == a.tolist()


@pytest.fixture(scope="module")
def recovery():
    """Fits with default settings to 8 data sets of 8 teachers."""
    problem = ts.Problem(ts.Sphere(4), ts.ReLUTeacher(2), 0.1)
    keys = jr.split(jr.key(SEED + 2), 8)
    teachers = jax.vmap(problem.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: problem.sample(jr.fold_in(k, 1), t, 256))(keys, teachers)
    fits = jax.jit(jax.vmap(ts.TwoPhaseStudent(width=2).fit))(keys, datasets)
    return problem, teachers, datasets, fits


def test_defaults_recover_teachers(recovery):
    problem, teachers, datasets, fits = recovery
    risks = np.asarray(jax.vmap(lambda net, teacher: network_risk(net, teacher, problem.inputs))(fits.net, teachers))
    limit = float(theory.cramer_rao(2, 4, 256, 0.1))
    assert (risks < 3 * limit).all() and 0.4 < risks.mean() / limit < 1.8, risks / limit
    assert (fits.status == ts.Status.CONVERGED).all()
    losses = np.asarray(fits.stats["restart_losses"])
    assert losses.shape == (8, 8)
    # Two restarts agree in most data sets, and restarts that were not run have an infinite loss.
    run = np.asarray(fits.stats["restarts_run"])
    assert np.isin(run, [2, 4, 6, 8]).all() and (run == 2).mean() > 0.5
    np.testing.assert_array_equal(np.isfinite(losses).sum(axis=1), run)
    np.testing.assert_array_equal(fits.stats["restart"], losses.argmin(axis=1))
    np.testing.assert_array_equal(fits.stats["train_loss"], losses.min(axis=1))
    # train_loss is the half mean squared error of the predictions; noise of variance 0.01 remains.
    predictions = jax.vmap(lambda fit, x: fit.predict(x))(fits, datasets.x)
    np.testing.assert_allclose(losses.min(axis=1), 0.5 * np.mean((predictions - datasets.y) ** 2, axis=1), rtol=1e-9)
    assert np.all(np.abs(losses.min(axis=1) / 0.005 - 1) < 0.5)
    # Phase I 300 m steps with 2 m neurons, 25 for each of the m pruned; phase II stops at a multiple of 50.
    steps = np.asarray(fits.stats["steps"])
    assert (steps[:, :2] == [600, 50]).all() and (steps[:, 2] % 50 == 0).all() and (steps[:, 2] < 6000).all()
    least = 256 * 2 * (650 * 4 + 50 * 2)
    assert (np.asarray(fits.stats["neuron_steps"]) >= least).all() and fits.net.a.shape == (8, 2)


@pytest.mark.slow
def test_oracle_student_is_efficient(recovery, key):
    problem = recovery[0]
    keys = jr.split(key, 32)
    teachers = jax.vmap(problem.sample_teacher)(keys)
    datasets = jax.vmap(lambda k, t: problem.sample(jr.fold_in(k, 1), t, 256))(keys, teachers)
    fit = lambda k, data, teacher: ts.OracleStudent().fit(k, data, oracle=(problem, teacher))
    oracle = jax.jit(jax.vmap(fit))(keys, datasets, teachers)
    risks = np.asarray(jax.vmap(lambda net, teacher: network_risk(net, teacher, problem.inputs))(oracle.net, teachers))
    ratio = risks / float(theory.cramer_rao(2, 4, 256, 0.1))
    # (m d sigma^2 / n) chi^2_{md} / (md): standard deviation 1/2 of a ratio, and a correction of the order md/n.
    error = ratio.std(ddof=1) / 32**0.5
    assert abs(ratio.mean() - 1.0) < 4 * error + 0.1 and 0.25 < ratio.std() < 0.9
    assert (oracle.status == ts.Status.CONVERGED).all()


def test_a_diverged_neighbour_changes_nothing(data, key):
    fit = lambda step_size: ts.OracleStudent(ts.VanillaPhase(max_steps=1000, step_size=step_size)).fit(
        key, data, oracle=(PROBLEM, TEACHER)
    )
    sizes = jnp.array([1.5, 1e6, 0.4])
    batch = jax.jit(jax.vmap(fit))(sizes)
    assert batch.status.tolist() == [ts.Status.CONVERGED, ts.Status.DIVERGED, ts.Status.CONVERGED]
    for i in (0, 2):
        alone = fit(sizes[i])
        np.testing.assert_allclose(batch.net.w[i], alone.net.w, rtol=1e-9)
        assert int(batch.stats["steps"][i, 2]) == int(alone.stats["steps"][2]) < 1000
    assert fit(sizes[1]).status == ts.Status.DIVERGED


def test_step_limit_is_not_convergence(data, key):
    # Far from a minimum and steadily falling, by steps so small that the rest of a segment, 1 or 2 steps, looks flat.
    start = ts.TwoLayer(a=jnp.ones(2), w=2.0 * jnp.eye(2, 3))
    for limit in (50, 51, 102):
        fit = ts.OracleStudent(ts.VanillaPhase(max_steps=limit, step_size=2e-4)).fit(key, data, oracle=(PROBLEM, start))
        assert fit.status == ts.Status.STEP_LIMIT and fit.stats["steps"].tolist() == [0, 0, limit], limit


def test_a_diverged_restart_is_never_chosen(data, key):
    # Some starts explode at this step size, others do not.
    wild = dataclasses.replace(SHORT, noisy=dataclasses.replace(SHORT.noisy, step_size=6.0), init_neuron_std=1.0)
    seen = set()
    for i in range(12):
        fit = wild.fit(jr.fold_in(key, i), data)
        losses = np.asarray(fit.stats["restart_losses"])
        good = np.isfinite(losses) & (losses < 1e4 * 0.5 * np.mean(np.asarray(data.y) ** 2))
        seen.add((bool(good.any()), bool(good.all())))
        assert (fit.status == ts.Status.DIVERGED) == (not good.any())
        if good.any():
            assert int(fit.stats["restart"]) == np.argmin(np.where(good, losses, np.inf))
            assert bool(jnp.isfinite(fit.net.w).all())
    assert (True, False) in seen, "no mixed batch: the test shows nothing"


def test_paper_settings():
    student = ts.TwoPhaseStudent.paper(7)
    assert (student.width, student.restarts, student.clip) == (7, 1, 2.0)
    assert (student.init_output_std, student.init_neuron_std) == (1.0, 1.0)
    noisy, vanilla = student.noisy, student.vanilla
    assert noisy.width == 7, "the paper's student has the same width in both phases"
    # beta = 100.
    assert (noisy.steps, noisy.step_size, noisy.temperature, noisy.regularisation) == (1000, 0.01, 1 / 100, 0.01)
    assert (vanilla.max_steps, vanilla.step_size) == (2000, 0.01)
    assert noisy.optimizer is None and vanilla.optimizer is None
    assert ts.TwoPhaseStudent.paper(7, clip=3.0).clip == 3.0


def test_new_values_do_not_compile_again(data, key, caplog):
    def compiled(student):
        caplog.clear()
        with jax.log_compiles():
            student.fit(key, data, oracle=(PROBLEM, TEACHER))
        return [m for m in caplog.messages if m.startswith("Compiling")]

    vanilla = ts.VanillaPhase(max_steps=7, step_size=0.11)
    assert compiled(ts.OracleStudent(vanilla))
    assert not compiled(ts.OracleStudent(dataclasses.replace(vanilla, step_size=0.12)))
    assert compiled(ts.OracleStudent(dataclasses.replace(vanilla, max_steps=8)))


@pytest.mark.slow
def test_restarts_end_when_two_agree(data, key):
    """The references are the restarts one by one, and the rule of agreement in NumPy."""
    every = dataclasses.replace(SHORT, restarts=7).fit(key, data)
    losses = np.asarray(every.stats["restart_losses"])
    assert int(every.stats["restarts_run"]) == 7 and np.isfinite(losses).all()
    assert int(every.stats["total_steps"]) == 7 * (STEPS_ONE + STEPS_TWO)
    assert float(every.stats["sample_steps"]) == N * 7 * (STEPS_ONE + STEPS_TWO)
    assert float(every.stats["neuron_steps"]) == 2 * N * 7 * (STEPS_ONE + STEPS_TWO)
    runs = set()
    for agreement in (0.0, 0.1, 1.0, 1e3):
        fit = dataclasses.replace(SHORT, restarts=7, agreement=agreement).fit(key, data)
        done = 2
        while done < 7:
            two = np.sort(losses[:done])[:2]
            # log(L_2 / L_1) against the share of an estimated sigma^2 m d / n, relative to L_1.
            if np.log(two[1] / two[0]) <= 2 * agreement * 6 / (N - 6):
                break
            done = min(done + 2, 7)
        assert int(fit.stats["restarts_run"]) == done, agreement
        runs.add(done)
        np.testing.assert_allclose(fit.stats["restart_losses"][:done], losses[:done], rtol=1e-9)
        assert int(fit.stats["restart"]) == losses[:done].argmin()
        assert not np.isfinite(fit.stats["restart_losses"][done:]).any()
    assert len(runs) > 1, "every tolerance ended alike: the test shows nothing"


def test_a_batch_runs_as_many_rounds_as_each_needs(data, key):
    student = dataclasses.replace(SHORT, restarts=6, agreement=0.1)
    keys = jr.split(key, 6)
    batch = jax.jit(jax.vmap(student.fit, in_axes=(0, None)))(keys, data)
    assert len(set(batch.stats["restarts_run"].tolist())) > 1, "all alike: the test shows nothing"
    for i in range(6):
        alone = student.fit(keys[i], data)
        for name in ("restarts_run", "restart", "total_steps"):
            assert int(batch.stats[name][i]) == int(alone.stats[name]), name
        np.testing.assert_allclose(batch.net.w[i], alone.net.w, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_width_is_found_from_the_data(key):
    for m, d, noise_std, n in ((1, 3, 0.5, 256), (3, 4, 0.1, 512), (3, 4, 0.01, 512)):
        problem = ts.Problem(ts.Sphere(d), ts.ReLUTeacher(m), noise_std)
        teacher = problem.sample_teacher(jr.fold_in(key, m))
        data = problem.sample(jr.fold_in(key, 7), teacher, n, jnp.float32)
        fit = ts.TwoPhaseStudent(width="auto").fit(key, data)
        alive = np.asarray(fit.net.a) != 0
        assert int(fit.stats["width"]) == alive.sum() == m and fit.net.a.shape == (2 * d,)
        assert not np.asarray(fit.net.w)[~alive].any()
        risk = ts.excess_risk(problem, jax.tree.map(jnp.asarray, teacher), fit)
        assert float(risk) < 6 * theory.cramer_rao(m, d, n, noise_std)


def test_hyperparameters_are_leaves():
    # What jit traces and vmap maps over: every number but the counts.
    numbers = jax.tree.leaves(eqx.filter(SHORT, lambda leaf: isinstance(leaf, float)))
    assert sorted(numbers) == sorted([1.1, 0.01, 0.02, 0.7, 0.5, 0.4])


def test_the_dtype_is_that_of_the_data(data, key):
    single = ts.Dataset(x=data.x.astype(jnp.float32), y=data.y.astype(jnp.float32))
    student = ts.OracleStudent(ts.VanillaPhase(max_steps=20, step_size=0.9))
    fit = student.fit(key, single, oracle=(PROBLEM, TEACHER))
    double = student.fit(key, data, oracle=(PROBLEM, TEACHER))
    assert fit.net.w.dtype == fit.net.a.dtype == fit.stats["train_loss"].dtype == jnp.float32
    assert double.net.w.dtype == jnp.float64
    np.testing.assert_allclose(fit.net.w, double.net.w, rtol=1e-4, atol=1e-5)
    # Predictions are as exact as the finer of network and inputs.
    assert fit.predict(data.x).dtype == jnp.float64 and fit.predict(single.x).dtype == jnp.float32


def test_errors(data, key):
    bad = ts.Dataset(x=data.x, y=data.y.at[5].set(jnp.inf))
    nan = ts.Dataset(x=data.x.at[2, 1].set(jnp.nan), y=data.y)
    probe = lambda net: {}
    cases = [
        (lambda: ts.TwoPhaseStudent(width=0), r"TwoPhaseStudent: width must be finite and at least 1, got 0"),
        (
            lambda: ts.TwoPhaseStudent(3, noisy=ts.NoisyPhase(width=2)),
            r"phase I has 2 neurons, fewer than the 3 .*Raise",
        ),
        (lambda: ts.TwoPhaseStudent(width=2, agreement=-1.0), r"agreement must be finite and at least 0, got -1\.0"),
        (lambda: ts.NoisyPhase(width=0), r"NoisyPhase: width must be finite and at least 1, got 0"),
        (lambda: ts.TwoPhaseStudent(width=2, restarts=0), r"restarts must be finite and at least 1, got 0"),
        (lambda: ts.TwoPhaseStudent(width=2, init_output_std=-0.1), r"init_output_std .* at least 0, got -0\.1"),
        (lambda: ts.TwoPhaseStudent(width=2, init_neuron_std=float("nan")), r"init_neuron_std must be finite"),
        (lambda: ts.TwoPhaseStudent(width=2, clip=0.5), r"clip must be finite and at least 1, got 0\.5"),
        (lambda: ts.NoisyPhase(steps=-1), r"NoisyPhase: steps must be finite and at least 0, got -1"),
        (lambda: ts.NoisyPhase(temperature=-0.1), r"temperature must be finite and at least 0, got -0\.1"),
        (lambda: ts.NoisyPhase(regularisation=float("inf")), r"regularisation must be finite .* got inf"),
        (lambda: ts.NoisyPhase(step_size=-1.0), r"NoisyPhase: step_size"),
        (lambda: ts.VanillaPhase(max_steps=-3), r"VanillaPhase: max_steps must be finite and at least 0, got -3"),
        (lambda: ts.VanillaPhase(step_size=jnp.array(-1.0)), r"VanillaPhase: step_size"),
        (lambda: SHORT.fit(key, bad), r"data\.y has 1 value\(s\) that are not finite, the first at index \(5,\)"),
        (lambda: SHORT.fit(key, nan), r"data\.x has 1 value\(s\) that are not finite, the first at index \(2, 1\)"),
        (lambda: SHORT.fit(key, jax.tree.map(lambda v: v[None], data)), r"shape \(n, d\), got \(1, 24, 3\).*fit_many"),
        (lambda: SHORT.fit(key, data, probe=probe), r"probe and probe_steps go together"),
        (lambda: SHORT.fit(key, data, probe_steps=((1,), ())), r"probe and probe_steps go together"),
        (lambda: SHORT.fit(key, data, probe=probe, probe_steps=((2, 1), ())), r"must be increasing.*\(2, 1\)"),
        (lambda: SHORT.fit(key, data, probe=probe, probe_steps=((), (-1, 1))), r"must be increasing.*\(-1, 1\)"),
        (lambda: SHORT.fit(key, data, probe=probe, probe_steps=((), (1, 1))), r"must be increasing.*\(1, 1\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_all_zero_responses_are_learnt(key):
    x = ts.Sphere(3).sample(key, 32)
    student = ts.TwoPhaseStudent(1, restarts=1, noisy=ts.NoisyPhase(steps=200, temperature=0.0))
    fit = student.fit(key, ts.Dataset(x=x, y=jnp.zeros(32)))
    assert fit.status != ts.Status.DIVERGED
    assert float(jnp.abs(fit.predict(x)).max()) < 1e-2


@pytest.mark.slow
def test_correlated_inputs_take_smaller_steps():
    """Half of the largest eigenvalue of the second moments replaces the mean of the eigenvalues if it is larger, and only
    then."""
    rng = np.random.default_rng(SEED)
    isotropic = rng.normal(size=(12, 400))
    assert float(step_scale(jnp.asarray(isotropic))) == pytest.approx(np.mean(isotropic**2))
    common = isotropic + 2.0 * rng.normal(size=400)
    largest = np.linalg.eigvalsh(common @ common.T / 400)[-1]
    assert largest > 5.0 * np.mean(common**2)
    assert float(step_scale(jnp.asarray(common))) == pytest.approx(largest / 2, rel=1e-3)
    assert float(step_scale(jnp.zeros((3, 5)))) == 0.0
