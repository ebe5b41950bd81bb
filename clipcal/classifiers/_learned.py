"""Base class of classifiers with a tuning method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from clipcal._arrays import to_numpy
from clipcal._compat import _num_samples
from clipcal._progress import progress_bar
from clipcal.caching import as_cache
from clipcal.classifiers._base import CLIPClassifier
from clipcal.classifiers._class_weights import weigh_classes
from clipcal.classifiers._epoch_choice import TrainingRun
from clipcal.classifiers._prediction import GivenLogits, Logits
from clipcal.classifiers._training_data import training_data
from clipcal.classifiers._zero_shot import ZeroShotCLIPClassifier
from clipcal.images import input_kind
from clipcal.text import DEFAULT_TEMPLATE, find_templates

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone
    from clipcal.methods import TuningMethod
    from clipcal.regularizers import Regularizer
    from clipcal.training import Learner, Prompts, TrainingData, TuningProblem

__all__ = ["LearnedCLIPClassifier"]


class LearnedCLIPClassifier(CLIPClassifier):
    """Base class of classifiers that predict with the learned parameters of a tuning method.

    ``fit`` of a subclass sets ``method_``, ``tuned_names_``, ``recipe_`` and the attributes returned by
    :meth:`_learned_state`.
    """

    class_weight: Mapping[Any, float] | str | None
    n_views: int | str
    random_state: int | np.random.RandomState | None

    method_: TuningMethod
    tuned_names_: list[str]
    recipe_: Mapping[str, Any]
    learned_: dict[str, NDArray[np.float32]]

    def _problem(
        self,
        backbone: Backbone,
        generator: torch.Generator,
        data: TrainingData | None = None,
        regularizers: Sequence[Regularizer] = (),
    ) -> TuningProblem:
        """Return the tuning problem, the input of methods and regularizers."""
        from clipcal.methods import zero_shot_features
        from clipcal.training import TuningProblem

        memory = as_cache(self.memory)
        encode = partial(zero_shot_features, backbone, memory=memory)
        table: Callable[..., torch.Tensor] = partial(encode, skip_long=True, verbose=self.verbose)
        if memory is not None:  # otherwise tables are cached in the process
            table = _with_last_result(table)
        return TuningProblem(
            backbone,
            self.tuned_names_,
            zero_shot=encode,
            zero_shot_table=table,
            generator=generator,
            data=data,
            method=self.method_.name,
            regularizers=[regularizer.name for regularizer in regularizers],
            other_images=partial(self._other_images, backbone),
        )

    def _training_data(
        self,
        X: Any,
        targets: NDArray[np.intp],
        weights: NDArray[np.float64],
        backbone: Backbone,
        random_state: np.random.RandomState,
    ) -> TrainingData:
        # Random crops without a seed are never drawn again, so caching them is useless.
        seeded = self.n_views == 1 or self.random_state is not None
        return training_data(
            X,
            targets,
            weigh_classes(self.class_weight, self.classes_, targets, weights),
            backbone,
            n_views=self.n_views,
            needs_pixels=self.method_.needs_pixels,
            images_at_once=self._images_at_once,
            random_state=random_state,
            memory=self.memory if seeded else None,
            verbose=self.verbose,
        )

    def _other_images(
        self, backbone: Backbone, images: Any, *, name: str = "images", keep: bool = True
    ) -> TrainingData:
        """Return images or embeddings without labels as data with a single view."""
        if input_kind(images) == "embeddings" and not self.method_.needs_pixels:
            images = check_array(to_numpy(images), dtype=np.float64, input_name=name)
            if images.shape[1] != backbone.embedding_dim:
                raise ValueError(
                    f"{name} contains embeddings with {images.shape[1]} features, but those of the backbone "
                    f"have {backbone.embedding_dim}; embed the images with the same backbone."
                )
        n_samples = _num_samples(images)
        return training_data(
            images,
            np.zeros(n_samples, dtype=np.intp),
            np.ones(n_samples),
            backbone,
            n_views=1,
            needs_pixels=self.method_.needs_pixels,
            images_at_once=self._images_at_once,
            random_state=np.random.RandomState(0),
            memory=self.memory,
            verbose=self.verbose,
            name=name,
            keep=keep,
        )

    def _start(
        self,
        problem: TuningProblem,
        regularizers: Sequence[Regularizer],
        names: Sequence[str],
        data: TrainingData,
        generator: torch.Generator,
        *,
        before: tuple[list[str], dict[str, NDArray[np.float32]]] | None = None,
    ) -> TrainingRun:
        """Return a new learner for some classes of a problem, with its prompts and loss terms."""
        problem = replace(problem, names=names, data=data, generator=generator)
        learner = self._new_learner(problem)
        if before is not None:
            self._continue_from(before, learner)
        prompts = learner.prompts(problem.names)
        return TrainingRun(
            learner, prompts, [regularizer.prepare(problem, learner) for regularizer in regularizers]
        )

    def _learned_state(self, learner: Learner, prompts: Prompts, backbone: Backbone) -> dict[str, Any]:
        """Return the values of the fitted attributes needed for prediction, if training ends now."""
        import torch

        from clipcal.training import finished

        with finished(learner):
            return {
                "text_features_": self._text_features(learner, prompts, backbone),
                "logit_scale_": float(torch.as_tensor(learner.logit_scale).detach()),
                "learned_": learner.arrays(),
                "device_": str(backbone.device),
            }

    def _text_features(self, learner: Learner, prompts: Prompts, backbone: Backbone) -> NDArray[np.float32]:
        import torch

        learner.eval()
        with torch.no_grad():
            features = learner.encode_texts(prompts, None).cpu().numpy()
        shared = learner.supports_new_classes
        return self._with_equal_rows(features, backbone) if shared else features

    def _check_text_features(self) -> None:
        # The training loop checks losses only. The last step is not followed by a loss, and features whose
        # norm overflows are normalized to zeros, which have a finite loss.
        norms = np.linalg.norm(self.text_features_, axis=1)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise FloatingPointError(
                "Training diverged and the text features are not finite or zero; "
                f"lower learning_rate (now {self.recipe_['learning_rate']})."
            )

    def _new_learner(self, problem: TuningProblem) -> Learner:
        """Return a learner with initial parameters, which depend on the generator of the problem only."""
        from clipcal.training import Learner, seeded

        with seeded(problem.generator):
            learner = self.method_.learner(problem)
        if not isinstance(learner, Learner):
            raise TypeError(
                f"{type(self.method_).__name__}.learner must return a clipcal.training.Learner, got "
                f"{type(learner).__name__}."
            )
        return learner.to(problem.backbone.device).eval()

    @property
    def _images_at_once(self) -> int:
        # Independent of batch_size, because training batches may be too small to use a GPU efficiently.
        return 64

    def _learned_before(self) -> tuple[list[str], dict[str, NDArray[np.float32]]] | None:
        """Return the class names and the learned parameters of the previous fit, if any."""
        return (self.tuned_names_, self.learned_) if hasattr(self, "learned_") else None

    def _continue_from(
        self, start: tuple[list[str], dict[str, NDArray[np.float32]]], learner: Learner
    ) -> None:
        """Set the parameters of a new learner to those of the previous fit, for warm starts."""
        names, learned = start
        if names != self.tuned_names_:
            raise ValueError(
                f"warm_start=True needs the classes of the previous fit, {names}, but the classes are "
                f"{self.tuned_names_}; use warm_start=False or the same classes."
            )
        # Buffers, such as statistics of the training images, belong to the new data.
        shapes = {name: tuple(value.shape) for name, value in learner.named_parameters()}
        initial = {name: learned[name] for name in shapes.keys() & learned.keys()}
        before = {name: value.shape for name, value in initial.items()}
        if before != shapes:
            raise ValueError(
                f"warm_start=True needs learned parameters of the shapes {shapes} for method "
                f"{type(self.method_).__name__}, but the previous fit had {before}; use warm_start=False or "
                "the method of the previous fit."
            )
        learner.load_arrays({**learner.arrays(), **initial})

    def _check_method(self, run: TrainingRun, data: TrainingData) -> None:
        from clipcal.training import check_learner

        check_learner(
            run.learner,
            run.prompts,
            data,
            run.terms,
            linear=self.method_.linear,
            text_depends_on_image=self.method_.text_depends_on_image,
            training_free=self.method_.training_free,
        )

    def _fitted_learner(self, backbone: Backbone) -> Learner:
        """Return a learner with the learned parameters, for the current classes."""
        from clipcal.training import torch_generator

        learner = self._new_learner(self._problem(backbone, torch_generator(0)))
        learner.load_arrays(self.learned_)
        names = list(self.class_names_.values())
        return learner if names == self.tuned_names_ else learner.for_names(names)

    def _encode_classes(self, backbone: Backbone) -> NDArray[np.float32]:
        learner = self._fitted_learner(backbone)
        return self._text_features(learner, learner.prompts(list(self.class_names_.values())), backbone)

    def _logits(self, X: Any) -> Logits:
        check_is_fitted(self, "text_features_")
        if self.method_.linear:
            return super()._logits(X)
        from clipcal.training import predict_logits, predict_logits_from_pixels

        data = self._prediction_data(X)
        backbone = self._open_backbone(self.n_features_in_)
        learner = self._fitted_learner(backbone)
        prompts = learner.prompts(list(self.class_names_.values()))
        depends = self.method_.text_depends_on_image
        if isinstance(data, np.ndarray):
            logits = predict_logits(learner, prompts, data, text_depends_on_image=depends)
        else:
            at_once = 1 if depends else self._images_at_once
            batches = progress_bar(
                data.in_order(at_once),
                shown=self.verbose >= 1,
                description="Encoding images",
                unit="batch",
                total=math.ceil(len(data) / at_once),
            )
            logits = predict_logits_from_pixels(learner, prompts, batches, text_depends_on_image=depends)
        shared = learner.supports_new_classes
        return GivenLogits(self._with_equal_rows(logits.T, backbone).T if shared else logits)

    @property
    def _predicts_from_images(self) -> bool:
        return self.method_.needs_pixels

    def _prediction_data(self, X: Any) -> NDArray[np.floating] | TrainingData:
        """Return embeddings, or images for a method that encodes them itself."""
        if not self._predicts_from_images:
            return self._predict_embeddings(X)
        return self._other_images(self._open_backbone(), X, name="X", keep=False)

    def zero_shot(self, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> ZeroShotCLIPClassifier:
        """Return a fitted zero-shot classifier for the same classes.

        Parameters
        ----------
        template : str or sequence of str, default="a photo of a {}."
            Template of the zero-shot prompts; see :class:`ZeroShotCLIPClassifier`.

        Returns
        -------
        classifier : ZeroShotCLIPClassifier
            Fitted classifier.

        Raises
        ------
        ClassNameError
            If the template is invalid.
        """
        check_is_fitted(self, "learned_")
        # All parameters except those of training.
        own = self.get_params(deep=False)
        shared = own.keys() & ZeroShotCLIPClassifier().get_params(deep=False).keys() - {"batch_size"}
        other = ZeroShotCLIPClassifier(template=template, **{name: own[name] for name in shared})
        other.n_features_in_ = self.n_features_in_
        other.classes_, other.class_names_ = self.classes_, dict(self.class_names_)
        other._backbone_fingerprint_ = self._backbone_fingerprint_
        backbone = other._open_backbone(other.n_features_in_)
        # A method may have learned another scale.
        other.logit_scale_ = float(backbone.logit_scale)
        other.text_features_ = other._encode_classes(backbone)
        return other


def _with_last_result(encode: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that keeps the last table, which several training runs of a fit need."""
    last: dict[tuple[tuple[str, ...], tuple[str, ...], bool], torch.Tensor] = {}

    def encode_once(
        names: Sequence[str], template: str | Sequence[str], *, normalize: bool = True
    ) -> torch.Tensor:
        key = (tuple(names), tuple(find_templates(template)), normalize)
        if key not in last:
            last.clear()  # first, so that there is only one table at a time
            last[key] = encode(names, template, normalize=normalize)
        return last[key]

    return encode_once
