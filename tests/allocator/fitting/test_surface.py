"""surface.csv: reading, refusing, operating points and envelopes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from endedge.allocator import Points, Surface
from endedge.data.errors import BadInput


def row(**changes: Any) -> dict[str, Any]:
    base = {
        "cell": "a",
        "seed": 0,
        "frames": 16,
        "codec": "jpeg-q30-320",
        "upload_bytes": 1e5,
        "budget_bytes": 5e4,
        "update_bytes": 4.9e4,
        "map": 0.2,
        "m0": 0.1,
    }
    return base | changes


def test_round_trip(tmp_path: Path) -> None:
    surface = Surface.from_rows([row(), row(seed=1, map=1 / 3, bits=4.5, sent=0)])
    surface.write(tmp_path / "surface.csv")
    again = Surface.read(tmp_path / "surface.csv")
    assert again.map.tolist() == [0.2, 1 / 3]
    assert again.sent.tolist() == [1.0, 0.0]
    assert again.to_csv() == surface.to_csv()
    assert again.sha256() == surface.sha256()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"map": "nan"}, "row 2: map"),
        ({"map": ""}, "map is empty"),
        ({"map": 25.8}, "percentage"),
        ({"upload_bytes": "inf"}, "upload_bytes"),
        ({"upload_bytes": -1}, "upload_bytes"),
        ({"update_bytes": "many"}, "not a number"),
    ],
)
def test_bad_cells_name_row_and_column(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Surface.from_rows([row(**change)])


def test_what_was_transmitted_is_all_parameters_where_nobody_counted(tmp_path: Path) -> None:
    cells = [row(params=900, transmitted=40), row(params=900, seed=1)]
    surface = Surface.from_rows(cells)
    assert surface.parameters.tolist() == [40, 900]
    assert "transmitted" in surface.to_csv().splitlines()[0]
    surface.write(tmp_path / "surface.csv")
    assert Surface.read(tmp_path / "surface.csv").parameters.tolist() == [40, 900]
    older = Surface.from_rows(cells[1:])
    assert "transmitted" not in older.to_csv()  # so that its hash stays


def test_missing_columns_empty_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lacks the columns m0"):
        Surface.from_rows([{k: v for k, v in row().items() if k != "m0"}])
    with pytest.raises(BadInput, match="no cells"):
        Surface.from_rows([])
    with pytest.raises(BadInput, match="not found"):
        Surface.read(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(BadInput, match="not a CSV"):
        Surface.read(tmp_path / "bytes.csv")


def test_points_and_envelopes() -> None:
    # frames 16 in two codecs: the fine one costs 3e5 and gives 0.30, the coarse 1e5 and 0.20;
    # 32 coarse frames cost 2e5 and give 0.32: better and cheaper than the fine 16.
    # At the small budget everything is 0.05 lower; the middle budget is a dud (0.01 lower than
    # the small one), so the envelope of packages is small, large.
    rows = []
    for frames, codec, upload, top in (
        (16, "a", 1e5, 0.2),
        (16, "b", 3e5, 0.3),
        (32, "a", 2e5, 0.32),
    ):
        for budget, loss in ((1e4, 0.05), (2e4, 0.06), (4e4, 0.0)):
            for seed, noise in ((0, -0.01), (1, 0.01)):
                rows.append(
                    row(
                        seed=seed,
                        frames=frames,
                        codec=codec,
                        upload_bytes=upload + seed,
                        budget_bytes=budget,
                        update_bytes=budget - 10,
                        map=top - loss + noise,
                    )
                )
    points = Surface.from_rows(rows).points()
    assert len(points) == 9
    assert points.seeds.tolist() == [2.0] * 9
    ups = [points.point(int(i)) for i in points.upload_envelope()]
    assert [(p.frames, p.codec, p.upload_bytes) for p in ups] == [
        (16, "a", 1e5 + 1),
        (32, "a", 2e5 + 1),
    ]
    downs = [points.point(int(i)) for i in points.update_envelope()]
    assert [p.budget_bytes for p in downs] == [1e4, 4e4]
    index = points.fitting(2.5e5, 3e4)
    assert index is not None
    chosen = points.point(index)
    # By bytes alone: the dud is the largest package that fits, and accuracies say nothing.
    assert (chosen.frames, chosen.budget_bytes) == (32, 2e4)
    assert points.map[index] == pytest.approx(0.26)
    assert points.map_error[index] == pytest.approx(0.01)  # sd 0.0141 of two / sqrt(2)
    assert points.fitting(9e4, 3e4) is None
    blind = replace(points, map=np.full(9, np.nan), map_error=np.full(9, np.nan))
    top = int(np.argmax(points.upload_bytes))
    assert points.codec[top] == "b"
    for up, down in ((2.5e5, 3e4), (1e6, 1e6), (1.5e5, 2e4), (9e4, 3e4)):
        assert blind.fitting(up, down) == points.fitting(up, down)
    named = points.fitting(1e6, 1e6, "a")
    assert named is not None
    assert (points.frames[named], points.codec[named]) == (32, "a")
    assert points.fitting(1e6, 1e6, "absent") is None


GRID = [
    row(frames=f, codec=c, budget_bytes=b, update_bytes=b - 5.0, upload_bytes=f * size, map=m)
    for f, m in ((8, 0.9), (16, 0.2), (64, 0.3))
    for c, size in (("avif-q60-320", 90.0), ("jpeg-q75-320", 100.0))
    for b in (1000, 3000)
]


@given(
    st.floats(1, 1e4),
    st.floats(1, 5e3),
    st.sampled_from(["", "avif-q60-320", "jpeg-q75-320"]),
)
@example(1600.0, 2995.0, "")
@example(1599.9, 2994.9, "")
@example(6399.0, 2996.0, "jpeg-q75-320")
def test_a_split_is_rounded_down_by_bytes_alone(
    upload_bytes: float, update_bytes: float, codec: str
) -> None:
    """Against plain loops: the most bytes up that fit, then the most down, whatever they reach."""
    points = Points.of(Surface.from_rows(GRID))
    fits = [
        (up, down, i)
        for i, (up, down, c) in enumerate(
            zip(points.upload_bytes, points.update_bytes, points.codec, strict=True)
        )
        if up <= upload_bytes * (1 + 1e-9)
        and down <= update_bytes * (1 + 1e-9)
        and codec in ("", c)
    ]
    found = points.fitting(upload_bytes, update_bytes, codec)
    assert found == (max(fits)[2] if fits else None)
