"""Prompt-tuned CLIP as a classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from clipcal._compat import HasMethods, Interval, StrOptions, _fit_context
from clipcal._components import NamedComponents
from clipcal._fitting import all_or_nothing
from clipcal.caching import FeatureCache, MemoryLike
from clipcal.classifiers._base import CLIPClassifier
from clipcal.classifiers._callbacks import FitReport
from clipcal.classifiers._components import find_method, find_regularizer, find_regularizers
from clipcal.classifiers._zero_shot import ZeroShotCLIPClassifier
from clipcal.images import encode_images, input_kind
from clipcal.text import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone
    from clipcal.methods import TextLearner, TuningMethod
    from clipcal.regularizers import Penalty, Regularizer

__all__ = ["PromptTunedCLIPClassifier"]


class PromptTunedCLIPClassifier(CallbackSupportMixin, NamedComponents, CLIPClassifier):
    """A CLIP classifier whose prompt is learned from a few pictures per class.

    The towers stay frozen. The vectors before the class name are trained by gradient descent on
    cross-entropy plus, if asked for, a regularizer that mends the calibration on classes that
    training has not seen.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        See :func:`clipcal.backbones.open_backbone`; ``"mini"`` needs no download.
    method : {"coop", "kgcoop"} or TuningMethod, default="coop"
        What is learned. ``"kgcoop"`` is CoOp with the regularizer ``"kg"``.
    regularizer : {"dor", "kg"}, Regularizer, a list of these, or None, default=None
        ``"dor"`` holds other nouns where zero-shot CLIP has them
        (:class:`~clipcal.regularizers.DynamicOutlierRegularizer`), ``"kg"`` the classes themselves
        (:class:`~clipcal.regularizers.AnchorRegularizer`). A search may set ``regularizer__weight``.
    class_names : mapping of label to str, default=None
        Names of labels that are not themselves readable.
    allow_duplicate_names : bool, default=False
        Whether several labels may have one name, as "missile" stands twice in the published names of
        ImageNet's classes. Such classes get the same probability, unless each learns a context of its own
        (``class_specific=True``). By default names that are the same to the backbone's tokenizer are
        refused.
    max_epochs : int, default=50
        Passes through the data. Published trainers of CoOp run 200.
    learning_rate : float, default=0.002
        The rate after the first, slow epoch; it falls along a cosine.
    batch_size : int, default=32
        Samples in a step of training, and pictures encoded at once. What does not fill the last batch
        of an epoch waits for the next one, whose order is another; fewer samples make one step.
    n_views : int, default=1
        1 trains on the plain centre crop of each picture. From 2 on, so many randomly cropped and
        mirrored views are encoded once, and each step draws among them. Embeddings have one view.
    random_state : int, RandomState instance or None, default=None
        Random start values, order of samples, views and outliers.
    device : str or torch.device, default="auto"
        ``"auto"`` is CUDA, else MPS, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Arithmetic of the frozen towers: ``"auto"`` is bfloat16 on CUDA. What is learned, softmax and
        losses are always float32.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Where features of pictures, class prompts and outliers are kept on disk, each found again by
        content; see :class:`clipcal.FeatureCache`.
    verbose : int, default=0
        From 1 on, a progress bar shows how far the encoding of images and nouns and the training are, with
        the loss and the accuracy of the last epoch. For other displays see the notes on callbacks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    class_names_ : dict
        The name of each label, as it stands in the prompt.
    text_features_ : ndarray of float32, shape (n_classes, n_features)
        Tuned text features, rows of unit length.
    method_ : TuningMethod
        The method that was used, with its hyper-parameters.
    learned_ : dict of ndarray
        Learned parameters by name; for CoOp ``"context"`` of shape (n_context, token_dim).
    logit_scale_ : float
        Factor of the cosines.
    history_ : list of dict
        One record an epoch: ``epoch``, ``learning_rate``, ``loss``, ``cross_entropy``, ``accuracy`` on
        the training batches, and the weighted penalty of each regularizer by its name.
    device_ : str
        Where training ran.
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names, where ``X`` in ``fit`` was a frame of embeddings.

    See Also
    --------
    ZeroShotCLIPClassifier : The same without training.
    clipcal.calibration.CalibratedCLIPClassifier : Mends confidence after training.

    Notes
    -----
    Progress and scores during ``fit`` come from scikit-learn's callbacks:
    ``clf.set_callbacks(ProgressBar(), ScoringMonitor(scoring=ece_scorer))``.

    References
    ----------
    .. [1] K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language Models",
       IJCV 2022, arXiv:2109.01134.
    .. [2] S. Wang, Y. Li, H. Wei, "Understanding and Mitigating Miscalibration in Prompt Tuning for
       Vision-Language Models", ICML 2025, arXiv:2410.02681.

    Examples
    --------
    >>> from clipcal import PromptTunedCLIPClassifier
    >>> from clipcal.datasets import make_shapes
    >>> X, y = make_shapes("textures", n_per_class=8, random_state=0, return_X_y=True)
    >>> clf = PromptTunedCLIPClassifier(backbone="mini", max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X[:5]).shape
    (5, 14)
    >>> other = clf.with_classes(["circle", "square", "star"])
    >>> other.predict_proba(X[:5]).shape
    (5, 3)
    """

    _components: ClassVar[tuple[str, ...]] = ("method", "regularizer")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "backbone": "no_validation",
        "method": [StrOptions({"coop", "kgcoop"}), HasMethods(["learner"])],
        "regularizer": [StrOptions({"dor", "kg"}), HasMethods(["prepare"]), list, tuple, None],
        "class_names": [Mapping, None],
        "allow_duplicate_names": ["boolean"],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "device": "no_validation",
        "precision": [StrOptions({"auto", "fp32", "bf16"})],
        "memory": [str, os.PathLike, FeatureCache, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | Backbone = "ViT-B-16/openai",
        *,
        method: str | TuningMethod = "coop",
        regularizer: str | Regularizer | Sequence[str | Regularizer] | None = None,
        class_names: Mapping[Any, str] | None = None,
        allow_duplicate_names: bool = False,
        max_epochs: int = 50,
        learning_rate: float = 0.002,
        batch_size: int = 32,
        n_views: int = 1,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: MemoryLike | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.regularizer = regularizer
        self.class_names = class_names
        self.allow_duplicate_names = allow_duplicate_names
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_views = n_views
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.memory = memory
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # CUDA sums in no fixed order.
        tags.non_deterministic = str(getattr(self, "device_", "")).startswith("cuda")
        return tags

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the prompt.

        Parameters
        ----------
        X : pictures or embeddings
            Paths (list, array, Series, :class:`~clipcal.images.ImagePaths`), PIL images, uint8 arrays or
            tensors (n_samples, height, width[, 3]), or embeddings, numbers (n_samples, n_features).
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights in the cross-entropy, brought to mean 1 in each batch.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If X and y do not fit together, the labels make no classes, or parameters contradict.
        ClassNameError
            If the names make no prompts.
        FloatingPointError
            If training diverges.
        """
        from clipcal.backbones import threads_for
        from clipcal.training import torch_generator, tune

        X, targets, weights = self._check_training_data(X, y, sample_weight)
        backbone = self._backbone_for(X)
        names = list(self.class_names_.values())
        random_state = check_random_state(self.random_state)
        generator = torch_generator(random_state)
        self.method_ = clone(find_method(self.method))
        learner = self.method_.learner(backbone, len(names), generator)
        class_prompts = learner.prompts(names)
        data = self._training_data(X, targets, weights, backbone, random_state)
        penalties = self._penalties(learner, names, backbone, generator)

        def state() -> dict[str, Any]:
            features = self._text_features(learner, class_prompts, backbone)
            return {"text_features_": features, "logit_scale_": float(backbone.logit_scale)}

        with (
            FitReport(
                self,
                X,
                self.classes_[targets],
                None if sample_weight is None else weights,
                max_epochs=self.max_epochs,
                state=state,
                description=f"Tuning {type(self.method_).__name__}" if self.verbose else None,
            ) as report,
            threads_for(learner.work(class_prompts)),
        ):
            self.history_ = tune(
                learner,
                class_prompts,
                data,
                penalties,
                logit_scale=float(backbone.logit_scale),
                n_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                data_generator=torch_generator(random_state, backbone.device),
                penalty_generator=generator,
                on_epoch_end=report.epoch,
            )
        self.learned_ = learner.arrays()
        self.device_ = str(backbone.device)
        self.__dict__.update(state())
        self._check_text_features()
        report.end()
        return self

    def _check_text_features(self) -> None:
        # The loop looks at losses, of which none comes after the last step, and vectors so long that their
        # length is infinite give features of zeros and an unsuspicious loss.
        if not (np.abs(np.linalg.norm(self.text_features_, axis=1) - 1) < 1e-3).all():
            raise FloatingPointError(
                "Training diverged and left no text features; "
                f"lower learning_rate (now {self.learning_rate})."
            )

    def _named_component(self, parameter: str, name: str) -> Any:
        return find_method(name) if parameter == "method" else find_regularizer(name)

    def _penalties(
        self, learner: TextLearner, names: list[str], backbone: Backbone, generator: Any
    ) -> list[Penalty]:
        from clipcal.methods import zero_shot_features
        from clipcal.regularizers import TuningProblem

        regularizers = find_regularizers(self.regularizer, self.method_)
        problem = TuningProblem(
            learner=learner,
            names=names,
            zero_shot=lambda texts, template: zero_shot_features(
                backbone, texts, template, memory=self.memory
            ),
            zero_shot_table=lambda texts, template: zero_shot_features(
                backbone, texts, template, skip_long=True, memory=self.memory, verbose=self.verbose
            ),
            outlier_weight=self.method_.outlier_weight if len(regularizers) == 1 else 2.0,
            generator=generator,
        )
        return [regularizer.prepare(problem) for regularizer in regularizers]

    def _training_data(
        self,
        X: Any,
        targets: NDArray[np.intp],
        weights: NDArray[np.float64],
        backbone: Backbone,
        random_state: np.random.RandomState,
    ) -> Any:
        """Return embeddings (n_samples, n_views, n_features) with targets and weights, on the device."""
        import torch
        from torch.nn.functional import normalize

        from clipcal.training import LabelledEmbeddings

        if input_kind(X) != "embeddings":
            # Crops without a seed are never drawn again, so keeping them would only fill the disk.
            seeded = self.n_views == 1 or self.random_state is not None
            X = encode_images(
                X,
                backbone,
                batch_size=self.batch_size,
                n_views=self.n_views,
                random_state=random_state,
                memory=self.memory if seeded else None,
                verbose=self.verbose,
            )
        # A copy: torch warns of read-only arrays, which joblib's workers get.
        views = torch.from_numpy(np.array(X, dtype=np.float64)).reshape(len(X), -1, self.n_features_in_)
        return LabelledEmbeddings(
            embeddings=normalize(views, dim=-1).float().to(backbone.device),
            targets=torch.as_tensor(targets, device=backbone.device),
            weights=torch.as_tensor(weights, dtype=torch.float32, device=backbone.device),
        )

    def zero_shot(self, template: str | Sequence[str] = DEFAULT_TEMPLATE) -> ZeroShotCLIPClassifier:
        """Return the classifier as it was before tuning, for the same classes.

        Parameters
        ----------
        template : str or sequence of str, default="a photo of a {}."
            Template of the zero-shot prompts; see :class:`ZeroShotCLIPClassifier`.

        Returns
        -------
        classifier : ZeroShotCLIPClassifier
            Fitted.

        Raises
        ------
        ClassNameError
            If the template is invalid.
        """
        check_is_fitted(self, "learned_")
        # All but the parameters of training.
        own = self.get_params(deep=False)
        shared = own.keys() & ZeroShotCLIPClassifier().get_params(deep=False).keys()
        other = ZeroShotCLIPClassifier(template=template, **{name: own[name] for name in shared})
        other.n_features_in_, other.logit_scale_ = self.n_features_in_, self.logit_scale_
        other.classes_, other.class_names_ = self.classes_, dict(self.class_names_)
        other._backbone_fingerprint_ = self._backbone_fingerprint_
        other.text_features_ = other._encode_classes(other._open_backbone(other.n_features_in_))
        return other

    def _encode_classes(self, backbone: Backbone) -> NDArray[np.float32]:
        from clipcal.training import torch_generator

        check_is_fitted(self, "learned_")
        names = list(self.class_names_.values())
        learner = self.method_.learner(backbone, len(names), torch_generator(0))
        if not learner.supports_new_classes:
            raise ValueError(
                "The context was learned for each class (class_specific=True), so it serves no other "
                "classes; fit with a shared context to use with_classes."
            )
        learner.load_arrays(self.learned_)
        return self._text_features(learner, learner.prompts(names), backbone)

    def _text_features(self, learner: TextLearner, prompts: Any, backbone: Backbone) -> NDArray[np.float32]:
        import torch

        with torch.no_grad():
            features = learner(prompts).cpu().numpy()
        shared = learner.supports_new_classes
        return self._with_equal_rows(features, backbone) if shared else features
