"""The program that prepares one dataset with TensorFlow Datasets, as ArrayRecord; TensorFlow is not needed.

Its one argument is a `DatasetRequest` as JSON. It ends with status 1 and one line on standard output if it fails.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

from nmt.errors import UserError, did_you_mean

_LONGEST_REASON = 300
_SHOWN = 5  # configurations in an error
_RETRIES = 6  # of a download, waiting 0.4 s before the second and twice as long each time


def prepare_dataset(request: dict[str, str]) -> None:
    """Download and prepare a dataset.

    Args:
      request: the fields of `DatasetRequest`.

    Raises:
      Exception: whatever TensorFlow Datasets, or the dataset's own code, raises; see `explain`.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate

    _extract_without_tensorflow()
    _try_for_seconds()
    tfds.disable_progress_bar()
    given = {key: request[key] for key in ("config", "version") if request[key]}
    builder = tfds.builder(request["name"], data_dir=request["data_dir"], file_format="array_record", **given)
    if builder.builder_config is not None and not request["config"]:
        known = ", ".join(sorted(builder.builder_configs)[:_SHOWN])
        raise UserError(f"{request['name']} has several configurations; say config: with one of them, such as {known}")
    builder.download_and_prepare(
        download_dir=request["download_dir"], download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _extract_without_tensorflow() -> None:
    """Let archives be opened by Python: of TensorFlow, the module for it uses nothing but how to open local files."""
    from tensorflow_datasets.core.download import extractor

    gfile = SimpleNamespace(GFile=open)
    text = SimpleNamespace(as_text=lambda value: value.decode() if isinstance(value, bytes) else value)
    extractor.tf = SimpleNamespace(io=SimpleNamespace(gfile=gfile), compat=text)


def _try_for_seconds() -> None:
    """Give up on a publisher that cannot be reached after some 13 seconds; the default is ten retries, in 205."""
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = _RETRIES


def explain(error: BaseException, name: str) -> str:
    """Return one line that says why a dataset could not be prepared, and what to do."""
    import requests
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, registered.DatasetNotFoundError):
        hint = did_you_mean(name, registered.list_imported_builders())
        return f"TensorFlow Datasets does not know {name}{hint}"
    if isinstance(error, NonMatchingChecksumError):
        return f"a file is not the one that was published (another checksum): {_first_line(error)}; try again later"
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        host = error.request.url if error.request is not None else "the publisher"
        return f"{host} cannot be reached; check the network"
    if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
        return f"the code of {name} needs TensorFlow, which is not installed: pip install tensorflow"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip().rstrip(":") for line in str(error).splitlines() if line.strip()), "")[:_LONGEST_REASON]


def main(argument: str) -> Any:
    """Prepare a dataset; return the exit status."""
    request = json.loads(argument)
    try:
        prepare_dataset(request)
    except Exception as error:
        print(explain(error, request["name"]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
