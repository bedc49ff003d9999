import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression, LoopedGPT2Model


INJECTIONS = ("add", "multiply", "none")


class UnrolledRegression(nn.Module):
    """The naive twin: every loop owns its copy of the weights, the sequence is built point by point."""

    def __init__(self, model: LoopedGPT2ForInContextRegression, n_loops: int):
        super().__init__()
        backbone = model.transformer
        self.injection = model.config.input_injection
        self.read_in, self.read_out = copy.deepcopy(model.read_in), copy.deepcopy(model.read_out)
        self.loops = nn.ModuleList(
            nn.ModuleList(copy.deepcopy(part) for part in (backbone.wpe, backbone.h, backbone.ln_f))
            for _ in range(n_loops)
        )

    def forward(self, xs, ys, loop_window=None):
        n_points = xs.shape[1]
        tokens = []
        for point in range(n_points):
            tokens.append(xs[:, point])
            value = torch.zeros_like(xs[:, point])
            value[:, 0] = ys[:, point]
            tokens.append(value)
        prompt = self.read_in(torch.stack(tokens, dim=1))
        allowed = torch.ones(2 * n_points, 2 * n_points).tril().bool()
        mask = torch.zeros(1, 1, 2 * n_points, 2 * n_points).masked_fill(~allowed, torch.finfo(torch.float32).min)
        state = {"add": torch.zeros_like(prompt), "multiply": torch.ones_like(prompt), "none": prompt}[self.injection]
        window = len(self.loops) if loop_window is None else loop_window
        predictions = []
        for loop, (positions, blocks, norm) in enumerate(self.loops):
            if loop == len(self.loops) - window and self.injection != "none":
                state = state.detach()
            injected = {"add": state + prompt, "multiply": state * prompt, "none": state}[self.injection]
            state = injected + positions.weight[: 2 * n_points]
            for block in blocks:
                state = block(state, attention_mask=mask)
            state = norm(state)
            if loop >= len(self.loops) - window:
                predictions.append(self.read_out(state)[:, ::2, 0])
        return torch.stack(predictions, dim=1)

    def summed_gradients(self):
        """Gradients by the looped model's names, those of the copies added up."""
        sums = {
            f"read_{way}.{n}": p.grad
            for way in ("in", "out")
            for n, p in getattr(self, f"read_{way}").named_parameters()
        }
        for loop in self.loops:
            for part, module in zip(("wpe", "h", "ln_f"), loop, strict=True):
                for name, parameter in module.named_parameters():
                    if parameter.grad is not None:
                        key = f"transformer.{part}.{name}"
                        sums[key] = sums.get(key, 0) + parameter.grad
        return sums


def squared_error(predictions, labels):
    return (predictions - labels.unsqueeze(1)).square().mean()


