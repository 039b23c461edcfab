"""Videos through an encoder and back, compared with the frames that went in."""

import av
import numpy as np
import pytest

from svad_ray.errors import InputError
from svad_ray.export.video import read_video, write_mp4


def clip(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth pictures that differ from frame to frame, red to the right and green downwards."""
    y, x = np.mgrid[:height, :width]
    planes = [np.stack([255 * x / width, 255 * y / height, np.full(x.shape, 20 + 200 * t / frames)], -1) for t in range(frames)]
    return np.stack(planes).astype(np.uint8)


def psnr(a, b) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("fps", [25.0, 24000 / 1001, 12.5])
def test_frames_and_rate_survive(tmp_path, fps):
    frames = clip(9)
    write_mp4(iter(frames), tmp_path / "a.mp4", fps)
    found, rate = read_video(tmp_path / "a.mp4")
    assert found.shape == frames.shape and found.dtype == np.uint8
    assert rate == pytest.approx(fps, rel=1e-4)
    assert min(psnr(a, b) for a, b in zip(found, frames)) > 36


def test_colours_are_tagged_and_pixels_playable_everywhere(tmp_path):
    write_mp4(clip(2), tmp_path / "a.mp4", 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_primaries, codec.color_range) == (1, 1, 1)  # BT.709, limited


def test_odd_sizes_grow_by_a_repeated_edge(tmp_path):
    frames = clip(2, 31, 45)
    write_mp4(frames, tmp_path / "a.mp4", 25, crf=1)
    found, _ = read_video(tmp_path / "a.mp4")
    assert found.shape == (2, 32, 46, 3)
    assert psnr(found[:, :31, :45], frames) > 36


def test_reading_less(tmp_path):
    frames = clip(8)
    write_mp4(frames, tmp_path / "a.mp4", 25)
    found, _ = read_video(tmp_path / "a.mp4", max_frames=3, max_side=32)
    assert found.shape == (3, 24, 32, 3)
    assert psnr(found, frames[:3].reshape(3, 24, 2, 32, 2, 3).mean((2, 4))) > 32


def test_a_file_cut_off_in_the_middle_gives_its_beginning(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (24, 12, 16, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    write_mp4(frames, tmp_path / "a.mp4", 25)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    found, _ = read_video(tmp_path / "cut.mp4")
    assert 4 <= len(found) < 24
    np.testing.assert_array_equal(found[0], read_video(tmp_path / "a.mp4")[0][0])


def test_unreadable_videos_are_named(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    for name in ("absent.mp4", "text.mp4", "empty.mp4"):
        with pytest.raises(InputError, match=name):
            read_video(tmp_path / name)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no picture track"):
        read_video(tmp_path / "sound.wav")


@pytest.mark.parametrize(
    "frames",
    [[], [np.zeros((8, 8, 3), np.float32)], [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], [np.zeros((8, 8, 4), np.uint8)]],
    ids=["none", "floats", "two sizes", "alpha"],
)
def test_what_cannot_be_a_video_is_refused_and_leaves_no_file(tmp_path, frames):
    with pytest.raises(InputError):
        write_mp4(frames, tmp_path / "a.mp4", 25)
    assert not list(tmp_path.iterdir())


def test_a_rate_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="frame rate"):
        write_mp4(clip(2), tmp_path / "a.mp4", 0)
