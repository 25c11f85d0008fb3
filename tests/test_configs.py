"""The recipes that are shipped: all of them parse, and the published ones hold the published values."""

from pathlib import Path

import pytest
import yaml

from explainer.classifiers import require_known
from programs.recipes import find_recipe, parse

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.glob("*.y*ml"))
DATASETS = ("shapes", "voc", "coco", "folder", "imagenet")

# lr, entropy, tv, A(m), A(n), B, patience: the settings of the authors' code, and the classifier's learning rate.
PUBLISHED = {
    ("voc", "vgg16"): (1e-5, 1.0, 1.0, 0.1, 0.3, 1.0, 5, 1e-5),
    ("voc", "resnet50"): (1e-4, 3.0, 1.0, 0.01, 0.3, 0.8, 5, 1e-4),
    ("coco", "vgg16"): (1e-5, 1.0, 0.3, 0.03, 0.1, 0.3, 2, 1e-5),
    ("coco", "resnet50"): (1e-5, 3.0, 0.05, 0.01, 0.03, 0.1, 2, 1e-4),
}


def read(file):
    return yaml.safe_load(file.read_text())


def keys(content, prefix=""):
    """Nested options -> group.name."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_recipes_are_there():
    assert len(FILES) >= 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_parses_and_takes_effect(file):
    options, text = parse(["--config", str(file)])
    used = yaml.safe_load(text)
    for name in keys(read(file)):
        *group, key = name.split(".")
        place, written = used, read(file)
        for part in group:
            place, written = place[part], written[part]
        assert key in place, f"unknown key {name}"
        assert place[key] == written[key], name
    require_known(options.run.explanandum)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_a_recipe_by_its_name_or_names_what_it_is_for(file):
    content = read(file)
    dataset, _, explanandum = file.stem.partition("_")
    if file.stem == "own":
        assert find_recipe(["--dataset", "voc", "--explanandum", "path/to/file.py:make_model"]) == file
    elif "dataset" not in content:
        assert dataset in DATASETS
        found = {find_recipe(["--dataset", dataset, "--explanandum", name]) for name in (
            explanandum, explanandum.replace("-", ":", 1),
        )}  # fmt: skip
        assert file in found
    assert file.read_text().startswith("#"), "say in a comment what the recipe is for"


@pytest.mark.parametrize("dataset_and_explanandum", PUBLISHED)
def test_published_values(dataset_and_explanandum):
    dataset, explanandum = dataset_and_explanandum
    options, _ = parse(["--dataset", dataset, "--explanandum", explanandum])
    loss = options.loss
    assert (
        *(options.optimizer.lr, loss.entropy, loss.tv, loss.area_target, loss.area_nontarget, loss.bound),
        *(options.run.patience, options.finetune.lr),
    ) == PUBLISHED[dataset_and_explanandum]


@pytest.mark.parametrize("dataset_and_explanandum", PUBLISHED)
def test_what_the_authors_have_in_common(dataset_and_explanandum):
    dataset, explanandum = dataset_and_explanandum
    options, _ = parse(["--dataset", dataset, "--explanandum", explanandum])
    assert (options.loss.min_area, options.loss.max_area) == (0.05, 0.3)
    assert (options.data.batch_size, options.data.image_size, options.data.augment) == (16, 224, False)
    assert (options.run.encoder, options.run.encoder_weights, options.run.seed) == ("resnet50", "none", 42)
    assert (options.optimizer.schedule, options.optimizer.warmup_steps, options.run.epochs) == ("constant", 0, 1000)
    assert (options.finetune.freeze, options.finetune.hidden, options.finetune.batch_size) == (True, 4096, 16)
    assert options.run.explanandum_weights == "imagenet"
