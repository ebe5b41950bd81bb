"""Splits that hold out whole classes."""

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

# A classifier needs two classes to tell apart, on either side.
_MIN_CLASSES = 2


class LeaveClassesOut(BaseShuffleSplit):
    """Split rows so that the classes of the test part are not trained on.

    A classifier that can be asked about classes without pictures (``with_classes``) will meet such
    classes later, and ordinary cross-validation says nothing about them. Here some classes play that
    part: all of their rows are in the test part of a split. Score with
    :func:`~clipcal.model_selection.open_vocabulary`.

    Classes are held out equally often: they are shuffled and taken in turn, and shuffled anew when all
    have had their turn, so the numbers of times differ by at most one.

    Parameters
    ----------
    n_splits : int, default=5
        Number of splits, at least 1.

    test_size : float or int, default=0.5
        What is held out in each split: a share of the classes, between 0 and 1, or their number. A share
        is rounded to the nearest number, and down from the middle. Two classes at least are held out,
        and two at least are trained on.

    seen_size : float or int, default=0.0
        Rows of the classes that are trained on which go to the test part instead: a share of each
        class, in [0, 1), or their number. A share gives one row at least, and each class keeps one row
        at least for training; so a class with a single row gives none.

    random_state : int, RandomState instance or None, default=None
        The order of the classes, and the choice of rows where `seen_size` is not 0. Pass an int for the
        same splits in each call.

    See Also
    --------
    open_vocabulary : Make a scorer that predicts among the classes of the fold.
    sklearn.model_selection.StratifiedKFold : Splits in which each class is on both sides.

    Notes
    -----
    A model that is fitted in a split knows fewer classes than the final one, and its test parts hold
    fewer than there will be. With many classes and a small `test_size` the first difference shrinks.

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
            Only its length counts: an array, a list of pictures or of paths.

        y : array-like of shape (n_samples,)
            Labels.

        groups : object
            Ignored; here because scikit-learn hands it on.

        Yields
        ------
        train : ndarray of int
            Sorted rows of the classes to train on.

        test : ndarray of int
            Sorted rows of the classes that are held out and, with `seen_size`, of the other classes.

        Raises
        ------
        ValueError
            If the labels make too few classes for `test_size`, or no class has a row for `seen_size`.
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
                # Possible where the only classes with a row to spare are held out.
                if in_test.sum() == counts[held_out].sum():
                    raise ValueError(_no_row_to_spare(self.seen_size))
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object
            Ignored; here because scikit-learn hands them on.

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
                else f"That takes at least {2 * _MIN_CLASSES} classes in y."
            )
            raise ValueError(
                f"test_size={size} holds out {n_out} of {n_classes} classes and leaves {n_classes - n_out} "
                f"to train on, but at least {_MIN_CLASSES} are needed on either side. {remedy}"
            )
        return n_out

    def _n_seen(self, counts: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return how many rows of each class go to the test part where it is trained on."""
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
    # True counts as 1 for Python, but nobody means a class by it.
    return isinstance(size, Integral) and not isinstance(size, bool)


def _no_row_to_spare(seen_size: float | int) -> str:
    return (
        f"seen_size={seen_size} moves rows of classes that are trained on to the test part, but each of "
        "these classes has a single row, which training needs. Pass seen_size=0, or give more rows."
    )


def _take_turns(
    n_classes: int, n_out: int, n_splits: int, rng: np.random.RandomState
) -> Iterator[NDArray[np.intp]]:
    """Yield `n_out` different classes a split, out of one shuffled order after another."""
    waiting = rng.permutation(n_classes)
    for _ in range(n_splits):
        taken, waiting = waiting[:n_out], waiting[n_out:]
        if len(taken) < n_out:
            fresh = rng.permutation(n_classes)
            # A class that ended the old order waits if the new one begins with it.
            added = fresh[~np.isin(fresh, taken)][: n_out - len(taken)]
            taken, waiting = np.concatenate([taken, added]), fresh[~np.isin(fresh, added)]
        yield taken
