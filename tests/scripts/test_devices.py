import subprocess
import sys

import pytest
import torch

from scripts.devices import fastest_attention, has_bfloat16, use_all_cores


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


@pytest.mark.parametrize(("asked", "processes", "expected"), [("1", 1, 6), ("1", 2, 3), ("1", 9, 1), ("4", 1, None)])
def test_cores_are_shared_unless_threads_are_asked_for(asked, processes, expected, monkeypatch):
    chosen = []
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"num_physical_cores": 6})
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(12), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    use_all_cores(processes)
    assert chosen == ([] if expected is None else [expected])


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc hands memory back in this way")
def test_freed_memory_is_kept():
    code = """
import resource
from scripts.devices import keep_freed_memory
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
