import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2ForInContextRegression
from scripts import model_predictions
from tasks import make_task
from tasks.shifts import sample_shifted


def shifted(shift):
    return sample_shifted(make_task("linear_regression", 3), shift, 5, 7, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("shift", ["random_quadrants", "orthogonal_query"])
def test_each_query_is_answered_as_at_the_end_of_a_shorter_prompt(shift, implementation, make_model):
    model, prompts = make_model(), shifted(shift)
    model.set_attn_implementation(implementation)
    predictions = model_predictions.predict_at_queries(model, prompts, n_loops=5, batch_size=2)
    assert predictions.shape == prompts["labels"].shape
    for n in range(predictions.shape[1]):
        xs = torch.cat((prompts["xs"][:, :n], prompts["queries"][:, n : n + 1]), dim=1)
        with torch.no_grad():
            alone = model(xs, prompts["ys"][:, :n], n_loops=5).predictions[:, -1]
        torch.testing.assert_close(torch.from_numpy(predictions[:, n]), alone, rtol=1e-4, atol=1e-5)


def test_queries_that_are_the_points_give_the_plain_predictions(make_model):
    model, prompts = make_model(), shifted("scale_x_2")
    by_loop = model_predictions.predict_by_loop(model, prompts, 3, batch_size=2)
    at_queries = model_predictions.predict_at_queries(model, prompts, 3, batch_size=5)
    torch.testing.assert_close(torch.from_numpy(at_queries), torch.from_numpy(by_loop[:, -1]), rtol=1e-4, atol=1e-5)


def test_the_last_loop_is_what_a_model_answers(make_model):
    model, prompts = make_model(), shifted("scale_x_2")
    by_loop = model_predictions.predict_by_loop(model, prompts, 4, batch_size=2)
    last = model_predictions.predict_points(model, prompts, 4, batch_size=3)
    torch.testing.assert_close(torch.from_numpy(last), torch.from_numpy(by_loop[:, -1]), rtol=1e-4, atol=1e-5)


def test_the_recipe_of_a_model_and_the_model_are_read(make_model, tmp_path):
    assert model_predictions.recipe_of(str(tmp_path)) == {}
    (tmp_path / "recipe.yaml").write_text("n_points: 11\n")
    assert model_predictions.recipe_of(str(tmp_path)) == {"n_points": 11}
    make_model().save_pretrained(tmp_path)
    loaded = model_predictions.load_model(str(tmp_path), torch.device("cpu"))
    assert type(loaded).__name__ == LoopedGPT2ForInContextRegression.__name__
    assert not loaded.training


def test_what_can_only_be_a_folder_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(model_predictions.AutoModel, "from_pretrained", lambda name, **settings: asked.append(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in (str(tmp_path / "linear"), "./linear", "../linear", "runs/liner", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            model_predictions.load_model(name, torch.device("cpu"))
    assert not asked
    for name in ("owner/model", "model"):
        with pytest.raises(SystemExit):  # what the Hub would have returned is no model
            model_predictions.load_model(name, torch.device("cpu"))
    assert asked == ["owner/model", "model"]
