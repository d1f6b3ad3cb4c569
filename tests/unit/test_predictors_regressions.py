"""Predictors: they learn, know how far off they are, refuse what they have not seen, and keep in files."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from cosearch.errors import FileError, NotFoundError, UserError
from cosearch.predictors import PREDICTORS, encode_models, load_predictor, make_predictor, names, save_predictor
from cosearch.predictors.gaussian import GaussianProcess, _negative_likelihood
from cosearch.predictors.network import PretrainedNetwork
from cosearch.testing.models import random_model


def problem(rows=80, columns=6, noise=0.02, seed=0):
    """Accuracies that depend on two of the columns."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, columns))
    clean = 0.6 + 0.25 * np.tanh(1.5 * x[:, 0]) - 0.1 * x[:, 1] ** 2
    return x, clean + rng.normal(0, noise, rows), clean


@pytest.fixture(params=PREDICTORS)
def kind(request):
    return request.param


def test_it_ranks_what_it_has_not_seen(kind):
    x, y, clean = problem()
    predictor = make_predictor(kind, link="logit")
    predictor.fit(x[:60], y[:60])
    said = predictor.predict(x[60:])
    assert kendalltau(said.mean, clean[60:]).statistic > 0.6
    assert ((said.mean > 0) & (said.mean < 1)).all()
    inside = np.abs(said.mean - y[60:]) < 1.645 * said.std
    assert inside.mean() > 0.6
    assert said.std.max() < 3 * y.std(), "intervals wider than not knowing anything"


def test_it_refuses_what_is_outside(kind):
    x, y, _ = problem()
    x[:, 5] = 1.0  # never changes: a method, say, that all learnt models have
    predictor = make_predictor(kind)
    predictor.fit(x, y)
    far, other = x[:1] + np.array([[8.0, 0, 0, 0, 0, 0]]), x[:1] * np.array([[1, 1, 1, 1, 1, 0.0]])
    assert predictor.predict(x).inside.all()
    assert not predictor.predict(far).inside.any()
    assert not predictor.predict(other).inside.any()


def test_the_same_seed_says_the_same_and_so_does_its_file(kind, tmp_path):
    x, y, _ = problem(rows=40)
    made = [make_predictor(kind, link="logit", seed=3) for _ in range(2)]
    for disturbance, predictor in enumerate(made):
        np.random.seed(disturbance)
        predictor.fit(x, y)
    save_predictor(made[0], tmp_path / "p.safetensors")
    kept = load_predictor(tmp_path / "p.safetensors")
    for other in (made[1], kept):
        for a, b in zip(made[0].predict(x), other.predict(x), strict=True):
            np.testing.assert_array_equal(a, b)
    assert b"pickle" not in (tmp_path / "p.safetensors").read_bytes()


def test_short_trainings_inform_full_ones(kind):
    x, _, full = problem(rows=120, columns=6)
    rng = np.random.default_rng(5)
    few, many = np.arange(6), np.arange(6, 90)
    share = np.concatenate([np.ones(6), np.full(len(many), 0.25)])
    y = full[:90] - 0.15 * (share < 1) + rng.normal(0, 0.01, 90)
    predictor, alone = make_predictor(kind), make_predictor(kind)
    predictor.fit(x[:90], y, fidelity=share)
    alone.fit(x[few], y[few])
    both, only = predictor.predict(x[90:]), alone.predict(x[90:])
    assert kendalltau(both.mean, full[90:]).statistic > kendalltau(only.mean, full[90:]).statistic
    short = predictor.predict(x[90:], fidelity=np.full(30, 0.25))
    assert (both.mean - short.mean).mean() > 0.02


