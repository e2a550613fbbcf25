"""Lies about data/importing/: what is truth, and who evaluates whom."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "corners are centres",
        "data/importing/yolo.py",
        "((x - w / 2) * size[0], (y - h / 2) * size[1], w * size[0], h * size[1]), size",
        "(x * size[0], y * size[1], w * size[0], h * size[1]), size",
        "boxes lie half their size beside their objects",
        ("tests/data/importing",),
    ),
    Lie(
        "difficult objects count",
        "data/importing/voc.py",
        'yield LabelledObject(name, box, (item.findtext("difficult") or "0").strip() == "1")',
        "yield LabelledObject(name, box, False)",
        "objects that the annotator called difficult are asked for",
        ("tests/data/importing",),
    ),
    Lie(
        "a scaled picture keeps its boxes",
        "data/importing/coco_exports.py",
        "size, scale = sizes[0], sizes[0][0] / written[0]",
        "size, scale = sizes[0], 1.0",
        "boxes are of another size than their pictures",
        ("tests/data/importing",),
    ),
    Lie(
        "look-alikes are on both sides",
        "data/importing/sides.py",
        "            kept[a if eval_of[b] else b] = False",
        "            kept[a if eval_of[b] else b] = True",
        "what is evaluated was uploaded, a moment before",
        ("tests/data/importing",),
    ),
    Lie(
        "groups are torn apart by import",
        "data/importing/sides.py",
        "    owner = _joined(keys, pairs)",
        "    owner = list(range(len(pictures)))",
        "frames of one scene are uploaded and evaluated",
        ("tests/data/importing",),
    ),
    Lie(
        "a teacher's boxes are truth",
        "data/importing/writing.py",
        '        if not self.by_teacher:\n            return "truth"',
        '        if True:\n            return "truth"',
        "agreement with a detector passes for accuracy",
        ("tests/data/importing/test_writing.py",),
    ),
    Lie(
        "detections in another order",
        "lab/drawn.py",
        '"classes": [names[int(k)] for k in found.labels],',
        '"classes": [names[0] for k in found.labels],',
        "what is predicted is named as something else",
        ("tests/lab/test_tables_of_engines.py",),
    ),
    Lie(
        "a latency without its engine",
        "lab/latency_table.py",
        "            timed.runtime,\n            imgsz,",
        '            "torch",\n            imgsz,',
        "an engine's time is said to be PyTorch's",
        ("tests/lab/test_tables_of_engines.py",),
    ),
]
