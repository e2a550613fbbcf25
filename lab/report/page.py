"""``report.html``: what a results folder says, on one page that needs no network.

Everything that comes from files is escaped, and a content security policy lets nothing run
but the page's own scripts, named by their hashes, and nothing be fetched at all.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.offline

from endedge.allocator import Joint
from endedge.data.storage import write_atomic
from endedge.data.units import hz_for_bytes
from endedge.lab.benchmark.outcomes import spread
from endedge.lab.config import Config
from endedge.lab.report import captions as findings
from endedge.lab.report import page_figures as figures
from endedge.lab.report import tables
from endedge.lab.report.captions import percent, points, quantity, share_of
from endedge.lab.report.examples import gallery
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.tables import interval, text

__all__ = ["card", "figure", "page", "shell", "write_report"]


def write_report(folder: Path, config: Config, out: Path | None = None) -> Path:
    """Write ``folder/report.html`` (or ``out``) from the files of a results folder; return its
    path. Raises :class:`BadInput` naming the file that is missing or broken."""
    target = out or folder / "report.html"
    write_atomic(target, page(Results.read(folder, config)).encode())
    return target


def page(results: Results) -> str:
    """The whole page."""
    drawn, body = _sections(results)
    control = _asset("control.html").replace("{{share}}", text(findings.share(results)))
    return shell(
        results.config.name,
        _eyebrow(results),
        _headline(results),
        control + body,
        _contents(results, drawn),
        _asset("solver.js") + _asset("control.js"),
    )


def shell(
    name: str, eyebrow: str, headline: str, main: str, contents: Mapping[str, Any], more: str = ""
) -> str:
    """A page that draws ``contents["figures"]`` at the ids in ``main`` and needs no network.

    ``headline`` and ``main`` are HTML; ``more`` is a script that runs after the figures.
    """
    scripts = {"plotly": plotly.offline.get_plotlyjs(), "page": _asset("page.js")}
    named = [*scripts.values(), more] if more else [*scripts.values()]
    slots = {
        "title": text(f"{name} · endedge"),
        "hashes": " ".join(_hash(script) for script in named),
        "css": _asset("page.css"),
        "eyebrow": text(eyebrow),
        "headline": headline,
        "main": main,
        "contents": _json(contents),
        "control": f"<script>{more}</script>" if more else "",
        **scripts,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (importlib.resources.files("endedge.lab.report") / "assets" / name).read_text(
        encoding="utf-8"
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """JSON that no text in it can end the script element with."""
    written = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _eyebrow(results: Results) -> str:
    config, camera = results.config, results.config.data.camera
    frames = "generated frames" if config.data.source == "generated" else "COCO-format frames"
    if camera.kind != "none":
        frames += f", {camera.kind} camera {camera.severity}"
    if config.data.pool_labels != "truth":
        frames += f", pool labelled by {Path(config.weights.teacher).name}"
    if config.data.eval_labels != "truth":
        frames += ", EVALUATED ON THE TEACHER'S LABELS: agreement with it, not accuracy"
    teacher, student = Path(config.weights.teacher).name, Path(config.weights.student).name
    return (
        f"{config.name} · {frames} · {teacher} teaches {student} · {len(results.surface)} measured "
        f"cells, {len(results.benchmark.seeds)} seeds"
    )


def _headline(results: Results) -> str:
    found = findings.headline(results)
    if found is None:
        return "<h1>No measured round fits the link anywhere in the sweep of bandwidths.</h1>"
    measured = percent(float(found.fitted.mean))
    link, judged = results.config.link, judged_name(results)
    what = "send nothing"
    if found.upload_bytes > 0:
        up, down = (
            share_of(hz_for_bytes(n, efficiency, link.period_s) / found.bandwidth_hz)
            for n, efficiency in (
                (found.upload_bytes, link.up_bit_per_s_per_hz),
                (found.update_bytes, link.down_bit_per_s_per_hz),
            )
        )
        what = f"{up} for frames, {down} for the model"
    title = (
        f"At {quantity(found.bandwidth_hz, 'Hz')} with one update every "
        f"{quantity(link.period_s, 's')}: {what}. {judged} {measured}, {found.verdict}."
    )
    lead = (
        f"{findings.headroom(results)}. The fitted allocator's decision as executed: "
        f"{quantity(found.upload_bytes, 'B')} of frames up and {quantity(found.update_bytes, 'B')} "
        f"of model down; the curves predict {percent(found.predicted)}. "
    )
    if found.rounded:
        asked = [quantity(n, "B") for n in found.asked_bytes]
        lead += f"It was rounded down from {asked[0]} up and {asked[1]} down. "
    lead += (
        "This is the middle of the bandwidths at which an update can be sent. Brackets: "
        f"{found.fitted.what}."
    )
    if not found.headroom.claims:
        title = f"{findings.headroom(results)}. {title}"
        lead = lead.split(". ", 1)[1]
    tiles = (
        (
            found.headroom.text,
            "points to win: oracle over the best split fixed in advance, ± paired error",
        ),
        (measured, f"{judged} (%) measured on the device {interval(found.fitted)}"),
        (
            points(float(found.update_gain.mean)),
            f"over no update {interval(found.update_gain, signed=True)}",
        ),
        (
            points(float(found.gain.mean)),
            f"over the equal split {interval(found.gain, signed=True)}",
        ),
        (
            points(float(found.over_sweep.mean)),
            f"over the equal split, mean of the sweep {interval(found.over_sweep, signed=True)}",
        ),
    )
    shown = "".join(
        f"<div class=tile><b>{text(a)}</b><span>{text(b)}</span></div>" for a, b in tiles
    )
    return f"<h1>{text(title)}</h1><p class=lead>{text(lead)}</p><div class=tiles>{shown}</div>"


def _sections(results: Results) -> tuple[dict[str, figures.Figure], str]:
    """All figures by the id of their place, and the page's body below the control."""
    drawn = {
        "surface": figures.surface(results),
        "contour": figures.contour(results),
        "data-curve": figures.curve(results, "data"),
        "model-curve": figures.curve(results, "model"),
        "returns": figures.returns(results),
        "policies": figures.policies(results),
        "regret": figures.regret(results),
    }
    bench = results.benchmark
    over_seeds, panels = spread(bench.judged[0]).what, []
    for place, k in enumerate(bench.by_regret()):
        name = bench.policies[k]
        if name in ("oracle", "no-update"):
            continue
        drawn[f"policy-{place}"] = figures.policy(results, name)
        panels.append(
            f"<figure><h4>{text(name)} <span>{text(points(-bench.regret[k].mean()))}</span></h4>"
            f'<div class=plot id="policy-{place}"></div></figure>'
        )
    body = [
        "<h2>The measured surface</h2>",
        f"<p class=lead>{text(results.curves.note or results.curves.falls)}</p>",
        "<div class=two>",
        figure(
            "surface",
            findings.surface(results),
            "Measured operating points (red, mean ± standard error over seeds) on the fitted "
            "surface. Both byte axes are logarithmic. Drag to turn.",
        ),
        figure(
            "contour",
            findings.contour(results),
            "The same from above, with the best split at each bandwidth of the sweep. Points and "
            "surface share one colour scale: a point that stands out is one that the fit misses.",
        ),
        "</div><h2>The two curves</h2><div class=two>",
        figure(
            "data-curve",
            findings.data_curve(results),
            "Accuracy against uploaded frames at the largest package, each seed a point. Lines: "
            "the best fit of each family, the chosen in bold; band: all fits that held-out error "
            "cannot tell apart.",
        ),
        figure(
            "model-curve",
            findings.model_curve(results),
            "Accuracy against package bytes at the largest upload, each seed a point. Lines and "
            "band as for the frames.",
        ),
        "</div>",
        card(findings.families(results), tables.families(results)),
        "<h2>What bandwidth buys</h2>",
        figure(
            "returns",
            findings.returns(results),
            "The fitted allocator's decisions as executed: what the curves predict of them, and "
            f"what was measured ({over_seeds}); {judged_name(results)}.",
        ),
        card(findings.costs(results), tables.costs(results)),
        "<h2>Policies, executed</h2>",
        figure(
            "policies",
            findings.policies(results),
            f"{judged_name(results)} measured when each policy's decision was carried out. "
            f"Red band: {over_seeds} for the fitted allocator. Grey: the other policies, by name "
            "under the pointer.",
        ),
        "<section class=card><figcaption><h3>Every policy against the oracle (dashed)</h3><p>",
        f"{judged_name(results)} (%) against bandwidth (Hz). Bands: {text(over_seeds)}. Numbers: ",
        "mean over the sweep, against the oracle.</p></figcaption>",
        f"<div class=panels>{''.join(panels)}</div></section>",
        figure(
            "regret",
            findings.regret(results),
            "Points of mAP lost to the best measured operating point that fits, mean over seeds.",
        ),
        card("Regret over the whole sweep, least first", tables.regrets(results)),
        card("Who wins where", tables.standings(results)),
        *(card(title, table) for title, table in tables.studies(results)),
        "<h2>The rounds behind it</h2>",
        card(findings.rounds(results), tables.rounds(results)),
        *_latencies(results),
        *_examples(results),
        "<h2>Where it comes from</h2>",
        tables.provenance(results),
    ]
    return drawn, "\n".join(body)


