"""The language model: its loss, its conversion from GPT-2, its blocks outside the loop, its saved folders."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel, LoopedGPT2Model


@pytest.fixture
def gpt2():
    sizes = {"vocab_size": 23, "n_positions": 40, "n_embd": 32, "n_head": 4, "n_layer": 5}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, **ids, initializer_range=0.2, layer_norm_epsilon=1e-3)).eval()


class TestLoss:
    def test_labels_are_shifted(self, make_lm, batch):
        model = make_lm()
        ids = batch["input_ids"]
        labels = ids.masked_fill(batch["attention_mask"] == 0, -100)
        outputs = model(**batch, labels=labels)
        scores = outputs.logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        expected = -scores[labels[:, 1:] != -100].mean()
        torch.testing.assert_close(outputs.loss, expected)
        halves = model(**batch, labels=labels, num_items_in_batch=2 * (labels[:, 1:] != -100).sum()).loss
        torch.testing.assert_close(halves, expected / 2)

    @pytest.mark.parametrize("n_coda", [0, 1])
    def test_a_window_scores_its_loops(self, make_lm, batch, n_coda):
        model = make_lm(n_coda=n_coda)
        inputs = batch | {"labels": batch["input_ids"], "n_loops": 5}
        outputs = model(**inputs, loop_window=3, output_loop_logits=True)
        assert len(outputs.loop_logits) == 3
        for n_loops, logits in zip((3, 4, 5), outputs.loop_logits, strict=True):
            expected = model(**batch, n_loops=n_loops).logits
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        losses = [model(**(inputs | {"n_loops": n_loops})).loss for n_loops in (3, 4, 5)]
        torch.testing.assert_close(outputs.loss, sum(losses) / 3)
        assert torch.equal(outputs.logits, outputs.loop_logits[-1])

    def test_every_parameter_gets_a_gradient(self, make_lm, batch):
        model = make_lm(n_prelude=1, n_coda=1).train()
        model(**batch, labels=batch["input_ids"], n_loops=4, loop_window=2).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_logits_to_keep(self, make_lm, batch):
        model = make_lm()
        logits = model(**batch).logits
        torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, logits[:, -2:])
        torch.testing.assert_close(model(**batch, logits_to_keep=torch.tensor([0, 3])).logits, logits[:, [0, 3]])

    def test_loops_cannot_be_looked_at_where_rows_end_apart(self, make_lm, batch):
        with pytest.raises(ValueError, match="leave out `exit_tolerance`"):
            make_lm()(**batch, exit_tolerance=0.1, output_loop_logits=True)

    def test_a_language_model_needs_a_vocabulary(self):
        with pytest.raises(ValueError, match="`vocab_size` must be an integer >= 1 for a language model, got None"):
            LoopedGPT2LMHeadModel(LoopedGPT2Config())

    def test_a_language_model_has_no_examples(self, make_lm):
        with pytest.raises(
            ValueError, match=r"`example_order` is of the in-context heads .*, got 'set': leave it out"
        ):
            make_lm(example_order="set")


class TestFromGPT2:
    @pytest.mark.parametrize(
        "changes", [{}, {"scale_attn_by_inverse_layer_idx": True}, {"tie_word_embeddings": False}]
    )
    @pytest.mark.parametrize(
        "parts",
        [
            {},
            {"prelude": [0, 1], "loop": [2], "coda": [3, 4]},
            {"prelude": [0], "loop": range(1, 5)},
            {"prelude": range(2), "coda": range(3, 5)},  # the rest is the loop
        ],
    )
    def test_all_blocks_once_are_gpt2(self, gpt2, batch, parts, changes):
        config = GPT2Config(**(gpt2.config.to_dict() | changes))
        gpt2 = GPT2LMHeadModel(config).eval()
        model = LoopedGPT2LMHeadModel.from_gpt2(gpt2, **parts).eval()
        torch.testing.assert_close(model(**batch).logits, gpt2(**batch).logits, rtol=1e-5, atol=1e-5)
        expected = gpt2.generate(**batch, max_new_tokens=5, do_sample=False, pad_token_id=0)
        assert torch.equal(model.generate(**batch, max_new_tokens=5, do_sample=False, pad_token_id=0), expected)
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in gpt2.parameters())

    def test_a_saved_gpt2_starts_a_looped_model(self, gpt2, batch, tmp_path):
        gpt2.save_pretrained(tmp_path)
        model = LoopedGPT2LMHeadModel.from_gpt2(tmp_path, prelude=[0], loop=[3, 1], coda=[2, 4], n_loops=3)
        assert model.config.num_hidden_layers == 1 + 2 * 3 + 2
        for mine, theirs in ((model.transformer.h[0], 3), (model.transformer.h[1], 1), (model.transformer.coda[1], 4)):
            for name, parameter in mine.named_parameters():
                assert torch.equal(parameter, gpt2.transformer.h[theirs].get_parameter(name))
                assert parameter is not gpt2.transformer.h[theirs].get_parameter(name)
        once = model(**batch, n_loops=1).logits
        assert not torch.allclose(model(**batch).logits, once, atol=1e-2)

    def test_every_field_of_gpt2_is_taken_over(self, gpt2):
        config = LoopedGPT2Config.from_gpt2(gpt2.config, n_layer=1, n_loops=5)
        theirs = gpt2.config.to_dict()
        kept = {name: value for name, value in config.to_dict().items() if name in theirs}
        changed = {name for name, value in kept.items() if value != theirs[name]}
        assert changed <= {"n_layer", "model_type", "architectures", "transformers_version"}
        assert config.num_hidden_layers == gpt2.config.n_layer

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"loop": [5]}, "`loop` must hold blocks 0 to 4, got"),
            ({"prelude": [-1]}, "`prelude` must hold blocks 0 to 4, got"),
            ({"loop": [0, 1.0]}, "`loop` must hold blocks 0 to 4, got"),
            ({"coda": 3}, "`coda` must hold blocks 0 to 4, got 3"),
            ({"loop": []}, "`loop` must hold at least one block, got none"),
            ({"prelude": range(5)}, "`loop` must hold at least one block, got none"),
            ({"prelude": [0, 1], "loop": range(1, 5)}, r"A block has one place in .* got \[1\] in more"),
            ({"loop": range(5), "coda": [3, 4]}, r"A block has one place in .* got \[3, 4\] in more"),
            ({"loop": [0, 1, 2, 2, 3, 4]}, r"A block has one place in .* got \[2\] in more"),
            ({"loop": [0, 4]}, r"must hold all blocks together, and \[1, 2, 3\] are in none: name them, or take"),
            ({"prelude": [0], "loop": [2], "coda": [4]}, r"must hold all blocks together, and \[1, 3\] are in none"),
            ({"n_layer": 3}, "`n_layer` follows from the model and its blocks: leave it out, got 3"),
            ({"n_embd": 64}, "`n_embd` follows from the model and its blocks: leave it out, got 64"),
        ],
    )
    def test_bad_parts_are_refused(self, gpt2, parts, message):
        with pytest.raises(ValueError, match=message):
            LoopedGPT2LMHeadModel.from_gpt2(gpt2, **parts)

    def test_blocks_taken_out_before_are_left_out(self, gpt2, batch):
        del gpt2.transformer.h[2]
        gpt2.config.n_layer = 4
        model = LoopedGPT2LMHeadModel.from_gpt2(gpt2, prelude=[0], coda=[3]).eval()
        expected = gpt2(**batch, use_cache=False).logits
        torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.filterwarnings("ignore")  # transformers reports what it does not load
    def test_a_model_of_another_type_is_refused(self, gpt2, make_lm, tmp_path):
        make_lm(n_prelude=1, n_coda=1).save_pretrained(tmp_path / "looped")
        llama = LlamaConfig(
            vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
        llama.save_pretrained(tmp_path / "llama")
        models = {
            "'looped_gpt2' of '.*looped'": str(tmp_path / "looped"),
            "'llama' of '.*llama'": tmp_path / "llama",
            "'looped_gpt2'": GPT2LMHeadModel.from_pretrained(tmp_path / "looped"),
            "'LoopedGPT2LMHeadModel'": make_lm(),
            "'GPT2Model'": gpt2.transformer,
            "'NoneType'": None,
        }
        for got, model in models.items():
            with pytest.raises(ValueError, match=f"`model` must be a `GPT2LMHeadModel` .* got the type {got}"):
                LoopedGPT2LMHeadModel.from_gpt2(model)


class TestPreludeAndCoda:
    @pytest.mark.parametrize("injection", ["add", "multiply", "none"])
    def test_the_loop_by_its_formula(self, make_lm, batch, injection):
        backbone = make_lm(n_prelude=1, n_layer=2, n_coda=1, input_injection=injection).transformer
        ids = batch["input_ids"]

        def run(blocks, hidden_states):
            mask = torch.full((7, 7), torch.finfo(torch.float32).min).triu(1)[None, None]
            for block in blocks:
                hidden_states = block(hidden_states, attention_mask=mask)
            return hidden_states

        prompt = run(backbone.prelude, backbone.wte(ids) + backbone.wpe.weight[:7])
        state = {"add": torch.zeros_like(prompt), "multiply": torch.ones_like(prompt), "none": prompt}[injection]
        for _ in range(3):
            injected = {"add": state + prompt, "multiply": state * prompt, "none": state}[injection]
            output = run(backbone.h, injected)
            state = backbone.ln_f(output)
        expected = backbone.ln_f(run(backbone.coda, output))
        torch.testing.assert_close(backbone(ids, n_loops=3).last_hidden_state, expected, rtol=1e-4, atol=1e-5)

    def test_hidden_states_and_attentions_of_every_executed_block(self, make_lm, batch):
        model = make_lm(n_prelude=1, n_layer=2, n_coda=1, attn_implementation="eager")
        outputs = model(**batch, n_loops=3, output_hidden_states=True, output_attentions=True)
        assert (len(outputs.hidden_states), len(outputs.attentions)) == (1 + 8, 8)

    def test_states_after_every_loop_need_the_whole_prompt(self, make_lm, batch):
        model = make_lm(n_coda=1)
        cache = model(**batch).cache
        with pytest.raises(ValueError, match="leave out `cache`"):
            model(input_ids=batch["input_ids"][:, :1], cache=cache, output_loop_logits=True)

    def test_depth_can_be_set_to_whole_loops_only(self):
        config = LoopedGPT2Config(n_prelude=1, n_layer=2, n_coda=1, n_loops=3)
        assert config.num_hidden_layers == 8
        config.num_hidden_layers = 12
        assert config.n_loops == 5
        with pytest.raises(ValueError, match=r"n_layer \* n_loops .* for a whole `n_loops` >= 1, got 11"):
            config.num_hidden_layers = 11

    def test_contexts_of_the_in_context_head(self, make_model, prompts):
        model = make_model(n_prelude=1, n_coda=1)
        xs, ys = prompts["xs"], prompts["ys"]
        context = model.encode_context(xs[:, :-1], ys[:, :-1], n_loops=3)
        expected = model(xs, ys, n_loops=3).predictions[:, -1:]
        torch.testing.assert_close(model.predict(xs[:, -1:], context), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_are_tied(make_lm, tmp_path):
    model = make_lm()
    assert model.lm_head.weight is model.transformer.wte.weight
    model.save_pretrained(tmp_path)
    loaded = LoopedGPT2LMHeadModel.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    loaded.resize_token_embeddings(30)
    assert loaded(torch.tensor([[29]])).logits.shape == (1, 1, 30)


def test_a_saved_folder_loads_as_model_and_as_backbone_where_the_project_is_unknown(
    make_lm, batch, tmp_path, run_isolated
):
    model = make_lm(n_prelude=1)
    model.generation_config.n_loops = 3
    model.save_pretrained(tmp_path / "saved")
    auto_map = json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_looped_gpt2.LoopedGPT2Config",
        "AutoModel": "modeling_looped_gpt2.LoopedGPT2Model",
        "AutoModelForCausalLM": "modeling_looped_gpt2_causal_lm.LoopedGPT2LMHeadModel",
    }
    expected = model.generate(**batch, max_new_tokens=4, do_sample=False)
    printed = run_isolated(f"""
