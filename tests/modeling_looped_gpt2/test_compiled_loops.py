"""What a loop does is compiled once, and gives what it gave before."""

import copy
import pickle

import pytest
import torch


pytestmark = pytest.mark.filterwarnings("ignore")  # of the compiler itself


def gradients(model, prompts):
    model(**prompts, loop_window=2).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def distances(found, expected):
    return {name: ((found[name] - grad).norm() / grad.norm()).item() for name, grad in expected.items()}


def test_generated_code_gives_the_same_gradients(make_model, prompts):
    model = make_model().train()
    expected, keys = gradients(model, prompts), list(model.state_dict())
    model.transformer.compile_loops()
    assert max(distances(gradients(model, prompts), expected).values()) < 1e-5
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("settings", "checkpointing"), [({}, True), ({"n_prelude": 1, "n_coda": 1, "input_injection": "multiply"}, False)]
)
def test_the_compiled_loop_gives_the_same_gradients(settings, checkpointing, make_model, prompts, graphs):
    model = make_model(**settings).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    expected = gradients(model, prompts)
    model.transformer.compile_loops()
    assert max(distances(gradients(model, prompts), expected).values()) < 1e-5
    assert graphs


def test_loops_are_compiled_once(make_model, prompts, graphs):
    """For any number of loops, prompts and points, and for every model of the configuration."""
    xs, ys = prompts["xs"], prompts["ys"]
    n_graphs = []
    for n_loops, n_points, batch_size in ((3, 5, 4), (5, 5, 4), (4, 4, 3)):
        model = make_model()
        model.transformer.compile_loops()
        part = {"xs": xs[:batch_size, :n_points], "ys": ys[:batch_size, :n_points]}
        model(**part, labels=part["ys"], n_loops=n_loops, loop_window=2).loss.backward()
        n_graphs.append(len(graphs))
    assert n_graphs[0] > 0
    assert set(n_graphs) == {n_graphs[0]}


def test_a_solver_needs_no_other_compilation(make_model, prompts, graphs):
    """Loops without gradient are compiled, once; the last is pulled through again and again and runs as it is."""
    model = make_model(solver="implicit", n_coda=1).train()
    n_graphs = []
    for n_loops in (6, 3, 9):
        found = []
        for compiles in (False, True):
            model.transformer._compile_mode = "default" if compiles else None
            model(**prompts, n_loops=n_loops).loss.backward()
            found.append({name: parameter.grad for name, parameter in model.named_parameters()})
            model.zero_grad()
        assert max(distances(*found).values()) < 1e-5
        n_graphs.append(len(graphs))
    assert n_graphs[0] > 0
    assert set(n_graphs) == {n_graphs[0]}


def test_sets_are_compiled_once(make_model, prompts, graphs):
    """For any number of examples too."""
    xs, ys = prompts["xs"], prompts["ys"]
    n_graphs = []
    for n_examples, n_loops in ((3, 3), (4, 5), (2, 4)):
        model = make_model(example_order="set").train()
        batch = {"xs": xs, "ys": ys[:, :n_examples], "labels": ys[:, n_examples:]}
        expected = gradients(model, batch | {"n_loops": n_loops})
        model.transformer.compile_loops()
        assert max(distances(gradients(model, batch | {"n_loops": n_loops}), expected).values()) < 1e-5
        n_graphs.append(len(graphs))
    assert n_graphs[0] > 0
    assert set(n_graphs) == {n_graphs[0]}


def test_a_copy_of_a_compiled_model_runs_its_own_weights(make_model, prompts, graphs):
    model = make_model()
    model.transformer.compile_loops()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        fresh = make_model()
        twin.load_state_dict({name: tensor / 2 for name, tensor in model.state_dict().items()})
        fresh.load_state_dict(twin.state_dict())
        torch.testing.assert_close(twin(**prompts).loss, fresh(**prompts).loss)


def test_a_compiled_model_still_shows_its_blocks(make_model, prompts, graphs):
    model = make_model()
    expected = model(**prompts, output_hidden_states=True).hidden_states
    model.transformer.compile_loops()
    for states, others in zip(model(**prompts, output_hidden_states=True).hidden_states, expected, strict=True):
        torch.testing.assert_close(states, others)


def test_a_compiled_model_runs_each_row_its_own_loops(make_model, prompts, graphs):
    model = make_model()
    n_loops = torch.tensor([1, 4, 2, 4])
    expected = model(prompts["xs"], prompts["ys"], n_loops=n_loops).predictions
    model.transformer.compile_loops()
    torch.testing.assert_close(model(prompts["xs"], prompts["ys"], n_loops=n_loops).predictions, expected)
