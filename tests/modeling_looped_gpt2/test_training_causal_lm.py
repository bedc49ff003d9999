"""The language model in the tools that people train and ship with."""

from pathlib import Path

import peft
import pytest
import torch
from transformers import CompileConfig, Trainer, TrainingArguments

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from tests.programs import run_program


@pytest.fixture
def ids():
    """Sequences that repeat every third token, so that the next one can be told."""
    periods = torch.randint(1, 23, (32, 3), generator=torch.Generator().manual_seed(0))
    return periods.repeat(1, 6)


@pytest.fixture
def trainer_arguments(tmp_path):
    def make(**changes):
        settings = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "logging_steps": 1}
        settings |= {"report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
        return TrainingArguments(str(tmp_path / "trainer"), **(settings | changes))

    return make


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore")
def test_trainer(make_lm, ids, trainer_arguments):
    examples = [{"input_ids": row, "labels": row} for row in ids]
    runs = {}
    for n_parts in (1, 2):  # a batch in one part or two is the same batch
        arguments = trainer_arguments(per_device_train_batch_size=8 // n_parts, gradient_accumulation_steps=n_parts)
        trainer = Trainer(make_lm(n_prelude=1), arguments, train_dataset=examples, eval_dataset=examples)
        trainer.train()
        runs[n_parts] = losses_of(trainer)
        assert trainer.evaluate()["eval_loss"] < runs[n_parts][0]
    torch.testing.assert_close(runs[1], runs[2], rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_lora_trains_generates_and_merges(make_lm, ids, batch, tmp_path):
    model = make_lm(n_coda=1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=4))
    lora.train()
    optimizer = torch.optim.AdamW((p for p in lora.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = lora(input_ids=ids, labels=ids, n_loops=3, loop_window=2).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    lora.eval()
    lora.save_pretrained(tmp_path)
    generated = lora.generate(**batch, n_loops=5, max_new_tokens=5, do_sample=False)
    merged = lora.merge_and_unload()
    assert torch.equal(merged.generate(**batch, n_loops=5, max_new_tokens=5, do_sample=False), generated)
    fresh = make_lm(n_coda=1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in fresh.named_parameters())
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path)
    assert torch.equal(loaded.generate(**batch, n_loops=5, max_new_tokens=5, do_sample=False), generated)


@pytest.mark.parametrize("loop_window", [None, 2])
def test_activation_checkpointing_changes_nothing(make_lm, ids, loop_window):
    gradients = []
    for checkpointing in (False, True):
        model = make_lm(n_prelude=1, n_layer=2, n_coda=1).train()
        if checkpointing:
            # renamed in transformers 5.23
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model(input_ids=ids, labels=ids, n_loops=4, loop_window=loop_window).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_a_fixed_depth_is_exported(make_lm, batch):
    model = make_lm(n_prelude=1)
    inputs = batch | {"n_loops": 3, "use_cache": False}
    program = torch.export.export(model, (), inputs)
    torch.testing.assert_close(program.module()(**inputs).logits, model(**inputs).logits)
    matmuls = [node for node in program.graph.nodes if "scaled_dot_product_attention" in str(node.target)]
    assert len(matmuls) == 1 + 3


@pytest.mark.filterwarnings("ignore")
def test_generation_compiles_once_for_every_depth(make_lm, batch, monkeypatch):
    compiled = []
    backend = torch._dynamo.lookup_backend("eager")
    monkeypatch.setattr(CompileConfig, "_compile_all_devices", True)  # transformers compiles on GPUs by itself
    model = make_lm(n_prelude=1)
    settings = {"max_new_tokens": 5, "do_sample": False, "cache_implementation": "static"}
    compile_config = CompileConfig(
        fullgraph=True, dynamic=False, mode=None, backend=lambda *args: compiled.append(1) or backend(*args)
    )
    for n_loops in (3, 5, 3, 5):
        expected = model.generate(**batch, max_new_tokens=5, do_sample=False, n_loops=n_loops)
        outputs = model.generate(**batch, **settings, n_loops=n_loops, compile_config=compile_config)
        assert torch.equal(outputs, expected)
    assert len(compiled) == 2


def test_sharded_over_two_processes_it_trains_the_same_model(make_lm, ids, tmp_path):
    pytest.importorskip("transformers.distributed.fsdp")
    model = make_lm(vocab_size=24, n_prelude=1, n_coda=1, loop_encoding="step", adapter_rank=2)
    model.save_pretrained(tmp_path)
    torch.save(ids, tmp_path / "ids.pt")
    program = Path(__file__).with_name("sharded_training.py")
    result = run_program([str(word) for word in (program, tmp_path, tmp_path / "sharded")], n_processes=2)
    assert result.returncode == 0, result.stderr
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    for n_loops in (2, 4, 3):
        model(ids, labels=ids, n_loops=n_loops, loop_window=2, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    sharded = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "sharded").state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(sharded[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_fsdp_and_device_plans_name_real_modules(make_lm):
    model = make_lm(n_prelude=1, n_coda=1)
    assert isinstance(model, LoopedGPT2LMHeadModel)
    names = {name for name, _ in model.transformer.named_modules()}
    for pattern in model.config.base_model_fsdp_plan:
        assert pattern.replace("*", "0") in names
    kinds = {type(module).__name__ for module in model.modules()}
    assert set(model._no_split_modules) <= kinds
