import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.common.devices import LAUNCHED, fastest_attention, has_bfloat16, use_all_cores


def test_bfloat16_is_what_the_processor_says(monkeypatch):
    for capabilities, expected in (
        ({}, False),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({"amx_bf16": True}, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert has_bfloat16(torch.device("cpu")) is expected
    assert not has_bfloat16(torch.device("meta"))
    assert fastest_attention(torch.device("cuda")) == "sdpa"


@pytest.mark.parametrize(
    ("asked", "launcher", "processes", "expected"),
    [
        *((None, None, 1, 6), ("", None, 1, 6), (None, "TORCHELASTIC_RUN_ID", 2, 3)),
        *(("1", "ACCELERATE_MIXED_PRECISION", 1, 6), ("1", "TORCHELASTIC_RUN_ID", 2, 3)),
        ("1", "ACCELERATE_MIXED_PRECISION", 9, 1),
        *(("1", None, 1, None), ("4", None, 1, None), ("4,2", None, 1, None), ("4", "TORCHELASTIC_RUN_ID", 2, None)),
    ],
)
def test_cores_are_shared_unless_threads_are_asked_for(asked, launcher, processes, expected, monkeypatch):
    chosen = []
    for name in ("OMP_NUM_THREADS", *LAUNCHED):
        monkeypatch.delenv(name, raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    if launcher is not None:
        monkeypatch.setenv(launcher, "x")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 6})
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(12), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    use_all_cores(processes)
    assert chosen == ([] if expected is None else [expected])


def test_the_threads_that_are_asked_for_hold_where_no_launcher_set_them(tmp_path, monkeypatch):
    program = tmp_path / "threads.py"
    program.write_text(
        "import torch\nfrom scripts.common.devices import use_all_cores\n"
        "use_all_cores(1)\nprint(torch.get_num_threads())\n"
    )
    for name in ("OMP_NUM_THREADS", *LAUNCHED):
        monkeypatch.delenv(name, raising=False)
    cores = []
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_num_threads", cores.append)
        use_all_cores(1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    for launcher, asked, expected in (([], {"OMP_NUM_THREADS": "1"}, 1), (launch, {}, cores[0])):
        command = [sys.executable, *launcher, str(program)]
        result = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
        assert int(result.stdout) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc hands memory back in this way")
def test_freed_memory_is_kept():
    code = """
import resource
from scripts.common.devices import keep_freed_memory
{call}
def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(50_000_000)
before = page_faults()
for _ in range(5):
    bytearray(50_000_000)
print(page_faults() - before)
"""
    faults = {}
    for call in ("keep_freed_memory()", ""):
        result = subprocess.run(
            [sys.executable, "-c", code.format(call=call)], capture_output=True, text=True, check=True
        )
        faults[call] = int(result.stdout)
    assert faults["keep_freed_memory()"] < faults[""] / 10
