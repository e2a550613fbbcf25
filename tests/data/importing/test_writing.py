"""What an imported set says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from endedge.data.importing.found import LabelledObject, Picture
from endedge.data.importing.writing import Side, _document

PICTURES = [
    Picture(
        Path(f"{k}.png"),
        f"{k}.png",
        (40, 30),
        (
            LabelledObject("dog", (1.0, 2.0, 3.0, 4.0)),
            LabelledObject("cat", (5.0, 6.0, 7.0, 8.0), True),
        ),
        True,
        "",
    )
    for k in range(2)
]


@pytest.mark.parametrize(
    ("by_teacher", "labels"),
    [((), "truth"), (("0.png",), "mixed"), (("0.png", "1.png"), "teacher")],
)
def test_who_drew_the_boxes_is_in_the_file(by_teacher: tuple[str, ...], labels: str) -> None:
    side = Side(PICTURES, frozenset(by_teacher), "large.pt" if by_teacher else "")
    document = _document(side, ["cat", "dog"])
    about = document["info"]["endedge"]
    assert about == {"labels": labels, "teacher": "large.pt" if by_teacher else None}
    drawn = [image["file_name"] for image in document["images"] if image.get("labels") == "teacher"]
    assert drawn == list(by_teacher)


def test_boxes_keep_their_class_their_picture_and_whether_they_count() -> None:
    document = _document(Side(PICTURES), ["cat", "dog"])
    names = {c["id"]: c["name"] for c in document["categories"]}
    found = [
        (a["image_id"], names[a["category_id"]], a["bbox"], a["area"], a["iscrowd"])
        for a in document["annotations"]
    ]
    assert found == [
        (image_id, *rest)
        for image_id in (1, 2)
        for rest in (("dog", [1.0, 2.0, 3.0, 4.0], 12.0, 0), ("cat", [5.0, 6.0, 7.0, 8.0], 56.0, 1))
    ]
