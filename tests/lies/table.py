"""The lies: a substitution each, and one sentence of what it would falsify.

``true`` must stand exactly once in ``file``; ``tests`` are the folders or files whose tests are
to notice. A new capability adds its lies here with its code (docs/contributing.md).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIES", "Lie"]


@dataclass(frozen=True)
class Lie:
    """``told`` in place of ``true`` in ``file``."""

    name: str
    file: str
    true: str
    told: str
    falsifies: str
    tests: tuple[str, ...]


GOLDEN = ("tests/lab/sweep/test_golden_cell.py",)
METRIC = ("tests/end/test_metric.py",)
STREAM = ("tests/data/test_stream.py",)
CAPTURE = ("tests/end/test_capture.py",)
LABELS = ("tests/edge/test_labels.py",)
SELECTION = ("tests/end/test_selection.py",)

LIES = [
    # What is evaluated, on which frames, through which camera
    Lie(
        "evaluation skips the camera",
        "lab/inputs.py",
        "lambda f: self.camera.apply(read_image(f.path), f.image_id),",
        "lambda f: read_image(f.path),",
        "the device is scored on frames that its camera never took",
        GOLDEN,
    ),
    Lie(
        "uploads skip the camera",
        "lab/inputs.py",
        "((f.image_id, self.camera.apply(read_image(f.path), f.image_id)) for f in frames)",
        "((f.image_id, read_image(f.path)) for f in frames)",
        "the edge learns from frames that the device never saw",
        GOLDEN,
    ),
    Lie(
        "the camera forgets its seed",
        "data/shift.py",
        "rng = np.random.default_rng([self.seed, image_id,",
        "rng = np.random.default_rng([0, image_id,",
        "two cameras of different seeds are the same camera",
        ("tests/data/test_frames.py",),
    ),
    Lie(
        "one noise for all frames",
        "data/shift.py",
        "rng = np.random.default_rng([self.seed, image_id,",
        "rng = np.random.default_rng([self.seed, 0,",
        "every frame carries the same noise, which a network learns to subtract",
        ("tests/data/test_frames.py",),
    ),
    # The metric
    Lie(
        "ten detections a frame",
        "end/metric.py",
        "run.params.maxDets = [100]",
        "run.params.maxDets = [10]",
        "mAP is that of ten detections a frame",
        METRIC,
    ),
    Lie(
        "map50 in place of map",
        "end/metric.py",
        "return Score(_mean(precision), _mean(precision[0]), len(truth))",
        "return Score(_mean(precision[0]), _mean(precision[0]), len(truth))",
        "mAP50 is reported as mAP50-95",
        METRIC,
    ),
    Lie(
        "map75 in place of map50",
        "end/metric.py",
        "_mean(precision[0]), len(truth))",
        "_mean(precision[5]), len(truth))",
        "AP at IoU 0.75 is reported as that at 0.5",
        METRIC,
    ),
    Lie(
        "crowds count as boxes",
        "end/metric.py",
        '"iscrowd": int(crowd),',
        '"iscrowd": 0,',
        "boxes around crowds are asked for as if they were single objects",
        METRIC,
    ),
    Lie(
        "low scores are dropped",
        "end/inference.py",
        "_MIN_SCORE, _NMS_IOU, _MAX_DETECTIONS = 0.001, 0.7, 300",
        "_MIN_SCORE, _NMS_IOU, _MAX_DETECTIONS = 0.25, 0.7, 300",
        "mAP stops at a score of 0.25",
        GOLDEN,
    ),
    Lie(
        "a stricter suppression",
        "end/inference.py",
        "_MIN_SCORE, _NMS_IOU, _MAX_DETECTIONS = 0.001, 0.7, 300",
        "_MIN_SCORE, _NMS_IOU, _MAX_DETECTIONS = 0.001, 0.3, 300",
        "neighbours are suppressed that COCO evaluation keeps",
        GOLDEN,
    ),
    # Subsets and seeds
    Lie(
        "subsets are not nested",
        "data/coco.py",
        "return [int(i) for i in np.random.default_rng([seed, 0x5EED]).permutation(n_frames)]",
        "return [int(i) for i in np.random.default_rng().permutation(n_frames)]",
        "a larger upload does not hold the smaller one's frames, and no run repeats",
        ("tests/data/test_coco.py",),
    ),
    Lie(
        "all seeds draw the same frames",
        "data/coco.py",
        "np.random.default_rng([seed, 0x5EED]).permutation(n_frames)",
        "np.random.default_rng([0, 0x5EED]).permutation(n_frames)",
        "repetitions share their frames and error bars are too small",
        ("tests/data/test_coco.py",),
    ),
    # The stream of the loop
    Lie(
        "held-out frames are captured too",
        "data/stream.py",
        "return dataset.take(sorted(order[eval_frames:])),",
        "return dataset.take(sorted(order)),",
        "the loop trains on the frames that it is scored on",
        STREAM,
    ),
    Lie(
        "a returning domain starts again",
        "data/stream.py",
        "                    taken.add(at)\n                    cursor[domain.name] += 1",
        "                    taken.add(at)\n                    cursor[domain.name] = len(taken)",
        "the same frames are captured in every period",
        STREAM,
    ),
    Lie(
        "gradual change is sudden",
        "data/stream.py",
        "if rng.random() >= share:",
        "if rng.random() >= 1.0:",
        "a gradual change of domain is none",
        STREAM,
    ),
    # Bytes each way
    Lie(
        "the budget of an upload is overdrawn",
        "end/capture.py",
        "        if left < 0:\n            return",
        "        if left < -4096:\n            return",
        "an upload is larger than the link carries",
        CAPTURE,
    ),
    Lie(
        "framing costs nothing",
        "end/capture.py",
        "left -= len(blob) + FRAME_OVERHEAD_BYTES",
        "left -= len(blob)",
        "an upload's framing is not paid for",
        CAPTURE,
    ),
    Lie(
        "everything is hidden",
        "end/capture.py",
        "return int((inside >= 0.5 * truth[:, 2:].prod(1)).sum())",
        "return len(truth)",
        "boxes that were sent readable count as blurred",
        CAPTURE,
    ),
    # Labels
    Lie(
        "truth where pseudo is said",
        "edge/labels.py",
        "    labels = [by_id[f.image_id] for f in frames]\n    truth = truth_labels(frames)",
        "    truth = truth_labels(frames)\n    labels = list(truth)",
        "a budget of boxes gives the truth of every frame",
        LABELS,
    ),
    Lie(
        "a free annotator",
        "edge/labels.py",
        "left_after = left - max(1, len(truth[i].labels))",
        "left_after = left - 1",
        "an annotated frame costs one box however many are drawn",
        LABELS,
    ),
    Lie(
        "every pseudo-label is kept",
        "edge/labels.py",
        "kept = found.scores >= threshold",
        "kept = found.scores >= 0.0",
        "the calibrated threshold has no effect",
        LABELS,
    ),
    Lie(
        "recall is precision",
        "edge/labels.py",
        "        right / true_boxes if true_boxes else 1.0,\n        sum(",
        "        right / (right + wrong) if right + wrong else 1.0,\n        sum(",
        "the share of missed boxes is not what is reported",
        LABELS,
    ),
    # Federated
    Lie(
        "a mean without weights",
        "edge/federated.py",
        "s[name].double() * (w / total) for s, w in zip(states, weights, strict=True)",
        "s[name].double() / len(states) for s, w in zip(states, weights, strict=True)",
        "a device with two frames counts as much as one with two hundred",
        ("tests/edge/test_federated.py",),
    ),
    Lie(
        "statistics stay behind",
        "edge/federated.py",
        "            if tensor.is_floating_point():",
        '            if tensor.is_floating_point() and "running" not in name:',
        "batch-norm statistics of the mean are those of the first device",
        ("tests/edge/test_federated.py",),
    ),
    # Selection
    Lie(
        "uncertain frames last",
        "end/selection.py",
        "return np.lexsort((rng.permutation(len(score)), -score)).astype(np.int64)",
        "return np.lexsort((rng.permutation(len(score)), score)).astype(np.int64)",
        "a rule sends first what it values least",
        SELECTION,
    ),
    Lie(
        "selection without a seed",
        "end/selection.py",
        "return RULES[rule](seen, np.random.default_rng([seed, 0x5E1EC7]))",
        "return RULES[rule](seen, np.random.default_rng())",
        "a run cannot be repeated",
        SELECTION,
    ),
]
