import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextClassification
from modeling_looped_gpt2.estimator_looped_gpt2 import InContextClassifier, InContextRegressor
from scripts.demo_page.figures import pixels
from scripts.demo_page.pasted_table import ask, read_table
from scripts.demo_page.table_answers import ClassAnswers, NumberAnswers


SIZES = {"example_order": "set", "position_embedding": "none", "n_dims": 6, "n_positions": 40, "n_loops": 3}


@pytest.fixture
def table():
    """Thirty rows of a number, a word with gaps, a number and one of three kinds of wine."""
    rng = np.random.default_rng(0)
    rows = [
        [f"{x:.3f}", rng.choice(["a", "b", ""]), f"{3 * x + 10:.3f}", ("_red", "$white$", "rosé")[number % 3]]
        for number, x in enumerate(rng.normal(size=30))
    ]
    return read_table("\n".join("\t".join(row) for row in [["x", "word", "price", "wine"], *rows]))


@pytest.fixture
def classifier(make_config):
    return LoopedGPT2ForInContextClassification(make_config(**SIZES, num_labels=4)).eval()


@pytest.fixture
def regressor(make_model):
    return make_model(**SIZES, n_quantiles=5)


def test_classes_are_told_after_every_loop_as_the_estimator_does(table, classifier):
    question = ask(table, "wine")
    answers = ClassAnswers.of(classifier, question)
    assert answers.by_loop.shape == (6, 3, 3)
    assert answers.names == ["$white$", "_red", "rosé"]
    for n_loops in (1, 3, 6):
        naive = InContextClassifier(classifier, n_loops=n_loops).fit(question.known, question.ys)
        np.testing.assert_allclose(answers.by_loop[n_loops - 1], naive.predict_proba(question.asked), atol=1e-6)
        cells = answers.table(n_loops)
        assert [row[1] for row in cells] == naive.predict(question.asked).tolist()
        n_right = sum(row[1] == row[3] for row in cells)
        assert f"**{n_right} of 3** rows held out are answered right" in answers.describe(n_loops)
    assert [row[0] for row in cells] == ["28", "29", "30"]
    assert answers.table_headers() == ["row", "answer", "probability", "truth"]
    panels = answers.plot(2).axes
    assert [list(line.get_ydata()) for line in panels[1].get_lines()[:3]] == answers.by_loop[:, 1].T.tolist()
    pixels(answers.plot(2))


def test_numbers_are_told_by_quantiles_and_judged_where_the_truth_is_known(table, regressor):
    question = ask(table, "price")
    answers = NumberAnswers.of(regressor, question)
    naive = InContextRegressor(regressor, n_loops=2).fit(question.known, question.ys)
    expected = naive.predict_quantiles(question.asked)
    np.testing.assert_allclose(answers.by_loop[1], expected, rtol=1e-5)
    off = np.abs(expected[:, 1] - question.truth).mean()
    assert f"**{off:.3g}** from the truth" in answers.describe(2)
    assert answers.table(2)[0] == ["28", *(f"{number:.4g}" for number in expected[0]), f"{question.truth[0]:.4g}"]
    pixels(answers.plot(2))
    table.loc[29, "price"] = None
    answers = NumberAnswers.of(regressor, ask(table, "price"))
    assert answers.table_headers() == ["row", "5%", "median", "95%"]
    assert len(answers.table(1)) == 1
    assert answers.describe(1) == "After **1 loop**. Trained with 3 loops."


@pytest.mark.parametrize("n_asked", [1, 4, 20])
def test_all_letters_lie_in_the_picture_whatever_is_asked(table, classifier, n_asked):
    table.loc[: n_asked - 1, "wine"] = None
    table.loc[25:, "wine"] = "a fourth one that has a long name"
    figure = ClassAnswers.of(classifier, ask(table, "wine")).plot(6)
    image = pixels(figure)
    assert len(figure.axes) == min(4, n_asked)
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 255).all()
    for axes in figure.axes:
        needed = axes.get_tightbbox()
        assert needed.x0 >= 0
        assert needed.y0 >= 0


def test_the_order_of_known_rows_changes_nothing(table, classifier):
    question = ask(table, "wine")
    answers = ClassAnswers.of(classifier, question)
    order = [*reversed(range(27)), 27, 28, 29]
    turned = ClassAnswers.of(classifier, ask(table.iloc[order].reset_index(drop=True), "wine"))
    np.testing.assert_allclose(turned.by_loop, answers.by_loop, atol=1e-5)


def test_what_a_model_does_not_take_is_said_in_a_sentence(table, classifier, regressor, make_model):
    with pytest.raises(ValueError, match="up to 4 classes apart, and the column to predict has 26 different ones"):
        ClassAnswers.of(classifier, ask(table.assign(wine=[f"note {i}" for i in range(30)]).iloc[:29], "wine"))
    with pytest.raises(ValueError, match=r"infinity in the columns \['x'\]"):
        ClassAnswers.of(classifier, ask(table.assign(x="inf"), "wine"))
    NumberAnswers.check_model("runs/tables", regressor)
    with pytest.raises(ValueError, match="runs/tables must have quantiles"):
        NumberAnswers.check_model("runs/tables", make_model(**SIZES))


def test_rows_of_nothing_and_columns_of_one_value_are_answered(table, classifier):
    table.loc[3, ["x", "word", "price", "wine"]] = None
    answers = ClassAnswers.of(classifier, ask(table.assign(x="1", word=None), "wine"))
    assert answers.rows == [4]
    assert torch.from_numpy(answers.by_loop).isfinite().all()