def assert_same_loss_and_gradients(model, loss, twin, expected):
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize(("n_layer", "n_loops"), [(1, 4), (2, 3), (3, 1)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_looped_equals_untied_unrolled(make_model, prompts, injection, n_layer, n_loops, attention):
    model = make_model(input_injection=injection, n_layer=n_layer, n_loops=n_loops, attn_implementation=attention)
    twin = UnrolledRegression(model, n_loops)
    outputs = model(**prompts, output_loop_predictions=True)
    expected = twin(prompts["xs"], prompts["ys"])
    torch.testing.assert_close(outputs.loop_predictions, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.predictions, expected[:, -1], rtol=1e-4, atol=1e-5)
    assert_same_loss_and_gradients(model, outputs.loss, twin, squared_error(expected, prompts["labels"]))


def test_the_states_of_the_window_hold_its_predictions(make_model, prompts):
    model = make_model()
    wanted = {"output_loop_predictions": True, "output_loop_hidden_states": True}
    outputs = model(**prompts, loop_window=2, **wanted)
    assert [state.shape for state in outputs.loop_hidden_states] == [(4, 9, model.config.n_embd)] * 2
    read = torch.stack([model.read_out(state[:, ::2]).squeeze(-1) for state in outputs.loop_hidden_states], dim=1)
    assert torch.equal(read, outputs.loop_predictions)
    assert model(prompts["xs"], prompts["ys"]).loop_hidden_states is None


@pytest.mark.parametrize("injection", ["add", "multiply"])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_truncated_gradients_equal_the_detached_unroll(make_model, prompts, injection, window):
    model = make_model(input_injection=injection).train()
    twin = UnrolledRegression(model, 4)
    outputs = model(**prompts, loop_window=window, output_loop_predictions=True)
    assert outputs.loop_predictions.shape == (4, window, 5)
    expected = squared_error(twin(prompts["xs"], prompts["ys"], window), prompts["labels"])
    assert_same_loss_and_gradients(model, outputs.loss, twin, expected)


@pytest.mark.parametrize("injection", ["add", "multiply"])
def test_truncated_gradients_under_bfloat16_autocast(make_model, prompts, injection):
    model = make_model(input_injection=injection).train()
    twin = UnrolledRegression(model, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**prompts, loop_window=2)
        loss = squared_error(twin(prompts["xs"], prompts["ys"], 2).float(), prompts["labels"])
    assert outputs.predictions.dtype == torch.float32
    outputs.loss.backward()
    loss.backward()
    gradients = twin.summed_gradients()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert difference < 0.05, f"{name}: {difference:.3f}"  # eight bits, summed over loops


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of the loops before the window
def test_activation_checkpointing_keeps_the_gradients(make_model, prompts, injection, reentrant):
    window = None if injection == "none" else 2
    model = make_model(input_injection=injection).train()
    model(**prompts, loop_window=window).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    # renamed in transformers 5.23
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    model(**prompts, loop_window=window).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_every_parameter_gets_a_gradient(make_model, prompts, injection):
    model = make_model(input_injection=injection, vocab_size=50).train()
    model(**prompts, loop_window=None if injection == "none" else 1).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_activation_is_gpt2s(make_model, prompts):
    outputs, gradients = [], []
    for name in ("gelu_pytorch_tanh", "gelu_new"):
        model = make_model(activation_function=name, initializer_range=0.2).train()
        outputs.append(model(**prompts).loss)
        outputs[-1].backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    assert make_model().config.activation_function == "gelu_pytorch_tanh"


def test_predictions_are_causal(make_model, prompts):
    model = make_model()
    before = model(prompts["xs"], prompts["ys"]).predictions
    for point in range(5):
        changed = {name: prompts[name].clone() for name in ("xs", "ys")}
        changed["ys"][:, point] += 10
        changed["xs"][:, point + 1 :] += 10
        changed["ys"][:, point + 1 :] -= 10
        after = model(**changed).predictions
        assert torch.equal(after[:, : point + 1], before[:, : point + 1])
        assert point == 4 or not torch.allclose(after[:, point + 1 :], before[:, point + 1 :])


def test_the_last_value_may_be_left_out(make_model, prompts):
    model = make_model()
    full = model(prompts["xs"], prompts["ys"]).predictions
    assert torch.equal(model(prompts["xs"], prompts["ys"][:, :-1]).predictions, full)
    torch.testing.assert_close(model(prompts["xs"][:, :1], prompts["ys"][:, :0]).predictions, full[:, :1])


def test_two_calls_give_the_same_bits(make_model, prompts):
    model = make_model(resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)
    assert torch.equal(model(**prompts).predictions, model(**prompts).predictions)
    model.train()
    assert not torch.equal(model(**prompts).predictions, model(**prompts).predictions)


def test_predictions_do_not_depend_on_batch_mates(make_model, prompts):
    model = make_model()
    together = model(prompts["xs"], prompts["ys"]).predictions
    for row in range(4):
        alone = model(prompts["xs"][row : row + 1], prompts["ys"][row : row + 1]).predictions
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_n_loops_is_a_choice_of_every_call(make_model, prompts):
    model = make_model()
    by_loop = model(prompts["xs"], prompts["ys"], n_loops=100, output_loop_predictions=True).loop_predictions
    for n_loops in (1, 3, 9, 100):
        predictions = model(prompts["xs"], prompts["ys"], n_loops=n_loops).predictions
        torch.testing.assert_close(predictions, by_loop[:, n_loops - 1])
    assert model.config.n_loops == 4
    assert torch.equal(model(prompts["xs"], prompts["ys"]).predictions, by_loop[:, 3])


def test_hidden_states_and_attentions_of_every_executed_block(make_model, prompts):
    model = make_model(n_layer=2, n_loops=3, attn_implementation="eager")
    outputs = model(prompts["xs"], prompts["ys"], n_loops=5, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(4, 9, 32)] * 11
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(4, 4, 9, 9)] * 10
    assert isinstance(model(prompts["xs"], prompts["ys"], return_dict=False), tuple)


def test_backbone_takes_tokens_or_embeddings(make_config):
    model = LoopedGPT2Model(make_config(vocab_size=11)).eval()
    ids = torch.randint(0, 11, (2, 6))
    by_ids = model(input_ids=ids, output_loop_hidden_states=True, loop_window=3)
    by_embeds = model(inputs_embeds=model.get_input_embeddings()(ids))
    assert torch.equal(by_ids.last_hidden_state, by_embeds.last_hidden_state)
    assert len(by_ids.loop_hidden_states) == 3
    assert torch.equal(by_ids.loop_hidden_states[-1], by_ids.last_hidden_state)


def test_left_padding_does_not_change_the_states(make_config):
    model = LoopedGPT2Model(make_config(vocab_size=11)).eval()
    ids = torch.randint(0, 11, (2, 6))
    padded = torch.cat((torch.zeros(2, 2, dtype=torch.long), ids), dim=1)
    mask = (torch.arange(8) >= 2).long().expand(2, 8)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    states = model(input_ids=padded, attention_mask=mask, position_ids=positions).last_hidden_state[:, 2:]
    torch.testing.assert_close(states, model(input_ids=ids).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_there_is_no_token_embedding_without_vocabulary(make_config):
    assert LoopedGPT2Model(make_config()).get_input_embeddings() is None
    names = dict(LoopedGPT2ForInContextRegression(make_config(vocab_size=50)).named_parameters())
    assert not any("wte" in name for name in names)
    with pytest.raises(ValueError, match="token embedding"):
        LoopedGPT2Model(make_config())(input_ids=torch.zeros(1, 2, dtype=torch.long))


def test_parameter_counts_are_the_papers():
    counts = {}
    for name, settings in {"looped": {}, "standard": {"n_layer": 12, "n_loops": 1}}.items():
        with torch.device("meta"):
            backbone = LoopedGPT2ForInContextRegression(LoopedGPT2Config(**settings)).transformer
        counts[name] = sum(p.numel() for n, p in backbone.named_parameters() if "wpe" not in n)
        blocks = sum(p.numel() for p in backbone.h.parameters())
        assert blocks == settings.get("n_layer", 1) * 789_760
    assert round(counts["looped"] / 1e6, 2) == 0.79
    assert round(counts["standard"] / 1e6, 2) == 9.48


def test_initial_weights_follow_the_configuration(make_config):
    ranges = {"initializer_range": 0.03, "read_in_initializer_range": 0.2, "position_initializer_range": 0.07}
    config = make_config(n_embd=256, n_dims=64, n_positions=512, **ranges)
    model = LoopedGPT2ForInContextRegression(config)
    stds = {
        model.read_in.weight: 0.2,
        model.transformer.wpe.weight: 0.07,
        model.transformer.h[0].attn.c_attn.weight: 0.03,
        model.transformer.h[0].mlp.c_proj.weight: 0.03 / math.sqrt(2),
    }
    for weight, std in stds.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)


def test_loading_from_nothing_fills_every_tensor(make_config):
    config = make_config(n_layer=2)
    model = LoopedGPT2ForInContextRegression.from_pretrained(None, config=config, state_dict={})
    fresh = dict(LoopedGPT2ForInContextRegression(config).named_parameters())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert not tensor.is_meta
        assert tensor.isfinite().all()
        spread, expected = (values.std(correction=0).item() for values in (tensor, fresh[name]))
        assert spread == pytest.approx(expected, rel=0.5), name


def test_bfloat16_is_near_float32(make_model, prompts):
    model = make_model()
    exact = model(prompts["xs"], prompts["ys"]).predictions
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(prompts["xs"], prompts["ys"]).predictions
    half = model.to(torch.bfloat16)(prompts["xs"], prompts["ys"]).predictions
    for predictions in (autocast, half):
        assert (predictions.float() - exact).norm() < 0.02 * exact.norm()


BAD_CALLS = {
    "n_loops 0": ({"n_loops": 0}, "`n_loops` must be an integer >= 1, got 0"),
    "n_loops float": ({"n_loops": 2.0}, "`n_loops` must be an integer >= 1, got 2.0"),
    "n_loops bool": ({"n_loops": True}, "`n_loops` must be an integer >= 1, got True"),
    "window 0": ({"loop_window": 0}, "`loop_window` must be an integer in 1 ... `n_loops` = 4, got 0"),
    "window too long": ({"n_loops": 2, "loop_window": 3}, "`loop_window` .* `n_loops` = 2, got 3"),
    "xs 2-dimensional": ({"xs": torch.zeros(4, 3)}, r"`xs` must have shape .* got \(4, 3\)"),
    "wrong n_dims": ({"xs": torch.zeros(4, 5, 2)}, r"n_dims = 3\), .* got \(4, 5, 2\)"),
    "no prompts": ({"xs": torch.zeros(0, 5, 3), "ys": torch.zeros(0, 5)}, r"`xs` must have shape .* got \(0, 5, 3\)"),
    "numpy": ({"xs": np.zeros((4, 5, 3))}, "`xs` must be a torch.Tensor, got ndarray"),
    "list": ({"ys": [[0.0] * 5] * 4}, "`ys` must be a torch.Tensor, got list"),
    "no points": ({"xs": torch.zeros(4, 0, 3), "ys": torch.zeros(4, 0)}, r"`xs` must have shape .* got \(4, 0, 3\)"),
    "too many points": ({"xs": torch.zeros(4, 8, 3), "ys": torch.zeros(4, 8)}, "`n_positions` = 14 .* got 8"),
    "ys too short": ({"ys": torch.zeros(4, 3)}, r"`ys` must have shape \(4, 5\), .* got \(4, 3\)"),
    "ys of other batch": ({"ys": torch.zeros(3, 5)}, r"`ys` must have shape \(4, 5\), .* got \(3, 5\)"),
    "labels": ({"labels": torch.zeros(4, 4)}, r"`labels` must have shape \(4, 5\), got \(4, 4\)"),
    "integers": ({"xs": torch.zeros(4, 5, 3, dtype=torch.long)}, "`xs` must be floating point, got torch.int64"),
    "NaN in xs": ({"xs": torch.full((4, 5, 3), float("nan"))}, "`xs` must be finite"),
    "infinity in ys": ({"ys": torch.full((4, 5), float("inf"))}, "`ys` must be finite"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_refused_by_name(make_model, prompts, name):
    changes, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        make_model()(**(prompts | changes))


def test_a_window_that_would_not_train_the_read_in_is_refused(make_model, prompts):
    model = make_model(input_injection="none")
    with pytest.raises(ValueError, match=r"`loop_window` must equal `n_loops` = 4 .* got 2"):
        model(**prompts, loop_window=2)
    with torch.no_grad():
        assert model(**prompts, loop_window=2, output_loop_predictions=True).loop_predictions.shape == (4, 2, 5)


def test_backbone_refuses_bad_input(make_config):
    model = LoopedGPT2Model(make_config(vocab_size=5))
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        model()
    with pytest.raises(ValueError, match="`n_positions` is 14 tokens, got a sequence of 15"):
        model(input_ids=torch.zeros(1, 15, dtype=torch.long))
