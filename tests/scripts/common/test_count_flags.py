import argparse
import sys

import pytest

from scripts.common.count_flags import parse_counts


@pytest.fixture
def parse(monkeypatch):
    def parse(*flags):
        monkeypatch.setattr(sys, "argv", ["program.py", *flags])
        return parse_counts(argparse.ArgumentParser(), {"n_steps": 5, "seed": 0, "n_points": 12}, {"seed": 0})

    return parse


def test_counts_have_defaults(parse):
    assert vars(parse("--n_points", "3")) == {"n_steps": 5, "seed": 0, "n_points": 3}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n_steps", "0"), "`n_steps` must be >= 1, got 0"),
        (("--seed", "-1"), "`seed` must be >= 0, got -1"),
        (("--n_points", "1.5"), "argument --n_points: invalid int value: '1.5'"),
    ],
)
def test_one_that_is_too_small_is_refused(parse, flags, message, capsys):
    with pytest.raises(SystemExit) as exit:
        parse(*flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
