"""What README.md and its neighbours show works."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)  # code has brackets of its own
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_the_python_examples_run_one_after_the_other(small_run, tmp_path, capsys):
    example = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL))
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    example = example.replace('"runs/demo"', repr(str(small_run))).replace("photo.jpg", str(tmp_path / "photo.jpg"))
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'disc': '0." in printed
    assert "torch.Size([2, 32, 32])" in printed
