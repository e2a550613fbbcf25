"""Pascal VOC: one XML file a picture (VOCdevkit, LabelImg, CVAT, Roboflow).

Corners are taken as they stand, from 0 (as CVAT and Roboflow write them). VOC itself counted
pixels from 1: its boxes lie one pixel further to the right and down than they should, which no
IoU of 0.95 notices on objects larger than 40 px. *Difficult* objects count neither way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from endedge.data.errors import BadInput
from endedge.data.importing.found import (
    Found,
    LabelledObject,
    Picture,
    PictureIndex,
    clipped,
    read_text,
    side_of,
    unlabelled,
    upright_size,
)

__all__ = ["read_voc", "voc_document"]

_MAX_BYTES = 16 * 2**20


def voc_document(path: Path) -> ElementTree.Element | None:
    """What an ``.xml`` file holds, where it describes a picture. One that declares entities is
    not read: a small file can blow up to gigabytes by them."""
    try:
        text = read_text(path, _MAX_BYTES)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            return None
        root = ElementTree.fromstring(text)
    except (BadInput, ElementTree.ParseError, ValueError):
        return None
    return root if root.tag == "annotation" else None


def read_voc(
    index: PictureIndex,
    documents: Sequence[tuple[Path, ElementTree.Element]],
    files: Sequence[Path],
) -> Found:
    """Read every file; pictures that have none are unlabelled. Raises :class:`BadInput` where
    none of the labels has its picture, or one picture has two label files."""
    found = Found("Pascal VOC")
    sides = _image_sets(files)
    seen: dict[Path, Path] = {}
    for file, root in documents:
        written = (root.findtext("filename") or file.stem).strip()
        path = index.find(written, file.parent) or _beside(index, file)
        if path is None:
            found.left_out["labelled pictures that are not there"] += 1
            continue
        if path in seen:
            raise BadInput(f"{seen[path]} and {file} both describe {index.name_of(path)}")
        seen[path] = file
        sizes = upright_size(path)
        if sizes is None:
            found.left_out["pictures that do not decode"] += 1
            continue
        folders = path.relative_to(index.root).parts[:-1]
        side = sides.get(path.stem, "") or side_of(folders)
        boxes = tuple(_boxes(root, _written_size(root, sizes), found.left_out))
        size = _written_size(root, sizes)
        found.pictures.append(Picture(path, index.name_of(path), size, boxes, True, side))
    if not seen:
        raise BadInput(
            f"labels without pictures: {documents[0][0]} and {len(documents) - 1} more, and none "
            f"of their pictures is under {index.root}"
        )
    found.pictures += unlabelled(index, seen)
    return found


def _beside(index: PictureIndex, file: Path) -> Path | None:
    """LabelImg keeps the name of a picture that was renamed later: look for the file's own."""
    mine = [p for p in index.paths if p.stem == file.stem]
    return mine[0] if len(mine) == 1 else None


def _written_size(
    root: ElementTree.Element, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[int, int]:
    """The stored size where the file says that the boxes are in it, else the one shown."""
    try:
        written = (int(root.findtext("size/width", "0")), int(root.findtext("size/height", "0")))
    except ValueError:
        return sizes[0]
    return written if written in sizes else sizes[0]


def _boxes(
    root: ElementTree.Element, size: tuple[int, int], left_out: Counter[str]
) -> Iterator[LabelledObject]:
    for item in root.iter("object"):
        name = (item.findtext("name") or "").strip()
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            left_out["annotations without a box"] += 1
            continue
        box = clipped((left, top, right - left, bottom - top), size)
        if box is None or not name:
            left_out["boxes that are empty or outside their picture"] += 1
        else:
            yield LabelledObject(name, box, (item.findtext("difficult") or "0").strip() == "1")


def _image_sets(files: Sequence[Path]) -> dict[str, str]:
    """Side by the name of a picture, from ``ImageSets/Main/train.txt`` and so on. A list that
    holds another (``trainval``) comes first, so that the narrower one decides."""
    lists = [f for f in files if f.suffix == ".txt" and f.parent.parent.name == "ImageSets"]
    sides: dict[str, str] = {}
    for file in sorted(lists, key=lambda f: (f.stem != "trainval", f.name)):
        if "_" not in file.stem and (side := side_of([file.stem])):
            sides |= {
                line.split()[0]: side for line in read_text(file).splitlines() if line.strip()
            }
    return sides
