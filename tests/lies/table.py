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
LOOP = ("tests/lab/loop/test_golden_loop.py",)
CAPTURE = ("tests/end/test_capture.py",)
LABELS = ("tests/edge/test_labels.py",)
SELECTION = ("tests/end/test_selection.py",)

LIES = [
    # What is evaluated, on which frames, through which camera
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
    # Cell by cell, column by column
    Lie(
        "mAP before packing",
        "lab/sweep/cell.py",
        "            return _scored(self.world, self._decoded(package))",
        '            student = self.store.nodes("student")[0].folder / "student.safetensors"\n            return _scored(self.world, load_detector(student))',
        "the device is scored with the model before it was packed",
        GOLDEN,
    ),
    Lie(
        "a teacher that is never adapted",
        "lab/sweep/cell.py",
        '            save_detector(adapted.model, folder / "teacher.safetensors")\n            self.say(f"evaluate the teacher',
        '            save_detector(world.teacher, folder / "teacher.safetensors")\n            self.say(f"evaluate the teacher',
        "students learn from the large model as it came",
        GOLDEN,
    ),
    Lie(
        "the teacher's mAP is the untaught one's",
        "lab/sweep/cell.py",
        "                **_scored(world, adapted.model),",
        "                **_scored(world, world.teacher),",
        "the teacher is reported as it was before any frame",
        GOLDEN,
    ),
    Lie(
        "refused updates count",
        "lab/sweep/cell.py",
        "on_device = applied if sent else start",
        "on_device = applied",
        "an update that the edge keeps at home is scored as if it had been sent",
        GOLDEN,
    ),
    Lie(
        "everything is sent",
        "lab/sweep/cell.py",
        'return {**asdict(found), "sent": found.helps}',
        'return {**asdict(found), "sent": True}',
        "the frames held back have no say",
        GOLDEN,
    ),
    Lie(
        "the verdict sees the unpacked student",
        "edge/edge.py",
        "decoded = unpack(package, base=base)\n        plan = self.plan",
        "decoded = unpack(package, base=base)\n        base = decoded\n        plan = self.plan",
        "an update is compared with itself",
        GOLDEN,
    ),
    Lie(
        "mean bits are 32",
        "lab/sweep/cell.py",
        '"bits": package.record["bits"],',
        '"bits": 32.0,',
        "the bit-width in the table is not the package's",
        GOLDEN,
    ),
    Lie(
        "seconds of the teacher are the student's",
        "lab/sweep/cell.py",
        '"seconds_teacher": teacher.record["seconds"],',
        '"seconds_teacher": sum(s.record["seconds"] for s in students),',
        "a stage's cost is another's",
        GOLDEN,
    ),
    Lie(
        "seconds of packing are the evaluation's",
        "lab/sweep/cell.py",
        '"seconds_pack": package.record["seconds"],',
        '"seconds_pack": applied.record["seconds"],',
        "a stage's cost is another's",
        GOLDEN,
    ),
    Lie(
        "the budget in place of the bytes",
        "lab/sweep/cell.py",
        '"update_bytes": package.record["update_bytes"],\n            "params"',
        '"update_bytes": cell.budget_bytes,\n            "params"',
        "the downlink is charged what was allowed, not what was sent",
        GOLDEN,
    ),
    Lie(
        "bytes of the upload without framing",
        "lab/sweep/cell.py",
        'return {"upload_bytes": len(sent),',
        'return {"upload_bytes": len(sent) * 3 // 4,',
        "the uplink is charged less than was sent",
        GOLDEN,
    ),
    Lie(
        "m0 is the teacher's",
        "lab/sweep/cell.py",
        '"m0": start.record["map"],',
        '"m0": start.record["teacher_map"],',
        "the start is not the device's",
        GOLDEN,
    ),
    Lie(
        "a whole period is fresh",
        "lab/loop/policy_run.py",
        '"map": row["map_before"] * (1 - fresh) + after * fresh,',
        '"map": after,',
        "the time in which the old model serves is not counted",
        LOOP,
    ),
    Lie(
        "the loop is scored on its monitor",
        "lab/loop/day.py",
        "truth = (self._monitor if monitor else self.stream).evaluation(domain)",
        "truth = self._monitor.evaluation(domain)",
        "results are measured on the frames that decisions see",
        LOOP,
    ),
    Lie(
        "frames of the period that is judged",
        "lab/loop/loop.py",
        "sent = device.upload(k - 1, running,",
        "sent = device.upload(k, running,",
        "the edge learns from frames that did not exist yet",
        LOOP,
    ),
    Lie(
        "no replay",
        "lab/loop/answers.py",
        "most = self.world.config.edge.replay_frames",
        "most = 0",
        "earlier frames are never trained on again",
        LOOP,
    ),
    Lie(
        "a lost package arrives",
        "lab/loop/policy_run.py",
        'if row["lost"]:\n            return replace(standing, certain=False)',
        'if row["lost"]:\n            pass',
        "an update that was lost is applied",
        LOOP,
    ),
    Lie(
        "the teacher starts anew each round",
        "lab/loop/answers.py",
        "                if past\n",
        "                if past and round_index > 99\n",
        "the edge forgets what it learned",
        LOOP,
    ),
    Lie(
        "the edge takes no time",
        "lab/loop/policy_run.py",
        "self._edge_free_s = max(arrived_s, self._edge_free_s) + self._edge_s",
        "self._edge_free_s = max(arrived_s, self._edge_free_s)",
        "the new model is applied before it could be made",
        LOOP,
    ),
    Lie(
        "the downlink is as the uplink",
        "lab/loop/policy_run.py",
        "return self.down.reserve(n_bytes, max(ready_s, self.up.busy_until_s))",
        "return self.up.reserve(n_bytes, max(ready_s, self.up.busy_until_s))",
        "packages travel at the uplink's efficiency",
        LOOP,
    ),
    Lie(
        "lost bytes cost nothing",
        "lab/loop/summary.py",
        'sum(r["update_bytes"] * r["sent"] for r in mine)',
        'sum(r["update_bytes"] * r["applied"] for r in mine)',
        "bytes of lost packages are left out of the sum",
        LOOP,
    ),
    Lie(
        "the last mAP is the mean",
        "lab/loop/summary.py",
        'r["map_after"]\n                            for r in mine',
        'r["map"]\n                            for r in mine',
        "the final accuracy is mixed with the period average",
        LOOP,
    ),
    Lie(
        "the loop's start is the teacher",
        "lab/loop/answers.py",
        "        if answer is None:\n            return self.world.student",
        "        if answer is None:\n            return self.world.teacher",
        "the device is said to run the large model",
        LOOP,
    ),
    Lie(
        "trained on the held-back frames",
        "edge/adapt.py",
        "return Upload(frames.take(range(cut)), frames.take(range(cut, len(frames))))",
        "return Upload(frames, frames.take(range(cut, len(frames))))",
        "the frames that judge an update were trained on",
        ("tests/edge/test_adapt.py",),
    ),
    Lie(
        "a worse update is sent",
        "edge/adapt.py",
        "self.after < self.before",
        "self.after > self.before",
        "the edge sends what the held-back frames speak against",
        ("tests/edge/test_adapt.py",),
    ),
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
        "    modules.requires_grad_(True)",
        "    model.requires_grad_(True)",
        "a recipe of the first layers trains all",
        ("tests/distill/test_training.py",),
    ),
]
