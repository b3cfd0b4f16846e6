from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptot.data.images import read_image as images
from promptot.data.images.read_image import UnreadableImage, is_image_name, load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def reason(path: str | Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        load_image(path)
    assert caught.value.path == os.fspath(path)
    assert os.fspath(path) in str(caught.value)
    return caught.value.reason


def picture(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Left half red, right half blue, top left corner green."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2] = RED
    pixels[:, size[0] // 2 :] = BLUE
    pixels[:8, :8] = GREEN
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "tga", "ico", "gif", "jp2"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "ico": {"sizes": [(40, 30)]}}.get(suffix, {})
    picture().save(path, **options)
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), np.asarray(picture()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = picture()
    turn = {  # from upright pixels to those a camera held that way would store
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01garbage")
    assert load_image(tmp_path / "a.jpg").size == (40, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))
    image.convert(mode).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.getpixel((0, 0)) == (0, 0, 0)
    assert loaded.getpixel((1, 0)) == (204, 204, 204)
    assert loaded.getpixel((3, 3)) == WHITE


def test_transparent_palette_entries_are_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((0, 0), 1)
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=0)
        loaded = load_image(tmp_path / name)
        assert loaded.getpixel((0, 0)) == BLUE
        assert loaded.getpixel((3, 3)) == WHITE


def test_a_transparent_colour_is_white(tmp_path: Path) -> None:
    picture().save(tmp_path / "rgb.png", transparency=RED)
    assert load_image(tmp_path / "rgb.png").getpixel((10, 20)) == WHITE
    Image.new("L", (4, 4), 7).save(tmp_path / "grey.png", transparency=7)
    assert load_image(tmp_path / "grey.png").getpixel((0, 0)) == WHITE


def test_16_bit_greys_span_the_full_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        loaded = np.asarray(load_image(tmp_path / name))
        assert loaded[0, :, 0].tolist() == [0, 1, 128, 255]
        assert np.array_equal(loaded[..., 0], loaded[..., 2])


def test_a_dark_16_bit_grey_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 200, np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (1, 1, 1)


def test_float_greys(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0, -3.0]], np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(load_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255, 0]
    Image.fromarray(np.array([[0, 51, np.nan, np.inf]], np.float32)).save(tmp_path / "b.tif")
    assert np.asarray(load_image(tmp_path / "b.tif"))[0, :, 0].tolist() == [0, 51, 0, 0]


@pytest.mark.parametrize(("mode", "value"), [("1", 255), ("L", 90), ("CMYK", (0, 255, 255, 0))])
def test_other_modes_become_rgb(tmp_path: Path, mode: str, value: int | tuple[int, ...]) -> None:
    Image.new(mode, (8, 8), value).save(tmp_path / "a.tif")
    loaded = load_image(tmp_path / "a.tif")
    assert loaded.mode == "RGB"
    expected = {"1": WHITE, "L": (90, 90, 90), "CMYK": RED}[mode]
    assert loaded.getpixel((4, 4)) == expected


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = load_image(tmp_path / "a.jpg").getpixel((8, 8))
    assert (red > 250, green < 5, blue < 5) == (True, True, True)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        frames[0].save(
            tmp_path / name, save_all=True, append_images=frames[1:], lossless=True, duration=9
        )
        assert load_image(tmp_path / name).getpixel((4, 4)) == RED