import json
import torch
from transformers import AutoModel, AutoModelForCausalLM
batch = {{name: torch.tensor(values) for name, values in { ({k: v.tolist() for k, v in batch.items()})!r}.items()}}
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True)
model.save_pretrained({str(tmp_path / "again")!r})
config = json.load(open({str(tmp_path / "again" / "config.json")!r}))
assert config["auto_map"] == {auto_map!r}, config["auto_map"]
backbone = AutoModel.from_pretrained({str(tmp_path / "again")!r}, trust_remote_code=True)
assert type(backbone).__name__ == "LoopedGPT2Model"
assert torch.equal(backbone.wte.weight, model.lm_head.weight)
again = AutoModelForCausalLM.from_pretrained({str(tmp_path / "again")!r}, trust_remote_code=True)
print(again.generate(**batch, max_new_tokens=4, do_sample=False).tolist())
""")
    assert json.loads(printed.splitlines()[-1]) == expected.tolist()


def test_backbone_and_language_model_checkpoints_interchange(make_lm, tmp_path):
    model = make_lm()
    model.save_pretrained(tmp_path / "lm")
    backbone = LoopedGPT2Model.from_pretrained(tmp_path / "lm")
    assert torch.equal(backbone.wte.weight, model.lm_head.weight)
    backbone.save_pretrained(tmp_path / "backbone")
    loaded = LoopedGPT2LMHeadModel.from_pretrained(tmp_path / "backbone")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"attention_mask": torch.ones(7)}, r"`attention_mask` must be a tensor of shape \(2, 7\)"),
        ({"attention_mask": torch.ones(2, 8)}, r"`attention_mask` must be a tensor of shape \(2, 7\)"),
        ({"attention_mask": torch.ones(1, 7)}, r"`attention_mask` must be a tensor of shape \(2, 7\)"),
        ({"attention_mask": [[1] * 7] * 2}, "`attention_mask` must be a tensor"),
        ({"position_ids": torch.arange(6)[None]}, "`position_ids` must have shape"),
        ({"position_ids": torch.arange(7)}, "`position_ids` must be a `torch.LongTensor` of two dimensions"),
        ({"position_ids": torch.arange(40, 47)[None]}, r"`position_ids` must be in 0 \.\.\. 39, got 40 to 46"),
        ({"input_ids": torch.full((2, 7), 23)}, r"`input_ids` must be in 0 \.\.\. 22, got 23 to 23"),
        ({"input_ids": torch.full((2, 7), -100)}, "`input_ids` must be in 0"),
        ({"input_ids": torch.ones(2, 7)}, "`input_ids` must be a `torch.LongTensor`"),
        ({"input_ids": [[1] * 7] * 2}, "`input_ids` must be a `torch.LongTensor`"),
        ({"input_ids": torch.ones(2, 0, dtype=torch.long)}, r"`input_ids` must hold a token at least, got .*\(2, 0\)"),
        ({"input_ids": torch.ones(0, 7, dtype=torch.long)}, r"`input_ids` must hold a token at least, got .*\(0, 7\)"),
        ({"labels": torch.ones(2, 6, dtype=torch.long)}, r"`labels` must be a tensor of shape \(2, 7\), .*\(2, 6\)"),
        ({"labels": [[1] * 7] * 2}, r"`labels` must be a tensor of shape \(2, 7\), .* got list"),
        ({"labels": torch.full((2, 7), 23)}, r"`labels` must be in 0 \.\.\. 22, or -100 where .*, got 23 to 23"),
        ({"labels": torch.full((2, 7), -1)}, r"`labels` must be in 0 \.\.\. 22, or -100 where .*, got -1 to -1"),
        ({"exit_tolerance": True}, "`exit_tolerance` must be a finite number"),
    ],
)
def test_ids_masks_labels_and_positions_that_do_not_fit_are_refused(make_lm, batch, changes, match):
    with pytest.raises(ValueError, match=match):
        make_lm()(**(batch | changes))
