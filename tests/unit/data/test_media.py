import errno
import os
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kinema.core.errors import MediaError
from kinema.data import encode as encoding
from kinema.data import media
from kinema.data.encode import write_video
from kinema.data.media import Frame, TruncatedError, contain, cover, probe, read_frames, read_video, resample
from kinema.data.sources import read_strip

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(height=48, width=64, frames=10):
    """Frames with a colour in every quarter: red, white over black, blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = WHITE
    image[height // 2 :, width // 2 :] = BLUE
    return np.stack([image] * frames)


def textured(frames=60, height=48, width=64):
    """Frames that compress to something worth damaging."""
    grey = np.random.default_rng(0).integers(0, 255, (height // 4, width), np.uint8)
    wide = np.asarray(Image.fromarray(grey).resize((4 * width, height)).convert("RGB"))
    return np.stack([wide[:, 2 * t : 2 * t + width] for t in range(frames)])


def encode(path, video, codec="libx264", pixels="yuv420p", *, milliseconds=None, rotation=None, options=None, aspect=None):
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = pixels
        if aspect:
            stream.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation["degrees"], rotation.get("mirrored", False))
        for t, image in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if image.shape[-1] == 4 else "rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[t], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corners(image):
    return [tuple(int(value) for value in image[y, x]) for y in (4, -5) for x in (4, -5)]


def assert_colours(image, expected, tolerance=6):
    assert np.abs(np.array(corners(image)) - np.array(expected)).max() <= tolerance, corners(image)


# --- Reading --------------------------------------------------------------------------------------------------------------


def test_frames_come_with_exact_times(tmp_path):
    path = encode(tmp_path / "clip.mp4", quarters())
    frames = list(read_frames(path))
    assert [frame.time for frame in frames] == pytest.approx([t / 25 for t in range(10)])
    assert frames[0].interval == 1 / 25
    assert_colours(frames[0].image, [RED, WHITE, (0, 0, 0), BLUE])


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ({"degrees": 90}, [WHITE, BLUE, RED, (0, 0, 0)]),
        ({"degrees": 180}, [BLUE, (0, 0, 0), WHITE, RED]),
        ({"degrees": 270}, [(0, 0, 0), RED, BLUE, WHITE]),
        ({"degrees": 0, "mirrored": True}, [WHITE, RED, BLUE, (0, 0, 0)]),
    ],
)
def test_rotation_and_mirroring_are_applied(tmp_path, rotation, expected):
    path = encode(tmp_path / "clip.mp4", quarters(), rotation=rotation)
    info, frame = probe(path), next(read_frames(path))
    turned = rotation["degrees"] in (90, 270)
    assert (info.width, info.height) == ((48, 64) if turned else (64, 48))
    assert info.rotation == rotation["degrees"]
    assert frame.image.shape == (info.height, info.width, 3)
    assert_colours(frame.image, expected)
    small = next(read_frames(path, resize=cover(24, 24))).image
    assert small.shape == ((32, 24, 3) if turned else (24, 32, 3))
    assert_colours(small, expected, tolerance=12)


def test_other_angles_are_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4", quarters(), rotation={"degrees": 30})
    with pytest.raises(MediaError, match="only quarter turns"):
        probe(path)


def test_pixels_become_square(tmp_path):
    path = encode(tmp_path / "clip.mp4", quarters(), aspect=Fraction(3, 2))
    assert next(read_frames(path)).image.shape == (48, 96, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("deep.mp4", "libx264", "yuv420p10le"),
        ("full_range.mp4", "libx264", "yuvj420p"),
        ("dense.mp4", "libx264", "yuv444p"),
        ("lossless.mov", "png", "rgb24"),
        ("old.avi", "mpeg4", "yuv420p"),
        ("web.webm", "libvpx-vp9", "yuv420p"),
        ("stream.ts", "libx264", "yuv420p"),
    ],
)
@pytest.mark.parametrize("resize", [None, cover(24, 24)])
def test_colours_survive_any_pixel_format(tmp_path, name, codec, pixels, resize):
    path = encode(tmp_path / name, quarters(), codec, pixels)
    frames = list(read_frames(path, resize=resize))
    assert len(frames) == 10
    assert_colours(frames[0].image, [RED, WHITE, (0, 0, 0), BLUE], tolerance=14 if resize else 6)


@pytest.mark.parametrize(("name", "codec", "pixels"), [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "png", "rgba")])
def test_alpha_is_laid_on_black(tmp_path, name, codec, pixels):
    grey = np.full((5, 48, 64, 3), 200, np.uint8)
    alpha = np.full((5, 48, 64, 1), 128, np.uint8)
    path = encode(tmp_path / name, np.concatenate([grey, alpha], axis=-1), codec, pixels)
    assert np.abs(next(read_frames(path)).image.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (47, 2)])
def test_odd_sizes(tmp_path, size):
    path = encode(tmp_path / "odd.webm", textured(3)[:, : size[0], : size[1]], "libvpx-vp9")
    assert next(read_frames(path)).image.shape == (*size, 3)
    assert max(next(read_frames(path, resize=contain(8, 8))).image.shape[:2]) == 8


def test_a_variable_rate_is_put_on_its_nominal_grid(tmp_path):
    shades = np.stack([np.full((16, 16, 3), 20 * t, np.uint8) for t in range(12)])
    times = [0, 40, 80, 120, 160, 320, 360, 400, 520, 560, 600, 640]  # 25 fps; three frames missing, two missing
    path = encode(tmp_path / "clip.mp4", shades, milliseconds=times, options={"crf": "0"})
    assert [round(frame.time * 1000) for frame in read_frames(path)] == times
    assert probe(path).fps == 25
    video, fps = read_video(path)
    shown = [round(float(frame.mean()) / 20) for frame in video]
    assert (fps, shown) == (25.0, [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 7, 7, 8, 8, 9, 10, 11])


def test_one_frame(tmp_path):
    path = encode(tmp_path / "one.mp4", quarters(frames=1))
    assert read_video(path)[0].shape == (1, 48, 64, 3)
    assert len(list(read_frames(probe(path)))) == 1


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (25, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (12.5, [0, 2, 4, 6, 8]),
        (10, [0, 3, 5, 8]),  # at 0, 100, 200 and 300 ms; 100 lies between 80 and 120, 300 between 280 and 320
        (50, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9]),
    ],
)
def test_resampling_shows_the_nearest_frame(fps, expected):
    frames = [Frame(t / 25, np.full((1, 1, 3), t, np.uint8), 1 / 25) for t in range(10)]
    assert [int(image[0, 0, 0]) for image in resample(iter(frames), fps)] == expected


def test_rounded_times_change_nothing():
    frames = [Frame(round(t / 30, 3), np.full((1, 1, 3), t, np.uint8), 1 / 30) for t in range(200)]
    for fps in (None, 30):
        assert [int(image[0, 0, 0]) for image in resample(iter(frames), fps)] == list(range(200))


def test_an_imprecise_nominal_rate_neither_repeats_nor_drops():
    frames = [Frame(t / 29.97, np.full((1, 1, 3), t % 256, np.uint8), 1 / 30.1) for t in range(2000)]
    assert len(list(resample(iter(frames), None))) == 2000


def test_nothing_resampled_is_nothing():
    assert list(resample(iter([]), 25)) == []


# --- Bad files ------------------------------------------------------------------------------------------------------------


def test_damage_in_the_middle_keeps_what_came_before(tmp_path):
    path = encode(tmp_path / "whole.mp4", textured(), options={"g": "10"})
    whole = [frame.image for frame in read_frames(path)]
    data = path.read_bytes()
    for name, damaged in (("cut.mp4", data[: len(data) * 7 // 10]), ("flipped.mp4", flip(data, 0.6))):
        broken = tmp_path / name
        broken.write_bytes(damaged)
        frames: list[np.ndarray] = []
        with pytest.raises(TruncatedError, match=f"{name} is damaged after frame") as caught:
            frames.extend(frame.image for frame in read_frames(broken))
        assert 10 < caught.value.frames_read == len(frames) < 60
        np.testing.assert_array_equal(np.stack(frames), np.stack(whole[: len(frames)]))
        assert pickle.loads(pickle.dumps(caught.value)).frames_read == len(frames)  # crosses process borders


def flip(data, place):
    """Flip a bit in every fifth byte of a stretch of the file; H.264 has no checksums, so that fewer may pass for a picture."""
    damaged = bytearray(data)
    for position in range(int(len(data) * place), int(len(data) * (place + 0.1)), 5):
        damaged[position] ^= 16
    return bytes(damaged)


@pytest.mark.parametrize(("name", "codec"), [("c.mkv", "libx264"), ("c.webm", "libvpx-vp9"), ("c.avi", "mpeg4")])
def test_a_cut_off_file_is_told_from_a_short_one(tmp_path, name, codec):
    path = encode(tmp_path / name, textured(), codec)
    assert len(list(read_frames(path))) == 60
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with pytest.raises(TruncatedError):
        list(read_frames(path))


def test_a_last_picture_that_stays_for_long_is_no_damage(tmp_path):
    """A Matroska file declares how long that lasts; measured to where it begins, the end seemed to be missing."""
    with av.open(str(tmp_path / "still.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        packets = [p for image in textured(9) for p in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))]
        packets += stream.encode(None)
        packets[-1].duration = 50
        container.mux(packets)
    assert len(list(read_frames(tmp_path / "still.mkv"))) == 9


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "a folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is no video.\n" * 100)
    elif kind == "headless":  # the index of an ordinary mp4 is at its end
        write_video(folder / "whole.webm", textured(8), 25)
        path.write_bytes((folder / "whole.webm").read_bytes()[300:])
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "does not exist"),
        ("a folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "is not a video"),
        ("headless", "is not a video|cannot be decoded"),
        ("sound", "holds no video stream, only audio"),
    ],
)
def test_bad_files_are_named_with_the_reason_at_once(tmp_path, kind, sentence):
    path = bad_file(tmp_path, kind)
    for read in (probe, read_frames, read_video):
        with pytest.raises(MediaError, match=sentence) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_playlist_cannot_reach_other_files(tmp_path):
    secret = encode(tmp_path / "secret.mp4", quarters())
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/{secret.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        probe(playlist)


def test_names_are_not_patterns(tmp_path):
    path = encode(tmp_path / "50%03d: a [b].mp4", quarters())
    assert len(list(read_frames(path))) == 10


# --- Images and strips ----------------------------------------------------------------------------------------------------


def test_images_of_every_mode(tmp_path):
    grey16 = Image.fromarray(np.full((4, 6), 257 * 100, np.uint16))
    half = Image.new("RGBA", (6, 4), (200, 100, 50, 128))
    palette = Image.new("RGB", (6, 4), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE)
    for image, expected in (
        (grey16, (100,) * 3),
        (half, (100, 50, 25)),
        (palette, (9, 8, 7)),
        (Image.new("1", (6, 4), 1), WHITE),
    ):
        image.save(tmp_path / "image.png")
        read = media.read_image(tmp_path / "image.png")
        assert read.shape == (4, 6, 3)
        assert tuple(read[1, 1]) == expected


def test_an_orientation_tag_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "phone.jpg", exif=exif)
    assert media.read_image(tmp_path / "phone.jpg").shape == (8, 4, 3)
    assert (probe(tmp_path / "phone.jpg").width, probe(tmp_path / "phone.jpg").height) == (4, 8)


def test_broken_images_are_named(tmp_path):
    encoding.write_image(tmp_path / "a.png", textured(1)[0])
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_text("no image")
    for name in ("b.png", "c.png"):
        with pytest.raises(MediaError, match=name):
            media.read_image(tmp_path / name)


def test_strips_side_by_side_and_stacked(tmp_path):
    video = textured(5, 8, 12)
    encoding.write_image(tmp_path / "row.png", np.concatenate(list(video), axis=1))
    encoding.write_image(tmp_path / "column.png", np.concatenate(list(video), axis=0))
    for name in ("row.png", "column.png"):
        np.testing.assert_array_equal(read_strip(tmp_path / name, 12, 8), video)
    with pytest.raises(MediaError, match=r"row\.png is 60x8 pixels; a strip of 7x8 frames"):
        read_strip(tmp_path / "row.png", 7, 8)


def test_a_contact_sheet_of_stills_is_a_grid_and_no_frame_comes_twice():
    stills = [np.full((1, 4, 6, 3), number, np.uint8) for number in range(5)]
    assert encoding.contact_sheet(stills, frames=3, gap=1).shape == (9, 20, 3)
    assert encoding.contact_sheet([np.zeros((2, 4, 6, 3), np.uint8)], frames=8).shape == (4, 12, 3)


def test_a_contact_sheet_shows_first_and_last_frames():
    clips = [np.stack([np.full((4, 6, 3), 10 * n + t, np.uint8) for t in range(9)]) for n in range(3)]
    sheet = encoding.contact_sheet(clips, columns=2, frames=3, gap=1)
    assert sheet.shape == (9, 37, 3)
    assert sheet[0, [0, 6, 12, 18, 19, 31], 0].tolist() == [0, 4, 8, 255, 10, 18]
    assert sheet[5, [0, 12, 25], 0].tolist() == [20, 28, 255]


# --- Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", encoding.OUTPUT_SUFFIXES)
def test_what_is_written_is_read_again(tmp_path, suffix):
    video = textured(12)
    video[5] = video[4]  # encoders of animations merge equal frames
    path = tmp_path / f"clip{suffix}"
    write_video(path, video, 12.5, metadata={"comment": "generated by kinema: seed 7"})
    assert probe(path).metadata["comment"] == "generated by kinema: seed 7"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".png":
        np.testing.assert_array_equal(read_strip(path, 64, 48), video)
        return
    again, fps = read_video(path)
    assert (again.shape, fps) == (video.shape, 12.5)
    assert np.abs(again.astype(int) - video).mean() < (1e-9 if suffix == ".apng" else 3)


def test_what_stands_still_does_not_flicker_in_a_gif(tmp_path):
    video = textured(10)
    video[:, :, 32:] = video[0, :, 32:]
    write_video(tmp_path / "clip.gif", video, 25)
    again, _ = read_video(tmp_path / "clip.gif")
    assert (again[:, :, 32:] == again[0, :, 32:]).all()


@pytest.mark.parametrize(
    ("name", "video", "fps", "sentence"),
    [
        ("clip.avi", textured(2), 25, r"accepted: \.mp4, \.webm, \.gif, \.webp, \.apng, \.png"),
        ("clip", textured(2), 25, "no suffix"),
        ("clip.mp4", textured(2)[:, :47], 25, "2x47x64 frames; .mp4 needs an even width and height"),
        ("clip.gif", textured(2)[:0], 25, "at least one frame"),
        ("clip.gif", textured(2), 0, "positive number"),
        ("nowhere/clip.gif", textured(2), 25, "cannot be written"),
        ("nowhere/clip.mp4", textured(2), 25, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, video, fps, sentence):
    with pytest.raises(MediaError, match=sentence):
        write_video(tmp_path / name, video, fps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"clip{suffix}"
    write_video(path, textured(3), 25)
    before = path.read_bytes()
    (tmp_path / f".clip{suffix}.tmp-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(MediaError, match=f"clip{suffix} cannot be written: {os.strerror(errno.ENOSPC)}"):
        write_video(path, textured(30), 25)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.skipif("KINEMA_FOOTAGE" not in os.environ, reason="KINEMA_FOOTAGE names no folder of real footage")
def test_real_footage_decodes_to_its_declared_length():
    for path in sorted(Path(os.environ["KINEMA_FOOTAGE"]).rglob("*.mp4")):
        info = probe(path)
        images = resample(read_frames(info, resize=cover(16, 16)), None)
        assert sum(1 for _ in images) == info.frames, path


def test_a_file_that_disappears_is_named(tmp_path):
    path = encode(tmp_path / "clip.mp4", quarters())
    info = probe(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        list(read_frames(info))
