import argparse

import numpy as np
import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.studies import chains
from scripts.studies.chains import accuracy_by_hops, compare_depths, make_runs, settle
from tasks.sequences.pointer_chains import PointerChains


SIZES = {"max_steps": 1000, "batch_size": 64, "max_hops": 4, "n_prompts": 1000, "blocks": 12, "seed": 0}


def runs_for(tmp_path, **changes):
    return make_runs(argparse.Namespace(output_dir=tmp_path, **SIZES | changes))


def test_loops_grow_with_the_chains_of_one_model_alone(tmp_path):
    looped, standard = runs_for(tmp_path).values()
    for step, longest in ((0, 1), (261, 1), (262, 2), (324, 3), (386, 4), (999, 4)):
        for run in (looped, standard):
            assert run.arguments.stream.sizes_at(step) == {"max_hops": longest}
        assert looped.arguments.loops.at(step, 6, 0) == (longest + 2, None)
        assert standard.arguments.loops.at(step, 1, 0) == (1, None)
    assert (looped.arguments.config.n_layer, standard.arguments.config.n_layer) == (2, 12)
    recipe = chains.StudyRun.from_recipe(chains.RECIPES / "pointer_chains.yaml", tmp_path, {"seed": 0})
    assert recipe.recipe == looped.recipe


def test_the_recipe_trains(tmp_path, train_here):
    sizes = ("--max_steps=2", "--warmup_steps=0", "--decay_steps=0", "--batch_size=4", "--n_eval_prompts=4")
    assert train_here(tmp_path, f"--recipe={chains.RECIPES / 'pointer_chains.yaml'}", *sizes) == 0
    config = LoopedGPT2LMHeadModel.from_pretrained(tmp_path).config
    assert (config.vocab_size, config.n_positions) == (12, 36)  # 12 nodes: 12 pairs and 12 queries


@pytest.mark.parametrize("max_hops", [1, 11])
def test_chains_are_whole_before_half_of_the_steps(tmp_path, max_hops):
    for run in runs_for(tmp_path, max_hops=max_hops, max_steps=100).values():
        assert run.arguments.stream.sizes_at(50) == {"max_hops": max_hops}


@pytest.fixture
def compared(tmp_path):
    """What is measured of models that have learned nothing, of one prompt and of many."""
    sizes = argparse.Namespace(output_dir=tmp_path, **SIZES | {"max_hops": 2, "n_prompts": 30, "blocks": 1})
    runs = make_runs(sizes)
    models = {}
    for name, run in runs.items():
        run.folder.mkdir()
        (run.folder / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
        models[name] = run.arguments.objective.model_class(run.arguments.config).eval()

    def compare(n_prompts):
        sizes.n_prompts = n_prompts
        return compare_depths(runs, models, sizes)

    return compare, models


def test_accuracies_after_every_loop_are_those_of_so_many_loops(compared):
    compare, models = compared
    metrics = compare(30)
    # loops up to twice the longest chain, which is twice the longest in training
    assert list(metrics["looped"]["accuracy"]) == list(range(1, 9))
    assert sum(metrics["queries_by_hops"]) == 30 * 12
    assert metrics["log"]["standard"] == [{"step": 10, "loss": 1.0}]
    task = PointerChains(12, 4)
    prompts = task.sample(30, chains.make_generator("chains", 0))
    for n_loops in (1, 3, 8):
        answers = models["looped"](prompts["input_ids"], n_loops=n_loops).logits.argmax(-1).numpy()
        assert accuracy_by_hops(task, answers, prompts) == pytest.approx(metrics["looped"]["accuracy"][n_loops])
    assert accuracy_by_hops(task, prompts["labels"].numpy(), prompts) == [1] * 5


@pytest.mark.parametrize("n_prompts", [1, 30])
def test_few_queries_leave_no_empty_curve(compared, n_prompts, tmp_path, monkeypatch):
    """One prompt hardly has queries of every distance: those that it has are drawn, the mean is over them."""
    metrics = compared[0](n_prompts)
    counts, by_loop = metrics["queries_by_hops"], metrics["looped"]["accuracy"]
    drawn = []
    monkeypatch.setattr(chains.plt, "close", drawn.append)
    chains.plot_depths(metrics, tmp_path / "chains.png")
    left, middle, right = drawn[0].axes
    asked = [hops for hops, count in enumerate(counts) if count]
    labels = [int(text.get_text().split()[0]) for text in left.get_legend().get_texts()]
    assert labels
    assert set(labels) <= set(asked)
    assert middle.lines[0].get_xdata().tolist() == asked
    assert middle.lines[0].get_ydata().tolist() == [by_loop[8][hops] for hops in asked]
    n_right = [sum(np.multiply(row, counts)) for row in by_loop.values()]
    assert right.lines[0].get_ydata() == pytest.approx(np.divide(n_right, 12 * n_prompts))


def test_loops_until_settled_are_told_by_pointers_to_follow(compared):
    model = compared[1]["looped"]
    task = PointerChains(12, 4)
    prompts = task.sample(50, torch.Generator().manual_seed(0))
    hops = task.follow(prompts["input_ids"])[1][:, -1]
    used = model(prompts["input_ids"], n_loops=8, exit_tolerance=chains.TOLERANCE, logits_to_keep=1).n_loops_used
    rows = settle(model, task, prompts, 8)
    assert [row["hops"] for row in rows] == sorted(set(hops.tolist()))
    for row in rows:
        assert row["loops"] == pytest.approx(used[hops == row["hops"]].float().mean().item())
        assert 0 <= row["accuracy"] <= 1
