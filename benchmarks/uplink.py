"""What uploaded bytes buy: codec, selection and labels, by accuracy after adaptation.

    python -m benchmarks.uplink coco-infrared data.root=DIR weights.root=DIR --minutes M
    python -m benchmarks.uplink demo --uploads 20000 80000 240000

Frames, camera, detectors and the student's training are those of the configuration. Every cell
uploads a real batch, decodes it, adapts the student on the decoded frames and measures COCO
mAP on the device's camera. Finished cells are kept under ``--out``; run again to go on
(``--minutes 0`` only shows what there is). Seeds go round first, so what is there after any
number of minutes covers all tables with equal seeds, except for the last round.

Tables: rate-accuracy envelope over (codec, U); selection rules over U; label sources over U.
mAP in percent after adaptation, means over seeds with 95 % t intervals; differences (Δ) to the
baseline are paired by seed; N frames sent; P, R precision and recall of the labels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.uplink_tables import report
from endedge.data.coco import Dataset, Frame, fingerprint, nested_subset
from endedge.data.codec import (
    Codec,
    EncodedFrame,
    RefusedFrame,
    decode,
    decode_batch,
    encode,
    encoded_size,
    frames_within,
    pack_batch,
)
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, stack_frames
from endedge.data.storage import write_atomic
from endedge.distill.model import model_hash
from endedge.edge import labels as edge_labels
from endedge.edge.adapt import adapt_teacher, split_upload
from endedge.end.inference import Detections, detect
from endedge.end.metric import CocoScore, evaluate
from endedge.end.selection import RULES, Observations, observe, select
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store

CODECS = (  # and the long side, as a share of the detector's input
    ("jpeg-q75", 1.0),
    ("jpeg-q30", 1.0),
    ("webp-q30", 1.0),
    ("avif-q50", 1.0),
    ("avif-q30", 1.0),
    ("avif-q30", 0.7),
    ("avif-q30", 0.5),
)
SOURCES = ("truth", "pseudo-held", "pseudo-source", "mix-100", "mix-400")
CALIBRATION_FRAMES = 64
MIN_FRAMES = 4  # fewer cannot be split into trained and held-back ones: the device keeps its model


@dataclass(frozen=True)
class UplinkCell:
    """One upload of at most ``upload_budget`` bytes; ``labels`` is one of :data:`SOURCES`."""

    codec: str
    rule: str
    labels: str
    upload_budget: int
    seed: int


class Bench:
    """The frames, the models, and what is computed once: observations, detections, bytes."""

    def __init__(self, options: argparse.Namespace, config: Config) -> None:
        inputs = Inputs.of(config, options.out)
        self.truth, self.student, self.teacher = inputs.evaluation, inputs.student, inputs.teacher
        order = nested_subset(len(inputs.pool), seed=0)
        held, captured = order[:CALIBRATION_FRAMES], order[CALIBRATION_FRAMES:]
        self.held = inputs.pool.take(held)
        self.captured = inputs.pool.take(captured[: options.captured or None])
        self.camera, self.side, self.device = inputs.camera, inputs.side, inputs.device
        self.config, self.options = config, options
        self._encoded: dict[tuple[str, int], bytes] = {}
        self._found: dict[tuple[str, int], Detections] = {}
        self._observed: Observations | None = None

    def determinants(self) -> dict[str, Any]:
        """All that a cell's result depends on besides the cell."""
        return {
            "frames": [fingerprint(d) for d in (self.captured, self.held, self.truth)],
            "models": [model_hash(self.student), model_hash(self.teacher)],
            "camera": dataclasses.asdict(self.camera),
            "side": self.side,
            "device": self.device,
            "student": self.config.student.model_dump(),
            "held_back": self.config.held_back.model_dump(),
        }

    def look(self, frame: Frame) -> NDArray[np.uint8]:
        return self.camera.apply(frame.read(), frame.image_id)

    def stack(self, data: Dataset, look: Callable[[Frame], NDArray[np.uint8]]) -> Batch:
        return stack_frames(data.frames, self.side, look)

    # What one cell does -----------------------------------------------------------------

    def run(self, cell: UplinkCell) -> dict[str, Any]:
        codec = Codec.parse(cell.codec)
        order = self.order(cell.rule, cell.seed)
        blobs = (len(self.encoded(codec, i)) for i in order)
        uploaded = order[: frames_within(blobs, cell.upload_budget)]
        frames = self.captured.take(uploaded)
        batch = pack_batch(
            EncodedFrame(f.image_id, self.encoded(codec, i))
            for i, f in zip(uploaded, frames.frames, strict=True)
        )
        side = codec.long_side
        sizes = {f.image_id: encoded_size(f.width, f.height, side) for f in frames.frames}
        arrived = list(decode_batch(batch, sizes=sizes))
        images = {item[0]: item[1] for item in arrived if not isinstance(item, RefusedFrame)}
        record: dict[str, Any] = {
            **dataclasses.asdict(cell),
            "upload_bytes": len(batch),
            "frames": len(uploaded),
        }
        if len(uploaded) < MIN_FRAMES:
            return record | dataclasses.asdict(self.start())
        decoded = self.stack(frames, lambda f: images[f.image_id])
        labels, source = self.labels(cell.labels, frames, decoded, cell.codec)
        record |= source | dataclasses.asdict(edge_labels.quality(labels, frames.frames))
        began = time.perf_counter()
        held = self.config.held_back
        adapted = adapt_teacher(
            self.student,
            split_upload(edge_labels.apply_labels(decoded, labels), held.share, held.most),
            self.config.student.recipe(len(uploaded), cell.seed),
            held.shares,
            device=self.device,
        )
        record["train_s"] = time.perf_counter() - began
        record["share"] = adapted.share
        record["held_back_losses"] = {str(share): loss for share, loss in adapted.losses.items()}
        score = evaluate(adapted.model, self.seen_eval(), self.truth, self.device)
        return record | dataclasses.asdict(score)

    def labels(
        self, source: str, frames: Dataset, decoded: Batch, codec: str
    ) -> tuple[list[edge_labels.Labels], dict[str, Any]]:
        """Labels of the uploaded frames from one of :data:`SOURCES`, and how they were made."""
        if source == "truth":
            return edge_labels.truth_labels(frames.frames), {"threshold": None, "drawn_boxes": None}
        name, argument = source.split("-")
        threshold = self.threshold(argument if name == "pseudo" else "held", codec)
        pseudo = edge_labels.pseudo_labels(self.teacher_sees(decoded, codec), threshold)
        if name == "pseudo":
            return pseudo, {"threshold": threshold, "drawn_boxes": 0}
        mix = edge_labels.mixed_labels(frames.frames, pseudo, range(len(frames)), int(argument))
        return mix.labels, {"threshold": threshold, "drawn_boxes": mix.drawn_boxes}

    # What cells share -------------------------------------------------------------------

    def order(self, rule: str, seed: int) -> list[int]:
        if rule == "random":
            return nested_subset(len(self.captured), seed)
        if self._observed is None:
            say(f"observing {len(self.captured)} captured frames with the student")
            pictures = self.stack(self.captured, self.look)
            times = np.arange(len(self.captured), dtype=np.float64)
            self._observed = observe(self.student, pictures, times, device=self.device)
        return [int(i) for i in select(rule, self._observed, seed)]

    def encoded(self, codec: Codec, index: int) -> bytes:
        key = (str(codec), index)
        if key not in self._encoded:
            self._encoded[key] = encode(self.look(self.captured.frames[index]), codec)
        return self._encoded[key]

    def teacher_sees(self, decoded: Batch, codec: str) -> list[Detections]:
        ids = decoded.image_ids.tolist()
        new = [i for i, image_id in enumerate(ids) if (codec, image_id) not in self._found]
        if new:
            for found in detect(self.teacher, decoded.take(new), device=self.device):
                self._found[codec, found.image_id] = found
        return [self._found[codec, image_id] for image_id in ids]

    @cache  # noqa: B019  (one bench lives as long as the program)
    def threshold(self, where: str, codec: str) -> float:
        """Calibrated on held-back frames as they arrive (``held``), or on the same frames
        before the shift of the device's camera (``source``)."""
        setting = Codec.parse(codec)
        camera = self.look if where == "held" else (lambda f: f.read())
        arrived = self.stack(self.held, lambda f: decode(encode(camera(f), setting)))
        found = detect(self.teacher, arrived, device=self.device)
        result = edge_labels.calibrate(found, self.held.frames)
        say(f"threshold on {where} frames at {codec}: {result}")
        return result.threshold

    @cache  # noqa: B019
    def seen_eval(self) -> Batch:
        return self.stack(self.truth, self.look)

    @cache  # noqa: B019
    def start(self) -> CocoScore:
        """The student before any update."""
        return evaluate(self.student, self.seen_eval(), self.truth, self.device)

    def inference(self, codec: str) -> dict[str, Any]:
        """The student before any update on *coded* evaluation frames: what a codec costs when
        inference runs on the edge, beside what it costs as training material."""
        setting = Codec.parse(codec)
        blobs = [encode(self.look(f), setting) for f in self.truth.frames]
        images = {f.image_id: decode(b) for f, b in zip(self.truth.frames, blobs, strict=True)}
        pictures = self.stack(self.truth, lambda f: images[f.image_id])
        score = evaluate(self.student, pictures, self.truth, self.device)
        mean_bytes = float(np.mean([len(b) for b in blobs]))
        return {"codec": codec, "bytes_per_frame": mean_bytes, **dataclasses.asdict(score)}


