"""What holds for every class of functions."""

import pytest
import torch

from tasks import TASKS, FunctionClass, make_task
from tasks.baselines.classical import GENERIC_BASELINES
from tasks.baselines.prefixes import predict_prefixes
from tasks.metrics import bootstrap_interval


CLASSES = [name for name, kind in TASKS.items() if issubclass(kind, FunctionClass)]
# inputs that are not of mean 0 and variance 1, whose tests are in files of their own
OWN_INPUTS = ["unscaled_linear_regression", "many_outlier_regression", "relu_chain"]
WITH_HINTS = [name for name in CLASSES if make_task(name).n_hints]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_types_and_trivial_level(name):
    task = make_task(name, n_dims=20)
    prompts = task.sample(1280, generator(), n_points=41)
    of_ys = (1280, 41) if task.n_outputs == 1 else (1280, 41, task.n_outputs)
    assert {key: tuple(value.shape) for key, value in prompts.items()} == {
        "xs": (1280, 41, 20),
        "ys": of_ys,
        "labels": of_ys,
    }
    assert all(value.dtype == torch.float32 for value in prompts.values())
    if name not in OWN_INPUTS:
        assert prompts["xs"].mean().item() == pytest.approx(0, abs=0.01)
        assert prompts["xs"].std().item() == pytest.approx(1, abs=0.01)
    # predicting zero has error 1, to four standard errors over the functions
    errors = torch.from_numpy(task.score(0 * prompts["labels"].numpy(), prompts)).mean(dim=1)
    assert errors.mean().item() == pytest.approx(1, abs=4 * errors.std().item() / 1280**0.5 + 1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_the_generator_decides_everything(name):
    task = make_task(name, n_dims=5)
    first, again, other = (task.sample(3, generator(seed), n_points=7) for seed in (1, 1, 2))
    for key in first:
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


@pytest.mark.parametrize("name", CLASSES)
def test_prompts_are_of_the_sizes_of_the_task_unless_told(name):
    task = make_task(name, n_dims=5, n_points=7)
    assert task.sizes == {"n_points": 7, "n_dims_active": 5}
    assert task.model_fields == {"n_dims": 5, "n_positions": 14, "n_outputs": task.n_outputs}
    plain, told = task.sample(3, generator()), task.sample(3, generator(), **task.sizes)
    assert all(torch.equal(values, told[key]) for key, values in plain.items())


@pytest.mark.parametrize("name", CLASSES)
def test_inactive_dimensions_are_zero_and_do_not_matter(name):
    prompts = make_task(name, n_dims=20).sample(64, generator(), n_points=30, n_dims_active=5)
    assert not prompts["xs"][..., 5:].any()
    assert prompts["xs"][..., :5].all() or name == "relu_chain"  # which asks with ReLUs too
    # every function is alive: no prompt of zeros, as an inactive support would give
    assert (prompts["labels"].flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("name", WITH_HINTS)
def test_hints_come_beside_prompts_that_they_do_not_change(name):
    task = make_task(name, n_dims=6)
    plain, hinted = (
        task.sample(3, generator(), n_points=7, n_dims_active=4, with_hints=wanted) for wanted in (False, True)
    )
    hints = hinted.pop("hints")
    assert hints.shape == (3, 7, task.n_hints)
    assert hints.dtype == torch.float32
    assert not hints[..., 4:].any()
    assert hinted.keys() == plain.keys()
    assert all(torch.equal(hinted[key], plain[key]) for key in plain)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in WITH_HINTS])
def test_hints_of_a_class_that_has_none_are_refused(name):
    with pytest.raises(ValueError, match=f"the task {name} has no hints"):
        make_task(name).sample(1, generator(), n_points=2, with_hints=True)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_compared_with_what_can_learn_any_and_with_what_the_papers_show(name):
    task = make_task(name)
    assert task.baselines.keys() >= GENERIC_BASELINES.keys()
    drawn = {curve.partition(", alpha")[0] for curve in task.published if not curve.endswith("transformer")}
    assert drawn <= task.baselines.keys()


@pytest.mark.parametrize("name", [name for name in CLASSES if make_task(name).limit])
def test_no_baseline_is_better_than_the_limit(name):
    task = make_task(name, n_dims=4)
    prompts = task.sample(300, generator(), n_points=8)

    def errors(predictor):
        return task.score(predict_prefixes(predictor, prompts["xs"], prompts["ys"]).numpy(), prompts)

    limit = errors(task.limit.predictor)
    baselines = {key: value for key, value in task.baselines.items() if key not in ("Lasso", "2-layer network")}
    for key, baseline in baselines.items():
        excess = errors(baseline) - limit
        assert excess.mean() > -0.02, key
        assert (bootstrap_interval(excess, confidence=0.998)[1] > -1e-6).all(), key


BAD_SETTINGS = {
    "n_dims": (lambda kind: kind(n_dims=0), "`n_dims` must be an integer >= 1, got 0"),
    "n_points": (lambda kind: kind(n_points=True), "`n_points` must be an integer >= 1, got True"),
    "points of a prompt": (
        lambda kind: kind().sample(1, generator(), n_points=0),
        "`n_points` must be an integer >= 1, got 0",
    ),
    "n_prompts": (
        lambda kind: kind().sample(2.0, generator(), n_points=1),
        "`n_prompts` must be an integer >= 1, got 2.0",
    ),
    "active": (
        lambda kind: kind().sample(1, generator(), n_points=1, n_dims_active=21),
        "`n_dims_active` must be <= `n_dims` = .*, got 21",
    ),
}


@pytest.mark.parametrize("setting", BAD_SETTINGS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_bad_setting_is_refused_by_name(name, setting):
    call, message = BAD_SETTINGS[setting]
    with pytest.raises(ValueError, match=message):
        call(TASKS[name])
