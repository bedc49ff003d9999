"""What a new in-context head has to say: a toy one that answers with three quantiles of y."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers.utils import ModelOutput

from modeling_looped_gpt2 import LoopedGPT2Model
from modeling_looped_gpt2.in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel, interleave


LEVELS = torch.tensor([0.1, 0.5, 0.9])


@dataclass
class QuantileOutput(ModelOutput):
    loss: torch.Tensor | None = None
    quantiles: torch.Tensor | None = None
    n_loops_used: torch.LongTensor | None = None
    loop_quantiles: torch.Tensor | None = None
    loop_hidden_states: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class QuantileHead(LoopedGPT2InContextPreTrainedModel):
    output_class = QuantileOutput
    answer_name = "quantiles"

    def __init__(self, config):
        super().__init__(config)
        self.embed_x, self.embed_y = nn.Linear(config.n_dims, config.n_embd), nn.Linear(1, config.n_embd)
        self.transformer = LoopedGPT2Model(config, add_token_embedding=False)
        self.score = nn.Linear(config.n_embd, len(LEVELS))
        self.post_init()

    def forward(
        self,
        xs,
        ys,
        labels=None,
        n_loops=None,
        loop_window=None,
        exit_tolerance=None,
        output_loop_quantiles=False,
        output_loop_hidden_states=False,
        **kwargs,
    ):
        outputs = (output_loop_quantiles, output_loop_hidden_states)
        return self._answer_prompt(xs, ys, labels, n_loops, loop_window, exit_tolerance, *outputs, **kwargs)

    def _check_ys(self, ys):
        self._check_numbers("ys", ys)

    def _check_labels(self, labels):
        self._check_numbers("labels", labels)

    def _read_in(self, xs):
        return self._check_embeds(self.embed_x(xs))

    def _embed_examples(self, xs, ys):
        return interleave(self._read_in(xs), self.embed_y(ys.unsqueeze(-1)))

    def _read_out(self, hidden_states):
        return self.score(hidden_states)

    def _compute_loss(self, loop_answers, labels):
        errors = labels[:, None, :, None] - loop_answers
        return torch.maximum(LEVELS * errors, (LEVELS - 1) * errors).mean()


@pytest.fixture
def model(make_config):
    return QuantileHead(make_config()).eval()


def test_it_has_all_that_the_heads_share(model, prompts):
    xs, ys = prompts["xs"], prompts["ys"]
    outputs = model(**prompts, loop_window=2, output_loop_quantiles=True)
    assert outputs.quantiles.shape == (4, 5, 3)
    assert outputs.loop_quantiles.shape == (4, 2, 5, 3)
    losses = [
        max(level * (label - answer), (level - 1) * (label - answer))
        for answers in outputs.loop_quantiles.unbind(1)
        for label, row in zip(prompts["labels"].flatten().tolist(), answers.flatten(0, 1).tolist(), strict=True)
        for level, answer in zip(LEVELS.tolist(), row, strict=True)
    ]
    assert outputs.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert model(xs, ys, exit_tolerance=1e-9).n_loops_used.tolist() == [4] * 4
    context = model.encode_context(xs[:, :4], ys[:, :4])
    torch.testing.assert_close(model.predict(xs[:, 4:], context), outputs.quantiles[:, 4:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.predict_at_queries(xs, ys, xs), outputs.quantiles, rtol=1e-4, atol=1e-5)


def test_its_arguments_are_named_in_errors(model, prompts):
    with pytest.raises(TypeError, match=r"`output_loop_quantile` is not .* did you mean `output_loop_quantiles`"):
        model(**prompts, output_loop_quantile=True)
    message = "`labels`, `output_loop_quantiles` and `output_loop_hidden_states` look at all loops"
    with pytest.raises(ValueError, match=message):
        model(**prompts, exit_tolerance=0.1)


@pytest.mark.parametrize("method", ["_embed_examples", "_read_out", "_compute_loss", "_check_ys", "_check_labels"])
def test_a_method_that_is_left_out_is_named(method, model, prompts):
    class Unfinished(QuantileHead):
        pass

    setattr(Unfinished, method, getattr(LoopedGPT2InContextPreTrainedModel, method))
    unfinished = Unfinished(model.config)
    with pytest.raises(NotImplementedError, match=f"Unfinished must define `{method}`"):
        unfinished(**prompts)
