import itertools
import time

import pytest
import torch

from scripts.benchmarks import timing
from scripts.benchmarks.printing import print_rows


CPU = torch.device("cpu")


def test_steps_take_turns():
    called = []
    steps = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds = timing.time_in_turns(steps, CPU, range(3))
    assert called == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_no_turn_begins_after_the_most_seconds():
    seconds = timing.time_in_turns({"slow": lambda: time.sleep(0.01)}, CPU, itertools.count(), most_seconds=0.05)
    assert 1 <= len(seconds["slow"]) <= 5
    assert all(value >= 0.01 for value in seconds["slow"])


def test_a_row_has_the_operations_of_a_step_and_the_span_of_its_seconds():
    left, right = torch.ones(10, 20), torch.ones(20, 30)
    row = timing.benchmark_steps({"matmul": lambda: left @ right}, CPU, 4)["matmul"]
    assert row["flop"] == 2 * 10 * 20 * 30
    assert row["peak_bytes"] == 4 * (200 + 600 + 300)
    assert row["repeats"] == 4
    assert 0 < row["min"] <= row["median"] <= row["max"]


def test_columns_are_as_wide_as_their_widest_cell(capsys):
    print_rows(("", "s"), [("a", "1.25"), ("longer", "2")])
    assert capsys.readouterr().out == "             s\n       a  1.25\n  longer     2\n"
    with pytest.raises(ValueError, match="argument 3 is"):
        print_rows(("", "s"), [("a", "1"), ("b",)])
