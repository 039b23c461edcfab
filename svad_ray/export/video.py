"""Videos in and out through PyAV; no ffmpeg program is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from svad_ray.errors import InputError
from svad_ray.export.atomic import atomic_path

_TIME_BASE = 10**6  # rates are fractions of this denominator; exact for 25, 30 and 23.976
_VIDEO_REMEDY = "convert it to an mp4 (H.264) and try again"


def write_mp4(frames: Iterable[np.ndarray], path: str | Path, fps: float, *, crf: int = 18) -> None:
    """Write (H, W, 3) uint8 RGB frames as H.264 yuv420p, playable everywhere; the file appears whole or not at all.

    Odd sizes grow by one repeated row or column, which yuv420p needs.

    Args:
        frames: All of one size; consumed one by one.
        fps: Frames per second, positive.
        crf: Quality, 0 lossless to 51; 18 looks lossless.

    Raises:
        InputError: No frames, unequal sizes, another dtype, or a path that cannot be written.
    """
    if fps <= 0:
        raise InputError(f"a frame rate of {fps}", expected="a positive number", remedy="give frames per second, as 25")
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise InputError("no frames to write", expected="at least one frame", remedy="render at least one frame")
    with atomic_path(path) as temporary:
        _encode(chain([first], rest), first.shape, temporary, fps, crf)


def _encode(frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path, fps: float, crf: int) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(_TIME_BASE), options={"crf": str(crf), "preset": "medium"})
        stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the caller decides about parallelism; a bigger encoder pool only oversubscribes
        _tag_colours(stream.codec_context)
        for number, frame in enumerate(frames):
            container.mux(stream.encode(_video_frame(frame, shape, number)))
        container.mux(stream.encode())


def _tag_colours(codec: av.VideoCodecContext) -> None:
    """BT.709 limited range, written into the file, so that players do not guess BT.601 for small sizes."""
    codec.color_range = 1
    codec.colorspace = codec.color_primaries = codec.color_trc = 1


def _video_frame(frame: np.ndarray, shape: tuple[int, ...], number: int) -> av.VideoFrame:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        raise InputError(
            f"frame {number} is {frame.dtype} of shape {frame.shape}, the first is of shape {shape}",
            expected="uint8 H x W x 3 RGB frames of one size",
            remedy="resize or convert the frames before writing",
        )
    height, width = shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def read_video(path: str | Path, *, max_frames: int | None = None, max_side: int | None = None) -> tuple[np.ndarray, float]:
    """The frames of a video, upright, and their rate.

    Args:
        max_frames: Read at most the first so many; None = all.
        max_side: Shrink frames (area average) so that the longer side is at most this, pixels; None = as they are.

    Returns:
        frames (T, H, W, 3) uint8 RGB and frames per second.

    Raises:
        InputError: Missing, no video, damaged before the first frame, or not a single frame.
    """
    if not Path(path).is_file():
        raise InputError(f"no video file {path}", expected="a video file", remedy="check the path")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no picture track", expected="a video file", remedy=_VIDEO_REMEDY)
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            frames = [_shrunk(picture, max_side) for picture in _pictures(container, max_frames)]
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} is no readable video ({error})", expected="a video file", remedy=_VIDEO_REMEDY) from error
    if not frames:
        raise InputError(f"{path} holds no frames", expected="at least one frame", remedy=_VIDEO_REMEDY)
    return np.stack(frames), fps


def _pictures(container: av.container.InputContainer, limit: int | None) -> Iterator[np.ndarray]:
    """RGB frames in display orientation; a file cut off in the middle yields the frames before the cut."""
    count = 0
    try:
        for picture in container.decode(video=0):
            if limit is not None and count >= limit:
                return
            yield np.rot90(picture.to_ndarray(format="rgb24"), round(picture.rotation / 90))
            count += 1
    except av.error.InvalidDataError:
        if count == 0:
            raise


def _shrunk(frame: np.ndarray, max_side: int | None) -> np.ndarray:
    longest = max(frame.shape[:2])
    if max_side is None or longest <= max_side:
        return np.ascontiguousarray(frame)
    height, width = (max(1, round(side * max_side / longest)) for side in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
