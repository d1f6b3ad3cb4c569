"""Sharing, training, checkpoints and readings of supernets."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cosearch_evaluators.supernet import FromSupernet

from cosearch.data import load_task
from cosearch.errors import EvaluationError, StoreError, UserError
from cosearch.evaluator import Context
from cosearch.space import load_space
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec
from cosearch.supernet import (
    Choices,
    SharedWeights,
    SupernetRecipe,
    SupernetTraining,
    load_supernet,
    read,
    resume_training,
    save_training,
    train_supernet,
)
from cosearch.supernet.choices import effort
from cosearch.supernet.optim import SharedOptimizer
from cosearch.testing import EvaluatorContract
from cosearch.train import Recipe, predictions, weights_from_bytes
from cosearch.train.batches import normalised

TASK = {"name": "digits"}
SPACE = """\
cosearch: space/1
name: small
description: Small models of single digits.
model:
  template: vit
  patch: 4
  dim: {choice: [8, 16]}
  depth: {int: [1, 2]}
  heads: {choice: [1, 2]}
  mlp_ratio: {choice: [1, 2]}
  token_method: {choice: [none, prune]}
  stages: 2
  keep: {per: stage, choice: [0.5, 1.0], when: "model.token_method != 'none'"}
  weight_bits: {per: block, choice: [2, 8]}
  activation_bits: 8
accelerator: {template: systolic, rows: 8, cols: 8, dataflow: ws, ifmap_kib: 16, filter_kib: 16, ofmap_kib: 16,
  dram_bytes_per_s: 1e9, clock_hz: 400e6}
