"""What `fit` costs beyond forward, backward, clipping and AdamW:   python tests/benchmarks/train_overhead.py
Interleaved rounds of a bare loop and of `fit` (EMA, schedule, range check, live loss, bar, its own set-up)
on the same network and clips; medians over the rounds. On a CPU one thread is used and its processor time
counted, so that other work on the machine matters little; on a GPU the clock on the wall."""

import platform
import statistics
import time

import torch
from torch import nn

from vidiffedu.train import fit


class Denoiser(nn.Module):
    def __init__(self, width, frames=3):
        super().__init__()
        sizes = [frames, width, width, width, 1]
        layers = [
            layer
            for i, o in zip(sizes, sizes[1:])
            for layer in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())
        ]
        self.net = nn.Sequential(*layers[:-1])

    def loss(self, clip, generator=None):
        x, past = clip[:, -1], clip[:, :-1, 0]
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        return (self.net(torch.cat([past, x + 0.3 * noise], 1)) - x).square().mean()


def now():
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def bare(model, clips, steps, batch_size=32, fused=True):
    "Forward, backward, clipping, AdamW: nothing else."
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=fused)
    generator = torch.Generator(clips.device).manual_seed(0)
    begun = now()
    for _ in range(steps):
        rows = torch.randint(len(clips), (batch_size,), generator=generator, device=clips.device)
        optimizer.zero_grad(set_to_none=True)
        model.loss(clips[rows], generator).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return (now() - begun) / steps


def measure(width, steps, rounds=5):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clips = torch.rand(512, 3, 1, 16, 16, device=device) * 2 - 1
    model = Denoiser(width).to(device)
    bare(model, clips, 20), fit(model, clips, 20, progress=False)
    naive, ours = [], []
    for _ in range(rounds):
        naive.append(bare(model, clips, steps))
        begun = now()
        fit(model, clips, steps)
        ours.append((now() - begun) / steps)
    extra = statistics.median(o - n for o, n in zip(ours, naive))
    ratio = statistics.median(o / n for o, n in zip(ours, naive))
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{size:7d} weights: bare {1e3 * statistics.median(naive):7.3f} ms a step, "
        f"fit {1e3 * statistics.median(ours):7.3f} ms, +{1e6 * extra:4.0f} us, +{100 * (ratio - 1):.1f}%",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for width, steps in [(16, 200), (32, 100), (64, 40)]:
        measure(width, steps)
    for fused in (False, True):
        times = [
            bare(Denoiser(32), torch.rand(512, 3, 1, 16, 16) * 2 - 1, 60, fused=fused)
            for _ in range(5)
        ]
        print(f"AdamW fused={fused}: {1e3 * statistics.median(times):.3f} ms a step")
