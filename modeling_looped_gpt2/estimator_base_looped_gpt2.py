"""What the estimators for regression and classification share: a table becomes contexts that are encoded once."""

import copy
import os
from collections.abc import Callable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state, check_X_y
from sklearn.utils.validation import validate_data
from transformers.utils.logging import tqdm

from .configuration_looped_gpt2 import LoopedGPT2Config
from .estimator_columns_looped_gpt2 import Column, choose_columns, find_columns, is_frame, read_columns
from .estimator_input_looped_gpt2 import unpack_features, unpack_target
from .estimator_turns_looped_gpt2 import Turn
from .estimator_views_looped_gpt2 import view_of
from .in_context_looped_gpt2 import LoopedGPT2InContextPreTrainedModel


# contexts, as often as y is read, times queries that are computed together: many make matrix products fast; few need
# little memory
ANSWERS_AT_A_TIME = 1024
# contexts times queries that are worth a progress bar
MANY_ANSWERS = 4096
RELEASES = Path(__file__).parents[1] / "model_cards"  # in a clone of the project
NUMBERS = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}


class InContextEstimator(BaseEstimator):
    """
    Columns that are read, chosen and standardised by the examples, which are dealt into contexts.

    Class attributes:
        model_class (`type`), default_model (`str`):
            Class of the models that answer, and the release that does where none is given.
        takes_text (`bool`):
            Whether y may be text.
    """

    model_class: type[LoopedGPT2InContextPreTrainedModel]
    default_model: str
    takes_text: bool

    def __init__(
        self,
        model=None,
        n_loops: int | None = None,
        exit_tolerance: float | None = None,
        max_examples: int = 1000,
        max_contexts: int = 16,
        n_estimators: int = 1,
        revision: str | None = None,
        device: str | None = None,
        random_state=None,
        verbose: bool = True,
    ):
        self.model = model
        self.n_loops = n_loops
        self.exit_tolerance = exit_tolerance
        self.max_examples = max_examples
        self.max_contexts = max_contexts
        self.n_estimators = n_estimators
        self.revision = revision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _read_examples(self, X: Any, y: Any, others: dict) -> tuple[list[Column], np.ndarray, np.ndarray]:
        """Return the columns that X is read as, their numbers `(n, n_columns)`, NaN for missing values, and y."""
        if others:
            raise TypeError(
                f"`fit` takes X and y alone, got {', '.join(f'`{name}`' for name in others)}. A prompt cannot say "
                "that an example counts half: draw the examples by weight, e.g. with sklearn.utils.resample."
            )
        X, y = unpack_features(X), y if y is None else unpack_target(y, self.takes_text)
        numbers = NUMBERS | {"y_numeric": not self.takes_text}
        try:
            # a wider float becomes infinite and is refused as such; scikit-learn's own sum over X may overflow
            with np.errstate(over="ignore", invalid="ignore"):
                if not is_frame(X):
                    X, y = validate_data(self, X, y, **numbers)
                    return find_columns(X), X, y
                validate_data(self, X, y, skip_check_array=True)
                columns = find_columns(X)
                return columns, *check_X_y(read_columns(X, columns), y, **numbers)
        except OverflowError:
            raise ValueError("X and y must be within the range of float64, got an integer beyond 1.8e308.") from None

    def _read_queries(self, X: Any) -> np.ndarray:
        """The numbers of the columns that the model sees `(n, n_columns)`."""
        X = unpack_features(X)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                if not is_frame(X):
                    return read_columns(validate_data(self, X, reset=False, **NUMBERS), self._columns)
                validate_data(self, X, reset=False, skip_check_array=True)
                return check_array(read_columns(X, self._columns), **NUMBERS)
        except OverflowError:
            raise ValueError("X must be within the range of float64, got an integer beyond 1.8e308.") from None

    def _choose(self, columns: list[Column], X: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Choose columns for the model, whose targets say what is near to y; returns their numbers."""
        self._view = view_of(self.model_.config)
        kept = choose_columns(X, targets, self._view.max_columns)
        self._columns = [columns[i] for i in kept]
        self.columns_ = [column.name for column in self._columns]
        self._view.fit(X[:, kept], targets)
        return X[:, kept]

    def _encode(self, X: np.ndarray, ys: torch.Tensor):
        """Encode X with ys `(n_readings, n_examples)`, several readings of y, in every context of every estimator."""
        shown, random_state = self._view.show(X), check_random_state(self.random_state)
        orders = [self._deal(len(X), random_state, is_first=number == 0) for number in range(self.n_estimators)]
        turns = (Turn.draw(shown, self._view.is_ordered, random_state) for _ in orders[1:])
        self._turns = [Turn.none(shown), *turns]
        self.n_readings_, (self.n_contexts_, self.n_examples_) = len(ys), orders[0].shape
        xs = torch.cat([turn(shown)[order] for turn, order in zip(self._turns, orders, strict=True)])
        # by contexts within estimators within readings of y
        xs = xs.to(self.model_.device).repeat(len(ys), 1, 1)
        ys = ys[:, np.concatenate(orders)].flatten(0, 1).to(self.model_.device)
        with torch.inference_mode():
            self.context_ = self.model_.encode_context(xs, ys, n_loops=self._count_loops(xs, ys))
        self.n_loops_ = self.model_.config.loops_of(len(self.context_))

    def _count_loops(self, xs: torch.Tensor, ys: torch.Tensor) -> int | None:
        """Loops after which the answers to some of the examples, asked as queries to the others, have settled."""
        n_examples = xs.shape[1]
        if self.exit_tolerance is None or n_examples == 1:
            return self.n_loops
        asked = self._view.asked(n_examples)
        order = np.r_[np.setdiff1d(np.arange(n_examples), asked), asked]
        xs, ys = xs[:, order], ys[:, order[: -len(asked)]]
        outputs = self.model_(xs, ys, n_loops=self.n_loops, exit_tolerance=self.exit_tolerance)
        return int(outputs.n_loops_used.max())

    def _ask(self, X: np.ndarray, predict: Callable[..., torch.Tensor]) -> Iterator[torch.Tensor]:
        """
        Yield what `predict` of the model answers from every context, for some rows of X at a time.

        It is `(n_readings, n_estimators * n_contexts, n_rows, ...)`, float64.
        """
        n_copies = self.n_readings_ * len(self._turns) * self.n_contexts_
        n_rows = max(1, ANSWERS_AT_A_TIME // n_copies)
        takes_long = n_copies * len(X) > MANY_ANSWERS
        hidden = None if self.verbose and takes_long else True  # None: where stderr is no terminal
        with tqdm(total=len(X), desc="predict", unit=" rows", disable=hidden) as progress:
            for start in range(0, len(X), n_rows):
                shown = self._view.show(X[start : start + n_rows])
                queries = torch.stack([turn(shown) for turn in self._turns]).to(self.model_.device)
                queries = queries.repeat_interleave(self.n_contexts_, dim=0).repeat(self.n_readings_, 1, 1)
                with torch.inference_mode():
                    answers = predict(queries, self.context_)
                yield answers.cpu().double().unflatten(0, (self.n_readings_, -1))
                progress.update(len(shown))

    def _load(self) -> LoopedGPT2InContextPreTrainedModel:
        for name in ("max_examples", "max_contexts", "n_estimators"):
            number = getattr(self, name)
            if not isinstance(number, Integral) or number < 1:
                raise ValueError(f"`{name}` must be an integer >= 1, got {number!r}.")
        given = RELEASES / self.default_model if self.model is None else self.model
        if isinstance(given, torch.nn.Module):
            model, names = given, _class_names(given)
        elif isinstance(given, str | os.PathLike):
            path = Path(given)
            # neither of these can be meant as a repository, `namespace/name`
            is_folder = path.is_absolute() or len(path.parts) > 2 or (len(path.parts) == 2 and path.parent.is_dir())
            if is_folder and not path.exists():
                raise ValueError(f"`model` must be a folder, a Hub repository or a model: there is no folder {path}.")
            hub_arguments = {"revision": self.revision} if self.revision else {}
            model = self.model_class.from_pretrained(given, **hub_arguments)
            names = model.config.architectures or [None]
        else:
            raise ValueError(f"`model` must be a folder, a Hub repository or a model, got {self.model!r}.")
        if self.model_class.__name__ not in names:
            raise ValueError(
                f"`model` must be a {self.model_class.__name__} for {type(self).__name__}, got a {names[0]}."
            )
        # a copy, which the estimator may move and the caller may train on
        return copy.deepcopy(self._in_own_class(model)).eval().to(self.device or model.device)

    def _in_own_class(self, model: torch.nn.Module) -> LoopedGPT2InContextPreTrainedModel:
        """The model in the class of this package, sharing its weights."""
        if isinstance(model, self.model_class):
            return model
        attention = model.config._attn_implementation
        config = LoopedGPT2Config.from_dict(model.config.to_dict(), attn_implementation=attention)
        with torch.device("meta"):
            own_model = self.model_class(config)
        own_model.load_state_dict(model.state_dict(), assign=True)
        return own_model

    def __getstate__(self) -> dict:
        """Pickle a model in the class of this package: another process does not find that of a checkpoint's code."""
        state = dict(super().__getstate__())
        if isinstance(self.model, torch.nn.Module) and self.model_class.__name__ in _class_names(self.model):
            state["model"] = self._in_own_class(self.model)
        return state

    def _deal(self, n: int, random_state: np.random.RandomState, is_first: bool) -> np.ndarray:
        """Deal n examples into contexts `(n_contexts, n_examples)`; one of the first estimator has them in order."""
        max_examples = self._view.max_examples(self.model_, self.max_examples)
        if n <= max_examples:
            return (np.arange(n) if is_first else random_state.permutation(n))[None]
        n_contexts = min(-(-n // max_examples), self.max_contexts)
        n_examples = min(-(-n // n_contexts), max_examples)
        # the last context is filled up with examples of the first
        return np.resize(random_state.permutation(n), (n_contexts, n_examples))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _class_names(model: torch.nn.Module) -> list[str]:
    """Names of the model's class and those it is derived from: the class may be that of a checkpoint's own code."""
    return [base.__name__ for base in type(model).__mro__]
