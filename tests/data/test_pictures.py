"""Pictures as cameras and tools write them: each row is read right, or refused in one line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import check_boxes, check_pictures, fingerprint, load_coco
from endedge.data.errors import BadInput
from endedge.data.frames import stack_frames
from endedge.data.pictures import fits, inspect_picture, read_image

W, H = 80, 40


def _scene() -> NDArray[np.uint8]:
    """A dim grey ramp with a white square in the upper left: tells every turn from every other."""
    picture = np.repeat(np.linspace(20, 90, W, dtype=np.uint8)[None, :, None], H, 0).repeat(3, 2)
    picture[4:14, 6:26] = 250
    return picture


def _png(array: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **options)
    return out.getvalue()


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _turned(kind: str, turn: int, **options: Any) -> bytes:
    """The scene as a camera stores it that is held so: upright only by its EXIF tag."""
    undo = {2: 0, 3: 1, 4: 5, 5: 5, 6: 2, 7: 6, 8: 4}
    how = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180}
    how |= {4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE}
    how |= {6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    how |= {8: Image.Transpose.ROTATE_270}
    assert turn in undo
    exif = Image.Exif()
    exif[0x112] = turn
    return _saved(Image.fromarray(_scene()).transpose(how[turn]), kind, exif=exif, **options)


def _grey16(gain: float, offset: float) -> NDArray[np.uint16]:
    return (_scene()[..., 0].astype(float) * gain + offset).astype(np.uint16)


def _colour16() -> bytes:
    import cv2

    done, blob = cv2.imencode(".png", _scene()[..., ::-1].astype(np.uint16) * 16)
    assert done
    return bytes(blob)


def _holed() -> NDArray[np.float32]:
    values: NDArray[np.float32] = (_scene()[..., 0] / 10 + 280).astype(np.float32)
    values[20, 50:60] = [np.nan, np.inf, -np.inf, *[np.nan] * 7]
    return values


RIGHT: dict[str, tuple[str, Callable[[], bytes], float]] = {
    # why: file name, bytes, how far the mean grey level may be from the scene's
    "JPEG": ("a.jpg", lambda: _saved(Image.fromarray(_scene()), "JPEG", quality=95), 2),
    "grey": ("a.png", lambda: _png(_scene()[..., 0]), 0),
    "palette": ("a.png", lambda: _saved(Image.fromarray(_scene()).quantize(200), "PNG"), 3),
    "palette with transparency": (
        "a.png",
        lambda: _saved(Image.fromarray(_scene()).quantize(200), "PNG", transparency=b"\x00" * 200),
        3,
    ),
    "alpha of 0 keeps the colours": (
        "a.png",
        lambda: _png(np.dstack([_scene(), np.zeros((H, W), np.uint8)])),
        0,
    ),
    "grey and alpha": (
        "a.png",
        lambda: _saved(Image.fromarray(_scene()).convert("LA"), "PNG"),
        1,
    ),
    "CMYK": ("a.jpg", lambda: _saved(Image.fromarray(_scene()).convert("CMYK"), "JPEG"), 4),
    "GIF of two pictures: the first": (
        "a.gif",
        lambda: _saved(
            Image.fromarray(_scene()),
            "GIF",
            save_all=True,
            append_images=[Image.new("RGB", (W, H), (9, 9, 9))],
        ),
        4,
    ),
    "BMP": ("a.bmp", lambda: _saved(Image.fromarray(_scene()), "BMP"), 0),
    "WebP": ("a.webp", lambda: _saved(Image.fromarray(_scene()), "WEBP", quality=95), 3),
    "TIFF": ("a.tif", lambda: _saved(Image.fromarray(_scene()), "TIFF"), 0),
    **{
        f"EXIF {turn} as {kind}": (
            f"a.{kind.lower()}",
            lambda kind=kind, turn=turn: _turned(kind, turn),  # type: ignore[misc]
            3,
        )
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
        for turn in range(2, 9)
    },
}


@pytest.mark.parametrize("case", RIGHT)
def test_read_as_the_label_tool_showed_it(tmp_path: Path, case: str) -> None:
    name, blob, slack = RIGHT[case]
    (tmp_path / name).write_bytes(blob())
    found = inspect_picture(tmp_path / name, (W, H))
    assert not found.fault
    assert ("turned" in found.reading) == ("EXIF" in case and "TIFF" not in case)
    seen = read_image(tmp_path / name, (W, H)).astype(float)
    assert seen.shape == (H, W, 3)
    assert abs(seen - _scene()).mean() <= slack


DEEP: dict[str, tuple[str, Callable[[], bytes]]] = {
    "16 bits, full range": ("a.png", lambda: _png(_grey16(256, 0))),
    "12 bits in 16": ("a.png", lambda: _png(_grey16(16, 0))),
    "8 bits in 16": ("a.png", lambda: _png(_grey16(1, 0))),
    "hundredths of a kelvin": ("a.png", lambda: _png(_grey16(4, 29000))),
    "TIFF": ("a.tiff", lambda: _saved(Image.fromarray(_grey16(4, 29000)), "TIFF")),
    "32-bit integers": (
        "a.tiff",
        lambda: _saved(Image.fromarray(_grey16(4, 29000).astype(np.int32)), "TIFF"),
    ),
    "floats in [0, 1]": (
        "a.tiff",
        lambda: _saved(Image.fromarray((_scene()[..., 0] / 255).astype(np.float32)), "TIFF"),
    ),
    "kelvin with pixels that are not finite": (
        "a.tiff",
        lambda: _saved(Image.fromarray(_holed()), "TIFF"),
    ),
    "colours of 12 bits in 16": ("a.png", _colour16),
}


@pytest.mark.parametrize("case", DEEP)
def test_more_than_8_bits_are_stretched(tmp_path: Path, case: str) -> None:
    name, blob = DEEP[case]
    (tmp_path / name).write_bytes(blob())
    assert inspect_picture(tmp_path / name, (W, H)).reading == "stretched"
    seen = read_image(tmp_path / name, (W, H)).astype(float)
    assert seen.shape == (H, W, 3)
    assert (seen.min(), seen.max()) == (0, 255)
    want = (_scene().astype(float) - 20) / 230 * 255
    assert np.median(abs(seen - want)) <= 2  # the same picture, brightened


def test_a_flat_deep_picture_and_one_without_a_value(tmp_path: Path) -> None:
    Image.fromarray(np.full((H, W), 29000, np.uint16)).save(tmp_path / "flat.png")
    assert len(np.unique(read_image(tmp_path / "flat.png"))) == 1
    Image.fromarray(np.full((H, W), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(BadInput, match="no finite value"):
        read_image(tmp_path / "nan.tiff")


def test_boxes_drawn_on_the_stored_picture_stay_there(tmp_path: Path) -> None:
    """A tool that ignores EXIF writes the stored size: then the picture is not turned."""
    (tmp_path / "a.jpg").write_bytes(_turned("JPEG", 6))
    assert inspect_picture(tmp_path / "a.jpg", (H, W)).reading == ""
    assert read_image(tmp_path / "a.jpg", (H, W)).shape == (W, H, 3)


def _cut(share: float, kind: str, **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (H, W, 3), np.uint8))
    blob = _saved(noise, kind, **options)
    return blob[: int(len(blob) * share)]


def _zero_tail(blob: bytes) -> bytes:
    return blob[: len(blob) // 2] + b"\x00" * (len(blob) - len(blob) // 2)


def _other_shape() -> bytes:
    return _saved(Image.new("RGB", (64, 64)), "PNG")


FAULTY: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "does not decode"),
    "text": (lambda: b"<html>404</html>", "does not decode"),
    "JPEG cut in half": (lambda: _cut(0.5, "JPEG"), "truncated"),
    "JPEG without its last bytes": (lambda: _cut(0.97, "JPEG"), "truncated"),
    "progressive JPEG cut": (lambda: _cut(0.5, "JPEG", progressive=True), "truncated"),
    "JPEG whose second half is zeros": (lambda: _zero_tail(_cut(1, "JPEG")), "ends in zeros"),
    "PNG cut": (lambda: _cut(0.5, "PNG"), "truncated"),
    "PNG whose second half is zeros": (lambda: _zero_tail(_cut(1, "PNG")), "does not decode"),
    "WebP cut": (lambda: _cut(0.5, "WEBP"), "does not decode"),
    "BMP cut": (lambda: _cut(0.5, "BMP"), "truncated"),
    "TIFF cut": (lambda: _cut(0.5, "TIFF"), "does not decode"),
    "of another shape": (_other_shape, "is 64 x 64 px, annotated as 80 x 40"),
    "more than 50 megapixels": (
        lambda: _saved(Image.new("1", (8000, 7000)), "PNG"),
        "at most 50 megapixels",
    ),
    "a bomb that Pillow refuses, too": (
        lambda: _saved(Image.new("1", (20000, 10000)), "PNG"),
        "does not decode|at most 50 megapixels",
    ),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_files_are_found_without_decoding_the_good_ones(tmp_path: Path, case: str) -> None:
    blob, says = FAULTY[case]
    path = tmp_path / "a.img"
    path.write_bytes(blob())
    fault = inspect_picture(path, (W, H)).fault
    assert any(word in fault for word in says.split("|"))
    assert "\n" not in fault
    if "zeros:" in fault:  # which are valid JPEG data: a grey half
        return
    with pytest.raises(BadInput, match=r"a\.img"):
        read_image(path, (W, H))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.05, 8))
def test_a_scaled_picture_fits_its_annotation(width: int, height: int, scale: float) -> None:
    scaled = (max(1, round(width * scale)), max(1, round(height * scale)))
    assert fits(scaled, (width, height))
    assert fits((width, height), scaled)


def test_another_shape_does_not_fit() -> None:
    for real, annotated in [
        ((64, 64), (640, 480)),
        ((480, 640), (640, 480)),
        ((416, 416), (416, 333)),
    ]:
        assert not fits(real, annotated)


# Whole sets ---------------------------------------------------------------------------------


def _set(folder: Path, files: dict[str, bytes], boxes: list[Any] | None = None) -> Any:
    for name, blob in files.items():
        (folder / name).write_bytes(blob)
    document = {
        "images": [
            {"id": i, "file_name": name, "width": W, "height": H} for i, name in enumerate(files, 1)
        ],
        "annotations": boxes
        if boxes is not None
        else [{"image_id": 1, "category_id": 1, "bbox": [6, 4, 20, 10]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "set.json").write_text(json.dumps(document))
    return load_coco(folder / "set.json", folder)


def test_all_bad_files_are_listed_at_once(tmp_path: Path) -> None:
    data = _set(
        tmp_path,
        {"good.png": _png(_scene()), "cut.jpg": _cut(0.5, "JPEG"), "odd.png": _other_shape()},
    )
    with pytest.raises(
        BadInput, match=r"2 of 3 pictures .*cut.jpg .*truncated.*odd.png is 64 x 64"
    ):
        check_pictures(data)
    with pytest.raises(BadInput, match=r"3 of 3 .*is 80 px long; at most 64"):
        check_pictures(data, max_side=64)


def test_what_is_done_beyond_decoding_is_said_and_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"a.png": _png(_scene()), "b.jpg": _turned("JPEG", 6), "c.png": _png(_grey16(4, 29000))}
    with caplog.at_level(logging.WARNING, "endedge"):
        check_pictures(_set(tmp_path, files))
    assert "1 of 3 pictures lie on their side" in caplog.text
    assert "1 of 3 pictures have more than 8 bits" in caplog.text
    data = _set(tmp_path, {"b.jpg": _turned("JPEG", 6)})
    upright = fingerprint(data)
    document = json.loads((tmp_path / "set.json").read_text())
    document["images"][0] |= {"width": H, "height": W}
    document["annotations"] = []
    (tmp_path / "set.json").write_text(json.dumps(document))
    assert fingerprint(load_coco(tmp_path / "set.json", tmp_path)) != upright


def test_boxes_follow_a_turned_picture_into_the_square(tmp_path: Path) -> None:
    for turn in (1, 3, 6, 8):
        blob = _png(_scene()) if turn == 1 else _turned("PNG", turn)
        data = _set(tmp_path, {"a.png": blob})
        batch = stack_frames(data.frames, 80, lambda f: f.read())
        cx, cy, w, h = (batch.boxes[0][0] * 80).tolist()
        x0, y0 = round(cx - w / 2), round(cy - h / 2)
        inside = batch.images[0, :, y0 : y0 + round(h), x0 : x0 + round(w)]
        assert inside.float().mean() == 250
        assert (batch.images[0].float() > 200).sum() == inside.numel()


@pytest.mark.parametrize(
    "boxes",
    [[], [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1}]],
    ids=["none", "only a crowd"],
)
def test_nothing_to_score_is_refused(tmp_path: Path, boxes: list[Any]) -> None:
    with pytest.raises(BadInput, match="nothing can be scored"):
        check_boxes(_set(tmp_path, {"a.png": _png(_scene())}, boxes), "eval.json")
