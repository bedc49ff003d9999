"""Leave one table out: train a classifier in context on the other tables, then show it examples of the one left out.

    python scripts/tables.py --output_dir runs/tables

Every prompt shows `--n_points - 1` labelled rows of one table and asks for the class of one more: two of its classes,
at most `--n_dims` of its columns, standardised, in random order and sign. Half of each training batch are random
linear rules instead, without which four tables teach little. The model, logistic regression and 3 nearest neighbours
answer the same prompts of the table left out. The tables come with scikit-learn; `--openml` takes the ten data sets of
the paper's experiment from OpenML, for which a network is needed. `tables.json` holds the accuracies.

Source: Yang et al. (ICLR 2024), appendix on OpenML. There the examples at test time come from 5% of the table left out
and several accuracies are below chance; here all its rows are drawn from, and the classes are balanced.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from tqdm import tqdm

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2ForInContextClassification
from scripts.checkpoints import write_atomically
from scripts.devices import fastest_attention, has_bfloat16, prepare_device
from tasks.metrics import bootstrap_interval


OPENML_IDS = (720, 725, 737, 803, 807, 816, 819, 847, 871, 42193)  # inferred from the sizes of the authors' splits

Table = tuple[np.ndarray, np.ndarray]  # rows (n, columns) float, classes (n,) int


def bundled_tables() -> dict[str, Table]:
    """The tables that come with scikit-learn; the diabetes progression is split at its median."""
    loaded = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True)
        for name in ("iris", "wine", "breast_cancer", "digits", "diabetes")
    }
    rows, progression = loaded["diabetes"]
    return loaded | {"diabetes": (rows, (progression > np.median(progression)).astype(int))}


def openml_tables() -> dict[str, Table]:
    """The numeric columns of the paper's data sets, from OpenML."""
    tables = {}
    for number in tqdm(OPENML_IDS, desc="OpenML"):
        data = datasets.fetch_openml(data_id=number, as_frame=True)
        rows = data.data.select_dtypes("number").to_numpy(float)
        tables[data.details["name"]] = (rows, np.unique(data.target.astype(str), return_inverse=True)[1])
    return tables


def draw_prompt(table: Table, n_points: int, n_dims: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One prompt `(n_points, n_dims)`, `(n_points,)` of two classes of a table, drawn with equal chances."""
    rows, classes = table
    pair = rng.choice(np.unique(classes), 2, replace=False)
    ys = rng.integers(0, 2, n_points)
    chosen = np.empty(n_points, int)
    for number, name in enumerate(pair):
        of_class = np.flatnonzero(classes == name)
        chosen[ys == number] = rng.choice(of_class, (ys == number).sum(), replace=(ys == number).sum() > len(of_class))
    deviation = rows.std(axis=0)
    columns = rng.permutation(np.flatnonzero(deviation > 0))[:n_dims]
    values = (rows[chosen][:, columns] - rows[:, columns].mean(axis=0)) / deviation[columns]
    xs = np.zeros((n_points, n_dims))
    xs[:, : len(columns)] = values * rng.choice((-1, 1), len(columns))
    return xs, ys


def draw_rule(n_points: int, n_dims: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One prompt of a random linear rule on some of the dimensions."""
    n_used = rng.integers(1, n_dims + 1)
    xs = np.zeros((n_points, n_dims))
    xs[:, :n_used] = rng.standard_normal((n_points, n_used))
    return xs, (xs @ rng.standard_normal(n_dims) > 0).astype(int)


def stack(prompts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts to xs float32 and ys int64."""
    xs, ys = (np.stack(values) for values in zip(*prompts, strict=True))
    return torch.tensor(xs, dtype=torch.float32), torch.tensor(ys)


def train(tables: list[Table], arguments: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    """A model trained on prompts of these tables and on random rules, the learning rate falling to 0."""
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    size = (arguments.n_points, arguments.n_dims)
    config = LoopedGPT2Config(
        n_embd=arguments.n_embd,
        n_head=4,
        n_loops=arguments.n_loops,
        n_dims=arguments.n_dims,
        n_positions=2 * arguments.n_points,
        num_labels=2,
    )
    model = LoopedGPT2ForInContextClassification(config).to(device)
    model.set_attn_implementation(fastest_attention(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / arguments.n_steps)
    bar = tqdm(range(arguments.n_steps), desc="train", leave=False)
    for _ in bar:
        prompts = [draw_prompt(tables[rng.integers(len(tables))], *size, rng) for _ in range(32)]
        xs, ys = (values.to(device) for values in stack(prompts + [draw_rule(*size, rng) for _ in range(32)]))
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            loss = model(xs, ys, labels=ys).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def right_answers(model: torch.nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> dict[str, np.ndarray]:
    """Whether each predictor gives the class of the last point of each prompt, `(B,)` of 0 and 1."""
    with torch.inference_mode():
        batches = zip(xs.to(model.device).split(64), ys.to(model.device).split(64), strict=True)
        logits = [model(x, y).logits[:, -1] for x, y in batches]
    answers = {"model": torch.cat(logits).argmax(dim=1).cpu().numpy()}
    classical = {"logistic regression": LogisticRegression(), "3-nearest neighbours": KNeighborsClassifier(3)}
    for name, predictor in classical.items():
        answers[name] = np.array(
            [predictor.fit(x[:-1], y[:-1]).predict(x[-1:])[0] for x, y in zip(xs.numpy(), ys.numpy(), strict=True)]
        )
    return {name: (answer == ys[:, -1].numpy()).astype(float) for name, answer in answers.items()}


def main():
    """Leave each table out in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder tables.json is written to.")
    parser.add_argument("--openml", action="store_true", help="The paper's data sets instead of the bundled ones.")
    counts = {"n_steps": 500, "n_points": 41, "n_dims": 20, "n_loops": 6, "n_embd": 128, "n_prompts": 500, "seed": 1}
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    arguments = parser.parse_args()
    for name in counts:
        if getattr(arguments, name) < (10 if name == "n_points" else 1):
            parser.error(f"`{name}` must be >= {10 if name == 'n_points' else 1}, got {getattr(arguments, name)}")
    try:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        tables = openml_tables() if arguments.openml else bundled_tables()
    except OSError as error:
        sys.exit(f"tables.py: error: {error}")
    warnings.simplefilter("ignore")  # a prompt whose examples are all of one class fits nothing
    device, record = prepare_device(), {"settings": {name: getattr(arguments, name) for name in counts}, "tables": {}}
    for left_out, table in tables.items():
        model = train([other for name, other in tables.items() if name != left_out], arguments, device)
        rng = np.random.default_rng(0)
        size = (arguments.n_points, arguments.n_dims)
        right = right_answers(model, *stack([draw_prompt(table, *size, rng) for _ in range(arguments.n_prompts)]))
        record["tables"][left_out] = {}
        for name, values in right.items():
            low, high = bootstrap_interval(values)
            entry = {"accuracy": float(values.mean()), "low": float(low), "high": float(high)}
            record["tables"][left_out][name] = entry
        write_atomically(arguments.output_dir / "tables.json", json.dumps(record, indent=1))
        shown = (f"{name} {entry['accuracy']:.3f}" for name, entry in record["tables"][left_out].items())
        print(f"{left_out:>16}: " + ", ".join(shown), flush=True)
    print(f"written to {arguments.output_dir / 'tables.json'}")


if __name__ == "__main__":
    main()
