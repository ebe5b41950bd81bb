"""Prompt-tuned classifier."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state

from clipcal._compat import HasMethods, Interval, StrOptions, _fit_context
from clipcal._components import NamedComponents
from clipcal._fitting import all_or_nothing
from clipcal.caching import FeatureCache, MemoryLike
from clipcal.classifiers._callbacks import FitReport, with_callbacks
from clipcal.classifiers._components import find_method, find_recipe, find_regularizer, find_regularizers
from clipcal.classifiers._epoch_choice import StartRun, TrainingRun, choose_n_epochs
from clipcal.classifiers._learned import LearnedCLIPClassifier
from clipcal.classifiers._settings import SETTINGS

if TYPE_CHECKING:
    import torch

    from clipcal.backbones import Backbone
    from clipcal.methods import TuningMethod
    from clipcal.regularizers import Regularizer
    from clipcal.training import Recipe, TrainingData

__all__ = ["PromptTunedCLIPClassifier"]


class PromptTunedCLIPClassifier(CallbackSupportMixin, NamedComponents, LearnedCLIPClassifier):
    """CLIP classifier with learned prompts, tuned on a few images per class.

    The towers are frozen. The parameters of the method, such as context vectors before the class name, are
    trained by gradient descent on the cross-entropy and, optionally, regularizers that improve calibration on
    unseen classes.

    Parameters
    ----------
    backbone : str or Backbone, default="ViT-B-16/openai"
        The frozen CLIP; see :func:`clipcal.backbones.open_backbone`. ``"mini"`` needs no download.
    method : str or TuningMethod, default="coop"
        Tuning method, such as ``"coop"``, ``"maple"`` or ``"taskres"``; :ref:`methods` lists all names. Each
        name stands for a class of :mod:`clipcal.methods`, with its default parameters.
    regularizer : str, Regularizer, a list of these, or None, default=None
        Loss terms that are added to the loss of the method or replace its cross-entropy. ``"dor"`` keeps the
        text features of other nouns near their zero-shot features, ``"kg"`` those of the classes, and
        ``"label-smoothing"`` smooths the labels; :ref:`loss-terms` lists all names and classes. Parameters of
        a regularizer can be set by name, for example ``regularizer__weight`` in a search.
    recipe : str, default="auto"
        Training settings, used for each parameter from ``max_epochs`` to ``early_stopping`` that is None.
        ``"fast"`` takes few steps, each with all images, and chooses their number on held-out training data.
        ``"original"`` are the settings of the authors of the method, ``"dor"`` those of the authors of DOR as
        far as their published code shows. ``"auto"`` is ``"fast"`` for methods that have it, except for
        class-specific contexts, and ``"original"`` for others; see :ref:`recipes`. A method given by name
        also gets the method parameters of the recipe, such as 16 random context vectors for CoOp with
        ``"dor"``.
    max_epochs : int or None, default=None
        Number of passes through the data. In the original recipe of CoOp it is 200, in the fast at most 100.
    learning_rate : float or None, default=None
        Highest learning rate. In the original recipe of CoOp it is 0.002, in the fast 0.03, or 0.1 for random
        contexts.
    batch_size : int, "all" or None, default=None
        Number of samples per step. ``"all"``, as in the fast recipes, uses all training data in each step. In
        the original recipe of CoOp it is 32. If there are fewer samples, they form one batch.
    optimizer : {"sgd", "adam", "adamw"}, callable or None, default=None
        Optimizer. A callable, such as a class of ``torch.optim``, is called with the parameters, ``lr`` and
        ``weight_decay``. In the original recipe of CoOp it is ``"sgd"``, in the fast ``"adam"``.
    momentum : float or None, default=None
        Momentum of SGD. In recipes it is 0.9.
    weight_decay : float or None, default=None
        Weight decay. In the original recipe of CoOp it is 0.0005, in the fast 0.
    schedule : {"cosine", "constant"} or None, default=None
        Learning rate schedule after the warm-up. In the original recipe of CoOp it is ``"cosine"``, in the
        fast ``"constant"``.
    warmup_epochs : int or None, default=None
        Number of warm-up epochs. In the original recipe of CoOp it is 1, in the fast 0.
    warmup_rate : float or None, default=None
        Learning rate of the warm-up epochs. In recipes it is 0.00001.
    drop_last : bool or None, default=None
        Whether an incomplete last batch is dropped. In recipes it is True.
    early_stopping : bool or None, default=None
        Whether the number of epochs, at most `max_epochs`, is chosen on held-out training data. Then
        training starts anew on all data, with this number and the learning rates of `max_epochs`; see the
        notes, and :class:`~clipcal.classifiers.EarlyStopping`, with `max_epochs`, for own validation data.
        None is True for the recipe ``"fast"`` without `max_epochs`, and False otherwise.
    class_names : mapping of label to str, default=None
        Name of each label to be used in prompts. By default, labels are used as names.
    allow_duplicate_names : bool, default=False
        Whether several labels may have the same name, such as "missile" in the published names of the
        ImageNet classes. Such classes have the same probability, unless contexts are class-specific
        (``class_specific=True``). By default, names with the same tokens raise an error.
    class_weight : mapping of label to float, "balanced" or None, default=None
        Weights of classes, by which sample weights are multiplied. ``"balanced"`` gives each class the same
        total weight. Labels that a mapping does not contain have weight 1.
    n_views : int or "fresh", default=1
        Number of views of each image. 1 trains on center crops. For 2 or more, each step draws one of this
        many random crops per image, flipped with probability 0.5. ``"fresh"`` draws a new crop in each step,
        as the published trainers do. Crops are encoded before training, fresh ones in each step, which is
        slow without a GPU; 10 has nearly the same effect. Methods that prompt the image tower encode all in
        each step. With the published number of epochs, one view overfits. Embeddings have one view.
    warm_start : bool, default=False
        Whether ``fit`` starts from the learned parameters of the previous ``fit``, which must have had the
        same class names. Learning rate schedule, optimizer and ``history_`` start anew. There is no early
        stopping then, so the fast recipe needs `max_epochs`.
    random_state : int, RandomState instance or None, default=None
        Controls initial values, the order of samples, views, outliers and the splits of early stopping.
    device : str or torch.device, default="auto"
        Device to run on. ``"auto"`` is CUDA if available, else MPS if available, else the CPU.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the frozen towers. ``"auto"`` is bfloat16 on CUDA devices that support it and float32
        elsewhere. Learned parameters, softmax and losses are always float32.
    memory : str, Path, FeatureCache, joblib.Memory or None, default=None
        Cache of image features and of text features of class prompts and outliers on disk, keyed by content;
        see :class:`clipcal.FeatureCache`.
    verbose : int, default=0
        If at least 1, progress bars are shown while encoding images and nouns and while training, with loss
        and accuracy of the last epoch. See the notes for callbacks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    class_names_ : dict
        Name of each label in the prompts.
    text_features_ : ndarray of float32, shape (n_classes, n_features)
        Tuned text features of unit length; for CoCoOp those for the mean training image, for ProDA shorter
        ones, and for LP++ the vectors with which image features are multiplied.
    method_ : TuningMethod
        The method used, with its hyperparameters.
    learned_ : dict of ndarray
        Learned parameters by name; for CoOp ``"context"`` of shape (n_context, token_dim).
    tuned_names_ : list of str
        Names of the training classes. ``with_classes`` does not change them.
    recipe_ : dict
        Training settings used, by parameter, the name of the recipe, and other arguments of the optimizer if
        the recipe contains any.
    logit_scale_ : float
        Factor by which cosine similarities are multiplied; for ProDA and LP++, dot products.
    history_ : list of dict
        One record per epoch: ``epoch``, ``learning_rate``, ``loss``, ``cross_entropy``, ``accuracy`` on
        the training batches, and the weighted loss term of each regularizer by its name. A loss that a
        regularizer replaces is missing.
    validation_history_ : list of dict
        Held-out log losses with early stopping, one record for each number of epochs: ``n_epochs``,
        ``log_loss`` on held-out images of training classes, ``new_log_loss`` on held-out classes, and their
        mean ``mean_log_loss``. Defined only with early stopping.
    device_ : str
        Device used for training.
    n_features_in_ : int
        Number of features of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names, defined only if ``X`` in ``fit`` was a data frame of embeddings.

    See Also
    --------
    ZeroShotCLIPClassifier : Zero-shot classifier, without training.
    clipcal.calibration.CalibratedCLIPClassifier : Calibration after training.

    Notes
    -----
    With early stopping, the number of epochs is chosen by cross-validation. In each split, half of the
    classes are held out, and, if most classes have several images, a quarter of the images of the others.
    After each epoch, the log loss on both held-out parts is averaged over parts and splits. The number of
    epochs with the lowest value is chosen, which may be 0; the search ends after five epochs without a lower
    value. With mini-batches, the number of steps is kept instead, since splits have fewer steps per epoch.
    There are two splits, or four for fewer than 1,000 images. With fewer than four classes, or separate
    parameters for each class, no classes are held out. If there is only one image per class, too, the number
    of epochs is 5. With several views, held-out images are crops.

    Callbacks of scikit-learn show progress and scores during ``fit``, for example
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
        "method": [str, HasMethods(["learner"])],
        "regularizer": [str, HasMethods(["prepare"]), list, tuple, None],
        "recipe": [str],
        **SETTINGS,
        "class_names": [Mapping, None],
        "allow_duplicate_names": ["boolean"],
        "class_weight": [Mapping, StrOptions({"balanced"}), None],
        "n_views": [Interval(Integral, 1, None, closed="left"), StrOptions({"fresh"})],
        "warm_start": ["boolean"],
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
        recipe: str = "auto",
        max_epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | str | None = None,
        optimizer: str | Callable[..., torch.optim.Optimizer] | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        warmup_epochs: int | None = None,
        warmup_rate: float | None = None,
        drop_last: bool | None = None,
        early_stopping: bool | None = None,
        class_names: Mapping[Any, str] | None = None,
        allow_duplicate_names: bool = False,
        class_weight: Mapping[Any, float] | str | None = None,
        n_views: int | str = 1,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: MemoryLike | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.regularizer = regularizer
        self.recipe = recipe
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_epochs = warmup_epochs
        self.warmup_rate = warmup_rate
        self.drop_last = drop_last
        self.early_stopping = early_stopping
        self.class_names = class_names
        self.allow_duplicate_names = allow_duplicate_names
        self.class_weight = class_weight
        self.n_views = n_views
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.memory = memory
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # The order of summation is not fixed on CUDA.
        tags.non_deterministic = str(getattr(self, "device_", "")).startswith("cuda")
        return tags

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Tune the prompts on training data.

        Parameters
        ----------
        X : images or embeddings
            Paths (list, array, Series, :class:`~clipcal.images.ImagePaths`), contents of image files, PIL
            images, image columns of Hugging Face data sets (:func:`clipcal.load_images`), uint8 arrays or
            tensors (n_samples, height, width[, 3]), or, for most methods, embeddings (n_samples, n_features).
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of samples in the losses that are means over samples, such as the cross-entropy. Only
            ratios matter. Samples of weight zero are dropped.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If X and y are invalid or inconsistent, y has fewer than two classes, X contains embeddings but
            the method prompts the image tower, or parameters contradict each other.
        ClassNameError
            If a class name is empty, too long or a duplicate.
        FloatingPointError
            If training diverges. Early stopping ends its search there, with a warning.
        """
        from clipcal.backbones import threads_for
        from clipcal.training import torch_generator, tune

        before = self._learned_before() if self.warm_start else None
        X, targets, weights = self._check_training_data(X, y, sample_weight)
        self.method_ = clone(find_method(self.method, self.recipe))
        regularizers = find_regularizers(self.regularizer, self.method_)
        name, recipe = find_recipe(self.method_, self.recipe, self)
        self.recipe_ = {"recipe": name, **recipe.plain()}
        backbone = self._backbone_for(X)
        random_state = check_random_state(self.random_state)
        generator = torch_generator(random_state)
        data = self._training_data(X, targets, weights, backbone, random_state)
        self.tuned_names_ = list(self.class_names_.values())
        start = partial(self._start, self._problem(backbone, generator, data, regularizers), regularizers)
        run = start(self.tuned_names_, data, generator, before=before)
        self._check_method(run, data)
        data_generator = torch_generator(random_state, backbone.device)
        with threads_for(run.learner.work(run.prompts, recipe.batch_size_for(len(data)))):
            n_epochs = self._choose_n_epochs(start, run, targets, data, recipe, random_state)
            state = partial(self._learned_state, run.learner, run.prompts, backbone)
            report = self._report(X, targets, None if sample_weight is None else weights, n_epochs, state)
            with report:
                self.history_ = tune(
                    run.learner,
                    run.prompts,
                    data,
                    run.terms,
                    recipe=recipe,
                    data_generator=data_generator,
                    term_generator=generator,
                    n_epochs=n_epochs,
                    on_epoch_end=report.epoch,
                )
        self.__dict__.update(state())
        self._check_text_features()
        report.end()
        return self

    def _choose_n_epochs(
        self,
        start: StartRun,
        run: TrainingRun,
        targets: NDArray[np.intp],
        data: TrainingData,
        recipe: Recipe,
        random_state: np.random.RandomState,
    ) -> int:
        """Return the number of epochs, chosen on held-out training data if the recipe asks for it."""
        self.__dict__.pop("validation_history_", None)
        if not recipe.early_stopping:
            return recipe.max_epochs
        n_epochs, self.validation_history_ = choose_n_epochs(
            start,
            self.tuned_names_,
            targets,
            data,
            recipe,
            new_classes=run.learner.supports_new_classes,
            text_depends_on_image=self.method_.text_depends_on_image,
            random_state=random_state,
            verbose=self.verbose,
        )
        return n_epochs

    def _report(
        self,
        X: Any,
        targets: NDArray[np.intp],
        weights: NDArray[np.float64] | None,
        n_epochs: int,
        state: Callable[[], dict[str, Any]],
    ) -> FitReport:
        return FitReport(
            self,
            X,
            self.classes_[targets],
            weights,
            max_epochs=n_epochs,
            state=state,
            description=f"Tuning {type(self.method_).__name__}" if self.verbose else None,
        )

    def _named_component(self, parameter: str, name: str, params: Mapping[str, Any]) -> Any:
        if parameter == "regularizer":
            return find_regularizer(name)
        return find_method(name, params.get("recipe", self.recipe))
