import torch

from scripts.studies.probe_networks import errors_of_probes


def test_a_probe_reads_what_is_there_and_nothing_else():
    states, targets = torch.randn(2, 600, 3, 8), torch.empty(2, 1, 600, 2)
    targets[:, 0] = states[:, :, 1, :2]  # the second token holds the target
    known = errors_of_probes(states[0], targets[0], states[1], targets[1], n_steps=300)
    unknown = errors_of_probes(torch.randn(600, 3, 8), targets[0], states[1], targets[1], n_steps=300)
    assert known.shape == (1,)
    assert known < 0.4 < 0.8 < unknown
    # the scale of a state is no knowledge
    scaled = errors_of_probes(100 * states[0] + 7, targets[0], 100 * states[1] + 7, targets[1], n_steps=300)
    torch.testing.assert_close(scaled, known, rtol=0.1, atol=0.01)
