"""The loop: images × methods × tables, on one device or several.

B images, C classes.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from explainer.evaluation.images import Images
from explainer.evaluation.maps import ClassMaps, MapSource, reason_of
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Record, Records, Row
from explainer.evaluation.tables.base import Table, nobody
from explainer.explanandum import Explanandum
from explainer.keys import digest

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Job:
    """A row of a table that is to be made.

    Args:
        table: that scores.
        method: that is scored; None for a row that needs none.
        own_row: the name of such a row.
    """

    table: Table
    method: NamedMethod | None = None
    own_row: str = ""

    @property
    def name(self) -> str:
        """Of the row."""
        return self.own_row if self.method is None else self.method.name

    def key(self, fingerprint: str, precision: str) -> str:
        """Equal for jobs whose scores are equal."""
        if self.method is None:
            method = self.own_row
        else:
            method = self.method.key if self.table.wants_maps else self.method.exact_key or self.method.key
        return digest(self.table.key, fingerprint, precision, method)


class Evaluation(LightningModule):
    """Score the images of a loader; run it with `Trainer.test` (and `inference_mode=False`: CAMs take gradients).

    For each method the maps of a batch are asked for once, whatever tables want them. Every score is written down at
    once, and what is written down already is not computed again, nor need the loader hold its image. With several
    processes each scores its share of the images; `scores` then reads what all of them wrote (to a folder that all of
    them see).

    Args:
        explanandum: the classifier.
        jobs: rows to make.
        maps: where maps come from.
        records: where scores go.
        image_ids: of all images of the split, in order.
        precision: of the computation, as Lightning names it.
        further: those of them that come to the images of each table.
    """

    def __init__(
        self,
        explanandum: Explanandum,
        jobs: Sequence[Job],
        maps: MapSource,
        records: Records,
        image_ids: Sequence[str],
        precision: str,
        further: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.explanandum: Explanandum = explanandum
        self.jobs = list(jobs)
        self.maps = maps
        self.records = records
        self.image_ids = list(image_ids)
        fingerprint = explanandum.fingerprint
        self.keys = {job: job.key(fingerprint, precision) for job in self.jobs}
        # An ablation's default variant, say, has the scores of the plain row; the first of such jobs scores for all.
        self.distinct: dict[str, Job] = {}
        for job, key in self.keys.items():
            self.distinct.setdefault(key, job)
        self.chosen = {
            table: _evenly(self.image_ids, table.limit) | set(further) for table in {job.table for job in self.jobs}
        }
        # Registered, so that they move to the device too.
        methods = [job.method.method for job in self.jobs if job.method is not None]
        networks = [part for method in methods for part in (method.explanandum, *method.modules)]
        self.networks = nn.ModuleList(dict.fromkeys(networks))
        self.told: set[str] = set()  # methods of which a failure has been printed; the others are in the records

    def on_test_start(self) -> None:
        """Each process writes to a file of its own; which one it is, is known now."""
        self.records.rank = self.global_rank

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        """Score what has not been scored yet."""
        self._skip(batch.skipped)
        images = Images(batch, self.explanandum)
        todo = self._sort_out(self._todo(images), images)
        for job, indices in todo.items():
            if job.method is None:
                rows = job.table.score_own(job.own_row, images.subset(indices))
                self._write_rows(job, images, indices, rows)
        asks = {table: _asked(table, images) for table in {job.table for job in todo if job.method is not None}}
        for jobs in _by_method(todo):
            self._score(jobs, images, asks)

    def _skip(self, names: Sequence[str]) -> None:
        """Write down the images that could not be read."""
        for key, job in self.distinct.items():
            for name in names:
                if name in self.chosen[job.table] and not self.records.is_done(key, name, UNREADABLE):
                    self.records.add(key, name, UNREADABLE, Record(left_out=UNREADABLE))

    def _todo(self, images: Images) -> dict[Job, list[int]]:
        """For each job the images that it lacks."""
        lacking = {
            job: [
                index
                for index, name in enumerate(images.names)
                if name in self.chosen[job.table]
                and not self.records.is_done(key, name, self._content(job, images, index))
            ]
            for key, job in self.distinct.items()
        }
        return {job: indices for job, indices in lacking.items() if indices}

    def _sort_out(self, todo: dict[Job, list[int]], images: Images) -> dict[Job, list[int]]:
        """Write down the images that a table has no place for; the others remain to be scored."""
        reasons = {table: table.left_out(images) for table in {job.table for job in todo}}
        remaining = {}
        for job, indices in todo.items():
            why = reasons[job.table]
            for index in indices:
                if why[index]:
                    self._write(job, images, index, Record(left_out=why[index]))
            remaining[job] = [index for index in indices if not why[index]]
        return {job: indices for job, indices in remaining.items() if indices}

    def _score(self, jobs: dict[Job, list[int]], images: Images, asks: dict[Table, Tensor]) -> None:
        """All rows of one method, from one call for maps."""
        wanted = nobody(images)
        for job, indices in jobs.items():
            wanted[indices] |= asks[job.table][indices]
        method = next(iter(jobs)).method
        assert method is not None  # see `_by_method`
        maps, failures = self.maps(method, images, wanted)
        for job, indices in jobs.items():
            asked = asks[job.table]
            # Only the maps that this table asked for: its scores must not depend on what others want.
            failed = {index: reason for (index, target), reason in failures.items() if asked[index, target]}
            for index in indices:
                if index in failed:
                    self._write(job, images, index, Record(failed=failed[index]))
            rest = [index for index in indices if index not in failed]
            if rest:
                self._attempt(job, rest, images, maps, asked)

    def _attempt(self, job: Job, indices: list[int], images: Images, maps: ClassMaps, asked: Tensor) -> None:
        """Score images together; if the method fails in a table that calls it, one by one."""
        assert job.method is not None
        try:
            rows = job.table.score(images.subset(indices), maps.select(asked, indices), job.method)
        except Exception as error:
            if not job.table.calls_methods:
                raise
            reason = reason_of(error)  # the error itself, with all tensors of its frames, is let go before the retry
        else:
            self._write_rows(job, images, indices, rows)
            return
        if len(indices) == 1:
            self._write(job, images, indices[0], Record(failed=reason))
        else:
            for index in indices:
                self._attempt(job, [index], images, maps, asked)

    def _write_rows(self, job: Job, images: Images, indices: list[int], rows: list[list[Row]]) -> None:
        for index, of_image in zip(indices, rows, strict=True):
            reason = _not_finite(of_image)
            self._write(job, images, index, Record(failed=reason) if reason else Record(of_image))

    def _write(self, job: Job, images: Images, index: int, record: Record) -> None:
        if record.failed and job.name not in self.told:
            self.told.add(job.name)
            print(f"{job.name} failed on {images.names[index]} ({job.table.name}): {record.failed}", flush=True)
        self.records.add(self.keys[job], images.names[index], self._content(job, images, index), record)

    def _content(self, job: Job, images: Images, index: int) -> str:
        """All that a score depends on besides the job."""
        return images.content_keys[index] + job.table.circumstances(images.image.device)

    def on_test_epoch_end(self) -> None:
        """Wait until every process has written its last score, then read them all.

        Raises:
            ValueError: if some are not there.
        """
        self.trainer.strategy.barrier()
        self.records.read()
        for job in self.jobs:
            lacking = len(self.chosen[job.table]) - len(self._kept(job))
            if lacking:
                raise ValueError(
                    f"{lacking} of {len(self.chosen[job.table])} images have no score of {job.name} in the table "
                    f"'{job.table.name}'. Every process must see the folder {self.records.folder}; then run again."
                )

    def scores(self, job: Job) -> MethodScores:
        """What is known of a job."""
        kept = self._kept(job)
        return MethodScores(
            job.name,
            {name: record.rows for name, record in kept if not record.failed and not record.left_out},
            {name: record.failed for name, record in kept if record.failed},
            "" if job.method is None else job.method.classifier,
        )

    def left_out(self, table: Table) -> Counter[str]:
        """How many images the table has no place for, by reason; an image counts once, not for each row."""
        for job in self.jobs:
            if job.table is table:
                return Counter(record.left_out for _, record in self._kept(job) if record.left_out)
        return Counter()  # a table without rows

    def _kept(self, job: Job) -> list[tuple[str, Record]]:
        """The records of the images that the table is made of, in order."""
        return self.records.of(self.keys[job], [name for name in self.image_ids if name in self.chosen[job.table]])


def _not_finite(rows: list[Row]) -> str:
    """Which value of an image's rows is not a finite number; empty if all are."""
    values = ((name, value) for row in rows for name, value in row.items() if isinstance(value, float))
    return next((f"{name} is {value}" for name, value in values if not isfinite(value)), "")


def _asked(table: Table, images: Images) -> Tensor:
    """The maps that a table is to be handed, bool [B,C]."""
    return table.asks(images) if table.wants_maps else nobody(images)


def _by_method(todo: dict[Job, list[int]]) -> list[dict[Job, list[int]]]:
    """The jobs of each method together: of all whose maps are equal, though tables may have built their own."""
    groups: dict[str, dict[Job, list[int]]] = {}
    for job, indices in todo.items():
        if job.method is not None:
            groups.setdefault(job.method.key, {})[job] = indices
    return list(groups.values())


def _evenly(names: Sequence[str], limit: int | None) -> set[str]:
    """So many names, evenly spaced."""
    count = len(names) if limit is None else min(limit, len(names))
    return {names[position * len(names) // count] for position in range(count)}
