"""The tables, one a file."""

from explainer.evaluation.tables.base import SplitFacts, Table
from explainer.evaluation.tables.curve_examples import CurveExamplesOptions, CurveExamplesTable
from explainer.evaluation.tables.examples import ExamplesOptions, ExamplesTable
from explainer.evaluation.tables.gallery import GalleryOptions, GalleryTable
from explainer.evaluation.tables.insertion_deletion import InsertionDeletionOptions, InsertionDeletionTable
from explainer.evaluation.tables.masking import MaskingOptions, MaskingTable
from explainer.evaluation.tables.pointing import PointingOptions, PointingTable
from explainer.evaluation.tables.recognition import RecognitionOptions, RecognitionTable
from explainer.evaluation.tables.sanity import SanityOptions, SanityTable
from explainer.evaluation.tables.sanity_examples import SanityExamplesOptions, SanityExamplesTable
from explainer.evaluation.tables.segmentation import SegmentationOptions, SegmentationTable
from explainer.evaluation.tables.shortcut import ShortcutOptions, ShortcutTable
from explainer.evaluation.tables.timing import TimingOptions, TimingTable
from explainer.evaluation.tables.top_classes import TopClassesOptions, TopClassesTable

__all__ = [
    "CurveExamplesOptions", "CurveExamplesTable", "ExamplesOptions", "ExamplesTable", "GalleryOptions",
    "GalleryTable", "InsertionDeletionOptions", "InsertionDeletionTable", "MaskingOptions", "MaskingTable",
    "PointingOptions", "PointingTable", "RecognitionOptions", "RecognitionTable", "SanityExamplesOptions",
    "SanityExamplesTable", "SanityOptions", "SanityTable", "SegmentationOptions", "SegmentationTable",
    "ShortcutOptions", "ShortcutTable", "SplitFacts", "Table", "TimingOptions", "TimingTable", "TopClassesOptions",
    "TopClassesTable",
]  # fmt: skip
