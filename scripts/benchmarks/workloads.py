"""What the benchmark times: steps of the project, and the same work done with stock parts only."""

import argparse
from collections.abc import Callable
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2Model

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextRegression
from modeling_looped_gpt2.cache_looped_gpt2 import freeze
from scripts.benchmarks.generation import build_models, cases
from scripts.benchmarks.timing import Step
from scripts.common.devices import fastest_attention, has_bfloat16
from tasks import make_task
from tasks.curriculum import Schedule
from tasks.streams import Stream


N_NEW_TOKENS = 64
N_HEAD = 8


class NaiveLoop(nn.Module):
    """The looped model from stock parts only: `GPT2Model` called in a Python loop, with its default settings."""

    def __init__(self, config: LoopedGPT2Config):
        super().__init__()
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")}
        self.read_in = nn.Linear(config.n_dims, config.n_embd)
        self.transformer = GPT2Model(
            GPT2Config(vocab_size=1, eos_token_id=None, bos_token_id=None, **sizes, **no_dropout)
        )
        self.read_out = nn.Linear(config.n_embd, 1)

    def forward(self, xs: torch.Tensor, ys: torch.Tensor, n_loops: int, loop_window: int) -> torch.Tensor:
        """Predictions `(batch, loop_window, n_points)` after each of the last loops."""
        values = nn.functional.pad(ys.unsqueeze(-1), (0, xs.shape[-1] - 1))
        prompt = self.read_in(torch.stack((xs, values), dim=2).flatten(1, 2))
        state, predictions = torch.zeros_like(prompt), []
        for loop in range(n_loops):
            with torch.set_grad_enabled(loop >= n_loops - loop_window and torch.is_grad_enabled()):
                state = self.transformer(inputs_embeds=state + prompt).last_hidden_state
            if loop >= n_loops - loop_window:
                predictions.append(self.read_out(state)[:, ::2, 0])
        return torch.stack(predictions, dim=1)


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
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step():
            if is_compiled:
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                loss = model(self.xs, self.ys, labels=self.ys, n_loops=n_loops, loop_window=loop_window).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

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
