"""A problem of a sequence task: the model's answer after every loop, and where it would stop by itself."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel
from scripts.common.model_loading import load_model
from scripts.demo_page.figures import finish, start_figure
from scripts.demo_page.shown_model import ShownModel, say_loops
from scripts.evaluation.evaluated_task import task_for
from tasks.sequences.common import SequenceTask
from tasks.sequences.rows import ABSENT
from tasks.streams import RowLoops, make_generator


TIMES_NEEDED = 3  # loops shown, as a multiple of those that a problem needs
LONGEST = 60  # of the problems that the page takes, in the unit of their task


@dataclass(frozen=True, eq=False)
class Solver:
    """
    A model of a sequence task, and the longest problems of it that the model and the page take.

    Args:
        model ([`LoopedGPT2LMHeadModel`]), task ([`SequenceTask`]):
            The model, and its task with this length.
        trained_length (`int`):
            Longest problem of its training.
        row_loops ([`RowLoops`]):
            What loops a problem needs.
    """

    model: LoopedGPT2LMHeadModel
    task: SequenceTask
    trained_length: int
    row_loops: RowLoops

    @classmethod
    def load(cls, shown: ShownModel) -> "Solver":
        """Load a model; raises `ValueError` where it cannot be, or is not of its task."""
        model = load_model(shown.name, LoopedGPT2LMHeadModel, "AutoModelForCausalLM")
        trained = task_for(shown.task_name, shown.settings, model.config)
        lengths = range(max(LONGEST, trained.max_length), trained.max_length - 1, -1)
        task = next(filter(None, (_task_of_length(shown, model, length) for length in lengths)))
        rate = float(shown.recipe.get("loop_rate") or 1)
        return cls(model, task, trained.max_length, RowLoops(rate))

    def example(self) -> str:
        """A problem of the longest length of training."""
        lengths = torch.tensor([self.trained_length])
        generator = make_generator("demo", 0)
        return self.task.write(self.task.draw(lengths, self.task.n_question(self.trained_length), generator)[0])

    def describe(self) -> str:
        """Return a sentence in Markdown on what may be asked."""
        return (
            f"`{self.task.name}`: trained on up to {self.trained_length} {self.task.place_name}, and this page takes "
            f"up to {self.task.max_length}."
        )


def _task_of_length(shown: ShownModel, model: LoopedGPT2LMHeadModel, max_length: int) -> SequenceTask | None:
    try:
        return task_for(shown.task_name, shown.settings | {"max_length": max_length}, model.config)
    except ValueError:  # the model has too few positions
        return None


@dataclass(frozen=True, eq=False)
class Solution:
    """
    What a model answers after each of L loops, in A symbols.

    Args:
        answers (`list[str]`):
            The answer after every loop.
        probabilities (`np.ndarray` of shape `(L,)`):
            The model's probability of it as a whole.
        of_truth (`np.ndarray` of shape `(L, A)`):
            Its probabilities of the right symbols.
        truth (`str`):
            The right answer.
        n_needed (`int`), n_used (`int`, *optional*):
            Loops that the problem needs, and loops after which the model stops by `exit_confidence`; `None` where it
            does not within L.
        confidence (`float`):
            That probability.
    """

    answers: list[str]
    probabilities: np.ndarray
    of_truth: np.ndarray
    truth: str
    n_needed: int
    n_used: int | None
    confidence: float

    def table(self) -> list[list[str]]:
        """Rows of loop, answer and its probability."""
        rows = zip(self.answers, self.probabilities, strict=True)
        return [[str(n_loops), answer, f"{share:.2f}"] for n_loops, (answer, share) in enumerate(rows, start=1)]

    def describe(self) -> str:
        """Return a sentence in Markdown on where the model stops, and what it answers there."""
        last = self.n_used or len(self.answers)
        verdict = "right" if self.answers[last - 1] == self.truth else f"wrong, it is **{self.truth}**"
        stops = "where it stops by itself" if self.n_used else "and does not stop by itself before"
        return (
            f"After **{say_loops(last)}**, {stops}, the answer is **{self.answers[last - 1]}** with probability "
            f"{self.probabilities[last - 1]:.2f}: {verdict}. The problem needs {say_loops(self.n_needed)}."
        )

    def plot(self) -> Figure:
        """Plot the probability of each right symbol after every loop, and mark the loops needed and the stop."""
        axes, n_symbols = start_figure(), self.of_truth.shape[1]
        loops = np.arange(1, len(self.answers) + 1)
        if self.n_used:
            axes.axvline(self.n_used, color="#0072B2", linewidth=1.5, label=f"stops, {self.confidence:g} sure")
        axes.axvline(self.n_needed, color="#666666", linestyle="--", linewidth=1, label="loops it needs")
        for place, shares in enumerate(self.of_truth.T):
            colour = (0.84, 0.37 + 0.5 * place / n_symbols, 0.0)  # from red to yellow
            axes.plot(loops, shares, color=colour, linewidth=2 if n_symbols == 1 else 1.2)
        axes.set(xlabel="loops", ylabel="probability of the right symbol", ylim=(-0.03, 1.03))
        axes.set_xlim(0, len(loops) + 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return finish(axes)


@torch.inference_mode()
def solve(solver: Solver, problem: str, confidence: float) -> Solution:
    """
    Ask a model for its answer after every loop, up to three times as many as the problem needs.

    Args:
        solver ([`Solver`]):
            The model.
        problem (`str`):
            What the task's `ask` takes.
        confidence (`float`):
            The probability at which the model stops by itself, in (0, 1).

    Raises:
        `ValueError`: the problem is none of the task, or longer than the page takes.
    """
    model, task, prompt = solver.model, solver.task, solver.task.ask(problem)
    inputs = {name: values for name, values in prompt.items() if name != "labels"}
    n_needed = int(solver.row_loops.needed(task.needed_loops(prompt)))
    n_loops = max(TIMES_NEEDED * n_needed, model.config.n_loops)
    places = (prompt["labels"][0] != ABSENT).nonzero()[:, 0]
    outputs = model(**inputs, n_loops=n_loops, output_loop_logits=True, logits_to_keep=places)
    by_loop = torch.cat(outputs.loop_logits).softmax(dim=-1)  # (L, A, V)
    sure, symbols = by_loop.max(dim=-1)
    answers = prompt["labels"].repeat(n_loops, 1)
    answers[:, places] = symbols
    labels = prompt["labels"][:, places]
    n_used = int(model(**inputs, n_loops=n_loops, exit_confidence=confidence).n_loops_used)
    return Solution(
        answers=task.say(answers, prompt | {"labels": prompt["labels"].expand(n_loops, -1)}),
        probabilities=sure.prod(dim=-1).numpy(),
        of_truth=by_loop.gather(2, labels.expand(n_loops, -1)[..., None])[..., 0].numpy(),
        truth=task.say(prompt["labels"], prompt)[0],
        n_needed=n_needed,
        n_used=n_used if n_used < n_loops else None,
        confidence=confidence,
    )
