"""Lies about end/: what the device selects, sends and measures."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

GOLDEN = ("tests/lab/sweep/test_golden_cell.py",)
METRIC = ("tests/end/test_metric.py",)
CAPTURE = ("tests/end/test_capture.py",)
SELECTION = ("tests/end/test_selection.py",)

LIES = [
    Lie(
        "a store without a bottom",
        "end/client/apply.py",
        "        if left < 0:\n                break",
        "        if left < -(10**12):\n                break",
        "models on the device fill its disk",
        ("tests/end/client/test_kept.py",),
    ),
    Lie(
        "the oldest model stays",
        "end/client/apply.py",
        "in reversed(before.items()):",
        "in before.items():",
        "the device forgets the model that the edge will name and keeps another",
        ("tests/end/client/test_kept.py",),
    ),
    Lie(
        "features of another frame",
        "end/selection.py",
        "features[computed_order(model, frames)] = computed",
        "features[:] = computed",
        "frames of several shapes are chosen by what other frames look like",
        SELECTION,
    ),
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
        "return CocoScore(_mean(precision), _mean(precision[0]), len(truth), by_class)",
        "return CocoScore(_mean(precision[0]), _mean(precision[0]), len(truth), by_class)",
        "mAP50 is reported as mAP50-95",
        METRIC,
    ),
    Lie(
        "map75 in place of map50",
        "end/metric.py",
        "_mean(precision[0]), len(truth), by_class)",
        "_mean(precision[5]), len(truth), by_class)",
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
        "return int((inside.max(1) >= 0.5).sum())",
        "return len(truth)",
        "boxes that were sent readable count as blurred",
        CAPTURE,
    ),
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
        "return RULES[rule](observed, np.random.default_rng([seed, 0x5E1EC7]))",
        "return RULES[rule](observed, np.random.default_rng())",
        "a run cannot be repeated",
        SELECTION,
    ),
    Lie(
        "half covered is covered by a tenth",
        "end/capture.py",
        "inside.max(1) >= 0.5",
        "inside.max(1) >= 0.1",
        "boxes that were sent readable count as blurred",
        CAPTURE,
    ),
    Lie(
        "detections of the smallest frame",
        "end/inference.py",
        "    corners = (corners - np.tile(frames.offset[i], 2)) / frames.scale[i]",
        "    corners = (corners - np.tile(frames.offset[0], 2)) / frames.scale[0]",
        "boxes are put where another frame would have them",
        ("tests/end/test_places_of_boxes.py",),
    ),
    Lie(
        "the fastest frame is the median",
        "end/latency.py",
        "        statistics.median(whole),\n        tenths[0],",
        "        min(whole),\n        tenths[0],",
        "the latency is that of the luckiest frame",
        ("tests/end/test_latency.py",),
    ),
    Lie(
        "the tenths are swapped",
        "end/latency.py",
        "        tenths[0],\n        tenths[-1],",
        "        tenths[-1],\n        tenths[0],",
        "the interval of the latency is upside down",
        ("tests/end/test_latency.py",),
    ),
    Lie(
        "the network's time is the whole",
        "end/latency.py",
        "        statistics.median(inner),",
        "        statistics.median(whole),",
        "what suppression costs is said to be the network's",
        ("tests/end/test_latency.py",),
    ),
    Lie(
        "suppression on an accelerator is sure of everything",
        "end/suppression.py",
        "settled & (all_seen | (last >= most))",
        "settled | True",
        "boxes that were never looked at are missing, and nobody says so",
        ("tests/device/test_suppression.py",),
    ),
    Lie(
        "an engine is compared with itself",
        "end/export.py",
        "a, b = (run(image[None].float() / 255) for run in (ours, network))",
        "a, b = (run(image[None].float() / 255) for run in (network, network))",
        "an exported model that is not ours passes",
        ("tests/end/test_export.py",),
    ),
]
