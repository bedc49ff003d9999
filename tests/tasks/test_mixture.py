"""Mixtures of tasks beside their components, one by one."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch

from tasks import Task, make_task, task_fields
from tasks.curriculum import Schedule
from tasks.functions.decision_tree import DecisionTree
from tasks.functions.linear_regression import LinearRegression
from tasks.mixture import Mixture
from tasks.streams import Stream


COMPONENTS = {"linear_regression": 3, "decision_tree": {"weight": 1, "depth": 2}}


def make_mixture(**changes):
    return make_task("mixture", **{"n_dims": 4, "n_points": 30, "components": COMPONENTS, **changes})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def is_tree(prompts):
    """Which prompts have no more values than a tree of depth 2 has leaves."""
    return np.array([len(values.unique()) <= 4 for values in prompts["ys"]])


def test_components_have_the_settings_that_all_share_and_their_own():
    mixture = make_mixture()
    assert mixture.components == {
        "linear_regression": LinearRegression(n_dims=4, n_points=30),
        "decision_tree": DecisionTree(n_dims=4, n_points=30, depth=2),
    }
    assert mixture == Mixture(mixture.components, {"linear_regression": 3, "decision_tree": 1})
    for name in ("objective", "score_name", "place_name", "sizes", "model_fields"):
        assert getattr(mixture, name) == getattr(mixture.components["decision_tree"], name)
    assert (mixture.baselines, mixture.limit, mixture.shifts, mixture.published) == ({}, None, {}, {})


def test_prompts_are_of_the_components_by_their_weights():
    prompts = make_mixture().sample(4000, generator())
    assert is_tree(prompts).mean() == pytest.approx(1 / 4, abs=0.03)
    # in no order: neighbours are as often of one component as any two prompts
    same = is_tree(prompts)[1:] == is_tree(prompts)[:-1]
    assert same.mean() == pytest.approx(1 / 16 + 9 / 16, abs=0.04)


def test_the_order_in_which_a_recipe_names_components_does_not_matter():
    first = make_mixture().sample(20, generator())
    second = make_mixture(components=dict(reversed(COMPONENTS.items()))).sample(20, generator())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_ratio_of_weights_counts():
    first, second = (
        make_mixture(components={"linear_regression": 2 * scale, "decision_tree": 1.5 * scale})
        for scale in (1, 2.0**1022)
    )
    assert first.normaliser == second.normaliser == pytest.approx((2 * 4 + 1.5) / 3.5)
    prompts, same = (mixture.sample(20, generator()) for mixture in (first, second))
    assert all(torch.equal(prompts[name], same[name]) for name in prompts)


WIDE_AND_NARROW = {
    "linear_regression": {"weight": 1, "n_dims": 6},
    "decision_tree": {"weight": 1, "n_dims": 4, "depth": 2},
    "fourier_regression": {"weight": 1, "n_dims": 1, "n_frequencies": 2},
}


def test_components_of_fewer_dimensions_have_zeros_in_the_others():
    mixture = make_task("mixture", n_points=30, components=WIDE_AND_NARROW)
    assert mixture.model_fields == {"n_dims": 6, "n_positions": 60, "n_outputs": 1}
    assert mixture.sizes == {"n_points": 30, "n_dims_active": 6}
    prompts = mixture.sample(60, generator())
    widths = (prompts["xs"] != 0).any(dim=1).sum(dim=1)
    assert set(widths.tolist()) == {1, 4, 6}
    assert torch.equal(widths == 4, torch.from_numpy(is_tree(prompts)))
    assert all(not xs[:, width:].any() for xs, width in zip(prompts["xs"], widths, strict=True))
    # each component has its own baselines and its own limit, on prompts of its own dimensions
    assert [task.n_dims for task in mixture.components.values()] == [4, 1, 6]


def test_active_dimensions_grow_for_every_component_up_to_its_own():
    mixture = make_task("mixture", n_points=30, components=WIDE_AND_NARROW)
    prompts = mixture.sample(60, generator(), n_dims_active=5)
    assert set((prompts["xs"] != 0).any(dim=1).sum(dim=1).tolist()) == {1, 4, 5}
    with pytest.raises(ValueError, match="`n_dims_active` must be <= `n_dims` = 6, got 7"):
        mixture.sample(1, generator(), n_dims_active=7)


def test_without_fewest_dims_the_components_draw_one_after_the_other_and_nothing_else_does():
    mixture, random = make_mixture(), generator()
    of_tree = torch.multinomial(torch.tensor([1.0, 3.0]).double(), 40, replacement=True, generator=random) == 0
    expected = {name: torch.empty_like(values) for name, values in mixture.sample(40, generator()).items()}
    for task, rows in zip(mixture.components.values(), (of_tree, ~of_tree), strict=True):
        for name, values in task.sample(int(rows.sum()), random, n_points=9, n_dims_active=3).items():
            expected[name] = expected[name][:, :9]
            expected[name][rows] = values
    prompts = mixture.sample(40, generator(), n_points=9, n_dims_active=3)
    assert all(torch.equal(prompts[name], expected[name]) for name in expected)


def widths_of(prompts):
    return (prompts["xs"] != 0).any(dim=1).sum(dim=1)


def test_every_other_batch_of_a_component_has_fewer_dimensions_all_equally_likely():
    mixture = make_task("mixture", n_dims=5, n_points=2, components={"linear_regression": 1}, fewest_dims=2)
    random = generator()
    widths = [set(widths_of(mixture.sample(3, random)).tolist()) for _ in range(1200)]
    assert all(len(width) == 1 for width in widths)  # of a batch
    shares = np.bincount([width.pop() for width in widths], minlength=6) / len(widths)
    np.testing.assert_allclose(shares, [0, 0, 1 / 6, 1 / 6, 1 / 6, 1 / 2], atol=0.05)


def test_each_component_draws_its_dimensions_by_itself_between_the_fewest_and_its_own():
    mixture, random, drawn = (
        make_task("mixture", n_points=30, components=WIDE_AND_NARROW, fewest_dims=3),
        generator(),
        set(),
    )
    for _ in range(100):
        prompts = mixture.sample(20, random)
        trees, widths = torch.from_numpy(is_tree(prompts)), widths_of(prompts)
        waves = widths == 1  # a component that has fewer than the fewest keeps them
        drawn |= {(tree, line) for tree in widths[trees].tolist() for line in widths[~trees & ~waves].tolist()}
        assert waves.any()
    assert drawn == {(tree, line) for tree in (3, 4) for line in (3, 4, 5, 6)}


def test_a_component_that_takes_no_functions_of_so_few_dimensions_has_the_fewest_that_it_takes():
    components = {"sparse_linear_regression": 1, "decision_tree": 1}
    mixture, random = make_task("mixture", n_dims=5, n_points=30, components=components, fewest_dims=1), generator()
    drawn = set()
    for _ in range(100):
        prompts = mixture.sample(6, random)
        trees = is_tree(prompts).tolist()
        drawn |= set(zip(trees, widths_of(prompts).tolist(), strict=True))
    assert drawn == {(True, width) for width in (1, 2, 3, 4, 5)} | {(False, width) for width in (3, 4, 5)}


@pytest.mark.parametrize("asked", [1, 3])
def test_no_fewer_dimensions_are_drawn_where_no_more_are_asked_for(asked):
    prompts = make_mixture().sample(20, generator(), n_dims_active=asked)
    same = make_mixture(fewest_dims=3).sample(20, generator(), n_dims_active=asked)
    assert all(torch.equal(prompts[name], same[name]) for name in prompts)


def test_a_score_is_of_all_dimensions():
    prompts = make_mixture().sample(20, generator())
    (part,) = make_mixture(fewest_dims=1).sample_parts(20, generator())
    assert all(torch.equal(prompts[name], part[name]) for name in prompts)


FEWEST_DIMS = {
    **{repr(number): (number, "must be an integer >= 1, got ") for number in (0, -1, 1.5, True, "2", [2])},
    "more than there are": (7, "must be <= the most dimensions of a component = 6, got 7"),
}


@pytest.mark.parametrize("name", FEWEST_DIMS)
def test_bad_fewest_dims_are_refused(name):
    fewest_dims, message = FEWEST_DIMS[name]
    with pytest.raises(ValueError, match=f"`fewest_dims` {message}"):
        make_mixture(n_dims=6, components={"sparse_linear_regression": 1}, fewest_dims=fewest_dims)


def test_fewest_dims_are_of_functions_alone():
    with pytest.raises(ValueError, match="`fewest_dims` is of functions, and coins is none: leave it out"):
        Mixture({"coins": Coins()}, {"coins": 1}, fewest_dims=1)
    with pytest.raises(ValueError, match="`fewest_dims` is of functions, and random_tables is none: leave it out"):
        make_task("mixture", components={"random_tables": 1}, fewest_dims=1)


@pytest.mark.parametrize("with_hints", [False, True])
def test_every_column_of_a_row_is_of_one_prompt(with_hints):
    prompts = make_mixture().sample(50, generator(), with_hints=with_hints, n_points=20, n_dims_active=3)
    assert prompts["xs"].shape == (50, 20, 4)
    assert not prompts["xs"][..., 3:].any()
    linear = ~is_tree(prompts)
    xs, ys = prompts["xs"][linear], prompts["ys"][linear]
    weights = torch.linalg.lstsq(xs, ys.unsqueeze(2), driver="gelsd").solution
    torch.testing.assert_close((xs @ weights).squeeze(2), ys, rtol=1e-3, atol=1e-3)
    assert torch.equal(prompts["ys"], prompts["labels"])
    if with_hints:
        hints = prompts["hints"][linear]
        torch.testing.assert_close((xs * hints).sum(dim=2), ys, rtol=1e-3, atol=1e-3)
        assert set(prompts["hints"][is_tree(prompts)].unique().tolist()) == {-1, 0, 1}


def test_a_stream_is_a_pure_function_of_the_index_and_follows_schedules():
    stream = Stream(make_mixture(), 6, {"n_points": Schedule(5, 30, 5, 1)}, seed=0)
    elements = list(islice(stream.iterable(), 4))
    assert [batch["xs"].shape[1] for batch in elements] == [5, 10, 15, 20]
    halves = [list(islice(stream.iterable(start=2, rank=rank, world_size=2), 2)) for rank in (0, 1)]
    for i in range(2):
        for name, values in elements[2 + i].items():
            assert torch.equal(values, torch.cat([half[i][name] for half in halves]))
            assert torch.equal(values, stream.batch(2 + i)[name])


def test_predicting_zero_has_an_expected_error_of_one():
    mixture = make_mixture()
    assert mixture.normaliser == pytest.approx((3 * 4 + 1 * 1) / 4)
    prompts = mixture.sample(4000, generator())
    errors = mixture.score(np.zeros((4000, 30)), prompts)
    np.testing.assert_allclose(errors, prompts["labels"].double().numpy() ** 2 / mixture.normaliser)
    assert errors.mean() == pytest.approx(1, abs=4 * errors.mean(axis=1).std() / 4000**0.5)


def test_hints_need_as_many_of_every_component():
    with_and_without = make_mixture(components={"linear_regression": 1, "relu_2nn_regression": 1})
    assert (make_mixture().n_hints, with_and_without.n_hints) == (4, 0)
    with pytest.raises(ValueError, match="the task mixture has no hints"):
        with_and_without.sample(2, generator(), with_hints=True)


@dataclass(frozen=True)
class Coins(Task):
    """Tokens that are all one side of a coin; the model is asked for the last."""

    name = "coins"
    description = "coins"
    objective = "answer_slots"
    score_name = "share of wrong answers"
    place_name = "tokens"
    side: int = 0
    n_tokens: int = 3
    dtype: torch.dtype = torch.long

    @property
    def sizes(self):
        return {"n_tokens": self.n_tokens}

    @property
    def model_fields(self):
        return {"n_positions": self.n_tokens, "vocab_size": 2}

    def check_sizes(self, n_tokens=None):
        pass

    def sample(self, n_prompts, generator, with_hints=False, n_tokens=None):
        tokens = torch.full((n_prompts, n_tokens or self.n_tokens), self.side, dtype=self.dtype)
        return {"input_ids": tokens, "labels": tokens}

    def score(self, answers, prompts):
        return (answers != prompts["labels"].numpy()).astype(float)


def test_components_need_not_be_functions():
    mixture = Mixture({"heads": Coins(), "tails": Coins(side=1)}, {"heads": 1, "tails": 1.5})
    prompts = mixture.sample(2000, generator())
    assert prompts["input_ids"].float().mean().item() == pytest.approx(0.6, abs=0.05)
    assert mixture.normaliser == 1
    assert np.array_equal(mixture.score(np.zeros((2000, 3), int), prompts), prompts["labels"].double().numpy())


ALIKE = {
    "objective": (LinearRegression(4), r"the same `objective`, got 'answer_slots' of coins and 'regression' of other"),
    "sizes": (Coins(n_tokens=4), r"the same `sizes`, got {'n_tokens': 3} of coins and {'n_tokens': 4} of other"),
    "columns": (Coins(dtype=torch.int32), "the same columns, got .*int64.* of coins and .*int32.* of other"),
}


@pytest.mark.parametrize("trait", ALIKE)
def test_components_that_differ_in_what_a_batch_is_are_refused_by_name(trait):
    other, message = ALIKE[trait]
    with pytest.raises(ValueError, match=f"components of a mixture must have {message}"):
        Mixture({"coins": Coins(), "other": other}, {"coins": 1, "other": 1})


BAD_COMPONENTS = {
    "none": ({}, "`components` of a mixture must map names of tasks to weights, such as .*, got {}"),
    "left out": (None, "`components` of a mixture must map names of tasks to weights, such as .*, got None"),
    "a list": (["decision_tree"], r"`components` of a mixture must map names .*, got \['decision_tree'\]"),
    "unknown": ({"trees": 1}, "`components` of a mixture must be tasks, got `trees`"),
    "no name": ({1: 1}, "`components` of a mixture must be tasks, got `1`"),
    "nested": ({"mixture": {"weight": 1, "components": COMPONENTS}}, "must not be mixtures themselves, got mixture"),
    "no weight": ({"decision_tree": {"depth": 2}}, r"must give decision_tree a `weight`, got {'depth': 2}"),
    "bad setting": ({"decision_tree": {"weight": 1, "depth": 0}}, "`depth` must be an integer >= 1, got 0"),
    "no such setting": ({"linear_regression": {"weight": 1, "depth": 2}}, "the settings of linear_.*, got `depth`"),
    "other sizes": (
        {"linear_regression": 1, "decision_tree": {"weight": 1, "n_points": 5}},
        "must have the same `sizes`, got .*5.* of decision_tree and .*30.* of linear_regression",
    ),
    **{
        repr(weight): ({"decision_tree": weight}, "`weight` of decision_tree must be a finite number > 0, got ")
        for weight in (0, -1, float("nan"), float("inf"), True, "2", None, [1])
    },
}


@pytest.mark.parametrize("name", BAD_COMPONENTS)
def test_bad_components_are_refused(name):
    components, message = BAD_COMPONENTS[name]
    with pytest.raises(ValueError, match=message):
        make_mixture(components=components)


def test_a_mixture_takes_what_all_its_components_take():
    own = ["components", "fewest_dims", "guidance"]
    assert list(task_fields("mixture", {"components": COMPONENTS})) == [*own, "n_dims", "n_points"]
    same = {"decision_tree": 1}
    assert list(task_fields("mixture", {"components": same})) == [*own, "n_dims", "n_points", "depth"]
    assert make_mixture(components=same, depth=3).components["decision_tree"].depth == 3
    with pytest.raises(ValueError, match=r"the settings of mixture are components, .*, n_dims, n_points, got `depth`"):
        make_mixture(depth=3)


def test_weights_of_other_components_a_nested_mixture_and_bad_sizes_are_refused():
    mixture = make_mixture()
    with pytest.raises(ValueError, match=r"`weights` must be of the components decision_tree, .*, got a"):
        Mixture(mixture.components, {"a": 1})
    with pytest.raises(ValueError, match="`components` of a mixture must hold at least one task, got none"):
        Mixture({}, {})
    with pytest.raises(ValueError, match="must not be mixtures themselves, got both"):
        Mixture({"both": mixture}, {"both": 1})
    with pytest.raises(ValueError, match="`n_prompts` must be an integer >= 1, got 0"):
        mixture.sample(0, generator())
    with_sparse = make_mixture(components={"linear_regression": 1, "sparse_linear_regression": 1})
    with pytest.raises(ValueError, match="`sparsity` must be <= the active dimensions, got 3 > 2"):
        Stream(with_sparse, 8, {"n_dims_active": Schedule(2, 4)}, seed=0)
