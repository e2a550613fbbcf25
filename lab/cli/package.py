"""The verbs for packages and detectors in files: ``endedge pack``, ``inspect``, ``eval``.

Heavy imports live inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli.arguments import Verb, add_base, add_device, add_json, add_side
from endedge.lab.cli.common import calibration_frames, detector, one_thread, read_bytes, show
from endedge.lab.cli.numbers import whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verbs' arguments."""
    sub = verb(
        "pack",
        pack_file,
        "compress a checkpoint into a byte budget",
        "endedge pack yolov8n.pt --budget 1.1MB -o update.eeu\n"
        "  endedge pack yolov8n.pt --budget 0.7MB --frames DIR --aware 100 -o update.eeu\n"
        "  endedge pack yolov8n.pt --params 1.5M -o update.eeu",
    )
    sub.add_argument("checkpoint", help=".pt or .safetensors detector")
    sub.add_argument("--budget", help="bytes, e.g. 1100000 or 1.1MB")
    sub.add_argument(
        "--params", help="budget of transmitted parameters, e.g. 1.5M (in a delta: of changed ones)"
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE.eeu")
    sub.add_argument("--base", help="the model that the device holds: allows a delta")
    sub.add_argument("--frames", metavar="DIR", help="unlabelled frames to calibrate on")
    sub.add_argument(
        "--keep",
        default="1",
        metavar="SHARES",
        help="shares of the parameters to choose from, e.g. 1,0.7: below 1 the model is pruned and "
        "distilled from the whole one on --frames, which takes minutes (default 1)",
    )
    sub.add_argument(
        "--steps", type=whole(0), default=200, help="steps of --keep's distillation (default 200)"
    )
    sub.add_argument(
        "--aware",
        type=whole(0),
        default=0,
        metavar="STEPS",
        help="train the rounded weights on --frames, too: for small budgets, about 2 s a step for "
        "YOLOv8n (default 0)",
    )
    add_side(sub)
    add_device(sub)
    add_json(sub)

    sub = verb(
        "inspect", inspect_file, "show what a package contains", "endedge inspect update.eeu"
    )
    sub.add_argument("package", help="an .eeu file")
    add_json(sub)

    sub = verb(
        "eval",
        evaluate_file,
        "COCO mAP of a checkpoint or of a decoded package",
        "endedge eval update.eeu --annotations val.json --images val/ --imgsz 320 --json",
    )
    sub.add_argument("model", help=".pt, .safetensors or .eeu")
    sub.add_argument("--annotations", required=True, metavar="JSON")
    sub.add_argument("--images", required=True, metavar="DIR")
    add_base(sub)
    add_side(sub)
    sub.add_argument("--shift", default="none", help="camera shift: none, infrared, night, fog, …")
    sub.add_argument(
        "--severity", type=whole(1, 5), default=3, help="of --shift, 1 to 5 (default 3)"
    )
    add_device(sub)
    add_json(sub)


def pack_file(a: argparse.Namespace) -> None:
    """``endedge pack``."""
    one_thread()
    from endedge.data.frames import unlabelled
    from endedge.data.storage import write_atomic
    from endedge.distill.losses import divergence
    from endedge.distill.package.choose import pack_best
    from endedge.distill.package.format import unpack
    from endedge.distill.package.qat import AWARE_LR
    from endedge.distill.package.sensitivity import synthetic_frames
    from endedge.distill.recovery import pruned_and_recovered
    from endedge.distill.training import Recipe
    from endedge.lab.cli.progress import Progress
    from endedge.lab.devices import pick_device
    from endedge.lab.inputs import check_side

    device = pick_device(a.device)
    model = detector(a.checkpoint)
    base = detector(a.base) if a.base else None
    if a.frames:
        check_side(model, a.imgsz, "--imgsz", a.checkpoint)
    frames = calibration_frames(Path(a.frames), a.imgsz) if a.frames else None
    budget, params = _budget(a)
    candidates = [model]
    with Progress() as progress:
        for share in _shares(a.keep):
            if frames is None:
                raise BadInput("--keep below 1 needs --frames to learn from")
            recipe = Recipe(steps=a.steps, lr=5e-5, layers=None)

            def heard(step: int, loss: float, share: float = share) -> None:
                progress(step, a.steps, f"a student of {share:.0%}")

            candidates.append(
                pruned_and_recovered(
                    model,
                    share,
                    unlabelled(frames),
                    recipe,
                    calibration=frames[:32],
                    device=device,
                    on_step=heard,
                )
            )
        if a.aware and frames is None:
            raise BadInput("--aware needs --frames to learn from")
        packed = pack_best(
            candidates,
            budget,
            params=params,
            base=base,
            frames=frames,
            device=device,
            aware=Recipe(steps=a.aware, lr=AWARE_LR) if a.aware else None,
            watch=lambda share, message: progress(round(100 * share), 100, message),
        )
        progress(100, 100, "decode and compare")
        judges = synthetic_frames() if frames is None else frames
        nats = divergence(model, unpack(packed.data, base=base), judges[:32], device)
    write_atomic(Path(a.output), packed.data)
    report = {"file": a.output, "bytes": len(packed.data), "budget_bytes": budget}
    report |= {**vars(packed.report), "divergence_nats": nats}
    show(report, a.json)


def _budget(a: argparse.Namespace) -> tuple[int, int | None]:
    """Bytes and numbers that a package may have: 4 bytes each where only the numbers are given."""
    if not (a.budget or a.params):
        raise BadInput("give --budget (bytes, e.g. 1.1MB), --params (e.g. 1.5M) or both")
    params = int(parse_quantity(a.params, "")) if a.params else None
    if params == 0:
        raise BadInput(f"--params {a.params}: at least 1")
    return int(parse_quantity(a.budget, "B")) if a.budget else 4 * (params or 0), params


def _shares(text: str) -> list[float]:
    """The shares below 1 of a list like ``1,0.7``."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(0 < share <= 1 for share in shares):
        raise BadInput(f"--keep {text}: shares of the parameters in (0, 1], e.g. 1,0.7")
    return [share for share in shares if share < 1]


def inspect_file(a: argparse.Namespace) -> None:
    """``endedge inspect``."""
    from endedge.distill.package.format import inspect

    show(inspect(read_bytes(Path(a.package))), a.json)


def evaluate_file(a: argparse.Namespace) -> None:
    """``endedge eval``: of a checkpoint or of a package, as the device decodes it."""
    one_thread()
    import torch

    from endedge.data.classes import match_classes
    from endedge.data.coco import check_boxes, check_pictures, load_coco
    from endedge.data.frames import stack_frames
    from endedge.data.shift import Shift
    from endedge.distill.package.format import unpack
    from endedge.end.latency import latency
    from endedge.end.metric import evaluate
    from endedge.end.runtime import torch_network
    from endedge.lab.devices import pick_device
    from endedge.lab.inputs import check_side

    device, camera = pick_device(a.device), Shift(a.shift, a.severity, 0)
    truth = load_coco(a.annotations, a.images)
    path = Path(a.model)
    update_bytes = None
    if path.suffix == ".eeu":
        data = read_bytes(path)
        update_bytes = len(data)
        model = unpack(data, base=detector(a.base) if a.base else None)
    else:
        model = detector(a.model)
    check_side(model, a.imgsz, "--imgsz", a.model)
    names = tuple(model.names.values())
    truth = match_classes(truth, names, what=a.annotations, detector=a.model)
    check_boxes(truth, a.annotations)
    check_pictures(truth)
    truth = camera.annotated(truth)
    frames = stack_frames(truth.frames, a.imgsz, lambda f: camera.apply(f.read(), f.image_id))
    score = evaluate(model, frames, truth, device)
    threads = torch.get_num_threads()
    timed = latency(
        torch_network(model), frames.images[:32], runtime="torch", threads=threads, seconds=1.0
    )
    show(
        {
            "map": score.map,
            "map50": score.map50,
            "images": score.images,
            "update_bytes": update_bytes,
            "labels": truth.labels,
            "latency_s": timed.median_s,
            "latency_low_s": timed.low_s,
            "latency_high_s": timed.high_s,
            "threads": threads,
            "runtime": timed.runtime,
        },
        a.json,
    )
