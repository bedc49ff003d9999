"""What depends on the machine: number formats, the fastest attention, cores, memory."""

import ctypes
import os
import signal
import sys

import torch


# parameters of glibc's mallopt, from <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
PR_SET_PDEATHSIG = 1  # of prctl, from <sys/prctl.h>
LAUNCHED = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}  # set by `accelerate launch` and by `torchrun`


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 itself; elsewhere bfloat16 can be 50 times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(
        capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
    )


def fastest_attention(device: torch.device) -> str:
    """Attention implementation for prompts of a few hundred tokens: on a CPU two matmuls beat the fused kernel."""
    return "eager" if device.type == "cpu" else "sdpa"


def choices_for(device: torch.device) -> dict[str, str]:
    """Return the values that "auto" stands for on `device`, by field of a run."""
    return {
        "mixed_precision": "bf16" if has_bfloat16(device) else "no",
        "attn_implementation": fastest_attention(device),
        "compile": "reduce-overhead" if device.type == "cuda" else "no",
    }


def uses_cpu() -> bool:
    """Whether training runs on the CPU: there is no accelerator, or `ACCELERATE_USE_CPU` asks for it."""
    return not torch.accelerator.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")


def use_all_cores(n_local_processes: int):
    """
    Share the processor's cores among the processes of this machine.

    `OMP_NUM_THREADS` decides where it is set, except for the 1 that `accelerate launch` and `torchrun` set by default.
    """
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked and not (asked == "1" and os.environ.keys() & LAUNCHED):
        return
    n_cores = torch.cpu.get_capabilities().get("num_physical_cores") or os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        n_cores = min(n_cores, len(os.sched_getaffinity(0)))
    torch.set_num_threads(max(1, n_cores // n_local_processes))


def total_memory() -> int:
    """Bytes of memory of this machine, without that of accelerators."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory():
    """
    Let the process keep the memory it frees, so that every training step finds its activations' pages in place.

    glibc hands large blocks back to the kernel and faults them in again at every step, which can cost several times
    the arithmetic on a virtual machine. Call it before the first large allocation. Does nothing outside glibc.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_TOP_PAD, 256 * 2**20)


def prepare_device() -> torch.device:
    """Set up memory and cores for a program of one process; returns the GPU, or the CPU where there is none."""
    keep_freed_memory()
    if torch.cuda.is_available():
        return torch.device("cuda")
    use_all_cores(1)
    return torch.device("cpu")


def stop_with_launcher():
    """
    Let the kernel send SIGTERM to this process when `accelerate launch` ends, so that the run is saved and stops.

    The launcher of a single process does not pass signals on, so the process would go on without it. Linux only.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
