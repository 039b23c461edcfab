"""Shards: a list of samples to the bytes of one file. Equal samples give equal bytes.

Parquet: one row a sample, columns as in ``sample.MEANING``, which also is in the schema's metadata; arrays of a fixed shape are Arrow's
fixed-shape tensors. WebDataset: a tar with ``<key>.png`` (or ``.jpg``), ``<key>.mask.png``, ``<key>.depth.png`` and ``<key>.json`` for each sample.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from svad_ray.export.frames.sample import MEANING, Sample

PARQUET, WEBDATASET = "parquet", "webdataset"
SUFFIX = {PARQUET: "parquet", WEBDATASET: "tar"}
_SHAPES = {
    "keypoints": (133, 2),
    "scores": (133,),
    "part_seen": (10,),
    "part_photo": (10,),
    "global_orient": (3,),
    "body_pose": (21, 3),
    "left_hand_pose": (15, 3),
    "right_hand_pose": (15, 3),
    "jaw_pose": (3,),
    "leye_pose": (3,),
    "reye_pose": (3,),
    "transl": (3,),
    "viewmat": (4, 4),
    "K": (3, 3),
}
_LISTS = ("betas", "expression")  # their length is the body's
_PICTURES = ("image", "mask", "depth")
_INTEGERS, _FLOATS = ("frame", "height", "width"), ("fps", "residual_px")
_ROWS_A_GROUP = 64
_TAR_BLOCK, _TAR_END = 512, 10240


def cost(sample: Sample, kind: str) -> int:
    """Bytes that a sample adds to a shard, never too few."""
    if kind == PARQUET:
        return sample.size + 2048
    return sum(_TAR_BLOCK + math.ceil(len(content) / _TAR_BLOCK) * _TAR_BLOCK for _, content in members(sample))


def overhead(kind: str) -> int:
    """Bytes of a shard besides its samples, never too few."""
    return 32768 if kind == PARQUET else 2 * _TAR_END


def shard_bytes(samples: Sequence[Sample], kind: str) -> bytes:
    """One shard."""
    return _parquet(samples) if kind == PARQUET else _tar(samples)


def members(sample: Sample) -> list[tuple[str, bytes]]:
    """The files of a sample in a tar."""
    image = "png" if sample.image.startswith(b"\x89PNG") else "jpg"
    plain = {name: _plain(value) for name, value in {"key": sample.key, **sample.values}.items()}
    pictures = [(image, sample.image), ("mask.png", sample.mask), ("depth.png", sample.depth)]
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    return [(f"{sample.key}.{extension}", content) for extension, content in [*pictures, ("json", text)]]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind != "f" or np.isfinite(value).all() else [_plain(float(v)) for v in value.ravel()]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tar(samples: Sequence[Sample]) -> bytes:
    """A POSIX tar without owners and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for name, content in members(sample):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def parquet_schema() -> Any:
    """The schema of a parquet shard."""
    import pyarrow as pa

    def kind(name: str) -> Any:
        if name in _SHAPES:
            return pa.fixed_shape_tensor(pa.float32(), _SHAPES[name])
        if name == "visible":
            return pa.fixed_shape_tensor(pa.uint8(), (133,))
        if name in _LISTS:
            return pa.list_(pa.float32())
        if name in _PICTURES:
            return pa.binary()
        return pa.int32() if name in _INTEGERS else pa.float32() if name in _FLOATS else pa.string()

    fields = [pa.field(name, kind(name), metadata={"meaning": meaning}) for name, meaning in MEANING.items()]
    return pa.schema(fields, metadata={"svad_ray.frames": json.dumps({"format": 2, "meaning": MEANING})})


def _parquet(samples: Sequence[Sample]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema()
    columns = [_column(field, [_value(sample, field.name) for sample in samples]) for field in schema]
    buffer = io.BytesIO()
    packed = {name: "NONE" if name in _PICTURES else "ZSTD" for name in schema.names}
    # A tensor column's storage is "<name>.list.element" on disk; a plain setting by column name does not reach it.
    packed |= {f"{field.name}.list.element": "ZSTD" for field in schema if isinstance(field.type, pa.FixedShapeTensorType | pa.ListType)}
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), buffer, compression=packed, row_group_size=_ROWS_A_GROUP, use_dictionary=False)
    return buffer.getvalue()


def _value(sample: Sample, name: str) -> Any:
    return getattr(sample, name) if name in ("key", *_PICTURES) else sample.values[name]


def _column(field: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    if isinstance(field.type, pa.FixedShapeTensorType):
        stacked = np.stack(values).astype(field.type.value_type.to_pandas_dtype())
        storage = pa.FixedSizeListArray.from_arrays(pa.array(stacked.ravel()), type=field.type.storage_type)
        return pa.ExtensionArray.from_storage(field.type, storage)
    return pa.array([value.tolist() if isinstance(value, np.ndarray) else value for value in values], field.type)
