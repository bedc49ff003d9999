import torch

from scripts.studies import probe_experiment


def test_the_targets_of_the_probes():
    prompts = probe_experiment.sample_linear_functions(5, 6, 3, 0, ones=False)
    targets = probe_experiment.targets_of(prompts, {"xty": [2, 4], "least_squares": [1, 3, 4]})
    assert [len(values) for values in targets.values()] == [2, 3]
    x, y = prompts["xs"][1], prompts["ys"][1]
    torch.testing.assert_close(targets["xty"][1, 1], x[:4].T @ y[:4] / 6)
    torch.testing.assert_close(x[:4] @ targets["least_squares"][2, 1], y[:4], rtol=1e-3, atol=1e-3)
    control = probe_experiment.sample_linear_functions(5, 6, 3, 0, ones=True)
    torch.testing.assert_close(control["ys"], control["xs"].sum(dim=2))
