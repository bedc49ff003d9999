import pytest
import torch

from scripts.common.records import RecordError
from scripts.evaluation import predictions
from tasks import make_task
from tests.loopback_hub import Repository


def shifted(shift):
    task = make_task("linear_regression", n_dims=3)
    return task.shifts[shift].sample(task, 5, torch.Generator().manual_seed(0), 7)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("shift", ["random_quadrants", "orthogonal_query"])
def test_each_query_is_answered_as_at_the_end_of_a_shorter_prompt(shift, implementation, make_model):
    model, prompts = make_model(), shifted(shift)
    model.set_attn_implementation(implementation)
    answers = predictions.predict_at_queries(model, prompts, n_loops=5, batch_size=2)
    assert answers.shape == prompts["labels"].shape
    for n in range(answers.shape[1]):
        xs = torch.cat((prompts["xs"][:, :n], prompts["queries"][:, n : n + 1]), dim=1)
        with torch.no_grad():
            alone = model(xs, prompts["ys"][:, :n], n_loops=5).predictions[:, -1]
        torch.testing.assert_close(torch.from_numpy(answers[:, n]), alone, rtol=1e-4, atol=1e-5)


def test_queries_that_are_the_points_give_the_plain_predictions(make_model):
    model, prompts = make_model(), shifted("scale_x_2")
    by_loop = predictions.predict_by_loop(model, prompts, 3, batch_size=2)
    at_queries = predictions.predict_at_queries(model, prompts, 3, batch_size=5)
    torch.testing.assert_close(torch.from_numpy(at_queries), torch.from_numpy(by_loop[:, -1]), rtol=1e-4, atol=1e-5)


def test_the_last_loop_is_what_a_model_answers(make_model):
    model, prompts = make_model(), shifted("scale_x_2")
    by_loop = predictions.predict_by_loop(model, prompts, 4, batch_size=2)
    last = predictions.predict_points(model, prompts, 4, batch_size=3)
    torch.testing.assert_close(torch.from_numpy(last), torch.from_numpy(by_loop[:, -1]), rtol=1e-4, atol=1e-5)


def test_the_recipe_of_a_model_is_read(tmp_path):
    assert predictions.recipe_of(str(tmp_path)) == {}
    (tmp_path / "recipe.yaml").write_text("n_points: 11\n")
    assert predictions.recipe_of(str(tmp_path)) == {"n_points": 11}
    for content in (
        "[]",
        "n_points: many",
        "task: 3",
        "n_points: [",
        "n_points: true",
        "n_points: 0",
        "n_points: 2.5",
    ):
        (tmp_path / "recipe.yaml").write_text(content)
        with pytest.raises(RecordError, match=r"recipe\.yaml"):
            predictions.recipe_of(str(tmp_path))


def test_the_recipe_of_a_repository_is_read_at_its_revision(hub):
    looped, bare = (hub.repositories.setdefault(f"ana/{name}", Repository(False)) for name in ("looped", "bare"))
    looped.tags["v1"] = looped.commit({"recipe.yaml": b"n_points: 11\n"})
    looped.commit({"recipe.yaml": b"n_points: 21\n"})
    bare.commit({"config.json": b"{}"})
    assert predictions.recipe_of("ana/looped") == {"n_points": 21}
    assert predictions.recipe_of("ana/looped", "v1") == {"n_points": 11}
    assert predictions.recipe_of("ana/bare") == predictions.recipe_of("ana/nothing") == {}


def test_predictions_are_kept_under_all_that_they_depend_on(make_model, monkeypatch):
    model = make_model()
    before = predictions.describe(model)
    monkeypatch.setattr(predictions.transformers, "__version__", "0.0")
    assert predictions.describe(model) != before
