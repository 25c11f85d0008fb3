"""The command line: which value wins, and what a mistake is answered with."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from evaluate import EvaluateOptions, parse_evaluation
from programs.classifier_options import LISTS, ClassifierOptions
from programs.recipes import find_recipe, parse
from programs.train_options import FLAT, NESTED, make_parser

ROOT = Path(__file__).parents[1]
RECIPE = ("--dataset", "voc", "--explanandum", "resnet50")


def options(*arguments):
    """Options of train.py."""
    return parse([str(argument) for argument in arguments])[0]


@pytest.fixture
def config(tmp_path):
    """Writes a YAML file of options."""

    def write(**content):
        file = tmp_path / f"config{len(list(tmp_path.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture
def refusal(capsys):
    """What train.py says to a wrong command line, on stderr, with exit status 2."""

    def ask(*arguments, program=parse):
        with pytest.raises(SystemExit) as stop:
            program([str(argument) for argument in arguments])
        assert stop.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    return ask


def test_code_default_without_anything_else():
    chosen = options("--dataset", "folder", "--explanandum", "resnet34")  # no recipe of that name
    assert (chosen.optimizer.lr, chosen.loss.entropy, chosen.finetune.lr) == (1e-5, 1.0, 1e-5)


def test_recipe_beats_code_default():
    chosen = options(*RECIPE)
    assert (chosen.optimizer.lr, chosen.loss.entropy, chosen.finetune.lr) == (1e-4, 3.0, 1e-4)


def test_config_file_beats_recipe_only_where_it_says_something(config):
    chosen = options(*RECIPE, "--config", config(lr=0.5, loss={"entropy": 7.0}))
    assert (chosen.optimizer.lr, chosen.loss.entropy) == (0.5, 7.0)
    assert (chosen.loss.bound, chosen.finetune.lr) == (0.8, 1e-4)


def test_flag_beats_config_file_wherever_it_stands(config):
    file = config(lr=0.5, loss={"entropy": 7.0})
    for arguments in (
        (*RECIPE, "--config", file, "--lr", 0.25, "--loss.entropy", 9),
        ("--lr", 0.25, "--loss.entropy", 9, *RECIPE, "--config", file),
        ("--lr=0.25", f"--config={file}", "--loss.entropy=9", *RECIPE),
    ):
        chosen = options(*arguments)
        assert (chosen.optimizer.lr, chosen.loss.entropy, chosen.loss.bound) == (0.25, 9.0, 0.8)


def test_the_later_of_two_config_files_wins(config):
    assert options("--config", config(lr=0.5, epochs=3), "--config", config(lr=0.25)).optimizer.lr == 0.25
    assert options("--config", config(lr=0.5, epochs=3), "--config", config(lr=0.25)).run.epochs == 3


def test_the_recipe_follows_what_a_config_file_names(config):
    file = config(dataset="voc", explanandum="resnet50")
    assert options("--config", file).loss.bound == 0.8
    assert options("--config", file, "--explanandum", "vgg16").loss.bound == 1.0


def test_law():
    chosen = options("--dataset", "voc", "--explanandum", "vgg16")
    assert (chosen.run.dataset, chosen.run.explanandum) == ("voc", "vgg16")
    assert yaml.safe_load((ROOT / "configs" / "voc_vgg16.yaml").read_text())["loss"]["area_target"] == 0.1
    assert chosen.loss.area_target == 0.1


def test_a_timm_explanandum_has_a_recipe_without_a_colon_in_its_name():
    recipe = yaml.safe_load((ROOT / "configs" / "shapes_timm-test_resnet.yaml").read_text())
    assert options("--dataset", "shapes", "--explanandum", "timm:test_resnet").data.image_size == recipe["image_size"]


def test_no_arguments_choose_the_embedded_data_set():
    assert options().run.dataset == "shapes"


@pytest.mark.parametrize("name", ["refit", "augment", "compile", "finetune.freeze"])
def test_switches_need_no_value(name):
    def value(*arguments):
        chosen = options("--dataset", "voc", *arguments)
        places = {"refit": chosen.run, "augment": chosen.data, "compile": chosen.machine}
        return getattr(places.get(name, chosen.finetune), name.split(".")[-1])

    assert value(f"--{name}", "--lr", "1") is True
    assert value(f"--{name}", "true") is True
    assert value(f"--{name}", "false") is False


def test_the_written_config_alone_gives_the_same_options(tmp_path):
    chosen, text = parse([*RECIPE, "--lr", "0.5", "--shapes.shortcut_class", "star", "--devices", "2", "--name", "x"])
    (tmp_path / "config.yaml").write_text(text)
    again, same = parse(["--config", str(tmp_path / "config.yaml")])
    assert again == chosen
    assert same == text


def test_one_time_wishes_are_not_written_down(tmp_path):
    _, text = parse([])
    (tmp_path / "config.yaml").write_text(text)
    chosen, again = parse(["--resume", str(tmp_path), "--refit"])
    assert (chosen.run.resume, chosen.run.refit) == (tmp_path, True)
    assert again == text


def test_resuming_takes_the_runs_options_and_flags_change_them(tmp_path, config):
    _, text = parse([*RECIPE, "--lr", "0.5", "--epochs", "3"])
    (tmp_path / "config.yaml").write_text(text)
    chosen = options("--resume", tmp_path, "--epochs", 9)
    assert (chosen.run.explanandum, chosen.optimizer.lr, chosen.run.epochs) == ("resnet50", 0.5, 9)
    assert options("--resume", tmp_path, "--config", config(epochs=8)).run.epochs == 8


@pytest.mark.parametrize(
    ("flag", "closest"),
    [
        ("--datset", "--dataset"),
        ("--loss.entropi", "--loss.entropy"),
        ("--learning_rate", None),
        ("--epoch", "--epochs"),  # no abbreviations: they would escape the search for the recipe
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_misspelt_flag_names_the_closest_and_lists_the_valid(refusal, flag, closest, joined):
    answer = refusal(f"{flag}=3") if joined else refusal(flag, "3")
    assert f"{flag} is no option" in answer
    if closest:
        assert re.search(rf"did you mean .*{closest}\b", answer)
    assert re.search(r"Valid: .*--dataset, .*--finetune.lr, .*--loss.entropy, .*--lr, ", answer)


@pytest.mark.parametrize(
    ("content", "wrong", "closest"),
    [
        ({"epochz": 3}, "--epochz", "--epochs"),
        ({"lr": 0.1, "loss": {"entropi": 3}}, "--loss.entropi", "--loss.entropy"),
        ({"finetune": {"epoch": 3}}, "--finetune.epoch", "--finetune.epochs"),
        ({"entropy": 3}, "--entropy", "--loss.entropy"),
    ],
)
def test_a_misspelt_key_of_a_file_names_the_closest_and_lists_the_valid(refusal, config, content, wrong, closest):
    answer = refusal("--config", config(**content))
    assert f"{wrong} is no option" in answer
    assert re.search(rf"did you mean .*{closest}\b", answer)
    assert re.search(r"Valid: .*--dataset, .*--loss.entropy", answer)


def test_a_misspelt_key_of_a_recipe_is_an_error_too(refusal, tmp_path, monkeypatch):
    (tmp_path / "voc_vgg16.yaml").write_text("loss:\n  entropi: 1\n")
    monkeypatch.setattr("programs.recipes.CONFIGS", tmp_path)
    assert "--loss.entropi is no option; did you mean --loss.entropy" in refusal(
        "--dataset", "voc", "--explanandum", "vgg16"
    )


def test_a_missing_config_file_is_named(refusal):
    assert "/nowhere/my.yaml" in refusal("--config", "/nowhere/my.yaml")
    with pytest.raises(FileNotFoundError, match="/nowhere/run is not the folder of a run"):
        parse(["--resume", "/nowhere/run"])
    assert "--config" in refusal("--config")


def test_a_config_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "broken.yaml").write_text("lr: [1\n")
    with pytest.raises(ValueError, match=r"broken.yaml is no valid YAML"):
        parse(["--config", str(tmp_path / "broken.yaml")])


def test_an_unknown_dataset_lists_the_valid_ones(refusal):
    answer = refusal("--dataset", "vok")
    for name in ("vok", "shapes", "voc", "coco", "folder"):
        assert name in answer


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--lr", "fast"), ("lr", "float", "fast")),
        (("--epochs", "1.5"), ("epochs", "int", "1.5")),
        (("--output_stride", "4"), ("output_stride", "8", "16")),
        (("--on_bad_image", "ignore"), ("on_bad_image", "error", "skip")),
        (("--schedule", "step"), ("schedule", "constant", "cosine")),
        (("--stage", "explainer"), ("stage", "all", "explanandum")),
        (("--refit", "perhaps"), ("refit", "perhaps")),
        (("--data_root",), ("--data_root",)),
        (("stray",), ("stray",)),
    ],
)
def test_a_wrong_value_is_an_error_that_names_option_type_and_value(refusal, arguments, named):
    answer = refusal(*arguments)
    for part in named:
        assert part in answer


def test_a_wrong_value_in_a_file_is_an_error_that_names_it(refusal, config):
    answer = refusal("--config", config(loss={"entropy": "high"}))
    assert "loss.entropy" in answer
    assert "high" in answer


@pytest.mark.parametrize("arguments", [("--loss.min_area", "0.9"), ("--batch_size", "0"), ("--limit_train", "0")])
def test_a_value_out_of_range_is_an_error_that_names_it(arguments):
    with pytest.raises(ValueError, match=arguments[0].split(".")[-1].lstrip("-")):
        parse(arguments)


def test_print_config_prints_what_would_be_used(capsys):
    with pytest.raises(SystemExit) as stop:
        parse([*RECIPE, "--lr", "0.5", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["lr"], printed["loss"]["bound"], printed["explanandum"]) == (0.5, 0.8, "resnet50")


def printed_help(program, capsys):
    with pytest.raises(SystemExit) as stop:
        program(["--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("program", [parse, parse_evaluation])
def test_help_fits_two_tall_screens(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # as without a terminal; processes of a parallel run claim to have one
    lines = printed_help(program, capsys).splitlines()
    assert len(lines) <= 128
    assert max(len(line) for line in lines) <= 170


def test_help_explains_every_option():
    # In the words of the dataclass's docstring: jsonargparse has a generic text, or none, for what it finds nothing on.
    parser = make_parser()
    said = {action.dest: action.help for action in parser._actions}
    groups = [("", options, skipped) for options, skipped in FLAT.values()]
    groups += [(f"{name}.", options, set()) for name, options in NESTED.items()]
    for prefix, options, skipped in groups:
        written = " ".join(inspect.getdoc(options).split())
        by_hand = set(LISTS) if options is ClassifierOptions else set()  # skipped, but added with several values
        for name in {item.name for item in fields(options)} - (skipped - by_hand):
            explanation = said.pop(prefix + name)
            assert re.search("[A-Za-z]{3}", explanation), name
            assert f" {name}: {explanation}" in written, name
    # What is left are the groups as a whole and jsonargparse's own options.
    assert said.keys() == {"help", "config", "print_config", *NESTED}
    text = parser.format_help()
    assert all(option in text for action in parser._actions for option in action.option_strings)


def test_every_option_of_evaluate_has_words_of_its_own(capsys):
    text = printed_help(parse_evaluation, capsys)
    options = re.findall(
        r"^  (--\w+)[^\n]*?  +(\S[^\n]*)$|^  (--\w+)[^\n]*\n {20,}(\S[^\n]*)$", text, flags=re.MULTILINE
    )
    said = {name or other: words or others for name, words, other, others in options}
    names = {item.name for item in (*fields(EvaluateOptions), *fields(ClassifierOptions))} - {"classifier"}
    assert {f"--{name}" for name in names} <= said.keys()
    assert all(re.match(r"[A-Za-z].*[a-z]{3}", words) for words in said.values())
    assert len(set(said.values())) == len(said)


def test_evaluate_names_the_closest_option_too(refusal):
    answer = refusal("--run", "RUN", "--method", "grad_cam", program=parse_evaluation)
    assert "--method is no option; did you mean --methods" in answer
    assert "--run" in refusal("--methods", "grad_cam", program=parse_evaluation)
    assert "segmentation" in refusal("--run", "RUN", "--tables", "insertion", program=parse_evaluation)


def test_a_resumed_run_keeps_what_decides_its_weights(tmp_path):
    _, config = parse(["--dataset", "voc", "--explanandum", "vgg16"])
    (tmp_path / "config.yaml").write_text(config)
    options, _ = parse(["--resume", str(tmp_path), "--epochs", "3", "--devices", "2"])
    assert options.run.epochs == 3
    for changed in (["--encoder", "resnet18"], ["--loss.tv", "2"], ["--seed", "1"], ["--explanandum", "resnet50"]):
        with pytest.raises(ValueError, match=f"keeps its .*{changed[0].split('.')[0].strip('-')}"):
            parse(["--resume", str(tmp_path), *changed])


def test_without_a_classifier_shapes_takes_a_tiny_one_and_photographs_the_papers_first():
    assert parse([])[0].run.explanandum == "timm:test_resnet"
    assert parse(["--dataset", "voc"])[0].run.explanandum == "vgg16"
    assert find_recipe(["--dataset", "voc"]) == find_recipe(["--dataset", "voc", "--explanandum", "vgg16"])


def test_a_file_of_options_cannot_have_code_run(config, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "net.py").write_text(f"open({str(marker)!r}, 'w')")
    file = config(explanandum=f"{tmp_path}/net.py:make_model")
    with pytest.raises(ValueError, match=r"made by code, '.*net\.py:make_model', which runs only if you name it"):
        parse(["--config", str(file)])
    named, _ = parse(["--config", str(file), "--explanandum", f"{tmp_path}/net.py:make_model"])
    assert named.run.explanandum.endswith("net.py:make_model")
    assert not marker.exists()  # not by reading options, whoever names it


@pytest.mark.parametrize(
    "text",
    [
        "lr: !!python/object/apply:os.system ['touch MARKER']\n",
        "optimizer:\n  class_path: os.system\n  init_args: {command: touch MARKER}\n",
        "lr: {class_path: os.system, init_args: {command: touch MARKER}}\n",
        "output_kind: {class_path: subprocess.Popen, init_args: {args: touch MARKER, shell: true}}\n",
    ],
)
def test_a_file_of_options_that_names_a_class_is_refused(tmp_path, text, capsys):
    (tmp_path / "evil.yaml").write_text(text.replace("MARKER", str(tmp_path / "ran")))
    with pytest.raises((SystemExit, ValueError)):
        parse(["--config", str(tmp_path / "evil.yaml")])
    assert not (tmp_path / "ran").exists()


def test_a_resumed_run_of_own_code_must_name_it_wherever_it_lies_now(tmp_path):
    (tmp_path / "config.yaml").write_text(parse(["--explanandum", "old/net.py:make_model"])[1])
    with pytest.raises(ValueError, match="runs only if you name it"):
        parse(["--resume", str(tmp_path)])
    assert parse(["--resume", str(tmp_path), "--explanandum", "new/net.py:make_model"])[0].run.resume == tmp_path
    with pytest.raises(ValueError, match="keeps its explanandum"):
        parse(["--resume", str(tmp_path), "--explanandum", "new/other.py:make_model"])


def test_what_a_classifiers_name_does_not_say_can_be_said(tmp_path):
    (tmp_path / "names.txt").write_text("sea cow\ndog\n")
    given = ["--mean", "0.1", "0.2", "0.3", "--std", "1", "1", "1", "--output_kind", "single_label"]
    chosen, text = parse([*given, "--class_names", str(tmp_path / "names.txt"), "--target_layer", "layer3"])
    classifier = chosen.classifier
    assert classifier.class_names == ["sea cow", "dog"]
    assert classifier.normalisation("vgg16") == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert (classifier.output_kind, classifier.target_layer) == ("single_label", "layer3")
    (tmp_path / "again.yaml").write_text(text)
    assert parse(["--config", str(tmp_path / "again.yaml")])[0].classifier == classifier


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--mean", "0", "0", "0"], "--mean and --std belong together"),
        (["--mean", "0", "0", "0", "--std", "1", "0", "1"], "--std must be positive"),
        (["--class_names", "a", "b", "a"], "--class_names has a more than once"),
    ],
)
def test_what_cannot_be_a_classifiers_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse(given)
