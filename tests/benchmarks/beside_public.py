"""The first 100 steps beside the public code:   python tests/benchmarks/beside_public.py METHOD FOLDER [--rate 1e-3] [--seeds 0 1 2] [--csv FILE]

FOLDER is a clone that you made of the code that the authors of METHOD published (none of it is in this repository):

    masks      git clone https://github.com/Tobi-r9/RaMViD
    residual   git clone https://github.com/buggyyang/RVD
    vector     git clone https://github.com/Yaofang-Liu/FVDM

Theirs: their network, their diffusion and their loss, imported from FOLDER, in their configuration but smaller, so that a CPU trains 100 steps in
minutes. Ours: the preset `paper`, made as small. Both see the same clips in the same order, with AdamW, the paper's rate (or --rate) and its bound on
the gradient. The noise and the times are drawn by each code itself. Printed are the means of both losses over steps 1 to 10, 11 to 50 and 51 to 100.

Packages: those of vidiffedu, and einops. What the public files import and these losses never call (kornia, ipdb) is replaced by empty modules; of timm,
FVDM uses two layers, which stand below."""

import argparse
import csv
import datetime
import importlib
import importlib.util
import os
import platform
import random
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from vidiffedu import configs, parts  # noqa: E402
from vidiffedu.core import seeded  # noqa: E402
from vidiffedu.data import bouncing  # noqa: E402

WINDOWS = ((1, 10), (11, 50), (51, 100))  # steps, first and last
NONE = {
    "score": "its authors promised code; none was found",
    "bridge": "no public code was found",
}


# ---------------------------------------------------------------- what the public files import


