"""Layers import downwards only; only the Ray layer imports ray; importing the package stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import svad_ray

ROOT = Path(svad_ray.__file__).parent
# Lower number = lower layer; a module imports its own layer or a lower one.
LAYERS = {
    0: ["errors", "conventions", "subject", "usage", "backends", "config", "__init__"],
    1: ["geometry", "models", "photo"],
    2: ["body", "splat", "store"],
    3: ["nets", "fitting", "motion", "pose", "ledger"],
    4: ["stages"],
    5: ["pipeline", "export", "evaluate", "provenance"],
    6: ["local", "deliver", "fulfil", "checkpoints", "pictures", "forget"],
    7: ["doctor", "demo", "reference", "protocols", "service", "cluster", "viewer"],
    8: ["cli", "commands", "__main__"],
}
LAYER = {name: level for level, members in LAYERS.items() for name in members}
# (module, imported part): upward imports with a reason.
ALLOWED = {
    ("motion.files", "export"): "atomic_path, the one way of writing a file",
    ("motion.heads", "export"): "atomic_path, the one way of writing a file",
}


def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, also inside functions; type-checking imports aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    quiet = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in quiet:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("name", sorted(modules()))
def test_layers_import_downwards(name):
    top = name.split(".")[0]
    assert top in LAYER, f"{name} belongs to no layer: add it to LAYERS and to docs/architecture.md"
    for target in imports(modules()[name]):
        if target.startswith("svad_ray.") and part(target) in LAYER and (name, part(target)) not in ALLOWED:
            assert LAYER[part(target)] <= LAYER[top], f"{name} imports {target}, which lies above it"


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_the_cluster_layer_imports_ray(name):
    if not name.startswith("cluster"):
        assert not [t for t in imports(modules()[name]) if t.split(".")[0] == "ray"]


@pytest.mark.parametrize("name", sorted(n for n in modules() if n.startswith("stages")))
def test_stages_know_nothing_of_stores_and_runners(name):
    forbidden = {"store", "local", "pipeline", "cluster", "cli", "export"}
    assert not [t for t in imports(modules()[name]) if t.startswith("svad_ray.") and part(t) in forbidden]


@pytest.mark.parametrize("module", ["svad_ray", "svad_ray.cli", "svad_ray.config", "svad_ray.backends"])
def test_light_imports(module):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "svad_ray" in loaded
    assert not {"torch", "numba", "cv2", "scipy", "ray", "gsplat", "jinja2", "av", "PIL"} & set(loaded)
