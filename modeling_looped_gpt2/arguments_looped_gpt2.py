"""Checks of the backbone's arguments, and what follows from them alone; errors come before any loop runs."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral, Real

import torch
from transformers.utils import TransformersKwargs


# arguments that transformers hands to any model, down to its attention
SHARED_ARGUMENTS = TransformersKwargs.__optional_keys__
# outputs with an entry per block, which need all rows to run all blocks
BLOCK_OUTPUTS = ("output_hidden_states", "output_attentions")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_names(names: Iterable[str], forward: Callable, owner: str):
    """Refuse arguments of `forward`, a method of the class `owner`, that nothing reads, such as misspelt ones."""
    for name in names:
        if name not in SHARED_ARGUMENTS:
            known = {*inspect.signature(forward).parameters, *SHARED_ARGUMENTS} - {"kwargs"}
            close = get_close_matches(name, sorted(known), 1)
            hint = f", did you mean `{close[0]}`?" if close else "."
            raise TypeError(f"`{name}` is not an argument of {owner}.forward{hint}")


def check_loops(
    n_loops: int | torch.LongTensor,
    loop_window: int | None = None,
    loops_per_slot: int = 1,
    batch_size: int | None = None,
    shows_loops: bool = False,
) -> tuple[int, int]:
    """Return the largest number of loops of a row, and the window; the batch size is checked where it is given."""
    if isinstance(n_loops, torch.Tensor):
        least, most = _check_loops_per_row(n_loops, batch_size)
    elif not _is_integer(n_loops) or n_loops < 1:
        hint = "; one per row is given as a tensor" if hasattr(n_loops, "__len__") else ""
        raise ValueError(f"`n_loops` must be an integer >= 1, got {n_loops!r}{hint}.")
    else:
        least = most = n_loops
    if not _is_integer(loops_per_slot) or loops_per_slot < 1:
        raise ValueError(f"`loops_per_slot` must be an integer >= 1, got {loops_per_slot!r}.")
    if loop_window is None and shows_loops and least < most:
        raise ValueError(
            f"`loop_window` must be given, in 1 ... {least}, to look at loops (`output_loop_...`, or `labels` of an "
            f"in-context head) of rows that run {least} to {most} of them."
        )
    if loop_window is None:
        return most, most
    if not _is_integer(loop_window) or not 1 <= loop_window <= least:
        smallest = "`n_loops`" if least == most else "the smallest `n_loops` of a row"
        raise ValueError(f"`loop_window` must be an integer in 1 ... {smallest} = {least}, got {loop_window!r}.")
    return most, loop_window


def _check_loops_per_row(n_loops: torch.Tensor, batch_size: int | None) -> tuple[int, int]:
    """Return the smallest and the largest number of loops of a row."""
    shape = tuple(n_loops.shape)
    if n_loops.dtype not in INTEGERS or len(shape) != 1 or 0 in shape or batch_size not in (None, shape[0]):
        rows = "" if batch_size is None else f" = {batch_size}"
        raise ValueError(
            "`n_loops` must be an integer or an integer tensor of shape (B,), one number for each row of the batch "
            f"B{rows}, got {n_loops.dtype} of shape {shape}."
        )
    least, most = int(n_loops.min()), int(n_loops.max())
    if least < 1:
        raise ValueError(f"`n_loops` must be >= 1 for every row, got {least}.")
    return least, most


def check_solved_window(loop_window: int | None, shows_loops: bool, solver: str) -> int:
    """Return the window of a call whose gradients a solver finds, 1; refuse another."""
    if loop_window != 1 and (loop_window is not None or shows_loops):
        raise ValueError(
            f"`loop_window` must be 1 with `solver={solver!r}` where gradients flow, got {loop_window!r}: the last "
            "loop alone carries them. Give 1, or look at other loops under `torch.no_grad()`."
        )
    return 1 if loop_window is None else loop_window


def check_tolerance(exit_tolerance: float):
    """Refuse a bad `exit_tolerance`."""
    if not _is_number(exit_tolerance) or not 0 < exit_tolerance < float("inf"):
        raise ValueError(f"`exit_tolerance` must be a finite number > 0, got {exit_tolerance!r}.")


def check_share(name: str, value: float):
    """Refuse anything but a number between 0 and 1."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"`{name}` must be a number in (0, 1), got {value!r}.")


def check_no_exits(exits: Mapping[str, object], looking: Iterable[str]):
    """Refuse any of `exits` that is given, because the arguments `looking` look at all loops."""
    given = " and ".join(f"`{name}`" for name, value in exits.items() if value is not None)
    if given:
        *names, last = (f"`{name}`" for name in looking)
        raise ValueError(f"{', '.join(names)} and {last} look at all loops: leave out {given}.")


def check_looks_at_loops(
    n_loops: int | torch.LongTensor,
    exits: Iterable[str],
    has_window: bool,
    shows_loops: bool,
    kwargs: Mapping[str, object],
):
    """Refuse outputs that have no meaning where rows end after different loops; `exits` are what may end them."""
    by_block = {name: kwargs.get(name) for name in BLOCK_OUTPUTS}
    by_loop = {"loop_window": has_window, "output_loop_hidden_states": shows_loops}
    unfit = {f"`{name}`": by_loop | by_block for name in exits}
    unfit["`n_loops` per row"] = by_block if isinstance(n_loops, torch.Tensor) else {}
    for argument, outputs in unfit.items():
        for name, given in outputs.items():
            if given:
                raise ValueError(
                    f"`{name}` cannot be used with {argument}: rows end after different loops. Leave one out."
                )


