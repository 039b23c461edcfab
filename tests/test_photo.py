"""Reading photos: every kind of bad or odd file, made on the spot."""

from __future__ import annotations

import hashlib
import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svad_ray.errors import InputError, QualityRejected, SvadError
from svad_ray.photo import decode_photo, load_photo

HEIGHT, WIDTH = 96, 128


def scene() -> np.ndarray:
    """(96, 128, 3) uint8, smooth, with a different colour in every corner."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return (np.stack([x, y, 1 - x], -1) * 255).round().astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = [(part, zlib.crc32(part)) for part in (body, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join((len(part) - 4).to_bytes(4, "big") + part + crc.to_bytes(4, "big") for part, crc in chunks)


def test_png_comes_back_bit_by_bit(tmp_path):
    data = encoded(Image.fromarray(scene()))
    (tmp_path / "anna.png").write_bytes(data)
    photo = load_photo(tmp_path / "anna.png")
    assert photo.name == "anna" and photo.notes == ()
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(photo.image, scene())


def test_contents_decide_not_the_name(tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(Image.fromarray(scene()), "JPEG", quality=98))
    assert np.abs(load_photo(tmp_path / "photo.png").image.astype(int) - scene()).max() < 12


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF"])
def test_other_formats(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_photo(encoded(Image.fromarray(scene()), kind, **options)).image, scene())


def test_address_of_another_file_system():
    import fsspec

    with fsspec.open("memory://people/eve.png", "wb") as stream:
        stream.write(encoded(Image.fromarray(scene())))
    assert load_photo("memory://people/eve.png").name == "eve"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_honoured(orientation):
    # The stored picture is the upright one moved by the inverse; stated with NumPy alone, after the EXIF definition of the tag.
    upright = scene()
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_photo(encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes()))
    np.testing.assert_array_equal(photo.image, upright)
    assert photo.notes == ("EXIF rotation applied",)


def test_grey_palette_and_cmyk_are_converted():
    grey = decode_photo(encoded(Image.fromarray(scene()[..., 0])))
    np.testing.assert_array_equal(grey.image[..., 1], scene()[..., 0])
    assert "grey" in grey.notes[0]
    palette = decode_photo(encoded(Image.fromarray(scene()).quantize(64), "GIF"))
    assert palette.image.shape == scene().shape and np.abs(palette.image.astype(int) - scene()).mean() < 16
    cmyk = decode_photo(encoded(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "TIFF"))
    assert cmyk.notes == ("CMYK converted to RGB",)
    np.testing.assert_array_equal(cmyk.image[0, 0], [255, 0, 0])


def test_alpha_goes_onto_white():
    alpha = np.full((HEIGHT, WIDTH), 128, np.uint8)
    alpha[:, :10] = 0
    photo = decode_photo(encoded(Image.fromarray(np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), alpha]))))
    np.testing.assert_array_equal(photo.image[5, 5], [255] * 3)
    np.testing.assert_allclose(photo.image[5, 50], 255 * (1 - 128 / 255), atol=1)
    assert photo.notes == ("alpha flattened onto white",)


def test_transparent_palette_goes_onto_white():
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([0, 0, 0] * 256)
    assert (decode_photo(encoded(image, transparency=0)).image == 255).all()


def test_sixteen_bit_keeps_its_range():
    ramp = np.tile(np.linspace(0, 65535, WIDTH).round().astype(np.uint16), (HEIGHT, 1))
    photo = decode_photo(encoded(Image.fromarray(ramp), "PNG"))
    np.testing.assert_allclose(photo.image[0, :, 0], np.linspace(0, 255, WIDTH), atol=0.51)
    assert photo.notes == ("16-bit grey converted to 8 bit",)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue", "green")]
    photo = decode_photo(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(photo.image[0, 0], [255, 0, 0])
    assert photo.notes[0] == "first of 3 frames taken"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_photo_is_scaled_and_keeps_its_shape(kind):
    photo = decode_photo(encoded(Image.fromarray(scene()).resize((1600, 1200)), kind), working_side=400)
    assert photo.image.shape == (300, 400, 3)
    assert photo.notes == ("downscaled from 1600x1200",)
    np.testing.assert_allclose(photo.image.mean((0, 1)), scene().mean((0, 1)), atol=2)


def test_too_many_pixels_are_refused_before_decoding():
    # These files hold no pixels at all: the refusal can only come from the header.
    with pytest.raises(InputError, match="million pixels"):
        decode_photo(png_header(10_000, 9_000), max_pixels=40_000_000)
    with pytest.raises(InputError, match="too large"):
        decode_photo(png_header(2_000_000, 1_000_000))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (63, 500)])
def test_tiny_photo_is_refused(size):
    with pytest.raises(QualityRejected, match=f"{size[0]} x {size[1]}"):
        decode_photo(encoded(Image.new("RGB", size)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "not an image"),
        (b"%PDF-1.7" + bytes(500), "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        (b"\xff\xd8\xff\xe0", "image|damaged"),
    ],
)
def test_not_an_image(data, message):
    with pytest.raises(InputError, match=message) as caught:
        decode_photo(data, name="x")
    assert caught.value.expected and caught.value.remedy


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated(kind):
    data = encoded(Image.fromarray(scene()), kind)
    with pytest.raises(InputError, match=r"damaged|not an image"):
        decode_photo(data[: len(data) // 2])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]), damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20)
)
def test_damaged_files_never_raise_anything_else(kind, damage):
    data = bytearray(encoded(Image.fromarray(scene()), kind))
    for where, value in damage:
        data[min(int(where * len(data)), len(data) - 1)] = value
    try:
        image = decode_photo(bytes(data)).image
    except SvadError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_missing_folder_large_and_unknown_protocol(tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_photo(tmp_path / "nobody.jpg")
    with pytest.raises(InputError, match="folder"):
        load_photo(tmp_path)
    (tmp_path / "big.png").write_bytes(encoded(Image.fromarray(scene())))
    with pytest.raises(InputError, match="larger than"):
        load_photo(tmp_path / "big.png", max_bytes=100)
    with pytest.raises(InputError, match="cannot be opened"):
        load_photo("nosuchprotocol://a/b.jpg")
