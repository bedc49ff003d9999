import json
import sys

import pytest
import torch

from scripts import study
from scripts.studies import linear_attention_study
from scripts.studies.linear_attention import SHIFTS, SPECTRA, LinearAttention, Settings, train
from scripts.studies.linear_attention_study import (
    DIVERGED,
    KINDS,
    errors_of,
    geometric_fit,
    inverse_covariance,
    loops_of_fall,
    plot_study,
)
from tasks.streams import make_generator


SMALL = Settings(n_dims=3, n_points=8, batch_size=16, max_steps=3)


def draw(n_dims=3, n_points=8, n_prompts=6):
    """Linear prompts in float64: xs with the query, the examples' ys, the query's y."""
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(n_prompts, n_points, n_dims, generator=generator, dtype=torch.float64)
    ys = (xs @ torch.randn(n_prompts, n_dims, 1, generator=generator, dtype=torch.float64)).squeeze(2)
    return xs, ys[:, :-1], ys[:, -1]


def random_model(**fields):
    return LinearAttention(3, generator=torch.Generator().manual_seed(1), **fields)


def attend(model, xs, ys, n_loops):
    """The layers as the paper writes them, with tokens as columns and the scores of all pairs."""
    n = ys.shape[1]
    zs = torch.cat([xs, torch.nn.functional.pad(ys, (0, 1)).unsqueeze(2)], dim=2).mT
    mask = torch.diag(torch.tensor([1.0] * n + [0.0], dtype=torch.float64))
    predictions = []
    for loop in range(n_loops):
        P, Q = model.P[loop % len(model.P)], model.Q[loop % len(model.Q)]
        zs = zs - P @ zs @ mask @ (zs.mT @ Q @ zs) / n
        predictions.append(-zs[:, -1, -1])
    return torch.stack(predictions, dim=1)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_it_is_linear_attention_as_written_gradients_included(n_layers):
    xs, ys, labels = draw()
    model = random_model(n_layers=n_layers, is_full=True)
    gradients = []
    for run in (model, lambda *inputs: attend(model, *inputs)):
        predictions = run(xs, ys, 5)
        model.zero_grad()
        (predictions[:, -1] - labels).square().mean().backward()
        gradients.append((predictions.detach(), model.P.grad.clone(), model.Q.grad.clone()))
    for ours, written in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, written, rtol=1e-10, atol=1e-12)


def test_the_construction_is_gradient_descent():
    xs, ys, _ = draw()
    preconditioners = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 3
    model = LinearAttention.descent(preconditioners)
    torch.testing.assert_close(model.preconditioners, preconditioners)
    weights, expected = torch.zeros(len(xs), 3, dtype=torch.float64, requires_grad=True), []
    for step in range(4):
        loss = ((xs[:, :-1] @ weights.unsqueeze(2)).squeeze(2) - ys).square().mean(1).sum() / 2
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - gradient @ preconditioners[step % 2].T).detach().requires_grad_()
        expected.append((xs[:, -1] * weights).sum(1))
    torch.testing.assert_close(model(xs, ys, 4), torch.stack(expected, dim=1), rtol=1e-12, atol=1e-12)


def test_untied_layers_of_equal_matrices_are_the_loop():
    xs, ys, _ = draw()
    tied, untied = random_model(is_full=True), random_model(n_layers=4, is_full=True)
    with torch.no_grad():
        untied.P.copy_(tied.P.expand_as(untied.P))
        untied.Q.copy_(tied.Q.expand_as(untied.Q))
    assert torch.equal(tied(xs, ys, 9), untied(xs, ys, 9))


@pytest.mark.parametrize("is_full", [False, True])
def test_only_the_entries_that_are_learned_matter(is_full):
    xs, ys, _ = draw()
    model = random_model(is_full=is_full)
    model(xs, ys, 3)[:, -1].square().sum().backward()
    used = (model.P.grad[0] != 0, model.Q.grad[0] != 0)
    sparse = torch.zeros(2, 4, 4, dtype=torch.bool)
    sparse[0, -1], sparse[1, :-1, :-1] = True, True
    for grad, learned in zip(used, sparse, strict=True):
        assert torch.equal(grad, torch.ones_like(learned) if is_full else learned)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_inputs_have_the_spectrum_and_values_stay(spectrum):
    prompts = SMALL.task.sample(4000, torch.Generator().manual_seed(0))
    values = SPECTRA[spectrum](4000, 3, torch.Generator().manual_seed(1))
    xs, ys, labels = SMALL.with_spectrum(prompts, values)
    covariance = torch.einsum("bpd,bpe->de", xs, xs) / xs[..., 0].numel()
    expected = torch.linalg.inv(inverse_covariance(spectrum, SMALL))
    torch.testing.assert_close(covariance, expected, rtol=0.1, atol=0.05)
    assert torch.equal(torch.cat([ys, labels[:, None]], dim=1), prompts["ys"].double())
    # they are still linear in the inputs
    weights = torch.linalg.lstsq(xs[:, :-1], ys.unsqueeze(2)).solution
    torch.testing.assert_close((xs[:, -1:] @ weights).flatten(), labels, rtol=1e-3, atol=1e-3)


