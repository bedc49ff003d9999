"""scripts/train_lm.py: text in, a folder with model and tokenizer out; stopped runs go on bit for bit."""

import gzip
import json
import os
import re
import shutil
import signal
import sys
from contextlib import contextmanager

import pytest
import torch
import transformers
import yaml
from accelerate.state import AcceleratorState
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression, LoopedGPT2LMHeadModel
from scripts import train_lm
from scripts.training.run_folder import RunError, RunFolder
from scripts.training.text_file import TextFile
from scripts.training.text_tokenizer import build_tokenizer
from scripts.training.trainer import Trainer
from tests.programs import run_program


pytestmark = pytest.mark.filterwarnings("ignore")
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
    verbosity = transformers.logging.get_verbosity()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(output_dir, **changes):
        AcceleratorState._reset_state(reset_partial_state=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["train_lm.py", *flags(corpus, output_dir, **changes)])
            patch.setattr("scripts.training.launch.keep_freed_memory", lambda: None)
            patch.setattr("scripts.training.launch.use_all_cores", lambda n_local_processes: None)
            folder = RunFolder(output_dir)
            patch.setattr("scripts.training.launch.RunFolder", lambda path: folder)
            try:
                train_lm.main()
            finally:  # the lock of a run is closed by the end of its process
                if hasattr(folder, "_lock"):
                    folder._lock.close()

    yield run
    transformers.logging.set_verbosity(verbosity)
    AcceleratorState._reset_state(reset_partial_state=True)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stop_in_step_3(monkeypatch):
    """A context in which every run is asked to stop in its third step."""

    @contextmanager
    def stop():
        def stop_in_step_3(self, index, batch, training_step=Trainer.training_step):
            if index == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(self, index, batch)

        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr(Trainer, "training_step", stop_in_step_3)
            yield
        assert stopped.value.code == 128 + signal.SIGTERM

    return stop


def test_a_run_that_failed_before_its_first_step_leaves_nothing_to_the_next(train, corpus, tmp_path, monkeypatch):
    def fail(self, model):
        raise RunError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "prepare", fail)
        with pytest.raises(SystemExit, match="no memory"):
            train(tmp_path / "run", tokenizer="bpe:270")
    (tmp_path / "other.txt").write_text("another text " * 99)
    for name in ("run", "other"):
        train(tmp_path / name, tokenizer="bytes", train_file=tmp_path / "other.txt")
    files = [{file.name for file in (tmp_path / name / "tokenizer").iterdir()} for name in ("run", "other")]
    assert files[0] == files[1]
    vocabularies = [build_tokenizer(str(tmp_path / name), None).get_vocab() for name in ("run", "other")]
    assert vocabularies[0] == vocabularies[1]


def test_a_stopped_run_goes_on_bit_for_bit(train, stop_in_step_3, corpus, tmp_path, assert_same_bits, log_of):
    settings = {"validation_file": corpus / "train.txt", "tokenizer": "bpe:270", "average_decay": 0.5}
    train(tmp_path / "whole", **settings)
    with stop_in_step_3():
        train(tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    train(tmp_path / "stopped", **settings)
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")
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


def test_two_processes_train_the_same_model(train, corpus, tmp_path, weights, log_of):
    settings = {"train_file": corpus / "train.jsonl", "text_column": "body", "exit_gate": True}
    train(tmp_path / "one", **settings)
    result = run_program(["scripts/train_lm.py", *flags(corpus, tmp_path / "two", **settings)], n_processes=2)
    assert result.returncode == 0, result.stderr
    assert "Training on 2 process(es)" in result.stdout
    for first, second in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert first == pytest.approx(second, rel=1e-3)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if not name.endswith("c_attn.bias"):  # no attention depends on the keys' bias: Adam follows its round-off
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


STILL = {"max_steps": 1, "learning_rate": 0, "muon_learning_rate": 0, "loop_window": None}
OWN_SIZES = dict.fromkeys(("n_layer", "n_prelude", "n_embd", "n_head", "n_loops"))  # left out


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Folder of a GPT-2 with a tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    sizes = {"vocab_size": 300, "n_positions": 12, "n_embd": 16, "n_head": 2, "n_layer": 5}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).half().save_pretrained(folder)
    build_tokenizer("bytes", None).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def looped(tmp_path_factory, corpus):
    """Folder of a looped language model of odd sizes with a tokenizer."""
    folder = tmp_path_factory.mktemp("looped")
    sizes = {"n_layer": 2, "n_prelude": 1, "n_coda": 1, "n_embd": 24, "n_head": 3, "n_inner": 20, "n_positions": 20}
    changes = {"n_loops": 2, "input_injection": "multiply", "vocab_size": 270, "initializer_range": 0.3}
    model = LoopedGPT2LMHeadModel(LoopedGPT2Config(**sizes, **changes))
    model.generation_config.n_loops = 2
    model.save_pretrained(folder)
    build_tokenizer("bpe:265", TextFile(corpus / "train.txt", "text")).save_pretrained(folder)
    return folder


