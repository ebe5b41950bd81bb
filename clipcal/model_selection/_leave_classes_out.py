"""Cross-validation splits that hold out whole classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseShuffleSplit
from sklearn.utils import check_consistent_length, check_random_state, check_scalar, column_or_1d

from clipcal._arrays import plain_labels

__all__ = ["LeaveClassesOut"]

# Minimum number of classes in the training and in the test part.
_MIN_CLASSES = 2


class LeaveClassesOut(BaseShuffleSplit):
    """Cross-validator that holds out whole classes.

    A classifier with ``with_classes`` can predict classes without training images. Ordinary
    cross-validation does not estimate its performance on such unseen classes. In each split of this
    cross-validator, all rows of some classes are in the test part. Score with
    :func:`~clipcal.model_selection.open_vocabulary`.

    Classes are held out in a shuffled order, which is shuffled again when all classes have been held out.
    The numbers of times that classes are held out therefore differ by at most one.

    Parameters
    ----------
    n_splits : int, default=5
        Number of splits, at least 1.

    test_size : float or int, default=0.5
        Classes held out in each split: a fraction in (0, 1), or a number of classes. A fraction of the
        classes is rounded to the nearest integer, with ties rounded down. At least two classes must be held
        out, and at least two must remain for training.

    seen_size : float or int, default=0.0
        Rows of each training class that are moved to the test part: a fraction in [0, 1), or a number of
        rows. A positive fraction moves at least one row. Each class keeps at least one row for training, so
        no row is moved from classes with a single row.

    random_state : int, RandomState instance or None, default=None
        Random number generator or seed for the order of the classes and the choice of rows for
        `seen_size`. Pass an int for reproducible splits.

    See Also
    --------
    open_vocabulary : Make a scorer that predicts among the classes of the fold.
    sklearn.model_selection.StratifiedKFold : Splits in which each class is in both parts.

    Notes
    -----
    The models of the splits are fitted on fewer classes than the final model, and their test parts have
    fewer classes than in later use. The first difference is small with many classes and a small `test_size`.

    Examples
    --------
    >>> from clipcal import LeaveClassesOut
    >>> y = ["ant", "ant", "bee", "cat", "dog", "dog"]
    >>> X = [f"{number}.jpg" for number in range(6)]
    >>> for train, test in LeaveClassesOut(n_splits=2, random_state=0).split(X, y):
    ...     print(train, test)
    [0 1 2] [3 4 5]
    [3 4 5] [0 1 2]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        test_size: float | int = 0.5,
        seen_size: float | int = 0.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.test_size = test_size
        self.seen_size = seen_size
        self.random_state = random_state

    def split(
        self, X: Any, y: ArrayLike | None = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Generate the rows of the training and the test part of each split.

        Parameters
        ----------
        X : sequence of length n_samples
            Only its length is used: an array, a list of images or of paths.

        y : array-like of shape (n_samples,)
            Labels.

        groups : object
            Ignored; present for API consistency.

        Yields
        ------
        train : ndarray of int
            Sorted indices of the rows of the training classes.

        test : ndarray of int
            Sorted indices of the rows of the held-out classes and, with `seen_size`, of training classes.

        Raises
        ------
        ValueError
            If there are too few classes for `test_size`, or if no class has a row for `seen_size`.
        """
        n_splits = self.get_n_splits()
        if y is None:
            raise ValueError("LeaveClassesOut splits by class; pass y, as in split(X, y).")
        labels = column_or_1d(plain_labels(y))
        check_consistent_length(X, labels)
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        n_out = self._n_held_out(len(classes))
        n_seen = self._n_seen(counts)
        rng = check_random_state(self.random_state)
        members = [np.flatnonzero(codes == code) for code in range(len(classes))]
        for held_out in _take_turns(len(classes), n_out, n_splits, rng):
            in_test = np.isin(codes, held_out)
            if n_seen.any():
                for code in np.setdiff1d(np.arange(len(classes)), held_out):
                    in_test[rng.permutation(members[code])[: n_seen[code]]] = True
                # All classes with more than one row may be held out in this split.
                if in_test.sum() == counts[held_out].sum():
                    raise ValueError(_no_row_to_spare(self.seen_size))
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object
            Ignored; present for API consistency.

        Returns
        -------
        n_splits : int
            The parameter `n_splits`.
        """
        return int(check_scalar(self.n_splits, "n_splits", Integral, min_val=1))

    def _n_held_out(self, n_classes: int) -> int:
        size = self.test_size
        if _is_number(size):
            n_out = int(size)
        else:
            check_scalar(size, "test_size", Real, min_val=0, max_val=1, include_boundaries="neither")
            n_out = math.ceil(round(size * n_classes, 9) - 0.5)
        if not _MIN_CLASSES <= n_out <= n_classes - _MIN_CLASSES:
            most = n_classes - _MIN_CLASSES
            remedy = (
                f"Pass test_size as a number of classes from {_MIN_CLASSES} to {most}."
                if most >= _MIN_CLASSES
                else f"Pass y with at least {2 * _MIN_CLASSES} classes."
            )
            raise ValueError(
                f"test_size={size} holds out {n_out} of {n_classes} classes and leaves {n_classes - n_out} "
                f"for training, but at least {_MIN_CLASSES} are needed in each part. {remedy}"
            )
        return n_out

    def _n_seen(self, counts: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the number of rows of each class that move to the test part if it is a training class."""
        size = self.seen_size
        if _is_number(size):
            check_scalar(size, "seen_size", Integral, min_val=0)
            wanted = np.full(len(counts), int(size))
        else:
            check_scalar(size, "seen_size", Real, min_val=0, max_val=1, include_boundaries="left")
            wanted = np.ceil(np.round(size * counts, 9) - 0.5).astype(np.intp)
            wanted = np.maximum(wanted, 1) if size > 0 else wanted
        available = np.minimum(wanted, counts - 1)
        if wanted.any() and not available.any():
            raise ValueError(_no_row_to_spare(size))
        return available


def _is_number(size: float | int) -> bool:
    # A bool is an Integral in Python, but not a number of classes.
    return isinstance(size, Integral) and not isinstance(size, bool)


def _no_row_to_spare(seen_size: float | int) -> str:
    return (
        f"seen_size={seen_size} moves rows of training classes to the test part, but each of these classes "
        "has a single row, which is needed for training. Pass seen_size=0 or more rows."
    )


def _take_turns(
    n_classes: int, n_out: int, n_splits: int, rng: np.random.RandomState
) -> Iterator[NDArray[np.intp]]:
    """Yield `n_out` distinct classes per split, from consecutive shuffled orders of the classes."""
    waiting = rng.permutation(n_classes)
    for _ in range(n_splits):
        taken, waiting = waiting[:n_out], waiting[n_out:]
        if len(taken) < n_out:
            fresh = rng.permutation(n_classes)
            # Skip classes that were already taken from the end of the old order; they keep their turn.
            added = fresh[~np.isin(fresh, taken)][: n_out - len(taken)]
            taken, waiting = np.concatenate([taken, added]), fresh[~np.isin(fresh, added)]
        yield taken
