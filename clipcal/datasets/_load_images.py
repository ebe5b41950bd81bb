"""Load a user's own labeled images from folders, tables and data sets of other packages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipcal.datasets._folder import read_folder
from clipcal.datasets._hugging_face import is_hugging_face, read_hugging_face
from clipcal.datasets._loaded import Labeled, to_bunch
from clipcal.datasets._tables import read_file
from clipcal.datasets._torchvision import is_torch_dataset, read_torch_dataset

__all__ = ["load_images"]


def load_images(
    source: Any,
    *,
    split: str | None = None,
    labeled: bool = True,
    root: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    return_X_y: bool = False,
) -> Any:
    """Load labeled images.

    Images are not read, but listed: they are decoded when a classifier needs them.

    Parameters
    ----------
    source : str, Path or data set
        One of:

        - A folder with one folder per class, or with folders ``train``, ``validation`` (``val``, ``valid``)
          and ``test`` that have one folder per class. All image formats that Pillow decodes are found,
          whatever the case of the suffix. Hidden files, files that operating systems create and other files
          are ignored.
        - A ``.csv`` or ``.tsv`` file with a header and the columns ``path`` and ``label``, optionally
          ``split`` and ``class_name`` (the text of the label). Labels are strings, as written: ``001`` and
          ``NA``, too.
        - A ``.parquet`` file with such columns, which needs the extra ``parquet``. Images are paths, contents
          of files (bytes), or records ``{"bytes": ..., "path": ...}``.
        - A ``.json`` file with the splits of CoOp,
          ``{"train": [[path, number, class name], ...], "val": ..., "test": ...}``.
        - A data set of torchvision, or one of the same form, with items (image, label). Its transforms are
          ignored. Files are not opened, if the data set has a list of them.
        - A ``Dataset`` or a ``DatasetDict`` of Hugging Face's package ``datasets``.
    split : str or None, default=None
        Name of the split to return, for sources with splits. If None, all.
    labeled : bool, default=True
        If False, labels are neither needed nor read. In a folder, all images in and below it are listed.
    root : str, Path or None, default=None
        Folder to which relative paths in a file are relative. If None, the folder of the file.
    columns : mapping of str to str, or None, default=None
        Names of columns: the keys are ``"image"``, ``"label"``, ``"split"`` and ``"class_name"``. If None,
        usual names are found; in Hugging Face data sets, the types of the columns are used.
    return_X_y : bool, default=False
        If True, return ``(images, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ImagePaths, LazyImages or ndarray of uint8
            The images, to be passed to classifiers. They can be sliced, and indexed by masks and arrays.
        target : ndarray of shape (n_images,), or None
            The label of each image: names of class folders, or strings and integers as they are in the
            source. None if ``labeled=False``.
        paths : tuple of str
            The name of each image: its path relative to the folder, as written in the table, or its position
            if the source has no paths.
        class_ids : list
            All labels, in order: sorted; strings of digits by value; as in the source if it has an order.
        class_names : dict
            The text of each label, to be passed to classifiers as ``class_names``. If the source has none,
            the label, with spaces for underscores.
        DESCR : str
            Description of the data set.

        If the source has splits, and none is chosen, ``images``, ``target`` and ``paths`` are in
        ``data.train``, ``data.validation`` and ``data.test``. These always exist; a split that the source
        lacks has no images.

    Raises
    ------
    FileNotFoundError
        If the source is a path that does not exist.
    ImageReadError
        If images that a file lists do not exist.
    ImportError
        If the source is a Parquet file and pyarrow is not installed.
    TypeError, ValueError
        If the source is not one of the above, or has no images, no labels or contradictory ones.

    Warns
    -----
    UserWarning
        If class folders are empty, images are in no class folder, rows are repeated, or classes are named
        by numbers.

    See Also
    --------
    clipcal.ImagePaths : Paths of images that are listed otherwise.
    make_shapes : Generated images.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from clipcal import load_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("beagle/1.jpg", "beagle/2.PNG", "red_panda/1.webp"):
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (32, 32)).save(Path(folder, name))
    ...     data = load_images(folder)
    >>> data.target
    array(['beagle', 'beagle', 'red_panda'], dtype='<U9')
    >>> data.paths
    ('beagle/1.jpg', 'beagle/2.PNG', 'red_panda/1.webp')
    >>> data.class_names
    {'beagle': 'beagle', 'red_panda': 'red panda'}
    """
    data = _read(source, labeled, None if root is None else Path(root), columns)
    bunch = to_bunch(data, split)
    if not return_X_y:
        return bunch
    if "images" not in bunch:
        raise ValueError(
            f"{data.what} has the splits {', '.join(map(repr, data.parts))}; choose one for return_X_y=True, "
            f"such as split={next(iter(data.parts))!r}."
        )
    return bunch.images, bunch.target


def _read(source: Any, labeled: bool, root: Path | None, columns: Mapping[str, str] | None) -> Labeled:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if path.is_dir():
            _unused(root=root, columns=columns)
            return read_folder(path, labeled=labeled)
        if not path.exists():
            raise FileNotFoundError(
                f"There is no file or folder {str(path)!r} (working directory: {os.getcwd()})."
            )
        return read_file(path, root=root, columns=columns, labeled=labeled)
    _unused(root=root)
    if is_hugging_face(source):
        return read_hugging_face(source, columns=columns, labeled=labeled)
    if is_torch_dataset(source):
        _unused(columns=columns)
        return read_torch_dataset(source, labeled=labeled)
    raise TypeError(
        "load_images takes a folder, a .csv, .tsv, .parquet or .json file, or a data set of torchvision or "
        f"Hugging Face; got a {type(source).__name__}. Images and labels in lists, arrays and columns can be "
        "passed to classifiers as they are; of a DataLoader, pass its dataset."
    )


def _unused(**values: Any) -> None:
    for name, value in values.items():
        if value is not None:
            raise ValueError(f"{name} is for files that list images; leave it out for this source.")
