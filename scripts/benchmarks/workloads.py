"""What the benchmark times: steps of the project, and the same work done with stock parts only."""

import argparse
from collections.abc import Callable
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2Model

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression, LoopedGPT2LMHeadModel
from modeling_looped_gpt2.cache_looped_gpt2 import freeze
from scripts.benchmarks.generation import build_models, cases
from scripts.benchmarks.timing import Step
from scripts.common.devices import fastest_attention, has_bfloat16
from tasks import make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream


N_NEW_TOKENS = 64
VOCAB_SIZE = 16  # digits, letters and signs of a sequence task
N_HEAD = 8


def naive_config(config: LoopedGPT2Config) -> GPT2Config:
    """The configuration of the stock GPT-2 of these sizes, without dropout."""
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
    vocab_size = config.vocab_size or 1
    return GPT2Config(vocab_size=vocab_size, eos_token_id=None, bos_token_id=None, **sizes, **no_dropout)


class NaiveLoop(nn.Module):
    """The looped model from stock parts only: `GPT2Model` called in a Python loop, with its default settings."""

    def __init__(self, config: LoopedGPT2Config):
        super().__init__()
        self.read_in = nn.Linear(config.n_dims, config.n_embd)
        self.transformer = GPT2Model(naive_config(config))
        self.read_out = nn.Linear(config.n_embd, 1)

    def forward(self, xs: torch.Tensor, ys: torch.Tensor, n_loops: int, loop_window: int) -> torch.Tensor:
        """Predictions `(batch, loop_window, n_points)` after each of the last loops."""
        values = nn.functional.pad(ys.unsqueeze(-1), (0, xs.shape[-1] - 1))
        prompt = self.read_in(torch.stack((xs, values), dim=2).flatten(1, 2))
        states = naive_loops(self.transformer, prompt, n_loops, loop_window)
        return torch.stack([self.read_out(state)[:, ::2, 0] for state in states], dim=1)


def naive_loops(transformer: GPT2Model, prompt: torch.Tensor, n_loops: int, loop_window: int) -> list[torch.Tensor]:
    """States `(batch, tokens, n_embd)` after each of the last loops, those before them without gradient."""
    state, states = torch.zeros_like(prompt), []
    for loop in range(n_loops):
        in_window = loop >= n_loops - loop_window
        with torch.set_grad_enabled(in_window and torch.is_grad_enabled()):
            state = transformer(inputs_embeds=state + prompt).last_hidden_state
        states += [state] if in_window else []
    return states


class NaiveLanguageModel(nn.Module):
    """The looped language model from stock parts only, with its token embedding as read-out."""

    def __init__(self, config: LoopedGPT2Config):
        super().__init__()
        self.transformer = GPT2Model(naive_config(config))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, n_loops: int, loop_window: int) -> torch.Tensor:
        """The mean cross-entropy of each next token of `labels` (batch, tokens) after the last loop."""
        embedding = self.transformer.wte
        state = naive_loops(self.transformer, embedding(input_ids), n_loops, loop_window)[-1]
        logits = nn.functional.linear(state[:, :-1], embedding.weight)
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


