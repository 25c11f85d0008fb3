"""Methods × tables over a data set: maps computed once, scores kept per image, tables made from the scores.

`images.py`, `methods.py` and `maps.py` hold what a table is handed, `tables/` the tables, `records.py` what was scored
so far, `keys.py` the names by which maps and scores are found again, `measures.py` the way from scores to numbers with
intervals, `module.py` the loop over the images.
"""

from explainer.evaluation.maps import MapCache
from explainer.evaluation.methods import NamedMethod, named_method
from explainer.evaluation.module import Evaluation, Job
from explainer.evaluation.records import Records

__all__ = ["Evaluation", "Job", "MapCache", "NamedMethod", "Records", "named_method"]
