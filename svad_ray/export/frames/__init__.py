"""Labelled frames of finished subjects as a dataset: pictures, masks, keypoints, depth, SMPL-X parameters and cameras, in shards.

``subjects`` finds what there is, ``labels`` asks the fitted body, ``sample`` says what a frame carries, ``formats`` writes shards (parquet or tar),
``coco`` the annotation file, ``plan`` decides which subject goes where, ``dataset`` runs it all and can be run again.

Layout below the target::

    dataset.json                      options and what every field means; made once
    plans/0000.json                   which subjects are in which part; one more file each time that subjects are added
    shards/frames-00012-000.parquet   or .tar; the first number is the part's
    parts/00012.json                  written when all shards of a part are: what is in them, and who was left out and why
    annotations/                      COCO-WholeBody JSON, per part and merged
    index.json index.parquet subjects.parquet
"""

from svad_ray.export.frames.dataset import ExportSummary, export_frames, export_part, forget_damaged
from svad_ray.export.frames.plan import FrameOptions

__all__ = ["ExportSummary", "FrameOptions", "export_frames", "export_part", "forget_damaged"]
