"""Lies about data/: frames, cameras, streams, subsets."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

STREAM = ("tests/data/test_stream.py",)

LIES = [
    Lie(
        "the camera forgets its seed",
        "data/shift.py",
        "rng = np.random.default_rng([self.seed, image_id, KINDS.index(self.kind), self.severity])\n        level = self.severity - 1\n        pixels",
        "rng = np.random.default_rng([0, image_id, KINDS.index(self.kind), self.severity])\n        level = self.severity - 1\n        pixels",
        "two cameras of different seeds are the same camera",
        ("tests/data/test_frames.py",),
    ),
    Lie(
        "one noise for all frames",
        "data/shift.py",
        "rng = np.random.default_rng([self.seed, image_id, KINDS.index(self.kind), self.severity])\n        level = self.severity - 1\n        pixels",
        "rng = np.random.default_rng([self.seed, 0, KINDS.index(self.kind), self.severity])\n        level = self.severity - 1\n        pixels",
        "every frame carries the same noise, which a network learns to subtract",
        ("tests/data/test_frames.py",),
    ),
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
    Lie(
        "kilo is 1024",
        "data/units.py",
        "return 8.0 * n_bytes / (spectral_efficiency * period_s)",
        "return 8.192 * n_bytes / (spectral_efficiency * period_s)",
        "bytes are counted in other units on the two sides of a link",
        ("tests/data/test_units.py",),
    ),
    Lie(
        "boxes do not follow the letterbox",
        "data/frames.py",
        "boxes = np.stack([(x + w / 2 + left), (y + h / 2 + top), w, h], 1) / side",
        "boxes = np.stack([(x + w / 2), (y + h / 2), w, h], 1) / side",
        "boxes are taught beside what they are of",
        ("tests/data/test_frames.py",),
    ),
    Lie(
        "crowds are taught",
        "data/frames.py",
        "x, y, w, h = frame.boxes[~frame.crowd].T.astype(np.float64) * scale",
        "x, y, w, h = frame.boxes.T.astype(np.float64) * scale",
        "boxes around crowds are taught as single objects",
        ("tests/data/test_frames.py",),
    ),
    Lie(
        "a fingerprint without boxes",
        "data/coco.py",
        "        for array in (f.boxes, f.labels, f.crowd):",
        "        for array in ():",
        "changed annotations are given the results of the old ones",
        ("tests/data/test_coco.py",),
    ),
    Lie(
        "a batch is shorter than it is",
        "data/codec.py",
        "return HEADER_BYTES + sum(frame_bytes) + FRAME_OVERHEAD_BYTES * len(frame_bytes)",
        "return HEADER_BYTES + sum(frame_bytes)",
        "framing is not counted",
        ("tests/data/test_codec.py",),
    ),
]
