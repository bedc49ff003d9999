import torch

from scripts.benchmarks.peak_memory import PeakMemory


def test_only_what_lives_at_once_is_counted():
    weight = torch.ones(1000)  # 4,000 bytes
    with PeakMemory() as memory:
        for _ in range(3):
            doubled = weight * 2
            del doubled
        view = weight[:10] + 1
    assert memory.peak == 8000
    assert view.numel() == 10


def test_what_autograd_keeps_is_counted_until_it_is_freed():
    weight = torch.ones(1000, requires_grad=True)
    with PeakMemory() as memory:
        kept = weight.exp().exp()
        loss = kept.sum()
        del kept
        assert memory.peak == 4000 * 3 + 4
        loss.backward()
        del loss
        freed = torch.ones(100) + 1
    assert memory.peak < 4000 * 6
    assert freed.numel() == 100
