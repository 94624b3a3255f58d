"""Records the operations of the author's code on a module's tensors, without executing them.

Two modes of torch intercept everything: one the calls of torch's functions, the other the
operations below them. An operation that would write a named tensor, or that uses random numbers, is
not executed. Its outcome is kept as a `Value`, and its result is memory of the right size that is
never touched. Computations with known numbers run as they are. So the author's code sees the
module's own tensors, on their own device, with their own attributes. No byte of the tensors is read
or written, no memory is used for draws, and no generator changes its state.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from winit_fast.torch.dispatch_mode import DispatchMode
from winit_fast.torch.function_mode import FunctionMode
from winit_fast.torch.recorder import Recorder


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record the operations of the code inside, in this thread."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(FunctionMode(recorder))
        stack.enter_context(DispatchMode(recorder))
        yield
