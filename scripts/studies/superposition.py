"""Prompts whose examples come from two functions, and how the answers to them divide between the two."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from modeling_looped_gpt2 import LoopedGPT2Config
from scripts.evaluation.evaluated_task import settings_of, task_for
from scripts.training.objectives import OBJECTIVES
from tasks import FunctionClass
from tasks.baselines.classical import predict_chosen_ridge
from tasks.common import Prompts
from tasks.mixture import read_components
from tasks.streams import make_generator


SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of examples that are of the first function
BATCH_SIZE = 64
Pair = tuple[FunctionClass, FunctionClass]


def tasks_for(names: Sequence[str], recipe: Mapping[str, Any], config: LoopedGPT2Config) -> Pair:
    """
    Return two classes of functions in sizes that fit the model of `config`.

    Their settings are those of the `recipe` of its training, alone or in a mixture, if it holds them.

    Raises:
        `ValueError`: the model cannot read their prompts, or there is no x at which both can be asked.
    """
    mixture = settings_of(recipe, "mixture")
    own = {name: settings for name, (_, settings) in read_components(mixture).items()} if mixture else {}
    first, second = (task_for(name, own.get(name, settings_of(recipe, name)), config) for name in names)
    for task in (first, second):
        if type(task).draw_points is not FunctionClass.draw_points:
            raise ValueError(f"`tasks` must be functions of any x, got {task.name}, which draws x and y together.")
    if type(first).draw_xs is not type(second).draw_xs:
        raise ValueError(f"`tasks` must draw x alike, got {first.name} and {second.name}.")
    if first.n_points < 2:
        raise ValueError("`n_positions` of the model must be >= 3, an example and a query.")
    return first, second


def sample_superposition(pair: Pair, share: float, n_prompts: int, generator: torch.Generator) -> Prompts:
    """
    Draw prompts of a function of each class, where each example is of the first with the probability `share`.

    Returns:
        `xs` `(B, P, D)`, the examples' `ys` `(B, P)`, and `values` `(B, P, 2)`, those of both functions at every x.

    Raises:
        `ValueError`: they do not fit into memory.
    """
    first = pair[0]
    try:
        functions = [task.draw_functions(n_prompts, task.n_dims, generator) for task in pair]
        xs = first.draw_xs(n_prompts, first.n_points, first.n_dims, generator)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{n_prompts} prompts (`n_prompts`) cannot be drawn: {error}") from None
    values = torch.stack([function(xs) for function in functions], dim=2)
    ys, others = (task.observe(values[..., place], generator) for place, task in enumerate(pair))
    is_first = torch.rand(ys.shape, generator=generator, device=generator.device) < share
    return {"xs": xs, "ys": ys.where(is_first, others), "values": values}


def divide(answers: torch.Tensor, values: torch.Tensor) -> np.ndarray:
    """
    Explain answers `(B, N)` by the `values` `(B, N, 2)` of both functions, by least squares over the prompts.

    Returns:
        `np.ndarray` of shape `(N, 4)`, float64, for each of N questions: the coefficients of both functions, the
        larger of their standard errors, and the share of the mean squared answer that they explain.
    """
    values, answers = values.double().transpose(0, 1), answers.double().T.unsqueeze(2)  # (N, B, 2), (N, B, 1)
    coefficients = torch.linalg.lstsq(values, answers).solution
    rest = (answers - values @ coefficients).square().sum(dim=(1, 2))
    inverses = torch.linalg.pinv(values.mT @ values, hermitian=True)
    variances = inverses.diagonal(dim1=1, dim2=2) * (rest / (values.shape[1] - 2))[:, None]
    explained = 1 - rest / answers.square().sum(dim=(1, 2))
    columns = (coefficients.squeeze(2), variances.amax(dim=1, keepdim=True).sqrt(), explained[:, None])
    return torch.cat(columns, dim=1).numpy()


def measure_superposition(
    model: PreTrainedModel, pair: Pair, n_loops: int, n_prompts: int, seed: int
) -> dict[str, Any]:
    """
    Divide the answers of a model, and those of ridges with the smallest leave-one-out error on the same examples.

    Prompts of all shares have the same functions and inputs.

    Returns:
        `n_examples`, the numbers of examples, a list of N; `shares`, a list of S; and for `"model"` and
        `"ridge"` the columns of [`divide`] by name, each S lists of N numbers.
    """
    last = pair[0].n_points - 1
    n_examples = sorted({max(1, last * quarter // 4) for quarter in (1, 2, 3, 4)})
    divided = {"model": [], "ridge": []}
    for share in SHARES:
        prompts = sample_superposition(pair, share, n_prompts, make_generator("superposition", seed))
        xs, ys, values = prompts["xs"].double(), prompts["ys"].double(), prompts["values"][:, n_examples]
        solved = [predict_chosen_ridge(xs[:, :n], ys[:, :n], xs[:, n]) for n in n_examples]
        divided["model"].append(divide(_answers(model, prompts, n_loops)[:, n_examples], values))
        divided["ridge"].append(divide(torch.stack(solved, dim=1), values))
    names = ("first", "second", "standard_error", "explained")
    columns = {who: np.moveaxis(np.array(each), 2, 0).tolist() for who, each in divided.items()}
    named = {who: dict(zip(names, each, strict=True)) for who, each in columns.items()}
    return {"n_examples": n_examples, "shares": list(SHARES), **named}


def _answers(model: PreTrainedModel, prompts: Prompts, n_loops: int) -> torch.Tensor:
    """The model's answers `(B, P)`; raises `ValueError` where one is not finite."""
    objective = OBJECTIVES["regression"]()
    parts = zip(prompts["xs"].split(BATCH_SIZE), prompts["ys"].split(BATCH_SIZE), strict=True)
    answers = [objective.answers(model, {"xs": xs, "ys": ys}, n_loops).cpu() for xs, ys in parts]
    answers = torch.cat(answers)
    if not answers.isfinite().all():
        raise ValueError("the model's answers are not finite: give fewer loops, `n_loops`.")
    return answers


def print_superposition(record: Mapping[str, Any]):
    """Print a line for every share and number of examples."""
    settings = record["settings"]
    print("answer = a f(x) + b g(x) + rest, f of {} and g of {}".format(*settings["tasks"]))
    print(f"\n{'':>20}{'model':>26}{'ridge':>28}")
    print(f"{'examples':>10}{'of f':>8}" + f"{'a':>10}{'b':>8}{'explained':>11}" * 2)
    for place, n_examples in enumerate(record["n_examples"]):
        for number, share in enumerate(record["shares"]):
            line = f"{n_examples:>10}{share:>8}"
            for who in ("model", "ridge"):
                first, second, explained = (
                    record[who][name][number][place] for name in ("first", "second", "explained")
                )
                line += f"{first:>10.3f}{second:>8.3f}{explained:>11.3f}"
            print(line)
    largest = max(max(errors) for errors in record["model"]["standard_error"])
    print(f"{settings['n_prompts']} prompts; the model's a and b have standard errors of at most {largest:.3f}")
