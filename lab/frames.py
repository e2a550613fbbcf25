"""The frames of an experiment: read, checked, and those of other places beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from endedge.data.classes import match_classes
from endedge.data.coco import Dataset, check_boxes, check_pictures, load_coco
from endedge.data.codec import MAX_SIDE
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.lab.config.sections import DataConfig, DomainConfig, FramesConfig

__all__ = ["frames_of", "with_own_frames"]


def frames_of(data: DataConfig, folder: Path) -> tuple[Dataset, Dataset]:
    """(frames that may be uploaded, frames that score); generated ones are made in ``folder``.
    Raises :class:`BadInput` for what is missing, broken, or on both sides."""
    if data.source == "generated":
        made = [
            generate(
                folder / "frames",
                domain="field",
                split=split,
                n=n,
                seed=data.seed,
                size=data.image_side,
            )
            for split, n in (("pool", data.pool_frames or 256), ("eval", data.eval_frames or 200))
        ]
        return made[0], made[1]
    pool, evaluation = _read(data, "data", {"pool": data.pool_labels, "eval": data.eval_labels})
    pool, evaluation = _first(pool, data.pool_frames), _first(evaluation, data.eval_frames)
    _check(pool, evaluation, data.eval_annotations)
    return pool, evaluation


def with_own_frames(
    pool: Dataset, evaluation: Dataset, domains: Mapping[str, DomainConfig]
) -> tuple[Dataset, Dataset]:
    """``pool`` and ``evaluation``, each with those of the ``domains`` that have frames of their
    own behind them: named by their ``source``, their classes numbered as the first ones', with
    image ids that no two share. Raises :class:`BadInput` as :func:`frames_of` does."""
    pools, evaluations = [pool], [evaluation]
    for name, domain in domains.items():
        if domain.frames is None:
            continue
        where = f"loop.domains.{name}.frames"
        both = _read(domain.frames, where, {"pool": "truth", "eval": "truth"})
        for these, more in zip((pools, evaluations), both, strict=True):
            matched = match_classes(more, pool.names, what=where, detector="the frames of data")
            frames = tuple(replace(f, source=name) for f in matched.frames)
            these.append(replace(matched, frames=frames))
    if len(pools) == 1:
        return pool, evaluation
    joined = _joined(pools), _joined(evaluations)
    _check(*joined, "loop.domains")
    return joined


def _read(frames: FramesConfig, where: str, labels: Mapping[str, str]) -> tuple[Dataset, Dataset]:
    root = Path(frames.root)
    if not root.is_dir():
        raise BadInput(f"{where}.root is not a folder: {root}; give the folder of the COCO files")
    pool = load_coco(root / frames.pool_annotations, root / frames.pool_images)
    evaluation = load_coco(root / frames.eval_annotations, root / frames.eval_images)
    for name, dataset in (("eval", evaluation), ("pool", pool)):
        if dataset.labels != (said := labels[name]):
            raise BadInput(
                f"the {name} annotations say that their boxes are of {dataset.labels}, and "
                f"{where}.{name}_labels says {said}; a detector's own boxes measure agreement with "
                f"it, not accuracy: data.{name}_labels={dataset.labels} takes them as they are"
            )
    return pool, evaluation


def _check(pool: Dataset, evaluation: Dataset, where: str) -> None:
    check_pictures(pool, evaluation, max_side=MAX_SIDE)
    check_boxes(evaluation, where)
    scored = {f.file.sha256: f for f in evaluation.frames}
    for frame in pool.frames:
        if (twin := scored.get(frame.file.sha256)) is not None:
            raise BadInput(
                f"{frame.path} may be uploaded and {twin.path} is evaluated, and they "
                "are the same picture; pool and evaluation must not overlap"
            )


def _joined(sets: Sequence[Dataset]) -> Dataset:
    """One set, the ids of each above those of the one before."""
    frames = list(sets[0].frames)
    for more in sets[1:]:
        above = 1 + max(f.image_id for f in frames)  # ids may begin at 0
        frames += [replace(f, image_id=f.image_id + above) for f in more.frames]
    return replace(sets[0], frames=tuple(frames))


def _first(dataset: Dataset, n: int | None) -> Dataset:
    return dataset if n is None else dataset.take(range(min(n, len(dataset))))
