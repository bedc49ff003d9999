"""Solvers give the gradients of unrolled loops that have settled, and take the memory of one loop."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import DynamicCache

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextClassification
from modeling_looped_gpt2.implicit_solvers_looped_gpt2 import DAMPING, SOLVERS, add_terms, solved, take_damped_steps
from modeling_looped_gpt2.solvers_looped_gpt2 import unroll
from scripts.benchmarks.peak_memory import PeakMemory


SETTLED = 200  # loops
SHAPES = {"loop": {}, "prelude and coda": {"n_prelude": 1, "n_coda": 1}}
COUNTS = torch.tensor([200, 150, 250])
IDS = torch.randint(1, 23, (3, 6), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_settling(make_lm):
    """Quiet blocks and loud tokens: a loop moves two states to less than half their distance. In float64."""

    def make(**changes):
        model = make_lm(**changes).double().train()
        with torch.no_grad():
            for parameter in model.transformer.h.parameters():
                parameter /= 2
            model.transformer.wte.weight *= 5
        return model

    return make


def gradients(model, ids=IDS, **settings):
    """The loss of the last loop, and the gradients by name."""
    model.zero_grad()
    loss = model(ids, labels=ids, **settings).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def distance(found, expected):
    """Of two sets of gradients, as a share of the norm of the second."""
    assert found.keys() == expected.keys()
    differences = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
    return (differences.norm() / torch.cat([grad.flatten() for grad in expected.values()]).norm()).item()


@pytest.fixture
def jacobians():
    """Of three rows of states `(3, 2, 2)`; the third does not contract."""
    matrices = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norms = torch.linalg.matrix_norm(matrices, 2)[:, None, None]
    return matrices / norms * torch.tensor([0.5, 0.8, 2.0])[:, None, None]


def pull_by(matrices):
    return lambda grad: torch.einsum("bij,bi->bj", matrices, grad.flatten(1)).unflatten(1, (2, 2))


def test_terms_add_up_to_the_solution(jacobians):
    grad = torch.randn(2, 2, 2, dtype=torch.float64)
    expected = torch.linalg.solve(torch.eye(4) - jacobians[:2].mT, grad.flatten(1)).unflatten(1, (2, 2))
    found = add_terms(pull_by(jacobians[:2]), grad, 100)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_a_row_that_does_not_contract_stays_bounded_and_alone(jacobians):
    grad = torch.randn(3, 2, 2, dtype=torch.float64)
    jacobians[2] = 2 * torch.eye(4)
    found = add_terms(pull_by(jacobians), grad, 100)
    torch.testing.assert_close(found[2], grad[2])
    alone = add_terms(pull_by(jacobians[:2]), grad[:2], 100)
    torch.testing.assert_close(found[:2], alone, rtol=1e-3, atol=1e-3)
    assert not add_terms(lambda grad: grad * torch.nan, grad, 5).isnan().any()


def test_no_gradient_is_solved_at_once():
    calls = []
    zeros = torch.zeros(2, 2, 2)
    assert torch.equal(add_terms(lambda grad: calls.append(1) or grad / 2, zeros, 100), zeros)
    assert len(calls) == 1


def test_at_most_so_many_products():
    for solver in filter(None, SOLVERS.values()):
        calls = []
        solver.solve(lambda grad, calls=calls: calls.append(1) or 0.999 * grad, torch.ones(1, 1, 1), 7)
        assert len(calls) <= 7


def test_damped_steps_approach_the_solution(jacobians):
    grad = torch.randn(2, 2, 2, dtype=torch.float64)
    pull = pull_by(jacobians[:2])
    exact = add_terms(pull, grad, 100)
    errors = [(take_damped_steps(pull, grad, n_steps) - exact).norm() for n_steps in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * exact.norm()
    torch.testing.assert_close(take_damped_steps(pull, grad, 1), DAMPING * grad)


@pytest.mark.parametrize("name", ["implicit", "damped"])
def test_gradients_are_those_of_finite_differences(name):
    """Of a loop that is a function of numbers; the loss sees its output and its state."""
    weight = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    solver = SOLVERS[name]._replace(n_steps=40)

    def loss(weight):
        def loop(state, number, rows):
            output = weight[0] * state.cos() + weight[1]
            return output, output.sin()

        def finish(output, state, is_last):
            return output.exp().sum() + 3 * state.square().sum()

        start = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)[:, None, None]
        (last,) = unroll(solved(loop, solver), finish, start, 60, 1)
        return last

    (found,) = torch.autograd.grad(loss(weight), weight)
    with torch.no_grad():
        moves = 1e-6 * torch.eye(2, dtype=torch.float64)
        expected = torch.stack([(loss(weight + move) - loss(weight - move)) / 2e-6 for move in moves])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_implicit_gradients_are_those_of_unrolled_loops(make_settling, shape):
    expected = gradients(make_settling(**SHAPES[shape]), n_loops=SETTLED)
    model = make_settling(**SHAPES[shape], solver="implicit")
    for settings in ({"n_loops": SETTLED}, {"n_loops": COUNTS}, {"n_loops": SETTLED, "exit_tolerance": 1e-9}):
        loss, found = gradients(model, **settings)
        torch.testing.assert_close(loss, expected[0])
        assert distance(found, expected[1]) < 1e-3
    _, of_last_loop = gradients(make_settling(**SHAPES[shape]), n_loops=SETTLED, loop_window=1)
    assert distance(of_last_loop, expected[1]) > 0.1  # or the test would show nothing


@pytest.mark.parametrize("n_steps", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_damped_gradients_are_those_of_damped_steps(make_settling, shape, n_steps):
    """Taken one after another, with a gradient, before the last loop."""
    model = make_settling(**SHAPES[shape], solver="damped", solver_steps=n_steps)
    _, found = gradients(model, n_loops=SETTLED)

    def take_steps(loop, finish, state, n_loops, *window):
        with torch.no_grad():
            for number in range(n_loops - 1):
                _, state = loop(state, number, None)
        for _ in range(n_steps):
            state = (1 - DAMPING) * state + DAMPING * loop(state, 0, None)[1]
        return [finish(*loop(state, n_loops - 1, None), True)]

    twin = make_settling(**SHAPES[shape])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_looped_gpt2.modeling_looped_gpt2.unroll", take_steps)
        _, expected = gradients(twin, n_loops=SETTLED, use_cache=False)
    assert distance(found, expected) < 1e-8


@pytest.mark.parametrize("name", ["implicit", "damped"])
@pytest.mark.parametrize("n_loops", [1, 2, 5, torch.tensor([3, 1, 5])])
@pytest.mark.parametrize("settings", [{"input_injection": "multiply"}, SHAPES["prelude and coda"]])
def test_no_value_depends_on_the_solver(make_lm, name, n_loops, settings):
    expected = make_lm(**settings)(IDS, n_loops=n_loops)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            outputs = make_lm(**settings, solver=name)(IDS, n_loops=n_loops)
        torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
        assert outputs.n_loops_used is None or torch.equal(outputs.n_loops_used, n_loops)


@pytest.mark.parametrize("name", ["implicit", "damped"])
def test_a_row_settles_as_it_does_alone(make_lm, name):
    settings = {"n_loops": 40, "exit_tolerance": 0.1}
    model = make_lm(initializer_range=0.1, solver=name).train()
    _, found = gradients(model, **settings)
    rows = [gradients(model, ids[None], **settings)[1] for ids in IDS]
    expected = {key: sum(row[key] for row in rows) / len(IDS) for key in found}
    assert distance(found, expected) < 1e-3
    assert len(set(model(IDS, **settings).n_loops_used.tolist())) > 1


@pytest.mark.parametrize("settings", [{"n_loops": 6}, {"n_loops": torch.tensor([6, 2, 4])}])
def test_checkpointing_and_accumulation_change_nothing(make_settling, settings):
    model = make_settling(n_coda=1, solver="implicit")
    expected = gradients(model, **settings)
    # renamed in transformers 5.23
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    torch.testing.assert_close(gradients(model, **settings), expected)
    model.zero_grad()
    for row, ids in enumerate(IDS):  # a step in three parts
        n_loops = settings["n_loops"]
        own = {"n_loops": n_loops[row : row + 1] if isinstance(n_loops, torch.Tensor) else n_loops}
        (model(ids[None], labels=ids[None], **own).loss / 3).backward()
    parts = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert distance(parts, expected[1]) < 1e-3


@pytest.mark.parametrize("name", ["implicit", "damped"])
def test_gradients_under_autocast_are_near(make_settling, name):
    model = make_settling(n_coda=1, solver=name).float()
    _, expected = gradients(model, n_loops=30)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = gradients(model, n_loops=30)
    assert distance(found, expected) < 0.03


@pytest.mark.parametrize("name", ["implicit", "damped"])
def test_memory_does_not_grow_with_loops(make_model, prompts, name):
    def peak(solver, n_loops):
        model = make_model(n_coda=1, solver=solver).train()
        with PeakMemory() as memory:
            model(**prompts, n_loops=n_loops).loss.backward()
        return memory.peak

    assert peak(name, 128) == pytest.approx(peak(name, 8), rel=0.05)
    assert peak("unrolled", 32) > 2 * peak("unrolled", 8)


@pytest.mark.parametrize("name", ["implicit", "damped"])
def test_the_loss_of_an_in_context_head_is_that_of_the_last_loop(make_model, make_config, prompts, name):
    classes = {"xs": prompts["xs"], "ys": (prompts["ys"] > 0).long(), "labels": (prompts["labels"] > 0).long()}
    for batch, make in (
        (prompts, make_model),
        (classes, lambda **changes: LoopedGPT2ForInContextClassification(make_config(**changes))),
    ):
        torch.manual_seed(0)
        expected = make()(**batch, loop_window=1).loss
        torch.manual_seed(0)
        model = make(solver=name)
        shown = f"output_loop_{model.answer_name}"
        for settings in ({}, {shown: True}, {"loop_window": 1}, {"n_loops": torch.full((4,), 4)}):
            outputs = model(**batch, **settings)
            torch.testing.assert_close(outputs.loss, expected, rtol=1e-5, atol=1e-6)
            outputs.loss.backward()
            with torch.no_grad():
                torch.testing.assert_close(model(**batch, **settings).loss, expected, rtol=1e-5, atol=1e-6)
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert model(**batch, exit_tolerance=0.3).loss.requires_grad
        with torch.no_grad():
            assert model(batch["xs"], batch["ys"], **{shown: True})[shown.removeprefix("output_")].shape[1] == 4


def test_other_windows_are_refused_where_gradients_flow(make_model, make_lm, prompts):
    model = make_model(solver="implicit")
    match = r"`loop_window` must be 1 with `solver='implicit'` where gradients flow, got {}: .* `torch.no_grad\(\)`"
    for window in (2, 0, "1"):
        with pytest.raises(ValueError, match=match.format(repr(window))):
            model(**prompts, loop_window=window)
    with pytest.raises(ValueError, match=match.format(None)):
        model(prompts["xs"], prompts["ys"], output_loop_predictions=True)
    with torch.no_grad():
        assert model(**prompts, loop_window=2, output_loop_predictions=True).loop_predictions.shape[1] == 2


def test_rows_that_end_apart_keep_no_cache(make_lm):
    model = make_lm(solver="implicit")
    assert model(IDS, n_loops=3).cache is not None
    for settings in ({"n_loops": torch.tensor([1, 1, 1])}, {"exit_tolerance": 0.1}):
        assert model(IDS, **settings).cache is None
        with pytest.raises(ValueError, match=r"`solver='implicit'` runs rows .* apart: leave out"):
            model(IDS, cache=DynamicCache(), **settings)
        with torch.no_grad():
            assert model(IDS, cache=DynamicCache(), **settings).cache is not None


BAD = {
    "name": ({"solver": "newton"}, r"`solver` must be one of \('unrolled', 'implicit', 'damped'\), got 'newton'"),
    "steps": ({"solver_steps": 0}, "`solver_steps` must be an integer >= 1, got 0"),
    "injection": (
        {"solver": "damped", "input_injection": "none"},
        "`solver` must be 'unrolled' with `input_injection='none'`, got 'damped': the prompt enters before the first",
    ),
    "stream": (
        {"solver": "implicit", "residual_loops": True},
        "`solver` must be 'unrolled' with `residual_loops` and `input_injection='add'`, got 'implicit': no norm",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_by_name(name):
    settings, match = BAD[name]
    with pytest.raises(StrictDataclassError, match=match):
        LoopedGPT2Config(**settings)


@torch.no_grad()
@pytest.mark.parametrize(("injection", "is_bounded"), [("add", False), ("gated", True)])
def test_a_residual_stream_grows_unless_its_state_decays(make_lm, injection, is_bounded):
    """A state that grows never settles, so solvers take no other."""
    model = make_lm(residual_loops=True, input_injection=injection).transformer
    short, long = (model(IDS, n_loops=n, output_hidden_states=True).hidden_states[-2].norm() for n in (100, 200))
    assert (long < 1.1 * short) == is_bounded


def test_second_derivatives_are_refused(make_lm):
    model = make_lm(solver="implicit", attn_implementation="eager")
    (grad,) = torch.autograd.grad(
        model(IDS, labels=IDS, n_loops=2).loss, model.transformer.wte.weight, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
