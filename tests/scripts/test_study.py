import json
import sys

import pytest
import torch

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from scripts import probe, study
from scripts.training.arguments import parse_arguments
from tasks import make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", study.STUDIES)
def test_every_variant_of_every_study_can_be_trained(name, full, tmp_path):
    recipe = study.FULL if full else study.SMALL
    variants = study.STUDIES[name](full)
    assert len(variants) > 1
    for variant, overrides in variants.items():
        arguments = parse_arguments(study.flags_of(recipe, tmp_path / "run", overrides, []))
        fields = arguments.as_dict()
        assert all(fields[field] == value for field, value in overrides.items()), variant


SMALL = (
    "--n_embd 16 --n_head 2 --n_dims 2 --n_points 4 --max_steps 2 --warmup_steps 0 --decay_steps 0 --n_loops 3 "
    "--batch_size 8 --eval_every 0 --n_loops_start 2"
)


def test_one_command_trains_measures_and_draws(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(study, "STUDIES", {"injection": study.vary_injection})
    monkeypatch.setattr(sys, "argv", ["study.py", "injection", "--output_dir", str(tmp_path), *SMALL.split()])
    monkeypatch.setenv("PYTHONPATH", str(study.ROOT))
    study.main()
    record = json.loads((tmp_path / "study.json").read_text())
    assert list(record["variants"]) == ["add", "none"]
    for measured in record["variants"].values():
        assert len(measured["error_by_loop"]["error"]) == 15
        assert measured["error_by_loop"]["error"][2] == pytest.approx(measured["error_by_example"]["error"][-1])
        for curve in (measured["error_by_example"], measured["error_by_loop"]):
            assert all(low <= error <= high for error, low, high in zip(*curve.values(), strict=True))
    configs = [json.loads((tmp_path / f"variant_{i}/config.json").read_text()) for i in range(2)]
    assert [config["input_injection"] for config in configs] == ["add", "none"]
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert "5 x loops" in capfd.readouterr().out
    # the same command goes on, here with both trained, and one of other settings is refused
    monkeypatch.setattr(study, "train", lambda flags: None)
    study.main()
    assert json.loads((tmp_path / "study.json").read_text()) == record
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--max_steps", "3"])
    with pytest.raises(SystemExit, match=r"other settings \(recipes.add.max_steps 2 -> 3, recipes.no"):
        study.main()


@pytest.mark.parametrize("errors", [[0.4], [0.0, 0.0], [1.0, 0.5], [1.0, *[0.1] * 99]])
def test_every_variant_is_seen_with_its_interval(errors, tmp_path, monkeypatch):
    curve = {"error": errors, "low": [0.9 * error for error in errors], "high": [1.1 * error for error in errors]}
    variants = {f"variant {n}": {"n_loops": 1, "error_by_example": curve, "error_by_loop": curve} for n in range(2)}
    kept = []
    monkeypatch.setattr(study.plt, "close", kept.append)
    study.draw("injection", variants, tmp_path)
    for axes in kept[0].axes:
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            xs, ys = line.get_data()
            assert all(low < y < high for y in ys)
            assert len(xs) > 1 or line.get_marker() == "o"
        assert len(axes.collections) == 2  # a band or bar a variant
        assert axes.get_xscale() == ("log" if axes is kept[0].axes[1] and len(errors) > 40 else "linear")
    monkeypatch.undo()
    study.plt.close("all")


def test_a_misspelt_field_is_refused_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "loops", "--output_dir", str(tmp_path), "--n_loop", "3"])
    with pytest.raises(SystemExit) as exit:
        study.main()
    assert exit.value.code == 2
    assert "did you mean `n_loops`" in capsys.readouterr().err
    for flags in (["--recipe", "other.yaml"], ["--recipe=other.yaml"]):
        monkeypatch.setattr(sys, "argv", ["study.py", "loops", "--output_dir", str(tmp_path / "new"), *flags])
        with pytest.raises(SystemExit):
            study.main()
        assert "`recipe` is that of the study" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_pool_of_prompts_comes_again(tmp_path):
    settings = (make_task("linear_regression", n_dims=2), 4, {"n_points": Schedule(3, 3)}, 0)
    stream, endless = Stream(*settings, n_distinct_prompts=8), Stream(*settings)
    for index in range(6):
        assert torch.equal(stream.batch(index)["xs"], endless.batch(index % 2)["xs"])
    assert not torch.equal(stream.batch(0)["xs"], stream.batch(1)["xs"])
    with pytest.raises(ValueError, match="`n_distinct_prompts` must be a multiple of `batch_size` = 4, got 6"):
        Stream(*settings, n_distinct_prompts=6)


def test_a_probe_reads_what_is_there_and_nothing_else():
    states, targets = torch.randn(2, 600, 3, 8), torch.empty(2, 1, 600, 2)
    targets[:, 0] = states[:, :, 1, :2]  # the second token holds the target
    known = probe.probe(states[0], targets[0], states[1], targets[1], n_steps=300)
    unknown = probe.probe(torch.randn(600, 3, 8), targets[0], states[1], targets[1], n_steps=300)
    assert known.shape == (1,)
    assert known < 0.4 < 0.8 < unknown
    # the scale of a state is no knowledge
    scaled = probe.probe(100 * states[0] + 7, targets[0], 100 * states[1] + 7, targets[1], n_steps=300)
    torch.testing.assert_close(scaled, known, rtol=0.1, atol=0.01)


def test_the_targets_of_the_probes():
    prompts = probe.sample(5, 6, 3, 0, ones=False)
    targets = probe.targets_of(prompts, {"xty": [2, 4], "least_squares": [1, 3, 4]})
    assert [len(values) for values in targets.values()] == [2, 3]
    x, y = prompts["xs"][1], prompts["ys"][1]
    torch.testing.assert_close(targets["xty"][1, 1], x[:4].T @ y[:4] / 6)
    torch.testing.assert_close(x[:4] @ targets["least_squares"][2, 1], y[:4], rtol=1e-3, atol=1e-3)
    control = probe.sample(5, 6, 3, 0, ones=True)
    torch.testing.assert_close(control["ys"], control["xs"].sum(dim=2))


def test_probing_writes_one_error_a_block(tmp_path, monkeypatch):
    config = LoopedGPT2Config(n_embd=16, n_head=2, n_dims=3, n_positions=8, n_loops=2)
    LoopedGPT2ForInContextRegression(config).save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--output_dir", str(tmp_path), "--n_prompts", "20", "--n_steps", "2"]
    monkeypatch.setattr(sys, "argv", ["probe.py", *flags])
    probe.main()
    record = json.loads((tmp_path / "probe.json").read_text())
    assert record["prefixes"] == {"xty": [1, 2, 3, 4], "least_squares": [1, 2, 3]}
    assert {len(record[target][kind]) for target in probe.TARGETS for kind in ("probe", "control")} == {3}
    # n examples of 3 dimensions determine n / 3 of the weights' variance 1
    assert record["least_squares"]["zero"] == pytest.approx(2 / 3, abs=0.1)
    assert (tmp_path / "probe.svg").exists()
