"""Damaged results: the report page names the file and what is wrong with it."""

import json

import pytest

from benchmarks.report import Names, make_results
from explainer.report.__main__ import main
from explainer.report.page import write_page
from explainer.report.tables import write_table

HEADER = "method,image,class,probability,tile\n"
DAMAGED = {
    "no text": ("segmentation.csv", b"method,iou\n\xff\xfe,1\n", r"segmentation.csv is damaged \('utf-8' codec"),
    "a cell without end": ("gallery_tiles.csv", f"{HEADER}a,b,c,1,{'A' * 200_000}\n".encode(), "_tiles.csv is damaged"),
    "no picture": ("gallery_tiles.csv", f"{HEADER}a,b,c,1,PHN2Zz4=\n".encode(), "gallery_tiles.csv: 'PHN2Zz4=…' is no"),
    "no mask": (
        "top_classes_tiles.csv",
        b"method,image,rank,class,present,cls,ama,tile\na,b,1,c,1,1,1,PHN2\n",
        "es.csv: 'P",
    ),
    "a bound in words": ("a.csv", b"method,iou,iou_low,iou_high\na,1,0,x\n", "a.csv has 'x' in the column iou_high"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_the_file_is_named(tmp_path, what):
    name, content, message = DAMAGED[what]
    write_table([{"method": "a", "iou": 1}], tmp_path / "segmentation")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        main([str(tmp_path)])


def test_options_of_another_kind_do_no_harm(tmp_path):
    write_table([{"method": "a", "iou": 1}], tmp_path / "segmentation")
    (tmp_path / "segmentation.json").write_text(json.dumps({"options": [1, 2], "command": ["a"]}))
    assert "[1, 2]" in write_page([tmp_path]).read_text()


def test_results_of_a_single_method_make_a_page(tmp_path):
    folder = make_results(tmp_path / "results", Names(["a.jpg"], ("explainer",), ("cat", "dog")), side=16)
    assert not list(folder.glob("*_differences.csv"))
    assert write_page([folder]).is_file()
