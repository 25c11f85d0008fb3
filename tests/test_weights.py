"""Weight files load whole or with an error that names what is wrong; nothing in them is executed."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_models import GapNet, SmallNet, card

from explainer.classifiers import build_classifier
from explainer.explanandum import Explanandum
from explainer.module import ExplainerModule
from explainer.network import Explainer
from explainer.weights import load_matching, read_metadata, read_state_dict, save_weights


class Attack:
    """Unpickling it would run a command."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def same(state, other):
    """Whether two state dicts hold the same tensors."""
    return state.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.fixture
def state():
    return SmallNet().state_dict()


def test_safetensors_and_state_dicts_are_read(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pth")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pt", "c.pth", "old.bin"):
        assert same(read_state_dict(tmp_path / name), state), name


def test_a_missing_file_is_named(tmp_path):
    for read in (read_state_dict, read_metadata):
        with pytest.raises(FileNotFoundError, match="nothing.pt"):
            read(tmp_path / "nothing.pt")
        with pytest.raises(FileNotFoundError):
            read(tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attack.pkl").write_bytes(pickle.dumps(Attack(), protocol=2))
    torch.save({"weight": Attack()}, tmp_path / "attack.pt")
    for name in ("attack.pkl", "attack.pt"):
        with pytest.raises(ValueError, match=rf"{name} is not a plain state dict"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "hacked").exists()


def test_a_pickled_model_is_refused_with_the_remedy(tmp_path):
    torch.save(SmallNet(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"save model.state_dict\(\)"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt"])
def test_a_cut_file_is_an_error_that_names_it(tmp_path, state, name, share):
    file = tmp_path / name
    save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=name):
        read_state_dict(file)


@pytest.mark.parametrize("content", [b"not weights at all\n", b"<html>404</html>", bytes(64), b"\x80\x02K\x03."])
@pytest.mark.parametrize("name", ["other.safetensors", "other.pt"])
def test_another_kind_of_file_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": "text"}, torch.zeros(2), {"epoch": 3}])
def test_what_is_no_state_dict_is_an_error_that_says_so(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "other.pt")


def test_load_matching_takes_all_and_keeps_its_own_dtype(state):
    module = SmallNet(seed=9)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    load_matching(module, halves | {"more": torch.zeros(1)}, may_miss=(), source="file")
    for name, value in module.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, halves[name].to(value.dtype)), name


def test_load_matching_names_what_is_missing_and_changes_nothing(state):
    module = SmallNet(seed=9)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    del state["features.0.weight"], state["features.0.bias"]
    with pytest.raises(ValueError, match=r"some.file does not fit: features.0.weight, features.0.bias missing"):
        load_matching(module, state, may_miss=("logits",), source="some.file")
    assert same(module.state_dict(), before)


def test_load_matching_counts_what_it_does_not_list():
    with pytest.raises(ValueError, match=r"and \d+ more"):
        load_matching(SmallNet(), {}, may_miss=(), source="file")


def test_load_matching_refuses_another_shape(state):
    state["features.4.weight"] = torch.zeros(8, 6, 5, 5)
    with pytest.raises(ValueError, match=r"features.4.weight missing or of another shape"):
        load_matching(SmallNet(), state, may_miss=("logits",), source="file")


def test_a_head_is_loaded_whole_or_not_at_all():
    source, module = nn.Sequential(), nn.Sequential()
    for target, outputs in ((source, 1000), (module, 3)):
        target.add_module("body", nn.Linear(4, 4))
        target.add_module("head", nn.Sequential(nn.Linear(4, 4), nn.Linear(4, outputs)))
    fresh = {name: value.clone() for name, value in module.state_dict().items()}
    missing = load_matching(module, source.state_dict(), may_miss=("head",), source="file")
    assert missing == ["head.1.weight", "head.1.bias"]
    assert torch.equal(module.body.weight, source.body.weight)
    assert torch.equal(module.head[0].weight, fresh["head.0.weight"])
    assert torch.equal(module.head[1].weight, fresh["head.1.weight"])
    trained = {name: value + 1 for name, value in fresh.items()}
    assert load_matching(module, trained, may_miss=("head",), source="file") == []
    assert same(module.state_dict(), trained)


def test_a_part_that_only_begins_with_the_heads_name_may_not_miss():
    module = nn.ModuleDict({"fc": nn.Linear(2, 2), "fc_norm": nn.LayerNorm(2)})
    with pytest.raises(ValueError, match=r"fc_norm.weight, fc_norm.bias missing"):
        load_matching(module, {}, may_miss=("fc",), source="file")


def test_old_files_without_batch_counters_load(state):
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    load_matching(SmallNet(), old, may_miss=(), source="file")


def test_save_weights_makes_folders_notes_and_no_leftovers(tmp_path, state):
    file = tmp_path / "new" / "weights.safetensors"
    save_weights(SmallNet().to(memory_format=torch.channels_last), file, {"note": "kept"})
    assert same(read_state_dict(file), state)
    assert read_metadata(file) == {"note": "kept"}
    assert os.listdir(file.parent) == [file.name]


def test_a_failed_save_keeps_the_old_file(tmp_path, state, monkeypatch):
    file = tmp_path / "weights.safetensors"
    save_weights(SmallNet(), file, {})

    def full_disk(_tensors, target, _metadata):
        target.write_bytes(b"half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr("explainer.weights.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(GapNet(), file, {})
    assert same(read_state_dict(file), state)
    assert os.listdir(tmp_path) == [file.name]


def test_metadata_of_another_kind_of_file_is_an_error(tmp_path):
    (tmp_path / "other.safetensors").write_text("not one")
    with pytest.raises(ValueError, match=r"other.safetensors is not a readable safetensors file"):
        read_metadata(tmp_path / "other.safetensors")


def explainer_module(classes):
    """An ExplainerModule with the smallest parts."""
    names = tuple("abcdefg"[:classes])
    network = Explainer(classes, "tu-test_resnet", output_stride=16)
    return ExplainerModule(network, Explanandum(SmallNet(classes), card(classes=names)))


def test_a_checkpoint_of_another_class_count_is_an_error_that_says_so():
    module = explainer_module(3)
    module.load_state_dict(explainer_module(3).state_dict())
    with pytest.raises(ValueError, match=r"does not fit this Explainer of 3 classes.*other classes"):
        module.load_state_dict(explainer_module(4).state_dict())
    with pytest.raises(ValueError, match="does not fit"):
        module.load_state_dict({})


def test_weights_of_another_architecture_are_an_error(tmp_path):
    model, _ = build_classifier("resnet18", 3, "none")
    torch.save(model.state_dict(), tmp_path / "resnet18.pt")
    with pytest.raises(ValueError, match=r"resnet18.pt does not fit: .*Is it of the same architecture\?"):
        build_classifier("mobilenet_v2", 3, str(tmp_path / "resnet18.pt"))
