import pytest
import torch
import yaml

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.demo_page import problems
from scripts.demo_page.figures import pixels
from scripts.demo_page.shown_model import find_model
from tasks import make_task


CASES = {
    "parity": {"positions": "alternate", "max_length": 5},
    "addition": {"positions": "aligned", "max_length": 4, "max_offset": 3},
    "group_words": {"max_length": 3},
    "modular_sum": {"max_length": 3, "modulus": 30},
    "p_hop": {"max_length": 2, "n_text": 9},
}


@pytest.fixture
def load(make_config, tmp_path):
    """Load an untrained model of a task, saved with its recipe."""

    def load(name, recipe=None, **changes):
        fields = make_task(name, **CASES[name]).model_fields
        torch.manual_seed(0)
        model = LoopedGPT2LMHeadModel(make_config(**(fields | {"n_loops": 4} | changes)))
        model.save_pretrained(tmp_path / name)
        written = {"task": name, "task_settings": CASES[name]} | (recipe or {})
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(written))
        return problems.Solver.load(find_model(str(tmp_path / name)))

    return load


@pytest.mark.parametrize("name", CASES)
def test_every_loop_is_answered_as_by_a_model_that_runs_no_more(name, load):
    solver = load(name)
    assert solver.trained_length == CASES[name]["max_length"]
    assert f"`{name}`: trained on up to {solver.trained_length} {solver.task.place_name}," in solver.describe()
    problem = solver.example()
    solution = problems.solve(solver, problem, 0.9)
    prompt = solver.task.ask(problem)
    inputs = {column: values for column, values in prompt.items() if column != "labels"}
    is_answer = prompt["labels"][0] != -100
    n_loops = max(3 * int(solver.task.needed_loops(prompt)), 4)
    assert len(solution.answers) == len(solution.table()) == n_loops
    assert solution.of_truth.shape == (n_loops, is_answer.sum())
    for number in (1, 3, n_loops):
        shares = solver.model(**inputs, n_loops=number).logits[0, is_answer].softmax(dim=-1)
        answer = torch.full_like(prompt["labels"], -100)
        answer[0, is_answer] = shares.argmax(dim=-1)
        assert solution.answers[number - 1] == solver.task.say(answer, prompt)[0]
        assert solution.probabilities[number - 1] == pytest.approx(shares.amax(dim=-1).prod().item(), rel=1e-4)
        expected = shares.gather(1, prompt["labels"][0, is_answer, None])[:, 0]
        assert solution.of_truth[number - 1] == pytest.approx(expected.detach().numpy(), rel=1e-4)
    assert solution.truth == solver.task.say(prompt["labels"], prompt)[0]
    pixels(solution.plot())


def test_the_mark_is_the_first_loop_that_is_sure_enough(load):
    solver = load("parity", initializer_range=0.6)
    shares = problems.solve(solver, "01101", 0.9).probabilities
    for confidence in (shares[:5].max() - 1e-4, shares.max() - 1e-4):
        solution = problems.solve(solver, "01101", float(confidence))
        first = int((shares >= confidence).argmax()) + 1
        assert solution.n_used == (first if first < len(shares) else None)
        assert f"After **{first} loop" in solution.describe()
    solution = problems.solve(solver, "01101", 0.9999)
    assert solution.n_used is None
    assert "After **15 loops**, and does not stop by itself before, the answer is" in solution.describe()
    (axes,) = solution.plot().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["loops it needs"]


def test_a_verdict_is_the_answer_of_the_task(load):
    solver = load("addition", recipe={"loop_surplus": 2, "loop_rate": 1.5})
    solution = problems.solve(solver, "95+7", 0.9)
    assert solution.truth == "102"
    assert solution.n_needed == 5  # three digits at 1.5 loops each
    verdict = "right" if solution.answers[-1] == "102" else "wrong, it is **102**"
    assert f": {verdict}. The problem needs 5 loops." in solution.describe()


def test_the_longest_problem_is_what_positions_and_the_page_allow(load):
    assert load("parity").task.max_length == problems.LONGEST
    assert load("addition").task.max_length == 4
    assert load("addition", n_positions=14).task.max_length == 9
    assert load("group_words", n_positions=7).task.max_length == 7


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("", "must have 1 to 60 bits, got 0"),
        ("0" * 61, "must have 1 to 60 bits, got 61"),
        ("0120", "is written in 0 1, got '2' as symbol 3"),
        ("x" * 5000, "got 'x' as symbol 1"),
    ],
)
def test_what_is_no_problem_is_refused_in_one_sentence(problem, message, load):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}\.$"):
        problems.solve(load("parity"), problem, 0.9)


def test_a_model_of_other_symbols_than_its_task_is_refused(load):
    with pytest.raises(ValueError, match="`vocab_size` of the model must be 3 for parity, got 5"):
        load("parity", vocab_size=5)
