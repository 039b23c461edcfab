"""jobs/verify.py on what the real pipeline, runner and ledger leave."""

import json
import shutil

import pytest
import tiny_pipeline as tiny

from svad_ray.errors import InputError
from svad_ray.fulfil import Kit, fulfil
from svad_ray.ledger import Ledger
from svad_ray.ledger.manifest import read_manifest
from svad_ray.store import ArtefactStore

KIT = Kit(
    make=lambda stage, config: tiny.KINDS[stage](stage, config, lambda what: None),
    body_id=lambda settings: "tiny",
    files=lambda created, request, run, exports: {"avatar/means.bin": created.avatar.value.tensors["means"].tobytes()},
    load=lambda uri: tiny.photo(),
)
SETS = [word for name in (f"animate.frames={tiny.FRAMES}", "shard=5") for word in ("--set", name)]


@pytest.fixture
def finished(tmp_path):
    """Two subjects made, one given up: (folder, list, requests)."""
    from svad_ray.config import load_settings

    listed = tmp_path / "people.csv"
    listed.write_text("subject_id,uri\n" + "".join(f"{name},memory://{name}\n" for name in ("ann", "bob", "cy")))
    requests = read_manifest(str(listed), load_settings(sets=SETS[1::2])).requests
    out = tmp_path / "out"
    for request in requests[:2]:
        fulfil(request, str(out), kit=KIT)
    Ledger(f"{out}/ledger").quarantine(requests[2].key, "cy", "generate", "no person", attempts=1)
    return out, listed, requests


def test_a_finished_run_is_sound(job, finished):
    out, listed, _ = finished
    code, said = job("verify", "verify_store", out, "--manifest", listed, *SETS)
    assert code == 0 and "everything is as it was committed" in said and "2 subjects finished, 1 quarantined" in said


def test_damage_is_told_repaired_and_made_again(job, finished):
    out, listed, requests = finished
    before = {path.relative_to(out): path.read_bytes() for path in (out / "subjects").rglob("*.bin")}
    store = ArtefactStore(str(out / "work"))
    fit = store.committed(next(key for key in store.committed_keys() if key.stage == "fit"))
    victim = out / "work" / str(fit.key) / fit.attempt / "arrays.safetensors"
    victim.write_bytes(victim.read_bytes()[:-3])
    (out / "work" / str(fit.key) / "attempt-0123456789ab").mkdir()
    arguments = (out, "--manifest", listed, *SETS, "--report", out.parent / "report.json", "--hours", 0)
    code, said = job("verify", "verify_store", *arguments)
    assert code == 7 and "changed file" in said and "orphan attempt" in said
    report = json.loads((out.parent / "report.json").read_text())[0]
    assert report["counts"] == {"changed file": 1, "orphan attempt": 1} and victim.exists()
    code, said = job("verify", "verify_store", *arguments, "--repair", "--remake-subjects")
    assert code == 7 and "Run the same job again" in said and store.committed(fit.key) is None
    for request in requests[:2]:
        fulfil(request, str(out), kit=KIT)
    code, said = job("verify", "verify_store", *arguments)
    assert code == 0, said
    assert sorted(path.read_bytes() for path in (out / "subjects").rglob("*.bin")) == sorted(before.values())


def test_a_subject_that_nobody_finished(job, finished):
    out, listed, requests = finished
    shutil.rmtree(out / "subjects" / requests[0].key.stage)
    code, said = job("verify", "verify_store", out, "--manifest", listed, *SETS)
    assert code == 7 and "'ann' is neither committed nor quarantined" in said


def test_a_service_store_and_a_folder_of_something_else(job, finished, tmp_path):
    out, _, _ = finished
    (tmp_path / "service" / "avatars").mkdir(parents=True)
    shutil.copytree(out, tmp_path / "service" / "avatars" / "0123")
    code, said = job("verify", "verify_store", tmp_path / "service")
    assert code == 0 and "avatars/0123" in said
    with pytest.raises(InputError, match="nothing in"):
        job("verify", "verify_store", tmp_path / "service" / "avatars" / "none")
