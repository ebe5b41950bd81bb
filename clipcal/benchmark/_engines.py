"""Where the fits of a plan run: in this process, in local processes, or on a dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, Self

from joblib import Parallel, delayed

from clipcal._optional import import_optional

__all__ = ["DaskEngine", "Engine", "LocalEngine"]


_CONNECT_SECONDS = 30


class Engine(Protocol):
    """Something that calls a function with many arguments.

    Argument of :func:`run_plan`, such as a :class:`LocalEngine`.
    """

    in_process: bool

    def close(self) -> None:
        """Release what the engine holds."""
        ...

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the position and the result of each call as it ends.

        If a call was lost, for example because its process was killed, the result is the exception.
        """
        ...


class LocalEngine:
    """Calls in this process or in processes of joblib.

    Parameters
    ----------
    n_jobs : int or None
        Number of processes; -1 means one per core. None is 1, or the number of ``joblib.parallel_config``.

    Examples
    --------
    >>> from clipcal.benchmark import LocalEngine
    >>> engine = LocalEngine(n_jobs=1)
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self._n_jobs = n_jobs
        self.in_process = self._parallel().n_jobs == 1

    def close(self) -> None:
        """Do nothing: processes of joblib are shared and end on their own."""

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the position and the result of each call as it ends.

        joblib does not tell in which call a process was killed. Those that were running are repeated one by
        one, then the others go on.
        """
        left = dict(enumerate(arguments))
        while left:
            started: list[int] = []
            try:
                for i, found in self._parallel()(_numbered_calls(function, list(left.items()), started)):
                    del left[i]
                    yield i, found
            except BrokenProcessPool:
                for i in [i for i in started if i in left]:
                    yield i, self._alone(i, function, left.pop(i))

    def _parallel(self) -> Parallel:
        # A new one for each use: after an error, it keeps results that were not taken.
        return Parallel(n_jobs=self._n_jobs, batch_size=1, return_as="generator_unordered")

    def _alone(self, i: int, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        try:
            ((_, found),) = self._parallel()([delayed(_numbered)(i, function, given)])
        except BrokenProcessPool as error:
            return error
        return found


class DaskEngine:
    """Calls on the workers of a dask cluster.

    Futures of dask are used instead of its joblib backend, which never returns if a call is lost
    with its worker too often, and runs calls in the client's own process if there is a single worker.

    Argument of :func:`run_plan`, which ``clipcal bench --backend dask`` creates.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    resources : mapping of str to float, default={}
        Resources of a worker that each call needs, such as ``{"GPU": 1}``.
    """

    in_process = False

    def __init__(self, client: Any, resources: Mapping[str, float] | None = None) -> None:
        self._client = client
        self._resources = dict(resources or {})

    @classmethod
    def connect(cls, address: str | None = None, *, resources: Mapping[str, float] | None = None) -> Self:
        """Return an engine for the scheduler at an address, after its first worker has connected.

        Parameters
        ----------
        address : str, default=None
            Address, such as ``"tcp://host:8786"``. If None, dask's configuration or the environment variable
            ``DASK_SCHEDULER_ADDRESS`` gives it.
        resources : mapping of str to float, default=None
            Resources of a worker that each call needs.

        Returns
        -------
        engine : DaskEngine

        Raises
        ------
        ImportError
            If dask.distributed is not installed.
        ValueError
            If there is no address, no scheduler answers, or no worker connects.
        """
        distributed = import_optional("distributed", extra="cluster", caller="--backend dask")
        address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        if not address:
            raise ValueError("No dask scheduler is given; add --scheduler tcp://HOST:8786.")
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS)
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise ValueError(
                f"No dask scheduler with a worker answers at {address!r} ({error}). Start them with "
                f"'dask scheduler' and 'dask worker {address}'."
            ) from error
        engine = cls(client, resources)
        try:
            _check_resources(client, resources or {})
        except ValueError:
            engine.close()
            raise
        return engine

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the position and the result of each call as it ends; lost calls are repeated."""
        distributed = import_optional("distributed", extra="cluster", caller="DaskEngine")
        futures = {
            self._client.submit(function, *given, pure=False, resources=self._resources): i
            for i, given in enumerate(arguments)
        }
        try:
            for future in distributed.as_completed(futures, raise_errors=False):
                i = futures.pop(future)
                yield i, future.exception() if future.status == "error" else future.result()
                # Otherwise the scheduler would keep the predictions of all fits.
                future.release()
        finally:
            self._client.cancel(list(futures))

    def close(self) -> None:
        """Close the connection to the cluster."""
        self._client.close()


def _check_resources(client: Any, wanted: Mapping[str, float]) -> None:
    """Raise an error if no worker has the resources: calls would wait forever."""
    workers = client.scheduler_info()["workers"].values()
    offered = [worker.get("resources", {}) for worker in workers]
    if not any(all(has.get(name, 0) >= number for name, number in wanted.items()) for has in offered):
        needed = ", ".join(f"{name}={number:g}" for name, number in wanted.items())
        raise ValueError(f"No worker has the resources {needed}; start workers with --resources '{needed}'.")


def _numbered_calls(
    function: Callable[..., Any], calls: Sequence[tuple[int, tuple[Any, ...]]], started: list[int]
) -> Iterator[Any]:
    """Yield calls for joblib, and note which it has taken."""
    for i, given in calls:
        started.append(i)
        yield delayed(_numbered)(i, function, given)


def _numbered(i: int, function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[int, Any]:
    return i, function(*given)
