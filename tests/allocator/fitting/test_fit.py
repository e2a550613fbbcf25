"""Fitting: recovery, degenerate surfaces, uncertainty, and the file of curves."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endedge.allocator import Curves, Joint, Kind, Link, Surface, allocate, fit
from endedge.allocator.accuracy.monotone import fit_monotone
from endedge.allocator.accuracy.width import Width
from endedge.allocator.fitting import fit as fitting
from endedge.allocator.fitting.curves import TriedKind
from endedge.allocator.fitting.grid import Grid, checkerboard
from endedge.allocator.fitting.synthetic import curves_of, sample_surface
from endedge.data.errors import BadInput

SHARE = Kind("share", "power", "hill")
KINDS = (SHARE, Kind("product", "power", "hill"), Kind("additive", "exponential", "exponential"))
TRUTH = Joint(SHARE, 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)


def noisy(seed: int = 0, **options: Any) -> Surface:
    return sample_surface(TRUTH, np.random.default_rng(seed), **options)


@pytest.fixture(scope="module")
def curves() -> Curves:
    return fit(noisy(), kinds=KINDS, replicates=60)


def test_exact_cells_give_the_exact_curve_back() -> None:
    found = fit(noisy(cell_noise=0.0, seed_noise=0.0, seeds=1), kinds=[SHARE], replicates=5)
    u, m = np.geomspace(1e5, 6e6, 20), np.geomspace(3e4, 1e6, 20)
    assert found.predict(u, m) == pytest.approx(TRUTH.value(u, m), abs=2e-5)
    assert found.candidates[0].held_out < 1e-4


def test_all_kinds_are_tried_and_the_held_out_error_decides() -> None:
    found = fit(noisy(), replicates=8)
    assert len(found.candidates) == 60
    errors = [c.held_out for c in found.candidates]
    assert errors == sorted(errors)
    assert found.joint.kind.composition == "share"
    assert found.joint == found.chosen.joint
    assert found.chosen.held_out <= 1.1 * found.candidates[0].held_out  # see the next test
    assert found.reference_held_out > found.chosen.held_out


def test_a_corner_is_not_chosen_where_a_smooth_curve_fits_as_well() -> None:
    # Between the budgets of 250 and 500 kB nothing was measured. A capped power has its corner
    # there, at 321 kB, and every split would stop at it: the truth still rises, and the model
    # of 321 kB costs up to 11 points. Found by the recovery study.
    steep = Joint(
        Kind("product", "wbl4", "weibull"), 0.176, 0.134, 0.301, 1.29e6, 0.68, 3.02e5, 4.36
    )
    kinds = (steep.kind, replace(steep.kind, model="power"))
    found = fit(sample_surface(steep, np.random.default_rng(9)), kinds=kinds, replicates=5)
    assert found.joint.kind.model == "weibull"
    for bandwidth_hz in (4e4, 1e5, 3e5):
        best = allocate(
            curves_of(steep, found.upload_range, found.update_range), Link(bandwidth_hz, 60.0)
        ).predicted_map
        split = found.allocate(bandwidth_hz, 60.0)
        assert float(steep.value(split.upload_bytes, split.update_bytes)) > best - 0.01


def test_a_corner_has_to_be_better_by_a_tenth(curves: Curves) -> None:
    smooth, corner = SHARE, replace(SHARE, model="power")

    def fitted(kind: Kind, held_out: float) -> fitting._Fit:
        joint = replace(curves.joint, kind=kind, model_s=1.0)
        return fitting._Fit(TriedKind(kind, held_out, 0.0, 0.0, joint), np.zeros(2))

    close = [fitted(corner, 0.0100), fitted(smooth, 0.0109)]
    assert fitting._choose(close).candidate.kind == smooth
    clear = [fitted(corner, 0.0100), fitted(smooth, 0.0111)]
    assert fitting._choose(clear).candidate.kind == corner


@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (4, 3), (9, 4), (20, 32)])
def test_folds_are_whole_levels_between_others(rows: int, columns: int) -> None:
    grid = Grid.of(
        sample_surface(
            TRUTH,
            np.random.default_rng(0),
            seeds=1,
            frames=[16 * (k + 1) for k in range(rows)],
            budgets=[3e4 * 1.3**k for k in range(columns)],
        )
    )
    assert len(grid.folds) == min(5, rows - 2) + min(5, columns - 2)
    for k, out in enumerate(grid.folds):
        level = grid.row if k < grid.row_folds else grid.column
        left = np.unique(level[out])
        assert (np.isin(level, left) == out).all()  # nothing else, and all of it
        assert 0 < left.min() <= left.max() < level.max()
        assert len(left) < 2 or np.diff(left).min() > 1 or level.max() < 4
    every = grid.folds.sum(axis=0)
    inside = [(x > 0) & (x < x.max()) for x in (grid.row, grid.column)]
    assert (every == inside[0].astype(int) + inside[1]).all()  # each once along each axis


def test_an_interval_is_as_wide_as_levels_left_out_were_off() -> None:
    """A truth that no family has (two steps): the bootstrap is sure of its family, the interval
    knows better."""
    rng, rows = np.random.default_rng(4), []

    def steps(x: Any) -> Any:
        return 0.1 + 0.1 / (1 + (2e5 / x) ** 6) + 0.15 / (1 + (2e6 / x) ** 6)

    for row in csv.DictReader(io.StringIO(noisy(cell_noise=0.001, seed_noise=0.0).to_csv())):
        value = float(steps(float(row["upload_bytes"]))) + 0.001 * rng.standard_normal()
        rows.append({**row, "map": value})
    found = fit(Surface.from_rows(rows), kinds=KINDS, replicates=40)
    assert (
        0.2 < found.width.upload <= 1
    )  # a value between its neighbours is off by their rise at most
    assert found.width.update <= 1
    between = np.sqrt(found.reference.upload_bytes[1:] * found.reference.upload_bytes[:-1])
    real = steps(between)

    def held(curves: Curves) -> float:
        low, high = curves.interval(between, 1e6)
        return float(((low <= real) & (real <= high)).mean())

    assert held(found) >= 0.8
    assert held(replace(found, width=Width())) <= 0.5


def test_a_plateau_measured_once_does_not_blow_the_intervals_up(tmp_path: Path) -> None:
    """One seed, an upload that never led to an update: nothing explains what a curve misses
    there, and a ratio to nothing has no bound."""
    reached = {
        22_207: (0.19667, 0.19667, 0.19667, 0.19667, 0.19667),
        87_992: (0.26925, 0.32738, 0.32344, 0.33427, 0.33412),
        260_956: (0.30937, 0.35880, 0.36943, 0.37638, 0.37638),
        702_241: (0.35910, 0.40506, 0.42994, 0.43716, 0.43844),
    }
    sizes = (14_900, 19_900, 29_900, 44_700, 89_500)
    first = next(csv.DictReader(io.StringIO(noisy().to_csv())))
    rows = [
        {**first, "seed": 0, "frames": up // 2_750, "upload_bytes": up, "m0": 0.19667, "map": value}
        | {"budget_bytes": down, "update_bytes": down}
        for up, values in reached.items()
        for down, value in zip(sizes, values, strict=True)
    ]
    surface = Surface.from_rows(rows)
    luck = np.random.default_rng(0).normal(0.0, 0.02, (len(rows), 200))
    found = fit(surface, drawn=surface.map[:, None] + luck)
    assert 0 < found.width.scale <= 5
    found.save(tmp_path / "curves.json")
    assert Curves.load(tmp_path / "curves.json").width == found.width


def test_packages_that_never_fill_their_budget_promise_nothing_in_it() -> None:
    """One seed's updates are an input adapter of 342 B whatever is allowed, the other's fill
    their budgets at the smallest upload: a product of curves saw full packages at small uploads
    alone and promised 100 % at large ones."""
    first = next(csv.DictReader(io.StringIO(noisy().to_csv())))
    odd = {4_000: 0.2, 10_000: 0.42, 20_000: 0.42, 40_000: 0.42}
    rows = [
        {**first, "seed": seed, "frames": frames, "upload_bytes": 2_700 * frames, "m0": 0.2}
        | {"budget_bytes": budget}
        | (
            {"update_bytes": budget - 50, "map": odd[budget]}
            if seed == 1 and frames == 7
            else {"update_bytes": 342, "map": value + 0.01 * seed}
        )
        for seed in (0, 1)
        for frames, value in ((7, 0.25), (11, 0.3), (18, 0.34), (30, 0.36))
        for budget in (4_000, 10_000, 20_000, 40_000)
    ]
    found = fit(Surface.from_rows(rows), replicates=40)
    up, down = np.meshgrid((18_900.0, 48_600.0, 81_000.0), (4_000.0, 20_000.0, 39_950.0))
    assert found.predict(up, down).max() < 0.5
    assert found.update_range.low >= 3_950


def test_evaluation_frames_are_part_of_the_interval() -> None:
    surface = noisy()
    shared = np.random.default_rng(0).normal(0.0, 0.012, 200)  # all cells move together
    drawn = surface.map[:, None] + shared
    plain = fit(surface, kinds=[SHARE], replicates=200)
    known = fit(surface, kinds=[SHARE], replicates=200, drawn=drawn)
    assert known.joint == plain.joint
    narrow, wide = (np.ptp(c.interval(5e5, 3e5), axis=0)[0] for c in (plain, known))
    assert wide == pytest.approx(np.hypot(narrow, 2 * 1.645 * 0.012 * known.width.scale), rel=0.25)


def test_a_fall_with_more_frames_is_said() -> None:
    surface = noisy()
    assert fit(surface, kinds=[SHARE], replicates=3).falls == ""
    down = np.where(surface.frames == 1024, surface.map - 0.08, surface.map)
    said = fit(replace(surface, map=down), kinds=[SHARE], replicates=3).falls
    assert re.match(
        r"accuracy falls with more frames: 1,024 frames \(synthetic\) end \d\.\d ± 0\.\d points "
        r"below 512",
        said,
    ), said
    one = surface.select(surface.seed == 0)
    assert fit(one, kinds=[SHARE], replicates=3).falls == ""


def test_forgetting_is_represented(curves: Curves) -> None:
    # At 16 frames (96 kB) the truth is below m0 = 0.11 by 0.03 - 0.13·(1 - 1.32^-0.9) = 1e-3...
    assert curves.joint.start < curves.m0
    strong = replace(TRUTH, start=0.0, u0_bytes=6e5)
    low = fit(sample_surface(strong, np.random.default_rng(1)), kinds=[SHARE], replicates=5)
    assert low.forgets
    assert float(low.predict(96e3, 1e6)) == pytest.approx(float(strong.value(96e3, 1e6)), abs=0.01)


def test_interval_holds_the_truth_and_grows_outside(curves: Curves) -> None:
    u, m = np.geomspace(1e5, 6e6, 12)[:, None], np.geomspace(3e4, 1e6, 12)[None, :]
    u, m = (x.ravel() for x in np.broadcast_arrays(u, m))
    low, high = curves.interval(u, m)
    assert ((low <= TRUTH.value(u, m)) & (TRUTH.value(u, m) <= high)).mean() > 0.7
    near, far = (np.ptp(curves.interval(x, 1e6), axis=0)[0] for x in (1e6, 1e8))
    assert far > near
    assert curves.extrapolates(np.array([1e6, 1e8]), 1e5).tolist() == [False, True]


def test_same_input_same_curves() -> None:
    first, again = (fit(noisy(), kinds=KINDS, replicates=10).to_json() for _ in range(2))
    assert first == again


def test_all_equal_accuracies_are_stated() -> None:
    surface = noisy()
    flat = replace(surface, map=np.full(len(surface), 0.2))
    found = fit(flat)
    assert "all measured accuracies equal 0.2" in found.note
    assert found.predict(np.array([1e5, 1e6]), 5e4).tolist() == [0.2, 0.2]


def test_too_little_to_fit() -> None:
    surface = noisy()
    one = surface.select(np.arange(1))
    with pytest.raises(BadInput, match="at least 3 upload sizes and 2 model budgets"):
        fit(one)
    with pytest.raises(BadInput, match="has 2 and 6"):
        fit(surface.select(surface.frames <= 32))
    with pytest.raises(BadInput, match="m0"):
        fit(surface, m0=float("nan"))
    with pytest.raises(BadInput, match="upload_bytes > 0"):
        fit(replace(surface, upload_bytes=surface.upload_bytes * 0))
    with pytest.raises(BadInput, match="composition 'sum'"):
        Kind("sum", "power", "hill")


def test_a_dominated_codec_is_left_out() -> None:
    surface = noisy()
    # The same frames in a codec of five times the bytes and no better accuracy.
    heavy = replace(
        surface,
        codec=np.full(len(surface), "heavy"),
        upload_bytes=surface.upload_bytes * 5,
        map=surface.map - 0.02,
    )
    both = Surface(
        **{k: np.concatenate([getattr(surface, k), getattr(heavy, k)]) for k in vars(surface)}
    )
    found = fit(both, kinds=KINDS, replicates=5)
    alone = fit(surface, kinds=KINDS, replicates=5)
    u, m = np.geomspace(1e5, 6e6, 9), np.geomspace(4e4, 1e6, 9)
    assert found.predict(u, m) == pytest.approx(alone.predict(u, m), abs=0.004)
    assert found.provenance["points_fitted"] < found.provenance["points"]
    assert {p.codec for p in found.uploads if p.upload_bytes <= 6e6} == {"synthetic"}


def test_checkerboard_halves_keep_every_size() -> None:
    surface = noisy()
    half = checkerboard(surface)
    assert 0.4 < half.mean() < 0.6
    for part in (surface.select(half), surface.select(~half)):
        assert len(np.unique(part.frames)) == 7
        assert len(np.unique(part.budget_bytes)) == 6
    fit(surface.select(half), kinds=[SHARE], replicates=3)


def test_monotone_reference_by_hand() -> None:
    # Along the only column 0.1, 0.4, 0.2, 0.5 -> the violating pair (0.4, 0.2) pools to 0.3.
    row, zero = np.arange(4), np.zeros(4, dtype=np.int64)
    n_bytes = np.array([1e4, 1e5, 1e6, 1e7])
    found = fit_monotone(row, zero, n_bytes, np.full(4, 1e5), np.array([0.1, 0.4, 0.2, 0.5]))
    assert found.map[:, 0] == pytest.approx([0.1, 0.3, 0.3, 0.5])
    # Half way in log bytes between 1e4 (0.1) and 1e5 (0.3) is 0.2; outside it stays constant.
    assert found.predict(10**4.5, 5e4) == pytest.approx(0.2, abs=1e-4)
    assert found.predict(np.array([1.0, 1e9]), 1e5) == pytest.approx([0.1, 0.5])


def test_monotone_reference_of_a_noisy_grid_rises_both_ways() -> None:
    reference = fit(noisy(cell_noise=0.03), kinds=[SHARE], replicates=2).reference
    assert (np.diff(reference.map, axis=0) >= -1e-12).all()
    assert (np.diff(reference.map, axis=1) >= -1e-12).all()


def test_file_round_trip(curves: Curves, tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    curves.save(path)
    again = Curves.load(path)
    assert again.to_json() == curves.to_json()
    assert again.provenance["surface_sha256"] == noisy().sha256()
    u, m = np.geomspace(1e5, 6e6, 5), np.geomspace(3e4, 1e6, 5)
    assert again.predict(u, m).tolist() == curves.predict(u, m).tolist()
    assert [p.tolist() for p in again.interval(u, m)] == [p.tolist() for p in curves.interval(u, m)]
    assert not list(tmp_path.glob(".*"))


def damaged(curves: Curves, path: list[Any], value: Any) -> str:
    document = json.loads(curves.to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], "endedge-curves-0"),
        (["m0"], 1.5),
        (["m0"], "0.1"),
        (["chosen", "parameters", "gain"], -0.1),
        (["chosen", "parameters", "gain"], None),
        (["chosen", "parameters", "U0_bytes"], 0),
        (["chosen", "parameters", "U0_bytes"], 10**400),
        (["chosen", "model_family"], "neural"),
        (["chosen", "parameters"], []),
        (["upload_bytes", "low"], 1e99),
        (["reference", "map", 0], [0.1]),
        (["reference", "upload_bytes"], [2, 1]),
        (["replicates"], {"a": 1}),
        (["uploads", 0, "frames"], -3),
        (["uploads", 0], 7),
        (["candidates"], [[]]),
        (["candidates"], []),  # what is chosen must be one of them
        (["provenance"], "me"),
        (["width"], 3),
        (["width", "scale"], -1),
        (["width", "upload"], None),
    ],
)
def test_hostile_files(curves: Curves, tmp_path: Path, path: list[Any], value: Any) -> None:
    file = tmp_path / "curves.json"
    file.write_text(damaged(curves, path, value))
    with pytest.raises(BadInput, match=r"curves\.json") as error:
        Curves.load(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "blob", [b"", b"{", b"\xff\xfe", b"[]", b'{"m0": NaN}', b"[" * 100_000, b'{"format": 1}']
)
def test_files_that_are_no_curves(tmp_path: Path, blob: bytes) -> None:
    file = tmp_path / "curves.json"
    file.write_bytes(blob)
    with pytest.raises(BadInput, match=r"curves\.json"):
        Curves.load(file)
    with pytest.raises(BadInput, match="not found"):
        Curves.load(tmp_path / "absent.json")
