"""Lies about lab/sweep/: cells and the columns of surface.csv."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

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
        "lab/sweep/cell.py",
        "                found = edge.judge(self._inbox(cell).losses, decoded, known)",
        '                whole = load_detector(student.folder / "student.safetensors")\n                found = edge.judge(self._inbox(cell).losses, whole, known)',
        "the verdict is on the model before packing",
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
]
