"""Records inside pictures and videos: Content Credentials (C2PA), by the Content Authenticity Initiative's library. Nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import svad_ray
from svad_ray.provenance.identity import Identity

KINDS = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
LABEL = "org.svad-ray.provenance"
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DRAWN, FROM_PHOTO = f"{_IPTC}trainedAlgorithmicMedia", f"{_IPTC}compositeWithTrainedAlgorithmicMedia"
_LOCAL = {"version": 1, "builder": {"thumbnail": {"enabled": False}}, "verify": {"ocsp_fetch": False, "remote_manifest_fetch": False}}


def embed(source: Path, target: Path, record: Mapping[str, Any], by: Identity) -> None:
    """``source`` with the record in it, as ``target``. Its random salts make equal files differ in these bytes."""
    import c2pa

    drawn = record["avatar"].get("photo", {}).get("origin", {})
    kind = DRAWN if drawn and not drawn.get("edited_from") else FROM_PHOTO
    manifest = {
        "claim_generator_info": [{"name": "svad-ray", "version": svad_ray.__version__}],
        "title": record["name"],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": kind}]}},
            {"label": LABEL, "data": dict(record)},
        ],
    }
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ED25519, by.chain, by.key, None)
    with (
        closing(c2pa.Signer.from_info(info)) as signer,
        closing(c2pa.Builder(json.dumps(manifest), context=c2pa.Context.from_dict(_LOCAL))) as builder,
        source.open("rb") as plain,
        target.open("w+b") as marked,
    ):
        builder.sign(signer, KINDS[source.suffix.lower()], plain, marked)


def read(path: Path, root: bytes) -> tuple[dict[str, Any], list[str], bool] | None:
    """The record in a picture or video, what is wrong with it, and whether ``root`` (PEM) is its signer's; None when there is none."""
    import c2pa

    settings = {**_LOCAL, "trust": {"user_anchors": root.decode()}, "verify": {**_LOCAL["verify"], "verify_trust": True}}  # type: ignore[dict-item]
    try:
        with path.open("rb") as stream:
            reader = c2pa.Reader(KINDS[path.suffix.lower()], stream, context=c2pa.Context.from_dict(settings))
            says = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in type(error).__name__:
            return None
        return {}, [f"its record cannot be read: {error}"], False
    active = says["manifests"][says["active_manifest"]]
    record: dict[str, Any] = next((a["data"] for a in active["assertions"] if a["label"] == LABEL), {})
    wrong = [entry["code"] for entry in says.get("validation_status") or () if entry["code"] != "signingCredential.untrusted"]
    if says["validation_state"] == "Invalid" and not wrong:
        wrong = ["invalid"]
    return record, wrong, says["validation_state"] == "Trusted"