def test_it_starts_from_a_gpt2(train, gpt2, tmp_path):
    train(tmp_path / "run", **OWN_SIZES | STILL | {"gpt2": gpt2, "n_prelude": 1, "n_coda": 1, "n_loops": 3})
    model = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "run")
    assert (model.config.n_prelude, model.config.n_layer, model.config.n_coda, model.config.n_loops) == (1, 3, 1, 3)
    assert model.dtype == torch.float32  # half of a weight is not trained
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 1  # of the tokenizer
    ids = torch.tensor([[5, 7, 11]])
    expected = GPT2LMHeadModel.from_pretrained(gpt2, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(model(ids, n_loops=1).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_loops_stand_for_blocks_of_a_gpt2(train, gpt2, tmp_path):
    parts = {"n_prelude": 1, "n_coda": 1, "n_loops": 3, "adapter_rank": 16}
    train(tmp_path / "run", **OWN_SIZES | STILL | {"gpt2": gpt2, **parts})
    model = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "run")
    assert (model.config.n_layer, model.config.n_adapters, model.config.input_injection) == (1, 3, "none")
    ids = torch.tensor([[5, 7, 11]])
    expected = GPT2LMHeadModel.from_pretrained(gpt2, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_it_starts_from_a_looped_model_and_keeps_all_of_it(train, looped, tmp_path, assert_same_bits):
    train(tmp_path / "run", **OWN_SIZES | STILL | {"initial_model": looped, "n_loops": 5, "n_positions": None})
    assert_same_bits(looped, tmp_path / "run")
    old, new = (LoopedGPT2LMHeadModel.from_pretrained(path) for path in (looped, tmp_path / "run"))
    changed = {name for name, value in old.config.to_dict().items() if new.config.to_dict()[name] != value}
    assert changed - {"_name_or_path", "bos_token_id", "eos_token_id", "pad_token_id"} == {"n_loops"}
    assert (new.config.n_loops, new.generation_config.n_loops) == (5, 5)
    tokenizers = [AutoTokenizer.from_pretrained(path, config=old.config) for path in (looped, tmp_path / "run")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe["n_layer"], recipe["n_head"], recipe["n_positions"]) == (2, 3, 20)


def test_a_second_stage_learns_on_from_the_first_and_goes_on_when_stopped(
    train, stop_in_step_3, tmp_path, assert_same_bits, log_of
):
    train(tmp_path / "first", max_steps=20)
    settings = OWN_SIZES | {"initial_model": tmp_path / "first", "n_loops_min": None, "n_loops_start": None}
    train(tmp_path / "second", **settings)
    losses = [line["loss"] for name in ("first", "second") for line in log_of(tmp_path / name) if "loss" in line]
    assert losses[10] < losses[0] - 0.5
    with stop_in_step_3():
        train(tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    train(tmp_path / "stopped", **settings)
    assert_same_bits(tmp_path / "second", tmp_path / "stopped")


def test_a_run_goes_on_with_the_same_text_wherever_it_lies(train, stop_in_step_3, corpus, tmp_path, assert_same_bits):
    files = {"train_file": "train.txt", "validation_file": "held_out.txt"}
    for name in files.values():
        shutil.copy(corpus / "train.txt", tmp_path / name)
    settings = {field: tmp_path / name for field, name in files.items()}
    train(tmp_path / "whole", **settings)

    with stop_in_step_3():
        train(tmp_path / "run", **settings)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for field, name in files.items():  # another text under the same name
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("plus", "and"))
        with pytest.raises(SystemExit, match=f"`{field}` .*{name} holds another text than the run in .* started with"):
            train(tmp_path / "run", **settings)
        (tmp_path / name).write_text(text)
    assert before == {path: path.read_bytes() for path in before}
    (tmp_path / "moved.md.gz").write_bytes(gzip.compress((tmp_path / "train.txt").read_bytes()))
    (tmp_path / "train.txt").unlink()
    (tmp_path / "held_out.txt").rename(tmp_path / "elsewhere.txt")
    train(tmp_path / "run", train_file=tmp_path / "moved.md.gz", validation_file=tmp_path / "elsewhere.txt")
    assert_same_bits(tmp_path / "whole", tmp_path / "run")


def test_a_run_of_an_older_version_goes_on(train, tmp_path):
    train(tmp_path / "run")
    path = tmp_path / "run" / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for name in ("train_sha256", "validation_sha256", "initial_model"):
        del recipe[name]
    path.write_text(yaml.safe_dump(recipe))
    (tmp_path / "run" / "model.safetensors").unlink()  # not finished
    train(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_rows_without_text_are_counted_in_the_log(train, tmp_path, log_of):
    rows = [{"text": "a text of some words"}, {"text": None}, {"text": 3}, {"title": "none"}]
    (tmp_path / "c.ndjson.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows * 9)).encode()))
    train(tmp_path / "run", train_file=tmp_path / "c.ndjson.gz")
    assert [line["rows_without_text"] for line in log_of(tmp_path / "run")] == [27, 27, 27]


BAD = {
    "missing file": ({"train_file": "nowhere.txt"}, "`train_file` .*nowhere.txt does not exist: give a file of text"),
    "pattern": ({"train_file": "*.txt"}, "`train_file` .* does not exist"),
    "folder": ({"train_file": "."}, "`train_file` .* is no regular file"),
    "no name": ({"train_file": ""}, "`train_file` must be printable text, got ''"),
    "missing held-out file": ({"validation_file": "nowhere.txt"}, "`validation_file` .*nowhere.txt does not exist"),
    "table": ({"train_file": "table.csv"}, "`train_file` .*table.csv is a table: write its column"),
    "encoding": ({"train_file": "utf16.txt"}, "utf16.txt is not UTF-8, it holds the byte 0xff: give UTF-8"),
    "held-out encoding": ({"validation_file": "utf16.txt"}, "utf16.txt is not UTF-8"),
    "empty": ({"train_file": "empty.txt"}, "empty.txt must hold at least 12 tokens, .* got 0: give more text"),
    "empty rows": ({"train_file": "empty.txt", "tokenizer": "bpe:300"}, "must hold at least 12 tokens, .* got 0"),
    "short held-out text": ({"validation_file": "short.txt"}, "short.txt must hold at least 12 tokens, .* got 5:"),
    "column": (
        {"train_file": "train.jsonl", "text_column": "title"},
        "`text_column` must be a field .*'title' holds none in",
    ),
    "short text": ({"n_positions": 5000}, r"must hold at least 5000 tokens, one block of `n_positions`, got \d+:"),
    "tokenizer": ({"tokenizer": "bpe:9"}, "`tokenizer` must be bytes, bpe:N with N >= 257"),
    "tokenizer folder": ({"tokenizer": "."}, "`tokenizer` .* cannot be loaded"),
    "missing tokenizer": ({"tokenizer": "./nowhere"}, "`tokenizer` ./nowhere cannot be loaded: there is no folder"),
    "one position": ({"n_positions": 1}, "`n_positions` must be >= 2, got 1"),
    "loops": ({"n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "window": ({"loop_window": 4}, "`loop_window` must be in 1 ... `n_loops` = 3, got 4"),
    "steps": ({"max_steps": 0}, "`max_steps` must be >= 1, got 0"),
    "rate": ({"learning_rate": -1}, "`learning_rate` must be a finite number >= 0, got -1"),
    "batch": ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
    "negative batch": ({"batch_size": -4}, "`batch_size` must be >= 1, got -4"),
    "warm-up": ({"warmup_steps": 7}, "`warmup_steps` . `decay_steps` must be <= `max_steps` = 6, got 7 . 0"),
    "evaluation": ({"eval_every": -1}, "`eval_every` must be >= 0, got -1"),
    "window without injection": ({"input_injection": "none"}, "`loop_window` must be left out with"),
    "injection": ({"input_injection": "sum"}, "`input_injection` must be one of .* got 'sum'"),
    "prelude": ({"n_prelude": -1}, "`n_prelude` must be an integer >= 0, got -1"),
    "heads": ({"n_head": 3}, "`n_embd` must be a multiple of `n_head`, got 16 and 3"),
    "memory": ({"n_embd": 10**12, "n_head": 1}, "needs at least .* GiB of memory"),
    "unknown field": ({"n_loop": 3}, "unknown field `n_loop`, did you mean `n_loops`?"),
    "missing gpt2": ({"gpt2": "./nowhere"}, "`gpt2` ./nowhere cannot be the start: there is no folder ./nowhere"),
    "missing model": ({"initial_model": "./nowhere"}, "`initial_model` ./nowhere .* there is no folder ./nowhere"),
    "model of other sizes": ({"initial_model": "looped", "n_layer": 4}, "`n_layer` is 2 in .*: leave it out, got 4"),
    "two starts": ({"initial_model": "looped", "gpt2": "gpt2"}, "`gpt2` and `initial_model` exclude each other"),
}
FROM_MODELS = {
    "width": ({"initial_model": "looped", "n_embd": 16}, "`n_embd` is 24 in .*: leave it out, got 16"),
    "coda": ({"initial_model": "looped", "n_coda": 0}, "`n_coda` is 1 in .*: leave it out, got 0"),
    "injection": ({"initial_model": "looped", "input_injection": "add"}, "`input_injection` is multiply in"),
    "positions": ({"initial_model": "looped", "n_positions": 21}, "`n_positions` must be <= 20, those of .* got 21"),
    "other tokenizer": (
        {"initial_model": "looped", "tokenizer": "bytes"},
        "`tokenizer` must be left out or be that of",
    ),
    "same kind": ({"initial_model": "looped", "tokenizer": "bpe:260"}, "`tokenizer` must be left out or be that of"),
    "GPT-2": ({"initial_model": "gpt2"}, "`initial_model` .* is of type gpt2, which `gpt2` takes"),
    "looped": ({"gpt2": "looped"}, "`gpt2` .* is of type looped_gpt2, which `initial_model` takes"),
    "in context": ({"initial_model": "in_context"}, "must hold a LoopedGPT2LMHeadModel, got LoopedGPT2ForInContext"),
    "no model": ({"initial_model": "."}, "holds no config.json"),
    "other kind": ({"gpt2": "llama"}, "`gpt2` .* is of type llama"),
    "bad config": ({"gpt2": "broken"}, "`gpt2` .* cannot be the start"),
    "no weights": ({"gpt2": "empty", "tokenizer": "bytes"}, "`gpt2` .* cannot be the start"),
    "short weights": ({"gpt2": "gpt2_of_other_weights"}, "`gpt2` .* cannot be the start: mi[a-z]* keys "),
    "other weights": ({"initial_model": "swapped"}, "weights in .* are not those|.*swapped cannot be loaded"),
    "width of GPT-2": ({"gpt2": "gpt2", "n_embd": 8}, "`n_embd` is 16 in .*: leave it out, got 8"),
    "blocks of GPT-2": ({"gpt2": "gpt2", "n_prelude": 3, "n_coda": 2}, "must leave some of the 5 blocks of .* 3 . 2"),
    "shared blocks": (
        {"gpt2": "gpt2", "n_loops": 2, "adapter_rank": 2},
        "`n_loops` must divide the 5 blocks",
    ),
    "shared from nothing": ({"initial_model": "looped", "shared": "first"}, "`shared` is for blocks of a `gpt2`"),
    "positions of GPT-2": ({"gpt2": "gpt2", "n_positions": 13}, "`n_positions` must be <= 12, those of"),
    "tokens of GPT-2": (
        {"gpt2": "small", "n_positions": 8},
        "`tokenizer` must have at most the 99 tokens of .* got 259",
    ),
    "no tokenizer": ({"gpt2": "bare"}, "has no vocabulary: name another one. Give one as `tokenizer`"),
}
BAD |= {
    f"from a model: {name}": (OWN_SIZES | STILL | changes, message) for name, (changes, message) in FROM_MODELS.items()
}


@pytest.fixture(scope="module")
def material(tmp_path_factory, corpus, gpt2, looped):
    """A folder of files and models, good and bad."""
    folder = tmp_path_factory.mktemp("material")
    for path in corpus.iterdir():
        shutil.copy(path, folder)
    (folder / "table.csv").write_text("text\nsome text\n" * 99)
    (folder / "utf16.txt").write_text("some text\n" * 99, encoding="utf-16")
    (folder / "empty.txt").touch()
    (folder / "short.txt").write_text("short")
    shutil.copytree(gpt2, folder / "gpt2")
    shutil.copytree(looped, folder / "looped")
    shutil.copytree(looped, folder / "swapped")
    shutil.copytree(gpt2, folder / "gpt2_of_other_weights")
    shutil.copy(gpt2 / "model.safetensors", folder / "swapped")
    shutil.copy(looped / "model.safetensors", folder / "gpt2_of_other_weights")
    small = {"n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 12, "bos_token_id": 0, "eos_token_id": 0}
    for name, vocab_size in {"small": 99, "bare": 300}.items():
        GPT2LMHeadModel(GPT2Config(**small, vocab_size=vocab_size)).save_pretrained(folder / name)
    build_tokenizer("bytes", None).save_pretrained(folder / "small")
    config = LoopedGPT2Config(n_embd=8, n_head=2, n_dims=2, n_positions=4)
    LoopedGPT2ForInContextRegression(config).save_pretrained(folder / "in_context")
    for name, content in {
        "llama": '{"model_type": "llama"}',
        "broken": '{"model_type": "gpt2", "n_layer": "many"}',
        "empty": '{"model_type": "gpt2"}',
    }.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(content)
    return folder


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(train, material, tmp_path, name, capsys):
    changes, message = BAD[name]
    for field in {"train_file", "validation_file", "gpt2", "initial_model"} & changes.keys():
        if changes[field] and not changes[field].startswith("./"):
            changes = changes | {field: material / changes[field]}
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "run", **changes)
    said = capsys.readouterr().err
    said = (said + stopped.value.code if isinstance(stopped.value.code, str) else said).strip()
    assert re.search(message, said)
    lines = [line for line in said.splitlines() if not line.startswith("usage:")]
    assert len(lines) == 1 and lines[0].startswith("train_lm.py: error: ")
    assert not (tmp_path / "run").exists()


def test_a_corrected_command_is_taken(train, material, tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path / "run", train_file=material / "trian.txt")
    train(tmp_path / "run", train_file=material / "train.txt", max_steps=1, eval_every=0)
    assert (tmp_path / "run" / "model.safetensors").exists()
