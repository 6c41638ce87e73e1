"""What a run does to the memory of its process."""

import os
import subprocess
import sys

STEPS = """
import resource
import sys
import torch
from torch.nn.functional import gelu
from bitinfer.train.memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
weights, head = torch.randn(512, 512, requires_grad=True), torch.randn(512, 4096)
faults = []
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(4096, 512)
    for _ in range(6):
        x = gelu(x @ weights)
    (x @ head).log_softmax(-1).sum().backward()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[8:]))
"""


def test_a_step_takes_the_memory_that_the_one_before_has_freed():
    """Few pages are new once a run is under way; untold, glibc gives most of them back."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    new = {
        told: int(subprocess.check_output([sys.executable, "-c", STEPS, told], env=env))
        for told in ("keep", "leave")
    }
    assert new["keep"] < 0.2 * new["leave"]
