"""The time that adaptive loops save on a trained model, and the error that they add."""

import statistics

import torch

from scripts.benchmarks.timing import Rows, time_in_turns
from tasks import Task
from tasks.streams import make_generator


TOLERANCES = (0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01)
LONG_LOOPS = 100


@torch.no_grad()
def benchmark_adaptive_loops(model: torch.nn.Module, task: Task, device: torch.device, repeats: int) -> Rows:
    """Seconds, loops and error at the last point of a trained model by `exit_tolerance`, on 256 prompts."""
    n_points = (model.config.n_positions + 1) // 2
    prompts = task.sample(256, make_generator("evaluation", 1), n_points=n_points)
    xs, ys = prompts["xs"].to(device), prompts["ys"].to(device)
    calls = {f"{n} loops": {"n_loops": n} for n in (model.config.n_loops, LONG_LOOPS)}
    for n in (model.config.n_loops, LONG_LOOPS):
        calls |= {f"at most {n}, tolerance {t}": {"n_loops": n, "exit_tolerance": t} for t in TOLERANCES}
    rows: Rows = {}
    for name, call in calls.items():
        outputs = model(xs, ys, **call)
        used = outputs.n_loops_used.float().mean().item() if "exit_tolerance" in call else call["n_loops"]
        errors = task.score(outputs.predictions.cpu().numpy(), prompts)
        rows[name] = {"mean_loops": used, "error": errors[:, -1].mean().item()}
    steps = {name: lambda call=call: model(xs, ys, **call) for name, call in calls.items()}
    for name, seconds in time_in_turns(steps, device, range(repeats)).items():
        rows[name]["median"] = statistics.median(seconds)
    return rows