def check_indices(name: str, indices: torch.LongTensor, n_rows: int):
    """Refuse anything but indices `(B, T)` below `n_rows`; values are checked on the CPU only: a GPU would wait."""
    if not isinstance(indices, torch.Tensor) or indices.ndim != 2 or indices.dtype not in (torch.int, torch.long):
        got = f"{indices.dtype} of shape {tuple(indices.shape)}" if isinstance(indices, torch.Tensor) else indices
        raise ValueError(f"`{name}` must be a `torch.LongTensor` of two dimensions, got {got!s:.80}.")
    if not indices.numel():
        raise ValueError(f"`{name}` must hold a token at least, got shape {tuple(indices.shape)}.")
    if indices.device.type == "cpu" and not torch.compiler.is_compiling():
        least, most = indices.min().item(), indices.max().item()
        if not 0 <= least <= most < n_rows:
            raise ValueError(f"`{name}` must be in 0 ... {n_rows - 1}, got {least} to {most}.")


def check_labels(labels: torch.Tensor, logits: torch.Tensor, ignore_index: int = -100):
    """Refuse anything but a label, or `ignore_index`, for each of `logits` `(B, T, V)`; values as in check_indices."""
    shape = tuple(logits.shape[:2])
    if not isinstance(labels, torch.Tensor) or tuple(labels.shape) != shape:
        got = f"shape {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise ValueError(f"`labels` must be a tensor of shape {shape}, one for each of the logits, got {got}.")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        scored, n_tokens = labels[labels != ignore_index], logits.shape[-1]
        if ((scored < 0) | (scored >= n_tokens)).any():
            raise ValueError(
                f"`labels` must be in 0 ... {n_tokens - 1}, or {ignore_index} where nothing is scored, got "
                f"{scored.min().item()} to {scored.max().item()}."
            )


def check_mask(attention_mask: torch.Tensor | None, batch_size: int, n_seen: int | torch.Tensor, n_tokens: int):
    """Refuse a mask without one entry for each token of the cache (`n_seen` of them) and of the call."""
    # a static cache keeps its length in a tensor; masks of four dimensions are the caller's own
    shape = getattr(attention_mask, "shape", ())
    if attention_mask is None or len(shape) == 4 or not isinstance(n_seen, int):
        return
    expected = (batch_size, n_seen + n_tokens)
    if not isinstance(attention_mask, torch.Tensor) or tuple(shape) != expected:
        raise ValueError(
            f"`attention_mask` must be a tensor of shape {expected}, one entry per token of the cache and of the "
            f"call, got {type(attention_mask).__name__} of shape {tuple(shape)}."
        )


def check_cells(n_cells: int | None, n_tokens: int, attention_mask: torch.Tensor | None, ends_rows: bool):
    """Refuse the tokens of anything but a whole table, under a mask of its rows; `ends_rows`: with a cache."""
    if n_cells is None:
        return
    if not _is_integer(n_cells) or n_cells < 1 or n_tokens % n_cells:
        raise ValueError(f"`n_cells` must be an integer >= 1 that divides the {n_tokens} tokens, got {n_cells!r}.")
    shape = tuple(getattr(attention_mask, "shape", ()))
    expected = (1, 1, n_tokens // n_cells)
    if len(shape) != 4 or shape[:3] != expected:
        raise ValueError(
            f"`attention_mask` must have the shape {expected} and then the rows that are seen, for rows of {n_cells} "
            f"cells, got {shape}."
        )
    if ends_rows:
        raise ValueError("`n_cells` with a cache needs all tables to run as many loops: leave out one of them.")


def last_tokens(
    inputs_embeds: torch.Tensor, mask: torch.Tensor | None, n_seen: int | torch.Tensor
) -> torch.LongTensor:
    """Return for each row the index `(B,)` of the last token that the mask shows, among those after the cache's."""
    batch_size, n_tokens = inputs_embeds.shape[:2]
    last = torch.full((batch_size,), n_tokens - 1, device=inputs_embeds.device)
    if mask is None:
        return last
    start, end = int(n_seen), int(n_seen) + n_tokens
    shape = tuple(mask.shape) if isinstance(mask, torch.Tensor) else ()
    is_square = len(shape) == 4 and shape[2] == n_tokens
    if not (len(shape) == 2 or is_square) or shape[-1] < end:
        raise ValueError(
            "The loops of a row end by the last token that `attention_mask` shows: give a mask of shape "
            f"{(batch_size, end)}, 1 for tokens and 0 for padding, got {type(mask).__name__} of shape {shape}."
        )
    shown = mask[..., start:end]
    threshold = 0
    if is_square:  # a token that is shown sees itself
        shown = shown[:, 0].diagonal(dim1=-2, dim2=-1)
        threshold = torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else 0
    # in a row of padding alone, whose result nobody reads, this is the last token
    return last - (shown > threshold).int().flip(-1).argmax(-1)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
