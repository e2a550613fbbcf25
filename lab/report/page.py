"""``report.html``: what a results folder says, on one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.offline
from markupsafe import Markup

from endedge.allocator import Joint
from endedge.data.storage import write_atomic
from endedge.data.units import hz_for_bytes
from endedge.lab.benchmark.outcomes import spread
from endedge.lab.report import captions, figure_tables, tables
from endedge.lab.report import examples as seen
from endedge.lab.report import page_figures as figures
from endedge.lab.report.markup import asset, hash_of, json_for_script, render
from endedge.lab.report.page_axes import Figure
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.tables import interval
from endedge.lab.report.wording import counted, percent, points, quantity, share_of

__all__ = ["page", "shell", "write_report"]


def write_report(results: Results, target: Path) -> Path:
    """Write the page of ``results`` to ``target``; return that."""
    write_atomic(target, page(results).encode())
    return target


def page(results: Results) -> str:
    """The whole page."""
    drawn = _figures(results)
    panels = [
        (name, place, points(-results.benchmark.regret[k].mean()))
        for name, place, k in _panels(results)
    ]
    bench, found = results.benchmark, results.examples
    return shell(
        "report.html",
        results.name,
        _eyebrow(results),
        _contents(results, drawn),
        asset("solver.js") + asset("control.js"),
        sections=_SECTIONS,
        headline=_headline(results),
        share=captions.share(results),
        note=results.curves.note or results.curves.falls,
        says={
            name: getattr(captions, name)(results)
            for name in (
                "surface",
                "contour",
                "data_curve",
                "model_curve",
                "families",
                "returns",
                "costs",
                "policies",
                "regret",
                "rounds",
            )
        },
        over_seeds=spread(bench.judged[0]).what,
        judged=judged_name(results),
        panels=panels,
        data={name: make(results) for name, make in figure_tables.FIGURE_TABLES.items()},
        families=tables.families(results),
        costs=tables.costs(results) if results.costs else None,
        regrets=tables.regrets(results),
        standings=tables.standings(results),
        studies=tables.studies(results),
        rounds=tables.rounds(results),
        classes=tables.classes(results) if results.classes else None,
        class_says=captions.classes(results),
        latencies=tables.latencies(results) if results.latencies else None,
        latency_says=captions.latency(results),
        examples=None if found is None else _examples(found),
        facts=tables.facts(results),
        config=None if results.config is None else results.config.to_yaml(),
        table=results.name,
    )


def shell(
    template: str,
    name: str,
    eyebrow: str,
    contents: Mapping[str, Any],
    more: str = "",
    *,
    live: bool = False,
    **slots: Any,
) -> str:
    """A page that draws ``contents["figures"]`` at the ids in it and needs no network.

    Args:
        template: a child of ``page.html``.
        name: for the title.
        eyebrow: the line above the headline.
        contents: what the page's scripts work on, as JSON.
        more: a script that runs after the figures.
        live: whether it may ask the server that it comes from.
        slots: what else the template asks for.
    """
    scripts = [Markup(plotly.offline.get_plotlyjs()), asset("page.js")]
    scripts += [Markup(more)] if more else []
    return render(
        template,
        title=f"{name} · endedge",
        hashes=[hash_of(script) for script in scripts],
        css=asset("page.css"),
        eyebrow=eyebrow,
        contents=json_for_script(contents),
        scripts=scripts,
        live=live,
        **slots,
    )


_SECTIONS = {
    "split": "The split",
    "measured": "The measured surface",
    "curves": "The two curves",
    "bandwidth": "What bandwidth buys",
    "policies-executed": "Policies, executed",
    "rounds": "The rounds behind it",
    "classes": "Class by class",
    "detections": "Detections gained and lost",
    "latency": "Latency on the device",
    "cost": "What it costs",
    "provenance": "Where it comes from",
}


def _eyebrow(results: Results) -> str:
    config = results.config
    measured = (
        f"{counted(len(results.surface), 'measured cell')}, "
        f"{counted(len(results.benchmark.seeds), 'seed')}"
    )
    if config is None:
        return f"{results.name} · {results.about.get('evaluated_on', '')} · {measured}"
    camera = config.data.camera
    frames = "generated frames" if config.data.source == "generated" else "COCO-format frames"
    if camera.kind != "none":
        frames += f", {camera.kind} camera {camera.severity}"
    if config.data.pool_labels != "truth":
        frames += f", pool labelled by {Path(config.weights.teacher).name}"
    if config.data.eval_labels != "truth":
        frames += ", EVALUATED ON THE TEACHER'S LABELS: agreement with it, not accuracy"
    teacher = Path(config.weights.teacher).name
    student = ", ".join(Path(s).name for s in config.weights.student)
    return f"{config.name} · {frames} · {teacher} teaches {student} · {measured}"


def _headline(results: Results) -> dict[str, Any]:
    """The title, the sentences below it, and the tiles."""
    found = captions.headline(results)
    if found is None:
        title = "No measured round fits the link anywhere in the sweep of bandwidths."
        return {"title": title, "lead": "", "tiles": []}
    measured = percent(float(found.fitted.mean))
    link, judged = results.channel, judged_name(results)
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
        f"{captions.headroom(results)}. The fitted allocator's decision as executed: "
        f"{quantity(found.upload_bytes, 'B')} of frames up and {quantity(found.update_bytes, 'B')} "
        f"of model down; the curves predict {percent(found.predicted)}. "
    )
    if found.rounded:
        asked = [quantity(n, "B") for n in found.asked_bytes]
        lead += f"It was rounded down from {asked[0]} up and {asked[1]} down. "
    lead += f"{found.why} Brackets: {found.fitted.what}."
    if not found.headroom.claims:
        title = f"{captions.headroom(results)}. {title}"
        lead = lead.split(". ", 1)[1]
    tiles = [
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
    ]
    return {"title": title, "lead": lead, "tiles": tiles}


def _panels(results: Results) -> list[tuple[str, str, int]]:
    """(policy, id of its place, row): the small multiples, least regret first."""
    bench = results.benchmark
    return [
        (bench.policies[k], f"policy-{place}", k)
        for place, k in enumerate(bench.by_regret())
        if bench.policies[k] not in ("oracle", "no-update")
    ]


def _figures(results: Results) -> dict[str, Figure]:
    """All figures by the id of their place."""
    return {
        "surface": figures.surface(results),
        "contour": figures.contour(results),
        "data-curve": figures.curve(results, "data"),
        "model-curve": figures.curve(results, "model"),
        "returns": figures.returns(results),
        "policies": figures.policies(results),
        "regret": figures.regret(results),
    } | {place: figures.policy(results, name) for name, place, _ in _panels(results)}


def _examples(found: Mapping[str, Any]) -> dict[str, Any]:
    what = (
        f"Detections of {share_of(float(found['score']))} and surer before and after the update of "
        f"{found.get('cell', 'the largest round')}, on evaluation frames as the device's camera "
        "sees them. Dashed: the objects. Blue: found (right class, IoU 0.5). Red: false. Chosen "
        f"by rank of the change in F1 among {int(found['of'])} frames, the worst one included."
    )
    browsable = bool(found.get("changes"))
    return {
        "says": captions.examples(found),
        "what": what,
        "gallery": seen.gallery(found),
        "changes_say": captions.changes(found) if browsable else "",
        "changes": seen.changes(found) if browsable else None,
        "counts": seen.counts(found) if found.get("counts") else None,
    }


def _contents(results: Results, drawn: Mapping[str, Figure]) -> dict[str, Any]:
    """What the page's script works on."""
    curves, link = results.curves, results.channel
    sweep, found = results.benchmark.bandwidth_hz, captions.headline(results)
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
