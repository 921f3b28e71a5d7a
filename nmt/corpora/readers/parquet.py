"""Corpora of Parquet files (`read.kind: parquet`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from nmt.corpora.readers.batches import BATCH, BatchesReader, OpenBatches
from nmt.errors import UserError


class ParquetReader(BatchesReader):
    """An open corpus of Parquet files."""

    @contextmanager
    def _opened(self, name: str) -> Iterator[OpenBatches]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                f"corpus {self.spec.name}: {name} is a Parquet file: pip install 'nmt-moe[parquet]'"
            ) from None
        with self._tree.seekable(name) as content:
            try:
                file = pyarrow.parquet.ParquetFile(content)
                yield OpenBatches(
                    file.schema_arrow, lambda names: file.iter_batches(batch_size=BATCH, columns=list(names))
                )
            except pyarrow.ArrowException as error:
                raise ValueError(str(error)) from None
