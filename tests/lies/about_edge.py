"""Lies about edge/: labels, adaptation, the server."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LABELS = ("tests/edge/test_labels.py",)

LIES = [
    Lie(
        "the kept model that suits least",
        "edge/recall.py",
        "best = min(range(len(kept)),",
        "best = max(range(len(kept)),",
        "a device goes back to the wrong one of its models",
        ("tests/edge/test_recall.py",),
    ),
    Lie(
        "a kept model that is no better",
        "edge/recall.py",
        "if not gain > sure * error:",
        "if not gain > -1e9:",
        "a device goes back to a model that is worse than what it runs",
        ("tests/edge/test_recall.py",),
    ),
    Lie(
        "each architecture against itself",
        "edge/choosing.py",
        "search = _Search(held or start, first,",
        "search = _Search(start, first,",
        "the evidence of another architecture is no gain over what the device has",
        ("tests/lab/sweep/test_menu.py",),
    ),
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
    Lie(
        "trained on the held-back frames",
        "edge/adapt.py",
        "return Upload(frames.take(range(n - held)), frames.take(range(n - held, n)))",
        "return Upload(frames, frames.take(range(n - held, n)))",
        "the frames that judge an update were trained on",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "a worse update is sent",
        "edge/adapt.py",
        "self.before - self.after > self.sure * self.error",
        "self.after - self.before > self.sure * self.error",
        "the edge sends what the held-back frames speak against",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "the worst share is taken",
        "edge/adapt.py",
        "best = min(shares, key=lambda share: tried[share])",
        "best = max(shares, key=lambda share: tried[share])",
        "the held-back frames choose what they speak against",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "any number of frames is evidence",
        "edge/adapt.py",
        "return self.frames >= self.least and",
        "return self.frames >= 0 and",
        "an update is sent on no evidence",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "groups are torn apart",
        "edge/adapt.py",
        "if groups is None or len(set(groups)) < _LEAST_GROUPS:",
        "if True:",
        "frames of one flight are trained on and judged by",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "losses are of the whole batch",
        "edge/adapt.py",
        "            found.append(loss_of(single(raw), targets))",
        "            found.append(0 * loss_of(single(raw), targets) + loss_of(single(raw), targets).mean())",
        "a frame is judged by the others' predictions",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "recall of wrong boxes",
        "edge/labels.py",
        "        float(hits[best] / kept[best]),\n        float(hits[best] / true_boxes),",
        "        float(hits[best] / true_boxes),\n        float(hits[best] / kept[best]),",
        "precision and recall of a threshold are swapped",
        ("tests/edge/test_labels.py",),
    ),
]