def test_the_content_counts_not_the_ending(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert load_image(tmp_path / "a.jpg").size == (40, 30)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif", "jp2"])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert reason(cut)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    path = tmp_path / "a"
    for suffix in ("png", "jpg", "webp", "gif", "tif"):
        buffer = io.BytesIO()
        picture().save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        good = np.frombuffer(buffer.getvalue(), np.uint8)
        for _ in range(40):
            bad = good.copy()
            bad[generator.integers(0, len(bad), 6)] = generator.integers(0, 256, 6)
            path.write_bytes(bad.tobytes())
            with contextlib.suppress(UnreadableImage):
                assert load_image(path).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"just some notes\n", "text"),
        ("schöne Grüße, alles Text".encode(), "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"  <!DOCTYPE html><html>404</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "text"),
        (b"\x89PNG\r\n\x1a\n", "known format"),
        (bytes(range(256)), "known format"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    if part == "HEIC" and "HEIF" in Image.OPEN:
        pytest.skip("this Pillow reads HEIC")
    assert part in reason(path)


def test_folders_missing_files_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    assert reason(tmp_path) == "it is a folder"
    assert reason(tmp_path / "none.png") == "there is no such file"
    (tmp_path / "link.png").symlink_to(tmp_path / "none.png")
    assert reason(tmp_path / "link.png") == "there is no such file"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "pipe" in reason(tmp_path / "pipe.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_forbidden_file_is_refused(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert reason(tmp_path / "a.png") == "permission denied"


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.ppm").write_bytes(b"P6\n20000 18000\n255\n")
    assert reason(tmp_path / "bomb.ppm") == "it has too many pixels"
    large = picture()
    large._size = (20_000, 9_001)  # without the memory of them
    with pytest.raises(UnreadableImage, match="20000 × 9001 pixels are too many"):
        load_image(large)


def test_a_narrow_strip_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (2, 401)).save(tmp_path / "strip.png")
    assert "narrow" in reason(tmp_path / "strip.png")
    Image.new("RGB", (2, 400)).save(tmp_path / "long.png")
    assert load_image(tmp_path / "long.png").size == (2, 400)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for index in range(20):
            buffer = io.BytesIO()
            Image.new("RGB", (16, 16), (index, 0, 0)).save(buffer, "PNG")
            file.writestr(f"some/{index}.png", buffer.getvalue())
        file.writestr("empty.png", b"")
        file.writestr("notes.png", b"some notes")
    return path


def test_zip_members(archive: Path) -> None:
    assert load_image(f"{archive}::some/3.png").getpixel((0, 0)) == (3, 0, 0)
    assert "no such member" in reason(f"{archive}::some/99.png")
    assert reason(f"{archive}::empty.png") == "the file is empty"
    assert "text" in reason(f"{archive}::notes.png")
    assert reason(f"{archive}.zip::a.png") == "there is no such file"


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert "damaged" in reason(f"{tmp_path / 'a.zip'}::a.png")


def test_a_damaged_zip_member(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[60] ^= 0xFF  # within the first member's bytes
    archive.write_bytes(data)
    assert "damaged" in reason(f"{archive}::some/0.png")


def test_a_replaced_zip_is_read_anew(archive: Path) -> None:
    assert load_image(f"{archive}::some/3.png").size == (16, 16)
    with zipfile.ZipFile(archive, "w") as file:
        buffer = io.BytesIO()
        picture().save(buffer, "PNG")
        file.writestr("some/3.png", buffer.getvalue())
    assert load_image(f"{archive}::some/3.png").size == (40, 30)


def test_zip_members_from_many_threads(archive: Path) -> None:
    def read(index: int) -> int:
        return load_image(f"{archive}::some/{index % 20}.png").getpixel((0, 0))[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(400))) == [index % 20 for index in range(400)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_the_zip_itself(archive: Path) -> None:
    load_image(f"{archive}::some/0.png")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            good = all(
                load_image(f"{archive}::some/{i % 20}.png").getpixel((0, 0))[0] == i % 20
                for i in range(200)
            )
            os._exit(0 if good else 1)
        children.append(child)
    assert all(load_image(f"{archive}::some/{i % 20}.png") for i in range(200))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def test_an_unreadable_image_can_be_sent_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png", "it is a folder")))
    assert (error.path, error.reason) == ("a.png", "it is a folder")


def test_image_names() -> None:
    names = ["a.JPG", "b.jpeg", "c.WebP", "d.heic", "e.txt", "f", ".png", "g.png.bak"]
    assert [name for name in names if is_image_name(name)] == [
        "a.JPG",
        "b.jpeg",
        "c.WebP",
        "d.heic",
    ]


@pytest.mark.parametrize("suffix", ["avif", "heic"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_formats_with_a_plugin(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture((64, 48)).save(tmp_path / f"a.{suffix}", quality=95, exif=exif.tobytes())
    loaded = load_image(tmp_path / f"a.{suffix}")
    assert loaded.size == ((64, 48) if orientation == 1 else (48, 64))
    corner, left, right = ((3, 3), (12, 24), (52, 24))
    if orientation == 6:  # shown turned by 90° clockwise
        corner, left, right = ((44, 3), (24, 12), (24, 52))
    for place, colour in ((corner, GREEN), (left, RED), (right, BLUE)):
        assert np.abs(np.array(loaded.getpixel(place)) - colour).max() < 40


def test_a_missing_plugin_is_named() -> None:
    for brand in ("heic", "avif"):
        head = b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1"
        assert "pip install 'promptot[data]'" in images.what_instead(head, ["JPEG", "PNG"])
        assert "it can't be decoded" in images.what_instead(head, ["HEIF", "AVIF"])


def test_16_bits_a_colour(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    colours = [(65535, 0, 32896), (257, 65535, 0)]
    row = b"\0" + b"".join(struct.pack(">3H", *colour) for colour in colours)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.asarray(load_image(tmp_path / "a.png")).tolist() == [[[255, 0, 128], [1, 255, 0]]]