def test_readings_come_first_and_the_rest_is_predicted(tmp_path):
    x, y, clean = problem(rows=60, columns=60)
    reading = clean + np.random.default_rng(2).normal(0, 0.03, 60)
    both = np.c_[x, np.log(reading / (1 - reading))]
    predictor = make_predictor("gaussian_process", link="logit", readings=1)
    predictor.fit(both[:15], y[:15])
    said = kendalltau(predictor.predict(both[15:]).mean, clean[15:]).statistic
    alone = make_predictor("gaussian_process", link="logit")
    alone.fit(x[:15], y[:15])
    assert said > 0.7
    assert said > kendalltau(alone.predict(x[15:]).mean, clean[15:]).statistic
    save_predictor(predictor, tmp_path / "p.safetensors")
    kept = load_predictor(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(kept.predict(both).mean, predictor.predict(both).mean)


def test_noisy_values_count_less():
    x = np.linspace(-1, 1, 21)[:, None]
    y = 0.3 * x[:, 0]
    y[10] = 1.0
    noise = np.full(21, 0.01)
    plain, told = GaussianProcess(), GaussianProcess()
    plain.fit(x, y)
    noise[10] = 5.0
    told.fit(x, y, noise=noise)
    assert abs(told.predict(x[10:11]).mean[0]) < abs(plain.predict(x[10:11]).mean[0])
    assert abs(told.predict(x[10:11]).mean[0]) < 0.1


def test_the_likelihood_has_its_gradient():
    rng = np.random.default_rng(0)
    x, y, variance = rng.normal(size=(12, 3)), rng.normal(size=12), rng.uniform(0, 0.1, 12)
    theta = 0.3 * rng.normal(size=5)
    slope = _negative_likelihood(x, y, variance, theta)[1]
    for place in range(5):
        step = np.zeros(5)
        step[place] = 1e-6
        up, down = (_negative_likelihood(x, y, variance, theta + sign * step)[0] for sign in (1, -1))
        assert slope[place] == pytest.approx((up - down) / 2e-6, rel=1e-4)


def test_a_gaussian_process_agrees_with_scikit_learn():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    x, y, _ = problem(rows=30, columns=3)
    ours = GaussianProcess()
    ours.fit(x, y)
    theta, columns = ours._theta, ours._columns
    kernel = ConstantKernel(np.exp(theta[-2])) * Matern(np.exp(theta[:-2]), nu=2.5)
    noise = np.exp(theta[-1]) + 1e-4
    theirs = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(columns.rows, (y - y.mean()) / y.std())
    probe = np.random.default_rng(1).uniform(-1, 1, (7, 3))
    said = ours.predict(probe)
    mean, std = theirs.predict(columns.standardised(np.c_[probe, np.zeros(7)]), return_std=True)
    np.testing.assert_allclose(said.mean, y.mean() + y.std() * mean, rtol=1e-6)
    np.testing.assert_allclose(said.std, y.std() * np.sqrt(std**2 + noise), rtol=1e-5)


def test_draws_scatter_as_predicted():
    x, y, _ = problem(rows=30, columns=2)
    process = GaussianProcess()
    process.fit(x, y)
    rng = np.random.default_rng(0)
    draws = np.stack([process.sample(x[:5] + 0.3, rng) for _ in range(400)])
    said = process.predict(x[:5] + 0.3)
    np.testing.assert_allclose(draws.mean(0), said.mean, atol=0.05 * y.std() + 3 * said.std.max() / 20)
    assert (draws.std(0) < 1.1 * said.std).all()


def test_a_network_is_pretrained_on_totals_that_it_does_not_see():
    models = [random_model(seed) for seed in range(80)]
    x = encode_models(models)
    place = names().index("total.macs")
    y = (x[:, place] - x[:, place].min()) / np.ptp(x[:, place]) * 0.5 + 0.3
    network = PretrainedNetwork(members=2, pool=x)
    network.fit(x[:40], y[:40])
    changed = x[40:].copy()
    changed[:, place] += 3.0
    np.testing.assert_array_equal(network.predict(x[40:]).mean, network.predict(changed).mean)
    assert kendalltau(network.predict(x[40:]).mean, y[40:]).statistic > 0.6


def test_bad_inputs_say_what_is_wrong(kind, tmp_path):
    x, y, _ = problem(rows=20)
    predictor = make_predictor(kind, link="logit")
    with pytest.raises(UserError, match="learnt nothing yet"):
        predictor.predict(x)
    with pytest.raises(UserError, match="fewer than 5"):
        predictor.fit(x[:4], y[:4])
    with pytest.raises(UserError, match="not finite"):
        predictor.fit(x, np.where(np.arange(20) == 3, np.nan, y))
    with pytest.raises(UserError, match="shares of 0 to 1"):
        predictor.fit(x, y + 1)
    with pytest.raises(UserError, match="one value a row"):
        predictor.fit(x, y[:-1])
    with pytest.raises(UserError, match="above 0"):
        predictor.fit(x, y, fidelity=np.zeros(20))
    predictor.fit(x, y)
    with pytest.raises(UserError, match="6 were learnt"):
        predictor.predict(x[:, :3])


def test_unknown_names_and_files_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match="gaussian_process"):
        make_predictor("gaussian")
    with pytest.raises(FileError, match="cannot be read"):
        load_predictor(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(FileError, match="cannot be read"):
        load_predictor(tmp_path / "text.safetensors")
