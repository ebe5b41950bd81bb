"""Save fitted estimators to files and load them."""

from __future__ import annotations

import errno
import os
import stat
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from clipcal._whole_file import write_whole
from clipcal.caching import MemoryLike
from clipcal.exceptions import BackboneError, ModelFileError
from clipcal.persistence._container import pack, read_file
from clipcal.persistence._decode import Decoder, Surroundings
from clipcal.persistence._encode import Encoder, check_saveable

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone

__all__ = ["load", "save"]


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Save a fitted estimator to one file, which :func:`load` reads.

    The file holds the fitted attributes and the parameters, a few kB to a few MB. Of the backbone it holds
    only the name and a fingerprint of the weights. It is a safetensors file with the parameters in JSON:
    nothing in it is pickled, and loading it runs no code.

    Parameters
    ----------
    estimator : classifier or calibrator
        A fitted :class:`~clipcal.classifiers.PromptTunedCLIPClassifier`,
        :class:`~clipcal.classifiers.ZeroShotCLIPClassifier`,
        :class:`~clipcal.calibration.CalibratedCLIPClassifier` around one of these, or calibrator of
        :mod:`clipcal.calibration`.
    path : str or Path
        The file; ``.clipcal`` is the usual suffix. An existing file is replaced when the new one is complete.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is of another class, or has a method, a regularizer, a calibrator or a splitter of a class that
        cannot be saved, such as your own.
    ValueError
        If its parameters or fitted attributes have been changed so that the file could not be loaded.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : Read the file.

    Notes
    -----
    The parameters ``device`` and ``memory`` are not saved, because they belong to one machine. A
    ``random_state`` that is a RandomState instance is saved as None. Callbacks, ``set_output`` and metadata
    requests are not saved.

    Examples
    --------
    >>> import os, tempfile
    >>> import clipcal
    >>> from clipcal import TemperatureScaling
    >>> scaling = TemperatureScaling().fit([[4.0, 0.0]] * 4, ["cat", "cat", "cat", "dog"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scaling.clipcal")
    ...     clipcal.save(scaling, path)
    ...     loaded = clipcal.load(path)
    >>> loaded.temperature_ == scaling.temperature_
    True
    """
    check_saveable(estimator)
    path = Path(os.path.realpath(path))  # replace the target of a link, not the link
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "The path is a folder; add the name of a file", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder; create it first", str(path.parent))
    encoder = Encoder()
    encoder.add(estimator, (type(estimator).__name__,))
    data = pack({"objects": encoder.objects}, encoder.tensors, _version())
    # Loaded as a test, while the estimator still exists.
    try:
        _read(BytesIO(data), len(data), Surroundings("", "auto", None))
    except Exception as error:
        raise ValueError(
            f"This {type(estimator).__name__} cannot be saved, because its file could not be loaded: "
            f"{error}. If its fitted attributes were changed, fit it again."
        ) from error
    write_whole(path, lambda file: file.write(data))


def load(
    path: str | os.PathLike[str],
    *,
    backbone: str | Backbone | None = None,
    device: str | torch.device = "auto",
    memory: MemoryLike | None = None,
) -> Any:
    """Load an estimator written by :func:`save`.

    Its predictions for embeddings are exactly those of the saved estimator. The backbone is opened only when
    it is needed, for images and by ``with_classes``, and its weights are then compared with those that the
    estimator was fitted with.

    Parameters
    ----------
    path : str or Path
        The file.
    backbone : str, Backbone or None, default=None
        Replaces the saved name, for instance if a folder has been moved; see
        :func:`clipcal.backbones.open_backbone`. It must be given if the estimator was saved with a backbone
        object that has no name. Ignored for calibrators.
    device : str or torch.device, default="auto"
        Parameter ``device`` of the loaded classifier. It is independent of the device used for training.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Parameter ``memory`` of the loaded classifier.

    Returns
    -------
    estimator : object
        The fitted estimator, of the class that was saved.

    Raises
    ------
    ModelFileError
        If the file is damaged, not written by :func:`save`, or written by a newer clipcal.
    BackboneError
        If the estimator was saved with a backbone object without a name and `backbone` is None. A backbone
        with other weights raises it when it is first used.
    OSError
        If the file cannot be read, for example ``FileNotFoundError`` or ``PermissionError``.

    See Also
    --------
    save : Write such a file.

    Notes
    -----
    Files from others are safe to load: classes are chosen from a fixed list, and types and shapes of all
    values are checked. The backbone is opened by its saved name when images are passed or ``with_classes`` is
    called. ``"local-dir:path"`` then reads that path and ``"hf-hub:name"`` contacts the hub, so check
    ``get_params()["backbone"]`` first if you do not trust the file.

    Examples
    --------
    >>> import os, tempfile
    >>> import clipcal
    >>> from clipcal import ZeroShotCLIPClassifier, make_shapes
    >>> X, y = make_shapes("textures", n_per_class=2, random_state=0, return_X_y=True)
    >>> clf = ZeroShotCLIPClassifier("mini").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "textures.clipcal")
    ...     clipcal.save(clf, path)
    ...     loaded = clipcal.load(path, device="cpu")
    >>> loaded.with_classes(["circle", "square"]).predict(X[:1]).shape
    (1,)
    """
    path = Path(path)
    # Opening a pipe would block until there is a writer.
    if not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
        raise ModelFileError(f"{path} is not a regular file; pass a file written by clipcal.save.")
    with open(path, "rb") as file:
        try:
            return _read(file, os.fstat(file.fileno()).st_size, Surroundings(backbone, device, memory))
        except (BackboneError, MemoryError, OSError):
            raise
        except Exception as error:
            # Values of a malicious file can cause errors of any type in the checks.
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ModelFileError(
                f"{path} cannot be loaded: {reason}. Use an intact copy of the file, or save the estimator "
                "again with clipcal.save."
            ) from error


def _read(file: BinaryIO, size: int, surroundings: Surroundings) -> Any:
    content = read_file(file, size)
    return Decoder(content.tensors, surroundings).estimator(content.document)


def _version() -> str:
    try:
        return version("clipcal")
    except PackageNotFoundError:
        return "0.0.0"
