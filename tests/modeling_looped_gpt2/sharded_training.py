"""Train the language model of a folder for three steps with its weights sharded over all processes (FSDP2, gloo).

torchrun --nproc_per_node 2 sharded_training.py FOLDER OUTPUT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from modeling_looped_gpt2 import LoopedGPT2LMHeadModel


folder, output = map(Path, sys.argv[1:])
torch.set_num_threads(1)
dist.init_process_group("gloo")
sharding = DistributedConfig(fsdp_size=dist.get_world_size())
model = LoopedGPT2LMHeadModel.from_pretrained(folder, distributed_config=sharding).train()
assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
ids = torch.load(folder / "ids.pt").chunk(dist.get_world_size())[dist.get_rank()]
for n_loops in (2, 4, 3):
    model(ids, labels=ids, n_loops=n_loops, loop_window=2, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(output)
dist.destroy_process_group()
