"""The loop: images × methods × tables, on one device or several.

B images, C classes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from datamodules.batch import Batch
from explainer.evaluation.images import Images
from explainer.evaluation.keys import digest
from explainer.evaluation.maps import ClassMaps, MapSource, reason_of
from explainer.evaluation.methods import NamedMethod
from explainer.evaluation.records import MethodScores, Record, Records
from explainer.evaluation.tables.base import Table, nobody
from explainer.explanandum import Explanandum

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
        method = self.own_row if self.method is None else self.method.key
        return digest(self.table.key, fingerprint, precision, method)


class Evaluation(LightningModule):
    """Score the images of a loader; run it with `Trainer.test` (and `inference_mode=False`: CAMs take gradients).

    For each method the maps of a batch are asked for once, whatever tables want them. Every score is written down at
    once, and what is written down already is not computed again. With several processes each scores its share of the
    images; `scores` then reads what all of them wrote (to a folder that all of them see).

    Args:
        explanandum: the classifier.
        jobs: rows to make.
        maps: where maps come from.
        records: where scores go.
        image_ids: of all images of the split, in order.
        precision: of the computation, as Lightning names it.
    """

    def __init__(
        self,
        explanandum: Explanandum,
        jobs: Sequence[Job],
        maps: MapSource,
        records: Records,
        image_ids: Sequence[str],
        precision: str,
    ) -> None:
        super().__init__()
        self.explanandum: Explanandum = explanandum
        self.jobs = list(jobs)
        self.maps = maps
        self.records = records
        self.image_ids = list(image_ids)
        fingerprint = explanandum.fingerprint
        self.keys = {job: job.key(fingerprint, precision) for job in self.jobs}
        self.chosen = {table: _evenly(self.image_ids, table.limit) for table in {job.table for job in self.jobs}}
        # Registered, so that they move to the device too.
        methods = [job.method.method for job in self.jobs if job.method is not None]
        self.networks = nn.ModuleList([part for method in methods for part in (method.explanandum, *method.modules)])

    def on_test_start(self) -> None:
        """Each process writes to a file of its own; which one it is, is known now."""
        self.records.rank = self.global_rank

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        """Score what has not been scored yet."""
        for key in self.keys.values():
            for name in batch.skipped:
                self.records.add(key, name, UNREADABLE, Record(left_out=UNREADABLE))
        images = Images(batch, self.explanandum)
        todo = self._todo(images)
        left_out = {table: table.left_out(images) for table in {job.table for job in todo}}
        for job, indices in todo.items():
            for index in indices:
                if left_out[job.table][index]:
                    self._write(job, images, index, Record(left_out=left_out[job.table][index]))
        scored = {job: [index for index in indices if not left_out[job.table][index]] for job, indices in todo.items()}
        for job, indices in scored.items():
            if job.method is None and indices:
                rows = job.table.score_own(job.own_row, images.subset(indices))
                for index, of_image in zip(indices, rows, strict=True):
                    self._write(job, images, index, Record(of_image))
        for method in dict.fromkeys(job.method for job in scored if job.method is not None):
            self._score(method, {job: indices for job, indices in scored.items() if job.method is method}, images)

    def _todo(self, images: Images) -> dict[Job, list[int]]:
        """For each job the images that it lacks."""
        content = images.content_keys
        lacking = {
            job: [
                index
                for index, name in enumerate(images.names)
                if name in self.chosen[job.table] and not self.records.is_done(key, name, content[index])
            ]
            for job, key in self.keys.items()
        }
        return {job: indices for job, indices in lacking.items() if indices}

    def _score(self, method: NamedMethod, jobs: dict[Job, list[int]], images: Images) -> None:
        """All rows of one method, from one call for maps."""
        asks = {job.table: job.table.asks(images) for job in jobs if job.table.wants_maps}
        wanted = nobody(images)
        for job, indices in jobs.items():
            if job.table.wants_maps:
                wanted[indices] |= asks[job.table][indices]
        maps, failed = self.maps(method, images, wanted)
        for job, indices in jobs.items():
            self._score_job(job, indices, images, maps, asks.get(job.table), failed)

    def _score_job(
        self,
        job: Job,
        indices: list[int],
        images: Images,
        maps: ClassMaps,
        asks: Tensor | None,
        failed: dict[int, str],
    ) -> None:
        assert job.method is not None
        if asks is not None:
            for index in set(indices) & failed.keys():
                self._fail(job, images, index, failed[index])
            indices = [index for index in indices if index not in failed]
        if indices:
            self._attempt(job, indices, images, maps, nobody(images) if asks is None else asks)

    def _attempt(self, job: Job, indices: list[int], images: Images, maps: ClassMaps, asks: Tensor) -> None:
        """Score images together; if the method fails in a table that calls it, one by one."""
        assert job.method is not None
        try:
            rows = job.table.score(images.subset(indices), maps.select(asks, indices), job.method)
        except Exception as error:
            if not job.table.calls_methods:
                raise
            if len(indices) == 1:
                self._fail(job, images, indices[0], reason_of(error))
            else:
                for index in indices:
                    self._attempt(job, [index], images, maps, asks)
            return
        for index, of_image in zip(indices, rows, strict=True):
            self._write(job, images, index, Record(of_image))

    def _fail(self, job: Job, images: Images, index: int, reason: str) -> None:
        self._write(job, images, index, Record(failed=reason))

    def _write(self, job: Job, images: Images, index: int, record: Record) -> None:
        self.records.add(self.keys[job], images.names[index], images.content_keys[index], record)

    def on_test_epoch_end(self) -> None:
        """Wait until every process has written its last score, then read them all."""
        self.trainer.strategy.barrier()
        self.records.read()

    def scores(self, job: Job) -> MethodScores:
        """What is known of a job."""
        kept = self.records.of(self.keys[job], [name for name in self.image_ids if name in self.chosen[job.table]])
        return MethodScores(
            job.name,
            {name: record.rows for name, record in kept if not record.failed and not record.left_out},
            {name: record.failed for name, record in kept if record.failed},
            "" if job.method is None else job.method.classifier,
        )

    def left_out(self, table: Table) -> Counter[str]:
        """How many images the table has no place for, by reason."""
        job = next(job for job in self.jobs if job.table is table)
        reasons = [record.left_out for _, record in self.records.of(self.keys[job], self.image_ids)]
        return Counter(reason for reason in reasons if reason)


def _evenly(names: Sequence[str], limit: int | None) -> set[str]:
    """So many names, evenly spaced."""
    count = len(names) if limit is None else min(limit, len(names))
    return {names[position * len(names) // count] for position in range(count)}