# Tables -------------------------------------------------------------------------------------


def plan(o: argparse.Namespace) -> list[UplinkCell]:
    """All cells, seed by seed; the tables share their common ones (random, truth)."""
    cells: dict[UplinkCell, None] = {}
    for seed in range(o.seeds):
        for budget in o.uploads:
            for codec in o.codecs:
                cells[UplinkCell(codec, "random", "truth", budget, seed)] = None
            for rule in o.rules:
                cells[UplinkCell(o.codec, rule, "truth", budget, seed)] = None
            for source in o.sources:
                cells[UplinkCell(o.codec, "random", source, budget, seed)] = None
    return list(cells)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    o = options()
    config = load_config(o.config, o.overrides)
    side = config.data.image_side
    o.codec = o.codec or f"webp-q30-{side}"
    o.codecs = o.codecs or [f"{name}-{round(share * side)}" for name, share in CODECS]
    for codec in (*o.codecs, o.codec):
        Codec.parse(codec)
    known = "truth|pseudo-held|pseudo-source|mix-[0-9]+"
    if bad := [source for source in o.sources if not re.fullmatch(known, source)]:
        raise BadInput(f"unknown label source {bad[0]!r}; one of {known}")
    torch.set_num_threads(o.threads)
    began = time.monotonic()
    bench, store = Bench(o, config), Store(o.out)
    determinants = bench.determinants()
    say(f"{len(bench.captured)} frames captured, {len(bench.truth)} evaluated, {bench.camera}")
    longest, done, skipped = 0.0, [], 0

    def finish(stage: str, what: dict[str, Any], make: Callable[[], dict[str, Any]]) -> Any:
        """The record of a node, made now if the minutes allow; None otherwise."""
        nonlocal longest, skipped
        key = determinants | what
        node = store.find(stage, key)
        if node is None:
            if time.monotonic() - began + longest > 60 * o.minutes:
                skipped += 1
                return None
            start = time.monotonic()
            node = store.node(stage, key, lambda _: make())
            longest = max(longest, time.monotonic() - start)
            say(
                f"{json.dumps(what)} {100 * node.record['map']:.1f} "
                f"({time.monotonic() - start:.0f} s)"
            )
        return node.record

    start = finish("start", {}, lambda: dataclasses.asdict(bench.start()))
    decoded = [finish("inference", {"codec": c}, lambda c=c: bench.inference(c)) for c in o.codecs]  # type: ignore[misc]
    for cell in plan(o):
        record = finish("cell", dataclasses.asdict(cell), lambda cell=cell: bench.run(cell))  # type: ignore[misc]
        if record is not None:
            done.append(record)
    text = report(o, done)
    if start is not None:
        text = f"Before any update: mAP {100 * start['map']:.1f} %\n{text}"
    text += "\n\nInference of that student on coded frames:\n\n"
    text += "| | bytes a frame | mAP % |\n|---|---|---|"
    for row in filter(None, decoded):
        text += f"\n| {row['codec']} | {row['bytes_per_frame']:,.0f} | {100 * row['map']:.1f} |"
    print(text)
    document = {
        "determinants": determinants,
        "start": start,
        "inference": decoded,
        "cells": done,
        "skipped": skipped,
    }
    write_atomic(o.out / "uplink.json", json.dumps(document, indent=1).encode())
    write_atomic(o.out / "uplink.md", (text + "\n").encode())
    say(f"{len(done)} cells done, {skipped} left for another run; {o.out / 'uplink.json'}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="a YAML file, or a shipped one: coco-infrared, demo")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
    parser.add_argument("--out", type=Path, default=Path("runs/uplink"))
    for flag, default, text in (
        ("--minutes", 60.0, "start no cell after that"),
        ("--seeds", 3, "how many"),
        ("--threads", 1, "of the CPU"),
        ("--codec", "", "of the selection and label tables; WebP q30 unless told"),
        ("--captured", 0, "frames captured; 0: all of the pool but those held back"),
    ):
        parser.add_argument(flag, type=type(default), default=default, help=text)
    several: tuple[tuple[str, type, Sequence[Any], str], ...] = (
        ("--uploads", int, (150_000, 600_000, 2_400_000), "U in bytes"),
        ("--codecs", str, (), "of the first table"),
        ("--rules", str, tuple(RULES), "of selection"),
        ("--sources", str, SOURCES, "of labels; mix-N: N boxes drawn"),
    )
    for flag, kind, values, text in several:
        parser.add_argument(flag, type=kind, nargs="+", default=list(values), help=text)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
