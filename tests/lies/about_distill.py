"""Lies about distill/: training, pruning, packages."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "boxes do not follow the mirror",
        "distill/training.py",
        "boxes[:, 0] = 1 - boxes[:, 0]",
        "boxes[:, 0] = boxes[:, 0]",
        "mirrored frames are taught with boxes on the wrong side",
        ("tests/distill/test_training.py",),
    ),
    Lie(
        "layers beyond the recipe are trained",
        "distill/training.py",
        "return len(model.model) if recipe.layers is None else recipe.layers",
        "return len(model.model)",
        "a recipe of the first layers trains all",
        ("tests/distill/test_training.py",),
    ),
    Lie(
        "a package that ignores its frames",
        "distill/package/packing.py",
        "pictures = synthetic_frames(seed=seed) if frames is None else frames[:_MOST_FRAMES]",
        "pictures = synthetic_frames(seed=seed)",
        "the packer never looks at what the device sees",
        ("tests/distill/package/test_choose.py",),
    ),
    Lie(
        "the worst student is sent",
        "distill/package/choose.py",
        "return min(found, key=lambda x: x[0])[1]",
        "return max(found, key=lambda x: x[0])[1]",
        "of several students the one that comes through worst is sent",
        ("tests/distill/package/test_choose.py",),
    ),
    Lie(
        "a delta for any base",
        "distill/package/format.py",
        "if bytes.fromhex(model_hash(base))[:16] != base_hash:",
        "if False:",
        "a delta is decoded on top of another model than it was made for",
        ("tests/distill/package/test_format.py",),
    ),
    Lie(
        "what is decoded is not compared",
        "distill/package/format.py",
        "if bytes.fromhex(model_hash(model))[:16] != result:",
        "if False:",
        "the device runs another model than the edge measured",
        ("tests/distill/package/test_format.py",),
    ),
    Lie(
        "a damaged package is decoded",
        "distill/package/format.py",
        "data[_CHECKED_FROM:]).digest()[:16] != checksum:",
        'data[_CHECKED_FROM:]).digest()[:0] != b"":',
        "bytes that changed on the way are decoded",
        ("tests/distill/package/test_format.py",),
    ),
    Lie(
        "gains of labels and scores swapped",
        "distill/responses.py",
        "            label_gain=self.label_gain,\n            score_gain=self.score_gain,",
        "            label_gain=self.score_gain,\n            score_gain=self.label_gain,",
        "a weight of the loss is another's",
        ("tests/distill/test_losses.py",),
    ),
    Lie(
        "no box distributions",
        "distill/responses.py",
        "box_gain=self.box_gain,",
        "box_gain=0.0,",
        "the teacher's boxes are not learned from",
        ("tests/distill/test_losses.py",),
    ),
    Lie(
        "an adapter goes without its name",
        "distill/adapter.py",
        'return "+".join(kinds) or "none"',
        'return "none"',
        "an input adapter goes without saying",
        ("tests/distill/test_adapter.py",),
    ),
    Lie(
        "an adapter is not packed",
        "distill/package/description.py",
        'return b"" if about[0] == about[1] else _deflated({"adapter": about[0]}), model',
        'return b"", model',
        "the device runs without the adapter that was measured",
        ("tests/distill/test_adapter.py",),
    ),
    Lie(
        "a mixture is its end",
        "distill/training.py",
        "tensor.lerp_(target[name], share)",
        "tensor.lerp_(target[name], 1.0)",
        "how far the weights went is not what the record says",
        ("tests/distill/test_training.py",),
    ),
]
