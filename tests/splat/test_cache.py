"""Compiled kernels are found on disk by a second process, and never after a change of their sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svad_ray.splat.kernels import jit

ROOT = Path(jit.__file__).parents[3]
PROGRAM = """
import json, torch
torch.set_num_threads(1)
from svad_ray.splat import rasterization
from svad_ray.splat.kernels import binning, composite, covariance, harmonics, jit, projection
means = torch.zeros(4, 3, requires_grad=True)
one = torch.ones(4, 3)
view, K = torch.eye(4)[None].clone(), torch.tensor([[[9.0, 0, 8], [0, 9, 8], [0, 0, 1]]])
view[0, 2, 3] = 3
image, _, _ = rasterization(means, torch.ones(4, 4), one * 0.1, one[:, 0], one[:, None], view, K, 16, 16, sh_degree=0)
image.sum().backward()
modules = (binning, composite, covariance, harmonics, projection)
compiled = {name: value for module in modules for name, value in vars(module).items() if hasattr(value, "stats")}
hits = {n: sum(k.stats.cache_hits.values()) for n, k in compiled.items()}
misses = {n: sum(k.stats.cache_misses.values()) for n, k in compiled.items()}
print(json.dumps([hits, misses, str(jit.cache_folder()), float(image.sum())]))
"""


def run(root: Path, **environment: str) -> tuple[dict[str, int], dict[str, int], str, float]:
    variables = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **environment}
    found = subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, cwd=root, timeout=300)
    assert found.returncode == 0, found.stderr
    hits, misses, folder, total = json.loads(found.stdout)
    return hits, misses, folder, total


def test_second_process_compiles_nothing() -> None:
    first = run(ROOT)
    hits, misses, folder, total = run(ROOT)
    assert folder and Path(folder).name == jit.source_key()
    assert not any(misses.values()), {name for name, count in misses.items() if count}
    for name in ("composite_forward", "composite_backward", "project_forward", "project_backward", "depth_order", "harmonics_backward"):
        assert hits[name] == 1
    assert total == first[3]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second copy of the package, to be changed at will."""
    root = tmp_path_factory.mktemp("copy")
    (root / "svad_ray").mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "svad_ray" / name, root / "svad_ray" / name)
    shutil.copytree(ROOT / "svad_ray" / "splat", root / "svad_ray" / "splat", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.slow
def test_a_changed_constant_in_another_file_compiles_again(copied: Path, tmp_path: Path) -> None:
    """The composite kernels take the tile's size from the binning file, which numba's own cache does not look at."""
    before = run(copied, NUMBA_CACHE_DIR=str(tmp_path))
    assert before[2].startswith(str(tmp_path)) and before[1]["composite_forward"] == 1
    source = copied / "svad_ray/splat/kernels/binning.py"
    source.write_text(source.read_text().replace("TILE = 32", "TILE = 16"))
    after = run(copied, NUMBA_CACHE_DIR=str(tmp_path))
    assert after[2] != before[2] and after[1]["composite_forward"] == 1 and not any(after[0].values())
    assert abs(after[3] - before[3]) < 1e-4 * before[3]


def test_a_read_only_package_uses_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, so that no folder can be made here")
    monkeypatch.setattr(jit, "_candidates", lambda: [blocked / "__pycache__", tmp_path / "user"])
    assert jit.cache_folder.__wrapped__() == tmp_path / "user" / jit.source_key()
    monkeypatch.setattr(jit, "_candidates", lambda: [blocked / "a", blocked / "b"])
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        assert jit.cache_folder.__wrapped__() is None
