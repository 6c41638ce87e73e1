"""No more threads work than were asked for: BLAS and the tokenizer's threads have nothing to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Time on a core of each thread, before and after a reply; in a process of its own, as other tests
# leave threads of the pool behind.
CODE = """
import json, os, sys, time
from pathlib import Path
import bitinfer

def ran():
    tasks = list(Path("/proc/self/task").iterdir())
    while any(t.name != str(os.getpid()) and not asleep(t) for t in tasks):
        time.sleep(0.01)  # a thread of BLAS spins for a while after its start
    return {t.name: int((t / "schedstat").read_text().split()[0]) for t in tasks}

def asleep(task):
    return (task / "stat").read_text().rpartition(") ")[2][0] == "S"

model = bitinfer.Model.load(bitinfer.default_model(), num_threads=int(sys.argv[1]))
options = json.loads(sys.argv[2])
model.generate("Once upon a time", max_tokens=4, **options)
before = ran()
model.generate("There was a small dog who lived by the sea", max_tokens=60, **options)
after = ran()
print(sum(after[task] > before.get(task, 0) for task in after))
"""


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not tell times of threads"
)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.8, "top_p": 0.9}])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_only_as_many_threads_run_as_were_asked_for(tmp_path, threads, options):
    blas = {f"{name}_NUM_THREADS": "8" for name in ("OPENBLAS", "OMP", "RAYON")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(threads), json.dumps(options)],
        cwd=tmp_path,
        env={**os.environ, **blas},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert 1 <= int(done.stdout) <= threads
