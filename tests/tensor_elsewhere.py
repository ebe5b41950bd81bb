"""A tensor that behaves like a tensor on a GPU, for machines without one."""

import torch


class TensorElsewhere(torch.Tensor):
    """Tensor that NumPy cannot convert unless it is moved to the CPU first."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def __array__(self, *args):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def elsewhere(tensor):
    """Return a view of a tensor that behaves as if it were not on the CPU."""
    return tensor.as_subclass(TensorElsewhere)
