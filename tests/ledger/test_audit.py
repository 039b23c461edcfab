"""A finished run is damaged in every way there is; each is found, named, and mended by a new run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted

from svad_ray.fulfil import fulfil
from svad_ray.ledger import Ledger
from svad_ray.ledger.audit import audit, mend
from svad_ray.store import ArtefactStore
from svad_ray.store.artefacts import MARKER


@pytest.fixture
def run(tmp_path):
    """Two committed subjects and a quarantined one."""
    requests = [scripted.request("a"), scripted.request("b"), scripted.request("c", fit=scripted.RAISE)]
    for request in requests[:2]:
        fulfil(request, str(tmp_path), kit=scripted.KIT)
    Ledger(f"{tmp_path}/ledger").quarantine(requests[2].key, "c", "train", "scripted", attempts=2)
    return tmp_path, requests


def kinds(found):
    return sorted((finding.kind, finding.what) for _, finding in found.findings)


def test_a_sound_run(run):
    out, requests = run
    found = audit(str(out), listed=[request.key for request in requests])
    assert found.sound and not found.findings and len(found.committed) == 2 and len(found.quarantined) == 1
    assert found.stores["work"].artefacts == len(list(ArtefactStore(out / "work").committed_keys())) > 10
    assert found.stores["work"].bytes == sum(
        p.stat().st_size for p in (out / "work").rglob("attempt-*/**/*") if p.is_file() and p.name != "manifest.json"
    )


def one(out: Path, pattern: str) -> Path:
    return sorted(out.glob(pattern))[0]


DAMAGE = {
    "flipped": ("work/restore/*/attempt-*/value.frames/000000.png", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x00"), "was changed"),
    "truncated": ("work/animate/*/attempt-*/arrays.safetensors", lambda p: p.write_bytes(p.read_bytes()[:40]), "was changed"),
    "removed": ("subjects/*/*/attempt-*/avatar/data.json", lambda p: p.unlink(), "is missing"),
    "torn marker": (f"work/fit/*/{MARKER}", lambda p: p.write_text('{"attempt": "att'), "marker .* is damaged"),
    "manifest": ("work/avatar/*/attempt-*/manifest.json", lambda p: p.write_text("{}"), "was changed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_forgotten_and_made_again(run, name):
    import re

    out, requests = run
    whole = {p.relative_to(out): p.read_bytes() for p in out.glob("subjects/*/*/attempt-*/**/*") if p.is_file() and p.name != "manifest.json"}
    pattern, harm, words = DAMAGE[name]
    harm(one(out, pattern))
    found = audit(str(out))
    assert not found.sound and [kind for kind, _ in kinds(found)] == ["damaged"]
    assert re.search(words, found.findings[0][1].what)
    assert mend(str(out), found) == (1, 0)
    for request in requests[:2]:
        ArtefactStore(out / "subjects").uncommit(request.key)
        fulfil(request, str(out), kit=scripted.KIT)
    again = audit(str(out))
    assert again.sound
    made = {p.relative_to(out): p.read_bytes() for p in out.glob("subjects/*/*/attempt-*/**/*") if p.is_file() and p.name != "manifest.json"}
    strip = lambda files: {(k.parts[1], *k.parts[4:]): v for k, v in files.items()}  # noqa: E731
    assert strip(made) == strip(whole)


def test_a_reference_to_nothing_and_a_missing_subject(run):
    out, requests = run
    one(out, f"work/fit/*/{MARKER}").unlink()
    found = audit(str(out), listed=[*(request.key for request in requests), scripted.request("nobody").key])
    assert [finding.kind for finding in found.dangling] == ["dangling"] and "fit/" in found.dangling[0].what
    assert found.missing == [str(scripted.request("nobody").key)] and not found.sound


def test_artefacts_that_were_thrown_away_as_a_whole_are_not_missed(run):
    import shutil

    out, _ = run
    shutil.rmtree(out / "work")
    assert audit(str(out)).sound


def test_garbage_is_no_fault_and_only_old_garbage_goes(run):
    out, _ = run
    folder = one(out, f"work/fit/*/{MARKER}").parent
    for name in ("attempt-dead", "checkpoint-old"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    attempt = next(p for p in folder.glob("attempt-*") if p.name != "attempt-dead")
    (attempt / "extra.txt").write_text("x")
    alone = out / "work" / "fit" / ("0" * 32) / "attempt-killed"
    alone.mkdir(parents=True)
    (alone / "x").write_text("x")
    found = audit(str(out))
    assert found.sound and [finding.kind for _, finding in found.findings] == ["garbage"] * 4
    assert mend(str(out), found) == (0, 0)
    past = time.time() - 3 * 86400
    for path in (folder / "attempt-dead" / "x", alone / "x"):
        os.utime(path, (past, past))
    assert mend(str(out), found) == (0, 2)
    assert sorted(finding.where.rsplit("/", 1)[-1] for _, finding in audit(str(out)).findings) == ["checkpoint-old", "extra.txt"]


def test_the_job_ends_with_a_status_that_says_so(run):
    out, _ = run
    job = Path(__file__).parents[2] / "jobs" / "verify.py"
    env = {**os.environ, "PYTHONPATH": str(job.parents[1])}

    def verify(*options):
        return subprocess.run([sys.executable, str(job), str(out), *options], capture_output=True, text=True, env=env)

    assert verify().returncode == 0
    one(out, "work/restore/*/attempt-*/value.frames/000000.png").unlink()
    done = verify()
    assert done.returncode == 8 and "damaged\twork/restore/" in done.stdout
    assert "1 damaged artefacts forgotten" in verify("--repair").stdout
    assert verify().returncode == 8, "the subject's marker now names an artefact that is not there"
