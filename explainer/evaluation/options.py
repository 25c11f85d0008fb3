"""What a command line can say of each table, and the tables that come of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from explainer.attribution import AttributionMethod
from explainer.evaluation.tables import (
    CurveExamplesOptions,
    CurveExamplesTable,
    ExamplesOptions,
    ExamplesTable,
    GalleryOptions,
    GalleryTable,
    InsertionDeletionOptions,
    InsertionDeletionTable,
    MaskingOptions,
    MaskingTable,
    PointingOptions,
    PointingTable,
    RecognitionOptions,
    RecognitionTable,
    SanityExamplesOptions,
    SanityExamplesTable,
    SanityOptions,
    SanityTable,
    SegmentationOptions,
    SegmentationTable,
    ShortcutOptions,
    ShortcutTable,
    SplitFacts,
    Table,
    TimingOptions,
    TimingTable,
    TopClassesOptions,
    TopClassesTable,
)
from explainer.explanandum import Explanandum

TABLES: dict[str, type[Table]] = {
    table.name: table
    for table in (
        SegmentationTable,
        MaskingTable,
        InsertionDeletionTable,
        PointingTable,
        RecognitionTable,
        TimingTable,
        SanityTable,
        ShortcutTable,
        ExamplesTable,
        GalleryTable,
        TopClassesTable,
        CurveExamplesTable,
        SanityExamplesTable,
    )
}


class UnsuitedError(ValueError):
    """A table can't be made of this data set, whatever its options."""


@dataclass
class TableOptions:
    """The options of the tables, by their names; the shortcut table's only one is the data set's (see `Setting`)."""

    segmentation: SegmentationOptions = field(default_factory=SegmentationOptions)
    masking: MaskingOptions = field(default_factory=MaskingOptions)
    insertion_deletion: InsertionDeletionOptions = field(default_factory=InsertionDeletionOptions)
    pointing: PointingOptions = field(default_factory=PointingOptions)
    recognition: RecognitionOptions = field(default_factory=RecognitionOptions)
    timing: TimingOptions = field(default_factory=TimingOptions)
    sanity: SanityOptions = field(default_factory=SanityOptions)
    examples: ExamplesOptions = field(default_factory=ExamplesOptions)
    gallery: GalleryOptions = field(default_factory=GalleryOptions)
    top_classes: TopClassesOptions = field(default_factory=TopClassesOptions)
    curve_examples: CurveExamplesOptions = field(default_factory=CurveExamplesOptions)
    sanity_examples: SanityExamplesOptions = field(default_factory=SanityExamplesOptions)


@dataclass(frozen=True)
class Setting:
    """What tables must know besides their options.

    Args:
        explanandum: the classifier.
        split: what the images have.
        masking_classes: gives the names for the masking table, if its options have none.
        shortcut_class: that a planted cue gives away; None if nothing is planted.
        training_hours: of the learned method, by name of its row.
        rebuild: makes the method of a name anew for another classifier.
    """

    explanandum: Explanandum
    split: SplitFacts
    masking_classes: Callable[[], tuple[str, ...]]
    shortcut_class: str | None
    training_hours: dict[str, float]
    rebuild: Callable[[str, Explanandum], AttributionMethod]


def make_table(name: str, options: TableOptions, setting: Setting) -> Table:
    """A table by its name.

    Raises:
        UnsuitedError: if it can't be made of the split; the message says why.
        ValueError: for an unknown name, and for classes that the classifier does not have.
    """
    if name not in TABLES:
        raise ValueError(f"Unknown table '{name}'; choose one of: {', '.join(TABLES)}.")
    table = _make(name, options, setting)
    reason = "" if table is None else table.unsuited(setting.split)
    if table is None or reason:
        raise UnsuitedError(f"The table '{name}' can't be made: {reason or 'no shortcut is planted in the split'}.")
    return table


def _make(name: str, options: TableOptions, setting: Setting) -> Table | None:
    explanandum = setting.explanandum
    if name == "masking":
        return MaskingTable(
            explanandum, replace(options.masking, classes=options.masking.classes or setting.masking_classes())
        )
    if name == "timing":
        return TimingTable(explanandum, options.timing, setting.training_hours)
    if name == "sanity":
        return SanityTable(explanandum, options.sanity, setting.rebuild)
    if name == "curve_examples":
        return CurveExamplesTable(explanandum, options.curve_examples, options.insertion_deletion)
    if name == "sanity_examples":
        return SanityExamplesTable(explanandum, options.sanity_examples, options.sanity, setting.rebuild)
    if name == "shortcut":
        cue = setting.shortcut_class
        return None if cue is None else ShortcutTable(explanandum, ShortcutOptions(cue))
    return TABLES[name](explanandum, getattr(options, name))
