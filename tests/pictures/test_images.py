"""Reading pictures: outcomes on hostile files, colour rules, agreement with timm, geometry, threads, listing."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import timm.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torchvision import transforms

from hostile import HEIGHT, OUTCOMES, WIDTH, encoded, exif, make_hostile_folder, photo, png, turned
from seewhy.errors import DataError, EmptyFolderError, ImageError, InputError
from seewhy.pictures import images
from seewhy.pictures.decoding import Room
from seewhy.pictures.images import Picture, read_picture, read_views
from seewhy.pictures.miniatures import encode_thumbnail
from seewhy.pictures.sources import list_pictures
from seewhy.types import Crop, Transform

ZEROS, ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
STANDARD = Transform((224, 224), 256, "bicubic", ZEROS, ONES)
AS_IS = Transform((HEIGHT, WIDTH), (HEIGHT, WIDTH), "bicubic", ZEROS, ONES)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OUTCOMES]:
    root = tmp_path_factory.mktemp("hostile")
    return root, make_hostile_folder(root)


def as_is(source: Any, **options: Any) -> np.ndarray:
    return read_picture(source, AS_IS, **options).pixels


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def reason(source: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(source, STANDARD)
    return caught.value.reason


# --- Hostile files -----------------------------------------------------------------------------------------------


def test_every_hostile_file_has_its_outcome(hostile: tuple[Path, OUTCOMES]) -> None:
    root, outcomes = hostile
    assert len(outcomes) >= 40
    wrong = {}
    for name, expected in outcomes.items():
        try:
            picture = read_picture(root / name, STANDARD)
        except ImageError as error:
            if expected is None or expected not in error.reason or error.path != str(root / name):
                wrong[name] = str(error)
        else:
            assert picture.pixels.shape == (224, 224, 3)
            assert picture.pixels.dtype == np.uint8
            if expected is not None:
                wrong[name] = "was read"
    assert wrong == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "is text, not a picture; check what wrote it"),
        (b"\xff\xd8\xff", "starts like JPEG, but its header is damaged or cut off; copy or download it again"),
        (
            png(50_000, 50_000),
            "has 2,500,000,000 pixels, more than the 178,956,970 allowed; "
            "shrink it, or set SEEWHY_MAX_PIXELS to a larger number",
        ),
        (
            bytes(99),
            "is in no format that SeeWhy reads (JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF, HEIC, DICOM); save it as PNG",
        ),
    ],
)
def test_whole_messages_about_bytes(data: bytes, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_picture(data, STANDARD)
    assert str(caught.value) == f"<{len(data)} bytes>: {message}"


def test_whole_messages_about_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    assert reason(empty) == "is empty (0 bytes); copy or download it again"
    assert reason(tmp_path) == "is a folder, not a picture; name the files in it, or list it with list_pictures"
    assert reason(tmp_path / "no.png") == "does not exist; check the spelling and the folder"
    assert reason(empty / "no.png") == "cannot be opened (Not a directory); check the name and the disk"
    assert reason("a\0b.png") == "cannot be opened (embedded null byte); check the name and the disk"
    assert "File name too long" in reason(tmp_path / ("n" * 300))


def test_permission_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")

    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    expected = "may not be read (permission denied); allow reading it, for example with chmod +r"
    assert reason(tmp_path / "a.png") == expected


def test_a_limit_below_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert reason(photo()).startswith("has 3,072 pixels, more than the 100 allowed; shrink it")


@pytest.mark.parametrize(
    ("limit", "answer"),
    [
        ("500000000", "is cut off before its end"),
        ("1e9", "at least 1, got '1e9'. Correct or unset it."),
    ],
)
def test_the_limit_comes_from_the_environment(limit: str, answer: str) -> None:
    code = (
        "from hostile import png\nfrom seewhy.pictures.images import read_picture\nfrom seewhy.types import Transform\n"
        "t = Transform((8, 8), 8, 'bicubic', (0.,) * 3, (1.,) * 3)\n"
        "read_picture(png(20_000, 20_000, bytes(9), 1, 0), t)"
    )
    environment = os.environ | {"SEEWHY_MAX_PIXELS": limit, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert answer in done.stderr


def test_nothing_but_a_picture_is_taken() -> None:
    with pytest.raises(InputError) as caught:
        read_picture(7, STANDARD)  # type: ignore[arg-type]
    expected = "a file name, bytes, a Pillow image, an array (h, w, 3) or a tensor (3, h, w)"
    assert str(caught.value) == f"A picture must be {expected}, got an int."
    assert reason(np.zeros((3, 5, 7))) == (
        "has the shape (3, 5, 7); the shape must be (h, w) or (h, w, 1, 3 or 4); put channels last"
    )
    assert "complex128" in reason(np.zeros((3, 5), complex))
    assert reason(Image.new("RGB", (0, 5))) == "has no pixels (0 by 5); the size must be at least 1 by 1"
    with pytest.raises(InputError, match="must be fractions with 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1"):
        read_views(photo(), STANDARD, [Crop((0.5, 0, 0.5, 1))])
    with pytest.raises(InputError, match="`interpolation` of a transform must be one of bicubic, bilinear, lanczos"):
        read_picture(photo(), Transform((8, 8), 8, "nearest", ZEROS, ONES))


def test_heic_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    expected = "looks like HEIC or AVIF, which needs an extra; run pip install 'seewhy[heif]', or save it as JPEG"
    assert reason(b"\0\0\0\x18ftypheic" + bytes(64)) == expected


def test_dicom_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    expected = "is DICOM, which needs an extra; run pip install 'seewhy[dicom]', or export it as PNG"
    assert reason(bytes(128) + b"DICM" + bytes(64)) == expected


def test_heic_and_avif_are_read() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(photo())).save(file, quality=95)
    assert apart(as_is(file.getvalue()), photo()).mean() < 3
    if "AVIF" in Image.SAVE:
        assert apart(as_is(encoded(Image.fromarray(photo()), "AVIF", quality=95)), photo()).mean() < 3


def test_no_warning_leaks_and_other_threads_keep_theirs(hostile: tuple[Path, OUTCOMES]) -> None:
    data = (hostile[0] / "broken_exif.jpg").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(data, STANDARD)
        with pytest.raises(UserWarning):
            Image.open(io.BytesIO(data)).getexif()


# --- Colour ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_upright_pixels(orientation: int) -> None:
    upright = Image.fromarray(photo())
    for format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(turned(upright, orientation), format, exif=exif(orientation), **options)
        picture = read_picture(data, STANDARD)
        assert picture.original_size == (WIDTH, HEIGHT)
        assert np.array_equal(picture.pixels, read_picture(upright, STANDARD).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_survives_scaled_decoding(orientation: int) -> None:
    large = Image.fromarray(photo()).resize((1600, 1200))
    data = encoded(turned(large, orientation), "JPEG", quality=95, exif=exif(orientation))
    picture = read_picture(data, Transform((112, 112), 128, "bicubic", ZEROS, ONES))
    assert picture.original_size == (1600, 1200)
    exact = read_picture(large, Transform((112, 112), 128, "bicubic", ZEROS, ONES))
    assert picture.window == exact.window
    assert apart(picture.pixels, exact.pixels).mean() < 1


def test_alpha_lies_on_white() -> None:
    rgba = np.dstack([photo(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    rgba[:, :10, 3] = 255
    pixels = as_is(encoded(Image.fromarray(rgba), "PNG"))
    assert np.array_equal(pixels[:, :10], photo()[:, :10])
    assert np.array_equal(np.unique(pixels[:, 10:].reshape(-1, 3), axis=0), [[255, 255, 255]])
    assert np.array_equal(as_is(rgba), pixels)


def test_palette_and_colour_key_transparency() -> None:
    keyed = as_is(encoded(Image.fromarray(np.zeros_like(photo())), "PNG", transparency=(0, 0, 0)))
    assert keyed[0, 0].tolist() == [255, 255, 255]
    palette = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8), "L").convert("P")
    assert as_is(encoded(palette, "PNG", transparency=0))[5, 5].tolist() == [255, 255, 255]


def test_a_colour_key_among_16_bits_lies_on_white() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1000, 1001, 65535]], np.uint16)).save(file, "PNG", transparency=1000)
    size = Transform((1, 4), (1, 4), "bilinear", ZEROS, ONES)
    assert read_picture(file.getvalue(), size).pixels[0, :, 0].tolist() == [0, 255, 4, 255]


def test_wide_values_become_bytes() -> None:
    grey = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 256
    grey = grey.astype(np.uint8)
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    wide = grey.astype(np.uint16) * 257
    for format in ("PNG", "TIFF"):
        assert np.array_equal(as_is(encoded(Image.fromarray(wide), format)), expected)
    for array in (wide, wide.astype(np.int32), grey.astype(np.int64), grey.astype(np.float32), grey / 255):
        assert np.array_equal(as_is(array), expected)
    assert np.array_equal(as_is(grey.astype(np.float64) * 40 - 900), expected)
    assert np.array_equal(as_is(grey[:, :, None]), expected)
    assert np.array_equal(as_is(grey > 99), np.where(expected > 99, 255, 0))
    holes = grey / 255
    holes[0, 1:4] = np.nan, np.inf, -np.inf
    assert as_is(encoded(Image.fromarray(holes.astype(np.float32)), "TIFF"))[0, 1:5, 0].tolist() == [0, 0, 0, 4]


def test_cmyk_is_not_inverted() -> None:
    pixels = as_is(encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert apart(pixels, photo()).mean() < 3


def test_first_frame_of_an_animation() -> None:
    first, second = Image.fromarray(photo()), Image.new("RGB", (WIDTH, HEIGHT))
    webp = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(as_is(webp), photo())
    gif = encoded(first, "GIF", save_all=True, append_images=[second])
    assert apart(as_is(gif), photo()).mean() < 6


def test_a_foreign_profile_is_converted_and_a_damaged_one_reported(caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(photo())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(as_is(encoded(image, "PNG", icc_profile=srgb)), photo())
    swapped = bytearray(srgb)
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    foreign = bytes(swapped).replace(b"s\0R\0G\0B", b"s\0W\0A\0P").replace(b"sRGB b", b"sWAP b")
    pixels = as_is(encoded(image, "PNG", icc_profile=foreign))
    assert apart(pixels, photo()[:, :, ::-1])[20:, 20:].mean() < 2
    assert not caplog.records
    assert np.array_equal(as_is(encoded(image, "PNG", icc_profile=b"junk" * 50)), photo())
    assert "its colour profile cannot be used" in caplog.text
    assert "so it is read as sRGB" in caplog.text


# --- Agreement with timm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize(
    ("size", "crop_pct", "how"), [(224, 0.875, "bicubic"), (240, 0.9, "bilinear"), (96, 1.0, "lanczos")]
)
def test_same_pixels_as_timm(name: str, size: int, crop_pct: float, how: str) -> None:
    sample = Image.fromarray(getattr(skimage.data, name)())
    reference = timm.data.create_transform((3, size, size), interpolation=how, crop_pct=crop_pct, use_prefetcher=True)
    transform = Transform((size, size), int(size / crop_pct), how, ZEROS, ONES)
    for data in (encoded(sample, "JPEG", quality=92), encoded(sample, "PNG")):
        expected = np.asarray(reference(Image.open(io.BytesIO(data)))).transpose(1, 2, 0)
        difference = apart(read_picture(data, transform).pixels, expected)
        assert difference.max() <= (24 if size == 96 else 6)
        assert difference.mean() <= (0.8 if size == 96 else 0.1)


def test_scaled_decoding_stays_near_timm() -> None:
    sample = Image.fromarray(skimage.data.astronaut()).resize((2000, 1500), Image.Resampling.BICUBIC)
    data = encoded(sample, "JPEG", quality=90)
    assert images._factor(images._place((2000, 1500), STANDARD, None)) == 2
    reference = timm.data.create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, use_prefetcher=True)
    expected = np.asarray(reference(Image.open(io.BytesIO(data)))).transpose(1, 2, 0)
    assert apart(read_picture(data, STANDARD).pixels, expected).mean() < 0.5


@pytest.mark.parametrize(
    ("size", "resize"), [((64, 96), 64), ((64, 97), 65), ((40, 30), (50, 60)), ((70, 30), (50, 60))]
)
def test_same_rounding_and_padding_as_torchvision(size: tuple[int, int], resize: Any) -> None:
    image = Image.fromarray(photo()).resize((75, 101))
    steps = [transforms.Resize(resize, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    expected = np.asarray(transforms.Compose(steps)(image))
    found = read_picture(image, Transform(size, resize, "bicubic", ZEROS, ONES))
    assert apart(found.pixels, expected).max() <= 3
    assert found.pixels.shape == (*size, 3)


# --- Views and their geometry ------------------------------------------------------------------------------------


def test_views_are_cut_from_one_decoding() -> None:
    half = Crop((0.5, 0.0, 1.0, 1.0))
    plain, right, mirrored = read_views(photo(), AS_IS, [None, half, Crop(half.box, flip=True)])
    assert np.array_equal(plain.pixels, photo())
    assert right.window == (WIDTH / 2, 0.0, WIDTH, HEIGHT)
    assert np.array_equal(mirrored.pixels, right.pixels[:, ::-1])
    assert right.to_original((0, 0, 0.25, 1)) == (32, 0, 40, 48)
    assert mirrored.to_original((0, 0, 0.25, 1)) == (56, 0, 64, 48)
    assert (plain.in_view, right.in_view, mirrored.in_view) == (1.0, 0.5, 0.5)
    assert plain.digest == right.digest
    assert read_views(photo(), AS_IS, []) == []


def test_padding_is_clipped_from_boxes() -> None:
    picture = read_picture(photo(), Transform((96, 64), 48, "bicubic", ZEROS, ONES))
    assert picture.window == (0.0, -24.0, 64.0, 72.0)
    assert picture.in_view == 1.0
    assert picture.to_original((0, 0, 1, 1)) == (0, 0, 64, 48)
    assert picture.to_original((0, 0, 1, 0.1)) == (0, 0, 64, 1)


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
    part=st.tuples(*[st.floats(0, 1)] * 4),
    flip=st.booleans(),
)
def test_boxes_go_there_and_back(size: tuple[int, int], edges: Any, part: Any, flip: bool) -> None:
    w, h = size
    left, right = sorted((edges[0] * w, edges[1] * w))
    top, bottom = sorted((edges[2] * h, edges[3] * h))
    picture = Picture("p", photo(), size, (left, top, right, bottom), "", flip)
    (a, c), (b, d) = sorted(part[:2]), sorted(part[2:])
    x0, y0, x1, y1 = picture.to_original((a, b, c, d))
    assert 0 <= x0 < x1 <= w
    assert 0 <= y0 < y1 <= h
    start, stop = (1 - c, 1 - a) if flip else (a, c)
    assert abs(x0 - (left + start * (right - left))) <= 1
    assert abs(x1 - (left + stop * (right - left))) <= 1.5
    assert abs(y0 - (top + b * (bottom - top))) <= 1
    assert abs(y1 - (top + d * (bottom - top))) <= 1.5


def test_names_and_digests(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(photo()), "PNG")
    file = tmp_path / "a.png"
    file.write_bytes(data)
    for source in (file, str(file), data):
        assert read_picture(source, AS_IS).digest == hashlib.sha256(data).hexdigest()
    assert read_picture(file, AS_IS).name == str(file)
    array, image = read_picture(photo(), AS_IS), read_picture(Image.fromarray(photo()), AS_IS)
    assert (array.name, image.name) == ("<array 48x64x3>", "<RGB image 64x48>")
    assert array.digest == image.digest != read_picture(photo(1), AS_IS).digest
    assert array.pixels.flags.writeable


def test_eight_threads_read_what_one_reads(hostile: tuple[Path, OUTCOMES]) -> None:
    root, outcomes = hostile
    names = [name for name in outcomes if name not in ("bomb.png", "text_bomb.png")] * 3

    def digest(name: str) -> str:
        try:
            return hashlib.sha256(read_picture(root / name, STANDARD).pixels.tobytes()).hexdigest()
        except ImageError as error:
            return str(error)

    assert len(names) >= 200
    alone = [digest(name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(digest, names)) == alone


def test_large_pictures_wait_for_room_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_ROOM", Room(2000, free=100))
    decode, running, most, together = images._decode, [0], [0], threading.Barrier(3)

    def counted(name: str, image: Image.Image, *rest: Any) -> Any:
        if image.width <= 10:
            together.wait(10)
            return decode(name, image, *rest)
        running[0] += image.width * image.height
        most[0] = max(most[0], running[0])
        time.sleep(0.01)
        found = decode(name, image, *rest)
        running[0] -= image.width * image.height
        return found

    monkeypatch.setattr(images, "_decode", counted)
    pictures = [Image.new("RGB", (side, 30), (side, 0, 0)) for side in (30, 30, 100, 30, 100, 20)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(as_is, pictures))
        assert [int(f[0, 0, 0]) for f in found] == [30, 30, 100, 30, 100, 20]
        assert 1500 <= most[0] <= 3000
        assert len(list(pool.map(as_is, [Image.new("RGB", (10, 10))] * 3))) == 3
    with pytest.raises(ImageError):
        read_picture(encoded(Image.new("RGB", (90, 90)), "BMP")[:200], AS_IS)
    assert images._ROOM.left == 2000


# --- Listing and encoding ----------------------------------------------------------------------------------------


def test_folders_are_walked_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "2.jpg", "notes.txt", ".hidden.png", "b/x.PNG", "b.png/inside.webp", "🙂\n.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = [os.path.relpath(p, tmp_path) for p in list_pictures([tmp_path])]
    assert found == ["2.jpg", "10.png", "b/x.PNG", "b.png/inside.webp", "gone.png", "🙂\n.gif"]


def test_names_that_are_no_unicode_are_listed_and_read(tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/odd\xff.png")
    try:
        Path(name).write_bytes(encoded(Image.fromarray(photo()), "PNG"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert list(list_pictures([tmp_path])) == [name]
    assert read_picture(name, AS_IS).name == name


def test_link_loops_end(hostile: tuple[Path, OUTCOMES]) -> None:
    names = list(list_pictures([hostile[0]]))
    assert len(names) == len(set(names))
    with pytest.raises(DataError, match="The folder"):
        list(list_pictures([hostile[0] / "loop"]))


def test_an_unlistable_folder_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def deny(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DataError) as caught:
        list(list_pictures([tmp_path]))
    assert type(caught.value) is DataError
    assert str(caught.value) == (
        f"The folder {tmp_path} cannot be listed (Permission denied). Allow reading it, or leave it out."
    )


def test_given_files_are_yielded_as_given(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    given_paths = ["missing.xyz", tmp_path, "notes.txt"]
    assert list(list_pictures(given_paths)) == ["missing.xyz", str(tmp_path / "a.png"), "notes.txt"]
    assert list(list_pictures("one.png")) == ["one.png"]


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(list_pictures([tmp_path]))
    assert type(caught.value) is EmptyFolderError
    assert str(caught.value) == (
        f"The folder {tmp_path} and its subfolders have no pictures. Pictures end in .avif, "
        ".bmp, .dcm, .gif, .heic, .heif, .jpeg, .jpg, .png, .tif, .tiff, .webp. Give another "
        "folder, or name the files one by one."
    )


def test_a_thumbnail_is_a_smaller_file_of_the_same_picture() -> None:
    thumbnail = encode_thumbnail(photo())
    assert apart(np.asarray(Image.open(io.BytesIO(thumbnail))), photo()).mean() < 4
    assert len(encode_thumbnail(photo(), quality=20)) < len(thumbnail)
