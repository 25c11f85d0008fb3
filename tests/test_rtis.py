"""The loss of Real-Time Image Saliency: its values, its gradients at extreme masks and scores, and that it trains.

B images, C classes, H×W pixels.
"""

import math
from zlib import crc32

import pytest
import torch
from reference import rtis as reference
from reference.convert import nested
from small_runs import arguments, assert_same_weights, rows
from toy_models import SIZE, FlatNet, WindowNet, freeze

import evaluate
import train
from datamodules import Batch
from explainer.attribution.perturb import gaussian_blur
from explainer.module import ExplainerModule
from explainer.report.tables import read_table
from explainer.rtis import COLOUR_RANGE, NOISE, Rtis, RtisOptions, alternative_images, destroyer_loss, preserver_loss
from programs.recipes import parse

CLASSES, SIDE = ("cat", "dog", "hen", "pig"), 6
NAMES = ("a", "b", "c", "d")
OPTIONS = RtisOptions(tv=1.7, area=0.6, destroyer=2.3, power=0.4)
MULTI = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
"""Some classes, none, all, and one."""
SINGLE = torch.eye(4)[[2, 0, 3, 1]]
LABELS = {"multi_label": MULTI, "single_label": SINGLE}
both_outputs = pytest.mark.parametrize("output", LABELS)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def classifier(output="multi_label", scale=1.0):
    """A linear one, whose logits are of order `scale`."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        explanandum = freeze(FlatNet(len(CLASSES), SIDE), classes=CLASSES, size=SIDE, output=output)
    explanandum.model.linear.weight.data *= scale
    return explanandum


def judge(mask_logits, labels=MULTI, output="multi_label", options=OPTIONS, explanandum=None, fresh=False, rows=...):
    """The terms of some of the images (all by default)."""
    image = random(len(NAMES), 3, SIDE, SIDE, seed=1, dtype=mask_logits.dtype)
    names = tuple(torch.tensor(range(len(NAMES)))[rows].tolist())
    batch = Batch(image[rows], labels[rows], tuple(NAMES[index] for index in names))
    return Rtis(options).judge(explanandum or classifier(output), batch, mask_logits[rows], fresh=fresh)


def total(found, options=OPTIONS):
    return Rtis(options).total(found.terms)


# The values


@both_outputs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_term_is_that_of_the_plain_loops(output, dtype):
    mask_logits, labels = 1.5 * random(4, 4, SIDE, SIDE, dtype=dtype), LABELS[output]
    explanandum = classifier(output).to(dtype)
    image = random(4, 3, SIDE, SIDE, seed=1, dtype=dtype)
    alternative = alternative_images(image, [crc32(name.encode()) for name in NAMES])

    def ask(pixels):
        return nested(explanandum(torch.tensor(pixels, dtype=dtype)[None])[0])

    each = [
        reference.loss_terms(*map(nested, values), ask, OPTIONS.power, output == "single_label")
        for values in zip(image, alternative, labels, mask_logits, strict=True)
    ]
    found = judge(mask_logits, labels, output, explanandum=explanandum)
    assert found.terms.keys() == each[0].keys() == Rtis().weights.keys()
    for name, term in found.terms.items():
        assert term.shape == ()
        assert term.item() == pytest.approx(sum(terms[name] for terms in each) / 4, abs=1e-5), name
    expected = sum(reference.loss(terms, OPTIONS.tv, OPTIONS.area, OPTIONS.destroyer) for terms in each) / 4
    assert total(found).item() == pytest.approx(expected, abs=1e-5)
    for index in range(4):  # a wrong term of one image can't hide behind another's
        alone = judge(mask_logits, labels, output, explanandum=explanandum, rows=[index])
        assert {name: term.item() for name, term in alone.terms.items()} == pytest.approx(each[index], abs=1e-5)


def test_both_scores_by_hand():
    """Of an image's classes the mean, of images the mean; an image without a class counts as 0."""
    quarter = -math.log(3)  # σ(-log 3) = 1/4
    logits = torch.tensor([[0.0, quarter, 7.0], [quarter, 9.0, 9.0], [5.0, 5.0, 5.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert preserver_loss(logits, labels).item() == pytest.approx((1.5 * math.log(2) + 2 * math.log(2)) / 3)
    assert destroyer_loss(logits, labels, power=0.5).item() == pytest.approx(((0.5**0.5 + 0.5) / 2 + 0.5) / 3)
    even, true = torch.full((2, 4), 3.0), torch.eye(4)[[3, 0]]
    assert preserver_loss(even, true, "single_label").item() == pytest.approx(math.log(4))
    assert destroyer_loss(even, true, 0.5, "single_label").item() == pytest.approx(0.5)


def test_the_loss_of_an_undecided_classifier_by_hand():
    """A striped mask of 0 and 1: area 1/2, one step a pixel but for the last column; the paper's weights, area 1."""
    mask_logits = torch.where(torch.arange(SIDE) % 2 == 0, 1e4, -1e4).expand(4, 4, SIDE, SIDE)
    found = judge(mask_logits, torch.eye(4), options=RtisOptions(), explanandum=classifier(scale=0))
    bias = classifier().model.linear.bias
    scores = [1 / (1 + math.exp(-value)) for value in bias.tolist()]
    variation = (SIDE - 1) / SIDE
    expected = {
        "preserver": sum(-math.log(p) for p in scores) / 4,
        "destroyer": sum(p**0.3 for p in scores) / 4,
        "area": 0.5,
        "tv": variation,
    }
    assert {name: term.item() for name, term in found.terms.items()} == pytest.approx(expected, abs=1e-6)
    loss = 10 * variation + 0.5 + expected["preserver"] + 5 * expected["destroyer"]
    assert total(found, RtisOptions()).item() == pytest.approx(loss, abs=1e-5)


def test_only_squared_steps_of_the_target_mask_are_rough():
    """A step of 1/2 costs a quarter of one of 1; the masks of absent classes cost nothing."""
    half, full = torch.zeros(2, 4, SIDE, SIDE), torch.full((2, 4, SIDE, SIDE), -1e4)
    mask_logits = torch.cat([half, full])
    mask_logits[:, :, :, :3] = 1e4
    mask_logits[:, 1:] = 50 * random(4, 3, SIDE, SIDE)
    labels = torch.eye(4)[[0, 0, 0, 0]]
    assert judge(mask_logits, labels, rows=[0]).terms["tv"].item() == pytest.approx(1 / 4 / SIDE)
    assert judge(mask_logits, labels, rows=[2]).terms["tv"].item() == pytest.approx(1 / SIDE)


# The gradients


@both_outputs
def test_the_gradient_is_that_of_the_finite_differences(output):
    explanandum = classifier(output).double()
    mask_logits = random(4, 4, SIDE, SIDE, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: total(judge(values, LABELS[output], explanandum=explanandum)), mask_logits, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_power_of_a_probability_has_a_finite_slope_where_that_is_zero(dtype):
    """λ p^λ (1-p) by the logit: 0 for probabilities of 0 and 1; the slope by a probability of 0 itself is infinite."""
    logits = torch.tensor([[-1e4], [-30.0], [0.0], [1e4]], dtype=dtype, requires_grad=True)
    destroyer_loss(logits, torch.ones(4, 1), 0.3).backward()
    expected = [0.0, 0.3 * math.exp(-9), 0.3 * 0.5**0.3 * 0.5, 0.0]
    assert (4 * logits.grad[:, 0]).tolist() == pytest.approx(expected, rel=1e-2 if dtype == torch.bfloat16 else 1e-4)
    naive = torch.tensor([[-1e4]], requires_grad=True)
    (naive.sigmoid() ** 0.3).sum().backward()
    assert not naive.grad.isfinite().all(), "then the care is for nothing"


@both_outputs
def test_a_classifier_that_is_sure_and_wrong_costs_its_logit(output):
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = preserver_loss(logits, torch.tensor([[0.0, 1.0]]), output)
    loss.backward()
    assert loss.item() == (1e4 if output == "multi_label" else 2e4)
    assert logits.grad.tolist() == [[0.0 if output == "multi_label" else 1.0, -1.0]]


@both_outputs
@pytest.mark.parametrize("scale", [1.0, 1e5])
@pytest.mark.parametrize("value", [-1e4, 1e4, None])
def test_empty_full_and_binary_masks_under_saturated_classifiers_have_finite_gradients(output, scale, value):
    binary = torch.where(random(4, 4, SIDE, SIDE) > 0, 1e4, -1e4)
    mask_logits = (binary if value is None else torch.full_like(binary, value)).requires_grad_()
    found = judge(mask_logits, LABELS[output], explanandum=classifier(output, scale))
    assert all(term.isfinite() for term in found.terms.values())
    assert {0.0, 1.0} >= set(found.target.unique().tolist())
    total(found).backward()
    assert mask_logits.grad.isfinite().all()


def test_nothing_is_learned_of_absent_classes_nor_of_images_without_one():
    mask_logits = random(4, 4, SIDE, SIDE).requires_grad_()
    total(judge(mask_logits)).backward()
    learned = mask_logits.grad.abs().sum(dim=(2, 3)) > 0
    assert torch.equal(learned, MULTI.bool())
    mask_logits.grad = None
    found = judge(mask_logits, torch.zeros(4, 4))
    total(found).backward()
    assert total(found) == 0
    assert not mask_logits.grad.any()


def test_losses_are_float32_under_mixed_precision():
    explanandum, mask_logits = classifier(), random(4, 4, SIDE, SIDE)
    exact = judge(mask_logits, explanandum=explanandum)
    with torch.autocast("cpu", torch.bfloat16):
        found = judge(mask_logits.bfloat16().float(), explanandum=explanandum)
    for name, term in found.terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(exact.terms[name].item(), rel=0.02)


# The alternative image


def test_one_alternative_takes_the_place_of_what_is_deleted_in_both_images(monkeypatch):
    explanandum, seen = classifier(), []
    monkeypatch.setattr(explanandum, "forward", lambda image: seen.append(image) or torch.zeros(len(image), 4))
    mask_logits = torch.full((4, 4, SIDE, SIDE), -1e4)
    mask_logits[:, :, :2] = 1e4
    judge(mask_logits, torch.eye(4), explanandum=explanandum)
    kept, cut = seen[0].unflatten(0, (4, 2)).unbind(dim=1)
    image = random(4, 3, SIDE, SIDE, seed=1)
    alternative = alternative_images(image, [crc32(name.encode()) for name in NAMES])
    assert torch.equal(kept, torch.cat([image[:, :, :2], alternative[:, :, 2:]], dim=2))
    assert torch.equal(cut, torch.cat([alternative[:, :, :2], image[:, :, 2:]], dim=2))


def test_half_of_the_alternatives_are_blurred_and_half_are_noisy_colours_around_the_mean():
    image = 1.0 + random(1, 3, 24, 24).expand(400, -1, -1, -1)
    alternative = alternative_images(image, list(range(400)))
    blurred = torch.tensor([torch.equal(each, gaussian_blur(image[:1], 81, 10)[0]) for each in alternative])
    assert 0.4 < blurred.float().mean() < 0.6
    coloured = alternative[~blurred]
    colour, noise = coloured.mean(dim=(2, 3)), coloured.std(dim=(2, 3)).mean()
    assert noise == pytest.approx(NOISE, rel=0.02)
    assert colour.abs().max() < COLOUR_RANGE + 0.02
    assert colour.mean().abs() < 0.03
    assert colour.std() == pytest.approx(2 * COLOUR_RANGE / math.sqrt(12), rel=0.05)
    assert torch.corrcoef(colour.T).fill_diagonal_(0).abs().max() < 0.3, "each channel has a colour of its own"


def test_in_validation_an_image_has_the_same_alternative_in_whatever_batch_and_epoch():
    mask_logits = random(4, 4, SIDE, SIDE)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    together = judge(mask_logits)
    assert torch.equal(torch.get_rng_state(), before)
    parts = [judge(mask_logits, rows=rows) for rows in ([0, 1, 2], [3])]
    for name, term in together.terms.items():
        assert (3 * parts[0].terms[name] + parts[1].terms[name]).item() / 4 == pytest.approx(term.item(), abs=1e-6)
    torch.testing.assert_close(together.masked_logits, torch.cat([part.masked_logits for part in parts]))


def test_in_training_alternatives_are_new_each_time_but_follow_the_seed():
    mask_logits = random(4, 4, SIDE, SIDE)
    torch.manual_seed(0)
    first, second = (judge(mask_logits, fresh=True).masked_logits for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(judge(mask_logits, fresh=True).masked_logits, first)
    assert not torch.equal(first, second)


# Training


def test_masks_learn_to_show_what_the_classifier_reads():
    """Each class is a bright square on dark ground; its mask shows the square, and nothing else, which costs area."""

    class Cautious(WindowNet):
        def forward(self, image):
            return super().forward(image) - 4

    explanandum = freeze(Cautious())
    window = explanandum.model.windows.windows.bool()
    image = torch.where(window, 7.0, -1.0)[:, None].expand(-1, 3, -1, -1)
    batch = Batch(image, torch.eye(3), ("a", "b", "c"))
    mask_logits = torch.zeros(3, 3, SIZE, SIZE, requires_grad=True)
    objective, optimizer = Rtis(), torch.optim.Adam([mask_logits], lr=0.2)

    def validation_loss():
        with torch.no_grad():
            return objective.total(objective.judge(explanandum, batch, mask_logits, fresh=False).terms).item()

    torch.manual_seed(0)
    before = validation_loss()
    for _ in range(60):
        optimizer.zero_grad()
        objective.total(objective.judge(explanandum, batch, mask_logits, fresh=True).terms).backward()
        optimizer.step()
    assert validation_loss() < 0.5 * before
    for c, mask in enumerate(mask_logits.detach().sigmoid()[range(3), range(3)]):
        assert mask[window[c]].mean() > 0.8
        assert mask[~window[c]].mean() < 0.2


@both_outputs
def test_the_training_step_logs_and_scores_as_for_every_objective(output, monkeypatch):
    explanandum, labels = classifier(output), LABELS[output]

    class Masks(torch.nn.Module):
        num_classes = 4
        logits = random(4, 4, SIDE, SIDE)

        def forward(self, image):
            return self.logits

    module = ExplainerModule(Masks(), explanandum, Rtis(OPTIONS))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.validation_step(Batch(random(4, 3, SIDE, SIDE, seed=1), labels, NAMES), 0)
    found = judge(Masks.logits, labels, explanandum=explanandum)
    assert module.means["val_loss"].compute() == pytest.approx(total(found).item())
    for name, term in found.terms.items():
        assert module.means[f"val/{name}"].compute() == pytest.approx(term.item())
        assert module.means[f"val/{name}_weighted"].compute() == pytest.approx(
            Rtis(OPTIONS).weights[name] * term.item()
        )
    module.val_f_score.reset()
    expected = module.val_f_score(
        explanandum.probabilities(found.masked_logits), labels.argmax(1) if output == "single_label" else labels.int()
    )
    module.validation_step(Batch(random(4, 3, SIDE, SIDE, seed=1), labels, NAMES), 0)
    assert module.val_f_score.compute() == expected


@pytest.mark.parametrize("option", ["tv", "area", "destroyer", "power"])
def test_a_weight_that_rewards_what_it_should_cost_is_an_error(option):
    with pytest.raises(ValueError, match=f"--rtis.{option} is -1"):
        parse([f"--rtis.{option}", "-1"])


EPOCHS = 2
RTIS = ("--objective", "rtis", "--rtis.area", "0.5", "--epochs", EPOCHS)


@pytest.fixture(scope="module")
def rtis_run(tmp_path_factory):
    """A run of this objective; not to be changed."""
    return train.main(arguments(tmp_path_factory.mktemp("runs"), *RTIS)).path


def test_a_run_logs_terms_scores_and_segmentation(rtis_run):
    lines = rows(rtis_run)
    assert len(lines) == EPOCHS
    weights = Rtis(RtisOptions(area=0.5)).weights
    for line in lines:
        for stage in ("train", "val"):
            values = {name: float(line[f"{stage}/{name}"]) for name in weights}
            for name, value in values.items():
                assert float(line[f"{stage}/{name}_weighted"]) == pytest.approx(weights[name] * value, rel=1e-4)
            loss = sum(weights[name] * value for name, value in values.items())
            assert float(line[f"{stage}_loss"]) == pytest.approx(loss, rel=1e-4)
        assert {"f_score/train_masked", "f_score/val_masked", "f_score/val_unmasked"} <= line.keys()
        assert {"segmentation/acc", "segmentation/iou"} <= line.keys()
        assert "train/classification" not in line
    assert float(lines[-1]["val_loss"]) < float(lines[0]["val_loss"])


def test_a_run_that_was_stopped_ends_as_an_unbroken_one_and_keeps_its_options(rtis_run):
    part = train.main([*arguments(rtis_run.parent, *RTIS, "--epochs", "1"), "--name", "part"]).path
    with pytest.raises(ValueError, match="keeps its rtis"):
        parse(["--resume", str(part), "--rtis.area", "1"])
    train.main(["--resume", str(part), "--epochs", str(EPOCHS)])
    assert_same_weights(part / "explainer.safetensors", rtis_run / "explainer.safetensors")
    assert rows(part) == rows(rtis_run)


def test_evaluation_shows_its_masks_as_the_explainers(rtis_run, tmp_path):
    options = ("--run", rtis_run, "--split", "val", "--methods", "explainer", "--tables", "segmentation")
    evaluate.main([*map(str, options), "--output", str(tmp_path), "--accelerator", "cpu"])
    (row,) = [row for row in read_table(tmp_path / "segmentation.csv") if row["method"] == "explainer"]
    best = min(rows(rtis_run), key=lambda line: float(line["val_loss"]))
    for name in ("acc", "iou"):
        assert row[name] == pytest.approx(float(best[f"segmentation/{name}"]), rel=1e-3)


def test_teachers_teach_beside_it(rtis_run):
    more = ("--objective", "rtis", "--distill.teachers", "grad_cam", "--distill.weight", "0.5", "--epochs", "1")
    (line,) = rows(train.main([*arguments(rtis_run.parent, *more), "--name", "taught"]).path)
    own = sum(float(line[f"train/{name}_weighted"]) for name in Rtis().weights)
    assert float(line["train/distill_weighted"]) == pytest.approx(0.5 * float(line["train/distill"]), rel=1e-3)
    assert float(line["train_loss"]) == pytest.approx(own + 0.5 * float(line["train/distill"]), rel=1e-3)
    assert float(line["val_loss"]) == pytest.approx(sum(float(line[f"val/{n}_weighted"]) for n in Rtis().weights), 1e-3)
