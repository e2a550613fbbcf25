"""Lies about lab/sweep/ and its inputs: what is measured, and what names it."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

STORE = ("tests/lab/test_store.py",)
INPUTS = ("tests/lab/test_inputs.py",)
GOLDEN = ("tests/lab/sweep/test_golden_cell.py",)

LIES = [
    Lie(
        "evaluation skips the camera",
        "lab/inputs.py",
        "lambda f: self.camera.apply(f.read(), f.image_id),",
        "lambda f: f.read(),",
        "the device is scored on frames that its camera never took",
        GOLDEN,
    ),
    Lie(
        "uploads skip the camera",
        "lab/inputs.py",
        "Captured(f, float(i), self.camera)",
        "Captured(f, float(i), Shift())",
        "the edge learns from frames that the device never saw",
        GOLDEN,
    ),
    Lie(
        "the device is scored on what it uploaded",
        "lab/inputs.py",
        "            self.evaluation.frames,\n            side,",
        "            self.pool.frames[: len(self.evaluation)],\n            side,",
        "pictures and truth of the evaluation belong to different frames",
        GOLDEN,
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
        "lab/inputs.py",
        "if (twin := seen.get(frame.file.sha256)) is not None:",
        'if (twin := seen.get(b"")) is not None:',
        "evaluation frames are trained on",
        INPUTS,
    ),
    Lie(
        "a detector's own boxes are truth",
        "lab/inputs.py",
        "if dataset.labels != said:",
        "if False:",
        "agreement with a detector passes for accuracy",
        ("tests/lab/cli/test_importing.py",),
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
]
