"""What is said of a classifier fits the data set, or nothing is begun."""

import pytest
from own_code import no_own_code, write_code
from small_data import options, save_image

import train
from datamodules import build_datamodule
from programs.classifier_options import ClassifierOptions, require_known_classes, require_single_labels

__all__ = ["no_own_code"]


def listed(root, table):
    """A data set of a table whose images are there."""
    for line in table.splitlines()[1:]:
        save_image(root / line.split(",")[0])
    (root / "labels.csv").write_text(table)
    return build_datamodule("folder", options(root))


def test_a_softmax_needs_images_of_exactly_one_class(tmp_path):
    table = "image,split,labels\na.png,train,cat\nb.png,val,dog\n"
    require_single_labels(listed(tmp_path, table))
    with pytest.raises(ValueError, match=r"c\.png \(train\) has 2"):
        require_single_labels(listed(tmp_path, table + "c.png,train,cat;dog\n"))
    with pytest.raises(ValueError, match=r"d\.png \(val\) has 0.*--output_kind multi_label"):
        require_single_labels(listed(tmp_path, table + "d.png,val,\n"))


def test_names_must_be_those_of_a_data_set_that_has_its_own(tmp_path):
    shapes = build_datamodule("shapes", options(image_size=32))
    require_known_classes(ClassifierOptions(), shapes)
    require_known_classes(ClassifierOptions(list(shapes.classes)), shapes)
    with pytest.raises(ValueError, match="fixes its 10 classes and their order: disc, square"):
        require_known_classes(ClassifierOptions(list(shapes.classes[::-1])), shapes)


@pytest.mark.usefixtures("no_own_code")
def test_a_classifier_of_other_classes_is_refused_before_anything_is_made(tmp_path):
    listed(tmp_path / "data", "image,split,labels\na.png,train,cat\nb.png,val,dog\n")
    given = ["--dataset", "folder", "--data_root", str(tmp_path / "data"), "--image_size", "32", "--workers", "0"]
    given += ["--output", str(tmp_path / "runs")]
    net = write_code(tmp_path).replace("make_model", "Three")
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text() + "\ndef Three():\n    return Net(3)\n")
    with pytest.raises(ValueError, match="has 3 outputs, but there are 2 classes"):
        train.main([*given, "--explanandum", net])
    with pytest.raises(ValueError, match="random weights"):
        train.main([*given, "--explanandum", net.replace("Three", "make_model")])
    assert not list((tmp_path / "runs").iterdir())
