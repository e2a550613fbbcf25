"""Which format a folder or a file is in: by what its files hold, not by what they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.importing.bare import VIDEO_SUFFIXES, read_pictures, read_videos
from endedge.data.importing.coco_exports import coco_document, read_coco
from endedge.data.importing.found import Found, PictureIndex, files_of
from endedge.data.importing.voc import read_voc, voc_document
from endedge.data.importing.yolo import read_yolo, yolo_document

__all__ = ["read_source"]

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
KNOWN = "COCO, YOLO data.yaml, Pascal VOC, a folder of pictures, or a video"


def read_source(
    source: Path,
    scratch: Path,
    *,
    every_s: float = 1.0,
    say: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Found:
    """Read a folder, a label file (``.json``, ``.yaml``) or a video.

    ``scratch``: where frames of a video are kept; ``every_s`` seconds lie between two of them.
    ``say(done, total, what)`` hears of the progress. Raises :class:`BadInput` for a source that
    is not there, holds none or several of the known formats, or labels without pictures.
    """
    if source.is_file():
        return _of_file(source, scratch, every_s, say)
    if not source.is_dir():
        raise BadInput(f"nothing to import at {source}; give {KNOWN}")
    files = files_of(source)
    index = PictureIndex(source, files)
    say(0, 1, f"{len(index.paths)} pictures in {source}")
    coco = [(f, d) for f in files if f.suffix == ".json" and (d := coco_document(f))]
    yolo = [(f, y) for f in files if f.suffix in (".yaml", ".yml") and (y := yolo_document(f))]
    voc = [(f, v) for f in files if f.suffix == ".xml" and (v := voc_document(f)) is not None]
    labels = {
        "COCO": [f for f, _ in coco],
        "YOLO": [f for f, _ in yolo],
        "Pascal VOC": [f for f, _ in voc],
    }
    there = {name: found[0] for name, found in labels.items() if found}
    if len(there) > 1:
        listed = " and ".join(f"{name} ({file.name})" for name, file in there.items())
        raise BadInput(f"{source} holds mixed formats: {listed}; give the label file or subfolder")
    if len(yolo) > 1:
        raise BadInput(f"{source} holds {len(yolo)} YOLO data sets: {yolo[0][0]} …; give one file")
    if coco:
        return read_coco(index, coco)
    if yolo:
        return read_yolo(index, *yolo[0])
    if voc:
        return read_voc(index, voc, files)
    videos = [f for f in files if f.suffix.lower() in VIDEO_SUFFIXES]
    if videos and index.paths:
        raise BadInput(f"{source} holds pictures and videos; import one kind at a time")
    if videos:
        return read_videos(videos, scratch, every_s, say)
    if not index.paths:
        raise BadInput(f"{source} holds no pictures or videos; give {KNOWN}")
    if any(f.suffix == ".txt" and _is_yolo_line(f) for f in files):
        raise BadInput(
            f"{source} holds YOLO label files and no data.yaml that names their classes; write "
            "one: 'train: images' and 'names: [first, second]'"
        )
    return read_pictures(index)


def _of_file(
    source: Path, scratch: Path, every_s: float, say: Callable[[int, int, str], None]
) -> Found:
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return read_videos([source], scratch, every_s, say)
    inside = source.parent.name.lower() in _ANNOTATION_FOLDERS
    index = PictureIndex(source.parent.parent if inside else source.parent)
    if source.suffix == ".json" and (document := coco_document(source)) is not None:
        return read_coco(index, [(source, document)])
    if source.suffix in (".yaml", ".yml") and (document := yolo_document(source)) is not None:
        return read_yolo(index, source, document)
    raise BadInput(f"{source} is in no known format; give {KNOWN}")


def _is_yolo_line(file: Path) -> bool:
    try:
        first = file.read_text(encoding="utf-8").split("\n", 1)[0].split()
        return len(first) >= 5 and all(float(v) <= 1 for v in first[1:])
    except (OSError, ValueError):
        return False
