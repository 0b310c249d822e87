"""Times and profiles of what runs on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from elsewhere.models import Model
from elsewhere.models.forward import computing
from elsewhere.types import Precision

WAITS = (
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::to",
    "aten::_to_copy",
    "aten::copy_",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpyAsync",
    "cudaLaunchKernel",
    "cudaGraphLaunch",
    "Memcpy DtoH (Device -> Pageable)",
    "Memcpy DtoH (Device -> Pinned)",
    "Memcpy HtoD (Pageable -> Device)",
    "Memcpy HtoD (Pinned -> Device)",
)
"""What waits for the device, or is counted beside that."""


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(
    run: Callable[[], object], device: torch.device, *, each: int, most: int, seconds: float
) -> float:
    """Return the median time of a call: of up to `most` stretches of `each`, after a first one."""
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) <= most:
        synchronise(device)
        first = time.perf_counter()
        for _ in range(each if taken else 1):
            run()
        synchronise(device)
        now = time.perf_counter()
        taken.append((now - first) / (each if taken else 1))
        if len(taken) > 1 and now - began > seconds:
            break
    return statistics.median(taken[1:])


def bare_passes(
    model: Model,
    canvas: int,
    batches: Sequence[int],
    *,
    backward: bool = False,
    precision: Precision = "float32",
) -> dict[int, float]:
    """Return images a second of plain passes by their rows, at the better memory format.

    Images lie ready on the device; with `backward`, the images' gradients are computed as well.
    """
    device, rates = model.device, dict.fromkeys(batches, 0.0)
    network = model.module.eval()
    trained = [each.requires_grad for each in network.parameters()]
    network.requires_grad_(not backward and any(trained))
    for order in (torch.contiguous_format, torch.channels_last):
        for rows in batches:
            images = torch.rand(rows, 3, canvas, canvas, device=device)
            images = images.contiguous(memory_format=order)

            def forward(images: torch.Tensor = images) -> None:
                with torch.inference_mode():
                    network(images)

            def there_and_back(images: torch.Tensor = images) -> None:
                shown = images.detach().requires_grad_(True)
                torch.autograd.grad(network(shown)[:, 0].sum(), shown)

            with computing(device, precision):
                run = there_and_back if backward else forward
                each = max(1, 256 // rows) if device.type == "cuda" else 1
                taken = median_seconds(run, device, each=each, most=5, seconds=2)
            rates[rows] = max(rates[rows], rows / taken)
    for parameter, needs in zip(network.parameters(), trained, strict=True):
        parameter.requires_grad_(needs)
    return rates


def profiled(
    name: str, run: Callable[[], object], n_images: int, device: torch.device, top: int = 8
) -> str:
    """Return as Markdown what a stretch does: operators by their time, what waits, counts."""
    run()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    synchronise(device)
    with profile(activities=activities) as found:
        began = time.perf_counter()
        run()
        synchronise(device)
        wall = time.perf_counter() - began
    rows = list(found.key_averages())
    busy = sum(row.self_device_time_total for row in rows if not row.key.startswith("cuda")) / 1e6
    lines = [
        f"## {name}: {n_images} images in {wall:.2f} s with the profiler, "
        f"the device busy {busy:.2f} s",
        "",
    ]
    kinds = [("device", "self_device_time_total")] if on_gpu else []
    for what, key in [*kinds, ("host", "self_cpu_time_total")]:
        best = sorted(rows, key=lambda row: -getattr(row, key))[:top]
        shown = (f"{r.key[:60]} {getattr(r, key) / 1e3:.1f} ms ({r.count})" for r in best)
        lines.append(f"- {what}: " + "; ".join(shown))
    counts = {row.key: row.count for row in rows if row.key in WAITS or row.key.startswith("Memcp")}
    lines.append("- counts: " + "; ".join(f"{key} {n}" for key, n in sorted(counts.items())))
    return "\n".join(lines) + "\n"
