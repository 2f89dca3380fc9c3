"""A device without hardware, for tests on a laptop.

Tensors that say they are elsewhere (on "meta") but compute on the CPU. They refuse to meet tensors that stayed on the CPU,
generators of another device, and float64, which Apple's GPUs lack (the library uses it on "cpu" and "cuda" only).
Every operation that would make a real device wait is noted: reading a value, counting (nonzero, unique, masks as indices),
copying to the CPU, and copying from ordinary CPU memory without `non_blocking`.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

TAKES_CPU = {  # an index, a source of a copy: a CUDA device takes those from the CPU too
    "index",
    "index_put_",
    "_index_put_impl_",
    "_unsafe_index",
    "copy_",
    "_to_copy",
    "_copy_from",
}
READS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
}


class There(torch.Tensor):
    "A tensor on the device; `here` holds its numbers."

    @staticmethod
    def __new__(cls, here, device):
        how = dict(strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype)
        self = torch.Tensor._make_wrapper_subclass(cls, here.shape, device=device, **how)
        self.here = here
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        there = next(v for v in tree_leaves((args, kwargs)) if isinstance(v, There))
        return Pretend(there.device).run(func, args, kwargs or {})

    def __repr__(self, **_):
        return f"There({self.here})"

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, **how):
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **how})


class Generator(torch.Generator):
    "Of the pretended device if asked for."

    known = {}  # a generator comes back from C++ as another object

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.where = torch.device(device)
        self.known[self._cdata] = self

    device = property(lambda self: self.where)


class Pretend(TorchDispatchMode):
    def __init__(self, device):
        super().__init__()
        self.device, self.waits = torch.device(device), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        name = func.name().split("::")[1].split(".")[0]
        leaves = tree_leaves((args, kwargs))
        there = any(isinstance(v, There) for v in leaves)
        target = kwargs.get("device")
        lands = there if target is None else torch.device(target).type == self.device.type
        self.check_company(name, leaves, there, lands)
        self.note_wait(name, leaves, there, lands, kwargs, args)
        inner = tree_map_only(There, lambda v: v.here, kwargs)
        if target is not None:
            inner["device"] = torch.device("cpu")
        out = func(*tree_map_only(There, lambda v: v.here, args), **inner)
        if not lands:
            return out
        self.check_dtype(name, out)
        if name == "_to_copy" and out is args[0]:
            out = out.clone()
        out = tree_map_only(torch.Tensor, lambda v: There(v, self.device), out)
        return return_and_correct_aliasing(func, args, kwargs, out) if there else out

    def check_company(self, name, leaves, there, lands):
        if there and name not in TAKES_CPU:
            for v in leaves:
                if isinstance(v, torch.Tensor) and not isinstance(v, There) and v.dim() > 0:
                    raise RuntimeError(f"{name}: a CPU tensor {tuple(v.shape)} meets the device")
        for g in leaves:
            g = Generator.known.get(g._cdata) if isinstance(g, torch._C.Generator) else None
            if g is not None and (g.device.type == self.device.type) != lands:
                raise RuntimeError(f"{name}: a generator of {g.device} draws for another device")

    def check_dtype(self, name, out):
        for v in tree_leaves(out):
            if isinstance(v, torch.Tensor) and v.dtype == torch.float64:
                raise TypeError(f"{name}: float64 on a device that has none")

    def note_wait(self, name, leaves, there, lands, kwargs, args):
        masks = name in ("index", "index_put_", "_index_put_impl_") and any(
            isinstance(v, There) and v.dtype == torch.bool for v in tree_leaves(args[1])
        )
        down = name == "_to_copy" and there and not lands
        up = name == "_to_copy" and lands and not there and not kwargs.get("non_blocking")
        up = up or name == "copy_" and there and not isinstance(args[1], There)
        if (there and (name in READS or masks)) or down or up:
            self.waits.append(f"{name} (upload)" if up else name)


def _split_to(args, kwargs):
    "What `Tensor.to` was asked for: device, and all else by name."
    how = dict(kwargs)
    for a in args:
        if isinstance(a, torch.Tensor):
            how.update(device=a.device, dtype=a.dtype)
        elif isinstance(a, torch.dtype):
            how["dtype"] = a
        elif isinstance(a, bool):
            how["non_blocking"] = a
        elif a is not None:
            how["device"] = torch.device(a)
    device = how.pop("device", None)
    return None if device is None else torch.device(device), how


@contextlib.contextmanager
def pretend_device():
    "(the device, the list of what made it wait so far)"
    device, plain_to = torch.device("meta"), torch.Tensor.to

    def moved(make):  # from numbers: the real ones would ask for hardware
        def call(v, *args, device=None, **kwargs):
            out = make(v, *args, **kwargs)
            return out if device is None else out.to(device)

        return call

    def to(self, *args, **kwargs):
        where, how = _split_to(args, kwargs)
        if where is None or where.type != device.type:
            return plain_to(self, *args, **kwargs)
        if isinstance(self, There) and how.get("dtype", self.dtype) == self.dtype:
            return self.clone() if how.get("copy") else self
        how.pop("copy", None)
        return torch.ops.aten._to_copy(self, device=device, **how)

    tools = dict(tensor=moved(torch.tensor), as_tensor=moved(torch.as_tensor))
    with (
        mock.patch.multiple(torch, Generator=Generator, **tools),
        mock.patch.object(torch.Tensor, "to", to),
        Pretend(device) as mode,
    ):
        yield device, mode.waits
