"""A bundle is whole or absent, says what was measured, and notices when it was changed."""

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.stats import binomtest

from cosearch.data import load_task
from cosearch.errors import FileError, SpecError, StoreError, UserError
from cosearch.export import MismatchError, PixelModel, check_bundle, export_bundle, wilson_interval
from cosearch.export._files import check_place, write_files
from cosearch.hardware import build, estimate, scalesim_config, scalesim_topology, technology
from cosearch.model import build_model, calibrate
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, to_json
from cosearch.train import accuracy, normalised, predictions, weights_from_bytes, weights_to_bytes
from cosearch.workload import workload

TASK = {"name": "digits"}
ACCELERATOR = AcceleratorSpec.of(
    "systolic",
    {
        "rows": 8,
        "cols": 16,
        "dataflow": "os",
        "ifmap_kib": 8,
        "filter_kib": 4,
        "ofmap_kib": 4,
        "dram_bytes_per_s": 2e9,
        "clock_hz": 4e8,
    },
)


def candidate_of(**changes):
    block = BlockSpec(heads=2, mlp_hidden=16, keep_tokens=9, weight_bits=4, activation_bits=6)
    fields = {"task": load_task(TASK).shape, "patch": 2, "dim": 16, "token_method": "merge", "edge_bits": 8}
    spec = ModelSpec(**{**fields, "blocks": (block,), **changes})
    return Candidate(model=spec, accelerator=ACCELERATOR)


def weights_of(candidate, seed=1):
    model = build_model(candidate.model, seed)
    task = load_task(TASK)
    calibrate(model, normalised(task.train.images[:64], task))
    return weights_to_bytes(model)


def write(out, candidate, weights, **options):
    facts = {"run": "tiny", "seed": 7, "recipe": {"steps": 3}}
    return export_bundle(candidate, weights, TASK, {"latency_s": 1.0}, out, **facts, **options)


@pytest.fixture(scope="module")
def pair():
    candidate = candidate_of()
    return candidate, weights_of(candidate)


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    return write(tmp_path_factory.mktemp("bundles") / "deep" / "pair", *pair)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made.path, tmp_path / "copy")


