import json
import sys

import pytest
from matplotlib.image import imread

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts import chain_experiment
from scripts.studies.chains import accuracy_by_hops
from tasks.sequences.pointer_chains import PointerChains
from tasks.streams import make_generator


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the program; its trainings leave models that have learned nothing."""
    trained = []

    def leave_model(run):
        trained.append(run.folder.name)
        run.arguments.objective.model_class(run.arguments.config).save_pretrained(run.folder)
        (run.folder / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n')

    def run(*flags):
        settings = ["--max_steps", "10", "--batch_size", "2", "--n_prompts", "30", "--blocks", "1", "--max_hops", "2"]
        monkeypatch.setattr(sys, "argv", ["chain_experiment.py", "--output_dir", str(tmp_path), *settings, *flags])
        chain_experiment.main()
        return trained

    monkeypatch.setattr(chain_experiment, "train", leave_model)
    return run


def test_it_leaves_metrics_a_picture_and_the_model_and_goes_on(run, tmp_path, monkeypatch):
    assert run() == ["looped", "standard"]
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert metrics["settings"]["max_hops"] == metrics["max_hops_trained"] == 2
    assert list(metrics["log"]) == ["looped", "standard"]
    assert imread(tmp_path / "chains.png").shape[2] == 4  # a picture: others test what it shows
    model = LoopedGPT2LMHeadModel.from_pretrained(tmp_path)
    task = PointerChains(12, 4)
    prompts = task.sample(30, make_generator("chains", 0))
    answers = model(prompts["input_ids"], n_loops=3).logits.argmax(-1).numpy()
    assert accuracy_by_hops(task, answers, prompts) == pytest.approx(metrics["looped"]["accuracy"]["3"])
    # the same command goes on, here with both trained, and one of other settings is refused
    monkeypatch.setattr(chain_experiment, "train", lambda run: None)
    run()
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["looped"]["accuracy"] == metrics["looped"]["accuracy"]
    with pytest.raises(SystemExit, match=r"results of other settings \(seed 0 -> 1\)"):
        run("--seed", "1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max_hops", "12"), "`max_hops` must be in 1 ... `n_nodes` - 1 = 11, got 12"),
        (("--max_steps", "0"), "`max_steps` must be >= 1, got 0"),
        (("--batch_size", "0"), "`batch_size` must be >= 1"),
        (("--seed", "9" * 20), "`seed` must be"),
    ],
)
def test_bad_flags_are_refused(run, flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