class Mlp(nn.Module):
    "As timm's: two linear layers around an activation."

    def __init__(self, in_features, hidden_features, act_layer, drop=0):
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbed(nn.Module):
    "As timm's: each square of pixels becomes a token."

    def __init__(self, size, patch, channels, width, bias=True):
        super().__init__()
        self.patch_size, self.num_patches = (patch, patch), (size // patch) ** 2
        self.proj = nn.Conv2d(channels, width, patch, patch, bias=bias)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


def stand_ins():
    "Empty modules where a package is missing that is imported and not needed."
    for name in ("kornia", "ipdb", "timm", "timm.models"):
        if name.split(".")[0] == "timm" or importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
    layers = types.ModuleType("timm.models.vision_transformer")
    layers.Mlp, layers.PatchEmbed = Mlp, PatchEmbed
    sys.modules[layers.__name__] = layers


def module_of(folder, path):
    "The module of a file below `folder`, alone: its package is not imported."
    spec = importlib.util.spec_from_file_location(Path(path).stem, folder / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- theirs


def theirs_masks(folder, c):
    "RaMViD: its README's flags for Kinetics-600, narrower -> (modules, loss of clips b f c h w)."
    code = importlib.import_module("diffusion_openai.script_util")
    flags = code.model_and_diffusion_defaults()
    flags |= dict(image_size=64, num_channels=c.net["width"], scale_time_dim=0)
    flags |= dict(num_res_blocks=c.net["blocks"], diffusion_steps=1000, noise_schedule="linear")
    net, diffusion = code.create_model_and_diffusion(**flags)
    how = dict(max_num_mask_frames=4, mask_range=[0, c.frames], uncondition_rate=0.25)

    def loss(clip):
        t = torch.randint(0, 1000, (len(clip),))
        return diffusion.training_losses(net, clip.transpose(1, 2), t, **how)["loss"].mean()

    return net, loss


def theirs_residual(folder, c):
    "RVD at the multiples of its 128x128; squared errors, as its paper prints, not its default of |.|."
    nets, memory = (importlib.import_module(f"modules.{n}") for n in ("unet", "temporal_models"))
    code = importlib.import_module("modules.denoising_diffusion")
    width, mults, context = (c.net[k] for k in ("width", "mults", "context"))
    model = code.GaussianDiffusion(
        denoise_fn=nets.Unet(dim=width, dim_mults=context, channels=c.channels),
        history_fn=memory.CondNet(dim=width, dim_mults=context, channels=c.channels),
        transform_fn=memory.HistoryNet(dim=width, dim_mults=mults, channels=c.channels),
        timesteps=1600,
        loss_type="l2",
        aux_loss=False,
    )
    return model, lambda clip: model(clip.transpose(0, 1))


def theirs_vector(folder, c):
    "FVDM: its smallest transformer with learned variance, its loss, and its draw of times."
    code = importlib.import_module("diffusion")
    net = module_of(folder, "models/latte_video.py").LatteVIDEO(
        input_size=c.size,
        hidden_size=c.net["width"],
        depth=c.net["depth"],
        num_heads=c.net["heads"],
        num_frames=c.frames,
    )
    diffusion = code.create_diffusion(timestep_respacing="")

    def loss(clip):
        t = torch.randint(0, 1000, (len(clip), 1)).repeat(1, clip.shape[1])
        if torch.rand(1).item() < 0.2:
            t = torch.randint(0, 1000, clip.shape[:2])
        return diffusion.training_losses_video(net, clip, t, dict(y=None))[0]["loss"].mean()

    return net, loss


# method: (theirs, a file that the clone must have, settings that make our preset small)
METHODS = {
    "masks": (
        theirs_masks,
        "diffusion_openai/script_util.py",
        dict(size=16, frames=8, batch_size=2, net=dict(width=32, blocks=2, checkpoint=False)),
    ),
    "residual": (
        theirs_residual,
        "modules/denoising_diffusion.py",
        dict(size=32, frames=8, batch_size=2, net=dict(width=16), options=dict(scale=1.0)),
    ),
    "vector": (
        theirs_vector,
        "models/latte_video.py",
        dict(size=8, channels=4, latent=None, net=dict(width=192, depth=6, heads=3)),
    ),
}


# ---------------------------------------------------------------- both


def settings(method):
    "Our preset `paper` at the small size."
    config, changes = configs.preset(method, "paper"), dict(METHODS[method][2])
    for name in ("net", "options"):
        changes[name] = getattr(config, name) | changes.get(name, {})
    return configs.changed(config, changes | dict(compile=False, precision="no"))


def ours(c):
    "(method, loss of clips b f c h w); the noise comes from a generator of its own."
    model, generator = parts.method_of(c, range=None), seeded(torch.initial_seed())
    return model, lambda clip: model.loss(clip, generator)


def batches(c, steps, seed):
    "Clips (b f c h w) in [-1, 1] of moving shapes; four channels are the pixels of 2x2 squares."
    patch = 2 if c.channels == 4 else 1
    for i in range(steps):
        generator = seeded(1000 * seed + i)
        clip = bouncing(c.batch_size, c.frames, c.size * patch, generator=generator)
        yield F.pixel_unshuffle(clip, 2) if patch == 2 else clip.repeat(1, 1, c.channels, 1, 1)


def train(model, loss, clips, rate, bound):
    "AdamW on one clip after the other -> the losses before each step."
    optimizer, losses = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0), []
    model.train()
    for clip in clips:
        value = loss(clip)
        optimizer.zero_grad()
        value.backward()
        if bound:
            nn.utils.clip_grad_norm_(model.parameters(), bound)
        optimizer.step()
        losses.append(value.item())
    return losses


def windows(losses):
    "Means over the steps of `WINDOWS`, counted from 1, as far as there are losses."
    return [float(np.mean(losses[a - 1 : b])) for a, b in WINDOWS if len(losses) >= a]


def weights(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def commit(folder):
    words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip()[:12] if done.returncode == 0 else "not a clone"


def checked(method, folder):
    "The chapter's name of the method, or one line."
    method = configs.method_name(method)
    if method in NONE:
        raise ValueError(
            f"METHOD: got {method}, expected one of {', '.join(METHODS)}: {NONE[method]}"
        )
    if not (Path(folder) / METHODS[method][1]).is_file():
        want = f"a clone of the public code, with {METHODS[method][1]}"
        raise ValueError(f"FOLDER: got {str(folder)!r}, expected {want}")
    return method


def beside(method, folder, seed, rate=None, steps=100):
    "A row of the table: both losses, window by window."
    c, row, begun = settings(method), {}, time.process_time()
    rate = c.lr if rate is None else rate
    for who, make in dict(
        theirs=lambda: METHODS[method][0](folder, c), ours=lambda: ours(c)
    ).items():
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        model, loss = make()
        found = train(model, loss, batches(c, steps, seed), rate, c.clip_norm)
        row |= {f"{who} {a}-{b}": round(v, 5) for (a, b), v in zip(WINDOWS, windows(found))}
        row[f"{who} weights"] = weights(model)
    fixed = dict(method=method, rate=rate, seed=seed, steps=steps, commit=commit(folder))
    return fixed | row | dict(seconds=round(time.process_time() - begun))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("method")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, help="instead of the paper's")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csv", help="add the rows to this table")
    args = parser.parse_args()
    try:
        method, folder = checked(args.method, args.folder), args.folder.resolve()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    stand_ins()
    sys.path.insert(0, str(folder))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    fixed = dict(hardware=f"{platform.machine()}, {os.cpu_count()} cores", torch=torch.__version__)
    fixed["date"] = datetime.date.today().isoformat()
    for seed in args.seeds:
        row = beside(method, folder, seed, args.rate, args.steps) | fixed
        print(f"{method}, seed {seed}, rate {row['rate']:g}: {row['theirs weights']:,} weights in")
        print(f"the public code, {row['ours weights']:,} in ours; the loss:")
        for a, b in WINDOWS:
            if f"ours {a}-{b}" in row:
                theirs, own = row[f"theirs {a}-{b}"], row[f"ours {a}-{b}"]
                print(
                    f"  steps {a:2d} to {b:3d}   {theirs:.4f} {own:.4f}   ratio {own / theirs:.3f}"
                )
        if args.csv:
            new = not Path(args.csv).exists()
            with open(args.csv, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    main()