class Workload:
    """
    The prompts of a batch of one size, and the steps that are timed on them.

    Args:
        sizes (`argparse.Namespace`):
            `batch_size`, `n_dims`, `n_points`, `n_embd`, `n_loops`, `loop_window` and `n_queries`.
        device (`torch.device`):
            Where everything runs.
    """

    def __init__(self, sizes: argparse.Namespace, device: torch.device):
        self.sizes, self.device = sizes, device
        self.task = make_task("linear_regression", n_dims=sizes.n_dims)
        self.xs, self.ys = self.prompts(sizes.batch_size)
        shape = {"n_dims": sizes.n_dims, "n_positions": 2 * sizes.n_points, "n_embd": sizes.n_embd, "n_head": N_HEAD}
        config = LoopedGPT2Config(**shape)
        self.model = LoopedGPT2ForInContextRegression(config).to(device)
        self.model.set_attn_implementation(fastest_attention(device))
        self.naive = NaiveLoop(config).to(device)
        self.precision = torch.bfloat16 if has_bfloat16(device) else torch.float32

    def prompts(self, n_prompts: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts of full length, `xs (n_prompts, n_points, n_dims)` and `ys (n_prompts, n_points)`."""
        prompts = self.task.sample(n_prompts, torch.Generator().manual_seed(0), n_points=self.sizes.n_points)
        return prompts["xs"].to(self.device), prompts["ys"].to(self.device)

    def training_steps(self, compile_mode: str | None = None, against: Callable | None = None) -> dict[str, Step]:
        """Training steps of the project, of the naive loop in float32 and of the callable `against`."""
        loops = (self.sizes.n_loops, min(self.sizes.loop_window, self.sizes.n_loops))
        steps = {"LoopedGPT2": self._training_step(self.model, *loops)}
        if compile_mode:
            compiled = LoopedGPT2ForInContextRegression(self.model.config).to(self.device)
            compiled.set_attn_implementation(fastest_attention(self.device))
            compiled.transformer.compile_loops(compile_mode)
            steps["compiled"] = self._training_step(compiled, *loops, is_compiled=True)
        optimizer = torch.optim.Adam(self.naive.parameters(), lr=1e-4)

        def naive_step():
            (self.naive(self.xs, self.ys, *loops) - self.ys.unsqueeze(1)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        steps["naive"] = naive_step
        if against:
            steps["against"] = lambda: against(self.xs, self.ys, *loops)
        return steps

    def _training_step(self, model: nn.Module, n_loops: int, loop_window: int, is_compiled: bool = False) -> Step:
        batch = {"xs": self.xs, "ys": self.ys, "labels": self.ys}
        return self._step_of(model, batch, {"n_loops": n_loops, "loop_window": loop_window}, is_compiled)

    def _step_of(self, model: nn.Module, batch: dict, loops: dict[str, int], is_compiled: bool = False) -> Step:
        """A training step of the project, in the precision that it trains in."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step():
            if is_compiled:
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                loss = model(**batch, **loops).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def language_steps(self, n_tokens: int, compile_mode: str | None = None) -> dict[str, Step]:
        """Training steps of a small language model on as many sequences of `n_tokens` as make a batch of prompts."""
        sizes = self.sizes
        n_sequences = max(1, sizes.batch_size * 2 * sizes.n_points // n_tokens)
        tokens = torch.randint(VOCAB_SIZE, (n_sequences, n_tokens), device=self.device)
        batch = {"input_ids": tokens, "labels": tokens, "use_cache": False}
        loops = {"n_loops": sizes.n_loops, "loop_window": min(sizes.loop_window, sizes.n_loops)}
        shape = {"n_positions": n_tokens, "n_embd": sizes.n_embd, "n_head": N_HEAD, "vocab_size": VOCAB_SIZE}
        config, steps = LoopedGPT2Config(**shape, position_embedding="none"), {}
        for name in ("LoopedGPT2", "compiled") if compile_mode else ("LoopedGPT2",):
            model = LoopedGPT2LMHeadModel(config).to(self.device)
            model.set_attn_implementation(fastest_attention(self.device))
            if name == "compiled":
                model.transformer.compile_loops(compile_mode)
            steps[name] = self._step_of(model, batch, loops, name == "compiled")
        naive = NaiveLanguageModel(config).to(self.device)
        optimizer = torch.optim.Adam(naive.parameters(), lr=1e-4)

        def naive_step():
            naive(tokens, tokens, **loops).backward()
            optimizer.step()
            optimizer.zero_grad()

        return steps | {"naive": naive_step}

    def predictions(self) -> dict[str, Step]:
        """Predictions at all points of the batch, in float32."""
        return {
            "LoopedGPT2": lambda: self.model(self.xs, self.ys, n_loops=self.sizes.n_loops),
            "naive": lambda: self.naive(self.xs, self.ys, self.sizes.n_loops, 1),
        }

    def queries(self) -> dict[str, Step]:
        """Many queries to the examples of one prompt, with a context and with a whole prompt per query."""
        n_loops, n_queries = self.sizes.n_loops, self.sizes.n_queries
        queries = torch.randn(1, n_queries, self.sizes.n_dims, device=self.device)
        xs, ys = self.xs[:1], self.ys[:1]

        def by_context():
            context = self.model.encode_context(xs[:, :-1], ys[:, :-1], n_loops=n_loops)
            return self.model.predict(queries, context)

        def by_prompts():
            prompts = torch.cat((xs[:, :-1].expand(n_queries, -1, -1), queries.transpose(0, 1)), dim=1)
            return self.naive(prompts, ys.expand(n_queries, -1), n_loops, 1)[:, -1, -1]

        return {"LoopedGPT2": by_context, "naive": by_prompts}

    def added_example(self) -> dict[str, Step]:
        """One more example and one query per prompt, with contexts of the other examples and with whole prompts."""
        n_loops, xs, ys = self.sizes.n_loops, self.xs, self.ys
        context = self.model.encode_context(xs[:, :-2], ys[:, :-2], n_loops=n_loops)

        def by_context():
            # frozen, so that the context is the same every time
            self.model.encode_context(xs[:, -2:-1], ys[:, -2:-1], context=freeze(context))
            return self.model.predict(xs[:, -1:], context)

        return {"LoopedGPT2": by_context, "naive": lambda: self.naive(xs, ys, n_loops, 1)}

    def generation(self) -> dict[str, Step]:
        """Tokens after a short text, with caches: by the looped model and by a stock GPT-2 with one block per loop."""
        sizes = {"n_tokens": N_NEW_TOKENS, "n_loops": self.sizes.n_loops, "n_embd": self.sizes.n_embd}
        sizes = argparse.Namespace(**sizes, vocab_size=1024, batch_size=1)
        runs = cases(*build_models(sizes, self.device), sizes)
        ours, naive = runs["looped"], runs["stock GPT-2"]
        return {"LoopedGPT2": lambda: ours(N_NEW_TOKENS), "naive": lambda: naive(N_NEW_TOKENS)}

    def stream_batches(self) -> dict[str, Step]:
        """One batch of the training stream as the trainer reads it."""
        sizes = self.sizes
        full = {"n_points": Schedule(sizes.n_points, sizes.n_points)}
        batches = iter(DataLoader(Stream(self.task, sizes.batch_size, full, seed=0).iterable(), batch_size=None))
        return {"LoopedGPT2": lambda: list(islice(batches, 1))}

    def memory(self) -> dict[str, Step]:
        """Predictions and training steps of growing loops and windows, and with activation checkpointing."""
        n_loops, window = self.sizes.n_loops, self.sizes.loop_window
        steps = {
            f"prediction, {loops} loops": torch.no_grad()(
                lambda loops=loops: self.model(self.xs, self.ys, n_loops=loops)
            )
            for loops in (n_loops, 4 * n_loops)
        }
        for loops, last in ((window, window), (n_loops, window), (n_loops, n_loops)):
            steps[f"training, last {last} of {loops} loops"] = self._training_step(self.model, loops, last)
        checkpointed = LoopedGPT2ForInContextRegression(self.model.config).to(self.device).train()
        checkpointed.set_attn_implementation(fastest_attention(self.device))
        # renamed in transformers 5.23
        enable = getattr(checkpointed, "activation_checkpointing_enable", None)
        (enable or checkpointed.gradient_checkpointing_enable)({"use_reentrant": False})
        steps[f"the same, {window} of {n_loops}, checkpointed"] = self._training_step(checkpointed, n_loops, window)
        return steps
