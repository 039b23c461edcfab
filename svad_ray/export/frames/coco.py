"""The keypoints as a COCO-WholeBody annotation file.

COCO counts pixels by their index, so the centre of the top left pixel is (0, 0) there: coordinates are ours less half a pixel.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from svad_ray.body.names import WHOLEBODY_NAMES
from svad_ray.conventions import WHOLEBODY_BODY, WHOLEBODY_FACE, WHOLEBODY_FEET, WHOLEBODY_LEFT_HAND, WHOLEBODY_RIGHT_HAND
from svad_ray.export.frames.formats import members
from svad_ray.export.frames.sample import Sample
from svad_ray.store.files import Files, plain_errors

MERGED = "annotations/coco_wholebody.json"
_PARTS = {
    "keypoints": WHOLEBODY_BODY,
    "foot_kpts": WHOLEBODY_FEET,
    "face_kpts": WHOLEBODY_FACE,
    "lefthand_kpts": WHOLEBODY_LEFT_HAND,
    "righthand_kpts": WHOLEBODY_RIGHT_HAND,
}
_BOXES = {"face": "face_kpts", "lefthand": "lefthand_kpts", "righthand": "righthand_kpts"}
_IDS_A_PART = 1_000_000
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11), (2, 3), (1, 2), (1, 3),
    (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


def part_name(number: int) -> str:
    """File of one part's annotations."""
    return f"annotations/part-{number:05d}.json"


def head() -> dict[str, Any]:
    """What an annotation file says besides pictures and people."""
    names = [name.removesuffix("_vertex") for name in WHOLEBODY_NAMES[WHOLEBODY_BODY]]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": [list(pair) for pair in SKELETON]}
    info = {"description": "svad-ray labelled frames; file names are those inside the shards", "version": "1.0"}
    return {"info": info, "licenses": [], "categories": [category]}


def annotated(samples: Sequence[Sample], shard: str, number: int, *, first: int) -> dict[str, Any]:
    """Pictures and people of one shard.

    Args:
        shard: That the samples are in. number: Of the part. first: How many samples of the part came before; ids are unique over all parts.
    """
    images, people = [], []
    for i, sample in enumerate(samples, first + 1):
        identity = number * _IDS_A_PART + i
        size = {"width": sample.values["width"], "height": sample.values["height"]}
        images.append({"id": identity, "file_name": members(sample)[0][0], **size, "shard": shard})
        people.append({"id": identity, "image_id": identity, "category_id": 1, "iscrowd": 0, **person(sample)})
    return {"images": images, "annotations": people}


def person(sample: Sample) -> dict[str, Any]:
    """One person's keypoints and boxes as COCO-WholeBody names them."""
    flags = sample.values["visible"].astype(np.float64)
    flat = np.concatenate([np.round(sample.values["keypoints"].astype(np.float64) - 0.5, 3), flags[:, None]], 1)
    flat[flags == 0] = 0
    says: dict[str, Any] = {"bbox": list(sample.box), "area": sample.area, "num_keypoints": int((flags[WHOLEBODY_BODY] > 0).sum())}
    says |= {name: _numbers(flat[part]) for name, part in _PARTS.items()}
    says["foot_valid"] = bool((flags[WHOLEBODY_FEET] > 0).any())
    for name, points in _BOXES.items():
        part = flat[_PARTS[points]]
        labelled = part[part[:, 2] > 0, :2]
        says[f"{name}_valid"] = bool(len(labelled))
        low, high = (labelled.min(0), labelled.max(0)) if len(labelled) else (np.zeros(2), np.zeros(2))
        says[f"{name}_box"] = [round(float(v), 3) for v in (*low, *(high - low))]
    return says


def _numbers(rows: np.ndarray) -> list[float | int]:
    return [int(v) if v == int(v) else float(v) for v in rows.ravel()]


def merge(files: Files, parts: Sequence[int]) -> None:
    """Write the annotations of all parts into one file; one part at a time is held."""
    handle, path = tempfile.mkstemp(suffix=".json")
    try:
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(head())[:-1])
            for name in ("images", "annotations"):
                stream.write(f', "{name}": [')
                first = True
                for number in parts:
                    for entry in json.loads(files.read(part_name(number)) or b"{}").get(name, []):
                        stream.write(("" if first else ",\n") + json.dumps(entry, separators=(",", ":")))
                        first = False
                stream.write("]")
            stream.write("}\n")
        with plain_errors(files.root):
            files.fs.put_file(path, files.path(f"{MERGED}.new"))
            files.fs.mv(files.path(f"{MERGED}.new"), files.path(MERGED))
    finally:
        os.unlink(path)
