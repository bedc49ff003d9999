"""What the naive twins of in-context models have in common."""

import copy

from torch import nn


class UntiedLoops(nn.Module):
    """A copy of a model whose blocks and norms have weights of their own in every loop; a subclass runs them."""

    def __init__(self, model, n_loops):
        super().__init__()
        body = model.transformer
        self.head = copy.deepcopy(model)
        self.loops = nn.ModuleList(copy.deepcopy(body.h) for _ in range(n_loops))
        self.norms = nn.ModuleList(copy.deepcopy(body.ln_f) for _ in range(n_loops))
