"""The door: checks of arguments that several rooms share, each with one clear error.

Every function stops with what was expected, what came and what to do; or returns
nothing, but for `end_of` and `real_numbers`.
"""

import math
from numbers import Integral, Real

import numpy as np
import psutil
import torch


def is_integer(value):
    """Return whether the value is an integer, which True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_positive_integer(value, name):
    """Stop where the value is not an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"{name} must be a positive integer; got {value!r}. Use 1 or more."
        )


def require_number(value, name, *, positive, hint):
    """Stop where the value is not a finite number, positive or at least 0."""
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        kind = "positive number" if positive else "number of at least 0"
        raise ValueError(f"{name} must be a {kind}; got {value!r}. {hint}")


def require_one_of(value, choices, name, hint):
    """Stop where the value is none of the named choices."""
    if value not in tuple(choices):
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}; got {value!r}. {hint}"
        )


def require_rate(rate):
    """Stop where a learning rate is not a positive number."""
    require_number(rate, "learning_rate", positive=True, hint="Start with 0.1.")


def end_of(name, end, kinds):
    """Return kind and place of an end, where it is a pair of a known kind and a place.

    The place itself is not looked at.
    """
    if not isinstance(end, tuple | list) or len(end) != 2:
        raise ValueError(
            f"the {name} end must be a kind and a place; got {end!r}. Pass for "
            f'instance ("natural", math.inf) or ("{kinds[-1]}", 1.0).'
        )
    kind, place = end
    require_one_of(kind, kinds, f"kind of the {name} end", "Choose one.")
    return kind, place


def require_process(process):
    """Stop where the process is none, such as an SDE that was not made into one."""
    if not hasattr(process, "dimension"):
        raise TypeError(
            f"process must be a Process; got {type(process).__name__}. An SDE makes "
            "one: sde.process({symbol: value})."
        )


def require_floating_dtype(dtype):
    """Stop where dtype is not a floating-point type of torch."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype must be a floating-point torch type; got {dtype!r}. "
            "Use torch.float64 or torch.float32."
        )


def require_floating_tensor(value, name):
    """Stop where the value is not a floating-point tensor."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(
            f"{name} must be a floating-point tensor; got {got}. Convert it with "
            "torch.as_tensor(..., dtype=torch.float64)."
        )


def require_finite(value, name):
    """Stop where an entry of the tensor is not finite."""
    if not bool(value.isfinite().all()):
        raise ValueError(
            f"{name} must be finite; {int((~value.isfinite()).sum())} of "
            f"{value.numel()} entries are not. Look where they were computed."
        )


def require_square(value, name):
    """Stop where the value is no finite square matrix."""
    require_floating_tensor(value, name)
    if value.ndim != 2 or value.shape[0] != value.shape[1] or not len(value):
        raise ValueError(
            f"{name} must be a square matrix; got shape {tuple(value.shape)}. Pass "
            "(d, d); [[h]] for d = 1."
        )
    require_finite(value, name)


def require_symmetric(value, name):
    """Stop where a matrix, or one of many, differs from its transpose."""
    worst = float((value - value.mT).abs().max())
    if worst > 1e-10 * float(value.abs().max()):
        raise ValueError(
            f"{name} must be symmetric; entries differ by {worst:.3g} from those "
            "across the diagonal. Take (M + M.mT) / 2 if that is rounding."
        )


def require_covariance(value, name, like, batch=False):
    """Stop where the value is no covariance of the size, dtype and device of like.

    With batch it may be many, of shape (..., d, d).
    """
    require_floating_tensor(value, name)
    shape, d = tuple(value.shape), len(like)
    fits = shape[-2:] == (d, d) and (batch or len(shape) == 2)
    if not fits or (value.dtype, value.device) != (like.dtype, like.device):
        raise ValueError(
            f"{name} must be {like.dtype} on {like.device} of shape ({d}, {d}); got "
            f"{value.dtype} on {value.device}, {shape}. Make both alike."
        )
    require_finite(value, name)
    require_symmetric(value, name)
    values = torch.linalg.eigvalsh(value)
    least, most = float(values.min()), float(values.abs().max())
    if least < -1e-10 * most:
        raise ValueError(
            f"{name} must have no negative eigenvalue; the smallest is {least:.6g}. "
            "It is a covariance."
        )


def require_vector(value, name, like):
    """Stop where the value is no finite vector of the length and dtype of like."""
    require_floating_tensor(value, name)
    if value.shape != (len(like),) or value.dtype != like.dtype:
        raise ValueError(
            f"{name} must be {like.dtype} of shape ({len(like)},); got {value.dtype} "
            f"{tuple(value.shape)}. One number for each coordinate."
        )
    require_finite(value, name)


def require_agreement(model, inputs):
    """Stop where the inputs are not of the model's dtype and on its device."""
    for name, p in model.named_parameters():
        if (p.dtype, p.device) != (inputs.dtype, inputs.device):
            raise ValueError(
                f"inputs must be {p.dtype} on {p.device} like the parameter {name!r}; "
                f"got {inputs.dtype} on {inputs.device}. Pass the same dtype= and "
                "device= to both, or convert with inputs.to(...)."
            )


def require_memory(need, device, what, hint):
    """Stop where so many bytes are not free."""
    if torch.device(device).type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    if need > free:
        raise MemoryError(
            f"{what} needs {need / 2**30:.3g} GiB; {free / 2**30:.3g} GiB are free. "
            f"{hint}"
        )


def require_generator(generator, tensor, name):
    """Stop where the generator is none, or not on the tensor's device."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator; got {type(generator).__name__}. "
            "Make one with sgdbook.devices.generator(seed, device)."
        )
    if generator.device.type != tensor.device.type:
        raise ValueError(
            f"generator lives on {generator.device}, {name} on {tensor.device}. Make "
            "both on one device."
        )


def real_numbers(values, name, shape=None):
    """Return finite float64 numbers as a vector."""
    if not isinstance(values, torch.Tensor):
        values = np.asarray(values)
        if values.dtype.kind not in "fiu":
            raise TypeError(
                f"{name} must be a tensor or an array of real numbers; got "
                f"{type(values).__name__} of {values.dtype}. Convert it."
            )
    found = torch.as_tensor(values).detach()
    if found.is_complex() or (shape and found.ndim != 1) or not found.numel():
        raise ValueError(
            f"{name} must be real numbers of shape {shape or '(n,), or any other'}, at "
            f"least one; got {found.dtype} of shape {tuple(found.shape)}."
        )
    found = found.to(torch.float64).flatten()
    bad = (~found.isfinite()).sum().item()
    if bad:
        raise ValueError(
            f"{name} must be finite; {bad} of {len(found)} are not. Look for NaN or "
            "infinity."
        )
    return found