def change(bundle, name, content):
    """Writes a file and the hash that belongs to it."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_all_files_are_there_with_their_hashes(made, pair):
    manifest = json.loads((made.path / "manifest.json").read_text())
    names = {path.name for path in made.path.iterdir()}
    assert names == {*manifest["sha256"], "manifest.json"}
    assert names >= {"README.md", "model.onnx", "weights.safetensors", "scalesim.cfg", "topology.csv", "metrics.json"}
    assert (manifest["format"], manifest["pair"]) == ("bundle/1", pair[0].id)
    for name, wanted in manifest["sha256"].items():
        assert hashlib.sha256((made.path / name).read_bytes()).hexdigest() == wanted
    assert list(made.path.parent.iterdir()) == [made.path]


def test_accuracy_is_read_on_the_whole_test_split_by_both(made, pair):
    task = load_task(TASK)
    model = build_model(pair[0].model)
    weights_from_bytes(model, pair[1])
    found = json.loads((made.path / "metrics.json").read_text())
    assert found["test"]["images"] == found["test"]["agreement"]["images"] == len(task.test) == 500
    assert found["test"]["torch"] == accuracy(model, task.test, task)
    assert found["validation"]["torch"] == accuracy(model, task.validation, task)
    assert found["test"]["onnx"] == made.test_accuracy == pytest.approx(found["test"]["torch"], abs=0.01)
    assert found["followed"]["images"] == 128
    assert found["followed"]["logit_difference"] < 1e-5
    assert found["search"] == {"latency_s": 1.0}


def test_pixels_are_normalised_as_in_training(pair):
    task = load_task(TASK)
    model = build_model(pair[0].model)
    weights_from_bytes(model, pair[1])
    some = np.array(task.test.images[:50])
    with torch.no_grad():
        found = PixelModel(model, task.mean, task.std)(torch.from_numpy(some))
    assert torch.equal(found, predictions(model.eval(), normalised(some, task)))


def test_costs_and_simulator_files_are_those_of_the_pair(made, pair):
    candidate = pair[0]
    array, work = build(candidate.accelerator), workload(candidate.model)
    cost = estimate(work, array, technology("horowitz_45nm"))
    assert made.cost == cost
    assert json.loads((made.path / "cost.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(cost)))
    assert (made.path / "scalesim.cfg").read_text() == scalesim_config(array)
    assert (made.path / "topology.csv").read_text() == scalesim_topology(work)
    assert json.loads((made.path / "model.json").read_text()) == to_json(candidate.model)
    accelerator = json.loads((made.path / "accelerator.json").read_text())
    assert accelerator["spec"] == to_json(candidate.accelerator)
    assert accelerator["parameters"]["ifmap_kib"] == {"value": 8, "unit": "KiB"}
    assert accelerator["parameters"]["dram_bytes_per_s"] == {"value": 2e9, "unit": "B/s"}
    assert accelerator["parameters"]["vector_lanes"]["value"] == 16


def test_what_the_search_recorded_otherwise_is_said(made):
    notes = [line for line in made.findings if line.startswith("note")]
    assert len(notes) == 1
    assert "latency_s 1.00 s" in notes[0]


def test_the_card_can_be_used_as_pasted(made, monkeypatch, capsys):
    text = (made.path / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) == 2
    monkeypatch.chdir(made.path)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    printed = json.loads(capsys.readouterr().out.replace("'", '"'))
    assert np.shape(printed) == (1, 1)
    assert printed[0][0] in load_task(TASK).class_names


def test_the_card_says_what_matters(made, pair):
    text = (made.path / "README.md").read_text()
    for fact in (pair[0].id, f"{made.test_accuracy:.2%}", "500", "horowitz_45nm", "Horowitz 2014", "tiny", "seed 7"):
        assert fact in text
    slowest = max(made.cost.operators, key=lambda op: op.cycles)
    table = text[text.index("slowest operators") :]
    assert table.index(f"| {slowest.name} |") < table.index("How it was checked")
    assert "nan" not in text
    assert "None" not in text


def test_a_good_bundle_passes(made, pair):
    report = check_bundle(made.path)
    assert report.candidate_id == pair[0].id
    assert report.agreement.logit_difference < 1e-5


@pytest.mark.parametrize("name", ["model.onnx", "README.md", "cost.json"])
def test_a_changed_file_is_named(copy, name):
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(FileError, match=rf"{name}: is not what manifest.json says \(sha256\); export the pair again"):
        check_bundle(copy)


def test_a_missing_file_is_named(copy):
    (copy / "weights.safetensors").unlink()
    with pytest.raises(FileError, match=r"weights.safetensors: cannot be read"):
        check_bundle(copy)


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(FileError, match=r"has no manifest.json, so it is no bundle"):
        check_bundle(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "bundle/2"}', '{"format": "bundle/1"}'])
def test_a_strange_manifest_is_refused(copy, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(FileError, match=r"manifest.json: "):
        check_bundle(copy)


def test_a_manifest_cannot_point_elsewhere(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"]["../outside"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FileError, match=r"sha256"):
        check_bundle(copy)


def test_a_cost_that_comes_out_otherwise_is_caught(copy):
    cost = json.loads((copy / "cost.json").read_text())
    change(copy, "cost.json", json.dumps(cost | {"latency_s": cost["latency_s"] * 0.9}).encode())
    with pytest.raises(FileError, match=r"cost.json: comes out otherwise"):
        check_bundle(copy)


def test_other_weights_are_caught(copy, pair):
    change(copy, "weights.safetensors", weights_of(pair[0], seed=2))
    with pytest.raises(MismatchError):
        check_bundle(copy)


def test_a_model_that_makes_no_sense_is_refused(copy):
    spec = json.loads((copy / "model.json").read_text())
    change(copy, "model.json", json.dumps(spec | {"patch": 3}).encode())
    with pytest.raises(FileError, match=r"patch is 3"):
        check_bundle(copy)


def test_a_scale_below_zero_is_exported_as_it_acts(tmp_path, pair):
    candidate, weights = pair
    tensors = load(weights)
    name = next(name for name in tensors if name.endswith("fc1.weight_quantizer.scale"))
    tensors[name][0] = -0.3
    bundle = write(tmp_path / "pair", candidate, save(tensors))
    assert load((bundle.path / "weights.safetensors").read_bytes())[name][0] == torch.tensor(1e-8)
    check_bundle(bundle.path)


def test_weights_without_scales_are_refused(tmp_path, pair):
    weights = weights_to_bytes(build_model(pair[0].model))
    with pytest.raises(UserError, match=r"is not set in these weights; train or calibrate"):
        write(tmp_path / "pair", pair[0], weights)
    assert not list(tmp_path.iterdir())


def test_another_models_weights_are_refused(tmp_path, pair):
    with pytest.raises(UserError, match="weights are not this model's"):
        write(tmp_path / "pair", candidate_of(dim=24), pair[1])


def test_a_floating_point_model_has_no_cost_on_this_hardware(tmp_path, pair):
    with pytest.raises(SpecError, match="quantise the model"):
        write(tmp_path / "pair", candidate_of(edge_bits=32), pair[1])


def test_another_tasks_pair_is_refused(tmp_path, pair):
    shape = dataclasses.replace(pair[0].model.task, classes=7)
    with pytest.raises(UserError, match="name its own task"):
        write(tmp_path / "pair", candidate_of(task=shape), pair[1])


def test_what_is_there_is_kept_without_force(made, pair):
    before = (made.path / "manifest.json").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"exists and is not empty; .* --force"):
        write(made.path, *pair)
    assert (made.path / "manifest.json").stat().st_mtime_ns == before


def test_force_replaces_a_bundle_whole(tmp_path):
    out = tmp_path / "pair"
    write_files(out, {"a": b"1", "b": b"2"}, {}, force=False)
    write_files(out, {"a": b"3"}, {}, force=True)
    assert {path.name for path in out.iterdir()} == {"a", "manifest.json"}
    assert (out / "a").read_bytes() == b"3"
    assert list(tmp_path.iterdir()) == [out]


def test_force_spares_what_is_no_bundle(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="something other than a bundle"):
        write_files(tmp_path, {"a": b"1"}, {}, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_may_be_filled(tmp_path):
    out = tmp_path / "pair"
    out.mkdir()
    write_files(out, {"a": b"1"}, {}, force=False)
    assert (out / "a").read_bytes() == b"1"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "pair").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        check_place(tmp_path / "pair", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, force):
    out = tmp_path / "pair"
    if force:
        write_files(out, {"old": b"1"}, {}, force=False)
    before = sorted(tmp_path.rglob("*"))
    left = [2]

    def full(_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"pair cannot be written: No space left on device; free some space"):
        write_files(out, {"a": b"1", "b": b"2", "c": b"3"}, {}, force=force)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_rename_puts_the_old_bundle_back(tmp_path, monkeypatch):
    out = tmp_path / "pair"
    write_files(out, {"old": b"1"}, {}, force=False)
    rename = type(out).rename

    def refuse(self, target):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(out), "rename", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        write_files(out, {"a": b"1"}, {}, force=True)
    assert (out / "old").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [out]


def test_a_read_only_place_is_noticed_before_any_work(tmp_path, pair, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("cosearch.export._bundle.onnx_graph", lambda *_: pytest.fail("it began to work"))
    with pytest.raises(StoreError, match=r"cannot be written: Read-only file system; .* --out"):
        write(tmp_path / "pair", *pair)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (9, 10), (250, 500), (1999, 2000)])
def test_wilson_interval_is_scipys(right, n):
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_seen_is_nothing_known():
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_a_pair_of_another_template_has_no_files_for_scalesim(pair, tmp_path):
    other = dataclasses.replace(pair[0], accelerator=AcceleratorSpec.of("gemmini", {"dim": 8}))
    made = write(tmp_path / "pair", other, pair[1])
    names = {path.name for path in made.path.iterdir()}
    assert not names & {"scalesim.cfg", "topology.csv"}
    card = (made.path / "README.md").read_text()
    assert "scalesim.cfg" not in card
    assert "FireSim" in card  # how far to trust the template
    assert json.loads((made.path / "accelerator.json").read_text())["parameters"]["dma_bits"]["value"] == 128
    assert check_bundle(made.path).candidate_id == other.id
