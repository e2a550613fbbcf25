"""Lies about lab/sweep/ and its inputs: what is measured, and what names it."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

STAGES = ("tests/lab/sweep/test_stages.py",)
STORE = ("tests/lab/test_store.py",)
INPUTS = ("tests/lab/test_inputs.py",)

LIES = [
    Lie(
        "evaluation skips the camera",
        "lab/inputs.py",
        "lambda f: self.camera.apply(f.read(), f.image_id),",
        "lambda f: f.read(),",
        "the device is scored on frames that its camera never took",
        STAGES,
    ),
    Lie(
        "uploads skip the camera",
        "lab/inputs.py",
        "Captured(f, float(i), self.camera)",
        "Captured(f, float(i), Shift())",
        "the edge learns from frames that the device never saw",
        STAGES,
    ),
    Lie(
        "the device is scored on what it uploaded",
        "lab/inputs.py",
        "            self.evaluation.frames,\n            side,",
        "            self.pool.frames[: len(self.evaluation)],\n            side,",
        "pictures and truth of the evaluation belong to different frames",
        STAGES,
    ),
    Lie(
        "nothing is held back",
        "lab/inputs.py",
        "held_share=held.share,",
        "held_share=0.0,",
        "two frames decide whatever the configuration says",
        INPUTS,
    ),
    Lie(
        "three frames are enough",
        "lab/inputs.py",
        "least=held.least,",
        "least=0,",
        "an update is sent on no evidence",
        INPUTS,
    ),
    Lie(
        "a menu without its whole student first",
        "lab/inputs.py",
        "key=lambda keep: keep < 1)",
        "key=lambda keep: keep == 1)",
        "packages are compared with a pruned student in place of the whole one",
        INPUTS,
    ),
    Lie(
        "pool and evaluation may overlap",
        "lab/frames.py",
        "if (twin := scored.get(frame.file.sha256)) is not None:",
        'if (twin := scored.get(b"")) is not None:',
        "evaluation frames are trained on",
        INPUTS,
    ),
    Lie(
        "a detector's own boxes are truth",
        "lab/frames.py",
        "if dataset.labels != (said := labels[name]):",
        "said = labels[name]\n        if False:",
        "agreement with a detector passes for accuracy",
        ("tests/lab/test_inputs.py",),
    ),
    Lie(
        "a changed file of a result is taken",
        "lab/store.py",
        "if hashlib.sha256(path.read_bytes()).hexdigest() != expected:",
        "if False:",
        "a resumed run goes on from damaged weights",
        STORE,
    ),
    Lie(
        "a changed record is taken",
        "lab/store.py",
        "elif sealed != _seal(key, document):",
        "elif False:",
        "a figure that was edited by hand is a result",
        STORE,
    ),
    Lie(
        "only the first seed is measured",
        "lab/sweep/grid.py",
        "for seed in config.seeds\n",
        "for seed in config.seeds[:1]\n",
        "the grid has no repetitions",
        ("tests/lab/sweep/test_stages.py",),
    ),
    Lie(
        "all seeds upload the same frames",
        "lab/sweep/inbox.py",
        "self.inputs.captured(self.seed)[: self.frames]",
        "self.inputs.captured(0)[: self.frames]",
        "repetitions share their frames",
        STAGES,
    ),
    Lie(
        "all frames are uploaded",
        "lab/sweep/inbox.py",
        "self.inputs.captured(self.seed)[: self.frames]",
        "self.inputs.captured(self.seed)",
        "a cell of few frames learns from all",
        STAGES,
    ),
    Lie(
        "the edge learns from the originals",
        "lab/sweep/inbox.py",
        "received = edge.receive(self.sent, {",
        'end = type(self.end)(type(self.end.codec).parse("webp-q90-8192"), inputs.side, inputs.device)\n        received = edge.receive(end.encode(inputs.captured(self.seed)[: self.frames]).batch, {',
        "what the codec lost is not lost for the edge",
        STAGES,
    ),
    Lie(
        "map50 of a teacher is its map",
        "lab/sweep/evaluating.py",
        '"map50": score.map50,\n        "classes": score.classes,\n        "seconds": time',
        '"map50": score.map,\n        "classes": score.classes,\n        "seconds": time',
        "mAP50 is never measured",
        STAGES,
    ),
    Lie(
        "map50 of a package is its map",
        "lab/sweep/evaluating.py",
        '"map50": score.map50,\n        "classes": score.classes,\n        "groups": groups',
        '"map50": score.map,\n        "classes": score.classes,\n        "groups": groups',
        "mAP50 is never measured",
        STAGES,
    ),
    Lie(
        "replicates in other units",
        "lab/sweep/evaluating.py",
        "np.rint(replicates / UNIT)",
        "np.rint(replicates / UNIT / 2)",
        "errors over frames are half of what they are",
        STAGES,
    ),
]
