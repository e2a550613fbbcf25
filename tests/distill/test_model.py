from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from endedge.data.errors import BadInput
from endedge.distill.model import (
    DetectionModel,
    build_detector,
    clone,
    count_parameters,
    fold_norms,
    load_detector,
    model_hash,
    save_detector,
    spec_of,
)
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.distill.pruning import prune


def test_saved_and_loaded_is_the_same(tiny: DetectionModel, tmp_path: Path) -> None:
    save_detector(tiny, tmp_path / "m.safetensors")
    loaded = load_detector(tmp_path / "m.safetensors")
    assert model_hash(loaded) == model_hash(tiny)
    assert loaded.names == tiny.names
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]  # no scratch left


def test_half_is_half(tiny: DetectionModel, tmp_path: Path) -> None:
    save_detector(tiny, tmp_path / "full.safetensors")
    save_detector(tiny, tmp_path / "half.safetensors", half=True)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_detector(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_a_pruned_detector_is_saved_loaded_and_packed(tiny: DetectionModel, tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    small = prune(tiny, 0.6, frames, rounds=1)
    save_detector(small, tmp_path / "m.safetensors")
    loaded = load_detector(tmp_path / "m.safetensors")
    assert model_hash(loaded) == model_hash(small)
    packed = pack(loaded, 60_000, frames=frames)
    assert packed.report.kept == pytest.approx(count_parameters(small) / count_parameters(tiny))
    received = unpack(packed.data)
    assert {k: v.shape for k, v in received.state_dict().items()} == {
        k: v.shape for k, v in small.state_dict().items()
    }


def test_a_checkpoint_wider_than_its_description_is_refused(
    tiny: DetectionModel, tmp_path: Path
) -> None:
    state = tiny.state_dict()
    name = next(k for k, v in state.items() if v.ndim == 4)
    state[name] = torch.zeros(state[name].shape[0] + 1, *state[name].shape[1:])
    metadata = {"format": "endedge-detector-1", "spec": json.dumps(spec_of(tiny))}
    save_file(state, tmp_path / "wide.safetensors", metadata)
    with pytest.raises(BadInput, match=r"corrupt weights .* cannot be built"):
        load_detector(tmp_path / "wide.safetensors")


def test_ultralytics_checkpoints_load_without_running_anything(shared: Path) -> None:
    model = load_detector(shared / "weights/yolov8n.pt")
    assert count_parameters(model) == 3_157_200
    assert model.names[0] == "person"
    assert model_hash(build_detector(spec_of(model))) != model_hash(model)


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_names_anything_else_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for name, payload in (
        ("zip.pt", {"model": _Bomb(mark)}),
        ("module.pt", {"model": torch.nn.Linear(1, 1), "extra": _Bomb(mark)}),
    ):
        torch.save(payload, tmp_path / name)
        with pytest.raises(BadInput, match=r"names .*, which is not a network layer"):
            load_detector(tmp_path / name)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(BadInput):
        load_detector(tmp_path / "bare.pt")
    assert not mark.exists()


def test_weights_that_are_no_detector(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.SiLU()}, tmp_path / "linear.pt")
    with pytest.raises(BadInput, match=r"linear\.pt: it is not a detector: it holds SiLU"):
        load_detector(tmp_path / "linear.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "dict.pt")
    with pytest.raises(BadInput, match="is not a detector"):
        load_detector(tmp_path / "dict.pt")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="is not an endedge detector"):
        load_detector(tmp_path / "other.safetensors")


def test_damaged_files(tiny: DetectionModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_detector(tiny, path)
    whole = path.read_bytes()
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadInput):
            load_detector(path)
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="cannot read weights"):
        load_detector(tmp_path / "x.pt")
    with pytest.raises(BadInput, match="weights not found"):
        load_detector(tmp_path / "missing.pt")


def test_a_description_that_cannot_be_built() -> None:
    with pytest.raises(BadInput, match="no known layer"):
        build_detector(
            {"yaml": {"backbone": [[-1, 1, "Nothing", [3]]], "head": []}, "names": {0: "a"}}
        )


def test_folding_norms_leaves_the_function(tiny: DetectionModel) -> None:
    images = torch.rand(2, 3, 64, 64)
    folded = clone(tiny).eval()
    fold_norms(folded)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images)[0], tiny.eval()(images)[0], rtol=1e-4, atol=1e-3)
