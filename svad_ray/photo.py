"""Reading one photo: whatever people hand in becomes upright 8-bit RGB, or an error that says what to do.

The size is read from the header and bounded before a single pixel is decoded. The contents decide the format, never the file's name.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import fsspec
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from svad_ray.errors import InputError, QualityRejected
from svad_ray.subject import Photo

MAX_BYTES = 64 << 20
MAX_PIXELS = 100_000_000
WORKING_SIDE = 2048
MIN_SIDE = 64
MAX_PHOTOS = 8  # of one person
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_READABLE = "a JPEG, PNG, WebP, TIFF, BMP or GIF photo"
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")
_DEEP = {"I;16", "I;16B", "I;16L", "I", "F"}


def load_photo(
    source: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, working_side: int = WORKING_SIDE
) -> Photo:
    """Read a photo.

    Args:
        source: A path, or any address that fsspec understands.
        max_pixels: More than this are refused before decoding.
        max_bytes: Larger files are refused before they are read.
        working_side: A longer side than this is scaled down to it.

    Returns:
        The upright photo; ``notes`` say what was changed.

    Raises:
        InputError: Not there, too large, or not a whole image.
        QualityRejected: An image, but too small to show a person.
    """
    data = _read(str(source), max_bytes)
    name = PurePosixPath(str(source).replace(os.sep, "/")).stem or "photo"
    return decode_photo(data, name=name, max_pixels=max_pixels, working_side=working_side)


def decode_photo(data: bytes, *, name: str = "photo", max_pixels: int = MAX_PIXELS, working_side: int = WORKING_SIDE) -> Photo:
    """``load_photo`` for bytes that are already here (an upload); bound their number before calling. Raises as ``load_photo`` does."""
    if not data:
        raise InputError(f"'{name}' is empty", expected=_READABLE, remedy="copy or export the photo again")
    notes: list[str] = []
    image = _open(data, name, max_pixels)
    try:
        image = _first_frame(image, notes)
        image = _shrunk_by_decoder(image, working_side)
        image.load()
        image = _upright(image, notes)
        pixels = _to_rgb(image, notes)
    except Exception as error:  # decoders raise whatever a broken file leads them to (struct.error, KeyError, ...): all of it is the file's fault
        found = f"'{name}' is damaged or incomplete ({_plain(error)})"
        raise InputError(found, expected="a whole image file", remedy="copy or export the photo again") from error
    return Photo(name, _bounded(pixels, working_side, _header_size(data), notes), hashlib.sha256(data).hexdigest(), tuple(notes))


def together(photos: Sequence[Photo]) -> Photo:
    """Several photos of one person as one: the first, with the others in ``also``.

    Raises:
        InputError: None, too many, one of them twice, or a drawn picture among several.
    """
    if not 1 <= len(photos) <= MAX_PHOTOS:
        raise InputError(f"{len(photos)} photos of one person", expected=f"1 to {MAX_PHOTOS}", remedy="choose those from different sides")
    seen: dict[str, str] = {}
    for photo in photos:
        if photo.sha256 in seen:
            found = f"the photos '{seen[photo.sha256]}' and '{photo.name}' are the same file"
            raise InputError(found, expected="photos from different sides", remedy="leave one out")
        seen[photo.sha256] = photo.name
    return replace(photos[0], also=tuple(photos[1:]))


def _read(source: str, max_bytes: int) -> bytes:
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        if filesystem.isdir(path):
            raise InputError(f"'{source}' is a folder", expected="one photo file", remedy="name a file in it")
        with filesystem.open(path, "rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise InputError(f"there is no file '{source}'", expected="the path of a photo", remedy="check the spelling of the path") from error
    except (ValueError, ImportError) as error:
        found = f"'{source}' cannot be opened ({_plain(error)})"
        raise InputError(found, expected="a path or an address that fsspec understands", remedy="install that protocol's fsspec package") from error
    except OSError as error:
        raise InputError(
            f"'{source}' cannot be read ({_plain(error)})", expected="a readable file", remedy="check permissions and network"
        ) from error
    if len(data) > max_bytes:
        raise InputError(
            f"'{source}' is larger than {max_bytes / 2**20:.0f} MiB", expected="a smaller file", remedy="export the photo as JPEG, or raise max_bytes"
        )
    return data


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The image with only its header read, when its size is bearable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound follows
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        kind = "a HEIC photo, which cannot be read here" if data[4:12] in _HEIC else "not an image that can be read"
        raise InputError(f"'{name}' is {kind}", expected=_READABLE, remedy="export the photo as JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"'{name}' is far too large ({_plain(error)})", expected=f"at most {max_pixels} pixels", remedy="scale it down") from error
    except Exception as error:  # as below: a broken header can raise anything
        raise InputError(f"'{name}' is damaged ({_plain(error)})", expected=_READABLE, remedy="copy or export the photo again") from error
    width, height = image.size
    if width * height > max_pixels:
        found = f"'{name}' has {width} x {height} = {width * height / 1e6:.0f} million pixels"
        raise InputError(found, expected=f"at most {max_pixels / 1e6:.0f} million", remedy="scale the photo down, or raise max_pixels")
    if min(width, height) < MIN_SIDE:
        found = f"'{name}' has only {width} x {height} pixels"
        raise QualityRejected(found, expected=f"at least {MIN_SIDE} on each side, and a person of 200 or more", remedy="use the original photo")
    return image


def _header_size(data: bytes) -> tuple[int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=_FORMATS).size


def _first_frame(image: Image.Image, notes: list[str]) -> Image.Image:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO's further frames are previews or the other eye
        notes.append(f"first of {frames} frames taken")
        image.seek(0)
    return image


def _shrunk_by_decoder(image: Image.Image, working_side: int) -> Image.Image:
    """Let a JPEG decode at a half, quarter or eighth when that still is larger than wanted: time and memory."""
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (max(image.width * working_side // max(image.size), 1), max(image.height * working_side // max(image.size), 1)))
    return image


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.getexif().get(0x0112, 1) in range(2, 9):
        notes.append("EXIF rotation applied")
        return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image, notes: list[str]) -> np.ndarray:
    """(H, W, 3) uint8."""
    if image.mode in _DEEP:
        notes.append(f"{'16-bit' if image.mode.startswith('I') else 'floating-point'} grey converted to 8 bit")
        return _from_deep(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        notes.append("alpha flattened onto white")
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        notes.append(f"{image.mode} converted to RGB")
    elif image.mode in ("L", "1"):
        notes.append("grey photo: the avatar will have no colours")
    return np.asarray(image.convert("RGB"))


def _from_deep(values: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits to (H, W, 3) uint8: 16-bit range, or the data's own when it is floating-point in [0, 1] or fits 8 bits."""
    grey = values.astype(np.float64)
    top = float(np.nanmax(grey)) if grey.size else 0.0
    scale = 255.0 if values.dtype.kind == "f" and top <= 1 else 1.0 if top <= 255 else 255 / 65535
    eight = np.clip(np.nan_to_num(grey) * scale + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(eight[..., None], 3, -1)


def _bounded(pixels: np.ndarray, working_side: int, original: tuple[int, int], notes: list[str]) -> np.ndarray:
    height, width = pixels.shape[:2]
    factor = working_side / max(original)
    if factor < 1:
        notes.append(f"downscaled from {original[0]}x{original[1]}")
    if max(height, width) <= working_side:
        return np.ascontiguousarray(pixels)
    shrink = working_side / max(height, width)
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
