"""What the report page says of each table, and which way its numbers are better."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UP, DOWN = 1, -1
BETTER = {
    **dict.fromkeys(("acc", "iou", "insertion", "over_all", "hit_rate", "over_maps", "hit", "specificity"), UP),
    **dict.fromkeys(("precision", "recall", "f_score", "on_target"), UP),
    **dict.fromkeys(("macro_precision", "macro_recall", "macro_f_score"), UP),
    **dict.fromkeys(("sal", "mae", "deletion"), DOWN),
    **dict.fromkeys(("seconds", "median_seconds", "forward", "backward"), DOWN),
}
"""By column. Of the others, such as shares on a planted cue, a good map is known only in context."""

REFERENCES = frozenset(
    ("zero", "half", "one", "ground_truth", "random", "center", "plain", "uniform", "photograph", "unmasked")
)
"""Rows to compare with, none of which can be the best."""

OPTIONAL_PARTS = ("_per_class", "_summary", "_specificity", "_classifiers", "_curves", "_differences")
"""Endings of the files beside a table's main one, in the order of the page."""


@dataclass(frozen=True)
class About:
    """The words of a section.

    Args:
        title: of the section.
        source: papers that have the table.
        text: what its numbers say.
    """

    title: str
    source: str = ""
    text: str = ""


ABOUT = {
    "segmentation": About(
        "Agreement with the ground truth",
        "NN-Explainer, Table 2",
        "Accuracy, IoU and mean absolute error of the continuous mask against the ground truth in percent, and the "
        "saliency score of Eq. 9. The rows zero, half, one and ground_truth show what these numbers say of constant "
        "masks and of the truth itself.",
    ),
    "insertion_deletion": About(
        "Insertion and deletion",
        "RISE; Group-CAM, Table 1; SIGCAM; PAMI, Table 2",
        "Area under the curve of the target's probability while the most important pixels are shown first (insertion) "
        "or hidden first (deletion), and the difference of both (over_all), in percent.",
    ),
    "masking": About(
        "Recognition of masked images",
        "NN-Explainer, Table 1",
        "Mean probability of a class, in percent, in images masked by its own mask or by that of another class, and "
        "without a mask. The specificity is the mean of the diagonal minus the mean off it.",
    ),
    "pointing": About(
        "Pointing game",
        "PAMI, Table 2; Group-CAM, Table 4; SIGCAM, Table 3",
        "How often the maximum of a map lies on the object, in percent: per class, then the mean over classes "
        "(hit_rate), and over all maps (over_maps). The rows random and center know nothing of the image.",
    ),
    "recognition": About(
        "What the classifier still finds",
        "NN-Explainer, Table 4",
        "Precision, recall and F-score of the classifier on masked images, and on plain ones (row plain), in percent.",
    ),
    "sanity": About(
        "Sanity checks",
        "Group-CAM, Sec. 4.5; Adebayo et al., 2018",
        "How alike maps stay when layers of the classifier get random weights. A map that explains the classifier "
        "must change: 0 says that nothing of it is left, 1 that it does not depend on the weights at all.",
    ),
    "shortcut": About(
        "Planted cue",
        "",
        "Share of a map, in percent, on the object, on a cue that was planted beside it, and elsewhere. An honest map "
        "shows the cue for a classifier that was trained with it.",
    ),
    "ablation": About(
        "Options under test",
        "Group-CAM, Table 2; SIGCAM, Table 1; PAMI, Fig. 4",
        "One option over a list of values, all others at their defaults.",
    ),
    "timing": About(
        "Cost",
        "NN-Explainer, Table 3; Group-CAM, Table 3",
        "Seconds for all classes of an image, and images that went forward and backward through the classifier. "
        "Seconds mean something only where nothing else ran.",
    ),
    "examples": About(
        "Examples in numbers",
        "",
        "Share of a map's mass on the class that was asked for, and share of the pixels that this class covers, in "
        "percent. The pictures are in the gallery.",
    ),
    "gallery": About(
        "Gallery in numbers",
        "",
        "Share of a map's mass on the class that was asked for, in percent, over the images of the gallery that are "
        "evenly spaced; what was added because runs differ there would bias it.",
    ),
    "top_classes": About(
        "Largest class masks in numbers",
        "NN-Explainer, Fig. 4 and 5",
        "CLS: probability that the classifier gives the class in the image as it is; AMA: mean of the class's mask, "
        "both in percent. Rank 0 is the mask of all classes in the image together.",
    ),
    "curve_examples": About("Insertion and deletion of single images", "Group-CAM, Fig. 4", "Areas in percent."),
    "sanity_examples": About("Sanity checks of single images", "Group-CAM, Fig. 6", "How alike the maps are."),
    "failures": About("Failures", "", "Methods that gave no usable map of an image, and why."),
}
"""By the name of the table, in the order of the page."""


def sections_of(stems: Iterable[str]) -> dict[str, list[str]]:
    """Which files stand together: each section's table first, then what belongs to it; unknown ones come last.

    `segmentation_per_class` belongs to `segmentation`; `pointing_sigcam`, a copy under another name, to `pointing`.
    """
    every = list(stems)
    heads = [name for name in ABOUT if any(belongs(stem, name) for stem in every)]
    found: dict[str, list[str]] = {name: [] for name in heads}
    for stem in every:
        found.setdefault(_head(stem, [*heads, *every]), []).append(stem)
    return {head: sorted(files, key=lambda stem: _place(stem, head)) for head, files in found.items() if files}


def belongs(stem: str, table: str) -> bool:
    """Whether a file is a table's, or made of it."""
    return stem == table or stem.startswith(f"{table}_")


def _head(stem: str, names: Sequence[str]) -> str:
    """The longest name of a section that the file belongs to; its own if there is none."""
    known = [name for name in names if belongs(stem, name) and (name in ABOUT or name == stem)]
    in_sections = [name for name in known if name in ABOUT]
    return max(in_sections or known, key=len)


def _place(stem: str, head: str) -> tuple[int, str]:
    rest = stem.removeprefix(head)
    return (OPTIONAL_PARTS.index(rest) + 2 if rest in OPTIONAL_PARTS else int(bool(rest))), stem
