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

    The file holds what was learned and the text features of the classes, a few kB to a few MB, and of the
    backbone only its name and a fingerprint of its weights. It is a safetensors file with the parameters
    in JSON: nothing in it is pickled, and loading it runs no code.

    Parameters
    ----------
    estimator : classifier or calibrator
        A fitted :class:`~clipcal.classifiers.PromptTunedCLIPClassifier`,
        :class:`~clipcal.classifiers.ZeroShotCLIPClassifier`,
        :class:`~clipcal.calibration.CalibratedCLIPClassifier` around one of these, or calibrator of
        :mod:`clipcal.calibration`.
    path : str or Path
        Where to; ``.clipcal`` is a good suffix. A file that is there is replaced once the new one is whole.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is of another class, or holds a method, a regularizer, a calibrator or a splitter of a class
        that clipcal does not have.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : Read the file.

    Notes
    -----
    The parameters ``device`` and ``memory`` are left out, as the next machine may have neither; a
    ``random_state`` that is a generator is saved as None. Callbacks, ``set_output`` and metadata requests are
    not kept either.

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
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "A folder is there; add the name of a file", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder; create it first", str(path.parent))
    encoder = Encoder()
    encoder.add(estimator, (type(estimator).__name__,))
    data = pack({"objects": encoder.objects}, encoder.tensors, _version())
    # What cannot be read again is noticed now, when the estimator is still there.
    try:
        _read(BytesIO(data), len(data), Surroundings("", "auto", None))
    except Exception as error:
        raise ValueError(
            f"This {type(estimator).__name__} cannot be saved, as its file could not be loaded: {error}. "
            "Were its fitted attributes changed? Fit it again."
        ) from error
    write_whole(path, lambda file: file.write(data))


def load(
    path: str | os.PathLike[str],
    *,
    backbone: str | Backbone | None = None,
    device: str | torch.device = "auto",
    memory: MemoryLike | None = None,
) -> Any:
    """Load an estimator that :func:`save` has written.

    It predicts bit for bit what the saved one predicted for the same embeddings. The backbone is opened only
    where it is needed, for images and by ``with_classes``, and then its weights are compared with those that
    the estimator was fitted with.

    Parameters
    ----------
    path : str or Path
        The file.
    backbone : str, Backbone or None, default=None
        What takes the place of the saved name, such as a folder that has been moved; see
        :func:`clipcal.backbones.open_backbone`. It must be given where the estimator was saved with a
        backbone object that has no name. Calibrators ignore it.
    device : str or torch.device, default="auto"
        The parameter ``device`` of the loaded classifier, wherever it was trained.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Its parameter ``memory``.

    Returns
    -------
    estimator : object
        The fitted estimator, of the class that was saved.

    Raises
    ------
    ModelFileError
        If the file is damaged, no file of :func:`save`, or made by a newer clipcal.
    BackboneError
        If a backbone without a name was saved and `backbone` is None. A backbone with other weights is
        refused where it is first used.
    OSError
        If the file cannot be read: ``FileNotFoundError``, ``PermissionError`` and the like.

    See Also
    --------
    save : Write such a file.

    Notes
    -----
    A file from somebody else can do no more than be wrong: what it holds is checked against what such an
    estimator may hold, and classes are chosen from a fixed list. The name of a backbone is text until the
    backbone is used; then ``"local-dir:path"`` reads that path and a name of a hub asks the hub, so look at
    ``get_params()["backbone"]`` before you pass images to a stranger's model.

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
    # Opening a pipe would wait for a writer.
    if not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
        raise ModelFileError(f"{path} is no file.")
    with open(path, "rb") as file:
        try:
            return _read(file, os.fstat(file.fileno()).st_size, Surroundings(backbone, device, memory))
        except (BackboneError, MemoryError, OSError):
            raise
        except Exception as error:
            # A hostile file can raise anything in what it is checked with.
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ModelFileError(
                f"{path} cannot be loaded: {reason}. If a newer copy exists, use that; otherwise save the "
                "estimator again with clipcal.save."
            ) from error


def _read(file: BinaryIO, size: int, surroundings: Surroundings) -> Any:
    content = read_file(file, size)
    return Decoder(content.tensors, surroundings).estimator(content.document)


def _version() -> str:
    try:
        return version("clipcal")
    except PackageNotFoundError:
        return "0.0.0"
