"""scripts/train_lm.py: text in, a folder with model and tokenizer out; stopped runs go on bit for bit."""

import json
import os
import re
import signal
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts import train_lm


SMALL = {
    "max_steps": 6,
    "batch_size": 4,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 1,
    "n_prelude": 1,
    "n_positions": 12,
    "n_loops": 3,
    "n_loops_min": 1,
    "n_loops_start": 2,
    "n_loops_interval": 2,
    "loop_window": 2,
    "save_every": 2,
    "log_every": 2,
    "eval_every": 3,
    "learning_rate": 1e-2,
    "mixed_precision": "no",  # two processes round apart in bfloat16
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    text = "".join(f"{n} plus {n + 1} is {2 * n + 1}\n" for n in range(40))
    (folder / "train.txt").write_text(text)
    (folder / "train.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in text.splitlines()))
    return folder


def flags(corpus, output_dir, **changes):
    settings = {"train_file": corpus / "train.txt", "output_dir": output_dir} | SMALL | changes
    return [str(part) for name, value in settings.items() if value is not None for part in (f"--{name}", value)]


@pytest.fixture
def train(corpus, monkeypatch):
    """Run the program in this process; what it sets for the whole process is put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(output_dir, **changes):
        AcceleratorState._reset_state(reset_partial_state=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["train_lm.py", *flags(corpus, output_dir, **changes)])
            patch.setattr(train_lm, "keep_freed_memory", lambda: None)
            patch.setattr("scripts.train.use_all_cores", lambda n_local_processes: None)
            folder = train_lm.RunFolder(output_dir)
            patch.setattr("scripts.train.RunFolder", lambda path: folder)
            try:
                train_lm.main()
            finally:  # the lock of a run is closed by the end of its process
                if hasattr(folder, "_lock"):
                    folder._lock.close()

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in lines]


@pytest.mark.filterwarnings("ignore")
def test_a_stopped_run_goes_on_bit_for_bit(train, corpus, tmp_path, weights, monkeypatch):
    settings = {"validation_file": corpus / "train.txt", "tokenizer": "bpe:270", "average_decay": 0.5}
    train(tmp_path / "whole", **settings)
    training_step = train_lm.LMTrainer.training_step

    def stop_in_step_3(self, index, batch):
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(self, index, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train_lm.LMTrainer, "training_step", stop_in_step_3)
        train(tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    train(tmp_path / "stopped", **settings)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(first[name], second[name]) for name in first)
    log = log_of(tmp_path / "whole")
    # a report is the mean since the one before, and the stopped run reported in step 3
    assert [line for line in log_of(tmp_path / "stopped") if line["step"] in (2, 6)] == [
        line for line in log if line["step"] in (2, 6)
    ]
    assert [line["n_loops"] for line in log if "n_loops" in line] == [2, 3, 3]
    losses = [line["eval_loss"] for line in log if "eval_loss" in line]
    assert losses[-1] < losses[0]
    # the folder is all that a user needs
    model = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert len(tokenizer) == model.config.vocab_size == 270
    prompt = tokenizer("3 plus", return_tensors="pt")
    n_tokens = prompt["input_ids"].shape[1] + 2
    assert model.generate(**prompt, max_new_tokens=2, n_loops=5, do_sample=False).shape[1] == n_tokens


@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_the_same_model(train, run_program, corpus, tmp_path, weights):
    settings = {"train_file": corpus / "train.jsonl", "text_column": "body", "optimizer": "adamw"}
    train(tmp_path / "one", **settings)
    result = run_program(["scripts/train_lm.py", *flags(corpus, tmp_path / "two", **settings)], n_processes=2)
    assert result.returncode == 0, result.stderr
    assert "Training on 2 process(es)" in result.stdout
    for first, second in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert first == pytest.approx(second, rel=1e-3)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if name.endswith("c_attn.bias"):  # attention does not depend on the keys' bias: Adam follows its round-off
            continue
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_it_starts_from_a_gpt2(train, tmp_path):
    sizes = {"vocab_size": 300, "n_positions": 12, "n_embd": 16, "n_head": 2, "n_layer": 5}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    gpt2.save_pretrained(tmp_path / "gpt2")
    settings = {"gpt2": tmp_path / "gpt2", "n_coda": 1, "max_steps": 1, "learning_rate": 0, "muon_learning_rate": 0}
    train(tmp_path / "looped", **settings, loop_window=None)
    model = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "looped")
    assert (model.config.n_prelude, model.config.n_layer, model.config.n_coda, model.config.n_loops) == (1, 3, 1, 3)
    ids = torch.tensor([[5, 7, 11]])
    torch.testing.assert_close(model(ids, n_loops=1).logits, gpt2.eval()(ids).logits, rtol=1e-4, atol=1e-5)


BAD = {
    "missing file": ({"train_file": "nowhere.txt"}, "nowhere.txt must be a file of text or JSON lines"),
    "column": ({"train_file": "train.jsonl", "text_column": "title"}, r"`text_column` must be a field .* got 'title'"),
    "short text": ({"n_positions": 5000}, "must hold at least 5000 tokens"),
    "tokenizer": ({"tokenizer": "bpe:9"}, "`tokenizer` must be bytes, bpe:N with N >= 257"),
    "loops": ({"n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "window": ({"loop_window": 4}, "`loop_window` must be in 1 ... `n_loops` = 3, got 4"),
    "steps": ({"max_steps": 0}, "`max_steps` must be >= 1, got 0"),
    "rate": ({"learning_rate": -1}, "`learning_rate` must be a finite number >= 0, got -1"),
    "warm-up": ({"warmup_steps": 7}, "`warmup_steps` . `decay_steps` must be <= `max_steps` = 6, got 7 . 0"),
    "evaluation": ({"eval_every": -1}, "`eval_every` must be >= 0, got -1"),
    "window without injection": ({"input_injection": "none"}, "`loop_window` must be left out with"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_is_refused(train, corpus, tmp_path, name, capsys):
    changes, message = BAD[name]
    if "train_file" in changes:
        changes = changes | {"train_file": corpus / changes["train_file"]}
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "run", **changes)
    assert re.search(message, f"{stopped.value}\n{capsys.readouterr().err}")
    assert not (tmp_path / "run" / "model.safetensors").exists()
