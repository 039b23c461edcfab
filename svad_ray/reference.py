"""Pages of the documentation that are made from descriptors."""

from __future__ import annotations

from svad_ray.backends import EMBEDDED, STAGES, Backend, descriptors
from svad_ray.config import PROFILES
from svad_ray.stages.picture.draw import Draw

_HEAD = """# Backends

Every backend of every stage, from its descriptor: `svad-ray doctor --backends > docs/backends.md`. Choose one by `--set STAGE.backend=NAME`;
a profile is a choice for all stages. Terms are in [licences.md](licences.md), files that you bring in [paper.md](paper.md), packages of extras in
[extras.md](extras.md).
"""
_COLUMNS = (
    "| backend | in profile | what does the work | made for | memory, about | frames a call | extra | you bring | commercial use |",
    "|---|---|---|---|---|---|---|---|---|",
)


def backends_markdown() -> str:
    """A table of the backends of each stage."""
    rows = [_HEAD]
    for stage in STAGES:
        rows += [f"## {stage}", "", *_COLUMNS, *(_row(b, _profiles(b)) for b in descriptors() if b.stage == stage), ""]
    rows += ["## picture", "", "Only for prompts and edits; which model is in the folder decides ([pictures.md](pictures.md)).", ""]
    rows += [*_COLUMNS, _row(Draw.backend, "")]
    return "\n".join(rows) + "\n"


def _profiles(b: Backend) -> str:
    chosen = {name: values.get(b.stage, {}).get("backend", EMBEDDED[b.stage]) for name, values in PROFILES.items()}
    return ", ".join(name for name, backend in chosen.items() if backend == b.name)


def _row(b: Backend, profiles: str) -> str:
    files = ", ".join(f"{file.name}{' (optional)' if file.optional else ''}" for file in b.files) or "nothing"
    use = f"{'yes' if b.commercial else 'no'}: {b.commercial_reason}"
    cells = (f"`{b.name}`", profiles, b.summary, "GPU" if b.device == "cuda" else "CPU", f"{b.memory_gib:g} GiB", str(b.batch), b.extra, files, use)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