def test_shifts_change_eigenvalues_as_they_say():
    values = SPECTRA["skewed"](500, 3, torch.Generator())
    changed = {name: shift(values, torch.Generator().manual_seed(0)) / values for name, shift in SHIFTS.items()}
    assert torch.equal(changed["as trained"], torch.ones_like(values))
    assert changed["wider"].min() < 0.27 and 0.95 < changed["wider"].max() <= 1
    torch.testing.assert_close(changed["larger"], torch.full_like(values, 1.5))


def test_a_layer_learns_the_preconditioner_that_is_known_for_it():
    # with w ~ N(0, covariance^-1) the best matrix of a single step is covariance^-1 / (1 + (D + 1) / n)
    settings = Settings(n_dims=2, n_points=11, batch_size=128, max_steps=150, learning_rate=0.1)
    model = LinearAttention(2, generator=make_generator("test", 0))
    train(model, 1, SPECTRA["skewed"], settings, 0)
    expected = inverse_covariance("skewed", settings) / 1.3
    torch.testing.assert_close(model.preconditioners[0], expected, rtol=0.1, atol=0.1)


def test_a_training_that_overflows_keeps_finite_weights():
    settings = Settings(n_dims=2, n_points=4, batch_size=4, max_steps=6, learning_rate=1e200)
    model = LinearAttention(2, generator=make_generator("test", 0))
    train(model, 8, SPECTRA["isotropic"], settings, 0)
    assert all(weights.isfinite().all() for weights in model.parameters())


def test_errors_are_shares_of_those_of_predicting_0():
    still = LinearAttention(3)
    assert errors_of(still, 2, "diverse", "wider", SMALL) == [1.0, 1.0]
    exploding = LinearAttention.descent(1e9 * torch.eye(3, dtype=torch.float64)[None])
    assert max(errors_of(exploding, 60, "isotropic", "as trained", SMALL)) == DIVERGED


def test_summaries_of_errors():
    rate, r_squared = geometric_fit([0.5, 0.25, 0.125])
    assert (rate, r_squared) == pytest.approx((0.5, 1.0))
    assert loops_of_fall([3, 2, 1]) == 3
    assert loops_of_fall([3, 2, 2.1, 1]) == 2


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the study, small."""

    def run(*flags, small=("--n_dims", "2", "--n_points", "4", "--batch_size", "4", "--max_steps", "1")):
        command = ["study.py", "linear_attention", "--output_dir", str(tmp_path / "study"), *small, *flags]
        monkeypatch.setattr(sys, "argv", command)
        study.main()
        return tmp_path / "study"

    for name, value in {"N_PROMPTS": 16, "SEEDS": (0, 3), "DEPTHS": (1, 3)}.items():
        monkeypatch.setattr(linear_attention_study, name, value)
    return run


def test_one_command_trains_measures_and_draws_and_goes_on(run, monkeypatch, capsys):
    stopped, measure = [], linear_attention_study.measure_training

    def stop(name, settings):
        if len(stopped) == 2:
            raise KeyboardInterrupt
        stopped.append(name)
        return measure(name, settings)

    monkeypatch.setattr(linear_attention_study, "measure_training", stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    again = []
    monkeypatch.setattr(
        linear_attention_study,
        "measure_training",
        lambda name, settings: again.append(name) or measure(name, settings),
    )
    folder = run()
    record = json.loads((folder / "study.json").read_text(), parse_constant=pytest.fail)
    assert [*stopped, *again] == list(record["trainings"])
    assert len(record["trainings"]) == len(SPECTRA) * len(KINDS) * 4
    assert len(record["trainings"]["skewed/untied/3/3"]["error"]["wider"]) == 12
    assert len(record["descents"]["diverse"]["preconditioned"]["error"]) == 3
    table = (folder / "study.md").read_text()
    assert table.count("\n") == 2 + len(SPECTRA) * len(KINDS) * 2
    assert table in capsys.readouterr().out
    assert "<!-- untied, wider -->" in (folder / "study.svg").read_text()
    record["trainings"]["skewed/untied/3/3"]["error"]["wider"][5:] = [DIVERGED] * 7
    plot_study(record, folder)  # what diverged can be drawn
    with pytest.raises(SystemExit, match=r"results of other settings \(max_steps 1 -> 2\)"):
        run("--max_steps", "2")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n_dims", "0"), "`n_dims` must be an integer >= 1, got 0"),
        (("--n_points", "1"), "`n_points` must be >= 2, an example and the query, got 1"),
        (("--max_steps", "-1"), "`max_steps` must be an integer >= 1"),
        (("--learning_rate", "nan"), "`learning_rate` must be a finite number > 0, got nan"),
        (("--full",), "`full` must be left out"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(run, flags, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(*flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [("--n_embd", "3"), ("--n_dim", "3"), ("--max_steps", "many")])
def test_unknown_flags_end_the_program(run, flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert str(exit.value) == "2" or flags[0] in str(exit.value)
    assert list(tmp_path.iterdir()) == []