def _latencies(results: Results) -> list[str]:
    if not results.latencies:
        return []
    fastest = min(results.latencies, key=lambda r: r.latency_s)
    title = f"{fastest.runtime} is the fastest engine: {1 / fastest.latency_s:.1f} frames/s"
    return [card(title, tables.latencies(results))]


def _examples(results: Results) -> list[str]:
    seen = results.examples
    if seen is None:
        return []
    what = (
        f"Detections of {share_of(float(seen['score']))} and surer before and after the update of "
        f"{seen.get('cell', 'the largest round')}, on evaluation frames as the device's camera "
        "sees them. Dashed: the objects. Blue: found (right class, IoU 0.5). Red: false. Chosen "
        f"by rank of the change in F1 among {int(seen['of'])} frames, the worst one included."
    )
    return [card(findings.examples(seen), f"<p class=note>{text(what)}</p>{gallery(seen)}")]


def figure(place: str, title: str, what: str) -> str:
    """The place of a figure with its takeaway and what it shows."""
    return (
        f"<figure class=card><figcaption><h3>{text(title)}</h3><p>{text(what)}</p></figcaption>"
        f'<div class=plot id="{place}"></div></figure>'
    )


def card(title: str, content: str) -> str:
    """A box with a title around HTML."""
    return f"<section class=card><h3>{text(title)}</h3>{content}</section>"


