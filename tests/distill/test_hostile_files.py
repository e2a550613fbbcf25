"""Files from strangers, through the loaders: whatever they hold, nothing of it runs.

One row a case, with the reason for which it has to be refused. The mark that a payload would
leave is looked for after each.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from endedge.data.errors import BadInput
from endedge.distill.description import plan_of
from endedge.distill.model import DetectionModel, build_detector, load_detector, spec_of
from endedge.distill.package.format import inspect, unpack
from endedge.distill.package.spec_dictionary import SPEC_DICTIONARY
from tests.starts import start


def payload(mark: Path) -> str:
    """What an activation or argument would be, were it evaluated."""
    return f"(__import__('pathlib').Path({str(mark)!r}).touch(), __import__('torch').nn.SiLU())[1]"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


Change = Callable[[dict[str, Any], str], Any]  # of a description, given what would run


def _put(*path: Any) -> Change:
    """Put the payload at ``path`` of the description."""

    def change(spec: dict[str, Any], code: str) -> None:
        at: Any = spec
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = code

    return change


def _set(value: Any, *path: Any) -> Change:
    return lambda spec, code: _put(*path)(spec, value)


DESCRIPTIONS: dict[str, tuple[Change, str]] = {
    "the activation is evaluated": (_put("yaml", "activation"), "'activation'"),
    "an argument is evaluated": (_put("yaml", "backbone", 0, 3, 0), "argument"),
    "a module is looked up": (_put("yaml", "backbone", 0, 2), "no known layer"),
    "an unknown key": (_put("yaml", "anchors"), "unknown"),
    "a module of the wrong kind": (_set(["Conv"], "yaml", "backbone", 0, 2), "no known layer"),
    "an activation that is a list": (_set([], "yaml", "activation"), "'activation'"),
    "an activation that is a number": (_set(5, "yaml", "activation"), "'activation'"),
    "a class name that moves the cursor": (_set("a\x1b[2J", "names", 0), "class names"),
    "class numbers with a hole": (_set("a", "names", 77), "numbered from 0"),
    "a class number of 5,000 digits": (_set("a", "names", 10**4400), "class names|cannot read"),
    "a deep row": (_set([[[]]], "yaml", "backbone", 0), "layer 0"),
    "no yaml": (_set(None, "yaml"), "mapping"),
    "pictures of one channel": (_set(1, "yaml", "channels"), "1 channels"),
    "another task": (_set("Segment", "yaml", "head", -1, 2), "segmentation"),
    "a million parts of one layer": (
        _set([-1, 24, "RepNCSPELAN4", [64, 64, 32, 4096]], "yaml", "backbone", 2),
        "modules",
    ),
    "a pool that compares for hours": (
        _set([-1, 1, "nn.MaxPool2d", [4001, 1, 2000]], "yaml", "backbone", 2),
        "too much arithmetic",
    ),
    "a picture blown up": (
        _set([-1, 1, "nn.Upsample", ["None", 4096, "nearest"]], "yaml", "backbone", 2),
        "too large",
    ),
}


def changed(tiny: DetectionModel, change: Change, code: str) -> dict[str, Any]:
    spec = spec_of(tiny)
    change(spec, code)
    return spec


@pytest.mark.parametrize("reason", DESCRIPTIONS)
def test_hostile_descriptions_through_every_loader(
    reason: str, tiny: DetectionModel, tmp_path: Path, mark: Path
) -> None:
    change, says = DESCRIPTIONS[reason]
    spec = changed(tiny, change, payload(mark))
    with pytest.raises(BadInput, match=says):
        build_detector(spec)
    if reason != "a class number of 5,000 digits":  # cannot be written as JSON
        save_file(
            tiny.state_dict(),
            tmp_path / "evil.safetensors",
            {"format": "endedge-detector-1", "spec": json.dumps(spec)},
        )
        with pytest.raises(BadInput, match=says):
            load_detector(tmp_path / "evil.safetensors")
        with pytest.raises(BadInput, match=says):
            unpack(forged(spec))
        with contextlib.suppress(BadInput):
            inspect(forged(spec))
    tiny.yaml, tiny.names, tiny.args = spec["yaml"], spec["names"], {}
    torch.save({"model": tiny}, tmp_path / "evil.pt")
    if reason != "an unknown key":  # of which a checkpoint has many; they are left out
        with pytest.raises(BadInput, match=says):
            load_detector(tmp_path / "evil.pt")
    assert not mark.exists()


def forged(spec: dict[str, Any], widths: Any = (), stream: bytes = bytes(64)) -> bytes:
    """A package with this description and a checksum that is right."""
    text = json.dumps({**spec, "widths": widths}, separators=(",", ":")).encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=SPEC_DICTIONARY)
    blob = deflate.compress(text) + deflate.flush()
    step = b"\0\0\x80\x3f"
    rest = bytes(32) + step + len(blob).to_bytes(4, "little") + blob + stream
    digest = hashlib.sha256(b"EEU1\0" + rest).digest()[:16]
    return b"EEU1\0" + digest + rest


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        (5, "list of widths"),
        ({"0": 1}, "list of widths"),
        ([[0, 1]], "list of widths"),
        ([[0, 10**9, 3]], "must lie within"),
        ([[0, True, 3]], "list of widths"),
        ([[0, 0, 3]], "must lie within"),
        ([[10**6, 4, 3]], "list of widths"),
        ([[0, 4, 3]], "cannot be built"),  # its neighbour expects more
        ([[i, 4096, 4096] for i in range(20)], "parameters|cannot|weights"),
    ],
)
def test_widths_from_the_wire(tiny: DetectionModel, widths: Any, says: str) -> None:
    data = forged(spec_of(tiny), widths, bytes(10_000))
    with pytest.raises(BadInput, match=says):
        unpack(data)
    with contextlib.suppress(BadInput):
        inspect(data)


class _Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.told = (function, arguments)

    def __reduce__(self) -> Any:
        return self.told


def _zipped(document: bytes, **parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", document)
        for name, content in parts.items():
            archive.writestr(f"a/data/{name}", content)
    return out.getvalue()


def _saved(document: Any) -> bytes:
    out = io.BytesIO()
    torch.save(document, out)
    return out.getvalue()


def _nested(depth: int) -> Any:
    value: Any = ("x",)
    for _ in range(depth):
        value = (value, value)
    return value


def _from_ultralytics(name: str) -> Any:
    from ultralytics.nn import tasks

    return object.__new__(getattr(tasks, name))


CHECKPOINTS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "it calls a function": (lambda m: _saved(_Calls(Path.touch, m)), "names __builtin__.getattr"),
    "it calls a layer's constructor": (
        lambda m: _saved(_Calls(torch.nn.Conv2d, 3, 10**5, 99)),
        "calls torch.nn.modules.conv.Conv2d",
    ),
    "it calls eval": (
        lambda m: _saved(_Calls(eval, f"open({str(m)!r}, 'w')")),
        "names __builtin__.eval",
    ),
    "it calls getattr": (lambda m: _saved(_Calls(getattr, "a", "upper")), "getattr"),
    "it names a class that opens files": (
        lambda m: _saved(_Calls(torch.utils.data.Dataset)),
        "names torch.utils",
    ),
    "a dictionary made with arguments": (
        lambda m: _saved(_Calls(OrderedDict, [("a", 1)])),
        "cannot read|refused",
    ),
    "a key that takes for ever to hash": (
        lambda m: _zipped(b"\x80\x02}" + pickle.dumps(_nested(64), 2)[2:-1] + b"K\x01s."),
        "key that is neither",
    ),
    "no ZIP file": (lambda m: pickle.dumps({"a": 1}), "cannot read weights"),
    "a ZIP file of something else": (lambda m: _zipped(b"")[:-1], "cannot read weights"),
    "a pickle cut short": (lambda m: _zipped(pickle.dumps({"a": 1}, 2)[:-3]), "cannot read"),
    "a newer protocol": (lambda m: _zipped(pickle.dumps({"a": 1}, 4)), "cannot read"),
    "a dictionary without a model": (lambda m: _saved({"a": 1}), "it holds NoneType"),
    "a segmentation model": (
        lambda m: _saved({"model": _from_ultralytics("SegmentationModel")}),
        "holds a segmentation model",
    ),
    "a pose model": (lambda m: _saved({"model": _from_ultralytics("PoseModel")}), "a pose model"),
    "RT-DETR": (
        lambda m: _saved({"model": _from_ultralytics("RTDETRDetectionModel")}),
        "an RT-DETR model",
    ),
    "an empty detector": (
        lambda m: _saved({"model": _from_ultralytics("DetectionModel")}),
        "not a mapping",
    ),
}


@pytest.mark.parametrize("reason", CHECKPOINTS)
def test_hostile_checkpoints(reason: str, tmp_path: Path, mark: Path) -> None:
    make, says = CHECKPOINTS[reason]
    (tmp_path / "evil.pt").write_bytes(make(mark))
    with pytest.raises(BadInput, match=says):
        load_detector(tmp_path / "evil.pt")
    assert not mark.exists()


def test_a_compressed_or_overlapping_part_is_not_read(tiny: DetectionModel, tmp_path: Path) -> None:
    whole = io.BytesIO(_saved({"model": tiny}))
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(whole) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))
    with pytest.raises(BadInput, match="compressed"):
        load_detector(packed)


def test_one_tensor_shown_many_times_is_a_bomb(tiny: DetectionModel, tmp_path: Path) -> None:
    large = torch.zeros(2**20)
    for module in tiny.modules():
        if isinstance(module, torch.nn.Conv2d):
            module._buffers["bomb"] = large  # the file holds it once
    (tmp_path / "bomb.pt").write_bytes(_saved({"model": tiny}))
    with pytest.raises(BadInput, match="larger than the file"):
        load_detector(tmp_path / "bomb.pt")


def test_weights_that_are_not_finite(tiny: DetectionModel, tmp_path: Path) -> None:
    state = tiny.state_dict()
    next(v for v in state.values() if v.ndim == 4)[0] = float("nan")
    metadata = {"format": "endedge-detector-1", "spec": json.dumps(spec_of(tiny))}
    save_file(state, tmp_path / "nan.safetensors", metadata)
    with pytest.raises(BadInput, match="not finite"):
        load_detector(tmp_path / "nan.safetensors")


def test_a_head_that_scores_other_classes_than_it_names(tiny: DetectionModel) -> None:
    spec = spec_of(tiny)
    last = {name: w for name, w in plan_of(spec).widths.items() if w[0] == len(tiny.names)}
    with pytest.raises(BadInput, match=r"does not score|\[1, 6, -1\]"):
        build_detector(spec, {name: (2, n_in) for name, (_, n_in) in last.items()})


BOMBS = {
    "rows that copy one large map": [
        [-1, 1, "Conv", [960, 1, 1]],
        *([[-1, 1, "nn.MaxPool2d", [1, 1]]] * 190),
        [-1, 1, "Conv", [8, 3, 2]],
    ],
    "as many parameters as a package of its size may have": [
        [-1, 1, "Conv", [64, 3, 32]],
        [-1, 1, "Conv", [1024, 3, 2]],
        *([[-1, 1, "Conv", [1024, 1, 1]]] * 22),
    ],
}
_UNPACKER = """
import resource, sys
from endedge.data.errors import BadInput
from endedge.distill.package.format import unpack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(open(sys.argv[1], "rb").read())
except BadInput as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize("reason", BOMBS)
def test_a_small_package_takes_bounded_memory(reason: str, tmp_path: Path) -> None:
    """docs/eeu.md states the bound: 200 MB, and 40 bytes a parameter that the package's size
    allows for."""
    spec = {
        "names": {"0": "a"},
        "yaml": {
            "nc": 1,
            "reg_max": 4,
            "backbone": BOMBS[reason],
            "head": [[[-1], 1, "Detect", ["nc"]]],
        },
    }
    data = forged(spec, [], bytes(6_000))
    (tmp_path / "bomb.eeu").write_bytes(data)
    said = tmp_path / "said"
    start(_UNPACKER, tmp_path / "bomb.eeu", folder=tmp_path, said=said).join(120)
    kilobytes, says = said.read_text().split(maxsplit=1)
    assert int(kilobytes) * 1024 < 200e6 + 40 * 4096 * len(data), says
