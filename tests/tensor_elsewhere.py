"""A tensor that NumPy cannot read where it is, on machines without a GPU."""

import torch


class TensorElsewhere(torch.Tensor):
    """Like a tensor on a GPU: it has to be brought to the CPU first."""

    def cpu(self):
        """Return the same as a tensor like any other."""
        return self.as_subclass(torch.Tensor)

    def __array__(self, *args):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def numpy(self, *args, **kwargs):
        """Fail as tensors on a GPU do."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def elsewhere(tensor):
    """Return a tensor as one that is not on the CPU."""
    return tensor.as_subclass(TensorElsewhere)
