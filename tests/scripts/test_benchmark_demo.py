import re
import sys

import pytest
import torch

from scripts import benchmark_demo


@pytest.fixture
def run(tmp_path, make_model, monkeypatch, capsys):
    make_model().save_pretrained(tmp_path / "model")

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["benchmark_demo.py", "--model", str(tmp_path / "model"), *flags])
        monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
        benchmark_demo.main()
        return capsys.readouterr().out

    return run


def test_a_click_is_measured_and_adds_a_point(run, monkeypatch):
    added = []
    answer = benchmark_demo.answer_click

    def watched(model, task, curves):
        added.append(len(answer(model, task, curves).points) - len(curves.points))

    monkeypatch.setattr(benchmark_demo, "answer_click", watched)
    assert re.match(r"0\.\d+ s of processor time per click", run("--repeats", "2"))
    assert added == [1, 1, 1]  # one to warm up


@pytest.mark.parametrize("flags", [("--repeats", "0"), ("--task", "nothing"), ("--model", "runs/nothing")])
def test_what_cannot_be_measured_is_refused(run, flags):
    with pytest.raises(SystemExit) as refused:
        run(*flags)
    assert refused.value.code not in (0, None)