def _contents(results: Results, drawn: Mapping[str, figures.Figure]) -> dict[str, Any]:
    """What the page's script works on."""
    curves, link = results.curves, results.config.link
    sweep, found = results.benchmark.bandwidth_hz, findings.headline(results)
    middle = float(np.sqrt(sweep[0] * sweep[-1])) if found is None else found.bandwidth_hz
    return {
        "figures": drawn,
        "curves": {
            "m0": curves.m0,
            "joint": _joint(curves.joint),
            "replicates": [_joint(joint) for joint in curves.replicates],
            "width": asdict(curves.width),
            "reference": {
                "upload_bytes": curves.reference.upload_bytes.tolist(),
                "update_bytes": curves.reference.update_bytes.tolist(),
                "map": curves.reference.map.tolist(),
            },
            "upload": asdict(curves.upload_range),
            "update": asdict(curves.update_range),
            "uploads": [
                {"frames": p.frames, "upload_bytes": p.upload_bytes} for p in curves.uploads
            ],
            "updates": [
                {"budget_bytes": p.budget_bytes, "update_bytes": p.update_bytes}
                for p in curves.updates
            ],
        },
        "rules": asdict(results.rules),
        "link": {
            "period_s": link.period_s,
            "up_bit_per_s_per_hz": link.up_bit_per_s_per_hz,
            "down_bit_per_s_per_hz": link.down_bit_per_s_per_hz,
        },
        "range": {
            "bandwidth_hz": [float(sweep[0]) / 1.5, float(sweep[-1]) * 1.5],
            "period_s": [link.period_s / 10, link.period_s * 10],
        },
        "bandwidth_hz": middle,
        "steps": [[s.bandwidth_hz, s.uplink_share] for s in results.steps],
    }


def _joint(joint: Joint) -> dict[str, Any]:
    """A surface as solver.js reads it."""
    kind = joint.kind
    numbers = ("m0", "start", "gain", "u0_bytes", "data_s", "m0_bytes", "model_s", "depth")
    named = {"composition": kind.composition, "data": kind.data, "model": kind.model}
    return named | {name: getattr(joint, name) for name in numbers}
