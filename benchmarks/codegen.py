"""What Inductor generates for an H100 that is not there: kernels, library calls and bytes of one iteration.

Nothing is computed: all tensors are PyTorch's fake ones. The iteration is traced on the CPU, because autograd
asks the driver for a card as soon as a tensor claims to be on one. The trace is then moved to `cuda:0`, and
Inductor works on it as on any other, up to the point where it would hand its kernels to Triton.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from attacks.engine import steps
from attacks.engine.iteration import Iteration
from attacks.engine.runners import Inputs
from benchmarks.measure import computes
from dpbench.protocol import InputError

CARD = torch.device("cuda", 0)
H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    total_memory=80 * 2**30,
    shared_memory_per_block=48 * 2**10,
    shared_memory_per_block_optin=227 * 2**10,
    shared_memory_per_multiprocessor=228 * 2**10,
    L2_cache_size=50 * 2**20,
)
COMPILE = "torch._inductor.compile"
LOAD = "torch._inductor.graph.GraphLowering.compile_to_module"
FOLD = "torch._inductor.fx_passes.joint_graph.UniformValueConstantFolder._deduce_value"
ANSWERS = {
    "torch._inductor.scheduler.has_triton": True,
    "torch.cuda._get_device_index": 0,
    "torch.cuda._lazy_init": None,
    "torch.cuda.current_device": 0,
    "torch.cuda.device_count": 1,
    "torch.utils._triton.triton_hash_with_backend": "none",
}
"""Functions that would ask the driver, and what they say instead."""
PATCHED = (COMPILE, LOAD, FOLD, *ANSWERS)
"""What is replaced of PyTorch, beside `_get_device_properties`, which is defined once CUDA is initialised."""


@dataclass(frozen=True)
class Generated:
    """One iteration's code.

    Attributes:
        operations: those of the plain iteration, which launch at least a kernel each on the engine `graph`.
        launches: of Triton kernels.
        kernels: different ones among them.
        calls: of libraries: convolutions, matrix products, and what Inductor has no code for.
        moved: bytes that Triton kernels read and write, each buffer once a kernel.
        library_moved: likewise by libraries.
        flop: floating-point operations of the libraries.
        code: Python, with the kernels in it.
    """

    operations: int
    launches: int
    kernels: int
    calls: int
    moved: int
    library_moved: int
    flop: int
    code: str


class _Done(BaseException):
    """Ends compilation; no `Exception`, which Inductor would wrap."""


class _OnCPU(TorchDispatchMode):
    """Makes on the CPU what is asked for on the card: constants that Inductor folds."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": torch.device("cpu")} if "device" in kwargs else kwargs))


def generate(iteration: Iteration, inputs: Inputs) -> Generated:
    """The code of an iteration on a card.

    Args:
        iteration: on the CPU.
        inputs: in the layout that a card gets (`Inputs.copied`); their values are not read.

    Raises:
        InputError: where Triton is missing, or this version of PyTorch lacks what has to be replaced.
        ArithmeticError: where the iteration holds a constant that would be copied from the host each time.
    """
    if importlib.util.find_spec("triton") is None:
        raise InputError(
            "Inductor writes no code for a card without Triton: `pip install triton`, in the version that "
            f"PyTorch {torch.__version__.split('+')[0]} is released with."
        )
    mode, found = FakeTensorMode(), []
    with _pretended(mode, found), mode:
        tensors, flat, row, labels, noise = inputs
        fake = Inputs(
            {name: _fake(mode, t) for name, t in tensors.items()},
            [_fake(mode, t) for t in flat],
            _fake(mode, row),
            _fake(mode, labels),
            [_fake(mode, t) for t in noise],
        )
        with suppress(_Done):
            steps.compiled(iteration, fake)
    operations, counted = found
    return Generated(operations, **counted)


def _fake(mode: FakeTensorMode, like: Tensor, device: torch.device | None = None) -> Tensor:
    with mode:
        made = torch.empty_strided(
            like.shape, like.stride(), dtype=like.dtype, device=device or torch.device("cpu")
        )
    return made.requires_grad_(like.requires_grad)


@contextmanager
def _pretended(mode: FakeTensorMode, found: list[Any]) -> Iterator[None]:
    """Context in which Inductor believes in a card; `found` gets the operations and what was counted."""
    from torch._inductor import config, graph

    real = existing()

    def compile_(traced: GraphModule, arguments: list[Tensor]) -> None:
        found.append(sum(computes(n.target) for n in traced.graph.nodes if isinstance(n.target, OpOverload)))
        with config.patch(steps.ON_CARD):
            real[COMPILE](moved(traced), [_fake(mode, t, CARD) for t in arguments])

    def count(self: graph.GraphLowering) -> None:
        code = self.codegen()[0].value
        found.append(
            _counted(self.scheduler.nodes, code) | {"flop": sum(map(_flop, self.module.graph.nodes))}
        )
        raise _Done

    def fold(self: Any, node: torch.fx.Node) -> Any:
        with _OnCPU():
            return real[FOLD](self, node)

    with ExitStack() as stack:
        for name, other in ((COMPILE, compile_), (LOAD, count), (FOLD, fold)):
            stack.enter_context(mock.patch(name, other))
        for name, answer in ANSWERS.items():
            stack.enter_context(mock.patch(name, return_value=answer))
        stack.enter_context(mock.patch("torch.cuda._get_device_properties", return_value=H100, create=True))
        stack.enter_context(mock.patch("attacks.engine.products.on_cpu", return_value=False))
        stack.enter_context(config.patch(force_disable_caches=True, compile_threads=1))
        yield


def existing() -> dict[str, Any]:
    """What `PATCHED` names, as PyTorch has it.

    Raises:
        InputError: where something of it does not exist.
    """
    found = {}
    for name in PATCHED:
        try:
            found[name] = pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            raise InputError(
                f"PyTorch {torch.__version__} has no {name}, which code generation without a card replaces: "
                "use PyTorch 2.14, or adapt benchmarks/codegen.py."
            ) from None
    return found


def moved(traced: GraphModule) -> GraphModule:
    """The trace with everything it makes on the card."""
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            raise ArithmeticError(f"{node.target} is a constant that each iteration would copy to the card.")
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": CARD}
    traced.recompile()
    return traced


def _counted(nodes: list[Any], code: str) -> dict[str, Any]:
    """Fields of `Generated`, from Inductor's scheduler and the code it wrote."""
    libraries = [node for node in nodes if node.is_extern()]
    return {
        "launches": code.count(".run("),
        "kernels": code.count("async_compile.triton("),
        "calls": sum(type(node.node).__name__ != "MultiOutput" for node in libraries),
        "moved": sum(node.get_read_write_buffers_sizes() for node in nodes if not node.is_extern()),
        "library_moved": sum(node.get_read_write_buffers_sizes() for node in libraries),
        "code": code,
    }


def _flop(node: torch.fx.Node) -> int:
    """Floating-point operations of one node of the graph that Inductor lowers."""
    operation = getattr(node.target, "_overloadpacket", None)
    if operation not in flop_registry:
        return 0
    args, kwargs, made = map_arg((node.args, node.kwargs, node), lambda n: n.meta["val"])
    return flop_registry[operation](*args, **kwargs, out_val=made)