"""


@pytest.fixture(scope="module")
def task():
    return load_task(TASK)


@pytest.fixture(scope="module")
def choices(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SPACE)
    return Choices.of_space(load_space(str(path), task.shape))


def recipe(**fields):
    return SupernetRecipe.from_config({"steps": 8, "batch": 16, **fields})


@pytest.fixture(scope="module")
def trained(choices, task):
    training = SupernetTraining(choices, task, recipe(steps=150, batch=32, matrix_lr=0.01), 0)
    while not training.done:
        training.advance()
    return training


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("supernet") / "small.safetensors"
    save_training(trained, path)
    return path


def model(task, dim=16, depth=2, heads=2, hidden=16, bits=8, **fields):
    block = BlockSpec(heads=heads, mlp_hidden=hidden, weight_bits=bits, activation_bits=8)
    return ModelSpec(task=task.shape, patch=4, dim=dim, blocks=(block,) * depth, **fields)


class TestSharing:
    def test_a_narrow_model_has_the_leading_part_of_queries_keys_and_values_each(self, task):
        weights = SharedWeights(0)
        wide = weights.cut(model(task, dim=16)).model.blocks[0].mixer.qkv.weight
        narrow = weights.cut(model(task, dim=8)).model.blocks[0].mixer.qkv.weight
        for part in range(3):
            assert torch.equal(narrow[8 * part : 8 * part + 8], wide[16 * part : 16 * part + 8, :8])

    def test_a_gated_mlp_has_the_leading_part_of_both_projections(self, task):
        weights = SharedWeights(0)

        def fc1(hidden):
            block = BlockSpec(heads=2, mlp_hidden=hidden, mlp="glu")
            spec = ModelSpec(task=task.shape, patch=4, dim=8, blocks=(block,))
            return weights.cut(spec).model.blocks[0].mlp.fc1.weight

        wide, narrow = fc1(12), fc1(4)
        assert torch.equal(narrow, torch.cat((wide[:4], wide[12:16])))

    def test_a_shallow_model_has_the_first_blocks(self, task):
        weights = SharedWeights(0)
        deep, shallow = (weights.cut(model(task, depth=depth)).model for depth in (3, 1))
        assert torch.equal(deep.blocks[0].mlp.fc2.weight, shallow.blocks[0].mlp.fc2.weight)

    def test_bits_share_weights_but_not_scales(self, task):
        weights, images = SharedWeights(0), torch.randn(4, 1, 8, 8)
        scales = []
        for bits in (2, 8):
            subnet = weights.cut(model(task, bits=bits))
            subnet.model(images).sum().backward()
            weights.accumulate(subnet)
            again = weights.cut(model(task, bits=bits)).model.blocks[0].mixer.proj
            assert torch.equal(again.weight, subnet.model.blocks[0].mixer.proj.weight)
            scales.append(again.weight_quantizer.scale)
        assert (scales[0] > 2 * scales[1]).all()
        assert (scales[1] > 0).all()

    def test_other_mixers_and_patches_have_parameters_of_their_own(self, task):
        weights = SharedWeights(0)
        weights.cut(model(task))
        other = replace(model(task), blocks=(BlockSpec(heads=2, mlp_hidden=16, mixer="linear"),) * 2)
        assert 0.3 < weights.known(other) < 0.7
        finer = replace(model(task), patch=2)
        assert 0.5 < weights.known(finer) < 1

    def test_gradients_add_up_in_the_part_of_each_model(self, task):
        weights = SharedWeights(0)
        for dim in (16, 8):
            subnet = weights.cut(model(task, dim=dim, bits=32))
            for parameter in subnet.model.parameters():
                parameter.grad = torch.ones_like(parameter)
            weights.accumulate(subnet)
        gradient = weights.gradients["head.weight"]
        assert torch.equal(gradient[:, :8], torch.full((10, 8), 2.0))
        assert torch.equal(gradient[:, 8:], torch.ones(10, 8))

    def test_cutting_without_keeping_leaves_the_banks_as_they_are(self, task):
        weights = SharedWeights(0)
        weights.cut(model(task, dim=8))
        before = {name: values.clone() for name, values in weights.values.items()}
        weights.cut(model(task, dim=16, depth=3), keep=False)
        assert weights.values.keys() == before.keys()
        assert all(torch.equal(weights.values[name], values) for name, values in before.items())


class TestOptimizer:
    def test_a_bank_without_a_gradient_stays(self, task):
        weights = SharedWeights(0)
        optimizer = SharedOptimizer(weights, Recipe())
        for depth in (2, 1):
            subnet = weights.cut(model(task, depth=depth, bits=32))
            subnet.model(torch.randn(4, 1, 8, 8)).square().sum().backward()
            weights.accumulate(subnet)
            before = {name: values.clone() for name, values in weights.values.items()}
            optimizer.step(1.0)
        moved = {name for name, values in weights.values.items() if not torch.equal(values, before[name])}
        assert any(name.startswith("blocks.0.") for name in moved)
        assert not any(name.startswith("blocks.1.") for name in moved)
        assert weights.gradients == {}

    def test_states_grow_with_their_banks(self, task):
        weights = SharedWeights(0)
        optimizer = SharedOptimizer(weights, Recipe())
        for dim in (8, 16):
            subnet = weights.cut(model(task, dim=dim))
            subnet.model(torch.randn(4, 1, 8, 8)).square().sum().backward()
            weights.accumulate(subnet)
            optimizer.step(1.0)
        assert all(state.shape == weights.values[name].shape for name, state in optimizer.first.items())
        assert all(not values.isnan().any() for values in weights.values.values())


class TestChoices:
    def test_extremes_bound_what_is_drawn(self, choices):
        rng = np.random.default_rng(1)
        efforts = [effort(choices.draw(rng)) for _ in range(100)]
        assert effort(choices.smallest) <= min(efforts)
        assert max(efforts) <= effort(choices.largest)
        assert (choices.largest.dim, len(choices.largest.blocks), choices.largest.token_method) == (16, 2, "none")

    def test_the_largest_of_several_is_larger_on_average(self, choices):
        rng = np.random.default_rng(1)
        one, of_eight = (np.mean([effort(choices.draw(rng, of)) for _ in range(50)]) for of in (1, 8))
        assert of_eight > 1.3 * one

    def test_extremes_of_plain_draws(self, choices):
        drawn = Choices.of_draws("drawn", choices.draw_one)
        assert effort(choices.smallest) <= effort(drawn.smallest) < effort(drawn.largest) <= effort(choices.largest)


class TestTraining:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"strategy": "sandwich", "random": 2, "largest_first": 0.25},
            {"shrink_until": 0.5, "optimizer": "adamw", "shift": 1, "label_smoothing": 0.1},
        ],
    )
    def test_a_resumed_training_ends_bit_for_bit_where_one_in_a_piece_does(self, choices, task, tmp_path, fields):
        whole = train_supernet(choices, task, recipe(**fields), 3)
        training = SupernetTraining(choices, task, recipe(**fields), 3)
        for _ in range(3):
            training.advance()
        save_training(training, tmp_path / "part.safetensors")
        resumed = resume_training(tmp_path / "part.safetensors", choices, task)
        while not resumed.done:
            resumed.advance()
        assert resumed.supernet.losses == whole.losses
        assert list(resumed.supernet.weights.values) == list(whole.weights.values)
        for name, values in whole.weights.values.items():
            assert torch.equal(values.nan_to_num(-99), resumed.supernet.weights.values[name].nan_to_num(-99)), name

    def test_another_seed_gives_another_supernet(self, choices, task):
        one, other = (train_supernet(choices, task, recipe(), seed) for seed in (0, 1))
        assert one.losses != other.losses

    def test_it_learns_models_of_every_size(self, choices, task, trained):
        for spec in (choices.largest, choices.smallest):
            assert read(trained.supernet, spec, task).score.loss < 0.9 * math.log(10)
        assert read(trained.supernet, choices.largest, task).score.accuracy > 0.5

    def test_a_divergence_is_an_error(self, choices, task):
        with pytest.raises(EvaluationError, match="diverged at step"):
            train_supernet(choices, task, recipe(steps=60, matrix_lr=1e30, lr=1e30, warmup=0.0), 0)

    def test_first_the_largest_alone(self, choices, task):
        training = SupernetTraining(choices, task, recipe(largest_first=0.5, shrink_until=0.75), 0)
        assert training._models(0.49) == [choices.largest]
        assert training._models(0.5) != [choices.largest] or training._models(0.9) != [choices.largest]

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"strategy": "all"}, "strategy is 'all'"),
            ({"random": 0}, "random is 0"),
            ({"steps": 0}, "steps is 0"),
            ({"in_place": 2.0}, "in_place is 2.0"),
            ({"random": "2"}, "random is '2'"),
            ({"warm_start": "self"}, "means nothing to a supernet"),
            ({"stpes": 3}, "did you mean 'steps'"),
        ],
    )
    def test_a_recipe_that_makes_no_sense(self, fields, text):
        with pytest.raises(UserError, match=text):
            SupernetRecipe.from_config(fields)

    def test_a_recipe_survives_its_config(self):
        given = recipe(strategy="sandwich", matrix_lr=0.02, shift=2)
        assert SupernetRecipe.from_config(json.loads(json.dumps(given.as_config()))) == given


class TestCheckpoint:
    def test_another_task_or_space(self, checkpoint, choices, task):
        other = Choices.of_draws("other", choices.draw_one)
        with pytest.raises(UserError, match="trained for space 'small', not 'other'"):
            resume_training(checkpoint, other, task)
        with pytest.raises(UserError, match="trained for task 'digits', not 'digit-search'"):
            resume_training(checkpoint, choices, replace(task, name="digit-search"))

    def test_no_file_and_no_supernet(self, tmp_path, trained, choices):
        with pytest.raises(UserError, match="cannot be read"):
            load_supernet(tmp_path / "none.safetensors")
        (tmp_path / "text.safetensors").write_text("text")
        with pytest.raises(UserError, match="cannot be read"):
            load_supernet(tmp_path / "text.safetensors")
        from cosearch.train import weights_to_bytes

        (tmp_path / "model.safetensors").write_bytes(
            weights_to_bytes(trained.supernet.weights.cut(choices.largest).model)
        )
        with pytest.raises(UserError, match="is no supernet"):
            load_supernet(tmp_path / "model.safetensors")

    def test_a_write_that_fails_leaves_the_old_file(self, trained, tmp_path, monkeypatch):
        path = tmp_path / "x.safetensors"
        save_training(trained, path)
        before = path.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("cosearch.supernet.checkpoint.os.fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            save_training(trained, path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


class TestReading:
    def test_what_is_read_is_an_ordinary_model(self, trained, choices, task):
        from cosearch.model import build_model
        from cosearch.train import weights_to_bytes

        found = read(trained.supernet, choices.largest, task)
        other = build_model(choices.largest).eval()
        weights_from_bytes(other, weights_to_bytes(found.model))
        images = normalised(task.validation.images[:20], task)
        assert torch.equal(predictions(other, images), predictions(found.model, images))

    def test_steps_of_its_own_lower_the_loss_and_leave_the_supernet_as_it_is(self, trained, choices, task):
        before = {name: values.clone() for name, values in trained.supernet.weights.values.items()}
        at_once = read(trained.supernet, choices.smallest, task)
        tuned = read(trained.supernet, choices.smallest, task, finetune_steps=25)
        assert tuned.score.loss < at_once.score.loss
        after = trained.supernet.weights.values
        assert all(torch.equal(after[name].nan_to_num(-9), values.nan_to_num(-9)) for name, values in before.items())

    def test_the_same_reading_twice(self, trained, choices, task):
        one, other = (read(trained.supernet, choices.smallest, task, finetune_steps=3, seed=5).score for _ in range(2))
        assert one == other

    def test_a_batchnorm_is_settled_before_it_is_read(self, task):
        specs = [model(task, norm="batchnorm"), model(task, dim=8, norm="batchnorm")]
        drawn = Choices.of_draws("two", lambda rng: specs[int(rng.integers(2))])
        supernet = train_supernet(drawn, task, recipe(steps=50, batch=32, matrix_lr=0.01), 0)
        assert read(supernet, specs[0], task).score.loss < math.log(10)


def candidate(spec, rows):
    return Candidate(model=spec, accelerator=AcceleratorSpec.of("systolic", {"rows": rows}))


class TestEvaluator(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def _made(self, checkpoint, choices):
        self.checkpoint, self.choices = checkpoint, choices

    def make(self):
        return FromSupernet(str(self.checkpoint), finetune_steps=2)

    def candidates(self):
        return [candidate(self.choices.largest, 8), candidate(self.choices.smallest, 16)]

    def context(self):
        return Context(seed=7, task=TASK)

    def test_another_task_fails(self):
        with pytest.raises(EvaluationError, match="trained on task 'digits', not 'digit-pairs'"):
            self.make().evaluate(self.candidates()[0], Context(seed=0, task={"name": "digit-pairs"}))

    def test_a_model_of_another_space_fails(self, task):
        with pytest.raises(EvaluationError, match=r"has \d+% of the model's weights"):
            self.make().evaluate(candidate(model(task, dim=64, heads=4), 8), self.context())

    def test_options_that_make_no_sense(self, tmp_path):
        with pytest.raises(UserError, match="finetune_steps is -1"):
            FromSupernet(str(self.checkpoint), finetune_steps=-1)
        with pytest.raises(UserError, match="cannot be read"):
            FromSupernet(str(tmp_path / "none"))
