"""One Ray for the whole test session: starting one takes longer than most tests."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent):  # scripted stages and the tiny pipeline, for this process and for Ray's workers
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory):
    """A local Ray of four logical cores and two logical GPUs, without authentication."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    import ray

    from svad_ray.cluster.session import connect

    connect(num_cpus=4, num_gpus=2, object_store_memory=400 << 20)
    yield ray
    ray.shutdown()
