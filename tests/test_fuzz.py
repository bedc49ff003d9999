"""A small part of the fuzz, see tests/fuzz/__main__.py: every entrance answers rightly or refuses clearly."""

import pytest

from tests.fuzz.__main__ import ENTRANCES, ON_FOLDERS, run
from tests.fuzz.workspace import build_workspace


MANY = ("model_call", "configuration", "flags")  # fast ones
N_INPUTS = {name: 4 if name in ON_FOLDERS else 100 if name in MANY else 25 for name in ENTRANCES}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    build_workspace(folder / "workspace")
    return folder


@pytest.mark.parametrize("entrance", [name for name in ENTRANCES if name not in ON_FOLDERS])
def test_an_input_is_answered_rightly_or_refused_clearly(entrance, tmp_path):
    outcomes = {run(entrance, number, tmp_path) for number in range(N_INPUTS[entrance])}
    assert outcomes == {"answered", "refused"}


def test_programs_answer_rightly_or_refuse_and_leave_every_file_as_it_was(workspace):
    for entrance in ON_FOLDERS:
        for number in range(N_INPUTS[entrance]):
            assert run(entrance, number, workspace) in ("answered", "refused")
